"""Show 1: clone into an empty folder, ``make run``, then the README's tour typed as printed."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import ROOT, free_port, http, until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]


def tour() -> str:
    """The commands of the README's section "A tour", as a shell script."""
    section = (ROOT / "README.md").read_text().split("## A tour\n", 1)[1].split("\n## ", 1)[0]
    lines: list[str] = []
    for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
        heredoc = ""
        for line in block.splitlines():
            if heredoc:
                lines.append(line)
                heredoc = "" if line == heredoc else heredoc
            elif line.startswith("$ "):
                lines.append(line[2:])
                found = re.search(r"<<'(\w+)'", line)
                heredoc = found[1] if found else ""
    return "\n".join(lines)


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[tuple[Path, dict[int, int]]]:
    """A fresh clone with ``make run`` serving in it; the ports that stand for the README's."""
    folder = tmp_path / "corelog"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    ports = {2379: free_port(), 7379: free_port(), 8080: free_port()}
    env = {
        **os.environ,
        "CORELOG_ETCD_LISTEN": f"127.0.0.1:{ports[2379]}",
        "CORELOG_GATEWAY_LISTEN": f"127.0.0.1:{ports[7379]}",
    }
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL"):
        env.pop(name, None)
    with open(tmp_path / "make.out", "wb") as out:
        make = subprocess.Popen(["make", "run"], cwd=folder, stdout=out, stderr=out, env=env, start_new_session=True)
    try:
        until(
            lambda: make.poll() is None and http(f"http://127.0.0.1:{ports[7379]}/health")[0] == 200,
            timeout_s=600,
            says=f"make run: {(tmp_path / 'make.out').read_text()}",
        )
        until(lambda: http(f"http://127.0.0.1:{ports[2379]}/health")[0] == 200)
        yield folder, ports
        os.killpg(make.pid, signal.SIGINT)
        # make itself ends by the signal that it got
        assert make.wait(30) in (0, 2, 130, -signal.SIGINT), (tmp_path / "make.out").read_text()
        assert "handing over and stopping" in (tmp_path / "make.out").read_text()
    finally:
        if make.poll() is None:
            os.killpg(make.pid, signal.SIGKILL)
            make.wait()


def test_the_tour_as_printed(clone: tuple[Path, dict[int, int]]) -> None:
    folder, ports = clone
    script = tour()
    for printed, real in ports.items():
        script = re.sub(rf"\b{printed}\b", str(real), script)
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    out = done.stdout
    assert '"value":"hello"' in out
    assert "\nhello\n" in out
    assert "\n200\n" in out
    assert "uid:" in out
    assert "least loaded" in out
    assert "\none\n" in out
    assert "whole" in out + done.stderr


def test_a_unit_that_is_a_real_nginx(node: object, tmp_path: Path) -> None:
    from tests import needs

    nginx = needs.program("nginx")
    port = free_port()
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/nginx.pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; server {{ listen 127.0.0.1:{port}; return 200 'from nginx'; }} }}\n"
    )
    unit = tmp_path / "nginx.service"
    unit.write_text(f"[Service]\nExecStart={nginx} -c {tmp_path}/nginx.conf -p {tmp_path}\n")
    node.run("unit", "start", str(unit))  # type: ignore[attr-defined]
    assert until(lambda: http(f"http://127.0.0.1:{port}/")) == (200, b"from nginx")
