"""What a template may take of the process: it is told so, and the process is as it was."""

import resource
import signal
import subprocess
import sys

import pytest

from node.sync import limits
from node.sync.keys import Known
from node.sync.limits import within
from node.sync.render import RenderError, Template
from node.sync.resource import Resource

BIG = [
    '"a".ljust(900000000)',
    '"a".rjust(900000000)',
    '"a".center(900000000)',
    '"1".zfill(900000000)',
    '"\t".expandtabs(900000000)',
    '"%900000000d" % 1',
    '"%0900000000d" % (x|int)',
    '"{:>900000000}".format("")',
    '"{:>900000000}".format(x)',
    '"{:{w}}".format("", w=900000000)',
    '"a"|center(900000000)',
    '("a\n" * 9000)|indent(900000)',
    '"%900000000d"|format(1)',
    '("a" * 60000)|replace("a", "b" * 60000)',
    '("a" * 60000).replace("a", "b" * 60000)',
    'replace("a" * 60000, "a", "b" * 60000)',
    '("b" * 60000).join("a" * 60000)',
    'range(99999)|join("b" * 60000)',
    "[[0] * 60000000] * 60000000",
    '(("a" * 60000000)|list)|map("upper")|list ~ ("é" * 60000000)|list',
    "[x] * 67000000, [x] * 67000000",
]


def render(source: str) -> bytes:
    """As the worker does."""
    made = Resource(name="d", source="s", dest="d", variables=(("x", "1"),))
    template = within("t", lambda: Template("t", source))
    return within("t", lambda: template.render(Known(), made, {})).content


@pytest.mark.parametrize("made", BIG)
def test_whatever_makes_the_process_big_is_refused(made: str) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RenderError, match=r"memory|MiB|more than any file"):
        render("{{ (" + made + ")|length }}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 600 << 10
    assert resource.getrlimit(resource.RLIMIT_AS) == LIMITS
    assert render("{{ 1 + 1 }}") == b"2"


LIMITS = resource.getrlimit(resource.RLIMIT_AS)


def test_memory_that_goes_in_small_pieces_is_limited_and_free_again() -> None:
    code = """
import resource
from node.sync.limits import within
from node.sync.render import RenderError

def eat():
    kept = []
    while True:
        kept.append(object())

for _ in range(3):
    try:
        within("t", eat, 60.0, 64 << 20)
    except RenderError as error:
        assert "more memory" in str(error)
    assert resource.getrlimit(resource.RLIMIT_AS) == (resource.RLIM_INFINITY,) * 2
assert len(bytes(512 << 20)) == 512 << 20
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_limit_of_the_user_s_stays() -> None:
    code = """
import resource
from node.sync.limits import within
resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 400 << 20))
seen = within("t", lambda: resource.getrlimit(resource.RLIMIT_AS))
assert seen == (300 << 20, 400 << 20), seen
assert resource.getrlimit(resource.RLIMIT_AS) == (300 << 20, 400 << 20)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        # worked out as it is read, where jinja goes on after an exception
        '{{ "x"|center(60000000)|wordwrap(1)|unique|list|length }}' * 50,
    ],
)
def test_what_takes_too_long_is_broken_off(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    made = Resource(name="d", source="s", dest="d")
    with pytest.raises(RenderError, match=r"^t: it was not rendered in 0.2 s$"):
        within("t", lambda: Template("t", source).render(Known(), made, {}), 0.2)
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGVTALRM) == before


def test_an_alarm_that_was_swallowed_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_AGAIN_S", 0.05)

    def stubborn() -> None:
        swallowed = 0
        while True:
            try:
                while True:
                    pass
            except BaseException:
                swallowed += 1
                if swallowed == 3:
                    raise

    with pytest.raises(RenderError, match=r"not rendered in 0.05 s"):
        within("t", stubborn, 0.05)
