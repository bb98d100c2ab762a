"""Real parts that a test needs: missing, it is skipped on a laptop with the reason and fails where CI=true."""

import os
import shutil
import subprocess

import pytest


def missing(reason: str) -> None:
    """Skip, or fail in CI, because a real part isn't here."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has to bring this: {reason}")
    pytest.skip(reason)


def program(name: str) -> str:
    """The path of a program."""
    path = shutil.which(name)
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
