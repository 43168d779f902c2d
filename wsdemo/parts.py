"""Everything that runs but the players: balancer, servers, a broker for each, a Redis for them.

Each part can be broken and healed here, one at a time; whoever calls sees to that.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack

from wsdemo.balancer import POLICIES, Balancer
from wsdemo.brokers import Broker, LocalBroker, new_broker
from wsdemo.brokers.redis_broker import HISTORY
from wsdemo.changes import Changes
from wsdemo.lifetime import Lifetime
from wsdemo.limits import Limits
from wsdemo.processes.child import can_freeze
from wsdemo.processes.merged_trace import MergedTrace
from wsdemo.processes.server_process import ServerProcess
from wsdemo.processes.worker import Orders
from wsdemo.redis.backend import OwnRedis, Persistence, RedisBackend, redis_backend
from wsdemo.redis.line import Line
from wsdemo.server import Canary, GameServer, ServerState
from wsdemo.trace import Trace

__all__ = ["PART_NAMES", "Parts", "Server", "check_known"]

Server = GameServer | ServerProcess

PART_NAMES = ("balancer", "redis", "scenario")
MAX_SERVERS = 26
USUAL = {"history": HISTORY, "balance": "round-robin", "persistence": "none"}  # is not recorded


class Parts(Lifetime):
    """The parts of one run, wired to each other, and the trace that they write."""

    def __init__(
        self,
        servers: Sequence[str],
        broker: str,
        redis: str,
        balance: str,
        game: str,
        *,
        history: int = HISTORY,
        persistence: Persistence = "none",
        canary: Canary | None = None,
        limits: Limits | None = None,
        port: int = 0,
        listener: socket.socket | None = None,
        origins: Collection[str] = (),
        processes: bool = False,
        may_join: Callable[[str, str], bool],
    ) -> None:
        options = {"history": history, "balance": balance, "persistence": persistence}
        unusual = {name: options[name] for name in options if options[name] != USUAL[name]}
        kind = MergedTrace if processes else Trace
        self.trace = kind(broker=broker, servers=list(servers), game=game, **unusual)
        self.redis: RedisBackend | None = None
        if broker != "none":
            self.redis = redis_backend(redis, persistence)
        self.balancer = Balancer(
            POLICIES[balance](), port=port, listener=listener, trace=self.trace
        )
        self.servers: dict[str, Server] = {}
        self.lines: dict[str, Line] = {}  # each server's line to Redis
        self.changes = Changes()  # of what runs
        self._broker = broker
        self._history = history
        self._canary = canary or Canary()
        self._limits = limits or Limits()
        self._moves: set[asyncio.Task[None]] = set()  # of players, away from deaf servers
        self._first = list(servers)
        self._taken = {*PART_NAMES, *servers}  # names that no player may have; it grows
        self._origins = origins
        self._ask_may_join = may_join
        self._running = AsyncExitStack()

    async def start(self) -> None:
        """Start Redis, the balancer and the servers. What had started ends again on an error."""
        try:
            if self.redis:
                await self._running.enter_async_context(self.redis)
            await self._running.enter_async_context(self.balancer)
            self._running.push_async_callback(self._stop_servers)
            await self._start_servers()
        except BaseException:
            await self._running.aclose()
            raise

    async def collect(self) -> None:
        """Return once the trace has what has happened up to now."""
        if isinstance(self.trace, MergedTrace):
            await self.trace.collect()

    async def stop(self) -> None:
        """End everything, in whatever state it is."""
        await self._running.aclose()

    async def give_up_what_is_frozen(self) -> None:
        """Let nobody wait for the answer of a part that gives none."""
        if isinstance(self.redis, OwnRedis) and self.redis.state == "frozen":
            self.redis.thaw()
        for server in self.servers.values():
            if server.state == "frozen":
                await server.kill()

    async def _start_servers(self) -> None:
        """One after the other, or processes all at once: Python takes its time to start."""
        if isinstance(self.trace, MergedTrace):
            async with asyncio.TaskGroup() as group:
                for name in self._first:
                    group.create_task(self._start_server(name))
        else:
            for name in self._first:
                await self._start_server(name)

    async def _stop_servers(self) -> None:
        for move in self._moves:
            move.cancel()
        await asyncio.gather(*self._moves, return_exceptions=True)
        for server in self.servers.values():
            await server.stop()

    # Servers

    def server(self, name: str) -> Server:
        """The server of that name. Raises `ValueError`, listing those there are."""
        check_known("server", name, self.servers)
        return self.servers[name]

    def states(self) -> dict[str, ServerState]:
        """What each server is: up, down or frozen."""
        return {name: server.state for name, server in self.servers.items()}

    def conditions(self) -> dict[str, str]:
        """What each part that can be broken is, Redis and the links to it included."""
        links = {f"link of {name}": str(line.is_cut) for name, line in self.lines.items()}
        return {**self.states(), "redis": self.redis_state, **links}

    def are(self, state: ServerState) -> list[Server]:
        """The servers that are in this state."""
        return [server for server in self.servers.values() if server.state == state]

    async def add_server(self, name: str) -> None:
        """One more, behind the same balancer."""
        if len(self.servers) >= MAX_SERVERS:
            raise RuntimeError(f"A cluster has at most {MAX_SERVERS} servers; use those there are.")
        self._require_redis_for(f"server {name}")
        self._taken.add(name)
        try:
            await self._start_server(name, added=True)
        except BaseException:
            self._taken.discard(name)
            raise
        self.changes.announce()

    async def kill_server(self, name: str) -> None:
        """Cut its sockets and its link to the broker, and let it listen no more."""
        server = self.server(name)
        if server.state == "down":
            raise RuntimeError(
                f"Server {name} is down already; `await cluster.restart_server({name!r})` first."
            )
        if server.state == "up" and can_freeze():
            server.freeze()  # so that nothing it does comes after its end
        self.trace.append("fault", name, reason="killed")
        await server.kill()
        self.changes.announce()

    async def restart_server(self, name: str) -> None:
        """Start another process, as it were, on the same port."""
        server = self.server(name)
        self._require_redis_for(f"server {name}")
        if server.state != "down":
            await self.kill_server(name)
        if isinstance(server, ServerProcess):
            await server.ended()  # if somebody else has ended it, that comes first in the trace
        else:
            await server.stop()  # which lets go of the port
        self.trace.append("heal", name, reason="restarted")  # before the first player is back
        try:
            await self._start_server(name, server.port)
        except BaseException:
            self.trace.append("fault", name, reason="killed")
            raise
        self.changes.announce()

    async def freeze_server(self, name: str) -> None:
        """Let it stand still."""
        server = self.server(name)
        if server.state == "frozen":
            raise RuntimeError(
                f"Server {name} is frozen already; `await cluster.thaw_server({name!r})` first."
            )
        if server.state == "down":
            raise RuntimeError(
                f"Server {name} is down; `await cluster.restart_server({name!r})` first."
            )
        server.freeze()
        self.trace.append("fault", name, reason="frozen")
        self.changes.announce()

    async def thaw_server(self, name: str) -> None:
        """Let it go on."""
        server = self.server(name)
        if server.state != "frozen":
            raise RuntimeError(
                f"Server {name} is {server.state}, not frozen; "
                f"`await cluster.freeze_server({name!r})` first."
            )
        self.trace.append("heal", name, reason="thawed")
        server.thaw()
        self.changes.announce()

    async def _start_server(self, name: str, port: int = 0, added: bool = False) -> None:
        own = [f"http://{host}:{self.balancer.port}" for host in ("127.0.0.1", "localhost")]
        origins = [*own, *self._origins]
        server = (
            self._new_process(name, port, origins, self.trace)
            if isinstance(self.trace, MergedTrace)
            else self._new_server(name, port, origins)
        )
        await server.start()
        self.servers[name] = server
        if added:
            self.trace.about["servers"].append(name)  # a picture has room for it from the beginning
            self.trace.append("start", name)
        self.balancer.add(name, "127.0.0.1", server.port)

    def _new_server(self, name: str, port: int, origins: Collection[str]) -> GameServer:
        return GameServer(
            name,
            self._new_broker(name),
            port=port,
            origins=origins,
            reserved_names=self._taken,
            may_join=self._may_join,
            on_hearing_change=self._hearing_changed,
            limits=self._limits,
            canary=self._canary,
            trace=self.trace,
        )

    def _new_process(
        self, name: str, port: int, origins: Collection[str], trace: MergedTrace
    ) -> ServerProcess:
        line, before = self.lines.setdefault(name, Line()), self.servers.get(name)
        orders = Orders(
            name=name,
            port=port,
            broker=self._broker,
            redis=self.redis.url if self.redis else "",
            prefix=self.redis.prefix if self.redis else "",
            history=self._history,
            link_is_cut=line.is_cut,
            origins=list(origins),
            reserved_names=sorted(self._taken),
            limits=self._limits,
            canary=self._canary,
            began=trace.began,
        )
        return ServerProcess(
            orders,
            trace,
            may_join=self._may_join,
            on_hearing_change=self._hearing_changed,
            on_end=lambda: self._has_ended(name),
            predecessor=before if isinstance(before, ServerProcess) else None,
        )

    async def _may_join(self, player: str, request: str) -> bool:
        """Asked by a server, of somebody whom it does not know itself."""
        return player not in self._taken and self._ask_may_join(player, request)

    def _has_ended(self, name: str) -> None:
        """A server's process is not there any more, and nobody here has ended it."""
        self.trace.append("fault", name, reason="killed")
        self.changes.announce()

    def _hearing_changed(self) -> None:
        """A server is deaf, or hears again: its players are better off where they can be heard."""
        for name, server in self.servers.items():
            self.balancer.set_ready(name, server.hears)
        self.changes.announce()
        move = asyncio.create_task(self._move_from_the_deaf())
        self._moves.add(move)
        move.add_done_callback(self._moves.discard)

    async def _move_from_the_deaf(self) -> None:
        for server in self.are("up"):
            # It says so only after a while; if Redis itself is gone, nobody hears.
            if server.hears and await server.hears_now():
                break
        else:
            return
        await asyncio.gather(*(deaf.send_away() for deaf in self.are("up") if not deaf.hears))

    def _new_broker(self, server: str) -> Broker:
        if self.redis is None:
            return LocalBroker()
        return new_broker(
            self._broker,
            self.redis.broker_client(self.lines.setdefault(server, Line())),
            server=server,
            prefix=self.redis.prefix,
            history=self._history,
            trace=self.trace,
        )

    def line(self, server: str) -> Line:
        """A server's line to Redis. Raises `ValueError`, and `RuntimeError` where there is none."""
        check_known("server", server, self.servers)
        if self.redis is None:
            raise RuntimeError(self.redis_cannot)
        return self.lines[server]

    def is_cut_from_redis(self, server: str) -> bool:
        """Whether this server's link to Redis is cut."""
        return server in self.lines and self.lines[server].is_cut

    async def cut_redis_link(self, server: str) -> None:
        """Cut a server's line to Redis."""
        line = self.line(server)
        if line.is_cut:
            raise RuntimeError(
                f"Server {server}'s link to Redis is cut already; "
                f"`await cluster.mend_redis_link({server!r})` first."
            )
        self.trace.append("fault", server, "redis", reason="link cut")
        line.cut()
        if isinstance(process := self.servers[server], ServerProcess):
            await process.cut_redis_link()
        self.changes.announce()

    async def mend_redis_link(self, server: str) -> None:
        """Let the server reach Redis again."""
        line = self.line(server)
        if not line.is_cut:
            raise RuntimeError(
                f"Server {server}'s link to Redis is not cut; "
                f"`await cluster.cut_redis_link({server!r})` first."
            )
        self.trace.append("heal", server, "redis", reason="link mended")
        line.mend()
        if isinstance(process := self.servers[server], ServerProcess):
            await process.mend_redis_link()
        self.changes.announce()

    async def lose_redis_replies(self, server: str, replies: int) -> None:
        """Let so many replies to the server's events be lost, each with its connection."""
        line = self.line(server)
        if replies and line.replies_to_lose is not None:
            raise RuntimeError(
                f"Replies to server {server} are lost already; "
                f"`cluster.lose_redis_replies({server!r}, 0)` first."
            )
        if replies:
            self.trace.append("fault", server, "redis", reason="reply lost", replies=replies)
        elif line.replies_to_lose is not None:
            self.trace.append("heal", server, "redis", reason="reply lost")
        line.replies_to_lose = replies or None
        if isinstance(process := self.servers[server], ServerProcess):
            await process.lose_redis_replies(line.replies_to_lose)

    # Redis

    @property
    def redis_state(self) -> str:
        """Up, down or frozen; empty without one."""
        return self.redis.state if self.redis else ""

    @property
    def redis_cannot(self) -> str:
        """Why Redis can be neither stopped nor frozen; empty if it can."""
        if self.redis is None:
            return 'There is no Redis in this cluster; `open_cluster(broker="pubsub")` has one.'
        return self.redis.cannot

    async def stop_redis(self, keep: bool = False) -> None:
        """End it in good order, its data kept for the next start or forgotten."""
        redis = self._running_redis()
        more = {"keep": True} if keep else {}
        self.trace.append("fault", "redis", reason="stopped", **more)
        await redis.shut_down(keep=keep)
        self.changes.announce()

    async def kill_redis(self, power_cut: bool) -> None:
        """End it at once, by itself or with its machine."""
        redis = self._running_redis()
        self.trace.append("fault", "redis", reason="power cut" if power_cut else "killed")
        await redis.crash(power_cut=power_cut)
        self.changes.announce()

    async def start_redis(self) -> None:
        """Start it again, on its port, with the data that was kept."""
        redis = self._own_redis()
        if redis.state != "down":
            raise RuntimeError("Redis has started already; `await cluster.stop_redis()` first.")
        self.trace.append("heal", "redis", reason="started")  # before the first server is back
        try:
            await redis.start()
        except BaseException:
            self.trace.append("fault", "redis", reason="stopped")
            raise
        self.changes.announce()

    async def freeze_redis(self) -> None:
        """Let it stand still."""
        redis = self._own_redis()
        if redis.state != "up":
            cure = "thaw_redis" if redis.state == "frozen" else "start_redis"
            raise RuntimeError(f"Redis is {redis.state} already; `await cluster.{cure}()` first.")
        redis.freeze()
        self.trace.append("fault", "redis", reason="frozen")
        self.changes.announce()

    async def thaw_redis(self) -> None:
        """Let it go on."""
        redis = self._own_redis()
        if redis.state != "frozen":
            raise RuntimeError(
                f"Redis is {redis.state}, not frozen; `await cluster.freeze_redis()` first."
            )
        self.trace.append("heal", "redis", reason="thawed")
        redis.thaw()
        self.changes.announce()

    def _running_redis(self) -> OwnRedis:
        redis = self._own_redis()
        if redis.state == "down":
            raise RuntimeError("Redis is down already; `await cluster.start_redis()` first.")
        return redis

    def _own_redis(self) -> OwnRedis:
        if not isinstance(self.redis, OwnRedis):
            raise RuntimeError(self.redis_cannot)
        return self.redis

    def _require_redis_for(self, what: str) -> None:
        if self.redis_state in ("down", "frozen"):
            cure = "thaw_redis" if self.redis_state == "frozen" else "start_redis"
            raise RuntimeError(
                f"Redis is {self.redis_state}, and {what} cannot start without it; "
                f"`await cluster.{cure}()` first."
            )


def check_known(what: str, choice: str, choices: Collection[str]) -> None:
    """Raises `ValueError`, listing what there is, if the choice is not among it."""
    if choice not in choices:
        raise ValueError(
            f"unknown {what} {choice!r}; there are: {', '.join(choices) or 'none yet'}"
        )
