"""Exercises in which a scenario is to be written, or a part of one: the ledger judges what came."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

from wsdemo import faults
from wsdemo.challenges import MOST_KEPT, grades
from wsdemo.cluster import Cluster, open_cluster
from wsdemo.exercises.attempt import Attempt, NotYet
from wsdemo.exercises.exercise import Exercise
from wsdemo.exercises.judging import WORDS, away, listed, meanwhile, quoted, rest, why
from wsdemo.ledger import Fate, Ledger, ledger
from wsdemo.player import Player
from wsdemo.protocol import event_name
from wsdemo.trace import Record, Trace

__all__ = [
    "end_apart",
    "everyone_hears_once",
    "one_falls_out_of_history",
    "p1_misses",
    "said_while_redis_is_away",
    "spread_out",
    "survives_redis",
]

OTHERS = ("P5", "P6", "P7", "P8", "P9")
ENDS_OF_REDIS = ("stopped", "killed", "power cut")  # one that is frozen takes what it is given
FLOOD = 5_000  # events that nobody says who waits in between
SERVERS = ("C", "D", "E", "F", "G", "H", "K")  # no lesson has them, so no attempt can know them


def p1_misses(
    events: int,
    *,
    all_the_time: Collection[str] = (),
    handed_to: int | None = None,
) -> Exercise:
    """An `async def my_scenario(cluster)` in which P1 misses exactly so many events.

    In the end P1 is there again: somebody else joins, and says something that P1 has to hear.
    `all_the_time` names players who may not be away meanwhile, or "Redis". If Redis `handed_to` so
    many is given, that is what PUBLISH has to have returned for each event that P1 misses, each
    time that it was said.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        async with open_cluster(broker="pubsub") as cluster:
            found, last = await _played(cluster, chance, attempt)
        missed = [fate for fate in _unheard(found, "P1") if fate.event != last]
        wrong = _wrong_at_the_end(found, last)
        if len(missed) != events:
            wrong.append(
                f"P1 is to miss exactly {_events(events)}, and missed {listed(found, missed)}"
            )
        wrong += [
            f"{name} is to be there all the time, and was not"
            for name in all_the_time
            if _was_away(found.trace, name)
        ]
        for fate in missed if handed_to is not None else []:
            receivers = _receivers(found.trace, fate.event)
            if set(receivers) != {handed_to}:
                counts = " and then ".join(map(str, receivers)) or "no"
                whom = "subscriber" if receivers[-1:] == [1] else "subscribers"
                wrong.append(f"Redis handed {quoted(found, fate.event)} to {counts} {whom}")
        return wrong

    claim = f"P1 misses exactly {_events(events)}"
    if handed_to is not None:
        claim += f", handed to {handed_to} subscribers by Redis"
    if all_the_time:
        claim += f", although {' and '.join(all_the_time)} are there all the time"
    return Exercise(claim, judge)


def one_falls_out_of_history() -> Exercise:
    """An `async def my_scenario(cluster, history)` in which P1 misses exactly one event.

    The broker is a stream that keeps so many events: two numbers are tried, others each time.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        for history in chance.sample(range(2, 7), 2):
            async with open_cluster(broker="stream", history=history) as cluster:
                found, last = await _played(cluster, chance, attempt, history)
            missed = [fate for fate in _unheard(found, "P1") if fate.event != last]
            wrong = _wrong_at_the_end(found, last)
            if [fate.cause for fate in missed] != ["trimmed from history"]:
                wrong.append(f"P1 is to miss exactly one event, and missed {listed(found, missed)}")
            if wrong and _was_anything_said(found, last):
                return [f"with history={history}, {each}" for each in wrong]
            if wrong:  # whoever has not begun is told the same each time
                return wrong
        return []

    return Exercise("P1 misses exactly one event, however many are kept", judge)


def said_while_redis_is_away() -> Exercise:
    """An `async def my_scenario(cluster)`: P2 speaks while Redis is away, and nobody misses it.

    There is a queue for each player.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        async with open_cluster(broker="queue") as cluster:
            found, last = await _played(cluster, chance, attempt)
        lost = [fate for fate in _unheard(found) if fate.event != last]
        wrong = _wrong_at_the_end(found, last)
        if not _spoke_while_redis_was_away(found.trace, "P2"):
            wrong.append("P2 said nothing while Redis was away")
        if lost:
            who = " and ".join(dict.fromkeys(fate.player for fate in lost))
            wrong.append(f"nobody is to miss anything, and {who} missed {listed(found, lost)}")
        return wrong

    return Exercise("P2 speaks while Redis is away, and nobody misses anything", judge)


def survives_redis() -> Exercise:
    """An `async def my_scenario(cluster)` that meets the challenge of that name.

    The broker is a stream that keeps ten events.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        async with open_cluster(broker="stream", history=MOST_KEPT) as cluster:
            found, last = await _played(cluster, chance, attempt)
        return grades(found.trace).lacking["survives Redis"] + _wrong_at_the_end(found, last)

    return Exercise("P1 hears after a restart of Redis what was said before it", judge)


def everyone_hears_once() -> Exercise:
    """An `async def say_all(player, words)`, after which everyone has heard each word just once.

    It is called three times: while Redis is restarted, while a reply of Redis's is lost, and while
    somebody else is cut off for a moment.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        words = chance.sample(WORDS, 6)
        troubles = chance.sample(list(_TROUBLES), 3)
        said = {word: troubles[number // 2] for number, word in enumerate(words)}
        async with open_cluster(broker="stream") as cluster:
            home, other = chance.sample(["A", "B"], 2)
            [p1] = await cluster.join("P1", server=home)
            [p2] = await cluster.join("P2", server=other)
            for trouble in troubles:
                if gone := away([p1, p2]):
                    return gone
                say = partial(attempt, p2, [word for word in words if said[word] == trouble])
                with _ended_by_a_flood(cluster, attempt):
                    await _TROUBLES[trouble](cluster, p1, p2, say)
                    await rest(cluster)
        if not cluster.trace.select("send", at="P2"):
            return ["the player has said nothing"]
        return [
            f"{player.name} has heard “{word}” {times} times; it was said while {said[word]}"
            for player in (p1, p2)
            for word in words
            if (times := [event.body for event in player.heard].count(word)) != 1
        ]

    return Exercise("everyone has heard each word just once", judge)


def end_apart() -> Exercise:
    """An `async def my_scenario(cluster, p1, p2)` that gets two players onto two servers.

    They begin on one, and have no broker. The balancer is sticky, and nobody may tell it a server.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        servers = chance.sample(SERVERS, 2)
        async with open_cluster(servers=servers, broker="none", balance="sticky") as cluster:
            players = await cluster.join("P1", "P2", "P3", "P4", "P5")
            homes = [player.server for player in players]
            home = max(servers, key=homes.count)
            pair = [player for player in players if player.server == home]
            p1, p2 = chance.sample(pair, 2)
            wrong = await _without_naming_servers(cluster, attempt, cluster, p1, p2)
            if wrong := wrong or away([p1, p2]):
                return wrong
            if p1.server == p2.server:
                return ["they are on one server"]
            await p1.send(chance.choice(WORDS))
            await rest(cluster)
            missed = _unheard(ledger(cluster), p2.name)
        return [] if missed else ["they hear each other"]

    return Exercise("two players of one game are on two servers, in spite of stickiness", judge)


def spread_out() -> Exercise:
    """An `async def spread(players)` after which both servers have as many players.

    One has just come back, and stands empty. New connections go where there are fewest, and nobody
    may be told a server. Two numbers of players are tried.
    """

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        for half in chance.sample([chance.choice([2, 3]), 4], 2):
            if wrong := await _spread(attempt, chance, half):
                return wrong
        return []

    return Exercise("both servers have as many players", judge)


async def _spread(attempt: Attempt, chance: random.Random, half: int) -> list[str]:
    """What is wrong with the servers if there are twice as many players as this."""
    servers, balance = chance.sample(SERVERS, 2), "least-connections"
    async with open_cluster(servers=servers, broker="none", balance=balance) as cluster:
        players = await cluster.join(*(f"P{number}" for number in range(1, 2 * half + 1)))
        async with faults.server_killed(cluster, chance.choice(servers)):
            await cluster.settle()
        wrong = await _without_naming_servers(cluster, attempt, list(players))
        if wrong := wrong or away(players):
            return wrong
        fewer, more = sorted([each.server for each in players].count(name) for name in servers)
    if fewer == 0:
        return ["one server has all the players"]
    return [] if fewer == more else [f"the servers have {fewer} and {more} players"]


# Who acts, and who else plays


async def _act(cluster: Cluster, attempt: Attempt, *arguments: Any) -> None:
    """Let the attempt act on a cluster. Raises `NotYet` if that has begun anew in the end."""
    before = cluster.trace, cluster.broker
    await attempt(*arguments)
    await rest(cluster)
    if (cluster.trace, cluster.broker) != before:
        raise NotYet("the cluster has been given another broker; it is to keep the one it has")


async def _without_naming_servers(cluster: Cluster, attempt: Attempt, *arguments: Any) -> list[str]:
    """Let the attempt act on a cluster; whom it has told to which server to go."""
    before = len(cluster.trace)
    await _act(cluster, attempt, *arguments)
    return [
        f"{record.at} was told to go to {record.data['server']}"
        for record in cluster.trace.select("asked")
        if record.n >= before and record.data.get("server")
    ]


async def _played(
    cluster: Cluster, chance: random.Random, attempt: Attempt, *more: Any
) -> tuple[Ledger, str]:
    """An attempt, with others who play before it; and the event that somebody says after it."""
    before = chance.sample(OTHERS, 2)
    for name in before:
        [other] = await cluster.join(name, server=chance.choice(list(cluster.servers)))
        await other.send(chance.choice(WORDS))
        await cluster.settle()
    for name in before:
        await cluster.player(name).leave()
    await cluster.settle()
    await _act(cluster, attempt, cluster, *more)
    last = await _last_word(cluster, chance)
    found = ledger(cluster)
    _require_that_it_was_said(found, cluster.players.values())
    return found, last


def _require_that_it_was_said(found: Ledger, players: Collection[Player]) -> None:
    """Raises `NotYet` for an event that is in the trace, and that no player has said or heard."""
    said = {
        event_name(player.name, f"{player.name}-{number}")
        for player in players
        for number in range(1, player.events_said + 1)
    }
    heard = {event_name(event.player, event.id) for player in players for event in player.heard}
    for event in found.events:
        if event not in said | heard:
            raise NotYet(f"{quoted(found, event)} stands in the trace, and nobody has said it")


async def _last_word(cluster: Cluster, chance: random.Random) -> str:
    """What somebody says in the end who has not been there, on any server that is up."""
    up = [name for name in cluster.servers if cluster.server_state(name) == "up"]
    names = (f"P{number}" for number in count(chance.randint(5, 9)))
    name = next(name for name in names if name not in {*cluster.players, *cluster.servers})
    try:
        [other] = await cluster.join(name, server=chance.choice(up) if up else None)
        event = await other.send(chance.choice(WORDS))
    except ConnectionError as error:
        raise NotYet(f"in the end nobody can play any more: {error}") from None
    await rest(cluster)
    return event


def _unheard(found: Ledger, player: str = "") -> list[Fate]:
    """The fates of what a player, or anybody, has not heard."""
    fates = [fate for fate in found if player in ("", fate.player)]
    return [fate for fate in fates if fate.outcome in ("missed", "pending")]


def _wrong_at_the_end(found: Ledger, last: str) -> list[str]:
    fate = found.fate(last, "P1")
    if fate and fate.outcome == "heard":
        return []
    said = f"“{found.body(last)}”, which {found.sender(last)} says in the end"
    return [f"P1 does not hear {said}: {why(fate)}"]


def _was_anything_said(found: Ledger, last: str) -> bool:
    """By anybody but those who play before and after an attempt."""
    return any(found.sender(event) not in OTHERS for event in found.events if event != last)


def _was_away(trace: Trace, name: str) -> bool:
    """Whether a player, or Redis, was not there, or did nothing, at any time."""
    if name == "Redis":
        return bool(trace.select("fault", at="redis", peer=""))
    return bool(trace.select("disconnect", "fault", at=name))


def _receivers(trace: Trace, event: str) -> list[int]:
    """How many subscribers Redis handed an event to, each time that it was published."""
    return [int(record.data["receivers"]) for record in trace.select("publish", event=event)]


def _spoke_while_redis_was_away(trace: Trace, player: str) -> bool:
    """Whether a player said something between an end of Redis and its next start."""
    is_away = False
    for record in trace.select("fault", "heal", "send"):
        if record.kind == "send":
            if is_away and record.at == player:
                return True
        elif record.at == "redis" and not record.peer:
            is_away = record.data.get("reason") in ENDS_OF_REDIS
    return False


def _events(number: int) -> str:
    return "one event" if number == 1 else f"{number} events"


# What breaks while a player speaks

_Say = Callable[[], Coroutine[Any, Any, None]]


async def _restarted(cluster: Cluster, p1: Player, p2: Player, say: _Say) -> None:
    await meanwhile(cluster, faults.redis_stopped(cluster, keep=True), say)


async def _reply_lost(cluster: Cluster, p1: Player, p2: Player, say: _Say) -> None:
    async with faults.reply_lost(cluster, p2.server or ""):
        await say()


async def _cut_off(cluster: Cluster, p1: Player, p2: Player, say: _Say) -> None:
    async with faults.link_cut(p1):
        await say()


_TROUBLES = {
    "Redis was restarted": _restarted,
    "a reply of Redis's was lost": _reply_lost,
    "P1 was cut off": _cut_off,
}


@contextmanager
def _ended_by_a_flood(cluster: Cluster, attempt: Attempt) -> Iterator[None]:
    """Whoever says things so fast that nothing comes to its end is told so, before that."""
    said = count(1)

    def note(record: Record) -> None:
        if record.kind == "send" and next(said) == FLOOD:
            attempt.end_call("is done over and over; wait in between: `await asyncio.sleep(0.1)`")

    unwatch = cluster.trace.watch(note)
    try:
        yield
    finally:
        unwatch()
