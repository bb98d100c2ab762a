"""DELETE: delete, compareAndDelete, and the end of a TTL. After etcd 3.4's ``v2store/store.go``."""

from actors.kv.v2 import errors
from actors.kv.v2.errors import V2Error
from actors.kv.v2.nodes import Change, Dir, clean, face, text_of
from actors.kv.v2.put import compare
from actors.kv.v2.store import Store
from streams.events import kv as says


def delete(store: Store, data: says.Delete, time_ms: int) -> Change:
    """What a v2 DELETE comes to. A directory needs ``directory`` (and to be empty) or ``recursive``."""
    key = clean(text_of(data.key))
    if data.prev_index or data.prev_value:
        return _compare_and_delete(store, key, data, time_ms)
    if not key:
        raise V2Error(errors.ROOT_READ_ONLY, "/", store.index)
    there = store.node(key)
    if isinstance(there, Dir):
        if not (data.directory or data.recursive):
            raise V2Error(errors.NOT_FILE, key, store.index)
        if there.children and not data.recursive:
            raise V2Error(errors.DIR_NOT_EMPTY, key, store.index)
    store.remove(key)
    return store.took((store.index + 1, "delete", key, None, face(there), time_ms, False))


def _compare_and_delete(store: Store, key: str, data: says.Delete, time_ms: int) -> Change:
    there = store.node(key)
    if isinstance(there, Dir):
        raise V2Error(errors.NOT_FILE, key, store.index)
    compare(store, there, data.prev_value, data.prev_index)
    store.remove(key)
    return store.took((store.index + 1, "compareAndDelete", key, None, there, time_ms, False))


def expire(store: Store, data: says.Expired, time_ms: int) -> Change | None:
    """The TTL of a key ran out; None if the key is another one by now, or its TTL was set anew."""
    key = clean(text_of(data.key))
    there = store.find(key)
    if there is None or not key or (there.modified, there.expires_ms) != (data.modified_index, data.expires_ms):
        return None
    if not there.expires_ms:
        return None
    store.remove(key)
    return store.took((store.index + 1, "expire", key, None, face(there), time_ms, False))


def count_ttls(store: Store, data: says.TtlsCounted) -> None:
    """Lower what TTLs have left to what the master counted; those of changed keys stay as they are."""
    for left in data.left:
        key = clean(text_of(left.key))
        there = store.find(key)
        if there is None or key not in store.ttls:
            continue
        if (there.modified, there.expires_ms) == (left.modified_index, left.expires_ms):
            store.ttls[key] = max(0, min(store.ttls[key], left.left_ms))
