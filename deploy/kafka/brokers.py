"""One or three Kafka brokers as plain JVM processes on free loopback ports: for tests and benchmarks.

    python -m deploy.kafka.brokers 3        three brokers until Ctrl-C; prints their addresses

Each broker is a combined one (KRaft broker and controller). Fail-over is tuned as docs say: a session of 1 s,
heartbeats each 150 ms. Needs Java 17; the jars come from ``deploy/kafka/jars``.
"""

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
START_TIMEOUT_S = 90.0

_SERVER = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners={listeners}
advertised.listeners={advertised}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
log.dirs={folder}/data
num.partitions=1
default.replication.factor={factor}
min.insync.replicas={insync}
auto.create.topics.enable=false
unclean.leader.election.enable=false
offsets.topic.replication.factor={factor}
offsets.topic.num.partitions=1
transaction.state.log.replication.factor={factor}
transaction.state.log.min.isr={insync}
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=150
controller.quorum.election.timeout.ms=300
controller.quorum.fetch.timeout.ms=600
num.network.threads=2
num.io.threads=4
log.cleaner.enable=false
"""

_LOG4J = """\
Configuration:
  Appenders:
    Console:
      name: out
      PatternLayout: {pattern: "%d{HH:mm:ss.SSS} %p %c{1}: %m%n"}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: out}}
"""


def _die_with_parent() -> None:
    """In the child: SIGKILL when the thread that started it ends, so that a killed test run leaves no broker."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Missing(Exception):
    """Java, Maven or the jars can't be had here; the message says which."""


def jars() -> Path:
    """The folder of the brokers' jars, fetched when they are not there. Raises Missing."""
    if shutil.which("java") is None:
        raise Missing("no java here: apt-get install -y --no-install-recommends openjdk-17-jre-headless")
    done = subprocess.run([HERE / "jars"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"deploy/kafka/jars failed: {done.stderr.strip()[-500:]}")
    return Path(done.stdout.strip())


def free_port() -> int:
    """A port that nobody listens on, outside of the range that outgoing connections use; no two calls give the same."""
    for _ in range(1000):
        # not of `random`, which tests give a seed: they would all begin with the same ports
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in _given:
                _given.add(port)
                return port
    raise Missing("no free port between 20000 and 31999")


#: Ports that :func:`free_port` gave.
_given: set[int] = set()


class Broker:
    """One broker's process; it may be killed, stopped (SIGSTOP), continued and started again on the same folder."""

    def __init__(
        self, node: int, port: int, folder: Path, properties: str, libs: Path, host: str, within: Sequence[str]
    ) -> None:
        self.node = node
        self.host, self.port = host, port
        self._within = list(within)
        self.folder = folder
        self._libs = libs
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        (folder / "server.properties").write_text(properties)
        (folder / "log4j2.yaml").write_text(_LOG4J)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def _java(self, *arguments: str, short: bool = False) -> list[str]:
        return [
            *self._within,
            "java",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            # what ends at once is not worth the second compiler
            f"-XX:TieredStopAtLevel={1 if short else 4}",
            "-Xshare:auto",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self.folder}/log4j2.yaml",
            "-cp",
            f"{self._libs}/*",
            *arguments,
        ]

    def format(self, cluster: str) -> subprocess.Popen[bytes]:
        """Begin to format the storage; ``start`` it when the process has ended well."""
        words = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", f"{self.folder}/server.properties"]
        with (self.folder / "broker.log").open("ab") as out:
            return subprocess.Popen(self._java(*words, short=True), stdout=out, stderr=out, cwd=self.folder)

    def start(self) -> None:
        if self.pid is not None:
            return
        with (self.folder / "broker.log").open("ab") as out:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", f"{self.folder}/server.properties"),
                stdout=out,
                stderr=out,
                cwd=self.folder,
                preexec_fn=self._before_exec(),
            )

    def _before_exec(self) -> Callable[[], None] | None:
        """A thread that ends would take its broker with it: only the main one stays. What runs it elsewhere can see to
        that itself, without Python between fork and exec, which is no good in a process with gRPC's threads."""
        main = threading.current_thread() is threading.main_thread()
        return _die_with_parent if main and not self._within else None

    def listening(self) -> bool:
        """Whether it takes connections. Raises Missing if the process has ended."""
        if self.pid is None:
            raise Missing(f"broker {self.node} ended: {self.output()[-2000:]}")
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((self.host, self.port)) == 0

    def output(self) -> str:
        return (self.folder / "broker.log").read_text(errors="replace")

    def signal(self, number: int) -> None:
        if self.pid is not None and self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Brokers:
    """A cluster of ``count`` brokers in ``folder``. Use it as a context manager, or call ``close``."""

    def __init__(
        self,
        count: int,
        folder: Path,
        extra: str = "",
        secure: bool = False,
        hosts: Sequence[str] = (),
        within: Sequence[Sequence[str]] = (),
    ) -> None:
        """``extra``: more lines of server.properties. ``secure``: a second listener, SASL_SSL (see ``extra``).

        ``hosts``: an address for each, loopback if none are given. ``within``: for each, the command that runs
        another where that address is (``nsenter …``).
        """
        libs = jars()
        self.folder = folder
        hosts = hosts or ["127.0.0.1"] * count
        ports = [free_port() for _ in range(count)]
        inner = [free_port() for _ in range(count)]
        self.secure_ports = [free_port() for _ in range(count)] if secure else []
        voters = ",".join(f"{node}@{hosts[node - 1]}:{port}" for node, port in enumerate(inner, 1))
        self.brokers = []
        for index in range(count):
            host = hosts[index]
            outer = [f"PLAINTEXT://{host}:{ports[index]}"]
            if secure:
                outer.append(f"SASL_SSL://{host}:{self.secure_ports[index]}")
            home = folder / f"kafka{index + 1}"
            properties = _SERVER.format(
                node=index + 1,
                voters=voters,
                listeners=",".join([*outer, f"CONTROLLER://{host}:{inner[index]}"]),
                advertised=",".join(outer),
                folder=home,
                factor=min(3, count),
                insync=2 if count >= 3 else 1,
            )
            inside = within[index] if within else ()
            self.brokers.append(Broker(index + 1, ports[index], home, properties + extra, libs, host, inside))

    @property
    def bootstrap(self) -> str:
        """``host:port,host:port…``"""
        return ",".join(f"{broker.host}:{broker.port}" for broker in self.brokers)

    @property
    def secure_bootstrap(self) -> str:
        return ",".join(f"{one.host}:{port}" for one, port in zip(self.brokers, self.secure_ports, strict=True))

    def up(self) -> "Brokers":
        """Format all and start all; returns when each listens and knows all others. Raises Missing."""
        cluster = urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=").replace("-", "A")
        try:
            formatting = [broker.format(cluster) for broker in self.brokers]
            for broker, process in zip(self.brokers, formatting, strict=True):
                if process.wait():
                    raise Missing(f"formatting a broker's storage failed: {broker.output()[-2000:]}")
                broker.start()
            self.wait()
        except BaseException:
            self.close()
            raise
        return self

    def wait(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Until all brokers that run listen and are registered with the controller."""
        until = time.monotonic() + timeout_s
        running = [broker for broker in self.brokers if broker.pid is not None]
        while not all(broker.listening() for broker in running):
            if time.monotonic() > until:
                raise Missing(f"brokers don't listen after {timeout_s:.0f} s: {running[-1].output()[-2000:]}")
            time.sleep(0.1)
        from confluent_kafka.admin import AdminClient

        for broker in running:
            while True:
                # a new client each time: one that met a broker before it was ready keeps that in mind
                admin = AdminClient({"bootstrap.servers": f"{broker.host}:{broker.port}", "log_level": 0})
                try:
                    if len(admin.list_topics(timeout=5).brokers) >= len(running):
                        break
                except Exception as error:  # librdkafka's own exception type, while the broker starts
                    if time.monotonic() > until:
                        raise Missing(f"broker {broker.node} doesn't answer: {error}") from error
                if time.monotonic() > until:
                    raise Missing(f"broker {broker.node} doesn't know the others after {timeout_s:.0f} s")
                time.sleep(0.1)

    def leader(self, topic: str) -> int:
        """Index of the broker that leads the topic's only partition, -1 if none does. Asks a broker that runs."""
        from confluent_kafka.admin import AdminClient

        alive = ",".join(f"{broker.host}:{broker.port}" for broker in self.brokers if broker.pid is not None)
        found = AdminClient({"bootstrap.servers": alive, "log_level": 0}).list_topics(topic, timeout=10)
        return int(found.topics[topic].partitions[0].leader) - 1

    def kill(self, index: int) -> None:
        """SIGKILL broker ``index`` (from 0)."""
        self.brokers[index].kill()

    def stop(self, index: int) -> None:
        """SIGSTOP: it hangs, its connections stay."""
        self.brokers[index].signal(signal.SIGSTOP)

    def cont(self, index: int) -> None:
        self.brokers[index].signal(signal.SIGCONT)

    def start(self, index: int) -> None:
        """Start a killed broker again on its own folder and port (no wait: see ``wait``)."""
        self.brokers[index].start()

    def heal(self) -> None:
        """Continue and start all that was stopped or killed, and wait until they are there."""
        for broker in self.brokers:
            broker.signal(signal.SIGCONT)
            broker.start()
        self.wait()

    def close(self) -> None:
        for broker in self.brokers:
            broker.kill()

    def __enter__(self) -> "Brokers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    folder = Path(tempfile.mkdtemp(prefix="corelog-kafka-"))
    try:
        with Brokers(count, folder).up() as brokers:
            print(brokers.bootstrap, flush=True)
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    main()
