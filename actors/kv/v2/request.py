"""From an HTTP request on ``/v2/keys`` to what is asked, by etcd 3.4's rules (``v2http/client.go``, Go's forms).

Parsing is kept apart from applying and answering, so that processes can be put in front of the fold.
"""

from typing import Final
from urllib.parse import quote as url_quote

import msgspec

from actors.kv.v2 import errors
from actors.kv.v2.errors import V2Error
from actors.kv.v2.kinds import Asked as Asked
from actors.kv.v2.kinds import Command as Command
from actors.kv.v2.kinds import Read as Read
from actors.kv.v2.kinds import Redirect as Redirect
from actors.kv.v2.kinds import Watch as Watch
from actors.kv.v2.nodes import DEPTH_MAX, KEY_CHARACTERS_MAX, blob_of, carried_of, clean
from streams.events import kv as says
from streams.events.base import Data

PREFIX: Final = "/v2/keys"
FORM: Final = b"application/x-www-form-urlencoded"
#: As long as what a POST makes a key of.
IN_ORDER: Final = "/" + 20 * "0"
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_HEX = frozenset(b"0123456789abcdefABCDEF")
_UINT64_MAX = 2**64 - 1
#: The form of most puts is this and the value.
_VALUE: Final = b"value="


def unescape(raw: bytes, plus: bool = True) -> str:
    """Percent-decoding; ``plus`` also turns ``+`` into a space. Raises V2Error 210 with Go's words."""
    if plus and b"+" in raw:
        raw = raw.replace(b"+", b" ")
    if b"%" in raw:
        first, *parts = raw.split(b"%")
        out = [first]
        for part in parts:
            if len(part) < 2 or part[0] not in _HEX or part[1] not in _HEX:
                bad = (b"%" + part[:2]).decode("utf-8", "replace")
                raise V2Error(errors.INVALID_FORM, f'invalid URL escape "{bad}"')
            out.append(bytes((int(part[:2], 16),)) + part[2:])
        raw = b"".join(out)
    return _text(raw)


def _text(raw: bytes) -> str:
    return raw.decode() if raw.isascii() else raw.decode("utf-8", "surrogateescape")


def form(raw: bytes, into: dict[str, str]) -> None:
    """Add the fields of a form or query that aren't there yet: the first value counts. Raises V2Error 210."""
    for pair in raw.split(b"&"):
        if not pair:
            continue
        if b";" in pair:
            raise V2Error(errors.INVALID_FORM, "invalid semicolon separator in query")
        name, _, value = pair.partition(b"=")
        into.setdefault(unescape(name), unescape(value))


def asked(method: str, path: str, query: bytes, content_type: bytes, body: bytes) -> Asked:
    """What a request on a key asks. ``path`` is percent-decoded and begins with ``/v2/keys``.

    Raises V2Error (as etcd's, index 0) and Redirect.
    """
    tidy = tidied(path, query)
    if len(tidy) > DEPTH_MAX and method in ("PUT", "POST"):
        _shallow(tidy if method == "PUT" else tidy + IN_ORDER)
    if method == "PUT" and not query and content_type == FORM and body.startswith(_VALUE):
        # text is searched in less time than bytes
        value = _text(body[len(_VALUE) :])
        if not ("%" in value or "+" in value or "&" in value or ";" in value):
            return Command(_put(tidy, value))
    fields: dict[str, str] = {}
    if body and method in ("PUT", "POST"):
        _body(content_type, body, fields)
    if query:
        form(query, fields)
    if method == "PUT" and len(fields) == 1 and "value" in fields:
        return Command(_put(tidy, fields["value"]))
    return _checked(method, tidy, fields)


def _shallow(key: str) -> None:
    """Raises V2Error: it is too deep, or too long, to be made; as the store says it where its parents aren't there."""
    if key.count("/") > DEPTH_MAX or len(key) > KEY_CHARACTERS_MAX:
        cause = f"the key has over {DEPTH_MAX} elements or {KEY_CHARACTERS_MAX} characters"
        raise V2Error(errors.INVALID_FIELD, cause)


def tidied(path: str, query: bytes) -> str:
    """The clean key of a percent-decoded path. Raises Redirect."""
    key = path[len(PREFIX) :]
    if key.startswith("/") and not key.endswith("/") and "//" not in key and "/." not in key:
        return key  # as clean finds too
    if (tidy := clean(key)) != key and tidy + "/" != key:
        location = url_quote((PREFIX + tidy).encode("utf-8", "surrogateescape"), safe="/~:@!$&'()*+,;=")
        raise Redirect(location + ("/" if key.endswith("/") else "") + (f"?{query.decode('latin-1')}" if query else ""))
    return tidy


def recursive(method: str, query: bytes, headers: dict[bytes, bytes], body: bytes) -> bool:
    """Whether a request that :func:`asked` took says so, of any method."""
    fields: dict[str, str] = {}
    if body and method in ("PUT", "POST"):
        _body(headers.get(b"content-type", b""), body, fields)
    form(query, fields)
    return fields.get("recursive") in _TRUE


def let(data: Data, auth: int) -> Data:
    """``data``, by an author who was let through at revision ``auth`` of v2's users."""
    if isinstance(data, says.Put):
        return says.Set(data.key or "/", data.value, auth=auth)
    return msgspec.structs.replace(data, auth=auth)


def _body(content_type: bytes, body: bytes, fields: dict[str, str]) -> None:
    kind = content_type.partition(b";")[0].strip().lower()
    if kind == FORM:
        form(body, fields)
    elif kind.startswith(b"multipart/"):
        # etcd takes the value for empty, without a word
        raise V2Error(errors.INVALID_FORM, "multipart forms are not read; send application/x-www-form-urlencoded")


def _put(key: str, value: str) -> Data:
    given = carried_of(value)
    if isinstance(given, str) and key.isascii() and given.isascii():
        return says.Put(key, given)
    return says.Set(blob_of(key or "/"), given)


def _checked(method: str, key: str, fields: dict[str, str]) -> Asked:
    """etcd checks the fields in this order; the first bad one is the error."""
    prev_index = _uint(fields, "prevIndex", errors.INDEX_NAN)
    since = _uint(fields, "waitIndex", errors.INDEX_NAN)
    recursive, ordered, wait, directory, quorum, stream = (
        _bool(fields, name) for name in ("recursive", "sorted", "wait", "dir", "quorum", "stream")
    )
    if wait and method != "GET":
        raise V2Error(errors.INVALID_FIELD, '"wait" can only be used with GET requests')
    prev_value = fields.get("prevValue")
    if prev_value == "":
        raise V2Error(errors.PREV_VALUE_REQUIRED, '"prevValue" cannot be empty')
    no_value = bool(_bool(fields, "noValueOnSuccess"))
    ttl_s = _uint(fields, "ttl", errors.TTL_NAN) if fields.get("ttl") else None
    try:
        prev_exist = _bool(fields, "prevExist")
        refresh = bool(_bool(fields, "refresh"))
    except V2Error as error:  # the words differ for these two
        raise V2Error(error.code, error.cause.replace('"', "")) from None
    if refresh and fields.get("value"):
        raise V2Error(errors.REFRESH_VALUE, "A value was provided on a refresh")
    if refresh and ttl_s is None:
        raise V2Error(errors.REFRESH_TTL_REQUIRED, "No TTL value set")
    if method in ("GET", "HEAD"):
        if wait and not quorum:  # with a quorum etcd doesn't wait
            return Watch(key, bool(recursive), bool(stream), since or 0, quorum)
        return Read(key, bool(recursive), bool(ordered), quorum)
    name, value = blob_of(key or "/"), carried_of(fields.get("value", ""))
    before = None if prev_value is None else carried_of(prev_value)
    data: Data
    if method == "DELETE":
        data = says.Delete(name, bool(recursive), bool(directory), before, prev_index or None)
    elif method == "POST":
        data = says.Append(name, value, bool(directory), ttl_s)
    else:
        data = says.Set(name, value, bool(directory), ttl_s, prev_exist, before, prev_index or None, refresh)
    return Command(data, no_value)


def _uint(fields: dict[str, str], name: str, code: int) -> int | None:
    text = fields.get(name)
    if text is None:
        return None
    digits = text.lstrip("0") or text[:1]
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 20 or int(digits) > _UINT64_MAX:
        raise V2Error(code, f'invalid value for "{name}"')
    return int(digits)


def _bool(fields: dict[str, str], name: str) -> bool | None:
    text = fields.get(name)
    if text is None:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise V2Error(errors.INVALID_FIELD, f'invalid value for "{name}"')
