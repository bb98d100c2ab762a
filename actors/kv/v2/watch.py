"""Watchers: who waits for which changes, from the history on. The port feeds the hub what was applied.

Better than etcd on purpose: a stream that begins in the past goes on after its first change; a change reaches a stream
once; a directory that goes wakes all who wait below it. As in etcd the past is looked at otherwise than what comes:
hidden keys are found there, and the end of a directory ``/foo`` is taken for that of ``/foobar``.
"""

from collections.abc import Callable, Sequence

from actors.kv.v2 import errors
from actors.kv.v2.errors import V2Error
from actors.kv.v2.get import change_json
from actors.kv.v2.nodes import Change
from actors.kv.v2.store import Store


class Watcher:
    """``send`` gets the body of each change that matches; without ``stream`` only the first one."""

    __slots__ = ("done", "key", "recursive", "send", "since", "stream")

    def __init__(self, key: str, recursive: bool, stream: bool, since: int, send: Callable[[bytes], None]) -> None:
        self.key, self.recursive, self.stream, self.since, self.send = key, recursive, stream, since, send
        self.done = False

    def wants(self, change: Change) -> bool:
        """Whether the change is at this key, (recursive) below it and not hidden, or takes it away with a directory."""
        index, _, key, _, _, _, refresh = change
        if refresh or index < self.since:
            return False
        if key == self.key:
            return True
        if self.recursive and key.startswith(self.key + "/"):
            return "/_" not in key[len(self.key) :]
        return _ends_directory(change) and self.key.startswith(key + "/")

    def wanted(self, change: Change) -> bool:
        """The same of a change of the past."""
        index, _, key, _, _, _, refresh = change
        if refresh or index < self.since:
            return False
        if key == self.key or (self.recursive and key.startswith(self.key + "/")):
            return True
        return _ends_directory(change) and self.key.startswith(key)


def _ends_directory(change: Change) -> bool:
    _, action, _, _, prev, _, _ = change
    return action in ("delete", "expire") and prev is not None and prev.value is None


class Hub:
    """All watchers of a port, by key, so that a change costs its depth and not their number."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._by_key: dict[str, dict[Watcher, None]] = {}
        self.count = 0
        #: called when somebody comes and nobody was there
        self.on_first: Callable[[], None] = lambda: None

    def watch(self, key: str, recursive: bool, stream: bool, since: int, send: Callable[[bytes], None]) -> Watcher:
        """Watch a clean key from index ``since`` (0: after now). Raises 401 when the history doesn't reach back."""
        store = self._store()
        watcher = Watcher(key, recursive, stream, since or store.index + 1, send)
        oldest = store.history[0][0] if store.history else 0
        if watcher.since < oldest:
            cause = f"the requested history has been cleared [{oldest}/{watcher.since}]"
            raise V2Error(errors.EVENT_INDEX_CLEARED, cause, store.index)
        if watcher.since <= store.index:
            for at in range(len(store.history) - (store.index - watcher.since + 1), len(store.history)):
                if watcher.wanted(store.history[at]):
                    self._send(watcher, store.history[at], {})
                    if watcher.done:
                        return watcher
        self._by_key.setdefault(key, {})[watcher] = None
        self.count += 1
        if self.count == 1:
            self.on_first()
        return watcher

    def forget(self, watcher: Watcher) -> None:
        """The client is gone, or got what it asked for."""
        watchers = self._by_key.get(watcher.key)
        if watchers is not None and watcher in watchers:
            del watchers[watcher]
            self.count -= 1
            if not watchers:
                del self._by_key[watcher.key]

    def applied(self, changes: Sequence[Change]) -> None:
        """Wake the watchers of these changes, in order."""
        for change in changes:
            if not self.count:
                return
            bodies: dict[int, bytes] = {}
            for key in self._paths(change):
                for watcher in list(self._by_key.get(key, ())):
                    if watcher.wants(change):
                        self._send(watcher, change, bodies)
                        if watcher.done:
                            self.forget(watcher)

    def _paths(self, change: Change) -> list[str]:
        """Keys of watchers that may want the change: those on its path and, if a directory went, those below."""
        key = change[2]
        paths = [""]
        at = key.find("/", 1)
        while at > 0:
            paths.append(key[:at])
            at = key.find("/", at + 1)
        paths.append(key)
        if _ends_directory(change):
            below = key + "/"
            paths += [path for path in self._by_key if path.startswith(below)]
        return paths

    def _send(self, watcher: Watcher, change: Change, bodies: dict[int, bytes]) -> None:
        """One body for all watchers of a change; ``done`` before sending, for who sends may look."""
        body = bodies.get(0)
        if body is None:
            body = bodies[0] = change_json(change)
        watcher.done = not watcher.stream
        watcher.send(body)
