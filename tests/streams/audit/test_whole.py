"""Property: whatever the reader leaves out, doubles or holds back, each message is handled once and in order."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.audit.whole import Message, Whole
from streams.log.port import LogUnavailable


def message(offset: int) -> Message:
    return Message(offset, b"kv", str(offset).encode(), ())


class Topic:
    """A partition whose offsets are ``there``; ``handled``: what was passed on."""

    def __init__(self, there: Sequence[int]) -> None:
        self.there = there
        self.handled: list[int] = []
        self.fails = False

    async def read(self, start: int, end: int) -> list[Message]:
        if self.fails:
            raise LogUnavailable("no answer")
        return [message(at) for at in self.there if start <= at < end]

    async def handle(self, one: Message) -> None:
        self.handled.append(one.offset)


# -1: the end is looked at
STEPS = st.lists(st.integers(-1, 19), max_size=60)


async def looked(topic: Topic, whole: Whole) -> None:
    """What is done now and then: a reader that stands is sent back."""
    if whole.stands(20):
        for offset in topic.there:
            if offset >= whole.next:
                await whole.came(message(offset))


@given(st.sets(st.integers(0, 19)).map(lambda there: there | {19}), st.integers(0, 19), STEPS)
def test_each_message_is_handled_once_and_in_order(there: set[int], start: int, steps: list[int]) -> None:
    async def walk() -> None:
        topic = Topic(sorted(there))
        whole = Whole(start, topic.read, topic.handle)
        for step in [*steps, -1, -1]:
            if step == -1:
                await looked(topic, whole)
            elif step in there:
                await whole.came(message(step))
        assert topic.handled == [at for at in topic.there if at >= start]
        assert whole.next == 20

    asyncio.run(walk())


async def test_a_reader_that_gets_on_is_left_alone() -> None:
    topic = Topic(range(10))
    whole = Whole(0, topic.read, topic.handle)
    for offset in range(10):
        assert not whole.stands(10)
        await whole.came(message(offset))
    assert not whole.stands(10)
    assert not whole.stands(10)


async def test_what_could_not_be_read_again_is_read_later() -> None:
    topic = Topic(range(6))
    whole = Whole(2, topic.read, topic.handle)
    topic.fails = True
    with pytest.raises(LogUnavailable):
        await whole.came(message(4))
    assert topic.handled == []
    topic.fails = False
    assert [whole.stands(6), whole.stands(6)] == [False, True]
    await whole.came(message(5))
    assert topic.handled == [2, 3, 4, 5]
