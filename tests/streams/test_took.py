"""Buckets hold what took no longer than their bound, and the last one all."""

from hypothesis import given
from hypothesis import strategies as st

from streams.took import Took


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 99.0])))
def test_each_bucket_counts_what_took_no_longer(times: list[float]) -> None:
    took = Took([0.5, 1.0, 2.0])
    for one in times:
        took.add(one)
    counted = [sum(one <= bound for one in times) for bound in (0.5, 1.0, 2.0)]
    assert took.buckets() == [("0.5", counted[0]), ("1.0", counted[1]), ("2.0", counted[2]), ("+Inf", len(times))]
    assert took.sum_s == sum(times)
