"""etcd's settings: its flags, ``ETCD_*`` variables and ``--config-file``, and what they come to."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from actors.kv import ciphers
from actors.kv.durations import duration_s
from actors.setting import Etcd
from node.etcdfile import read_file
from node.etcdnames import BOOLEANS, EASED, EXPECTED, KNOWN, NODE, SAME, SERVING, WHY, FlagError, Given, near, reader

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
            raise FlagError(f"flag provided but not defined: -{name}{near(name)}")
        if text is None and name in BOOLEANS:
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


# -- what they come to ----------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """``serving``: of :data:`SERVING`, as texts; ``node``: of :data:`NODE`; ``warnings``: what is without effect."""

    serving: dict[str, str]
    node: dict[str, str]
    warnings: list[str]


def gather(argv: Sequence[str], environ: Mapping[str, str]) -> Asked:
    """A setting is a flag or a variable, never both; a file stands for all of both, as in etcd. Raises FlagError."""
    flags = read_flags(argv)
    variables, unknown = read_variables(environ)
    warnings = [f"{variable} is no setting of etcd's" for variable in unknown]
    file = next((one.text for one in (*reversed(flags), *variables) if one.name == "config-file" and one.text), "")
    if file:
        given = read_file(Path(file))
        if len(flags) + len(variables) > 1:
            warnings.append(f"settings come from {file} alone; flags and variables beside it have no effect")
    else:
        _check_shadows(flags, environ)
        given = [*variables, *flags]
    return _asked(given, warnings)


def _check_shadows(flags: Iterable[Given], environ: Mapping[str, str]) -> None:
    """Also an empty variable is one too many, as in etcd. Raises FlagError."""
    for one in flags:
        variable = "ETCD_" + one.name.upper().replace("-", "_")
        if variable in environ:
            raise FlagError(
                f'{one.place}: conflicting environment variable "{variable}" is shadowed by corresponding command-line '
                f"flag (either unset environment variable or disable flag)"
            )


def _asked(given: Iterable[Given], warnings: list[str]) -> Asked:
    asked, without_effect = Asked({}, {}, warnings), {}
    for one in given:
        name = SAME.get(one.name, one.name)
        try:
            text, warning = EASED[name](one.text) if name in EASED else (one.text, "")
            read = reader(name)(text)
        except ValueError as error:
            raise FlagError(f"{one.place}: {error}") from error
        if warning:
            warnings.append(f"{one.place}: {warning}")
        if name in SERVING:
            asked.serving[name] = text
        elif name in NODE:
            asked.node[name] = text
        else:
            without_effect[name] = read
            if name not in EXPECTED:
                warnings.append(f"{one.place}: without effect here: {WHY.get(name, _BY_THE_LOG)}")
    _check_raft(without_effect)
    _ease_retention(asked)
    try:
        serving(asked.serving)
    except ValueError as error:
        raise FlagError(str(error)) from error
    return asked


_BY_THE_LOG = "the log does this part's work"
_HEARTBEAT_MS, _ELECTION_MS, _ELECTION_MAX_MS = 100, 1000, 50_000


def _check_raft(given: Mapping[str, Any]) -> None:
    """Without effect here, but a line that etcd would not start with is a mistake. In its words; raises FlagError."""
    tick = given.get("heartbeat-interval", _HEARTBEAT_MS)
    election = given.get("election-timeout", _ELECTION_MS)
    if not tick:
        raise FlagError("--heartbeat-interval must be >0 (set to 0ms)")
    if not election:
        raise FlagError("--election-timeout must be >0 (set to 0ms)")
    if 5 * tick > election:
        raise FlagError(
            f"--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{tick}ms]"
        )
    if election > _ELECTION_MAX_MS:
        raise FlagError(
            f"--election-timeout[{election}ms] is too long, and should be set less than {_ELECTION_MAX_MS}ms"
        )


def _ease_retention(asked: Asked) -> None:
    """etcd reads ``1h`` by revision as that many nanoseconds, and keeps as many revisions."""
    name, kept = "auto-compaction-retention", asked.serving.get("auto-compaction-retention") or "0"
    if asked.serving.get("auto-compaction-mode") == "revision" and not kept.isdigit():
        asked.serving[name] = str(round(duration_s(kept) * 1e9))
        asked.warnings.append(
            f"--{name}: by revision, {kept} is read as etcd reads it, {asked.serving[name]} revisions: write a number"
        )


def serving(given: Mapping[str, str]) -> Etcd:
    """The settings of :data:`SERVING`, typed; names with dashes or underscores. Raises ValueError naming the key."""
    fields: dict[str, Any] = {}
    for raw, text in given.items():
        name = raw.replace("_", "-")
        if name not in SERVING:
            raise ValueError(f"unknown key {raw!r}{near(name)}")
        try:
            fields[SERVING[name].field] = SERVING[name].read(text)
        except ValueError as error:
            raise ValueError(f"{raw}: {error}") from error
    if fields.pop("initial_cluster_state", "new") == "existing":
        fields["initial_cluster"] = []  # nobody is waited for
    kept = str(fields.pop("auto_compaction_retention", "")) or "0"
    by_revision = fields.get("auto_compaction_mode") == "revision"
    if by_revision and not kept.isdigit():
        raise ValueError(f"auto-compaction-retention: {kept!r} is no number of revisions")
    unit_s = 1 if by_revision else 3600
    made = Etcd(**fields, auto_compaction_retention=int(kept) * unit_s if kept.isdigit() else duration_s(kept))
    if made.max_request_bytes < 1 or made.max_concurrent_streams < 1:
        raise ValueError("max-request-bytes and max-concurrent-streams are 1 at least")
    if made.client_cert_allowed_cn and made.client_cert_allowed_hostname:
        raise ValueError(
            "client-cert-allowed-cn: AllowedCNs and AllowedHostnames are mutually exclusive: give one of them"
        )
    _check_tls(made)
    return made


def _check_tls(made: Etcd) -> None:
    """What can't go together, in etcd's words. Raises ValueError."""
    least, most = made.tls_min_version, made.tls_max_version
    if most and least > most:
        raise ValueError(f"tls-min-version: min version ({least}) is greater than max version ({most})")
    if made.cipher_suites and least == "TLS1.3":
        raise ValueError("cipher-suites: cipher suites cannot be configured when only TLS1.3 is enabled")
    if made.cipher_suites and most == "TLS1.2" and not ciphers.of_tls12(made.cipher_suites):
        raise ValueError("cipher-suites: all are of TLS 1.3, and tls-max-version is TLS1.2: nobody could connect")
