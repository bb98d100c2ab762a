"""What the node's processes write: structured lines on standard error, from structlog and from libraries' logging."""

import logging
import os
import sys

import structlog

from node.banner import colored


def set_up(color: str) -> None:
    """Called in the main process, before the first fork; the actors inherit it."""
    shared: list[structlog.typing.Processor] = [structlog.processors.add_log_level]
    if not os.environ.get("JOURNAL_STREAM"):  # the journal has its own clock
        shared.append(structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False))
    structlog.configure(
        processors=[
            *shared,
            structlog.dev.ConsoleRenderer(
                colors=colored(color, sys.stderr),
                pad_event_to=40,
                # never a traceback with local variables: they hold tokens
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True
    )
