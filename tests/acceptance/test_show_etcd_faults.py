"""Show: etcd's clients at work on three nodes while masters, nodes and brokers are killed, stopped and cut off."""

import pytest

from tests.cluster.test_linearizable import (
    FAULTS_A_MINUTE,
    KINDS,
    MINUTES,
    OPERATIONS_A_MINUTE,
    compared_bytes,
    counted,
    operations,
    storm,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.kafka]


@pytest.mark.timeout(60 * (MINUTES + 10))
def test_nothing_acknowledged_is_lost_no_read_is_stale_no_event_missing_no_lease_early() -> None:
    told = storm(MINUTES)
    assert "\n0 violations" in told
    assert operations(told) >= OPERATIONS_A_MINUTE * MINUTES
    assert set(counted(told)) == set(KINDS)
    assert min(counted(told).values()) >= int(FAULTS_A_MINUTE * MINUTES)


@pytest.mark.timeout(600)
def test_states_are_the_same_byte_for_byte_on_three_nodes_after_kills() -> None:
    assert compared_bytes(storm(0.7, "--only", "killed")) > 100_000
