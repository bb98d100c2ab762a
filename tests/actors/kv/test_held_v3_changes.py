"""Changes of v3's keys at their bounds: transactions that can't be, quotas to the byte, parts of imports, restores."""

import msgspec
import pytest

from actors.kv.state import KvFold
from actors.kv.v3 import errors
from actors.kv.v3.imports import PARTS_MAX
from actors.kv.v3.kinds import Result, TxnDone
from actors.kv.v3.revs import OVERHEAD_BYTES
from actors.kv.v3.store import LINE, Store, head
from streams.events import kv as v2_says
from streams.events import kv3 as says
from streams.events.base import Data, say
from streams.outcomes import DONE, Accepted, Outcome, Rejected
from streams.records import Position, Record
from streams.replay import Context, LogState

RECORD = Record("ab" * 16, "kv", "kv@m", 1, 1, 1_700_000_000_000, b"")


def apply(store: Store, *said: Data) -> list[Outcome]:
    return [store.evolve(say(data), 1) for data in said]


def accepted(store: Store, *said: Data) -> list[Outcome]:
    came = apply(store, *said)
    assert not [one for one in came if isinstance(one, Rejected)]
    return came


def refused(store: Store, said: Data) -> Rejected:
    """What is refused changes nothing."""
    before = list(store.encode()), store.revs.size
    [came] = apply(store, said)
    assert isinstance(came, Rejected)
    assert (list(store.encode()), store.revs.size) == before
    return came


def code(outcome: Outcome) -> str:
    return outcome.code if isinstance(outcome, Rejected) else "+"


# -- transactions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("key", "end"), [("k", ""), ("other", ""), ("a", "z")])
@pytest.mark.parametrize("revision", [1, 2, 3])
def test_a_transaction_that_looks_below_the_compaction_does_nothing(
    revision: int, key: str, end: str, nested: bool
) -> None:
    """Also at revision 1, at which nothing was there; and what stands before it isn't done either."""
    store = Store()
    accepted(store, *(says.Put("k", str(number)) for number in range(4)), says.Compact(4))
    ops: list[says.Op] = [says.OpPut("new", "n"), says.OpDelete("k"), says.OpRange(key, end, revision=revision)]
    assert refused(store, says.Txn([], [says.OpTxn([], ops)] if nested else ops)) == errors.COMPACTED.rejected
    assert list(store.revs.live) == [b"k"]


@pytest.mark.parametrize(("result", "holds"), [(0, False), (3, True)])
@pytest.mark.parametrize(("target", "operand"), [(3, 0), (3, 1), (0, "v"), (2, "v"), (4, "v")])
def test_a_value_never_equals_a_number(target: int, operand: str | int, result: int, holds: bool) -> None:
    store = Store()
    accepted(store, says.Put("k", "v"))
    txn = says.Txn([says.Compare("k", target, result, operand)], [says.OpPut("yes")], [says.OpPut("no")])
    [came] = accepted(store, txn)
    assert isinstance(came, Accepted)
    assert isinstance(came.result, Result)
    assert isinstance(came.result.value, TxnDone)
    assert came.result.value.succeeded == holds
    assert (b"yes" in store.revs.live) == holds


# -- quotas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delete", "left"),
    [
        (says.OpDelete("a/1", "a/2"), ["a/2"]),
        (says.OpDelete("a/1", "\0"), []),
        (says.OpDelete("a/2", "\0"), ["a/1"]),
        (says.OpDelete("a/2", "b"), ["a/1"]),
        (says.OpDelete("a/0", "a/1"), None),
        (says.OpDelete("a/3", "\0"), None),
        (says.OpDelete("a/3", "b"), None),
        (says.OpDelete("b", "\0"), None),
    ],
)
def test_a_range_deletes_what_its_transaction_put_before_it(delete: says.OpDelete, left: list[str] | None) -> None:
    """Keys that are new, in a prefix that has room for one of them; None: both would be left."""
    store = Store()
    accepted(store, says.PolicySet("a/", max_bytes=3 + 10 + OVERHEAD_BYTES))
    txn = says.Txn([], [says.OpPut("a/1", "v" * 10), says.OpPut("a/2", "v" * 10), delete])
    if left is None:
        assert code(refused(store, txn)) == f"v3.{errors.EXHAUSTED}"
        assert not store.revs.live
    else:
        accepted(store, txn)
        assert [key.decode() for key in store.revs.live] == left


@pytest.mark.parametrize("more", [0, 1, 2])
def test_a_full_prefix_takes_no_byte_more_whichever_way_a_put_goes(more: int) -> None:
    """One event, a record of them, and a transaction."""
    said = (says.Put("k", "v" * (9 + more)), says.Txn([], [says.OpPut("k", "v" * (9 + more))]))
    expected = "+" if not more else f"v3.{errors.EXHAUSTED}"
    for data in said:
        one, many = KvFold(), KvFold()
        for fold in (one, many):
            accepted(fold.v3, says.PolicySet("k", max_bytes=10 + OVERHEAD_BYTES), says.Put("k", "v" * 9))
        context = Context(Position(3), RECORD, LogState())
        came = many.evolve_many([say(data)], RECORD, LogState(), lambda e, _: many.evolve(e, context), True)  # noqa: B023
        assert [code(outcome) for outcome in came] == [code(one.evolve(say(data), context))] == [expected]
        assert list(many.encode()) == list(one.encode())


def test_10000_policies_can_be() -> None:
    """As docs/etcd.md says; another one is refused, naming that number, and those that are there can be changed."""
    limits = [{"prefix": f"{number:05}", "max_bytes": 1} for number in range(9_999)]
    store = Store()
    store.restore([LINE + b'1,"revision":1,"policies":' + msgspec.json.encode(limits) + b"}\n"])
    last, again, above = (says.PolicySet(prefix, max_bytes=2) for prefix in ("last", "00007", "more"))
    accepted(store, last)
    assert store.revs.policies is not None
    assert len(store.revs.policies.by_prefix) == 10_000
    [why] = apply(store, above)
    assert isinstance(why, Rejected)
    assert (why.code, "10000" in why.message.split()) == ("kv-policy.too-many", True)
    accepted(store, again, says.PolicyRemove("last"), above)


# -- in parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [says.ImportBegin, says.RestoreBegin])
def test_65536_parts_can_be_and_no_more(begin: type[says.ImportBegin | says.RestoreBegin]) -> None:
    store = Store()
    if begin is says.RestoreBegin:
        accepted(store, says.Put("k"))
    for parts, expected in [(1, True), (65_535, True), (65_536, True), (65_537, False), (-1, False)]:
        [came] = apply(store, begin("i", parts))
        assert isinstance(came, Accepted) == expected
        if isinstance(came, Rejected):
            assert {str(parts), "65536"} <= set(came.message.split())
    assert PARTS_MAX == 65_536


def test_what_is_only_staged_tells_of_no_revision() -> None:
    """No outcome but the last has the store's: whoever looks for what a record made finds nothing there."""
    store = Store()
    accepted(store, says.Put("k", "1"))
    lines = b"".join(store.encode()).decode()
    begin, part, end = says.RestoreBegin("r", 1), says.RestorePart("r", 0, [("k", "2")]), says.RestoreEnd("r")
    assert apply(store, begin, part, end) == [DONE, DONE, Accepted(Result(3))]
    fresh = Store()
    steps = says.ImportBegin("i", 1), says.ImportPart("i", 0, lines), says.ImportEnd("i")
    assert apply(fresh, *steps) == [DONE, DONE, Accepted(Result(2))]


@pytest.mark.parametrize("number", [-1, 2, 7])
def test_a_part_that_can_not_be_is_named(number: int) -> None:
    """With the part, how many there are, and a code that programs can go by."""
    store, fresh = Store(), Store()
    accepted(store, says.Put("k"), says.RestoreBegin("r", 2))
    accepted(fresh, says.ImportBegin("i", 2))
    for came, name in [
        (refused(store, says.RestorePart("r", number, [("k", "")])), "v3-restore.part"),
        (refused(fresh, says.ImportPart("i", number, "")), "v3-import.part"),
    ]:
        assert came.code == name
        assert came.message.split()[-3:] == [str(number), "of", "2"]


def test_what_a_restore_can_not_take_has_a_code() -> None:
    store = Store()
    accepted(store, says.Put("k"), says.RestoreBegin("r", 2))
    for part in (
        says.RestorePart("r", 0, [("", "v")]),
        says.RestorePart("r", 1, [], ["k", ""]),
        says.RestorePart("r", 0, dirs=["/d"]),
    ):
        assert refused(store, part).code == "v3-restore.part"


# -- lines of a snapshot ----------------------------------------------------------------------------------------------


def test_each_line_of_what_is_staged_says_its_form() -> None:
    store = Store()
    accepted(store, says.ImportBegin("i", 2), says.ImportPart("i", 1, "x\n"), says.ImportPart("i", 0, "y\n"))
    lines = list(store.encode())
    assert len(lines) == 4
    assert all(line.startswith(b'{"v3":1,') for line in lines)
    again = Store()
    again.restore(lines)
    assert list(again.encode()) == lines


def test_the_first_line_tells_how_far_a_store_goes_back() -> None:
    """Of one that nothing happened to there is no line of v3's: it goes back to the beginning, and isn't compacted."""
    fold, store = KvFold(), Store()
    fold.evolve(say(v2_says.Put("/a", "1")), Context(Position(3), RECORD, LogState()))
    v2 = b"".join(fold.encode()).splitlines()[0]
    assert head(b"") == head(v2) == (1, -1) == (store.revs.revision, store.revs.compacted)
    accepted(store, says.PolicySet("a", keep_bytes=1), *(says.Put("a") for _ in range(5)))
    assert head(next(store.encode())) == (6, -1)
    accepted(store, says.Compact(3))
    assert head(next(store.encode())) == (6, 3)
    accepted(store, says.PrefixCompact("a", 5))
    assert head(next(store.encode())) == (6, 5)
