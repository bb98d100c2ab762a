"""What is changed in Thespian 4.0.1, and why (each is a test in tests/actors/test_supervision.py).

- Its transport listens on all addresses and unpickles what anybody sends. Here it listens on 127.0.0.1 alone, and
  every message is sealed with a key that only processes forked by this node have; others are never unpickled.
- ``ActorSystem`` silently joins an admin that already listens on its port. Here that is :class:`PortTaken`.
- Processes live on for 30 s when their admin was killed. Here each dies with its parent and holds the node's lock.
- It logs to a file in /tmp, sets TZ, asks DNS for the machine's name while it is imported, lets sockets go unclosed.
  Not here.
"""

import contextlib
import hmac
import logging
import os
import pickle
import signal
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from actors.supervision import process
from actors.supervision.board import ADMIN, Board, Note


@contextlib.contextmanager
def _without_dns() -> Iterator[None]:
    """Importing Thespian asks DNS for this machine's names: many seconds where DNS doesn't answer."""
    kept = socket.gethostname, socket.getfqdn
    socket.gethostname, socket.getfqdn = (lambda: "localhost"), (lambda name="": "localhost")
    try:
        yield
    finally:
        socket.gethostname, socket.getfqdn = kept


with _without_dns():
    from thespian.system.transport import IPBase, TCPTransport

from thespian.system import multiprocCommon, multiprocTCPBase, systemBase  # noqa: E402
from thespian.system.utilis import thesplog_control  # noqa: E402


class Here(NamedTuple):
    """What every process of a node has from its main process, by fork: never sent, never on disk."""

    board: Board
    main_pid: int
    key: bytes
    one_process: bool
    #: takes this process's share of the node's lock
    hold: Callable[[], None]


_here: Here | None = None


def settle(made: Here) -> None:
    """Called in the main process, before the first fork."""
    global _here
    _here = made


def here() -> Here:
    assert _here is not None, "no node was started in this process or before it was forked"
    return _here


class PortTaken(Exception):
    """Somebody else listens on the port that was meant for this node's admin."""


class _Sealed:
    """Thespian's serializer: pickles behind an HMAC-SHA256. What isn't sealed with our key is never unpickled."""

    def dumps(self, message: Any) -> bytes:
        raw = pickle.dumps(message)
        return hmac.digest(here().key, raw, "sha256") + raw

    def loads(self, raw: bytes) -> Any:
        if raw in _PLAIN:
            return _PLAIN[raw]
        seal, message = raw[:32], raw[32:]
        if not hmac.compare_digest(seal, hmac.digest(here().key, message, "sha256")):
            raise ValueError("a message that was not sealed by this node")
        return pickle.loads(message)


#: Thespian's acknowledgements are constants, pickled when it is imported.
_PLAIN = {pickle.dumps(text): text for text in ("ACK", "ACK+DATAERR")}

_address_init = IPBase.IPActorAddress.__init__


def _local_address(
    self: Any, af: int, socktype: int, proto: int, baseaddr: str | None, port: int, external: object = False
) -> None:
    _address_init(self, af, socktype, proto, baseaddr or "127.0.0.1", port, external)


class NodeTransport(TCPTransport.TCPTransport):  # type: ignore[misc]
    """Thespian makes one as the first thing in each process that it forks: the place to become a part of the node."""

    def __init__(self, init: Any, *arguments: Any) -> None:
        if isinstance(init, TCPTransport.TCPEndpoint):
            assigned, admin = init.args[1], init.args[3]
            _enter(is_admin=assigned == admin)
        super().__init__(init, *arguments)

    def probeAdmin(self, address: Any) -> bool:
        """Called before an admin is started: True would mean to join whoever listens there."""
        if here().board.read(ADMIN).pid == 0 and super().probeAdmin(address):
            raise PortTaken(f"{address} is taken by another program")
        return bool(super().probeAdmin(address))


_transport_close = TCPTransport.TCPTransport.close


def _close_socket(holder: Any) -> None:
    opened = getattr(holder, "socket", holder)
    if opened is not None and hasattr(opened, "shutdown"):
        with contextlib.suppress(OSError):
            opened.shutdown(socket.SHUT_RDWR)
        opened.close()


def _close_transport(transport: Any) -> None:
    for kept in getattr(transport, "_openSockets", {}).values():
        _close_socket(kept)
    _transport_close(transport)


def _enter(is_admin: bool) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main_pid = here().main_pid
    if is_admin:
        process.wait_until_adopted_by(main_pid)
        process.die_with_parent(main_pid)
        here().board.write(ADMIN, Note(pid=os.getpid(), state="running"))
    else:
        parent = os.getppid()
        # with its parent gone it would be the main process's child, its subreaper's
        process.die_with_parent(parent if parent != main_pid else -1)
    here().hold()


def _patch() -> None:
    TCPTransport.serializer = _Sealed()
    IPBase.IPActorAddress.__init__ = _local_address
    IPBase.IPActorAddress.bindArgs = property(lambda self: (("127.0.0.1", self.sockname[1]),))
    multiprocTCPBase.ActorSystemBase.transportType = NodeTransport
    # a busy machine is no reason to give up
    multiprocCommon.MAX_ADMIN_STARTUP_DELAY = timedelta(seconds=30)
    systemBase.MAX_ADMIN_STATUS_REQ_DELAY = timedelta(seconds=20)
    systemBase.ensure_TZ_set = lambda: None
    # it forgets to close what it lets go
    TCPTransport._safeSocketShutdown = _close_socket
    TCPTransport.TCPTransport._safeSocketShutdown = staticmethod(_close_socket)
    TCPTransport.TCPTransport.close = _close_transport
    # it starts a new logger under a name that it never set, and would die of it
    multiprocCommon.MultiProcAdmin.logDefs = property(lambda self: self.logdefs)
    thesplog_control(logging.CRITICAL + 1, False, 0)


_patch()
