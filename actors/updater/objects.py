"""What a gateway serves to other machines' updaters, as files that its web framework sends with ranges.

    GET /v1/objects/{hash}  →  open_object(data folder, hash)
    GET /v1/trees/{hash}    →  manifest_path(data folder, hash)

Both give a path or None (404). Contents are named by their hash and never change: ``Cache-Control: immutable`` is
right, and so is ``application/octet-stream``. They are not hashed here: who fetches does that.
"""

from pathlib import Path

from actors.updater.manifest import is_hash
from actors.updater.publish import publish_folder

__all__ = ["CACHE_CONTROL", "manifest_path", "open_object", "publish_folder"]

CACHE_CONTROL = "public, max-age=31536000, immutable"


def open_object(data_folder: Path, hash_: str) -> Path | None:
    """The file with this content; None if it isn't here or ``hash_`` is not a SHA-256 in lower-case hex."""
    if not is_hash(hash_):
        return None
    folder = data_folder / "updater" / "objects" / hash_[:2]
    for mode in ("644", "755"):
        if (path := folder / f"{hash_[2:]}.{mode}").is_file():
            return path
    found = sorted(folder.glob(f"{hash_[2:]}.*")) if folder.is_dir() else []
    return found[0] if found else None


def manifest_path(data_folder: Path, hash_: str) -> Path | None:
    """The manifest of this tree; None if it isn't here or ``hash_`` is not a SHA-256 in lower-case hex."""
    if not is_hash(hash_):
        return None
    path = data_folder / "updater" / "trees" / hash_
    return path if path.is_file() else None
