"""A walk: a list of etcdctl's commands, run against two clusters; what they print is compared, masked.

    python -m tests.foreign.walk 3.5.1 v3 http://127.0.0.1:2379 http://127.0.0.1:12379
    python -m tests.foreign.walk real          each etcdctl by real etcd against real etcd

A line of a walk (``tests/foreign/walks/*.walk``), in this order, all but the command optional:
    3.5+ or 3.4-            only by an etcdctl of this version or newer, or older
    'text' |                standard input, with Python's escapes
    NAME=                   keep the first id (v2: the modified index) that is printed as $NAME
    &                       leave it running; ``END n`` later interrupts it once it has printed n lines
    command and flags       $NAME, $ENDPOINT (the first), $FOLDER (an empty one), $SPARE (another cluster) stand for
                            what they name; @7 is the revision that is 7 in a store that was empty at the start
and besides: ``SAY 'text'`` to what was left running, ``ENV NAME=value``, ``WAIT seconds``.
"""

import ast
import contextlib
import difflib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

from tests.foreign import emptied, masks, servers

WALKS = Path(__file__).parent / "walks"
TIMEOUT_S = 40.0
_LINE = re.compile(
    r"(?:(?P<version>\d\.\d)(?P<side>[+-]) )?(?:(?P<stdin>'(?:[^'\\]|\\.)*') \| )?"
    r"(?:(?P<keep>[a-z]\w*)= )?(?P<behind>& )?(?P<command>.*)"
)
_ID = re.compile(r"\b[0-9a-f]{13,16}\b")
_MODIFIED = re.compile(r"Modified-Index: (\d+)")


@dataclass(frozen=True)
class Step:
    """One line of a walk."""

    line: int
    command: str
    stdin: str = ""
    keep: str = ""
    behind: bool = False


@dataclass(frozen=True)
class Seen:
    """What a step printed, masked."""

    step: Step
    text: str


def steps(walk: str, version: str) -> list[Step]:
    """The lines of a walk that an etcdctl of this version takes."""
    found = []
    mine = _version(version)
    for number, line in enumerate((WALKS / f"{walk}.walk").read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = _LINE.fullmatch(line.strip())
        assert parts, line
        if parts["version"]:
            bound = _version(parts["version"])
            if (mine < bound) if parts["side"] == "+" else (mine > bound):
                continue
        stdin = ast.literal_eval(parts["stdin"]) if parts["stdin"] else ""
        found.append(Step(number, parts["command"], stdin, parts["keep"] or "", bool(parts["behind"])))
    return found


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


class _Behind:
    """A command left running, whose lines are counted as they come."""

    def __init__(self, step: Step, process: "subprocess.Popen[str]") -> None:
        self.step, self.process = step, process
        self.lines: list[str] = []
        self.errors = ""
        self._readers = [threading.Thread(target=read) for read in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors = self.process.stderr.read()

    def say(self, text: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()
        return ""

    def end(self, lines: int, timeout_s: float = 15) -> str:
        until = time.monotonic() + timeout_s
        while len(self.lines) < lines and time.monotonic() < until and self.process.poll() is None:
            time.sleep(0.02)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return f"{''.join(self.lines)}--- {self.errors}"


class Where(NamedTuple):
    """A cluster to walk: its endpoints and an endpoint of a spare one; ``behind``: one of its own, if a proxy is asked.

    Endpoints are URLs, with commas between.
    """

    endpoints: str
    spare: str = ""
    behind: str = ""


class Session:
    """A walk's commands against one cluster."""

    def __init__(self, version: str, api: str, where: Where) -> None:
        self.ctl, self.api, self.endpoints = servers.program("etcdctl", version), api, where.endpoints
        self.folder = tempfile.TemporaryDirectory(prefix="corelog-walk-")
        endpoint = where.behind or where.endpoints.partition(",")[0]
        self.names = {
            "ENDPOINT": where.endpoints.partition(",")[0],
            "FOLDER": self.folder.name,
            "SPARE": where.spare.removeprefix("http://"),
        }
        self.members = emptied.names(endpoint)
        if where.behind:  # a proxy tells of one member, by its machine's name
            self.members = [*self.members, socket.gethostname()]
        self.base = emptied.revisions(endpoint)[0] - 1 if api == "v3" else 0
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL")}
        # passwords are slow to check, on a busy machine slower than the five seconds that it waits by itself
        self.env = {**clean, "ETCDCTL_COMMAND_TIMEOUT": "30s"} if api == "v3" else clean
        if version == "3.4":  # newer ones warn of it at each command
            self.env = {**self.env, "ETCDCTL_API": api[1:]}
        self.first = _index(endpoint) if api == "v2" else 0
        self.behind: list[_Behind] = []

    def run(self, walk: list[Step]) -> list[Seen]:
        try:
            return [Seen(step, self._masked(step, self._said(step))) for step in walk]
        finally:
            for left in self.behind:
                left.process.kill()
                left.end(0)
            self.folder.cleanup()

    def _said(self, step: Step) -> str:
        word, _, rest = step.command.partition(" ")
        if word == "WAIT":
            time.sleep(float(rest))
            return ""
        if word == "ENV":
            name, _, value = rest.partition("=")
            self.env[name] = value
            return ""
        if word == "END":
            return self.behind.pop().end(int(rest or 0))
        if word == "SAY":
            return self.behind[-1].say(ast.literal_eval(rest))
        return self._ask(step)

    def _ask(self, step: Step) -> str:
        command = re.sub(r"\$(\w+)", lambda name: self.names.get(name[1], name[0]), step.command)
        command, stdin = self._rebased(command), self._rebased(step.stdin)
        # a token is good at another member only once that one has applied it: etcd's clients see it refused, or not
        endpoints = self.names["ENDPOINT"] if "--user" in command else self.endpoints
        where = [] if "--endpoints" in command else [f"--endpoints={endpoints}"]
        process = subprocess.Popen(
            [str(self.ctl), *where, *shlex.split(command)],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
        if step.behind:
            self.behind.append(_Behind(step, process))
            return self.behind[-1].say(stdin)
        try:
            out, errors = process.communicate(stdin, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
            errors += f"\nnot done after {TIMEOUT_S:g} s"
        if step.keep:
            found = (_MODIFIED if self.api == "v2" else _ID).findall(out)
            self.names[step.keep] = found[0] if found else f"no-{step.keep}"
        if "protobuf" in step.command:
            out = masks.message(out.encode("utf-8", "surrogateescape"))
        return f"{out}--- {errors}exit {process.returncode}"

    def _rebased(self, text: str) -> str:
        return re.sub(r"@(\d+)", lambda number: str(self.base + int(number[1])), text)

    def _masked(self, step: Step, said: str) -> str:
        addresses = {self.folder.name: "<folder>"}
        for endpoint in self.endpoints.split(","):
            addresses |= {endpoint: "<endpoint>", endpoint.removeprefix("http://"): "<endpoint>"}
        if self.names["SPARE"]:
            addresses[self.names["SPARE"]] = "<spare>"
        if self.api == "v2":
            said = masks.rebased(said, self.first)
            if "-with-index" in step.command:
                said = masks.unequal(said)
        said = masks.masked(said, addresses, status=bool(re.search("(endpoint|snapshot) status", step.command)))
        said = emptied.named(said, self.members)
        if re.search(r"\bmember\b", step.command):
            # what members have for each other is the log: theirs are their clients' addresses, if none was told
            said = said.replace("<endpoint>", "<address>")
        # of several endpoints it is chance which one leads, or answers first
        kinds = r"\bls\b|\bmember (list|add)|\bendpoint (status|health)"
        listing = re.search(kinds, step.command) and "--sort" not in step.command
        return masks.unordered(said) if listing else said


def _index(endpoint: str) -> int:
    with urlopen(Request(f"{endpoint}/v2/keys/"), timeout=10) as answer:
        return int(answer.headers["X-Etcd-Index"])


def both(version: str, walk: str, one: Where, other: Where) -> list[tuple[Seen, Seen]]:
    """Walk against two clusters at once."""
    todo = steps(walk, version)
    api = walk[:2]
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(Session(version, api, where).run, todo) for where in (one, other)]
        return list(zip(runs[0].result(), runs[1].result(), strict=True))


def differences(pairs: list[tuple[Seen, Seen]]) -> list[str]:
    """Each step that printed two things, with both."""
    told = []
    for one, other in pairs:
        if one.text != other.text:
            lines = difflib.unified_diff(
                one.text.splitlines(), other.text.splitlines(), "one", "other", lineterm="", n=1
            )
            told.append("\n".join([f"line {one.step.line}: {one.step.command}", *lines]))
    return told


def real(version: str, walk: str, server: str) -> tuple[int, list[str]]:
    """Steps and differences of real etcd against real etcd."""
    with contextlib.ExitStack() as stack:
        one, other, spare, another = (stack.enter_context(servers.Etcd(server)) for _ in range(4))
        pairs = both(version, walk, Where(one.endpoint, spare.endpoint), Where(other.endpoint, another.endpoint))
    return len(pairs), differences(pairs)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["real"]:
        for version, walk, server in (
            ("3.4", "v2", "3.4"),
            ("3.4", "v3", "3.7"),
            ("3.5.1", "v3", "3.7"),
            ("3.7", "v3", "3.7"),
        ):
            count, told = real(version, walk, server)
            print(
                f"etcdctl {version} {walk} on etcd {server}: {count} steps, {len(told)} differ",
                *told,
                sep="\n",
                flush=True,
            )
        return
    if arguments[:1] == ["show"]:
        _, version, walk, server = arguments
        with servers.Etcd(server) as one, servers.Etcd(server) as spare:
            where = Where(one.endpoint, spare.endpoint)
            for seen in Session(version, walk[:2], where).run(steps(walk, version)):
                print(f"{seen.step.line}$ {seen.step.command}\n{seen.text}")
        return
    version, walk, one_at, other_at = arguments
    print(*differences(both(version, walk, Where(one_at), Where(other_at))), sep="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
