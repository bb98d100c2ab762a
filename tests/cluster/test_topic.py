"""The log's topic on real brokers: made right, refused when wrong, mended by the command that the refusal prints."""

import json
import re
import subprocess
import time

import pytest
from kafka import KafkaAdminClient

from deploy.kafka.brokers import Brokers, free_port, jars
from streams.log.kafka import KafkaLog
from streams.log.kafka.options import parse_address, parse_options
from streams.log.kafka.topic import ensure
from streams.log.port import ForeignLog, LogUnavailable
from tests.cluster import parts

pytestmark = pytest.mark.kafka


def create(kafka: Brokers, name: str, partitions: int = 1, factor: int = 3, **configs: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap.split(","))
    wanted = {key.replace("_", "."): value for key, value in configs.items()}
    admin.create_topics(
        {name: {"num_partitions": partitions, "replication_factor": factor, "configs": wanted}}, wait_for_metadata=True
    )
    admin.close()


GOOD = {"retention_ms": "-1", "max_message_bytes": "4194304", "min_insync_replicas": "2"}


async def test_a_new_topic_is_made_as_a_log_needs_it_and_found_again(kafka3):
    address = parse_address(parts.address(kafka3.bootstrap))
    made = ensure(address, parse_options({}))
    assert made.partitions == 1
    assert len(made.replicas) == 3
    assert made.min_insync == 2
    assert ensure(address, parse_options({})) == made


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cleanup_policy": "compact"}, "cleanup.policy is compact"),
        ({"retention_ms": "604800000"}, "retention.ms is 604800000"),
        ({"retention_bytes": "1000000"}, "retention.bytes is 1000000"),
        ({"unclean_leader_election_enable": "true"}, "unclean.leader.election.enable is true"),
        ({"min_insync_replicas": "1"}, "min.insync.replicas is 1"),
    ],
)
async def test_a_topic_that_would_lose_records_is_refused_and_its_command_mends_it(kafka3, wrong, words):
    name = parts.topic()
    create(kafka3, name, **(GOOD | wrong))
    with pytest.raises(ForeignLog) as refused:
        await KafkaLog.open(f"kafka://{kafka3.bootstrap}/{name}", {})
    assert words in str(refused.value)
    change = re.search(r"--entity-name (\S+) --add-config (\S+)", str(refused.value))
    assert change is not None
    assert change[1] == name
    if "compact" in words:
        run("kafka.admin.ConfigCommand", *command(str(refused.value), "kafka-configs.sh"))
        ensure(parse_address(f"kafka://{kafka3.bootstrap}/{name}"), parse_options({}))


def command(text: str, script: str) -> list[str]:
    """The printed command's arguments."""
    line = next(line for line in text.splitlines() if script in line)
    return re.sub(r" \(.*\)$", "", line[line.index(script) + len(script) :]).split()


def run(java_class: str, *arguments: str) -> None:
    done = subprocess.run(
        ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars()}/*", java_class,
         *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
async def test_one_replica_on_three_brokers_is_refused_and_its_command_mends_it(kafka3, tmp_path):
    name = parts.topic()
    create(kafka3, name, factor=1, **(GOOD | {"min_insync_replicas": "1"}))
    with pytest.raises(ForeignLog, match="1 replica on 3 brokers") as refused:
        await KafkaLog.open(f"kafka://{kafka3.bootstrap}/{name}", {})
    text = str(refused.value)
    plan = re.search(r"echo '(\{.*\})'", text)
    assert plan is not None
    assert sorted(json.loads(plan[1])["partitions"][0]["replicas"]) == [1, 2, 3]
    (tmp_path / "reassign.json").write_text(plan[1])
    arguments = [word.replace("reassign.json", f"{tmp_path}/reassign.json") for word in command(text, "partitions.sh")]
    run("org.apache.kafka.tools.reassign.ReassignPartitionsCommand", *arguments)


async def test_two_partitions_are_refused(kafka3):
    name = parts.topic()
    create(kafka3, name, partitions=2, **GOOD)
    with pytest.raises(ForeignLog, match="it has 2 partitions"):
        await KafkaLog.open(f"kafka://{kafka3.bootstrap}/{name}", {})


async def test_three_nodes_that_make_the_topic_at_once_all_get_it(kafka3):
    import asyncio

    address = parts.address(kafka3.bootstrap)
    logs = await asyncio.gather(*(KafkaLog.open(address, {}) for _ in range(3)))
    assert [await log.end() for log in logs] == [0, 0, 0]
    for log in logs:
        await log.close()


async def test_nobody_listening_is_said_within_seconds():
    before = time.monotonic()
    port = free_port()
    with pytest.raises(LogUnavailable, match=f"no Kafka broker answers at 127.0.0.1:{port}"):
        await KafkaLog.open(f"kafka://127.0.0.1:{port}", {})
    assert time.monotonic() - before < 60  # not the clients' own half minutes, several times over


async def test_too_few_brokers_to_make_the_topic_is_unavailable_not_a_worse_topic(kafka1):
    away = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    address = parts.address(",".join([kafka1.bootstrap, *away]))
    with pytest.raises(LogUnavailable, match="on 3 brokers and 1 of them are there"):
        await KafkaLog.open(address, {})
