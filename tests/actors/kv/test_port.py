"""The whole replica: watches, TTLs, a log that fails, restarts, and clients that others wrote."""

import asyncio
import contextlib
import http.client
import importlib.util
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.kv import commands
from actors.kv.decide import COUNT_S, SPARE, Countdowns
from actors.kv.rpc.maintenance import VERSION
from actors.kv.v2 import put
from actors.kv.v2.nodes import DEPTH_MAX
from actors.kv.v2.store import HISTORY_EVENTS, Store
from streams.events import kv as says
from streams.log.memory import MemoryLog
from streams.log.port import Log, LogUnavailable, OutcomeUnknown
from streams.log.segments import SegmentsLog
from streams.records import Record
from tests import needs
from tests.actors.kv.server import Client, Running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("kv")) as running:
        yield running


class Watching:
    """A wait in a thread; ``bodies`` as they come."""

    def __init__(self, port: int, path: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._connection.request("GET", "/v2/keys" + path)
        self.answer = self._connection.getresponse()  # the head comes at once
        self.index = int(self.answer.headers["X-Etcd-Index"])

    def lines(self, count: int) -> list[Any]:
        return [json.loads(self.answer.readline()) for _ in range(count)]

    def close(self) -> None:
        self.answer.close()
        self._connection.close()


def test_watchers_get_what_they_wait_for(server: Running) -> None:
    client = Client(server.port)
    exact = Watching(server.port, "/w/a?wait=true")
    below = Watching(server.port, "/w?wait=true&recursive=true")
    stream = Watching(server.port, "/w?wait=true&recursive=true&stream=true")
    client.ask("PUT", "/w/_hidden", "value=0")
    client.ask("PUT", "/w/b", "value=1")
    client.ask("PUT", "/w/b", "refresh=true&ttl=100")
    client.ask("PUT", "/w/a", "value=2")
    client.ask("DELETE", "/w?recursive=true")
    assert [line["node"]["key"] for line in exact.lines(1)] == ["/w/a"]
    assert [line["node"]["key"] for line in below.lines(1)] == ["/w/b"]
    assert [(line["action"], line["node"]["key"]) for line in stream.lines(3)] == [
        ("set", "/w/b"),
        ("set", "/w/a"),
        ("delete", "/w"),
    ]
    again = Watching(server.port, f"/w/a?wait=true&waitIndex={exact.index + 1}")
    assert again.lines(1)[0]["node"]["value"] == "2"
    for one in (exact, below, stream, again):
        one.close()
    client.close()


def test_deleting_a_directory_wakes_those_below_and_not_its_namesakes(server: Running) -> None:
    client = Client(server.port)
    client.ask("PUT", "/del/x/y", "value=1")
    inside = Watching(server.port, "/del/x/y?wait=true")
    beside = Watching(server.port, "/delta?wait=true")
    client.ask("DELETE", "/del?recursive=true")
    assert inside.lines(1)[0]["action"] == "delete"
    client.ask("PUT", "/delta", "value=1")
    assert beside.lines(1)[0]["action"] == "set"
    inside.close()
    beside.close()
    client.close()


def test_history_is_a_thousand_changes(server: Running) -> None:
    client = Client(server.port)
    first = client.ask("PUT", "/h", "value=0")[2]["node"]["modifiedIndex"]
    for n in range(HISTORY_EVENTS):
        client.ask("PUT", "/h", f"value={n}")
    status, _, body = client.ask("GET", f"/h?wait=true&waitIndex={first}")
    assert (status, body["errorCode"], body["cause"]) == (
        400,
        401,
        f"the requested history has been cleared [{first + 1}/{first}]",
    )
    assert client.ask("GET", f"/h?wait=true&waitIndex={first + 1}")[2]["node"]["value"] == "0"
    client.close()


def test_a_stream_under_churn_misses_nothing(server: Running) -> None:
    stream = Watching(server.port, "/churn?wait=true&recursive=true&stream=true")
    gone = [Watching(server.port, "/churn?wait=true&recursive=true&stream=true") for _ in range(20)]

    def write(worker: int) -> None:
        client = Client(server.port)
        for n in range(100):
            client.ask("PUT", f"/churn/{worker}/{n % 7}", f"value={n}")
        client.close()

    workers = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for watcher in gone:
        watcher.close()
    lines = stream.lines(400)
    for worker in workers:
        worker.join()
    indices = [line["node"]["modifiedIndex"] for line in lines]
    assert indices == sorted(set(indices))
    for worker in range(4):
        mine = [line["node"]["value"] for line in lines if line["node"]["key"].startswith(f"/churn/{worker}/")]
        assert mine == [str(n) for n in range(100)]
    stream.close()
    client = Client(server.port)
    for _ in range(200):  # the server notices a closed connection in its own time
        if server.call(lambda: server.kv_port.keys.hub.count) == 0:
            break
        time.sleep(0.01)
    assert server.call(lambda: server.kv_port.keys.hub.count) == 0
    client.close()


def test_a_ttl_ends_by_a_fact_of_the_master(server: Running) -> None:
    client = Client(server.port)
    client.ask("PUT", "/ttl/file", "value=1&ttl=1")
    client.ask("PUT", "/ttl/dir", "dir=true&ttl=1")
    client.ask("PUT", "/ttl/dir/in", "value=1&ttl=1000")
    client.ask("PUT", "/ttl/kept", "value=1&ttl=1")
    client.ask("PUT", "/ttl/kept", "prevExist=true&value=2&ttl=")
    stream = Watching(server.port, "/ttl?wait=true&recursive=true&stream=true")
    expired = stream.lines(2)
    assert sorted(line["node"]["key"] for line in expired) == ["/ttl/dir", "/ttl/file"]
    assert {line["action"] for line in expired} == {"expire"}
    assert [node["key"] for node in client.ask("GET", "/ttl")[2]["node"]["nodes"]] == ["/ttl/kept"]
    assert any(b'"kv.expired.v1"' in entry.raw and b'"term":' in entry.raw for entry in server.log.entries)
    stream.close()
    client.close()


def test_what_is_deeper_than_it_may_be_is_told_so(server: Running) -> None:
    client = Client(server.port)
    status, _, body = client.ask("PUT", "/d" * (DEPTH_MAX + 2), "value=1")
    assert (status, body["errorCode"]) == (400, 209)
    client.close()


def test_nothing_gets_deeper_one_level_at_a_time(server: Running) -> None:
    """Listings go down by recursion."""
    client, path = Client(server.port), ""
    for _ in range(DEPTH_MAX):
        path += "/e"
        assert client.ask("PUT", path, "dir=true")[0] == 201
    for method, key in (("PUT", path + "/e"), ("POST", path)):
        status, _, body = client.ask(method, key, "value=1")
        assert (status, body["errorCode"]) == (400, 209)
    assert client.ask("GET", "/e?recursive=true")[0] == 200
    client.close()


# -- countdowns ---------------------------------------------------------------------------------------------------


def _store(*sets: says.Set) -> Store:
    store = Store()
    for one in sets:
        put.put(store, one, 1000)
    return store


def test_countdowns_are_minimum_times_and_go_on_after_a_new_term() -> None:
    store = _store(says.Set("/a", "1", ttl_s=10), says.Set("/b", "1", ttl_s=5), says.Set("/c", "1"))
    countdowns = Countdowns()
    countdowns.restart(store, 100.0)
    assert countdowns.next_s(store) == 105.0
    assert countdowns.due(store, 104.9) == []
    assert [one.key for one in countdowns.due(store, 110.0)] == ["/b", "/a"]
    put.put(store, says.Set("/b", "2"), 1000)
    countdowns.touched(store, ["/b"], 106.0)
    assert [one.key for one in countdowns.due(store, 111.0)] == ["/a"]
    put.put(store, says.Set("/a", "2", ttl_s=10), 1000)
    countdowns.touched(store, ["/a"], 109.0)
    assert countdowns.due(store, 118.9) == []
    store.remove("/a")
    assert countdowns.due(store, 1000.0) == []
    assert countdowns.next_s(store) is None


def test_a_shorter_ttl_that_comes_later_runs_out_first() -> None:
    store = Store()
    countdowns = Countdowns()
    countdowns.restart(store, 0.0)
    for key, ttl_s in (("/long", 90), ("/middle", 60), ("/short", 30)):
        put.put(store, says.Set(key, "1", ttl_s=ttl_s), 1000)
        countdowns.touched(store, [key], 0.0)
        assert countdowns.next_s(store) == ttl_s
    assert [one.key for one in countdowns.due(store, 60.0)] == ["/short", "/middle"]


def test_a_ttl_that_is_set_anew_all_the_time_leaves_nothing_behind() -> None:
    store = _store(says.Set("/other", "1", ttl_s=3600))
    countdowns = Countdowns()
    countdowns.restart(store, 0.0)
    for second in range(1000):
        put.put(store, says.Set("/a", "1", ttl_s=86_400), second * 1000)
        countdowns.touched(store, ["/a"], float(second))
    assert len(countdowns._heap) <= 2 * 2 + SPARE
    assert [one.key for one in countdowns.due(store, 86_400.0 + 999)] == ["/other", "/a"]


def test_long_ttls_are_counted_so_that_a_new_term_goes_on() -> None:
    store = _store(says.Set("/long", "1", ttl_s=3600), says.Set("/short", "1", ttl_s=30))
    countdowns = Countdowns()
    countdowns.restart(store, 0.0)
    assert countdowns.counted(store, COUNT_S - 1) == []
    [left] = countdowns.counted(store, COUNT_S + 1)
    assert (left.key, left.left_ms) == ("/long", int((3600 - COUNT_S - 1) * 1000))
    store.ttls["/long"] = left.left_ms
    countdowns.restart(store, 10_000.0)
    assert countdowns._by_key["/long"].due_s == 10_000.0 + left.left_ms / 1000


# -- a log that fails ---------------------------------------------------------------------------------------------


class Faulty(MemoryLog):
    """Refuses, loses the answer of, or never answers appends of keys, as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.how = ""
        self.held = asyncio.Event()

    async def append(self, records: Sequence[Record]) -> list[int]:
        if self.how == "refuse":
            raise LogUnavailable("the brokers don't answer")
        if self.how == "hang":
            await self.held.wait()
        if self.how == "lose" and records[0].stream == "kv":
            self.how = ""
            await super().append(records)
            raise OutcomeUnknown("the answer was lost")
        return await super().append(records)


@pytest.mark.parametrize("path", ["/v2/keys/any?wait=true", "/v3/watch"])
def test_who_is_the_first_to_watch_is_told_at_once_of_what_others_write(
    server: Running, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    monkeypatch.setattr(server.shell, "calm", told.append)
    # what is applied, if only the master's sign of life, says so too
    monkeypatch.setattr(server.shell.host.actor, "on_changes", lambda _changes: None)
    body = json.dumps({"create_request": {"key": "YW55"}}) if path.startswith("/v3") else None
    for _ in range(2):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("POST" if body else "GET", path, body)
        answer = connection.getresponse()
        until = time.monotonic() + 5
        while not told and time.monotonic() < until:
            time.sleep(0.001)
        assert told == [False]
        answer.close()
        connection.close()
        while server.call(lambda: server.kv_port.keys.hub.count or server.kv_port.v3.is_watched):
            time.sleep(0.01)
        told.clear()


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(commands, "SWEEP_S", 0.02)
    monkeypatch.setattr(commands, "TIMEOUT_S", 0.3)

    async def make() -> Log:
        return Faulty()

    with Running(tmp_path, make) as running:
        yield running


def test_a_log_that_refuses_is_503_and_nothing_is_written(faulty: Running) -> None:
    client = Client(faulty.port)
    client.ask("PUT", "/a", "value=1")
    faulty.log.how = "refuse"
    status, _, body = client.ask("PUT", "/a", "value=2")
    assert (status, body["errorCode"]) == (503, 300)
    assert client.ask("GET", "/a?quorum=false")[2]["node"]["value"] == "1"
    faulty.log.how = ""
    assert client.ask("GET", "/a")[2]["node"]["value"] == "1"
    for _ in range(100):
        if client.ask("PUT", "/a", "value=3")[0] == 200:
            break
        time.sleep(0.02)
    assert client.ask("GET", "/a")[2]["node"]["value"] == "3"
    client.close()


def test_a_log_that_hangs_is_504_then_503_and_reads_go_on(faulty: Running) -> None:
    client = Client(faulty.port)
    client.ask("PUT", "/a", "value=1")
    faulty.log.how = "hang"
    status, _, body = client.ask("PUT", "/a", "value=2")
    assert (status, body["cause"].split(":")[0]) == (504, "outcome unknown")
    status, _, body = client.ask("PUT", "/a", "value=3")
    assert (status, body["cause"].split(":")[0]) == (503, "not sent")
    assert client.ask("GET", "/a?consistency=serializable")[2]["node"]["value"] == "1"
    faulty.log.how = ""
    faulty.call(faulty.log.held.set)
    for _ in range(100):
        if client.ask("PUT", "/b", "value=4")[0] == 201:
            break
        time.sleep(0.02)
    assert client.ask("GET", "/a")[2]["node"]["value"] == "2"  # it was applied after all
    client.close()


def test_a_lost_answer_is_found_on_the_log_and_watchers_hear_of_it(faulty: Running) -> None:
    client = Client(faulty.port)
    watching = Watching(faulty.port, "/a?wait=true")
    faulty.log.how = "lose"
    assert client.ask("PUT", "/a", "value=1")[0] == 201
    assert watching.lines(1)[0]["node"]["value"] == "1"
    watching.close()
    assert client.ask("GET", "/a")[2]["node"]["value"] == "1"
    client.close()


# -- segments, restarts, other people's clients ---------------------------------------------------------------------


def test_keys_outlive_the_process_on_segments(tmp_path: Path) -> None:
    async def make() -> Log:
        return await SegmentsLog.open(tmp_path / "log")

    with Running(tmp_path, make) as first:
        client = Client(first.port)
        client.ask("PUT", "/kept", "value=1")
        client.ask("PUT", "/gone", "value=1&ttl=1")
        client.ask("POST", "/queue", "value=x", {"Idempotency-Key": "once"})
        index = int(client.ask("GET", "/")[1]["x-etcd-index"])
        client.close()
    with Running(tmp_path, make) as second:
        client = Client(second.port)
        assert client.ask("GET", "/kept")[2]["node"]["value"] == "1"
        assert client.ask("POST", "/queue", "value=x", {"Idempotency-Key": "once"})[0] == 201
        assert len(client.ask("GET", "/queue")[2]["node"]["nodes"]) == 1
        for _ in range(400):
            if client.ask("GET", "/gone")[0] == 404:
                break
            time.sleep(0.01)
        assert client.ask("GET", "/gone")[0] == 404
        assert int(client.ask("GET", "/")[1]["x-etcd-index"]) == index + 1
        client.close()


def test_curl(server: Running) -> None:
    curl = needs.program("curl")
    url = f"http://127.0.0.1:{server.port}/v2/keys/curl"

    def run(*arguments: str) -> Any:
        done = subprocess.run([curl, "-sS", *arguments], capture_output=True, text=True, timeout=20, check=True)
        return json.loads(done.stdout)

    assert run(url, "-XPUT", "-d", "value=Hello world")["action"] == "set"
    assert run("-L", url)["node"]["value"] == "Hello world"
    assert run(url, "-XDELETE")["prevNode"]["value"] == "Hello world"
    assert run(url)["errorCode"] == 100


def test_python_etcd(server: Running) -> None:
    if importlib.util.find_spec("etcd") is None:
        needs.missing("python-etcd 0.4.5 isn't installed")
    etcd = importlib.import_module("etcd")
    client = etcd.Client(host="127.0.0.1", port=server.port)
    assert client.write("/pe/a", "1").newKey
    assert client.read("/pe/a").value == "1"
    assert client.write("/pe/a", "2", prevValue="1").value == "2"
    with pytest.raises(etcd.EtcdCompareFailed):
        client.write("/pe/a", "3", prevValue="1")
    created = client.write("/pe/q", "x", append=True)
    assert [child.key for child in client.read("/pe/q", recursive=True).children] == [created.key]
    assert client.version == VERSION
    assert client.machines == [f"http://127.0.0.1:{server.port}"]
    assert client.leader["clientURLs"] == client.machines
    watched: list[Any] = []
    waiter = threading.Thread(target=lambda: watched.append(client.watch("/pe/a", index=created.modifiedIndex + 1)))
    waiter.start()
    with contextlib.suppress(Exception):
        client.write("/pe/a", "4")
    waiter.join(10)
    assert watched[0].value == "4"
    client.delete("/pe", recursive=True, dir=True)
    with pytest.raises(etcd.EtcdKeyNotFound):
        client.read("/pe")
