"""What a request on ``/v2/keys`` asks. Not compiled: mypyc ignores options of a struct."""

import msgspec

from streams.events.base import Data


class Redirect(Exception):
    """The path isn't clean: 301 to ``location``, as Go's mux does."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.location = location


class Read(msgspec.Struct, frozen=True):
    """GET or HEAD without wait. ``key`` is clean. ``quorum`` None: not said."""

    key: str
    recursive: bool = False
    ordered: bool = False
    quorum: bool | None = None


class Watch(msgspec.Struct, frozen=True):
    """GET with wait. ``since`` 0: after now."""

    key: str
    recursive: bool = False
    stream: bool = False
    since: int = 0
    quorum: bool | None = None


class Command(msgspec.Struct, frozen=True):
    """PUT, POST or DELETE."""

    data: Data
    no_value: bool = False


Asked = Read | Watch | Command
