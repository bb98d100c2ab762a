"""Which form of the hot modules runs. ``make test-native`` asks for the compiled one."""

import ast
import importlib
import importlib.util
import os
from pathlib import Path

import pytest

from actors.kv.native import is_native
from tests.actors.kv.server import Client, Running

ROOT = Path(__file__).parents[3]


def modules() -> list[str]:
    spec = importlib.util.spec_from_file_location("native_build", ROOT / "deploy" / "native" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    found: list[str] = made.MODULES
    return found


def test_the_form_that_was_asked_for_runs() -> None:
    asked = os.environ.get("CORELOG_NATIVE")
    if asked is None:
        pytest.skip("CORELOG_NATIVE=yes|no asks for a form")
    assert is_native() == (asked == "yes")


@pytest.mark.parametrize("path", modules())
def test_all_hot_modules_are_of_one_form_and_none_is_older_than_its_source(path: str) -> None:
    file = importlib.import_module(path.removesuffix(".py").replace("/", ".")).__file__
    assert file is not None
    assert file.endswith(".py") != is_native(), file
    if is_native():
        made, written = Path(file).stat().st_mtime, (ROOT / path).stat().st_mtime
        assert made >= written, f"{path} was changed after it was compiled: make native, or make native-clean"


@pytest.mark.parametrize("path", modules())
def test_hot_modules_have_nothing_that_means_another_thing_compiled(path: str) -> None:
    """mypyc ignores options of a class (frozen, gc, omit_defaults), and gives a name one type in all of a function."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ClassDef):
            assert not node.keywords, f"{path}:{node.lineno}: {node.name} has options"
            bases = [ast.unparse(base) for base in node.bases]
            assert not any("Struct" in base or "NamedTuple" in base for base in bases), f"{path}:{node.lineno}"
            if any(base.endswith(("Error", "Exception", "Fault")) for base in bases):
                assert not [one for one in node.body if isinstance(one, ast.Assign | ast.AnnAssign)], f"{path}: {bases}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            caught: dict[str, set[str]] = {}
            for handler in ast.walk(node):
                if isinstance(handler, ast.ExceptHandler) and handler.name and handler.type is not None:
                    caught.setdefault(handler.name, set()).add(ast.unparse(handler.type))
            assert all(len(types) == 1 for types in caught.values()), f"{path}:{node.lineno}: {caught}"


def test_metrics_tell_the_form(tmp_path: Path) -> None:
    with Running(tmp_path) as server:
        page = Client(server.port)
        body = page.raw("GET", "/metrics")[2].decode()
        page.close()
    assert f"corelog_native {float(is_native())}" in body.splitlines()
