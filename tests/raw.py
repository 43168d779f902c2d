"""A client that is all by itself: a socket, and as much of WebSockets as it takes to do wrong.

https://www.rfc-editor.org/rfc/rfc6455#section-5.2
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import PATIENCE, within

__all__ = [
    *("BINARY", "CLOSE", "CONT", "PING", "PONG", "TEXT"),
    *("Refused", "Wire", "frame", "limits_reached", "raw", "upgrade"),
]

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class Refused(ConnectionError):
    """The server has ended it; the text says how."""


class Wire:
    """A socket to a server, and what a client would need to know of WebSockets."""

    def __init__(self, sock: socket.socket, port: int) -> None:
        self._sock = sock
        self._port = port
        self._read = b""
        self.is_cut = False

    @classmethod
    async def to(cls, port: int, receive_buffer: int = 0) -> Self:
        """One that is connected; with a buffer, so many bytes fill what the kernel reads for it."""
        sock = socket.socket()
        try:
            sock.setblocking(False)
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await within(asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port)))
        except BaseException:
            sock.close()
            raise
        return cls(sock, port)

    async def push(self, data: bytes) -> None:
        """Write, as long as anybody reads it."""
        try:
            await within(asyncio.get_running_loop().sock_sendall(self._sock, data))
        except ConnectionError:
            self.is_cut = True

    async def upgrade(self) -> None:
        """Ask for a WebSocket, and get it. Raises `Refused`."""
        await self.push(upgrade(self._port))
        while b"\r\n\r\n" not in self._read:
            if not await self._more():
                raise Refused("cut")
        status = self._status()
        if status != "HTTP 101":
            raise Refused(status)

    async def get(self, path: str) -> tuple[int, str]:
        """What is answered over HTTP: the status, and the text."""
        await self.push(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        while await self._more():
            pass
        head, _, text = self._read.partition(b"\r\n\r\n")
        return int(head.split()[1]), text.decode()

    async def say(self, type: str, **fields: Any) -> None:
        """Send a message of the wire."""
        await self.push(frame(TEXT, json.dumps({"type": type, **fields}).encode()))

    async def hear(self) -> dict[str, Any]:
        """The next message. Raises `Refused` if the connection ends instead."""
        opcode, payload = await self._frame()
        if opcode in (PING, PONG):
            return await self.hear()
        if opcode == CLOSE:
            raise Refused(str(int.from_bytes(payload[:2], "big")))
        assert opcode == TEXT, (opcode, payload)
        message: dict[str, Any] = json.loads(payload)
        return message

    async def closed(self) -> tuple[int, str]:
        """The code and reason of the close, pings before it aside; then it goes, too."""
        while True:
            opcode, payload = await self._frame()
            if opcode == CLOSE:
                self.close()
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()
            assert opcode in (PING, PONG), (opcode, payload)

    async def hear_to_the_end(self) -> list[dict[str, Any]]:
        """All messages until the connection ends, but for a last one that was cut in two."""
        while await self._more():
            pass
        heard = []
        while (found := self._whole()) is not None:
            if found[0] == TEXT:
                heard.append(json.loads(found[1]))
        return heard

    async def outcome(self, patience: float) -> str:
        """How it ends: with which status or close code, or by being "cut" without a word."""
        while await self._more(patience):
            pass
        if self._read.startswith(b"HTTP/"):
            status = self._status()
            if status != "HTTP 101":
                return status
        while (found := self._whole()) is not None:
            if found[0] == CLOSE:
                return str(int.from_bytes(found[1][:2], "big"))
        return "cut"

    def _status(self) -> str:
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        return f"HTTP {head.split()[1].decode()}"

    def close(self) -> None:
        """Let go of the socket."""
        self._sock.close()

    def end_writing(self) -> None:
        """Say that nothing more is coming, and go on listening."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Let go of the socket as a machine does that loses its program."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._sock.close()

    async def _more(self, patience: float = PATIENCE) -> bool:
        try:
            data = await within(asyncio.get_running_loop().sock_recv(self._sock, 2**16), patience)
        except ConnectionError:
            data = b""
        self._read += data
        return bool(data)

    async def _frame(self) -> tuple[int, bytes]:
        while (found := self._whole()) is None:
            if not await self._more():
                raise Refused("cut")
        return found

    def _whole(self) -> tuple[int, bytes] | None:
        if len(self._read) < 2:
            return None
        length, start = self._read[1] & 0x7F, 2
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(self._read[2:start], "big")
        if len(self._read) < start + length:
            return None
        opcode, payload = self._read[0] & 0xF, self._read[start : start + length]
        self._read = self._read[start + length :]
        return opcode, payload


@asynccontextmanager
async def raw(port: int, receive_buffer: int = 0) -> AsyncIterator[Wire]:
    """A socket to a server."""
    wire = await Wire.to(port, receive_buffer)
    try:
        yield wire
    finally:
        wire.close()


async def limits_reached(port: int) -> dict[str, float]:
    """How often each limit was reached, as Prometheus's own parser reads it in the metrics."""
    async with raw(port) as wire:
        status, text = await wire.get("/metrics")
    assert status == 200
    return {
        sample.labels["limit"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "wsdemo_limits_reached_total"
    }


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A frame as a client sends it, with a mask that changes nothing."""
    head = bytes([opcode | 0x80 * fin])
    if len(payload) < 126:
        return head + bytes([0x80 | len(payload)]) + bytes(4) + payload
    return head + b"\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload


def upgrade(port: int) -> bytes:
    """The request for a WebSocket."""
    return (
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
