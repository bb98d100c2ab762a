"""Which form of the hot modules runs: compiled by ``make native``, or as they are written."""

from actors.kv.http2 import frames


def is_native() -> bool:
    return not frames.__file__.endswith(".py")
