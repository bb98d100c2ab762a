"""HPACK (RFC 7541): a decoder with its dynamic table, and an encoder that needs none.

Answers are written as indexed fields of the static table and literals without indexing, so their blocks are alike on
every connection and can be cached.
"""

from actors.kv.http2 import huffman

Field = tuple[bytes, bytes]
TABLE_BYTES = 4096
#: What a field counts beyond its bytes, in the table and in a header list.
FIELD_OVERHEAD = 32
#: Bytes of a number after its prefix; what is said here fits into four.
_NUMBER_BYTES_MAX = 5
_NUMBER_MAX = 2**31

_STATIC_TEXT = """:authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200
:status=204|:status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|accept-encoding=gzip, deflate
accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control
content-disposition|content-encoding|content-language|content-length|content-location|content-range|content-type|cookie
date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified
link|location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie
strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"""


def _static(text: str) -> Field:
    name, _, value = text.encode().partition(b"=")
    return name, value


STATIC: list[Field] = [_static(one) for one in _STATIC_TEXT.replace("\n", "|").split("|")]
_INDEX_OF_FIELD = {field: index for index, field in reversed(list(enumerate(STATIC, 1)))}
_INDEX_OF_NAME = {field[0]: index for index, field in reversed(list(enumerate(STATIC, 1)))}


class HpackError(Exception):
    """The block can't be decoded, nor any after it: the connection has to end (COMPRESSION_ERROR)."""


class ListTooLarge(Exception):
    """The fields of this block are over the limit; the decoder itself goes on."""


class Decoder:
    """``list_bytes``: limit of one block's names and values, with FIELD_OVERHEAD each."""

    def __init__(self, list_bytes: int) -> None:
        #: changes when the dynamic table does: blocks decoded since mean the same as before
        self.generation = 0
        self._list_bytes = list_bytes
        self._table: list[Field] = []  # the newest last
        self._bytes = 0
        self._limit = TABLE_BYTES

    def decode(self, block: bytes) -> list[Field]:
        """Raises HpackError, or ListTooLarge when all of the block was decoded."""
        try:
            fields, size = self._decode(block)
        except (IndexError, ValueError) as error:
            raise HpackError(f"header block: {error}") from error
        if size > self._list_bytes:
            raise ListTooLarge(f"{size} bytes of headers, at most {self._list_bytes}")
        return fields

    def _decode(self, block: bytes) -> tuple[list[Field], int]:
        fields: list[Field] = []
        at, size, end, limit = 0, 0, len(block), self._list_bytes
        while at < end:
            first = block[at]
            if first & 0x80:
                index, at = (first & 0x7F, at + 1) if first != 0xFF else _number(block, at, 0x7F)
                field = self._field(index)
            elif first & 0xE0 == 0x20:
                if fields:
                    raise HpackError("a table size update after a field")
                new, at = _number(block, at, 0x1F)
                self._resize(new)
                continue
            else:
                field, at = self._literal(block, at, first)
            size += len(field[0]) + len(field[1]) + FIELD_OVERHEAD
            if size <= limit or not fields:
                fields.append(field)
        return fields, size

    def _literal(self, block: bytes, at: int, first: int) -> tuple[Field, int]:
        index, at = _number(block, at, 0x3F if first & 0x40 else 0x0F)
        if index:
            name = self._field(index)[0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        field = (name, value)
        if first & 0x40:
            self._insert(field)
        return field, at

    def _field(self, index: int) -> Field:
        if index <= len(STATIC):
            if not index:
                raise HpackError("index 0")
            return STATIC[index - 1]
        index -= len(STATIC)
        if index > len(self._table):
            raise HpackError(f"no entry {index} in the dynamic table")
        return self._table[-index]

    def _insert(self, field: Field) -> None:
        self.generation += 1
        self._table.append(field)
        self._bytes += len(field[0]) + len(field[1]) + FIELD_OVERHEAD
        self._evict()

    def _resize(self, limit: int) -> None:
        if limit > TABLE_BYTES:
            raise HpackError(f"a table of {limit} bytes; {TABLE_BYTES} are allowed")
        self.generation += 1
        self._limit = limit
        self._evict()

    def _evict(self) -> None:
        gone = 0
        while self._bytes > self._limit:
            name, value = self._table[gone]
            self._bytes -= len(name) + len(value) + FIELD_OVERHEAD
            gone += 1
        if gone:
            del self._table[:gone]


def _number(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """(the number whose prefix is at ``at``, where it ends). Raises IndexError, HpackError."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 7 * _NUMBER_BYTES_MAX, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if value > _NUMBER_MAX:
            break
        if not byte & 0x80:
            return value, at
    raise HpackError("a number is too large")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    first = block[at]
    size, at = _number(block, at, 0x7F)
    end = at + size
    if end > len(block):
        raise HpackError("a string is longer than its block")
    text = block[at:end]
    return (huffman.decode(text) if first & 0x80 else text), end


def encode(fields: list[Field]) -> bytes:
    """A block that doesn't touch the reader's dynamic table. Names in lower case."""
    out = bytearray()
    for name, value in fields:
        index = _INDEX_OF_FIELD.get((name, value))
        if index is not None:
            out += _prefixed(0x80, 0x7F, index)
            continue
        index = _INDEX_OF_NAME.get(name, 0)
        out += _prefixed(0, 0x0F, index)
        if not index:
            out += _prefixed(0, 0x7F, len(name)) + name
        out += _prefixed(0, 0x7F, len(value)) + value
    return bytes(out)


def _prefixed(bits: int, mask: int, number: int) -> bytes:
    if number < mask:
        return bytes((bits | number,))
    out = bytearray((bits | mask,))
    number -= mask
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
