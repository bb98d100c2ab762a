"""Most of these tests sync thousands of times and lose nothing by doing it in memory."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ON_DISK = "test_segments_processes"


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one, but a real disk for the tests with real processes."""
    if request.module.__name__.endswith(ON_DISK) or not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    free = shutil.disk_usage(MEMORY).free
    if free < 512 * 1024 * 1024:
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="corelog-test-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder)
