"""What one server costs for each connection, each event and each delivery: numbers, no sockets.

`server_cost` measures them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import linear_regression, median

__all__ = ["Busy", "Cost", "Filled", "Speech", "Talk", "cost_of"]


@dataclass(frozen=True)
class Filled:
    """How much the server held and had used once it had so many connections."""

    connections: int
    memory: float
    """Bytes of the process, resident."""
    seconds: float
    """Of a core, since the process began."""


@dataclass(frozen=True)
class Talk:
    """What it cost that players of a game spoke, each again only once it had heard itself."""

    players: int
    """Who hear each event."""
    speakers: int
    """One, who paused after each event, or many, who did not."""
    events: int
    deliveries: int
    seconds: float
    """Of a core."""


@dataclass(frozen=True)
class Busy:
    """How busy the server was while a game's players spoke at an even rate, in turn."""

    players: int
    """Who hear each event."""
    said: float
    """Events a second."""
    events: float
    """A second, as they were heard: those that are said too fast take longer."""
    share: float
    """Of one core; 1 is all of it."""
    waits: tuple[float, ...]
    """How many seconds each event took until the last player had heard it, as they were said."""

    @property
    def deliveries(self) -> float:
        """A second."""
        return self.events * self.players

    @property
    def last(self) -> float:
        """How many seconds the last tenth of the events took: the median."""
        return median(self.waits[-max(1, len(self.waits) // 10) :])


@dataclass(frozen=True)
class Speech:
    """What it costs that players speak, in seconds of one core's time."""

    per_event: float
    """That a player says, whoever hears it: to read it, check it and hand it on."""
    per_delivery: float
    """Of one event to one player."""

    def seconds(self, events: float, deliveries: float) -> float:
        """What so many events, received and delivered, cost."""
        return events * self.per_event + deliveries * self.per_delivery


@dataclass(frozen=True)
class Cost:
    """What one server costs: the slopes, and what was measured. Seconds are of one core's time."""

    bytes_per_connection: float
    bytes_at_rest: float
    """Of a server without connections."""
    seconds_per_connection: float
    """Once, to make it and to join."""
    one: Speech
    """With little to do: one event at a time."""
    many: Speech
    """With much to do: what comes together is written to each player in one go."""
    filling: tuple[Filled, ...]
    talks: tuple[Talk, ...]
    busy: tuple[Busy, ...] = ()
    """Not used for the slopes: to hold them against. The last is beyond the wall."""

    def seconds(self, events: float, deliveries: float) -> float:
        """What so many events, received and delivered, cost at least: with much to do."""
        return self.many.seconds(events, deliveries)

    def explains(self, busy: Busy, within: float) -> bool:
        """Whether the core was as busy as with little or with much to do, or between.

        `within` is a factor by which it may be more, or less.
        """
        least = self.many.seconds(busy.events, busy.deliveries)
        most = self.one.seconds(busy.events, busy.deliveries)
        return least / within <= busy.share <= most * within

    def players(self, machines: float = 1.0, rate: float = 1.0) -> float:
        """How many can be in one game in which each says `rate` events a second, at full load.

        A machine is one core like the one measured, or its worth: C players say C·rate events, and
        each has C deliveries, so the work grows with the square of C.
        """
        event, delivery = self.many.per_event * rate, self.many.per_delivery * rate
        return (math.sqrt(event**2 + 4 * delivery * machines) - event) / (2 * delivery)

    def __str__(self) -> str:
        one, many = self.one, self.many
        return (
            f"each connection  {self.bytes_per_connection / 1024:6.1f} KiB, and "
            f"{1e6 * self.seconds_per_connection:,.0f} µs of a core to make it: "
            f"{100_000 * self.seconds_per_connection:,.0f} s for 100,000\n"
            f"each event said  {1e6 * one.per_event:6.1f} µs of a core with little to do, "
            f"{1e6 * many.per_event:.1f} µs with much\n"
            f"each delivery    {1e6 * one.per_delivery:6.1f} µs of a core with little to do, "
            f"{1e6 * many.per_delivery:.2f} µs with much"
        )


def cost_of(filling: Sequence[Filled], talks: Sequence[Talk], busy: Sequence[Busy] = ()) -> Cost:
    """The slopes through what was measured, by least squares."""
    counts = [each.connections for each in filling]
    memory = linear_regression(counts, [each.memory for each in filling])
    joining = linear_regression(counts, [each.seconds for each in filling])
    return Cost(
        bytes_per_connection=memory.slope,
        bytes_at_rest=memory.intercept,
        seconds_per_connection=joining.slope,
        one=_speech(talk for talk in talks if talk.speakers == 1),
        many=_speech(talk for talk in talks if talk.speakers > 1),
        filling=tuple(filling),
        talks=tuple(talks),
        busy=tuple(busy),
    )


def _speech(talks: Iterable[Talk]) -> Speech:
    """The slopes that are nearest to what was measured: the normal equations, by Cramer's rule.

    Neither is less than nothing: where noise would make one so, as it can in small games, all that
    was measured counts as the deliveries'.
    """
    ours = list(talks)
    events = [float(talk.events) for talk in ours]
    deliveries = [float(talk.deliveries) for talk in ours]
    seconds = [talk.seconds for talk in ours]
    ee, ed, dd = _dot(events, events), _dot(events, deliveries), _dot(deliveries, deliveries)
    es, ds = _dot(events, seconds), _dot(deliveries, seconds)
    determinant = ee * dd - ed * ed
    per_event = (es * dd - ds * ed) / determinant
    per_delivery = (ds * ee - es * ed) / determinant
    if per_event < 0 or per_delivery <= 0:
        return Speech(0.0, ds / dd)
    return Speech(per_event, per_delivery)


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
