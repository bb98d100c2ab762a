"""etcd's settings: its flags, ``ETCD_*`` variables and ``--config-file``, and what they mean here.

Every name that etcd 3.4, 3.5 or 3.7 knows is known. One without a meaning on a log (raft, WAL, peers) is taken with a
warning, an unknown one is refused. Source: ``etcd --help`` of the three lines, and etcd's configuration guide.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from actors.kv import ciphers, places
from actors.setting import Etcd


class FlagError(Exception):
    """A flag, variable or line of a file is wrong; the message names it. Nothing was started."""

    exit_code = 2


# -- values -----------------------------------------------------------------------------------------------------------

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+")


def duration_s(text: str) -> float:
    """Go's way: ``1h30m``, ``300ms``; a bare 0. Raises ValueError."""
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration: write 5s, 300ms or 1h30m")
    parts = re.findall(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)", text)
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def truth(text: str) -> bool:
    """Go's words for it. Raises ValueError."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def number(text: str) -> int:
    """Raises ValueError."""
    if not re.fullmatch(r"-?\d{1,19}", text):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def texts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def suites(text: str) -> list[str]:
    """Cipher suites that can be had; looked at also where nothing is served by TLS. Raises ValueError."""
    found = texts(text)
    ciphers.check(found)
    return found


def urls(text: str) -> list[str]:
    """Where to listen. Raises ValueError."""
    found = texts(text)
    for one in found:
        if "://" not in one:
            raise ValueError(f"{one!r}: URL scheme must be http, https, unix, or unixs")
        places.parse(one)
    return found


def told_urls(text: str) -> list[str]:
    """URLs that others are told. Raises ValueError."""
    found = texts(text)
    for one in found:
        if not re.match(r"(https?|unixs?)://[^/\s]", one):
            raise ValueError(f"{one!r}: URL scheme must be http, https, unix, or unixs")
    return found


def members(text: str) -> list[str]:
    """The names in ``name=url,name=url``. Raises ValueError."""
    found: dict[str, str] = {}
    for part in texts(text):
        name, equals, url = part.partition("=")
        if not equals or not name or not url:
            raise ValueError(f"{part!r} is no member: write NAME=URL,NAME=URL")
        found[name] = url
    return list(found)


def one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is none of {', '.join(word or 'nothing' for word in words)}")
        return text

    return read


def retention(text: str) -> str:
    """``12h``, ``72`` (hours, or revisions). Raises ValueError."""
    if not text.isdigit():
        duration_s(text)
    return text


def token(text: str) -> str:
    """``simple`` or ``jwt,…``. Raises ValueError."""
    if text != "simple":
        from actors.kv.rpc.jwts import Jwts

        Jwts(text)
    return text


def cost(text: str) -> int:
    found = number(text)
    if not 4 <= found <= 31:
        raise ValueError("the cost of bcrypt is between 4 and 31")
    return found


def text_of(text: str) -> str:
    return text


class Flag(NamedTuple):
    """``field``: of :class:`actors.setting.Etcd`; empty: told to another part, or to none."""

    read: Callable[[str], Any]
    field: str = ""


def _named(names: str, read: Callable[[str], Any], seconds: bool = False) -> dict[str, Flag]:
    return {name: Flag(read, name.replace("-", "_") + "_s" * seconds) for name in names.split()}


#: What has a meaning here.
SERVING: dict[str, Flag] = {
    **_named("advertise-client-urls initial-advertise-peer-urls", told_urls),
    **_named("listen-client-http-urls listen-metrics-urls", urls),
    **_named("initial-cluster", members),
    **_named("initial-cluster-state", one_of("new", "existing")),
    **_named("cert-file key-file trusted-ca-file client-crl-file", text_of),
    **_named("client-cert-auth auto-tls enable-grpc-gateway", truth),
    **_named("client-cert-allowed-hostname host-whitelist cors", texts),
    **_named("cipher-suites", suites),
    **_named("metrics", one_of("basic", "extensive")),
    **_named("tls-min-version", one_of("TLS1.2", "TLS1.3")),
    **_named("tls-max-version", one_of("", "TLS1.2", "TLS1.3")),
    **_named("self-signed-cert-validity auth-token-ttl max-txn-ops max-request-bytes quota-backend-bytes", number),
    **_named("max-concurrent-streams", number),
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
_SAME = {"experimental-watch-progress-notify-interval": "watch-progress-notify-interval"}
#: What a log has no use for, by whether the flag takes a value.
_MEANINGLESS_BOOLEAN = frozenset(
    """
    debug enable-log-rotation enable-pprof enable-v2 experimental-compact-hash-check-enabled
    experimental-distributed-tracing enable-distributed-tracing experimental-enable-distributed-tracing
    experimental-enable-lease-checkpoint experimental-enable-lease-checkpoint-persist
    experimental-initial-corrupt-check experimental-memory-mlock experimental-peer-skip-client-san-verification
    experimental-stop-grpc-service-on-defrag experimental-txn-mode-write-with-shared-buffer force-new-cluster
    initial-election-tick-advance memory-mlock peer-auto-tls peer-client-cert-auth peer-skip-client-san-verification
    pre-vote socket-reuse-address socket-reuse-port strict-reconfig-check unsafe-no-fsync
    discovery-insecure-skip-tls-verify discovery-insecure-transport
    """.split()
)
_MEANINGLESS = frozenset(
    """
    backend-batch-interval backend-batch-limit backend-bbolt-freelist-type bootstrap-defrag-threshold-megabytes
    client-cert-file client-key-file compact-hash-check-time compaction-batch-limit compaction-sleep-interval
    corrupt-check-time discovery-cacert discovery-cert discovery-dial-timeout discovery-endpoints
    discovery-keepalive-time discovery-keepalive-timeout discovery-key discovery-password
    discovery-request-timeout discovery-srv-name discovery-user
    distributed-tracing-address distributed-tracing-instance-id distributed-tracing-sampling-rate
    distributed-tracing-service-name downgrade-check-time election-timeout experimental-backend-bbolt-freelist-type
    experimental-bootstrap-defrag-threshold-megabytes experimental-compact-hash-check-time
    experimental-compaction-batch-limit experimental-compaction-sleep-interval experimental-corrupt-check-time
    experimental-distributed-tracing-address experimental-distributed-tracing-instance-id
    experimental-distributed-tracing-sampling-rate experimental-distributed-tracing-service-name
    experimental-downgrade-check-time experimental-enable-v2v3 experimental-max-learners
    experimental-snapshot-catchup-entries experimental-warning-apply-duration
    experimental-warning-unary-request-duration feature-gates heartbeat-interval
    initial-cluster-token listen-peer-urls log-format log-level log-outputs log-package-levels
    log-rotation-config-json logger max-learners max-snapshots max-wals peer-cert-allowed-cn
    peer-cert-allowed-hostname peer-cert-file peer-client-cert-file peer-client-key-file peer-crl-file peer-key-file
    peer-trusted-ca-file proxy proxy-dial-timeout proxy-failure-wait proxy-read-timeout proxy-refresh-interval
    proxy-write-timeout raft-read-timeout raft-write-timeout snapshot-catchup-entries snapshot-count v2-deprecation
    wal-dir warning-apply-duration warning-unary-request-duration
    """.split()
)
#: Given with each member as a rule, and right to be without effect: no warning.
_EXPECTED = frozenset("listen-peer-urls initial-cluster-token log-level logger enable-v2".split())
_BOOLEAN = _MEANINGLESS_BOOLEAN | {name for name, flag in SERVING.items() if flag.read is truth}
KNOWN = frozenset(SERVING) | frozenset(NODE) | _MEANINGLESS_BOOLEAN | _MEANINGLESS | frozenset(_SAME)


class Given(NamedTuple):
    """One setting. ``place``: the flag, variable or line, for messages."""

    name: str
    text: str
    place: str


# -- the three sources ------------------------------------------------------------------------------------------------


def read_flags(argv: Sequence[str]) -> list[Given]:
    """``--name=value``, ``--name value``, both with one dash too; ``--name`` of a boolean. Raises FlagError."""
    found, words = [], list(argv)
    while words:
        word = words.pop(0)
        matched = re.fullmatch(r"--?([A-Za-z0-9][^=]*)(?:=(.*))?", word, re.DOTALL)
        if matched is None:
            raise FlagError(f"{word!r} is not a valid flag")
        name, text = matched[1], matched[2]
        if name not in KNOWN and name != "config-file":
            raise FlagError(f"flag provided but not defined: -{name}{_near(name)}")
        if text is None and name in _BOOLEAN:
            text = "true"
        elif text is None:
            if not words:
                raise FlagError(f"flag needs an argument: -{name}")
            text = words.pop(0)
        found.append(Given(name, text, f"--{name}"))
    return found


def read_variables(environ: Mapping[str, str]) -> tuple[list[Given], list[str]]:
    """The settings in ``ETCD_*``, and the variables that are none (service managers set such)."""
    found, unknown = [], []
    for variable, text in environ.items():
        if not variable.startswith("ETCD_") or not text:
            continue
        name = variable[5:].lower().replace("_", "-")
        if name in KNOWN or name == "config-file":
            found.append(Given(name, text, f"environment: {variable}"))
        else:
            unknown.append(variable)
    return found, unknown


_SECURITY = {"client-transport-security": "", "peer-transport-security": "peer-"}


def read_file(file: Path) -> list[Given]:
    """The settings of a ``--config-file`` (YAML or JSON). Raises FlagError with file and line."""
    try:
        source = file.read_text(encoding="utf-8")
    except OSError as error:
        raise FlagError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FlagError(f"{file}: byte {error.start} is not UTF-8") from error
    return parse_file(source, str(file))


def parse_file(source: str, file: str) -> list[Given]:
    """Raises FlagError with file and line."""
    import yaml

    try:
        root = yaml.compose(source, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise FlagError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise FlagError(f"{file}:1: a mapping of settings is wanted")
    found: list[Given] = []
    for key, value in root.value:
        place = f"{file}:{key.start_mark.line + 1}"
        prefix = _SECURITY.get(key.value) if isinstance(key.value, str) else None
        if prefix is None:
            found.append(_entry(key, value, "", place))
        elif isinstance(value, yaml.MappingNode):
            for inner, text in value.value:
                found.append(_entry(inner, text, prefix, f"{file}:{inner.start_mark.line + 1}"))
        elif value.value:
            raise FlagError(f"{place}: {key.value} is a mapping of settings")
    return [one for one in found if one.text]


def _entry(key: Any, value: Any, prefix: str, place: str) -> Given:
    import yaml

    name = key.value if isinstance(key.value, str) else ""
    name = name if prefix + name not in KNOWN else prefix + name
    if name not in KNOWN:
        raise FlagError(f"{place}: unknown key {name!r}{_near(name)}")
    if isinstance(value, yaml.SequenceNode) and all(isinstance(one, yaml.ScalarNode) for one in value.value):
        return Given(name, ",".join(one.value for one in value.value), place)
    if not isinstance(value, yaml.ScalarNode):
        raise FlagError(f"{place}: {name} is a text, a number or a list of texts")
    text = "" if value.tag == "tag:yaml.org,2002:null" else value.value
    flag = SERVING.get(_SAME.get(name, name))
    if flag is not None and flag.read is duration_s and text.isdigit():
        text += "ns"  # in its files etcd's durations are nanoseconds
    return Given(name, text, place)


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, sorted(KNOWN), 1, 0.6)
    return f"; did you mean {near[0]}?" if near else ""


# -- what they come to ----------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """``serving``: of :data:`SERVING`, as texts; ``node``: of :data:`NODE`; ``warnings``: what is without effect."""

    serving: dict[str, str]
    node: dict[str, str]
    warnings: list[str]


def gather(argv: Sequence[str], environ: Mapping[str, str]) -> Asked:
    """Flags win over variables; a file stands for all of both, as in etcd. Raises FlagError."""
    flags = read_flags(argv)
    variables, unknown = read_variables(environ)
    warnings = [f"{variable} is no setting of etcd's" for variable in unknown]
    file = next((one.text for one in (*reversed(flags), *variables) if one.name == "config-file"), "")
    if file:
        given = read_file(Path(file))
        if len(flags) + len(variables) > 1:
            warnings.append(f"settings come from {file} alone; flags and variables beside it have no effect")
    else:
        given = [*variables, *flags]
    asked = Asked({}, {}, warnings)
    for one in given:
        name = _SAME.get(one.name, one.name)
        if name in SERVING:
            _checked(SERVING[name], one)
            asked.serving[name] = one.text
        elif name in NODE:
            _checked(NODE[name], one)
            asked.node[name] = one.text
        elif name not in _EXPECTED:
            warnings.append(f"{one.place}: without effect here: the log does this part's work")
    return asked


def _checked(flag: Flag, one: Given) -> Any:
    try:
        return flag.read(one.text)
    except ValueError as error:
        raise FlagError(f"{one.place}: {error}") from error


def serving(given: Mapping[str, str]) -> Etcd:
    """The settings of :data:`SERVING`, typed; names with dashes or underscores. Raises ValueError naming the key."""
    fields: dict[str, Any] = {}
    for raw, text in given.items():
        name = raw.replace("_", "-")
        if name not in SERVING:
            raise ValueError(f"unknown key {raw!r}{_near(name)}")
        try:
            fields[SERVING[name].field] = SERVING[name].read(text)
        except ValueError as error:
            raise ValueError(f"{raw}: {error}") from error
    if fields.pop("initial_cluster_state", "new") == "existing":
        fields["initial_cluster"] = []  # nobody is waited for
    kept = str(fields.pop("auto_compaction_retention", "0"))
    by_revision = fields.get("auto_compaction_mode") == "revision"
    if by_revision and not kept.isdigit():
        raise ValueError(f"auto-compaction-retention: {kept!r} is no number of revisions")
    unit_s = 1 if by_revision else 3600
    made = Etcd(**fields, auto_compaction_retention=int(kept) * unit_s if kept.isdigit() else duration_s(kept))
    if made.max_txn_ops < 1 or made.max_request_bytes < 1 or made.max_concurrent_streams < 1:
        raise ValueError("max-txn-ops, max-request-bytes and max-concurrent-streams are 1 at least")
    _check_tls(made)
    return made


def _check_tls(made: Etcd) -> None:
    """What can't go together, in etcd's words. Raises ValueError."""
    least, most = made.tls_min_version, made.tls_max_version
    if most and least > most:
        raise ValueError(f"min version ({least}) is greater than max version ({most})")
    if made.cipher_suites and least == "TLS1.3":
        raise ValueError("cipher suites cannot be configured when only TLS1.3 is enabled")
    if made.cipher_suites and most == "TLS1.2" and not ciphers.of_tls12(made.cipher_suites):
        raise ValueError("all of cipher-suites are of TLS 1.3, and tls-max-version is TLS1.2: nobody could connect")
