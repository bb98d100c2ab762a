"""A single node moves from segments to Kafka while it runs: keys, positions, states and units as they were."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.log.kafka import KafkaLog
from streams.log.memory import MemoryLog
from streams.log.tools import copy, move, verify
from streams.log.tools_read import stretch
from tests.acceptance.harness import Node, until
from tests.cluster import parts
from tests.folds import Counting
from tests.streams.log.test_tools import LOG_ID, PUBLIC, Teller, found, snapshot

pytestmark = pytest.mark.kafka


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "data", "--engine", "docker=none").start()
    yield made
    made.destroy_all()


def test_a_node_goes_on_by_itself_from_segments_to_kafka(kafka1, node: Node, tmp_path: Path) -> None:
    for number in range(30):
        assert node.kv("PUT", f"/v2/keys/k{number % 7}", f"value={number}".encode())[0] in (200, 201)
    unit = tmp_path / "sleeper.service"
    unit.write_text("[Service]\nExecStart=/bin/sleep 1000\n")
    node.run("unit", "start", str(unit))
    pid = until(lambda: node.unit("sleeper.service")["placements"][0]["pid"])
    positions = {at: node.run("log", "show", at, "-o", "json").out for at in ("5", "12", "30")}
    keys = {key: node.run("kv", "get", key, "-o", "json").out for key in ("/k1", "/k6")}
    past = node.run("kv", "get", "/k1", "--at", "20").out

    target = parts.address(kafka1.bootstrap)
    moved = node.run("log", "move", target).err
    seal = int(moved.partition("sealed at ")[2].partition(",")[0])
    # the client that retries goes on
    until(lambda: node.kv("PUT", "/v2/keys/after", b"value=moved")[0] in (200, 201))
    node.wait()
    assert json.loads(node.http("GET", "/v1/cluster")[1])["log"] == target
    assert node.unit("sleeper.service")["placements"][0]["pid"] == pid
    assert {at: node.run("log", "show", at, "-o", "json").out for at in positions} == positions
    assert {key: node.run("kv", "get", key, "-o", "json").out for key in keys} == keys
    assert node.run("kv", "get", "/k1", "--at", "20").out == past
    assert node.run("kv", "get", "/after").out.strip() == "moved"
    assert "log.opened" in node.run("log", "show", str(seal)).out
    for address in (target, f"segments://{node.folder / 'log'}"):
        assert node.run("log", "verify", "--log", address).out.rstrip().endswith("whole")
    # what the move said of the states is what both logs give up to the seal
    hashes = [line for line in moved.splitlines() if "state hash" in line]
    assert len(hashes) == 2
    # and a start anew finds it
    assert node.stop() == 0
    node.start()
    assert node.run("kv", "get", "/after").out.strip() == "moved"
    assert node.unit("sleeper.service")["placements"][0]["pid"] == pid


async def test_a_trimmed_log_with_holes_and_foreign_records_moves_to_kafka(kafka1, tmp_path: Path) -> None:
    """Its first offset, its holes, its voided and foreign records are there as they were, and so is the state."""
    source = MemoryLog()
    await found(source, PUBLIC, LOG_ID)
    teller = Teller(source)
    await teller.open()
    await teller.put(20)
    await snapshot(source, tmp_path)
    await teller.put(5)
    source.skip(7)
    source.put(b"FOREIGN kafka 0 5 1 -\nhellox")
    await teller.put(5)
    await source.trim(12)
    target = await KafkaLog.open(parts.address(kafka1.bootstrap), {})
    try:
        moved = await move(source, target, {"counting": Counting}, snapshots=tmp_path)
        assert list(moved.state_hashes) == ["counting"]
        assert moved.chain
        assert await target.first() == 12
        there = [entry async for batch in stretch(target, 12, moved.sealed_at) for entry in batch]
        assert there == [entry for entry in source.entries if entry.offset < moved.sealed_at]
        report = await verify(target)
        assert (report.whole, report.holes, report.foreign) == (True, 7, 1), report.text()
        # and from Kafka back to where it can be looked at byte by byte
        back = MemoryLog()
        await copy(target, back, until=moved.sealed_at)
        assert back.entries == there
    finally:
        await target.close()


async def test_a_copy_to_kafka_that_was_cut_anywhere_goes_on(kafka1, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.log.tools_read.HOLE_AFTER_S", 1.0)
    source = MemoryLog()
    await found(source, PUBLIC, LOG_ID)
    teller = Teller(source)
    await teller.open()
    await teller.put(8)
    source.skip(4)
    await teller.put(4)
    await source.trim(5)
    target = await KafkaLog.open(parts.address(kafka1.bootstrap), {})
    try:
        await target.leave_hole(3)  # killed when it made room for what was trimmed
        for cut in (8, 12, 16):
            await copy(source, target, until=cut)
        await copy(source, target)
        assert [entry async for batch in stretch(target, 5, await target.end()) for entry in batch] == source.entries
    finally:
        await target.close()
