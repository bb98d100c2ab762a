"""Opens a log by its address; imports only the driver that is asked for."""

import importlib
from collections.abc import Mapping

from streams.log.port import ForeignLog, Log


def load(address: str) -> None:
    """Import the driver, which starts nothing: processes that are forked later share it."""
    if address.startswith("kafka://"):
        importlib.import_module("streams.log.kafka")


async def open_log(address: str, options: Mapping[str, str] | None = None, checked: str = "") -> Log:
    """``segments:///folder`` or ``kafka://host:port[,host:port…][/topic]``; ``options`` go to the driver.

    ``checked``: what :func:`check_of` says of a log of this address that was opened before; all of it holds still.
    Raises LogUnavailable when nobody answers, ForeignLog when what is there can't be used (and how to mend it).
    """
    scheme, _, rest = address.partition("://")
    if scheme == "segments":
        from streams.log.segments import SegmentsLog

        return await SegmentsLog.open(rest, dict(options or {}))
    if scheme == "kafka":
        from streams.log.kafka import KafkaLog

        return await KafkaLog.open(address, dict(options or {}), checked)
    raise ForeignLog(
        f"{address!r} is not a log's address: segments:///folder or kafka://host:port[,host:port…][/topic]"
    )


def check_of(log: Log) -> str:
    """What the opening of ``log`` found, so that the next one needn't look; empty if looking costs nothing."""
    return str(getattr(log, "checked", ""))
