"""The gateway's short way beside its long one."""

import base64
import json

from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.proto import etcd_wire as wire
from actors.kv.rpc import json_form, json_short, told
from actors.kv.rpc.json_form import BadJson
from actors.kv.v3.kinds import Query, Ranged, Rev
from tests.actors.kv.test_wire import messages

KINDS: dict[str, type[Message]] = {"Put": pb.PutRequest, "Range": pb.RangeRequest}
NAMES = "key value prev_kv prevKv ignore_value range_end rangeEnd serializable keys_only count_only lease x"


def as_protobuf(found: json_short.Asked | None) -> bytes | None:
    """The bytes of a request that was read the short way, which must be as many as it says."""
    if found is None:
        return None
    asked, size = found
    if isinstance(asked, wire.PutRequest):
        flags = asked.prev_kv, asked.ignore_value, asked.ignore_lease
        raw = wire.encode_put_request(asked.key, asked.value, asked.lease, *flags)
    else:
        raw = wire.encode_range_request(
            asked.key,
            asked.range_end,
            serializable=asked.serializable,
            keys_only=asked.keys_only,
            count_only=asked.count_only,
        )
    assert size == len(raw)
    return raw


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


VALUES = (
    st.binary(max_size=12).map(encoded)
    | st.text("YQ=-_+/ \nab9é", max_size=9)
    | st.booleans()
    | st.none()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.just([])
)
TEXTS = st.lists(st.tuples(st.sampled_from(NAMES.split()), VALUES), max_size=5).map(
    lambda pairs: "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}"
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(["Put", "Range"]), TEXTS.map(str.encode) | st.binary(max_size=20))
def test_what_is_read_the_short_way_reads_the_same_the_long_way(name: str, text: bytes) -> None:
    short = as_protobuf(json_short.SHORT[f"/etcdserverpb.KV/{name}"][0](text))
    try:
        long = json_form.loads(text, KINDS[name]).SerializeToString()
    except BadJson:
        assert short is None
    else:
        assert short in (None, long)


@given(st.binary(max_size=40), st.binary(max_size=300))
def test_a_plain_put_and_range_take_the_short_way(key: bytes, value: bytes) -> None:
    put = json.dumps({"key": encoded(key), "value": encoded(value)}).encode()
    assert as_protobuf(json_short.load_put(put)) == pb.PutRequest(key=key, value=value).SerializeToString()
    asked = json.dumps({"key": encoded(key), "range_end": encoded(value)}).encode()
    assert as_protobuf(json_short.load_range(asked)) == pb.RangeRequest(key=key, range_end=value).SerializeToString()


@settings(deadline=None)
@given(messages(pb.PutResponse.DESCRIPTOR) | messages(pb.RangeResponse.DESCRIPTOR))
def test_answers_are_written_the_same_both_ways(message: Message) -> None:
    name = "Put" if isinstance(message, pb.PutResponse) else "Range"
    short = json_short.SHORT[f"/etcdserverpb.KV/{name}"][1](message.SerializeToString())
    assert short == json_form.dumps(message)


SMALL = st.integers(0, 2**63 - 1)
REVS = st.builds(
    lambda key, value, numbers: Rev(key, value, *numbers, 0, None),
    st.binary(max_size=20),
    st.binary(max_size=20),
    st.tuples(SMALL, SMALL, SMALL, SMALL),
)
QUERIES = st.builds(lambda only, by: Query(b"a", keys_only=only, by=by), st.booleans(), st.integers(0, 4))
HEADERS = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), SMALL, SMALL)


def both(ids: tuple[int, int, int, int]) -> tuple[bytes, bytes]:
    """A response's header in protobuf, and as JSON."""
    inner = wire.encode_response_header(*ids)
    header = wire.ResponseHeader()
    header.cluster_id, header.member_id, header.revision, header.raft_term = ids
    return b"\x0a" + bytes((len(inner),)) + inner, json_short.header(header)


@settings(deadline=None)
@given(HEADERS, st.lists(REVS, max_size=3), st.booleans(), SMALL, QUERIES)
def test_what_a_range_found_is_shown_as_its_protobuf_is(
    ids: tuple[int, int, int, int], revs: list[Rev], more: bool, count: int, query: Query
) -> None:
    raw, text = both(ids)
    found = Ranged(revs, count, more)
    long = json_form.dumps(pb.RangeResponse.FromString(raw + told.ranged(found, query)))
    assert json_short.ranged(text, found, query) == long


@settings(deadline=None)
@given(HEADERS, st.none() | REVS)
def test_what_a_put_did_is_shown_as_its_protobuf_is(ids: tuple[int, int, int, int], prev: Rev | None) -> None:
    raw, text = both(ids)
    message = pb.PutResponse.FromString(raw)
    if prev is not None:
        told.into(prev, message.prev_kv)
        message.prev_kv.SetInParent()
    assert json_short.put(text, prev) == json_form.dumps(message)
