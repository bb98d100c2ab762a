"""Real brokers for tests: started once in a test process, when the first test asks, and closed with it."""

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from deploy.kafka.brokers import Brokers, Missing, free_port
from tests import needs

ROOT = Path(__file__).resolve().parents[2]
KAFKA_IMAGE = "apache/kafka:4.3.1"

_folders: list[Path] = []
_closers: list[Callable[[], None]] = []
_started: dict[str, Brokers] = {}


def brokers(count: int) -> Brokers:
    """The test process's cluster of plain JVM processes, healed if a test before left something stopped."""
    name = f"jvm-{count}"
    if name not in _started:
        folder = Path(tempfile.mkdtemp(prefix="corelog-kafka-"))
        _folders.append(folder)
        try:
            made = Brokers(count, folder)
        except Missing as error:
            needs.missing(str(error))
            raise
        _closers.append(made.close)
        _started[name] = made.up()
    _started[name].heal()
    return _started[name]


def topic() -> str:
    """A name that no other test has."""
    return f"t-{secrets.token_hex(6)}"


def address(bootstrap: str) -> str:
    """A log that no other test has."""
    return f"kafka://{bootstrap}/{topic()}"


def engine() -> None:
    """A Docker engine that has the broker's image."""
    try:
        client = docker.from_env()
        try:
            client.images.get(KAFKA_IMAGE)
        finally:
            client.close()
    except DockerException as error:
        needs.missing(
            f"no Docker engine with {KAFKA_IMAGE}: deploy/images/dockerd start; deploy/images/build ({error})"
        )


_contained: list[str] = []


def contained() -> str:
    """Bootstrap address of one broker in a container, by testcontainers."""
    if _contained:
        return _contained[0]
    engine()
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import PortWaitStrategy

    testcontainers_config.ryuk_disabled = True
    port = free_port()
    container = (
        DockerContainer(KAFKA_IMAGE)
        .with_bind_ports(port, port)
        .with_env("CLUSTER_ID", "Y29yZWxvZy1jbHVzdGVyMQ")
        .with_env("KAFKA_NODE_ID", "1")
        .with_env("KAFKA_PROCESS_ROLES", "broker,controller")
        .with_env("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@localhost:9093")
        .with_env("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER")
        .with_env("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT")
        .with_env("KAFKA_LISTENERS", f"PLAINTEXT://:{port},CONTROLLER://:9093")
        .with_env("KAFKA_ADVERTISED_LISTENERS", f"PLAINTEXT://127.0.0.1:{port}")
        .with_env("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1")
        .with_env("KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS", "1")
        .with_env("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1")
        .with_env("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1")
        .with_env("KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS", "1")
        .with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
        .with_env("KAFKA_HEAP_OPTS", "-Xmx512m -XX:+UseSerialGC")
        .waiting_for(PortWaitStrategy(port).with_startup_timeout(90))
    )
    container.start()
    _closers.append(container.stop)
    _answering(f"127.0.0.1:{port}")
    _contained.append(f"127.0.0.1:{port}")
    return _contained[0]


def _answering(bootstrap: str, count: int = 1, timeout_s: float = 90) -> None:
    """A port that docker forwards takes connections before anybody listens behind it."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    until = time.monotonic() + timeout_s
    while True:
        try:
            admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
            if len(admin.list_topics(timeout=5).brokers) >= count:
                return
        except KafkaException:
            if time.monotonic() > until:
                raise
        time.sleep(0.2)


class Composed:
    """The brokers of docker-compose.yml, as a project of its own on free ports."""

    def __init__(self) -> None:
        self.project = f"corelog-test-{secrets.token_hex(4)}"
        self.ports = [free_port() for _ in range(3)]
        self.env = os.environ | {f"CORELOG_KAFKA{index + 1}_PORT": str(port) for index, port in enumerate(self.ports)}
        self.env |= {"CORELOG_NET": "10.213.79"}

    def compose(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.project, *arguments],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"docker compose {arguments}: {done.stderr[-3000:]}"
        return done.stdout

    def up(self) -> "Composed":
        self.compose("up", "-d", "--wait", "kafka1", "kafka2", "kafka3")
        _answering(self.bootstrap, 3)
        return self

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "1")


_composed: list[Composed] = []


def composed() -> Composed:
    """Three brokers by compose."""
    if not _composed:
        engine()
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if plugin.returncode:
            needs.missing("no docker compose: deploy/images/dockerd compose")
        made = Composed()
        _closers.append(made.down)
        _composed.append(made.up())
    return _composed[0]


def close() -> None:
    """End all that was started here."""
    while _closers:
        _closers.pop()()
    for folder in _folders:
        shutil.rmtree(folder, ignore_errors=True)
    _folders.clear()
    _started.clear()
    _contained.clear()
    _composed.clear()


@pytest.fixture(scope="session", autouse=True)
def _parts() -> Iterator[None]:
    yield
    close()


@pytest.fixture
def kafka1() -> Brokers:
    """One broker: ``bootstrap``, ``kill(i)``, ``stop(i)``, ``cont(i)``, ``start(i)``, ``heal()``."""
    return brokers(1)


@pytest.fixture
def kafka3() -> Brokers:
    """Three brokers, all up; a test may kill and stop them."""
    return brokers(3)


def kcat(bootstrap: str, name: str) -> list[dict[str, object]]:
    """All messages of a topic as kcat prints them."""
    program = needs.program("kcat")
    done = subprocess.run(
        [program, "-b", bootstrap, "-t", name, "-C", "-e", "-q", "-J"], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
