"""A node as a user runs it: ``corelog up`` in a process group of its own, and the commands that speak to it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from deploy.kafka.brokers import free_port as free_port

ROOT = Path(__file__).parents[2]
CORELOG = [sys.executable, "-m", "node.cli.main"]


def until(what: Callable[[], Any], *, timeout_s: float = 60, every_s: float = 0.05, says: str = "") -> Any:
    """The first true value of ``what()``; fails with the last one after a generous time."""
    end = time.monotonic() + timeout_s
    last: Any = None
    while time.monotonic() < end:
        with contextlib.suppress(URLError, OSError, KeyError):
            last = what()
            if last:
                return last
        time.sleep(every_s)
    raise AssertionError(f"{says or what} didn't come within {timeout_s} s; last: {last!r}")


class Result:
    """What a command printed and how it ended."""

    def __init__(self, done: "subprocess.CompletedProcess[str]") -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


class Node:
    """``corelog up`` on a data folder. ``options``: further flags."""

    def __init__(self, folder: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.options = options
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        self.etcd, self.gateway = free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.output = folder.with_name(folder.name + ".out")

    def start(self, wait: bool = True) -> "Node":
        command = [
            *CORELOG,
            "up",
            "--data",
            str(self.folder),
            "--etcd-listen",
            f"127.0.0.1:{self.etcd}",
            "--gateway-listen",
            f"127.0.0.1:{self.gateway}",
            *self.options,
        ]
        with open(self.output, "ab") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=self.env, start_new_session=True
            )
        if wait:
            self.wait()
        return self

    def wait(self) -> None:
        def healthy() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"corelog up ended with {self.process.returncode}:\n{self.output.read_text()}")
            return self.http("GET", "/health")[0] == 200 and self.kv("GET", "/health")[0] == 200

        try:
            until(healthy, says="a healthy node")
        except AssertionError as error:
            raise AssertionError(f"{error}; it said:\n{self.output.read_text()}") from error

    def kill(self) -> None:
        """SIGKILL to the whole process group, as a person does with kill -9 -PGID."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        # its actors die with their parents, a moment later: the next start must not take their answers for its own
        until(lambda: not _listens(self.gateway) and not _listens(self.etcd), says="the ports given up")

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def run(self, *args: str, code: int | None = 0, stdin: str | None = None) -> Result:
        done = subprocess.run(
            [*CORELOG, *args, "--data", str(self.folder)],
            capture_output=True,
            text=True,
            env=self.env,
            input=stdin,
            timeout=120,
            check=False,
        )
        result = Result(done)
        assert code is None or result.code == code, f"corelog {' '.join(args)}: {result!r}"
        return result

    def http(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        return http(f"http://127.0.0.1:{self.gateway}{path}", method, body, **headers)

    def kv(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        return http(
            f"http://127.0.0.1:{self.etcd}{path}",
            method,
            body,
            **({"content-type": "application/x-www-form-urlencoded"} if body else {}),
        )

    def unit(self, name: str) -> Any:
        return json.loads(self.http("GET", f"/v1/units/{name}")[1])

    def destroy_all(self) -> None:
        """Leave nothing running: destroy the units, then stop."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        try:
            for unit in json.loads(self.http("GET", "/v1/units")[1]):
                self.run("unit", "destroy", unit["name"], code=None)
        finally:
            self.stop()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def http(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and body; an HTTP error is an answer too."""
    request = Request(url, body, {name.replace("_", "-"): value for name, value in headers.items()}, method=method)
    try:
        with urlopen(request, timeout=15) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()
