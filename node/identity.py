"""Who this machine is: the data folder, its ids, its token, and the lock that lets one node at a time use it.

    machine-id   32 hex digits, made once
    log-id       id of the log that this machine joined, 32 hex digits
    log-operator its operator's public key; who founded the log has the private one in operator.key
    discovered   what its discovery token came to (see node/discovery/kept.py)
    token        a token for commands over TCP, mode 0600, made once
    lock         who runs here: pid, nonce, boot id
    run/         unix sockets

The lock is POSIX record locks on the file ``lock``: byte 0 is the node's main process, byte 1 is shared by all its
actor processes. Such locks end with their process, however it ends, and no child has them by fork (so no shim of a
unit holds the folder); ``F_GETLK`` names the holder.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import signal
import struct
import time
from pathlib import Path
from typing import Self

#: Less free space than this: nothing is started.
FREE_BYTES_MIN = 8 * 1024 * 1024
#: What is left of an earlier node may take so long to die before it is killed, and then until this node gives up.
LEFTOVER_S, GIVE_UP_S = 1.0, 10.0

_MAIN, _ACTORS = 0, 1
_FLOCK = struct.Struct("@hhqqi4x")
_ID = re.compile(r"[0-9a-f]{32}")


def has_joined(path: Path) -> bool:
    """Whether a node of this data folder joined a log before."""
    return (path / "log-id").exists()


class FolderError(Exception):
    """The data folder can't be used; nothing was changed in it. ``exit_code`` as the command line's."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class DataFolder:
    """An open data folder: ``with DataFolder(path) as folder: …``. Raises FolderError."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.machine = ""
        self.nonce = secrets.token_hex(16)
        self.previous_nonce = ""
        self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            self._make()
            self._claim()
            try:
                self._check_space()
                self.machine = self._machine_id()
                # Hex: one of base64 may begin with "-", and `--token` would take it for the next option.
                self._once("token", secrets.token_hex(32))
                (self.path / "run").mkdir(mode=0o700, exist_ok=True)
                self._sign()
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise _explained(error, self.path) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @classmethod
    def refuse_if_used(cls, path: Path) -> None:
        """Look, and change nothing. Raises FolderError when a node runs on the folder."""
        looking = cls(path)
        with contextlib.suppress(OSError):
            looking._fd = os.open(looking.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if pid := looking._holder(_MAIN):
                    raise looking._used(pid)
            finally:
                looking.close()

    def _used(self, pid: int) -> FolderError:
        return FolderError(
            f"another node runs on {self.path} ({_named(pid)}): stop it first, or give this one another data folder "
            f"(--data)",
            4,
        )

    # -- the log that this machine joined -------------------------------------------------------------------------

    @property
    def log_id(self) -> str:
        """Empty if it has never joined one. Raises FolderError when the file is damaged."""
        return self._read_id("log-id", "it names the log that this machine belongs to")

    @property
    def known_operator_key(self) -> str:
        """The public key of the operator of the log that this machine joined, hex; empty if it has none."""
        try:
            return (self.path / "log-operator").read_text().strip()
        except FileNotFoundError:
            return ""

    def operator_public_key(self) -> str:
        """Hex of the Ed25519 public key to found a log with; the private one (hex) is in ``operator.key``.

        Imports cryptography: called only by the process that founds.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            self._once("operator.key", secrets.token_hex(32))
            private = bytes.fromhex((self.path / "operator.key").read_text().strip())
        except OSError as error:
            raise _explained(error, self.path) from error
        return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw().hex()

    def join(self, log_id: str, operator_key: str = "") -> None:
        """Note that this machine belongs to ``log_id``. Raises FolderError (4) if it belongs to another."""
        known = self.log_id
        if known and known != log_id:
            raise FolderError(
                f"{self.path} belongs to log {known}, this is log {log_id}: give another data folder (--data), or the "
                f"address of its own log (--log)",
                4,
            )
        if not known:
            try:
                if operator_key:
                    self._once("log-operator", operator_key)
                self._once("log-id", log_id)
            except OSError as error:
                raise _explained(error, self.path) from error

    # -- the lock -------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Called in each forked actor process: while one lives, no other node starts on this folder."""
        fcntl.lockf(self._fd, fcntl.LOCK_SH, 1, _ACTORS)

    def _claim(self) -> None:
        self._fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not self._try(_MAIN):
                raise self._used(self._holder(_MAIN))
            self._end_leftovers()
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                self.previous_nonce = str(json.loads(os.pread(self._fd, 4096, 0)).get("nonce", ""))
        except BaseException:
            self.close()
            raise

    def _try(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _holder(self, byte: int) -> int:
        """The pid of who holds the byte; 0 if nobody (or somebody whose pid can't be seen from here)."""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        kind, _whence, _start, _len, pid = _FLOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_GETLK, asked))
        return pid if kind != fcntl.F_UNLCK and pid > 0 else 0

    def _end_leftovers(self) -> None:
        """Processes of a node whose main process is dead: they die by themselves at once, or are killed here."""
        began_s = time.monotonic()
        while not self._try(_ACTORS):
            pid = self._holder(_ACTORS)
            waited_s = time.monotonic() - began_s
            if waited_s > GIVE_UP_S:
                raise FolderError(f"{_named(pid)} of an earlier node on {self.path} doesn't end", 4)
            if waited_s > LEFTOVER_S and pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _ACTORS)

    def _sign(self) -> None:
        """Write who runs here into the lock's file."""
        raw = json.dumps({"pid": os.getpid(), "nonce": self.nonce, "boot_id": self.boot_id}).encode()
        os.pwrite(self._fd, raw, 0)
        os.ftruncate(self._fd, len(raw))
        os.fsync(self._fd)

    # -- files ----------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        if not self.path.exists():
            self.path.mkdir(mode=0o700, parents=True)
            return
        if not self.path.is_dir():
            raise FolderError(f"{self.path} is not a folder: give one with --data", 2)
        mode = self.path.stat().st_mode & 0o777
        if mode & 0o077:
            if (self.path / "machine-id").exists() or not any(self.path.iterdir()):
                self.path.chmod(0o700)
            else:
                raise FolderError(
                    f"{self.path} (mode {mode:04o}) is open to others, not empty, and no data folder of corelog: give "
                    f"an empty one (--data), or run chmod 700 if it is meant",
                    2,
                )

    def _check_space(self) -> None:
        found = os.statvfs(self.path)
        free = found.f_bavail * found.f_frsize
        if free < FREE_BYTES_MIN:
            raise FolderError(
                f"{self.path} is on a full disk ({free // 1024} KiB free): free at least "
                f"{FREE_BYTES_MIN // 1024 // 1024} MiB there, or give another data folder (--data)",
                5,
            )

    def _machine_id(self) -> str:
        known = self._read_id("machine-id", "it is this machine's name in the cluster")
        if known:
            return known
        made = secrets.token_hex(16)
        self._once("machine-id", made)
        return made

    def _read_id(self, name: str, what: str) -> str:
        path = self.path / name
        try:
            text = path.read_text(errors="replace").strip()
        except FileNotFoundError:
            return ""
        if not _ID.fullmatch(text):
            raise FolderError(
                f"{path} holds {text[:40]!r}, not 32 hex digits; {what}: restore it from a backup, or remove it to "
                f"start as a new one",
                4,
            )
        return text

    def keep(self, name: str, text: str) -> None:
        """Make a file of the folder, once. Raises FolderError."""
        try:
            self._once(name, text)
        except OSError as error:
            raise _explained(error, self.path) from error

    def _once(self, name: str, text: str) -> None:
        """Make a file that isn't there, mode 0600, whole and durable or not at all."""
        path = self.path / name
        if path.exists():
            return
        aside = self.path / f".{name}.new"
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text.encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        aside.rename(path)
        folder = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _named(pid: int) -> str:
    return f"process {pid}" if pid else "a process that can't be seen from here"


def _explained(error: OSError, path: Path) -> FolderError:
    where = error.filename or path
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return FolderError(f"no space left for {where}: free some, or give another data folder (--data)", 5)
        case errno.EACCES | errno.EPERM:
            return FolderError(f"no permission for {where}: run as its owner, or give another data folder (--data)", 2)
        case errno.EROFS:
            return FolderError(f"{where} is on a read-only filesystem: give another data folder (--data)", 2)
        case _:
            return FolderError(f"{where}: {error.strerror}", 2)
