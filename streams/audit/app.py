"""``corelog audit``: a stream application (Faust) that keeps the trail while the cluster runs.

It consumes the log and the outcomes topic and keeps

    table ``corelog-trail``   position → line; a command is there, pending, as soon as the log has it. KEPT newest
    table ``corelog-who``     "principal subject" → asked, refused, last position and time
    a file of JSON lines      each command with its outcome, once (if asked for)
    topic ``<log>.alerts``    an alert when one principal is refused often (see streams.audit.trail.Refusals)

Both source topics have one partition, so the tables' changelogs have one. Delivery is at least once (what Faust leaves
out is read again, see streams.audit.whole); positions make what comes twice harmless. Faust's source topics must be
there before it starts: :func:`run` makes ours and waits for the log's. Nothing is sent before the tables are there: a
timer of Faust's that sends before its producer is up crashes.
"""

import asyncio
import contextlib
import logging
import ssl
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faust
import msgspec
import structlog
from faust.types import TP

from streams.audit import kafka
from streams.audit.export import founded
from streams.audit.file import TrailFile
from streams.audit.lines import BadLine, Line, plain, unpacked
from streams.audit.outcomes import MARK, Unique
from streams.audit.trail import Alert, Commands, Refusals
from streams.audit.whole import Handle, Message, Whole
from streams.log.kafka.messages import raw_of
from streams.log.kafka.options import Address, Options, parse_address, parse_options
from streams.log.port import ForeignLog, LogUnavailable
from streams.records import Entry

#: Lines in the table, and so in memory; the file and the topics have all.
KEPT = 100_000
WAIT_S = 1.0
SESSION_S = 6.0
#: How often the ends of the topics are asked for.
LOOK_S = 5.0

_logger = structlog.get_logger("audit")


class Audit:
    """The application's own part: what it does with a record of the log and with a line of the outcomes topic.

    ``trail`` and ``who`` are Faust's tables (any mutable mapping in tests).
    """

    def __init__(
        self, trail: Any, who: Any, rule: Refusals, file: TrailFile | None = None, log_id: str = "", kept: int = KEPT
    ) -> None:
        self.trail = trail
        self.who = who
        self._rule = rule
        self._file = file
        self._kept = kept
        self._commands = Commands(log_id)
        self._unique = Unique()
        self._order: deque[str] | None = None

    def on_log(self, entry: Entry) -> None:
        """Commands stand on the log: they are pending until their outcome is told (maybe it was told already)."""
        for line in self._commands.lines(entry):
            if line.position not in self.trail:
                self._keep(line)

    def on_outcome(self, fold: str, line: Line) -> Alert | None:
        """An outcome: it takes the pending line's place. What comes twice changes nothing."""
        if self._file is not None:
            self._file.add(fold, line)
        if not self._unique.new(fold, line) or line.type == MARK:
            return None
        known = self.trail.get(line.position)
        if known is not None and known["outcome"] != "pending":
            return None
        self._keep(line)
        if line.principal:
            self._count(line)
        return self._rule.seen(line)

    def _keep(self, line: Line) -> None:
        if self._order is None:
            # the table was recovered from its changelog; order it once
            self._order = deque(sorted(self.trail.keys(), key=lambda at: tuple(map(int, at.split(".")))))
        if line.position not in self.trail:
            self._order.append(line.position)
        self.trail[line.position] = plain(line)
        while len(self._order) > self._kept:
            self.trail.pop(self._order.popleft(), None)

    def _count(self, line: Line) -> None:
        key = f"{line.principal} {line.subject}"
        counted = dict(self.who.get(key) or {"asked": 0, "refused": 0})
        counted["asked"] += 1
        counted["refused"] += line.outcome == "rejected"
        counted["position"], counted["time_ms"], counted["type"] = line.position, line.time_ms, line.type
        self.who[key] = counted


def application(
    address: Address,
    options: Options,
    rule: Refusals,
    file: TrailFile | None = None,
    log_id: str = "",
    name: str = "corelog-audit",
    folder: str = "",
) -> tuple[faust.App, Audit]:
    """The Faust application on a log and its outcomes topic; ``name`` is also its consumer group.

    ``folder``: where Faust makes what it wants on the disk; nothing of it is needed afterwards (empty: where it is
    started).
    """
    app = faust.App(
        name,
        broker=";".join(f"kafka://{broker}" for broker in address.brokers),
        broker_credentials=credentials(options.client),
        store="memory://",
        topic_replication_factor=_replicas(address, options),
        topic_partitions=1,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
        datadir=folder or None,
        # an audit that was killed holds its partitions for so long
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=SESSION_S / 3,
    )
    raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    log = app.topic(address.topic, **raw)
    outcomes = app.topic(kafka.outcomes_topic(address.topic), **raw)
    alerts = app.topic(alerts_topic(address.topic), **raw)
    audit = Audit(app.Table(f"{name}-trail", partitions=1), app.Table(f"{name}-who", partitions=1), rule, file, log_id)

    async def of_log(message: Message) -> None:
        audit.on_log(Entry(message.offset, raw_of(message.key, message.value, list(message.headers))))

    async def of_outcomes(message: Message) -> None:
        try:
            lines = unpacked(message.value or b"", f"{kafka.outcomes_topic(address.topic)} offset {message.offset}")
        except BadLine as error:
            _logger.warning("passed over: not a line of the trail", error=str(error))
            return
        fold = (message.key or b"").decode("utf-8", "replace")
        for alert in filter(None, [audit.on_outcome(fold, line) for line in lines]):
            _logger.warning("refused often", **msgspec.structs.asdict(alert))
            await alerts.send(key=alert.principal.encode(), value=msgspec.json.encode(alert))

    for topic, handle in ((log, of_log), (outcomes, of_outcomes)):
        _follow(app, topic, handle, address, options)
    return app, audit


def _follow(app: faust.App, topic: Any, handle: Handle, address: Address, options: Options) -> None:
    """An agent on a topic of one partition that passes each message to ``handle``, whatever Faust leaves out."""
    [name] = topic.topics

    async def read(start: int, end: int) -> list[Message]:
        _logger.info("read again: Faust left it out", topic=name, first=start, end=end)
        return [_plain(one) for one in await asyncio.to_thread(kafka.between, address, options, name, start, end)]

    whole = Whole(kafka.committed(address, options, name, app.conf.id), read, handle)

    @app.agent(topic, name=name)
    async def follow(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            headers = message.headers.items() if isinstance(message.headers, Mapping) else message.headers
            await whole.came(Message(message.offset, message.key, message.value, list(headers or ())))

    @app.timer(interval=LOOK_S, name=f"look {name}")  # type: ignore[untyped-decorator]
    async def look() -> None:
        # before the tables are there, and while another audit of this group has the partition, nothing should come
        recovery: Any = app.tables.recovery  # type: ignore[attr-defined]
        if recovery.completed.is_set() and TP(name, 0) in app.consumer.assignment():
            with contextlib.suppress(LogUnavailable):
                if whole.stands(await asyncio.to_thread(kafka.end_of, address, options, name)):
                    _logger.info("asked for again: Faust left it out", topic=name, first=whole.next)
                    # tables can be changed in answer to a message only, so Faust itself must read it again
                    await app.consumer.seek(TP(name, 0), whole.next)


def _plain(message: Any) -> Message:
    return Message(message.offset(), message.key(), message.value(), message.headers() or ())


def alerts_topic(log_topic: str) -> str:
    return f"{log_topic}.alerts"


def _replicas(address: Address, options: Options) -> int:
    """As many replicas for the tables' changelogs as the outcomes topic has."""
    found = kafka.replicas(address, options, kafka.outcomes_topic(address.topic))
    return max(found, 1)


def credentials(client: Mapping[str, str]) -> Any:
    """Faust's credentials from the log's options. Raises ForeignLog for a mechanism that it can't do."""
    protocol = client.get("security.protocol", "plaintext").upper()
    if protocol == "PLAINTEXT":
        return None
    context = None
    if protocol in ("SSL", "SASL_SSL"):
        context = ssl.create_default_context(cafile=client.get("ssl.ca.location"))
        if client.get("enable.ssl.certificate.verification", "true").lower() == "false":
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        elif client.get("ssl.endpoint.identification.algorithm", "https").lower() == "none":
            context.check_hostname = False
        if "ssl.certificate.location" in client:
            context.load_cert_chain(
                client["ssl.certificate.location"], client.get("ssl.key.location"), client.get("ssl.key.password")
            )
    if protocol == "SSL":
        return faust.SSLCredentials(context)
    mechanism = client.get("sasl.mechanism", client.get("sasl.mechanisms", "PLAIN")).upper()
    try:
        return faust.SASLCredentials(
            username=client.get("sasl.username"),
            password=client.get("sasl.password"),
            ssl_context=context,
            mechanism=mechanism,
        )
    except ValueError as error:
        raise ForeignLog(f"the audit can't use sasl.mechanism={mechanism}: {error}") from error


def run(
    log_address: str,
    options: Mapping[str, str] | None = None,
    *,
    file: Path | None = None,
    limit: int = 5,
    window_s: float = 60.0,
    name: str = "corelog-audit",
) -> None:
    """Run until SIGINT or SIGTERM. Blocks; call it in the main thread.

    Raises ForeignLog (no Kafka address, topics that don't fit), BadTrailFile; waits while no broker answers.
    """
    address, parsed = parse_address(log_address), parse_options(options or {})
    _wait_for_topics(address, parsed)
    trail_file = TrailFile(file) if file is not None else None
    rule = Refusals(limit, int(window_s * 1000))
    try:
        log_id = asyncio.run(founded(log_address, options))
        # the tables are in memory and in their changelogs, but Faust makes folders for them all the same
        with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
            app, _ = application(address, parsed, rule, trail_file, log_id, name, folder)
            logging.getLogger("aiokafka").setLevel(logging.ERROR)
            faust.Worker(app, loglevel="WARNING", quiet=True, redirect_stdouts=False).execute_from_commandline()
    finally:
        if trail_file is not None:
            trail_file.close()


def _wait_for_topics(address: Address, options: Options) -> None:
    """Until the log's topic is there; then make the outcomes and the alerts topic. Raises ForeignLog."""
    told = ""
    while True:
        try:
            if not kafka.replicas(address, options, address.topic):
                raise LogUnavailable(f"there is no topic {address.topic!r} at {address.bootstrap}; no node has run yet")
            kafka.ensure(address, options)
            kafka.ensure(address, options, alerts_topic(address.topic))
        except LogUnavailable as error:
            if str(error) != told:
                told = str(error)
                _logger.warning("waiting", error=told)
            time.sleep(WAIT_S)
        else:
            return
