"""A real node, shared by the tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.acceptance.harness import Node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    made = Node(tmp_path_factory.mktemp("node") / "data", "--engine", "docker=none").start()
    try:
        yield made
    finally:
        made.destroy_all()
