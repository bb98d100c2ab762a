"""Keys of etcd's v2 store, read and followed over HTTP. A change is a reason to read again: such stores are small."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from node.sync.etcd import ODD, Endpoints, Gone, Refused, Told, decoded, unread
from node.sync.http import Unreachable
from node.sync.keys import Pair, Range, raw

KEY_NOT_FOUND, INDEX_CLEARED, RAFT_ERRORS = 100, 401, range(300, 400)


class V2:
    """Implements :class:`node.sync.etcd.Source`. ``at`` is no more than a hint here: v2 has no past."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    async def fetch(self, ranges: Iterable[Range], at: int = 0) -> tuple[int, list[Pair]]:
        pairs: dict[bytes, Pair] = {}
        index = 0
        wanted = list(ranges)
        try:
            for folder in sorted({folder_of(one) for one in wanted}):
                found, node = await self._get(folder, "recursive=true&quorum=true")
                # read first, so that what is written meanwhile is told by the watch
                index = found if not index else min(index, found)
                pairs |= {pair.key: pair for pair in _leaves(node) if any(one.has(pair.key) for one in wanted)}
        except (Unreachable, TimeoutError) as error:
            self._endpoints.next()
            raise Unreachable(str(error) or "the store answers too slowly") from error
        except ODD as error:
            raise unread(error) from error
        return index, list(pairs.values())

    async def watch(self, after: Mapping[Range, int], told: Told, begun: Callable[[], None]) -> None:
        """Ends by Gone at the first change that matters."""
        index = min(after.values()) + 1
        begun()
        try:
            while True:
                async with self._endpoints.asked("GET", f"/v2/keys/?recursive=true&wait=true&waitIndex={index}") as got:
                    body = await got.body()
                if not body.strip():
                    continue  # it waited for long
                event = decoded(body)
                if event.get("errorCode") == INDEX_CLEARED:
                    raise Gone("the events since were cleared")
                if "errorCode" in event:
                    _refuse(event)
                key = raw(event["node"]["key"])
                folder = key + b"/"
                if any(one.has(key) or one.start.startswith(folder) or folder.startswith(one.start) for one in after):
                    raise Gone("there was a change")
                index = int(event["node"]["modifiedIndex"]) + 1
        except Unreachable:
            self._endpoints.next()
            raise
        except ODD as error:
            raise unread(error) from error

    async def _get(self, folder: str, query: str) -> tuple[int, dict[str, Any]]:
        async with asyncio.timeout(30), self._endpoints.asked("GET", f"/v2/keys{quote(folder)}?{query}") as answer:
            told = decoded(await answer.body())
            index = int(answer.headers.get("x-etcd-index", told.get("index", 0)))
        if told.get("errorCode") == KEY_NOT_FOUND:
            return index, {}
        if "errorCode" in told:
            _refuse(told)
        return index, told["node"]


def _refuse(told: dict[str, Any]) -> None:
    words = f"{told.get('message')}: {told.get('cause')}"
    if told["errorCode"] in RAFT_ERRORS:
        raise Unreachable(words)
    raise Refused(words)


def folder_of(one: Range) -> str:
    """The folder that holds all of a range, or its key."""
    start = "" if one.start == b"\0" else one.start.decode("utf-8", "replace")
    return start if not one.end else start.rpartition("/")[0] or "/"


def _leaves(node: dict[str, Any]) -> Iterator[Pair]:
    for child in node.get("nodes", ()):
        yield from _leaves(child)
    if node and not node.get("dir"):
        yield Pair(raw(node["key"]), raw(node.get("value", "")), int(node["modifiedIndex"]))
