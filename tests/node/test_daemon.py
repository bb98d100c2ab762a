"""``corelog up``, from its start to its end, as a real process; its actors are little ones (tests/actors/little.py)."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import needs

ROOT = Path(__file__).parents[2]
UP = """
import sys
from actors.supervision.messages import Spec
from node.cli import main, up
from node import daemon
specs, *argv = sys.argv[1:]
if specs:
    daemon.ACTORS = tuple(Spec(*spec.split("=")) for spec in specs.split())
    daemon.up.__defaults__ = (daemon.ACTORS,)
daemon.READY_ANYWAY_S = 0.5
main.main(["up", *argv])
"""
LITTLE = "coordination=tests.actors.little:coordination a=tests.actors.little:good b=tests.actors.little:good"


class Up:
    """One ``corelog up``."""

    def __init__(
        self,
        data: Path,
        *flags: str,
        actors: str = LITTLE,
        env: dict[str, str] | None = None,
        warnings: str = "error",
    ) -> None:
        self.data = data
        self.error_file = data.parent / f"{data.name}.{time.monotonic_ns()}.err"
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CORELOG_")}
        with self.error_file.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", warnings, "-c", UP, actors, "--data", str(data), *self._ports(flags), *flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=clean | (env or {}),
                start_new_session=True,
            )

    @staticmethod
    def _ports(flags: tuple[str, ...]) -> list[str]:
        return [
            f"--{name}=127.0.0.1:{free_port()}"
            for name in ("etcd-listen", "gateway-listen")
            if not any(flag.startswith(f"--{name}") for flag in flags)
        ]

    @property
    def errors(self) -> str:
        return self.error_file.read_text()

    def until(self, words: str, timeout_s: float = 30.0) -> None:
        until_s = time.monotonic() + timeout_s
        while words not in self.errors:
            assert self.process.poll() is None, self.errors
            assert time.monotonic() < until_s, self.errors
            time.sleep(0.01)

    def end(self, timeout_s: float = 30.0) -> int:
        self.process.communicate(timeout=timeout_s)
        return self.process.returncode

    def mine(self) -> set[int]:
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
                    if str(self.data).encode() in (entry / "cmdline").read_bytes() and state not in (b"Z", b"X"):
                        found.add(int(entry.name))
        return found

    def gone(self) -> None:
        until_s = time.monotonic() + 10
        while left := self.mine():
            assert time.monotonic() < until_s, f"orphans: {left}"
            time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def begin(*flags: str, data: str = "data", **options: Any) -> Up:
        started.append(Up(tmp_path / data, *flags, **options))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
    for one in started:
        one.gone()


def lines(folder: Path, name: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return (folder / name).read_text().split()
    return []


def test_it_serves_says_what_listens_where_and_stops_in_order(up: Callable[..., Up]) -> None:
    node = up("--etcd-listen=127.0.0.1:" + (port := str(free_port())))
    node.until("Ctrl-C")
    assert f"http://127.0.0.1:{port}" in node.errors
    assert f"segments://{node.data}/log" in node.errors
    assert "cluster status" in node.errors
    assert "\033[" not in node.errors, "no colour where there is no terminal"
    node.process.send_signal(signal.SIGTERM)
    assert node.end() == 0
    assert len(lines(node.data, "drained")) == 1
    assert len(lines(node.data, "good-stopped")) == 2
    node.gone()


def test_colour_when_it_is_asked_for(up: Callable[..., Up]) -> None:
    node = up("--color=always")
    node.until("Ctrl-C")
    assert "\033[" in node.errors


def test_a_start_after_a_kill_keeps_ids_and_log(up: Callable[..., Up]) -> None:
    first = up()
    first.until("Ctrl-C")
    ids = [(first.data / name).read_text() for name in ("machine-id", "log-id", "token", "operator.key")]
    os.killpg(first.process.pid, signal.SIGKILL)
    second = up()
    second.until("Ctrl-C")
    assert ids == [(second.data / name).read_text() for name in ("machine-id", "log-id", "token", "operator.key")]
    assert len(set(lines(second.data, "good"))) == 4


def test_ctrl_c_stops_it_a_second_one_at_once(up: Callable[..., Up]) -> None:
    node = up(actors="coordination=tests.actors.little:coordination a=tests.actors.little:slow")
    node.until("Ctrl-C")
    node.process.send_signal(signal.SIGINT)
    node.until("handing over")
    node.process.send_signal(signal.SIGINT)
    assert node.end(timeout_s=8) == 130
    node.gone()


def test_one_process(up: Callable[..., Up]) -> None:
    node = up("--one-process")
    node.until("Ctrl-C")
    assert node.mine() == {node.process.pid}
    node.process.send_signal(signal.SIGINT)
    assert node.end() == 0
    assert len(lines(node.data, "good-stopped")) == 2


def test_what_an_actor_refuses_ends_the_node_with_its_code(up: Callable[..., Up]) -> None:
    node = up(actors=LITTLE + " c=tests.actors.little:refusing")
    assert node.end() == 4
    assert "corelog: c: Refused: another node has this machine id" in node.errors
    node.gone()


def test_a_restart_is_a_fact_on_the_log(up: Callable[..., Up]) -> None:
    node = up()
    node.until("Ctrl-C")
    victim = int(lines(node.data, "good")[0])
    os.kill(victim, signal.SIGKILL)
    segment = node.data / "log" / "00000000000000000000.seg"
    until_s = time.monotonic() + 20
    while b"actor.restarted" not in segment.read_bytes():
        assert time.monotonic() < until_s, node.errors
        time.sleep(0.02)
    machine = (node.data / "machine-id").read_text().strip()
    assert f'"subject":"a@{machine}"'.encode() in segment.read_bytes() or f'"subject":"b@{machine}"'.encode() in (
        segment.read_bytes()
    )
    assert f"process {victim} was killed".encode() in segment.read_bytes()
    node.process.send_signal(signal.SIGTERM)
    assert node.end() == 0


# -- what is refused ------------------------------------------------------------------------------------------------


def test_a_second_node_on_the_folder(up: Callable[..., Up]) -> None:
    first = up()
    first.until("Ctrl-C")
    second = up()
    assert second.end() == 4
    assert f"another node runs on {first.data} (process {first.process.pid})" in second.errors
    assert first.process.poll() is None


def test_a_port_in_use_is_told_before_anything_is_made(up: Callable[..., Up]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        node = up(f"--etcd-listen=127.0.0.1:{port}")
        assert node.end() == 4
    assert f"corelog: 127.0.0.1:{port} is in use" in node.errors
    assert "--etcd-listen HOST:PORT" in node.errors
    assert not node.data.exists()


def test_an_address_that_is_not_of_this_machine(up: Callable[..., Up]) -> None:
    node = up("--gateway-listen=192.0.2.1:7379")
    assert node.end() == 2
    assert "can't listen on 192.0.2.1:7379" in node.errors


def test_a_kafka_where_nobody_listens(up: Callable[..., Up]) -> None:
    # kafka-python reads its own files in a deprecated way
    node = up(f"--log=kafka://127.0.0.1:{free_port()}/corelog", warnings="default")
    assert node.end(timeout_s=60) == 5
    assert "can't be reached" in node.errors
    assert "Traceback" not in node.errors
    assert not (node.data / "log-id").exists()


def test_a_folder_of_another_log(up: Callable[..., Up], tmp_path: Path) -> None:
    first = up()
    first.until("Ctrl-C")
    first.process.send_signal(signal.SIGTERM)
    assert first.end() == 0
    other = up(data="other")
    other.until("Ctrl-C")
    other.process.send_signal(signal.SIGTERM)
    assert other.end() == 0
    mixed = up(f"--log=segments://{other.data}/log")
    assert mixed.end() == 4
    assert "belongs to log" in mixed.errors


def test_an_empty_log_where_one_was_joined_before(up: Callable[..., Up], tmp_path: Path) -> None:
    first = up()
    first.until("Ctrl-C")
    first.process.send_signal(signal.SIGTERM)
    assert first.end() == 0
    again = up(f"--log=segments://{tmp_path}/empty")
    assert again.end() == 4
    assert "is empty, but this machine belongs to log" in again.errors


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk(up: Callable[..., Up], tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(small)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        node = up(data="small")
        assert node.end() == 5
        assert "is on a full disk" in node.errors
        assert [path.name for path in small.iterdir()] == ["lock"]
        ballast = os.open(small / "ballast", os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while os.write(ballast, b"x" * 4096):
                pass
        os.close(ballast)
        (small / "lock").unlink()
        again = up(data="small")
        assert again.end() == 5
        assert "full disk" in again.errors or "no space left" in again.errors
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_misspelt_key(up: Callable[..., Up], tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('name = "x"\nleese = "1s"\n')
    node = up(f"--config={tmp_path}/c.toml")
    assert node.end() == 2
    assert "c.toml:2: unknown key 'leese'; did you mean lease?" in node.errors
    assert not node.data.exists()


def test_config_check_starts_nothing(up: Callable[..., Up], tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('name = "x"\n')
    node = up(f"--config={tmp_path}/c.toml", "--config-check")
    assert node.end() == 0
    assert not node.data.exists()


# -- a service manager ----------------------------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd's end of NOTIFY_SOCKET is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def test_a_service_manager_is_told(up: Callable[..., Up], tmp_path: Path, manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    node = up(env=environ, actors=LITTLE + " c=tests.actors.little:environment")
    heard = ""
    while heard.count("WATCHDOG=1") < 3 or "READY=1" not in heard:
        heard += manager.recv(4096).decode() + "\n"
    assert f"MAINPID={node.process.pid}" in heard
    # a unit that an actor starts must not speak for the node
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(lines(node.data, "environment"))
    assert "PATH" in lines(node.data, "environment")
    node.process.send_signal(signal.SIGTERM)
    while "STOPPING=1" not in heard:
        heard += manager.recv(4096).decode() + "\n"
    assert node.end() == 0


def test_a_service_manager_does_not_wait_for_a_log_that_is_away(
    up: Callable[..., Up], tmp_path: Path, manager: socket.socket
) -> None:
    up(env={"NOTIFY_SOCKET": str(tmp_path / "notify")}, actors=LITTLE + " c=tests.actors.little:waiting")
    assert "READY=1\nSTATUS=waiting for c" in manager.recv(4096).decode()


# -- the command line's entry ----------------------------------------------------------------------------------------


def test_help_imports_no_kafka_thespian_or_web_code() -> None:
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "node.cli.main", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert "Start a node on this machine" in found.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in found.stderr.splitlines()}
    assert "cyclopts" in imported
    assert not imported & {
        *("thespian", "kafka", "confluent_kafka", "aiokafka", "faust"),
        *("starlette", "uvicorn", "httpx2", "httptools", "docker", "actors"),
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_family(shell: str) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "node.cli.main", "completion", shell],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    for word in ("up", "cluster", "unit", "gateway-listen", "drain"):
        assert word in found.stdout


@pytest.mark.parametrize("argv", [["nonsense"], ["up", "--nonsense"], ["completion", "tcsh"]])
def test_a_wrong_command_line_exits_with_2(argv: list[str]) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "node.cli.main", *argv], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr


def test_systemd_understands_the_unit_file(tmp_path: Path) -> None:
    analyze = needs.program("systemd-analyze")
    text = (ROOT / "deploy" / "systemd" / "corelog.service").read_text()
    (tmp_path / "corelog.service").write_text(text.replace("/usr/bin/corelog", "/bin/true"))
    found = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / "corelog.service")], capture_output=True, text=True, check=False
    )
    assert "corelog.service" not in found.stderr, found.stderr
    assert found.returncode == 0, found.stderr


def test_the_unit_file_of_systemd_says_what_the_node_does() -> None:
    text = (ROOT / "deploy" / "systemd" / "corelog.service").read_text()
    settings = [line.partition("=")[::2] for line in text.splitlines() if "=" in line and not line.startswith("#")]
    found = dict(settings)
    assert found["Type"] == "notify"
    assert found["KillMode"] == "process", "shims and units must survive a restart of the node"
    assert float(found["WatchdogSec"].removesuffix("s")) >= 10
