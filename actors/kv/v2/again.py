"""What a session keeps of an outcome, and what a retry is answered with. Pure.

It is plain data, for it stands in snapshots. Long values are left out: a client that says a command again says its
value again, too. What was there before it, and was long, an answer to a retry shows without its value.
"""

from typing import Any

import msgspec

from actors.kv.v2.nodes import LOST, Change, change_of, plain_change, text_of
from actors.kv.v2.restores import Restored
from streams.events import kv as says
from streams.events.base import Data

#: A longer value isn't kept.
VALUE_CHARACTERS_MAX = 1024


def kept(result: Any, whole: bool) -> Any:
    """Plain data of what a command came to. whole: as below feature level 3."""
    if isinstance(result, Restored):
        return [*map(plain_change, result.changes)] if whole else None
    if not isinstance(result, tuple):
        return result if whole or isinstance(result, dict | int) else None
    plain = plain_change(result)
    if not whole:
        for shown, node in zip(plain[3:5], result[3:5], strict=True):
            if node is not None and node.value is not None and len(node.value) > VALUE_CHARACTERS_MAX:
                shown[0] = True
    return plain


def change(result: Any, command: Data) -> Change:
    """The change that a command made when it came first, of what was kept of it."""
    made = change_of(result)
    node = made[3]
    if node is None or node.value != LOST or not isinstance(command, says.Put | says.Set | says.Append):
        return made
    if isinstance(command, says.Set) and command.refresh:
        return made  # the value was that of the node before
    whole = msgspec.structs.replace(node, value=text_of(command.value))
    return (*made[:3], whole, *made[4:])
