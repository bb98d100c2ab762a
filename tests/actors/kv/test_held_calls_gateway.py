"""The JSON gateway holds to the edges of its numbers, and counts a request's bytes as protobuf has them."""

import base64
import json
from collections.abc import Callable
from itertools import product

import pytest
from google.protobuf.message import Message

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc import json_form, json_short
from actors.kv.rpc.json_form import BadJson

INT64, UINT64, INT32, UINT32 = (-(2**63), 2**63 - 1), (0, 2**64 - 1), (-(2**31), 2**31 - 1), (0, 2**32 - 1)


@pytest.mark.parametrize(
    ("kind", "name", "edges", "forms"),
    [
        (pb.PutRequest, "lease", INT64, (str, int)),
        (pb.RangeRequest, "limit", INT64, (str, int)),
        (pb.MemberRemoveRequest, "ID", UINT64, (str, int)),
        (pb.HashKVResponse, "hash", UINT32, (str, int)),
        (pb.RangeRequest, "sort_order", INT32, (int,)),  # a text is a name there
    ],
)
def test_integers_are_taken_up_to_their_edges_and_no_further(
    kind: type[Message], name: str, edges: tuple[int, int], forms: tuple[Callable[[int], int | str], ...]
) -> None:
    low, high = edges
    for number, form in product((low, high), forms):
        made = json_form.loads(json.dumps({name: form(number)}).encode(), kind)
        assert getattr(made, name) == number
    for number in (low - 1, high + 1):
        with pytest.raises(BadJson, match=rf"^{name}: .*\b{high.bit_length() + (low < 0)}\b.*{number}"):
            json_form.loads(json.dumps({name: forms[0](number)}).encode(), kind)


@pytest.mark.parametrize("length", [0, 1, 127, 128, 129, 16383, 16384])
def test_bytes_of_a_request_are_counted_with_what_tells_their_length(length: int) -> None:
    whole, text = b"x" * length, base64.b64encode(b"x" * length).decode()
    for name, load, made in (
        ("value", json_short.load_put, pb.PutRequest(key=b"k", value=whole)),
        ("range_end", json_short.load_range, pb.RangeRequest(key=b"k", range_end=whole)),
    ):
        found = load(json.dumps({"key": "aw==", name: text}).encode())
        assert found is not None
        assert found[1] == made.ByteSize()


@pytest.mark.parametrize(("one", "other", "third"), list(product((False, True), repeat=3)))
def test_each_flag_of_a_request_is_read_and_counted(one: bool, other: bool, third: bool) -> None:
    put = json_short.load_put(
        json.dumps({"key": "aw==", "prev_kv": one, "ignore_value": other, "ignore_lease": third}).encode()
    )
    looked = json_short.load_range(
        json.dumps({"key": "aw==", "serializable": one, "keys_only": other, "count_only": third}).encode()
    )
    for found, made in (
        (put, pb.PutRequest(key=b"k", prev_kv=one, ignore_value=other, ignore_lease=third)),
        (looked, pb.RangeRequest(key=b"k", serializable=one, keys_only=other, count_only=third)),
    ):
        assert found is not None
        asked, size = found
        assert size == made.ByteSize()
        names = [field.name for field in made.DESCRIPTOR.fields if field.type == field.TYPE_BOOL]
        assert {name: getattr(asked, name) for name in names} == {name: getattr(made, name) for name in names}
