"""Who has which slots of a Redis Cluster, as far as it was said."""

from __future__ import annotations

from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import MovedError

from wsdemo.redis.shards import Address, ShardedRedis

A, B = ("a", 1), ("b", 2)


class _Node:
    """Says of each range of slots who has it, and nothing else."""

    def __init__(self, *ranges: tuple[int, int, Address]) -> None:
        self._ranges = ranges

    async def execute_command(self, command: str) -> list[Any]:
        assert command == "CLUSTER SLOTS"
        return [[first, last, [host.encode(), port]] for first, last, (host, port) in self._ranges]


async def looked(*ranges: tuple[int, int, Address]) -> ShardedRedis:
    """A client that has been told so."""
    redis = ShardedRedis([A], lambda node: cast("Redis", _Node(*ranges)))
    await redis.look()
    return redis


async def test_a_name_at_a_node_has_a_slot_of_that_node() -> None:
    """Though it is the only one."""
    redis = await looked((0, 8000, A), (8001, 8001, B), (8002, 16383, A))
    for node in (A, B):
        name = redis.name_at(node, "x")
        assert name is not None
        assert name.startswith("x:{")
        assert redis.owner(name) == node


async def test_a_node_whose_last_slot_has_moved_away_has_no_name() -> None:
    """And it is none of the nodes any more, once that was said."""
    redis = await looked((0, 1, A), (2, 16383, B))
    redis.learn(MovedError("0 b:2"), A)
    assert redis.nodes == {A, B}
    name = redis.name_at(A, "x")
    assert name is not None
    assert redis.owner(name) == A
    redis.learn(MovedError("1 b:2"), A)
    assert redis.nodes == {B}
    assert redis.name_at(A, "x") is None


async def test_a_node_that_was_never_heard_of_has_no_name() -> None:
    """Nobody looks for one for ever."""
    redis = await looked((0, 16383, A))
    assert redis.name_at(B, "x") is None
