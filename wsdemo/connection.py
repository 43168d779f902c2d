"""A client's connection, as its server has it: it can be held up, and ends where a limit does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from wsdemo.gate import Gate
from wsdemo.limits import Allowance, Limits
from wsdemo.protocol import Close, Error, encode

__all__ = ["Connection", "broadcast"]

UNREAD = 2**18  # bytes kept for a server that stands still, from each client that talks on
HANG_UP = 1.0  # seconds that a client has to do so after a goodbye
SLICE = 2**14  # bytes that are looked at before the next look at how many frames there are
BATCH = 2**16  # bytes that are written in one go, at most: more would gain nothing


class Connection(ServerConnection):
    """A client's connection, which passes its server's gate in both directions.

    It also says on the wire what is wrong with a frame that is too big, before the close that
    follows. The library ends such a connection while it reads the frame's length, so that the frame
    itself never takes up memory; this is its last moment to speak.

    Three things the library leaves to clients, and so without an end: to read what answers their
    pings, to be there to be pinged, and to hang up after a goodbye.

    While the gate is open, a message to a client costs one comparison more than on the library's
    own connection, and a frame from a client a look at the clock. What goes to many clients is made
    only once, and what goes to one client in one turn of the event loop is written in one go: see
    `broadcast`.
    """

    # As entries they would make the dictionary of each connection 1.3 KiB larger.
    __slots__ = (
        *("_count", "_frames", "_gate", "_hanging_up", "_is_refused"),
        *("_limits", "_sockets", "_unread", "_unsent", "_unsent_size"),
    )

    def __init__(
        self,
        gate: Gate,
        sockets: set[Connection],
        limits: Limits,
        count: Callable[[str], object],
        protocol: ServerProtocol,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(protocol, *args, **kwargs)
        self._gate = gate
        self._sockets = sockets
        self._limits = limits
        self._count = count
        self._unread = 0  # bytes that wait at the gate
        self._unsent: list[bytes] = []  # frames that are written when this turn of the loop ends
        self._unsent_size = 0
        # For each message another frame, such as a ping or a fragment.
        self._frames = Allowance(2 * limits.max_rate, monotonic())
        self._is_refused = False  # it has sent one too many
        self._hanging_up: asyncio.TimerHandle | None = None
        fail = protocol.fail

        def say_and_fail(code: int, reason: str = "") -> None:
            if code == Close.TOO_BIG and protocol.state is State.OPEN:
                words = f"{reason}; at most {limits.max_message} bytes (max_message)"
                protocol.send_text(encode(Error("too-big", words)))
                count("max_message")
            fail(code, reason)

        protocol.fail = say_and_fail  # type: ignore[method-assign]

    @property
    def waiting(self) -> int:
        """Bytes that its client has yet to take."""
        return self.transport.get_write_buffer_size() + self._unsent_size

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there. If there are too many, it is cut again."""
        super().connection_made(transport)
        self._sockets.add(self)
        if len(self._sockets) > self._limits.max_sockets:
            self._count("max_connections")
            self.transport.abort()

    async def handshake(self, *args: Any, **kwargs: Any) -> None:
        """Be asked for a WebSocket; the library ends it where that takes too long."""
        try:
            await super().handshake(*args, **kwargs)
        except asyncio.CancelledError:
            if self.request is None:
                self._count("seconds_to_join")
            raise

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket, or keep them until the gate opens."""
        if not self._gate.is_shut:
            self._hear(data)
            return
        self._unread += len(data)
        if self._unread > UNREAD:
            self.transport.pause_reading()
        self._gate.call(self._take, data)

    def _take(self, data: bytes) -> None:
        self._unread -= len(data)
        self._hear(data)
        if not self._unread and not self.recv_messages.paused:
            self.transport.resume_reading()

    def _hear(self, data: bytes) -> None:
        """What asyncio reads at once may be 40,000 frames: nobody else would be heard meanwhile."""
        for start in range(0, len(data), SLICE):
            super().data_received(data[start : start + SLICE])
            self._look_for_an_end()
            if self._is_refused:
                break

    def _look_for_an_end(self) -> None:
        # What it is told is watched where it is said, to within a quarter; pongs are beyond that.
        if self.paused and self.waiting > 1.25 * self._limits.max_waiting:
            self._count("max_waiting")
            self.transport.abort()
        if not self._hanging_up and self.protocol.close_expected():
            self._hanging_up = self.loop.call_later(HANG_UP, self.transport.abort)

    def process_event(self, event: Request | Response | Frame) -> None:
        """Take a request or a frame, but none that is one too many, and none after that."""
        if self._is_refused:
            return
        if isinstance(event, Request) or self._frames.take(monotonic()):
            super().process_event(event)
        else:
            self._is_refused = True
            self._count("max_rate")
            words = f"at most {2 * self._limits.max_rate:g} frames a second (max_rate)"
            self.protocol.fail(Close.POLICY, words)
            self.send_data()

    async def keepalive(self) -> None:
        """Ask now and then whether the client is there, and end the connection if it is not.

        The library's own waits for as long as it takes until it can ask.
        """
        seconds = self._limits.seconds_to_answer
        try:
            while True:
                await asyncio.sleep(seconds)
                async with asyncio.timeout(seconds):
                    await (await self.ping())
        except ConnectionClosed:
            pass
        except TimeoutError:
            self._count("seconds_to_answer")
            if self.paused:
                self.transport.abort()  # it would not read the goodbye either
            else:
                words = f"at most {seconds:g} seconds to answer a ping (seconds_to_answer)"
                await self.close(Close.POLICY, words)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client says nothing more."""
        self._gate.call(self._take_eof)
        return True  # the gate says when the transport is to be closed

    def _take_eof(self) -> None:
        super().eof_received()
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone. Even a dead server's tasks have to learn of it."""
        self._sockets.discard(self)
        if self._hanging_up:
            self._hanging_up.cancel()
        self._gate.call(super().connection_lost, exc, in_any_case=True)

    def send_data(self) -> None:
        """Write what the protocol has to say, after the frames that came before it."""
        if self._gate.is_shut:
            self._gate.call(self.send_data)
        else:
            self._send_frames()
            super().send_data()

    def write(self, frame: bytes) -> None:
        """Let a frame, as it goes over the wire, go there with those that follow at once.

        To tell the system costs more than all else that is done for a frame. When many events come
        together, as they do when there is much to do, it is told once for all of them.
        """
        if self._gate.is_shut:
            self.protocol.writes.append(frame)
            self.send_data()
            return
        if not self._unsent:
            self.loop.call_soon(self._gate.call, self._send_frames)
        self._unsent.append(frame)
        self._unsent_size += len(frame)
        if self._unsent_size > BATCH:
            self._send_frames()

    async def drain(self) -> None:
        """Wait, if more is waiting than the library's `write_limit`, until its client takes it."""
        if not self._gate.is_shut:
            self._send_frames()
        await super().drain()

    def _send_frames(self) -> None:
        frames, self._unsent, self._unsent_size = self._unsent, [], 0
        if frames and not self.transport.is_closing():
            self.transport.write(b"".join(frames))


def broadcast(connections: Iterable[Connection], message: bytes) -> None:
    """Write a text frame to all of these that are open. Its bytes are made once.

    `websockets.broadcast` makes them for each connection anew, for each may have agreed on another
    compression. A game server's agree on none.
    """
    frame = Frame(Opcode.TEXT, message).serialize(mask=False)
    for connection in connections:
        if connection.protocol.state is State.OPEN:
            connection.write(frame)
