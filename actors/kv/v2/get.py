"""GET: what a key or a listing shows, as bytes of etcd's JSON (field order of etcd 3.4's ``NodeExtern``)."""

from datetime import UTC, datetime

import orjson

from actors.kv.v2.nodes import LOST, Change, Dir, File, shown
from actors.kv.v2.store import Store


def quote(text: str) -> bytes:
    """A JSON string as Go writes it; bytes that aren't UTF-8 show as U+FFFD."""
    if not text.isascii():
        return escape(orjson.dumps(shown(text)))
    raw = orjson.dumps(text)
    return escape(raw) if "<" in text or ">" in text or "&" in text else raw


def escape(body: bytes) -> bytes:
    """Go's HTML-safe JSON: ``<``, ``>``, ``&`` and the line separators stand only in strings, so replace them."""
    if b"<" in body:
        body = body.replace(b"<", b"\\u003c")
    if b">" in body:
        body = body.replace(b">", b"\\u003e")
    if b"&" in body:
        body = body.replace(b"&", b"\\u0026")
    if b"\xe2\x80" in body:
        body = body.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return body


def expiration(expires_ms: int, now_ms: int) -> bytes:
    """The fields ``expiration`` and ``ttl`` (whole seconds, rounded up; left out at 0), or nothing."""
    if not expires_ms:
        return b""
    whole, millis = divmod(expires_ms, 1000)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{millis:03d}".rstrip("0") if millis else ""
    ttl_s = -((now_ms - expires_ms) // 1000)
    shown_ttl = f',"ttl":{ttl_s}' if ttl_s > 0 else ""
    return f',"expiration":"{text}{fraction}Z"{shown_ttl}'.encode()


def face_json(key: str, node: File, index: int, now_ms: int) -> bytes:
    """A node of a change. ``index`` is its modifiedIndex there; ``value`` None: a directory."""
    value, expires_ms = node.value, node.expires_ms
    if value is None:
        what, shown_value = b',"dir":true', b""
    elif value == LOST:
        what, shown_value = b"", b""
    else:
        what, shown_value = b',"value":', quote(value)
    ttl = expiration(expires_ms, now_ms) if expires_ms else b""
    indices = f',"modifiedIndex":{index},"createdIndex":{node.created}}}'.encode()
    return b"".join((b'{"key":', quote(key), what, shown_value, ttl, indices))


def change_json(change: Change, no_value: bool = False) -> bytes:
    """The body for a change, with the newline that etcd ends it with. TTLs are those at its time."""
    index, action, key, node, prev, time_ms, _ = change
    if no_value and action in ("set", "create", "update", "compareAndSwap"):
        return b'{"action":"%s"}\n' % action.encode()
    if node is not None:
        shown_node = face_json(key, node, index, time_ms)
    else:
        assert prev is not None
        dir_ = b',"dir":true' if prev.value is None else b""
        shown_node = b'{"key":%s%s,"modifiedIndex":%d,"createdIndex":%d}' % (quote(key), dir_, index, prev.created)
    if prev is None:
        return b"".join((b'{"action":"', action.encode(), b'","node":', shown_node, b"}\n"))
    before = face_json(key, prev, prev.modified, time_ms)
    return b"".join((b'{"action":"', action.encode(), b'","node":', shown_node, b',"prevNode":', before, b"}\n"))


def created(change: Change) -> bool:
    """Whether etcd answers 201."""
    return change[1] == "create" or (change[1] == "set" and change[4] is None)


def get_json(store: Store, key: str, recursive: bool, ordered: bool, now_ms: int) -> bytes:
    """The body for GET of a clean key. Raises V2Error (100, 104)."""
    node = store.node(key)
    shown_node = _listing(store, key, node, 2 if recursive else 1, ordered, now_ms)
    return b"".join((b'{"action":"get","node":', shown_node, b"}\n"))


def _listing(store: Store, key: str, node: File | Dir, depth: int, ordered: bool, now_ms: int) -> bytes:
    """``depth``: 0 shows the node alone, 1 its children too, 2 all below it. Hidden children are left out."""
    if isinstance(node, File):
        return face_json(key, node, node.modified, now_ms)
    fields = [b'"dir":true']
    if key:  # etcd shows no key of the root
        fields.insert(0, b'"key":' + quote(key))
    if node.expires_ms:
        fields.append(expiration(node.expires_ms, now_ms)[1:])
    if depth:
        hide = len(key) + 1
        paths = [path for path in node.children if not path.startswith("_", hide)]
        if ordered:
            paths.sort(key=_in_bytes)
        if paths:
            below = [_listing(store, path, store.node(path), 2 * (depth > 1), ordered, now_ms) for path in paths]
            fields.append(b'"nodes":[%s]' % b",".join(below))
    if node.modified:
        fields.append(b'"modifiedIndex":%d' % node.modified)
    if node.created:
        fields.append(b'"createdIndex":%d' % node.created)
    return b"{%s}" % b",".join(fields)


def _in_bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
