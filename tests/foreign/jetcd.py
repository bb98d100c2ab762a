"""The program of ``tests/foreign/java``, by which jetcd, etcd's client for Java, speaks to endpoints.

python -m tests.foreign.jetcd http://127.0.0.1:2379 ...
python -m tests.foreign.jetcd real        one real server, then three
"""

import shutil
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from tests.foreign import installs, servers
from tests.foreign.suites import Counts

FOLDER = Path(__file__).parent / "java"
PROGRAM = FOLDER / "Clients.java"
TESTS = 16


def _jars() -> Path:
    """The folder with the jars that the pom names, as Maven resolves them."""

    def make(folder: Path) -> None:
        where = f"-DoutputDirectory={folder}"
        installs.run("mvn", "-q", "-B", "-f", FOLDER / "pom.xml", "dependency:copy-dependencies", where)

    return installs.kept("jetcd", FOLDER / "pom.xml", make)


def _classpath() -> str:
    """Jars and the compiled program (compiled by a jar too: a JRE is enough)."""
    jars = _jars()

    def make(folder: Path) -> None:
        compiler = next(jars.glob("ecj-*.jar"))
        path = ":".join(map(str, jars.glob("*.jar")))
        installs.run("java", "-jar", compiler, "-17", "-proc:none", "-cp", path, "-d", folder, PROGRAM)

    classes = installs.kept(f"jetcd-classes-{zlib.crc32(str(jars).encode()):08x}", PROGRAM, make)
    return f"{classes}:{jars}/*"


def run(endpoints: Sequence[str], timeout_s: float = 300) -> Counts:
    """Run it against the endpoints (``http://…``) of one cluster, whose store is empty."""
    if shutil.which("java") is None:
        raise installs.Unavailable("no java here: apt-get install -y default-jre-headless")
    # what a JIT gains in half a minute is less than it costs here
    command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp", _classpath(), "Clients"]
    try:
        done = subprocess.run([*command, *endpoints], capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        return Counts(0, 0, (f"not done after {timeout_s:g} s",), str(error.stdout))
    said = [line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(("pass ", "fail "))]
    passed = [name for word, name in said if word == "pass"]
    failed = [name for word, name in said if word == "fail"]
    if done.returncode and not failed:
        failed.append("java itself")
    return Counts(len(passed), 0, tuple(failed), done.stdout + done.stderr)


def main(arguments: list[str]) -> None:
    if arguments != ["real"]:
        counts = run(arguments)
        print(counts.output if counts.failed else "", counts, sep="")
        return
    for members in (1, 3):
        with servers.Etcd("3.7", members) as etcd:
            counts = run(etcd.clients)
        print(counts.output if counts.failed else "", counts, sep="", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
