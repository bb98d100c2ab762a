"""Policies of prefixes as clients meet them: gRPC's codes and words, compacted histories, rates, pages and metrics."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kv import prefixes
from actors.kv.autocompact import NOTES
from actors.kv.prefixes import PrefixCompactor
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.rpc import v3
from actors.kv.rpc.rates import Rates
from actors.kv.v3.errors import V3Error
from actors.kv.v3.store import Store
from actors.setting import Etcd
from node.cli.client import UnixConnection
from streams.events import kv3 as says
from streams.events.base import say
from tests.actors.kv.server import Client, Running
from tests.actors.kv.test_serving import Grpc, client, enabled, refused

FULL = grpc.StatusCode.RESOURCE_EXHAUSTED, 'mvcc: database space exceeded: keys that begin with "a/" may have 400 bytes'
COMPACTED = grpc.StatusCode.OUT_OF_RANGE, "required revision has been compacted"


def asked(server: Running, method: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """The page of policies on the node's own socket."""
    connection = UnixConnection(str(server.folder / "run" / "kv.sock"), 10)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, "/internal/policies", raw if body is not None else None, headers or {})
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    return answer.status, told


def limited(server: Running, prefix: str, **limits: Any) -> None:
    status, told = asked(server, "POST", {"set": {"prefix": prefix, **limits}})
    assert status == 200, told


def until(reached: Callable[[], Any], timeout_s: float = 20.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_a_full_prefix_refuses_in_etcds_words_and_names_itself(tmp_path: Path) -> None:
    with Running(tmp_path) as server, client(server) as etcd:
        etcd.put(b"a/1", b"v" * 200)
        limited(server, "a/", max_bytes=400)
        refused(*FULL, etcd.put, b"a/2", b"v" * 200)
        txn = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=b"a/2", value=b"v" * 200))])
        refused(*FULL, etcd.ask, "KV/Txn", txn, pb.TxnResponse)
        page = Client(server.port)
        status, _, raw = page.raw("POST", "/v3/kv/put", b'{"key":"YS8y","value":"%s"}' % (b"dnZ2" * 60))
        assert (status, json.loads(raw)["code"]) == (429, 8)
        assert "space exceeded" in json.loads(raw)["message"]
        # the alarm is of the whole store: a full prefix raises none, and nobody else is touched
        assert not etcd.ask("Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse).alarms
        etcd.put(b"b", b"v" * 9999)
        listed = asked(server, "GET")[1]["policies"]
        assert [(row["prefix"], row["live_bytes"], row["max_bytes"]) for row in listed] == [("a/", 267, 400)]
        text = page.raw("GET", "/metrics")[2].decode()
        assert 'corelog_kv_prefix_live_bytes{prefix="a/"} 267.0' in text
        assert 'corelog_kv_prefix_max_bytes{prefix="a/"} 400.0' in text
        etcd.ask("KV/DeleteRange", pb.DeleteRangeRequest(key=b"a/1"), pb.DeleteRangeResponse)
        etcd.put(b"a/2", b"v" * 200)
        assert asked(server, "POST", {"remove": {"prefix": "a/"}})[0] == 200
        etcd.put(b"a/3", b"v" * 9999)
        assert b"corelog_kv_prefix" not in page.raw("GET", "/metrics")[2]
        page.close()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "truncated"),
        (b"\xff", 400, ""),
        ([], 400, "object"),
        ({}, 400, "set or remove"),
        ({"set": {"prefix": "a", "max_bytes": 1}, "remove": {"prefix": "a"}}, 400, "set or remove"),
        ({"set": {"prefix": "a", "max_bites": 1}}, 400, "max_bites"),
        ({"set": {"prefix": 7, "max_bytes": 1}}, 400, "prefix"),
        ({"set": {"prefix": "a", "max_bytes": "1"}}, 400, "max_bytes"),
        ({"set": {"prefix": "a", "max_bytes": -1}}, 400, "max_bytes is -1"),
        ({"set": {"prefix": "a"}}, 400, "limits something"),
        ({"remove": {"prefix": "a"}}, 404, "no policy"),
    ],
)
def test_what_is_no_policy_is_refused_by_name(serving: Running, body: Any, status: int, words: str) -> None:
    got, told = asked(serving, "POST", body)
    assert got == status
    assert words in told["message"]
    assert asked(serving, "GET")[1]["policies"] == []


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("serving")) as server:
        yield server


def test_who_asks_and_a_retry(serving: Running) -> None:
    before = serving.shell.host.replica.offset
    headers = {"X-Corelog-Principal": "token:ops", "Idempotency-Key": "once"}
    body = {"set": {"prefix": {"base64": "/w=="}, "keep_bytes": 7}}
    assert asked(serving, "POST", body, headers)[0] == 200
    assert asked(serving, "POST", {"remove": {"prefix": {"base64": "/w=="}}})[0] == 200
    assert asked(serving, "POST", body, headers)[0] == 200  # done before: it isn't set again
    assert asked(serving, "GET")[1]["policies"] == []
    assert asked(serving, "PUT")[0] == 405
    assert serving.shell.host.replica.offset > before
    # not for those who come by the port
    page = Client(serving.port)
    assert page.raw("GET", "/internal/policies")[0] == 404
    page.close()


# -- history ----------------------------------------------------------------------------------------------------


class Watch:
    """One watch, and what it was told."""

    def __init__(self, etcd: Grpc, key: bytes, end: bytes, start: int) -> None:
        self.told: Queue[Any] = Queue()
        create = pb.WatchCreateRequest(key=key, range_end=end, start_revision=start, prev_kv=True)
        self._over = threading.Event()
        kinds = (pb.WatchRequest.SerializeToString, pb.WatchResponse.FromString)
        call = etcd.channel.stream_stream("/etcdserverpb.Watch/Watch", *kinds)(self._asks(create))
        threading.Thread(target=self._read, args=(call,), daemon=True).start()

    def _asks(self, create: Any) -> Iterator[Any]:
        yield pb.WatchRequest(create_request=create)
        self._over.wait(20)

    def _read(self, call: Any) -> None:
        try:
            for response in call:
                self.told.put(response)
        except grpc.RpcError as error:
            self.told.put(error)

    def next(self) -> Any:
        return self.told.get(timeout=10)

    def close(self) -> None:
        self._over.set()


def get(etcd: Grpc, key: bytes, end: bytes, revision: int) -> Any:
    return etcd.ask("KV/Range", pb.RangeRequest(key=key, range_end=end, revision=revision), pb.RangeResponse)


def test_the_history_of_a_prefix_is_compacted_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "SIZES_S", 0.05)
    monkeypatch.setattr(v3, "PREFIXES_S", 0.05)
    with Running(tmp_path) as server, client(server) as etcd:
        etcd.put(b"b", b"old")
        etcd.put(b"b", b"new")
        limited(server, "a/", keep_bytes=2000)
        for number in range(100):
            etcd.put(b"a/%d" % (number % 5), b"v" * 50)
        revs = server.fold.v3.revs
        until(lambda: revs.policies is not None and revs.policies.by_prefix[b"a/"].history_bytes <= 2000)
        assert revs.floors is not None
        floor = revs.floors.by_prefix[b"a/"]
        assert 3 < floor <= revs.revision
        # below: refused where the range meets the prefix; the others have all of their history
        refused(*COMPACTED, get, etcd, b"a/1", b"", floor - 1)
        refused(*COMPACTED, get, etcd, b"a", b"b", floor - 1)
        refused(*COMPACTED, get, etcd, b"a", b"\0", floor - 1)
        assert get(etcd, b"a/", b"a0", floor).count == 5
        assert get(etcd, b"b", b"", 2).kvs[0].value == b"old"
        read = pb.RequestOp(request_range=pb.RangeRequest(key=b"a/1", revision=floor - 1))
        write = pb.RequestOp(request_put=pb.PutRequest(key=b"c"))
        refused(*COMPACTED, etcd.ask, "KV/Txn", pb.TxnRequest(success=[write, read]), pb.TxnResponse)
        refused(*COMPACTED, etcd.ask, "Maintenance/HashKV", pb.HashKVRequest(revision=floor - 1), pb.HashKVResponse)
        assert etcd.ask("Maintenance/HashKV", pb.HashKVRequest(), pb.HashKVResponse).hash
        # a watch from below is told so, with the revision to go on from; one of another key is not
        below = Watch(etcd, b"a/1", b"", floor - 1)
        assert below.next().created
        cancelled = below.next()
        assert (cancelled.canceled, cancelled.compact_revision) == (True, floor)
        other = Watch(etcd, b"b", b"", 2)
        assert other.next().created
        assert [event.kv.value for event in other.next().events] == [b"old", b"new"]
        again = Watch(etcd, b"a/", b"a0", floor)
        assert again.next().created
        events = again.next().events
        assert [event.kv.mod_revision for event in events] == list(range(floor, 104))
        # prev_kv of the first would be below: it isn't told
        assert not events[0].HasField("prev_kv")
        for watch in (below, other, again):
            watch.close()
        # memory comes back, here and in what a restart reads
        kept = 1 + 2 + 100 - (floor - 4) + 5
        until(lambda: sum(len(one.revs) for one in revs.segments) <= kept)
        # a compaction of all keys is as ever
        compact = pb.CompactionRequest(revision=floor - 2)
        etcd.ask("KV/Compact", compact, pb.CompactionResponse)
        refused(*COMPACTED, get, etcd, b"b", b"", 2)
        assert get(etcd, b"b", b"", floor - 2).kvs[0].value == b"new"
        row = asked(server, "GET")[1]["policies"][0]
        assert (row["compacted"], row["keep_bytes"]) == (floor, 2000)


def test_the_history_of_a_prefix_is_compacted_by_its_age_also_where_users_are_asked_for(tmp_path: Path) -> None:
    etcd_setting = Etcd(bcrypt_cost=4, auto_compaction_retention=2.0)
    with Running(tmp_path, etcd=etcd_setting) as server, client(server) as etcd:
        enabled(etcd)
        ask = pb.AuthenticateRequest(name="root", password="r")
        token = etcd.ask("Auth/Authenticate", ask, pb.AuthenticateResponse).token
        limited(server, "a/", keep_age_s=1)
        for _ in range(3):
            etcd.put(b"a/1", b"v", token)
        etcd.put(b"b", b"v", token)
        revs = server.fold.v3.revs
        until(lambda: revs.floors is not None and revs.floors.by_prefix[b"a/"] == 5)
        # and all keys, as --auto-compaction-retention says: the machine itself is no user, and is let
        until(lambda: revs.compacted == 5)
        assert revs.floors is None


def store(*said: Any) -> Store:
    made = Store()
    for data in said:
        made.evolve(say(data), 1)
    return made


def test_ages_are_those_of_this_term_and_nothing_is_said_for_nothing() -> None:
    made, compactor = store(says.PolicySet("a", keep_age_s=100)), PrefixCompactor()
    compactor.restart(0.0)
    assert compactor.next_s(made.revs) == 0.0
    assert compactor.due(made.revs, 0.0) == []
    for second in range(0, 300, 100 // NOTES):
        assert compactor.due(made.revs, float(second)) == []  # nothing was overwritten
    made.evolve(say(says.Put("a")), 1)
    made.evolve(say(says.Put("a")), 1)
    compactor.restart(300.0)
    said = [one for second in range(300, 500, 5) for one in compactor.due(made.revs, float(second))]
    assert said[0] == says.PrefixCompact("a", 3)
    assert compactor.next_s(store(says.PolicySet("a", max_bytes=1)).revs) is None
    assert PrefixCompactor().due(store().revs, 0.0) == []


# -- rates --------------------------------------------------------------------------------------------------------


def test_too_many_writes_are_refused_and_name_the_prefix(tmp_path: Path) -> None:
    often = grpc.StatusCode.RESOURCE_EXHAUSTED, 'too many requests: keys that begin with "a/" may be written 0.01 times'
    with Running(tmp_path) as server, client(server) as etcd:
        limited(server, "a/", writes_per_s=0.01, burst=3)
        for number in range(3):
            etcd.put(b"a/%d" % number)
        refused(*often, etcd.put, b"a/3")
        txn = pb.TxnRequest(failure=[pb.RequestOp(request_put=pb.PutRequest(key=b"a/2"))])
        refused(*often, etcd.ask, "KV/Txn", txn, pb.TxnResponse)
        etcd.put(b"b")
        etcd.ask("KV/DeleteRange", pb.DeleteRangeRequest(key=b"a/1"), pb.DeleteRangeResponse)
        page = Client(server.port)
        text = page.raw("GET", "/metrics")[2].decode()
        assert 'corelog_kv_prefix_refused_total{prefix="a/"} 2.0' in text
        assert 'corelog_kv_prefix_puts_total{prefix="a/"} 3.0' in text
        page.close()
        limited(server, "a/", writes_per_s=1000)
        time.sleep(0.1)
        etcd.put(b"a/3")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_writes_that_came_by_other_nodes_count() -> None:
    made, clock = store(says.PolicySet("a", writes_per_s=10, burst=5)), Clock()
    one, other = Rates(made.revs, clock), Rates(made.revs, clock)
    put = says.Put("a")
    for rates in (one, other):  # each has seen the policy
        over = rates.admit(put)
        assert over is not None
        over()
    for _ in range(5):
        over = one.admit(put)
        assert over is not None
        made.evolve(say(put), 1)
        over()
    for rates in (one, other):
        with pytest.raises(V3Error, match="too many requests"):
            rates.admit(put)
    clock.now_s = 0.1
    assert other.admit(put) is not None
    # what is let in and isn't applied yet is counted here
    with pytest.raises(V3Error):
        other.admit(put)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 4)), min_size=1, max_size=60), st.integers(1, 8))
def test_no_more_pass_than_the_rate_and_a_burst(asks: list[tuple[float, int]], burst: int) -> None:
    """Over the whole time, and none is refused that keeps to it."""
    made, clock = store(says.PolicySet("a", writes_per_s=7, burst=burst)), Clock()
    rates, passed, model, before_s = Rates(made.revs, clock), 0, float(burst), 0.0
    for wait_s, count in asks:
        clock.now_s += wait_s
        model, before_s = min(burst, model + (clock.now_s - before_s) * 7), clock.now_s
        data = says.Txn(success=[says.OpPut(f"a{n}") for n in range(count)], failure=[says.OpPut("a"), says.OpPut("b")])
        try:
            over = rates.admit(data)
        except V3Error:
            assert model < min(count, burst) + 1e-6
            continue
        assert model > min(count, burst) - 1e-6
        assert over is not None
        made.evolve(say(data), 1)
        over()
        passed += count
        model -= count
    assert passed <= burst + clock.now_s * 7 + 3 + 1e-6  # a transaction of four may come when one might


def test_nobody_waits_without_a_rate() -> None:
    made = store(says.PolicySet("a", max_bytes=10**6))
    rates = Rates(made.revs)
    assert rates.admit(says.Put("a")) is None
    made.evolve(say(says.PolicySet("b", writes_per_s=1)), 1)
    assert rates.admit(says.Put("a")) is None
    assert rates.admit(says.Delete("b")) is None
    for _ in range(1000):
        rates.admit(says.LeaseGrant(1, 60))
