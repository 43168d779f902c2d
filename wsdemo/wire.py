"""What goes over the wire between a client and a server: its bytes, and the frames they make.

Frames are taken apart as RFC 6455 has them: https://www.rfc-editor.org/rfc/rfc6455#section-5.2
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["GUID", "Chunk", "Conversation", "Delays", "Frame", "Passage", "Side", "in_ms"]

MOST = 4 * 2**20  # bytes kept of one conversation
OPCODES = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
# A server answers a key with base64(sha1(key + GUID)). It is the same for everyone: section 1.3.
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
END_OF_HEAD = b"\r\n\r\n"
SWITCHED = "HTTP/1.1 101 "  # so begins the answer of a server that speaks WebSocket from here on

Side = Literal["client", "server"]


@dataclass
class Chunk:
    """Bytes that one side has sent, `t` seconds after the conversation began.

    Without bytes it is the end of what that side has to say: "FIN", or "RST" if it was cut.
    `arrived` is when it was given to the other side.
    """

    t: float
    side: Side
    data: bytes = b""
    end: Literal["", "FIN", "RST"] = ""
    arrived: float = math.inf


@dataclass(frozen=True)
class Passage:
    """Something that one side sent whole at `t`, and that had `arrived` whole at the other then."""

    t: float
    side: Side
    arrived: float

    def crosses(self, other: Passage) -> bool:
        """Whether they met on their way: neither side had heard the other when it spoke."""
        return self.side != other.side and self.t < other.arrived and other.t < self.arrived


@dataclass(frozen=True)
class Frame(Passage):
    """A WebSocket frame. `head` and `raw` are as they were on the wire; `payload` is unmasked."""

    head: bytes
    raw: bytes
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
        bits = f"fin={int(self.fin)} opcode={self.opcode} masked={int(self.masked)}"
        return f"{self.side:6} {self.name:5} {bits} length={self.length} {self.text!r:.60}"


@dataclass
class Conversation:
    """All that one client and its server have said, from the first byte to the last.

    `over` is set once both connections have ended.
    """

    chunks: list[Chunk] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    kept: int = 0  # bytes
    over: asyncio.Event = field(default_factory=asyncio.Event, repr=False, compare=False)

    @property
    def now(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self.began

    def add(self, side: Side, data: bytes = b"", end: Literal["", "FIN", "RST"] = "") -> Chunk:
        """Keep what a side has sent, up to MOST bytes in all, and how it ended."""
        chunk = Chunk(self.now, side, data[: MOST - self.kept], end)
        if chunk.data or end:
            self.kept += len(chunk.data)
            self.chunks.append(chunk)
        return chunk

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

    def find(self, words: str) -> Frame:
        """The first frame that says this. Raises `LookupError` if there is none."""
        for frame in self.frames:
            if words in frame.text:
                return frame
        raise LookupError(f"no frame has said {words!r} yet; send one that does")

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

    In bytes on the wire of whoever hears, `setup` is what each way took until it could hear, and
    `size` what it took from then on.
    """

    said: list[float]
    heard: dict[str, list[float]]
    asked: list[float]
    setup: dict[str, int] = field(default_factory=dict)
    size: dict[str, int] = field(default_factory=dict)

    @property
    def waits(self) -> dict[str, list[float]]:
        """By each way, how long after it was said each event was heard, in seconds."""
        return {
            way: [end - begin for begin, end in zip(self.said, times, strict=False)]
            for way, times in self.heard.items()
        }

    @property
    def in_vain(self) -> list[float]:
        """When a question was asked whose answer had no event."""
        heard = self.heard.get("polling", [])
        spans = zip(self.asked, [*self.asked[1:], math.inf], strict=False)
        return [asked for asked, until in spans if not any(asked < t < until for t in heard)]

    @property
    def most_questions(self) -> int:
        """How many were asked while an event waited to be heard by polling, at most."""
        spans = zip(self.said, self.heard.get("polling", []), strict=False)
        waited = [sum(said < t < heard for t in self.asked) for said, heard in spans]
        return max(waited, default=0)

    def __str__(self) -> str:
        lines = [f"{'in bytes':10}{'set-up':>8}{'after it':>10}{'an event':>10}   which was heard"]
        for way, waits in self.waits.items():
            setup, size = self.setup.get(way, 0), self.size.get(way, 0)
            each = size / max(len(self.said), 1)
            lines.append(f"{way:10}{setup:>8,}{size:>10,}{each:>10,.0f}   {in_ms(waits)}")
        lines.append(f"polling asked {len(self.asked)} times, {len(self.in_vain)} of them in vain")
        return "\n".join(lines)


def in_ms(waits: Sequence[float]) -> str:
    """In words, how long events waited to be heard."""
    if not waits:
        return "never"
    least, most, mean = (
        f"{1000 * each:.0f}" for each in (min(waits), max(waits), sum(waits) / len(waits))
    )
    return f"{most} ms later" if least == most else f"{least} to {most} ms later, {mean} on average"


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
            head, raw = found
            yield Frame(chunk.t, side, chunk.arrived, head, raw, _unmasked(head, raw))
            rest = rest[len(head) + len(raw) :]


def _frame(data: bytes) -> tuple[bytes, bytes] | None:
    """The head and the payload of the frame that these begin with, as sent, if it is whole."""
    if len(data) < 2:
        return None
    length, start = data[1] & 0x7F, 2
    if length > 125:  # then it stands in the next two bytes, or in the next eight
        more = 2 if length == 126 else 8
        length, start = int.from_bytes(data[2 : 2 + more], "big"), 2 + more
    start += 4 if data[1] & 0x80 else 0  # the mask
    if len(data) < start + length:
        return None
    return data[:start], data[start : start + length]


def _unmasked(head: bytes, raw: bytes) -> bytes:
    if not head[1] & 0x80:
        return raw
    mask = head[-4:]
    return bytes(byte ^ mask[n % 4] for n, byte in enumerate(raw))
