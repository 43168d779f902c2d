"""fakeredis behind a TCP port of its own, so that its outages are those of a real server.

fakeredis knows what Redis's commands do. Clients that reach it without a socket do not notice,
though, when it goes away: they stay subscribed, and wait. Through a socket they do.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

from fakeredis import FakeServer
from fakeredis.aioredis import AsyncFakeSocket
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from wsdemo.changes import Changes
from wsdemo.gate import Gate
from wsdemo.lifetime import Lifetime
from wsdemo.ports import bound_socket

__all__ = ["FakeRedisServer"]


class FakeRedisServer(Lifetime):
    """Answers on a loopback port, from `start` to `stop`, with the data that it had before."""

    def __init__(self) -> None:
        self.data = FakeServer()
        self.gate = Gate()
        self.connections: set[_Connection] = set()
        self.changes = Changes()
        self._accepting: asyncio.Task[None] | None = None
        self._kept_port: socket.socket | None = None
        self.port = 0

    @property
    def runs(self) -> bool:
        """Whether it listens; a frozen one does, too."""
        return self._accepting is not None

    @property
    def is_frozen(self) -> bool:
        """Whether it stands still."""
        return self.gate.is_shut

    async def start(self) -> None:
        """Listen, on the same port as before. Raises `OSError` if there is none to be had."""
        if self._accepting:
            return
        listener, self._kept_port = self._kept_port or bound_socket("127.0.0.1", self.port), None
        self.port = listener.getsockname()[1]
        listener.setblocking(False)
        listener.listen()
        self._accepting = asyncio.create_task(self._accept(listener), name="the fake Redis")

    async def stop(self) -> None:
        """Be gone for good."""
        await self.die()
        if self._kept_port:
            self._kept_port.close()
            self._kept_port = None

    async def die(self) -> None:
        """Cut every connection and listen no more. Nobody else gets the port before `stop`."""
        accepting, self._accepting = self._accepting, None
        if accepting is None:
            return
        # One call more wakes it: asyncio loses a call that it takes while it is told to take none.
        # Where there is no room for that call, others are waiting, and wake it too.
        with socket.socket() as call:
            call.setblocking(False)
            call.connect_ex(("127.0.0.1", self.port))
            await asyncio.wait({accepting})
        with suppress(OSError):  # somebody was quicker: then a start will say so
            self._kept_port = bound_socket("127.0.0.1", self.port)
        self.gate.drop()
        for connection in self.connections:
            connection.cut()
        await self.changes.until(lambda: not self.connections)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                client, _ = await loop.sock_accept(listener)
                if not self.runs:
                    client.close()
                    return
                await loop.connect_accepted_socket(lambda: _Connection(self), client)

    def forget(self) -> None:
        """Lose all data."""
        self.data = FakeServer()

    def freeze(self) -> None:
        """Stand still, as a process does between SIGSTOP and SIGCONT."""
        self.gate.shut()

    def thaw(self) -> None:
        """Go on with what has been asked meanwhile."""
        self.gate.open()


class _Connection(asyncio.Protocol):
    """A client's connection: its bytes go into fakeredis, and what that answers comes back."""

    def __init__(self, server: FakeRedisServer) -> None:
        self._server = server
        self._gate = server.gate

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._session = _Session(transport, self._server.data)
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._gate.call(self._session.sendall, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._server.changes.announce()
        self._gate.call(self._session.close, in_any_case=True)  # or it would stay subscribed

    def cut(self) -> None:
        """End it at once."""
        self._transport.abort()


class _Session(AsyncFakeSocket):
    """What fakeredis knows of one client; its answers, which are Python objects, go out as RESP 2.

    https://redis.io/docs/latest/develop/reference/protocol-spec/
    """

    def __init__(self, transport: asyncio.Transport, data: FakeServer) -> None:
        super().__init__(data, db=0, client_class=Redis)
        self._transport = transport

    def put_response(self, msg: Any) -> None:
        if not self._transport.is_closing():
            self._transport.write(_encoded(msg))


def _encoded(answer: Any) -> bytes:
    match answer:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % answer
        case NoScriptError():  # clients go by this word
            return b"-NOSCRIPT %s\r\n" % str(answer).encode()
        case Exception():
            word = b"ERR " if type(answer) is ResponseError else b""
            return b"-%s%s\r\n" % (word, str(answer).encode())
        case list() | tuple():
            return b"*%d\r\n%s" % (len(answer), b"".join(map(_encoded, answer)))
        case _:
            text = answer if isinstance(answer, bytes) else str(answer).encode()
            return b"$%d\r\n%s\r\n" % (len(text), text)
