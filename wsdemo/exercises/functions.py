"""Exercises in which a function foretells a run: it is asked, and the run tells whether it knew."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import connect

from wsdemo import faults
from wsdemo.cluster import Cluster, open_cluster
from wsdemo.compare import compare
from wsdemo.crowd import messages_received, placed
from wsdemo.exercises.attempt import Attempt, NotYet
from wsdemo.exercises.exercise import Exercise
from wsdemo.exercises.judging import WORDS, rest
from wsdemo.ledger import ledger
from wsdemo.player import Player
from wsdemo.protocol import Join, Send, encode
from wsdemo.scenarios import outage
from wsdemo.tap import Tap
from wsdemo.wire import Frame

__all__ = [
    "bytes_before_a_text",
    "cost_of_an_outage",
    "events_received",
    "subscribers_of_an_event",
    "what_pubsub_loses",
    "who_hears",
]

SERVERS = ("A", "B", "C")
PLAYERS = ("P1", "P2", "P3", "P4")
FOUR_BYTES = "\N{GRINNING FACE}"


def bytes_before_a_text() -> Exercise:
    """A `def head(length, side)`: how many bytes stand before a text of so many, in its frame.

    `side` is "client" or "server", whichever says it.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        short, long = chance.randint(1, 60), chance.randint(200, 9_000)
        bodies = [short * "x", long * "x", chance.randint(16_380, 16_384) * FOUR_BYTES]
        wrong = []
        for frame in await _frames(bodies):
            told = _answer(await attempt(frame.length, frame.side))
            if told != len(frame.head):
                text = f"a text of {frame.length:,} bytes, said by the {frame.side}"
                wrong.append(f"{text}: there are not {told} before it")
        return wrong

    return Exercise("your function knows what stands before a text", judge)


def who_hears() -> Exercise:
    """A `def hears(places, speaker)`: the names of those who hear what somebody says.

    There is no broker. `places` says on which server each player is.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        wrong = []
        async with open_cluster(servers=SERVERS, broker="none") as cluster:
            places = await _scattered(cluster, chance)
            for speaker in chance.sample(PLAYERS, 3):
                told = _names(await attempt(dict(places), speaker))
                event = await cluster.player(speaker).send(chance.choice(WORDS))
                await rest(cluster)
                missed = _missed(cluster, event)
                wrong += [
                    f"{speaker}, on {places[speaker]}, speaks; {name}, on {places[name]}, "
                    + ("misses it" if name in missed else "hears it")
                    for name in PLAYERS
                    if (name in told) == (name in missed)
                ]
        return wrong

    return Exercise("your function knows who hears whom", judge)


def subscribers_of_an_event() -> Exercise:
    """A `def handed_to(places)`: what PUBLISH returns.

    `places` says on which server each player is; somebody is away, and on None.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        wrong = []
        async with open_cluster(servers=SERVERS, broker="pubsub") as cluster:
            for _ in range(3):
                places: dict[str, str | None] = {**await _scattered(cluster, chance)}
                gone, speaker = chance.sample(PLAYERS, 2)
                places[gone] = None
                await cluster.player(gone).disconnect()
                await rest(cluster)
                told = _answer(await attempt(dict(places)))
                event = await cluster.player(speaker).send(chance.choice(WORDS))
                await rest(cluster)
                [publish] = cluster.trace.select("publish", event=event)
                if told != publish.data["receivers"]:
                    wrong.append(f"PUBLISH did not return {told!r}: {_in_words(places)}")
        return wrong

    return Exercise("your function knows what PUBLISH returns", judge)


def cost_of_an_outage() -> Exercise:
    """A `def lost(seconds, rate)`: how many events P1 misses in an outage of its server's link."""

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        wrong = []
        for seconds in chance.sample([0.1, 0.2, 0.3], 2):
            rate = 10 * chance.randint(2, 5)
            told = _answer(await attempt(seconds, rate))
            runs = await compare(outage(seconds, rate), ["pubsub"])
            if told != len(runs["pubsub"].ledger.missed_by("P1")):
                wrong.append(f"{seconds} s, {rate} a second: P1 did not miss {told!r}")
        return wrong

    return Exercise("your function knows what an outage costs", judge)


def what_pubsub_loses() -> Exercise:
    """A `def misses(player, server, away, cut, redis)`: whether a player on that server misses it.

    Somebody on server A speaks while those players are `away`, while those servers are `cut` off
    from Redis, and while Redis is "up" or "down".
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        wrong = []
        async with open_cluster(servers=SERVERS, broker="pubsub") as cluster:
            places = await _scattered(cluster, chance)
            [speaker] = await cluster.join("P5", server="A")
            for now in _situations(chance):
                told = {
                    name: _answer(await attempt(name, at, {*now.away}, {*now.cut}, now.redis))
                    for name, at in places.items()
                }
                for given in told.values():
                    if not isinstance(given, bool):
                        raise NotYet(f"your function gives {given!r}; it is to give True or False")
                missed = _missed(cluster, await now.said(cluster, speaker, places))
                wrong += [
                    f"“{now.word}” ({now}): {name}, on {places[name]}, "
                    + ("missed it" if name in missed else "heard it")
                    for name in PLAYERS
                    if told[name] != (name in missed)
                ]
        return wrong

    return Exercise("your function knows what Pub/Sub loses", judge)


def events_received() -> Exercise:
    """A `def receives(server, homes)`: how many events this server gets from Redis.

    Each game has a channel of its own, and one event is said in it. `homes` has, for each game, the
    set of the servers that hold its players; servers are numbers.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        servers, games = chance.randint(3, 6), chance.randint(6, 20)
        players = games * chance.randint(2, 3)
        found = await messages_received([servers], [games], players, events=games)
        [counted] = [each.by_server for each in found if each.channels == "game"]
        wrong = []
        for server, count in enumerate(counted):
            told = _answer(await attempt(server, placed(servers, games, players)))
            if told != count:
                wrong.append(f"server {server} of {servers} did not receive {told!r} of {games}")
        return wrong

    return Exercise("your function knows what each server receives", judge)


# Runs


async def _frames(bodies: Sequence[str]) -> list[Frame]:
    """The frames of texts that a client says to a server, and of those that it hears back."""
    async with AsyncExitStack() as running:
        cluster = await running.enter_async_context(open_cluster(servers=["A"], broker="none"))
        tap = await running.enter_async_context(Tap(cluster.servers["A"].url))
        call = connect(tap.url, proxy=None, compression=None)
        client = await running.enter_async_context(call)
        await client.send(encode(Join(cluster.game, "P1")), text=True)
        await client.recv()
        for number, body in enumerate(bodies):
            await client.send(encode(Send(str(number), body)), text=True)
            await client.recv()
        return [frame for frame in tap.conversations[0].frames if frame.name == "text"]


async def _scattered(cluster: Cluster, chance: random.Random) -> dict[str, str]:
    """Put every player on a server, at random, but not all on one; where each is."""
    places = dict(
        zip(PLAYERS, [*chance.sample(SERVERS, 2), *chance.choices(SERVERS, k=2)], strict=True)
    )
    for name, server in places.items():
        if name in cluster.players:
            await cluster.player(name).reconnect(server=server)
        else:
            await cluster.join(name, server=server)
    await rest(cluster)
    return places


@dataclass(frozen=True)
class _Situation:
    """What is broken while somebody says a word."""

    word: str
    away: Collection[str] = ()
    cut: Collection[str] = ()
    redis: str = "up"

    async def said(self, cluster: Cluster, speaker: Player, places: dict[str, str]) -> str:
        """Say it meanwhile, and mend everything; the event."""
        for name in self.away:
            await cluster.player(name).disconnect()
        async with AsyncExitStack() as broken:
            for server in self.cut:
                await broken.enter_async_context(faults.redis_link_cut(cluster, server))
            if self.redis == "down":
                await broken.enter_async_context(faults.redis_stopped(cluster, keep=True))
            event = await speaker.send(self.word)
            await rest(cluster)
        for name in self.away:
            await cluster.player(name).reconnect(server=places[name])
        await rest(cluster)
        return event

    def __str__(self) -> str:
        away = [f"{name} is away" for name in self.away]
        cut = [f"{server} is cut off" for server in self.cut]
        return ", ".join([*away, *cut, f"Redis is {self.redis}"])


def _situations(chance: random.Random) -> list[_Situation]:
    """Each thing that can be broken by itself, two at once, and nothing, in any order."""
    words = chance.sample(WORDS, 5)
    one, other = chance.sample(PLAYERS, 2)
    found = [
        _Situation(words[0]),
        _Situation(words[1], away=[one]),
        _Situation(words[2], cut=[chance.choice(["B", "C"])]),
        _Situation(words[3], redis="down"),
        _Situation(words[4], away=[other], cut=["B", "C"]),
    ]
    return chance.sample(found, len(found))


def _missed(cluster: Cluster, event: str) -> set[str]:
    """Who did."""
    return {
        fate.player for fate in ledger(cluster) if (fate.event, fate.outcome) == (event, "missed")
    }


def _answer(given: Any) -> Any:
    """What was given for an answer. Raises `NotYet` if nothing was."""
    if given is None or given is ...:
        raise NotYet("there is no answer yet")
    return given


def _names(given: Any) -> set[str]:
    """The names that a learner's function gives, or one name."""
    names = _answer(given)
    try:
        return {names} if isinstance(names, str) else set(names)
    except TypeError:
        raise NotYet(f"your function gives {names!r}; it is to give names") from None


def _in_words(places: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {f'on {at}' if at else 'away'}" for name, at in places.items())
