"""What :mod:`json_short` reads. Not compiled: mypyc ignores options of a struct."""

import msgspec


class Put(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Bytes are in standard base64 with its padding; numbers, and other names of the fields, aren't known here."""

    key: bytes = b""
    value: bytes = b""
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class Range(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    key: bytes = b""
    range_end: bytes = b""
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False
