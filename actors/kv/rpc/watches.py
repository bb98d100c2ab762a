"""etcdserverpb.Watch: streams with many watchers each, fed by :class:`Watches` with what is applied."""

import asyncio
from collections.abc import Iterator

from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc import watching
from actors.kv.rpc.service import Call, Method, Rpc, failed, parsed
from actors.kv.rpc.watching import Index, News, Watcher
from actors.kv.v3 import errors
from actors.kv.v3.errors import V3Error
from actors.kv.v3.revs import Rev

#: A stream with more unsent bytes than this is told nothing until it is drained.
STREAM_BYTES_MAX = 256 * 1024
#: How often a stream that asked for a leader looks for one.
LEADER_S = 0.5
INVALID_ID = -1
#: As Go names the statuses that a watch can be refused with.
_CODES = {errors.INVALID: "InvalidArgument", errors.UNAUTHENTICATED: "Unauthenticated"}


class Watches:
    """All streams of this replica. ``applied`` is called whenever something was applied."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc
        self.progress_s = rpc.setting.etcd.watch_progress_notify_interval_s
        self.index = Index()
        self.streams: dict[Stream, None] = {}
        #: synced watchers have been told everything up to this revision
        self.seen = rpc.revs.revision

    def methods(self) -> Iterator[Method]:
        path = "/etcdserverpb.Watch/Watch"
        yield Method(path, pb.WatchRequest, pb.WatchResponse, self.watch, asks_many=True, answers_many=True)

    def watch(self, call: Call) -> None:
        Stream(call, self)

    def applied(self) -> None:
        revs = self.rpc.revs
        if revs.revision == self.seen:
            return
        first, self.seen = self.seen + 1, revs.revision
        if not self.index.count:
            return
        if first <= revs.swept:
            # a store was imported: its past is gone, as for any who ask for it now
            for stream in self.streams:
                stream.read_on(first)
            return
        head, encoded = self.rpc.header_bytes(self.seen), dict[tuple[int, bool], bytes]()
        hits: dict[int, tuple[dict[Watcher, None], News]] = {}
        of = self.index.of
        for rev in revs.since(first):
            for watchers in of(rev.key):
                hit = hits.get(id(watchers))
                if hit is None:
                    hit = hits[id(watchers)] = watchers, News(revs, head, encoded)
                hit[1].found.append(rev)
        for watchers, news in hits.values():
            # who is told may leave
            for watcher in tuple(watchers):
                watcher.stream.tell(watcher, news)


class Stream:
    """One call. Its watchers by id; those that aren't synced read the history while the client takes it."""

    def __init__(self, call: Call, watches: Watches) -> None:
        self.call = call
        self._watches, self._rpc = watches, watches.rpc
        self._watchers: dict[int, Watcher] = {}
        self._next_id = 0
        self._reading = False
        self._asked_progress = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._leader_ticker: asyncio.TimerHandle | None = None
        watches.streams[self] = None
        call.on_message, call.on_gone, call.on_drained = self._message, self._gone, self._read
        if call.metadata.get(b"hasleader") == b"true":
            self._look_for_leader()

    @property
    def count(self) -> int:
        return len(self._watchers)

    # -- what the client says ---------------------------------------------------------------------------------

    def _message(self, raw: bytes) -> None:
        request = parsed(self.call, pb.WatchRequest, raw)
        if request is None:
            self._gone()
            return
        match request.WhichOneof("request_union"):
            case "create_request":
                self._create(request.create_request)
            case "cancel_request":
                self._cancel(request.cancel_request.watch_id)
            case "progress_request":
                self._asked_progress += 1
                self._answer_progress()
            case _:
                pass

    def _create(self, asked: pb.WatchCreateRequest) -> None:
        self._watches.applied()
        key, end = asked.key or b"\0", asked.range_end or None
        if end == b"\0":
            end = b""
        refused = self._refusal(asked, key, end)
        if refused:
            answer = pb.WatchResponse(watch_id=INVALID_ID, created=True, canceled=True, cancel_reason=refused)
            self._send(answer)
            return
        now = self._rpc.revs.revision
        start = asked.start_revision
        watcher = Watcher(
            id=asked.watch_id or self._free_id(),
            key=key,
            end=end,
            next=start or now + 1,
            stream=self,
            prev_kv=asked.prev_kv,
            no_put=pb.WatchCreateRequest.NOPUT in asked.filters,
            no_delete=pb.WatchCreateRequest.NODELETE in asked.filters,
            fragment=asked.fragment,
            progress=asked.progress_notify,
        )
        self._watchers[watcher.id] = watcher
        self._send(pb.WatchResponse(watch_id=watcher.id, created=True))
        if watcher.progress and self._ticker is None:
            self._ticker = asyncio.get_running_loop().call_later(self._watches.progress_s, self._tick)
        if watcher.next > now:
            self._sync(watcher)
        else:
            self._read()

    def _refusal(self, asked: pb.WatchCreateRequest, key: bytes, end: bytes | None) -> str:
        """Why a watch can't be, in etcd's words; empty: it can."""
        if asked.start_revision < 0:
            return errors.COMPACTED.message
        try:
            self._rpc.check(self.call, key, b"\0" if end == b"" else end or b"")
        except V3Error as error:
            return f"rpc error: code = {_CODES.get(error.code, 'PermissionDenied')} desc = {error.message}"
        if end and key >= end:
            return "mvcc: watcher range is empty"
        if asked.watch_id and asked.watch_id in self._watchers:
            return "mvcc: duplicate watch ID provided on the WatchStream"
        return ""

    def _free_id(self) -> int:
        while self._next_id in self._watchers:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def _cancel(self, watch_id: int) -> None:
        watcher = self._watchers.get(watch_id)
        if watcher is not None:
            self._drop(watcher)
            self._send(pb.WatchResponse(watch_id=watch_id, canceled=True))

    def _drop(self, watcher: Watcher) -> None:
        del self._watchers[watcher.id]
        if watcher.synced:
            self._watches.index.remove(watcher)
            watcher.synced = False

    def _gone(self) -> None:
        for watcher in list(self._watchers.values()):
            self._drop(watcher)
        self._watches.streams.pop(self, None)
        for ticker in (self._ticker, self._leader_ticker):
            if ticker is not None:
                ticker.cancel()

    # -- what is told -----------------------------------------------------------------------------------------

    def tell(self, watcher: Watcher, news: News) -> None:
        """What a batch of changes brought a synced watcher."""
        call = self.call
        if call.buffered() > STREAM_BYTES_MAX:
            # it reads on in the history when the client takes more
            if watcher.synced:
                self._watches.index.remove(watcher)
                watcher.synced, watcher.next = False, max(watcher.next, news.found[0].mod)
            return
        try:
            chosen = watcher.chosen(news.found)
            if chosen is None and not watcher.fragment:
                watcher.told = True
                call.send(news.message(watcher))
            elif chosen is None or chosen:
                self._send_events(watcher, news, news.found if chosen is None else chosen)
        except Exception:
            failed(call)
            self._gone()

    def read_on(self, revision: int) -> None:
        """All its watchers go on in the history."""
        for watcher in self._watchers.values():
            if watcher.synced:
                self._watches.index.remove(watcher)
                watcher.synced, watcher.next = False, max(watcher.next, revision)
        self._read()

    def _send_events(self, watcher: Watcher, news: News, found: list[Rev]) -> None:
        watcher.told = True
        for message in news.messages(watcher, found):
            self.call.send(message)

    def _send(self, answer: pb.WatchResponse) -> None:
        self.call.send(self._rpc.head(answer).SerializeToString())

    def _sync(self, watcher: Watcher) -> None:
        watcher.synced = True
        self._watches.index.add(watcher)
        self._answer_progress()

    def _read(self) -> None:
        """Go on reading for the watchers that aren't synced, a page of each in turn, while the client takes it."""
        if not self._reading and not self.call.gone and watching.lagging(self._watchers.values()):
            self._reading = True
            asyncio.get_running_loop().call_soon(self._read_pages)

    def _read_pages(self) -> None:
        self._reading = False
        if self.call.gone:
            return
        try:
            for watcher in watching.lagging(self._watchers.values()):
                if self.call.buffered() > STREAM_BYTES_MAX:
                    return
                self._read_page(watcher)
        except Exception:
            failed(self.call)
            self._gone()
            return
        self._read()

    def _read_page(self, watcher: Watcher) -> None:
        revs = self._rpc.revs
        self._watches.applied()
        limit = revs.limit(watcher.key, b"" if watcher.end is None else watcher.end or b"\0")
        if watcher.next < limit:
            self._drop(watcher)
            answer = pb.WatchResponse(watch_id=watcher.id, canceled=True, compact_revision=limit)
            self.call.send(self._rpc.head(answer, 0).SerializeToString())
            return
        page = watching.page(revs, watcher)
        if page.revs:
            self._send_events(watcher, News(revs, self._rpc.header_bytes(revs.revision), {}), page.revs)
        watcher.next = page.next
        if page.done:
            self._sync(watcher)

    # -- progress ---------------------------------------------------------------------------------------------

    def _answer_progress(self) -> None:
        """One for all of the stream, once all its watchers are synced."""
        if not self._asked_progress:
            return
        if not self._watchers:
            self._asked_progress = 0
            return
        self._watches.applied()
        if watching.synced_until(self._watchers.values(), self._rpc.revs.revision):
            self._asked_progress = 0
            self._send(pb.WatchResponse(watch_id=INVALID_ID))

    def _tick(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(self._watches.progress_s, self._tick)
        self._watches.applied()
        for watcher in self._watchers.values():
            if watcher.progress and watcher.synced and not watcher.told:
                self._send(pb.WatchResponse(watch_id=watcher.id))
            watcher.told = False

    def _look_for_leader(self) -> None:
        if self._rpc.leaderless():
            self.call.finish(errors.NO_LEADER.code, errors.NO_LEADER.message)
            self._gone()
            return
        self._leader_ticker = asyncio.get_running_loop().call_later(LEADER_S, self._look_for_leader)
