"""One balancer, some servers, a broker for each, a Redis for them, players: wired and owned."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any

from wsdemo.balancer import POLICIES, Balancer
from wsdemo.brokers import Broker, LocalBroker, PubSubBroker
from wsdemo.notebook import Cell, current_cell
from wsdemo.player import NotConnected, Player
from wsdemo.protocol import check_name
from wsdemo.redis_backend import RedisBackend, check_choice, redis_backend
from wsdemo.server import GameServer
from wsdemo.trace import Trace

__all__ = ["BROKERS", "Cluster", "open_cluster"]

BROKERS = ("none", "pubsub")
SETTLE_TIMEOUT = 5.0  # seconds
_PARTS = ("balancer", "redis", "scenario")


class Cluster:
    """Everything that runs, under one roof. Made by `open_cluster`."""

    def __init__(
        self,
        servers: Sequence[str] = ("A", "B"),
        broker: str = "pubsub",
        redis: str | None = None,
        balance: str = "round-robin",
        game: str = "g",
        origins: Collection[str] = (),
    ) -> None:
        _check_choice("broker", broker, BROKERS)
        _check_choice("balance", balance, POLICIES)
        if not servers:
            raise ValueError('a cluster needs at least one server, for example servers=["A"]')
        for name in servers:
            _check_new_name(check_name(name, "server"), _PARTS, "part of every cluster")
        if len(set(servers)) < len(servers):
            raise ValueError(f"two servers of one name in {list(servers)}")
        self.broker = broker
        self.game = check_name(game, "game")
        self.trace = Trace(broker=broker, servers=list(servers), game=game)
        self.players: dict[str, Player] = {}
        self.servers: dict[str, GameServer] = {}
        self.balancer = Balancer(POLICIES[balance](), trace=self.trace)
        check_choice(redis)
        self.redis: RedisBackend | None = redis_backend(redis) if broker != "none" else None
        self.before_step: Callable[[], Awaitable[None]] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._names = list(servers)
        self._origins = origins
        self._parts = AsyncExitStack()
        self._state = "new"

    @property
    def url(self) -> str:
        """Where players connect: the balancer."""
        return self.balancer.url

    async def start(self) -> None:
        """Start Redis, the balancer and the servers. What had started ends again on an error."""
        if self._state != "new":
            raise RuntimeError("a cluster starts once; open another with `await open_cluster()`")
        self._state = "starting"
        try:
            await _uninterrupted(self._start())
        except asyncio.CancelledError:
            await self.stop()
            raise

    async def _start(self) -> None:
        self.loop = asyncio.get_running_loop()
        try:
            if self.redis:
                await self._parts.enter_async_context(self.redis)
            await self._parts.enter_async_context(self.balancer)
            port = self.balancer.port
            own = [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")]
            for name in self._names:
                server = GameServer(
                    name,
                    self._new_broker(name),
                    origins=[*own, *self._origins],
                    reserved_names=[*_PARTS, *self._names],
                    may_join=self._may_join,
                    trace=self.trace,
                )
                self._parts.push_async_callback(server.stop)
                await server.start()
                self.servers[name] = server
                self.balancer.add(name, "127.0.0.1", server.port)
        except BaseException:
            await self._parts.aclose()
            raise
        self._state = "running"

    async def stop(self) -> None:
        """End everything that runs. The trace stays, and ends here."""
        if self._state == "stopped":
            return
        self._state = "stopped"
        self.trace.end()
        await _uninterrupted(self._stop())

    async def _stop(self) -> None:
        try:
            await asyncio.gather(*(player.stop() for player in self.players.values()))
        finally:
            await self._parts.aclose()

    async def join(self, *names: str, server: str | None = None) -> list[Player]:
        """Let new players join, one after the other (on this server, if named).

        Raises `ValueError` for a name that cannot be, or is in the game already.
        """
        self._require_running()
        for name in names:
            _check_new_name(check_name(name, "player"), (*_PARTS, *self.servers), "a part's name")
            if names.count(name) > 1 or self._is_in_the_game(name):
                raise ValueError(
                    f"{name} is in the game already; use its player, or join under another name"
                )
        return [await self._join(name, server) for name in names]

    def player(self, name: str) -> Player:
        """The player of that name. Raises `ValueError`, listing those there are."""
        _check_choice("player", name, self.players)
        return self.players[name]

    @asynccontextmanager
    async def step(self, caption: str) -> AsyncIterator[None]:
        """One beat of a scenario: one sentence, one change. It settles at its end."""
        self._require_running()
        if self.before_step:
            await self.before_step()
        self.trace.append("step", "scenario", caption=caption)
        yield
        await self.settle()

    async def settle(self, timeout: float = SETTLE_TIMEOUT) -> None:
        """Return when all that was done before this call has had its effect.

        A barrier through the same sockets and the same broker, not a pause; what is done meanwhile
        is not waited for. Raises `TimeoutError` after so many seconds, naming what is under way.
        """
        self._require_running()
        under_way: set[str] = set()
        try:
            async with asyncio.timeout(timeout):
                before = len(self.trace)
                while not await self._at_rest(under_way):
                    before = len(self.trace)
        except TimeoutError:
            raise TimeoutError(
                f"after {timeout:g} s still under way: {'; '.join(sorted(under_way))}"
            ) from None
        self.trace.append("settle", "scenario", before=before)

    async def _at_rest(self, under_way: set[str]) -> bool:
        """Whether every player got all the way through; not so if one lost its connection."""

        async def waiting_for(what: str, awaitable: Awaitable[None]) -> None:
            under_way.add(what)
            await awaitable
            under_way.discard(what)

        async def all_synced() -> None:
            async with asyncio.TaskGroup() as group:
                for player in self.players.values():
                    if player.connected:
                        what = f"{player.name} has no answer from server {player.server}"
                        group.create_task(waiting_for(what, player.sync()))
                for server in self.servers.values():  # for clients that are none of ours
                    what = f"server {server.name} has no answer from its broker"
                    group.create_task(waiting_for(what, server.sync()))

        try:
            async with asyncio.TaskGroup() as group:
                for player in self.players.values():
                    if player.coming_back:
                        what = f"{player.name} is on its way to a connection"
                        group.create_task(waiting_for(what, player.welcomed()))
            async with asyncio.TaskGroup() as group:
                for player in self.players.values():
                    what = f"an old connection of {player.name} is still open"
                    group.create_task(waiting_for(what, self._only_where_it_is(player)))
            await all_synced()  # what was said has been published ...
            await all_synced()  # ... and what was published has been heard
        except ExceptionGroup as errors:
            lost, others = errors.split(NotConnected)
            if others:  # a broker that does not answer
                under_way.update(map(str, others.exceptions))
                raise TimeoutError from others
            under_way.clear()
            return lost is None
        return True

    async def _only_where_it_is(self, player: Player) -> None:
        """Return once no part takes a connection for open that the player has left behind."""
        former = set(player.former_calls)
        parts: list[GameServer | Balancer] = [*self.servers.values(), self.balancer]
        for part in parts:
            await part.until(lambda: former.isdisjoint(part.calls))  # noqa: B023
        player.former_calls -= former

    async def _join(self, name: str, server: str | None) -> Player:
        before = self.players.get(name)
        player = Player(
            name,
            self.url,
            game=self.game,
            steer=self._steer,
            trace=self.trace,
            events_before=before.events_said if before else 0,
        )
        self.players[name] = player
        try:
            await player.connect(server)
        except BaseException:
            del self.players[name]
            if before:
                self.players[name] = before
            raise
        return player

    def _is_in_the_game(self, name: str) -> bool:
        player = self.players.get(name)
        strangers = (name in server.players(self.game) for server in self.servers.values())
        return bool(player and not player.left) or any(strangers)

    def _may_join(self, name: str, request: str) -> bool:
        """Whether whoever comes with this request is not somebody else under a player's name."""
        player = self.players.get(name)
        return player is None or player.left or request == player.call

    def _steer(self, request: str, server: str) -> None:
        _check_choice("server", server, self.servers)
        self.balancer.send(request, server)

    def _new_broker(self, server: str) -> Broker:
        if self.redis is None:
            return LocalBroker()
        return PubSubBroker(
            self.redis.client(), server=server, prefix=self.redis.prefix, trace=self.trace
        )

    def _require_running(self) -> None:
        if self._state in ("new", "starting"):
            raise RuntimeError("the cluster has not started; use `await open_cluster()`")
        if self._state == "stopped":
            raise RuntimeError("the cluster is stopped; open another with `await open_cluster()`")

    def __repr__(self) -> str:
        servers = ", ".join(
            f"{name}: {' '.join(server.players(self.game)) or 'nobody'}"
            for name, server in self.servers.items()
        )
        return f"Cluster, {self._state}, broker {self.broker} ({servers})"


class _OpenCluster:
    """What `open_cluster` gives: to be awaited, or to be used with `async with`."""

    def __init__(self, cluster: Cluster, cell: Cell | None) -> None:
        self._cluster = cluster
        self._cell = cell

    def __await__(self) -> Generator[Any, None, Cluster]:
        return self._open().__await__()

    async def _open(self) -> Cluster:
        if self._cell:
            run, clusters = _opened_in.get(self._cell.name, (self._cell.run, []))
            if run != self._cell.run:
                await asyncio.gather(*(cluster.stop() for cluster in clusters))
                clusters = []
            running = [cluster for cluster in clusters if not cluster.trace.ended]
            _opened_in[self._cell.name] = (self._cell.run, [*running, self._cluster])
        await self._cluster.start()
        return self._cluster

    async def __aenter__(self) -> Cluster:
        await self._cluster.start()
        return self._cluster

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._cluster.stop()


# Each notebook cell's last run, and the clusters it has opened.
_opened_in: dict[str, tuple[str, list[Cluster]]] = {}


def open_cluster(
    servers: Sequence[str] = ("A", "B"),
    broker: str = "pubsub",
    redis: str | None = None,
    balance: str = "round-robin",
    game: str = "g",
    origins: Collection[str] = (),
) -> _OpenCluster:
    """Start a cluster; use it with `await`, or with `async with`, which also stops it.

    `broker` is "none" or "pubsub". `redis` is "fake", "embedded" or a URL; by default what the
    environment variable WSDEMO_REDIS says, or "fake". `balance` is "round-robin",
    "least-connections" or "sticky". `origins` lists further web origins whose pages may connect.

    A notebook cell that is run again stops the clusters that it opened before. Raises `ValueError`
    for a choice that there is not, and `RedisUnavailable`.
    """
    cluster = Cluster(servers, broker, redis, balance, game, origins)
    return _OpenCluster(cluster, current_cell())


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Do something to its end. If a cell is interrupted meanwhile, it is only once that is done.

    Half a start or half a stop would leave ports and processes that nobody knows of.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # the interruption is what the caller has to hear of
        raise


def _check_choice(what: str, choice: str, choices: Collection[str]) -> None:
    if choice not in choices:
        raise ValueError(
            f"unknown {what} {choice!r}; there are: {', '.join(choices) or 'none yet'}"
        )


def _check_new_name(name: str, taken: Collection[str], by: str) -> None:
    if name in taken:
        raise ValueError(f"{name!r} is {by}; choose another name")
