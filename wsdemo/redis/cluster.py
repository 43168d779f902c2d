"""A Redis Cluster of our own: real servers on free loopback ports, which share out the slots.

Each node serves its part of the 16,384 slots, and has no replica: while one is away, so is its
part, and the others go on with theirs (cluster-require-full-coverage no).
https://redis.io/docs/latest/operate/oss_and_stack/management/scaling/
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError

from wsdemo.lifetime import Lifetime
from wsdemo.processes.child import Child, can_freeze
from wsdemo.redis.process import (
    RedisUnavailable,
    find_server_binary,
    free_port,
    last_words,
    server_command,
)

__all__ = ["EmbeddedRedisCluster"]

SLOTS = 16_384
FEWEST_NODES = 3  # with fewer, no majority is left when one is away
MOST_NODES = 16
NODE_TIMEOUT = 2.0  # seconds without an answer after which the others hold a node for dead
START_TIMEOUT = 30.0  # seconds; it takes about 3


class _Node:
    """One server. Its port, and what it knows of the cluster, stay through a crash."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary = binary
        self.folder = folder
        self.port = self.bus_port = 0
        self.child: Child | None = None

    @property
    def runs(self) -> bool:
        return self.child is not None and self.child.runs

    async def start(self) -> None:
        """Run the process, and wait until it answers."""
        for _ in range(3):  # another program may take a port between our look and the start
            port, bus_port = self.port or free_port(), self.bus_port or free_port()
            try:
                self._launch(port, bus_port)
                await self._answers(port)
            except ConnectionError:
                self.end()
                continue
            self.port, self.bus_port = port, bus_port
            return
        raise RedisUnavailable(f"{self.binary} has not started: {last_words(self.folder)}")

    def _launch(self, port: int, bus_port: int) -> None:
        options = {
            "appendonly": "no",
            "cluster-enabled": "yes",
            "cluster-port": bus_port,
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": int(NODE_TIMEOUT * 1000),
            "cluster-require-full-coverage": "no",
        }
        self.child = Child(server_command(self.binary, self.folder, port, options))

    async def _answers(self, port: int) -> None:
        assert self.child
        while True:
            if not self.child.runs:
                raise ConnectionError("it has ended")
            try:
                async with _client(port) as redis:
                    info = await redis.info("server")
            except (RedisError, OSError):
                await asyncio.sleep(0.005)  # a port that opens tells nobody
                continue
            if info["process_id"] != self.child.pid:
                raise ConnectionError("another Redis has taken the port")
            return

    async def ask(self, *words: object) -> Any:
        """What it answers to a command."""
        async with _client(self.port) as redis:
            return await redis.execute_command(*words)  # type: ignore[no-untyped-call]

    async def sees_all(self, nodes: int) -> bool:
        """Whether it serves its slots, and knows of all others that they serve theirs."""
        info = await self.ask("CLUSTER INFO")
        is_whole = int(info["cluster_slots_ok"]) == SLOTS
        return bool(
            info["cluster_state"] == "ok" and is_whole and int(info["cluster_size"]) == nodes
        )

    def end(self) -> None:
        """SIGKILL."""
        if self.child:
            self.child.end()
        self.child = None


class EmbeddedRedisCluster(Lifetime):
    """So many nodes, at `url`. They end with this object, or at the latest with us.

    A node has no persistence: after a crash it has its slots, and nothing in them. Raises
    `ValueError` for too few or too many, and `RedisUnavailable` where there is no server to run.
    """

    def __init__(self, nodes: int = FEWEST_NODES) -> None:
        if not FEWEST_NODES <= nodes <= MOST_NODES:
            raise ValueError(f"nodes={nodes!r}: a cluster has {FEWEST_NODES} to {MOST_NODES} nodes")
        self._binary = find_server_binary(own_first=True)
        self._count = nodes
        self._nodes: list[_Node] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        """For `open_cluster(redis=...)`, `WSDEMO_REDIS` and `serve --redis`."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def ports(self) -> list[int]:
        """The nodes' ports, in order."""
        return [node.port for node in self._nodes]

    async def start(self) -> None:
        """Start the nodes, give each its slots, and wait until all know of all."""
        if self._nodes:
            return
        self._folder = tempfile.TemporaryDirectory(prefix="wsdemo-")
        try:
            async with asyncio.timeout(START_TIMEOUT):
                for number in range(self._count):
                    folder = tempfile.mkdtemp(prefix=f"{number}-", dir=self._folder.name)
                    self._nodes.append(_Node(self._binary, Path(folder)))
                await _all(node.start() for node in self._nodes)
                await self._share_out()
                await self._is_whole()
        except BaseException as error:
            await self.stop()
            if isinstance(error, TimeoutError | RedisError):
                raise RedisUnavailable(f"{self._binary} has formed no cluster: {error}") from error
            raise

    async def stop(self) -> None:
        """End all nodes, and leave nothing of them."""
        for node in self._nodes:
            node.end()
        self._nodes.clear()
        if self._folder:
            self._folder.cleanup()
            self._folder = None

    async def crash(self, number: int) -> None:
        """End a node at once (SIGKILL): it loses all data, and keeps its part in the cluster."""
        self._node(number, runs=True).end()

    async def restart(self, number: int) -> None:
        """Start a node again, on its port; wait until it serves its slots, about 2 s."""
        await self._node(number, runs=False).start()
        async with asyncio.timeout(START_TIMEOUT):
            await self._is_whole()

    def freeze(self, number: int) -> None:
        """Let a node stand still (SIGSTOP); see `EmbeddedRedis.freeze`."""
        if not can_freeze():
            raise RuntimeError("This system cannot freeze a process; crash the node instead.")
        node = self._node(number, runs=True)
        assert node.child
        node.child.freeze()

    def thaw(self, number: int) -> None:
        """Let it go on (SIGCONT)."""
        node = self._node(number, runs=True)
        assert node.child
        node.child.thaw()

    def client(self, number: int) -> Redis:
        """A client of one node alone, to be closed by the caller."""
        return _client(self._node(number, runs=True).port)

    async def node_of(self, name: str) -> int:
        """The number of the node that has the slot of a key, a channel, or a game."""
        slot = key_slot(name.encode())
        node = next(node for node in self._nodes if node.runs)
        for first, last, (_, port, *_), *_ in await node.ask("CLUSTER SLOTS"):
            if first <= slot <= last:
                return self.ports.index(port)
        raise RuntimeError(f"no node has slot {slot}")

    def _node(self, number: int, *, runs: bool) -> _Node:
        if not 0 <= number < len(self._nodes):
            raise ValueError(f"there is no node {number}; there are {len(self._nodes)}, from 0 on")
        node = self._nodes[number]
        if node.runs != runs:
            raise RuntimeError(f"node {number} is {'down' if runs else 'up'} already")
        return node

    async def _share_out(self) -> None:
        first = self._nodes[0]
        for number, node in enumerate(self._nodes):
            start, end = (SLOTS * n // self._count for n in (number, number + 1))
            await node.ask("CLUSTER ADDSLOTSRANGE", start, end - 1)
            await node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
            if node is not first:
                await node.ask("CLUSTER MEET", "127.0.0.1", first.port, first.bus_port)

    async def _is_whole(self) -> None:
        """Return once all nodes that run agree that nothing is missing, if nothing is."""
        running = [node for node in self._nodes if node.runs]
        if len(running) < len(self._nodes):
            return
        await _all(_until(partial(node.sees_all, self._count)) for node in running)


async def _all(actions: Iterable[Awaitable[None]]) -> None:
    """Do all of it, and only then raise what went wrong first."""
    for outcome in await asyncio.gather(*actions, return_exceptions=True):
        if outcome:
            raise outcome


def _client(port: int) -> Redis:
    return Redis(port=port, protocol=2, retry=Retry(NoBackoff(), 0))


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.01)  # gossip tells nobody when it has come round
