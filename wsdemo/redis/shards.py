"""A Redis Cluster as a broker uses it: each channel and key at the node that has its slot.

A cluster shares out 16,384 slots among its nodes. A name's slot is a checksum of it, or of what is
in its first braces. A node answers for its own slots alone: MOVED names the one to ask instead.
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisError,
    ResponseError,
    TryAgainError,
)

__all__ = ["Address", "NoCluster", "ShardedRedis"]

LOOK_TIMEOUT = 1.0  # seconds that a node may take to say who has which slots
PAUSE = 0.02  # seconds between two tries to use a slot that is just being moved
TRIES = 2**18  # names, at most, until one has the right slot: 16 for each slot that there is

Address = tuple[str, int]
_T = TypeVar("_T")


class _Range(NamedTuple):
    first: int
    last: int
    owner: Address


class NoCluster(ResponseError):
    """This Redis answers, and is no node of a cluster."""


class ShardedRedis:
    """The part of a client that a broker needs, over one client for each node.

    Like those it neither retries nor reconnects. What a node refuses, for a slot that it does not
    have any more, has not been done, and is asked of the one that has it.

    `seeds` are some of the nodes; whom else there is, they know. `connect` makes a node's client.
    """

    def __init__(self, seeds: Sequence[Address], connect: Callable[[Address], Redis]) -> None:
        self._seeds = seeds
        self._connect = connect
        self._clients: dict[Address, Redis] = {}
        self._ranges: list[_Range] = []  # as far as they are served, in order
        self._moved: dict[int, Address] = {}  # slots of which was said so since we looked

    @property
    def nodes(self) -> set[Address]:
        """Those that have slots, as far as we know."""
        left = {each.owner for each in self._ranges if self._has_slot_left(each)}
        return left | set(self._moved.values())

    def _has_slot_left(self, part: _Range) -> bool:
        """Whether it is still its owner's in part: slots may have been moved one by one."""
        gone = (
            slot
            for slot, owner in self._moved.items()
            if part.first <= slot <= part.last and owner != part.owner
        )
        return sum(1 for _ in gone) <= part.last - part.first

    def owner(self, name: str) -> Address | None:
        """The node that has the slot of a channel or key, as far as we know; None if none has."""
        slot = key_slot(name.encode())
        if slot in self._moved:
            return self._moved[slot]
        place = bisect_right(self._ranges, slot, key=lambda each: each.first)
        found = self._ranges[place - 1] if place else None
        return found.owner if found and slot <= found.last else None

    def name_at(self, address: Address, name: str) -> str | None:
        """The name with something in braces, so that its slot is one of this node's.

        None if it has none.
        """
        if address not in self.nodes:
            return None
        names = (f"{name}:{{{number}}}" for number in range(TRIES))
        return next((each for each in names if self.owner(each) == address), None)

    def client(self, address: Address) -> Redis:
        """The client of one node."""
        if address not in self._clients:
            self._clients[address] = self._connect(address)
        return self._clients[address]

    async def ping(self) -> None:
        """See that there is a cluster. Raises as `look` does."""
        await self.look()

    async def look(self) -> None:
        """Ask who has which slots. Raises `RedisError` or `OSError` if no node says."""
        trouble: Exception | None = None
        nodes = list(self.nodes | set(self._seeds))
        random.shuffle(nodes)  # so that not everybody asks the same one
        for node in nodes:
            try:
                async with asyncio.timeout(LOOK_TIMEOUT):
                    ranges = await self._ranges_according_to(node)
            except (RedisError, OSError, TimeoutError) as error:
                trouble = error if trouble is None or isinstance(error, RedisError) else trouble
                continue
            if ranges:  # or it belongs to no cluster any more, or not yet
                self._ranges, self._moved = ranges, {}
                return
            trouble = trouble or ClusterDownError("CLUSTERDOWN no node serves any slot")
        assert trouble
        raise trouble

    async def _ranges_according_to(self, node: Address) -> list[_Range]:
        try:
            told = await self.client(node).execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
        except ResponseError as error:
            if "cluster support disabled" in str(error.args):
                raise NoCluster("it is not part of a cluster") from error
            raise
        return sorted(
            _Range(first, last, (_host(owner[0], node), int(owner[1])))
            for first, last, owner, *_ in told
        )

    def learn(self, moved: MovedError, said_by: Address) -> None:
        """Take note of where a slot is now."""
        self._moved[moved.slot_id] = (_host(moved.host, said_by), moved.port)

    async def publish(self, channel: str, message: bytes) -> int:
        """SPUBLISH; the number of subscribers that the node has handed it to."""
        return await self._at_owner(channel, lambda redis: redis.spublish(channel, message))

    def register_script(self, script: str) -> Callable[..., Awaitable[Any]]:
        """The script as a function of keys, all of one slot, and arguments."""
        registered = self.client(self._seeds[0]).register_script(script)

        async def run(keys: Sequence[str], arguments: Iterable[Any]) -> Any:
            arguments = tuple(arguments)
            return await self._at_owner(keys[0], lambda redis: registered(keys, arguments, redis))

        return run

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()

    async def owner_for_sure(self, name: str) -> Address:
        """The owner, though we have to look. Raises `RedisError` if there is none."""
        if self.owner(name) is None:
            await self.look()
        if owner := self.owner(name):
            return owner
        slot = key_slot(name.encode())
        raise ClusterDownError(f"CLUSTERDOWN no node of the cluster serves slot {slot}")

    async def _at_owner(self, name: str, command: Callable[[Redis], Awaitable[_T]]) -> _T:
        while True:
            node = await self.owner_for_sure(name)
            try:
                return await command(self.client(node))
            except MovedError as error:
                self.learn(error, node)
            except (AskError, TryAgainError):  # some of the game's keys are here, others there
                await asyncio.sleep(PAUSE)
            except ClusterDownError as error:
                raise ClusterDownError(f"CLUSTERDOWN {error.message}") from error


def _host(told: bytes | str | None, by: Address) -> str:
    """A node that does not know its own address means the one at which it was asked."""
    host = told.decode() if isinstance(told, bytes) else told
    return by[0] if host in (None, "", "?") else str(host)
