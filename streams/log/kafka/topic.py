"""The log's topic: made with the settings that make it a log, and refused when it lacks one. By kafka-python.

All calls block; the driver makes them in a thread.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, TopicAlreadyExistsError

from streams.log.kafka.clients import built, check
from streams.log.kafka.options import MESSAGE_BYTES_MAX, Address, Options, for_admin, for_kafka_python
from streams.log.port import ForeignLog, LogUnavailable

#: Nobody answers within this: the log is unavailable.
ANSWER_TIMEOUT_MS = 5000
_FOR_EVER = 2**63 - 1

T = TypeVar("T")

SETTINGS = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
    "max.message.bytes": str(MESSAGE_BYTES_MAX),
    "message.timestamp.type": "CreateTime",
    # a machine whose clock is wrong must still be able to write: times are informative
    "message.timestamp.before.max.ms": str(_FOR_EVER),
    "message.timestamp.after.max.ms": str(_FOR_EVER),
}
#: Without these a log loses records; the others of SETTINGS lose nothing that was acknowledged.
CHECKED = (
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "unclean.leader.election.enable",
    "max.message.bytes",
    "min.insync.replicas",
)


class Topic(NamedTuple):
    """What was found. ``brokers``, ``replicas``: broker ids; ``min_insync``: an append needs so many replicas."""

    brokers: tuple[int, ...]
    partitions: int
    replicas: tuple[int, ...]
    min_insync: int


def ensure(address: Address, options: Options) -> Topic:
    """Make the topic unless it is there, and check it.

    Raises LogUnavailable when nobody answers or too few brokers are there to make it, ForeignLog when an option is
    wrong (before anybody is asked), or when the topic's settings can't hold a log; the message says what mends it.
    """
    # kafka-python reports each failed connection on the root logger's last resort; our errors say it once
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    check(address, options)
    brokers = reach(address, options)
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=brokers,
            bootstrap_timeout_ms=ANSWER_TIMEOUT_MS,
            request_timeout_ms=ANSWER_TIMEOUT_MS,
            **for_kafka_python(options.client),
        )
    except (KafkaError, OSError, ValueError) as error:
        raise _nobody(address, _why(error)) from error
    try:
        return _ensured(admin, address)
    except (KafkaError, OSError) as error:
        raise LogUnavailable(
            f"Kafka at {address.bootstrap} can't say how topic {address.topic!r} is set ({_why(error)}); "
            "try again when its brokers are up"
        ) from error
    finally:
        admin.close()


def reach(address: Address, options: Options) -> list[str]:
    """The brokers that are there, as they say themselves: host:port each. Raises LogUnavailable, ForeignLog.

    Asked by librdkafka, which closes what it opened: kafka-python leaves sockets behind when nobody answers.
    """
    troubles: list[str] = []

    def trouble(error: ClientError) -> None:
        if error.code() != ClientError._ALL_BROKERS_DOWN:
            troubles.append(error.str())

    config: dict[str, Any] = {**for_admin(address, options), "error_cb": trouble}
    with built(AdminClient, config) as admin:
        try:
            found = admin.list_topics(timeout=ANSWER_TIMEOUT_MS / 1000)
        except KafkaException as error:
            admin.poll(0)
            raise _nobody(address, troubles[-1] if troubles else error.args[0].str()) from error
    return [f"{broker.host}:{broker.port}" for broker in found.brokers.values()]


def _nobody(address: Address, why: str) -> LogUnavailable:
    return LogUnavailable(
        f"no Kafka broker answers at {address.bootstrap} ({why}); "
        "are the brokers running, and the address and the log's security options right?"
    )


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _ensured(admin: Any, address: Address) -> Topic:
    brokers = {int(broker["broker_id"]) for broker in admin.describe_cluster()["brokers"]}
    found = _find(admin, address.topic)
    if found is None:
        _create(admin, address, len(brokers))
        found = _wait(lambda: _find(admin, address.topic))
        if found is None:
            raise LogUnavailable(f"topic {address.topic!r} was made and isn't known yet; try again")
    settings = _wait(lambda: _settings(admin, address.topic))
    if settings is None:
        raise LogUnavailable(
            f"the settings of topic {address.topic!r} aren't known yet, or this node may not read them "
            "(DescribeConfigs); try again"
        )
    partitions = found["partitions"]
    replicas = tuple(partitions[0]["replica_nodes"]) if partitions else ()
    # a broker that is down now still holds a replica: it counts
    topic = Topic(
        tuple(sorted(brokers.union(replicas))), len(partitions), replicas, int(settings.get("min.insync.replicas", "1"))
    )
    if wrong := faults(topic, settings, address):
        raise ForeignLog(f"topic {address.topic!r} can't hold a log:\n" + "\n".join(f"- {line}" for line in wrong))
    return topic


def _find(admin: Any, topic: str) -> dict[str, Any] | None:
    for found in admin.describe_topics([topic]):
        if found.get("error_code") == 0 and found.get("partitions"):
            return dict(found)
    return None


def _create(admin: Any, address: Address, brokers: int) -> None:
    factor = min(3, max(brokers, len(address.brokers)))
    if brokers < factor:
        raise LogUnavailable(
            f"topic {address.topic!r} is to be made on {factor} brokers and {brokers} of them are there; "
            "start the others and try again"
        )
    configs = {**SETTINGS, "min.insync.replicas": "2" if factor >= 3 else "1"}
    try:
        admin.create_topics(
            {address.topic: {"num_partitions": 1, "replication_factor": factor, "configs": configs}},
            timeout_ms=ANSWER_TIMEOUT_MS,
            wait_for_metadata=True,
        )
    except TopicAlreadyExistsError:
        return  # another node was first, with the same settings or with ones that the check refuses


def _wait(ask: Callable[[], T | None]) -> T | None:
    """Ask until there is an answer: a topic that one broker has just made is known to the others a moment later."""
    until_s = time.monotonic() + ANSWER_TIMEOUT_MS / 1000
    while (found := ask()) is None and time.monotonic() < until_s:
        time.sleep(0.1)
    return found


def _settings(admin: Any, topic: str) -> dict[str, str] | None:
    """None: the broker that was asked doesn't know them. kafka-python hides its error and tells of no settings."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    [by_name] = admin.describe_configs([resource], config_filter="all").values()
    return {key: str(_value(entry)) for key, entry in by_name[topic].items()} or None


def _value(entry: Any) -> Any:
    return entry["value"] if isinstance(entry, dict) else entry


def faults(topic: Topic, settings: Mapping[str, str], address: Address) -> list[str]:
    """Why the topic can't hold a log, each with the exact command that mends it; empty when it can."""
    server = f"--bootstrap-server {address.bootstrap}"
    wrong: list[str] = []
    if topic.partitions != 1:
        wrong.append(
            f"it has {topic.partitions} partitions, a log has one order and so one partition; partitions can't be "
            f"taken away: use a topic of another name (kafka://{address.bootstrap}/NAME), or, if it holds nothing "
            f"of worth, kafka-topics.sh {server} --delete --topic {address.topic}"
        )
    factor = len(topic.replicas)
    if len(topic.brokers) >= 3 and factor < 3:
        wrong.append(
            f"it has {factor} replica{'s' * (factor != 1)} on {len(topic.brokers)} brokers, 3 are needed: "
            + _reassign(topic, address, server)
        )
    wanted = _wanted(factor)
    mend = {key: wanted[key] for key in CHECKED if not _fits(key, settings.get(key, ""), wanted[key])}
    if mend:
        named = ", ".join(f"{key} is {settings.get(key)}" for key in mend)
        change = ",".join(f"{key}={value}" for key, value in mend.items())
        wrong.append(
            f"{named}: kafka-configs.sh {server} --alter --entity-type topics --entity-name {address.topic} "
            f"--add-config {change}"
        )
        if "compact" in settings.get("cleanup.policy", ""):
            wrong[-1] += " (what compaction has removed already is lost: do so only on a topic that never held a log)"
    return wrong


def _wanted(factor: int) -> dict[str, str]:
    return {**SETTINGS, "min.insync.replicas": "2" if factor >= 3 else "1"}


def _fits(key: str, found: str, wanted: str) -> bool:
    if key in ("max.message.bytes", "min.insync.replicas"):
        return found.isdigit() and int(found) >= int(wanted)
    return found == wanted


def _reassign(topic: Topic, address: Address, server: str) -> str:
    """The command that gives the partition three replicas."""
    others = [node for node in topic.brokers if node not in topic.replicas]
    replicas = [*topic.replicas, *others][:3]
    plan = {"version": 1, "partitions": [{"topic": address.topic, "partition": 0, "replicas": replicas}]}
    return (
        f"echo '{json.dumps(plan)}' > reassign.json && kafka-reassign-partitions.sh {server} "
        "--reassignment-json-file reassign.json --execute"
    )
