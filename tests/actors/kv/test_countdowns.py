"""Leases on the master's clock, beside a plain model: never early, never forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from actors.kv.countdowns import COUNT_S, LeaseClocks
from actors.kv.v3.leases import Leases
from streams.events import kv3 as says
from streams.events.base import Base64


def renewal(lease: int) -> says.LeasesRenew:
    return says.LeasesRenew(Base64(lease.to_bytes(8, "big", signed=True)))


step = st.one_of(
    st.tuples(st.just("grant"), st.integers(1, 6), st.integers(2, 30)),
    st.tuples(st.just("renew"), st.integers(1, 6), st.just(0)),
    st.tuples(st.just("revoke"), st.integers(1, 6), st.just(0)),
    st.tuples(st.just("wait"), st.integers(0, 12), st.just(0)),
    st.tuples(st.just("expire"), st.just(0), st.just(0)),
    st.tuples(st.just("restart"), st.just(0), st.just(0)),
)


@given(st.lists(step, max_size=60))
def test_what_is_due_is_what_a_model_says(steps: list[tuple[str, int, int]]) -> None:
    leases, model, now = Leases(), dict[int, float](), 1000.0
    clocks = LeaseClocks(leases)
    clocks.restart(now)
    for offset, (kind, number, ttl_s) in enumerate(steps, 1):
        match kind:
            case "grant" if number not in leases.by_id:
                leases.grant(says.LeaseGrant(number, ttl_s), offset)
                model[number] = now + ttl_s
                clocks.touched([number], now)
            case "renew":
                leases.renew(renewal(number), offset)
                if number in model:
                    model[number] = now + leases.by_id[number].ttl_s
                clocks.touched([number], now)
            case "revoke":
                leases.by_id.pop(number, None)
                model.pop(number, None)
                clocks.touched([number], now)
            case "wait":
                now += number
            case "expire":
                for one in clocks.due(now):
                    assert one.renewed == leases.by_id.pop(one.id).renewed
                    assert model.pop(one.id) <= now
                    clocks.touched([one.id], now)
            case "restart":
                clocks.restart(now)
                model = {lease: now + found.left_ms / 1000 for lease, found in leases.by_id.items()}
            case _:
                pass
        due = sorted(one.id for one in clocks.due(now))
        assert due == sorted(lease for lease, due_s in model.items() if due_s <= now)
        assert clocks.next_s() == min(model.values(), default=None)


def test_long_leases_are_counted_for_the_next_term() -> None:
    leases = Leases()
    leases.grant(says.LeaseGrant(1, 10_000), 1)
    leases.grant(says.LeaseGrant(2, 100), 1)
    clocks = LeaseClocks(leases)
    clocks.restart(0.0)
    assert clocks.counted(COUNT_S - 1) is None
    counted = clocks.counted(COUNT_S)
    assert counted == says.LeasesCounted([says.LeaseLeft(1, 1, 9_700_000)])
    leases.count(counted, 9)
    next_term = LeaseClocks(leases)
    next_term.restart(5000.0)
    assert next_term.due_s(1) == 5000.0 + 9700
