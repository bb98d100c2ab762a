"""Fixtures of all tests, and which of them one process of a parallel run must have together."""

import pytest

pytest_plugins = ["tests.cluster.parts"]

#: Tests that share brokers: in one process they start them once. (xdist's own groups don't work with pytest 9.2.)
_TOGETHER = {
    "tests/cluster/": "brokers",
    "[kafka-3]": "brokers",
    "[kafka-1]": "container",
    "[kafka-3-compose]": "compose",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        """Each test by itself, but those of _TOGETHER in one process."""

        def _split_scope(self, nodeid: str) -> str:
            return next((group for part, group in _TOGETHER.items() if part in nodeid), nodeid)

    return Together(config, log)
