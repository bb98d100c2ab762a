"""Each scenario's text is what the cluster says. ``REWRITE_SCENARIOS=1 pytest tests/scenarios`` writes it anew."""

import os
from pathlib import Path

import pytest

from tests.scenarios.scenario import play

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_cluster_says_what_the_scenario_tells(path: Path) -> None:
    text = path.read_text()
    told = play(text)
    if os.environ.get("REWRITE_SCENARIOS"):
        path.write_text(told)
    else:
        assert told == text
