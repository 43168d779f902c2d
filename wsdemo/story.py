"""Story time: when each thing of a run happens in a picture, and on which hop each message travels.

A run lasts milliseconds and most of it is waiting; a picture of it wants every hop to take as long
as any other, causes before effects, and what overlapped to move together. So each record gets a
story time `s`, in hops: an arrival comes one hop after its departure, what a scenario does comes
after all that had arrived before it, and two messages on one link keep a distance. Steps and
settles are barriers. The stage and the timeline draw what this module tells, and nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from wsdemo.ledger import TITLES, Fate, FateFinder
from wsdemo.trace import Record, Trace, is_elsewhere

__all__ = [
    "Beat",
    "Hop",
    "Item",
    "Left",
    "Link",
    "Loss",
    "Outcome",
    "Place",
    "Said",
    "Story",
    "Teller",
    "tell",
]

HEADWAY = 0.4  # hops between two messages that follow each other on one link
DWELL = 1.0  # hops that a player is seen to be away before it connects again
BREATH = 0.5  # hops between a caption and the first thing that happens


class _Item(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower): ...


class Beat(_Item, frozen=True):
    """A step begins."""

    s: float
    caption: str


class Said(_Item, frozen=True):
    """A player says something: an event begins its way."""

    s: float
    event: str
    player: str
    body: str


class Hop(_Item, frozen=True):
    """A message went from one part to the next. `ms` is how long that took, where it is known."""

    s0: float
    s1: float
    event: str
    source: str
    target: str
    ms: float | None = None


class Loss(_Item, frozen=True):
    """A message set out from `source` and never got to `target`, so these players missed it."""

    s0: float
    s1: float
    event: str
    source: str
    target: str
    players: list[str]
    cause: str


class Place(_Item, frozen=True):
    """A player is on its way to a server from `s0` and there at `s1`; or away ("") from `s0` on."""

    s0: float
    s1: float
    player: str
    server: str


class Left(_Item, frozen=True):
    """A player has left the game for good."""

    s: float
    player: str


class Link(_Item, frozen=True):
    """A server is subscribed to the game's channel from `s` on, or no longer is."""

    s: float
    server: str
    up: bool


class Outcome(_Item, frozen=True):
    """From `s` on it is certain what became of an event for a player."""

    s: float
    event: str
    player: str
    outcome: str
    cause: str


Item = Beat | Said | Hop | Loss | Place | Left | Link | Outcome


@dataclass(frozen=True)
class Story:
    """A run as a picture needs it: its parts, its items and the story time at which it ends."""

    title: str
    broker: str
    servers: list[str]
    items: list[Item]
    end: float


@dataclass
class _Way:
    """How far an event has come: when it was said and received, and when each server relayed it."""

    said: float
    sent: Record
    received: Record | None = None
    departs: float = 0.0  # from the server that received it
    through_hub: bool = False
    relayed: dict[str, float] = field(default_factory=dict)
    delivered: dict[str, tuple[float, Record]] = field(default_factory=dict)


def tell(trace: Trace) -> Story:
    """The story of a whole trace."""
    teller = Teller(trace)
    items = [item for record in trace for item in teller.feed(record)]
    return teller.story(items)


class Teller:
    """Takes the records of a trace one by one, and gives the items that each adds to the story."""

    def __init__(self, trace: Trace) -> None:
        self._about = trace.about
        self._fates = FateFinder(trace.about)
        self._floor = 0.0  # nothing happens earlier any more
        self._end = 0.0
        self._shown: list[float] = []  # the story time of each record
        self._busy: defaultdict[str, float] = defaultdict(float)  # part -> when it is free again
        self._ways: dict[str, _Way] = {}
        self._connecting: dict[str, float] = {}  # player -> since when
        self._joined: dict[str, float] = {}  # player -> when its server registered it
        self._place: dict[str, str] = {}
        self._away_since: dict[str, float] = {}
        self._reporting: set[str] = set()  # players whose own records are in the trace

    @property
    def end(self) -> float:
        """The story time up to which everything is told."""
        return self._end

    def story(self, items: list[Item]) -> Story:
        """The story that these items make."""
        broker = str(self._about.get("broker", ""))
        servers = [str(name) for name in self._about.get("servers", [])]
        return Story(TITLES.get(broker, f"With {broker}"), broker, servers, items, self._end)

    def feed(self, record: Record) -> list[Item]:
        """The items that this record adds."""
        s, items = self._tell(record)
        self._shown.append(s)
        self._end = max(self._end, s)
        items += self._tell_fates(self._fates.feed(record))
        match record.kind:
            case "settle":
                self._floor = self._end
            case "step":
                self._floor = self._end + BREATH
        return items

    def _tell(self, record: Record) -> tuple[float, list[Item]]:
        """When the record happens in the story, and what it adds."""
        if is_elsewhere(record, self._about.get("game")):
            return self._now(), []
        match record.kind:
            case "step":
                return self._end, [Beat(self._end, str(record.data.get("caption", "")))]
            case "send" | "receive" | "publish" | "unpublished" | "relay" | "deliver" | "hear":
                return self._tell_way(record)
            case "connect" | "route" | "join" | "welcome" | "disconnect" | "leave":
                return self._tell_place(record)
            case "subscribe" | "unsubscribe":
                s = self._busy[record.at] = max(self._now(), self._busy[record.at] + 0.5)
                return s, [Link(s, record.at, record.kind == "subscribe")]
        return max(self._floor, self._end), []

    def _now(self) -> float:
        """What somebody does of their own accord comes after all that has happened so far."""
        return max(self._floor, self._end)

    def _after(self, part: str, s: float) -> float:
        """A message's departure from a part: at `s`, or a distance after the one before it."""
        s = max(s, self._busy[part])
        self._busy[part] = s + HEADWAY
        return s

    def _tell_way(self, record: Record) -> tuple[float, list[Item]]:
        """An event goes one part further."""
        way = self._ways.get(record.event)
        items: list[Item] = []
        if way is None and record.kind not in ("send", "receive"):
            return self._now(), []  # somebody else has published it
        if way is None:
            player = record.at if record.kind == "send" else record.peer
            said = self._after(player, self._now())
            way = self._ways[record.event] = _Way(said, record)
            items.append(Said(said, record.event, player, str(record.data.get("body", ""))))
        match record.kind:
            case "receive":
                s = way.said + 1
                way.received = record
                way.departs = self._after(f"{record.at} out", s)
                ms = _ms(way.sent, record)
                items.append(Hop(way.said, s, record.event, record.peer, record.at, ms))
            case "publish" | "unpublished":
                s = way.departs + 1
                if record.kind == "publish":
                    items += self._tell_hub(way, record)
            case "relay" if record.peer:
                s = self._after(f"{record.at} in", way.departs + 2)
                way.relayed[record.at] = s
                items += self._tell_hub(way, record)
                ms = _ms(way.received, record)
                items.append(Hop(s - 1, s, record.event, record.peer, record.at, ms))
            case "relay":
                s = way.relayed[record.at] = way.departs
            case "deliver":
                there = self._joined.get(record.peer, 0.0)
                if record.peer in self._reporting:
                    there += 0.5  # with its welcome
                s = max(way.relayed.get(record.at, self._now()), there)
                s = self._after(f"{record.at} to {record.peer}", s)
                way.delivered[record.peer] = (s, record)
                if record.peer not in self._reporting:
                    items.append(Hop(s, s + 1, record.event, record.at, record.peer))
                    s += 1
            case "hear" if record.at in way.delivered:
                departed, delivery = way.delivered[record.at]
                s = departed + 1
                ms = _ms(delivery, record)
                items.append(Hop(departed, s, record.event, delivery.at, record.at, ms))
            case _:
                s = way.said
        return s, items

    def _tell_hub(self, way: _Way, record: Record) -> Iterator[Item]:
        """The hop to the hub, once: its answer and the first relay may come in either order."""
        if way.received is not None and not way.through_hub:
            way.through_hub = True
            source = way.received.at
            yield Hop(way.departs, way.departs + 1, record.event, source, record.peer)

    def _tell_place(self, record: Record) -> tuple[float, list[Item]]:
        """A player comes or goes."""
        now = self._now()
        match record.kind:
            case "connect":
                self._reporting.add(record.at)
                now = max(now, self._away_since.get(record.at, now - DWELL) + DWELL)
                self._connecting[record.at] = now
                return now, []
            case "route":
                s = self._connecting.get(str(record.data.get("player")), now) + 0.25
                self._busy[record.peer] = max(self._busy[record.peer], s)
                return s, []
            case "join":
                s = max(self._connecting.get(record.peer, now) + 0.5, self._busy[record.at])
                self._joined[record.peer] = s
                if record.peer in self._reporting:
                    return s, []
                return s, [self._put(record.peer, record.at, now, s)]
            case "welcome":
                s = self._joined.get(record.at, now) + 0.5
                return s, [self._put(record.at, record.peer, self._connecting[record.at], s)]
            case "leave":
                return now, [Left(now, record.peer)]
            case "disconnect" if record.peer == "redis":
                return now, [Link(now, record.at, up=False)]
            case "disconnect":
                reported = record.at in self._reporting
                player, server = (record.at, record.peer) if reported else (record.peer, record.at)
                known = reported or player not in self._reporting
                if known and self._place.get(player) == server:
                    return now, [self._put(player, "", now, now)]
        return now, []

    def _put(self, player: str, server: str, s0: float, s1: float) -> Item:
        self._place[player] = server
        if not server:
            self._away_since[player] = s0
        return Place(s0, s1, player, server)

    def _tell_fates(self, fates: list[Fate]) -> Iterator[Item]:
        losses: dict[tuple[str, str, str, str], list[str]] = {}
        for fate in fates:
            if fate.outcome == "missed":
                source, target = self._way_lost(fate)
                key = (fate.event, source, target, fate.cause)
                losses.setdefault(key, []).append(fate.player)
            else:
                yield Outcome(self._shown[fate.n], fate.event, fate.player, fate.outcome, "")
        for (event, source, target, cause), players in losses.items():
            s0 = self._set_out(self._ways[event], source, target)
            self._end = max(self._end, s0 + 1)
            yield Loss(s0, s0 + 1, event, source, target, players, cause)
            for player in players:
                yield Outcome(s0 + 1, event, player, "missed", cause)

    def _way_lost(self, fate: Fate) -> tuple[str, str]:
        """Between which two parts the event was lost for the player."""
        way = self._ways[fate.event]
        receiver = way.received.at if way.received else way.sent.peer
        match fate.cause:
            case "never reached a server":
                return way.sent.at, receiver
            case "no broker between servers":
                return receiver, fate.server
            case "redis down" | "lost with its server":
                return receiver, "redis"
            case "server not subscribed":
                return "redis", fate.server
        return fate.server or receiver, fate.player

    def _set_out(self, way: _Way, source: str, target: str) -> float:
        """When a message that was lost left the part it got to."""
        if way.received is None:
            return way.said
        if source == "redis":
            return way.departs + 1
        if target == "redis":
            return way.departs
        return way.relayed.get(source, way.departs)


def _ms(start: Record | None, end: Record) -> float | None:
    return round((end.t - start.t) * 1000, 3) if start and start.n != end.n else None
