"""A service's methods as HTTP/2 and the gateway call them: what is asked is read, and who may be served now."""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc.service import Call, Method, Rpc, void
from actors.kv.v3 import errors
from actors.kv.v3.errors import V3Error

#: Of a call whose token isn't known yet: so many bytes of messages wait, each with what it costs beside them.
WAITING_BYTES_MAX, MESSAGE_BYTES = 1024 * 1024, 1024

#: What a learner answers, beside ranges that are content with what it has.
OF_LEARNERS = frozenset({"/etcdserverpb.Maintenance/Status", "/etcdserverpb.Maintenance/Snapshot"})


def unary(method: Method, rpc: Rpc) -> Callable[[Call, bytes], None]:
    """As HTTP/2 and the gateway call it."""
    parse: Callable[[bytes], Any] = method.parse or method.request.FromString
    ranges = method.request is pb.RangeRequest
    serve = method.serve
    for_learners = method.path in OF_LEARNERS or method.path.startswith("/grpc.")

    def served(call: Call, raw: bytes, _size: int) -> None:
        try:
            if rpc.learner and not for_learners and not (ranges and parse(raw).serializable):
                raise errors.NOT_FOR_LEARNERS
            serve(call, parse(raw), len(raw))
        except DecodeError as unread:
            call.finish(errors.INTERNAL, f"grpc: error unmarshalling request: {unread}")

    return lambda call, raw: _when_known(rpc, call, served, raw, 0)


def in_json(method: Method, rpc: Rpc) -> Callable[[Call, Any, int], None] | None:
    """As the gateway calls it with a request that it has read, and the bytes that it has in protobuf; its answer is
    JSON. None: the method has no such way."""
    ranges, serve = method.request is pb.RangeRequest, method.json
    if serve is None:
        return None
    known = serve

    def served(call: Call, request: Any, size: int) -> None:
        if rpc.learner and not (ranges and request.serializable):
            raise errors.NOT_FOR_LEARNERS
        known(call, request, size)

    return lambda call, request, size: _when_known(rpc, call, served, request, size)


def _when_known(rpc: Rpc, call: Call, serve: Callable[[Call, Any, int], None], asked: Any, size: int) -> None:
    """Serve a call as soon as it is known who asks, and what they may: of both another member may have heard just now.

    Who may not is refused by what was acknowledged anywhere before, as etcd does at apply.
    """
    if rpc.lacks_token(call):
        rpc.later(call, lambda: _try(rpc, call, serve, asked, size, True))
    else:
        _try(rpc, call, serve, asked, size, False)


def _try(rpc: Rpc, call: Call, serve: Callable[[Call, Any, int], None], asked: Any, size: int, caught_up: bool) -> None:
    try:
        serve(call, asked, size)
    except V3Error as error:
        if error in errors.RIGHTS and not caught_up:
            rpc.later(call, lambda: _try(rpc, call, serve, asked, size, True))
        else:
            rpc.refuse(call, error)


def deferred(call: Call, serve: Callable[[Call], None], rpc: Rpc) -> None:
    """A call of many messages whose token isn't known here: what it asks meanwhile is served when that is settled."""
    waiting: list[bytes] = []
    ended: list[bool] = []
    size = 0

    def came(message: bytes) -> None:
        nonlocal size
        size += len(message) + MESSAGE_BYTES
        waiting.append(message)
        if size > WAITING_BYTES_MAX:
            waiting.clear()
            call.finish(errors.INVALID_TOKEN.code, errors.INVALID_TOKEN.message)

    def settled() -> None:
        call.on_message, call.on_end = void, lambda: None
        serve(call)
        for message in waiting:
            call.on_message(message)
        if ended:
            call.on_end()

    call.on_message, call.on_end = came, lambda: ended.append(True)
    rpc.later(call, settled)
