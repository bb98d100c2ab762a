"""Clusters that find each other by a token: real etcds by our service, our nodes by ours and by real etcd's keys."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.acceptance.harness import CORELOG, ROOT, free_port, http, until
from tests.actors.kv.server import Running
from tests.cluster import parts
from tests.foreign import installs, servers

pytestmark = pytest.mark.timeout(600)


class Programs:
    """Processes of one test, ended with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.again: dict[str, Callable[[], None]] = {}

    def start(self, name: str, words: list[str], **env: str) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("ETCD", "CORELOG"))}
        with open(self.folder / f"{name}.log", "ab") as out:
            self.running[name] = subprocess.Popen(
                words,
                env={**clean, "PYTHONPATH": str(ROOT), **env},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def etcd(self, version: str, name: str, *words: str) -> str:
        """A real one's client URL."""
        client, peer = (f"http://127.0.0.1:{port}" for port in servers.free_ports(2))
        try:
            program = str(servers.program("etcd", version))
        except installs.Unavailable as error:
            needs.missing(str(error))
        given = ["--name", name, "--data-dir", str(self.folder / name)]
        given += ["--listen-client-urls", client, "--advertise-client-urls", client]
        given += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        self.start(name, [program, *given, "--log-level", "info", *words])
        return client

    def node(self, name: str, *words: str, **env: str) -> str:
        """One of ours, by `corelog up`: its client URL."""
        etcd = f"127.0.0.1:{free_port()}"
        given = ["--data", str(self.folder / name), "--name", name, "--etcd-listen", etcd, "--gateway-listen", "none"]
        command = [*CORELOG, "up", *given, "--engine", "docker=none", *words]
        self.start(name, command, **env)
        self.again[name] = lambda: self.start(name, command, **env)
        return f"http://{etcd}"

    def look(self) -> None:
        """All run. One of ours that could not reach its log is started again, as a service manager does."""
        for name, process in list(self.running.items()):
            code = process.poll()
            if code == 5 and name in self.again:
                self.again[name]()
            elif code is not None:
                raise AssertionError(f"{name} ended with {code}:\n{self.said(name)[-4000:]}")

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def ended(self, name: str) -> int:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.running[name].wait(60)
        raise AssertionError(f"{name} runs on:\n{self.said(name)}")

    def stop(self, name: str) -> None:
        self.running[name].send_signal(signal.SIGTERM)
        self.running[name].wait(30)

    def close(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        for process in self.running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    made = Programs(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[str]:
    """The URL of a node of ours, alone."""
    with Running(tmp_path / "discovery") as running:
        yield f"http://127.0.0.1:{running.port}"


def new(service: str, query: str) -> str:
    status, body = http(f"{service}/new?{query}")
    assert status == 200, body
    return body.decode()


def v2_members(client: str) -> set[str]:
    status, body = http(f"{client}/v2/members")
    return {member["name"] for member in json.loads(body)["members"]} if status == 200 else set()


def v3(client: str, call: str, **body: Any) -> Any:
    return json.loads(http(f"{client}/v3/{call}", "POST", json.dumps(body).encode())[1])


def is_cluster(programs: Programs, clients: list[str], members: set[str]) -> Callable[[], bool]:
    """Whether each knows the members, and takes a key that the last one has too."""

    def look() -> bool:
        programs.look()
        for client in clients:
            found = {member.get("name", "") for member in v3(client, "cluster/member/list").get("members", [])}
            if found != members or "header" not in v3(client, "kv/put", key="YQ==", value="Yg=="):
                return False
        return bool(v3(clients[-1], "kv/range", key="YQ==").get("kvs"))

    return look


@pytest.mark.parametrize("version", ["3.4", "3.5.1"])
def test_real_etcds_find_each_other_by_our_service(programs: Programs, ours: str, version: str) -> None:
    token = new(ours, "size=3")
    names = {"a", "b", "c"}
    clients = [programs.etcd(version, name, "--discovery", token) for name in sorted(names)]
    until(is_cluster(programs, clients, names), says="a cluster of three")
    programs.etcd(version, "d", "--discovery", token, "--discovery-fallback", "exit")
    assert programs.ended("d") != 0
    assert "discovery: cluster is full" in programs.said("d")
    http(f"{ours}/{token.rpartition('/')[2]}/_config/size")


@pytest.mark.parametrize("version", ["3.7"])
def test_real_etcds_find_each_other_by_v3s_discovery_on_our_keys(programs: Programs, ours: str, version: str) -> None:
    token = os.urandom(8).hex()
    folder = f"/_etcd/registry/{token}"
    ctl = [str(servers.program("etcdctl", version)), "--endpoints", ours]
    subprocess.run([*ctl, "put", f"{folder}/_config/size", "3"], check=True, timeout=60, stdout=subprocess.DEVNULL)
    words = ["--discovery-token", token, "--discovery-endpoints", ours]
    names = {"a", "b", "c"}
    clients = [programs.etcd(version, name, *words) for name in sorted(names)]
    until(is_cluster(programs, clients, names), says="a cluster of three")
    programs.etcd(version, "d", *words)
    assert programs.ended("d") != 0
    assert "discovery: cluster is full" in programs.said("d")


@pytest.fixture
def old_etcd(programs: Programs) -> str:
    """A real etcd 3.4 with v2's keys."""
    client = programs.etcd("3.4", "old", "--enable-v2=true")
    until(lambda: servers.healthy(client), says="etcd 3.4")
    return client


def _three(programs: Programs, token: str, log: str) -> list[str]:
    """Our nodes a, b and c by a token; then what becomes of a fourth, and of one that starts again."""
    names = ["a", "b", "c"]
    clients = [programs.node(name, "--discovery", token) for name in names]
    started = ["old"] if "old" in programs.running else []
    assert set(programs.running) == {*names, *started}
    until(is_cluster(programs, clients, set(names)), says="a cluster of three", timeout_s=240)
    found = json.loads((programs.folder / "a" / "discovered").read_text())
    assert found["log"] == log
    assert {one.partition("=")[0] for one in found["members"]} == set(names)
    return clients


def test_our_nodes_find_each_other_and_their_log_by_our_service(programs: Programs, ours: str) -> None:
    log = parts.address(parts.brokers(1).bootstrap)
    token = new(ours, f"size=3&log={log}")
    clients = _three(programs, token, log)

    programs.node("late", "--discovery", token, "--discovery-fallback", "exit")
    assert programs.ended("late") == 1
    assert programs.said("late").splitlines()[-1] == "corelog: discovery: cluster is full"

    proxy = programs.node("proxy", "--discovery", token)  # serves clients, and is no member
    programs.running.pop("late")
    until(lambda: v3(proxy, "kv/range", key="YQ==").get("kvs"), says="the proxy's answer")
    until(is_cluster(programs, [proxy], {"a", "b", "c"}), says="the three as the proxy's members", timeout_s=240)

    programs.stop("a")  # by its folder it belongs to its log: the token isn't asked again
    again = programs.node("a", "--discovery", "http://127.0.0.1:9/" + "0" * 32)
    until(is_cluster(programs, [again, *clients[1:]], {"a", "b", "c"}), says="the first one again")


def test_our_nodes_find_each_other_by_keys_of_real_etcd(programs: Programs, old_etcd: str) -> None:
    log = parts.address(parts.brokers(1).bootstrap)
    folder = f"{old_etcd}/v2/keys/_etcd/registry/{'5' * 32}"
    form = {"content_type": "application/x-www-form-urlencoded"}
    assert http(f"{folder}/_config/log", "PUT", f"value={log}".encode(), **form)[0] == 201
    assert http(f"{folder}/_config/size", "PUT", b"value=3", **form)[0] == 201
    _three(programs, folder, log)


def test_our_service_stands_before_real_etcd_too(programs: Programs, old_etcd: str) -> None:
    service = f"http://127.0.0.1:{free_port()}"
    words = ["--listen", service.removeprefix("http://"), "--etcd", "http://127.0.0.1:9", "--etcd", old_etcd]
    programs.start("service", [*CORELOG, "discovery", "serve", *words])
    until(lambda: http(f"{service}/health") == (200, b"OK"), says="the service")
    assert http(f"{service}/new?size=x") == (400, b'strconv.Atoi: parsing "x": invalid syntax\n')
    token = new(service, "size=3&log=kafka://h:9")
    assert token.startswith(service)
    status, body = http(f"{token}/_config/log")
    assert (status, json.loads(body)["node"]["value"]) == (200, "kafka://h:9")
    assert http(f"{token}/_config/size", "PUT", b"value=1")[0] == 405
    clients = [programs.etcd("3.5.1", name, "--discovery", token) for name in ("x", "y", "z")]
    until(is_cluster(programs, clients, {"x", "y", "z"}), says="a cluster of three")
    registered = json.loads(http(token)[1])["node"]
    assert registered["key"] == f"/_etcd/registry/{token.rpartition('/')[2]}"
    assert {one["value"].partition("=")[0] for one in registered["nodes"]} == {"x", "y", "z"}
    programs.stop("old")
    assert http(token)[0] == 502


def test_without_a_log_there_is_nothing_to_share(programs: Programs, ours: str) -> None:
    token = new(ours, "size=3")
    programs.node("a", "--discovery", token)
    assert programs.ended("a") == 2
    assert "a cluster of 3 needs one log, and the token names none: say --log kafka://" in programs.said("a")
    assert "nodes" not in json.loads(http(token)[1])["node"]  # it didn't take a place
    with_log = new(ours, "size=3&log=kafka://one:9")
    programs.node("b", "--discovery", with_log, "--log", "kafka://other:9")
    assert programs.ended("b") == 2
    assert "the token names the log kafka://one:9, --log another one (kafka://other:9)" in programs.said("b")


def test_what_is_wrong_with_a_token_is_told_in_etcds_words(programs: Programs, ours: str) -> None:
    nobody = f"{ours}/{'0' * 32}"
    bad = f"{ours}/{'1' * 32}"
    form = {"content_type": "application/x-www-form-urlencoded"}
    http(f"{ours}/v2/keys/_etcd/registry/{'1' * 32}/_config/size", "PUT", b"value=many", **form)
    twice = new(ours, "size=2&log=kafka://127.0.0.1:9")
    http(f"{twice}/77", "PUT", b"value=twin%3Dhttp%3A%2F%2F127.0.0.1%3A2380", **form)
    for name, words, code, said in (
        ("one", ["--discovery", nobody], 1, "discovery: size key not found"),
        ("two", ["--discovery", bad], 1, "discovery: size key is bad"),
        ("twin", ["--discovery", twice], 1, "discovery: found duplicate name"),
        ("four", ["--discovery", f"{ours}/version"], 1, "discovery: bad discovery endpoint"),
        ("five", ["--discovery", "ftp://h/T"], 2, "discovery: invalid URL"),
    ):
        programs.node(name, *words)
        assert programs.ended(name) == code, programs.said(name)
        assert said in programs.said(name).splitlines()[-1]


def test_alone_by_a_token_of_one(programs: Programs, ours: str) -> None:
    """`corelog etcd` by ETCD_DISCOVERY, with a name that stands there already under another id refused."""
    etcd = f"http://127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "node.cli.main", "etcd", "--data-dir", str(programs.folder / "n")]
    programs.start("n", [*words, "--name", "n", "--listen-client-urls", etcd], ETCD_DISCOVERY=new(ours, "size=1"))
    until(is_cluster(programs, [etcd], {"n"}), says="a node")
    began = time.monotonic()
    clash = ["--initial-cluster", "n=http://127.0.0.1:1", "--discovery", new(ours, "size=1")]
    programs.start("clash", [*words[:-1], str(programs.folder / "m"), *clash])
    assert programs.ended("clash") == 2
    assert "multiple discovery or bootstrap flags are set" in programs.said("clash")
    assert time.monotonic() - began < 60
