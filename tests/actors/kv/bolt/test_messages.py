"""The messages by hand beside protobuf's own encoding of the same descriptors."""

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from actors.kv.bolt import messages
from actors.kv.bolt.errors import MessageError
from actors.kv.v3.imports import NUMBER_MAX
from actors.kv.v3.revs import Rev

BYTES, INT64, UINT64, INT32 = 12, 3, 4, 5
LAYOUTS = {
    "KeyValue": "key create_revision mod_revision version value lease",
    "Lease": "ID TTL RemainingTTL",
    "AlarmMember": "memberID alarm",
}
TYPES = {"key": BYTES, "value": BYTES, "memberID": UINT64, "alarm": INT32}


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="bolt_test.proto", package="bolt_test", syntax="proto3")
    for name, names in LAYOUTS.items():
        message = file.message_type.add(name=name)
        for number, field in enumerate(names.split(), 1):
            message.field.add(name=field, number=number, type=TYPES.get(field, INT64), label=1)  # type: ignore[arg-type]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bolt_test.{name}")) for name in LAYOUTS}


THEIRS = _classes()
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
positive = st.integers(1, (1 << 63) - 1) | st.integers(1, 300)
revs = st.builds(
    lambda key, value, numbers, version, lease: Rev(key, value, numbers[0], numbers[1], version, lease, 0, None),
    st.binary(min_size=1, max_size=200),
    st.binary(max_size=200),
    st.tuples(positive, positive).map(sorted),
    st.integers(1, NUMBER_MAX),
    int64,
)


def theirs(rev: Rev) -> bytes:
    names = {"create_revision": rev.create, "mod_revision": rev.mod, "version": rev.version}
    encoded: bytes = THEIRS["KeyValue"](key=rev.key, value=rev.value, lease=rev.lease, **names).SerializeToString()
    return encoded


@given(revs)
def test_a_revision(rev: Rev) -> None:
    ours = messages.key_value(rev)
    assert ours == theirs(rev)
    assert len(ours) == messages.key_value_size(rev)
    assert messages.to_rev(ours, rev.mod, 0, dead=False) == rev


@given(revs)
def test_a_tombstone(rev: Rev) -> None:
    dead = Rev(rev.key, b"", 0, rev.mod, 0, 0, 3, None)
    ours = messages.key_value(dead)
    assert ours == THEIRS["KeyValue"](key=rev.key).SerializeToString()
    assert len(ours) == messages.key_value_size(dead)
    assert messages.to_rev(ours, rev.mod, 3, dead=True) == dead


@given(int64, int64, int64)
def test_a_lease(lease: int, ttl_s: int, left_s: int) -> None:
    ours = messages.lease(lease, ttl_s, left_s)
    assert ours == THEIRS["Lease"](ID=lease, TTL=ttl_s, RemainingTTL=left_s).SerializeToString()
    assert messages.to_lease(ours) == (lease, ttl_s, left_s)


@given(st.integers(0, 3), st.integers(0, (1 << 64) - 1))
def test_an_alarm(kind: int, member: int) -> None:
    ours = messages.alarm(kind, member)
    assert ours == THEIRS["AlarmMember"](memberID=member, alarm=kind).SerializeToString()
    assert messages.to_alarm(ours) == (kind, member)


@given(st.integers(0, (1 << 63) - 1), st.integers(0, (1 << 63) - 1), st.booleans())
def test_a_revision_s_key(main: int, sub: int, dead: bool) -> None:
    assert messages.to_revision(messages.revision_key(main, sub, dead)) == (main, sub, dead)


def test_fields_that_nobody_knows_are_passed_over() -> None:
    known = messages.lease(5, 60, 0)
    unknown = b"\x49" + b"12345678" + b"\x55" + b"1234" + b"\x5a\x02ab" + b"\x60\x01"
    assert messages.to_lease(unknown + known + unknown) == (5, 60, 0)


def test_a_number_of_over_64_bits_is_cut_as_protobuf_cuts_it() -> None:
    content = b"\x08" + b"\xff" * 9 + b"\x7f"
    assert messages.to_lease(content)[0] == THEIRS["Lease"].FromString(content).ID == -1


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_the_one_error(content: bytes) -> None:
    try:
        assert messages.to_rev(content, 5, 0, dead=False).mod == 5
    except MessageError:
        with pytest.raises(MessageError):
            messages.to_rev(content, 5, 0, dead=False)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\x0a\x05abc", "field 1 has 5 bytes, of which 3"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7fabc", "field 1 has 9223372036854775807 bytes"),
        (b"\x0a", "within a number"),
        (b"\x10\x80", "within a number"),
        (b"\x10" + b"\xff" * 11, "over 10 bytes"),
        (b"\x0b", "wire type 3"),
        (b"\x08\x01", "a number where bytes belong"),
        (b"\x12\x01a", "bytes where a number belongs"),
        (b"\x10\x01\x18\x06\x20\x01", "changed at 6"),
        (b"\x10\x06\x18\x05\x20\x01", "created at 6"),
        (b"\x10\x01\x18\x05", "version 0"),
    ],
)
def test_a_message_that_lies(content: bytes, match: str) -> None:
    with pytest.raises(MessageError, match=match):
        messages.to_rev(content, 5, 0, dead=False)


@pytest.mark.parametrize(
    "key", [b"", b"a" * 17, bytes(8) + b"_" + bytes(8) + b"x", b"\xff" + bytes(7) + b"_" + bytes(8)]
)
def test_what_is_no_revision(key: bytes) -> None:
    with pytest.raises(MessageError, match="revision"):
        messages.to_revision(key)
