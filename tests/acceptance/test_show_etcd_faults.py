"""Show: etcd's clients at work on three nodes while masters, nodes and brokers are killed, stopped and cut off.

Five minutes of it; ``make test-all`` takes half an hour (tests/cluster/test_linearizable.py).
"""

import pytest

from tests.cluster.test_linearizable import compared_bytes, held, storm
from tests.storm.__main__ import LONGEST

pytestmark = [pytest.mark.acceptance, pytest.mark.kafka]
MINUTES = 5


@pytest.mark.timeout(60 * (LONGEST * MINUTES + 10))
def test_nothing_acknowledged_is_lost_no_read_is_stale_no_event_missing_no_lease_early() -> None:
    held(MINUTES)


@pytest.mark.timeout(600)
def test_states_are_the_same_byte_for_byte_on_three_nodes_after_kills() -> None:
    assert compared_bytes(storm(0.7, "--only", "killed")) > 100_000
