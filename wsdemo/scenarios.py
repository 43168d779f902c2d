"""The stories: each one short async function of a cluster, told in steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from wsdemo import faults
from wsdemo.cluster import Cluster

__all__ = [
    "SCENARIOS",
    "Scenario",
    "crash",
    "outage",
    "p1_forgets",
    "p1_is_away",
    "p1_moves_to_b",
    "retry",
    "scenario_named",
    "three_outages",
]

Scenario = Callable[[Cluster], Awaitable[None]]


async def p1_moves_to_b(cluster: Cluster) -> None:
    """P1 drops and comes back on server B, while P2 and P3 play on, on server A."""
    async with cluster.step(
        "P1, P2 and P3 play on server A",
        notes="All three hang on one server. Follow “jump”: who gets it, and who sends it out?",
    ):
        p1, p2, p3 = await cluster.join("P1", "P2", "P3", server="A")
        await p2.send("jump")
        await p3.send("duck")
    async with cluster.step(
        "P1 drops, and the balancer puts it on server B",
        notes="Nothing is wrong with P1's new connection. What will it hear of P2 and P3 now?",
    ):
        await p1.reconnect(server="B")
    async with cluster.step(
        "P2, still on A, says “hide”",
        notes="A knows only its own players. Without a broker, nothing carries “hide” to B.",
    ):
        await p2.send("hide")
    async with cluster.step(
        "P3, still on A, says “fire”",
        notes="If P1 misses it, no server and no player notices any error. How would you find out?",
    ):
        await p3.send("fire")


async def p1_is_away(cluster: Cluster) -> None:
    """P1's connection breaks; P2 and P3 play on; P1 comes back."""
    async with cluster.step(
        "P1 plays on server B, P2 and P3 on A",
        notes="Everything arrives.",
    ):
        [p1] = await cluster.join("P1", server="B")
        p2, p3 = await cluster.join("P2", "P3", server="A")
        await p2.send("jump")
    async with (
        cluster.step(
            "P1's connection breaks; P2 says “hide”, P3 says “fire”",
            notes="Neither P2 nor P3 notices anything. Who has “hide” and “fire” now?",
        ),
        faults.link_cut(p1),
    ):
        await p2.send("hide")
        await p3.send("fire")
        await cluster.settle()
        cluster.beat(
            "P1 comes back by itself",
            notes="Pub/Sub has kept nothing. A stream has, and P1 says up to where it has heard.",
        )
    async with cluster.step("P2 says “seek”", notes="From here on, all is as before."):
        await p2.send("seek")


async def p1_forgets(cluster: Cluster) -> None:
    """P1's program is closed and opened anew: it has kept nothing, not even its offset."""
    async with cluster.step("P1 plays on B, P2 and P3 on A", notes="Everything arrives."):
        [p1] = await cluster.join("P1", server="B")
        p2, p3 = await cluster.join("P2", "P3", server="A")
        await p2.send("jump")
    async with cluster.step(
        "P1's program is closed; P2 says “hide”, P3 says “fire”",
        notes="Where is it written down up to where P1 has heard?",
    ):
        await p1.disconnect()
        await p2.send("hide")
        await p3.send("fire")
    async with cluster.step(
        "P1's program is opened anew",
        notes="It can say who it is, and no more. Only a queue of its own knows what it lacks.",
    ):
        await p1.reconnect(server="B", resume=False)


async def three_outages(cluster: Cluster) -> None:
    """P2 plays on A; on B, P1 is away, then B's link to Redis, and then Redis itself."""
    async with cluster.step(
        "P1 and P3 play on B, P2 on A",
        notes="All is well. Look at P3: its connection will stand all the time.",
    ):
        [p1] = await cluster.join("P1", server="B")
        [p2] = await cluster.join("P2", server="A")
        await cluster.join("P3", server="B")
        await p2.send("jump")
    async with cluster.step(
        "P1 is away while P2 says “hide”",
        notes="Both servers are subscribed, so PUBLISH returns 2; and still P1 misses it.",
    ):
        await p1.disconnect()
        await p2.send("hide")
    async with cluster.step("P1 is back, on B", notes="Does “hide” come now? Who has kept it?"):
        await p1.reconnect(server="B")
    async with (
        cluster.step(
            "Server B has no link to Redis while P2 says “fire”",
            notes="PUBLISH returns 1. Nothing else tells, neither A nor P2 nor B's players.",
        ),
        faults.redis_link_cut(cluster, "B"),
    ):
        await p2.send("fire")
        await cluster.settle()
        cluster.beat(
            "B has its link again", notes="It has subscribed anew. Has it heard of “fire”?"
        )
    async with (
        cluster.step(
            "Redis is away while P2 says “duck”",
            notes="Server A cannot publish, and tells P2. Not even P2 itself hears it.",
        ),
        faults.redis_stopped(cluster, keep=True),
    ):
        await p2.send("duck")
        await cluster.settle()
        cluster.beat("Redis is back", notes="Nobody says “duck” again. Who would have to?")
    async with cluster.step("P2 says “seek”", notes="All is well again, and nothing is made good."):
        await p2.send("seek")


def outage(seconds: float, rate: float) -> Scenario:
    """Server B's link to Redis is cut for so long, while P2, on A, says `rate` events a second.

    Takes as long as it says.
    """

    async def play(cluster: Cluster) -> None:
        async with cluster.step("P1 plays on B, P2 on A"):
            await cluster.join("P1", server="B")
            [p2] = await cluster.join("P2", server="A")
        caption = f"B's link to Redis is cut for {seconds:g} s"
        async with cluster.step(caption), faults.redis_link_cut(cluster, "B"):
            for number in range(round(seconds * rate)):
                await p2.send(str(number))
                await asyncio.sleep(1 / rate)

    return play


async def retry(cluster: Cluster) -> None:
    """P2's event gets to Redis, whose reply is lost; so P2 says it again, with the same id."""
    async with cluster.step("P1, P2 and P3 play on A"):
        _, p2, _ = await cluster.join("P1", "P2", "P3", server="A")
    async with (
        cluster.step(
            "P2 says “jump”, and Redis's reply is lost",
            notes="Redis has carried it out. Server A cannot know, and tells P2 that it failed.",
        ),
        faults.reply_lost(cluster, "A"),
    ):
        jump = await p2.send("jump")
        await cluster.settle()
    async with cluster.step(
        "P2 says it again, with the same id",
        notes="Pub/Sub takes it for another event. A broker that keeps ids knows it.",
    ):
        await p2.send("jump", again=jump)


async def crash(cluster: Cluster) -> None:
    """P1 is away; what P2 says is acknowledged; Redis is killed and started again; P1 returns."""
    async with cluster.step("P1 and P2 play, and P1 leaves for a moment"):
        p1, p2 = await cluster.join("P1", "P2", server="A")
        await p1.disconnect()
    async with cluster.step(
        "P2 says ten words, each acknowledged; then Redis crashes",
        notes="Acknowledged means that Redis had it. Where did Redis have it?",
    ):
        for number in range(1, 11):
            await p2.send(f"word {number}", confirm=True)
        await cluster.settle()  # so that P2 has heard its last word, too
        async with faults.redis_killed(cluster):
            pass
    async with cluster.step("P1 comes back"):
        await p1.reconnect(server="B")


async def power_cut(cluster: Cluster) -> None:
    """The same, but Redis's machine loses power, after five words that are on its disk."""
    async with cluster.step("P1 and P2 play, and P1 leaves for a moment"):
        p1, p2 = await cluster.join("P1", "P2", server="A")
        await p1.disconnect()
    async with cluster.step(
        "P2 says five words, each acknowledged, and a second passes",
        notes="Once a second, Redis has what it wrote put on the disk: the setting “everysec”.",
    ):
        for number in range(1, 6):
            await p2.send(f"word {number}", confirm=True)
        await cluster.redis_has_saved()
    async with cluster.step(
        "P2 says five more, each acknowledged; then Redis's machine loses power",
        notes="What the operating system had, and the disk had not, is gone.",
    ):
        for number in range(6, 11):
            await p2.send(f"word {number}", confirm=True)
        await cluster.settle()
        async with faults.redis_power_cut(cluster):
            pass
    async with cluster.step("P1 comes back"):
        await p1.reconnect(server="B")


SCENARIOS: dict[str, Scenario] = {
    "p1_moves_to_b": p1_moves_to_b,
    "p1_is_away": p1_is_away,
    "p1_forgets": p1_forgets,
    "three_outages": three_outages,
    "retry": retry,
    "crash": crash,
    "power_cut": power_cut,
}


def scenario_named(name: str) -> Scenario:
    """The scenario of that name. Raises `ValueError`, listing those there are."""
    if name not in SCENARIOS:
        raise ValueError(f"unknown scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    return SCENARIOS[name]
