"""Keys of etcd's v3 store, read and followed by its JSON gateway: ours, or any etcd's."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from node.sync.http import Address, Unreachable, asked
from node.sync.keys import Pair, Range

PAGE_KEYS = 500
#: So often a watch on which nothing comes asks whether the store still has its log: a watch may be silent for ever.
PROBE_S = 5.0
#: gRPC's statuses.
UNAVAILABLE, OUT_OF_RANGE, UNAUTHENTICATED = 14, 11, 16
_TRANSIENT = (1, 2, 4, 8, 10, 13, UNAVAILABLE)


#: What an answer that is JSON, but not etcd's, comes to: a proxy may give one.
ODD = (KeyError, TypeError, ValueError, AttributeError)


class Refused(Exception):
    """The store says no, and why."""

    exit_code = 4


class TokenTooOld(Unreachable):
    """The next try begins with a new one."""


class Gone(Exception):
    """What was asked for is compacted: it has to be read anew."""


#: What changed in a range that is watched, in order, and up to which revision.
Told = Callable[[Range, Sequence[Pair], int], None]


class Source(Protocol):
    """Whose keys are followed."""

    async def fetch(self, ranges: Iterable[Range], at: int = 0) -> tuple[int, list[Pair]]:
        """All keys in the ranges as of one revision (0: now, with all that was acknowledged), and that revision.
        Raises Unreachable, Refused, Gone."""
        ...

    async def watch(self, after: Mapping[Range, int], told: Told, begun: Callable[[], None]) -> None:
        """Tell what changed after these revisions, for ever. ``begun``, again and again: the store has its log.
        Raises Unreachable, Refused, Gone."""
        ...


class Endpoints:
    """Where to ask; who doesn't answer is passed over the next time. ``login``: name and password, or None."""

    def __init__(
        self,
        addresses: Sequence[Address],
        context: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._addresses, self._context, self._login, self._timeout_s = list(addresses), context, login, timeout_s
        self._token = ""

    def asked(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
        given = {"authorization": self._token} if self._token else {}
        given |= headers or {}
        return asked(self._addresses[0], self._context, method, path, body, given, self._timeout_s)

    def next(self) -> None:
        self._addresses.append(self._addresses.pop(0))

    async def post(self, path: str, asking: dict[str, Any]) -> dict[str, Any]:
        """Raises Unreachable, Refused, Gone."""
        await self.log_in()
        async with asyncio.timeout(self._timeout_s), self.asked("POST", path, orjson.dumps(asking)) as answer:
            raw = await answer.body()
        told = decoded(raw)
        if answer.status != 200:
            self.refuse(told.get("code", 2), str(told.get("message") or told.get("error") or f"status {answer.status}"))
        return told

    async def log_in(self) -> None:
        """Raises Unreachable, Refused."""
        if self._login is None or self._token:
            return
        name, password = self._login
        asking = orjson.dumps({"name": name, "password": password})
        async with self.asked("POST", "/v3/auth/authenticate", asking) as answer:
            told = decoded(await answer.body())
        if answer.status != 200:
            words = str(told.get("message", answer.status))
            if "not enabled" not in words:
                self.refuse(told.get("code", 2), f"the login of {name}: {words}")
            self._login = None
        self._token = str(told.get("token", ""))

    def refuse(self, code: int, words: str) -> None:
        """Raises what an error of the store's means."""
        if code == OUT_OF_RANGE and "compacted" in words:
            raise Gone(words)
        if self._token and (code == UNAUTHENTICATED or "invalid auth token" in words):
            self._token = ""
            raise TokenTooOld(words)
        if code in _TRANSIENT or "future revision" in words:
            raise Unreachable(f"{self._addresses[0].text}: {words}")
        raise Refused(words)


class V3:
    """Implements Source."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    async def fetch(self, ranges: Iterable[Range], at: int = 0) -> tuple[int, list[Pair]]:
        try:
            return await self._fetch(ranges := list(ranges), at)
        except TokenTooOld:
            return await self._fetch(ranges, at)

    async def _fetch(self, ranges: Iterable[Range], at: int) -> tuple[int, list[Pair]]:
        pairs: list[Pair] = []
        try:
            for one in ranges:
                start = one.start
                while True:
                    asking = {"key": _b64(start), "limit": PAGE_KEYS}
                    if one.end:
                        asking["range_end"] = _b64(one.end)
                    if at:
                        asking["revision"] = at
                    told = await self._endpoints.post("/v3/kv/range", asking)
                    at = at or int(told["header"]["revision"])
                    page = [_pair(kv) for kv in told.get("kvs", ())]
                    pairs += page
                    if not told.get("more") or not page:
                        break
                    start = page[-1].key + b"\0"
        except TokenTooOld:
            raise
        except (Unreachable, TimeoutError) as error:
            self._endpoints.next()
            raise Unreachable(str(error) or "the store answers too slowly") from error
        except ODD as error:
            raise unread(error) from error
        return at, pairs

    async def watch(self, after: Mapping[Range, int], told: Told, begun: Callable[[], None]) -> None:
        try:
            try:
                await self._probed(after, told, begun)
            except TokenTooOld:
                await self._probed(after, told, begun)
        except Unreachable:
            self._endpoints.next()
            raise

    async def _probed(self, after: Mapping[Range, int], told: Told, begun: Callable[[], None]) -> None:
        """A watch, and linearizable reads beside it; the first that fails ends both."""
        created = asyncio.Event()
        probe = {"key": _b64(next(iter(after)).start), "count_only": True}

        async def probing() -> None:
            await created.wait()
            while True:
                await self._endpoints.post("/v3/kv/range", probe)
                begun()
                await asyncio.sleep(PROBE_S)

        tasks = [asyncio.ensure_future(work) for work in (self._watch(after, told, created.set), probing())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        except TimeoutError as error:
            raise Unreachable("the store answers too slowly") from error
        except ODD as error:
            raise unread(error) from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, after: Mapping[Range, int], told: Told, begun: Callable[[], None]) -> None:
        await self._endpoints.log_in()
        ranges = dict(enumerate(after, 1))
        asking = b"".join(_create(number, one, after[one] + 1) for number, one in ranges.items())
        headers = {"content-type": "application/json", "grpc-metadata-hasleader": "true"}
        created = 0
        async with self._endpoints.asked("POST", "/v3/watch", asking, headers) as answer:
            async for result in _results(answer.lines(), self._endpoints):
                if result.get("canceled"):
                    if int(result.get("compact_revision", 0)):
                        raise Gone("the changes since were compacted")
                    # "rpc error: code = PermissionDenied desc = …"
                    raise Refused(str(result.get("cancel_reason", "the watch was ended")).rpartition("desc = ")[2])
                if result.get("created"):
                    created += 1
                    if int(result["header"].get("revision", 0)) < after[ranges[int(result["watch_id"])]]:
                        raise Gone("the store is behind what was read: another one, or a member that lags")
                    if created == len(ranges):
                        begun()
                if changes := [_change(one) for one in result.get("events", ())]:
                    told(ranges[int(result["watch_id"])], changes, changes[-1].mod)
        raise Unreachable("the store ended the watch")


async def _results(lines: AsyncIterator[bytes], endpoints: Endpoints) -> AsyncIterator[dict[str, Any]]:
    async for line in lines:
        told = decoded(line)
        if "result" not in told:
            within = told.get("error")
            error: dict[str, Any] = within if isinstance(within, dict) else told
            endpoints.refuse(int(error.get("grpc_code", error.get("code", 2))), str(error.get("message", told)))
        yield told["result"]


def unread(error: Exception) -> Unreachable:
    return Unreachable(f"who answers there doesn't answer as etcd does: {error!r:.100}")


def decoded(raw: bytes) -> dict[str, Any]:
    """Raises Unreachable: not what etcd says."""
    try:
        told = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Unreachable(f"who answers there doesn't answer as etcd does: {raw[:60]!r}") from error
    if not isinstance(told, dict):
        raise Unreachable(f"who answers there doesn't answer as etcd does: {raw[:60]!r}")
    return told


def _create(number: int, one: Range, start: int) -> bytes:
    asking: dict[str, Any] = {"key": _b64(one.start), "start_revision": start, "watch_id": number}
    if one.end:
        asking["range_end"] = _b64(one.end)
    return orjson.dumps({"create_request": asking})


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _pair(kv: dict[str, Any]) -> Pair:
    return Pair(base64.b64decode(kv["key"]), base64.b64decode(kv.get("value", "")), int(kv["mod_revision"]))


def _change(event: dict[str, Any]) -> Pair:
    kv = event["kv"]
    if event.get("type") in ("DELETE", 1):
        return Pair(base64.b64decode(kv["key"]), None, int(kv["mod_revision"]))
    return _pair(kv)
