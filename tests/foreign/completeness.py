"""Which commands and flags an etcdctl has that no line of a walk uses, by its own help; and why some needn't be.

python -m tests.foreign.completeness
"""

import os
import re
import subprocess
from functools import cache

from tests.foreign import servers, walk

#: What the walks leave out, with the reason.
EXCUSED = {
    "help": "etcdctl's own, asks no server",
    "h": "etcdctl's own, asks no server",
    "completion": "etcdctl's own, asks no server",
    "migrate": "reads a data folder, asks no server",
    "backup": "reads a data folder, asks no server",
    "check": "a minute of load, whose figures are the machine's",
    "downgrade": "of the cluster's version, which each server has its own idea of",
    "snapshot restore": "writes a data folder, asks no server",
    "--help": "etcdctl's own",
    "--version": "etcdctl's own",
    "--data-dir": "of a data folder that no server uses",
    "--discovery-srv": "wants records in a DNS",
    "--discovery-srv-name": "wants records in a DNS",
    "--insecure-discovery": "wants records in a DNS",
    "--forever": "cluster-health: never ends; watch has it",
    **dict.fromkeys(
        "--cacert --cert --key --insecure-skip-tls-verify --ca-file --cert-file --key-file --dest-cacert "
        "--dest-cert --dest-key --dest-insecure-transport".split(),
        "the walks speak without TLS",
    ),
    "--dest-user": "the mirror's other end has no users",
    "--dest-password": "the mirror's other end has no users",
}
_GLOBAL = re.compile(r"GLOBAL OPTIONS|^OPTIONS:|^Global Flags")


@cache
def _help(version: str, api: str, command: tuple[str, ...]) -> str:
    env = {**os.environ, "ETCDCTL_API": api[1:]}
    asked = [str(servers.program("etcdctl", version)), *command, "--help"]
    return subprocess.run(asked, capture_output=True, text=True, env=env, check=False).stdout


def _flags(text: str) -> set[str]:
    return {
        name
        for line in text.splitlines()
        if line.lstrip().startswith("-")
        for name in re.findall(r"--\w[\w-]*", line.split("\t")[0][:40])
    }


def _subcommands(text: str) -> list[str]:
    """The first words of the lines under headings that end in ``commands`` or ``COMMANDS:``."""
    found, listing = [], False
    for line in text.splitlines():
        if re.match(r"^\S", line):
            listing = bool(re.search(r"commands:?$", line, re.IGNORECASE))
        elif listing and (name := re.match(r"\s+([a-z][\w-]*)((?: [a-z][\w-]*)?)(,|\t|\s{2,}| [A-Z])", line)):
            found.append((name[1] + name[2]).strip())
    return found


def commands(version: str, api: str, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """All commands that do something, as tuples of words."""
    below = [(*above, *name.split()) for name in _subcommands(_help(version, api, above)) if name not in EXCUSED]
    if not below:
        return [above]
    return [found for name in below if len(name) < 3 for found in commands(version, api, name)]


def unused(version: str, name: str) -> list[str]:
    """Each command, and each flag of one, that is neither in the walk nor excused."""
    lines = [step.command for step in walk.steps(name, version)]
    missing = []
    for command in commands(version, name[:2]):
        words = " ".join(command)
        using = [line for line in lines if re.search(rf"(^|\s){re.escape(words)}(\s|$)", line)]
        if any(words.startswith(excused) for excused in EXCUSED):
            continue
        if not using:
            missing.append(words)
        known = _flags(_GLOBAL.split(_help(version, name[:2], command))[0] + _options(version, name[:2], command))
        for flag in sorted(known - EXCUSED.keys()):
            if not any(re.search(rf"{flag}\b|\s{flag[1:3]}(\s|$)", line) for line in using):
                missing += [f"{words} {flag}"]
    return missing


def _options(version: str, api: str, command: tuple[str, ...]) -> str:
    """The command's own options, where its help puts them under a heading."""
    parts = re.split(r"^OPTIONS:$", _help(version, api, command), flags=re.MULTILINE)
    return re.split(r"^GLOBAL OPTIONS:$", parts[1], flags=re.MULTILINE)[0] if len(parts) > 1 else ""


def main() -> None:
    for version, name in (("3.4", "v2"), ("3.4", "v3"), ("3.5.1", "v3"), ("3.7", "v3")):
        print(f"etcdctl {version} {name}: {len(commands(version, name[:2]))} commands; unused: {unused(version, name)}")


if __name__ == "__main__":
    main()
