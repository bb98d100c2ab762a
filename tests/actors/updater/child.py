"""Does one thing with a store and kills itself with SIGKILL at the N-th step. Prints the steps that it went through.

python -m tests.actors.updater.child FOLDER N publish SOURCE
python -m tests.actors.updater.child FOLDER N stage VERSION TREE [GATEWAY]
python -m tests.actors.updater.child FOLDER N switch VERSION
python -m tests.actors.updater.child FOLDER N back VERSION TO
python -m tests.actors.updater.child FOLDER N collect KEEP TREE
"""

import os
import signal
import sys
from pathlib import Path

from actors.updater import stage, switch
from actors.updater.fetch import Fetcher, Terms
from actors.updater.publish import publish
from actors.updater.store import Store


def main(folder: str, limit: str, verb: str, *rest: str) -> None:
    left = int(limit)

    def step(name: str) -> None:
        nonlocal left
        print(name, flush=True)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    store = Store(Path(folder), step)
    if verb == "publish":
        publish(store, Path(rest[0]))
    elif verb == "stage":
        stage.clean(store)
        stage.stage(store, rest[0], rest[1], Fetcher(store, rest[2:], Terms(patience_s=0)))
    elif verb == "switch":
        switch.switch(store, rest[0])
    elif verb == "back":
        switch.go_back(store, switch.Leaving(rest[0], rest[1], "unhealthy"))
    elif verb == "collect":
        switch.collect(store, {rest[0]}, {rest[1]}, {path.name for path in store.trees.iterdir()})
    else:
        raise SystemExit(f"no such verb: {verb}")


if __name__ == "__main__":
    main(*sys.argv[1:])
