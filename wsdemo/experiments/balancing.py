"""What a balancer's policy decides, and what it does not: the same events under each of them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import AsyncExitStack

from websockets.asyncio.client import connect

from wsdemo.balancer import POLICIES
from wsdemo.cluster import Cluster, open_cluster
from wsdemo.experiments.placement import Placement, Placements

__all__ = ["from_one_address", "policies_compared"]

SEED = 1  # of the order in which those who dropped return: the same one each time


async def policies_compared(policies: Iterable[str] = tuple(POLICIES)) -> Placements:
    """Twelve players on two servers; six drop and return; A is killed and comes back; six join."""
    found = Placements()
    for policy in policies:
        async with open_cluster(servers=["A", "B"], broker="none", balance=policy) as cluster:
            found[policy] = await _play(cluster)
    return found


async def from_one_address(policy: str, clients: int = 12) -> dict[str, int]:
    """How many connections each server gets of clients that name no player.

    All that the balancer then knows of a client is its address, and that is the same for everyone
    here, as it is for a school or an office behind one router.
    """
    async with (
        open_cluster(servers=["A", "B"], broker="none", balance=policy) as cluster,
        AsyncExitStack() as stack,
    ):
        for _ in range(clients):
            await stack.enter_async_context(connect(cluster.url, proxy=None))
        return {name: target.connections for name, target in cluster.balancer.targets.items()}


async def _play(cluster: Cluster) -> list[Placement]:
    players = await cluster.join(*_names(1, 12))
    found = [_placement(cluster, "12 join")]

    dropped = players[:6]
    for player in dropped:
        await player.disconnect()
    await cluster.balancer.until(lambda: len(cluster.balancer.calls) == 6)
    for player in random.Random(SEED).sample(dropped, len(dropped)):
        await player.connect()
    found.append(_placement(cluster, "6 drop and return"))

    await cluster.kill_server("A")
    await cluster.until(
        lambda: all(player.connected and player.server == "B" for player in players)
    )
    await cluster.settle()
    found.append(_placement(cluster, "A is killed"))

    await cluster.restart_server("A")
    await cluster.settle()
    found.append(_placement(cluster, "A is back"))

    await cluster.join(*_names(13, 18))
    found.append(_placement(cluster, "6 more join"))
    return found


def _names(first: int, last: int) -> list[str]:
    return [f"P{number}" for number in range(first, last + 1)]


def _placement(cluster: Cluster, after: str) -> Placement:
    up = [name for name in cluster.servers if cluster.server_state(name) == "up"]
    places = {name: player.server or "" for name, player in cluster.players.items()}
    return Placement(after, up, places)
