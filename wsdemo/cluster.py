"""One balancer, some servers, a broker for each, a Redis for them, players: wired and owned."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, NoReturn

from wsdemo.balancer import POLICIES, Balancer
from wsdemo.barrier import Barrier
from wsdemo.brokers.redis_broker import HISTORY
from wsdemo.changes import Changes
from wsdemo.ledger import TITLES
from wsdemo.limits import Limits
from wsdemo.notebook import Cell, MadeInCells, current_cell
from wsdemo.parts import PART_NAMES, Parts, Server, check_known
from wsdemo.player import Player
from wsdemo.protocol import check_name
from wsdemo.redis.backend import Persistence, RedisBackend, check_choice
from wsdemo.redis.kept import Kept
from wsdemo.server import Canary, ServerState
from wsdemo.trace import Record, Trace

__all__ = ["BROKERS", "Cluster", "open_cluster"]

BROKERS = ("none", "pubsub", "stream", "queue")
MAX_HISTORY = 100_000  # events
GETS_FURTHER = frozenset(["receive", "publish", "store", "relay", "deliver", "replay", "hear"])
SETTLE_TIMEOUT = 5.0  # seconds
COLLECT_TIMEOUT = 2.0  # seconds


class Cluster:
    """Everything that runs, under one roof. Made by `open_cluster`.

    Its parts can be broken and healed while it runs: each of those calls raises `ValueError` for a
    server that there is not, and `RuntimeError`, saying what to do first, if it cannot be done now.
    Whatever is broken when the cluster stops is cleared away too.
    """

    def __init__(
        self,
        servers: Sequence[str] = ("A", "B"),
        broker: str = "pubsub",
        redis: str | None = None,
        balance: str = "round-robin",
        game: str = "g",
        origins: Collection[str] = (),
        history: int = HISTORY,
        persistence: Persistence = "none",
        canary: Canary | None = None,
        limits: Limits | None = None,
        processes: bool = False,
    ) -> None:
        check_known("broker", broker, BROKERS)
        check_known("balance", balance, POLICIES)
        if not servers:
            raise ValueError('a cluster needs at least one server, for example servers=["A"]')
        for name in servers:
            _check_server_name(name)
        if len(set(servers)) < len(servers):
            raise ValueError(f"two servers of one name in {list(servers)}")
        self.game = check_name(game, "game")
        self.players: dict[str, Player] = {}
        self.before_step: Callable[[], Awaitable[None]] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._redis_choice = check_choice(redis)
        self._balance = balance
        self._origins = origins
        self._history = _check_history(history)
        self._persistence = persistence
        self._canary = canary
        self._limits = limits
        self._processes = processes
        self._parts = self._new_parts(servers, broker)
        self._watchers: list[Callable[[], None]] = []
        self._turn = asyncio.Lock()  # one change of what runs at a time
        self._state = "new"

    def _new_parts(
        self,
        servers: Sequence[str],
        broker: str,
        port: int = 0,
        listener: socket.socket | None = None,
    ) -> Parts:
        return Parts(
            servers,
            broker,
            self._redis_choice,
            self._balance,
            self.game,
            history=self._history,
            persistence=self._persistence,
            canary=self._canary,
            limits=self._limits,
            processes=self._processes,
            port=port,
            listener=listener,
            origins=self._origins,
            may_join=self._may_join,
        )

    @property
    def broker(self) -> str:
        """What is between the servers: "none", "pubsub", "stream" or "queue"."""
        return str(self.trace.about["broker"])

    @property
    def trace(self) -> Trace:
        """What has been recorded in this run; `change_broker` begins another one."""
        return self._parts.trace

    @property
    def servers(self) -> dict[str, Server]:
        """The servers by name, whether they are up or not. A restart makes another object."""
        return self._parts.servers

    @property
    def balancer(self) -> Balancer:
        """The load balancer in front of them."""
        return self._parts.balancer

    @property
    def redis(self) -> RedisBackend | None:
        """The Redis between them, where the broker needs one."""
        return self._parts.redis

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
        await self._parts.start()
        self._state = "running"

    async def stop(self) -> None:
        """End everything that runs, whatever is broken. The trace stays, and ends here."""
        if self._state == "stopped":
            return
        self._state = "stopped"
        await self._collect()
        self.trace.end()
        await _uninterrupted(self._stop())

    async def _stop(self) -> None:
        async with self._turn:
            await self._end_this_run(Player.stop)

    async def _end_this_run(self, part_with: Callable[[Player], Awaitable[None]]) -> None:
        self.trace.end()
        try:
            self._tell_watchers()
            await self._parts.give_up_what_is_frozen()
            await asyncio.gather(*map(part_with, self.players.values()))
        finally:
            await self._parts.stop()

    async def join(self, *names: str, server: str | None = None) -> list[Player]:
        """Let new players join, one after the other (on this server, if named).

        Raises `ValueError` for a name that cannot be, or is in the game already.
        """
        self._require_running()
        parts = (*PART_NAMES, *self.servers)
        for name in names:
            _check_new_name(check_name(name, "player"), parts, "a part's name")
            if names.count(name) > 1 or self._is_in_the_game(name):
                raise ValueError(
                    f"{name} is in the game already; use its player, or join under another name"
                )
        return [await self._join(name, server) for name in names]

    def player(self, name: str) -> Player:
        """The player of that name. Raises `ValueError`, listing those there are."""
        check_known("player", name, self.players)
        return self.players[name]

    @asynccontextmanager
    async def step(self, caption: str, notes: str = "") -> AsyncIterator[None]:
        """One beat of a scenario: one sentence, one change. It settles at its end.

        `notes` are for whoever presents it.
        """
        self._require_running()
        if self.before_step:
            await self.before_step()
        self.beat(caption, notes)
        yield
        await self.settle()

    def beat(self, caption: str, notes: str = "") -> None:
        """Begin a beat and wait for nothing: what happens from now on is told under its caption."""
        self._require_running()
        self._record_step(caption, notes)

    async def settle(self, timeout: float = SETTLE_TIMEOUT) -> None:
        """Return when all that was done before this call has had its effect.

        A barrier through the same sockets and the same broker, not a pause; what is done meanwhile
        is not waited for, nor is what a frozen server holds up. Raises `TimeoutError`, naming what
        is under way, once no event has got any further for so many seconds, or all in all after
        six times as many.
        """
        self._require_running()
        trace = self.trace
        began = time.monotonic()
        under_way: set[str] = set()
        limit = asyncio.timeout(timeout)
        unwatch = trace.watch(lambda record: extend_limit(limit, timeout, began, record))
        try:
            async with limit:
                settled = False
                while not settled:
                    await self._parts.collect()
                    before = len(trace)
                    barrier = Barrier(self.players.values(), self._parts)
                    under_way = barrier.under_way
                    settled = await barrier.passed()
        except TimeoutError:
            waited = max(min(timeout, 1), round(time.monotonic() - began))
            raise TimeoutError(
                f"after {waited:g} s still under way: {'; '.join(sorted(under_way))}"
            ) from None
        finally:
            unwatch()
        trace.append("settle", "scenario", before=before)
        await self._collect()

    async def _collect(self) -> None:
        """Have the trace complete, if the servers' processes are not too busy to say what it is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(COLLECT_TIMEOUT):
                await self._parts.collect()

    async def kept(self) -> Kept:
        """What this cluster has in Redis now. Raises `redis.RedisError` if that does not answer."""
        return await self.redis.kept() if self.redis else Kept(0, 0)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of the run, such as `lambda: p1.server == "A"`.

        Looks each time that something has happened. Returns, too, when the run ends.
        """
        trace, changes = self.trace, Changes()
        unwatch = trace.watch(lambda record: changes.announce())
        unwatch_run = self.on_run_change(changes.announce)
        try:
            await changes.until(lambda: condition() or trace.ended)
        finally:
            unwatch()
            unwatch_run()

    # What can be broken and healed

    async def add_server(self, name: str) -> None:
        """Start a further server behind the balancer; at most 26.

        Raises `ValueError` for a name that cannot be, or is taken.
        """

        async def add() -> None:
            _check_server_name(name)
            _check_new_name(name, self.servers, "a server already")
            if self._is_in_the_game(name):
                raise ValueError(f"{name!r} is a player already; choose another name")
            await self._parts.add_server(name)

        await self._change(add)

    async def kill_server(self, name: str) -> None:
        """End a server without a goodbye. Its players come back on another, by themselves."""
        await self._change(lambda: self._parts.kill_server(name))

    async def restart_server(self, name: str) -> None:
        """Start a server anew, on its port, with another link to the broker.

        One that runs is killed first.
        """
        await self._change(lambda: self._parts.restart_server(name))

    async def freeze_server(self, name: str) -> None:
        """Let a server stand still, until it is thawed: see `GameServer.freeze`."""
        await self._change(lambda: self._parts.freeze_server(name))

    async def thaw_server(self, name: str) -> None:
        """Let a server go on, with everything that has waited, in order."""
        await self._change(lambda: self._parts.thaw_server(name))

    def server_state(self, name: str) -> ServerState:
        """Whether a server is "up", "down" or "frozen". Raises `ValueError`."""
        return self._parts.server(name).state

    async def stop_redis(self, keep: bool = False) -> None:
        """End Redis in good order; what it knows is lost, unless it is to `keep` it.

        Like the following, not for a Redis at a URL, which is somebody else's.
        """
        await self._change(lambda: self._parts.stop_redis(keep))

    async def kill_redis(self, power_cut: bool = False) -> None:
        """End Redis at once (SIGKILL); what it knows is kept as far as its `persistence` goes.

        After a `power_cut`, that is what is on the disk, and not what the operating system was
        still to put there.
        """
        await self._change(lambda: self._parts.kill_redis(power_cut))

    async def redis_has_saved(self) -> None:
        """Return once all that Redis knows now is where its `persistence` puts it."""
        if self.redis:
            await self.redis.until_saved()

    async def start_redis(self) -> None:
        """Start Redis again, on its port. The servers come back to it by themselves.

        Raises `RedisUnavailable` if it does not start.
        """
        await self._change(lambda: self._parts.start_redis())

    async def freeze_redis(self) -> None:
        """Let Redis stand still (SIGSTOP): its connections stay, and it answers nobody."""
        await self._change(lambda: self._parts.freeze_redis())

    async def thaw_redis(self) -> None:
        """Let Redis go on (SIGCONT), with everything it was asked meanwhile."""
        await self._change(lambda: self._parts.thaw_redis())

    async def cut_redis_link(self, server: str) -> None:
        """Cut one server's link to Redis, while others keep theirs."""

        async def cut() -> None:
            await self._parts.cut_redis_link(server)

        await self._change(cut)

    async def mend_redis_link(self, server: str) -> None:
        """Let a server whose link was cut reach Redis again; it does so by itself."""

        async def mend() -> None:
            await self._parts.mend_redis_link(server)

        await self._change(mend)

    def redis_link_is_cut(self, server: str) -> bool:
        """Whether a server's link to Redis is cut. Raises `ValueError`."""
        check_known("server", server, self.servers)
        return self._parts.is_cut_from_redis(server)

    async def lose_redis_replies(self, server: str, replies: int) -> None:
        """Let Redis's replies to the next events that a server gives it be lost; 0 ends that."""
        self._require_running()
        await self._parts.lose_redis_replies(server, replies)

    @property
    def redis_state(self) -> str:
        """Whether Redis is "up", "down" or "frozen"; empty where there is none."""
        return self._parts.redis_state

    @property
    def redis_cannot(self) -> str:
        """Why this cluster's Redis can be neither stopped nor frozen; empty if it can."""
        return self._parts.redis_cannot

    async def change_broker(self, broker: str) -> None:
        """Start everything anew with another broker, and another trace.

        There are the same servers, by name, at the same `url`, and the same players, who have heard
        and said nothing yet. Those who were connected join again, on the servers they were on.
        Raises `ValueError` for a broker that there is not; and `RuntimeError` if the new start
        fails: then the cluster is stopped.
        """
        check_known("broker", broker, BROKERS)
        await self._change(lambda: self._renew(broker))

    def on_run_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back each time a run ends, and when another one stands; the result ends that."""

        def call() -> None:
            callback()

        def unwatch() -> None:
            if call in self._watchers:
                self._watchers.remove(call)

        self._watchers.append(call)
        return unwatch

    async def _change(self, change: Callable[[], Awaitable[None]]) -> None:
        """Change what runs: one change after the other, and each to its end."""

        async def in_turn() -> None:
            async with self._turn:
                self._require_running()
                await change()

        self._require_running()
        await _uninterrupted(in_turn())

    async def _renew(self, broker: str) -> None:
        self._state = "changing"
        places = {p: p.server for p in self.players.values() if p.connected or p.coming_back}
        before = self.balancer
        before.keeps_port = True
        try:
            await self._end_this_run(Player.pause)
            self._parts = self._new_parts(list(self.servers), broker, before.port, before.kept_port)
            self._record_step(f"The cluster starts anew, {_in_a_sentence(TITLES[broker])}")
            await self._parts.start()
            for player in self.players.values():
                player.renew(self.trace)
            for player, server in places.items():
                # It is gone if it was just about to leave, or in the middle of its first join.
                if player in self.players.values() and not player.left:
                    await player.connect(server)
        except Exception as error:
            self._state = "stopped"
            await self._end_this_run(Player.stop)
            if before.kept_port:
                before.kept_port.close()
            raise RuntimeError(
                f"The cluster could not start anew and is stopped; open another with "
                f"`await open_cluster()`. {error}"
            ) from error
        if self._state == "changing":  # and not stopped meanwhile
            self._state = "running"
        self._tell_watchers()

    def _tell_watchers(self) -> None:
        for watcher in tuple(self._watchers):
            watcher()

    def _record_step(self, caption: str, notes: str = "") -> None:
        more = {"notes": notes} if notes else {}
        self.trace.append("step", "scenario", caption=caption, **more)

    async def _join(self, name: str, server: str | None) -> Player:
        self._require_running()  # a change may have begun since the player before
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
        self.balancer.send(request, self._parts.server(server).name)

    def _require_running(self) -> None:
        if self._state in ("new", "starting"):
            raise RuntimeError("the cluster has not started; use `await open_cluster()`")
        if self._state == "changing":
            raise RuntimeError("the cluster is starting anew; wait for `change_broker` to return")
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

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"no {name!r} yet: the cluster is not open; write `await open_cluster(...)`"
        )

    async def _open(self) -> Cluster:
        if self._cell:
            await asyncio.gather(*(cluster.stop() for cluster in _opened.earlier(self._cell)))
            _opened.note(self._cell, self._cluster)
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


_opened = MadeInCells[Cluster](lambda cluster: cluster._state == "stopped")


def open_cluster(
    servers: Sequence[str] = ("A", "B"),
    broker: str = "pubsub",
    redis: str | None = None,
    balance: str = "round-robin",
    game: str = "g",
    origins: Collection[str] = (),
    history: int = HISTORY,
    persistence: Persistence = "none",
    canary: Canary | None = None,
    limits: Limits | None = None,
    processes: bool = False,
) -> _OpenCluster:
    """Start a cluster; use it with `await`, or with `async with`, which also stops it.

    `broker` is "none", "pubsub", "stream" or "queue". `redis` is "fake", "embedded" or a URL; by
    default what the environment variable WSDEMO_REDIS says, or "fake". `balance` is "round-robin",
    "least-connections" or "sticky". `origins` lists further web origins whose pages may connect.
    `history` is how many events of a game a broker keeps, if it keeps any. `persistence`, for the
    embedded Redis, says how it writes them down: "none", "everysec" or "always". `canary` says when
    a server is to take itself for deaf, and `limits` what it refuses. With `processes`, each server
    runs in a process of its own; what can be done with the cluster is the same.

    A notebook cell that is run again stops the clusters that it opened before. Raises `ValueError`
    for a choice that there is not, and `RedisUnavailable`.
    """
    cluster = Cluster(
        servers,
        broker,
        redis,
        balance,
        game,
        origins,
        history,
        persistence,
        canary,
        limits,
        processes,
    )
    return _OpenCluster(cluster, current_cell())


def extend_limit(limit: asyncio.Timeout, timeout: float, began: float, record: Record) -> None:
    """Give a limit `timeout` seconds anew if the record gets further, but six times that in all.

    A slow machine is none that stands still.
    """
    left = 6 * timeout - (time.monotonic() - began)
    if record.kind in GETS_FURTHER and not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time() + min(timeout, left))


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


def _check_history(events: int) -> int:
    if not 1 <= events <= MAX_HISTORY:
        raise ValueError(f"history={events!r}: a broker can keep 1 to {MAX_HISTORY:,} events")
    return events


def _check_server_name(name: str) -> None:
    _check_new_name(check_name(name, "server"), PART_NAMES, "part of every cluster")


def _in_a_sentence(title: str) -> str:
    return title[0].lower() + title[1:]


def _check_new_name(name: str, taken: Collection[str], by: str) -> None:
    if name in taken:
        raise ValueError(f"{name!r} is {by}; choose another name")
