"""Many clients that lose their server, and how they come back: all at once, or one by one.

Servers, clients and every connection are real. Nothing is said, so there is no broker.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from wsdemo.brokers import LocalBroker
from wsdemo.changes import Changes
from wsdemo.lifetime import Lifetime, end
from wsdemo.measured import Arrivals
from wsdemo.player import full_jitter
from wsdemo.protocol import Join, encode
from wsdemo.server import GameServer

__all__ = ["BackOff", "crash", "evenly", "jittered", "rolling_restart"]

MOST_CLIENTS = 200  # both ends are in this process, and a loop on Windows takes 512 sockets

BackOff = Callable[[], Iterator[float]]
"""The seconds a client waits before each attempt to come back, until it is back."""

Progress = Callable[[float], None]
"""Is told how much is done, from 0 to 1."""


def evenly(seconds: float = 0.0) -> BackOff:
    """Each time as long as the last, and for each client the same."""
    return lambda: itertools.repeat(seconds)


def jittered(first: float = 0.1, longest: float = 1.0) -> BackOff:
    """A random time, whose bound doubles with each attempt from `first` to `longest` seconds."""
    return lambda: full_jitter(first, longest)


async def rolling_restart(
    title: str = "a rolling restart",
    *,
    clients: int = 120,
    servers: Sequence[str] = ("A", "B", "C"),
    over: float = 0.0,
    apart: float = 0.3,
    back_off: BackOff | None = None,
    progress: Progress = lambda share: None,
) -> Arrivals:
    """Restart one server after the other, each draining `over` so many seconds.

    A next one's turn comes when all clients are connected again, as a deployment waits until all is
    well, and not before `apart` seconds. Without a `back_off` the clients come back at once, as
    `async for connection in connect(...)` does. Raises `ValueError` for more clients than one
    process can be at both ends of.
    """
    clock = asyncio.get_running_loop().time
    async with _Fleet(servers, clients, back_off or evenly(), title) as fleet:
        for number, name in enumerate(servers):
            begun = clock()
            fleet.mark(f"{name} drains")
            await fleet.restart(name, over)
            await fleet.until_all_are_in()
            await asyncio.sleep(max(0.0, begun + apart - clock()))
            progress((number + 1) / len(servers))
        return fleet.arrivals


async def crash(
    title: str = "a crash",
    *,
    clients: int = 60,
    away: float = 0.3,
    back_off: BackOff | None = None,
    progress: Progress = lambda share: None,
) -> Arrivals:
    """Kill the one server there is, and start it again after `away` seconds.

    Without a `back_off` the clients try every 100 ms. Raises `ValueError` as above. More than 100
    at once would not all find room in the queue of a server that has yet to accept them: those wait
    a second, until TCP tries again.
    """
    async with _Fleet(["A"], clients, back_off or evenly(0.1), title) as fleet:
        fleet.mark("A is killed")
        await fleet.kill("A", away)
        fleet.mark("A is back")
        progress(0.5)
        await fleet.until_all_are_in()
        progress(1.0)
        return fleet.arrivals


class _Fleet(Lifetime):
    """Servers, and clients that come back to any of those that take them."""

    def __init__(self, names: Sequence[str], clients: int, back_off: BackOff, title: str) -> None:
        if not 1 <= clients <= MOST_CLIENTS:
            raise ValueError(f"{clients} clients: use 1 to {MOST_CLIENTS}")
        self.arrivals = Arrivals(title, clients)
        self._names = names
        self._back_off = back_off
        self._running = AsyncExitStack()
        self._servers: dict[str, GameServer] = {}
        self._ready: list[str] = []
        self._turns = itertools.count()
        self._in: set[int] = set()
        self._changes = Changes()
        self._clients: list[asyncio.Task[None]] = []
        self._begun: float | None = None

    async def start(self) -> None:
        """Have every client connected."""
        try:
            for name in self._names:
                await self._open(name, port=0)
            for number in range(self.arrivals.clients):
                client = asyncio.create_task(self._be_a_client(number))
                client.add_done_callback(lambda _: self._changes.announce())
                self._clients.append(client)
            await self.until_all_are_in()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End clients and servers."""
        try:
            await asyncio.gather(*(end(client) for client in self._clients))
        finally:
            await self._running.aclose()

    def mark(self, what: str) -> None:
        """Note that this happens now; the first is the beginning of time."""
        if self._begun is None:
            self._begun = self._now()
        self.arrivals.marks.append((self._now() - self._begun, what))

    async def restart(self, name: str, over: float) -> None:
        """Take a server out, let it drain, and start a new one in its place."""
        self._ready.remove(name)
        server = self._servers[name]
        await server.drain(over)
        await server.stop()
        await self._open(name, server.port)

    async def kill(self, name: str, away: float) -> None:
        """Kill a server, which stays where it is to be found, and start it again."""
        server = self._servers[name]
        await server.kill()
        await asyncio.sleep(away)
        await server.stop()
        await self._open(name, server.port)

    async def until_all_are_in(self) -> None:
        """Return once every client is connected."""
        await self._changes.until(
            lambda: (
                len(self._in) == self.arrivals.clients
                or any(client.done() for client in self._clients)
            )
        )
        for client in self._clients:
            if client.done():  # none ends by itself but by an error, and then nobody waits for it
                client.result()

    async def _open(self, name: str, port: int) -> None:
        server = GameServer(name, LocalBroker(), port=port)
        await self._running.enter_async_context(server)
        self._servers[name] = server
        if name not in self._ready:
            self._ready.append(name)

    async def _be_a_client(self, number: int) -> None:
        """Connect, stay until the connection ends, wait, and connect again."""
        delays = self._back_off()
        while True:
            if await self._visit(number):
                delays = self._back_off()
            await asyncio.sleep(next(delays))

    async def _visit(self, number: int) -> bool:
        """Whether the client was let in; returns when it is out again."""
        names = self._ready or list(self._names)  # if none is ready, one is as good as another
        name = names[next(self._turns) % len(names)]
        begun = self._now()
        try:
            async with connect(
                self._servers[name].url, proxy=None, compression=None, ping_interval=None
            ) as connection:
                await connection.send(encode(Join("g", f"P{number}")), text=True)
                await connection.recv()
                self._note(self.arrivals.came, begun)
                self._in.add(number)
                self._changes.announce()
                await connection.wait_closed()
            return True
        except (OSError, WebSocketException):
            self._note(self.arrivals.refused, begun)
            return False
        finally:
            self._in.discard(number)

    def _note(self, moments: list[float], moment: float) -> None:
        if self._begun is not None:
            moments.append(moment - self._begun)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
