"""Fixtures of all tests, and which of them one process of a parallel run must have together."""

import signal

import pytest

# What a script starts in the background ignores Ctrl-C, and so would all that the tests start and end by it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
