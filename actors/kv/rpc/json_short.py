"""The short way of what most clients of the JSON gateway send: KV.Put and KV.Range, JSON → requests, answers → JSON.

The same requests and texts as :mod:`actors.kv.rpc.json_form`, for which all is left that isn't written plainly here.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from actors.kv.proto import etcd_wire as wire
from actors.kv.rpc import told
from actors.kv.rpc.json_kinds import Put, Range
from actors.kv.v3.kinds import Query, Ranged, Rev

_puts: Final = msgspec.json.Decoder(Put)
_ranges: Final = msgspec.json.Decoder(Range)
#: Of bytes: base64 in quotes.
_quoted: Final[Callable[[bytes], bytes]] = msgspec.json.Encoder().encode

#: A request, and the bytes that it has in protobuf.
Asked = tuple[wire.PutRequest | wire.RangeRequest, int]


def load_put(text: bytes) -> Asked | None:
    """A PutRequest; None: it takes the long way."""
    try:
        asked: Put = _puts.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    made = wire.PutRequest()
    made.key, made.value = asked.key, asked.value
    made.prev_kv, made.ignore_value, made.ignore_lease = asked.prev_kv, asked.ignore_value, asked.ignore_lease
    size = _size(made.key) + _size(made.value)
    if made.prev_kv:
        size += 2
    if made.ignore_value:
        size += 2
    if made.ignore_lease:
        size += 2
    return made, size


def load_range(text: bytes) -> Asked | None:
    """A RangeRequest; None: it takes the long way."""
    try:
        asked: Range = _ranges.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    made = wire.RangeRequest()
    made.key, made.range_end = asked.key, asked.range_end
    made.serializable, made.keys_only, made.count_only = asked.serializable, asked.keys_only, asked.count_only
    size = _size(made.key) + _size(made.range_end)
    if made.serializable:
        size += 2
    if made.keys_only:
        size += 2
    if made.count_only:
        size += 2
    return made, size


def _size(raw: bytes) -> int:
    """Of a field of bytes: its tag, its length, what is in it; an empty one isn't written."""
    size = length = len(raw)
    if not size:
        return 0
    while length > 127:
        length >>= 7
        size += 1
    return size + 2


# -- answers --------------------------------------------------------------------------------------------------


def put(head: bytes, prev: Rev | None) -> bytes:
    """PutResponse. ``head``: as :func:`header` makes it."""
    if prev is None:
        return b"{" + head + b"}"
    return b"".join((b"{", head, b',"prev_kv":', _rev(prev, prev.value, prev.lease), b"}"))


def ranged(head: bytes, found: Ranged, query: Query) -> bytes:
    """RangeResponse; of leases and values what :func:`actors.kv.rpc.told.ranged` shows."""
    parts = [b"{", head]
    before = b',"kvs":['
    for rev in found.kvs:
        parts.append(before)
        value, lease = told.valued(rev, query.keys_only, query.by)
        parts.append(_rev(rev, value, lease))
        before = b","
    if found.kvs:
        parts.append(b"]")
    if found.more:
        parts.append(b',"more":true')
    if found.count:
        parts.append(b',"count":"%d"' % found.count)
    parts.append(b"}")
    return b"".join(parts)


def _rev(rev: Rev, value: bytes, lease: int) -> bytes:
    return key_value(rev.key, rev.create, rev.mod, rev.version, value, lease)


def key_value(key: bytes, create: int, mod: int, version: int, value: bytes, lease: int) -> bytes:
    numbers = ""
    if create:
        numbers = f'"create_revision":"{create}",'
    if mod:
        numbers += f'"mod_revision":"{mod}",'
    if version:
        numbers += f'"version":"{version}",'
    last = f'"lease":"{lease}",'.encode() if lease else b""
    shown_key = (b'"key":', _quoted(key), b",") if key else (b"", b"", b"")
    shown_value = (b'"value":', _quoted(value), b",") if value else (b"", b"", b"")
    return b"{" + b"".join((*shown_key, numbers.encode(), *shown_value, last))[:-1] + b"}"


def header(header: wire.ResponseHeader) -> bytes:
    """With its name."""
    text = ""
    if header.cluster_id:
        text = f'"cluster_id":"{header.cluster_id}",'
    if header.member_id:
        text += f'"member_id":"{header.member_id}",'
    if header.revision:
        text += f'"revision":"{header.revision}",'
    if header.raft_term:
        text += f'"raft_term":"{header.raft_term}",'
    return ('"header":{' + text[:-1] + "}").encode()


def dump_put(raw: bytes) -> bytes:
    """JSON of a PutResponse's bytes."""
    made = wire.decode_put_response(raw)
    parts: list[bytes] = []
    if made.header is not None:
        parts.append(header(made.header))
    if made.prev_kv is not None:
        parts.append(b'"prev_kv":' + _key_value(made.prev_kv))
    return b"{" + b",".join(parts) + b"}"


def dump_range(raw: bytes) -> bytes:
    """JSON of a RangeResponse's bytes."""
    made = wire.decode_range_response(raw)
    parts: list[bytes] = []
    if made.header is not None:
        parts.append(header(made.header))
    if made.kvs:
        parts.append(b'"kvs":[' + b",".join([_key_value(one) for one in made.kvs]) + b"]")
    if made.more:
        parts.append(b'"more":true')
    if made.count:
        parts.append(b'"count":"%d"' % made.count)
    return b"{" + b",".join(parts) + b"}"


def _key_value(kv: wire.KeyValue) -> bytes:
    return key_value(kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value, kv.lease)


#: By gRPC path: how a request is read, and an answer written.
SHORT: dict[str, tuple[Callable[[bytes], Asked | None], Callable[[bytes], bytes]]] = {
    "/etcdserverpb.KV/Put": (load_put, dump_put),
    "/etcdserverpb.KV/Range": (load_range, dump_range),
}
