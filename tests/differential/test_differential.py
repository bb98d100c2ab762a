"""A fixed choice of sequences in the quick suite."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.v3 import errors
from tests.differential.running import Pairs
from tests.differential.steps import auth_sequences, sequences

#: One worker for all: the last test looks at what the others met.
pytestmark = pytest.mark.xdist_group("differential")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    with Pairs(tmp_path_factory.mktemp("differential")) as made:
        yield made


#: Errors of etcd's words that no sequence can meet here, and why.
UNREACHABLE = {
    errors.INVALID_CLIENT_API: "of a client whose version can't be read: tests/actors/kv/test_serving.py",
    errors.TOO_MANY_REQUESTS: "wants 5,000 commands that wait: tests/actors/kv/test_serving.py",
    errors.NO_LEADER: "wants a cluster without a leader",
    errors.NOT_LEADER: "there is one member, and it leads",
    errors.STOPPED: "the servers run on",
    errors.TIMEOUT: "wants a log that stands still",
    errors.UNHEALTHY: "wants members that don't answer",
    errors.TRANSFER_TIMEOUT: "wants a member that doesn't answer",
    errors.NOT_FOR_LEARNERS: "there is no learner: tests/actors/coordination",
    errors.NOT_CAPABLE: "both have the version that can do all",
    errors.VERIFY_ONLY: "wants a key that can't sign: tests/actors/kv/rpc",
    errors.OLD_AUTH_REVISION: "a race between two clients; calls are one after the other here",
    errors.UNKNOWN_METHOD: "an action that protobuf's clients don't send",
}
#: What etcd says that isn't among our errors: of a stream, and of members.
MORE_ERRORS = {
    "RangeStream does not support custom sort orders",
    "RangeStream does not support revision filters",
    "etcdserver: given member URLs are invalid",
}


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
    known = {error for error in vars(errors).values() if isinstance(error, errors.V3Error)}
    reachable = {error.message for error in known if error not in UNREACHABLE} | MORE_ERRORS
    assert reachable - set(pairs.errors) == set()
    assert _fields() - set(pairs.fields) == set()
    assert pairs.crashes == []


def _fields() -> set[str]:
    """Of all that may be asked of etcd, and of the messages in it."""
    asked = {method.input_type for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods}
    found: set[str] = set()
    pending = list(asked)
    while pending:
        for field in pending.pop().fields:
            if field.full_name not in found:
                found.add(field.full_name)
                if field.message_type is not None:
                    pending.append(field.message_type)
    return found
