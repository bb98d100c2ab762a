"""A node's settings: a TOML file, then ``CORELOG_*`` variables, then flags; the later wins.

    data = "/var/lib/corelog"
    log = "kafka://a:9092,b:9092,c:9092"     # or a table [log] with address, [log.kafka] with the driver's options
    cpu = "2"                                # cores; "1500m" is a core and a half
    memory = "4GiB"
    lease = "1s"
    [metadata]
    region = "eu"

Every error names its place (file and line, variable, or flag) and what would be right.
"""

import difflib
import os
import re
import socket
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from actors.kv import certificates, places
from actors.setting import Etcd, Setting
from node import etcdflags
from node.discovery import kept
from node.discovery.decide import DiscoveryError, target
from node.identity import DataFolder
from node.logmove import MoveError, Place, place


class ConfigError(Exception):
    """A setting is wrong; nothing was started."""

    exit_code = 2


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of ``corelog up``, typed. Durations in ms, sizes in bytes, cpu in thousandths of a core."""

    data: Path = Path("data")
    log: str = ""
    log_options: dict[str, str] = {}
    #: URL of a token; asked when the data folder is new
    discovery: str = ""
    discovery_proxy: str = ""
    discovery_fallback: str = "proxy"
    name: str = ""
    metadata: dict[str, str] = {}
    cpu: int = 0
    memory: int = 0
    #: "control": a machine of the cluster; "replica": it only serves clients (see docs/etcd.md)
    role: str = "control"
    control: bool = True
    etcd_listen: list[str] = msgspec.field(default_factory=lambda: ["127.0.0.1:2379"])
    #: etcd's flags by name; see :func:`node.etcdflags.serving`
    etcd: dict[str, str] = {}
    gateway_listen: list[str] = msgspec.field(default_factory=lambda: ["127.0.0.1:7379"])
    gateway_advertise: str = ""
    lease: int = 1000
    machine_ttl: int = 3000
    fence: int = 10000
    engine: dict[str, str] = {}
    updater: dict[str, str] = {}
    one_process: bool = False
    color: str = "auto"

    @property
    def folder(self) -> Path:
        return self.data.absolute()

    @property
    def log_place(self) -> Place:
        """The log that this node goes on with: as set (by default in the data folder), or where it was moved to."""
        try:
            return place(self.folder, self.log, self.log_options)
        except (MoveError, DiscoveryError, OSError) as error:
            raise ConfigError(str(error)) from error

    @property
    def log_address(self) -> str:
        return log_address(self.log_place.address)

    @property
    def alone(self) -> bool:
        return not self.log_address.startswith("kafka://")

    @property
    def replica(self) -> bool:
        return self.role == "replica"

    @property
    def serving(self) -> Etcd:
        return etcdflags.serving(self.etcd)

    @property
    def etcd_urls(self) -> list[str]:
        """Where etcd's clients find this node, as it listens."""
        tls = self.serving.tls
        found = [places.parse(text, tls) for text in self.etcd_listen]
        return [f"{at.scheme}://{at.path or f'{_bracketed(at.host)}:{at.port}'}" for at in found]

    @property
    def _control(self) -> bool:
        """A replica, and a machine that came to a full cluster, is no member of it."""
        discovered = kept.kept(self.folder)
        return self.control and not self.replica and (discovered is None or discovered.control)

    def setting(
        self, folder: DataFolder, log_id: str, operator_key: str, version: str, log_checked: str = ""
    ) -> Setting:
        """What the actors are told."""
        return Setting(
            machine=folder.machine,
            nonce=folder.nonce,
            boot_id=folder.boot_id,
            folder=str(folder.path),
            log=self.log_address,
            log_id=log_id,
            log_options=self.log_place.options,
            log_checked=log_checked,
            operator_key=operator_key,
            alone=self.alone,
            name=self.name or socket.gethostname(),
            version=version,
            metadata=self.metadata,
            cpu_millis=self.cpu or len(os.sched_getaffinity(0)) * 1000,
            memory_bytes=self.memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            control=self._control,
            replica=self.replica,
            etcd_listen=self.etcd_listen,
            etcd=self.serving,
            gateway_listen=self.gateway_listen,
            gateway_advertise=self.gateway_advertise or next(iter(self.gateway_listen), ""),
            lease_ms=self.lease,
            machine_ttl_ms=self.machine_ttl,
            fence_ms=self.fence,
            engine=self.engine,
            updater=self.updater,
        )


# -- values with units --------------------------------------------------------------------------------------------

_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_TIMES_MS = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000}


def _quantity(text: str) -> tuple[float, str]:
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)\s*", text, re.ASCII)
    if match is None:
        raise ValueError(text)
    return float(match[1]), match[2]


def duration_ms(value: object) -> int:
    """``1s``, ``250ms``, ``2m``, ``1h``. A bare number is refused: it could be seconds or milliseconds."""
    try:
        number, unit = _quantity(str(value))
        made = round(number * _TIMES_MS[unit.lower()])
    except (ValueError, KeyError):
        raise ValueError(f"{value!r} is no duration: write 1s, 250ms, 2m or 1h") from None
    if not 0 < made <= 366 * 24 * 3_600_000:
        raise ValueError(f"{value!r} is no duration that makes sense here: more than 0, at most a year")
    return made


def size_bytes(value: object) -> int:
    """``512MiB``, ``4G``, ``1073741824``: decimal without an i, binary with it."""
    try:
        number, unit = _quantity(str(value))
        made = round(number * _SIZES[unit.lower().removesuffix("b")])
    except (ValueError, KeyError):
        raise ValueError(f"{value!r} is no size: write 512MiB, 4GiB or a number of bytes") from None
    if made >= 2**62:
        raise ValueError(f"{value!r} is larger than any machine's memory")
    return made


def cpu_millis(value: object) -> int:
    """``2`` cores, ``0.5``, or ``1500m``."""
    try:
        number, unit = _quantity(str(value))
        made = round(number * {"": 1000, "m": 1}[unit])
    except (ValueError, KeyError):
        raise ValueError(f"{value!r} is no number of cores: write 2, 0.5 or 1500m") from None
    if not 0 < made <= 1_000_000:
        raise ValueError(f"{value!r} is no number of cores that a machine has")
    return made


def address(value: object) -> str:
    """``host:port``; IPv6 in brackets."""
    text = str(value).strip()
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is no address: write HOST:PORT, such as 127.0.0.1:7379")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{text!r} is no address: write an IPv6 host in brackets, such as [::1]:7379")
    return text


def addresses(value: object) -> list[str]:
    """A list, or a text with commas; empty or ``none``: listen nowhere."""
    parts = value if isinstance(value, list) else str(value).split(",")
    texts = [str(part).strip() for part in parts]
    if texts in ([""], ["none"], []):
        return []
    return [address(text) for text in texts]


def client_urls(value: object) -> list[str]:
    """Like :func:`addresses`; also ``http://``, ``https://``, ``unix://`` and ``unixs://`` URLs."""
    parts = value if isinstance(value, list) else str(value).split(",")
    texts = [str(part).strip() for part in parts]
    if texts in ([""], ["none"], []):
        return []
    for text in texts:
        if "://" in text:
            places.parse(text)
        else:
            address(text)
    return texts


def etcd_flags(value: object) -> dict[str, str]:
    """A table, or pairs, of etcd's flags."""
    found = pairs(value)
    etcdflags.serving(found)
    return found


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def pairs(value: object) -> dict[str, str]:
    """A table (tables in it give dotted keys), or a text ``a=b,c=d``."""
    if isinstance(value, dict):
        return dict(_flat(value))
    made = {}
    for part in str(value).split(",") if not isinstance(value, list) else value:
        if not str(part).strip():
            continue
        key, equals, text = str(part).partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{str(part).strip()!r} is no pair: write KEY=VALUE")
        made[key.strip()] = text.strip()
    return made


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        elif isinstance(value, bool):
            yield before + key, "true" if value else "false"
        elif isinstance(value, str | int | float):
            yield before + key, str(value)
        else:
            raise ValueError(f"{before}{key} must be a text, a number or true/false, not {value!r}")


def flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
    try:
        return known[str(value).strip().lower()]
    except KeyError:
        raise ValueError(f"{value!r} is neither true nor false") from None


def text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or any(ord(letter) < 32 for letter in value):
        raise ValueError(f"{value!r} is no text in one line")
    return value


def path(value: object) -> Path:
    return Path(text(value)).expanduser()


def log_address(value: object) -> str:
    """``segments:///folder`` or ``kafka://host:port[,…][/topic]``."""
    found = text(value).strip()
    scheme, _, rest = found.partition("://")
    if scheme not in ("segments", "kafka") or not rest:
        raise ValueError(
            f"{found!r} is no log's address: write segments:///folder or kafka://host:port[,host:port...][/topic]"
        )
    if scheme == "kafka":
        for broker in rest.partition("/")[0].split(","):
            address(broker if ":" in broker else broker + ":9092")
    return found


def discovery_url(value: object) -> str:
    """``https://host/TOKEN``, or of v2's keys: ``http://host:port/v2/keys/_etcd/registry/TOKEN``."""
    found = text(value).strip()
    try:
        target(found)
    except DiscoveryError as error:
        raise ValueError(f"{found!r}: {error}: write http://HOST:PORT/TOKEN, as /new of a node answers") from None
    return found


def fallback(value: object) -> str:
    if value not in ("proxy", "exit"):
        raise ValueError(f"{value!r} is not proxy or exit")
    return str(value)


def color(value: object) -> str:
    if value not in ("auto", "always", "never"):
        raise ValueError(f"{value!r} is not auto, always or never")
    return str(value)


def role(value: object) -> str:
    if value not in ("control", "replica"):
        raise ValueError(f"{value!r} is no role: write control (a machine of the cluster) or replica (serves clients)")
    return str(value)


class Option(NamedTuple):
    read: Callable[[object], Any]
    example: str


OPTIONS: dict[str, Option] = {
    "data": Option(path, "/var/lib/corelog"),
    "log": Option(log_address, "kafka://a:9092,b:9092,c:9092"),
    "log_options": Option(pairs, "security.protocol=SSL"),
    "discovery": Option(discovery_url, "http://10.0.0.1:2379/0123456789abcdef0123456789abcdef"),
    "discovery_proxy": Option(text, "http://10.0.0.1:3128"),
    "discovery_fallback": Option(fallback, "exit"),
    "name": Option(text, "web-1"),
    "metadata": Option(pairs, "region=eu,ssd=true"),
    "cpu": Option(cpu_millis, "2"),
    "memory": Option(size_bytes, "4GiB"),
    "role": Option(role, "replica"),
    "control": Option(flag, "true"),
    "etcd_listen": Option(client_urls, "127.0.0.1:2379"),
    "etcd": Option(etcd_flags, "cert-file=/etc/corelog/cert.pem"),
    "gateway_listen": Option(addresses, "127.0.0.1:7379"),
    "gateway_advertise": Option(address, "10.0.0.1:7379"),
    "lease": Option(duration_ms, "1s"),
    "machine_ttl": Option(duration_ms, "3s"),
    "fence": Option(duration_ms, "10s"),
    "engine": Option(pairs, "docker=unix:///run/docker.sock"),
    "updater": Option(pairs, "keep=5"),
    "one_process": Option(flag, "false"),
    "color": Option(color, "auto"),
}
#: Variables that other parts of corelog read; not settings of a node.
_OTHER_VARIABLES = frozenset(
    "CONFIG ENDPOINT TOKEN TOKEN_FILE FENCE UNIT MACHINE VERSION PREVIOUS CACHE TIMEOUT OUTPUT".split()
)


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _value(name: str, raw: object, place: str) -> Any:
    try:
        return OPTIONS[name].read(raw)
    except ValueError as error:
        raise ConfigError(f"{place}: {name}: {error}") from error


# -- the three sources ----------------------------------------------------------------------------------------------


def read_file(file: Path) -> dict[str, Any]:
    """The settings of a TOML file. Raises ConfigError with file and line."""
    try:
        source = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is not UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    return parse(source, str(file))


def parse(source: str, file: str) -> dict[str, Any]:
    """The settings in a TOML text. Raises ConfigError with file and line."""
    try:
        found = tomllib.loads(source)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    settings: dict[str, Any] = {}
    for key, raw in found.items():
        place = f"{file}:{_line(source, key)}"
        if key == "log" and isinstance(raw, dict):
            settings |= _log_table(raw, source, file)
        elif key not in OPTIONS or key == "log_options":
            known = [name for name in OPTIONS if name != "log_options"]
            raise ConfigError(f"{place}: unknown key {key!r}{_nearest(key, known)}")
        else:
            settings[key] = _value(key, raw, place)
    return settings


def _log_table(table: dict[str, Any], source: str, file: str) -> dict[str, Any]:
    """``[log] address = …`` with the driver's options in ``[log.kafka]`` or ``[log.segments]``."""
    settings: dict[str, Any] = {}
    for key, raw in table.items():
        place = f"{file}:{_line(source, key, 'log')}"
        if key == "address":
            settings["log"] = _value("log", raw, place)
        elif key in ("kafka", "segments") and isinstance(raw, dict):
            settings["log_options"] = settings.get("log_options", {}) | _value("log_options", raw, place)
        else:
            raise ConfigError(f"{place}: unknown key 'log.{key}'{_nearest(key, ['address', 'kafka', 'segments'])}")
    return settings


def _line(source: str, key: str, table: str = "") -> int:
    """The line (from 1) where ``key`` of ``table`` stands: tomllib doesn't say. 1 if it is written in an odd way."""
    name = re.escape(key)
    quoted = rf"""(?:{name}|"{name}"|'{name}')"""
    inside, within = "", re.compile(rf"\s*{quoted}\s*[.=]")
    dotted = table + "." if table else ""
    header = re.compile(rf"\s*\[+\s*{re.escape(dotted)}{quoted}\s*[\].]")
    spelt = re.compile(rf"\s*{re.escape(dotted)}{quoted}\s*[.=]")
    for number, line in enumerate(source.splitlines(), 1):
        if header.match(line) or (inside == table and within.match(line)) or (not inside and spelt.match(line)):
            return number
        if (entered := re.match(r"\s*\[+\s*([^\]]*?)\s*\]", line)) is not None:
            inside = entered[1]
    return 1


def read_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings in ``CORELOG_*``. Raises ConfigError with the variable's name."""
    settings = {}
    for variable, raw in environ.items():
        if not variable.startswith("CORELOG_"):
            continue
        name = variable.removeprefix("CORELOG_")
        if name in _OTHER_VARIABLES:
            continue
        if name.lower() not in OPTIONS or name != name.upper():
            known = [f"CORELOG_{option.upper()}" for option in OPTIONS]
            raise ConfigError(f"environment: unknown variable {variable}{_nearest(variable, known)}")
        settings[name.lower()] = _value(name.lower(), raw, f"environment: {variable}")
    return settings


def read_flags(flags: Mapping[str, object]) -> dict[str, Any]:
    """The settings of flags that were given (not None). Raises ConfigError with the flag's name."""
    return {
        name: _value(name, raw, "--" + name.replace("_", "-").removesuffix("s" if name == "log_options" else ""))
        for name, raw in flags.items()
        if raw is not None
    }


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Config:
    """All three, the later wins; tables of pairs are merged. Raises ConfigError."""
    if file is None and environ.get("CORELOG_CONFIG"):
        file = Path(environ["CORELOG_CONFIG"])
    made: dict[str, Any] = {}
    for source in (read_file(file) if file else {}, read_variables(environ), read_flags(flags)):
        for name, value in source.items():
            made[name] = made.get(name, {}) | value if isinstance(value, dict) else value
    config = Config(**made)
    _check(config)
    return config


def _check(config: Config) -> None:
    if config.machine_ttl < config.lease:
        raise ConfigError(
            f"machine_ttl ({config.machine_ttl} ms) is shorter than lease ({config.lease} ms): a machine is renewed "
            f"once a second and must outlive a broker's pause"
        )
    if config.log_options and config.alone and not config.discovery and any("." in key for key in config.log_options):
        raise ConfigError('log options of Kafka are given, but the log is an embedded one: set log = "kafka://..."')
    if config.replica and config.discovery:
        raise ConfigError('role is "replica", but discovery makes members: name the log with log = "kafka://..."')
    if config.replica and config.alone:
        raise ConfigError(
            'role is "replica", but the log is an embedded one, which no other machine writes: set log = "kafka://..."'
        )
    _check_etcd(config)
    if config.etcd_listen and set(config.etcd_listen) & set(config.gateway_listen):
        raise ConfigError("etcd_listen and gateway_listen name the same address: give them different ports")


def _check_etcd(config: Config) -> None:
    try:
        serving = config.serving
        certificates.check(serving)
    except (ValueError, certificates.CertificateError) as error:
        raise ConfigError(f"etcd: {error}") from error
    if len(serving.initial_cluster) > 1 and config.alone and not config.discovery:
        raise ConfigError(
            f"initial-cluster names {len(serving.initial_cluster)} members, which need one log: set CORELOG_LOG="
            f"kafka://HOST:PORT,... for each of them"
        )
    listened = [*config.etcd_listen, *serving.listen_client_http_urls, *serving.listen_metrics_urls]
    for text in listened:
        if places.parse(text, serving.tls).tls and not serving.tls:
            raise ConfigError(f"{text}: https needs cert-file and key-file (or auto-tls) among etcd's settings")
