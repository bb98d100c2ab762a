"""Fixtures of all tests, and which of them one process of a parallel run must have together."""

import signal

import pytest

# What a script starts in the background ignores Ctrl-C, and so would all that the tests start and end by it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.cluster.parts"]

#: Tests that share brokers, and those whose last one looks at what the others met: by parts of their names, for the
#: scheduler sees no marks.
_TOGETHER = {
    "tests/cluster/": "brokers",
    "[kafka-3]": "brokers",
    "tests/streams/log/test_tools_kafka.py": "broker",
    "tests/streams/log/test_kafka_checked.py": "broker",
    "tests/differential/test_differential.py": "differential",
    "tests/differential/test_v2.py": "differential-v2",
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
