"""A checker of recorded histories: no acknowledged write is lost, no read goes back.

Each key has one writer, which writes growing numbers one after another; so an order is known without a search. For
a key with acknowledged writes w1 < w2 < … and writes of unknown outcome between them:

- a read that began after the acknowledgement of w must answer w or a later written number;
- a read may not answer a number that was never written before the read ended;
- two reads in real-time order may not answer numbers that go down.
"""

from typing import NamedTuple


class Op(NamedTuple):
    """``kind``: write or read. ``value``: the number written or read (0: absent). ``ok``: False is unknown."""

    kind: str
    key: str
    value: int
    start_s: float
    end_s: float
    ok: bool = True


def violations(history: list[Op]) -> list[str]:
    """What is wrong with the history, in words; empty if nothing."""
    found = []
    for key in sorted({op.key for op in history}):
        ops = [op for op in history if op.key == key]
        writes = sorted((op for op in ops if op.kind == "write"), key=lambda op: op.start_s)
        reads = sorted((op for op in ops if op.kind == "read" and op.ok), key=lambda op: op.start_s)
        found += _reads(key, writes, reads)
    return found


def _reads(key: str, writes: list[Op], reads: list[Op]) -> list[str]:
    found = []
    seen: list[Op] = []
    for read in reads:
        acknowledged = max((w.value for w in writes if w.ok and w.end_s <= read.start_s), default=0)
        possible = {w.value for w in writes if w.start_s <= read.end_s} | {0}
        earlier = max((r.value for r in seen if r.end_s <= read.start_s), default=0)
        if read.value < acknowledged:
            found.append(f"{key}: read {read.value} at {read.start_s:.3f} after {acknowledged} was acknowledged")
        if read.value not in possible:
            found.append(f"{key}: read {read.value}, which nobody had written by {read.end_s:.3f}")
        if read.value < earlier:
            found.append(f"{key}: read {read.value} at {read.start_s:.3f} after {earlier} had been read")
        seen.append(read)
    return found
