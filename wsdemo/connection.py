"""A client's connection, as its server has it: it can be held up, and says what was too big."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from wsdemo.gate import Gate
from wsdemo.limits import Limits
from wsdemo.protocol import Close, Error, encode

__all__ = ["Connection", "broadcast"]

UNREAD = 2**18  # bytes kept for a server that stands still, from each client that talks on


class Connection(ServerConnection):
    """A client's connection, which passes its server's gate in both directions.

    It also says on the wire what is wrong with a frame that is too big, before the close that
    follows. The library ends such a connection while it reads the frame's length, so that the frame
    itself never takes up memory; this is its last moment to speak.

    While the gate is open, a frame costs one comparison more than with the library's own, and one
    that goes to many is made only once: `broadcast`.
    """

    # As entries they would make the dictionary of each connection 1.3 KiB larger.
    __slots__ = ("_count", "_gate", "_limits", "_sockets", "_unread")

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
        fail = protocol.fail

        def say_and_fail(code: int, reason: str = "") -> None:
            if code == Close.TOO_BIG and protocol.state is State.OPEN:
                words = f"{reason}; at most {limits.max_message} bytes (max_message)"
                protocol.send_text(encode(Error("too-big", words)))
                count("max_message")
            fail(code, reason)

        protocol.fail = say_and_fail  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there. If there are too many, it is cut again."""
        super().connection_made(transport)
        self._sockets.add(self)
        if len(self._sockets) > self._limits.max_sockets:
            self._count("max_connections")
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket, or keep them until the gate opens."""
        if not self._gate.is_shut:
            super().data_received(data)
            return
        self._unread += len(data)
        if self._unread > UNREAD:
            self.transport.pause_reading()
        self._gate.call(self._take, data)

    def _take(self, data: bytes) -> None:
        self._unread -= len(data)
        super().data_received(data)
        if not self._unread and not self.recv_messages.paused:
            self.transport.resume_reading()

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
        self._gate.call(super().connection_lost, exc, in_any_case=True)

    def send_data(self) -> None:
        """Write what the protocol has to say."""
        if self._gate.is_shut:
            self._gate.call(self.send_data)
        else:
            super().send_data()

    def write(self, frame: bytes) -> None:
        """Write a frame as it goes over the wire."""
        if self._gate.is_shut:
            self.protocol.writes.append(frame)
            self.send_data()
        else:
            self.transport.write(frame)


def broadcast(connections: Iterable[Connection], message: bytes) -> None:
    """Write a text frame to all of these that are open. Its bytes are made once.

    `websockets.broadcast` makes them for each connection anew, for each may have agreed on another
    compression. A game server's agree on none.
    """
    frame = Frame(Opcode.TEXT, message).serialize(mask=False)
    for connection in connections:
        if connection.protocol.state is State.OPEN:
            connection.write(frame)
