"""What goes on until it is interrupted, on a real node: ``corelog log -f``, ``--watch``, and the stream of events."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.node.test_up import ROOT, RealNode, answering

UNIT = "[Service]\nExecStart=/bin/sleep 1000\n"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    with answering(tmp_path_factory.mktemp("following") / "data") as made:
        yield made


def command(node: RealNode, *words: str) -> list[str]:
    return [sys.executable, "-m", "node.cli.main", *words, "--data", str(node.data)]


def corelog(node: RealNode, *words: str) -> str:
    done = subprocess.run(command(node, *words), capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Following:
    """A command that goes on; what it prints stands in a file."""

    def __init__(self, node: RealNode, folder: Path, *words: str) -> None:
        self.node = node
        self.file = folder / "printed"
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CORELOG_")}
        with self.file.open("wb") as out:
            self.process = subprocess.Popen(command(node, *words), stdout=out, stderr=out, cwd=ROOT, env=clean)

    @property
    def printed(self) -> str:
        return self.file.read_text()

    def until(self, what: Callable[[str], object]) -> str:
        until_s = time.monotonic() + 45
        while not what(self.printed):
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < until_s, self.printed
            time.sleep(0.02)
        return self.printed


@pytest.fixture
def follow(node: RealNode, tmp_path: Path) -> Iterator[Callable[..., Following]]:
    started: list[Following] = []

    def begin(*words: str) -> Following:
        started.append(Following(node, tmp_path, *words))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()


def interrupted(one: Following) -> None:
    """Ctrl-C ends it, with the code for that and without a word."""
    before = one.printed
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(30) == 130
    assert one.printed == before


def test_log_f_lists_what_was_and_then_tells_what_comes_once_and_in_order(
    node: RealNode, follow: Callable[..., Following]
) -> None:
    for number in range(3):
        corelog(node, "kv", "set", f"/follow/{number}", "x")
    following = follow("log", "-f", "-n", "2", "--stream", "kv", "-o", "jsonl")
    following.until(lambda printed: len(printed.splitlines()) == 2)
    for number in range(3, 6):
        corelog(node, "kv", "set", f"/follow/{number}", "x")
    printed = following.until(lambda printed: "/follow/5" in printed)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["data"]["key"] for line in lines] == [f"/follow/{number}" for number in range(1, 6)]
    interrupted(following)


def test_log_f_is_narrowed_also_in_what_comes(node: RealNode, follow: Callable[..., Following]) -> None:
    following = follow("log", "--follow", "-n", "0", "--stream", "kv", "--subject", "/mine", "--color", "never")
    # nothing says that it listens yet: write until it has heard one
    heard = 0
    until_s = time.monotonic() + 45
    while not (heard := following.printed.count("/mine")):
        assert time.monotonic() < until_s
        corelog(node, "kv", "set", "/mine", "x")
        corelog(node, "kv", "set", "/other", "x")
    assert heard
    assert "/other" not in following.printed
    assert "kv.put" in following.printed
    interrupted(following)


def test_a_watched_list_of_units_is_printed_again_when_it_changes(
    node: RealNode, follow: Callable[..., Following], tmp_path: Path
) -> None:
    for name in ("first", "second"):
        (tmp_path / f"{name}.service").write_text(UNIT)
    watching = follow("unit", "list", "--watch", "-o", "jsonl")
    corelog(node, "unit", "submit", str(tmp_path / "first.service"))
    watching.until(lambda printed: "first.service" in printed)
    corelog(node, "unit", "destroy", "first.service")
    corelog(node, "unit", "submit", str(tmp_path / "second.service"))
    pictures = watching.until(lambda printed: "second.service" in printed).splitlines()
    assert json.loads(pictures[-1])["name"] == "second.service"
    # there is never more than one unit, so each line is a picture
    assert all(one != other for one, other in pairwise(pictures)), "what hasn't changed isn't printed again"
    corelog(node, "unit", "destroy", "second.service")
    interrupted(watching)


def test_a_watched_list_of_machines_shows_a_drain(node: RealNode, follow: Callable[..., Following]) -> None:
    watching = follow("machine", "list", "-w", "-o", "jsonl")
    first = json.loads(watching.until(lambda printed: printed.count("\n") == 1))
    corelog(node, "machine", "drain", first["id"])
    second = json.loads(watching.until(lambda printed: printed.count("\n") == 2).splitlines()[1])
    assert (first["drained"], second["drained"]) == (False, True)
    corelog(node, "machine", "undrain", first["id"])
    watching.until(lambda printed: printed.count("\n") == 3)
    interrupted(watching)


class Events:
    """Server-sent events over TCP, as a browser reads them."""

    def __init__(self, node: RealNode, query: str = "", last: str = "") -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", node.gateway, timeout=45)
        headers = {"accept": "text/event-stream", **({"last-event-id": last} if last else {})}
        self.connection.request("GET", f"/v1/log/stream{query}", headers=headers)
        self.response = self.connection.getresponse()

    def next(self) -> dict[str, str]:
        """The fields of the next event; comments are passed over."""
        fields: dict[str, str] = {}
        while True:
            line = self.response.readline().decode().rstrip("\r\n")
            if not line and fields:
                return fields
            name, colon, value = line.partition(":")
            if name and colon:
                fields[name] = value.removeprefix(" ")


def test_events_come_over_a_socket_and_go_on_where_they_broke_off(node: RealNode) -> None:
    events = Events(node, "?stream=kv")
    assert events.response.status == 200
    assert events.response.headers.get_content_type() == "text/event-stream"
    assert events.response.headers["cache-control"] == "no-store"
    seen = []
    for number in range(3):
        node.keys(f"/sse/{number}", "x")
        seen.append(events.next())
    assert [json.loads(event["data"])["data"]["key"] for event in seen] == ["/sse/0", "/sse/1", "/sse/2"]
    assert [event["event"] for event in seen] == [json.loads(event["data"])["type"] for event in seen]
    assert [event["id"] for event in seen] == [json.loads(event["data"])["position"] for event in seen]
    # the caller goes away in the middle, and misses two
    events.connection.close()
    node.keys("/sse/3", "x")
    node.keys("/sse/4", "x")
    again = Events(node, "?stream=kv", last=seen[1]["id"])
    keys = [json.loads(again.next()["data"])["data"]["key"] for _ in range(3)]
    assert keys == ["/sse/2", "/sse/3", "/sse/4"]
    again.connection.close()


def test_a_stream_that_can_not_be_resumed_is_a_problem_over_the_socket_too(node: RealNode) -> None:
    refused = Events(node, last="no-position")
    assert refused.response.status == 400
    told = json.loads(refused.response.read())
    assert (told["type"], told["parameter"]) == ("corelog:bad-position", "Last-Event-ID")
    refused.connection.close()
