"""What can be wrong with a file that somebody hands us."""


class FileError(ValueError):
    """A file of etcd's that isn't what it should be."""


class BoltError(FileError):
    """``page``: number of the page at fault; ``reason``: what it says or lacks."""

    def __init__(self, page: int, reason: str) -> None:
        super().__init__(f"page {page}: {reason}")
        self.page, self.reason = page, reason


class SnapshotError(FileError):
    """A sound bbolt file whose entries aren't etcd's, or whose SHA-256 isn't its own. ``where``: bucket and key."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where, self.reason = where, reason


class FolderError(FileError):
    """``file``: its name in the data folder; ``offset``: in bytes, of the record or field at fault."""

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(f"{file} at byte {offset}: {reason}")
        self.file, self.offset, self.reason = file, offset, reason


class MessageError(ValueError):
    """A protobuf message that lies about its length or has a field of the wrong type; readers say where it was."""
