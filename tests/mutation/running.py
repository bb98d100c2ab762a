"""Runs mutants, each in a forked process, and on each only the tests that come by it.

One process collects all tests once. A first fork of it runs them without a fault and tells how long each takes and
which functions it enters. Then each mutant in a function that no import enters is a fork that has just that function's
code replaced; the others' modules are imported anew, in forks of a process that has none of ours. Of the tests, those
come first that are quick and noticed much before.
"""

import contextlib
import enum
import faulthandler
import importlib
import json
import mmap
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

import hypothesis
import pytest

from tests.mutation import planting
from tests.mutation.mutants import Mutant

#: A function: its file, and the first line of its code.
Function = tuple[str, int]

_SURVIVED, _NOT_ENDED, _KILLED, _NO_SUCH = 0, 1, 3, 4


class Verdict(enum.Enum):
    KILLED = "killed"
    SURVIVED = "survived"
    TIMEOUT = "did not end"


class Work(NamedTuple):
    """``source``: the path of the module's text. ``users``: such paths of the modules that import it, and its own."""

    module: str
    source: str
    mutant: Mutant
    users: frozenset[str]


class Known(NamedTuple):
    """Of a test, from its run without a fault. In seconds by the wall."""

    test: str
    took_s: float
    enters: frozenset[Function]


class Budget(NamedTuple):
    """What tests a mutant is worth: none that takes longer than ``longest_s``, and ``each_s`` in all.

    A test "does not end" that takes ``more_s`` and five times what it took without a fault.
    """

    longest_s: float
    each_s: float
    more_s: float = 15


class NotSound(Exception):
    """Tests fail where there is no fault. The argument names them."""


class _Noticed:
    """How many mutants each test noticed, counted by all forks together. A count that is lost costs only time."""

    def __init__(self, tests: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 4 * max(1, tests))).cast("i")
        self._at: dict[str, int] = {}

    def name(self, tests: Sequence[str]) -> None:
        self._at = {test: at for at, test in enumerate(sorted(tests)[: len(self._counts)])}

    def count(self, test: str) -> None:
        self._counts[self._at[test]] += 1

    def chosen(self, tests: Sequence[Known], budget: Budget) -> list[Known]:
        """The most promising first, while the budget lasts."""
        out, left_s = [], budget.each_s
        for test in sorted(tests, key=lambda test: test.took_s / (1 + self._counts[self._at[test.test]])):
            if test.took_s <= min(budget.longest_s, left_s):
                out.append(test)
                left_s -= test.took_s
        return out


def run(
    work: Sequence[Work], tests: Sequence[str], workers: int, budget: Budget, known: list[Known]
) -> Iterator[tuple[int | None, Verdict]]:
    """``(index in work, verdict)`` as they come; before them, an index of None: ``known`` is whole.

    ``known``: tests that need not be measured; the others are added. Raises NotSound.
    """
    _load()
    files = {user for one in work for user in one.users}
    anew: list[int] = []
    noticed = _Noticed(10_000)
    for line in _elsewhere(lambda tell: _with_all_collected(work, tests, files, workers, budget, known, noticed, tell)):
        match line:
            case ["failed", names]:
                raise NotSound(" ".join(names))
            case ["test", *test]:
                known.append(read(test))
            case ["sound"]:
                yield None, Verdict.SURVIVED
            case ["anew", at]:
                anew.append(at)
            case ["verdict", at, verdict]:
                yield at, Verdict(verdict)
    noticed.name([test.test for test in known])
    work_anew = [(at, lambda one=work[at]: _anew(one, _of_module(one, known), budget, noticed)) for at in anew]
    yield from ((at, verdict) for at, verdict in _forks(work_anew, workers) if verdict is not None)


def read(test: Any) -> Known:
    """Of JSON."""
    name, took_s, enters = test
    return Known(name, took_s, frozenset((file, at) for file, at in enters))


# --- processes ---


def _elsewhere(do: Callable[[Callable[[object], None]], None]) -> Iterator[Any]:
    """What ``do`` tells, from a fork, as it comes."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reading)
            _quiet()
            do(lambda one: _write(writing, one))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as lines:
        for line in lines:
            yield json.loads(line)
    os.waitpid(pid, 0)


def _write(writing: int, one: object) -> None:
    waiting = json.dumps(one).encode() + b"\n"
    while waiting:
        waiting = waiting[os.write(writing, waiting) :]


def _forks(work: Sequence[tuple[int, Callable[[], int]]], workers: int) -> Iterator[tuple[int, Verdict | None]]:
    """Each in a fork, so many at a time; None for one in which the fault could not be planted."""
    waiting, running = list(reversed(work)), dict[int, int]()
    while waiting or running:
        while waiting and len(running) < workers:
            at, do = waiting.pop()
            running[_forked(do)] = at
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            with contextlib.suppress(ProcessLookupError):  # what it started and left
                os.killpg(pid, signal.SIGKILL)
            yield running.pop(pid), _verdict(os.waitstatus_to_exitcode(status))
        else:
            time.sleep(0.005)


def _verdict(code: int) -> Verdict | None:
    if code == _NO_SUCH:
        return None
    return {_SURVIVED: Verdict.SURVIVED, _NOT_ENDED: Verdict.TIMEOUT}.get(code, Verdict.KILLED)


def _forked(do: Callable[[], int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = _KILLED
    try:
        os.setpgid(0, 0)
        _quiet()
        code = do()
    finally:
        os._exit(code)


def _quiet() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)


def _load() -> None:
    """What no mutant changes, so that forks have it already; and the profile of property tests, without luck."""
    for name in ("google.protobuf.message", "msgspec", "sortedcontainers", "docker", "starlette.applications", "grpc"):
        importlib.import_module(name)
    no_shrinking = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutation", derandomize=True, deadline=None, database=None, phases=no_shrinking, report_multiple_bugs=False
    )
    hypothesis.settings.load_profile("mutation")
    loaded = [name for name in sys.modules if name == "actors" or name.startswith("actors.")]
    assert not loaded, f"loaded before a fault could be planted: {loaded}"


# --- tests ---


class _Loop:
    """In place of pytest's loop over the tests."""

    def __init__(self, do: Callable[[list[pytest.Item]], None]) -> None:
        self._do = do
        self.done = False

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if not session.testsfailed:
            self._do(session.items)
            self.done = True
        return True


def _pytest(tests: Sequence[str], do: Callable[[list[pytest.Item]], None]) -> bool:
    """Whether all tests could be collected."""
    words = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not acceptance"]
    words += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # what is loaded already has no tests in it
    loop = _Loop(do)
    pytest.main([*words, *tests], plugins=[loop])
    return loop.done


def _passes(items: Sequence[pytest.Item], took_s: dict[str, float], more_s: float, noticed: _Noticed) -> int:
    """Up to the first that fails; one that takes far longer than it should is ended, and all with it."""
    with open(os.devnull, "w") as nowhere:
        for at, item in enumerate(items):
            limit_s = more_s + 5 * took_s.get(item.nodeid, 0)
            faulthandler.dump_traceback_later(limit_s, exit=True, file=nowhere)
            after = items[at + 1] if at + 1 < len(items) else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if item.session.testsfailed:
                noticed.count(item.nodeid)
                item.session._setupstate.teardown_exact(None)
                return _KILLED
        faulthandler.cancel_dump_traceback_later()
    return _SURVIVED


def _with_all_collected(
    work: Sequence[Work],
    tests: Sequence[str],
    files: set[str],
    workers: int,
    budget: Budget,
    known: list[Known],
    noticed: _Noticed,
    tell: Callable[[object], None],
) -> None:
    on_import = set[Function]()

    def loop(items: list[pytest.Item]) -> None:
        sys.settrace(None)
        by_name = {item.nodeid: item for item in items}
        at_hand = [test for test in known if test.test in by_name]
        unknown = by_name.keys() - {test.test for test in at_hand}
        measured = [item for item in items if item.nodeid in unknown]
        for line in _elsewhere(lambda tell_known: _measured(measured, files, tell_known)):
            tell(line)
            if line[0] == "test":
                at_hand.append(read(line[1:]))
        tell(["sound"])
        noticed.name([test.test for test in at_hand])
        took_s = {test.test: test.took_s for test in at_hand}
        by_function = defaultdict[Function, list[Known]](list)
        for test in at_hand:
            for function in test.enters:
                by_function[function].append(test)

        def planted(one: Work) -> int:
            assert one.mutant.function is not None
            if not planting.in_place(one.source, one.mutant.number, one.mutant.function):
                return _NO_SUCH
            reaching = noticed.chosen(by_function[one.source, one.mutant.function], budget)
            return _passes([by_name[test.test] for test in reaching], took_s, budget.more_s, noticed)

        here = []
        for at, one in enumerate(work):
            if one.mutant.function is None or (one.source, one.mutant.function) in on_import:
                tell(["anew", at])
            else:
                here.append((at, lambda one=one: planted(one)))
        for at, verdict in _forks(here, workers):
            tell(["anew", at] if verdict is None else ["verdict", at, verdict.value])

    sys.settrace(_entered(files, on_import))
    if not _pytest(tests, loop):
        tell(["failed", ["their collection"]])


def _measured(items: list[pytest.Item], files: set[str], tell: Callable[[object], None]) -> None:
    """What fails is tried once more: some tests look at the clock, and tracing is slow."""
    enters, failed, again = set[Function](), list[str](), list[pytest.Item]()
    trace = _entered(files, enters)
    for at, item in enumerate(items):
        if not _traced(item, items[at + 1] if at + 1 < len(items) else None, trace, enters, tell):
            again.append(item)
    for item in again:
        if not _traced(item, None, trace, enters, tell):
            failed.append(item.nodeid)
    if failed:
        tell(["failed", failed])


def _traced(item: pytest.Item, after: pytest.Item | None, trace: Any, enters: set[Function], tell: Any) -> bool:
    enters.clear()
    began_s, before = time.monotonic(), item.session.testsfailed
    threading.settrace(trace)
    sys.settrace(trace)
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
    sys.settrace(None)
    passed = item.session.testsfailed == before
    if passed:
        tell(["test", item.nodeid, time.monotonic() - began_s, sorted(enters)])
    return passed


def _entered(files: set[str], enters: set[Function]) -> Callable[[FrameType, str, object], None]:
    def trace(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if code.co_filename in files:
            enters.add((code.co_filename, code.co_firstlineno))

    return trace


def _of_module(one: Work, known: Sequence[Known]) -> list[Known]:
    """The tests that enter a function of the module, or of one that imports it."""
    return [test for test in known if any(file in one.users for file, _ in test.enters)]


def _anew(one: Work, reaching: list[Known], budget: Budget, noticed: _Noticed) -> int:
    """The module imported with its fault; that tests can't be collected with it is noticed too."""
    code = _KILLED
    tests = noticed.chosen(reaching, budget)
    order = {test.test: at for at, test in enumerate(tests)}

    def loop(items: list[pytest.Item]) -> None:
        nonlocal code
        chosen = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])
        code = _passes(chosen, {test.test: test.took_s for test in tests}, budget.more_s, noticed)

    planting.before_import(one.module, one.source, one.mutant.number)
    _pytest(sorted({test.test.partition("::")[0] for test in tests}), loop)
    return code
