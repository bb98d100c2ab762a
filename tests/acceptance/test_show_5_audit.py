"""Show 5: after it all, who asked for what and what came of it; and any Kafka client reads the same records."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from streams.events import payloads
from tests.acceptance.compose import NODES, PROJECT, Cluster, docker
from tests.acceptance.harness import CORELOG, ROOT, http, until

pytestmark = [pytest.mark.acceptance, pytest.mark.docker]

Line = dict[str, Any]
COMMANDS = {kind.TYPE for kind in payloads() if kind.COMMAND}


def asked(cluster: Cluster, folder: Path) -> dict[str, tuple[str, str, str]]:
    """Commands by several principals, one of them refused: subject → (principal, outcome, code)."""
    unit = folder / "audited.service"
    unit.write_text("[Service]\nExecStart=/bin/sleep 1000\n")
    cluster.run("node1", "unit", "submit", str(unit))
    cluster.run("node2", "kv", "set", "/audited/by-token", "1")
    cluster.run("node3", "kv", "set", "/audited/by-token", "2", "--swap-with-value", "something else", code=4)
    cluster.inside("node1", "corelog", "kv", "set", "/audited/by-uid", "1", "--data", "/var/lib/corelog")
    url = f"http://127.0.0.1:{cluster.etcd('node1')}/v2/keys/audited/by-address"
    form = {"content_type": "application/x-www-form-urlencoded"}
    assert http(url, "PUT", b"value=1", **form)[0] in (200, 201)
    cluster.run("node1", "unit", "destroy", "audited")
    return {
        "audited.service": ("token:", "accepted", ""),
        "/audited/by-token": ("token:", "rejected", "v2.101"),
        "/audited/by-uid": ("uid:0", "accepted", ""),
        "/audited/by-address": ("addr:", "accepted", ""),
    }


def export(cluster: Cluster, *options: str) -> list[Line]:
    """``corelog audit export`` on this machine, which reads Kafka and asks no node."""
    done = subprocess.run(
        [*CORELOG, "audit", "export", "--log", f"kafka://{cluster.bootstrap}", *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.timeout(600)
def test_each_command_with_its_principal_and_outcome(cluster: Cluster, tmp_path: Path) -> None:
    cluster.healthy()
    wanted = asked(cluster, tmp_path)

    def complete() -> list[Line]:
        lines = export(cluster)
        return lines if lines and all(line["outcome"] != "pending" for line in lines) else []

    trail: list[Line] = until(complete, timeout_s=120, every_s=1, says="an outcome for each command")
    for subject, (principal, outcome, code) in wanted.items():
        last = [line for line in trail if line["subject"] == subject][-1]
        assert last["principal"].startswith(principal), last
        assert (last["outcome"], last.get("code", "")) == (outcome, code), last
    assert all(line["principal"] for line in trail if _is_command(line)), "nobody asked for nothing"
    positions = [tuple(map(int, line["position"].split("."))) for line in trail]
    assert positions == sorted(set(positions)), "each once, in the order of the log"

    for node in NODES:  # the topic says what each replica that folds the log itself says
        status, raw = http(f"http://{cluster.gateway(node)}/v1/log/audit")
        assert status == 200
        folded = [json.loads(line) for line in raw.splitlines()]
        assert _outcomes(folded) == _outcomes(trail)
    by_uid = export(cluster, "--principal", "uid:0")
    assert by_uid
    assert {line["principal"] for line in by_uid} == {"uid:0"}
    print(f"\n{len(trail)} lines, {sum(line['outcome'] == 'rejected' for line in trail)} of them refused")


def test_kafka_python_alone_reads_the_same_records(cluster: Cluster) -> None:
    from kafka import KafkaConsumer, TopicPartition

    line = export(cluster, "--subject", "/audited/by-uid")[-1]
    offset, index = map(int, line["position"].split("."))
    consumer = KafkaConsumer(bootstrap_servers=cluster.bootstrap.split(","), enable_auto_commit=False)
    try:
        where = TopicPartition("corelog", 0)
        consumer.assign([where])
        consumer.seek(where, offset)
        records = until(lambda: consumer.poll(timeout_ms=2000, max_records=1).get(where), says="a record")
    finally:
        consumer.close()
    record = records[0]
    assert record.offset == offset
    assert record.key == b"kv"
    event = json.loads(record.value)[index]
    assert event["type"] == line["type"]
    assert event["principal"] == "uid:0"
    assert "/audited/by-uid" in json.dumps(event)


def test_the_audit_service_keeps_the_same_trail(cluster: Cluster) -> None:
    """The faust application of the compose file appends each command with its outcome to a file."""
    line = export(cluster, "--subject", "/audited/by-uid")[-1]

    def kept() -> list[Line]:
        raw = docker("exec", f"{PROJECT}-audit-1", "cat", "/var/lib/corelog/trail.jsonl", check=False)
        rows = [json.loads(one) for one in raw.splitlines()]
        return [row for row in rows if row["position"] == line["position"]]

    assert until(kept, timeout_s=120, every_s=1, says="the line in the service's file") == [line]


def _is_command(line: Line) -> bool:
    return line["type"] in COMMANDS


def _outcomes(lines: list[Line]) -> dict[str, tuple[str, str]]:
    return {line["position"]: (line["type"], line["outcome"]) for line in lines if _is_command(line)}
