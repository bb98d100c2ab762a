"""The gateway over a log in memory: its own app, host and shell; only the sockets are left out."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from actors.control import ControlFold
from actors.folds import FOLDS
from actors.host import Host
from actors.setting import Setting
from actors.shell import Shell
from node.gateway.access import Access
from node.gateway.context import Context, Passive
from node.gateway.routes import CALLS, document
from node.gateway.server import application
from streams.history.at import state_at
from streams.log.founding import found
from streams.log.memory import MemoryLog
from streams.log.port import LogUnavailable
from streams.replay import Replica
from streams.snapshots import write

UNIT = "[Service]\nExecStart=/bin/sleep 9\n"


class Gateway:
    """Clients with different peers on one app."""

    def __init__(self, app: Any, shell: Shell, log: MemoryLog, folder: Path) -> None:
        self.app, self.shell, self.log, self.folder = app, shell, log, folder

    def client(self, peer: str = "127.0.0.1", **headers: str) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=self.app, client=(peer, 1))
        return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:7379", headers=headers)


async def no_effects(_effect: Any, _notice: Any) -> None:
    return None


class Guarded:
    """Implements :class:`node.gateway.guard.Guard`: users are asked for while there is a file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "users"

    async def closed(self) -> bool:
        return self.file.exists()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    log = MemoryLog()
    opened = await found(log)
    (tmp_path / "token").write_text("sesame ops\n")
    setting = Setting(
        machine="ab" * 16, nonce="n", boot_id="b", folder=str(tmp_path), log="memory://", log_id=opened.id
    )
    shell = Shell(Host(Passive(), Replica(ControlFold()), f"gateway@{setting.machine}", lambda: "n"), log, no_effects)
    driving = asyncio.ensure_future(shell.run())
    while not shell.host.live:
        await asyncio.sleep(0.001)
    context = Context(setting, shell, Access(tmp_path / "token", frozenset({"edge-1"})), Guarded(tmp_path))
    yield Gateway(application(context), shell, log, tmp_path)
    driving.cancel()
    await asyncio.gather(driving, return_exceptions=True)


def problem(answer: httpx2.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"corelog:{kind}"
    return body


async def test_a_command_answers_202_with_position_and_is_seen_with_its_principal(gateway: Gateway) -> None:
    async with gateway.client("uid:0") as client:
        answer = await client.put("/v1/units/web.service", json={"content": UNIT, "desired": "launched"})
        assert answer.status_code == 202, answer.text
        position = answer.json()["position"]
        assert answer.headers["location"] == f"/v1/log/{position}"
        record = (await client.get(f"/v1/log/{position}")).json()
        assert record["events"][0]["principal"] == "uid:0"
        assert record["events"][0]["correlation"] == answer.json()["correlation"]
        listed = await client.get("/v1/units")
        assert [unit["name"] for unit in listed.json()] == ["web.service"]
        assert int(listed.headers["etag"].strip('"')) >= int(position.split(".")[0])


async def test_commands_need_a_token_on_loopback_too_and_reads_do_not(gateway: Gateway) -> None:
    async with gateway.client() as client:
        assert (await client.get("/v1/units")).status_code == 200
        problem(await client.delete("/v1/units/web.service"), 401, "token-needed")
        problem(await client.put("/v1/kv/x", content=b"value=1"), 401, "token-needed")
        problem(await client.delete("/v1/units/x.service", headers={"authorization": "Bearer wrong"}), 401, "bad-token")
        answer = await client.put(
            "/v1/units/web.service", json={"content": UNIT}, headers={"authorization": "Bearer sesame"}
        )
        event = (await client.get(f"/v1/log/{answer.json()['position']}")).json()["events"][0]
        assert event["principal"] == "token:ops"
    assert b"web.service" in b"".join(entry.raw for entry in gateway.log.entries)


async def test_keys_and_the_log_are_read_with_a_principal_where_etcds_users_are_asked_for(gateway: Gateway) -> None:
    told = [call for call in CALLS if call.tells_keys]
    assert len(told) == 9
    paths = [call.path.replace("{kind}/", "unit/").replace("{position}", "0") for call in told]
    paths = [path.replace("/{key:path}", "/x").replace("/{name:path}", "/x") for path in paths]
    paths.remove("/v1/log/stream")  # has no end
    (gateway.folder / "users").touch()
    async with gateway.client() as client, gateway.client("uid:0") as own:
        for path in [*paths, "/v1/log/stream"]:
            problem(await client.get(path), 401, "token-needed")
            problem(await client.get(path, headers={"authorization": "Bearer wrong"}), 401, "bad-token")
        for path in paths:
            assert (await client.get(path, headers={"authorization": "Bearer sesame"})).status_code != 401
            assert (await own.get(path)).status_code != 401
        assert (await client.get("/v1/units")).status_code == 200
        (gateway.folder / "users").unlink()
        for path in paths:
            assert (await client.get(path)).status_code != 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7379", "127.0.0.1.evil.example"])
async def test_a_host_that_is_not_ours_is_refused(gateway: Gateway, host: str) -> None:
    async with gateway.client(host=host) as client:
        problem(await client.get("/v1/units"), 421, "wrong-host")


async def test_our_names_and_addresses_are_taken_and_foreign_origins_refused(gateway: Gateway) -> None:
    for host in ("localhost:7379", "edge-1", "10.1.2.3:7379", "[::1]:7379"):
        async with gateway.client(host=host) as client:
            assert (await client.get("/v1/units")).status_code == 200
    async with gateway.client(origin="http://evil.example") as client:
        problem(await client.get("/v1/units"), 403, "wrong-origin")


async def test_an_idempotency_key_makes_a_retry_harmless(gateway: Gateway) -> None:
    headers = {"idempotency-key": "once"}
    async with gateway.client("uid:0") as client:
        first = await client.put("/v1/units/a.service", json={"content": UNIT}, headers=headers)
        await client.delete("/v1/units/a.service")
        again = await client.put("/v1/units/a.service", json={"content": UNIT}, headers=headers)
        assert again.status_code == 202
        assert again.json()["result"] == first.json()["result"]
        assert (await client.get("/v1/units")).json() == []
        other = await client.put("/v1/units/b.service", json={"content": UNIT}, headers=headers)
        problem(other, 409, "sequence-reused")


async def test_wrong_input_is_named_and_publishes_nothing(gateway: Gateway) -> None:
    before = len(gateway.log.entries)
    async with gateway.client("uid:0") as client:
        broken = await client.put("/v1/units/a.service", json={"content": "[Service]\nwhat\n"})
        assert "2" in problem(broken, 400, "bad-unit")["detail"]
        problem(await client.put("/v1/units/a.service", content=b"{"), 400, "bad-body")
        unknown = await client.put("/v1/units/a.service", json={"content": UNIT, "colour": 1})
        assert "colour" in problem(unknown, 400, "bad-body")["detail"]
        problem(await client.put("/v1/units/a.service", content=b"x" * 4_000_000), 413, "body-too-large")
        problem(await client.post("/v1/units/a.service/desire", json={"state": "flying"}), 400, "bad-state")
        problem(await client.get("/v1/log/12x"), 400, "bad-position")
        problem(await client.get("/v1/log/99999"), 404, "no-such-position")
        problem(await client.get("/v1/units?at=yesterday-ish"), 400, "bad-instant")
        problem(await client.get("/v1/units?at=99999"), 400, "bad-instant")
        problem(await client.get("/v1/units/none.service"), 404, "unknown-unit")
        problem(await client.get("/v1/machines/zz"), 404, "unknown-machine")
        problem(await client.get("/v1/why/unit/none.service"), 404, "never-heard-of")
        problem(await client.get("/v1/diff"), 400, "from-missing")
    records = [entry.raw for entry in gateway.log.entries[before:]]
    assert all(b'"log.barrier.' in raw for raw in records), records


async def test_dry_run_shows_the_event_and_publishes_nothing(gateway: Gateway) -> None:
    before = len(gateway.log.entries)
    async with gateway.client("uid:0") as client:
        answer = await client.put("/v1/units/a.service?dry_run=1", json={"content": UNIT})
        assert answer.json()["event"]["data"]["content"] == UNIT
    assert len(gateway.log.entries) == before


async def test_an_unreachable_log_is_503_and_nothing_was_written(gateway: Gateway) -> None:
    def refuse(_records: object) -> None:
        raise LogUnavailable("no broker answers")

    gateway.log.fault = refuse
    async with gateway.client("uid:0") as client:
        problem(await client.put("/v1/units/a.service", json={"content": UNIT}), 503, "unwritten")
        assert (await client.get("/v1/units?consistency=serializable")).json() == []


async def test_a_state_of_the_past_is_served_at_a_position(gateway: Gateway) -> None:
    async with gateway.client("uid:0") as client:
        submitted = (await client.put("/v1/units/a.service", json={"content": UNIT})).json()["position"]
        await client.delete("/v1/units/a.service")
        assert (await client.get("/v1/units")).json() == []
        past = await client.get("/v1/units", params={"at": submitted})
        assert [unit["name"] for unit in past.json()] == ["a.service"]
        changes = (await client.get("/v1/diff", params={"from": submitted})).json()
        assert {"remove"} == {change["op"] for change in changes if "units/a.service" in change["path"]}


async def test_the_log_lists_filters_and_resumes(gateway: Gateway) -> None:
    async with gateway.client("uid:0") as client:
        for name in ("a", "b", "c"):
            await client.put(f"/v1/units/{name}.service", json={"content": UNIT})
        newest = (await client.get("/v1/log", params={"limit": 2, "stream": "unit"})).json()
        assert [line["subject"] for line in newest] == ["b.service", "c.service"]
        start = newest[0]["position"]
        later = (await client.get("/v1/log", params={"from": start, "stream": "unit"})).json()
        assert [line["subject"] for line in later] == ["b.service", "c.service"]
        about = (await client.get("/v1/log", params={"subject": "a.service"})).json()
        assert len(about) == 1


async def test_why_goes_down_to_the_principal(gateway: Gateway) -> None:
    async with gateway.client("uid:7") as client:
        await client.put("/v1/units/a.service", json={"content": UNIT, "desired": "launched"})
        steps = (await client.get("/v1/why/unit/a.service")).json()
        assert steps[0]["principal"] == "uid:7"
        assert "uid:7" in steps[0]["words"]


async def test_a_trimmed_log_is_told_from_its_oldest_snapshot_on(gateway: Gateway) -> None:
    async with gateway.client("uid:7") as client:
        await client.put("/v1/units/a.service", json={"content": UNIT, "desired": "launched"})
        kept = [(name, await state_at(gateway.log, make)) for name, make in FOLDS.items()]
        await client.put("/v1/units/b.service", json={"content": UNIT, "desired": "launched"})
        await gateway.log.trim(kept[0][1].offset + 1)
        for path in ("why/unit/b.service", "log/audit", "history/x", "blame/"):
            problem(await client.get(f"/v1/{path}"), 410, "log-truncated")
        for name, replica in kept:
            (gateway.folder / "snapshots" / name).mkdir(parents=True)
            write(gateway.folder / "snapshots" / name, replica)
        assert (await client.get("/v1/why/unit/b.service")).json()[0]["principal"] == "uid:7"
        (line,) = (await client.get("/v1/log/audit")).text.splitlines()
        assert json.loads(line)["subject"] == "b.service"
        for path in ("history/x", "blame/"):
            assert (await client.get(f"/v1/{path}")).json() == []


async def test_a_command_that_was_not_sent_in_time_is_never_sent(gateway: Gateway) -> None:
    host = gateway.shell.host
    async with gateway.client("uid:7") as client:
        host.live = False
        answer = await client.put("/v1/units/a.service", json={"content": UNIT}, params={"timeout": "0.05"})
        assert "nothing was sent" in problem(answer, 503, "log-unavailable")["detail"]
        host.live = True
        await client.put("/v1/units/b.service", json={"content": UNIT})
        assert [unit["name"] for unit in (await client.get("/v1/units")).json()] == ["b.service"]


async def test_what_an_operator_voided_stops_no_look_into_the_past(gateway: Gateway) -> None:
    replica = gateway.shell.host.replica
    async with gateway.client("uid:7") as client:
        await client.put("/v1/units/a.service", json={"content": UNIT})
        replica.foreseen = {await gateway.log.end(): "it can't be read"}
        lost = gateway.log.put(b"CORELOG 2 of a version to come\n[]")
        await client.put("/v1/units/b.service", json={"content": UNIT})
        assert replica.log.voided == {lost: "it can't be read"}
        then = (await client.get("/v1/units", params={"at": f"{replica.offset}"})).json()
        assert [unit["name"] for unit in then] == ["a.service", "b.service"]
        assert (await client.get("/v1/why/unit/b.service")).json()[0]["principal"] == "uid:7"
        for path in ("blame/", "history/x", "kv3/blame", "log/audit"):
            assert (await client.get(f"/v1/{path}")).status_code == 200, path


async def test_foreign_and_undecodable_records_are_shown_as_such(gateway: Gateway) -> None:
    gateway.log.put(b"hello from kcat")
    async with gateway.client("uid:0") as client:
        await client.put("/v1/units/a.service", json={"content": UNIT})
        lines = (await client.get("/v1/log")).json()
        assert "foreign" in [line["type"] for line in lines]
        metrics = (await client.get("/metrics")).text
        assert "corelog_foreign_records_total 1.0" in metrics


async def test_every_call_is_in_the_document_and_every_route_answers_a_problem_or_data(gateway: Gateway) -> None:
    described = document("0.1.0")
    async with gateway.client("uid:0") as client:
        assert (await client.get("/openapi.json")).json()["paths"].keys() == described["paths"].keys()
        for call in CALLS:
            if call.path in ("/v1/log/stream", "/v1/log/snapshot"):
                continue
            path = call.path.replace(":path", "")
            for name in ("name", "machine", "version", "verb", "hash", "position", "kind", "key"):
                path = path.replace("{" + name + "}", "x")
            answer = await client.request(call.method, path, content=b"{}" if call.method != "GET" else None)
            assert answer.status_code < 500 or answer.json()["type"] == "corelog:kv-unavailable", (call, answer.text)
            if answer.status_code >= 400 and answer.status_code != 405:
                assert json.loads(answer.content)["detail"], call


async def test_the_stream_resumes_after_the_last_event_id(gateway: Gateway) -> None:
    from types import SimpleNamespace

    from node.gateway.history import _events
    from streams.records import Position

    async with gateway.client("uid:0") as client:
        first = (await client.put("/v1/units/a.service", json={"content": UNIT})).json()["position"]
        second = (await client.put("/v1/units/b.service", json={"content": UNIT})).json()["position"]
    context = gateway.app.state.context
    request: Any = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(context=context)), query_params={})
    events = _events(request, Position.parse(first))
    assert (await anext(events))["id"] == second
    await events.aclose()  # type: ignore[attr-defined]


def test_a_diff_leaves_out_what_only_quotes_or_repeats() -> None:
    from node.gateway.history import _is_noise

    for path in ("cluster/election/proof", "cluster/machines/ab/seen_at", "units/placed/ab", "units/next_fence"):
        assert _is_noise(("control", *path.split("/"))), path
    for path in ("cluster/election/term", "cluster/machines/ab/generation", "units/units/a.service/placements/ab"):
        assert not _is_noise(("control", *path.split("/"))), path
