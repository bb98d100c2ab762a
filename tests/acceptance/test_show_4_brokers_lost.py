"""Show 4: one broker is killed, then two; what is refused is refused in so many words, and nothing is lost."""

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.acceptance.beats import beats, submit
from tests.acceptance.compose import BROKERS, NODES, Cluster
from tests.acceptance.harness import http, until

pytestmark = [pytest.mark.acceptance, pytest.mark.docker]

OK, UNREACHABLE, UNKNOWN = 0, 5, 6
UNIT = "through-outage"


class Written(NamedTuple):
    """One ``corelog kv set``: each has a key of its own, so that what was refused can be looked for."""

    key: str
    code: int
    said: str


class Writers:
    """A person at each node, who sets one key after another."""

    def __init__(self, cluster: Cluster, story: str) -> None:
        self.done: list[Written] = []
        #: no key of an earlier run on a cluster that was found is taken for one of these
        self.story = f"{story}-{secrets.token_hex(4)}"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(cluster, node)) for node in NODES]

    def _write(self, cluster: Cluster, node: str) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            key = f"/{self.story}/{node}-{number}"
            result = cluster.run(node, "kv", "set", key, "kept", code=None)
            self.done.append(Written(key, result.code, result.err))

    def __enter__(self) -> "Writers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def codes(self, since: int = 0) -> list[int]:
        return [one.code for one in self.done[since:]]


@contextlib.contextmanager
def without(cluster: Cluster, brokers: tuple[str, ...]) -> Iterator[None]:
    """docker kill of brokers, then docker start."""
    for broker in brokers:
        cluster.kill(broker)
    try:
        yield
    finally:
        for broker in brokers:
            cluster.start(broker)


@pytest.fixture(scope="module")
def unit(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    cluster.healthy()
    submit(cluster, "node1", tmp_path_factory.mktemp("units"), UNIT, fenced=False)
    yield UNIT
    cluster.healthy()
    cluster.run("node1", "unit", "destroy", UNIT)


@pytest.mark.timeout(900)
def test_writes_go_on_without_one_broker(cluster: Cluster, unit: str) -> None:
    leader = _leader(cluster)
    before = cluster.seen("node1", "/v1/cluster")["term"]
    with Writers(cluster, "one") as writers:
        until(lambda: writers.codes().count(OK) >= 3, says="writes")
        with without(cluster, (leader,)):
            since, killed_s = len(writers.done), time.monotonic()
            until(lambda: writers.codes(since).count(OK) >= 6, timeout_s=90, says="writes without a broker")
            print(f"\n{leader}, which led the log, killed: writes went on after {time.monotonic() - killed_s:.1f} s")
    print(f"terms: {before} -> {cluster.seen('node1', '/v1/cluster')['term']}; exit codes {_counts(writers)}")
    cluster.healthy()
    _nothing_is_lost(cluster, writers)


@pytest.mark.timeout(900)
def test_without_two_brokers_writes_are_unknown_then_refused_and_reads_go_on(cluster: Cluster, unit: str) -> None:
    cluster.run("node2", "kv", "set", "/two/before", "here")
    leader = _leader(cluster)
    other = next(broker for broker in BROKERS if broker != leader)
    with Writers(cluster, "two") as writers:
        until(lambda: writers.codes().count(OK) >= 3, says="writes")
        with without(cluster, (leader, other)):
            until(lambda: UNKNOWN in writers.codes(), timeout_s=60, says="a write in flight that ends with 6")
            until(lambda: writers.codes()[-6:] == [UNREACHABLE] * 6, timeout_s=90, says="refusals with 5")
            refused = writers.done[-1]
            assert "nothing was" in refused.said, refused
            _reads_go_on(cluster)
            _unit_runs_on(cluster, unit)
        until(lambda: writers.codes()[-3:] == [OK] * 3, timeout_s=300, says="writes after the brokers' return")
    print(f"\n{leader} and {other} killed: exit codes {_counts(writers)}")
    cluster.healthy()
    _nothing_is_lost(cluster, writers)


def _leader(cluster: Cluster) -> str:
    """The broker that leads the log's one partition."""
    from confluent_kafka.admin import AdminClient

    found = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0}).list_topics("corelog", timeout=10)
    return f"kafka{found.topics['corelog'].partitions[0].leader}"


def _reads_go_on(cluster: Cluster) -> None:
    """What a node has applied it still tells to who asks for no more; a read of the newest ends with 5."""
    for node in NODES:
        assert cluster.run(node, "kv", "get", "/two/before", "--serializable").out == "here\n"
        assert cluster.run(node, "cluster", "status", "--serializable", "-o", "json").json["machines"] == 3
        url = f"http://{cluster.gateway(node)}/v1/units/{UNIT}.service?consistency=serializable"
        assert http(url)[0] == 200
    cluster.run("node1", "kv", "get", "/two/before", code=UNREACHABLE)


def _unit_runs_on(cluster: Cluster, name: str) -> None:
    last = beats(cluster, name)[-1]
    count = len(beats(cluster, name))
    until(lambda: len(beats(cluster, name)) > count + 10, says="a unit that runs on without the log")
    assert {(one.machine, one.fence) for one in beats(cluster, name)[count:]} == {(last.machine, last.fence)}


def _nothing_is_lost(cluster: Cluster, writers: Writers) -> None:
    """Each acknowledged write is there on each node; each that was refused unsent is not, anywhere."""
    for node in NODES:
        rows = cluster.run(node, "kv", "ls", f"/{writers.story}", "-o", "json").json
        there = {row["key"] for row in rows}
        assert {one.key for one in writers.done if one.code == OK} <= there
        assert not {one.key for one in writers.done if one.code == UNREACHABLE} & there
    assert set(writers.codes()) <= {OK, UNREACHABLE, UNKNOWN}, writers.done


def _counts(writers: Writers) -> dict[int, int]:
    return {code: writers.codes().count(code) for code in sorted(set(writers.codes()))}
