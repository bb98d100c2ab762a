"""The short way of what most clients of the JSON gateway send: KV.Put and KV.Range, JSON → requests, protobuf → JSON.

The same requests and texts as :mod:`actors.kv.rpc.json_form`, for which all is left that isn't written plainly here.
"""

import binascii
from collections.abc import Callable

import msgspec

from actors.kv.proto import etcd_wire as wire
from actors.kv.rpc.json_kinds import Put, Range

_puts = msgspec.json.Decoder(Put)
_ranges = msgspec.json.Decoder(Range)

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


def dump_put(raw: bytes) -> bytes:
    """JSON of a PutResponse's bytes."""
    made = wire.decode_put_response(raw)
    parts: list[bytes] = []
    if made.header is not None:
        parts.append(_header(made.header))
    if made.prev_kv is not None:
        parts.append(b'"prev_kv":' + _key_value(made.prev_kv))
    return b"{" + b",".join(parts) + b"}"


def dump_range(raw: bytes) -> bytes:
    """JSON of a RangeResponse's bytes."""
    made = wire.decode_range_response(raw)
    parts: list[bytes] = []
    if made.header is not None:
        parts.append(_header(made.header))
    if made.kvs:
        parts.append(b'"kvs":[' + b",".join([_key_value(one) for one in made.kvs]) + b"]")
    if made.more:
        parts.append(b'"more":true')
    if made.count:
        parts.append(b'"count":"%d"' % made.count)
    return b"{" + b",".join(parts) + b"}"


#: The ids of the last header, and their text: they are always the same but for revision and term.
_ids: tuple[int, int, str] = (0, 0, "")


def _header(header: wire.ResponseHeader) -> bytes:
    global _ids
    cluster, member = header.cluster_id, header.member_id
    if _ids[0] != cluster or _ids[1] != member:
        shown = f'"cluster_id":"{cluster}",' if cluster else ""
        _ids = (cluster, member, shown + (f'"member_id":"{member}",' if member else ""))
    text = _ids[2]
    if header.revision:
        text += f'"revision":"{header.revision}",'
    if header.raft_term:
        text += f'"raft_term":"{header.raft_term}",'
    return ('"header":{' + text[:-1] + "}").encode()


def _key_value(kv: wire.KeyValue) -> bytes:
    parts: list[bytes] = []
    if kv.key:
        parts += (b'"key":"', binascii.b2a_base64(kv.key, newline=False), b'",')
    numbers = ""
    if kv.create_revision:
        numbers = f'"create_revision":"{kv.create_revision}",'
    if kv.mod_revision:
        numbers += f'"mod_revision":"{kv.mod_revision}",'
    if kv.version:
        numbers += f'"version":"{kv.version}",'
    parts.append(numbers.encode())
    if kv.value:
        parts += (b'"value":"', binascii.b2a_base64(kv.value, newline=False), b'",')
    if kv.lease:
        parts.append(b'"lease":"%d",' % kv.lease)
    return b"{" + b"".join(parts)[:-1] + b"}"


#: By gRPC path: how a request is read, and an answer written.
SHORT: dict[str, tuple[Callable[[bytes], Asked | None], Callable[[bytes], bytes]]] = {
    "/etcdserverpb.KV/Put": (load_put, dump_put),
    "/etcdserverpb.KV/Range": (load_range, dump_range),
}
