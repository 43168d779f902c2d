"""The ledger: who heard what, who missed what, and the cause that the trace proves."""

from __future__ import annotations

import itertools
import random
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsdemo.ledger import Cause, Fate, FateFinder, Ledger, Ledgers, ledger
from wsdemo.trace import Kind, Trace


def run(broker: str, *records: str) -> Trace:
    """A trace of these records, one a line: kind, at, peer ("-" for none), event, details."""
    trace = Trace(broker=broker, servers=["A", "B"])
    for line in "\n".join(records).splitlines():
        words = shlex.split(line)
        data = dict(word.split("=", 1) for word in words if "=" in word)
        kind, at, *rest = ["" if word == "-" else word for word in words if "=" not in word]
        assert kind in get_args(Kind)
        trace.append(kind, at, *rest, **data)  # type: ignore[arg-type]
    return trace


def arrives(player: str, server: str) -> str:
    """A player of the cluster's comes to a server."""
    return (
        f"connect {player} balancer\nroute balancer {server} player={player}\n"
        f"join {server} {player} game=g\nwelcome {player} {server}"
    )


def departs(player: str, server: str) -> str:
    """Both ends notice that the connection is gone."""
    return f"disconnect {player} {server}\ndisconnect {server} {player} code=1000"


def leaves(player: str, server: str) -> str:
    """A player leaves the game for good."""
    return f"leave {server} {player} game=g\n{departs(player, server)}"


def says(player: str, server: str, event: str) -> str:
    """A player's event reaches its server."""
    return f"send {player} {server} {event} body=jump\nreceive {server} {player} {event} body=jump"


def published(server: str, event: str, receivers: int = 1) -> str:
    """Redis has taken the event and told the server how many it gave it to."""
    return f"publish {server} redis {event} receivers={receivers}"


def relayed(server: str, event: str, *players: str, hub: str = "redis") -> str:
    """A server passes the event on to these players, and they hear it."""
    return "\n".join(
        [
            f"relay {server} {hub or '-'} {event} game=g",
            *(f"deliver {server} {player} {event}" for player in players),
            *(f"hear {player} {server} {event}" for player in players),
        ]
    )


SETTLED = "settle scenario"
TOGETHER = f"{arrives('P1', 'A')}\n{arrives('P2', 'A')}"
APART = f"{arrives('P1', 'B')}\n{arrives('P2', 'A')}"


def outcomes(found: Ledger) -> dict[tuple[str, str], str]:
    """The outcome of each fate, by event and player."""
    return {(fate.event, fate.player): fate.outcome for fate in found}


def fate_of(found: Ledger, event: str, player: str) -> Fate:
    """The fate of an event that was for this player."""
    fate = found.fate(event, player)
    assert fate is not None
    return fate


# Heard


def test_everyone_hears_an_event_the_sender_too() -> None:
    """An event that each player hears is heard by each, and nothing is missed."""
    found = ledger(
        run(
            "pubsub",
            APART,
            says("P2", "A", "P2-1"),
            published("A", "P2-1", 2),
            relayed("A", "P2-1", "P2"),
            relayed("B", "P2-1", "P1"),
            SETTLED,
        )
    )
    assert (found.heard, found.missed, found.twice, found.pending) == (2, 0, 0, 0)
    assert found.balances
    assert found.events == ["P2-1"]
    assert found.players == ["P1", "P2"]
    assert (found.sender("P2-1"), found.body("P2-1")) == ("P2", "jump")
    assert found.heard_by("P1") == found.heard_by("P2") == ["P2-1"]
    assert found.missed_by("P1") == []


def test_a_fate_is_shown_by_the_record_that_decides_it() -> None:
    """A fate points at the player's own hearing."""
    trace = run("none", TOGETHER, says("P2", "A", "P2-1"), relayed("A", "P2-1", "P1", "P2", hub=""))
    found = ledger(trace)
    assert fate_of(found, "P2-1", "P1").n == trace.select("hear", at="P1")[0].n
    assert fate_of(found, "P2-1", "P2").n == trace.select("hear", at="P2")[0].n


def test_what_is_heard_needs_no_settle() -> None:
    """Hearing is certain as soon as it happens."""
    found = ledger(
        run("none", TOGETHER, says("P2", "A", "P2-1"), relayed("A", "P2-1", "P1", "P2", hub=""))
    )
    assert (found.heard, found.pending) == (2, 0)
    assert found.balances


def test_what_is_under_way_is_pending() -> None:
    """Where the trace ends before an event has come to rest, a fate is pending, not missed."""
    trace = run(
        "pubsub", APART, says("P2", "A", "P2-1"), published("A", "P2-1"), relayed("A", "P2-1", "P2")
    )
    found = ledger(trace)
    assert outcomes(found) == {("P2-1", "P1"): "pending", ("P2-1", "P2"): "heard"}
    assert (found.heard, found.missed, found.pending) == (1, 0, 1)
    assert not found.balances
    assert "pending 1" in found.summary
    assert found.missed_by("P1") == []
    trace.append("settle", "scenario")
    assert outcomes(ledger(trace))["P2-1", "P1"] == "missed"
    assert ledger(trace).balances


def test_an_event_heard_twice_is_counted_once_as_heard() -> None:
    """A second hearing makes the fate "twice", which counts among the heard."""
    found = ledger(
        run(
            "none",
            TOGETHER,
            says("P2", "A", "P2-1"),
            relayed("A", "P2-1", "P1", "P2", hub=""),
            "hear P1 A P2-1",
            SETTLED,
        )
    )
    assert outcomes(found) == {("P2-1", "P1"): "twice", ("P2-1", "P2"): "heard"}
    assert (found.heard, found.missed, found.twice) == (2, 0, 1)
    assert found.heard_by("P1") == ["P2-1"]
    assert found.balances


# Missed, and why


def the_miss(broker: str, *records: str) -> tuple[Trace, Fate]:
    """A trace in which P1 misses an event of P2's, and that fate."""
    trace = run(broker, *records, SETTLED)
    found = ledger(trace)
    assert found.balances
    assert found.missed_by("P1") == [("P2-1", fate_of(found, "P2-1", "P1").cause)]
    assert found.heard_by("P1") == []
    return trace, fate_of(found, "P2-1", "P1")


def test_no_broker_between_servers() -> None:
    """Without a broker, a player on another server misses the event for want of one."""
    trace, fate = the_miss(
        "none", APART, says("P2", "A", "P2-1"), relayed("A", "P2-1", "P2", hub="")
    )
    assert (fate.cause, fate.server) == ("no broker between servers", "B")
    assert trace[fate.n].kind == "relay"


def test_redis_down() -> None:
    """An event that could not be published is missed by everyone, the sender too."""
    trace, fate = the_miss(
        "pubsub", APART, says("P2", "A", "P2-1"), "unpublished A redis P2-1 'reason=out of reach'"
    )
    assert (fate.cause, fate.server) == ("redis down", "B")
    assert trace[fate.n].kind == "unpublished"
    assert ledger(trace).missed_by("P2") == [("P2-1", "redis down")]


CUT, MENDED = "fault {} redis 'reason=link cut'", "heal {} redis 'reason=link mended'"
STOPPED, STARTED = "fault redis reason=stopped", "heal redis reason=started"


@pytest.mark.parametrize(
    ("before", "cause"),
    [
        ([CUT.format("A")], "server without Redis"),
        ([CUT.format("B")], "redis down"),
        ([CUT.format("A"), MENDED.format("A")], "redis down"),
        ([CUT.format("A"), STOPPED], "redis down"),
        ([CUT.format("A"), STOPPED, STARTED], "server without Redis"),
    ],
)
def test_a_server_without_redis(before: list[str], cause: str) -> None:
    """Where only the link of the speaker's server is cut, Redis is not to blame."""
    unpublished = "unpublished A redis P2-1 'reason=out of reach'"
    _, fate = the_miss("pubsub", APART, *before, says("P2", "A", "P2-1"), unpublished)
    assert fate.cause == cause


def test_an_answer_that_never_came_is_no_miss() -> None:
    """Where Redis passed the event on and its answer was lost, the players have heard it."""
    found = ledger(
        run(
            "pubsub",
            TOGETHER,
            says("P2", "A", "P2-1"),
            relayed("A", "P2-1", "P1", "P2"),
            "unpublished A redis P2-1 'reason=no answer'",
            SETTLED,
        )
    )
    assert (found.heard, found.missed) == (2, 0)


def test_server_not_subscribed() -> None:
    """An event that Redis took and this server never got is missed by the server's players."""
    trace, fate = the_miss(
        "pubsub",
        APART,
        f"disconnect B redis\n{says('P2', 'A', 'P2-1')}",
        published("A", "P2-1"),
        relayed("A", "P2-1", "P2"),
    )
    assert (fate.cause, fate.server) == ("server not subscribed", "B")
    assert trace[fate.n].kind == "publish"
    assert ledger(trace).heard_by("P2") == ["P2-1"]


@pytest.mark.parametrize("broker", ["none", "pubsub"])
def test_player_away(broker: str) -> None:
    """A player that is on no server when the event passes by is away."""
    hub = "" if broker == "none" else "redis"
    _, fate = the_miss(
        broker,
        TOGETHER,
        departs("P1", "A"),
        says("P2", "A", "P2-1"),
        relayed("A", "P2-1", "P2", hub=hub),
    )
    assert (fate.cause, fate.server) == ("player away", "")


def test_player_away_who_comes_back_too_late() -> None:
    """A player that comes back after the event has passed was away when it did."""
    _, fate = the_miss(
        "none",
        TOGETHER,
        departs("P1", "A"),
        says("P2", "A", "P2-1"),
        relayed("A", "P2-1", "P2", hub=""),
        arrives("P1", "B"),
    )
    assert fate.cause == "player away"


def test_player_away_whose_server_has_not_noticed() -> None:
    """An event written to a connection that is cut is missed by a player who is away."""
    trace, fate = the_miss(
        "pubsub",
        TOGETHER,
        "disconnect P1 A",
        says("P2", "A", "P2-1"),
        published("A", "P2-1"),
        relayed("A", "P2-1", "P2"),
        "deliver A P1 P2-1\ndisconnect A P1 code=1006",
    )
    assert (fate.cause, fate.server) == ("player away", "A")
    assert trace[fate.n].kind == "deliver"


def test_player_away_between_sending_and_receiving() -> None:
    """Where a player is counts when the event reaches a server, not when it was sent."""
    _, fate = the_miss(
        "pubsub",
        TOGETHER,
        "send P2 A P2-1 body=jump",
        departs("P1", "A"),
        "receive A P2 P2-1 body=jump",
        published("A", "P2-1"),
        relayed("A", "P2-1", "P2"),
    )
    assert fate.cause == "player away"


def test_player_who_moves_between_sending_and_receiving() -> None:
    """A player that has moved to another server by then misses the event there."""
    _, fate = the_miss(
        "none",
        TOGETHER,
        "send P2 A P2-1 body=jump",
        departs("P1", "A"),
        arrives("P1", "B"),
        "receive A P2 P2-1 body=jump",
        relayed("A", "P2-1", "P2", hub=""),
    )
    assert (fate.cause, fate.server) == ("no broker between servers", "B")


TOO_SLOW = f"fault A P1 'reason=too slow' bytes_waiting=9\n{departs('P1', 'A')}"


def test_player_too_slow() -> None:
    """A player whose server gave it up, as it did not read, was too slow."""
    trace, fate = the_miss(
        "pubsub",
        TOGETHER,
        says("P2", "A", "P2-1"),
        published("A", "P2-1"),
        relayed("A", "P2-1", "P2"),
        "deliver A P1 P2-1",
        TOO_SLOW,
    )
    assert (fate.cause, fate.server) == ("player too slow", "A")
    assert trace[fate.n].kind == "deliver"


def test_player_too_slow_who_came_back() -> None:
    """Coming back before the run settles, as players do by themselves, does not excuse it."""
    _, fate = the_miss(
        "pubsub",
        TOGETHER,
        says("P2", "A", "P2-1"),
        published("A", "P2-1"),
        relayed("A", "P2-1", "P2"),
        "deliver A P1 P2-1",
        TOO_SLOW,
        arrives("P1", "A"),
    )
    assert fate.cause == "player too slow"


def test_player_no_longer_too_slow() -> None:
    """What is lost on a player's next connection is not for the slowness of the last."""
    _, fate = the_miss(
        "pubsub",
        TOGETHER,
        TOO_SLOW,
        arrives("P1", "A"),
        says("P2", "A", "P2-1"),
        published("A", "P2-1"),
        relayed("A", "P2-1", "P2"),
        f"deliver A P1 P2-1\n{departs('P1', 'A')}",
    )
    assert fate.cause == "player away"


def test_another_fault_is_not_slowness() -> None:
    """A fault of a player's for another reason does not make it slow."""
    _, fate = the_miss(
        "pubsub",
        TOGETHER,
        says("P2", "A", "P2-1"),
        published("A", "P2-1"),
        relayed("A", "P2-1", "P2"),
        f"deliver A P1 P2-1\nfault A P1 'reason=link cut'\n{departs('P1', 'A')}",
    )
    assert fate.cause == "player away"


def test_never_reached_a_server() -> None:
    """What was sent and never received got lost before any server."""
    trace, fate = the_miss("pubsub", TOGETHER, "send P2 A P2-1 body=jump", departs("P2", "A"))
    assert fate.cause == "never reached a server"
    assert trace[fate.n].kind == "send"
    assert ledger(trace).missed_by("P2") == [("P2-1", "never reached a server")]


def test_lost_with_its_server() -> None:
    """What a server received and neither published nor failed to was lost with it."""
    trace, fate = the_miss("pubsub", APART, says("P2", "A", "P2-1"), departs("P2", "A"))
    assert (fate.cause, fate.server) == ("lost with its server", "B")
    assert trace[fate.n].kind == "receive"


FROZEN_A = "fault A reason=frozen"
THAWED_A = "heal A reason=thawed"
KILLED_A = "fault A reason=killed"


def test_lost_with_the_server_of_the_player() -> None:
    """Redis had handed the event on, and the server was killed before it had read it."""
    found = ledger(
        run(
            "pubsub",
            APART,
            says("P1", "B", "P1-1"),
            KILLED_A,
            "disconnect A P2",
            published("B", "P1-1", 2),
            relayed("B", "P1-1", "P1"),
            SETTLED,
        )
    )
    assert found.missed_by("P2") == [("P1-1", "lost with its server")]
    assert found.balances


def test_redis_that_is_stopped_before_it_has_passed_on_an_event() -> None:
    """A server that was subscribed and has not got it missed it because Redis was stopped."""
    before = "subscribe A redis channel=game:None\nsubscribe B redis channel=game:None"
    after = ["fault redis reason=stopped", SETTLED]
    way = [says("P2", "A", "P2-1"), published("A", "P2-1", 2), relayed("A", "P2-1", "P2")]
    found = ledger(run("pubsub", APART, before, *way, *after))
    assert found.missed_by("P1") == [("P2-1", "redis down")]
    found = ledger(run("pubsub", APART, before, "disconnect B redis", *way, *after))
    assert found.missed_by("P1") == [("P2-1", "server not subscribed")]


@pytest.mark.parametrize(
    ("channel", "cause"),
    [("w:{None}:game:None", "server not subscribed"), ("w:{other}:game:other", "redis down")],
)
def test_a_node_of_a_redis_cluster_has_only_its_own_games(channel: str, cause: str) -> None:
    """That the link to another game's node broke has nothing to do with this game."""
    channels = [f"subscribe {server} redis channel=w:{{None}}:game:None" for server in "AB"]
    lost = f"disconnect B redis channel={channel}"
    way = [says("P2", "A", "P2-1"), published("A", "P2-1", 2), relayed("A", "P2-1", "P2")]
    stopped = "fault redis reason=stopped"
    found = ledger(run("pubsub", APART, "\n".join(channels), lost, *way, stopped, SETTLED))
    assert found.missed_by("P1") == [("P2-1", cause)]


# Held up


def test_whoever_is_on_a_frozen_server_has_not_missed_it_yet() -> None:
    """A settle leaves their fates open; the others' are decided, once."""
    records = [
        APART,
        arrives("P3", "B"),
        says("P1", "B", "P1-1"),
        FROZEN_A,
        published("B", "P1-1", 2),
        relayed("B", "P1-1", "P1"),
        departs("P3", "B"),
        SETTLED,
    ]
    found = ledger(run("pubsub", *records))
    assert outcomes(found) == {
        ("P1-1", "P1"): "heard",
        ("P1-1", "P2"): "pending",
        ("P1-1", "P3"): "missed",
    }
    found = ledger(run("pubsub", *records, THAWED_A, relayed("A", "P1-1", "P2"), SETTLED))
    assert (found.heard, found.missed, found.pending, found.balances) == (2, 1, 0, True)
    found = ledger(run("pubsub", *records, THAWED_A, SETTLED))
    assert found.missed_by("P2") == [("P1-1", "server not subscribed")]
    found = ledger(run("pubsub", *records, KILLED_A, SETTLED))
    assert found.missed_by("P2") == [("P1-1", "lost with its server")]


def test_what_a_frozen_server_has_not_read_is_open_for_all() -> None:
    """It may still reach everyone, or nobody if the server is killed."""
    said = [APART, FROZEN_A, "send P2 A P2-1 body=jump", SETTLED]
    assert ledger(run("pubsub", *said)).pending == 2
    found = ledger(run("pubsub", *said, KILLED_A, SETTLED))
    assert {cause for p in ("P1", "P2") for _, cause in found.missed_by(p)} == {
        "never reached a server"
    }


def test_what_a_frozen_server_has_not_published_is_open_for_all() -> None:
    """Nobody knows yet what becomes of an event whose server was frozen in the middle of it."""
    said = [APART, says("P2", "A", "P2-1"), FROZEN_A, SETTLED]
    assert ledger(run("pubsub", *said)).pending == 2
    published_late = [THAWED_A, published("A", "P2-1"), relayed("A", "P2-1", "P2"), SETTLED]
    found = ledger(run("pubsub", *said, *published_late))
    assert found.missed_by("P1") == [("P2-1", "server not subscribed")]


def test_without_a_broker_a_frozen_server_holds_up_its_own() -> None:
    """What it had never been going to pass on is missed at once."""
    found = ledger(
        run("none", APART, FROZEN_A, says("P1", "B", "P1-1"), relayed("B", "P1-1", "P1"), SETTLED)
    )
    assert found.missed_by("P2") == [("P1-1", "no broker between servers")]
    assert found.balances


def test_what_was_missed_may_still_be_heard() -> None:
    """A frozen Redis carries out after its thaw what it could not confirm before: no miss."""
    found = ledger(
        run(
            "pubsub",
            TOGETHER,
            says("P2", "A", "P2-1"),
            "unpublished A redis P2-1 reason=frozen",
            SETTLED,
            relayed("A", "P2-1", "P1", "P2"),
            SETTLED,
        )
    )
    assert (found.heard, found.missed, found.balances) == (2, 0, True)


def test_what_the_balancer_notices_is_not_a_freeze() -> None:
    """A fault that one part tells of another says nothing of what the other does."""
    found = ledger(
        run("pubsub", APART, "fault balancer A reason=frozen", says("P2", "A", "P2-1"), SETTLED)
    )
    assert found.pending == 0


def test_each_player_has_a_cause_of_its_own() -> None:
    """One event may be missed for different causes."""
    found = ledger(
        run(
            "none",
            APART,
            arrives("P3", "A"),
            departs("P3", "A"),
            says("P2", "A", "P2-1"),
            relayed("A", "P2-1", "P2", hub=""),
            SETTLED,
        )
    )
    assert found.missed_by("P1") == [("P2-1", "no broker between servers")]
    assert found.missed_by("P3") == [("P2-1", "player away")]
    assert (found.heard, found.missed) == (1, 2)


def test_a_later_miss_does_not_change_an_earlier_one() -> None:
    """Each settle decides the events before it, and a fate once decided stays."""
    finder = FateFinder({"broker": "none"})
    trace = run(
        "none",
        APART,
        says("P2", "A", "P2-1"),
        relayed("A", "P2-1", "P2", hub=""),
        SETTLED,
        departs("P1", "B"),
        says("P2", "A", "P2-2"),
        relayed("A", "P2-2", "P2", hub=""),
        SETTLED,
        SETTLED,
    )
    fates = [fate for record in trace for fate in finder.feed(record)]
    assert [
        (fate.event, fate.player, fate.cause) for fate in fates if fate.outcome == "missed"
    ] == [
        ("P2-1", "P1", "no broker between servers"),
        ("P2-2", "P1", "player away"),
    ]
    assert finder.pending() == []


# For whom


def test_who_joins_late_is_owed_nothing_from_before() -> None:
    """An event sent before a player joined is not for it."""
    found = ledger(
        run(
            "none",
            arrives("P2", "A"),
            says("P2", "A", "P2-1"),
            relayed("A", "P2-1", "P2", hub=""),
            SETTLED,
            arrives("P1", "A"),
            says("P2", "A", "P2-2"),
            relayed("A", "P2-2", "P1", "P2", hub=""),
            SETTLED,
        )
    )
    assert found.fate("P2-1", "P1") is None
    assert outcomes(found) == {
        ("P2-1", "P2"): "heard",
        ("P2-2", "P1"): "heard",
        ("P2-2", "P2"): "heard",
    }
    assert found.balances


def test_who_is_not_registered_yet_is_owed_nothing() -> None:
    """A connection is not a join: what is sent before the server registers a player passes it."""
    found = ledger(
        run(
            "pubsub",
            arrives("P2", "A"),
            "connect P1 balancer\nroute balancer A player=P1",
            says("P2", "A", "P2-1"),
            published("A", "P2-1"),
            relayed("A", "P2-1", "P2"),
            "join A P1 game=g\nwelcome P1 A",
            SETTLED,
        )
    )
    assert found.fate("P2-1", "P1") is None
    assert found.balances


def test_who_has_left_is_owed_nothing_more() -> None:
    """An event sent after a player left is not for it; what it heard before stays."""
    found = ledger(
        run(
            "none",
            TOGETHER,
            says("P2", "A", "P2-1"),
            relayed("A", "P2-1", "P1", "P2", hub=""),
            leaves("P1", "A"),
            says("P2", "A", "P2-2"),
            relayed("A", "P2-2", "P2", hub=""),
            SETTLED,
        )
    )
    assert found.heard_by("P1") == ["P2-1"]
    assert found.fate("P2-2", "P1") is None
    assert found.missed == 0


def test_who_is_cut_off_is_still_in_the_game() -> None:
    """A lost connection is no leaving: the events meanwhile are missed, not forgiven."""
    found = ledger(
        run(
            "none",
            TOGETHER,
            departs("P1", "A"),
            SETTLED,
            says("P2", "A", "P2-1"),
            relayed("A", "P2-1", "P2", hub=""),
            SETTLED,
            arrives("P1", "A"),
            SETTLED,
        )
    )
    assert found.missed_by("P1") == [("P2-1", "player away")]


def test_who_comes_back_after_leaving_is_owed_again() -> None:
    """Between leaving and joining again a name is owed nothing, afterwards everything."""
    found = ledger(
        run(
            "none",
            TOGETHER,
            leaves("P1", "A"),
            says("P2", "A", "P2-1"),
            relayed("A", "P2-1", "P2", hub=""),
            SETTLED,
            arrives("P1", "B"),
            says("P2", "A", "P2-2"),
            relayed("A", "P2-2", "P2", hub=""),
            SETTLED,
        )
    )
    assert found.fate("P2-1", "P1") is None
    assert found.missed_by("P1") == [("P2-2", "no broker between servers")]
    assert found.balances


def test_a_late_goodbye_does_not_move_who_has_moved() -> None:
    """A server that notices late that a player has gone does not make it away from another."""
    found = ledger(
        run(
            "none",
            TOGETHER,
            "disconnect P1 A",
            arrives("P1", "B"),
            "disconnect A P1 code=1006",
            says("P2", "A", "P2-1"),
            relayed("A", "P2-1", "P2", hub=""),
            SETTLED,
        )
    )
    assert found.missed_by("P1") == [("P2-1", "no broker between servers")]


def test_a_late_goodbye_does_not_bring_back_who_has_left() -> None:
    """The end of the connection after a leave does not make the player owed again."""
    found = ledger(
        run(
            "none",
            TOGETHER,
            "leave A P1 game=g",
            "disconnect A P1 code=1000",
            says("P2", "A", "P2-1"),
            relayed("A", "P2-1", "P2", hub=""),
            "disconnect P1 A",
            SETTLED,
        )
    )
    assert found.players == ["P2"]


# Players of whom there are only the servers' records

FOREIGN = "join A P9 game=g"


def test_a_foreign_player_has_heard_what_was_delivered() -> None:
    """Of a client outside the cluster, as much is known as its server wrote to it."""
    trace = run(
        "none",
        TOGETHER,
        FOREIGN,
        says("P2", "A", "P2-1"),
        relayed("A", "P2-1", "P1", "P2", hub=""),
        "deliver A P9 P2-1",
        SETTLED,
    )
    fate = fate_of(ledger(trace), "P2-1", "P9")
    assert fate.outcome == "heard"
    assert trace[fate.n].kind == "deliver"
    assert ledger(trace).balances


def test_a_foreign_player_says_what_its_server_received() -> None:
    """An event without a "send" was sent when its server received it."""
    found = ledger(
        run(
            "none",
            arrives("P1", "B"),
            FOREIGN,
            "receive A P9 hello-1 body=hello",
            relayed("A", "hello-1", hub=""),
            "deliver A P9 hello-1",
            SETTLED,
        )
    )
    assert (found.sender("hello-1"), found.body("hello-1")) == ("P9", "hello")
    assert outcomes(found) == {("hello-1", "P1"): "missed", ("hello-1", "P9"): "heard"}
    assert found.missed_by("P1") == [("hello-1", "no broker between servers")]


def test_a_foreign_player_may_be_away() -> None:
    """A foreign player whose connection has ended misses events like any other."""
    found = ledger(
        run(
            "none",
            TOGETHER,
            FOREIGN,
            "disconnect A P9 code=1006",
            says("P2", "A", "P2-1"),
            relayed("A", "P2-1", "P1", "P2", hub=""),
            SETTLED,
        )
    )
    assert found.missed_by("P9") == [("P2-1", "player away")]


def test_an_event_that_a_stranger_published_has_a_place() -> None:
    """What somebody else published on the channel, and no server received, breaks nothing."""
    found = ledger(run("pubsub", TOGETHER, relayed("A", "stray-1", "P1", "P2"), SETTLED))
    assert found.balances
    assert found.missed == 0
    assert {fate.outcome for fate in found} <= {"heard"}
    assert found.missed_by("P1") == []
    assert len(found.heard_by("P1")) == len(found.events)
    assert repr(found)
    assert found._repr_html_()


# The table


def the_story(broker: str = "none") -> Trace:
    """P1 has moved to B, and P2 says two things on A."""
    hub = "" if broker == "none" else "redis"
    on_b = [] if broker == "none" else [relayed("B", event, "P1") for event in ("P2-1", "P2-2")]
    return run(
        broker,
        APART,
        says("P2", "A", "P2-1"),
        relayed("A", "P2-1", "P2", hub=hub),
        *on_b[:1],
        SETTLED,
        arrives("P10", "A"),
        says("P2", "A", "P2-2").replace("jump", "hide"),
        relayed("A", "P2-2", "P2", "P10", hub=hub),
        *on_b[1:],
        SETTLED,
    )


def test_the_text_is_an_aligned_table() -> None:
    """The text states the run, one row for each event, one column for each player, the counts."""
    assert repr(ledger(the_story())).split("\n") == [
        "Without a broker",
        "event  said by  P1                                 P10    P2",
        "jump   P2       missed: no broker between servers  –      heard",
        "hide   P2       missed: no broker between servers  heard  heard",
        "heard 3 · missed 2 · twice 0",
    ]


def test_the_text_is_the_same_each_time() -> None:
    """Two runs of the same causes give the same text and the same HTML."""
    assert repr(ledger(the_story())) == repr(ledger(the_story()))
    assert ledger(the_story())._repr_html_() == ledger(the_story())._repr_html_()


def test_iterating_goes_event_by_event() -> None:
    """The fates come in the order in which the events were sent, then by player."""
    found = ledger(the_story())
    assert [(fate.event, fate.player) for fate in found] == [
        ("P2-1", "P1"),
        ("P2-1", "P2"),
        ("P2-2", "P1"),
        ("P2-2", "P10"),
        ("P2-2", "P2"),
    ]
    assert len(found) == 5


@pytest.mark.parametrize("records", ["", TOGETHER, SETTLED])
def test_a_run_without_events_has_a_table(records: str) -> None:
    """Where nothing was said, the table is empty and balances."""
    found = ledger(run("pubsub", records))
    assert (found.heard, found.missed, len(found)) == (0, 0, 0)
    assert found.balances
    assert repr(found).split("\n") == [
        "With Redis Pub/Sub",
        "event  said by",
        "heard 0 · missed 0 · twice 0",
    ]
    assert "<table>" in found._repr_html_()


class Cells(HTMLParser):
    """Reads a table's text, cell by cell, and notes which elements it is made of."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.elements: set[str] = set()
        self.rest = ""
        self._in_cell = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self._in_cell = self._in_cell or tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data
        else:
            self.rest += data


TABLE = {"table", "caption", "thead", "tbody", "tr", "th", "td", "b", "p"}


def test_html_shows_the_same_table() -> None:
    """The HTML has the text's rows, and marks each miss."""
    table = Cells(ledger(the_story())._repr_html_())
    assert table.elements <= TABLE
    assert table.rows == [
        ["event", "said by", "P1", "P10", "P2"],
        ["jump", "P2", "✕ missed: no broker between servers", "–", "heard"],
        ["hide", "P2", "✕ missed: no broker between servers", "heard", "heard"],
    ]
    assert "Without a broker" in table.rest
    assert "heard 3 · missed 2 · twice 0" in table.rest


@pytest.mark.parametrize("body", ["<b>&", "<script>x()</script>", "</td>", "&lt;", "\"'<i>"])
def test_html_shows_what_was_said_as_text(body: str) -> None:
    """Markup in what a player says, or in names, is shown and never becomes part of the page."""
    trace = Trace(broker="<i>odd</i>", servers=["A"])
    trace.append("join", "A", "<u>P1")
    trace.append("receive", "A", "<u>P1", "x-1", body=body)
    trace.append("deliver", "A", "<u>P1", "x-1")
    table = Cells(ledger(trace)._repr_html_())
    assert table.elements <= TABLE
    assert table.rows[0] == ["event", "said by", "<u>P1"]
    assert table.rows[1][0] in (body, body[:19] + "…")
    assert table.rows[1][1] == "<u>P1"
    assert "<i>odd</i>" in table.rest


def test_only_a_miss_is_marked_as_one() -> None:
    """A player, or a word, called "missed" is not a miss."""
    trace = run("none", "join A missed\nreceive A missed x-1 body=missed\ndeliver A missed x-1")
    assert "✕" not in ledger(trace)._repr_html_()
    assert "<b>" not in ledger(trace)._repr_html_()


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("x" * 20, "x" * 20),
        ("x" * 21, "x" * 19 + "…"),
        ("one\ntwo\t\x1b[31m", "one�two��[31m"),
        ("\u202eevil\u200b", "�evil�"),
        ("隠れろ 😀", "隠れろ 😀"),
        ("", ""),
    ],
    ids=["fits", "too long", "control", "invisible", "other scripts", "empty"],
)
def test_a_body_is_shown_on_one_short_line(body: str, shown: str) -> None:
    """A long body is shortened, and nothing in it can break the table; the whole stays at hand."""
    trace = run("none", "join A P1")
    trace.append("receive", "A", "P1", "x-1", body=body)
    trace.append("deliver", "A", "P1", "x-1")
    found = ledger(trace)
    lines = repr(found).split("\n")
    assert len(lines) == 4
    assert re.split(r" {2,}", lines[2])[0] == shown
    assert found.body("x-1") == body


@pytest.mark.parametrize(
    ("events", "rest"), [(40, None), (41, "… and 1 more event"), (45, "… and 5 more events")]
)
def test_a_long_run_is_shortened(events: int, rest: str | None) -> None:
    """After forty events the table says how many more there are; the counts are of all."""
    lines = [
        f"receive A P1 x-{n} body=word-{n}\nrelay A - x-{n}\ndeliver A P1 x-{n}"
        for n in range(events)
    ]
    found = ledger(run("none", "join A P1", *lines))
    text = repr(found).split("\n")
    rows = [line for line in text if line.startswith("word-")]
    assert [row.split()[0] for row in rows] == [f"word-{n}" for n in range(40)]
    assert text[42:-1] == ([rest] if rest else [])
    assert f"heard {events}" in text[-1]
    table = Cells(found._repr_html_())
    assert len(table.rows) == 1 + 40
    assert (rest or "") in table.rest
    assert ("more" in table.rest) == bool(rest)
    assert len(found.heard_by("P1")) == events


@pytest.mark.parametrize(
    ("events", "named"), [(1, "“w0”"), (12, ", ".join(f"“w{n}”" for n in range(10)) + ", 2 more")]
)
def test_losses_are_told_in_a_line_for_each_player_and_cause(events: int, named: str) -> None:
    """It names the first ten events, and how many more there are."""
    lines = [
        f"receive A P2 x-{n} body=w{n}\n{relayed('A', f'x-{n}', 'P2', hub='')}"
        for n in range(events)
    ]
    found = ledger(run("none", APART, arrives("P3", "A"), departs("P3", "A"), *lines, SETTLED))
    assert found.losses == [
        f"P1 missed {named}: no broker between servers",
        f"P3 missed {named}: player away",
    ]


# Of several runs


class Holder:
    """Like one run of a comparison."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace


def test_a_comparison_has_a_ledger_for_each_broker() -> None:
    """A mapping of runs gives a mapping of ledgers, shown one after the other and side by side."""
    runs = {name: Holder(the_story(name)) for name in ("none", "pubsub")}
    found = ledger(runs)
    assert isinstance(found, Ledgers)
    assert list(found) == ["none", "pubsub"]
    assert len(found) == 2
    assert {name: (each.heard, each.missed) for name, each in found.items()} == {
        "none": (3, 2),
        "pubsub": (5, 0),
    }
    each = f"{ledger(runs['none'])!r}\n\n{ledger(runs['pubsub'])!r}"
    text, html = repr(found), found._repr_html_()
    assert text.startswith(f"{each}\n\nSide by side\n")
    assert html.startswith(found["none"]._repr_html_() + found["pubsub"]._repr_html_())
    for row in found.side_by_side():
        assert [line.split() for line in text.splitlines()].count(" ".join(row).split()) == 1
        assert not row[0] or f">{row[0]}</th>" in html
    rows = {name: counts for name, *counts in found.side_by_side()}
    assert rows["heard"] == ["3", "5"]
    assert rows["missed"] == ["2", "0"]
    assert rows["… no broker between servers"] == ["2", "0"]
    assert "… kept" not in rows  # by neither
    assert repr(ledger({"none": runs["none"]})) == repr(ledger(runs["none"]))
    with pytest.raises(KeyError):
        found["stream"]


def test_one_run_has_one_ledger() -> None:
    """A trace and what holds it give the same ledger."""
    trace = the_story()
    assert isinstance(ledger(trace), Ledger)
    assert isinstance(ledger({"none": Holder(trace)}), Ledgers)
    assert len(ledger(dict[str, Holder]())) == 0
    assert repr(ledger(Holder(trace))) == repr(ledger(trace))


# Any run at all


class World:
    """Plays a game at random and writes what happens, in an order in which it really could.

    What it knows of who heard what is counted apart from the trace. Each message under way is a
    generator that goes one hop further when it is advanced.
    """

    def __init__(self, broker: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.trace = Trace(broker=broker, servers=["A", "B"])
        self.local = broker == "none"
        self.at: dict[str, str] = {}  # player -> the server that holds its connection
        self.visits: dict[str, int] = dict.fromkeys(["P1", "P2", "P3", "F1", "F2"], 0)
        self.in_game: set[str] = set()
        self.deaf: set[str] = set()  # servers without a subscription
        self.redis_up = True
        self.under_way: list[Iterator[None]] = []
        self.numbers = itertools.count(1)
        self.owed: set[tuple[str, str]] = set()
        self.heard: dict[tuple[str, str], int] = {}

    def act(self) -> None:
        """One thing happens."""
        player = self.random.choice(list(self.visits))
        connected = player in self.at
        deeds = [self.settle, self.break_redis, self.break_subscription, *[self.go_on] * 12]
        if connected:
            deeds += [lambda: self.send(player)] * 5
            deeds += [lambda: self.cut(player), lambda: self.leave(player)]
            deeds += [lambda: self.give_up(player)]
        else:
            deeds += [lambda: self.arrive(player)] * 4
        self.random.choice(deeds)()

    def arrive(self, player: str) -> None:
        server = self.random.choice("AB")
        if player.startswith("P"):
            self.trace.append("connect", player, "balancer")
        self.trace.append("route", "balancer", server, player=player)
        self.trace.append("join", server, player)
        self.at[player] = server
        self.visits[player] += 1
        self.in_game.add(player)
        if player.startswith("P"):
            self.trace.append("welcome", player, server)

    def cut(self, player: str) -> None:
        server = self.at.pop(player)
        self.visits[player] += 1
        sides = [(server, player)] + [(player, server)] * player.startswith("P")
        self.random.shuffle(sides)
        for at, peer in sides:
            self.trace.append("disconnect", at, peer)

    def leave(self, player: str) -> None:
        self.trace.append("leave", self.at[player], player)
        self.in_game.discard(player)
        self.cut(player)

    def give_up(self, player: str) -> None:
        self.trace.append("fault", self.at[player], player, reason="too slow")
        self.cut(player)

    def break_redis(self) -> None:
        self.redis_up = not self.redis_up

    def break_subscription(self) -> None:
        self.deaf ^= {self.random.choice("AB")}

    def go_on(self) -> None:
        if self.under_way:
            message = self.random.choice(self.under_way)
            if next(message, "over") == "over":
                self.under_way.remove(message)

    def settle(self) -> None:
        while self.under_way:
            self.go_on()
        self.trace.append("settle", "scenario")

    def send(self, player: str) -> None:
        event = f"{player}-{next(self.numbers)}"
        server, visit = self.at[player], self.visits[player]
        if player.startswith("P"):
            self.owed |= {(event, each) for each in self.in_game}
            self.trace.append("send", player, server, event, body="x")
        self.under_way.append(self._way(event, player, server, visit))

    def _way(self, event: str, player: str, server: str, visit: int) -> Iterator[None]:
        if self.visits[player] != visit:
            return
        if player.startswith("F"):
            self.owed |= {(event, each) for each in self.in_game}
        self.trace.append("receive", server, player, event, body="x")
        if self.local:
            self._relay(event, server, "")
            return
        yield
        if self.random.random() < 0.1:
            return  # the server ends
        if not self.redis_up:
            self.trace.append("unpublished", server, "redis", event, reason="down")
            return
        receivers = [each for each in "AB" if each not in self.deaf]
        steps = [*receivers, "answer"]
        self.random.shuffle(steps)
        for step in steps:
            yield
            if step == "answer":
                self.trace.append("publish", server, "redis", event, receivers=len(receivers))
            else:
                self._relay(event, step, "redis")

    def _relay(self, event: str, server: str, hub: str) -> None:
        self.trace.append("relay", server, hub, event)
        for player in [each for each, at in self.at.items() if at == server]:
            self.trace.append("deliver", server, player, event)
            if player.startswith("F"):
                self._count(event, player)
            else:
                self.under_way.append(self._hear(event, player, server, self.visits[player]))

    def _hear(self, event: str, player: str, server: str, visit: int) -> Iterator[None]:
        if self.visits[player] == visit:
            self.trace.append("hear", player, server, event)
            self._count(event, player)
        yield from ()

    def _count(self, event: str, player: str) -> None:
        self.heard[event, player] = self.heard.get((event, player), 0) + 1


def proves(trace: Trace, fate: Fate) -> bool:
    """Whether the trace holds what the cause of a miss says."""
    about = {record.kind for record in trace.select(event=fate.event)}
    match fate.cause:
        case "never reached a server":
            return "receive" not in about
        case "no broker between servers":
            received = trace.select("receive", event=fate.event)[0]
            return trace.about["broker"] == "none" and fate.server not in ("", received.at)
        case "redis down" | "server without Redis":
            return "unpublished" in about
        case "lost with its server":
            return "receive" in about and not about & {"publish", "unpublished", "relay"}
        case "server not subscribed":
            passed_by = trace.select("relay", at=fate.server, event=fate.event)
            return "publish" in about and not passed_by
        case "player too slow":
            return bool(trace.select("fault", peer=fate.player))
        case "player away":
            return bool(trace.select("disconnect", peer=fate.player))
    return False


@given(
    broker=st.sampled_from(["none", "pubsub"]),
    seed=st.integers(0, 2**32),
    deeds=st.integers(0, 80),
)
def test_any_run_balances_once_settled(broker: str, seed: int, deeds: int) -> None:
    """Whatever happens, each event is heard or missed by each player it was for, with a cause."""
    world = World(broker, seed)
    for _ in range(deeds):
        world.act()
    before = ledger(world.trace)
    assert before.balances == (before.pending == 0)
    world.settle()
    found = ledger(world.trace)
    assert found.balances
    assert found.pending == 0
    fates = outcomes(found)
    assert fates.keys() == world.owed | world.heard.keys()
    for who, outcome in fates.items():
        times = world.heard.get(who, 0)
        assert outcome == ("missed" if times == 0 else "heard" if times == 1 else "twice")
    assert found.heard + found.missed == len(fates)
    for fate in found:
        assert (fate.cause != "") == (fate.outcome == "missed")
        if fate.outcome == "missed":
            assert fate.cause in get_args(Cause)
            assert proves(world.trace, fate)
        shown_by = world.trace[fate.n]
        assert shown_by.event == fate.event


@given(broker=st.sampled_from(["none", "pubsub"]), seed=st.integers(0, 2**32))
def test_what_is_certain_does_not_change(broker: str, seed: int) -> None:
    """A fate that the beginning of a run decides is the same in the whole, unless heard again."""
    world = World(broker, seed)
    finder = FateFinder({"broker": broker})
    early: dict[tuple[str, str], Fate] = {}
    world.trace.watch(
        lambda record: early.update({(f.event, f.player): f for f in finder.feed(record)})
    )
    for _ in range(60):
        world.act()
    world.settle()
    assert list(ledger(world.trace)) == sorted(
        early.values(), key=lambda f: (ledger(world.trace).events.index(f.event), f.player)
    )


@pytest.mark.parametrize("redis_ends", [True, False])
def test_what_was_kept_and_is_gone_is_lost_with_redis(redis_ends: bool) -> None:
    """P1 is there and at rest, and was not told of any gap; else it may still hear it."""
    trace = Trace(broker="queue", game="g")
    trace.append("join", "A", "P1", game="g")
    trace.append("receive", "A", "P2", "P2-1", game="g", body="x")
    trace.append("store", "A", "redis", "P2-1", game="g", epoch="e", seq=1)
    if redis_ends:
        trace.append("fault", "redis", reason="power cut")
        trace.append("heal", "redis", reason="started")
    trace.append("settle", "scenario")
    [fate] = [fate for fate in ledger(trace) if fate.player == "P1"]
    expected = ("missed", "lost with Redis") if redis_ends else ("pending", "")
    assert (fate.outcome, fate.cause) == expected
