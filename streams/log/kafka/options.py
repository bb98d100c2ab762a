"""Addresses and options of a log on Kafka, and how they read in the two clients' own words."""

import difflib
import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from streams.log.port import ForeignLog

TOPIC = "corelog"
#: The largest message that topic, producer and fetch take.
MESSAGE_BYTES_MAX = 4 * 1024 * 1024

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,255}):(\d{1,5})")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")

#: Options that decide what the driver promises; they are not for configuration.
_RESERVED = frozenset(
    {
        "bootstrap.servers", "metadata.broker.list", "acks", "request.required.acks", "enable.idempotence",
        "transactional.id", "group.id", "isolation.level", "auto.offset.reset", "check.crcs", "enable.auto.commit",
        "max.in.flight", "max.in.flight.requests.per.connection", "retries", "message.send.max.retries",
        "enable.partition.eof", "delivery.report.only.error", "allow.auto.create.topics",
    }
)  # fmt: skip
_PASSED = frozenset({"client.id", "client.rack", "broker.address.family", "linger.ms", "compression.type", "debug"})
_PASSED_PREFIXES = ("sasl.", "ssl.", "security.", "socket.", "reconnect.", "retry.", "enable.sasl.", "enable.ssl.")

_TO_PYTHON: dict[str, tuple[str, Callable[[str], object]]] = {
    "client.id": ("client_id", str),
    "security.protocol": ("security_protocol", str.upper),
    "sasl.mechanism": ("sasl_mechanism", str),
    "sasl.mechanisms": ("sasl_mechanism", str),
    "sasl.username": ("sasl_plain_username", str),
    "sasl.password": ("sasl_plain_password", str),
    "sasl.kerberos.service.name": ("sasl_kerberos_service_name", str),
    "ssl.ca.location": ("ssl_cafile", str),
    "ssl.certificate.location": ("ssl_certfile", str),
    "ssl.key.location": ("ssl_keyfile", str),
    "ssl.key.password": ("ssl_password", str),
    "ssl.crl.location": ("ssl_crlfile", str),
    "ssl.endpoint.identification.algorithm": ("ssl_check_hostname", lambda text: text.lower() != "none"),
}

#: Options that a misspelt one may have meant.
KNOWN = (*_TO_PYTHON, *sorted(_PASSED), "delivery.timeout.ms", "enable.ssl.certificate.verification")


class Address(NamedTuple):
    """``brokers``: host:port each, at least one."""

    brokers: tuple[str, ...]
    topic: str

    def __str__(self) -> str:
        return f"kafka://{','.join(self.brokers)}/{self.topic}"

    @property
    def bootstrap(self) -> str:
        return ",".join(self.brokers)


def parse_address(text: str) -> Address:
    """Reads ``kafka://host:port[,host:port…][/topic]``. Raises ForeignLog that names the part that is wrong."""
    scheme, _, rest = text.partition("://")
    hosts, slash, topic = rest.partition("/")
    usage = "write kafka://host:port[,host:port…][/topic]"
    if scheme != "kafka" or not hosts:
        raise ForeignLog(f"{text!r} is not a Kafka address: {usage}")
    brokers = tuple(hosts.split(","))
    for broker in brokers:
        match = _HOST.fullmatch(broker)
        if match is None or not 0 < int(match[2]) < 65536:
            raise ForeignLog(f"{broker!r} in {text!r} is not host:port: {usage}")
    if slash and (not _TOPIC.fullmatch(topic) or topic in (".", "..")):
        raise ForeignLog(f"{topic!r} in {text!r} can't be a topic's name: letters, digits, dot, dash, underscore")
    return Address(brokers, topic or TOPIC)


class Options(NamedTuple):
    """``client``: passed to librdkafka as it is. ``timeout_ms``: after it an append's outcome is unknown."""

    client: dict[str, str]
    timeout_ms: int


def parse_options(options: Mapping[str, str]) -> Options:
    """Checks options. Raises ForeignLog which names a key that is not known, or that the driver must set itself."""
    client: dict[str, str] = {}
    timeout_ms = 10_000
    for key, value in options.items():
        if key == "delivery.timeout.ms":
            if not value.isdigit() or not 1000 <= int(value) <= 300_000:
                raise ForeignLog(f"log option {key}={value!r}: a number of milliseconds from 1000 to 300000 is needed")
            timeout_ms = int(value)
        elif key in _RESERVED:
            raise ForeignLog(f"log option {key} can't be set: what corelog promises depends on it")
        elif key in _PASSED or key.startswith(_PASSED_PREFIXES):
            client[key] = value
        else:
            near = difflib.get_close_matches(key, KNOWN, 1)
            raise ForeignLog(f"log option {key} is not known{f'; {near[0]}?' if near else ''}")
    return Options(client, timeout_ms)


def for_kafka_python(client: Mapping[str, str]) -> dict[str, Any]:
    """The options of librdkafka that kafka-python's administration has as well, in its words.

    Raises ForeignLog for an option of security that it doesn't have: it must not be left out silently.
    """
    found: dict[str, Any] = {}
    for key, value in client.items():
        if key in _TO_PYTHON:
            name, read = _TO_PYTHON[key]
            found[name] = read(value)
        elif key == "enable.ssl.certificate.verification":
            if value.lower() == "false":
                found["ssl_context"] = _unverified(client)
        elif key.startswith(("sasl.", "ssl.", "security.")):
            raise ForeignLog(
                f"log option {key} is not supported by the administration client; use {', '.join(_TO_PYTHON)}"
            )
    return found


def _unverified(client: Mapping[str, str]) -> ssl.SSLContext:
    """TLS that checks no certificate, because the options say so."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if "ssl.certificate.location" in client:
        context.load_cert_chain(
            client["ssl.certificate.location"], client.get("ssl.key.location"), client.get("ssl.key.password")
        )
    return context


def _common(address: Address, client: Mapping[str, str]) -> dict[str, Any]:
    """Both hot clients: fail-over is noticed within a second or two, also that of a broker which hangs."""
    return {
        "bootstrap.servers": address.bootstrap,
        "allow.auto.create.topics": False,
        "socket.nagle.disable": True,
        "socket.keepalive.enable": True,
        "socket.timeout.ms": 2000,
        "socket.connection.setup.timeout.ms": 2000,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
        "retry.backoff.ms": 50,
        "retry.backoff.max.ms": 250,
        # a hung leader gives no error: its successor is found by asking for metadata anew
        "topic.metadata.refresh.interval.ms": 2000,
        "topic.metadata.refresh.fast.interval.ms": 50,
        "message.max.bytes": MESSAGE_BYTES_MAX,
        "log_level": 0,
        "log.connection.close": False,
        **client,
    }


def for_admin(address: Address, options: Options) -> dict[str, Any]:
    """For questions beside the hot path."""
    client = {key: value for key, value in options.client.items() if key not in ("linger.ms", "compression.type")}
    return _common(address, client)


def for_producer(address: Address, options: Options) -> dict[str, Any]:
    """acks=all, idempotent, at most 5 requests in flight, nothing waits to be batched."""
    return {
        "linger.ms": 0,
        **_common(address, options.client),
        "acks": "all",
        "enable.idempotence": True,
        "max.in.flight.requests.per.connection": 5,
        "delivery.timeout.ms": options.timeout_ms,
        "request.timeout.ms": min(2000, options.timeout_ms),
        "queue.buffering.max.messages": 100_000,
        "queue.buffering.max.kbytes": 262_144,
    }


def for_consumer(address: Address, options: Options) -> dict[str, Any]:
    """No group (``group.id`` is asked for by the client, nothing is committed), read_uncommitted, CRCs checked."""
    return {
        **for_admin(address, options),
        "group.id": "corelog-none",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_uncommitted",
        "auto.offset.reset": "error",
        "check.crcs": True,
        "fetch.min.bytes": 1,
        "fetch.wait.max.ms": 500,
        "fetch.error.backoff.ms": 50,
        "fetch.queue.backoff.ms": 10,
        "fetch.message.max.bytes": MESSAGE_BYTES_MAX,
        "queued.min.messages": 20_000,
        "queued.max.messages.kbytes": 16_384,
    }
