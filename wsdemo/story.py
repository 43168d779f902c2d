"""Story time: when each thing of a run happens in a picture, and on which hop each message travels.

A run lasts milliseconds and most of it is waiting; a picture of it wants every hop to take as long
as any other, causes before effects, and what overlapped to move together. So each record gets a
story time `s`, in hops: an arrival comes one hop after its departure, what a scenario does comes
after all that had arrived before it, and two messages on one link keep a distance. Steps and
settles are barriers. A fault is something that the scenario does; what is lost by it sets out after
it, and what a part does once it is back comes after its return; what gets to a part that stands
still waits there. The stage and the timeline draw what this module tells, and nothing else.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from wsdemo.ledger import TITLES, Fate, FateFinder
from wsdemo.trace import Record, Trace, is_elsewhere

__all__ = [
    "Beat",
    "Command",
    "Frame",
    "Health",
    "Hop",
    "Item",
    "Keeps",
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
DWELL = 1.0  # hops that a player is seen to be away, or a part to be ill, before it comes back
PARTING = 0.8  # hops for which whoever goes is seen to go
BREATH = 0.5  # hops between a caption and the first thing that happens
LAST_WORDS = 0.1  # hops for which a part outlives what has just left it
LONGEST_FRAME = 2000  # characters of a frame that are told

# What a fault's or a cure's reason says of its part. Others are about a link or a player.
_STATES = {
    "killed": "down",
    "power cut": "down",
    "stopped": "down",
    "frozen": "frozen",
    "restarted": "up",
    "started": "up",
    "thawed": "up",
}
# Why messages are lost that a fault may have cost.
_BY_FAULT = {
    "never reached a server",
    "redis down",
    "lost with its server",
    "server not subscribed",
}


# Why messages are lost that Redis had.
_KEPT_IN_VAIN = {"trimmed from history", "lost with Redis"}


class _Item(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower): ...


class Beat(_Item, frozen=True):
    """A step begins. `notes` are for whoever presents it."""

    s: float
    caption: str
    notes: str = ""


class Said(_Item, frozen=True):
    """A player says something: an event begins its way. `frame` is what it puts on the wire."""

    s: float
    event: str
    player: str
    body: str
    frame: str = ""


class Hop(_Item, frozen=True):
    """A message went from one part to the next. `ms` is how long that took, where it is known."""

    s0: float
    s1: float
    event: str
    source: str
    target: str
    ms: float | None = None


class Loss(_Item, frozen=True):
    """A message set out from `source` and never got to `target`, so these players missed it.

    If both are one, it was lost in there. `why` is what stands beside it in a picture, where
    "{target}" is for the name of the target, or for the names of several.
    """

    s0: float
    s1: float
    event: str
    source: str
    target: str
    players: list[str]
    cause: str
    why: str


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
    channel: str = ""


class Frame(_Item, frozen=True):
    """What the servers relay of an event to their players, told when the first of them does."""

    s: float
    event: str
    frame: str


class Command(_Item, frozen=True):
    """What Redis carried out for a server."""

    s: float
    server: str
    text: str


class Keeps(_Item, frozen=True):
    """How many events Redis keeps from `s` on; None if that is not known."""

    s: float
    count: int | None


class Health(_Item, frozen=True):
    """A server, or "redis", is "up", "down" or "frozen" from `s` on; until told otherwise, up.

    A server that the story does not begin with is there from its first "up" on. `reason` is the
    trace's word for what was done to it, as "killed".
    """

    s: float
    part: str
    state: str
    reason: str = ""


class Outcome(_Item, frozen=True):
    """From `s` on it is certain what became of an event for a player."""

    s: float
    event: str
    player: str
    outcome: str
    cause: str


Item = Beat | Said | Hop | Loss | Place | Left | Link | Frame | Command | Keeps | Health | Outcome


@dataclass(frozen=True)
class Story:
    """A run as a picture needs it: its parts, its items and the story time at which it ends.

    `servers` are those that it begins with.
    """

    title: str
    broker: str
    servers: list[str]
    items: list[Item]
    end: float

    @property
    def every_server(self) -> list[str]:
        """Those that were added later, too."""
        told = [item.part for item in self.items if isinstance(item, Health)]
        return list(dict.fromkeys([*self.servers, *(part for part in told if part != "redis")]))


@dataclass
class _Way:
    """How far an event has come: when it was said and received, and when each server relayed it."""

    said: float
    sent: Record
    received: Record | None = None
    departs: float = 0.0  # from the server that received it
    through_hub: bool = False
    waits: dict[str, float] = field(default_factory=dict)  # at parts that stand still, since when
    framed: bool = False
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
        self._floor = 0.0  # nothing is done earlier any more
        self._beat = 0.0  # nor does anything move before that
        self._end = 0.0
        self._shown: list[float] = []  # the story time of each record
        self._busy: defaultdict[str, float] = defaultdict(float)  # part -> when it is free again
        self._last: dict[tuple[str, str], float] = {}  # link -> when the last message set out on it
        self._falls: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)  # record, time
        self._back: defaultdict[str, float] = defaultdict(float)  # part -> since when
        self._ill: dict[str, float] = {}  # part -> since when
        self._frozen: set[str] = set()  # parts
        self._died: defaultdict[str, float] = defaultdict(float)  # part -> when it last did
        self._added: set[str] = set()  # servers
        self._linked: dict[str, str] = {}  # server that is subscribed -> channel
        self._linked_since: defaultdict[str, float] = defaultdict(float)  # server -> since when
        self._channel = ""
        self._ways: dict[str, _Way] = {}
        self._kept: int | None = None  # events in Redis, as far as is known
        self._queued: list[int] = []  # numbers of events that were put into the players' queues
        self._acked: dict[str, int] = {}  # player who has a queue -> up to which number
        self._queues_epoch = ""
        self._are_queues_known = True
        self._connecting: dict[str, float] = {}  # player -> since when
        self._joined: dict[str, float] = {}  # player -> when its server registered it
        self._place: dict[str, str] = {}
        self._home: dict[str, str] = {}  # player -> the last server it was on
        self._away_since: dict[str, float] = {}
        self._gone: set[str] = set()  # players who have left
        self._reporting: set[str] = set()  # players whose own records are in the trace

    @property
    def end(self) -> float:
        """The story time up to which everything is told."""
        return self._end

    def story(self, items: list[Item]) -> Story:
        """The story that these items make."""
        broker = str(self._about.get("broker", ""))
        named = self._about.get("servers")
        names = map(str, named if isinstance(named, list | tuple) else [])
        servers = [name for name in names if name not in self._added]
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
                self._floor = self._beat = self._end + BREATH
        return items

    def _tell(self, record: Record) -> tuple[float, list[Item]]:
        """When the record happens in the story, and what it adds."""
        if is_elsewhere(record, self._about.get("game")):
            return self._now(), []
        match record.kind:
            case "step":
                caption, notes = (str(record.data.get(name, "")) for name in ("caption", "notes"))
                return self._end, [Beat(self._end, caption, notes)]
            case (
                "send"
                | "receive"
                | "publish"
                | "unpublished"
                | "store"
                | "relay"
                | "deliver"
                | "replay"
                | "hear"
            ):
                return self._tell_way(record)
            case "connect" | "route" | "join" | "welcome" | "disconnect" | "leave":
                return self._tell_place(record)
            case "subscribe" | "unsubscribe":
                return self._tell_link(record)
            case "fault" | "heal" | "start":
                return self._tell_health(record)
            case "ack" | "gap" | "trim":
                return self._now(), self._tell_queue(record)
        return self._now(), []

    def _now(self) -> float:
        """What somebody does of their own accord comes after all that has happened so far."""
        return max(self._floor, self._end)

    def _after(self, part: str, s: float) -> float:
        """A message's departure from a part: at `s`, or a distance after the one before it."""
        s = max(s, self._busy[part])
        self._busy[part] = s + HEADWAY
        return s

    def _depart(self, source: str, target: str, s: float) -> float:
        """When a message sets out: at `s`, or once the step has begun and both ends are back."""
        return self._space(
            source, target, max(s, self._beat, self._back[source], self._back[target])
        )

    def _space(self, source: str, target: str, s: float) -> float:
        """At `s`, or a distance after the last message on the same link."""
        s = max(s, self._last.get((source, target), -HEADWAY) + HEADWAY)
        self._last[source, target] = s
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
            body = str(record.data.get("body", ""))
            items.append(Said(said, record.event, player, body, _frame(record)))
        elif record.kind == "send":  # once more
            way.said = self._after(record.at, self._now())
            way.received, way.through_hub = None, False
            way.waits.clear()  # what waited was the first try
        match record.kind:
            case "send" if record.peer in self._frozen:
                s = way.said
                items.append(self._wait(way, record.at, record.peer, s))
            case "receive":
                s = self._reach(way, record)
                if not way.waits.pop(record.at, 0.0):
                    ms = _ms(way.sent, record)
                    items.append(Hop(s - 1, s, record.event, record.peer, record.at, ms))
                way.received = record
                way.departs = self._after(f"{record.at} out", max(s, self._back[record.at]))
                if "redis" in self._frozen and self._about.get("broker") != "none":
                    way.through_hub = True
                    items.append(self._wait(way, record.at, "redis", way.departs))
            case "publish":
                items += self._tell_hub(way, record)
                s = max(way.departs + 1, self._beat, self._back[record.peer])
                held_up = sorted(self._frozen & self._linked.keys() - way.relayed.keys())
                items += [self._wait(way, "redis", server, s) for server in held_up]
                receivers = f"→ {record.data['receivers']}" if "receivers" in record.data else ""
                channel = self._linked.get(record.at, self._channel)
                items.append(Command(s, record.at, _words("PUBLISH", channel, receivers)))
            case "store":
                items += self._tell_hub(way, record)
                s = max(way.departs + 1, self._beat, self._back[record.peer])
                known = "" if record.data.get("is_new", True) else "(known already)"
                words = _words("XADD", self._linked.get(record.at, self._channel), known)
                items.append(Command(s, record.at, f"{words} → {record.data.get('seq', '')}"))
                items += self._tell_stored(s, record)
            case "unpublished":
                s = way.departs + 1
            case "relay":
                s, hops = self._tell_relay(way, record)
                items += hops
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
            case "replay":
                way.waits.pop(record.at, None)
                s0 = max(self._joined.get(record.peer, self._now()), way.departs + 1, self._beat)
                s0 = self._depart("redis", record.at, s0)
                items.append(Hop(s0, s0 + 1, record.event, "redis", record.at))
                s = self._after(f"{record.at} to {record.peer}", s0 + 1)
                way.delivered[record.peer] = (s, record)
                if record.peer not in self._reporting:
                    items.append(Hop(s, s + 1, record.event, record.at, record.peer))
                    s += 1
            case "hear" if record.at in way.delivered:
                departed, delivery = way.delivered[record.at]
                if departed < self._beat:
                    departed = self._after(f"{delivery.at} to {record.at}", self._beat)
                s = departed + 1
                ms = _ms(delivery, record)
                items.append(Hop(departed, s, record.event, delivery.at, record.at, ms))
            case _:
                s = way.said
        return s, items

    def _tell_stored(self, s: float, record: Record) -> list[Item]:
        """How many events Redis keeps with this one: by its own word, or in all queues."""
        seq, kept = record.data.get("seq"), record.data.get("kept")
        if isinstance(kept, int):
            return self._keep(s, kept)
        if isinstance(seq, int) and record.data.get("is_new", True):
            insort(self._queued, seq)
        return self._keep(s, self._in_queues())

    def _tell_queue(self, record: Record) -> list[Item]:
        """What a player has acknowledged, or will never have, is not in its queue."""
        player, seq = record.at if record.kind == "ack" else record.peer, record.data.get("seq")
        if self._about.get("broker") != "queue":
            return []
        epoch = record.data.get("epoch", self._queues_epoch)
        if epoch != self._queues_epoch and record.data.get("reason") == "new epoch":
            self._queued.clear()
            self._are_queues_known = seq == 0  # or else nobody knows what is in them
        self._queues_epoch = epoch
        if record.kind == "trim":  # its oldest one gave way
            player = str(record.data.get("player"))
            acked = self._acked.get(player, 0)
            self._acked[player] = next((n for n in self._queued if n > acked), acked)
        elif isinstance(seq, int):
            self._acked[player] = seq
        del self._queued[: bisect_right(self._queued, min(self._acked.values(), default=0))]
        return [] if self._kept is None else self._keep(self._now(), self._in_queues())

    def _in_queues(self) -> int | None:
        if not self._are_queues_known:
            return None
        behind = (bisect_right(self._queued, acked) for acked in self._acked.values())
        return sum(len(self._queued) - number for number in behind)

    def _keep(self, s: float, count: int | None) -> list[Item]:
        if count == self._kept:
            return []
        self._kept = count
        return [Keeps(s, count)]

    def _wait(self, way: _Way, source: str, target: str, s: float) -> Item:
        """A message goes to a part that stands still, and stays there until it goes on."""
        s = self._depart(source, target, s)
        way.waits[target] = s + 1
        self._end = max(self._end, s + 1)
        return Hop(s, s + 1, way.sent.event, source, target)

    def _reach(self, way: _Way, record: Record) -> float:
        """When what a player said is at its server.

        If the player has gone since, it left at once.
        """
        player, server = record.peer, record.at
        if server in way.waits:
            return max(way.waits[server], self._back[server], self._beat)
        if self._place.get(player) == server:
            return self._depart(player, server, way.said) + 1
        return self._space(player, server, max(way.said, self._beat)) + 1

    def _tell_hub(self, way: _Way, record: Record) -> Iterator[Item]:
        """The hop to the hub, once: its answer and the first relay may come in either order."""
        if way.received is not None and not way.through_hub:
            way.through_hub = True
            source = way.received.at
            way.departs = self._depart(source, record.peer, way.departs)
            yield Hop(way.departs, way.departs + 1, record.event, source, record.peer)

    def _tell_relay(self, way: _Way, record: Record) -> tuple[float, list[Item]]:
        """A server has the event for its players, from the hub or, without one, from itself."""
        items: list[Item] = []
        if record.peer:
            items += self._tell_hub(way, record)
            way.waits.pop(record.peer, None)
            if record.at in way.waits:
                s = max(way.waits.pop(record.at), self._back[record.at], self._beat)
            else:
                s0 = max(way.departs + 1, self._linked_since[record.at])
                s0 = self._depart(record.peer, record.at, s0)
                s, ms = s0 + 1, _ms(way.received, record)
                items.append(Hop(s0, s, record.event, record.peer, record.at, ms))
        else:
            s = way.departs
        way.relayed[record.at] = s
        frame = _frame(record)
        if frame and not way.framed:
            way.framed = True
            items.append(Frame(s, record.event, frame))
        return s, items

    def _tell_link(self, record: Record) -> tuple[float, list[Item]]:
        """A server subscribes to the game's channel, or ends that."""
        channel = str(record.data.get("channel", ""))
        if self._is_another_games(record):
            return self._now(), []
        up = record.kind == "subscribe"
        if not up and record.at not in self._linked:
            return self._now(), []  # Redis has forgotten this server already
        s = self._busy[record.at] = max(self._now(), self._busy[record.at] + 0.5)
        command = Command(s, record.at, _words(record.kind.upper(), channel))
        return s, [self._link(s, record.at, up, channel), command]

    def _is_another_games(self, record: Record) -> bool:
        channel, game = str(record.data.get("channel", "")), self._about.get("game")
        return bool(channel) and game is not None and not channel.endswith(f":{game}")

    def _link(self, s: float, server: str, up: bool, channel: str = "") -> Item:
        if up:
            self._linked[server] = self._channel = channel
            self._linked_since[server] = s
        else:
            channel = self._linked.pop(server, channel)
        return Link(s, server, up, channel)

    def _tell_health(self, record: Record) -> tuple[float, list[Item]]:
        """A part breaks or comes back. A server's death ends all that it had with others."""
        now, part = self._now() + LAST_WORDS * (record.kind == "fault"), record.at
        reason = str(record.data.get("reason", ""))
        state = "up" if record.kind == "start" else _STATES.get(reason)
        if record.peer == "redis" and reason == "link cut" and part in self._linked:
            return now, [self._link(now, part, up=False)]  # a server may notice it later
        if state is None or record.peer:
            return now, []
        if state == "frozen":
            self._frozen.add(part)
        else:
            self._frozen.discard(part)
        if state == "up":
            now = self._back[part] = max(now, self._ill.get(part, -DWELL) + DWELL)
        else:
            self._ill[part] = now
            if state == "down" or part == "redis":  # what a frozen server has, it only holds up
                self._falls[part].append((record.n, now))
        if record.kind == "start":
            self._added.add(part)
        items: list[Item] = [Health(now, part, state, reason)]
        if state == "down" and part in self._linked:
            items.append(self._link(now, part, up=False))
        if state == "down":
            self._died[part] = now
            if part == "redis":  # until it is counted again
                items += self._keep(now, None)
            if part == "redis":  # whose end a server that stands still does not notice
                frozen = sorted(self._frozen & self._linked.keys())
                items += [self._link(now, server, up=False) for server in frozen]
            held = [player for player, server in self._place.items() if server == part]
            items += [self._put(player, "", now, now) for player in held]
            now += PARTING
        return now, items

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
                s = max(s, self._beat, self._back[record.at])
                self._joined[record.peer] = s
                if record.peer in self._reporting:
                    return s, []
                return s, [self._put(record.peer, record.at, now, s)]
            case "welcome" if self._place.get(record.at) == record.peer:
                return now, []  # it is there already, and is told that Redis has begun anew
            case "welcome":
                since = max(self._connecting.get(record.at, now), self._beat)
                s = max(self._joined.get(record.at, now), since) + 0.5
                return s, [self._put(record.at, record.peer, since, s)]
            case "leave":
                player = record.at if record.at in self._reporting else record.peer
                if player in self._gone:  # its server has heard of it later
                    return now, []
                self._gone.add(player)
                self._acked.pop(player, None)
                return now + PARTING, [Left(now, player)]
            case "disconnect" if record.peer == "redis":
                up = record.at in self._linked and not self._is_another_games(record)
                return now, [self._link(now, record.at, up=False)] if up else []
            case "disconnect":
                reported = record.at in self._reporting
                player, server = (record.at, record.peer) if reported else (record.peer, record.at)
                known = reported or player not in self._reporting
                if known and self._place.get(player) == server:
                    return now + PARTING, [self._put(player, "", now, now)]
        return now, []

    def _put(self, player: str, server: str, s0: float, s1: float) -> Item:
        self._place[player] = server
        if server:
            self._home[player] = server
            self._gone.discard(player)
        else:
            self._away_since[player] = s0
        return Place(s0, max(s0, s1), player, server)

    def _tell_fates(self, fates: list[Fate]) -> Iterator[Item]:
        lost: dict[tuple[str, str, str, str], list[Fate]] = {}
        for fate in fates:
            if fate.outcome == "missed":
                source, target = self._way_lost(fate)
                key = (fate.event, source, target, fate.cause)
                lost.setdefault(key, []).append(fate)
            else:
                yield Outcome(self._shown[fate.n], fate.event, fate.player, fate.outcome, "")
        for (event, source, target, cause), missed in lost.items():
            s0 = self._set_out(missed[0], source, target)
            self._end = max(self._end, s0 + 1)
            players = [fate.player for fate in missed]
            died = self._has_died(event, target)
            is_back = any(self._place.get(player) for player in players)
            why = _why(cause, source, target, players, died, is_back)
            yield Loss(s0, s0 + 1, event, source, target, players, cause, why)
            for player in players:
                yield Outcome(s0 + 1, event, player, "missed", cause)

    def _has_died(self, event: str, part: str) -> bool:
        """Whether a part that an event waited at has died with it."""
        return self._died[part] >= self._ways[event].waits.get(part, float("inf"))

    def _way_lost(self, fate: Fate) -> tuple[str, str]:
        """Between which two parts the event was lost for the player."""
        way = self._ways[fate.event]
        receiver = way.received.at if way.received else way.sent.peer
        if fate.cause in _KEPT_IN_VAIN:
            return "redis", "redis"
        held = {"never reached a server": receiver, "redis down": "redis"}
        holder = held.get(fate.cause, fate.server)
        if fate.cause in _BY_FAULT and holder in way.waits:
            return holder, holder
        match fate.cause:
            case "never reached a server":
                return way.sent.at, receiver
            case "no broker between servers":
                return receiver, fate.server
            case "server without Redis":
                return receiver, "redis"
            case "redis down" | "lost with its server" if way.through_hub:
                return "redis", fate.server
            case "redis down" | "lost with its server" if self._about.get("broker") != "none":
                return receiver, "redis"
            case "server not subscribed":
                return "redis", fate.server
        home = fate.server or self._home.get(fate.player, receiver)
        if fate.cause != "player away" or home in way.relayed or home == receiver:
            return home, fate.player
        return "redis" if way.through_hub else receiver, home

    def _set_out(self, fate: Fate, source: str, target: str) -> float:
        """When a message that was lost left the part it got to: after the fault that cost it."""
        way = self._ways[fate.event]
        s = way.relayed.get(source, way.departs)
        if source == target:
            s = max(way.waits.get(source, way.departs + 1), self._died[source])
        elif way.received is None:
            s = way.said
        elif source == "redis":
            s = max(way.departs + 1, self._back["redis"])
        elif target == "redis":
            s = way.departs
        late = max(s, self._beat, self._fall(fate, way, source, target))
        return self._space(source, target, late) if late > s else s

    def _fall(self, fate: Fate, way: _Way, source: str, target: str) -> float:
        """When the part broke that the loss is due to, if that was after the event set out."""
        if fate.cause not in _BY_FAULT:
            return 0.0
        redis_down = fate.cause == "redis down"
        server = source if target == "redis" else target
        falls = self._falls["redis" if redis_down else server]
        at = bisect_right(falls, ((way.received or way.sent).n, 0.0))
        unpublished = redis_down and target == "redis"  # and what fell later is not to blame
        if at == len(falls) or (unpublished and falls[at][0] > fate.n):
            return 0.0
        return falls[at][1]


def _why(
    cause: str, source: str, target: str, players: list[str], died: bool, is_back: bool
) -> str:
    """A cause in the few words that a picture has room for."""
    if cause in _KEPT_IN_VAIN:
        return cause
    if source == target and died:
        return f"lost with {'Redis' if target == 'redis' else target}"
    if source == target:
        return "Redis does not answer" if target == "redis" else cause
    match cause:
        case "no broker between servers":
            return "no way to {target}"
        case "player away" if target not in players and source not in ("redis", target):
            return "no way to {target}"
        case "server not subscribed":
            return "{target} is not subscribed"
        case "player too slow" if len(players) == 1:
            return f"{players[0]} is too slow"
        case "player away" if len(players) == 1:
            return f"{players[0]} {'was' if is_back else 'is'} away"
        case "player away":
            return f"{len(players)} players {'were' if is_back else 'are'} away"
        case "redis down":
            return "Redis is down"
        case "server without Redis":
            return f"{source} has no link to Redis"
    return cause


def _ms(start: Record | None, end: Record) -> float | None:
    return round((end.t - start.t) * 1000, 3) if start and start.n != end.n else None


def _words(*words: str) -> str:
    return " ".join(filter(None, words))


def _frame(record: Record) -> str:
    """The frame in a record, cut where it is too long to be looked at."""
    frame = str(record.data.get("frame", ""))
    if len(frame) <= LONGEST_FRAME:
        return frame
    return f"{frame[:LONGEST_FRAME]} … (the first {LONGEST_FRAME:,} of {len(frame):,} characters)"
