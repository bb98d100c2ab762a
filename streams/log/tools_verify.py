"""``corelog log verify``: is the log whole? Read-only; may run beside a node.

A folder of segments is looked at byte by byte (frames, checksums, order, what is torn or damaged and where); then,
as on every driver, the records: heads, ids, decodable events, and the chain hash against what checkpoints said.
"""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import msgspec

from streams import voids
from streams.events import UndecodableEvent, Unknown, decode
from streams.events import log as says
from streams.log.port import Log
from streams.log.segments import files
from streams.log.segments.frames import (
    Frame,
    NotASegment,
    Stop,
    is_clean_end,
    known_end_after,
    read_segment_header,
    walk,
)
from streams.log.segments.shared import Place, peek
from streams.log.tools_read import stretch
from streams.records import CHAIN_START, Entry, NotOurs, Record, chained, parse

#: Chains of the last so many records are kept, for checkpoints that name them.
CHAINS_KEPT = 100_000
#: Of a log whose start was trimmed: records read before the first checkpoint tells the chain.
UNCHAINED_MAX = 50_000


class Trouble(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that isn't as it should be.

    kind    ``torn`` (the next append cuts it), ``damaged``, ``undecodable`` (replicas halt there), ``checkpoint``
    offset  of the record that stands or should stand there; segment, byte: where, on segments
    """

    kind: str
    offset: int
    reason: str
    segment: str = ""
    byte: int = -1

    def __str__(self) -> str:
        where = f"{self.segment} byte {self.byte}: " if self.segment else ""
        return f"{self.kind}: {where}record {self.offset}: {self.reason}"


class Report(msgspec.Struct):
    """What verify found. ``chain``: hex after the last record, empty if it can't be known (a trimmed log)."""

    address: str
    log_id: str = ""
    operator_key: str = ""
    first: int = 0
    end: int = 0
    records: int = 0
    events: int = 0
    holes: int = 0
    foreign: int = 0
    voided: int = 0
    streams: dict[str, int] = {}
    segments: int = 0
    frames: int = 0
    size_bytes: int = 0
    chain: str = ""
    checkpoints: int = 0
    sealed_at: int = -1
    sealed_next: str = ""
    #: bytes behind the published end: an append under way, or one that a kill cut short; not trouble
    unpublished_bytes: int = 0
    troubles: list[Trouble] = []

    @property
    def whole(self) -> bool:
        return not self.troubles

    @property
    def exit_code(self) -> int:
        return 0 if self.whole else 1

    def text(self) -> str:
        """For people: one line for what is there, one for each trouble (the first twenty)."""
        counted = f"{self.records} records, {self.events} events, offsets {self.first} to {self.end}"
        if self.segments:
            counted += f", {self.segments} segments, {self.size_bytes} bytes"
        extra = [f"{number} {what}" for number, what in self._notable() if number]
        lines = [f"{self.address}: log {self.log_id or '(not founded)'}", f"  {', '.join([counted, *extra])}"]
        if self.chain:
            lines.append(f"  chain {self.chain} ({self.checkpoints} checkpoints agree)")
        if self.sealed_at >= 0:
            lines.append(f"  sealed at {self.sealed_at}; it goes on at {self.sealed_next}")
        lines += [f"  {trouble}" for trouble in self.troubles[:20]]
        if len(self.troubles) > 20:
            lines.append(f"  and {len(self.troubles) - 20} more")
        lines.append("  whole" if self.whole else f"  NOT whole: {len(self.troubles)} found")
        return "\n".join(lines)

    def _notable(self) -> list[tuple[int, str]]:
        return [
            (self.holes, "offsets that hold nothing"),
            (self.foreign, "foreign"),
            (self.voided, "voided"),
            (self.unpublished_bytes, "bytes not published"),
        ]


async def verify(target: Log | Path) -> Report:
    """Verify a log by its driver, or a folder of segments by its files. Raises LogUnavailable, FileNotFoundError."""
    if isinstance(target, Path):
        report = Report(f"segments://{target}")
        reader = _Records(report)
        for batch in _frames(target, report):
            reader.take(batch)
    else:
        report = Report(target.address, first=await target.first(), end=await target.end())
        reader = _Records(report)
        async for batch in stretch(target, report.first, report.end):
            reader.take(batch)
    reader.finish()
    return report


def _frames(folder: Path, report: Report) -> Iterator[list[Entry]]:
    """All records of the folder's segments; stops at the first damage and notes it."""
    # looked at before the files: what is published now is in them
    place, of_this_boot = peek(folder / "end")
    published = place.end if place else 0
    firsts = files.segments(folder)
    if not firsts:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not there")
        if published:
            report.troubles.append(Trouble("damaged", published - 1, "all segments are gone", str(folder), 0))
        return
    report.first = report.end = firsts[0]
    limit = place if place and of_this_boot else None
    for index, first in enumerate(firsts):
        until = firsts[index + 1] if index + 1 < len(firsts) else None
        if limit is not None and first > limit.end:
            return
        yield from _segment(files.segment_path(folder, first), first, until, published, limit, report)
        if report.troubles:
            return


def _segment(
    path: Path, first: int, until: int | None, published: int, limit: Place | None, report: Report
) -> Iterator[list[Entry]]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:  # trimmed or cut in between
        return
    report.segments += 1
    report.size_bytes += len(raw)
    if first != report.end:
        reason = f"the segment before it ends with record {report.end - 1}"
        report.troubles.append(Trouble("damaged", report.end, reason, str(path), 0))
        return
    try:
        found = read_segment_header(raw)
        if found != first:
            raise NotASegment(f"its header says that it begins at record {found}")
    except NotASegment as error:
        report.troubles.append(Trouble("damaged", first, str(error), str(path), 0))
        return
    known = published
    for step in walk(raw, first, until):
        if isinstance(step, Frame):
            if limit is not None and step.first >= limit.end:
                report.unpublished_bytes += len(raw) - step.byte
                return
            known = max(known, step.known_end)
            report.frames += 1
            if not step.raws:
                report.holes += step.next - step.first
            report.end = step.next
            yield [Entry(step.first + index, each) for index, each in enumerate(step.raws)]
            continue
        byte, end, stop = step
        report.end = end
        if stop is Stop.REACHED:
            return
        if limit is not None and end >= limit.end:
            report.unpublished_bytes += len(raw[byte:].rstrip(b"\0"))
            return
        clean = is_clean_end(raw, byte)
        known = max(known, until or 0, known_end_after(raw, byte))
        if known > end:
            reason = "the file ends here" if clean else stop.value
            reason += f"; records below {known} were durable"
            report.troubles.append(Trouble("damaged", end, reason, str(path), byte))
        elif not clean:
            reason = f"{stop.value}; nobody knew it to be durable, the next append cuts it"
            report.troubles.append(Trouble("torn", end, reason, str(path), byte))


class _Records:
    """Checks entries in order: what a replica would say of them, without folding."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._next: int | None = None
        self._chain: bytes | None = CHAIN_START if report.first == 0 else None
        self._chains: OrderedDict[int, bytes] = OrderedDict()
        self._unchained: list[Entry] = []
        self._undecodable: dict[int, Trouble] = {}
        self._voids: dict[int, says.LogVoided] = {}

    def take(self, batch: list[Entry]) -> None:
        report = self.report
        for entry in batch:
            if self._next is None and report.first > 0:
                self._chain = None
            if self._next is not None and entry.offset > self._next and not report.segments:
                report.holes += entry.offset - self._next
            self._next = entry.offset + 1
            report.records += 1
            self._fold(entry)
            record = self._record(entry)
            if record is not None:
                self._events(entry, record)

    def _fold(self, entry: Entry) -> None:
        if self._chain is None:
            if len(self._unchained) < UNCHAINED_MAX:
                self._unchained.append(entry)
            return
        self._chain = self._chains[entry.offset] = chained(self._chain, entry.raw)
        if len(self._chains) > CHAINS_KEPT:
            self._chains.popitem(last=False)

    def _record(self, entry: Entry) -> Record | None:
        report = self.report
        try:
            record = parse(entry)
        except NotOurs:
            report.foreign += 1
            return None
        except ValueError as error:
            self._undecodable[entry.offset] = Trouble("undecodable", entry.offset, str(error))
            return None
        if not report.log_id and report.first > 0:
            report.log_id = record.log_id
        founding = not report.log_id and record.stream == "log" and b'"log.opened.' in record.payload
        if record.log_id != report.log_id and not founding:
            report.foreign += 1
            return None
        report.streams[record.stream] = report.streams.get(record.stream, 0) + 1
        return record

    def _events(self, entry: Entry, record: Record) -> None:
        report = self.report
        try:
            events = decode(record.stream, record.payload)
        except UndecodableEvent as error:
            self._undecodable[entry.offset] = Trouble("undecodable", entry.offset, str(error))
            return
        report.events += len(events)
        if record.stream != "log":
            return
        for event in events:
            if isinstance(event, Unknown):
                continue
            match event.data:
                case says.LogOpened() as opened:
                    self._opened(opened, entry)
                case says.LogSealed() as sealed if report.sealed_at < 0:
                    report.sealed_at, report.sealed_next = entry.offset, sealed.next
                case says.LogVoided() as void:
                    self._voids[void.offset] = void
                case says.Checkpoint() as checkpoint:
                    self._compare(checkpoint, entry.offset)

    def _opened(self, opened: says.LogOpened, entry: Entry) -> None:
        report = self.report
        if report.log_id and (report.log_id != opened.id or report.operator_key):
            return
        fresh = not report.log_id
        report.log_id, report.operator_key = opened.id, opened.operator_key
        if fresh and opened.chain:
            self._chain = self._chains[entry.offset] = chained(bytes.fromhex(opened.chain), entry.raw)

    def _compare(self, checkpoint: says.Checkpoint, at: int) -> None:
        """A checkpoint names the chain at an earlier record: compare, or begin from there if the start is gone."""
        offset = int(checkpoint.position.partition(".")[0])
        if self._chain is None:
            behind = [entry for entry in self._unchained if entry.offset >= offset]
            if behind and behind[0].offset == offset:
                self._chain, self._unchained = bytes.fromhex(checkpoint.chain), []
                self._chains[offset] = self._chain
                for entry in behind[1:]:
                    self._fold(entry)
            return
        chain = self._chains.get(offset)
        if chain is None:
            return
        if chain.hex() != checkpoint.chain:
            reason = f"it says that the chain after record {offset} is {checkpoint.chain}, here it is {chain.hex()}"
            self.report.troubles.append(Trouble("checkpoint", at, reason))
        else:
            self.report.checkpoints += 1

    def finish(self) -> None:
        report = self.report
        for offset, trouble in self._undecodable.items():
            void = self._voids.get(offset)
            if void is not None and voids.valid(void, report.log_id, report.operator_key):
                report.voided += 1
            else:
                report.troubles.append(trouble)
        report.troubles.sort(key=lambda trouble: trouble.offset)
        if self._chain is not None and report.records:
            report.chain = self._chain.hex()
