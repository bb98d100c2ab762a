"""Runs mutants, each in a forked process with its module replaced."""

import contextlib
import enum
import importlib
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

from tests.mutation.mutants import mutated

#: module, path of its source, number of the mutant, tests
Work = tuple[str, str, int, list[str]]


#: In place of a mutant's number: the tests as they are.
NO_FAULT = -1


class Verdict(enum.Enum):
    KILLED = "killed"
    SURVIVED = "survived"
    TIMEOUT = "did not end"


class _Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module: with its fault."""

    def __init__(self, module: str, source: str, number: int) -> None:
        self._module, self._source, self._number = module, source, number

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._module:
            return None
        return importlib.util.spec_from_file_location(name, self._source, loader=self)

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        tree = mutated(Path(self._source).read_text(), self._number)
        exec(compile(tree, self._source, "exec"), module.__dict__)


def run(work: Sequence[Work], workers: int, timeout_s: float) -> Iterator[tuple[int, Verdict]]:
    """``(index in work, verdict)`` as they come."""
    _load()
    waiting, running = list(enumerate(work)), dict[int, tuple[int, float]]()
    while waiting or running:
        while waiting and len(running) < workers:
            at, one = waiting.pop(0)
            running[_forked(one)] = at, time.monotonic() + timeout_s
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            at, _ = running.pop(pid)
            yield at, Verdict.SURVIVED if os.waitstatus_to_exitcode(status) == 0 else Verdict.KILLED
        for late in [pid for pid, (_, end_s) in running.items() if end_s < time.monotonic()]:
            at, _ = running.pop(late)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(late, signal.SIGKILL)
            os.waitpid(late, 0)
            yield at, Verdict.TIMEOUT
        time.sleep(0.01)


def _load() -> None:
    """What no mutant changes, so that forks have it already."""
    for name in ("google.protobuf.message", "msgspec", "sortedcontainers"):
        importlib.import_module(name)
    no_shrinking = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutation", derandomize=True, deadline=None, database=None, phases=no_shrinking, report_multiple_bugs=False
    )
    hypothesis.settings.load_profile("mutation")
    loaded = [name for name in sys.modules if name == "actors" or name.startswith("actors.")]
    assert not loaded, f"loaded before a fault could be planted: {loaded}"


def _forked(work: Work) -> int:
    module, source, number, tests = work
    pid = os.fork()
    if pid:
        return pid
    code = 2
    try:
        os.setpgid(0, 0)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        if number != NO_FAULT:
            sys.meta_path.insert(0, _Planted(module, source, number))
        words = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not acceptance"]
        words += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # what is loaded already has no tests in it
        code = int(pytest.main([*words, *tests]))
    finally:
        os._exit(code)
