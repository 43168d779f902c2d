"""What goes over the wire between a client and a server: its bytes, and the frames they make.

Frames are taken apart as RFC 6455 has them: https://www.rfc-editor.org/rfc/rfc6455#section-5.2
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Chunk", "Conversation", "Delays", "Frame", "Side", "accept_key"]

MOST = 4 * 2**20  # bytes kept of one conversation
OPCODES = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of RFC 6455, the same for everyone
END_OF_HEAD = b"\r\n\r\n"
SWITCHED = "HTTP/1.1 101 "  # so begins the answer of a server that speaks WebSocket from here on

Side = Literal["client", "server"]


def accept_key(key: str) -> str:
    """What a server answers to a client's `Sec-WebSocket-Key`, so that it is known to be one."""
    return base64.b64encode(hashlib.sha1(f"{key}{GUID}".encode()).digest()).decode()


@dataclass(frozen=True)
class Chunk:
    """Bytes that one side has sent, `t` seconds after the conversation began.

    Without bytes it is the end of what that side has to say: "FIN", or "RST" if it was cut.
    """

    t: float
    side: Side
    data: bytes = b""
    end: Literal["", "FIN", "RST"] = ""


@dataclass(frozen=True)
class Frame:
    """A WebSocket frame. `head` is as it was on the wire; `payload` is unmasked."""

    t: float
    side: Side
    head: bytes
    payload: bytes

    @property
    def fin(self) -> bool:
        """Whether it is the last of its message."""
        return bool(self.head[0] & 0x80)

    @property
    def opcode(self) -> int:
        """What it is for: 1 text, 2 binary, 8 close, 9 ping, 10 pong."""
        return self.head[0] & 0x0F

    @property
    def name(self) -> str:
        """The opcode in a word."""
        return OPCODES.get(self.opcode, f"opcode {self.opcode}")

    @property
    def masked(self) -> bool:
        """Whether the payload was XORed with a mask: always by a client, never by a server."""
        return bool(self.head[1] & 0x80)

    @property
    def mask(self) -> bytes:
        """The four bytes that it was XORed with, the last ones of the head."""
        return self.head[-4:] if self.masked else b""

    @property
    def length(self) -> int:
        """Bytes of payload, as the head has it."""
        return len(self.payload)

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return len(self.head) + len(self.payload)

    @property
    def text(self) -> str:
        """What it says: the payload, or a close's code and reason."""
        if self.opcode == 8 and self.length >= 2:
            code = int.from_bytes(self.payload[:2], "big")
            return f"{code} {self.payload[2:].decode(errors='replace')}".rstrip()
        return self.payload.decode(errors="replace")

    def __repr__(self) -> str:
        bits = f"fin={int(self.fin)} opcode={self.opcode:x} masked={int(self.masked)}"
        return f"{self.side:6} {self.name:5} {bits} length={self.length} {self.text!r:.60}"


@dataclass
class Conversation:
    """All that one client and its server have said, from the first byte to the last."""

    chunks: list[Chunk] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    kept: int = 0  # bytes

    def add(self, side: Side, data: bytes = b"", end: Literal["", "FIN", "RST"] = "") -> None:
        """Keep what a side has sent, up to MOST bytes in all, and how it ended."""
        data = data[: MOST - self.kept]
        if data or end:
            self.kept += len(data)
            self.chunks.append(Chunk(time.perf_counter() - self.began, side, data, end))

    def said(self, side: Side) -> bytes:
        """Everything that one side has sent."""
        return b"".join(chunk.data for chunk in self.chunks if chunk.side == side)

    @property
    def request(self) -> str:
        """The head of the client's first HTTP request."""
        return _head(self.said("client"))

    @property
    def response(self) -> str:
        """The head of the server's answer to it."""
        return _head(self.said("server"))

    @property
    def frames(self) -> list[Frame]:
        """The frames of both sides, each at the moment at which it was whole. HTTP has none."""
        if not self.response.startswith(SWITCHED):
            return []
        found = [*_frames(self.chunks, "client"), *_frames(self.chunks, "server")]
        return sorted(found, key=lambda frame: frame.t)

    @property
    def ends(self) -> list[Chunk]:
        """How the two sides ended it."""
        return [chunk for chunk in self.chunks if chunk.end]

    def header(self, name: str) -> str:
        """A header of the request, or else of the response; empty if neither has it."""
        for line in f"{self.request}\r\n{self.response}".split("\r\n"):
            key, _, value = line.partition(":")
            if key.strip().lower() == name.lower():
                return value.strip()
        return ""


@dataclass(frozen=True)
class Delays:
    """When events were said, when heard by each way, and when asked for; in seconds of one clock.

    `size` is how many bytes that took by each way, on the wire of whoever hears, once connected.
    """

    said: list[float]
    heard: dict[str, list[float]]
    asked: list[float]
    size: dict[str, int]


def _head(said: bytes) -> str:
    return said.split(END_OF_HEAD, 1)[0].decode("latin-1")


def _frames(chunks: Sequence[Chunk], side: Side) -> Iterator[Frame]:
    """The frames of one side, which come after the head of its handshake."""
    rest, is_shaken = b"", False
    for chunk in chunks:
        if chunk.side != side:
            continue
        rest += chunk.data
        if not is_shaken and END_OF_HEAD in rest:
            rest, is_shaken = rest.split(END_OF_HEAD, 1)[1], True
        while is_shaken and (found := _frame(rest)):
            head, payload = found
            yield Frame(chunk.t, side, head, payload)
            rest = rest[len(head) + len(payload) :]


def _frame(data: bytes) -> tuple[bytes, bytes] | None:
    """The head and the unmasked payload of the frame that these begin with, if it is whole."""
    if len(data) < 2:
        return None
    length, at = data[1] & 0x7F, 2
    if length > 125:  # then it stands in the next two bytes, or in the next eight
        more = 2 if length == 126 else 8
        length, at = int.from_bytes(data[2 : 2 + more], "big"), 2 + more
    masked = bool(data[1] & 0x80)
    start = at + 4 * masked
    if len(data) < start + length:
        return None
    payload = data[start : start + length]
    if masked:
        mask = data[at:start]
        payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
    return data[:start], payload
