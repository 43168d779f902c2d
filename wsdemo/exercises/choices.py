"""The exercise of choosing a broker: every broker is put through the same troubles, and counted."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from wsdemo import faults
from wsdemo.cluster import BROKERS, Cluster
from wsdemo.compare import compare
from wsdemo.exercises.attempt import Attempt, shown
from wsdemo.exercises.exercise import Exercise
from wsdemo.exercises.judging import WORDS, meanwhile, quoted
from wsdemo.ledger import KEEPERS, Fate, Ledger
from wsdemo.player import Player
from wsdemo.scenarios import Scenario

__all__ = ["TROUBLES", "cheapest_broker"]


def cheapest_broker(*troubles: str) -> Exercise:
    """A broker's name: the cheapest with which everyone hears everything once, in spite of these.

    P1 is on one server, P2 and P3 are on another; P2 speaks, and says again what it was told has
    failed. Each of the `TROUBLES` named comes once, in any order. What a broker costs is, first,
    the hops of an event from server to server, and then the keys that Redis has at the end. Raises
    `ValueError` for a trouble that there is not.
    """
    if unknown := set(troubles) - set(TROUBLES):
        raise ValueError(f"no trouble {', '.join(unknown)}; there are: {'; '.join(TROUBLES)}")

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        broker = attempt.given
        if not isinstance(broker, str) or broker not in BROKERS:
            unknown = broker is not None and broker is not ...
            reason = f"there is no broker {shown(broker)}" if unknown else "there is no answer yet"
            return [f"{reason}; it is one of {', '.join(BROKERS)}"]
        during = dict(zip(chance.sample(WORDS, len(troubles) + 1), ["", *troubles], strict=True))
        runs = await compare(_story(chance, during), BROKERS)
        books = {name: run.ledger for name, run in runs.items()}
        if wrong := _harm(books[broker], during):
            return [f"with {broker}, {each}" for each in wrong]
        cost = {name: (book.hops or 0, book.keys or 0) for name, book in books.items()}
        if any(cost[name] < cost[broker] and not _harm(books[name], during) for name in books):
            hops, keys = cost[broker]
            return [
                f"with {broker} everyone hears everything once, for {hops} hops an event and {keys}"
                " keys in Redis; and so it is with something cheaper"
            ]
        return []

    return Exercise("everyone hears everything once, and with nothing cheaper", judge)


def _story(chance: random.Random, during: dict[str, str]) -> Scenario:
    """P2 says each word while its trouble lasts; the first has none."""
    home, other = chance.sample(["A", "B"], 2)
    first, *words = during
    chance.shuffle(words)

    async def play(cluster: Cluster) -> None:
        [p1] = await cluster.join("P1", server=home)
        p2, _ = await cluster.join("P2", "P3", server=other)
        await _say(cluster, p2, first)
        await cluster.settle()
        for word in words:
            await TROUBLES[during[word]](cluster, p1, p2, word)
            await cluster.settle()

    return play


def _harm(book: Ledger, during: dict[str, str]) -> list[str]:
    """What somebody has not heard just once, and what happened meanwhile."""
    return [
        f"{fate.player} {_fared(fate)} {quoted(book, fate.event)}, which P2 said while "
        + (during[book.body(fate.event)] or "P1 and P2 are on two servers")
        for fate in book
        if fate.outcome != "heard"
    ]


def _fared(fate: Fate) -> str:
    return {"twice": "has heard twice", "missed": "missed"}.get(fate.outcome, "has not heard")


async def _say(cluster: Cluster, player: Player, word: str) -> None:
    """As safely as the broker lets one."""
    if cluster.broker in KEEPERS:
        await player.send(word, confirm=True)
    else:
        await player.send(word)


# The troubles

Trouble = Callable[[Cluster, Player, Player, str], Awaitable[None]]


async def _moves(cluster: Cluster, p1: Player, p2: Player, word: str) -> None:
    await p1.reconnect(server=next(name for name in cluster.servers if name != p1.server))
    await _say(cluster, p2, word)


async def _is_cut_off(cluster: Cluster, p1: Player, p2: Player, word: str) -> None:
    async with faults.link_cut(p1):
        await _say(cluster, p2, word)
        await cluster.settle()


async def _is_opened_anew(cluster: Cluster, p1: Player, p2: Player, word: str) -> None:
    await p1.disconnect()
    await _say(cluster, p2, word)
    await cluster.settle()
    await p1.reconnect(resume=False)


async def _has_no_link(cluster: Cluster, p1: Player, p2: Player, word: str) -> None:
    fault = faults.redis_link_cut(cluster, p1.server or "")
    await meanwhile(cluster, _if_any(cluster, fault), lambda: _say(cluster, p2, word))


async def _restarts(cluster: Cluster, p1: Player, p2: Player, word: str) -> None:
    fault = faults.redis_stopped(cluster, keep=True)
    await meanwhile(cluster, _if_any(cluster, fault), lambda: _say(cluster, p2, word))


async def _loses_its_reply(cluster: Cluster, p1: Player, p2: Player, word: str) -> None:
    async with _if_any(cluster, faults.reply_lost(cluster, p2.server or "")):
        if cluster.broker != "pubsub":
            await _say(cluster, p2, word)
            return
        event = await p2.send(word)
        await cluster.settle()
    await p2.send(word, again=event)


def _if_any(
    cluster: Cluster, fault: AbstractAsyncContextManager[None]
) -> AbstractAsyncContextManager[None]:
    """A fault of Redis, where there is one that can have it."""
    return nullcontext() if cluster.broker == "none" else fault


TROUBLES: dict[str, Trouble] = {
    "P1 has moved to another server": _moves,
    "P1 is cut off for a moment": _is_cut_off,
    "P1's program is closed and opened anew": _is_opened_anew,
    "P1's server has no link to Redis": _has_no_link,
    "Redis is restarted": _restarts,
    "Redis's reply is lost": _loses_its_reply,
}
"""What may happen while P2 speaks. Redis is restarted with all that it had."""
