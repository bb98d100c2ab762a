"""Compaction by itself: by age and by count."""

from actors.kv.autocompact import AutoCompactor


def run(compactor: AutoCompactor, minutes: int) -> list[tuple[int, int]]:
    """A revision a second; (minute, revision compacted)."""
    compactor.restart(0.0)
    told, compacted = [], -1
    for second in range(0, minutes * 60, 6):
        due = compactor.due(float(second), second, compacted)
        if due is not None:
            compacted = due
            told.append((second // 60, due))
    return told


def test_periodic_keeps_a_period() -> None:
    told = run(AutoCompactor("periodic", 1800.0), 150)
    assert len(told) == 4
    for minute, revision in told:
        assert 25 * 60 <= minute * 60 - revision <= 35 * 60


def test_long_periods_are_compacted_each_hour() -> None:
    told = run(AutoCompactor("periodic", 5 * 3600.0), 9 * 60)
    assert [minute // 60 for minute, _ in told] == [4, 5, 6, 7, 8] or len(told) == 4
    assert all(4.8 * 3600 <= minute * 60 - revision <= 5.2 * 3600 for minute, revision in told)


def test_by_count_every_five_minutes() -> None:
    told = run(AutoCompactor("revision", 1000.0), 31)
    assert [revision for _, revision in told] == [1200 - 1000, 500, 800]


def test_never() -> None:
    compactor = AutoCompactor("periodic", 0)
    assert run(compactor, 100) == []
    assert compactor.next_s() is None


def test_what_nothing_was_written_to_is_left() -> None:
    compactor = AutoCompactor("periodic", 60.0)
    compactor.restart(0.0)
    told = [compactor.due(float(second), 1, 1) for second in range(600)]
    assert set(told) == {None}
