"""Torn tails are cut, damage halts: every byte of the last record, every bit of a header."""

import struct
from pathlib import Path

import pytest

from streams.log.port import ForeignLog, LogError
from streams.log.segments import DamagedLog
from streams.log.segments.frames import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, Frame, walk
from tests.streams.log.folders import copy_of, forget_the_end, opened, read, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


def frames_of(segment: Path) -> list[Frame]:
    return [step for step in walk(segment.read_bytes(), int(segment.stem)) if isinstance(step, Frame)]


def only_segment(folder: Path) -> Path:
    (segment,) = folder.glob("*.seg")
    return segment


@pytest.mark.parametrize("each", [1, 3])
def test_the_last_record_cut_at_every_byte_is_gone_and_writing_goes_on(folder: Path, tmp_path: Path, each: int) -> None:
    entries = write(folder, 4, each)
    last = frames_of(only_segment(folder))[-1]
    forget_the_end(folder)
    raw = only_segment(folder).read_bytes()
    for size in range(last.byte, last.byte + last.size_bytes):
        for filling in (b"", bytes(4096)):
            copy = copy_of(folder, tmp_path / "copy")
            only_segment(copy).write_bytes(raw[:size] + filling)
            if size + len(filling) >= last.byte + last.size_bytes and not any(raw[size : last.byte + last.size_bytes]):
                continue  # what was cut off were zeros
            assert read(copy) == entries[:-each]
            assert [entry.offset for entry in write(copy, 1)] == [last.first]
            assert read(copy)[:-1] == entries[:-each]


@pytest.mark.parametrize("each", [1, 3])
def test_every_bit_of_the_last_header_reads_as_torn_if_nobody_knows_better(folder: Path, each: int) -> None:
    entries = write(folder, 3, each)
    segment = only_segment(folder)
    last = frames_of(segment)[-1]
    raw = segment.read_bytes()
    for bit in range(FRAME_HEADER_BYTES * 8):
        forget_the_end(folder)
        hit = bytearray(raw)
        hit[last.byte + bit // 8] ^= 1 << bit % 8
        segment.write_bytes(hit)
        assert read(folder) == entries[:-each]


def test_every_bit_of_an_earlier_header_halts_and_names_segment_and_byte(folder: Path) -> None:
    write(folder, 4)
    segment = only_segment(folder)
    second = frames_of(segment)[1]
    raw = segment.read_bytes()
    forget_the_end(folder)
    for bit in range(FRAME_HEADER_BYTES * 8):
        hit = bytearray(raw)
        hit[second.byte + bit // 8] ^= 1 << bit % 8
        segment.write_bytes(hit)
        with pytest.raises(DamagedLog) as caught:
            read(folder)
        assert (caught.value.segment, caught.value.byte, caught.value.offset) == (segment, second.byte, 1)
        assert segment.name in str(caught.value)
        assert f"byte {second.byte}" in str(caught.value)
        assert segment.read_bytes() == hit, "damage is left as it is"


def test_a_last_frame_that_was_published_is_damage_and_not_torn(folder: Path) -> None:
    write(folder, 3)
    segment = only_segment(folder)
    last = frames_of(segment)[-1]
    raw = bytearray(segment.read_bytes())
    for byte in range(last.byte, last.byte + last.size_bytes):
        hit = bytearray(raw)
        hit[byte] ^= 0x10
        segment.write_bytes(hit)
        with pytest.raises(DamagedLog) as caught:
            read(folder)
        assert (caught.value.byte, caught.value.known_end) == (last.byte, 3)


def test_after_a_reboot_the_last_published_end_still_counts(folder: Path) -> None:
    write(folder, 3)
    segment = only_segment(folder)
    last = frames_of(segment)[-1]
    another_boot(folder)
    segment.write_bytes(segment.read_bytes()[: last.byte + 5])
    with pytest.raises(DamagedLog) as caught:
        read(folder)
    assert (caught.value.byte, caught.value.known_end) == (last.byte, 3)


def test_after_a_reboot_whole_records_beyond_an_old_published_end_are_kept(folder: Path) -> None:
    write(folder, 2)
    old = (folder / "end").read_bytes()
    entries = read(folder) + write(folder, 3)
    (folder / "end").write_bytes(old)
    another_boot(folder)
    assert read(folder) == entries


def test_an_end_file_brought_back_from_a_copy_loses_nothing(folder: Path) -> None:
    write(folder, 2)
    old = (folder / "end").read_bytes()
    entries = read(folder) + write(folder, 3)
    (folder / "end").write_bytes(old)
    assert read(folder) == entries
    assert write(folder, 1)[0].offset == 5


@pytest.mark.parametrize("content", [b"", b"x" * 10, bytes(4096), b"\xff" * 4096])
def test_a_damaged_end_file_is_made_anew(folder: Path, content: bytes) -> None:
    entries = write(folder, 3)
    (folder / "end").write_bytes(content)
    assert read(folder) == entries


def test_noise_behind_the_last_frame_is_cut(folder: Path) -> None:
    entries = write(folder, 3)
    segment = only_segment(folder)
    last = frames_of(segment)[-1]
    forget_the_end(folder)
    segment.write_bytes(segment.read_bytes()[: last.byte + last.size_bytes] + b"\xf7LOG" + bytes(range(256)) * 4)
    assert read(folder) == entries
    assert write(folder, 1)[0].offset == 3


def test_a_batch_whose_first_page_was_lost_is_torn_not_damage(folder: Path) -> None:
    """Pages reach the disk in any order: later frames of one commit may be whole, and knew of nothing durable."""
    entries = write(folder, 2)
    shared_commit(folder, [b"CORELOG " + bytes([65 + index]) * 200_000 for index in range(4)])
    segment = only_segment(folder)
    third = frames_of(segment)[2]
    forget_the_end(folder)
    raw = bytearray(segment.read_bytes())
    raw[third.byte : third.byte + 4096] = bytes(4096)
    segment.write_bytes(raw)
    assert read(folder) == entries


def test_damage_in_a_sealed_segment_halts_the_reader_there(folder: Path) -> None:
    entries = write(folder, 120, segment_bytes=4096)
    segments = sorted(folder.glob("*.seg"))
    assert len(segments) > 2
    raw = bytearray(segments[1].read_bytes())
    raw[SEGMENT_HEADER_BYTES + 40] ^= 1
    segments[1].write_bytes(raw)
    with pytest.raises(DamagedLog) as caught:
        read(folder)
    assert (caught.value.segment, caught.value.byte) == (segments[1], SEGMENT_HEADER_BYTES)
    assert caught.value.offset == int(segments[1].stem)
    assert entries[caught.value.offset].offset == int(segments[1].stem)


@pytest.mark.parametrize("which", ["middle", "cut"])
def test_a_sealed_segment_that_is_gone_or_short_halts(folder: Path, which: str) -> None:
    write(folder, 120, segment_bytes=4096)
    segments = sorted(folder.glob("*.seg"))
    if which == "middle":
        segments[1].unlink()
    else:
        segments[1].write_bytes(segments[1].read_bytes()[:-1])
    with pytest.raises(DamagedLog) as caught:
        read(folder)
    assert caught.value.segment == segments[0 if which == "middle" else 1]


def test_all_segments_gone_halts(folder: Path) -> None:
    write(folder, 3)
    only_segment(folder).unlink()
    with pytest.raises(DamagedLog):
        read(folder)


def test_a_segment_of_a_newer_format_is_refused(folder: Path) -> None:
    write(folder, 3)
    segment = only_segment(folder)
    segment.write_bytes(b"CLSEG2\r\n" + segment.read_bytes()[8:])
    with pytest.raises(ForeignLog, match=r"segment format 2.*upgrade"):
        read(folder)


async def test_a_tail_halts_at_damage(folder: Path) -> None:
    write(folder, 10)
    segment = only_segment(folder)
    fourth = frames_of(segment)[3]
    raw = bytearray(segment.read_bytes())
    raw[fourth.byte + FRAME_HEADER_BYTES + 8] ^= 1
    log = await opened(folder)
    segment.write_bytes(raw)
    tail = log.tail(0)
    assert len(await anext(tail)) == 3
    with pytest.raises(LogError, match=f"byte {fourth.byte}"):
        await anext(tail)
    await log.close()


def another_boot(folder: Path) -> None:
    raw = bytearray((folder / "end").read_bytes())
    raw[8:24] = b"\x01" * 16
    (folder / "end").write_bytes(raw)


def shared_commit(folder: Path, raws: list[bytes]) -> None:
    from streams.log.segments.driver import _opened

    shared, writer = _opened(folder, 1 << 26)
    writer.commit(raws)
    shared.close()


def test_the_words_of_the_end_file_are_where_this_file_thinks(folder: Path) -> None:
    write(folder, 3)
    words = struct.unpack("<8Q", (folder / "end").read_bytes()[:64])
    assert words[4] == 3
