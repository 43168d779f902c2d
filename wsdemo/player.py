"""A player: a WebSocket client that says things, hears things, and comes back when cut off."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from wsdemo.protocol import (
    MAX_FRAME,
    Close,
    Error,
    Event,
    FromClient,
    FromServer,
    Join,
    Leave,
    Send,
    Sync,
    Synced,
    Welcome,
    check_body,
    check_name,
    decode_from_server,
    encode,
    event_name,
)
from wsdemo.trace import Kind, Trace

__all__ = ["JoinRefused", "NotConnected", "Player", "full_jitter"]

_log = logging.getLogger("wsdemo.player")

JOIN_TIMEOUT = 5.0  # seconds
STABLE = 5.0  # seconds a connection must last for the next back-off to start from the beginning


class NotConnected(ConnectionError):
    """The player has no connection; the text says what to do about it."""


class JoinRefused(ConnectionError):
    """The server answered the join with an error; the text is the server's."""


def full_jitter(first: float = 0.02, longest: float = 2.0) -> Iterator[float]:
    """Delays in seconds, each drawn evenly from 0 to a bound that doubles.

    Jitter keeps the players of a server that failed from all coming back in the same instant:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    for attempt in itertools.count():
        yield random.uniform(0, min(longest, first * 2 ** min(attempt, 32)))


class Player:
    """One player of one game.

    `heard` holds the events it has heard, in order. `steer`, if given, is called with the request
    of a connection and a server's name when that connection is to go to that one server.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        game: str = "g",
        steer: Callable[[str, str], None] | None = None,
        backoff: Callable[[], Iterator[float]] = full_jitter,
        trace: Trace | None = None,
        events_before: int = 0,
    ) -> None:
        self.name = check_name(name, "player")
        self.game = check_name(game, "game")
        self.heard: list[Event] = []
        self.errors: deque[Error] = deque(maxlen=100)
        self.server: str | None = None
        self.former_calls: set[str] = set()  # requests of connections that have ended
        self._url = url
        self._calls = 0
        self._wish: str | None = None  # the server that the next welcome is to come from
        self._moving = asyncio.Lock()  # one connect, disconnect, reconnect or leave at a time
        self._steer = steer
        self._backoff = backoff
        self._trace = trace
        self.events_said = events_before
        self._sync_numbers = itertools.count(1)
        self._syncs: dict[str, asyncio.Future[Exception | None]] = {}  # what came of each
        self._socket: ClientConnection | None = None
        self._welcomed = asyncio.Event()
        self.left = False
        self._paused = False
        self._stopped = False
        self._known = False  # whether a server has ever welcomed it
        self._life: asyncio.Task[None] | None = None
        self._last_error: Exception | None = None

    @property
    def connected(self) -> bool:
        """Whether a server has welcomed it and the connection still stands."""
        return self._welcomed.is_set()

    @property
    def call(self) -> str:
        """The request with which it has made, or tries to make, its connection."""
        return self._call(self._calls)

    @property
    def coming_back(self) -> bool:
        """Whether it is on its way to a connection."""
        return self._life is not None and not self.connected

    async def connect(self, server: str | None = None) -> None:
        """Connect through the balancer (to this server, if named) and join the game.

        Raises `NotConnected` if no server has welcomed it within 5 s, and `JoinRefused`.
        """
        async with self._moving:
            await self._connect(server)

    async def disconnect(self) -> None:
        """Close the connection, or give up making one, and stay away."""
        if self._life and not self.connected:
            self._life.cancel()  # whoever waits for it is told, and lets go of the lock
        async with self._moving:
            await self._disconnect()

    async def reconnect(self, server: str | None = None) -> None:
        """Drop the connection, if there is one, and make another (to this server, if named)."""
        async with self._moving:
            self._require_running()
            self._wish_for(server)
            await self._disconnect()
            await self._connect(server)

    async def leave(self) -> None:
        """Leave the game for good. On return nothing that is said is for this player any more."""
        async with self._moving:
            socket, server = self._require_connection("leave"), self.server or ""
            await self._say(Leave())
            self.left = True
            try:
                async with asyncio.timeout(JOIN_TIMEOUT):
                    await socket.wait_closed()  # by the server, once it has taken the player out
            except TimeoutError:
                pass
            finally:
                if socket.close_code != Close.DONE:
                    self._record("leave", server)  # the server, frozen or dead, cannot say so
                await self._disconnect()

    async def pause(self) -> None:
        """Disconnect because the run is over, and stay away until `renew`, whoever calls."""
        self._paused = True
        await self.disconnect()

    def renew(self, trace: Trace | None) -> None:
        """Be as at the beginning, for another run: nothing heard, nothing said. Not connected."""
        self._paused = False
        self._trace = trace
        self.heard = []
        self.errors.clear()
        self.events_said = 0
        self.former_calls = set()
        self._wish = None
        self._known = False

    async def stop(self) -> None:
        """Disconnect because the run is over, whatever else is under way."""
        self._stopped = True
        await self._disconnect()

    async def _connect(self, server: str | None) -> None:
        self._require_running()
        if self._life:
            raise RuntimeError(f"{self.name} is connected already; use reconnect()")
        self._wish_for(server)
        self._life = asyncio.create_task(self._live(), name=f"player {self.name}")
        try:
            async with asyncio.timeout(JOIN_TIMEOUT):
                await self.welcomed()
        except TimeoutError as error:
            await self._disconnect()
            why = self._last_error or "no server has answered"
            raise NotConnected(
                f"{self.name} could not join within {JOIN_TIMEOUT:g} s: {why}"
            ) from error
        except BaseException:  # refused, or the cell that waits for it was interrupted
            await self._disconnect()
            raise

    async def _disconnect(self) -> None:
        life, self._life = self._life, None
        if life is None:
            return
        try:
            if self._socket:
                await self._socket.close(Close.DONE)
        finally:
            life.cancel()
        await asyncio.gather(life, return_exceptions=True)

    async def send(self, body: str) -> str:
        """Say something to everyone in the game, oneself included. Returns the event's id.

        Raises `NotConnected`, and `ValueError` for a text that no event can carry.
        """
        self._require_connection("send")
        check_body(body)
        self.events_said += 1
        event = f"{self.name}-{self.events_said}"
        frame = encode(Send(event, body))
        if self._trace is not None:
            self._record("send", self.server or "", event, body=body, frame=frame.decode())
        await self._transmit("send", frame)
        return event

    async def sync(self) -> None:
        """Return when all that was sent before is published, and all published before is heard.

        Raises `NotConnected` if the connection ends first, and `ConnectionError` with the server's
        words if its broker does not answer.
        """
        number = f"sync-{next(self._sync_numbers)}"
        answered = self._syncs[number] = asyncio.get_running_loop().create_future()
        try:
            await self._say(Sync(number))
            error = await answered
        finally:
            del self._syncs[number]
        if error:
            raise error

    async def parted(self) -> None:
        """Return once the connection of a player that has left is closed."""
        if self._life:
            await asyncio.wait({self._life})

    async def welcomed(self) -> None:
        """Return once connected. Raises what made the attempts end, if they have ended."""
        life = self._life
        if life is None:
            raise NotConnected(f"{self.name} is disconnected; call `reconnect()` first")
        waiting = asyncio.create_task(self._welcomed.wait())
        try:
            await asyncio.wait({waiting, life}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if life.cancelled():
            raise NotConnected(f"{self.name} was disconnected before it could join")
        if life.done():
            life.result()

    async def _live(self) -> None:
        """Connect again and again, after a clean close too, until told to stay away."""
        self._last_error = None
        delays = self._backoff()
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                await self._stay_connected()
            except JoinRefused as error:
                self._last_error = error
                if not self._known:
                    raise  # otherwise a server may just not have noticed yet that it has gone
            except (OSError, WebSocketException, TimeoutError) as error:
                self._last_error = error
            if clock() - began > STABLE:
                delays = self._backoff()
            if self.left:
                return
            await asyncio.sleep(next(delays))

    async def _stay_connected(self) -> None:
        self._record("connect", "balancer")
        self._calls += 1
        if self._wish is not None and self._steer is not None:
            self._steer(self.call, self._wish)
        call = self.call
        async with connect(
            self._url + call,
            proxy=None,  # a proxy of the system's knows nothing of this machine's loopback
            compression=None,
            max_size=MAX_FRAME,
            close_timeout=1,
            logger=_log,
        ) as socket:
            await socket.send(encode(Join(self.game, self.name)), text=True)
            self._socket = socket
            try:
                async for frame in socket:
                    self._take(decode_from_server(frame))
            finally:
                self.former_calls.add(call)
                self._part()

    def _take(self, message: FromServer) -> None:
        match message:
            case Event():
                self.heard.append(message)
                said = event_name(message.player, message.id)
                self._record("hear", self.server or "", said)
            case Welcome():
                self.server = message.server
                self._known = True
                self._wish = None
                self._welcomed.set()
                self._record("welcome", message.server)
            case Synced():
                self._settle_sync(message.id, None)
            case Error(id=str(number)) if number in self._syncs:
                self._settle_sync(number, ConnectionError(message.message))
            case Error():
                self.errors.append(message)
                if not self.connected:
                    raise JoinRefused(f"{self.name} could not join: {message.message}")

    def _part(self) -> None:
        """The connection has ended."""
        if self.connected:
            self._record("disconnect", self.server or "")
        self._socket = self.server = None
        self._welcomed.clear()
        for number in self._syncs:
            self._settle_sync(number, NotConnected(f"{self.name} lost its connection"))

    def _settle_sync(self, number: str, error: Exception | None) -> None:
        answered = self._syncs.get(number)
        if answered and not answered.done():
            answered.set_result(error)

    async def _say(self, message: FromClient) -> None:
        await self._transmit(type(message).__name__.lower(), encode(message))

    async def _transmit(self, verb: str, frame: bytes) -> None:
        socket = self._require_connection(verb)
        try:
            await socket.send(frame, text=True)
        except ConnectionClosed as error:
            raise NotConnected(f"{self.name} lost its connection: {error}") from error

    def _require_connection(self, verb: str) -> ClientConnection:
        self._require_running()
        if self._socket is None or not self.connected:
            name = self.name.lower()
            player = name if name.isidentifier() else f"cluster.player({self.name!r})"
            raise NotConnected(
                f"{self.name} cannot {verb} while disconnected; "
                f"call `await {player}.reconnect()` first"
            )
        return self._socket

    def _require_running(self) -> None:
        if self._stopped:
            raise RuntimeError(
                f"{self.name}'s cluster is stopped; open another with `await open_cluster()`"
            )
        if self._paused:
            raise NotConnected(
                f"{self.name}'s cluster is starting anew; wait for `change_broker` to return"
            )
        if self.left:
            raise RuntimeError(
                f"{self.name} has left the game; call `await cluster.join({self.name!r})` first"
            )

    def _wish_for(self, server: str | None) -> None:
        """Be sent to this server, once. Raises `ValueError` if there is none of that name."""
        if server is not None and self._steer is None:
            raise RuntimeError(f"{self.name} has no balancer that could send it to {server}")
        if server is not None and self._steer is not None:
            self._steer(self._call(self._calls + 1), server)
        self._wish = server

    def _call(self, number: int) -> str:
        return f"/?player={quote(self.name)}&call={number}"

    def _record(self, kind: Kind, peer: str, event: str = "", **data: Any) -> None:
        if self._trace is not None:
            self._trace.append(kind, self.name, peer, event, **data)

    def __repr__(self) -> str:
        where = f"on server {self.server}" if self.connected else "disconnected"
        return f"Player {self.name}, {where}, has heard {[event.body for event in self.heard]}"
