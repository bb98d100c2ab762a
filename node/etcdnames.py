"""The names of etcd's settings, by what they mean here, each with how its value is read.

Every name that etcd 3.4, 3.5 or 3.7 knows is known. One without a meaning on a log (raft, WAL, peers) is taken with a
warning, if its value is one that etcd takes; an unknown one is refused. Source: ``etcd --help`` of the three lines, and
etcd's configuration guide.
"""

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

from actors.kv.durations import duration_s
from node.etcdvalues import (
    cost,
    eased_cost,
    eased_metrics,
    eased_token,
    log_level,
    members,
    one_of,
    signed,
    suites,
    text_of,
    texts,
    token,
    told_urls,
    truth,
    unsigned,
    unsigned32,
    urls,
    whole,
)


class FlagError(Exception):
    """A flag, variable or line of a file is wrong; the message names it. Nothing was started."""

    exit_code = 2


class Given(NamedTuple):
    """One setting. ``place``: the flag, variable or line, for messages."""

    name: str
    text: str
    place: str


class Flag(NamedTuple):
    """``field``: of :class:`actors.setting.Etcd`; empty: told to another part, or to none."""

    read: Callable[[str], Any]
    field: str = ""


def _named(names: str, read: Callable[[str], Any], seconds: bool = False) -> dict[str, Flag]:
    return {name: Flag(read, name.replace("-", "_") + "_s" * seconds) for name in names.split()}


def retention(text: str) -> str:
    """``12h``, ``72`` (hours, or revisions); nothing: 0. Raises ValueError."""
    if text and not (text.isascii() and text.isdigit()):
        duration_s(text)
    return text


#: What has a meaning here.
SERVING: dict[str, Flag] = {
    **_named("advertise-client-urls initial-advertise-peer-urls", told_urls),
    **_named("listen-client-http-urls listen-metrics-urls", urls),
    **_named("initial-cluster", members),
    **_named("initial-cluster-state", one_of("new", "existing")),
    **_named("cert-file key-file trusted-ca-file client-crl-file", text_of),
    **_named("client-cert-auth auto-tls enable-grpc-gateway", truth),
    **_named("client-cert-allowed-cn client-cert-allowed-hostname host-whitelist cors", texts),
    **_named("cipher-suites", suites),
    **_named("metrics", one_of("basic", "extensive")),
    **_named("tls-min-version", one_of("TLS1.2", "TLS1.3")),
    **_named("tls-max-version", one_of("", "TLS1.2", "TLS1.3")),
    **_named("auth-token-ttl max-txn-ops max-request-bytes", unsigned),
    **_named("self-signed-cert-validity", whole(0, 292)),  # as many years as Go's durations hold
    **_named("max-concurrent-streams", unsigned32),
    **_named("quota-backend-bytes", signed),
    **_named("auth-token", token),
    **_named("bcrypt-cost", cost),
    **_named("grpc-keepalive-min-time grpc-keepalive-interval grpc-keepalive-timeout", duration_s, seconds=True),
    **_named("watch-progress-notify-interval", duration_s, seconds=True),
    **_named("auto-compaction-mode", one_of("periodic", "revision")),
    **_named("auto-compaction-retention", retention),
}
#: Told to the node: where, who, on which log.
NODE: dict[str, Flag] = {
    "name": Flag(text_of),
    "data-dir": Flag(text_of),
    "listen-client-urls": Flag(urls),
    "discovery": Flag(text_of),
    "discovery-fallback": Flag(one_of("proxy", "exit")),
    "discovery-proxy": Flag(text_of),
    "discovery-token": Flag(text_of),
    "discovery-srv": Flag(text_of),
}
SAME = {"experimental-watch-progress-notify-interval": "watch-progress-notify-interval"}


def _all(names: str, read: Callable[[str], Any]) -> dict[str, Callable[[str], Any]]:
    return dict.fromkeys(names.split(), read)


#: What a log has no use for.
MEANINGLESS: dict[str, Callable[[str], Any]] = {
    **_all(
        """
        debug enable-log-rotation enable-pprof enable-v2 experimental-compact-hash-check-enabled
        experimental-distributed-tracing enable-distributed-tracing experimental-enable-distributed-tracing
        experimental-enable-lease-checkpoint experimental-enable-lease-checkpoint-persist
        experimental-initial-corrupt-check experimental-memory-mlock experimental-peer-skip-client-san-verification
        experimental-stop-grpc-service-on-defrag experimental-txn-mode-write-with-shared-buffer force-new-cluster
        initial-election-tick-advance memory-mlock peer-auto-tls peer-client-cert-auth
        peer-skip-client-san-verification pre-vote socket-reuse-address socket-reuse-port strict-reconfig-check
        unsafe-no-fsync discovery-insecure-skip-tls-verify discovery-insecure-transport
        """,
        truth,
    ),
    **_all(
        """
        bootstrap-defrag-threshold-megabytes experimental-bootstrap-defrag-threshold-megabytes election-timeout
        heartbeat-interval max-snapshots max-wals proxy-dial-timeout proxy-failure-wait proxy-read-timeout
        proxy-refresh-interval proxy-write-timeout snapshot-catchup-entries experimental-snapshot-catchup-entries
        snapshot-count
        """,
        unsigned,
    ),
    **_all(
        """
        backend-batch-limit compaction-batch-limit experimental-compaction-batch-limit max-learners
        experimental-max-learners distributed-tracing-sampling-rate experimental-distributed-tracing-sampling-rate
        """,
        signed,
    ),
    **_all(
        """
        backend-batch-interval compact-hash-check-time compaction-sleep-interval corrupt-check-time
        discovery-dial-timeout discovery-keepalive-time discovery-keepalive-timeout discovery-request-timeout
        downgrade-check-time experimental-compact-hash-check-time experimental-compaction-sleep-interval
        experimental-corrupt-check-time experimental-downgrade-check-time experimental-warning-apply-duration
        experimental-warning-unary-request-duration raft-read-timeout raft-write-timeout warning-apply-duration
        warning-unary-request-duration
        """,
        duration_s,
    ),
    **_all("log-level", log_level),
    **_all(
        """
        backend-bbolt-freelist-type client-cert-file client-key-file discovery-cacert discovery-cert
        discovery-endpoints discovery-key discovery-password discovery-srv-name discovery-user
        distributed-tracing-address distributed-tracing-instance-id distributed-tracing-service-name
        experimental-backend-bbolt-freelist-type experimental-distributed-tracing-address
        experimental-distributed-tracing-instance-id experimental-distributed-tracing-service-name
        experimental-enable-v2v3 feature-gates initial-cluster-token listen-peer-urls log-format log-outputs
        log-package-levels log-rotation-config-json logger peer-cert-allowed-cn peer-cert-allowed-hostname
        peer-cert-file peer-client-cert-file peer-client-key-file peer-crl-file peer-key-file peer-trusted-ca-file proxy
        v2-deprecation wal-dir
        """,
        text_of,
    ),
}
#: What etcd takes with a warning, or in silence, and reads as something else: that text, and the warning.
EASED: dict[str, Callable[[str], tuple[str, str]]] = {
    "bcrypt-cost": eased_cost,
    "metrics": eased_metrics,
    "auth-token": eased_token,
}
#: Given with each member as a rule, and right to be without effect: no warning.
EXPECTED = frozenset("listen-peer-urls initial-cluster-token log-level logger enable-v2".split())
BOOLEANS = frozenset(name for name, flag in SERVING.items() if flag.read is truth) | frozenset(
    name for name, read in MEANINGLESS.items() if read is truth
)
#: Said in a file only, by no flag.
FILE_ONLY: dict[str, Callable[[str], Any]] = {
    "client-skip-client-san-verification": truth,
    "discovery-server-name": text_of,
}
#: Why a name is without effect, where it isn't that the log does this part's work.
WHY = {"client-skip-client-san-verification": "a client's address is never compared with its certificate"}
KNOWN = frozenset(SERVING) | frozenset(NODE) | frozenset(MEANINGLESS) | frozenset(SAME)


def reader(name: str) -> Callable[[str], Any]:
    """Of a known name."""
    name = SAME.get(name, name)
    flag = SERVING.get(name) or NODE.get(name)
    return (MEANINGLESS | FILE_ONLY)[name] if flag is None else flag.read


def near(name: str) -> str:
    """What else may have been meant, for the end of a message."""
    found = difflib.get_close_matches(name, sorted(KNOWN), 1, 0.6)
    return f"; did you mean {found[0]}?" if found else ""
