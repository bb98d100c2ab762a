"""Opens a log by its address; imports only the driver that is asked for."""

from collections.abc import Mapping

from streams.log.port import ForeignLog, Log


async def open_log(address: str, options: Mapping[str, str] | None = None) -> Log:
    """``segments:///folder`` or ``kafka://host:port[,host:port…][/topic]``; ``options`` go to the driver.

    Raises LogUnavailable when nobody answers, ForeignLog when what is there can't be used (and how to mend it).
    """
    scheme, _, rest = address.partition("://")
    if scheme == "segments":
        from streams.log.segments import SegmentsLog

        return await SegmentsLog.open(rest, dict(options or {}))
    if scheme == "kafka":
        from streams.log.kafka import KafkaLog

        return await KafkaLog.open(address, dict(options or {}))
    raise ForeignLog(
        f"{address!r} is not a log's address: segments:///folder or kafka://host:port[,host:port…][/topic]"
    )
