"""The wire: what a client and a server say to each other. Any WebSocket client can play.

Each message is one JSON object in a text frame; its "type" says which of these it is.

    client -> server                                  server -> client
    {"type":"join","game":"g","player":"P1"}          {"type":"welcome","server":"B","game":"g"}
    {"type":"send","id":"P2-1","body":"jump"}         {"type":"event","id":"P2-1","player":"P2",...}
    {"type":"ack","seq":18}                           {"type":"stored","id":"P2-1","seq":18}
    {"type":"sync","id":"1"}                          {"type":"synced","id":"1"}
    {"type":"leave"}                                  {"type":"error","code":"...","message":"..."}

A client joins first, with a "token" where the server wants one, and hears its own events too. An
event's id is its sender's own choice; a retry carries the same one. "synced" answers a "sync" once
everything this client sent before has been published, and everything published before has been
written to this client.

Where the broker keeps events it numbers them. Then an "event" carries its "seq", a "send" is
answered by "stored" once the event is written, also if it had been written before, and a "welcome"
carries "epoch" and "seq": the event that comes next has the next number. A client that comes back
puts the last epoch and number it knows into its "join", as "resume": {"epoch", "seq"}; "recovered"
in the welcome says whether all that it has missed follows. If not, "reason" is "trimmed" (the
broker keeps only later ones) or "new epoch" (it has lost what it had, or the end of it). A second
welcome on the same connection says that something has been lost meanwhile or, if "recovered", only
that the epoch has another name. A welcome with "acks" asks for an "ack" of what has been heard.
"""

from __future__ import annotations

import re
import unicodedata
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
    "Position",
    "Send",
    "Stored",
    "Sync",
    "Synced",
    "Welcome",
    "check_body",
    "check_name",
    "decode_event",
    "decode_from_client",
    "decode_from_server",
    "encode",
    "event_name",
    "numbered",
]

_T = TypeVar("_T")

MAX_NAME = 32  # characters in the name of a player or a game
MAX_ID = 64  # characters in the id of an event
MAX_TOKEN = 1024  # characters in what lets a player in
MAX_BODY = 16_384  # characters in the body of an event
MAX_FRAME = 262_144  # bytes in a frame, enough for the longest body, escaped

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
EventId = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
Body = Annotated[str, Meta(max_length=MAX_BODY)]
Seq = Annotated[int, Meta(ge=0)]
Token = Annotated[str, Meta(max_length=MAX_TOKEN)]


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


class Position(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place in a game's events: after the one with this sequence number, in this epoch."""

    epoch: EventId
    seq: Seq

    def __post_init__(self) -> None:
        _require_plain(self.epoch)


class Join(_Message, frozen=True):
    """Take part in a game under a name."""

    game: Name
    player: Name
    resume: Position | None = None
    token: Token = ""

    def __post_init__(self) -> None:
        _require_plain(self.game, self.player)


class Send(_Message, frozen=True):
    """Say something to everyone in the game. A retry carries the same id."""

    id: EventId
    body: Body

    def __post_init__(self) -> None:
        _require_plain(self.id)


class Ack(_Message, frozen=True):
    """Everything up to this sequence number has been heard."""

    seq: Seq


class Sync(_Message, frozen=True):
    """Ask to be told when everything sent before this has had its effect here."""

    id: EventId

    def __post_init__(self) -> None:
        _require_plain(self.id)


class Leave(_Message, frozen=True):
    """Leave the game for good."""


class Welcome(_Message, frozen=True):
    """The player has joined; events follow."""

    server: str
    game: str
    epoch: str | None = None
    seq: int | None = None
    recovered: bool | None = None
    reason: str = ""
    acks: bool = False

    @property
    def position(self) -> Position | None:
        """After which event it goes on; None where they have no numbers."""
        if self.epoch is None or self.seq is None:
            return None
        return Position(self.epoch, self.seq)


class Event(_Message, frozen=True):
    """What a player said, as everyone in the game hears it."""

    id: EventId
    player: Name
    body: Body
    seq: Seq | None = None

    def __post_init__(self) -> None:
        _require_plain(self.id, self.player)


class Stored(_Message, frozen=True):
    """The event has been written and will not be lost."""

    id: str
    seq: int


class Synced(_Message, frozen=True):
    """The answer to a sync."""

    id: str


ErrorCode = Literal[
    "bad-message",
    "too-big",
    "too-fast",
    "join-first",
    "already-joined",
    "name-taken",
    "bad-token",
    "no-such-game",
    "game-full",
    "broker-down",
]


class Error(_Message, frozen=True):
    """What was wrong with what the client sent. `id` is the event's, where it is about one."""

    code: ErrorCode
    message: str
    id: str | None = None


FromClient = Join | Send | Ack | Sync | Leave
FromServer = Welcome | Event | Stored | Synced | Error


_PLAIN_WORDS = "letters, digits, and . : - _ or single spaces between them"
_PLAIN_ASCII = re.compile(r"[A-Za-z0-9_.:-]+(?: [A-Za-z0-9_.:-]+)*")
# Letters and marks, by their category, that show nothing at all.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0]")


def _is_plain(text: str) -> bool:
    """Whether a name can be shown anywhere: no markup, no control characters, nothing unseen."""
    if _PLAIN_ASCII.fullmatch(text):
        return True
    kinds = [unicodedata.category(character)[0] for character in text]
    letters = "".join(
        "a" if kind in "LN" else c for c, kind in zip(text, kinds, strict=True) if kind != "M"
    )
    unseen = _UNSEEN.search(text) or any(c >= "\U000e0000" for c in text)
    return bool(_PLAIN_ASCII.fullmatch(letters)) and kinds[0] != "M" and not unseen


def _require_plain(*texts: str) -> None:
    for text in texts:
        if not _is_plain(text):
            raise ValueError(f"{text!r:.80} is no name or id: use {_PLAIN_WORDS}")


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
    if len(payload) > MAX_FRAME:
        raise BadMessage(f"{len(payload)} bytes; at most {MAX_FRAME}")
    try:
        return _event.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(f"{error!s:.200}") from error


def numbered(payload: bytes, seq: int) -> bytes:
    """The frame of an event that has been given a number."""
    return b'%s,"seq":%d}' % (payload[:-1], seq)


def event_name(player: str, event: str) -> str:
    """What an event is called where the events of all players stand together, as in a trace.

    An id is its sender's own: two clients may both call an event "1". The ids that `Player` gives,
    P2-1 and so on, say whose they are; any other gets its sender's name in front.
    """
    number = event.removeprefix(f"{player}-")
    own = number != event and number.isascii() and number.isdigit()
    return event if own else f"{player}/{event}"


def check_name(name: object, of: str) -> str:
    """`name` itself, if it may name a player or a game. Raises `ValueError` saying why not."""
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not _is_plain(name):
        raise ValueError(
            f"{name!r:.80} cannot be the name of a {of}: use 1 to {MAX_NAME} {_PLAIN_WORDS}"
        )
    return name


def check_body(body: object) -> str:
    """`body` itself, if an event can carry it. Raises `ValueError` saying why not."""
    if not isinstance(body, str):
        raise ValueError(f"an event carries text, not {type(body).__name__}; use str()")
    if len(body) > MAX_BODY:
        raise ValueError(f"an event carries at most {MAX_BODY} characters, not {len(body)}")
    try:
        body.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"an event carries whole characters only: {error}") from error
    return body


def _decode(decoder: msgspec.json.Decoder[_T], frame: str | bytes) -> _T:
    if isinstance(frame, bytes):
        raise BadMessage("a binary frame; send JSON in a text frame")
    try:
        return decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadMessage(f"{error!s:.200}") from error
