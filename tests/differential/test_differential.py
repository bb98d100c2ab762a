"""A fixed choice of sequences in the quick suite."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from actors.kv.proto import etcd_pb2 as pb
from tests.differential.running import Pairs
from tests.differential.steps import auth_sequences, sequences

#: One worker for all: the last test looks at what the others met.
pytestmark = pytest.mark.xdist_group("differential")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    with Pairs(tmp_path_factory.mktemp("differential")) as made:
        yield made


#: What these steps can be told; each must have been.
ERRORS = {
    "RangeStream does not support custom sort orders",
    "RangeStream does not support revision filters",
    "etcdserver: bad leader transferee",
    "etcdserver: duplicate key given in txn request",
    "etcdserver: invalid sort option",
    "etcdserver: key is not provided",
    "etcdserver: key not found",
    "etcdserver: lease already exists",
    "etcdserver: lease is provided",
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: request is too large",
    "etcdserver: requested lease not found",
    "etcdserver: too large lease TTL",
    "etcdserver: too many operations in txn request",
    "etcdserver: value is provided",
}
#: Messages whose every field must have been set; a revision is set when the step is asked.
REQUESTS = ("RangeRequest", "PutRequest", "DeleteRangeRequest", "TxnRequest", "Compare", "RequestOp")
MORE_REQUESTS = ("LeaseGrantRequest", "WatchCreateRequest")


@settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(sequences)
def test_answers_as_etcd(pairs: Pairs, sequence: list[object]) -> None:
    pairs.run(sequence)


@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(auth_sequences)
def test_users_may_what_they_may_in_etcd(pairs: Pairs, sequence: list[object]) -> None:
    pairs.run(sequence)


def test_nothing_was_left_out(pairs: Pairs) -> None:
    """After the sequences."""
    if not pairs.steps:
        pytest.skip("runs with the sequences only")
    assert ERRORS - set(pairs.errors) == set()
    fields = {
        field.full_name
        for name in (*REQUESTS, *MORE_REQUESTS)
        for field in pb.DESCRIPTOR.message_types_by_name[name].fields
    }
    assert fields - set(pairs.fields) == set()
    assert pairs.crashes == []
