"""The short way of what most clients of the JSON gateway send: KV.Put and KV.Range, text ↔ protobuf's bytes.

The same texts and bytes as :mod:`actors.kv.rpc.json_form`, for which all is left that isn't written plainly here.
"""

import binascii
from collections.abc import Callable

import msgspec

from actors.kv.proto import etcd_wire as wire


class _Put(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Bytes are in standard base64 with its padding; numbers, and other names of the fields, aren't known here."""

    key: bytes = b""
    value: bytes = b""
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class _Range(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    key: bytes = b""
    range_end: bytes = b""
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False


_puts = msgspec.json.Decoder(_Put)
_ranges = msgspec.json.Decoder(_Range)


def load_put(text: bytes) -> bytes | None:
    """A PutRequest's bytes; None: it takes the long way."""
    try:
        asked = _puts.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return wire.encode_put_request(asked.key, asked.value, 0, asked.prev_kv, asked.ignore_value, asked.ignore_lease)


def load_range(text: bytes) -> bytes | None:
    """A RangeRequest's bytes; None: it takes the long way."""
    try:
        asked = _ranges.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return wire.encode_range_request(
        asked.key,
        asked.range_end,
        serializable=asked.serializable,
        keys_only=asked.keys_only,
        count_only=asked.count_only,
    )


def dump_put(raw: bytes) -> bytes:
    """JSON of a PutResponse's bytes."""
    made = wire.decode_put_response(raw)
    parts: list[str] = []
    if made.header is not None:
        parts.append(_header(made.header))
    if made.prev_kv is not None:
        parts.append('"prev_kv":' + _key_value(made.prev_kv))
    return ("{" + ",".join(parts) + "}").encode()


def dump_range(raw: bytes) -> bytes:
    """JSON of a RangeResponse's bytes."""
    made = wire.decode_range_response(raw)
    parts: list[str] = []
    if made.header is not None:
        parts.append(_header(made.header))
    if made.kvs:
        parts.append('"kvs":[' + ",".join([_key_value(one) for one in made.kvs]) + "]")
    if made.more:
        parts.append('"more":true')
    if made.count:
        parts.append(f'"count":"{made.count}"')
    return ("{" + ",".join(parts) + "}").encode()


def _header(header: wire.ResponseHeader) -> str:
    parts: list[str] = []
    if header.cluster_id:
        parts.append(f'"cluster_id":"{header.cluster_id}"')
    if header.member_id:
        parts.append(f'"member_id":"{header.member_id}"')
    if header.revision:
        parts.append(f'"revision":"{header.revision}"')
    if header.raft_term:
        parts.append(f'"raft_term":"{header.raft_term}"')
    return '"header":{' + ",".join(parts) + "}"


def _key_value(kv: wire.KeyValue) -> str:
    parts: list[str] = []
    if kv.key:
        parts.append(f'"key":"{_base64(kv.key)}"')
    if kv.create_revision:
        parts.append(f'"create_revision":"{kv.create_revision}"')
    if kv.mod_revision:
        parts.append(f'"mod_revision":"{kv.mod_revision}"')
    if kv.version:
        parts.append(f'"version":"{kv.version}"')
    if kv.value:
        parts.append(f'"value":"{_base64(kv.value)}"')
    if kv.lease:
        parts.append(f'"lease":"{kv.lease}"')
    return "{" + ",".join(parts) + "}"


def _base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode()


#: By gRPC path: how a request is read, and an answer written.
SHORT: dict[str, tuple[Callable[[bytes], bytes | None], Callable[[bytes], bytes]]] = {
    "/etcdserverpb.KV/Put": (load_put, dump_put),
    "/etcdserverpb.KV/Range": (load_range, dump_range),
}
