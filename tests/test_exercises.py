"""The exercises: what passes, what does not yet, and what a learner is told."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import partial
from typing import Any

import pytest

from tests.conftest import recorded
from tests.stories import redis_restarts
from wsdemo import Cluster, exercises, faults, open_cluster
from wsdemo.exercises import TROUBLES, Exercise
from wsdemo.player import Player

SEEDS = (1, 2, 3)
OPENED_ANEW = "P1's program is closed and opened anew"
CUT_OFF = "P1 is cut off for a moment"


class Told:
    """Checks an attempt, and gives the lines that a learner reads."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, exercise: Exercise, attempt: Any, seed: int = 1) -> list[str]:
        await exercise.check(attempt, seed)
        return self._capsys.readouterr().out.splitlines()


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    return Told(capsys)


# Attempts that are right


async def three_while_away(cluster: Cluster) -> None:
    p1, p2 = await cluster.join("P1", "P2", server="A")
    await p1.disconnect()
    for word in ("jump", "duck", "hide"):
        await p2.send(word)
    await cluster.settle()
    await p1.reconnect()


async def one_with_a_neighbour(cluster: Cluster) -> None:
    p1, _ = await cluster.join("P1", "P3", server="B")
    [p2] = await cluster.join("P2", server="A")
    await p1.disconnect()
    await p2.send("jump")
    await cluster.settle()
    await p1.reconnect(server="B")


async def one_while_b_is_cut(cluster: Cluster) -> None:
    await cluster.join("P1", server="B")
    [p2] = await cluster.join("P2", server="A")
    async with faults.redis_link_cut(cluster, "B"):
        await p2.send("jump")
        await cluster.settle()


async def one_while_a_is_cut(cluster: Cluster) -> None:
    await cluster.join("P1", server="B")
    [p2] = await cluster.join("P2", server="A")
    async with faults.redis_link_cut(cluster, "A"):
        await p2.send("jump")
        await cluster.settle()


async def one_said_twice(cluster: Cluster) -> None:
    [p1] = await cluster.join("P1", server="B")
    [p2] = await cluster.join("P2", server="A")
    await p1.disconnect()
    await cluster.settle()
    await p2.send("jump", again=await p2.send("jump"))
    await cluster.settle()
    await p1.reconnect(server="B")


async def one_more_than_is_kept(cluster: Cluster, history: int) -> None:
    p1, p2 = await cluster.join("P1", "P2")
    await p1.disconnect()
    for number in range(history + 1):
        await p2.send(f"word {number}")
    await cluster.settle()
    await p1.reconnect()


async def speaks_until_redis_is_back(cluster: Cluster) -> None:
    _, p2 = await cluster.join("P1", "P2", server="A")
    async with faults.redis_stopped(cluster, keep=True):
        saying = asyncio.create_task(p2.send("jump", confirm=True))
        await cluster.settle()
    await saying


async def say_all(player: Player, words: list[str]) -> None:
    for word in words:
        await player.send(word, confirm=True)


async def home_and_away(cluster: Cluster, p1: Player, p2: Player) -> None:
    home = p1.server or ""
    await cluster.kill_server(home)
    await cluster.settle()
    await cluster.restart_server(home)
    await p1.reconnect()


async def half_of_them_again(players: list[Player]) -> None:
    for player in players[: len(players) // 2]:
        await player.reconnect()


def head(length: int, side: str) -> int:
    size = 2 if length <= 125 else 4 if length <= 65_535 else 10
    return size + 4 if side == "client" else size


def hears(places: dict[str, str], speaker: str) -> list[str]:
    return [name for name, server in places.items() if server == places[speaker]]


def handed_to(places: dict[str, str | None]) -> int:
    return len({server for server in places.values() if server})


def lost(seconds: float, rate: float) -> int:
    return round(seconds * rate)


def misses(player: str, server: str, away: set[str], cut: set[str], redis: str) -> bool:
    return player in away or server in cut or redis == "down"


def receives(server: int, homes: list[set[int]]) -> int:
    return sum(server in home for home in homes)


# Attempts of somebody who has not begun


async def only_joins(cluster: Cluster, *_: Any) -> None:
    await cluster.join("P1", "P2", server="A")


async def does_nothing(*_: Any) -> None: ...


def says_nothing(*_: Any) -> None: ...


NOTHING = "✗ Not yet: your function returns nothing"
NO_ANSWER = "✗ Not yet: there is no answer yet"
EACH: dict[str, tuple[Callable[[], Exercise], Any, Any, str]] = {
    "p1_misses": (
        lambda: exercises.p1_misses(3),
        three_while_away,
        only_joins,
        "✗ Not yet: P1 is to miss exactly 3 events, and missed nothing",
    ),
    "p1_misses, handed to 2": (
        lambda: exercises.p1_misses(1, handed_to=2),
        one_with_a_neighbour,
        only_joins,
        "✗ Not yet: P1 is to miss exactly one event, and missed nothing",
    ),
    "p1_misses, all the time": (
        lambda: exercises.p1_misses(1, all_the_time=["P1", "Redis"]),
        one_while_b_is_cut,
        only_joins,
        "✗ Not yet: P1 is to miss exactly one event, and missed nothing",
    ),
    "p1_misses, all the time, with the speaker's link cut": (
        lambda: exercises.p1_misses(1, all_the_time=["P1", "Redis"]),
        one_while_a_is_cut,
        only_joins,
        "✗ Not yet: P1 is to miss exactly one event, and missed nothing",
    ),
    "one_falls_out_of_history": (
        exercises.one_falls_out_of_history,
        one_more_than_is_kept,
        only_joins,
        "✗ Not yet: P1 is to miss exactly one event, and missed nothing",
    ),
    "said_while_redis_is_away": (
        exercises.said_while_redis_is_away,
        speaks_until_redis_is_back,
        only_joins,
        "✗ Not yet: P2 said nothing while Redis was away",
    ),
    "everyone_hears_once": (
        exercises.everyone_hears_once,
        say_all,
        does_nothing,
        "✗ Not yet: the player has said nothing",
    ),
    "end_apart": (
        exercises.end_apart,
        home_and_away,
        does_nothing,
        "✗ Not yet: they are on one server",
    ),
    "spread_out": (
        exercises.spread_out,
        half_of_them_again,
        does_nothing,
        "✗ Not yet: one server has all the players",
    ),
    "bytes_before_a_text": (exercises.bytes_before_a_text, head, says_nothing, NOTHING),
    "who_hears": (exercises.who_hears, hears, says_nothing, NOTHING),
    "subscribers_of_an_event": (
        exercises.subscribers_of_an_event,
        handed_to,
        says_nothing,
        NOTHING,
    ),
    "cost_of_an_outage": (exercises.cost_of_an_outage, lost, says_nothing, NOTHING),
    "what_pubsub_loses": (exercises.what_pubsub_loses, misses, says_nothing, NOTHING),
    "events_received": (exercises.events_received, receives, says_nothing, NOTHING),
    "cheapest_broker": (
        lambda: exercises.cheapest_broker(CUT_OFF, "Redis's reply is lost"),
        "stream",
        ...,
        f"{NO_ANSWER}; it is one of none, pubsub, stream, queue",
    ),
}
each_exercise = pytest.mark.parametrize("name", EACH)


@each_exercise
@pytest.mark.parametrize("seed", SEEDS)
async def test_what_is_right_passes(told: Told, name: str, seed: int) -> None:
    """Whoever else plays, wherever, whatever is said, and whatever breaks first."""
    make, attempt, _, _ = EACH[name]
    exercise = make()
    assert await told(exercise, attempt, seed) == [f"✓ {exercise.claim}"]


@each_exercise
async def test_whoever_has_not_begun_hears_the_same_each_time(told: Told, name: str) -> None:
    """A notebook stores what its checks print, so that does not depend on the fresh run."""
    make, _, beginning, expected = EACH[name]
    for seed in SEEDS:
        assert await told(make(), beginning, seed) == [expected]


# What goes wrong is named


async def test_an_event_too_many_is_named(told: Told) -> None:
    """Each event that was missed is told by its words, with its cause."""

    async def four(cluster: Cluster) -> None:
        p1, p2 = await cluster.join("P1", "P2", server="A")
        await p1.disconnect()
        await p2.send("jump")
        await cluster.settle()
        await p1.reconnect()
        await cluster.stop_redis(keep=True)
        await p2.send("duck")
        await cluster.settle()
        await cluster.start_redis()

    assert await told(exercises.p1_misses(1), four) == [
        "✗ Not yet: P1 is to miss exactly one event, and missed “jump” (player away), "
        "“duck” (redis down)"
    ]


async def test_in_the_end_p1_is_there(told: Told) -> None:
    """Who never comes back misses what somebody says in the end, too."""

    async def stays_away(cluster: Cluster) -> None:
        p1, p2 = await cluster.join("P1", "P2", server="A")
        await p1.disconnect()
        await p2.send("jump")

    [line] = await told(exercises.p1_misses(1), stays_away)
    assert line.startswith("✗ Not yet: P1 does not hear “")
    assert line.endswith("says in the end: player away")
    [_, line] = await told(exercises.p1_misses(1), does_nothing)
    assert line == "✗ Not yet: P1 is to miss exactly one event, and missed nothing"


async def one_while_redis_is_down(cluster: Cluster) -> None:
    _, p2 = await cluster.join("P1", "P2", server="A")
    async with faults.redis_stopped(cluster):
        await p2.send("jump")
        await cluster.settle()


async def one_is_forgotten(cluster: Cluster, history: int) -> None:
    p1, p2 = await cluster.join("P1", "P2", server="A")
    await p1.disconnect()
    await p2.send("jump")
    await cluster.settle()
    await p1.reconnect(resume=False)


@pytest.mark.parametrize(
    ("exercise", "attempt", "line"),
    [
        (
            exercises.p1_misses(1, handed_to=2),
            one_while_b_is_cut,
            "Redis handed “jump” to 1 subscriber",
        ),
        (
            exercises.p1_misses(1, all_the_time=["P1", "Redis"]),
            one_with_a_neighbour,
            "P1 is to be there all the time, and was not",
        ),
        (
            exercises.p1_misses(1, all_the_time=["P1", "Redis"]),
            one_while_redis_is_down,
            "Redis is to be there all the time, and was not",
        ),
        (
            exercises.p1_misses(1, handed_to=2),
            one_said_twice,
            "Redis handed “jump” to 1 and then 1 subscriber",
        ),
    ],
)
async def test_the_cause_counts(told: Told, exercise: Exercise, attempt: Any, line: str) -> None:
    """To miss as many events as one should is not enough if they were missed otherwise."""
    assert await told(exercise, attempt) == [f"✗ Not yet: {line}"]


async def test_a_number_of_kept_events_that_was_tried_is_told(told: Told) -> None:
    """As soon as anything is said: what is lost differs from one number to another."""
    [line] = await told(exercises.one_falls_out_of_history(), one_is_forgotten)
    number = line.removeprefix("✗ Not yet: with history=").partition(",")[0]
    assert line == (
        f"✗ Not yet: with history={number}, P1 is to miss exactly one event, "
        "and missed “jump” (player away)"
    )
    assert 2 <= int(number) <= 6


async def test_many_events_in_a_line_are_counted(told: Told) -> None:
    """A line stays one that can be read, however much was missed, and however long it was."""

    async def seven(cluster: Cluster) -> None:
        p1, p2 = await cluster.join("P1", "P2", server="A")
        await p1.disconnect()
        for number in range(7):
            await p2.send(f"{number} " + 100 * "x")
        await cluster.settle()
        await p1.reconnect()

    [line] = await told(exercises.p1_misses(1), seven)
    assert f"missed “0 {37 * 'x'}…” (player away), “1 " in line
    assert line.endswith("(player away) and 2 more")
    assert line.count("“") == 5


# What is only right by luck


@pytest.mark.parametrize("seed", [*SEEDS, 23])  # in which rates and seconds might balance
@pytest.mark.parametrize(
    ("exercise", "right", "wrong"),
    [
        (
            exercises.bytes_before_a_text(),
            head,
            [
                lambda length, side, one=one, two=two: (
                    (2 if length <= one else 4 if length <= two else 10) + 4 * (side == "client")
                )
                for one, two in [(124, 65_535), (126, 65_535), (125, 65_534), (125, 65_536)]
            ],
        ),
        (
            exercises.subscribers_of_an_event(),
            handed_to,
            [
                *(lambda places, number=number: number for number in range(4)),
                lambda places: len(set(places.values())) - 1,
                lambda places: len(set(places.values())),
                lambda places: sum(at is not None for at in places.values()),
                lambda places: sum(at is not None for at in places.values()) - 1,
                lambda places: 3 - sum(at is None for at in places.values()),
            ],
        ),
        (
            exercises.cost_of_an_outage(),
            lost,
            [
                *(lambda seconds, rate, number=number: number for number in range(2, 16)),
                *(lambda seconds, rate, each=each: round(seconds * each) for each in range(20, 60)),
                *(lambda seconds, rate, each=each: round(each * rate) for each in (0.1, 0.2, 0.3)),
            ],
        ),
        (
            exercises.what_pubsub_loses(),
            misses,
            [
                lambda player, server, away, cut, redis: (
                    (player in away if not cut else server in cut) or redis == "down"
                ),
                lambda player, server, away, cut, redis: (
                    (player in away) != (server in cut) or redis == "down"
                ),
                lambda player, server, away, cut, redis: (
                    (player in away or server in cut) != (redis == "down")
                ),
                lambda player, server, away, cut, redis: (
                    player in away or bool(cut) or redis == "down"
                ),
                lambda player, server, away, cut, redis: (
                    player in away or cut == {server} or redis == "down"
                ),
                *(
                    lambda player, server, away, cut, redis, one=one: (
                        player in away or (server in cut and cut != {one}) or redis == "down"
                    )
                    for one in ("B", "C")
                ),
                *(
                    lambda player, server, away, cut, redis, one=one: (
                        player in away or server in cut - {one} or redis == "down"
                    )
                    for one in ("B", "C")
                ),
                *(
                    lambda player, server, away, cut, redis, one=one: (
                        player in away or server in cut or (redis == "down" and server != one)
                    )
                    for one in ("A", "B", "C")
                ),
            ],
        ),
    ],
)
async def test_a_function_that_is_wrong_is_found_out_each_time(
    told: Told, exercise: Exercise, right: Any, wrong: list[Any], seed: int
) -> None:
    """In each check it is asked for something where it differs from the right one."""
    asked: list[tuple[Any, ...]] = []

    def remembers(*arguments: Any) -> Any:
        asked.append(arguments)
        return right(*arguments)

    assert await told(exercise, remembers, seed) == [f"✓ {exercise.claim}"]
    for number, function in enumerate(wrong):
        assert any(function(*each) != right(*each) for each in asked), number


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_fixed_number_is_found_out_each_time(told: Told, seed: int) -> None:
    """Of players that move, or of events that are said: two sizes are played."""

    async def three(players: list[Player]) -> None:
        for player in players[:3]:
            await player.reconnect()

    async def for_three(cluster: Cluster, history: int) -> None:
        await one_more_than_is_kept(cluster, 3)

    assert await told(exercises.spread_out(), three, seed) == [
        "✗ Not yet: the servers have 3 and 5 players"
    ]
    [line] = await told(exercises.one_falls_out_of_history(), for_three, seed)
    assert line.startswith("✗ Not yet: with history=")


# What is not to be done


async def test_the_learner_s_list_is_its_own(told: Told) -> None:
    """What a function does to a list that it is given changes nothing for the judge."""

    async def takes_them_out(players: list[Player]) -> None:
        for _ in range(len(players) // 2):
            await players.pop().reconnect()

    assert await told(exercises.spread_out(), takes_them_out) == [
        "✓ both servers have as many players"
    ]


async def test_nobody_is_told_a_server(told: Told) -> None:
    """Where that is the exercise, whoever names one anyway is told."""

    async def names_one(cluster: Cluster, p1: Player, p2: Player) -> None:
        await p1.reconnect(server=next(name for name in cluster.servers if name != p1.server))

    [line] = await told(exercises.end_apart(), names_one)
    assert " was told to go to " in line

    async def learns_their_names(players: list[Player]) -> None:
        with pytest.raises(ValueError, match="unknown server") as error:
            await players[0].reconnect(server="?")
        names = str(error.value).partition("there are: ")[2].split(", ")
        for player, name in zip(players, len(players) // 2 * names, strict=True):
            await player.reconnect(server=name)

    lines = await told(exercises.spread_out(), learns_their_names)
    assert lines[0].startswith("✗ Not yet: P1 was told to go to ")


async def test_the_cluster_keeps_its_broker(told: Told) -> None:
    """An event that another broker loses is not missed with this one."""

    async def without_one(cluster: Cluster) -> None:
        await cluster.change_broker("none")
        await cluster.join("P1", server="B")
        [p2] = await cluster.join("P2", server="A")
        await p2.send("jump")

    assert await told(exercises.p1_misses(1), without_one) == [
        "✗ Not yet: the cluster has been given another broker; it is to keep the one it has"
    ]


async def test_what_nobody_has_said_is_not_missed(told: Told) -> None:
    """An event that an attempt writes into the trace itself has not been said."""

    async def writes(cluster: Cluster) -> None:
        await cluster.join("P1", "P2")
        cluster.trace.append("send", "P2", "A", "P2-1", body="jump")

    assert await told(exercises.p1_misses(1), writes) == [
        "✗ Not yet: “jump” stands in the trace, and nobody has said it"
    ]


async def test_an_id_of_one_s_own_is_no_forgery(told: Told) -> None:
    """What is said under another id than the player's next one was said."""

    async def with_an_id(cluster: Cluster) -> None:
        p1, p2 = await cluster.join("P1", "P2", server="A")
        await p1.disconnect()
        await p2.send("jump", again="mine")
        await cluster.settle()
        await p1.reconnect()

    assert await told(exercises.p1_misses(1), with_an_id) == ["✓ P1 misses exactly one event"]


async def test_a_frozen_redis_is_not_away(told: Told) -> None:
    """What is said to it waits, and needs no retry."""

    async def freezes(cluster: Cluster) -> None:
        _, p2 = await cluster.join("P1", "P2", server="A")
        async with faults.redis_frozen(cluster):
            await p2.send("jump")
        await cluster.settle()

    assert await told(exercises.said_while_redis_is_away(), freezes) == [
        "✗ Not yet: P2 said nothing while Redis was away"
    ]


# What is lost, and told wrongly


async def test_each_word_that_is_lost_is_named(told: Told) -> None:
    """Whoever says a word only once loses it with Redis, for everyone; three lines are shown."""

    async def only_once(player: Player, words: list[str]) -> None:
        for word in words:
            await player.send(word)

    *lines, more = await told(exercises.everyone_hears_once(), only_once)
    assert len(lines) == 3
    assert all(line.endswith("” 0 times; it was said while Redis was restarted") for line in lines)
    assert lines[0].startswith("✗ Not yet: P1 has heard “")
    assert more == "… and 1 more"


async def test_a_word_that_is_heard_twice_is_named(told: Told) -> None:
    """To say it again as another event is no way to be sure."""

    async def twice(player: Player, words: list[str]) -> None:
        for word in words:
            await player.send(word, confirm=True)
            await player.send(word, confirm=True)

    line, *_ = await told(exercises.everyone_hears_once(), twice)
    assert "” 2 times; it was said while " in line


async def test_who_is_sent_away_between_two_troubles_is_told(told: Told) -> None:
    """Nothing more can be said then, whatever comes next."""

    async def goes(player: Player, words: list[str]) -> None:
        await player.disconnect()

    for seed in SEEDS:
        [line] = await told(exercises.everyone_hears_once(), goes, seed)
        assert line == "✗ Not yet: P2 is away"


async def test_an_uneven_half_is_told(told: Told) -> None:
    """How many are where is said, once anybody has moved."""

    async def one_only(players: list[Player]) -> None:
        await players[0].reconnect()

    [line] = await told(exercises.spread_out(), one_only, seed=2)
    assert line.startswith("✗ Not yet: the servers have 1 and ")


async def test_a_wrong_function_is_told_where(told: Told) -> None:
    """The player and the place for which it is wrong, but not what would be right."""
    *lines, more = await told(exercises.who_hears(), lambda places, speaker: list(places))
    assert len(lines) == 3
    assert all(line.endswith(" misses it") for line in lines)
    assert more.startswith("… and ")
    *lines, _ = await told(exercises.what_pubsub_loses(), lambda *_: False)
    assert all(line.endswith(" missed it") for line in lines)
    assert await told(exercises.what_pubsub_loses(), lambda *_: "yes") == [
        "✗ Not yet: your function gives 'yes'; it is to give True or False"
    ]
    lines = await told(exercises.bytes_before_a_text(), lambda length, side: 2)
    assert lines[0].endswith(" bytes, said by the client: there are not 2 before it")
    lines = await told(exercises.events_received(), lambda server, homes: len(homes))
    assert "did not receive" in lines[0]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (3, "your function gives 3; it is to give a list of names"),
        ("P1, P4", "your function gives 'P1, P4'; it is to give a list of names"),
        (len, "your function gives <built-in function len>; it is to give a list of names"),
        (
            says_nothing,
            "your function gives <function says_nothing>; it is to give a list of names",
        ),
        (["P1", "P2", "P9", None], "there is no player P9"),
        ([None], "there is no player None"),
        ([["P1"]], "there is no player ['P1']"),
        (None, "your function returns nothing"),
        (..., "there is no answer yet"),
    ],
)
async def test_names_are_those_of_players(told: Told, given: Any, line: str) -> None:
    """Anything else is told as it is, with no address in it."""
    assert await told(exercises.who_hears(), lambda *_: given) == [f"✗ Not yet: {line}"]


async def test_a_broker_that_there_is_not_is_told(told: Told) -> None:
    """Brokers are written as they are in `open_cluster`."""
    for broker in ("Queue", ["queue"]):
        assert await told(exercises.cheapest_broker(CUT_OFF), broker) == [
            f"✗ Not yet: there is no broker {broker!r}; it is one of none, pubsub, stream, queue"
        ]


@pytest.mark.parametrize(
    ("troubles", "right"),
    [
        (["P1 has moved to another server"], "pubsub"),
        ([CUT_OFF], "stream"),
        (["Redis's reply is lost"], "stream"),
        (["Redis is restarted"], "stream"),
        (["P1's server has no link to Redis"], "stream"),
        ([OPENED_ANEW], "queue"),
        (list(TROUBLES), "queue"),
    ],
)
async def test_only_the_cheapest_broker_passes(told: Told, troubles: list[str], right: str) -> None:
    """Of one that is too weak it is told what was lost; of a dearer one, what it costs."""
    exercise = exercises.cheapest_broker(*troubles)
    brokers = ["none", "pubsub", "stream", "queue"]
    for broker in brokers:
        lines = await told(exercise, broker)
        if broker == right:
            assert lines == [f"✓ {exercise.claim}"]
        elif brokers.index(broker) > brokers.index(right):
            assert lines[0].startswith(f"✗ Not yet: with {broker} everyone hears everything once")
            assert lines[0].endswith("and so it is with something cheaper")
        else:
            lost = [line for line in lines if line.startswith(f"✗ Not yet: with {broker}, P")]
            assert lost == lines[:3]
            assert any(line.endswith(tuple(troubles)) for line in lost) or broker == "none"


def test_a_trouble_that_there_is_not_is_refused() -> None:
    """Whoever writes a lesson learns of the mistake at once, and which there are."""
    with pytest.raises(ValueError, match="no trouble Redis explodes; there are: P1 has moved"):
        exercises.cheapest_broker("Redis explodes")


# What fails, or hangs


async def test_an_error_is_told_with_the_learner_s_line(told: Told) -> None:
    """The line that went wrong, also if one of its own functions failed, and no traceback."""

    async def say(player: Player) -> None:
        await player.send("jump")

    async def fails(cluster: Cluster) -> None:
        [p1] = await cluster.join("P1", server="A")
        await p1.disconnect()
        await say(p1)

    [line] = await told(exercises.p1_misses(1), fails)
    number = say.__code__.co_firstlineno + 1
    assert line == (
        f'✗ Not yet: line {number}, `await player.send("jump")`: NotConnected: P1 cannot send '
        "while disconnected; call `await p1.reconnect()` first"
    )
    [line] = await told(exercises.who_hears(), lambda places: places)
    assert line.startswith("✗ Not yet: it failed: TypeError: ")


async def test_what_hangs_ends_and_says_where(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the bound the line that waits is named, and the cluster is stopped."""
    monkeypatch.setattr("wsdemo.exercises.attempt.BOUND", 0.2)
    clusters = []

    async def hangs(cluster: Cluster) -> None:
        clusters.append(cluster)
        await asyncio.Event().wait()

    [line] = await told(exercises.p1_misses(1), hangs)
    number = hangs.__code__.co_firstlineno + 2
    assert line == (
        f"✗ Not yet: after 0.2 s, line {number}, `await asyncio.Event().wait()` was still under way"
    )
    assert "stopped" in repr(clusters[0])


async def test_all_calls_of_a_check_have_one_bound(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that is called again and again, and is slow each time, is too slow."""
    monkeypatch.setattr("wsdemo.exercises.attempt.BOUND", 0.3)

    async def slow(length: int, side: str) -> int:
        await asyncio.sleep(0.1)
        return head(length, side)

    [line] = await told(exercises.bytes_before_a_text(), slow)
    assert line.startswith("✗ Not yet: after 0.3 s, line ")


async def test_time_that_is_used_up_without_a_wait_counts(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can stop what never waits, but its next call is not begun."""
    monkeypatch.setattr("wsdemo.exercises.attempt.BOUND", 0.01)
    calls = []

    def busy(length: int, side: str) -> int:
        calls.append(length)
        time.sleep(0.02)
        return head(length, side)

    assert await told(exercises.bytes_before_a_text(), busy) == [
        "✗ Not yet: its calls have taken more than 0.01 s"
    ]
    assert len(calls) == 1


async def test_what_catches_its_own_end_stays_where_it_is(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare `except` in a loop swallows that it is cancelled; the check ends, and so does it."""
    monkeypatch.setattr("wsdemo.exercises.attempt.BOUND", 0.2)
    monkeypatch.setattr("wsdemo.exercises.attempt.GRACE", 0.2)
    rounds = []

    async def swallows(cluster: Cluster) -> None:
        [p1] = await cluster.join("P1", server="A")
        while True:
            try:
                rounds.append(await p1.send("jump"))  # which fails at once if the cluster stops
                await asyncio.Event().wait()
            except:  # noqa: E722
                continue

    [line] = await told(exercises.p1_misses(1), swallows)
    number = swallows.__code__.co_firstlineno + 5
    assert line == (
        f"✗ Not yet: after 0.2 s, line {number}, `await asyncio.Event().wait()` was still under way"
    )
    assert len(rounds) > 1  # it has swallowed something
    before = len(rounds)
    await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0)
    assert len(rounds) == before


async def test_whoever_says_it_again_and_again_is_told_to_wait(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that says things without a wait floods everything that would let it end."""
    monkeypatch.setattr("wsdemo.exercises.stories.FLOOD", 100)

    async def floods(player: Player, words: list[str]) -> None:
        event = await player.send(words[0])
        while True:
            try:
                await player.send(words[0], again=event)
            except ConnectionError:
                await asyncio.sleep(0)

    [line] = await told(exercises.everyone_hears_once(), floods)
    number = floods.__code__.co_firstlineno + 4
    assert line == (
        f"✗ Not yet: line {number}, `await player.send(words[0], again=event)` is done over and "
        "over; wait in between: `await asyncio.sleep(0.1)`"
    )


class Several:
    """As an array has it, no one answer to whether it is equal to something."""

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise ValueError("the truth of several is ambiguous")

    def __repr__(self) -> str:
        return "several"

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "exercise",
    [
        exercises.bytes_before_a_text(),
        exercises.subscribers_of_an_event(),
        exercises.cost_of_an_outage(),
        exercises.events_received(),
    ],
    ids=lambda exercise: exercise.claim,
)
async def test_what_is_no_number_is_told(exercise: Exercise, told: Told) -> None:
    """Also where it cannot be compared; and a number that Python does not write out is one."""
    for given in ("two", [2], True, Several()):
        lines = await told(exercise, lambda *_, given=given: given)
        shown = "several" if isinstance(given, Several) else repr(given)
        assert lines == [
            f"✗ Not yet: your function gives {shown}; it is to give a number, such as 6"
        ]
    for line in await told(exercise, lambda *_: 10**5_000):
        assert "a number of more than 60 digits" in line or line.startswith("…")


async def test_what_is_no_name_is_told(told: Told) -> None:
    """Neither a player's nor a broker's."""
    for given in (Several(), 10**5_000, "a"):
        [line] = await told(exercises.who_hears(), lambda *_, given=given: [given])
        assert line.startswith("✗ Not yet: there is no ")
        [line] = await told(exercises.cheapest_broker(CUT_OFF), given)
        assert line.startswith("✗ Not yet: there is no broker ")


async def test_a_generator_is_part_of_the_attempt(told: Told) -> None:
    """Names may come one by one; what fails in between is told with its line, and it has an end."""

    def one_by_one(places: dict[str, str], speaker: str) -> Iterator[str]:
        yield from hears(places, speaker)

    def misspelt(places: dict[str, str], speaker: str) -> Iterator[str]:
        yield places["P0"]

    def endless(places: dict[str, str], speaker: str) -> Iterator[str]:
        while True:
            yield speaker

    async def asynchronous(places: dict[str, str], speaker: str) -> AsyncIterator[str]:
        yield speaker

    exercise = exercises.who_hears()
    assert await told(exercise, one_by_one) == [f"✓ {exercise.claim}"]
    assert await told(exercise, misspelt) == [
        f'✗ Not yet: line {misspelt.__code__.co_firstlineno + 1}, `yield places["P0"]`: '
        "KeyError: 'P0'"
    ]
    assert await told(exercise, endless) == [
        "✗ Not yet: your function gives more than 1,000 things, and no end is in sight"
    ]
    assert await told(exercise, asynchronous) == [
        "✗ Not yet: an `async def` with `yield` in it does not run; use `return`"
    ]


async def test_what_would_end_the_check_is_told(told: Told) -> None:
    """To wait for a task that was cancelled, or to end the program, fails as anything else."""

    async def cancelled(cluster: Cluster) -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        await task

    def exits(places: dict[str, str], speaker: str) -> None:
        sys.exit("that is it")

    assert await told(exercises.p1_misses(1), cancelled) == [
        f"✗ Not yet: line {cancelled.__code__.co_firstlineno + 3}, `await task`: CancelledError"
    ]
    number = exits.__code__.co_firstlineno + 1
    assert await told(exercises.who_hears(), exits) == [
        f'✗ Not yet: line {number}, `sys.exit("that is it")`: SystemExit: that is it'
    ]


async def test_who_interrupts_a_check_ends_it(told: Told) -> None:
    """An interrupted cell says nothing of the attempt, whose clean-up is done first."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def waits(cluster: Cluster) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    check = asyncio.create_task(told(exercises.p1_misses(1), waits))
    await begun.wait()
    check.cancel()
    with pytest.raises(asyncio.CancelledError):
        await check
    assert ended.is_set()


async def test_what_is_left_running_ends_with_the_check(told: Told) -> None:
    """A task that an attempt has begun does not outlive it, and nobody hears how it ended."""
    before = asyncio.all_tasks()
    running: list[Any] = []  # which keeps them until the test ends, and sees what is reported

    async def fails_in_the_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("that is it")

    async def leaves(cluster: Cluster) -> None:
        _, p2 = await cluster.join("P1", "P2", server="A")
        running.append(asyncio.create_task(fails_in_the_end()))
        await cluster.stop_redis(keep=True)
        running.append(asyncio.create_task(p2.send("duck", confirm=True)))
        await cluster.settle()

    [line] = await told(exercises.said_while_redis_is_away(), leaves)
    assert line.startswith("✗ Not yet: in the end nobody can play any more: ")
    assert asyncio.all_tasks() == before
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_a_task_cannot_end_the_kernel(told: Told) -> None:
    """Where it is awaited, the check says what it did; where nobody waits for it, it has ended.

    So it is with one that begins only when the attempt is over, or when it is told to end.
    """

    running: list[asyncio.Task[None]] = []
    keep: list[asyncio.Task[None]] = []

    async def leaves() -> None:
        sys.exit("that is it")

    async def awaited(cluster: Cluster) -> None:
        await asyncio.create_task(leaves())

    async def left(cluster: Cluster) -> None:
        await three_while_away(cluster)
        running.append(asyncio.create_task(leaves()))
        await asyncio.wait(running)

    async def leaves_later(cluster: Cluster) -> None:
        await three_while_away(cluster)

        async def later() -> None:
            await recorded(cluster.trace, "join", times=5)  # whom the check lets join
            running.append(asyncio.create_task(leaves()))

        keep.append(asyncio.create_task(later()))

    async def leaves_in_the_end(cluster: Cluster) -> None:
        await three_while_away(cluster)

        async def waits() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                running.append(asyncio.create_task(leaves()))

        keep.append(asyncio.create_task(waits()))

    [line] = await told(exercises.p1_misses(3), awaited)
    number = leaves.__code__.co_firstlineno + 1
    assert line == (
        f'✗ Not yet: line {number}, `sys.exit("that is it")`: RuntimeError: SystemExit: that is it'
    )
    for attempt in (left, leaves_later, leaves_in_the_end):
        assert await told(exercises.p1_misses(3), attempt) == ["✓ P1 misses exactly 3 events"]
    assert [repr(error) for error in await asyncio.gather(*running, return_exceptions=True)] == [
        "RuntimeError('SystemExit: that is it')"
    ] * 3


async def test_tasks_that_do_not_end_are_left_together(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty that catch their own end take as long as one, and do nothing after the check."""
    monkeypatch.setattr("wsdemo.exercises.attempt.GRACE", 0.2)
    before = asyncio.all_tasks()
    rounds: list[int] = []

    async def stubborn(number: int) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except:  # noqa: E722
                rounds.append(number)

    async def attempt(cluster: Cluster) -> None:
        await three_while_away(cluster)
        running = [asyncio.create_task(stubborn(number)) for number in range(20)]
        await asyncio.sleep(0)
        assert running

    assert await told(exercises.p1_misses(3), attempt) == ["✓ P1 misses exactly 3 events"]
    assert {*rounds[:20]} == {*range(20)}  # all are told to end before one is told again
    count = len(rounds)
    if left := asyncio.all_tasks() - before:
        await asyncio.wait(left)
    gc.collect()
    await asyncio.sleep(0)
    assert len(rounds) == count


async def test_a_task_that_never_began_ends_too(
    told: Told, recwarn: pytest.WarningsRecorder
) -> None:
    """Python does not complain that nobody has awaited it."""

    async def anything() -> None:
        pass

    async def attempt(cluster: Cluster) -> None:
        await three_while_away(cluster)
        asyncio.create_task(anything()).cancel()

    assert await told(exercises.p1_misses(3), attempt) == ["✓ P1 misses exactly 3 events"]
    gc.collect()
    assert not [each for each in recwarn if "never awaited" in str(each.message)]


async def test_a_task_that_asyncio_makes_of_something_ends_too(told: Told) -> None:
    """Also if that is no coroutine, but can be awaited."""

    class Patient:
        def __await__(self) -> Generator[Any, Any, None]:
            yield from asyncio.Event().wait().__await__()

    left: list[asyncio.Future[Any]] = []

    async def attempt(cluster: Cluster) -> None:
        await three_while_away(cluster)
        left.append(asyncio.ensure_future(Patient()))

    assert await told(exercises.p1_misses(3), attempt) == ["✓ P1 misses exactly 3 events"]
    assert left[0].cancelled()


async def test_a_task_factory_that_an_attempt_sets_ends_with_it(told: Told) -> None:
    """The notebook's next cell has the loop that it had."""

    async def attempt(cluster: Cluster) -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, work, **how: asyncio.Task(work, loop=loop, **how))
        await three_while_away(cluster)

    assert await told(exercises.p1_misses(3), attempt) == ["✓ P1 misses exactly 3 events"]
    assert asyncio.get_running_loop().get_task_factory() is None


async def test_an_attempt_may_be_anything_that_can_be_called(told: Told) -> None:
    """Its line is named, and its tasks end with the check."""
    left: list[asyncio.Task[Any]] = []

    async def fails(times: int, cluster: Cluster) -> None:
        left.append(asyncio.create_task(asyncio.Event().wait()))
        assert times == 2

    class Attempt:
        async def __call__(self, cluster: Cluster) -> None:
            await fails(1, cluster)

    number = fails.__code__.co_firstlineno + 2
    for attempt in (partial(fails, 1), Attempt()):
        assert await told(exercises.p1_misses(3), attempt) == [
            f"✗ Not yet: line {number}, `assert times == 2`: AssertionError: assert 1 == 2"
        ]
    assert [task.cancelled() for task in left] == [True, True]


async def test_two_checks_at_once_end_only_their_own_tasks(told: Told) -> None:
    """The one that began first ends first, while the other's task is under way."""
    loop = asyncio.get_running_loop()
    first_is_over = asyncio.Event()
    done: list[str] = []
    left: list[asyncio.Task[Any]] = []

    async def says_later(player: Player) -> None:
        await first_is_over.wait()
        await player.send("hide")
        done.append("said")

    async def first(cluster: Cluster) -> None:
        await second_has_begun.wait()
        await three_while_away(cluster)

    second_has_begun = asyncio.Event()

    async def second(cluster: Cluster) -> None:
        p1, p2 = await cluster.join("P1", "P2", server="A")
        await p1.disconnect()
        task = asyncio.create_task(says_later(p2))
        second_has_begun.set()
        await task
        left.append(asyncio.create_task(asyncio.Event().wait()))  # also now, it ends with its check
        await cluster.settle()
        await p1.reconnect()

    async def check(number: int, attempt: Any) -> None:
        await exercises.p1_misses(number).check(attempt, seed=1)

    checks = [asyncio.create_task(check(3, first)), asyncio.create_task(check(1, second))]
    await checks[0]
    first_is_over.set()
    await checks[1]
    assert done == ["said"]
    assert left[0].cancelled()
    assert loop.get_task_factory() is None


async def test_what_another_cluster_does_goes_on(told: Told) -> None:
    """The tasks of the parts that an attempt touches are theirs, and not left over."""
    async with open_cluster(broker="none") as another:
        [p1] = await another.join("P1", server="A")

        async def touches(cluster: Cluster) -> None:
            await three_while_away(cluster)
            await p1.reconnect(server="B")

        assert await told(exercises.p1_misses(3), touches) == ["✓ P1 misses exactly 3 events"]
        assert p1.server == "B"


async def test_what_is_not_awaited_may_still_come_to_its_end(told: Told) -> None:
    """A task that goes on after the attempt has its effect before the judge looks."""

    async def does_not_wait(cluster: Cluster) -> None:
        _, p2 = await cluster.join("P1", "P2", server="A")
        async with faults.redis_stopped(cluster, keep=True):
            said = asyncio.create_task(p2.send("jump", confirm=True))
            await cluster.settle()
        assert not said.done()

    exercise = exercises.said_while_redis_is_away()
    assert await told(exercise, does_not_wait) == [f"✓ {exercise.claim}"]


async def test_what_does_not_come_to_rest_is_named(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is still under way when the attempt has ended is said in the words of `settle`."""
    settle = Cluster.settle

    async def impatient(cluster: Cluster, timeout: float = 0.2) -> None:
        await settle(cluster, timeout)

    async def leaves_no_server(cluster: Cluster) -> None:
        await cluster.join("P1", server="A")
        monkeypatch.setattr(Cluster, "settle", impatient)
        await cluster.kill_server("A")
        await cluster.kill_server("B")

    [line] = await told(exercises.p1_misses(1), leaves_no_server)
    assert line.startswith("✗ Not yet: after ")
    assert line.endswith("s still under way: P1 is on its way to a connection")


@pytest.mark.parametrize(
    ("what_else", "line"),
    [
        ("await cluster.stop()", "the cluster is stopped; open another"),
        ("await cluster.stop_redis()", "in the end nobody can play any more: P"),
        ("await cluster.player('P1').leave()", "P1 does not hear “"),
    ],
)
async def test_what_is_left_broken_is_told(told: Told, what_else: str, line: str) -> None:
    """An attempt may leave anything behind: it is told, and the check goes to its end."""

    async def breaks(cluster: Cluster) -> None:
        await three_while_away(cluster)
        match what_else:
            case "await cluster.stop()":
                await cluster.stop()
            case "await cluster.stop_redis()":
                await cluster.stop_redis()
            case _:
                await cluster.player("P1").leave()

    assert (await told(exercises.p1_misses(3), breaks))[0].startswith(f"✗ Not yet: {line}")


@pytest.mark.parametrize("what", ["players", "servers"])
async def test_names_that_an_attempt_takes_are_its_own(told: Told, what: str) -> None:
    """Whoever comes in the end has another one."""

    async def takes_names(cluster: Cluster) -> None:
        await three_while_away(cluster)
        for number in range(5, 10):
            await (cluster.join if what == "players" else cluster.add_server)(f"P{number}")

    lines = await told(exercises.p1_misses(3), takes_names)
    assert lines == ["✓ P1 misses exactly three events"] or lines == [
        "✓ P1 misses exactly 3 events"
    ]


async def test_a_word_outlives_redis(told: Told) -> None:
    """As the challenge of the sandbox has it: what is lacking is said in its words."""

    async def forgets(cluster: Cluster) -> None:
        p1, p2 = await cluster.join("P1", "P2")
        await p1.disconnect()
        await p2.send("jump")
        await cluster.settle()
        await cluster.stop_redis()
        await cluster.start_redis()
        await p1.reconnect()

    async def does_nothing(cluster: Cluster) -> None:
        await cluster.join("P1", "P2")

    exercise = exercises.survives_redis()
    for seed in SEEDS:
        assert await told(exercise, redis_restarts, seed) == [f"✓ {exercise.claim}"]
    lost = await told(exercise, forgets)
    assert lost[0] == ("✗ Not yet: nobody heard, after its return, what was said before it went")
    assert lost[1].startswith("✗ Not yet: missed: 'jump' by P1")
    nothing = ["✗ Not yet: Redis has not been away and come back"]
    assert await told(exercise, does_nothing) == nothing


async def test_what_is_no_function_is_told(told: Told) -> None:
    """Whoever calls the function instead of giving it, or gives something else, is told so."""
    expected = ["✗ Not yet: give `check` the function itself, without brackets after its name"]
    async with open_cluster(broker="none") as cluster:
        assert await told(exercises.p1_misses(3), three_while_away(cluster)) == expected
        assert await told(exercises.p1_misses(3), cluster) == expected


# On a cluster that runs


async def test_a_player_is_where_it_is_heard(told: Told) -> None:
    """What it says tells on which server it is, and is told as a beat of the cluster's story."""
    exercise = exercises.plays_on("P3", "B")
    async with open_cluster(broker="pubsub") as cluster:
        p3, _ = await cluster.join("P3", "P1", server="A")
        assert await told(exercise, cluster) == ["✗ Not yet: P3 is on server A"]
        assert not cluster.trace.select("step", "send")  # for that, the run is left alone
        await p3.reconnect(server="B")
        assert await told(exercise, cluster) == ["✓ what P3 says arrives at server B"]
        captions = [record.data["caption"] for record in cluster.trace.select("step")]
        assert captions == ["A check lets P3 say something"]
        await p3.disconnect()
        [line] = await told(exercise, cluster)
        assert line.startswith("✗ Not yet: P3 cannot send while disconnected")
        [line] = await told(exercises.plays_on("P9", "B"), cluster)
        assert line.startswith("✗ Not yet: unknown player 'P9'")
    [line] = await told(exercise, cluster)
    assert line.startswith("✗ Not yet: the cluster is stopped")
    assert await told(exercise, p3) == ["✗ Not yet: give `check` the cluster"]


async def test_two_hear_each_other_on_one_server(told: Told) -> None:
    """Without a broker they do on one server, and neither does on two."""
    exercise = exercises.hear_each_other("P1", "P2")
    async with open_cluster(broker="none") as cluster:
        p1, _ = await cluster.join("P1", "P2", server="A")
        assert await told(exercise, cluster) == ["✓ P1 and P2 hear each other"]
        await p1.reconnect(server="B")
        assert await told(exercise, cluster) == [
            "✗ Not yet: P2 does not hear what P1 says: no broker between servers",
            "✗ Not yet: P1 does not hear what P2 says: no broker between servers",
        ]


# Fresh runs


async def test_each_check_without_a_seed_is_another(told: Told) -> None:
    """Nobody can learn the fresh run by heart; with a seed it is the same again."""
    seen: list[Any] = []

    def remembers(*arguments: Any) -> None:
        seen.append(arguments)

    for seed in (None, None, None, None, None, 5, 5):
        await exercises.who_hears().check(remembers, seed)
    assert len({str(arguments) for arguments in seen[:5]}) > 1
    assert seen[5] == seen[6]


def test_an_exercise_is_shown_by_its_claim() -> None:
    """A cell that only names it shows no address of anything."""
    assert repr(exercises.p1_misses(1)) == "Exercise(claim='P1 misses exactly one event')"
