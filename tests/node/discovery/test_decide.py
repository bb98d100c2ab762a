"""What a machine does next, by properties; and the way there, against a registry that fails as it likes."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.discovery import decide
from node.discovery.decide import (
    BadSize,
    Complete,
    DiscoveryError,
    DuplicateId,
    DuplicateName,
    Full,
    InvalidUrl,
    Register,
    Registration,
    SizeNotFound,
    TooManyRetries,
    Wait,
)
from node.discovery.registry import Joining, Unreachable

ME = "abc"
VALUE = "me=http://127.0.0.1:1"


def other(number: int, created: int | None = None) -> Registration:
    return Registration(f"{number:x}", f"n{number}=http://127.0.0.1:2380", number if created is None else created)


others = st.lists(st.integers(1, 50), unique=True, max_size=8).map(lambda found: [other(number) for number in found])


@given(st.integers(1, 6), others)
def test_who_is_not_there_registers_while_there_is_a_place(size: int, found: list[Registration]) -> None:
    if len(found) < size:
        assert decide.step(size, found, ME, VALUE) == Register()
    else:
        with pytest.raises(Full, match="discovery: cluster is full"):
            decide.step(size, found, ME, VALUE)


@given(st.integers(1, 6), others, st.integers(0, 51), st.randoms(use_true_random=False))
def test_the_first_are_the_cluster_in_their_order(
    size: int, found: list[Registration], mine: int, order: object
) -> None:
    listed = [*found, Registration(ME, VALUE, mine * 10)]
    listed = [one._replace(created=one.created * 10 + (one.member != ME)) for one in listed]
    in_order = sorted(listed, key=lambda one: one.created)
    order.shuffle(listed)  # type: ignore[attr-defined]
    at = next(at for at, one in enumerate(in_order) if one.member == ME)
    if at >= size:
        with pytest.raises(Full):
            decide.step(size, listed, ME, VALUE)
    elif len(listed) < size:
        assert decide.step(size, listed, ME, VALUE) == Wait(in_order)
    else:
        assert decide.step(size, listed, ME, VALUE) == Complete(in_order[:size])


@given(st.integers(1, 5), st.permutations(range(1, 6)))
def test_machines_that_come_in_any_order_find_the_same_cluster(size: int, order: list[int]) -> None:
    there: list[Registration] = []
    full = set()
    for number in order:
        me = other(number)
        try:
            if decide.step(size, there, me.member, me.value) == Register():
                there.append(me._replace(created=100 + len(there)))
        except Full:
            full.add(number)
    found = set()
    for number in set(order) - full:
        me = other(number)
        step = decide.step(size, there, me.member, me.value)
        assert isinstance(step, Complete)
        found.add(tuple(step.members))
    assert len(found) == 1
    assert len(full) == 5 - size


def test_duplicates_and_what_is_no_member() -> None:
    with pytest.raises(DuplicateId, match="discovery: found duplicate id"):
        decide.step(3, [Registration(ME, "me=http://10.0.0.9:1", 1)], ME, VALUE)
    with pytest.raises(DuplicateName, match="discovery: found duplicate name"):
        decide.step(3, [Registration("1", VALUE, 1)], ME, VALUE)
    with pytest.raises(DuplicateName):
        decide.step(2, [Registration("1", VALUE, 1), Registration(ME, VALUE, 2)], ME, VALUE)
    with pytest.raises(InvalidUrl, match="discovery: invalid URL"):
        decide.step(2, [Registration("1", "nonsense", 1), Registration(ME, VALUE, 2)], ME, VALUE)


@pytest.mark.parametrize("text", ["", "0", "-1", "+3", "three", "3.0", "٣", "1e3", "9999999999"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadSize, match="discovery: size key is bad"):
        decide.size_of(text)


@given(st.text(max_size=60))
def test_sizes_and_values_and_urls_are_read_or_refused(text: str) -> None:
    for read in (decide.size_of, decide.names, decide.target):
        try:
            read(text)  # type: ignore[operator]
        except DiscoveryError as error:
            assert str(error).startswith("discovery: ")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a=http://h:1", {"a"}),
        ("a=http://h:1&a=https://[::1]:2", {"a"}),
        ("a=http://h:1,b=http://h:1", {"a", "b"}),
        ("a=unix://h:1", {"a"}),
    ],
)
def test_names_of_a_value(value: str, found: set[str]) -> None:
    assert decide.names(value) == found


@pytest.mark.parametrize(
    "value", ["", "a", "a=", "a=h:1", "a=http://h", "a=http://h:1/x", "a=ftp://h:1", "a=http://h:x"]
)
def test_values_that_etcd_refuses(value: str) -> None:
    with pytest.raises(InvalidUrl):
        decide.names(value)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://discovery.etcd.io/T", ("https://discovery.etcd.io", "/T")),
        ("http://h:1/v2/keys/_etcd/registry/T/", ("http://h:1", "/v2/keys/_etcd/registry/T")),
        ("http://u:p@[::1]:1/T", ("http://u:p@[::1]:1", "/T")),
    ],
)
def test_where_a_token_is(url: str, found: tuple[str, str]) -> None:
    assert decide.target(url) == found


@pytest.mark.parametrize(
    "url", ["", "T", "http://h", "http://h/", "ftp://h/T", "http:///T", "http://h:x/T", "http://h/T?x"]
)
def test_where_no_token_is(url: str) -> None:
    with pytest.raises(InvalidUrl):
        decide.target(url)


# -- the way there ----------------------------------------------------------------------------------------------------


class Memory:
    """A registry whose calls fail before or after they did something, as ``fails`` says; others come meanwhile."""

    def __init__(self, size: str, fails: Callable[[], str], coming: list[Registration]) -> None:
        self._size, self._fails, self._coming = size, fails, coming
        self.there: dict[str, Registration] = {}
        self.index = 0

    def _put(self, member: str, value: str) -> None:
        self.index += 1
        self.there[member] = Registration(member, value, self.index)

    def _call(self, do: Callable[[], None] = lambda: None) -> None:
        how = self._fails()
        if how != "before":
            do()
        if how:
            raise Unreachable(how)

    def size(self) -> str:
        self._call()
        if not self._size:
            raise SizeNotFound
        return self._size

    def log(self) -> str:
        self._call()
        return "kafka://h:1"

    def members(self) -> tuple[list[Registration], int]:
        self._call()
        return list(self.there.values()), self.index

    def register(self, member: str, value: str) -> None:
        def do() -> None:
            if member in self.there:
                raise DuplicateId
            self._put(member, value)

        self._call(do)

    def wait(self, index: int) -> None:
        def do() -> None:
            assert self._coming, "waits for ever"
            come = self._coming.pop()
            self._put(come.member, come.value)

        self._call(do)

    def close(self) -> None: ...


@given(st.integers(1, 5), st.lists(st.sampled_from(["", "before", "after"]), max_size=30))
def test_failures_only_cost_time(size: int, failures: list[str]) -> None:
    registry = Memory(str(size), lambda: failures.pop() if failures else "", [other(n) for n in range(1, size)])
    slept: list[float] = []
    joining = Joining(registry, slept.append, lambda _: None)
    assert joining.config() == (size, "kafka://h:1")
    found = joining.join(size, ME, VALUE)
    assert len(found) == size
    assert [one for one in found if one.member == ME] == [registry.there[ME]]
    assert all(pause in {2.0**n for n in range(1, 9)} for pause in slept)


def test_the_back_off_doubles_up_to_256_seconds_and_begins_anew_after_an_answer() -> None:
    how = ["before"] * 10
    slept: list[float] = []
    joining = Joining(Memory("1", lambda: how.pop() if how else "", []), slept.append, lambda _: None)
    joining.config()
    assert slept == [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]
    how.append("before")
    joining.join(1, ME, VALUE)
    assert slept[10:] == [2]


def test_there_is_an_end_to_trying_and_none_of_it_for_what_stays_wrong() -> None:
    slept: list[float] = []
    with pytest.raises(TooManyRetries, match=re.escape("discovery: too many retries")):
        Joining(Memory("3", lambda: "before", []), slept.append, lambda _: None, retries=3).config()
    assert slept == [2, 4, 8]
    for size, error in (("", SizeNotFound), ("x", BadSize)):
        with pytest.raises(error):
            Joining(Memory(size, lambda: "", []), slept.append, lambda _: None).config()
    assert len(slept) == 3
