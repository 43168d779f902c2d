"""What can go wrong, each as a context manager: it is so inside the block, and healed at its end.

    async with faults.redis_stopped(cluster):
        await p2.send("nobody hears this")

Each records itself in the trace, as a fault and as its cure. What is still broken when a cluster
stops is cleared away by that. Where a part cannot be broken so, the error says why.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from wsdemo.trace import Trace

__all__ = [
    "link_cut",
    "reader_stalled",
    "redis_frozen",
    "redis_killed",
    "redis_link_cut",
    "redis_power_cut",
    "redis_stopped",
    "reply_lost",
    "server_frozen",
    "server_killed",
]


class _Player(Protocol):
    def cut_link(self) -> None: ...
    def mend_link(self) -> None: ...
    def stop_reading(self) -> None: ...
    def go_on_reading(self) -> None: ...


class _Cluster(Protocol):
    @property
    def trace(self) -> Trace: ...
    @property
    def redis_state(self) -> str: ...
    def server_state(self, name: str) -> str: ...
    def redis_link_is_cut(self, server: str) -> bool: ...
    async def kill_server(self, name: str) -> None: ...
    async def restart_server(self, name: str) -> None: ...
    async def freeze_server(self, name: str) -> None: ...
    async def thaw_server(self, name: str) -> None: ...
    async def stop_redis(self, keep: bool = False) -> None: ...
    async def kill_redis(self, power_cut: bool = False) -> None: ...
    async def start_redis(self) -> None: ...
    async def freeze_redis(self) -> None: ...
    async def thaw_redis(self) -> None: ...
    async def cut_redis_link(self, server: str) -> None: ...
    async def mend_redis_link(self, server: str) -> None: ...
    async def lose_redis_replies(self, server: str, replies: int) -> None: ...


@asynccontextmanager
async def link_cut(player: _Player) -> AsyncIterator[None]:
    """A player's connection breaks, and none can be made; then it comes back by itself.

    Unlike a phone in a tunnel, both ends learn of the break at once: its packets do not just
    vanish, which a server would notice only by a missing pong.
    """
    player.cut_link()
    try:
        yield
    finally:
        player.mend_link()


@asynccontextmanager
async def reader_stalled(player: _Player) -> AsyncIterator[None]:
    """A player reads nothing that the server writes to it.

    What is written fills the buffers of both machines; here both are one. A server cuts off whoever
    is further behind than its limit allows.
    """
    player.stop_reading()
    try:
        yield
    finally:
        player.go_on_reading()


@asynccontextmanager
async def server_killed(cluster: _Cluster, server: str) -> AsyncIterator[None]:
    """A server is gone without a goodbye; then another process takes its place, on its port.

    It dies as a process does, with all that was under way in it, but lives in the notebook's
    kernel: what its machine would lose with it is not lost.
    """
    async with _broken(
        cluster,
        lambda: cluster.kill_server(server),
        lambda: cluster.server_state(server) == "down",
        lambda: cluster.restart_server(server),
    ):
        yield


@asynccontextmanager
async def server_frozen(cluster: _Cluster, server: str) -> AsyncIterator[None]:
    """A server stands still, its connections open, as a process in a long pause does.

    `GameServer.freeze` says in what it differs from one that is stopped by SIGSTOP.
    """
    async with _broken(
        cluster,
        lambda: cluster.freeze_server(server),
        lambda: cluster.server_state(server) == "frozen",
        lambda: cluster.thaw_server(server),
    ):
        yield


@asynccontextmanager
async def redis_stopped(cluster: _Cluster, *, keep: bool = False) -> AsyncIterator[None]:
    """Redis is shut down, and started again: without its data, or with all of it if it is to keep.

    To start without data is what a Redis does that has no persistence, as a cache has none.
    """
    async with _broken(
        cluster,
        lambda: cluster.stop_redis(keep),
        lambda: cluster.redis_state == "down",
        cluster.start_redis,
    ):
        yield


@asynccontextmanager
async def redis_killed(cluster: _Cluster) -> AsyncIterator[None]:
    """Redis is killed (SIGKILL), and started again, with what its persistence has saved.

    The process dies, the machine does not: what was written and not yet on the disk, as with
    `everysec`, the operating system still has. `redis_power_cut` loses it.
    """
    async with _broken(
        cluster,
        cluster.kill_redis,
        lambda: cluster.redis_state == "down",
        cluster.start_redis,
    ):
        yield


@asynccontextmanager
async def redis_power_cut(cluster: _Cluster) -> AsyncIterator[None]:
    """Redis's machine loses power; then it starts again, with what was on the disk.

    It is played: Redis is killed, and its append-only file cut to what is known to have been
    synced, which for `everysec` is up to a second old. `always` has synced what it has answered.
    """
    async with _broken(
        cluster,
        lambda: cluster.kill_redis(power_cut=True),
        lambda: cluster.redis_state == "down",
        cluster.start_redis,
    ):
        yield


@asynccontextmanager
async def redis_frozen(cluster: _Cluster) -> AsyncIterator[None]:
    """Redis stands still, its connections open: what it is asked waits, and nobody is answered."""
    async with _broken(
        cluster,
        cluster.freeze_redis,
        lambda: cluster.redis_state == "frozen",
        cluster.thaw_redis,
    ):
        yield


@asynccontextmanager
async def redis_link_cut(cluster: _Cluster, server: str) -> AsyncIterator[None]:
    """One server cannot reach Redis, while the others can.

    Both ends learn of it at once, as of a firewall that resets connections.
    """
    async with _broken(
        cluster,
        lambda: cluster.cut_redis_link(server),
        lambda: cluster.redis_link_is_cut(server),
        lambda: cluster.mend_redis_link(server),
    ):
        yield


@asynccontextmanager
async def reply_lost(cluster: _Cluster, server: str, *, replies: int = 1) -> AsyncIterator[None]:
    """Redis takes a server's next event, and the connection breaks before its answer arrives.

    So the server cannot know whether the event was taken: the reason for idempotency keys.
    """
    run = cluster.trace
    await cluster.lose_redis_replies(server, replies)
    try:
        yield
    finally:
        if not run.ended:
            await cluster.lose_redis_replies(server, 0)


@asynccontextmanager
async def _broken(
    cluster: _Cluster,
    break_it: Callable[[], Awaitable[None]],
    is_broken: Callable[[], bool],
    heal_it: Callable[[], Awaitable[None]],
) -> AsyncIterator[None]:
    """Break something; heal it at the end, unless that has been done, or the run has ended."""
    run = cluster.trace
    refused = False
    try:
        try:
            await break_it()
        except Exception:
            refused = True  # if it is broken, somebody else has done that, and heals it
            raise
        yield
    finally:  # also if a cell is interrupted while it breaks: it is broken all the same
        if not (refused or run.ended) and is_broken():
            try:
                await heal_it()
            except RuntimeError:
                if not run.ended:  # and did not end just now
                    raise
