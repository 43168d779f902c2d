"""What an exercise is: a claim, and a judge who tries an attempt and says what is wrong with it."""

from __future__ import annotations

import asyncio
import inspect
import linecache
import random
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from wsdemo.cluster import Cluster
from wsdemo.ledger import Fate, Ledger
from wsdemo.lifetime import end
from wsdemo.player import Player

__all__ = [
    "WORDS",
    "Exercise",
    "Judge",
    "NotYet",
    "answer",
    "away",
    "listed",
    "meanwhile",
    "rest",
    "run",
    "why",
]

BOUND = 10.0  # seconds that an attempt may take
MOST_TOLD = 3  # things that are wrong

# What is said in a check. No lesson says it, so no attempt can know it.
WORDS = (
    *("north", "south", "east", "west", "red", "green", "blue", "gold", "wind", "rain", "snow"),
    *("moon", "star", "leaf", "root", "stone", "salt", "iron", "wool", "silk"),
)

Judge = Callable[[Any, random.Random], Awaitable[list[str]]]
"""Gives what is wrong with an attempt, or raises `NotYet`. The chance decides the fresh run."""


class NotYet(Exception):
    """Why an attempt cannot be judged, in a sentence for whoever wrote it."""


@dataclass(frozen=True)
class Exercise:
    """A claim that is to become true, and who judges whether it has."""

    claim: str
    judge: Judge = field(repr=False)

    async def check(self, attempt: Any, seed: int | None = None) -> None:
        """Try the attempt on a fresh run, and print whether it passes, or what went wrong."""
        try:
            wrong = await self.judge(attempt, random.Random(seed))
        except NotYet as reason:
            wrong = [str(reason)]
        told = [f"✗ Not yet: {each}" for each in wrong[:MOST_TOLD]]
        print("\n".join(told or [f"✓ {self.claim}"]))


async def run(attempt: Any, *arguments: Any) -> Any:
    """What a learner's function gives, asynchronous or not.

    Raises `NotYet` if it fails, naming its line; if it has not ended after `BOUND` seconds, naming
    the line where it waits; and if it is no function.
    """
    if not callable(attempt):
        if inspect.iscoroutine(attempt):
            attempt.close()  # or Python would complain that nobody has awaited it
        raise NotYet("give `check` the function itself, without brackets after its name")
    limit = asyncio.timeout(BOUND)
    try:
        async with limit:
            result = attempt(*arguments)
            return await result if inspect.isawaitable(result) else result
    except Exception as error:  # the outermost edge of what a learner wrote
        line = _line(attempt, error)
        if limit.expired():
            raise NotYet(f"after {BOUND:g} s, {line or 'it'} was still under way") from None
        raise NotYet(f"{line or 'it failed'}: {type(error).__name__}: {error}") from None


async def rest(cluster: Cluster) -> None:
    """Let everything come to rest. Raises `NotYet` if something does not, or the run has ended."""
    try:
        await cluster.settle()
    except (TimeoutError, RuntimeError) as error:
        raise NotYet(str(error)) from None


async def meanwhile(
    cluster: Cluster,
    fault: AbstractAsyncContextManager[None],
    say: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Say something while a fault lasts that may hold it up until the end of that."""
    task: asyncio.Task[None] | None = None
    try:
        async with fault:
            task = asyncio.create_task(say())
            await rest(cluster)
        await task
    finally:
        await end(task)  # if something else has failed


def answer(given: Any) -> Any:
    """What was given for an answer. Raises `NotYet` if nothing was."""
    if given is None or given is ...:
        raise NotYet("there is no answer yet")
    return given


def away(players: Iterable[Player]) -> list[str]:
    """Who is not connected, in words."""
    return [f"{player.name} is away" for player in players if not player.connected]


def listed(found: Ledger, fates: Sequence[Fate]) -> str:
    """The events of these fates, each with why it was not heard; “nothing” for none."""
    named = [f"“{found.body(fate.event)}” ({why(fate)})" for fate in fates]
    return ", ".join(named) or "nothing"


def why(fate: Fate | None) -> str:
    """Why an event was not heard."""
    if fate is None:
        return "it was not in the game"
    return fate.cause or "it has not come yet"


def _line(attempt: Any, error: BaseException) -> str:
    """The innermost line of the learner's that led to the error; empty if none did."""
    code = getattr(inspect.unwrap(attempt), "__code__", None)
    errors = [error, error.__cause__]  # of a time that has run out, what it interrupted
    frames = [
        frame
        for each in errors
        if each is not None and code
        for frame in traceback.extract_tb(each.__traceback__)
        if frame.filename == code.co_filename
    ]
    if not frames:
        return ""
    number = frames[-1].lineno or 0
    text = linecache.getline(frames[-1].filename, number).strip()
    return f"line {number}, `{text}`" if text else f"line {number}"
