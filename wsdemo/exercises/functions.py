"""Exercises in which a function foretells a run: it is asked, and the run tells whether it knew."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from numbers import Real
from typing import Any

from websockets.asyncio.client import connect

from wsdemo import faults
from wsdemo.cluster import Cluster, open_cluster
from wsdemo.compare import compare
from wsdemo.exercises.attempt import Attempt, NotYet, brief, shown
from wsdemo.exercises.exercise import Exercise
from wsdemo.exercises.judging import WORDS, rest
from wsdemo.experiments.crowd import messages_received, placed
from wsdemo.ledger import ledger
from wsdemo.player import Player
from wsdemo.protocol import Event, Join, Send, encode
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
MOST_NAMES = 1_000  # that are looked at
FOUR_BYTES = "\N{GRINNING FACE}"
LENGTHS = (125, 126, 65_535, 65_536)  # bytes of a text, around which its head grows

# How many players are away, and what PUBLISH then returns: all that it can return, and never what
# comes of counting players, whoever is counted.
COUNTS = (((0, 2), (1, 3), (2, 1)), ((0, 1), (1, 3), (2, 2)), ((0, 3), (1, 1), (2, 2)))


def bytes_before_a_text() -> Exercise:
    """A `def head(length, side)`: how many bytes stand before a text of so many, in its frame.

    `side` is "client" or "server", whichever says it.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        short, long = chance.randint(1, 60), chance.randint(200, 9_000)
        bodies = [short * "x", long * "x", *_bodies_of_lengths()]
        wrong = []
        for frame in await _frames(bodies):
            told = _number(await attempt(frame.length, frame.side))
            if told != len(frame.head):
                text = f"a text of {frame.length:,} bytes, said by the {frame.side}"
                wrong.append(f"{text}: there are not {shown(told)} before it")
        return wrong

    return Exercise("your function knows what stands before a text", judge)


def who_hears() -> Exercise:
    """A `def hears(places, speaker)`: the names of those who hear what somebody says.

    There is no broker. `places` says on which server each player is.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        wrong = []
        async with open_cluster(servers=SERVERS, broker="none") as cluster:
            places = _scattered(PLAYERS, chance.sample(SERVERS, chance.choice([2, 3])), chance)
            await _put(cluster, places)
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

    `places` says on which server each player is; who is away, is on None. It is asked three times:
    one, two or nobody is away, and PUBLISH returns 1, 2 and 3, in any order.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        wrong = []
        async with open_cluster(servers=SERVERS, broker="pubsub") as cluster:
            for away, returned in chance.sample(chance.choice(COUNTS), 3):
                *gone, speaker = chance.sample(PLAYERS, away + 1)
                there = [name for name in PLAYERS if name not in gone]
                places: dict[str, str | None] = dict.fromkeys(PLAYERS)
                places |= _scattered(there, chance.sample(SERVERS, returned), chance)
                await _put(cluster, places)
                told = _number(await attempt(dict(places)))
                event = await cluster.player(speaker).send(chance.choice(WORDS))
                await rest(cluster)
                [publish] = cluster.trace.select("publish", event=event)
                if told != publish.data["receivers"]:
                    wrong.append(f"PUBLISH did not return {shown(told)}: {_in_words(places)}")
        return wrong

    return Exercise("your function knows what PUBLISH returns", judge)


def cost_of_an_outage() -> Exercise:
    """A `def lost(seconds, rate)`: how many events P1 misses in an outage of its server's link."""

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        wrong = []
        longer, oftener = chance.sample([0.1, 0.2, 0.3], 2), chance.sample([20, 30, 40, 50], 2)
        for seconds, rate in zip(sorted(longer), sorted(oftener), strict=True):
            told = _number(await attempt(seconds, rate))
            runs = await compare(outage(seconds, rate), ["pubsub"])
            if told != len(runs["pubsub"].ledger.missed_by("P1")):
                wrong.append(f"{seconds} s, {rate} a second: P1 did not miss {shown(told)}")
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
            places = _scattered(PLAYERS, SERVERS, chance)
            await _put(cluster, places)
            [speaker] = await cluster.join("P5", server="A")
            for now in _situations(places, chance):
                told = {
                    name: _answer(await attempt(name, at, {*now.away}, {*now.cut}, now.redis))
                    for name, at in places.items()
                }
                for given in told.values():
                    if not isinstance(given, bool):
                        raise NotYet(
                            f"your function gives {shown(given)}; it is to give True or False"
                        )
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
            told = _number(await attempt(server, placed(servers, games, players)))
            if told != count:
                wrong.append(
                    f"server {server} of {servers} did not receive {shown(told)} of {games}"
                )
        return wrong

    return Exercise("your function knows what each server receives", judge)


# Runs


def _bodies_of_lengths() -> list[str]:
    """With these, there is a text of each of the `LENGTHS` from the client, and from the server."""
    around = len(encode(Send(_id(0), ""))), len(encode(Event(_id(0), "P1", "")))
    sizes = [length - each for length in LENGTHS for each in around]
    return [size // 4 * FOUR_BYTES + size % 4 * "x" for size in sizes]


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
            await client.send(encode(Send(_id(number), body)), text=True)
            await client.recv()
        return [frame for frame in tap.conversations[0].frames if frame.name == "text"]


def _id(number: int) -> str:
    return f"{number:02}"


def _scattered(
    names: Sequence[str], servers: Sequence[str], chance: random.Random
) -> dict[str, str]:
    """A server for each player, at random, but somebody is on each."""
    places = [*servers, *chance.choices(servers, k=len(names) - len(servers))]
    return dict(zip(names, chance.sample(places, len(places)), strict=True))


async def _put(cluster: Cluster, places: Mapping[str, str | None]) -> None:
    """Have every player on its server, or away."""
    for name, server in places.items():
        if name not in cluster.players:
            await cluster.join(name, server=server)
        elif server:
            await cluster.player(name).reconnect(server=server)
        if not server:
            await cluster.player(name).disconnect()
    await rest(cluster)


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


def _situations(places: Mapping[str, str], chance: random.Random) -> list[_Situation]:
    """Nothing is broken, each thing by itself, and two at once, in any order.

    No rule that leaves out one of the things, or one of the servers, or that takes two at once for
    none, is right in all of them, if somebody is on each server.
    """
    on_a, elsewhere = (
        [name for name, at in places.items() if (at == "A") is there] for there in (True, False)
    )
    at = list(places.values())
    not_alone = [name for name in places if at.count(places[name]) > 1]
    words = chance.sample(WORDS, 6)
    found = [
        _Situation(words[0]),
        _Situation(words[1], away=[chance.choice(PLAYERS)]),
        _Situation(words[2], cut=["B"]),
        _Situation(words[3], cut=["C"]),
        _Situation(words[4], away=[chance.choice(not_alone)], redis="down"),
        _Situation(words[5], away=[chance.choice(on_a), chance.choice(elsewhere)], cut=["B", "C"]),
    ]
    return chance.sample(found, len(found))


def _missed(cluster: Cluster, event: str) -> set[str]:
    """Who did."""
    return {
        fate.player for fate in ledger(cluster) if (fate.event, fate.outcome) == (event, "missed")
    }


def _answer(given: Any) -> Any:
    """What a learner's function gives. Raises `NotYet` if that is nothing."""
    if given is None:
        raise NotYet("your function returns nothing")
    if given is ...:
        raise NotYet("there is no answer yet")
    return given


def _number(given: Any) -> Real | Decimal:
    """The number that a learner's function gives."""
    number = _answer(given)
    if not isinstance(number, Real | Decimal) or isinstance(number, bool):
        raise NotYet(f"your function gives {shown(number)}; it is to give a number, such as 6")
    return number


def _names(given: Any) -> set[str]:
    """The players' names that a learner's function gives, or the one name."""
    names = _answer(given)
    if isinstance(names, str) and names in PLAYERS:
        return {names}
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise NotYet(f"your function gives {shown(names)}; it is to give a list of names")
    found = list(islice(names, MOST_NAMES))
    for name in found:
        if not isinstance(name, str):
            raise NotYet(f"there is no player {shown(name)}")
        if name not in PLAYERS:
            raise NotYet(f"there is no player {brief(name)}")
    return set(found)


def _in_words(places: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {f'on {at}' if at else 'away'}" for name, at in places.items())
