"""A replica that differs from the master's raises etcd's alarm CORRUPT for its member, and ends."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from actors import start
from actors.kv import actor
from actors.kv.native import is_native
from actors.kv.proto import etcd_pb2 as pb
from actors.kv.state import KvFold
from actors.kv.v3.store import CORRUPT as CORRUPT_ALARM
from actors.kv.v3.store import Store
from actors.setting import Signals
from streams.events import kv3 as says
from streams.events.base import Event, say
from streams.outcomes import Outcome, Rejected
from streams.replay import CHECKPOINT_EVENTS, Context, Diverged
from tests.actors.kv.server import Client, Running
from tests.actors.kv.test_serving import Grpc, client, refused

OTHER = "0d" * 16
CORRUPT = grpc.StatusCode.DATA_LOSS, "corrupt cluster"


class Planted(KvFold):
    """Differs: one key can't be put here."""

    def evolve(self, event: Event, context: Context) -> Outcome:
        if isinstance(event.data, says.Put) and event.data.key == "planted":
            return Rejected("planted")
        return super().evolve(event, context)

    evolve_many = None  # type: ignore[assignment]


class Shared:
    """One log in memory, which whoever opened it may close."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def close(self) -> None:
        pass


def alarms(etcd: Grpc) -> list[tuple[int, int]]:
    told = etcd.ask("Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse).alarms
    return [(one.alarm, one.memberID) for one in told]


@pytest.mark.skipif(is_native(), reason="what is planted inherits from the fold, and nothing does from a compiled one")
def test_a_planted_difference_raises_the_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Running(tmp_path / "a") as server, client(server) as etcd:
        setting = msgspec.structs.replace(
            server.setting, machine=OTHER, nonce="other", folder=str(tmp_path / "b"), alone=False
        )
        (tmp_path / "b").mkdir()

        async def opened(*_: Any) -> Any:
            return Shared(server.log)

        monkeypatch.setattr(start, "opened", opened)
        resumed = start.resumed
        monkeypatch.setattr(start, "resumed", lambda setting, _make, log: resumed(setting, Planted, log))
        running = asyncio.run_coroutine_threadsafe(actor.serve(setting, Signals()), server.loop)
        etcd.put(b"planted")
        ops = [pb.PutRequest(key=b"k%d" % number) for number in range(CHECKPOINT_EVENTS)]
        for put in ops[:-200]:
            etcd.ask("KV/Put", put, pb.PutResponse)
        assert not running.done()
        assert alarms(etcd) == []
        with contextlib.suppress(grpc.RpcError):  # the alarm may be on before all are put
            for put in ops[-200:]:
                etcd.ask("KV/Put", put, pb.PutResponse)
        with pytest.raises(Diverged, match="the master has other hashes"):
            running.result(20)
        member = int(OTHER[:16], 16)
        until_s = time.monotonic() + 20
        while alarms(etcd) != [(pb.CORRUPT, member)]:
            assert time.monotonic() < until_s
        # as in etcd: all members refuse
        refused(*CORRUPT, etcd.put, b"a")
        etcd.get(b"a")  # etcd answers reads all the same
        read = pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))])
        etcd.ask("KV/Txn", read, pb.TxnResponse)
        inside = pb.TxnRequest(success=[pb.RequestOp(request_txn=read)])
        refused(*CORRUPT, etcd.ask, "KV/Txn", inside, pb.TxnResponse)
        page = Client(server.port)
        status, _, raw = page.raw("GET", "/health")
        assert (status, b"ALARM CORRUPT" in raw) == (503, True)
        page.close()
        # started again it meets the same checkpoint, and doesn't say it again
        records = server.shell.host.replica.offset
        again = asyncio.run_coroutine_threadsafe(actor.serve(setting, Signals()), server.loop)
        with pytest.raises(Diverged):
            again.result(20)
        assert server.shell.host.replica.offset == records
        off = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, alarm=pb.CORRUPT, memberID=member)
        etcd.ask("Maintenance/Alarm", off, pb.AlarmResponse)
        etcd.put(b"a")
        assert etcd.get(b"a").count == 1
        # a new start of its node does
        anew = msgspec.structs.replace(setting, nonce="anew")
        with pytest.raises(Diverged):
            asyncio.run_coroutine_threadsafe(actor.serve(anew, Signals()), server.loop).result(20)
        until_s = time.monotonic() + 20
        while alarms(etcd) != [(pb.CORRUPT, member)]:
            assert time.monotonic() < until_s


def test_a_corrupt_store_keeps_its_leases_from_level_3_on_and_nobody_says_that_they_end(tmp_path: Path) -> None:
    for level, keys in ((2, []), (3, [b"k"])):
        store = Store()
        for data in (says.LeaseGrant(1, 10), says.Put("k", "v", 1), says.Alarm(CORRUPT_ALARM, 1)):
            store.evolve(say(data), 1, level)
        outcome = store.evolve(say(says.LeaseExpired(1, 1), term=1), 2, level)
        assert isinstance(outcome, Rejected) == (level == 3)
        assert list(store.revs.live) == keys
    with Running(tmp_path) as server, client(server) as etcd:
        lease = etcd.ask("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=2), pb.LeaseGrantResponse).ID
        etcd.ask("KV/Put", pb.PutRequest(key=b"k", lease=lease), pb.PutResponse)
        on = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, alarm=pb.CORRUPT, memberID=1)
        etcd.ask("Maintenance/Alarm", on, pb.AlarmResponse)
        time.sleep(3)
        # what is applied makes the master look again
        other = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, alarm=pb.NOSPACE, memberID=1)
        etcd.ask("Maintenance/Alarm", other, pb.AlarmResponse)
        time.sleep(0.5)
        assert etcd.get(b"k").count == 1
        assert not any(b"lease_expired" in entry.raw for entry in server.log.entries)
        off = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, alarm=pb.CORRUPT, memberID=1)
        etcd.ask("Maintenance/Alarm", off, pb.AlarmResponse)
        until_s = time.monotonic() + 20
        while etcd.get(b"k").count:
            assert time.monotonic() < until_s
