"""Which form of the hot modules runs. ``make test-native`` asks for the compiled one."""

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


def test_metrics_tell_the_form(tmp_path: Path) -> None:
    with Running(tmp_path) as server:
        page = Client(server.port)
        body = page.raw("GET", "/metrics")[2].decode()
        page.close()
    assert f"corelog_native {float(is_native())}" in body.splitlines()
