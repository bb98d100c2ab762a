"""Puts a mutant in place of what is right: before its module is imported, or into functions that live already."""

import gc
import importlib.abc
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from tests.mutation.mutants import mutated


def before_import(module: str, source: str, number: int) -> None:
    """The module, which nobody has imported yet, will come with its fault."""
    assert module not in sys.modules, f"{module} is loaded already"
    sys.meta_path.insert(0, _Planted(module, source, number))


def in_place(source: str, number: int, function: int) -> bool:
    """The function that begins on that line gets the fault's code; False if none lives that could.

    All who hold the function have the fault, however they came by it. What it made on import stays right.
    """
    code = next(_beginning(function, compile(mutated(Path(source).read_text(), number), source, "exec")), None)
    living = [one for one in gc.get_objects() if isinstance(one, FunctionType) and _is(one.__code__, code)]
    for one in living:
        one.__code__ = code
    return bool(living)


def _is(one: CodeType, other: CodeType | None) -> bool:
    return other is not None and (one.co_filename, one.co_firstlineno, one.co_name) == (
        other.co_filename,
        other.co_firstlineno,
        other.co_name,
    )


def _beginning(line: int, code: CodeType) -> Iterator[CodeType]:
    """Functions of the module that begin there: those in classes, but not those in functions."""
    for one in code.co_consts:
        if not isinstance(one, CodeType):
            continue
        if one.co_flags & 1:  # CO_OPTIMIZED: a function; a class's body is none
            if one.co_firstlineno == line and not one.co_name.startswith("<"):
                yield one
        else:
            yield from _beginning(line, one)


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
