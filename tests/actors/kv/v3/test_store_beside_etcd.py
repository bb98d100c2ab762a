"""The pure v3 store beside a real etcd: random sequences, every answer compared, HashKV after each sequence.

What the edge refuses before a command is ordered (empty keys, duplicate keys in a transaction, a value beside
ignore_value) is not the store's and is not asked here.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from actors.kv.v3.ranges import query
from streams.events import kv3 as says
from streams.events.base import unblob
from tests import needs
from tests.actors.kv.v3.etcd import Etcd, Json, Ours, b64, op_json, put_json, their_range, theirs, txn_json

KEYS = ["a", "ab", "b", "b\x00", "c/1", "c/2", "d"]
key = st.sampled_from(KEYS)
end = st.sampled_from(["", "", "\0", "b", "c/2", "d", "z", "a"])
value = st.sampled_from(["", "x", "y", "a longer value"])
lease = st.sampled_from([0, 0, 0, 11, 12, 99])
#: revisions are told from the current one, so that they hit whatever was made before
back = st.integers(-2, 25)
small = st.integers(0, 4)

put = st.builds(says.Put, key=key, value=value, lease=lease)
keep = st.one_of(
    st.builds(says.Put, key=key, lease=lease, ignore_value=st.just(True)),
    st.builds(says.Put, key=key, value=value, ignore_lease=st.just(True)),
)
delete = st.builds(says.Delete, key=key, range_end=end)


@st.composite
def compares(draw: Any) -> says.Compare:
    target = draw(st.integers(0, 4))
    operand = draw(value) if target == 3 else draw(st.sampled_from([0, 1, 2, 3, 11]))
    return says.Compare(draw(key), target, draw(st.integers(0, 3)), operand, draw(end))


op_range = st.builds(
    says.OpRange,
    key=key,
    range_end=end,
    limit=small,
    order=st.integers(0, 2),
    by=st.sampled_from([0, 0, 0, 1, 2, 3, 4]),
    keys_only=st.booleans(),
    count_only=st.booleans(),
    min_mod=st.sampled_from([0, 0, 0, 5, 40]),
    max_mod=st.sampled_from([0, 0, 0, 30, 200]),
    min_create=st.sampled_from([0, 0, 0, 5, 40]),
    max_create=st.sampled_from([0, 0, 0, 30, 200]),
)


@st.composite
def operations(draw: Any, depth: int = 1, names: Any = None) -> list[says.Op]:
    """Of one branch: no key twice, as the edge sees to."""
    free = list(names if names is not None else KEYS)
    out: list[says.Op] = []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["put", "delete", "range", "txn"] if depth else ["put", "delete", "range"]))
        if kind == "range":
            out.append(draw(op_range))
        elif kind == "txn":
            inner = [free.pop()] if free else []
            branches = [draw(operations(depth - 1, inner)) for _ in range(2)]
            out.append(says.OpTxn(draw(st.lists(compares(), max_size=2)), *branches))
        elif free:
            name = free.pop(draw(st.integers(0, len(free) - 1)))
            out.append(says.OpDelete(name) if kind == "delete" else says.OpPut(name, draw(value), draw(lease)))
    return out


txn = st.builds(says.Txn, compare=st.lists(compares(), max_size=3), success=operations(), failure=operations())
grant = st.builds(says.LeaseGrant, id=st.sampled_from([11, 12, 13]), ttl_s=st.sampled_from([1000, 2000, 9_000_000_001]))
#: what pages ask: a limit and nothing else
page = st.builds(says.OpRange, key=key, range_end=st.sampled_from(["\0", "z"]), limit=small)
leased = st.builds(says.Put, key=key, value=value, lease=st.sampled_from([11, 12]))
revoke = st.builds(says.LeaseRevoke, id=st.sampled_from([11, 12, 99]))
reads = st.tuples(st.just("range"), op_range, back)
compact = st.tuples(st.just("compact"), st.integers(-2, 12))
hashes = st.tuples(st.just("hash"), back)
pages = st.tuples(st.just("range"), page, st.sampled_from([0, 0, 1, 3]))
step = st.one_of(put, leased, leased, keep, pages, delete, txn, grant, revoke, reads, reads, compact, hashes)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    needs.program("etcd")
    with Etcd(tmp_path_factory.mktemp("etcd")) as running:
        yield running


class Pair:
    """Both, with the same life: what was asked of one was asked of the other, in the same order."""

    def __init__(self, etcd: Etcd) -> None:
        self.etcd, self.ours = etcd, Ours()

    def ask(self, step: Any) -> tuple[Json, Json]:
        """(etcd's answer, ours)."""
        revision = self.ours.store.revs.revision
        match step:
            case says.Put():
                answer = theirs(self.etcd.call("/v3/kv/put", put_json(step)))
                return (answer if "error" in answer else answer | {"put": True}), self.ours.say(step)
            case says.Delete():
                body = {"key": b64(unblob(step.key)), "range_end": b64(unblob(step.range_end)), "prev_kv": True}
                answer = self.etcd.call("/v3/kv/deleterange", body)
                prevs = their_range({"kvs": answer.get("prev_kvs", [])})["kvs"]
                return theirs(answer) | {"prevs": prevs}, self.ours.say(step)
            case says.Txn():
                return _succeeded(theirs(self.etcd.call("/v3/kv/txn", txn_json(step)))), self.ours.say(step)
            case says.LeaseGrant():
                body = {"ID": str(step.id), "TTL": str(step.ttl_s)}
                return _leased(self.etcd.call("/v3/lease/grant", body)), self.ours.say(step)
            case says.LeaseRevoke():
                return _leased(self.etcd.call("/v3/lease/revoke", {"ID": str(step.id)})), self.ours.say(step)
            case ("range", asked, ago):
                body = op_json(asked)["request_range"] | {"revision": str(max(0, revision - ago))}
                answer = self.etcd.call("/v3/kv/range", body)
                at = msgspec.structs.replace(query(asked), revision=revision - ago)
                return theirs(answer) | ({} if "code" in answer else their_range(answer)), self.ours.range(at)
            case ("compact", ago):
                said = says.Compact(revision - ago)
                body = {"revision": str(revision - ago), "physical": True}
                return theirs(self.etcd.call("/v3/kv/compaction", body)), self.ours.say(said)
            case ("hash", ago):
                return self.hashes(max(0, revision - ago))
        raise AssertionError(step)

    def hashes(self, revision: int) -> tuple[Json, Json]:
        if 0 < revision == self.ours.store.revs.compacted:
            revision += 1  # 3.4 refuses the compacted revision itself, the newest etcd answers it
        return self.etcd.hash(revision), self.ours.hash(revision)


def _succeeded(answer: Json) -> Json:
    return answer if "error" in answer else {"succeeded": False, "responses": []} | answer


def _leased(answer: Json) -> Json:
    """Leases of the gateway answer errors as all do."""
    return theirs(answer)


@pytest.fixture(scope="module")
def pair(etcd: Etcd) -> Pair:
    return Pair(etcd)


_turn = itertools.count()


@settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # the pair goes on living: a failing sequence can't be run again
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(step, min_size=10, max_size=30))
def test_answers_as_etcd(pair: Pair, steps: list[Any]) -> None:
    for index, one in enumerate([says.LeaseGrant(11, 1000), says.LeaseGrant(12, 2000), *steps]):
        theirs_, ours = pair.ask(one)
        revs = pair.ours.store.revs
        assert ours == theirs_, f"step {index} at {revs.revision}, compacted {revs.compacted}: {one}"
    if next(_turn) % 3 == 0:
        while pair.ours.store.revs.sweep():
            pass
    theirs_, ours = pair.hashes(0)
    assert ours == theirs_
    _same_after_restore(pair.ours)


def _same_after_restore(ours: Ours) -> None:
    lines = list(ours.store.encode())
    again = Ours()
    again.store.restore(line.rstrip(b"\n") for line in lines)
    assert list(again.store.encode()) == lines
    assert again.store.revs.size == ours.store.revs.size
    assert again.hash(0) == ours.hash(0)
    assert _leases(again) == _leases(ours)


def _leases(ours: Ours) -> dict[int, list[bytes]]:
    return {name: sorted(one.keys) for name, one in ours.store.leases.by_id.items()}
