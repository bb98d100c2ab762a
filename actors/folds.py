"""The folds by name: everything that replays the log (gateway, snapshots, verify) finds them here."""

from collections.abc import Callable

from actors.control import ControlFold
from actors.kv.state import KvFold
from streams.replay import Fold

FOLDS: dict[str, Callable[[], Fold]] = {"control": ControlFold, "kv": KvFold}
