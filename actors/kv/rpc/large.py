"""Answers to Range that are made while the client takes them: of a gigabyte, less than one is ever in memory twice.

A unary message's length stands before it, and a protobuf's can be told without making it. So an answer holds the
revisions found (they never change), and its bytes come in pieces.
"""

import asyncio
import binascii
from collections.abc import Iterator
from typing import Protocol

import orjson

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc import json_form
from actors.kv.rpc.service import Call
from actors.kv.rpc.watching import varint
from actors.kv.v3.errors import EXHAUSTED, V3Error
from actors.kv.v3.ranges import Query, Ranged
from actors.kv.v3.revs import OVERHEAD_BYTES, Rev

#: From so many bytes on an answer is large.
LARGE_BYTES = 256 * 1024
#: About the bytes of a piece; divisible by 3, so that pieces in base64 can be put together.
PIECE_BYTES = 48 * 1024
#: What may wait for the client.
UNSENT_BYTES = 256 * 1024
#: gRPC's end of a message, as etcd sets it.
MESSAGE_BYTES_MAX = 2**31 - 1
#: Revisions that are measured in one turn.
TURN_REVS = 10_000


def is_large(found: Ranged) -> bool:
    """Whether its values make an answer of over LARGE_BYTES, or so many keys do."""
    kvs = found.kvs
    if len(kvs) * OVERHEAD_BYTES > LARGE_BYTES:
        return True
    size = 0
    for rev in kvs:
        size += len(rev.value)
    return size > LARGE_BYTES


class Parts(Protocol):
    """A message in pieces, of which a call takes those of its protocol."""

    @property
    def size(self) -> int:
        """Bytes of :meth:`protobuf`."""
        ...

    def protobuf(self) -> Iterator[bytes]: ...
    def json(self) -> Iterator[bytes]: ...


class Answer:
    """RangeResponse. Implements :class:`Parts`; ``size`` is there after :meth:`measure`."""

    def __init__(self, header: bytes, found: Ranged, query: Query) -> None:
        """``header``: the response's first field, encoded."""
        self._found = found
        self._values = not query.keys_only
        # as in etcd since 3.6
        self._leases = self._values or query.by == pb.RangeRequest.VALUE
        self._first = header
        self._last = b"\x18\x01" if found.more else b""
        self._last += b"\x20" + varint(found.count) if found.count else b""
        self.size = 0

    async def measure(self) -> None:
        """Raises V3Error, as etcd's gRPC: it is too large."""
        size = len(self._first) + len(self._last)
        for at, rev in enumerate(self._found.kvs, 1):
            inner = self._size(rev)
            size += 1 + _varint_size(inner) + inner
            if not at % TURN_REVS:
                await asyncio.sleep(0)
        if size > MESSAGE_BYTES_MAX:
            words = f"grpc: trying to send message larger than max ({size} vs. {MESSAGE_BYTES_MAX})"
            raise V3Error(EXHAUSTED, words)
        self.size = size

    def _size(self, rev: Rev) -> int:
        """Of its KeyValue."""
        size = 4 + _varint_size(len(rev.key)) + len(rev.key)
        size += _varint_size(rev.create) + _varint_size(rev.mod) + _varint_size(rev.version)
        if self._values and rev.value:
            size += 1 + _varint_size(len(rev.value)) + len(rev.value)
        if self._leases and rev.lease:
            size += 1 + _varint_size(rev.lease)
        return size

    def protobuf(self) -> Iterator[bytes]:
        """``size`` bytes."""
        out, size = [self._first], len(self._first)
        for rev in self._found.kvs:
            inner = self._size(rev)
            head = b"\x12%s\x0a%s\x10%s\x18%s\x20%s" % (
                varint(inner),
                _sized(rev.key),
                varint(rev.create),
                varint(rev.mod),
                varint(rev.version),
            )
            out.append(head)
            size += len(head)
            if self._values and rev.value:
                out.append(b"\x2a" + varint(len(rev.value)))
                size += len(rev.value)
                if size >= PIECE_BYTES:
                    yield b"".join(out)
                    yield from _slices(rev.value)
                    out, size = [], 0
                else:
                    out.append(rev.value)
            if self._leases and rev.lease:
                out.append(b"\x30" + varint(rev.lease))
            if size >= PIECE_BYTES:
                yield b"".join(out)
                out, size = [], 0
        out.append(self._last)
        yield b"".join(out)

    def json(self) -> Iterator[bytes]:
        """As etcd's gateway has it."""
        header = pb.RangeResponse.FromString(self._first).header
        out, size = [b'{"header":' + orjson.dumps(json_form.plain(header))], 0
        before = b',"kvs":['
        for rev in self._found.kvs:
            head = b'%s{"key":"%s","create_revision":"%d","mod_revision":"%d","version":"%d"' % (
                before,
                _base64(rev.key),
                rev.create,
                rev.mod,
                rev.version,
            )
            before = b","
            out.append(head)
            size += len(head)
            if self._values and rev.value:
                out.append(b',"value":"')
                for piece in _slices(rev.value):
                    out.append(_base64(piece))
                    size += len(piece)
                    if size >= PIECE_BYTES:
                        yield b"".join(out)
                        out, size = [], 0
                out.append(b'"')
            if self._leases and rev.lease:
                out.append(b',"lease":"%d"' % rev.lease)
            out.append(b"}")
            if size >= PIECE_BYTES:
                yield b"".join(out)
                out, size = [], 0
        out.append(b"]" if self._found.kvs else b"")
        out.append(b',"more":true' if self._found.more else b"")
        out.append(b',"count":"%d"}' % self._found.count if self._found.count else b"}")
        yield b"".join(out)


async def reply(call: Call, answer: Answer) -> None:
    """Send it as the client takes it. The caller ends the call."""
    await answer.measure()
    drained, sent = asyncio.Event(), 0
    call.on_drained = drained.set
    for piece in call.parts(answer):
        call.part(piece)
        sent += len(piece)
        if sent >= UNSENT_BYTES:  # others get their turn
            sent = 0
            await asyncio.sleep(0)
        while call.buffered() > UNSENT_BYTES:
            drained.clear()
            await drained.wait()


def _slices(value: bytes) -> Iterator[bytes]:
    if len(value) <= PIECE_BYTES:
        yield value
        return
    for at in range(0, len(value), PIECE_BYTES):
        yield value[at : at + PIECE_BYTES]


def _sized(raw: bytes) -> bytes:
    return varint(len(raw)) + raw


def _varint_size(number: int) -> int:
    """Of what isn't negative."""
    return (number.bit_length() + 6) // 7 or 1


def _base64(raw: bytes) -> bytes:
    return binascii.b2a_base64(raw, newline=False)
