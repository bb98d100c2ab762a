"""Who changed a key, when, and what it was before: what an event did to the v2 store, told as plain data. Pure."""

from collections.abc import Sequence
from typing import Any, Final

from actors.kv.v2.nodes import Change, File, change_of, shown
from actors.kv.v2.restores import Restored
from streams.events import kv, kv2, kv3
from streams.outcomes import Accepted, AcceptedBefore
from streams.replay import Applied

Row = dict[str, Any]

#: What changes neither v2's keys nor a lease's time: most of what is applied.
_OF_V3_KEYS: Final = frozenset({kv3.Put, kv3.Delete, kv3.Txn})
#: Families of the stream that change nothing of v2's keys.
_OTHERS: Final = frozenset({kv2.__name__, kv3.__name__})

#: What takes a directory away takes all below it along, and is told of the directory alone.
_TAKEN = frozenset({"delete", "expire"})


def are_plain(batch: Sequence[Applied]) -> bool:
    """Whether all are puts of v3: they start no countdown and change nothing of v2."""
    return all(one.event.data.__class__ is kv3.Put for one in batch)


def told(batch: Sequence[Applied]) -> tuple[list[Change], list[Any]]:
    """Changes of v2's keys, and the data of events that may be about leases."""
    changes: list[Change] = []
    leases: list[Any] = []
    for one in batch:
        data = one.event.data
        if data.__class__ in _OF_V3_KEYS:
            continue
        if data.__class__ is not kv.Put:
            leases.append(data)
        changes += made(one)
    return changes, leases


def with_ttl(changes: Sequence[Change]) -> list[str]:
    """The keys that have, or had before, a TTL."""
    out: list[str] = []
    for _, _, key, node, prev, _, _ in changes:
        if (node is not None and node.expires_ms) or (prev is not None and prev.expires_ms):
            out.append(key)
    return out


def made(applied: Applied) -> Sequence[Change]:
    """The changes that an event of stream ``kv`` made to v2's keys; none if it was refused."""
    outcome = applied.outcome
    if applied.record.stream != "kv" or not isinstance(outcome, Accepted) or outcome.result is None:
        return ()
    if isinstance(outcome, AcceptedBefore):
        return ()  # a retry: the change was told when it was made
    came, data = outcome.result, applied.event.data
    if data.__module__ in _OTHERS:
        if isinstance(came, Restored):
            return came.changes
        if isinstance(data, kv3.RestoreEnd) and isinstance(came, list):
            return tuple(map(change_of, came))
        return ()
    return (came if isinstance(came, tuple) else change_of(came),)


def concerns(change: Change, key: str, recursive: bool) -> bool:
    """Whether a change is one of ``key`` (cleaned, the root is ""), or with ``recursive`` of anything below it."""
    _, action, changed, *_ = change
    if changed == key or (recursive and changed.startswith(key + "/")):
        return True
    return action in _TAKEN and key.startswith(changed + "/")


def row(applied: Applied, change: Change) -> Row:
    """A change with its place in the log and who made it. ``value`` and ``previous``: None of what isn't a file."""
    index, action, key, node, prev, time_ms, refresh = change
    event, record = applied.event, applied.record
    return {
        "position": str(applied.position),
        "time_ms": time_ms,
        "action": _action(event.data, action, refresh),
        "key": shown(key),
        "value": _value(node),
        "previous": _value(prev),
        "index": index,
        "principal": event.principal,
        "client": event.client,
        "writer": record.writer,
        "term": event.term,
        "correlation": event.correlation,
    }


def _action(data: Any, action: str, refresh: bool) -> str:
    if isinstance(data, kv3.RestoreEnd):
        return f"restore {action}"
    return "refresh" if refresh else action


def _value(node: File | None) -> str | None:
    return None if node is None or node.value is None else shown(node.value)
