"""``/metrics`` of etcd's port, by the names that etcd's alerts and dashboards use. True values only.

On Kafka nothing is made durable here, there is no backend, and there are no peers: their names are left out.
Source of the names: etcd's ``contrib/mixin`` and its documentation of metrics.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from actors.coordination.membership import id_of
from actors.kv import policing
from actors.kv.commands import Commands
from actors.kv.native import is_native
from actors.kv.rpc.maintenance import CLUSTER_VERSION, VERSION
from actors.kv.rpc.service import QUOTA_BYTES, Method
from actors.kv.rpc.v3 import V3
from actors.kv.state import KvFold
from actors.kv.v2.watch import Hub
from actors.setting import Setting
from actors.shell import Shell

#: gRPC's statuses as Go's interceptor names them.
_CODES = (
    "OK Canceled Unknown InvalidArgument DeadlineExceeded NotFound AlreadyExists PermissionDenied ResourceExhausted "
    "FailedPrecondition Aborted OutOfRange Unimplemented Internal Unavailable DataLoss Unauthenticated"
).split()
_TYPES = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}


class Metrics:
    """``text`` reads everything when it is asked; what is counted is counted where it happens."""

    def __init__(self, shell: Shell, fold: KvFold, setting: Setting, commands: Commands, v3: V3, hub: Hub) -> None:
        self._shell, self._fold, self._setting = shell, fold, setting
        self._commands, self._v3, self._hub = commands, v3, hub
        self._first_term = fold.cluster.election.term
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._server()
        yield from self._store()
        yield from self._log()
        yield from self._grpc()
        yield from policing.metrics(self._fold.v3.revs, self._v3.rates)

    def _server(self) -> Iterator[Metric]:
        yield _gauge("corelog_native", "Whether the compiled form of the hot modules runs (make native).", is_native())
        election, replica = self._fold.cluster.election, self._shell.host.replica
        mine = self._setting.machine
        holder = election.holder if self._shell.host.live else ""
        yield _gauge("etcd_server_has_leader", "Whether a leader exists", int(bool(holder)))
        yield _gauge("etcd_server_is_leader", "Whether this member is the leader", int(holder == mine))
        changes = max(0, election.term - self._first_term)
        yield _counter("etcd_server_leader_changes_seen", "Leader changes seen by this process", changes)
        yield _counter("etcd_server_proposals_committed", "Position of the log that is known", replica.offset)
        yield _counter("etcd_server_proposals_applied", "Position of the log that is applied", replica.offset)
        yield _gauge("etcd_server_proposals_pending", "Commands that are not applied yet", self._commands.pending)
        yield _counter("etcd_server_proposals_failed", "Commands refused, or of unknown outcome", self._commands.failed)
        healthy = int(self._shell.host.live and not self._commands.stuck)
        yield _counter("etcd_server_health_success", "1 while the log answers", healthy)
        quota = self._setting.etcd.quota_backend_bytes or QUOTA_BYTES
        yield _gauge("etcd_server_quota_backend_bytes", "Size at which NOSPACE is raised", max(quota, 0))
        for name, labels, value in (
            ("etcd_server_id", {"server_id": f"{id_of(self._fold.cluster.membership, mine):x}"}, 1),
            ("etcd_server_version", {"server_version": VERSION}, 1),
            ("etcd_cluster_version", {"cluster_version": CLUSTER_VERSION.rpartition(".")[0]}, 1),
        ):
            family = GaugeMetricFamily(name, name.replace("_", " "), labels=list(labels))
            family.add_metric(list(labels.values()), value)
            yield family

    def _store(self) -> Iterator[Metric]:
        v3, store = self._fold.v3, self._fold.store
        revs, watches = v3.revs, self._v3.watches
        for name in ("etcd_mvcc_db_total_size_in_bytes", "etcd_mvcc_db_total_size_in_use_in_bytes"):
            yield _gauge(name, "Bytes of all revisions kept", revs.size)
        yield _gauge("etcd_debugging_mvcc_db_total_size_in_bytes", "Bytes of all revisions kept", revs.size)
        yield _gauge("etcd_debugging_mvcc_keys_total", "Keys that live", len(revs.live))
        yield _gauge("etcd_debugging_mvcc_current_revision", "The revision", revs.revision)
        yield _gauge("etcd_debugging_mvcc_compact_revision", "The last compaction", max(revs.compacted, 0))
        for kind in ("etcd_mvcc", "etcd_debugging_mvcc"):
            yield _counter(f"{kind}_put", "Puts since this process began", revs.puts)
            yield _counter(f"{kind}_delete", "Deletions since this process began", revs.deletes)
            yield _counter(f"{kind}_range", "Ranges asked of this member", self._answered("/etcdserverpb.KV/Range"))
            yield _counter(f"{kind}_txn", "Transactions asked of this member", self._answered("/etcdserverpb.KV/Txn"))
        watchers = sum(stream.count for stream in watches.streams)
        yield _gauge("etcd_debugging_mvcc_watch_stream_total", "Watch streams", len(watches.streams))
        yield _gauge("etcd_debugging_mvcc_watcher_total", "Watchers", watchers)
        slow = watchers - watches.index.count
        yield _gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers that read the history", slow)
        yield _gauge("etcd_debugging_lease_total", "Leases", len(v3.leases.by_id))
        yield _gauge("etcd_debugging_store_watchers", "Watchers of v2's keys", self._hub.count)
        yield _gauge("etcd_debugging_store_keys", "v2's keys", len(store.files))

    def _log(self) -> Iterator[Metric]:
        synced = getattr(self._shell.log, "synced", None)  # of the log of files
        if synced is not None:
            name = "etcd_disk_wal_fsync_duration_seconds"
            yield HistogramMetricFamily(
                name, "Syncs of the log's files by this process", synced.buckets(), synced.sum_s
            )

    def _answered(self, path: str) -> int:
        tally = self._v3.http2.tallies.get(path.encode())
        return tally.ok if tally else 0

    def _grpc(self) -> Iterator[Metric]:
        traffic = self._v3.http2.traffic
        yield _counter("etcd_network_client_grpc_received_bytes", "Bytes from gRPC's clients", traffic.received)
        yield _counter("etcd_network_client_grpc_sent_bytes", "Bytes to gRPC's clients", traffic.sent)
        labels = ["grpc_method", "grpc_service", "grpc_type"]
        started = CounterMetricFamily("grpc_server_started", "Calls begun", labels=labels)
        handled = CounterMetricFamily("grpc_server_handled", "Calls answered", labels=[*labels, "grpc_code"])
        took = HistogramMetricFamily("grpc_server_handling_seconds", "How long calls took", labels=labels)
        for path, method in self._v3.methods.items():
            tally = self._v3.http2.tally(path.encode())
            values = _labels(method)
            started.add_metric(values, tally.started)
            if tally.took is not None:
                took.add_metric(values, tally.took.buckets(), tally.took.sum_s)
            for code, count in {0: tally.ok, **tally.failed}.items():
                name = _CODES[code] if 0 <= code < len(_CODES) else str(code)
                handled.add_metric([*values, name], count)
        yield started
        yield handled
        if took.samples:
            yield took


def _labels(method: Method) -> list[str]:
    _, service, name = method.path.split("/")
    return [name, service, _TYPES[method.asks_many, method.answers_many]]


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)
