"""PUT and POST: set, create, update, compareAndSwap, and in-order keys. One way in: :func:`put`, :func:`append`.

After etcd 3.4's ``v2store/store.go`` and ``apply_v2.go``; each function raises V2Error and then changed nothing.
"""

from actors.kv.v2 import errors
from actors.kv.v2.errors import V2Error
from actors.kv.v2.nodes import Change, Dir, File, clean, face, text_of
from actors.kv.v2.store import TTL_S_MAX, Store
from streams.events import kv as says
from streams.events.base import Blob


def put(store: Store, data: says.Set, time_ms: int) -> Change:
    """What a v2 PUT comes to at ``time_ms`` (the record's): prevExist decides first, then prevIndex and prevValue."""
    key = clean(text_of(data.key))
    ttl_s = _ttl_s(data.ttl_s)
    compares = bool(data.prev_index or data.prev_value)
    if data.prev_exist is False:
        return _create(store, key, data.value, data.directory, ttl_s, time_ms)
    if compares:
        return _compare_and_swap(store, key, data, ttl_s, time_ms)
    if data.prev_exist:
        return _update(store, key, data, ttl_s, time_ms)
    return _set(store, key, data, ttl_s, time_ms)


def append(store: Store, data: says.Append, time_ms: int) -> Change:
    """What a v2 POST comes to: a new key of 20 digits, the store's next index, below ``data.key``."""
    key = f"{clean(text_of(data.key))}/{store.index + 1:020d}"
    return _create(store, key, data.value, data.directory, _ttl_s(data.ttl_s), time_ms)


def put_text(store: Store, data: says.Put, time_ms: int) -> Change:
    """What a v2 PUT of text without conditions, TTL and options comes to."""
    return _set(store, clean(data.key), says.Set(data.key, data.value), None, time_ms)


def _ttl_s(ttl_s: int | None) -> int | None:
    if ttl_s is None or not 0 <= ttl_s < TTL_S_MAX:
        return None
    return ttl_s


def _expires_ms(ttl_s: int | None, time_ms: int) -> int:
    return 0 if ttl_s is None else max(1, time_ms + ttl_s * 1000)


def _set(store: Store, key: str, data: says.Set, ttl_s: int | None, time_ms: int) -> Change:
    """Creates or replaces a file; never replaces a directory. A refresh keeps the value of what is there."""
    value = text_of(data.value)
    if data.refresh:
        there = store.node(key)
        value = there.value or "" if isinstance(there, File) else ""
    if not key:
        raise V2Error(errors.ROOT_READ_ONLY, "/", store.index)
    if key in store.dirs:
        raise V2Error(errors.NOT_FILE, key, store.index)
    return place(store, key, (value, data.directory), ttl_s, time_ms, "set", data.refresh)


def _create(store: Store, key: str, value: Blob, directory: bool, ttl_s: int | None, time_ms: int) -> Change:
    if not key:
        raise V2Error(errors.ROOT_READ_ONLY, "/", store.index)
    parent = store.parent(key)
    if key in parent.children:
        raise V2Error(errors.NODE_EXIST, key, store.index)
    return place(store, key, (text_of(value), directory), ttl_s, time_ms, "create", False)


def place(
    store: Store, key: str, what: tuple[str, bool], ttl_s: int | None, time_ms: int, action: str, refresh: bool
) -> Change:
    """Put a new node at ``key``, in place of a file that may be there."""
    value, directory = what
    parent = store.parent(key)
    before = store.files.get(key)
    index, expires_ms = store.index + 1, _expires_ms(ttl_s, time_ms)
    parent.children[key] = None
    if directory:
        store.files.pop(key, None)
        made = store.dirs[key] = Dir({}, index, index, expires_ms)
        node = face(made)
    else:
        node = store.files[key] = File(value, index, index, expires_ms)
    store.keep_ttl(key, ttl_s)
    return store.took((index, action, key, node, before, time_ms, refresh))


def _update(store: Store, key: str, data: says.Set, ttl_s: int | None, time_ms: int) -> Change:
    """Changes value and TTL of a file that is there; of a directory only the TTL (its modifiedIndex stays)."""
    if not key:
        raise V2Error(errors.ROOT_READ_ONLY, "/", store.index)
    there = store.node(key)
    before, index, expires_ms = face(there), store.index + 1, _expires_ms(ttl_s, time_ms)
    if isinstance(there, Dir):
        if data.value:
            raise V2Error(errors.NOT_FILE, key, store.index)
        there.expires_ms = expires_ms
        node = File(None, there.created, index, expires_ms)
    else:
        value = there.value if data.refresh else text_of(data.value)
        node = store.files[key] = File(value, there.created, index, expires_ms)
    store.keep_ttl(key, ttl_s)
    return store.took((index, "update", key, node, before, time_ms, data.refresh))


def _compare_and_swap(store: Store, key: str, data: says.Set, ttl_s: int | None, time_ms: int) -> Change:
    if not key:
        raise V2Error(errors.ROOT_READ_ONLY, "/", store.index)
    there = store.node(key)
    if isinstance(there, Dir):
        raise V2Error(errors.NOT_FILE, key, store.index)
    compare(store, there, data.prev_value, data.prev_index)
    value = there.value if data.refresh else text_of(data.value)
    index = store.index + 1
    node = store.files[key] = File(value, there.created, index, _expires_ms(ttl_s, time_ms))
    store.keep_ttl(key, ttl_s)
    return store.took((index, "compareAndSwap", key, node, there, time_ms, data.refresh))


def compare(store: Store, there: File, prev_value: Blob | None, prev_index: int | None) -> None:
    """Raises 101 with etcd's cause, ``[asked != there]`` for each that differs."""
    causes: list[str] = []
    if prev_value and text_of(prev_value) != there.value:
        causes.append(f"[{text_of(prev_value)} != {there.value}]")
    if prev_index and prev_index != there.modified:
        causes.append(f"[{prev_index} != {there.modified}]")
    if not causes:
        return
    raise V2Error(errors.TEST_FAILED, " ".join(causes), store.index)
