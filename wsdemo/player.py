"""A player: a WebSocket client that says things, hears things, and comes back when cut off."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, overload
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from wsdemo.changes import Changes
from wsdemo.gate import Gate
from wsdemo.protocol import (
    MAX_FRAME,
    Ack,
    Close,
    Error,
    Event,
    FromClient,
    FromServer,
    Join,
    Leave,
    Position,
    Send,
    Stored,
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

__all__ = ["Gap", "JoinRefused", "NotConnected", "Player", "full_jitter"]

_log = logging.getLogger("wsdemo.player")

JOIN_TIMEOUT = 5.0  # seconds
STABLE = 5.0  # seconds a connection must last for the next back-off to start from the beginning


class NotConnected(ConnectionError):
    """The player has no connection; the text says what to do about it."""


class JoinRefused(ConnectionError):
    """The server answered the join with an error; the text is the server's."""


class _NotTaken(ConnectionError):
    """The server could not do what it was asked for; the text is the server's."""


@dataclass(frozen=True)
class Gap:
    """Events were lost between these two positions; `reason` is what the server said."""

    after: Position | None
    until: Position | None
    reason: str


def full_jitter(first: float = 0.02, longest: float = 2.0) -> Iterator[float]:
    """Delays in seconds, each drawn evenly from 0 to a bound that doubles.

    Jitter keeps the players of a server that failed from all coming back in the same instant:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    for attempt in itertools.count():
        yield random.uniform(0, min(longest, first * 2 ** min(attempt, 32)))


class Player:
    """One player of one game.

    `heard` holds the events it has heard, in order, each once where they have numbers; `gaps` says
    what it was told that it will never hear. `position` is where its hearing goes on. `steer`, if
    given, is called with the request of a connection and a server's name when that connection is to
    go to that one server. `token` gives what it needs to be let in, each time that it joins.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        game: str = "g",
        steer: Callable[[str, str], None] | None = None,
        backoff: Callable[[], Iterator[float]] = full_jitter,
        token: Callable[[], str] = str,
        trace: Trace | None = None,
        events_before: int = 0,
    ) -> None:
        self.name = check_name(name, "player")
        self.game = check_name(game, "game")
        self.heard: list[Event] = []
        self.gaps: list[Gap] = []
        self.position: Position | None = None
        self.recovered: bool | None = None  # what the last welcome said
        self.errors: deque[Error] = deque(maxlen=100)
        self.server: str | None = None
        self.former_calls: set[str] = set()  # requests of connections that have ended
        self._url = url
        self._calls = 0
        self._wish: str | None = None  # the server that the next welcome is to come from
        self._moving = asyncio.Lock()  # one connect, disconnect, reconnect or leave at a time
        self._steer = steer
        self._backoff = backoff
        self._token = token
        self._trace = trace
        self.events_said = events_before
        self._sync_numbers = itertools.count(1)
        self._answers: dict[str, set[asyncio.Future[int | Exception]]] = {}  # to what it has asked
        self._unconfirmed: list[str] = []  # events; one may be said twice at a time
        self._known_events: set[tuple[str, str]] = set()  # heard, by player and id
        self._acks = False
        self._link = Gate()  # shut while it is cut
        self._reading = Gate()  # shut while it reads nothing
        self._changes = Changes()
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

    @property
    def unconfirmed(self) -> bool:
        """Whether it waits to be told that something it has said is kept."""
        return bool(self._unconfirmed)

    @property
    def is_cut_off(self) -> bool:
        """Whether its link is cut, or it reads nothing."""
        return self._link.is_shut or self._reading.is_shut

    async def connect(self, server: str | None = None) -> None:
        """Connect through the balancer (to this server, if named) and join the game.

        Raises `NotConnected` if no server has welcomed it within 5 s, and `JoinRefused`.
        """
        async with self._moving:
            self._require_running()
            if self._life:
                raise RuntimeError(f"{self.name} is connected already; use reconnect()")
            self._wish_for(server)
            self._record_asked("join", server=server)
            await self._connect(server)

    async def disconnect(self) -> None:
        """Close the connection, or give up making one, and stay away."""
        self._record_asked("disconnect")
        if self._life and not self.connected:
            self._life.cancel()  # whoever waits for it is told, and lets go of the lock
        async with self._moving:
            await self._disconnect()

    async def reconnect(self, server: str | None = None, *, resume: bool = True) -> None:
        """Drop the connection, if there is one, and make another (to this server, if named).

        Without `resume` it does not say up to where it has heard, as a client does that was closed
        and opened anew and has kept nothing.
        """
        async with self._moving:
            self._require_running()
            self._wish_for(server)
            self._record_asked("reconnect", server=server, resume=resume)
            await self._disconnect()
            if not resume:
                self.position = None
            await self._connect(server)

    async def leave(self) -> None:
        """Leave the game for good. On return nothing that is said is for this player any more."""
        async with self._moving:
            socket, server = self._require_connection("leave"), self.server or ""
            self._record_asked("leave")
            await self._say(Leave())
            self.left = True
            self._changes.announce()
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
        self._changes.announce()
        self.mend_link()
        self.go_on_reading()
        await self.disconnect()

    def renew(self, trace: Trace | None) -> None:
        """Be as at the beginning, for another run: nothing heard, nothing said. Not connected."""
        self._paused = False
        self._trace = trace
        self.heard = []
        self.gaps = []
        self.position = self.recovered = None
        self._known_events = set()
        self.errors.clear()
        self.events_said = 0
        self.former_calls = set()
        self._wish = None
        self._known = False

    async def stop(self) -> None:
        """Disconnect because the run is over, whatever else is under way."""
        self._stopped = True
        self._changes.announce()
        self.mend_link()
        self.go_on_reading()
        await self._disconnect()

    async def _connect(self, server: str | None) -> None:
        # Again, for since somebody asked, the run may have ended, and a call used up the wish.
        self._require_running()
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

    @overload
    async def send(self, body: str, *, again: str = ..., confirm: Literal[False] = ...) -> str: ...
    @overload
    async def send(self, body: str, *, again: str = ..., confirm: Literal[True]) -> int: ...
    async def send(self, body: str, *, again: str = "", confirm: bool = False) -> str | int:
        """Say something to everyone in the game, oneself included. Returns the event's id.

        `again` is the id of the event that this is a retry of. With `confirm`, returns the event's
        number, once the server has said that it is kept: until then the event is said again, with
        the same id, after each error and on each new connection.

        Raises `NotConnected`; `ValueError` for a text that no event can carry; and `RuntimeError`
        if the event is to be confirmed and the broker keeps none.
        """
        self._require_connection("send")
        check_body(body)
        if confirm and self.position is None:
            raise RuntimeError(
                "This broker keeps no event, so it confirms none; "
                'open a cluster with one that does: `open_cluster(broker="stream")`'
            )
        if not again:
            self.events_said += 1
        event = again or f"{self.name}-{self.events_said}"
        if confirm:
            return await self._send_until_confirmed(event, body)
        await self._send(event, body)
        return event

    async def _send(self, event: str, body: str, **data: Any) -> None:
        frame = encode(Send(event, body))
        if self._trace is not None:
            said = event_name(self.name, event)
            text = frame.decode()
            self._record("send", self.server or "", said, body=body, frame=text, **data)
        await self._transmit("send", frame)

    async def _send_until_confirmed(self, event: str, body: str) -> int:
        said, why = event_name(self.name, event), "no server has answered"
        self._unconfirmed.append(said)
        try:
            delays = self._backoff()
            while True:
                await self._changes.until(lambda: self.connected or not self._runs)
                self._require_running()
                try:
                    seq = await self._ask(event, lambda: self._send(event, body, confirm=True))
                    self._record("confirm", self.server or "", said, seq=seq)
                    return seq
                except (NotConnected, _NotTaken) as error:
                    why = str(error)
                await asyncio.sleep(next(delays))  # whoever interrupts this need not read of those
        except BaseException as error:
            self._record("give up", "", said)
            error.add_note(f"{self.name} was not told that “{body}” is kept: {why}")
            raise
        finally:
            self._unconfirmed.remove(said)
            self._changes.announce()

    async def confirmed(self) -> None:
        """Return once nothing that it has said waits to be confirmed."""
        await self._changes.until(lambda: not self._unconfirmed)

    async def sync(self) -> None:
        """Return when all that was sent before is published, and all published before is heard.

        Raises `NotConnected` if the connection ends first, and `ConnectionError` with the server's
        words if its broker does not answer.
        """
        number = f"sync-{next(self._sync_numbers)}"
        await self._ask(number, lambda: self._say(Sync(number)))

    async def _ask(self, question: str, say: Callable[[], Awaitable[None]]) -> int:
        """Say it, and wait for the server's answer. Raises `NotConnected` and `ConnectionError`."""
        answer: asyncio.Future[int | Exception] = asyncio.get_running_loop().create_future()
        answers = self._answers.setdefault(question, set())  # it may be asked twice at a time
        answers.add(answer)
        try:
            await say()
            result = await answer
        finally:
            answers.discard(answer)
            if not answers:
                self._answers.pop(question, None)
        if isinstance(result, Exception):
            raise result
        return result

    # What can be broken

    def cut_link(self) -> None:
        """Cut the connection without a goodbye, and make no other until the link is mended.

        Raises `RuntimeError`, saying what to do first, if that cannot be now.
        """
        self._require_running()
        if self._link.is_shut:
            raise RuntimeError(
                f"{self.name}'s link is cut already; `{self._variable}.mend_link()` first."
            )
        self._record("fault", "balancer", reason="link cut")
        self._link.shut()
        if self._socket:
            self._socket.transport.abort()

    def mend_link(self) -> None:
        """Let it connect again, which it does by itself."""
        if self._link.is_shut:
            self._record("heal", "balancer", reason="link mended")
            self._link.open()

    def stop_reading(self) -> None:
        """Leave unread what the server writes. Raises `RuntimeError` as `cut_link` does."""
        self._require_running()
        if self._reading.is_shut:
            raise RuntimeError(
                f"{self.name} reads nothing already; `{self._variable}.go_on_reading()` first."
            )
        self._record("fault", "", reason="stalled")
        self._reading.shut()

    def go_on_reading(self) -> None:
        """Read on, with what has come meanwhile."""
        if self._reading.is_shut:
            self._record("heal", "", reason="reads on")
            self._reading.open()

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
            await self._link.passed()

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
            if self._link.is_shut:
                raise ConnectionAbortedError("the link is cut")
            join = Join(self.game, self.name, self.position, self._token())
            await socket.send(encode(join), text=True)
            self._socket = socket
            try:
                async for frame in socket:
                    await self._reading.passed()
                    message = decode_from_server(frame)
                    self._take(message)
                    if self._acks and isinstance(message, Event) and message.seq is not None:
                        self._record("ack", self.server or "", seq=message.seq)
                        await socket.send(encode(Ack(message.seq)), text=True)
            finally:
                self.former_calls.add(call)
                self._part()

    def _take(self, message: FromServer) -> None:
        match message:
            case Event():
                self._hear(message)
            case Welcome():
                self.server = message.server
                self._known = True
                self._wish = None
                if message.recovered is False:
                    self.gaps.append(Gap(self.position, message.position, message.reason))
                self.position, self.recovered = message.position, message.recovered
                self._acks = message.acks
                self._welcomed.set()
                self._record("welcome", message.server)
                self._changes.announce()
            case Stored():
                self._answer(message.id, message.seq)
            case Synced():
                self._answer(message.id, 0)
            case Error(id=str(question)) if question in self._answers:
                self._answer(question, _NotTaken(message.message))
            case Error():
                self.errors.append(message)
                if not self.connected:
                    raise JoinRefused(f"{self.name} could not join: {message.message}")

    def _hear(self, event: Event) -> None:
        """Take an event, unless it has a number and was heard before."""
        said, here = event_name(event.player, event.id), self.position
        if event.seq is not None and here is not None:
            if event.seq > here.seq + 1:
                raise ConnectionResetError(f"event {event.seq} came after {here.seq}")
            identity = (event.player, event.id)
            is_known = event.seq <= here.seq or identity in self._known_events
            self.position = Position(here.epoch, max(event.seq, here.seq))
            if is_known:
                self._record("duplicate", self.server or "", said)
                return
            self._known_events.add(identity)
        self.heard.append(event)
        self._record("hear", self.server or "", said)

    def _part(self) -> None:
        """The connection has ended."""
        if self.connected:
            self._record("disconnect", self.server or "")
        self._socket = self.server = None
        self._welcomed.clear()
        for question in tuple(self._answers):
            self._answer(question, NotConnected(f"{self.name} lost its connection"))

    def _answer(self, question: str, answer: int | Exception) -> None:
        for asked in self._answers.get(question, ()):
            if not asked.done():
                asked.set_result(answer)

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
            raise NotConnected(
                f"{self.name} cannot {verb} while disconnected; "
                f"call `await {self._variable}.reconnect()` first"
            )
        return self._socket

    @property
    def _variable(self) -> str:
        """What a learner's code most likely calls it."""
        name = self.name.lower()
        return name if name.isidentifier() else f"cluster.player({self.name!r})"

    @property
    def _runs(self) -> bool:
        return not (self._stopped or self._paused or self.left)

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

    def _record_asked(self, to: str, **how: Any) -> None:
        self._record("asked", "", to=to, **how)

    def _record(self, kind: Kind, peer: str, event: str = "", **data: Any) -> None:
        if self._trace is not None:
            self._trace.append(kind, self.name, peer, event, **data)

    def __repr__(self) -> str:
        where = f"on server {self.server}" if self.connected else "disconnected"
        return f"Player {self.name}, {where}, has heard {[event.body for event in self.heard]}"
