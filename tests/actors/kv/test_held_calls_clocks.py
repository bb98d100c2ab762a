"""TTLs and ages on the master's clock: minima, counted for the next term, and gone with what they were of."""

from itertools import pairwise

import pytest

from actors.host import BATCH_BYTES
from actors.kv.autocompact import AutoCompactor
from actors.kv.decide import COUNT_S, Countdowns
from actors.kv.prefixes import PrefixCompactor
from actors.kv.state import KvFold
from actors.kv.v2.delete import count_ttls
from actors.kv.v2.put import put
from actors.kv.v2.store import Store
from actors.kv.v3.store import Store as V3Store
from streams.events import kv as says
from streams.events import kv3 as v3_says
from streams.events.base import Data, encode, say
from tests.actors.kv.test_prefixes import told
from tests.actors.kv.test_store import entries, replayed

#: Boot time of a machine that has run for a while.
NOW_S = 50_000.0


def test_a_next_term_gives_no_ttl_half_an_interval_more_than_it_had() -> None:
    store, clocks, ages_s = Store(), Countdowns(), (0.0, 1.0, 100.0, 149.0, 150.0, 151.0, 300.0)
    clocks.restart(store, NOW_S)
    for age_s in reversed(ages_s):
        put(store, says.Set(f"/{age_s}", "v", ttl_s=3600), 1000)
        clocks.touched(store, [f"/{age_s}"], NOW_S + COUNT_S - age_s)
    assert clocks.counted(store, NOW_S + COUNT_S - 0.1) == []
    left = clocks.counted(store, NOW_S + COUNT_S)
    # the log isn't troubled with the others
    assert {one.key for one in left} == {f"/{age_s}" for age_s in ages_s if age_s >= COUNT_S / 2}
    count_ttls(store, says.TtlsCounted(left))
    term = Countdowns()
    term.restart(store, 0.0)
    for age_s in ages_s:
        assert not [one for one in term.due(store, 3600 - age_s - 0.1) if one.key == f"/{age_s}"]
        assert f"/{age_s}" in {one.key for one in term.due(store, 3600 - age_s + COUNT_S / 2 - 0.1)}
    assert clocks.counted(store, NOW_S + 2 * COUNT_S - 0.1) == []
    assert clocks.counted(store, NOW_S + 2 * COUNT_S) != []


@pytest.mark.parametrize(
    "after",
    [
        [says.Put("/d/k", "w"), says.Put("/d/l", "w")],
        [says.Set("/d/k", "w"), says.Set("/d/l", prev_exist=True)],
        [says.Delete("/d/k"), says.Delete("/d/l", prev_value="v")],
        [says.Delete("/d", recursive=True)],
        [says.Expired("/d/k", 1, 6000), says.Expired("/d/l", 2, 6000)],
    ],
)
def test_what_has_no_ttl_any_more_is_not_counted_down_by_the_next_term(after: list[Data]) -> None:
    fold = replayed(
        entries(
            [say(says.Set("/d/k", "v", ttl_s=5)), say(says.Set("/d/l", "v", ttl_s=5))], [say(data) for data in after]
        )
    ).fold
    assert isinstance(fold, KvFold)
    store = fold.store
    clocks = Countdowns()
    clocks.restart(store, 0.0)
    assert clocks.next_s(store) is None
    assert clocks.due(store, 1e9) == []


@pytest.mark.parametrize(
    ("retention_s", "every_s"), [(60, 60), (600, 600), (1800, 1800), (3600, 3600), (5 * 3600, 3600)]
)
def test_periodic_compaction_is_once_a_period_and_an_hour_at_most(retention_s: float, every_s: float) -> None:
    """As in etcd; and asked only when it says so it misses none."""
    compactor, compacted, times = AutoCompactor("periodic", retention_s), -1, list[float]()
    compactor.restart(NOW_S)
    while len(times) < 5:
        at = compactor.next_s()
        assert at is not None
        revision = compactor.due(at, int(at), compacted)
        if revision is not None:
            compacted = revision
            times.append(at)
            assert retention_s * 0.9 <= at - revision <= retention_s * 1.1
    assert [later - sooner for sooner, later in pairwise(times)] == pytest.approx([every_s] * 4)


def test_a_new_master_lets_a_prefix_keep_its_history_for_a_whole_age_again() -> None:
    store, compactor = V3Store(), PrefixCompactor()
    told(store, v3_says.PolicySet("a", keep_age_s=100), *[v3_says.Put("a", "v") for _ in range(3)])
    compactor.restart(NOW_S)
    assert not [one for at in range(0, 90, 5) for one in compactor.due(store.revs, NOW_S + at)]
    compactor.restart(NOW_S + 90)
    said = [at for at in range(90, 300, 5) if compactor.due(store.revs, NOW_S + at)]
    assert 185 <= said[0] <= 205


def test_long_names_that_run_out_together_fit_a_record() -> None:
    store, clocks = Store(), Countdowns()
    for number in range(300):
        put(store, says.Set(f"/{number:03d}" + "x" * 9000, "v", ttl_s=600), 1000)
    clocks.restart(store, 0.0)
    left, due = clocks.counted(store, COUNT_S), clocks.due(store, 600.0)
    assert 0 < len(left) < 300
    assert 0 < len(due) < 300
    assert len(encode([say(says.TtlsCounted(left))])) < BATCH_BYTES
    assert len(encode([say(one) for one in due])) < BATCH_BYTES
    # the others are counted at once, not after the next interval
    count_ttls(store, says.TtlsCounted(left))
    assert {one.key for one in left}.isdisjoint(one.key for one in clocks.counted(store, COUNT_S))
