"""``/livez`` and ``/readyz``, with a page for each check below them, as etcd 3.7 has them.

``exclude=CHECK`` leaves one out, ``verbose`` names those that are well; those that aren't are told anyway.
"""

from urllib.parse import parse_qs

from actors.coordination.membership import is_learner
from actors.kv.commands import NotSent, Reads
from actors.kv.exchange import TEXT, Exchange
from actors.kv.state import KvFold
from actors.kv.v3 import errors
from actors.kv.v3.store import CORRUPT

_CHECKS = {
    "livez": ("serializable_read",),
    "readyz": ("data_corruption", "serializable_read", "linearizable_read", "non_learner"),
}
#: As Go's errors have it.
_HEAD = TEXT + b"X-Content-Type-Options: nosniff\r\n"


def asked(path: str) -> tuple[str, ...]:
    """The checks of a page; none: there is no such page."""
    _, page, *rest = path.split("/")
    checks = _CHECKS.get(page, ())
    if not rest:
        return checks
    return (rest[0],) if len(rest) == 1 and rest[0] in checks else ()


class Probes:
    """``machine``: this one, which may be a learner."""

    def __init__(self, fold: KvFold, reads: Reads, machine: str) -> None:
        self._fold, self._reads, self._machine = fold, reads, machine

    def serve(self, exchange: Exchange, checks: tuple[str, ...]) -> None:
        query = parse_qs(exchange.query.decode("latin-1"), keep_blank_values=True)
        if len(checks) > 1:
            checks = tuple(check for check in checks if check not in query.get("exclude", []))

        def answer(error: NotSent | None) -> None:
            failed = [self._why(check, error) for check in checks]
            lines = [
                f"[-]{check} failed: {why}\n" if why else f"[+]{check} ok\n"
                for check, why in zip(checks, failed, strict=True)
            ]
            if any(failed):
                exchange.respond(503, _HEAD, "".join([*lines, "\n"]).encode())
            else:
                exchange.respond(200, _HEAD, "".join([*(lines if "verbose" in query else []), "ok\n"]).encode())

        if "linearizable_read" in checks:
            self._reads.linearizable(answer)
        else:
            answer(None)

    def _why(self, check: str, error: NotSent | None) -> str:
        """Why it isn't well; empty: it is. ``error``: of a linearizable read; that this is told is the other one."""
        match check:
            case "data_corruption" if any(kind == CORRUPT for kind, _ in self._fold.v3.alarms):
                return "alarm activated: CORRUPT"
            case "linearizable_read" if not self._fold.cluster.election.holder:
                return errors.NO_LEADER.message
            case "linearizable_read" if error is not None:
                return str(error)
            case "non_learner" if is_learner(self._fold.cluster.membership, self._machine):
                return "not supported for learner"
            case _:
                return ""
