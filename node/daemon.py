"""``corelog up``: one node, from its settings to its end.

Order: look (is the folder used, are the ports free?), claim the data folder, open or found the log in a child process
that ends again, fork the actors, wait for signals. Nothing is started or changed before what can be refused is
refused. This process starts no thread: it is what the actors are forked from.

When the log is sealed (``corelog log move``) the actors end, a child waits for the other log or finishes the move, and
all is made anew on that log, from the claim of the data folder on; units run on meanwhile.
"""

import contextlib
import errno
import importlib
import importlib.metadata
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import structlog

from actors.kv import places
from actors.setting import Setting
from actors.supervision.board import Note
from actors.supervision.messages import FIVE, Spec
from actors.supervision.process import die_with_parent
from actors.supervision.supervisor import Supervisor
from node import banner, logmove, output
from node.config import Config
from node.discovery.bootstrap import discover
from node.identity import DataFolder
from node.systemd import Notifier
from streams.log.open import load

#: What a node runs: the five actors and what people meet.
ACTORS = (*FIVE, Spec("gateway", "node.gateway.server:serve"))
#: What a read replica runs: it joins nothing, so there is nothing to coordinate, place or update.
REPLICA = tuple(spec for spec in ACTORS if spec.name in ("kv", "gateway"))

DRAIN_S, STOP_S = 3.0, 10.0
#: With a log that can't be reached the node does what it can; a service manager need not wait for it.
READY_ANYWAY_S = 10.0
INTERRUPTED = 130


class Refused(Exception):
    """The node can't start; nothing was started."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def version() -> str:
    try:
        return importlib.metadata.version("corelog")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def up(config: Config, actors: Sequence[Spec] = ()) -> int:
    """Run a node until it is told to end; returns the exit code. Raises Refused, FolderError, DiscoveryError (see
    their ``exit_code``)."""
    began_s = time.monotonic()
    actors = actors or (REPLICA if config.replica else ACTORS)
    output.set_up(config.color)
    _look(config)
    notifier = Notifier()
    while True:
        with DataFolder(config.folder) as folder:
            for spec in actors:
                importlib.import_module(spec.serve.partition(":")[0])
            if config.discovery:
                notifier.status("looking for the cluster by its discovery token")
                discover(config, folder)
            load(config.log_address)
            log = _log_known(config, folder)
            setting = config.setting(folder, log.log_id, log.operator_key, version(), log.checked)
            code = Node(config, setting, folder, actors, notifier).run(began_s)
        if code is not None:
            return code
        began_s = time.monotonic()


# -- before anything starts -----------------------------------------------------------------------------------------


def _look(config: Config) -> None:
    """Refuse what can't go well. Raises FolderError (a node runs there), Refused (a port is in use)."""
    DataFolder.refuse_if_used(config.folder)
    etcd = config.serving
    listened = [*config.etcd_listen, *etcd.listen_client_http_urls, *etcd.listen_metrics_urls]
    found = [places.parse(text) for text in listened]
    options = [("--etcd-listen", f"{at.host or '0.0.0.0'}:{at.port}") for at in found if not at.path]
    options += [("--gateway-listen", at) for at in config.gateway_listen]
    for option, at in options:
        _try_port(option, at)


def _try_port(option: str, at: str) -> None:
    host, _, port = at.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except socket.gaierror as error:
            raise Refused(f"{at}: {host} is no address of this machine ({error.strerror}); see {option}", 2) from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Refused(
                    f"{at} is in use by another program (ss -ltnp sport = :{port} names it): stop it, or listen "
                    f"elsewhere with {option} HOST:PORT",
                    4,
                ) from error
            raise Refused(f"can't listen on {at}: {error.strerror}; see {option}", 2) from error


class _Answer(msgspec.Struct):
    """What the child that opened the log says. ``error`` empty: all is well."""

    log_id: str = ""
    operator_key: str = ""
    checked: str = ""
    error: str = ""
    exit_code: int = 1
    unreachable: bool = False


def _log_known(config: Config, folder: DataFolder) -> _Answer:
    """The log's id and its operator's public key; the log is founded if it is new. Raises Refused, FolderError.

    A machine that has joined before starts also when the log can't be reached now: its units must be looked after.
    """
    known = folder.log_id
    answer = _in_child(lambda: _open(config, folder, known))
    if answer.unreachable and known:
        structlog.get_logger(actor="node").warning(
            "the log can't be reached now; starting all the same", error=answer.error
        )
        return _Answer(known, folder.known_operator_key)
    if answer.error:
        raise Refused(answer.error, answer.exit_code)
    folder.join(answer.log_id, answer.operator_key)
    # a log whose founding record was trimmed away doesn't tell its operator any more
    answer.operator_key = answer.operator_key or folder.known_operator_key
    return answer


def _in_child(work: Callable[[], _Answer], wait: Callable[[int], bool] = lambda _pipe: True) -> _Answer:
    """Work with the log in a process of its own: drivers start threads, and this process must stay without.

    ``wait(pipe)`` is called until the child's answer is there; False: the child is killed.
    """
    out, into = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(out)
            die_with_parent(parent)
            os.write(into, msgspec.json.encode(work()))
        finally:
            os._exit(0)
    os.close(into)
    raw = b""
    ended = False
    try:
        with open(out, "rb") as pipe:
            if wait(out):
                raw = pipe.read()
                ended = True
    finally:
        if not ended:
            os.kill(pid, signal.SIGKILL)
        _, code = os.waitpid(pid, 0)
    if not ended:
        return _Answer(error="interrupted", exit_code=INTERRUPTED)
    if not raw:
        return _Answer(error=f"opening the log ended without an answer (status {code})")
    return msgspec.json.decode(raw, type=_Answer)


def _open(config: Config, folder: DataFolder, known: str) -> _Answer:
    import asyncio

    from streams.log.port import LogUnavailable

    try:
        return asyncio.run(_found(config, folder, known))
    except LogUnavailable as error:
        return _Answer(
            error=f"the log at {config.log_address} can't be reached: {error}", exit_code=5, unreachable=True
        )
    except Exception as error:
        return _Answer(error=str(error) or repr(error), exit_code=int(getattr(error, "exit_code", 1)))


async def _found(config: Config, folder: DataFolder, known: str) -> _Answer:
    from actors.coordination.admission import Nonces, admit
    from streams.log.founding import found, identity
    from streams.log.open import check_of, open_log

    if config.replica and Nonces(str(config.folder)).read():
        raise Refused(
            f"{config.folder} is the data folder of a machine that joined the cluster: give the replica another one",
            4,
        )
    log = await open_log(config.log_address, config.log_place.options)
    try:
        old = known or config.replica
        opened = await identity(log) if old else await found(log, folder.operator_public_key())
        if opened is None and not known:
            raise Refused(
                f"the log at {config.log_address} is empty: a replica begins none, start a node of role control first",
                4,
            )
        if opened is None:
            raise Refused(
                f"the log at {config.log_address} is empty, but this machine belongs to log {known}: bring that log "
                f"back (its files or topic), or remove {config.folder / 'log-id'} to join this one as a new machine",
                4,
            )
        setting = config.setting(folder, opened.id, opened.operator_key, version())
        if not setting.alone and not setting.replica:
            # the first record of an actor would end its namesake: a copy of a live machine must not get that far
            await admit(setting, log, Nonces(setting.folder).read())
        return _Answer(opened.id, opened.operator_key, check_of(log))
    finally:
        await log.close()


def _follow(folder: Path, place: logmove.Place, log_id: str, note: Note) -> _Answer:
    import asyncio

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # this process ends with its parent
    try:
        asyncio.run(logmove.follow(folder, place, log_id, note.sealed_at, note.next_log))
        return _Answer(log_id)
    except Exception as error:
        return _Answer(error=str(error) or repr(error), exit_code=int(getattr(error, "exit_code", 1)))


# -- running --------------------------------------------------------------------------------------------------------


class Node:
    """The main process while the node runs."""

    def __init__(
        self, config: Config, setting: Setting, folder: DataFolder, actors: Sequence[Spec], notifier: Notifier
    ) -> None:
        self._config = config
        self._setting = setting
        self._notifier = notifier
        self._sealed: Note | None = None
        self._supervisor = Supervisor(actors, setting, config.one_process, folder.hold)
        self._signals: list[int] = []
        self._wakeup_out, self._wakeup_in = socket.socketpair()
        self._logger = structlog.get_logger(actor="node")
        self._ready = self._announced = False

    def run(self, began_s: float) -> int | None:
        """The exit code; None when the log goes on elsewhere, and the node is to be made anew."""
        self._listen()
        try:
            place = self._config.log_place
            self._supervisor.start()
            code = self._watch(began_s)
            if self._sealed is None:
                return self._end(code)
            return self._go_on(place, self._sealed)
        finally:
            self._deafen()

    def _go_on(self, place: logmove.Place, sealed: Note) -> int | None:
        """End the actors, and wait until the log goes on at its other address. A signal ends the node."""
        self._logger.info(
            "the log was sealed, the node goes on with the other", at=sealed.sealed_at, log=sealed.next_log
        )
        self._notifier.status(f"the log is moved to {sealed.next_log}")
        self._supervisor.stop(STOP_S, (self._wakeup_out.fileno(),), lambda: bool(self._signals))

        def wait(pipe: int) -> bool:
            poll = select.poll()
            poll.register(pipe, select.POLLIN)
            poll.register(self._wakeup_out, select.POLLIN)
            while not self._signals:
                self._notifier.alive()
                if any(fd == pipe for fd, _ in poll.poll(1000)):
                    return True
                self._hear()
            self._notifier.stopping()
            return False

        folder = self._config.folder
        answer = _in_child(lambda: _follow(folder, place, self._setting.log_id, sealed), wait)
        if self._signals:
            return 0
        if answer.error:
            print(f"corelog: the log was sealed, and can't be moved on: {answer.error}", file=sys.stderr)
            return answer.exit_code
        return None

    def _watch(self, began_s: float) -> int | None:
        """Until a signal (None) or until an actor ends for a reason that ends the node (its exit code)."""
        supervisor = self._supervisor
        while not self._signals:
            supervisor.turn(1.0, (self._wakeup_out.fileno(),))
            self._hear()
            if (failed := supervisor.failed) is not None:
                name, note = failed
                if note.next_log:
                    self._sealed = note
                    return note.exit_code
                print(f"corelog: {name}: {note.words}", file=sys.stderr)
                return note.exit_code or 1
            if not self._announced and supervisor.live:
                self._announced = self._ready = True
                took_s = time.monotonic() - began_s
                banner.serving(self._config, self._setting.machine, self._setting.log_id, took_s)
                self._notifier.ready("serving")
            elif not self._ready and time.monotonic() - began_s > READY_ANYWAY_S:
                self._ready = True
                waiting = ", ".join(
                    name for name, note in supervisor.notes.items() if note.report.get("live") is not True
                )
                self._logger.warning("running, but not all is live yet", waiting_for=waiting)
                self._notifier.ready(f"waiting for {waiting}")
            self._notifier.alive()
        return None

    def _end(self, code: int | None) -> int:
        """Hand over, stop, in order; a second signal ends all at once."""
        self._notifier.stopping()
        also = (self._wakeup_out.fileno(),)
        asked = len(self._signals)

        def hurry() -> bool:
            self._hear()
            self._notifier.alive()
            return len(self._signals) > asked

        if code is None:
            print("corelog: handing over and stopping (again: at once)", file=sys.stderr)
            self._supervisor.drain(DRAIN_S, also, hurry)
        in_order = self._supervisor.stop(STOP_S if code is None else 2.0, also, hurry)
        if hurry_asked := len(self._signals) > asked:
            self._logger.warning("stopped at once")
        elif not in_order and code is None:
            self._logger.warning("some actors had to be killed", after_s=STOP_S)
        return INTERRUPTED if hurry_asked else code or 0

    # -- signals

    def _listen(self) -> None:
        for end in (self._wakeup_out, self._wakeup_in):
            end.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: self._signals.append(number))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup_in.fileno(), warn_on_full_buffer=False)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wakeup_out.recv(4096):
                pass

    def _deafen(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._wakeup_out.close()
        self._wakeup_in.close()
