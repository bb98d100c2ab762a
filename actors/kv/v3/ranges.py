"""KV.Range over the store. Pure. The order of steps is etcd's (apply: fetch, filter, sort, cut)."""

import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from actors.kv.v3 import errors
from actors.kv.v3.kinds import Query as Query
from actors.kv.v3.kinds import Ranged as Ranged
from actors.kv.v3.revs import Rev, Revs
from streams.events import kv3 as says
from streams.events.base import unblob


def query(op: says.OpRange) -> Query:
    """From the log's form."""
    return Query(
        unblob(op.key),
        unblob(op.range_end),
        op.limit,
        op.revision,
        op.order,
        op.by,
        op.keys_only,
        op.count_only,
        op.min_mod,
        op.max_mod,
        op.min_create,
        op.max_create,
    )


def ranged(revs: Revs, asked: Query, current: int) -> Ranged:
    """``current``: the revision that the reader sees (in a transaction that changed something: the one being made).

    Raises FUTURE_REV, COMPACTED.
    """
    revision = asked.revision if asked.revision > 0 else current
    if revision > current:
        raise errors.FUTURE_REV
    if revision < revs.compacted or (revision < current and revision < revs.limit(asked.key, asked.end)):
        raise errors.COMPACTED
    if not asked.end:
        return _single(revs, asked, revision)
    if asked.count_only and revision == current:
        return Ranged([], revs.count(asked.key, asked.end))
    found = _alive(revs, asked, revision, current)
    if asked.count_only:
        return Ranged([], sum(1 for _ in found))
    if asked.limit > 0 and not asked.fetches_all:
        # etcd takes one more, to see whether there is more, and orders it with them
        kvs = list(islice(found, min(asked.limit + 1, sys.maxsize)))
        rest = revs.count(asked.key, asked.end) - len(kvs) if revision == current else sum(1 for _ in found)
        return Ranged(_sorted(kvs, asked)[: asked.limit], len(kvs) + rest, len(kvs) > asked.limit)
    everything = list(found)
    kvs = _sorted(_filtered(everything, asked), asked)
    if 0 < asked.limit < len(kvs):
        return Ranged(kvs[: asked.limit], len(everything), True)
    return Ranged(kvs, len(everything))


def _single(revs: Revs, asked: Query, revision: int) -> Ranged:
    found = revs.at(asked.key, revision)
    if found is None:
        return Ranged([], 0)
    return Ranged([] if asked.count_only else _filtered([found], asked), 1)


def _alive(revs: Revs, asked: Query, revision: int, current: int) -> Iterator[Rev]:
    """What lived in the range at a revision, by key."""
    newest = revs.newest
    if revision == current:
        return (newest[key] for key in revs.keys(asked.key, asked.end, old=False))
    keys = revs.keys(asked.key, asked.end, old=True)
    return (found for key in keys if (found := revs.at(key, revision)) is not None)


def _filtered(kvs: list[Rev], asked: Query) -> list[Rev]:
    if asked.max_mod:
        kvs = [kv for kv in kvs if kv.mod <= asked.max_mod]
    if asked.min_mod:
        kvs = [kv for kv in kvs if kv.mod >= asked.min_mod]
    if asked.max_create:
        kvs = [kv for kv in kvs if kv.create <= asked.max_create]
    if asked.min_create:
        kvs = [kv for kv in kvs if kv.create >= asked.min_create]
    return kvs


def _sorted(kvs: list[Rev], asked: Query) -> list[Rev]:
    """A target without an order is ascending; equals keep the order of keys, descending too."""
    if asked.by == 0:
        return kvs[::-1] if asked.order == 2 else kvs
    return sorted(kvs, key=_BY[asked.by], reverse=asked.order == 2)


_BY: dict[int, Callable[[Rev], Any]] = {
    1: lambda kv: kv.version,
    2: lambda kv: kv.create,
    3: lambda kv: kv.mod,
    4: lambda kv: kv.value,
}
