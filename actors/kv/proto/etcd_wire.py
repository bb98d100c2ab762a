"""Made by ``python -m actors.kv.proto.wire``: not to be changed by hand.

``decode_x(raw)``: as protobuf reads it, raises its DecodeError. ``encode_x``: fields → bytes as protobuf writes them;
parts are given encoded, None of one that isn't there.
"""

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import kv_pb2
from actors.kv.proto.varints import DEPTH_MAX, PROTOBUFS_DEPTH_MAX, Irregular, canonical, int32, more, signed
from actors.kv.proto.varints import uint64, varint


class ResponseHeader:
    __slots__ = ("cluster_id", "member_id", "raft_term", "revision",)

    def __init__(self) -> None:
        self.cluster_id: int = 0
        self.member_id: int = 0
        self.revision: int = 0
        self.raft_term: int = 0


def decode_response_header(raw: bytes) -> ResponseHeader:
    try:
        return _response_header(raw, 0, len(raw))
    except (Irregular, IndexError):
        raw = canonical(pb.ResponseHeader, raw)
        return _response_header(raw, 0, len(raw))


def _response_header(raw: bytes, at: int, end: int) -> ResponseHeader:
    made = ResponseHeader()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 8:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.cluster_id = number if number < 2147483648 else uint64(number)
        elif tag == 16:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.member_id = number if number < 2147483648 else uint64(number)
        elif tag == 24:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.revision = number
        elif tag == 32:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.raft_term = number if number < 2147483648 else uint64(number)
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_response_header(
    cluster_id: int = 0,
    member_id: int = 0,
    revision: int = 0,
    raft_term: int = 0,
) -> bytes:
    out: list[bytes] = []
    if cluster_id:
        out.append(b"\x08")
        out.append(varint(cluster_id))
    if member_id:
        out.append(b"\x10")
        out.append(varint(member_id))
    if revision:
        out.append(b"\x18")
        out.append(varint(revision))
    if raft_term:
        out.append(b"\x20")
        out.append(varint(raft_term))
    return b"".join(out)


class KeyValue:
    __slots__ = ("create_revision", "key", "lease", "mod_revision", "value", "version",)

    def __init__(self) -> None:
        self.key: bytes = b""
        self.create_revision: int = 0
        self.mod_revision: int = 0
        self.version: int = 0
        self.value: bytes = b""
        self.lease: int = 0


def decode_key_value(raw: bytes) -> KeyValue:
    try:
        return _key_value(raw, 0, len(raw))
    except (Irregular, IndexError):
        raw = canonical(kv_pb2.KeyValue, raw)
        return _key_value(raw, 0, len(raw))


def _key_value(raw: bytes, at: int, end: int) -> KeyValue:
    made = KeyValue()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 10:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.key = raw[at:stop]
            at = stop
        elif tag == 16:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.create_revision = number
        elif tag == 24:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.mod_revision = number
        elif tag == 32:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.version = number
        elif tag == 42:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.value = raw[at:stop]
            at = stop
        elif tag == 48:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.lease = number
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_key_value(
    key: bytes = b"",
    create_revision: int = 0,
    mod_revision: int = 0,
    version: int = 0,
    value: bytes = b"",
    lease: int = 0,
) -> bytes:
    out: list[bytes] = []
    if key:
        out.append(b"\x0a")
        out.append(varint(len(key)))
        out.append(key)
    if create_revision:
        out.append(b"\x10")
        out.append(varint(create_revision))
    if mod_revision:
        out.append(b"\x18")
        out.append(varint(mod_revision))
    if version:
        out.append(b"\x20")
        out.append(varint(version))
    if value:
        out.append(b"\x2a")
        out.append(varint(len(value)))
        out.append(value)
    if lease:
        out.append(b"\x30")
        out.append(varint(lease))
    return b"".join(out)


class Event:
    __slots__ = ("kv", "prev_kv", "type",)

    def __init__(self) -> None:
        self.type: int = 0
        self.kv: KeyValue | None = None
        self.prev_kv: KeyValue | None = None


def decode_event(raw: bytes) -> Event:
    try:
        return _event(raw, 0, len(raw))
    except (Irregular, IndexError):
        raw = canonical(kv_pb2.Event, raw)
        return _event(raw, 0, len(raw))


def _event(raw: bytes, at: int, end: int) -> Event:
    made = Event()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 8:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.type = number if number < 2147483648 else int32(number)
        elif tag == 18:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            if made.kv is not None:
                raise Irregular
            made.kv = _key_value(raw, at, stop)
            at = stop
        elif tag == 26:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            if made.prev_kv is not None:
                raise Irregular
            made.prev_kv = _key_value(raw, at, stop)
            at = stop
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_event(
    type: int = 0,
    kv: bytes | None = None,
    prev_kv: bytes | None = None,
) -> bytes:
    out: list[bytes] = []
    if type:
        out.append(b"\x08")
        out.append(varint(type))
    if kv is not None:
        out.append(b"\x12")
        out.append(varint(len(kv)))
        out.append(kv)
    if prev_kv is not None:
        out.append(b"\x1a")
        out.append(varint(len(prev_kv)))
        out.append(prev_kv)
    return b"".join(out)


class RangeRequest:
    __slots__ = ("count_only", "key", "keys_only", "limit", "max_create_revision", "max_mod_revision", "min_create_revision", "min_mod_revision", "range_end", "revision", "serializable", "sort_order", "sort_target",)

    def __init__(self) -> None:
        self.key: bytes = b""
        self.range_end: bytes = b""
        self.limit: int = 0
        self.revision: int = 0
        self.sort_order: int = 0
        self.sort_target: int = 0
        self.serializable: bool = False
        self.keys_only: bool = False
        self.count_only: bool = False
        self.min_mod_revision: int = 0
        self.max_mod_revision: int = 0
        self.min_create_revision: int = 0
        self.max_create_revision: int = 0


def decode_range_request(raw: bytes) -> RangeRequest:
    try:
        return _range_request(raw, 0, len(raw))
    except (Irregular, IndexError):
        raw = canonical(pb.RangeRequest, raw)
        return _range_request(raw, 0, len(raw))


def _range_request(raw: bytes, at: int, end: int) -> RangeRequest:
    made = RangeRequest()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 10:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.key = raw[at:stop]
            at = stop
        elif tag == 18:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.range_end = raw[at:stop]
            at = stop
        elif tag == 24:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.limit = number
        elif tag == 32:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.revision = number
        elif tag == 40:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.sort_order = number if number < 2147483648 else int32(number)
        elif tag == 48:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.sort_target = number if number < 2147483648 else int32(number)
        elif tag == 56:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.serializable = uint64(number) != 0
        elif tag == 64:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.keys_only = uint64(number) != 0
        elif tag == 72:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.count_only = uint64(number) != 0
        elif tag == 80:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.min_mod_revision = number
        elif tag == 88:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.max_mod_revision = number
        elif tag == 96:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.min_create_revision = number
        elif tag == 104:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.max_create_revision = number
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_range_request(
    key: bytes = b"",
    range_end: bytes = b"",
    limit: int = 0,
    revision: int = 0,
    sort_order: int = 0,
    sort_target: int = 0,
    serializable: bool = False,
    keys_only: bool = False,
    count_only: bool = False,
    min_mod_revision: int = 0,
    max_mod_revision: int = 0,
    min_create_revision: int = 0,
    max_create_revision: int = 0,
) -> bytes:
    out: list[bytes] = []
    if key:
        out.append(b"\x0a")
        out.append(varint(len(key)))
        out.append(key)
    if range_end:
        out.append(b"\x12")
        out.append(varint(len(range_end)))
        out.append(range_end)
    if limit:
        out.append(b"\x18")
        out.append(varint(limit))
    if revision:
        out.append(b"\x20")
        out.append(varint(revision))
    if sort_order:
        out.append(b"\x28")
        out.append(varint(sort_order))
    if sort_target:
        out.append(b"\x30")
        out.append(varint(sort_target))
    if serializable:
        out.append(b"\x38\x01")
    if keys_only:
        out.append(b"\x40\x01")
    if count_only:
        out.append(b"\x48\x01")
    if min_mod_revision:
        out.append(b"\x50")
        out.append(varint(min_mod_revision))
    if max_mod_revision:
        out.append(b"\x58")
        out.append(varint(max_mod_revision))
    if min_create_revision:
        out.append(b"\x60")
        out.append(varint(min_create_revision))
    if max_create_revision:
        out.append(b"\x68")
        out.append(varint(max_create_revision))
    return b"".join(out)


class RangeResponse:
    __slots__ = ("count", "header", "kvs", "more",)

    def __init__(self) -> None:
        self.header: ResponseHeader | None = None
        self.kvs: list[KeyValue] = []
        self.more: bool = False
        self.count: int = 0


def decode_range_response(raw: bytes) -> RangeResponse:
    try:
        return _range_response(raw, 0, len(raw))
    except (Irregular, IndexError):
        raw = canonical(pb.RangeResponse, raw)
        return _range_response(raw, 0, len(raw))


def _range_response(raw: bytes, at: int, end: int) -> RangeResponse:
    made = RangeResponse()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 10:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            if made.header is not None:
                raise Irregular
            made.header = _response_header(raw, at, stop)
            at = stop
        elif tag == 18:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.kvs.append(_key_value(raw, at, stop))
            at = stop
        elif tag == 24:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.more = uint64(number) != 0
        elif tag == 32:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.count = number
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_range_response(
    header: bytes | None = None,
    kvs: list[bytes] | None = None,
    more: bool = False,
    count: int = 0,
) -> bytes:
    out: list[bytes] = []
    if header is not None:
        out.append(b"\x0a")
        out.append(varint(len(header)))
        out.append(header)
    if kvs is not None:
        for one in kvs:
            out.append(b"\x12")
            out.append(varint(len(one)))
            out.append(one)
    if more:
        out.append(b"\x18\x01")
    if count:
        out.append(b"\x20")
        out.append(varint(count))
    return b"".join(out)


class RangeStreamResponse:
    __slots__ = ("range_response",)

    def __init__(self) -> None:
        self.range_response: RangeResponse | None = None


def decode_range_stream_response(raw: bytes) -> RangeStreamResponse:
    try:
        return _range_stream_response(raw, 0, len(raw))
    except (Irregular, IndexError):
        raw = canonical(pb.RangeStreamResponse, raw)
        return _range_stream_response(raw, 0, len(raw))


def _range_stream_response(raw: bytes, at: int, end: int) -> RangeStreamResponse:
    made = RangeStreamResponse()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 10:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            if made.range_response is not None:
                raise Irregular
            made.range_response = _range_response(raw, at, stop)
            at = stop
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_range_stream_response(
    range_response: bytes | None = None,
) -> bytes:
    out: list[bytes] = []
    if range_response is not None:
        out.append(b"\x0a")
        out.append(varint(len(range_response)))
        out.append(range_response)
    return b"".join(out)


class PutRequest:
    __slots__ = ("ignore_lease", "ignore_value", "key", "lease", "prev_kv", "value",)

    def __init__(self) -> None:
        self.key: bytes = b""
        self.value: bytes = b""
        self.lease: int = 0
        self.prev_kv: bool = False
        self.ignore_value: bool = False
        self.ignore_lease: bool = False


def decode_put_request(raw: bytes) -> PutRequest:
    try:
        return _put_request(raw, 0, len(raw))
    except (Irregular, IndexError):
        raw = canonical(pb.PutRequest, raw)
        return _put_request(raw, 0, len(raw))


def _put_request(raw: bytes, at: int, end: int) -> PutRequest:
    made = PutRequest()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 10:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.key = raw[at:stop]
            at = stop
        elif tag == 18:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.value = raw[at:stop]
            at = stop
        elif tag == 24:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.lease = number
        elif tag == 32:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.prev_kv = uint64(number) != 0
        elif tag == 40:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.ignore_value = uint64(number) != 0
        elif tag == 48:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.ignore_lease = uint64(number) != 0
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_put_request(
    key: bytes = b"",
    value: bytes = b"",
    lease: int = 0,
    prev_kv: bool = False,
    ignore_value: bool = False,
    ignore_lease: bool = False,
) -> bytes:
    out: list[bytes] = []
    if key:
        out.append(b"\x0a")
        out.append(varint(len(key)))
        out.append(key)
    if value:
        out.append(b"\x12")
        out.append(varint(len(value)))
        out.append(value)
    if lease:
        out.append(b"\x18")
        out.append(varint(lease))
    if prev_kv:
        out.append(b"\x20\x01")
    if ignore_value:
        out.append(b"\x28\x01")
    if ignore_lease:
        out.append(b"\x30\x01")
    return b"".join(out)


class PutResponse:
    __slots__ = ("header", "prev_kv",)

    def __init__(self) -> None:
        self.header: ResponseHeader | None = None
        self.prev_kv: KeyValue | None = None


def decode_put_response(raw: bytes) -> PutResponse:
    try:
        return _put_response(raw, 0, len(raw))
    except (Irregular, IndexError):
        raw = canonical(pb.PutResponse, raw)
        return _put_response(raw, 0, len(raw))


def _put_response(raw: bytes, at: int, end: int) -> PutResponse:
    made = PutResponse()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 10:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            if made.header is not None:
                raise Irregular
            made.header = _response_header(raw, at, stop)
            at = stop
        elif tag == 18:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            if made.prev_kv is not None:
                raise Irregular
            made.prev_kv = _key_value(raw, at, stop)
            at = stop
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_put_response(
    header: bytes | None = None,
    prev_kv: bytes | None = None,
) -> bytes:
    out: list[bytes] = []
    if header is not None:
        out.append(b"\x0a")
        out.append(varint(len(header)))
        out.append(header)
    if prev_kv is not None:
        out.append(b"\x12")
        out.append(varint(len(prev_kv)))
        out.append(prev_kv)
    return b"".join(out)


class DeleteRangeRequest:
    __slots__ = ("key", "prev_kv", "range_end",)

    def __init__(self) -> None:
        self.key: bytes = b""
        self.range_end: bytes = b""
        self.prev_kv: bool = False


def decode_delete_range_request(raw: bytes) -> DeleteRangeRequest:
    try:
        return _delete_range_request(raw, 0, len(raw))
    except (Irregular, IndexError):
        raw = canonical(pb.DeleteRangeRequest, raw)
        return _delete_range_request(raw, 0, len(raw))


def _delete_range_request(raw: bytes, at: int, end: int) -> DeleteRangeRequest:
    made = DeleteRangeRequest()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 10:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.key = raw[at:stop]
            at = stop
        elif tag == 18:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.range_end = raw[at:stop]
            at = stop
        elif tag == 24:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.prev_kv = uint64(number) != 0
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_delete_range_request(
    key: bytes = b"",
    range_end: bytes = b"",
    prev_kv: bool = False,
) -> bytes:
    out: list[bytes] = []
    if key:
        out.append(b"\x0a")
        out.append(varint(len(key)))
        out.append(key)
    if range_end:
        out.append(b"\x12")
        out.append(varint(len(range_end)))
        out.append(range_end)
    if prev_kv:
        out.append(b"\x18\x01")
    return b"".join(out)


class DeleteRangeResponse:
    __slots__ = ("deleted", "header", "prev_kvs",)

    def __init__(self) -> None:
        self.header: ResponseHeader | None = None
        self.deleted: int = 0
        self.prev_kvs: list[KeyValue] = []


def decode_delete_range_response(raw: bytes) -> DeleteRangeResponse:
    try:
        return _delete_range_response(raw, 0, len(raw))
    except (Irregular, IndexError):
        raw = canonical(pb.DeleteRangeResponse, raw)
        return _delete_range_response(raw, 0, len(raw))


def _delete_range_response(raw: bytes, at: int, end: int) -> DeleteRangeResponse:
    made = DeleteRangeResponse()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 10:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            if made.header is not None:
                raise Irregular
            made.header = _response_header(raw, at, stop)
            at = stop
        elif tag == 16:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.deleted = number
        elif tag == 26:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.prev_kvs.append(_key_value(raw, at, stop))
            at = stop
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_delete_range_response(
    header: bytes | None = None,
    deleted: int = 0,
    prev_kvs: list[bytes] | None = None,
) -> bytes:
    out: list[bytes] = []
    if header is not None:
        out.append(b"\x0a")
        out.append(varint(len(header)))
        out.append(header)
    if deleted:
        out.append(b"\x10")
        out.append(varint(deleted))
    if prev_kvs is not None:
        for one in prev_kvs:
            out.append(b"\x1a")
            out.append(varint(len(one)))
            out.append(one)
    return b"".join(out)


class Compare:
    """``which``: the number of the one field of its oneof that is there, or 0."""

    __slots__ = ("create_revision", "key", "lease", "mod_revision", "range_end", "result", "target", "value", "version", "which",)

    def __init__(self) -> None:
        self.result: int = 0
        self.target: int = 0
        self.key: bytes = b""
        self.version: int = 0
        self.create_revision: int = 0
        self.mod_revision: int = 0
        self.value: bytes = b""
        self.lease: int = 0
        self.range_end: bytes = b""
        self.which = 0


def decode_compare(raw: bytes) -> Compare:
    try:
        return _compare(raw, 0, len(raw))
    except (Irregular, IndexError):
        raw = canonical(pb.Compare, raw)
        return _compare(raw, 0, len(raw))


def _compare(raw: bytes, at: int, end: int) -> Compare:
    made = Compare()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 8:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.result = number if number < 2147483648 else int32(number)
        elif tag == 16:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.target = number if number < 2147483648 else int32(number)
        elif tag == 26:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.key = raw[at:stop]
            at = stop
        elif tag == 32:
            if made.which:
                raise Irregular
            made.which = 4
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.version = number
        elif tag == 40:
            if made.which:
                raise Irregular
            made.which = 5
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.create_revision = number
        elif tag == 48:
            if made.which:
                raise Irregular
            made.which = 6
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.mod_revision = number
        elif tag == 58:
            if made.which:
                raise Irregular
            made.which = 7
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.value = raw[at:stop]
            at = stop
        elif tag == 64:
            if made.which:
                raise Irregular
            made.which = 8
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.lease = number
        elif tag == 130 and raw[at] == 4:
            at += 1
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.range_end = raw[at:stop]
            at = stop
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_compare(
    result: int = 0,
    target: int = 0,
    key: bytes = b"",
    version: int = 0,
    create_revision: int = 0,
    mod_revision: int = 0,
    value: bytes = b"",
    lease: int = 0,
    range_end: bytes = b"",
    which: int = 0,
) -> bytes:
    out: list[bytes] = []
    if result:
        out.append(b"\x08")
        out.append(varint(result))
    if target:
        out.append(b"\x10")
        out.append(varint(target))
    if key:
        out.append(b"\x1a")
        out.append(varint(len(key)))
        out.append(key)
    if which == 4:
        out.append(b"\x20")
        out.append(varint(version))
    if which == 5:
        out.append(b"\x28")
        out.append(varint(create_revision))
    if which == 6:
        out.append(b"\x30")
        out.append(varint(mod_revision))
    if which == 7:
        out.append(b"\x3a")
        out.append(varint(len(value)))
        out.append(value)
    if which == 8:
        out.append(b"\x40")
        out.append(varint(lease))
    if range_end:
        out.append(b"\x82\x04")
        out.append(varint(len(range_end)))
        out.append(range_end)
    return b"".join(out)


class RequestOp:
    """``which``: the number of the one field of its oneof that is there, or 0."""

    __slots__ = ("request_delete_range", "request_put", "request_range", "request_txn", "which",)

    def __init__(self) -> None:
        self.request_range: RangeRequest | None = None
        self.request_put: PutRequest | None = None
        self.request_delete_range: DeleteRangeRequest | None = None
        self.request_txn: TxnRequest | None = None
        self.which = 0


def decode_request_op(raw: bytes) -> RequestOp:
    try:
        return _request_op(raw, 0, len(raw), DEPTH_MAX)
    except (Irregular, IndexError):
        raw = canonical(pb.RequestOp, raw)
        return _request_op(raw, 0, len(raw), 2 * PROTOBUFS_DEPTH_MAX)


def _request_op(raw: bytes, at: int, end: int, depth: int) -> RequestOp:
    if not depth:
        raise Irregular
    made = RequestOp()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 10:
            if made.which:
                raise Irregular
            made.which = 1
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.request_range = _range_request(raw, at, stop)
            at = stop
        elif tag == 18:
            if made.which:
                raise Irregular
            made.which = 2
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.request_put = _put_request(raw, at, stop)
            at = stop
        elif tag == 26:
            if made.which:
                raise Irregular
            made.which = 3
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.request_delete_range = _delete_range_request(raw, at, stop)
            at = stop
        elif tag == 34:
            if made.which:
                raise Irregular
            made.which = 4
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.request_txn = _txn_request(raw, at, stop, depth - 1)
            at = stop
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_request_op(
    request_range: bytes | None = None,
    request_put: bytes | None = None,
    request_delete_range: bytes | None = None,
    request_txn: bytes | None = None,
) -> bytes:
    out: list[bytes] = []
    if request_range is not None:
        out.append(b"\x0a")
        out.append(varint(len(request_range)))
        out.append(request_range)
    if request_put is not None:
        out.append(b"\x12")
        out.append(varint(len(request_put)))
        out.append(request_put)
    if request_delete_range is not None:
        out.append(b"\x1a")
        out.append(varint(len(request_delete_range)))
        out.append(request_delete_range)
    if request_txn is not None:
        out.append(b"\x22")
        out.append(varint(len(request_txn)))
        out.append(request_txn)
    return b"".join(out)


class ResponseOp:
    """``which``: the number of the one field of its oneof that is there, or 0."""

    __slots__ = ("response_delete_range", "response_put", "response_range", "response_txn", "which",)

    def __init__(self) -> None:
        self.response_range: RangeResponse | None = None
        self.response_put: PutResponse | None = None
        self.response_delete_range: DeleteRangeResponse | None = None
        self.response_txn: TxnResponse | None = None
        self.which = 0


def decode_response_op(raw: bytes) -> ResponseOp:
    try:
        return _response_op(raw, 0, len(raw), DEPTH_MAX)
    except (Irregular, IndexError):
        raw = canonical(pb.ResponseOp, raw)
        return _response_op(raw, 0, len(raw), 2 * PROTOBUFS_DEPTH_MAX)


def _response_op(raw: bytes, at: int, end: int, depth: int) -> ResponseOp:
    if not depth:
        raise Irregular
    made = ResponseOp()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 10:
            if made.which:
                raise Irregular
            made.which = 1
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.response_range = _range_response(raw, at, stop)
            at = stop
        elif tag == 18:
            if made.which:
                raise Irregular
            made.which = 2
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.response_put = _put_response(raw, at, stop)
            at = stop
        elif tag == 26:
            if made.which:
                raise Irregular
            made.which = 3
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.response_delete_range = _delete_range_response(raw, at, stop)
            at = stop
        elif tag == 34:
            if made.which:
                raise Irregular
            made.which = 4
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.response_txn = _txn_response(raw, at, stop, depth - 1)
            at = stop
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_response_op(
    response_range: bytes | None = None,
    response_put: bytes | None = None,
    response_delete_range: bytes | None = None,
    response_txn: bytes | None = None,
) -> bytes:
    out: list[bytes] = []
    if response_range is not None:
        out.append(b"\x0a")
        out.append(varint(len(response_range)))
        out.append(response_range)
    if response_put is not None:
        out.append(b"\x12")
        out.append(varint(len(response_put)))
        out.append(response_put)
    if response_delete_range is not None:
        out.append(b"\x1a")
        out.append(varint(len(response_delete_range)))
        out.append(response_delete_range)
    if response_txn is not None:
        out.append(b"\x22")
        out.append(varint(len(response_txn)))
        out.append(response_txn)
    return b"".join(out)


class TxnRequest:
    __slots__ = ("compare", "failure", "success",)

    def __init__(self) -> None:
        self.compare: list[Compare] = []
        self.success: list[RequestOp] = []
        self.failure: list[RequestOp] = []


def decode_txn_request(raw: bytes) -> TxnRequest:
    try:
        return _txn_request(raw, 0, len(raw), DEPTH_MAX)
    except (Irregular, IndexError):
        raw = canonical(pb.TxnRequest, raw)
        return _txn_request(raw, 0, len(raw), 2 * PROTOBUFS_DEPTH_MAX)


def _txn_request(raw: bytes, at: int, end: int, depth: int) -> TxnRequest:
    if not depth:
        raise Irregular
    made = TxnRequest()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 10:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.compare.append(_compare(raw, at, stop))
            at = stop
        elif tag == 18:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.success.append(_request_op(raw, at, stop, depth - 1))
            at = stop
        elif tag == 26:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.failure.append(_request_op(raw, at, stop, depth - 1))
            at = stop
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_txn_request(
    compare: list[bytes] | None = None,
    success: list[bytes] | None = None,
    failure: list[bytes] | None = None,
) -> bytes:
    out: list[bytes] = []
    if compare is not None:
        for one in compare:
            out.append(b"\x0a")
            out.append(varint(len(one)))
            out.append(one)
    if success is not None:
        for one in success:
            out.append(b"\x12")
            out.append(varint(len(one)))
            out.append(one)
    if failure is not None:
        for one in failure:
            out.append(b"\x1a")
            out.append(varint(len(one)))
            out.append(one)
    return b"".join(out)


class TxnResponse:
    __slots__ = ("header", "responses", "succeeded",)

    def __init__(self) -> None:
        self.header: ResponseHeader | None = None
        self.succeeded: bool = False
        self.responses: list[ResponseOp] = []


def decode_txn_response(raw: bytes) -> TxnResponse:
    try:
        return _txn_response(raw, 0, len(raw), DEPTH_MAX)
    except (Irregular, IndexError):
        raw = canonical(pb.TxnResponse, raw)
        return _txn_response(raw, 0, len(raw), 2 * PROTOBUFS_DEPTH_MAX)


def _txn_response(raw: bytes, at: int, end: int, depth: int) -> TxnResponse:
    if not depth:
        raise Irregular
    made = TxnResponse()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 10:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            if made.header is not None:
                raise Irregular
            made.header = _response_header(raw, at, stop)
            at = stop
        elif tag == 16:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = more(raw, at, number)
            made.succeeded = uint64(number) != 0
        elif tag == 26:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            made.responses.append(_response_op(raw, at, stop, depth - 1))
            at = stop
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_txn_response(
    header: bytes | None = None,
    succeeded: bool = False,
    responses: list[bytes] | None = None,
) -> bytes:
    out: list[bytes] = []
    if header is not None:
        out.append(b"\x0a")
        out.append(varint(len(header)))
        out.append(header)
    if succeeded:
        out.append(b"\x10\x01")
    if responses is not None:
        for one in responses:
            out.append(b"\x1a")
            out.append(varint(len(one)))
            out.append(one)
    return b"".join(out)


class LeaseKeepAliveRequest:
    __slots__ = ("ID",)

    def __init__(self) -> None:
        self.ID: int = 0


def decode_lease_keep_alive_request(raw: bytes) -> LeaseKeepAliveRequest:
    try:
        return _lease_keep_alive_request(raw, 0, len(raw))
    except (Irregular, IndexError):
        raw = canonical(pb.LeaseKeepAliveRequest, raw)
        return _lease_keep_alive_request(raw, 0, len(raw))


def _lease_keep_alive_request(raw: bytes, at: int, end: int) -> LeaseKeepAliveRequest:
    made = LeaseKeepAliveRequest()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 8:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.ID = number
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_lease_keep_alive_request(
    ID: int = 0,
) -> bytes:
    out: list[bytes] = []
    if ID:
        out.append(b"\x08")
        out.append(varint(ID))
    return b"".join(out)


class LeaseKeepAliveResponse:
    __slots__ = ("ID", "TTL", "header",)

    def __init__(self) -> None:
        self.header: ResponseHeader | None = None
        self.ID: int = 0
        self.TTL: int = 0


def decode_lease_keep_alive_response(raw: bytes) -> LeaseKeepAliveResponse:
    try:
        return _lease_keep_alive_response(raw, 0, len(raw))
    except (Irregular, IndexError):
        raw = canonical(pb.LeaseKeepAliveResponse, raw)
        return _lease_keep_alive_response(raw, 0, len(raw))


def _lease_keep_alive_response(raw: bytes, at: int, end: int) -> LeaseKeepAliveResponse:
    made = LeaseKeepAliveResponse()
    while at < end:
        tag = raw[at]
        at += 1
        if tag == 10:
            size = raw[at]
            at += 1
            if size > 127:
                size, at = more(raw, at, size)
            stop = at + size
            if stop > end:
                raise Irregular
            if made.header is not None:
                raise Irregular
            made.header = _response_header(raw, at, stop)
            at = stop
        elif tag == 16:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.ID = number
        elif tag == 24:
            number = raw[at]
            at += 1
            if number > 127:
                number, at = signed(raw, at, number)
            made.TTL = number
        else:
            raise Irregular
    if at != end:
        raise Irregular
    return made


def encode_lease_keep_alive_response(
    header: bytes | None = None,
    ID: int = 0,
    TTL: int = 0,
) -> bytes:
    out: list[bytes] = []
    if header is not None:
        out.append(b"\x0a")
        out.append(varint(len(header)))
        out.append(header)
    if ID:
        out.append(b"\x10")
        out.append(varint(ID))
    if TTL:
        out.append(b"\x18")
        out.append(varint(TTL))
    return b"".join(out)
