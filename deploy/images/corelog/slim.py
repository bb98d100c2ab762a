"""Removes from an environment what only tests and lint need: run inside the image, after the whole lock was installed.

The lock pins everything with hashes, in one file; what the node needs is the closure of corelog[audit]'s
requirements, which the names given here begin.
"""

import re
import subprocess
import sys
import tomllib
from importlib import metadata


def name_of(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-").replace(".", "-")


def main(pyproject: str) -> None:
    with open(pyproject, "rb") as file:
        project = tomllib.load(file)["project"]
    installed = {name_of(found.metadata["Name"]): found for found in metadata.distributions()}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["audit"], "uv-build", "pip"]
    kept: set[str] = set()
    while wanted:
        name = name_of(wanted.pop())
        if name in kept or name not in installed:
            continue
        kept.add(name)
        # requirements of extras are kept too, when installed: better a package too many than one too few
        wanted += [line for line in installed[name].requires or () if "extra ==" not in line]
    if surplus := sorted(set(installed) - kept):
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", *surplus], check=True)


main(sys.argv[1])
