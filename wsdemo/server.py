"""A game server: WebSocket connections on one side, a broker on the other.

What a player says goes to the broker, and only what comes back from the broker goes to the players,
the sender included. So all players, on every server, hear the events in the broker's order.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any, Literal

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.typing import Origin

from wsdemo.brokers import Broker, BrokerDown, GameFull, Resumption
from wsdemo.changes import Changes
from wsdemo.connection import Connection, broadcast
from wsdemo.lifetime import Lifetime, end
from wsdemo.limits import Allowance, Limits
from wsdemo.metrics import Counts, exposition
from wsdemo.ports import BACKLOG, accept_no_more, address, bound_socket, is_loopback
from wsdemo.protocol import (
    Ack,
    BadMessage,
    Close,
    Error,
    ErrorCode,
    Event,
    FromServer,
    Join,
    Leave,
    Position,
    Send,
    Stored,
    Sync,
    Synced,
    Welcome,
    decode_event,
    decode_from_client,
    encode,
    event_name,
    numbered,
)
from wsdemo.sparing_log import SparingLog
from wsdemo.tokens import BadToken, check_secret, verify
from wsdemo.trace import Kind, Trace

__all__ = ["Canary", "GameServer", "ServerState"]

_log = logging.getLogger("wsdemo.server")

MAX_ORIGIN_SHOWN = 100  # characters
MAX_ORIGINS_LOGGED = 100
STRAGGLE = 2.0  # seconds that a client has to answer a close before its connection is cut

ServerState = Literal["up", "down", "frozen"]


@dataclass(frozen=True)
class Canary:
    """How a server finds out that it is deaf: what it says to itself does not come back.

    It tries `every` so many seconds, and is deaf if it has not heard itself for more than `bound`
    seconds and twice in a row: once may be a loop that was kept busy.
    """

    every: float = 0.5
    bound: float = 2.0


@dataclass
class _Game:
    players: dict[str, Connection] = field(default_factory=dict)
    written: int = 0  # bytes relayed since the last look at who does not read
    arriving: set[str] = field(default_factory=set)  # named, and waiting for the subscription


@dataclass(slots=True)
class _Visit:
    connection: Connection
    request: str
    allowance: Allowance
    game: str = ""
    player: str = ""
    welcomed: bool = False
    joined: bool = False
    bad_messages: int = 0


class GameServer(Lifetime):
    """Holds the connections of its players, and is told of all others' events by its broker.

    With a `join_secret`, a player must bring a token that is signed with it; without one, only this
    machine may be able to reach the server: else there is a `ValueError`. If `games` are named,
    there are no others.

    `may_join` is asked with a player's name and the request it came with: a server alone knows only
    its own players, and whoever runs several may know of one with that name elsewhere.

    Over HTTP, `/healthz` is answered with 200; `/readyz` too, but with 503 while the server drains
    or is deaf: while what is said on other servers does not reach it, or would not. `/metrics`
    gives its `counts`. `on_hearing_change` is called each time that changes.
    """

    def __init__(
        self,
        name: str,
        broker: Broker,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        origins: Collection[str] = (),
        games: Collection[str] = (),
        join_secret: bytes = b"",
        reserved_names: Collection[str] = (),
        may_join: Callable[[str, str], Awaitable[bool]] | None = None,
        on_hearing_change: Callable[[], None] = lambda: None,
        limits: Limits | None = None,
        canary: Canary | None = None,
        trace: Trace | None = None,
    ) -> None:
        if not join_secret and not is_loopback(host):
            raise ValueError(
                f"other machines can reach {host}, and nobody has to say who they are: give the "
                "server a join secret, or let it listen on 127.0.0.1"
            )
        self.name = name
        self._broker = broker
        self._host = host
        self._port = port
        self._origins = origins
        self._admitted: frozenset[str] = frozenset()  # origins whose pages may connect
        self._refused: set[str] = set()  # that were logged
        self._known_games = frozenset(games)
        self._join_secret = join_secret and check_secret(join_secret)
        self._reserved_names = reserved_names
        self._may_join = may_join
        self._on_hearing_change = on_hearing_change
        self._limits = limits or Limits()
        broker.max_players = self._limits.max_players
        self._canary = canary or Canary()
        self._watching: asyncio.Task[None] | None = None
        self.counts = Counts()
        self._log = SparingLog(_log)
        self._drains = False
        self.hears = True
        """Whether it is told of what is said on other servers, as far as it knows."""
        self._trace = trace
        self._games: dict[str, _Game] = {}
        self._visits: dict[int, _Visit] = {}  # by the id of the connection
        self._written = 0  # bytes relayed to all since the last look at how much waits for all
        self._sockets: set[Connection] = set()  # those in their handshake too
        self._gate = broker.gate
        self._kept_port: socket.socket | None = None
        self._changes = Changes()
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Where players connect."""
        return f"ws://{address(self._host, self._port)}"

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        return self._port

    def players(self, game: str) -> list[str]:
        """The names of this server's players in a game, in the order in which they joined."""
        return list(self._games[game].players) if game in self._games else []

    @property
    def calls(self) -> set[str]:
        """The requests of the clients that are connected, as `/?player=P1&call=2`."""
        return {visit.request for visit in self._visits.values()}

    @property
    def state(self) -> ServerState:
        """Whether it runs, is not (or no longer) there, or stands still."""
        if self._server is None:
            return "down"
        return "frozen" if self._gate.is_shut else "up"

    async def start(self) -> None:
        """Reach the broker, then listen. Raises `BrokerDown`, or `OSError` if the port is taken."""
        listener = bound_socket(self._host, self._port)
        self._port = listener.getsockname()[1]
        own = [f"http://{address(host, self._port)}" for host in (self._host, "localhost")]
        self._admitted = frozenset([*own, *self._origins])
        try:
            await self._broker.start(self.relay, self.skip)
            self._server = await serve(
                self._handle,  # type: ignore[arg-type]  # its connections are made below
                sock=listener,
                origins=[None, *map(Origin, self._admitted)],
                create_connection=partial(  # type: ignore[arg-type]  # any factory will do
                    Connection, self._gate, self._sockets, self._limits, self.counts.reach
                ),
                backlog=BACKLOG,
                compression=None,  # small frames gain nothing from it, and it costs 50 KiB each
                max_size=self._limits.max_message,
                open_timeout=self._limits.seconds_to_join,
                close_timeout=1,
                process_request=self._report,
                logger=_log,
            )
        except BaseException:
            listener.close()
            await self._broker.stop()
            raise
        if self._broker.hub:
            self._watching = asyncio.create_task(self._watch(), name=f"{self.name} hears itself")

    def freeze(self) -> None:
        """Stand still, as a process does between SIGSTOP and SIGCONT, until `thaw`.

        Nothing that clients or the broker say is looked at, and nothing is said to them; new
        clients get a TCP connection and then no answer. From a client that talks on, up to 256 KiB
        are kept, then its socket is read no more and the client is held up; what a broker keeps, it
        says itself.

        Unlike a real process it still reads, only to keep, and its timers go on: a handshake is
        given up after 10 s, and a connection without a pong after 20 to 40 s (`Limits`), with what
        its client had said meanwhile. That is about when a client with a keep-alive of its own, as
        a `Player` is, would give up too.
        """
        self._gate.shut()

    def thaw(self) -> None:
        """Go on, with all that has waited, in the order in which it came."""
        self._gate.open()

    async def kill(self) -> None:
        """End as a process does that is killed: sockets are cut, and nothing more is done.

        The port is kept, so that nobody else can take it before a next server does; `stop` lets go
        of it. Unlike a real process it still records which players it had, as its last deed.
        """
        server, self._server = self._server, None
        if server is None:
            return
        if self._watching:
            self._watching.cancel()
        self._broker.forsake()
        self._gate.drop()
        self._cut_sockets()
        for handler in tuple(server.handler_tasks):
            handler.cancel()
        for visit in self._visits.values():
            self._deregister(visit)
        self._trace = None
        self._visits.clear()
        self._games.clear()
        self._changes.announce()
        await accept_no_more(server.server)
        server.server.close()
        with suppress(OSError):  # somebody was quicker: then a restart will say so
            self._kept_port = bound_socket(self._host, self._port)  # bound only: calls are refused
        self._cut_sockets()  # of those who called in this very moment
        server.close(close_connections=False)
        await server.wait_closed()
        await end(self._watching)
        await self._broker.stop()

    async def stop(self) -> None:
        """Close every connection, those that do not answer by force, and let go of the broker."""
        if self._kept_port:
            self._kept_port.close()
            self._kept_port = None
            return
        self.thaw()
        await end(self._watching)
        server, self._server = self._server, None
        if server:
            await accept_no_more(server.server)
            server.close(code=Close.GOING_AWAY)
            for connection in tuple(self._sockets):
                if connection.state is State.CONNECTING or connection.waiting:
                    connection.transport.abort()  # it would not read the close
            await server.wait_closed()
        await self._broker.stop()

    def _cut_sockets(self) -> None:
        for connection in tuple(self._sockets):
            connection.transport.abort()

    def relay(
        self, game: str, payload: bytes, seq: int | None = None, player: str = "", hops: int = 0
    ) -> None:
        """Write an event to each of this server's players in the game, or to one."""
        try:
            event = decode_event(payload)
        except BadMessage as error:  # somebody else publishes on our channel
            self._log.warning("server %s drops what is not an event: %s", self.name, error)
            return
        frame = payload if seq is None else numbered(payload, seq)
        room = self._games.get(game) or _Game()
        players = self._addressed(room, player)
        if self._trace is not None:
            said = event_name(event.player, event.id)
            text = frame.decode(errors="replace")
            data = {"hops": hops} if seq is None else {"hops": hops, "seq": seq}
            self._record("relay", self._broker.hub, said, game=game, frame=text, **data)
            for name, connection in players.items():
                if connection.state is State.OPEN:
                    self._record("deliver", name, said, game=game)
        broadcast(players.values(), frame)
        self._count(room, len(players), len(frame))

    def skip(self, game: str, position: Position, reason: str, player: str = "") -> None:
        """Tell players that events are lost, if there is a reason, and where it goes on."""
        self.counts.gaps += bool(reason)
        players = self._addressed(self._games.get(game) or _Game(), player)
        if reason:
            for name in players:
                self._record_gap(game, name, position, reason)
        welcome = self._welcome(game, Resumption(position, recovered=not reason, reason=reason))
        broadcast(players.values(), encode(welcome))

    def _addressed(self, room: _Game, player: str) -> dict[str, Connection]:
        if not player:
            return room.players
        return {player: room.players[player]} if player in room.players else {}

    async def drain(self, seconds: float) -> None:
        """Take no more players, and send away those that are here, over so many seconds."""
        self._drains = True
        await self.send_away(seconds, "draining")

    async def send_away(self, seconds: float = 0.5, why: str = "deaf") -> None:
        """Close all connections, over so many seconds, so that they do not return all at once.

        Each has its own part of that time, and a moment in it by chance: several servers that do
        this are not in step. Who does not answer the close is cut off, STRAGGLE seconds later.
        """
        visits = list(self._visits.values())

        async def close(number: int, connection: ServerConnection) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds * (number + random.random()) / len(visits)):
                    await connection.wait_closed()  # it goes by itself
            try:
                async with asyncio.timeout(STRAGGLE):
                    await connection.close(Close.RESTARTING, f"server {self.name} is {why}")
            except TimeoutError:
                connection.transport.abort()

        await asyncio.gather(*(close(n, visit.connection) for n, visit in enumerate(visits)))

    async def hears_now(self) -> bool:
        """Whether it hears itself in this moment."""
        return await self._broker.hears_itself(self._canary.bound)

    async def _watch(self) -> None:
        """Find out whether this server is deaf, for as long as it lives."""
        clock = asyncio.get_running_loop().time
        heard_at, failures = clock(), 0
        while True:
            await asyncio.sleep(self._canary.every)
            await self._gate.passed()
            heard = await self._broker.hears_itself(self._canary.bound)
            if heard:
                heard_at, failures = clock(), 0
            else:
                failures += 1
            is_deaf = failures > 1 and clock() - heard_at > self._canary.bound
            if is_deaf:
                self._broker.listen_anew()
            if (self.hears and is_deaf) or (heard and not self.hears):
                self.hears = heard
                kind: Kind = "heal" if heard else "fault"
                self._record(kind, self._broker.hub, reason="hears again" if heard else "deaf")
                self._on_hearing_change()

    def _report(self, connection: ServerConnection, request: Request) -> Response | None:
        match request.path:
            case "/healthz":
                return connection.respond(HTTPStatus.OK, "alive\n")
            case "/readyz" if self._drains:
                return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "draining\n")
            case "/readyz" if not self.hears:
                return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "deaf\n")
            case "/readyz" if self._is_full():
                return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "full\n")
            case "/readyz":
                return connection.respond(HTTPStatus.OK, "ready\n")
            case "/metrics":
                self.counts.broker_messages = self._broker.received
                text = exposition(self.counts, self._gauges).decode()
                return connection.respond(HTTPStatus.OK, text)
        if self._drains:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "draining\n")
        for origin in request.headers.get_all("Origin"):
            if origin not in self._admitted:
                return self._refuse_origin(connection, origin)
        if self._is_full():
            words = self._over("max_connections", "connections")
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{words}\n")
        return None

    def _refuse_origin(self, connection: ServerConnection, origin: str) -> Response:
        """The library would refuse it too, and not say what helps: no page sees why."""
        self.counts.origins_refused += 1
        shown = ascii(origin[:MAX_ORIGIN_SHOWN])
        if shown not in self._refused and len(self._refused) < MAX_ORIGINS_LOGGED:
            self._refused.add(shown)
            _log.warning("server %s refuses pages of the origin %s", self.name, shown)
        words = f"pages of the origin {shown} may not connect, unless the server names it (origin)"
        return connection.respond(HTTPStatus.FORBIDDEN, f"{words}\n")

    def _is_full(self) -> bool:
        return len(self._visits) >= self._limits.max_connections

    def _over(self, limit: str, what: str) -> str:
        """What to say of a limit that is reached, which is counted."""
        self.counts.reach(limit)
        return f"at most {getattr(self._limits, limit):g} {what} ({limit})"

    def _gauges(self) -> dict[str, tuple[str, float]]:
        players = sum(len(game.players) for game in self._games.values())
        return {
            "connected_clients": ("Clients that are connected.", len(self._visits)),
            "players": ("Players that are in a game here.", players),
            "games": ("Games that have players here.", len(self._games)),
            "tasks": ("Tasks of the process's event loop.", len(asyncio.all_tasks())),
            "hears": ("1 if what other servers say reaches this one.", self.hears),
        }

    async def sync(self) -> None:
        """Return once what was received before this call is published, and relayed here, or lost.

        Raises `BrokerDown` if the broker does not answer.
        """
        await self._broker.sync()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of this server's players."""
        await self._changes.until(condition)

    async def _handle(self, connection: Connection) -> None:
        """One client's visit, from its first frame to its last."""
        if self._drains or self._is_full():  # since it was let in
            words = "draining" if self._drains else self._over("max_connections", "connections")
            await connection.close(Close.TRY_AGAIN_LATER, words)
            return
        request = connection.request.path if connection.request else ""
        visit = _Visit(connection, request, Allowance(self._limits.max_rate, monotonic()))
        self._visits[id(connection)] = visit
        self.counts.connections += 1
        try:
            async with asyncio.timeout(self._limits.seconds_to_join):
                while not visit.joined:
                    await self._answer(visit, await connection.recv())
            async for frame in connection:
                await self._answer(visit, frame)
        except TimeoutError:
            await self._gate.passed()
            reason = self._over("seconds_to_join", "seconds to join")
            await connection.close(Close.POLICY, reason)
        except ConnectionClosed:
            pass  # the client has gone without a goodbye
        finally:
            await self._release(visit)

    async def _answer(self, visit: _Visit, frame: str | bytes) -> None:
        await self._gate.passed()
        if not visit.allowance.take(monotonic()):
            words = self._over("max_rate", "messages a second")
            await self._reject(visit, "too-fast", f"{words}; this one is lost")
            return
        try:
            message = decode_from_client(frame)
        except BadMessage as error:
            await self._reject(visit, "bad-message", str(error))
            return
        match message:
            case Join() if visit.joined:
                await self._reject(visit, "already-joined", f"you are {visit.player} already")
            case Join():
                await self._join(visit, message)
            case _ if not visit.joined:
                await self._reject(visit, "join-first", 'the first message must be a "join"')
            case Send():
                await self._publish(visit, message, frame)
            case Sync():
                await self._sync(visit, message)
            case Leave():
                self._record("leave", visit.player, game=visit.game)
                self._deregister(visit)  # first, so that whoever sees the close may join again
                with suppress(BrokerDown):
                    await self._broker.forget(visit.game, visit.player)
                await visit.connection.close(Close.DONE)
            case Ack():
                self._broker.acknowledge(visit.game, visit.player, message.seq)

    async def _join(self, visit: _Visit, join: Join) -> None:
        """Register the player once its game's events reach this server, not before."""
        if visit.connection.state is not State.OPEN:
            return  # it said so with its goodbye, or after it has left
        if self._known_games and join.game not in self._known_games:
            await self._reject(visit, "no-such-game", f"there is no game {join.game} here")
            return
        try:
            if self._join_secret:
                verify(self._join_secret, join.token, join.game, join.player)
        except BadToken as error:
            self.counts.tokens_refused += 1
            await self._reject(visit, "bad-token", str(error))
            return
        if join.player == self.name or join.player in self._reserved_names:
            await self._reject(visit, "name-taken", f"{join.player} is not a name for a player")
            return
        if self._may_join and not await self._may_join(join.player, visit.request):
            await self._reject(visit, "name-taken", f"there is a {join.player} in the game already")
            return
        game = self._games.get(join.game) or _Game()
        if join.player in game.players or join.player in game.arriving:
            await self._reject(visit, "name-taken", f"there is a {join.player} in the game already")
            return
        if len(game.players) + len(game.arriving) >= self._limits.max_players:
            words = self._over("max_players", "players of a game on this server")
            await self._reject(visit, "game-full", words)
            return
        self._games[join.game] = game
        visit.game, visit.player = join.game, join.player
        game.arriving.add(join.player)
        resumption: Resumption | None = None
        try:
            await self._broker.subscribe(join.game)
            resumption = await self._resume(visit, join)
        except BrokerDown as error:
            await self._say(visit, Error("broker-down", f"{error}; try again later"))
            await visit.connection.close(Close.TRY_AGAIN_LATER, "the broker is down")
            return
        except GameFull:
            pass  # it is said below, once the player is not arriving any more
        finally:
            game.arriving.discard(join.player)
        if resumption is None:
            await self._let_go(visit)
            words = self._over("max_players", "players of a game, with those who are away")
            await self._reject(visit, "game-full", words)
            return
        if visit.connection.state is not State.OPEN:
            self._broker.detach(join.game, join.player)
            return  # it gave up waiting, and may be on another server by now
        # Without a pause from here on: what is relayed next must come after what has been missed.
        game.players[join.player] = visit.connection
        visit.joined = True
        self.counts.joins += 1
        self._record("join", join.player, game=join.game)
        self._replay(visit, resumption)
        self._changes.announce()

    async def _resume(self, visit: _Visit, join: Join) -> Resumption:
        """What is to be said to a player who joins, but for the last part of a long history."""
        resumption = await self._broker.resume(join.game, join.player, join.resume)
        while resumption.has_more and visit.connection.state is State.OPEN:
            self._replay(visit, resumption)
            await visit.connection.drain()
            resumption = await self._broker.resume(join.game, join.player, resumption.end)
        return resumption

    def _replay(self, visit: _Visit, resumption: Resumption) -> None:
        """Welcome a player, and write what it has missed."""
        position, game, player = resumption.position, visit.game, visit.player
        if position and not resumption.recovered:  # also if it has not said what it has heard
            self._record_gap(game, player, position, resumption.reason)
        frames = []
        if not visit.welcomed or resumption.recovered is False:
            frames.append(encode(self._welcome(game, resumption)))
            visit.welcomed = True
        for seq, payload in resumption.missed:
            frames.append(numbered(payload, seq))
            if self._trace is not None:
                event = decode_event(payload)
                said = event_name(event.player, event.id)
                text = frames[-1].decode(errors="replace")
                self._record("replay", player, said, game=game, frame=text)
        for frame in frames:
            broadcast([visit.connection], frame)

    def _welcome(self, game: str, resumption: Resumption) -> Welcome:
        position = resumption.position
        return Welcome(
            self.name,
            game,
            epoch=position.epoch if position else None,
            seq=position.seq if position else None,
            recovered=resumption.recovered,
            reason=resumption.reason,
            acks=self._broker.wants_acks,
        )

    def _record_gap(self, game: str, player: str, position: Position, reason: str) -> None:
        """Events before this position will never come to the player."""
        self._record(
            "gap", player, game=game, epoch=position.epoch, seq=position.seq, reason=reason
        )

    async def _publish(self, visit: _Visit, send: Send, frame: str | bytes) -> None:
        event = Event(send.id, visit.player, send.body)
        said, game = event_name(visit.player, send.id), visit.game
        self.counts.events_received += 1
        self._record("receive", visit.player, said, game=game, body=event.body, frame=frame)
        try:
            receipt = await self._broker.publish(visit.game, encode(event), said)
        except BrokerDown as error:
            self.counts.events_unpublished += 1
            self._record("unpublished", self._broker.hub, said, game=game, reason=str(error))
            await self._say(visit, Error("broker-down", str(error), event.id))
            return
        if receipt.position:
            stored = {"epoch": receipt.position.epoch, "seq": receipt.position.seq}
            if receipt.kept is not None:
                stored["kept"] = receipt.kept
            self._record(
                "store",
                self._broker.hub,
                said,
                game=game,
                is_new=receipt.is_new,
                **stored,
            )
            await self._say(visit, Stored(send.id, receipt.position.seq))
        elif self._broker.hub:
            self._record("publish", self._broker.hub, said, game=game, receivers=receipt.receivers)

    async def _sync(self, visit: _Visit, sync: Sync) -> None:
        try:
            await self._broker.sync()
        except BrokerDown as error:
            await self._say(visit, Error("broker-down", str(error), sync.id))
            return
        await self._say(visit, Synced(sync.id))

    async def _release(self, visit: _Visit) -> None:
        """Forget a client that has gone, and its game with the last of its players."""
        self._deregister(visit)
        await self._let_go(visit)
        self._visits.pop(id(visit.connection), None)  # it is gone already if the server was killed
        self._changes.announce()

    async def _let_go(self, visit: _Visit) -> None:
        """Hear nothing more of a game in which nobody is left."""
        game = self._games.get(visit.game)
        if game and not game.players and not game.arriving:
            del self._games[visit.game]
            await self._broker.unsubscribe(visit.game)

    def _deregister(self, visit: _Visit) -> None:
        """From here on, no event is for this connection."""
        if visit.joined:
            visit.joined = False
            del self._games[visit.game].players[visit.player]
            self._broker.detach(visit.game, visit.player)
            code = visit.connection.close_code
            self._record("disconnect", visit.player, game=visit.game, code=code)

    async def _reject(self, visit: _Visit, code: ErrorCode, message: str) -> None:
        """Say what was wrong; end the connection of a client that will not learn."""
        self.counts.rejected_messages += 1
        self._record("reject", visit.player, code=code)
        await self._say(visit, Error(code, message))
        visit.bad_messages += 1
        if visit.bad_messages >= self._limits.max_bad_messages:
            words = self._over("max_bad_messages", "bad messages")
            await visit.connection.close(Close.POLICY, words)

    async def _say(self, visit: _Visit, message: FromServer) -> None:
        await visit.connection.send(encode(message), text=True)

    def _count(self, game: _Game, players: int, written: int) -> None:
        """Count an event, and abort whoever does not read: memory would fill for them without end.

        Looks only now and then, so each bound is kept to within a quarter.
        """
        self.counts.events_relayed += 1
        self.counts.deliveries += players
        game.written += written
        self._written += written * players
        if game.written >= self._limits.max_waiting // 4:
            game.written = 0
            for name, connection in game.players.items():
                if connection.waiting > self._limits.max_waiting:
                    self._give_up(name, connection, "max_waiting")
        if self._written >= self._limits.max_waiting_in_all // 4:
            self._written = 0
            self._make_room()

    def _make_room(self) -> None:
        """Let go of those for whom most is waiting, until it is not too much in all."""
        visits = sorted(self._visits.values(), key=lambda visit: visit.connection.waiting)
        waiting = sum(visit.connection.waiting for visit in visits)
        while waiting > self._limits.max_waiting_in_all:
            visit = visits.pop()
            waiting -= visit.connection.waiting
            self._give_up(visit.player, visit.connection, "max_waiting_in_all")

    def _give_up(self, player: str, connection: Connection, limit: str) -> None:
        """Cut a client that does not read."""
        self.counts.reach(limit)
        self._record("fault", player, reason="too slow", bytes_waiting=connection.waiting)
        connection.transport.abort()

    def _record(self, kind: Kind, peer: str, event: str = "", **data: Any) -> None:
        if self._trace is not None:
            self._trace.append(kind, self.name, peer, event, **data)
