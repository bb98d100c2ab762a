"""Real parts that a test needs: missing, it is skipped on a laptop with the reason and fails where CI=true."""

import os
import shutil
import subprocess
import sys

import pytest


def missing(reason: str) -> None:
    """Skip, or fail in CI, because a real part isn't here."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has to bring this: {reason}")
    pytest.skip(reason)


def elsewhere(name: str) -> str | None:
    """A program's path, but not in this project's own environment: its ``etcd`` is corelog, no peer to compare with."""
    own = os.path.realpath(os.path.join(sys.prefix, "bin"))
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return shutil.which(name, path=os.pathsep.join(one for one in folders if os.path.realpath(one) != own))


def program(name: str) -> str:
    """The path of a program."""
    path = elsewhere(name) or (None if name == "etcd" else shutil.which(name))
    if path is None:
        missing(f"the program {name} is not installed")
    return path or ""


def root() -> None:
    """The rights to mount."""
    if os.geteuid() != 0:
        missing("only root can mount")


def docker() -> str:
    """The socket of a dockerd that answers."""
    program("docker")
    socket = "/var/run/docker.sock"
    done = subprocess.run(["docker", "--host", f"unix://{socket}", "info"], capture_output=True, check=False)
    if done.returncode:
        missing("no dockerd answers; start one with `deploy/images/dockerd start`")
    return socket
