"""Small wrong changes to a module, one at a time. Pure: source in, mutants out."""

import ast
from collections.abc import Callable, Iterator
from typing import NamedTuple

_COMPARES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_SUMS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


class Mutant(NamedTuple):
    """``number``: its place among the module's mutants. ``what``: the change, in a person's words.

    ``function``: the outermost function that it is in, by the first line of its code; None for what runs on import.
    """

    line: int
    number: int
    what: str
    function: int | None = None


class _Change(NamedTuple):
    node: ast.AST
    what: str
    make: Callable[[], None]
    function: int | None = None


def mutants(source: str) -> list[Mutant]:
    """All of a module's."""
    return [
        Mutant(getattr(one.node, "lineno", 0), number, one.what, one.function)
        for number, one in enumerate(_changes(ast.parse(source)))
    ]


def mutated(source: str, number: int) -> ast.Module:
    """The module with that one change."""
    tree = ast.parse(source)
    for at, change in enumerate(_changes(tree)):
        if at == number:
            change.make()
            return ast.fix_missing_locations(tree)
    raise IndexError(f"the module has no mutant {number}")


def _changes(tree: ast.Module) -> Iterator[_Change]:
    for node, function in _code(tree, None):
        for change in _of(node):
            yield change._replace(function=function)


def _code(node: ast.AST, function: int | None) -> Iterator[tuple[ast.AST, int | None]]:
    """What runs: no annotations, no docstrings, no messages of assertions, no ``__slots__``; and in which function."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "type_params", "decorator_list", "msg"):
            continue
        inside = function
        if function is None and field == "body" and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside = min([node.lineno, *(one.lineno for one in node.decorator_list)])
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _silent(child):
                continue
            yield child, inside
            yield from _code(child, inside)


def _silent(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id == "__slots__"
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _of(node: ast.AST) -> Iterator[_Change]:
    match node:
        case ast.Compare():
            for at, operator in enumerate(node.ops):
                other = _COMPARES[type(operator)]
                yield _Change(node, f"{_name(operator)} is {other.__name__}", _setter(node.ops, at, other()))
        case ast.BoolOp():
            other_bool = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield _Change(node, f"{_name(node.op)} is {_name(other_bool)}", _attribute(node, "op", other_bool))
        case ast.UnaryOp(op=ast.Not()):
            yield _Change(node, "not is dropped", _same(node))
        case ast.BinOp() | ast.AugAssign() if type(node.op) in _SUMS:
            made = _SUMS[type(node.op)]()
            yield _Change(node, f"{_name(node.op)} is {_name(made)}", _attribute(node, "op", made))
        case ast.Constant():
            yield from _constant(node)
        case ast.If() | ast.While() | ast.IfExp() if not isinstance(node.test, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
            yield _Change(node, "the condition is turned round", _attribute(node, "test", _not(node.test)))
        case ast.Break():
            yield _Change(node, "break is pass", _pass(node))
        case ast.Continue():
            yield _Change(node, "continue is pass", _pass(node))
        case ast.Return() if node.value is not None and not _is_none(node.value):
            yield _Change(node, "returns None", _attribute(node, "value", ast.Constant(None)))
        case ast.Expr(value=ast.Call()):
            yield _Change(node, f"not called: {ast.unparse(node)[:60]}", _attribute(node, "value", ast.Constant(None)))
        case _:
            pass


def _constant(node: ast.Constant) -> Iterator[_Change]:
    value = node.value
    if isinstance(value, bool):
        yield _Change(node, f"{value} is {not value}", _attribute(node, "value", not value))
    elif isinstance(value, int):
        yield _Change(node, f"{value} is {value + 1}", _attribute(node, "value", value + 1))
    elif isinstance(value, (str, bytes)):
        other = value + ("!" if isinstance(value, str) else b"!")  # type: ignore[operator]
        yield _Change(node, f"{value!r:.40} is longer", _attribute(node, "value", other))


def _setter(items: list[ast.cmpop], at: int, made: ast.cmpop) -> Callable[[], None]:
    def change() -> None:
        items[at] = made

    return change


def _attribute(node: ast.AST, name: str, made: object) -> Callable[[], None]:
    return lambda: setattr(node, name, made)


def _same(node: ast.UnaryOp) -> Callable[[], None]:
    """``not x`` becomes ``bool(x)``, which is ``not not x``."""
    return lambda: setattr(node, "operand", _not(node.operand))


def _pass(node: ast.AST) -> Callable[[], None]:
    """The statement does nothing: its node becomes one that has no effect."""

    def change() -> None:
        node.__class__ = ast.Pass

    return change


def _not(node: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), node)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _name(node: ast.AST) -> str:
    return type(node).__name__
