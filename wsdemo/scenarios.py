"""The stories: each one short async function of a cluster, told in steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from wsdemo.cluster import Cluster
from wsdemo.faults import link_cut

__all__ = ["SCENARIOS", "Scenario", "p1_is_away", "p1_moves_to_b", "scenario_named"]

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
        "P1, P2 and P3 play",
        notes="P1 is on server B, P2 and P3 on A. Everything arrives.",
    ):
        [p1] = await cluster.join("P1", server="B")
        p2, p3 = await cluster.join("P2", "P3", server="A")
        await p2.send("jump")
    async with link_cut(p1):
        async with cluster.step(
            "P1's connection breaks; P2 says “hide”, P3 says “fire”",
            notes="Neither P2 nor P3 notices anything. Who has “hide” and “fire” now?",
        ):
            await p2.send("hide")
            await p3.send("fire")
        cluster.beat(
            "P1 comes back by itself",
            notes="Pub/Sub has kept nothing. A stream has, and P1 says up to where it has heard.",
        )
    await cluster.settle()
    async with cluster.step("P2 says “seek”", notes="From here on, all is as before."):
        await p2.send("seek")


SCENARIOS: dict[str, Scenario] = {"p1_moves_to_b": p1_moves_to_b, "p1_is_away": p1_is_away}


def scenario_named(name: str) -> Scenario:
    """The scenario of that name. Raises `ValueError`, listing those there are."""
    if name not in SCENARIOS:
        raise ValueError(f"unknown scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    return SCENARIOS[name]
