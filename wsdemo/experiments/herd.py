"""Many clients that lose their server, and how they come back: all at once, or one by one.

Servers, clients and every connection are real. Nothing is said, so there is no broker.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from wsdemo.brokers import LocalBroker
from wsdemo.changes import Changes
from wsdemo.experiments.measured import Arrivals
from wsdemo.lifetime import Lifetime, end
from wsdemo.player import full_jitter
from wsdemo.protocol import Join, encode
from wsdemo.server import GameServer

__all__ = ["BackOff", "crash", "doubling", "evenly", "jittered", "rolling_restart"]

MOST_CLIENTS = 200  # both ends are in this process, and a loop on Windows takes 512 sockets

BackOff = Callable[[], Iterator[float]]
"""The seconds a client waits before each attempt to come back, until it is back."""

Progress = Callable[[float], None]
"""Is told how much is done, from 0 to 1."""


def evenly(seconds: float = 0.0) -> BackOff:
    """Each time as long as the last, and for each client the same."""
    return lambda: itertools.repeat(seconds)


def doubling(first: float = 0.1, longest: float = 1.0) -> BackOff:
    """Each time twice as long, from `first` to `longest` seconds, and for each client the same."""
    return lambda: (min(longest, first * 2 ** min(n, 32)) for n in itertools.count())


def jittered(first: float = 0.1, longest: float = 1.0) -> BackOff:
    """A random part of what `doubling` gives: from nothing to all of it."""
    return lambda: full_jitter(first, longest)


async def rolling_restart(
    title: str = "a rolling restart",
    *,
    clients: int = 120,
    servers: Sequence[str] = ("A", "B", "C"),
    over: float = 0.0,
    apart: float = 0.2,
    back_off: BackOff | None = None,
    progress: Progress = lambda share: None,
) -> Arrivals:
    """Restart one server after the other, each draining `over` so many seconds.

    The new server gets nobody until those that were sent away are on others, if there are any: a
    process takes longer to start than they do to come back. A next one's turn comes when all
    clients are connected, as a deployment waits until all is well, and not before `apart` seconds.
    Without a `back_off` the clients come back at once, as `async for connection in connect(...)`
    does. Raises `ValueError` for more clients than one process can be at both ends of.
    """
    clock = asyncio.get_running_loop().time
    async with _Fleet(servers, clients, back_off or evenly(), title) as fleet:
        begun = -math.inf
        for number, name in enumerate(servers):
            await asyncio.sleep(max(0.0, begun + apart - clock()))
            begun = clock()
            fleet.mark(f"{name} drains")
            await fleet.restart(name, over)
            await fleet.until_all_are_in()
            progress((number + 1) / len(servers))
        fleet.mark("all are in")
        return fleet.arrivals


async def crash(
    title: str = "a crash",
    *,
    clients: int = 60,
    away: float = 0.5,
    back_off: BackOff | None = None,
    capacity: float = math.inf,
    patience: float = 10.0,
    progress: Progress = lambda share: None,
) -> Arrivals:
    """Kill the one server there is, and start it again after `away` seconds.

    Without a `back_off` the clients try every 100 ms. A client that is not in after `patience`
    seconds gives up, and tries again. The server lets in at most `capacity` clients a second, one
    after the other, as one does that has to ask a database who each is. It cannot know which of
    them have given up meanwhile, and asks for them too. While all connect for the first time, there
    is no such bound.

    Raises `ValueError` as above. More than 100 at once would not all find room in the queue of a
    server that has yet to accept them: those wait a second, until TCP tries again.
    """
    behave = back_off or evenly(0.1)
    async with _Fleet(["A"], clients, behave, title, capacity, patience) as fleet:
        fleet.mark("A is killed")
        await fleet.kill("A", away)
        fleet.mark("A is back")
        progress(0.5)
        await fleet.until_all_are_in()
        fleet.mark("all are in")
        progress(1.0)
        return fleet.arrivals


class _Fleet(Lifetime):
    """Servers, and clients that come back to any of those that take them."""

    def __init__(
        self,
        names: Sequence[str],
        clients: int,
        back_off: BackOff,
        title: str,
        capacity: float = math.inf,
        patience: float = 10.0,
    ) -> None:
        if not 1 <= clients <= MOST_CLIENTS:
            raise ValueError(f"{clients} clients: use 1 to {MOST_CLIENTS}")
        self.arrivals = Arrivals(title, clients)
        self._names = names
        self._back_off = back_off
        self._capacity = capacity
        self._patience = patience
        self._free_at = 0.0  # when whoever comes next can be looked up
        self._running = AsyncExitStack()
        self._servers: dict[str, GameServer] = {}
        self._ready: list[str] = []
        self._turns = itertools.count()
        self._in: dict[int, str] = {}  # which clients, and on which server
        self._changes = Changes()
        self._clients: list[asyncio.Task[None]] = []
        self._begun: float | None = None

    async def start(self) -> None:
        """Have every client connected."""
        try:
            for name in self._names:
                await self._open(name, port=0)
                self._put_in(name)
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
            gc.unfreeze()
            await self._running.aclose()

    def mark(self, what: str) -> None:
        """Note that this happens now; the first is the beginning of time."""
        if self._begun is None:
            # A notebook has so many objects that to look through them for garbage holds up all
            # clients for a tenth of a second, and for half of one on a busy machine.
            gc.freeze()
            self._begun = self._now()
        self.arrivals.marks.append((self._now() - self._begun, what))

    async def restart(self, name: str, over: float) -> None:
        """Take a server out, let it drain, and put a new one in once its clients are on others."""
        self._ready.remove(name)
        await self._servers[name].drain(over)
        await self._servers[name].stop()
        await self._until_all_have_left(name)
        await self._open(name, port=0)
        if self._ready:
            await self.until_all_are_in()
        self._put_in(name)

    async def kill(self, name: str, away: float) -> None:
        """Kill a server, which stays where it is to be found, and start it again."""
        server = self._servers[name]
        await server.kill()
        await self._until_all_have_left(name)
        await asyncio.sleep(away)
        await server.stop()
        await self._open(name, server.port)

    async def until_all_are_in(self) -> None:
        """Return once every client is connected."""
        await self._until(lambda: len(self._in) == self.arrivals.clients)

    async def _until_all_have_left(self, name: str) -> None:
        await self._until(lambda: name not in self._in.values())

    async def _until(self, condition: Callable[[], bool]) -> None:
        await self._changes.until(
            lambda: condition() or any(client.done() for client in self._clients)
        )
        for client in self._clients:
            if client.done():  # none ends by itself but by an error, and then nobody waits for it
                client.result()

    async def _open(self, name: str, port: int) -> None:
        server = GameServer(name, LocalBroker(), port=port, may_join=self._look_up)
        await self._running.enter_async_context(server)
        self._servers[name] = server

    def _put_in(self, name: str) -> None:
        """From here on, clients may come to this server."""
        self._ready.append(name)
        self._changes.announce()

    async def _look_up(self, player: str, request: str) -> bool:
        """Find out who a client is, which takes its time: one after the other."""
        if self._has_begun:
            self._free_at = max(self._now(), self._free_at) + 1 / self._capacity
            await asyncio.sleep(self._free_at - self._now())
        return True

    async def _be_a_client(self, number: int) -> None:
        """Connect, stay until the connection ends, wait, and connect again."""
        delays = self._back_off()
        while True:
            if await self._visit(number):
                delays = self._back_off()
            await asyncio.sleep(next(delays))

    async def _visit(self, number: int) -> bool:
        """Whether the client was let in; returns when it is out again."""
        await self._changes.until(lambda: bool(self._ready))  # as a balancer lets it wait
        name = self._ready[next(self._turns) % len(self._ready)]
        url, begun = self._servers[name].url, self._now()
        try:
            async with (
                asyncio.timeout(self._patience if self._has_begun else None) as patience,
                connect(url, proxy=None, compression=None, ping_interval=None) as connection,
            ):
                await connection.send(encode(Join("g", f"P{number}")), text=True)
                await connection.recv()
                patience.reschedule(None)
                self._note(self.arrivals.came, begun)
                self._in[number] = name
                self._changes.announce()
                await connection.wait_closed()
            return True
        except TimeoutError:
            self._note(self.arrivals.gave_up, begun)
            return False
        except (OSError, WebSocketException):
            self._note(self.arrivals.refused, begun)
            return False
        finally:
            self._in.pop(number, None)
            self._changes.announce()

    @property
    def _has_begun(self) -> bool:
        return self._begun is not None

    def _note(self, moments: list[float], moment: float) -> None:
        if self._begun is not None:
            moments.append(moment - self._begun)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
