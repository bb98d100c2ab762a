"""Our codecs of the hot messages beside protobuf's own."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.proto import etcd_pb2, etcd_wire, kv_pb2, wire
from actors.kv.proto.varints import varint

KINDS: dict[str, type[Message]] = {
    one.name: getattr(kv_pb2 if one.file.package == "mvccpb" else etcd_pb2, one.name) for one in wire.MESSAGES
}
_RANGES = {
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_ENUM: (-(2**31), 2**31 - 1),
}


def numbers(low: int, high: int) -> st.SearchStrategy[int]:
    """Around each length of a varint, too."""
    edges = [sign * ((1 << 7 * size) + more) for size in range(10) for sign in (1, -1) for more in (-1, 0, 1)]
    return st.sampled_from([one for one in edges if low <= one <= high]) | st.integers(low, high)


def scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=20) | st.sampled_from([b"x" * size for size in (127, 128, 16383, 16384)])
    return numbers(*_RANGES[field.type])


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 0) -> Message:
    made: Any = KINDS[descriptor.name]()
    for field in descriptor.fields:
        if field.containing_oneof and made.WhichOneof(field.containing_oneof.name):
            continue
        if not draw(st.booleans()):
            continue
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            setattr(made, field.name, draw(scalars(field)))
        elif depth < 4 and field.is_repeated:
            for _ in range(draw(st.integers(0, 3))):
                getattr(made, field.name).add().CopyFrom(draw(messages(field.message_type, depth + 1)))
        elif depth < 4:
            getattr(made, field.name).CopyFrom(draw(messages(field.message_type, depth + 1)))
            getattr(made, field.name).SetInParent()
    return made


def any_message() -> st.SearchStrategy[Message]:
    return st.sampled_from(wire.MESSAGES).flatmap(messages)


def decoded(kind: str, raw: bytes) -> Any:
    return getattr(etcd_wire, f"decode_{wire.snake(kind)}")(raw)


def encoded(message: Any) -> bytes:
    """By our encoders, from a message of protobuf's."""
    given: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.containing_oneof:
            which = message.WhichOneof(field.containing_oneof.name)
            if field.type != FieldDescriptor.TYPE_MESSAGE and which:
                given["which"] = message.DESCRIPTOR.fields_by_name[which].number
            if which != field.name:
                continue
        if field.type == FieldDescriptor.TYPE_MESSAGE and field.is_repeated:
            given[field.name] = [encoded(one) for one in value]
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            given[field.name] = value
        elif message.HasField(field.name):
            given[field.name] = encoded(value)
    made: bytes = getattr(etcd_wire, f"encode_{wire.snake(message.DESCRIPTOR.name)}")(**given)
    return made


def check_same(ours: Any, theirs: Any) -> None:
    for field in theirs.DESCRIPTOR.fields:
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            assert one == other, field.full_name
            assert type(one) is type(other), field.full_name
        elif field.is_repeated:
            assert len(one) == len(other), field.full_name
            for left, right in zip(one, other, strict=True):
                check_same(left, right)
        elif theirs.HasField(field.name):
            check_same(one, other)
        else:
            assert one is None, field.full_name
    for oneof in theirs.DESCRIPTOR.oneofs:
        which = theirs.WhichOneof(oneof.name)
        assert ours.which == (theirs.DESCRIPTOR.fields_by_name[which].number if which else 0)


def check_reads_alike(kind: str, raw: bytes) -> None:
    try:
        theirs = KINDS[kind].FromString(raw)
    except DecodeError:
        with pytest.raises(DecodeError):
            decoded(kind, raw)
    else:
        check_same(decoded(kind, raw), theirs)


@settings(deadline=None)
@given(any_message())
def test_ours_and_protobufs_bytes_are_the_same_both_ways(message: Message) -> None:
    raw = message.SerializeToString()
    assert encoded(message) == raw
    check_same(decoded(message.DESCRIPTOR.name, raw), message)


@settings(deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_as_protobuf_does(kind: str, raw: bytes) -> None:
    check_reads_alike(kind, raw)


@settings(deadline=None)
@given(any_message(), st.data())
def test_damaged_messages_are_read_or_refused_as_protobuf_does(message: Message, data: st.DataObject) -> None:
    """Lying lengths, wire types that aren't the field's, unknown fields, groups, fields twice, cut ends."""
    raw = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=3)
            | st.just(bytes(raw[:30]))
            | st.sampled_from([b"\xff" * 9 + b"\x7f", b"\x0b\x0c", b"\x78\x05"])
        )
    check_reads_alike(message.DESCRIPTOR.name, bytes(raw))


@pytest.mark.parametrize("depth", [1, 40, 48, 49, 50, 51, 60, 61, 5000, 100_000])
def test_messages_in_each_other_are_taken_as_deep_as_protobuf_takes_them(depth: int) -> None:
    raw = b""
    for _ in range(depth):
        op = b"\x22" + varint(len(raw)) + raw
        raw = b"\x12" + varint(len(op)) + op
        if len(raw) > 200_000:
            break
    check_reads_alike("TxnRequest", raw)


def test_the_codecs_are_made_from_the_proto_text_as_it_is() -> None:
    path = Path(wire.__file__).parent / "etcd_wire.py"
    assert path.read_text() == wire.text(), "run: python -m actors.kv.proto.wire"
