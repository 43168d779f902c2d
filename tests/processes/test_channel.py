"""Two ends of a connection that ask each other things."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.conftest import within
from wsdemo.processes.channel import UNHEARD, AskFailed, Channel


class End:
    """What one end has been told; it answers questions with them, doubled, or fails."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[Any]]] = []
        self.held = asyncio.Event()

    def tell(self, what: str, arguments: list[Any]) -> None:
        if what == "fail":
            raise ValueError("that cannot be")
        self.told.append((what, arguments))

    async def answer(self, what: str, arguments: list[Any]) -> Any:
        if what == "fail":
            raise ValueError("that cannot be")
        if what == "wait":
            await self.held.wait()
        return [what, *arguments]


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Channel, End, Channel, asyncio.StreamWriter]]:
    """Two channels, and the second end's writer."""
    accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    door = await asyncio.start_server(lambda *ends: accepted.set_result(ends), "127.0.0.1", 0)
    async with door:
        dialled = await asyncio.open_connection(*door.sockets[0].getsockname()[:2])
        ends = End(), End()
        one = Channel(dialled[0], dialled[1], ends[0].answer, ends[0].tell)
        other_streams = await accepted
        other = Channel(other_streams[0], other_streams[1], ends[1].answer, ends[1].tell)
        tasks = [asyncio.create_task(channel.run()) for channel in (one, other)]
        try:
            yield one, ends[1], other, other_streams[1]
        finally:
            one.close()
            other.close()
            for _, writer in (dialled, other_streams):
                await writer.wait_closed()
            await within(asyncio.gather(*tasks))


async def test_what_is_told_is_heard_in_order_and_before_a_later_answer() -> None:
    """So an answer means that everything before it is done."""
    async with connected() as (one, end, _, _):
        for number in range(100):
            one.tell("n", number)
        assert await within(one.ask("echo", "é", 1)) == ["echo", "é", 1]
        assert end.told == [("n", [number]) for number in range(100)]


async def test_each_question_gets_its_own_answer() -> None:
    """One that takes long does not hold up the next, and both sides may ask."""
    async with connected() as (one, end, other, _):
        slow = asyncio.create_task(one.ask("wait"))
        assert await within(one.ask("quick")) == ["quick"]
        assert await within(other.ask("back")) == ["back"]
        assert not slow.done()
        end.held.set()
        assert await within(slow) == ["wait"]


async def test_a_failure_comes_back_in_words() -> None:
    """And the channel goes on."""
    async with connected() as (one, _, _, _):
        with pytest.raises(AskFailed, match="that cannot be"):
            await within(one.ask("fail"))
        assert await within(one.ask("on")) == ["on"]


@pytest.mark.parametrize("last", [b"", b"{not json\n", b'{"type":"Odd"}\n'])
async def test_an_end_that_is_gone_answers_nothing(last: bytes) -> None:
    """Whoever waits hears so at once, and so does whoever asks later."""
    async with connected() as (one, _, _, writer):
        waiting = asyncio.create_task(one.ask("wait"))
        await within(one.ask("quick"))
        writer.write(last)
        writer.close()
        for asking in (waiting, one.ask("more")):
            with pytest.raises(AskFailed, match="has ended"):
                await within(asking)
        one.tell("nobody hears this")


async def test_a_mistake_in_what_is_told_is_not_taken_for_the_end_of_the_other_side() -> None:
    """It is raised, and the other side hears that nobody is there any more."""

    async def tell() -> None:
        async with connected() as (one, _, _, _):
            one.tell("fail")
            with pytest.raises(AskFailed, match="has ended"):
                await within(one.ask("more"))

    with pytest.raises(ValueError, match="that cannot be"):
        await tell()


async def test_who_says_more_than_is_taken_can_know_and_wait() -> None:
    """Until the other side has taken nearly all of it; then it may go on."""
    async with connected() as (one, end, _, writer):
        reading = writer.transport
        assert isinstance(reading, asyncio.Transport)
        reading.pause_reading()
        said = 0
        while not one.behind.is_set():
            one.tell("n", "x" * 2**15)
            said += 1
            await asyncio.sleep(0)
        assert said * 2**15 > 0.9 * UNHEARD
        waiting = asyncio.create_task(one.caught_up())
        reading.resume_reading()
        await within(waiting)
        assert not one.behind.is_set()
        assert await within(one.ask("on")) == ["on"]
        assert len(end.told) == said
