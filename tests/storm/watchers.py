"""Streams of watches that live through everything: cut off, they go on elsewhere from behind what they were told."""

import asyncio
import contextlib
import random
import time
from typing import Any

import grpc
import grpc.aio

from actors.kv.proto import etcd_pb2 as pb
from tests.histories.watches import Message, Session, Watch
from tests.storm import wire
from tests.storm.clients import ALL, ALL_END, KEYS, LEASED, LEASED_END, Channel, Ended, Notes, said

#: A stream that says nothing for so long though it was asked for progress is left.
SILENT_S = 4.0
Asked = tuple[bytes, bytes, bool]  # key, end, prev_kv
CHOICES: list[Asked] = [
    (ALL, ALL_END, True),
    (LEASED, LEASED_END, True),
    (KEYS[3], b"", True),
    (ALL, KEYS[9], False),
    (b"\0", b"~", True),
]


class Watcher:
    """One stream with some watches. Each goes on by itself, from its own next revision."""

    def __init__(self, name: str, addresses: list[str], seed: int, notes: Notes, start: int) -> None:
        self.random = random.Random(f"{seed}/{name}")
        asked = self.random.sample(CHOICES, self.random.randint(1, 3))
        self.watches = [Watch(f"{name}.{n}", *one, []) for n, one in enumerate(asked)]
        self.next = [start] * len(asked)
        self._channels = [Channel(address) for address in addresses]
        self._at = self.random.randrange(len(addresses))
        self._notes = notes
        #: reconnections and pauses end: what is missing is only waited for
        self.ending = False
        self.streams = 0

    async def close(self) -> None:
        for one in self._channels:
            await one.channel.close()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError, Ended):
                await self._stream(self._channels[self._at])
            if self.random.random() < 0.7:
                self._at = (self._at + 1) % len(self._channels)
            await asyncio.sleep(0.1)

    async def _stream(self, channel: Channel) -> None:
        self.streams += 1
        call = channel.stream("Watch/Watch", pb.WatchResponse)()
        sessions = [Session(start, []) for start in self.next]
        created: dict[int, Session] = {}
        leave_s = time.monotonic() + self.random.expovariate(1 / 20)
        try:
            for number, watch in enumerate(self.watches):
                create = pb.WatchCreateRequest(
                    key=watch.key, range_end=watch.end, start_revision=self.next[number], prev_kv=watch.prev_kv
                )
                create.watch_id = number + 1
                async with asyncio.timeout(SILENT_S):
                    await said(call, pb.WatchRequest(create_request=create))
            while self.ending or time.monotonic() < leave_s:
                self._take(await self._read(call), sessions, created)
                if not self.ending and self.random.random() < 0.002:
                    await asyncio.sleep(self.random.random() * 3)  # a client that is slow
        finally:
            call.cancel()
            for number, (watch, session) in enumerate(zip(self.watches, sessions, strict=True)):
                if session.messages:
                    watch.sessions.append(session)
                    self.next[number] = behind(session)

    async def _read(self, call: Any) -> Any:
        """The next message; progress is asked for if none comes. Raises Ended, TimeoutError."""
        reading = asyncio.ensure_future(call.read())
        try:
            done, _ = await asyncio.wait([reading], timeout=0.3 if self.ending else self.random.uniform(0.2, 3))
            if not done:
                async with asyncio.timeout(SILENT_S):
                    await said(call, pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
                    await asyncio.wait([reading])
            told = reading.result()
        finally:
            reading.cancel()
        if told is grpc.aio.EOF:
            raise Ended
        return told

    def _take(self, told: Any, sessions: list[Session], created: dict[int, Session]) -> None:
        now_s, revision = time.monotonic(), told.header.revision
        self._notes.revision = max(self._notes.revision, revision)
        if told.created and not told.canceled:
            created[told.watch_id] = sessions[told.watch_id - 1]
        elif told.canceled:
            self._notes.wrong.append(f"{self.watches[0].name}: a watch was cancelled: {told}")
            raise Ended
        elif told.events:
            message = Message(now_s, revision, [wire.event(one) for one in told.events])
            created[told.watch_id].messages.append(message)
            self.next[told.watch_id - 1] = behind(sessions[told.watch_id - 1])
        else:
            concerned = created.values() if told.watch_id == -1 else [created[told.watch_id]]
            for session in concerned:
                session.messages.append(Message(now_s, revision))
            self.next = [behind(session) for session in sessions]


def behind(session: Session) -> int:
    """From where a watch goes on after a stream."""
    if not session.messages:
        return session.start
    last = session.messages[-1]
    # a header may be above what later events have: only what was told counts, and what was promised
    return max(
        session.start,
        last.events[-1].kv.mod + 1 if last.events else last.revision + 1,
    )
