"""``python -m actors.kv.proto.generate``: the .proto files → ``*_pb2.py`` and ``*_pb2.pyi`` beside them.

Run from the project's folder, with the ``lint`` dependencies installed. A test sees to it that nobody forgets to.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]


def generate(out: Path) -> None:
    """Raises RuntimeError when a file isn't valid; protoc has said where on stderr."""
    from grpc_tools import protoc

    names = [str(one.relative_to(ROOT)) for one in sorted(FOLDER.glob("*.proto"))]
    status = protoc.main(["protoc", f"--proto_path={ROOT}", f"--python_out={out}", f"--pyi_out={out}", *names])
    if status:
        raise RuntimeError(f"protoc ended with {status}")


if __name__ == "__main__":
    try:
        generate(ROOT)
    except (ImportError, RuntimeError) as error:
        sys.exit(f"generate: {error}")
