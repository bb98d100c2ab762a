"""When a snapshot is due."""

import pytest

from node.gateway.snapshotting import RECORDS, RECORDS_MAX, SHARE, is_due

NEVER_S = float("inf")


@pytest.mark.parametrize(
    ("records", "rested_s", "took_s", "due"),
    [
        (RECORDS - 1, NEVER_S, 0.0, False),
        (RECORDS, NEVER_S, 0.0, True),
        # one that took ten seconds takes a twentieth of the time
        (RECORDS, 10.0 * SHARE - 11, 10.0, False),
        (RECORDS, 10.0 * SHARE - 10, 10.0, True),
        (RECORDS_MAX - 1, 0.0, 10.0, False),
        (RECORDS_MAX, 0.0, 10.0, True),
    ],
)
def test_a_long_one_is_rare_unless_a_start_would_take_long(
    records: int, rested_s: float, took_s: float, due: bool
) -> None:
    assert is_due(records, rested_s, took_s) is due
