"""The format alone: what is encoded is decoded, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.log.segments import frames
from streams.log.segments.frames import Stop
from streams.records import Entry

raws = st.lists(st.binary(max_size=60), min_size=1, max_size=40)


@given(raws, st.integers(0, 2**40))
def test_frames_give_back_the_records_at_their_offsets(records: list[bytes], first: int) -> None:
    out: list[Entry] = []
    data = frames.frames(first, records, first)
    at, offset, stop = frames.decode(data, 0, first, first + len(records), out)
    assert out == [Entry(first + index, raw) for index, raw in enumerate(records)]
    assert (at, offset, stop) == (len(data), first + len(records), Stop.REACHED)


@given(st.integers(1, 2**40), st.integers(0, 2**40), st.binary(max_size=20))
def test_a_hole_moves_the_offset_on(count: int, first: int, raw: bytes) -> None:
    data = frames.hole_frame(first, count, first) + frames.records_frame(first + count, [raw], first)
    out: list[Entry] = []
    assert frames.decode(data, 0, first, first + count + 1, out)[1:] == (first + count + 1, Stop.REACHED)
    assert out == [Entry(first + count, raw)]


@given(raws, st.data())
def test_a_frame_with_any_bits_flipped_is_never_taken(records: list[bytes], data: st.DataObject) -> None:
    whole = frames.records_frame(7, records, 7)
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    hit = bytearray(whole)
    hit[bit // 8] ^= 1 << bit % 8
    out: list[Entry] = []
    at, offset, stop = frames.decode(bytes(hit), 0, 7, 8, out)
    assert (at, offset, out) == (0, 7, [])
    assert stop is not Stop.REACHED


@given(raws, st.data())
def test_a_frame_that_is_cut_is_short(records: list[bytes], data: st.DataObject) -> None:
    whole = frames.records_frame(7, records, 7)
    out: list[Entry] = []
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    assert frames.decode(cut, 0, 7, 8, out) == (0, 7, Stop.SHORT)


@given(st.binary(max_size=300), st.integers(0, 10))
def test_noise_is_never_taken_and_never_raises(noise: bytes, expected: int) -> None:
    out: list[Entry] = []
    assert frames.decode(noise, 0, expected, expected + 1, out)[2] is not Stop.REACHED
    frames.skip_to(noise, 0, expected, expected + 5)
    frames.known_end_after(noise, 0)


@given(st.lists(raws, min_size=1, max_size=8), st.data())
def test_skipping_leads_to_the_frame_that_holds_the_target(commits: list[list[bytes]], data: st.DataObject) -> None:
    buffer, starts, offset = b"", {}, 0
    for records in commits:
        for index in range(len(records)):
            starts[offset + index] = (len(buffer), offset)
        buffer += frames.records_frame(offset, records, offset)
        offset += len(records)
    target = data.draw(st.integers(0, offset - 1))
    assert frames.skip_to(buffer, 0, 0, target) == (*starts[target], 0)


def test_a_large_commit_is_cut_into_frames() -> None:
    records = [bytes(1000)] * 2000
    data = frames.frames(5, records, 5)
    found = list(frames.walk(frames.segment_header(5) + data, 5))
    sizes = [frame.size_bytes for frame in found[:-1]]  # type: ignore[union-attr]
    assert len(sizes) > 5
    assert max(sizes) < frames.FRAME_BYTES + 20_000
    assert found[-1][1] == 2005


@pytest.mark.parametrize("first", [0, 5, 2**63])
def test_a_segment_header_says_its_first_offset(first: int) -> None:
    header = frames.segment_header(first)
    assert frames.read_segment_header(header) == first
    for bit in range(len(header) * 8):
        hit = bytearray(header)
        hit[bit // 8] ^= 1 << bit % 8
        with pytest.raises(frames.NotASegment):
            frames.read_segment_header(bytes(hit))
    for size in range(len(header)):
        with pytest.raises(frames.NotASegment, match="cut off"):
            frames.read_segment_header(header[:size])
