"""``corelog kv sync`` and ``kv mount`` as commands, on a real node by its socket."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.acceptance.harness import CORELOG, Node, until
from tests.node.sync.keys import delete, put

pytestmark = pytest.mark.timeout(400)


class Command:
    """A command that goes on until it is ended."""

    def __init__(self, node: Node, folder: Path, *words: str) -> None:
        self.said_in = folder / "said"
        with self.said_in.open("wb") as out:
            command = [*CORELOG, "kv", *words, "--data", str(node.folder)]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=node.env)

    def said(self) -> str:
        return self.said_in.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def test_once_renders_tells_and_ends(node: Node, tmp_path: Path) -> None:
    template, dest = tmp_path / "t", tmp_path / "out"
    template.write_text('a={{ getv("/once/a") }}\n')
    put(node.etcd, "/once/a", "1")
    words = ["kv", "sync", str(template), str(dest)]
    dry = node.run(*words, "--dry-run")
    assert "+a=1\n" in dry.out
    assert "would render" in dry.err
    assert not dest.exists()
    first = node.run(*words, "--once", "--mode", "0600", "--check", "grep -q a=1 {{.src}}", "--reload", "false", code=1)
    assert "its reload failed: `false` exited with code 1" in first.err
    assert (dest.read_text(), dest.stat().st_mode & 0o777) == ("a=1\n", 0o600)
    again = node.run(*words, "--once", "--reload", f"echo told >> {tmp_path}/told")
    assert "unchanged" in again.err
    assert (tmp_path / "told").read_text() == "told\n", "the reload that failed is made up for"
    node.run(*words, "--once", "--reload", f"echo told >> {tmp_path}/told")
    assert (tmp_path / "told").read_text() == "told\n", "nothing is new: nothing is told"
    nobody = node.run(*words, "--once", "--owner", "²", code=1)
    assert "this machine has no user ²; the file stays as it is" in nobody.err
    put(node.etcd, "/once/a", "2")
    refused = node.run(*words, "--once", "--check", "echo bad >&2; exit 3", "-o", "jsonl", code=1)
    assert refused.json["what"] == "failed"
    assert refused.json["why"] == "the check failed: " + (
        "`echo bad >&2; exit 3` exited with code 3: bad; the file stays as it is"
    )
    assert dest.read_text() == "a=1\n"
    delete(node.etcd, "/once/a")
    missing = node.run(*words, "--once", code=1)
    assert f"{template}:1: there is no key /once/a; the file stays as it is" in missing.err
    assert sorted(os.listdir(tmp_path)) == ["out", "t", "told"]


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["sync"], 2, "TEMPLATE and DEST are missing"),
        (["sync", "t", "d", "--config", "c"], 2, "or --config"),
        (["sync", "t", "d", "--mode", "rw"], 2, "is no mode"),
        (["sync", "t", "d", "--api", "v1"], 2, "neither v2 nor v3"),
        (["sync", "t", "d", "--endpoints", "ftp://x"], 2, "is no endpoint"),
        (["sync", "--config", "/nowhere", "--once"], 2, "/nowhere: No such file"),
        (["sync", "kv:/no/such", "d", "--once"], 1, "kv:/no/such: there is no such key"),
        (["sync", "kv:/no/such", "d", "--once", "--endpoints", "127.0.0.1:1"], 5, "Connect call failed"),
        (["mount", "/proc/x", "/a", "--once"], 1, "/proc/x can't be made"),
        (["mount", "m", "/a", "--mode", "9"], 2, "is no mode"),
    ],
)
def test_what_cannot_be_is_named(node: Node, tmp_path: Path, words: list[str], code: int, why: str) -> None:
    done = subprocess.run(
        [*CORELOG, "kv", *words, "--data", str(node.folder)],
        capture_output=True,
        text=True,
        env=node.env,
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, why in done.stderr) == (code, True), done.stderr


def test_a_service_follows_reads_its_folder_again_and_ends(node: Node, tmp_path: Path) -> None:
    folder = tmp_path / "confd"
    (folder / "conf.d").mkdir(parents=True)
    (folder / "templates").mkdir()

    def resource(name: str, text: str) -> Path:
        dest = tmp_path / f"{name}.out"
        (folder / "templates" / name).write_text(text)
        (folder / f"conf.d/{name}.toml").write_text(
            f'[template]\nprefix = "/svc"\nsrc = "{name}"\ndest = "{dest}"\n'
            f'reload_cmd = "test -e {tmp_path}/up && sleep 0.2 && echo told >> {tmp_path}/told.{name}"\n'
        )
        return dest

    one = resource("one", '{{ getv("/a") }}')
    put(node.etcd, "/svc/a", "1")
    with Command(node, tmp_path, "sync", "--config", str(folder)) as it:
        until(lambda: one.read_text() == "1", says="the first file")
        until(lambda: "its reload failed" in it.said(), says="the word of the reload")
        (tmp_path / "up").touch()
        until(lambda: (tmp_path / "told.one").read_text() == "told\n", says="a second try")
        two = resource("two", '{% for e in tree("/t") %}{{ e.key }}{% endfor %};')
        it.process.send_signal(signal.SIGHUP)
        until(lambda: two.read_text() == ";", says="the second resource")
        put(node.etcd, "/svc/t/x", "")
        until(lambda: two.read_text() == "x;", says="its change")
        (folder / "conf.d/one.toml").write_text("[template")
        it.process.send_signal(signal.SIGHUP)
        until(lambda: "one.toml: not TOML" in it.said(), says="the word of a broken file")
        put(node.etcd, "/svc/a", "2")
        until(lambda: one.read_text() == "2", says="a change by what was read before")
        (folder / "conf.d/one.toml").unlink()
        it.process.send_signal(signal.SIGHUP)
        until(lambda: "following 1 template\n" in it.said().partition("not TOML")[2], says="one resource")
        put(node.etcd, "/svc/a", "3")
        put(node.etcd, "/svc/t/y", "")
        until(lambda: two.read_text() == "xy;", says="the other's change")
        assert one.read_text() == "2"
        # also that of the one which was on its way when it was taken out
        until(lambda: not list(tmp_path.glob(".corelog-sync.*")), says="all reloads told")
        assert (tmp_path / "told.one").read_text() == "told\ntold\n"
        assert it.end() == 0


def test_a_template_without_end_is_broken_off_and_others_go_on(node: Node, tmp_path: Path) -> None:
    put(node.etcd, "/loop", "1")
    (tmp_path / "l.t").write_text("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    (tmp_path / "g.t").write_text('{{ getv("/loop") }}')
    for name in "lg":
        (tmp_path / f"{name}.toml").write_text(f'[template]\nsrc = "{name}.t"\ndest = "{tmp_path}/{name}.out"\n')
    with Command(node, tmp_path, "sync", "--config", str(tmp_path)) as it:
        until(lambda: (tmp_path / "g.out").read_text() == "1", says="the good one", timeout_s=150)
        until(lambda: "l.t: it was not rendered in 5 s" in it.said(), says="the word of the other", timeout_s=150)


def test_a_mount_follows_and_leaves_its_last_tree(node: Node, tmp_path: Path) -> None:
    mounted = tmp_path / "m"
    put(node.etcd, "/m/a", "1")
    put(node.etcd, b"/m/../x\xff", "odd")
    put(node.etcd, "/mother", "not below")
    with Command(node, tmp_path, "mount", str(mounted), "/m") as it:
        until(lambda: (mounted / "a").read_text() == "1", says="the tree")
        assert (mounted / "%2E%2E/x%FF").read_text() == "odd"
        assert sorted(os.listdir(mounted)) == ["%2E%2E", "a"]
        took = []
        for number in range(5):
            began_s = time.monotonic()
            put(node.etcd, "/m/a", f"v{number}")
            while (mounted / "a").read_text() != f"v{number}":
                assert time.monotonic() - began_s < 30
                time.sleep(0.001)
            took.append(time.monotonic() - began_s)
        print(f"followed in {sorted(took)}")
        put(node.etcd, "/m/a/b", "2")
        until(lambda: (mounted / "a/.value").read_text() == "v4", says="a key that is a folder too")
        assert (mounted / "a/b").read_text() == "2"
        delete(node.etcd, "/m/a")
        until(lambda: os.listdir(mounted / "a") == ["b"], says="it alone gone")
        assert it.end(signal.SIGINT) == 130
    assert (mounted / "a/b").read_text() == "2"
    put(node.etcd, "/m/a/b", "3")
    node.run("kv", "mount", str(mounted), "/m/", "--once", "--mode", "0400")
    assert ((mounted / "a/b").read_text(), (mounted / "a/b").stat().st_mode & 0o777) == ("3", 0o400)
    assert (mounted / "a").stat().st_mode & 0o777 == 0o500
