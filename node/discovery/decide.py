"""What a machine does next, from what is registered under its token. Pure; after etcd's ``v2discovery``.

    there is no place left, and none is ours      Full
    ours isn't there                              Register
    ours is among the first ``size``, not whole   Wait
    all ``size`` are there                        Complete

Members are in the order of their making; the first ``size`` are the cluster.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

#: The back-off of the n-th try that failed is 2^n seconds, up to this n.
_EXPONENT_MAX = 8


class DiscoveryError(Exception):
    """The token can't be used; nothing was started. Words are etcd's."""

    exit_code = 1


class Full(DiscoveryError):
    """The cluster has all its members, and this machine is none of them."""

    def __init__(self) -> None:
        super().__init__("discovery: cluster is full")


class SizeNotFound(DiscoveryError):
    def __init__(self) -> None:
        super().__init__("discovery: size key not found")


class BadSize(DiscoveryError):
    def __init__(self) -> None:
        super().__init__("discovery: size key is bad")


class DuplicateId(DiscoveryError):
    def __init__(self) -> None:
        super().__init__("discovery: found duplicate id")


class DuplicateName(DiscoveryError):
    def __init__(self) -> None:
        super().__init__("discovery: found duplicate name")


class InvalidUrl(DiscoveryError):
    def __init__(self) -> None:
        super().__init__("discovery: invalid URL")


class BadEndpoint(DiscoveryError):
    def __init__(self) -> None:
        super().__init__("discovery: bad discovery endpoint")


class TooManyRetries(DiscoveryError):
    def __init__(self) -> None:
        super().__init__("discovery: too many retries")


class Registration(NamedTuple):
    """``value``: ``name=url[&name=url]``; ``created``: the index of its making."""

    member: str
    value: str
    created: int


class Register(NamedTuple):
    """Register this machine."""


class Wait(NamedTuple):
    """For more than these."""

    have: list[Registration]


class Complete(NamedTuple):
    """The cluster, in the order of its registrations."""

    members: list[Registration]


def size_of(text: str) -> int:
    """Raises BadSize."""
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()) or int(text) < 1:
        raise BadSize
    return int(text)


def step(size: int, found: Sequence[Registration], me: str, value: str) -> Register | Wait | Complete:
    """Raises Full, DuplicateId (another value stands under our id), DuplicateName and InvalidUrl."""
    first = sorted(found, key=lambda one: one.created)[:size]
    mine = next((one for one in first if one.member == me), None)
    if mine is None:
        if len(first) == size:
            raise Full
        if not names(value).isdisjoint(_all_names(first)):
            raise DuplicateName
        return Register()
    if mine.value != value:
        raise DuplicateId
    if len(first) < size:
        return Wait(first)
    if len(_all_names(first)) != size:
        raise DuplicateName
    return Complete(first)


def _all_names(members: Sequence[Registration]) -> set[str]:
    return {name for one in members for name in names(one.value)}


def names(value: str) -> set[str]:
    """The names in ``name=url[&name=url]``. Raises InvalidUrl."""
    found = set()
    for part in re.split("[&,]", value):
        name, equals, url = part.partition("=")
        if not equals or not _is_url(url):
            raise InvalidUrl
        found.add(name)
    return found


def _is_url(text: str) -> bool:
    """A peer's URL as etcd takes it: a scheme, an address, no path."""
    try:
        split = urlsplit(text)
        port = split.port
    except ValueError:
        return False
    if split.scheme in ("unix", "unixs"):
        return bool(split.netloc or split.path)
    return split.scheme in ("http", "https") and bool(split.hostname) and port is not None and not split.path


def backoff_s(tries: int) -> int:
    """After ``tries`` that failed, 1 at least."""
    return 1 << min(tries, _EXPONENT_MAX)


def target(url: str) -> tuple[str, str]:
    """``scheme://host[:port]`` and the token's path of a discovery URL. Raises InvalidUrl."""
    try:
        split = urlsplit(url)
        bad = split.scheme not in ("http", "https") or not split.hostname or (split.port is not None and split.port < 1)
    except ValueError:
        raise InvalidUrl from None
    path = split.path.rstrip("/")
    if bad or not path or split.query or split.fragment or not (url.isascii() and url.isprintable()):
        raise InvalidUrl
    return f"{split.scheme}://{split.netloc}", path
