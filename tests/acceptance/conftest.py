"""Fixtures of the Shows: nodes that are stopped and cleaned whatever happens."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.acceptance.compose import Cluster
from tests.acceptance.harness import ROOT, Node


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """``make_node(name, *options)``: a node in its own folder; units are destroyed and it is stopped at the end."""
    nodes: list[Node] = []

    def make(name: str = "data", *options: str, env: dict[str, str] | None = None) -> Node:
        node = Node(tmp_path / name, *options, env=env)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        if node.process is not None:
            node.destroy_all()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    return make_node().start()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """docker-compose.yml on fresh images, with its ports published; one for all Shows of a session."""
    needs.docker()
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        needs.missing("docker has no compose; `deploy/images/dockerd compose` brings it")
    made = Cluster()
    if not made.found:
        done = subprocess.run([ROOT / "deploy/images/build"], capture_output=True, text=True, check=False)
        if done.returncode:
            needs.missing(f"deploy/images/build made no images: {done.stderr[-2000:]}")
    try:
        yield made.up()
    finally:
        made.down()
