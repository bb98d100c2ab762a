"""The hot modules, compiled by mypyc into extension modules beside their sources: `make native`.

    python deploy/native/build.py [--clean]

The interpreted form is what ships; git ignores what is built here. Python takes ``x.cpython-*.so`` before ``x.py``, so
build again, or clean, after a change of these sources. docs/decisions/0014-native.md says why.
"""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "native"
_PARTS = {
    "actors/kv/http2": "call connection control deadlines frames hpack huffman limits messages receiving request "
    "sending tally",
    "actors/kv/proto": "etcd_wire varints",
    "actors/kv/rpc": "asked brief handlers json_short keys service told",
    "actors/kv/v2": "get request",
    "actors/kv/v3": "ranges revs store txn",
    "actors/kv": "commands company exchange gateway history http1 keys pages routes state",
    "actors": "host",
    "streams": "batches records replay took",
    "streams/log/segments": "commits frames shared writer",
    "streams/events": "blobs",
}
MODULES = [f"{folder}/{name}.py" for folder, names in _PARTS.items() for name in names.split()]


def main() -> None:
    os.chdir(ROOT)
    clean()
    if "--clean" in sys.argv:
        return
    from mypyc.build import mypycify
    from setuptools import Distribution

    level = os.environ.get("CORELOG_NATIVE_OPT", "2")
    made = mypycify(
        MODULES, opt_level=level, debug_level="0", multi_file=True, group_name="corelog", target_dir=str(BUILD)
    )
    command = Distribution({"name": "native", "ext_modules": made}).get_command_obj("build_ext")
    command.build_lib, command.build_temp, command.parallel = str(BUILD / "lib"), str(BUILD / "temp"), os.cpu_count()
    command.ensure_finalized()
    command.run()
    for one in (BUILD / "lib").rglob("*.so"):
        shutil.copy2(one, ROOT / one.relative_to(BUILD / "lib"))


def clean() -> None:
    for package in ("actors", "streams", "node"):
        for one in Path(package).rglob("*.so"):
            one.unlink()
    for one in Path().glob("corelog__mypyc*.so"):
        one.unlink()
    shutil.rmtree(BUILD, ignore_errors=True)


if __name__ == "__main__":
    main()
