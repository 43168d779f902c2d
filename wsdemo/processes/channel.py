"""Two processes that ask each other things, and tell: a JSON object a line, over one connection."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

__all__ = ["Ask", "AskFailed", "Channel", "Tell"]

MAX_LINE = 2**24  # bytes
UNHEARD = 2**24  # bytes that may wait for the other side before it counts as behind


class Ask(msgspec.Struct, frozen=True, tag=True):
    """Do this, and answer."""

    id: int
    what: str
    arguments: list[Any] = []


class Tell(msgspec.Struct, frozen=True, tag=True):
    """This has happened; no answer."""

    what: str
    arguments: list[Any] = []


class _Answer(msgspec.Struct, frozen=True, tag=True):
    id: int
    result: Any = None
    error: str | None = None


class AskFailed(ConnectionError):
    """The other side could not do it, in its words, or is gone."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Ask | Tell | _Answer).decode

Asked = Callable[[str, list[Any]], Awaitable[Any]]
Told = Callable[[str, list[Any]], None]


class Channel:
    """One end. `asked` answers what the other side asks, `told` hears what it tells, in order."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked, told: Told
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._asked = asked
        self._told = told
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self.closed = False
        self.behind = asyncio.Event()
        """Set while the other side does not take what is said: see `caught_up`."""

    def tell(self, what: str, *arguments: Any) -> None:
        """Say something, if the other side is still there."""
        self._write(Tell(what, list(arguments)))

    async def ask(self, what: str, *arguments: Any) -> Any:
        """What the other side answers. Raises `AskFailed`."""
        if self.closed:
            raise AskFailed("the process at the other end has ended")
        ask = Ask(next(self._ids), what, list(arguments))
        answer = self._answers[ask.id] = asyncio.get_running_loop().create_future()
        self._write(ask)
        try:
            return await answer
        finally:
            del self._answers[ask.id]

    async def run(self) -> None:
        """Take what comes, until the other side ends or `close` is called."""
        try:
            while (message := await self._next()) is not None:
                self._take(message)
        finally:
            self.close()
            for answering in tuple(self._answering):
                answering.cancel()
            await asyncio.gather(*self._answering, return_exceptions=True)

    def close(self) -> None:
        """End it; whoever waits for an answer hears that there will be none."""
        self.closed = True
        self._writer.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(AskFailed("the process at the other end has ended"))

    async def caught_up(self) -> None:
        """Return once the other side has taken nearly all. Raises `ConnectionError` if it ends."""
        await self._writer.drain()
        self.behind.clear()

    async def _next(self) -> Ask | Tell | _Answer | None:
        """What comes next; nothing once it is cut, perhaps in the middle of a line."""
        try:
            line = await self._reader.readline()
            return _decode(line) if line else None
        except (ConnectionError, ValueError):
            return None

    def _take(self, message: Ask | Tell | _Answer) -> None:
        match message:
            case Tell():
                self._told(message.what, message.arguments)
            case Ask():
                answering = asyncio.create_task(self._answer(message))
                self._answering.add(answering)
                answering.add_done_callback(self._answering.discard)
            case _Answer():
                answer = self._answers.get(message.id)
                if answer is None or answer.done():
                    return  # nobody waits for it any more
                if message.error is None:
                    answer.set_result(message.result)
                else:
                    answer.set_exception(AskFailed(message.error))

    async def _answer(self, ask: Ask) -> None:
        try:
            answer = _Answer(ask.id, await self._asked(ask.what, ask.arguments))
        except Exception as error:  # the outermost edge: the other side has to hear of it
            answer = _Answer(ask.id, error=str(error) or type(error).__name__)
        self._write(answer)

    def _write(self, message: Ask | Tell | _Answer) -> None:
        if not self.closed:
            self._writer.write(_encode(message) + b"\n")
            if self._writer.transport.get_write_buffer_size() > UNHEARD:
                self.behind.set()
