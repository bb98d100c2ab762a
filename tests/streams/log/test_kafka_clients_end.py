"""A Kafka client that is used once ends where it was used. Nobody answers at the address of these tests.

One that waits for the garbage collector ends on whatever thread that runs on, and takes seconds if its brokers are
gone: on the loop's, a node answered nobody meanwhile.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.log.kafka.options import for_admin, parse_address, parse_options
from streams.log.kafka.topic import reach
from streams.log.kafka.writer import controller
from streams.log.port import LogUnavailable

ADDRESS = parse_address("kafka://127.0.0.1:1")
OPTIONS = parse_options({})


def _clients_threads() -> set[str]:
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text().startswith("rdk:"):
                found.add(task.name)
    return found


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def _asks_the_controller() -> object:
    live, why = controller(for_admin(ADDRESS, OPTIONS), "corelog")
    assert not live
    assert why.startswith("no controller: ")
    return why


def _looks_who_is_there() -> object:
    with pytest.raises(LogUnavailable) as caught:
        reach(ADDRESS, OPTIONS)
    return caught


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("ask", [_asks_the_controller, _looks_who_is_there], ids=lambda ask: ask.__name__.strip("_"))
def test_a_client_has_ended_when_the_question_is_answered(ask: Callable[[], object]) -> None:
    before = _clients_threads()
    held = ask()
    assert _clients_threads() <= before
    del held
