"""What the log says of leases, and what they live by it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv.v3.leases import Leases, renewed_ids
from streams.events import kv3 as says
from streams.events.base import Base64


def ids(*leases: int) -> Base64:
    return Base64(b"".join(lease.to_bytes(8, "big", signed=True) for lease in leases))


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.binary(max_size=7))
def test_ids_are_read_whatever_stands_behind_the_last_whole_one(leases: list[int], behind: bytes) -> None:
    said = says.LeasesRenew(Base64(ids(*leases).base64 + behind))
    assert list(renewed_ids(said)) == leases


def test_who_renews_is_told_of_those_that_are_there() -> None:
    leases = Leases()
    leases.grant(says.LeaseGrant(7, 10), 1)
    leases.grant(says.LeaseGrant(8, 20), 2)
    assert leases.renew(says.LeasesRenew(ids(8, 9, 7)), 3) == {8: 20, 7: 10}
    assert [(one.renewed, one.left_ms) for one in leases.by_id.values()] == [(3, 10_000), (3, 20_000)]


def test_a_count_is_of_the_lease_as_it_was_renewed_last() -> None:
    leases = Leases()
    leases.grant(says.LeaseGrant(7, 10), 1)
    leases.count(says.LeasesCounted([says.LeaseLeft(9, 1, 1), says.LeaseLeft(7, 1, 5000)]), 2)
    assert (leases.by_id[7].renewed, leases.by_id[7].left_ms) == (2, 5000)
    leases.renew(says.LeasesRenew(ids(7)), 3)
    leases.count(says.LeasesCounted([says.LeaseLeft(7, 2, 4000)]), 4)  # counted before it was renewed
    assert (leases.by_id[7].renewed, leases.by_id[7].left_ms) == (3, 10_000)
