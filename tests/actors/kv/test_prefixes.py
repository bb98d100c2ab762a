"""When a prefix's history is compacted, by its age and its size: time is told."""

from actors.kv.prefixes import SIZES_S, PrefixCompactor
from actors.kv.v3.store import Store
from streams.events import kv3 as says
from streams.events.base import Data, say


def told(store: Store, *said: Data) -> None:
    for data in said:
        store.evolve(say(data), 1)


def test_an_old_history_is_compacted_up_to_its_age() -> None:
    store, compactor = Store(), PrefixCompactor()
    compactor.restart(0.0)
    assert compactor.due(store.revs, 0.0) == []
    assert compactor.next_s(store.revs) is None
    told(store, says.PolicySet("a", keep_age_s=100), says.Put("a", "1"), says.Put("a", "2"), says.Put("a", "3"))
    said, at = [], 0
    while at <= 300:
        for one in compactor.due(store.revs, float(at)):
            said.append((at, one.prefix, one.revision))
            told(store, one)
        following = compactor.next_s(store.revs)
        assert following is not None
        assert at < following <= at + SIZES_S
        at += 5
    ((when, prefix, revision),) = said  # and nothing again, for nothing more would be given back
    assert 95 <= when <= 115
    assert (prefix, revision) == ("a", 4)
    told(store, says.Put("a", "4"))
    later = [one for now in range(300, 500, 5) for one in compactor.due(store.revs, float(now))]
    assert {one.revision for one in later} == {5}


def test_another_age_counts_anew() -> None:
    store, compactor = Store(), PrefixCompactor()
    compactor.restart(0.0)
    told(store, says.PolicySet("a", keep_age_s=1000), says.Put("a", "1"), says.Put("a", "2"))
    assert not [one for now in range(0, 200, 5) for one in compactor.due(store.revs, float(now))]
    told(store, says.PolicySet("a", keep_age_s=50))
    said = [(now, one.revision) for now in range(200, 300, 5) for one in compactor.due(store.revs, float(now))]
    assert said[0][1] == 3
    assert 240 <= said[0][0] <= 265


def test_a_large_history_is_compacted_every_ten_seconds() -> None:
    store, compactor = Store(), PrefixCompactor()
    compactor.restart(0.0)
    told(store, says.PolicySet("a", keep_bytes=200), *[says.Put("a", "v" * 50) for _ in range(8)])
    (first,) = compactor.due(store.revs, 0.0)
    told(store, first)
    told(store, *[says.Put("a", "v" * 50) for _ in range(8)])
    assert compactor.due(store.revs, SIZES_S - 1) == []
    (second,) = compactor.due(store.revs, SIZES_S)
    assert second.revision == first.revision + 8


def test_a_policy_that_has_an_age_no_more_is_waited_for_no_more() -> None:
    store, compactor = Store(), PrefixCompactor()
    compactor.restart(0.0)
    told(store, says.PolicySet("a", keep_age_s=10), says.PolicySet("b", keep_bytes=1000), says.Put("a", "1"))
    compactor.due(store.revs, 0.0)
    for changed in (says.PolicySet("a", keep_bytes=1000), says.PolicyRemove("a")):
        told(store, changed)
        compactor.due(store.revs, 1000.0)
        following = compactor.next_s(store.revs)
        assert following is not None
        assert following > 1000.0
