"""Fixtures of the Shows: nodes that are stopped and cleaned whatever happens."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import Node


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
