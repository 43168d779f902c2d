"""The stories, and what they are told to show."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.conftest import bodies
from wsdemo import Cluster, compare, ledger, open_cluster, scenarios
from wsdemo.redis.backend import Persistence
from wsdemo.scenarios import SCENARIOS, p1_moves_to_b


def test_each_is_listed_under_its_name() -> None:
    """`python -m wsdemo run NAME` and `scenarios.NAME` are the same."""
    for name, scenario in SCENARIOS.items():
        assert getattr(scenarios, name) is scenario
        assert scenario.__doc__


async def test_each_step_has_notes_for_whoever_presents_it() -> None:
    """The notes are a sentence or two, and say more than the caption."""
    async with open_cluster(broker="none") as cluster:
        await p1_moves_to_b(cluster)
    for step in cluster.trace.select("step"):
        assert 20 < len(step.data["notes"]) < 160
        assert step.data["notes"] != step.data["caption"]


@pytest.mark.parametrize("redis", ["fake", "embedded"])
@pytest.mark.parametrize(("broker", "missed"), [("none", 2), ("pubsub", 0)])
async def test_p1_moves_to_b(broker: str, missed: int, redis: str) -> None:
    """Without a broker P1 misses exactly what is said on A after it came back on B."""
    async with open_cluster(broker=broker, redis=redis) as cluster:
        await p1_moves_to_b(cluster)
        book = ledger(cluster)
        heard = {name: bodies(player.heard) for name, player in cluster.players.items()}
    everything = ["jump", "duck", "hide", "fire"]
    assert heard == {"P1": everything[: 4 - missed], "P2": everything, "P3": everything}
    assert (book.heard, book.missed, book.twice) == (12 - missed, missed, 0)
    assert book.balances
    causes = {cause for _, cause in book.missed_by("P1")}
    assert causes == ({"no broker between servers"} if missed else set())
    assert cluster.trace.select("route", peer="B")[0].data == {"player": "P1"}


AWAY = ("player away", 2)
OUTAGES = [("player away", 1), ("redis down", 3)]
MISSED = {
    ("p1_is_away", "pubsub"): [AWAY],
    ("p1_is_away", "stream"): [],
    ("p1_is_away", "queue"): [],
    ("p1_forgets", "pubsub"): [AWAY],
    ("p1_forgets", "stream"): [AWAY],
    ("p1_forgets", "queue"): [],
    ("three_outages", "pubsub"): [*OUTAGES, ("server not subscribed", 2)],
    ("three_outages", "stream"): [("redis down", 3)],
    ("three_outages", "queue"): [("redis down", 3)],
    ("retry", "pubsub"): [],
    ("retry", "stream"): [],
    ("crash", "stream"): [("lost with Redis", 10)],
    ("crash", "queue"): [("lost with Redis", 10)],
    ("power_cut", "stream"): [("lost with Redis", 10)],
    ("power_cut", "queue"): [("lost with Redis", 10)],
}


@pytest.mark.parametrize(("scenario", "broker"), MISSED)
async def test_what_each_broker_costs(scenario: str, broker: str) -> None:
    """The lessons' figures: how often an event is missed, and for which causes."""
    run = (await compare(scenario, [broker], redis="fake"))[broker]
    causes = Counter(fate.cause for fate in run.ledger if fate.outcome == "missed")
    assert sorted(causes.items()) == MISSED[scenario, broker]
    assert run.ledger.twice == (3 if (scenario, broker) == ("retry", "pubsub") else 0)
    assert run.ledger.balances


@pytest.mark.parametrize("broker", ["stream", "queue"])
@pytest.mark.parametrize(("persistence", "lost"), [("none", 10), ("everysec", 5), ("always", 0)])
async def test_what_a_power_cut_costs(broker: str, persistence: Persistence, lost: int) -> None:
    """What was acknowledged and is not on the disk; P1 is told of it, though it was away."""
    options: dict[str, Any] = {"redis": "embedded", "persistence": persistence}
    run = (await compare(scenarios.power_cut, [broker], **options))[broker]
    missed = [fate.cause for fate in run.ledger if fate.outcome == "missed"]
    assert missed == ["lost with Redis"] * lost
    assert run.ledger.acknowledged == 10
    assert run.ledger.balances
    told = [r for r in run.trace.select("gap", peer="P1") if r.data["reason"] == "new epoch"]
    assert len(told) == bool(lost)


@pytest.mark.parametrize("broker", ["pubsub", "stream"])
async def test_an_outage_costs_what_is_said_in_it(broker: str) -> None:
    """So many seconds times so many events a second, or nothing if they are kept."""
    play = scenarios.outage(0.1, rate=100)
    run = (await compare(play, [broker], redis="fake"))[broker]
    assert len(run.ledger.missed_by("P1")) == (10 if broker == "pubsub" else 0)
    assert run.ledger.balances


@pytest.mark.parametrize("broker", ["none", "pubsub"])
async def test_told_twice_it_is_the_same_story(broker: str) -> None:
    """What each part does, in its own order, does not depend on clocks, ports or scheduling."""

    async def tell() -> dict[str, list[tuple[str, str, str, str]]]:
        async with open_cluster(broker=broker, redis="fake") as cluster:
            await p1_moves_to_b(cluster)
        parts: dict[str, list[tuple[str, str, str, str]]] = {}
        for record in cluster.trace:
            caption = str(record.data.get("caption", ""))
            parts.setdefault(record.at, []).append(
                (record.kind, record.peer, record.event, caption)
            )
        return parts

    first = await tell()
    for _ in range(5):
        assert await tell() == first


@pytest.mark.parametrize("broker", ["none", "pubsub"])
@pytest.mark.parametrize("count", [1, 2, 7])
async def test_with_other_numbers_of_players_and_another_order(broker: str, count: int) -> None:
    """The same story told otherwise: P1 moves first, then everyone speaks, P1 too."""
    async with open_cluster(["A", "B", "C"], broker) as cluster:
        players = await cluster.join(*(f"P{n}" for n in range(1, count + 1)), server="A")
        await _move_and_speak(cluster)
        for player in players:
            own = player.name == "P1"
            expected = count if broker == "pubsub" else (1 if own else count - 1)
            assert len(player.heard) == expected
        book = ledger(cluster)
        assert book.balances
        assert book.missed == (0 if broker == "pubsub" else 2 * (count - 1))


async def _move_and_speak(cluster: Cluster) -> None:
    async with cluster.step("P1 drops and comes back on B"):
        await cluster.player("P1").reconnect(server="B")
    async with cluster.step("Everyone says something"):
        for player in cluster.players.values():
            await player.send(f"I am {player.name}")
