"""Which file a key is in a tree that shows keys as files. Pure.

Keys are cut at slashes. A key that is also a folder, because other keys go on behind it, is the file ``.value`` in that
folder. What can't be a name is escaped, so that no two keys meet and none leaves the tree:

* ``%XX``: a byte of a control character, of ``%`` itself, or of what is no UTF-8;
* ``%2E`` and ``%2E%2E``: the names ``.`` and ``..``; ``%2Evalue``: a part of a key that is called ``.value``;
* ``%`` alone: an empty part, as in ``a//b`` or ``a/``;
* ``%~`` and 32 digits of SHA-256: for the rest of a name longer than 200 bytes, or for a path longer than 2,000 or of
  more than 100 names.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

VALUE = b".value"
NAME_BYTES_MAX, PATH_BYTES_MAX = 200, 2000
#: Programs that walk a tree may hold a descriptor or a frame for each folder on the way down.
PATH_NAMES_MAX = 100
_ODD = re.compile(rb"[\x00-\x1f\x7f%]")
_ODD_OR_HIGH = re.compile(rb"[\x00-\x1f\x7f-\xff%]")


def _escaped(found: "re.Match[bytes]") -> bytes:
    return b"%%%02X" % found[0][0]


def _digest(raw: bytes) -> bytes:
    return b"%~" + hashlib.sha256(raw).hexdigest()[:32].encode()


@lru_cache(maxsize=65536)
def name_of(part: bytes) -> bytes:
    """A part of a key as the name of a file."""
    if not part:
        return b"%"
    if part in (b".", b"..", VALUE):
        return part.replace(b".", b"%2E") if part != VALUE else b"%2Evalue"
    try:
        part.decode()
        name = _ODD.sub(_escaped, part)
    except UnicodeDecodeError:
        name = _ODD_OR_HIGH.sub(_escaped, part)
    if len(name) <= NAME_BYTES_MAX:
        return name
    return name[: NAME_BYTES_MAX - 40].decode("utf-8", "ignore").encode() + _digest(part)


def base_of(key: bytes) -> bytes:
    """The path of a key that no other one goes on behind."""
    parts = key.split(b"/")
    if len(parts) > PATH_NAMES_MAX:
        return _digest(key)
    path = b"/".join(map(name_of, parts))
    return path if len(path) <= PATH_BYTES_MAX else _digest(key)


class Layout:
    """Keys, relative to the root, and the file of each. Changes cost what changes."""

    def __init__(self) -> None:
        #: path → value
        self.files: dict[bytes, bytes] = {}
        self._values: dict[bytes, bytes] = {}
        #: base → how many keys are below it
        self._below: dict[bytes, int] = {}

    def put(self, key: bytes, value: bytes) -> None:
        base = base_of(key)
        if base not in self._values:
            for folder in _folders(base):
                count = self._below[folder] = self._below.get(folder, 0) + 1
                if count == 1 and folder in self._values:
                    self.files[folder + b"/" + VALUE] = self.files.pop(folder)
        self._values[base] = value
        self.files[self._path(base)] = value

    def remove(self, key: bytes) -> None:
        base = base_of(key)
        if base not in self._values:
            return
        del self.files[self._path(base)], self._values[base]
        for folder in _folders(base):
            self._below[folder] -= 1
            if not self._below[folder]:
                del self._below[folder]
                if folder in self._values:
                    self.files[folder] = self.files.pop(folder + b"/" + VALUE)

    def _path(self, base: bytes) -> bytes:
        return base + b"/" + VALUE if base in self._below else base


def _folders(path: bytes) -> Iterator[bytes]:
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)


def laid_out(pairs: Iterable[tuple[bytes, bytes]]) -> Layout:
    made = Layout()
    for key, value in pairs:
        made.put(key, value)
    return made


class Steps:
    """How one tree of files becomes another: in this order ``remove`` files, ``prune`` folders (those that are empty
    then), ``put`` files."""

    def __init__(self, before: Mapping[bytes, bytes], after: Mapping[bytes, bytes]) -> None:
        self.remove = [path for path in before if path not in after]
        self.prune = sorted({folder for path in self.remove for folder in _folders(path)}, key=len, reverse=True)
        self.put = [
            path
            for path, value in after.items()
            if (old := before.get(path)) is not value and (old is None or old != value)
        ]
