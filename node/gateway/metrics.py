"""``/metrics``: Prometheus' text format, true values only."""

import time

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.requests import Request
from starlette.responses import Response

from .context import Context, context


class _Collector:
    def __init__(self, here: Context) -> None:
        self._here = here

    def collect(self) -> list[Metric]:
        host = self._here.shell.host
        log, control = host.replica.log, host.replica.fold.state  # type: ignore[attr-defined]
        election = control.cluster.election
        machines = list(control.cluster.machines.values())
        gauge, counter = GaugeMetricFamily, CounterMetricFamily
        runs = [run.state for by_machine in control.engines.runs.values() for run in by_machine.values()]
        states = gauge("corelog_unit_runs", "Runs of units by state", labels=["state"])
        for state in sorted(set(runs)):
            states.add_metric([state], runs.count(state))
        restarts = counter("corelog_actor_restarts", "Restarts of actors told on the log", labels=["writer"])
        for writer, count in log.restarts.items():
            restarts.add_metric([writer], count)
        return [
            gauge("corelog_log_offset", "Offset of the last record applied", log.offset),
            counter("corelog_events_applied", "Events applied by the control fold", log.events),
            gauge("corelog_log_latency_seconds", "Append to apply of the last own record", host.log_latency_s),
            gauge("corelog_live", "1 if this gateway may publish", int(host.live)),
            gauge("corelog_term", "Term of the election", election.term),
            gauge("corelog_is_master", "1 on the master's machine", int(election.holder == self._here.setting.machine)),
            gauge("corelog_machines", "Machines joined", len(machines)),
            gauge("corelog_machines_alive", "Machines alive", sum(machine.alive for machine in machines)),
            gauge("corelog_units", "Units submitted", len(control.units.units)),
            counter("corelog_foreign_records", "Records that aren't ours", log.foreign),
            counter("corelog_void_incarnations", "Records of incarnations that were over", log.void_incarnations),
            counter(
                "corelog_repeated_records",
                "Records that came twice, and count once",
                sum(opened.repeats for opened in log.writers.values()),
            ),
            counter("corelog_void_terms", "Facts of masters whose term was over", log.void_terms),
            gauge("corelog_time_seconds", "Running maximum of record times", log.time_ms / 1000),
            gauge("corelog_scrape_time_seconds", "Wall clock of this scrape", time.time()),
            states,
            restarts,
        ]


async def metrics(request: Request) -> Response:
    """Metrics of the control fold on this node."""
    registry = CollectorRegistry()
    registry.register(_Collector(context(request)))
    return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")


async def health(request: Request) -> Response:
    """200 while this node may publish and read, 503 otherwise."""
    live = context(request).shell.host.live
    return Response(
        b'{"health":"true"}' if live else b'{"health":"false"}', 200 if live else 503, media_type="application/json"
    )
