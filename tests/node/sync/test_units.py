"""Units that ask for files from keys (``[X-Corelog] Template=``), on a real node."""

import os
import time
from pathlib import Path

import pytest

from tests.acceptance.harness import Node, until
from tests.node.sync.keys import put

pytestmark = pytest.mark.timeout(180)


def start(node: Node, folder: Path, name: str, text: str, code: int | None = 0) -> None:
    file = folder / name
    file.write_text(text)
    node.run("unit", "start", str(file), code=code)


def journal(node: Node, name: str) -> str:
    return (node.folder / "engine/units" / name / "journal").read_text()


def test_a_file_is_there_before_the_unit_starts_and_a_change_restarts_it(node: Node, tmp_path: Path) -> None:
    dest = tmp_path / "out/r.conf"
    put(node.etcd, "/r/template", 'port={{ getv("/r/port") }} unit={{ unit }}\n')
    put(node.etcd, "/r/port", "1")
    content = (
        f'[Service]\nExecStart=/bin/sh -c "cat {dest}; exec sleep 1000"\n'
        f"[X-Corelog]\nTemplate=kv:/r/template:{dest}:0640\n"
    )
    start(node, tmp_path, "r.service", content)
    until(lambda: "port=1 unit=r.service" in journal(node, "r.service"), says="the first run")
    assert dest.stat().st_mode & 0o777 == 0o640
    began_s = time.monotonic()
    put(node.etcd, "/r/port", "2")
    until(lambda: "port=2" in journal(node, "r.service"), says="a second run")
    assert time.monotonic() - began_s < 5
    assert dest.read_text() == "port=2 unit=r.service\n"


def test_reload_runs_exec_reload_and_the_process_stays(node: Node, tmp_path: Path) -> None:
    dest, template = tmp_path / "l.conf", tmp_path / "l.j2"
    template.write_text('{{ getv("/l") }}\n')
    put(node.etcd, "/l", "one")
    content = (
        f'[Service]\nExecStart=/bin/sh -c "sleep 1000"\nExecReload=/bin/sh -c "echo told $MAINPID; cat {dest}"\n'
        f"[X-Corelog]\nTemplate={template}:{dest}\nTemplateOnChange=reload\n"
    )
    start(node, tmp_path, "l.service", content)
    pid = until(lambda: node.unit("l.service")["placements"][0]["pid"], says="a process")
    put(node.etcd, "/l", "two")
    until(lambda: "two" in journal(node, "l.service"), says="the reload")
    assert f"told {pid}" in journal(node, "l.service")
    assert node.unit("l.service")["placements"][0]["pid"] == pid


def test_a_unit_whose_template_cannot_be_rendered_does_not_start_and_says_why(node: Node, tmp_path: Path) -> None:
    dest, template = tmp_path / "b.conf", tmp_path / "b.j2"
    template.write_text('# b\n{{ getv("/b/not/there") }}\n')
    content = f"[Service]\nExecStart=/bin/sleep 1000\n[X-Corelog]\nTemplate={template}:{dest}\nTemplateOnChange=none\n"
    (tmp_path / "b.service").write_text(content)
    node.run("unit", "start", str(tmp_path / "b.service"), "--no-wait")
    why = f"{template}:2: there is no key /b/not/there"
    until(lambda: why in str(node.unit("b.service")), says="the reason")
    assert not dest.exists()
    put(node.etcd, "/b/not/there", "x")
    pid = until(lambda: node.unit("b.service")["placements"][0]["pid"], says="the start once the key is there")
    put(node.etcd, "/b/not/there", "y")
    until(lambda: dest.read_text() == "# b\ny\n", says="the new file")
    assert node.unit("b.service")["placements"][0]["pid"] == pid


def test_the_renderer_is_started_again_and_goes_with_the_last_template(node: Node, tmp_path: Path) -> None:
    dest, template = tmp_path / "k.conf", tmp_path / "k.j2"
    template.write_text('{{ getv("/k") }}')
    put(node.etcd, "/k", "1")
    content = f"[Service]\nExecStart=/bin/sleep 1000\n[X-Corelog]\nTemplate={template}:{dest}\nTemplateOnChange=none\n"
    start(node, tmp_path, "k.service", content)
    (before,) = renderers(node)
    os.kill(before, 9)
    put(node.etcd, "/k", "2")
    until(lambda: dest.read_text() == "2", says="the file by the next renderer")
    assert renderers(node) != [before]


def renderers(node: Node) -> list[int]:
    folder = os.fsencode(node.folder / "engine/templates")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"sync" in words and folder in words:
                found.append(int(entry.name))
    return found
