"""The wire: what a client and a server say to each other. Any WebSocket client can play.

Each message is one JSON object in a text frame; its "type" says which of these it is.

    client -> server                                  server -> client
    {"type":"join","game":"g","player":"P1"}          {"type":"welcome","server":"B","game":"g"}
    {"type":"send","id":"P2-1","body":"jump"}         {"type":"event","id":"P2-1","player":"P2",...}
    {"type":"ack","seq":18}                           {"type":"stored","id":"P2-1","seq":18}
    {"type":"sync","id":"1"}                          {"type":"synced","id":"1"}
    {"type":"leave"}                                  {"type":"error","code":"...","message":"..."}

A client joins first, and hears its own events too. Where the broker numbers the events, "welcome"
carries "epoch", "seq" and "recovered", "event" carries "seq", and a "join" may carry
"resume": {"epoch", "seq"}. "synced" answers a "sync" once everything this client sent before has
been published, and everything published before has been written to this client.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

__all__ = [
    "MAX_BODY",
    "MAX_FRAME",
    "MAX_NAME",
    "Ack",
    "BadMessage",
    "Close",
    "Error",
    "ErrorCode",
    "Event",
    "FromClient",
    "FromServer",
    "Join",
    "Leave",
    "Resume",
    "Send",
    "Stored",
    "Sync",
    "Synced",
    "Welcome",
    "check_name",
    "decode_event",
    "decode_from_client",
    "decode_from_server",
    "encode",
]

_T = TypeVar("_T")

MAX_NAME = 32  # characters in the name of a player or a game
MAX_ID = 64  # characters in the id of an event
MAX_BODY = 16_384  # characters in the body of an event
MAX_FRAME = 131_072  # bytes in a frame, enough for the longest body, escaped

# Letters, digits and a few marks, of any script: no markup, nothing invisible.
_NAME = r"^[\w.:-](?:[\w.: -]*[\w.:-])?\Z"

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME, pattern=_NAME)]
EventId = Annotated[str, Meta(min_length=1, max_length=MAX_ID, pattern=_NAME)]
Body = Annotated[str, Meta(max_length=MAX_BODY)]
Seq = Annotated[int, Meta(ge=0)]


class Close(IntEnum):
    """The close codes that a server uses (RFC 6455, section 7.4, and the IANA registry)."""

    DONE = 1000
    GOING_AWAY = 1001
    POLICY = 1008
    TOO_BIG = 1009
    RESTARTING = 1012
    TRY_AGAIN_LATER = 1013


class _Message(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="type",
    tag=str.lower,
): ...


class Resume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a player's hearing ended: the stream's epoch and the last sequence number."""

    epoch: EventId
    seq: Seq


class Join(_Message, frozen=True):
    """Take part in a game under a name."""

    game: Name
    player: Name
    resume: Resume | None = None


class Send(_Message, frozen=True):
    """Say something to everyone in the game. A retry carries the same id."""

    id: EventId
    body: Body


class Ack(_Message, frozen=True):
    """Everything up to this sequence number has been heard."""

    seq: Seq


class Sync(_Message, frozen=True):
    """Ask to be told when everything sent before this has had its effect here."""

    id: EventId


class Leave(_Message, frozen=True):
    """Leave the game for good."""


class Welcome(_Message, frozen=True):
    """The player has joined; events follow."""

    server: str
    game: str
    epoch: str | None = None
    seq: int | None = None
    recovered: bool | None = None


class Event(_Message, frozen=True):
    """What a player said, as everyone in the game hears it."""

    id: EventId
    player: Name
    body: Body
    seq: Seq | None = None


class Stored(_Message, frozen=True):
    """The event has been written and will not be lost."""

    id: str
    seq: int


class Synced(_Message, frozen=True):
    """The answer to a sync."""

    id: str


ErrorCode = Literal[
    "bad-message", "too-big", "join-first", "already-joined", "name-taken", "broker-down"
]


class Error(_Message, frozen=True):
    """What was wrong with what the client sent. `id` is the event's, where it is about one."""

    code: ErrorCode
    message: str
    id: str | None = None


FromClient = Join | Send | Ack | Sync | Leave
FromServer = Welcome | Event | Stored | Synced | Error


class BadMessage(ValueError):
    """A frame is not one of the messages above; the text says what is wrong with it."""


_encoder = msgspec.json.Encoder()
_from_client: msgspec.json.Decoder[FromClient] = msgspec.json.Decoder(FromClient)
_from_server: msgspec.json.Decoder[FromServer] = msgspec.json.Decoder(FromServer)
_event = msgspec.json.Decoder(Event)


def encode(message: FromClient | FromServer) -> bytes:
    """The message as UTF-8 JSON, for a text frame."""
    return _encoder.encode(message)


def decode_from_client(frame: str | bytes) -> FromClient:
    """What a client said. Raises `BadMessage`."""
    return _decode(_from_client, frame)


def decode_from_server(frame: str | bytes) -> FromServer:
    """What a server said. Raises `BadMessage`."""
    return _decode(_from_server, frame)


def decode_event(payload: bytes) -> Event:
    """An event as it travels through a broker: the bytes of its frame. Raises `BadMessage`."""
    try:
        return _event.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadMessage(str(error)) from error


def check_name(name: str, of: str) -> str:
    """`name` itself, if it may name a player or a game. Raises `ValueError` saying why not."""
    try:
        return msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise ValueError(
            f"{name!r:.80} cannot be the name of a {of}: use 1 to {MAX_NAME} letters, digits, "
            "and . : - _ or spaces between them"
        ) from error


def _decode(decoder: msgspec.json.Decoder[_T], frame: str | bytes) -> _T:
    if isinstance(frame, bytes):
        raise BadMessage("a binary frame; send JSON in a text frame")
    try:
        return decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadMessage(str(error)) from error
