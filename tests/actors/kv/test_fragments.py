"""Watch responses cut below gRPC's limit."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.kv.rpc.watching import FRAGMENT_BYTES, fragments, varint


@settings(deadline=None)
@given(st.lists(st.integers(0, FRAGMENT_BYTES // 2 + 2) | st.just(FRAGMENT_BYTES) | st.just(1), max_size=8))
def test_fragments_are_as_full_as_they_may_be_and_only_the_last_says_so(sizes: list[int]) -> None:
    events = [bytes((65 + at,)) * size for at, size in enumerate(sizes)]
    bodies, mores = zip(*fragments(events), strict=True)
    assert b"".join(bodies) == b"".join(events)
    assert mores == (True,) * (len(mores) - 1) + (False,)
    at = 0
    for body in bodies:
        taken = []
        while at < len(events) and sum(map(len, taken)) + len(events[at]) <= len(body):
            taken.append(events[at])
            at += 1
        assert body == b"".join(taken)  # no event is cut
        assert len(body) <= FRAGMENT_BYTES or len([one for one in taken if one]) == 1
        if at < len(events):
            assert len(body) + len(events[at]) > FRAGMENT_BYTES


@settings(deadline=None)
@example(127)
@example(128)
@given(st.integers(-(2**63), 2**64 - 1) | st.integers(-300, 300))
def test_numbers_read_as_they_were(number: int) -> None:
    raw = varint(number)
    read = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(raw))
    assert read == number % 2**64
    assert all(byte & 0x80 for byte in raw[:-1])
    assert not raw[-1] & 0x80
    assert len(raw) == max(1, -(-read.bit_length() // 7))
