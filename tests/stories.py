"""Stories that more than one file of tests plays."""

from __future__ import annotations

from wsdemo import Cluster

__all__ = ["redis_restarts"]


async def redis_restarts(cluster: Cluster) -> None:
    """P1 is away while a word is said, and comes back after a restart of Redis with its data."""
    p1, p2 = await cluster.join("P1", "P2")
    await p1.disconnect()
    await p2.send("jump")
    await cluster.settle()
    await cluster.stop_redis(keep=True)
    await cluster.start_redis()
    await p1.reconnect()
    await cluster.settle()
