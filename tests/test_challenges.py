"""Challenges: each can be met, and a run that only looks like it has not met it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.stories import redis_restarts
from wsdemo import Cluster, Trace, faults, open_cluster, scenarios
from wsdemo.challenges import CHALLENGES, Scorecard, grades
from wsdemo.compare import compare
from wsdemo.controls import Act, carry_out
from wsdemo.scenarios import Scenario


async def server_dies(cluster: Cluster) -> None:
    _, p2, _ = [*await cluster.join("P1", server="A"), *await cluster.join("P2", "P3", server="B")]
    async with faults.server_killed(cluster, "A"):
        await p2.send("hide")
        await cluster.settle()


async def spreads(cluster: Cluster) -> None:
    await cluster.add_server("C")
    p1, _, _ = await cluster.join("P1", "P2", "P3")
    async with faults.server_killed(cluster, "A"):
        await cluster.until(lambda: p1.connected and p1.server != "A")
    await p1.reconnect(server="A")


async def says_little(cluster: Cluster) -> None:
    p1, _ = await cluster.join("P1", "P2")
    await p1.send("jump")


MET: dict[str, tuple[Scenario, dict[str, Any]]] = {
    "loses two": (scenarios.p1_is_away, {"brokers": "pubsub"}),
    "publish said one": (scenarios.p1_is_away, {"brokers": "pubsub"}),
    "survives a server": (server_dies, {"brokers": "stream"}),
    "survives Redis": (redis_restarts, {"brokers": "stream", "history": 10}),
    "heard once": (scenarios.retry, {"brokers": "stream"}),
    "spread": (spreads, {"brokers": "pubsub"}),
}


async def test_the_buttons_are_enough_to_survive_redis() -> None:
    """One stops it so that it keeps its data."""
    presses = [
        ("player P1", "disconnect", ""),
        ("player P2", "send", "hide"),
        ("redis redis", "stop-and-keep", ""),
        ("redis redis", "start", ""),
        ("player P1", "reconnect", ""),
    ]
    async with open_cluster(broker="stream", history=10) as cluster:
        await cluster.join("P1", "P2")
        for number, (part, action, body) in enumerate(presses):
            act = Act(number, part, action, body=body)
            await carry_out(cast(Any, cluster), act, {"redis": cluster.redis_state})
        assert grades(cluster).lacking["survives Redis"] == []


async def run(play: Scenario, brokers: str, **options: Any) -> Trace:
    return (await compare(play, brokers, **options))[brokers].trace


@pytest.mark.parametrize("name", [challenge.name for challenge in CHALLENGES])
async def test_a_challenge_can_be_met_and_is_not_met_by_saying_little(name: str) -> None:
    """What is still lacking is said in words."""
    play, options = MET[name]
    met = grades(await run(play, **options))
    assert not met.lacking[name]
    assert name in met.met
    lacking = grades(await run(says_little, options["brokers"])).lacking[name]
    assert lacking
    assert all(lacking)


async def test_a_word_that_is_missed_meanwhile_is_named() -> None:
    """Pub/Sub does not survive what a stream does."""
    graded = grades(await run(server_dies, "pubsub"))
    assert graded.lacking["survives a server"] == ["missed: 'hide' by P1"]


async def test_to_lose_one_more_is_to_lose_too_many() -> None:
    """Exactly two, and only P1."""
    graded = grades(await run(scenarios.three_outages, "pubsub"))
    assert graded.lacking["loses two"] == ["P1 misses 3", "others miss 3"]


@pytest.mark.parametrize("broker", ["stream", "queue"])
async def test_a_queue_survives_redis_as_a_stream_does(broker: str) -> None:
    """With its data kept, what P1 had to hear is there when Redis and P1 are back."""
    assert not grades(await run(redis_restarts, broker)).lacking["survives Redis"]


async def test_pubsub_does_not_survive_redis_by_luck() -> None:
    """Nothing was at stake while it was away, if nobody heard afterwards what was said before."""

    async def nobody_is_away(cluster: Cluster) -> None:
        [p1] = await cluster.join("P1")
        await p1.send("jump")
        await cluster.settle()
        async with faults.redis_stopped(cluster):
            pass
        await cluster.settle()
        await p1.send("hide")

    late = "nobody heard, after its return, what was said before it went"
    assert grades(await run(nobody_is_away, "pubsub")).lacking["survives Redis"] == [late]
    lacking = grades(await run(redis_restarts, "pubsub")).lacking["survives Redis"]
    assert lacking == [late, "missed: 'jump' by P1"]


@pytest.mark.parametrize("broker", ["stream", "queue"])
async def test_too_much_kept_is_too_much(broker: str) -> None:
    """The challenge is to keep little, be it in one stream or in a player's queue."""

    async def says_much(cluster: Cluster) -> None:
        p1, p2 = await cluster.join("P1", "P2")
        await p1.disconnect()
        for number in range(10):
            await p2.send(f"{number}")
        await cluster.settle()
        async with faults.redis_stopped(cluster, keep=True):
            pass
        await p2.send("hide")
        await cluster.settle()
        await p1.reconnect()

    [told] = grades(await run(says_much, broker, history=100)).lacking["survives Redis"]
    kept, words = told.split(maxsplit=1)
    assert int(kept) >= 11  # in the queues also what P2 has yet to acknowledge
    assert words == "events were kept at a time; ten are enough"


async def test_a_live_run_is_graded_as_it_stands() -> None:
    """In lines that a notebook need not break, and one for each thing that is lacking."""
    async with open_cluster(broker="pubsub") as cluster:
        shown = repr(grades(cluster))
    assert shown.startswith(f"0 of {len(CHALLENGES)} challenges met\n✗ 1. ")
    assert "     not yet: Redis has not been away and come back" in shown
    assert max(map(len, shown.splitlines())) <= 90


async def test_a_scorecard_remembers_what_was_met() -> None:
    """No one run can meet them all: the first wants a loss, the third none."""
    score = Scorecard()
    away = score.grade(await run(scenarios.p1_is_away, "pubsub"))
    assert away.met == ["loses two", "publish said one"]
    dies = score.grade(await run(server_dies, "stream"))
    assert dies.met == ["loses two", "publish said one", "survives a server"]
    assert repr(dies).startswith(
        f"3 of {len(CHALLENGES)} challenges met\n"
        "✓ 1. With a broker, let P1 miss exactly two events, and nobody else any. (Met before.)\n"
    )
    assert "\n✓ 3. Kill a server" in repr(dies)


async def test_what_is_lost_and_said_again_was_not_known() -> None:
    """A broker that keeps nothing takes the second for the first."""

    async def again(cluster: Cluster) -> None:
        p1, _ = await cluster.join("P1", "P2")
        async with faults.redis_stopped(cluster):
            event = await p1.send("jump")
            await cluster.settle()
        await cluster.settle()
        await p1.send("jump", again=event)

    lacking = grades(await run(again, "pubsub")).lacking["heard once"]
    assert lacking == ["no event that was kept has been said again and known by its id"]


@pytest.mark.parametrize("what", [None, {}, "pubsub"])
def test_what_is_no_run_has_no_grades(what: Any) -> None:
    """It says what to give instead."""
    with pytest.raises(TypeError, match="give the cluster, or one of the runs"):
        grades(what)
