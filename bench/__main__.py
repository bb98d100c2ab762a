"""``make bench``: every module of this folder that has ``run() -> list[Row]``, into docs/performance.md.

    python -m bench [NAME ...]     only these, printed and not written

A row of a module that can't run here (no Java, no etcd) says why, in the same table.
"""

import importlib
import os
import pkgutil
import platform
import sys
import time
import traceback
from importlib.metadata import version
from pathlib import Path

import bench
from bench.row import Row

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
#: From this heading on the page is written by hand, and kept.
BY_HAND = "\n## By hand"
LIBRARIES = ("confluent-kafka", "crc32c", "msgspec", "orjson", "thespian", "uvloop")


def modules() -> list[str]:
    """Names of the modules that measure something, in order."""
    names = sorted(info.name for info in pkgutil.iter_modules(bench.__path__) if not info.name.startswith("_"))
    return [name for name in names if "def run(" in (Path(__file__).parent / f"{name}.py").read_text()]


def measured(name: str) -> list[Row]:
    """The rows of one module; one that says why if it fails."""
    print(f"bench: {name} ...", file=sys.stderr, flush=True)
    started = time.monotonic()
    try:
        rows: list[Row] = importlib.import_module(f"bench.{name}").run()
    except Exception as error:
        traceback.print_exc()
        rows = [Row(name, "not measured", "", "", "", False, f"{type(error).__name__}: {error}".splitlines()[0])]
    print(f"bench: {name} took {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return rows


def table(rows: list[Row]) -> str:
    lines = ["| ratio | what | here | beside | reach | met | note |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        cells = (row.ratio, row.what, row.ours, row.peer, row.reach, "yes" if row.ok else "**no**", row.note)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def machine() -> str:
    """What it was measured on, without its name."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{os.cpu_count()} × {cpu}, {memory_kb / 2**20:.0f} GiB, Linux {platform.release()}"


def page(rows: list[Row]) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return f"""# Performance

Written by `make bench`. Each figure stands beside its peer, measured in the same run on the same machine.

{table(rows)}

- Machine: {machine()}
- Python {platform.python_version()}; {versions}
- corelog {version("corelog")}, {time.strftime("%Y-%m-%d", time.gmtime())}
"""


def main(names: list[str]) -> int:
    known = modules()
    strangers = [name for name in names if name not in known]
    if strangers:
        print(f"bench: no {', '.join(strangers)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    rows = [row for name in names or known for row in measured(name)]
    print(table(rows))
    if not names:
        _, heading, text = PAGE.read_text().partition(BY_HAND)
        PAGE.write_text(page(rows) + heading + text)
        print(f"bench: wrote {PAGE.relative_to(PAGE.parents[1])}", file=sys.stderr)
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
