"""Policies of prefixes as pages and metrics: what is set, and what is used of it.

``/internal/policies`` on the node's own socket: GET lists them, POST ``{"set": …}`` or ``{"remove": …}`` changes one
and is answered when it is applied. The gateway's ``/v1/policies`` and ``corelog kv policy`` ask here.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from actors.kv.commands import Commands, NotSent, OutcomeUnknown, Reads
from actors.kv.exchange import JSON, Exchange
from actors.kv.keys import envelope
from actors.kv.rpc.rates import Rates
from actors.kv.v2 import request
from actors.kv.v2.errors import V2Error
from actors.kv.v3.policies import Policy, shown
from actors.kv.v3.revs import Revs
from streams.events import kv3 as says
from streams.events.base import Blob, Data
from streams.outcomes import Rejected
from streams.replay import Applied

PATH = "/internal/policies"
#: HTTP's status of a refusal, by its code; others are 409.
STATUS = {"kv-policy.unknown": 404, "kv-policy.bad": 400, "kv-policy.nothing": 400}


class Row(msgspec.Struct):
    """A policy as it is shown. ``compacted``: revisions below it can't be read; 0: all can."""

    prefix: Blob
    max_bytes: int
    writes_per_s: float
    burst: int
    keep_age_s: int
    keep_bytes: int
    live_bytes: int
    history_bytes: int
    compacted: int


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """One of the two."""

    set: says.PolicySet | None = None
    remove: says.PolicyRemove | None = None

    @property
    def event(self) -> Data:
        """Raises ValidationError."""
        found = self.set or self.remove
        if found is None or (self.set and self.remove):
            raise msgspec.ValidationError("a change is set or remove")
        return found


def rows(revs: Revs) -> list[Row]:
    """By prefix, in order."""
    return [_row(revs, policy) for policy in _policies(revs)]


def _row(revs: Revs, policy: Policy) -> Row:
    limits = policy.limits
    return Row(
        limits.prefix,
        limits.max_bytes,
        limits.writes_per_s,
        limits.burst,
        limits.keep_age_s,
        limits.keep_bytes,
        policy.live_bytes,
        policy.history_bytes,
        max(0, revs.limit(policy.prefix, b"")),
    )


def _policies(revs: Revs) -> Iterator[Policy]:
    return iter(revs.policies.by_prefix.values() if revs.policies is not None else ())


class Page:
    def __init__(self, revs: Revs, commands: Commands, reads: Reads, offset: Callable[[], int]) -> None:
        self._revs, self._commands, self._reads, self._offset = revs, commands, reads, offset

    def serve(self, exchange: Exchange) -> None:
        if exchange.method == "GET":
            self._reads.linearizable(lambda error: self._list(exchange, error))
        elif exchange.method == "POST":
            self._change(exchange)
        else:
            _answer(exchange, {"message": "GET or POST"}, 405)

    def _list(self, exchange: Exchange, error: NotSent | None) -> None:
        if error is not None:
            _answer(exchange, {"message": str(error)}, error.status)
        else:
            _answer(exchange, {"offset": self._offset(), "policies": rows(self._revs)})

    def _change(self, exchange: Exchange) -> None:
        try:
            data = msgspec.json.decode(exchange.body, type=Change).event
            event = envelope(exchange, request.Command(data))
        except (msgspec.DecodeError, UnicodeDecodeError, V2Error) as error:
            _answer(exchange, {"message": getattr(error, "cause", "") or str(error)}, 400)
            return

        def came(result: Applied | NotSent | OutcomeUnknown) -> None:
            if not isinstance(result, Applied):
                _answer(exchange, {"message": str(result)}, result.status)
                return
            position, outcome = str(result.position), result.outcome
            if isinstance(outcome, Rejected):
                told = {"code": outcome.code, "message": outcome.message, "position": position}
                _answer(exchange, told, STATUS.get(outcome.code, 409))
            else:
                _answer(exchange, {"position": position})

        self._commands.submit(event, len(exchange.body) + 200, came)


def _answer(exchange: Exchange, data: Any, status: int = 200) -> None:
    exchange.respond(status, JSON, msgspec.json.encode(data) + b"\n")


def metrics(revs: Revs, rates: Rates) -> Iterator[Metric]:
    """Of each prefix with a policy. Nothing where there is none."""
    known = list(_policies(revs))
    if not known:
        return
    gauges: tuple[tuple[str, str, Callable[[Policy], float]], ...] = (
        ("live_bytes", "Bytes of keys and values that live", lambda one: one.live_bytes),
        ("history_bytes", "Bytes of revisions that a compaction would give back", lambda one: one.history_bytes),
        ("max_bytes", "Bytes that may live, 0: no limit", lambda one: one.limits.max_bytes),
        ("keep_bytes", "Bytes that the history may have, 0: no limit", lambda one: one.limits.keep_bytes),
        ("writes_per_second_max", "Writes a second, 0: no limit", lambda one: one.limits.writes_per_s),
        ("compact_revision", "Revisions below can't be read", lambda one: max(0, revs.limit(one.prefix, b""))),
    )
    for name, text, value in gauges:
        gauge = GaugeMetricFamily(f"corelog_kv_prefix_{name}", text, labels=["prefix"])
        for one in known:
            gauge.add_metric([_label(one.prefix)], value(one))
        yield gauge
    writes = CounterMetricFamily(
        "corelog_kv_prefix_puts", "Puts of its keys that this process applied", labels=["prefix"]
    )
    refused = CounterMetricFamily(
        "corelog_kv_prefix_refused", "Writes that this node refused, too many in a time", labels=["prefix"]
    )
    for one in known:
        writes.add_metric([_label(one.prefix)], one.puts)
        refused.add_metric([_label(one.prefix)], rates.refused.get(one.prefix, 0))
    yield writes
    yield refused


def _label(prefix: bytes) -> str:
    """Text as it is; what is none by its bytes."""
    try:
        return prefix.decode()
    except UnicodeDecodeError:
        return shown(prefix)
