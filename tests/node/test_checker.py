"""The checker of Show 7 finds planted losses, and nothing in a sound history."""

from hypothesis import given
from hypothesis import strategies as st

from tests.acceptance.checker import Op, violations


def sound(count: int) -> list[Op]:
    ops = []
    for number in range(1, count + 1):
        ops.append(Op("write", "/k", number, number, number + 0.4, ok=number % 3 != 0))
        ops.append(Op("read", "/k", number, number + 0.5, number + 0.6))
    return ops


@given(st.integers(1, 12))
def test_a_sound_history_has_no_violation(count: int) -> None:
    assert violations(sound(count)) == []


def test_an_unknown_write_may_be_there_or_not() -> None:
    write = Op("write", "/k", 1, 0, 1)
    unknown = Op("write", "/k", 2, 2, 3, ok=False)
    for value in (1, 2):
        assert violations([write, unknown, Op("read", "/k", value, 4, 5)]) == []


@given(st.integers(4, 12), st.data())
def test_a_planted_loss_of_an_acknowledged_write_is_found(count: int, data: st.DataObject) -> None:
    ops = sound(count)
    acknowledged = [op.value for op in ops if op.kind == "write" and op.ok]
    lost = data.draw(st.sampled_from(acknowledged))
    at = next(i for i, op in enumerate(ops) if op.kind == "read" and op.value == lost)
    ops[at] = ops[at]._replace(value=lost - 1)
    assert any(f"after {lost} was acknowledged" in line for line in violations(ops))


def test_a_read_that_goes_back_or_invents_is_found() -> None:
    unknown = Op("write", "/k", 1, 0, 1, ok=False)
    reads = [Op("read", "/k", 1, 2, 3), Op("read", "/k", 0, 4, 5)]
    assert "had been read" in violations([unknown, *reads])[0]
    assert "nobody had written" in violations([unknown, Op("read", "/k", 7, 2, 3)])[0]
