"""What the suites need, made once in the cache: a venv for each by its lock, the sources by their hashes."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LOCKS = HERE / "locks"


class Unavailable(Exception):
    """Something can't be installed here; says what and why."""


def cache() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corelog"
    return Path(os.environ.get("CORELOG_CACHE") or default)


def run(*command: str | Path) -> str:
    """What the command prints; Unavailable with its last words if it fails."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    except OSError as error:
        raise Unavailable(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        raise Unavailable(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def kept(name: str, made_of: Path, make: Callable[[Path], None]) -> Path:
    """The folder ``name`` of the cache, made anew when the file it is made of changes; whole or not there."""
    folder = cache() / "foreign" / f"{name}-{zlib.crc32(made_of.read_bytes()):08x}"
    if (folder / ".whole").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make(folder)
    (folder / ".whole").touch()
    return folder


def venv(suite: str) -> Path:
    """The Python of the suite's own venv (a venv can't be moved, so it is made in place)."""
    lock = LOCKS / f"{suite}.lock"

    def make(folder: Path) -> None:
        run(sys.executable, "-m", "venv", folder)
        pip: list[str | Path] = [
            folder / "bin/python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        run(*pip, "--require-hashes", "--requirement", lock)

    return kept(f"{suite}-py{sys.version_info[0]}.{sys.version_info[1]}", lock, make) / "bin/python"


def sources() -> Path:
    """A folder with the unpacked sdists of all suites."""
    lock = LOCKS / "sources.lock"

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as archives:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            run(*pip, "--no-binary", ":all:", "--require-hashes", "--requirement", lock, "--dest", archives)
            for archive in Path(archives).glob("*.tar.gz"):
                with tarfile.open(archive) as tar:
                    tar.extractall(folder, filter="data")

    return kept("sources", lock, make)


def etcd() -> Path:
    """The folder of the real etcds that ``deploy/etcd/build`` makes."""
    return Path(run(ROOT / "deploy/etcd/build").strip())
