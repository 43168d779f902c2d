"""The ledger: from a trace, the fate of every event for every player who should have heard it.

A player should hear an event if it had joined the game and not left it when the event was sent. The
event is then heard, heard twice, or missed for a cause that the trace proves. It is pending where
the trace ends before the event had come to rest: while a part that stands still holds it up, while
its sender repeats it, and while a broker keeps it for a player who is away.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_high
from typing import Any, Literal, overload

from wsdemo.trace import HasTrace, Record, Source, Trace, is_elsewhere, traces

__all__ = ["Cause", "Fate", "FateFinder", "Ledger", "Ledgers", "ledger"]

Cause = Literal[
    "",  # not missed
    "no broker between servers",
    "redis down",
    "server without Redis",
    "server not subscribed",
    "player away",
    "player too slow",
    "never reached a server",
    "lost with its server",
    "trimmed from history",
    "lost with Redis",
]

TITLES = {
    "none": "Without a broker",
    "pubsub": "With Redis Pub/Sub",
    "stream": "With Redis Streams",
    "queue": "With a queue for each player",
}
KEEPERS = ("stream", "queue")  # brokers that keep events
# A player that does not say up to where it has heard begins anew.
_CAUSES_OF_GAPS: dict[str, Cause] = {
    "new epoch": "lost with Redis",
    "trimmed": "trimmed from history",
    "": "player away",
}
ROWS_SHOWN = 40
LOSSES_SHOWN = 10  # events in a line
BODY_SHOWN = 20  # characters
_CAPTION = "text-align: left; white-space: nowrap"


@dataclass(frozen=True)
class Fate:
    """What became of one event for one player.

    `n` is the index of the record that shows it, `server` the one the player was on when the event
    passed by, empty if it was on none.
    """

    event: str
    player: str
    outcome: Literal["heard", "twice", "missed", "pending"]
    cause: Cause
    n: int
    server: str = ""


@dataclass
class _Event:
    sent: Record
    where: dict[str, str | None]  # each player who should hear it -> its server
    heard: Counter[str] = field(default_factory=Counter)
    received: Record | None = None
    publish: Record | None = None  # carried out, or not
    was_cut_off: bool = False  # its server from Redis, while that was there, when it was published
    relays: dict[str, Record] = field(default_factory=dict)  # by server
    too_slow: set[str] = field(default_factory=set)  # for this event
    delivered: dict[str, Record] = field(default_factory=dict)  # by player
    missed: set[str] = field(default_factory=set)  # by these players, as is certain
    parted: set[str] = field(default_factory=set)  # players, before their server relayed it
    subscribed: set[str] = field(default_factory=set)  # servers, when it was received
    killed: set[str] = field(default_factory=set)  # servers, since it was received
    redis_ended: Record | None = None  # since it was received
    unconfirmed: bool = False  # its sender says it again until it is kept
    place: tuple[int, int] | None = None  # where it is kept: in which epoch, at which number


class FateFinder:
    """Takes the records of a trace one by one, and gives each fate as soon as it is certain."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        self._local = about.get("broker") == "none"
        self._keeps = about.get("broker") in KEEPERS
        self._game = about.get("game")
        self._where: dict[str, str | None] = {}  # each player in the game -> its server
        self._reporting: set[str] = set()  # players whose own records are in the trace
        self._too_slow: set[str] = set()
        self._events: dict[str, _Event] = {}
        self._open: set[str] = set()  # events that have not come to rest
        self._frozen: set[str] = set()  # servers
        self._cut: set[str] = set()  # servers whose link to Redis is
        self._is_redis_down = False
        self._subscribed: set[str] = set()  # servers, to the game's channel
        self._epochs: list[str] = []  # of what is kept, in the order of their beginning
        self._gaps: dict[str, list[tuple[int, int, Record]]] = {}  # player -> up to which place

    def feed(self, record: Record) -> list[Fate]:
        """The fates that this record decides."""
        if is_elsewhere(record, self._game):
            return []
        match record.kind:
            case "connect":
                self._reporting.add(record.at)
            case "join":
                self._where[record.peer] = record.at
                self._too_slow.discard(record.peer)
            case "leave":
                self._where.pop(record.peer, None)  # its server says so ...
                self._where.pop(record.at, None)  # ... or, if that cannot, the player itself
            case "disconnect" if self._where.get(record.peer) == record.at:
                self._where[record.peer] = None
                for event in (self._events[name] for name in self._open):
                    if record.at not in event.relays:
                        event.parted.add(record.peer)
            case "fault" if record.data.get("reason") == "too slow":
                self._too_slow.add(record.peer)
                for event in (self._events[name] for name in self._open):
                    if record.peer in event.delivered and not event.heard[record.peer]:
                        event.too_slow.add(record.peer)
            case "fault" if record.peer == "redis" and record.data.get("reason") == "link cut":
                self._cut.add(record.at)
            case "heal" if record.peer == "redis" and record.data.get("reason") == "link mended":
                self._cut.discard(record.at)
            case "fault" | "heal" if not record.peer:
                self._break_or_heal(record)
            case "subscribe" if self._is_the_games(str(record.data.get("channel", ""))):
                self._subscribed.add(record.at)
            case "unsubscribe" if self._is_the_games(str(record.data.get("channel", ""))):
                self._subscribed.discard(record.at)
            # Of a Redis Cluster, one node may be gone, with only some games' channels.
            case "disconnect" if record.peer == "redis" and self._is_the_games(
                str(record.data.get("channel", f"game:{self._game}"))
            ):
                self._subscribed.discard(record.at)
            case "gap" if "epoch" in record.data:
                upto = (self._epoch(str(record.data["epoch"])), int(record.data["seq"]))
                self._gaps.setdefault(record.peer, []).append((*upto, record))
            case "settle":  # speaks for what had been said when it began
                before = int(record.data.get("before", record.n))
                said = [name for name in sorted(self._open) if self._events[name].sent.n < before]
                return [fate for name in said for fate in self._close(name)]
            # An event that no server received is somebody else's, who published it on our channel.
            case _ if record.event in self._events or record.kind in ("send", "receive"):
                return self._follow(record)
        return []

    def pending(self) -> list[Fate]:
        """The fates that are not decided yet."""
        return [
            Fate(event, player, "pending", "", self._events[event].sent.n)
            for event in sorted(self._open)
            for player in self._events[event].where
            if not self._events[event].heard[player] and player not in self._events[event].missed
        ]

    def _break_or_heal(self, record: Record) -> None:
        """Somebody has stopped a part, or lets it go on."""
        part = record.at
        match record.data.get("reason"):
            case "frozen" | "stalled":
                self._frozen.add(part)
            case "thawed" | "reads on":
                self._frozen.discard(part)
            case "killed" if part != "redis":
                self._frozen.discard(part)
                self._subscribed.discard(part)
                for name in self._open:
                    self._events[name].killed.add(part)
            case "started":
                self._is_redis_down = False
            case "stopped" | "killed" | "power cut":
                self._is_redis_down = True
                self._frozen.discard(part)
                self._subscribed.clear()
                for name in self._open:
                    self._events[name].redis_ended = record

    def _is_the_games(self, channel: str) -> bool:
        return channel.endswith(f"game:{self._game}")

    def _follow(self, record: Record) -> list[Fate]:
        event = self._events.get(record.event)
        if event is None:
            event = self._events[record.event] = _Event(record, dict(self._where))
            self._open.add(record.event)
        match record.kind:
            case "send":
                event.unconfirmed = event.unconfirmed or bool(record.data.get("confirm"))
                self._open.add(record.event)  # again, if it is a retry
            case "confirm" | "give up":
                event.unconfirmed = False
            case "store":
                event.publish = record
                epoch = self._epoch(str(record.data.get("epoch", "")))
                event.place = (epoch, int(record.data["seq"]))
            case "receive":
                event.received = record
                event.parted.clear()
                event.subscribed = set(self._subscribed)
                event.killed.clear()
                event.redis_ended = None
                event.where = {player: self._where.get(player) for player in event.where}
            case "publish" | "unpublished":
                event.publish = record
                event.was_cut_off = record.at in self._cut and not self._is_redis_down
            case "relay":
                event.relays[record.at] = record
                if self._keeps and event.place is None and "seq" in record.data:
                    event.place = (max(0, len(self._epochs) - 1), int(record.data["seq"]))
                event.too_slow |= self._too_slow
            case "deliver" | "replay":
                event.delivered[record.peer] = record
                if record.peer not in self._reporting:  # as much as can be known of it
                    return [self._hear(event, record.peer, record)]
            case "hear":
                return [self._hear(event, record.at, record)]
        return []

    def _hear(self, event: _Event, player: str, record: Record) -> Fate:
        event.heard[player] += 1
        outcome: Literal["heard", "twice"] = "heard" if event.heard[player] == 1 else "twice"
        return Fate(record.event, player, outcome, "", record.n)

    def _epoch(self, epoch: str) -> int:
        """The how-manieth epoch it is."""
        if epoch not in self._epochs:
            self._epochs.append(epoch)
        return self._epochs.index(epoch)

    def _close(self, name: str) -> Iterator[Fate]:
        """The misses that are certain once everything that can move has come to rest."""
        event = self._events[name]
        self._open.discard(name)
        for player, server in event.where.items():
            if event.heard[player] or player in event.missed:
                continue
            gap = self._gap(event, player) or self._loss(event, player)
            if gap is None and self._is_held_up(event, player, server):
                self._open.add(name)
            else:
                event.missed.add(player)
                yield gap or self._miss(name, event, player, server)

    def _gap(self, event: _Event, player: str) -> Fate | None:
        """What shows that the player will never hear an event, although it was kept."""
        for epoch, seq, record in self._gaps.get(player, []):
            if event.place and event.place <= (epoch, seq) and record.n > event.sent.n:
                cause = _CAUSES_OF_GAPS[str(record.data.get("reason", ""))]
                return Fate(event.sent.event, player, "missed", cause, record.n, record.at)
        return None

    def _loss(self, event: _Event, player: str) -> Fate | None:
        """What a Redis that was away has not brought back to a player who is there, and at rest."""
        there, frozen = self._where.get(player), self._frozen
        at_rest = there and not event.unconfirmed and frozen.isdisjoint({player, there, "redis"})
        if event.place and event.redis_ended and at_rest:
            end = event.redis_ended.n
            return Fate(event.sent.event, player, "missed", "lost with Redis", end, there or "")
        return None

    def _is_held_up(self, event: _Event, player: str, server: str | None) -> bool:
        """Whether the player may still hear it: from a part that stands still, or from a keeper."""
        if event.unconfirmed or event.place or player in self._frozen:
            return True
        if event.received is None:
            return event.sent.peer in self._frozen
        if self._local:
            return server == event.received.at and server in self._frozen
        unpublished = event.publish is None and event.received.at in self._frozen
        return unpublished or server in self._frozen or "redis" in self._frozen

    def _miss(self, name: str, event: _Event, player: str, server: str | None) -> Fate:
        """Why the player missed it: the first thing on the event's way that went wrong."""

        def missed(cause: Cause, shown_by: Record | None) -> Fate:
            return Fate(name, player, "missed", cause, (shown_by or event.sent).n, server or "")

        if event.received is None:
            return missed("never reached a server", event.sent)
        if server is None:
            return missed("player away", event.relays.get(event.received.at, event.received))
        if self._local and server != event.received.at:
            return missed("no broker between servers", event.relays.get(event.received.at))
        if server in event.relays:
            gone: Cause = "player too slow" if player in event.too_slow else "player away"
            return missed(gone, event.delivered.get(player, event.relays[server]))
        if event.publish is None:
            return missed("lost with its server", event.received)
        if event.publish.kind == "unpublished":
            cause: Cause = "server without Redis" if event.was_cut_off else "redis down"
            return missed(cause, event.publish)
        if server in event.killed:
            return missed("lost with its server", event.publish)
        if event.redis_ended and server in event.subscribed:
            return missed("redis down", event.publish)
        if player in event.parted:  # so its server had no more reason to be subscribed
            return missed("player away", event.publish)
        return missed("server not subscribed", event.publish)


class Ledger:
    """The fates of one run. Iterating gives them, event by event."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.broker = str(trace.about.get("broker", ""))
        hops = [int(r.data["hops"]) for r in trace.select("relay") if "hops" in r.data]
        self.hops = median_high(hops) if hops else None
        self.keys: int | None = trace.about.get("keys")
        self.content: int | None = trace.about.get("content")
        self.stored = len({r.event for r in trace.select("store")})
        self.acknowledged = len({r.event for r in trace.select("confirm")})
        finder = FateFinder(trace.about)
        self._heard: dict[str, list[str]] = {}  # player -> events, in the order of hearing
        self._fates: dict[tuple[str, str], Fate] = {}
        self._said: dict[str, tuple[str, str]] = {}  # event -> sender, body
        for record in trace:
            # A client outside the cluster leaves no "send"; its server's "receive" says the same.
            own = not is_elsewhere(record, trace.about.get("game"))
            if own and record.kind in ("send", "receive") and record.event not in self._said:
                sender = record.at if record.kind == "send" else record.peer
                self._said[record.event] = (sender, str(record.data.get("body", "")))
            for fate in finder.feed(record):
                self._fates[fate.event, fate.player] = fate
                if fate.outcome == "heard":
                    self._heard.setdefault(fate.player, []).append(fate.event)
        for fate in finder.pending():
            self._fates[fate.event, fate.player] = fate

    @property
    def heard(self) -> int:
        """How many times an event was heard by a player who should, at least once."""
        return self._count("heard") + self.twice

    @property
    def missed(self) -> int:
        """How many times an event was missed."""
        return self._count("missed")

    @property
    def twice(self) -> int:
        """How many times an event was heard more than once."""
        return self._count("twice")

    @property
    def pending(self) -> int:
        """How many fates were not decided when the trace ended."""
        return self._count("pending")

    @property
    def balances(self) -> bool:
        """Whether each event was heard or missed by each player it was for, with a cause.

        False while a fate is pending.
        """
        causes = all(fate.cause for fate in self if fate.outcome == "missed")
        return causes and self.heard + self.missed == len(self._fates)

    @property
    def events(self) -> list[str]:
        """The ids of the events, in the order in which they were sent."""
        return list(self._said)

    @property
    def players(self) -> list[str]:
        """Everyone who should have heard something, by name."""
        return sorted({player for _, player in self._fates})

    def body(self, event: str) -> str:
        """What the event said."""
        return self._said[event][1]

    def sender(self, event: str) -> str:
        """Who said it."""
        return self._said[event][0]

    def fate(self, event: str, player: str) -> Fate | None:
        """What became of the event for the player; None if it was not for them."""
        return self._fates.get((event, player))

    def missed_by(self, player: str) -> list[tuple[str, Cause]]:
        """The events this player missed, each with its cause."""
        return [(f.event, f.cause) for f in self if f.player == player and f.outcome == "missed"]

    def heard_by(self, player: str) -> list[str]:
        """The events this player heard, in the order in which it heard them first."""
        return list(self._heard.get(player, []))

    def __iter__(self) -> Iterator[Fate]:
        order = {event: n for n, event in enumerate(self._said)}
        return iter(sorted(self._fates.values(), key=lambda f: (order[f.event], f.player)))

    def __len__(self) -> int:
        return len(self._fates)

    @property
    def title(self) -> str:
        """What the run is a run of, in words."""
        return TITLES.get(self.broker, f"With {self.broker}")

    @property
    def summary(self) -> str:
        """The counts, in a line."""
        pending = f" · pending {self.pending}" if self.pending else ""
        return f"heard {self.heard} · missed {self.missed} · twice {self.twice}{pending}"

    @property
    def losses(self) -> list[str]:
        """Who missed what, and why: a line for each player and cause."""
        found: dict[tuple[str, Cause], list[str]] = {}
        for fate in self:
            if fate.outcome == "missed":
                found.setdefault((fate.player, fate.cause), []).append(self.body(fate.event))
        return [f"{who} missed {_quoted(what)}: {cause}" for (who, cause), what in found.items()]

    def __repr__(self) -> str:
        return "\n".join([self.title, *_aligned(self._rows()), *self._rest(), self.summary])

    def _repr_html_(self) -> str:
        rest = "".join(f"<p>{html.escape(line)}</p>" for line in self._rest())
        head, *rows = self._rows()
        marked = [
            [event, html.escape(sender), *map(_emphasised, outcomes)]
            for event, sender, *outcomes in rows
        ]
        return _table(f"{self.title}: {self.summary}", [head, *marked]) + rest

    def _rows(self) -> list[list[str]]:
        head = ["event", "said by", *self.players]
        shown = list(self._said.items())[:ROWS_SHOWN]
        return [head] + [
            [_shortened(body), sender, *(_words(self.fate(event, p)) for p in self.players)]
            for event, (sender, body) in shown
        ]

    def _rest(self) -> list[str]:
        more = len(self.events) - ROWS_SHOWN
        return [f"… and {more} more event{'s' * (more > 1)}"] if more > 0 else []

    def count(self, cause: str) -> int:
        """How many times an event was missed for this cause."""
        return sum(fate.cause == cause for fate in self._fates.values())

    def _count(self, outcome: str) -> int:
        return sum(fate.outcome == outcome for fate in self._fates.values())


class Ledgers(Mapping[str, Ledger]):
    """The ledgers of several runs, by broker."""

    def __init__(self, ledgers: Mapping[str, Ledger]) -> None:
        self._ledgers = dict(ledgers)

    def __getitem__(self, broker: str) -> Ledger:
        return self._ledgers[broker]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ledgers)

    def __len__(self) -> int:
        return len(self._ledgers)

    def side_by_side(self) -> list[list[str]]:
        """What each broker did with the events, and at what cost, after a head.

        There is a row for each thing that at least one of them does.
        """
        books = list(self._ledgers.values())
        causes = sorted({fate.cause for book in books for fate in book if fate.cause})

        def row(name: str, count: Callable[[Ledger], int | None]) -> list[str]:
            counts = [count(book) for book in books]
            return [name, *("–" if number is None else f"{number:,}" for number in counts)]

        rows = [
            row("events said", lambda book: len(book.events)),
            row("… kept", lambda book: book.stored if book.broker in KEEPERS else None),
            row(
                "… acknowledged, with confirm=True",
                lambda book: book.acknowledged if book.broker in KEEPERS else None,
            ),
            row("heard", lambda book: book.heard),
            row("… more than once", lambda book: book.twice),
            row("missed", lambda book: book.missed),
            *(row(f"… {cause}", lambda book, cause=cause: book.count(cause)) for cause in causes),  # type: ignore[misc]
            row("hops from server to server, median", lambda book: book.hops),
            row("keys in Redis at the end", lambda book: book.keys),
            row("bytes of content in them", lambda book: book.content),
        ]
        return [["", *self._ledgers], *(each for each in rows if set(each[1:]) != {"–"})]

    def __repr__(self) -> str:
        books = [*map(repr, self._ledgers.values())]
        if len(books) > 1:
            books.append("\n".join(["Side by side", *_aligned(self.side_by_side())]))
        return "\n\n".join(books)

    def _repr_html_(self) -> str:
        books = [each._repr_html_() for each in self._ledgers.values()]
        if len(books) > 1:
            books.append(_table("Side by side", self.side_by_side()))
        return "".join(books)


@overload
def ledger(source: Trace | HasTrace) -> Ledger: ...
@overload
def ledger(source: Mapping[str, Trace | HasTrace]) -> Ledgers: ...
def ledger(source: Source) -> Ledger | Ledgers:
    """The ledger of a trace or a live cluster; for the result of `compare`, one for each run."""
    found = {name: Ledger(trace) for name, trace in traces(source).items()}
    return Ledgers(found) if isinstance(source, Mapping) else next(iter(found.values()))


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _table(caption: str, rows: list[list[str]]) -> str:
    """A table with a head. Its other cells are markup, but for the names of the rows."""
    head, *rows = rows
    cells = "".join(
        f'<th scope="col">{html.escape(cell)}</th>' if cell else "<td></td>" for cell in head
    )
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td>{cell}</td>" for cell in row)
        + "</tr>"
        for name, *row in rows
    )
    return (
        f'<table><caption style="{_CAPTION}">{html.escape(caption)}</caption>'
        f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
    )


def _words(fate: Fate | None) -> str:
    if fate is None:
        return "–"
    return f"missed: {fate.cause}" if fate.outcome == "missed" else fate.outcome


def _emphasised(cell: str) -> str:
    escaped = html.escape(cell)
    return f"<b>✕ {escaped}</b>" if cell.startswith("missed") else escaped


def _quoted(bodies: Sequence[str]) -> str:
    more = [f"{len(bodies) - LOSSES_SHOWN} more"] if len(bodies) > LOSSES_SHOWN else []
    return ", ".join([*(f"“{_shortened(body)}”" for body in bodies[:LOSSES_SHOWN]), *more])


def _shortened(body: str) -> str:
    printable = "".join(c if c.isprintable() else "�" for c in body)
    return printable if len(printable) <= BODY_SHOWN else printable[: BODY_SHOWN - 1] + "…"
