"""What the judges of runs have in common: what is said, what is waited for, words for losses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from wsdemo.cluster import Cluster
from wsdemo.exercises.attempt import NotYet, brief
from wsdemo.ledger import Fate, Ledger
from wsdemo.lifetime import end
from wsdemo.player import Player

__all__ = ["WORDS", "away", "listed", "meanwhile", "quoted", "rest", "why"]

MOST_LISTED = 5  # events in a line
LONGEST_BODY = 40  # characters of one

# What is said in a check. No lesson says it, so no attempt can know it.
WORDS = (
    *("north", "south", "east", "west", "red", "green", "blue", "gold", "wind", "rain", "snow"),
    *("moon", "star", "leaf", "root", "stone", "salt", "iron", "wool", "silk"),
)


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


def away(players: Iterable[Player]) -> list[str]:
    """Who is not connected, in words."""
    return [f"{player.name} is away" for player in players if not player.connected]


def listed(found: Ledger, fates: Sequence[Fate]) -> str:
    """The events of these fates, each with why it was not heard; “nothing” for none."""
    named = [f"{quoted(found, fate.event)} ({why(fate)})" for fate in fates[:MOST_LISTED]]
    more = len(fates) - MOST_LISTED
    return ", ".join(named) + (f" and {more} more" if more > 0 else "") or "nothing"


def quoted(found: Ledger, event: str) -> str:
    """What an event said, as far as it is short."""
    return f"“{brief(found.body(event), LONGEST_BODY)}”"


def why(fate: Fate | None) -> str:
    """Why an event was not heard."""
    if fate is None:
        return "it was not in the game"
    return fate.cause or "it has not come yet"
