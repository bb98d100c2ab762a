"""What came of a node's discovery, in its data folder.

discovered     JSON, mode 0600: where the log is, and whether this machine is one of the members asked for
"""

from pathlib import Path

import msgspec

from node.discovery.decide import DiscoveryError

FILE = "discovered"


class Discovered(msgspec.Struct, frozen=True):
    """``log``: its address; empty: the folder's own. ``members``: as they registered; none: it isn't one of them."""

    log: str = ""
    control: bool = True
    members: list[str] = []


def kept(folder: Path) -> Discovered | None:
    """What the folder's discovery came to; None: there was none. Raises DiscoveryError: the file is damaged."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Discovered)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DiscoveryError(
            f"{folder / FILE} is damaged ({error}): restore it, or remove it and say --log and --control"
        ) from error
