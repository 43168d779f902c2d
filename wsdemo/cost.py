"""What one server costs for each connection, each event and each delivery: numbers, no sockets.

`server_cost` measures them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import linear_regression

__all__ = ["Busy", "Cost", "Filled", "Talk", "cost_of"]


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
    """What it cost that one player of a game spoke, each event once the one before was heard."""

    players: int
    """Who hear each event."""
    events: int
    deliveries: int
    seconds: float
    """Of a core."""


@dataclass(frozen=True)
class Busy:
    """How busy the server was while one player of a game spoke at an even rate."""

    players: int
    """Who hear each event."""
    events: float
    """A second, as they came."""
    share: float
    """Of one core; 1 is all of it."""

    @property
    def deliveries(self) -> float:
        """A second."""
        return self.events * self.players


@dataclass(frozen=True)
class Cost:
    """What one server costs: the slopes, and what was measured. Seconds are of one core's time."""

    bytes_per_connection: float
    bytes_at_rest: float
    """Of a server without connections."""
    seconds_per_connection: float
    """Once, to make it and to join."""
    seconds_per_event: float
    """That a player says, whoever hears it: to read it, check it and hand it on."""
    seconds_per_delivery: float
    """Of one event to one player."""
    filling: tuple[Filled, ...]
    talks: tuple[Talk, ...]
    busy: tuple[Busy, ...] = ()
    """Not used for the slopes: to hold them against."""

    def seconds(self, events: float, deliveries: float) -> float:
        """What so many events, received and delivered, cost."""
        return events * self.seconds_per_event + deliveries * self.seconds_per_delivery

    def players(self, machines: float = 1.0, rate: float = 1.0) -> float:
        """How many can be in one game in which each says `rate` events a second, at full load.

        A machine is one core like the one measured, or its worth: C players say C·rate events, and
        each has C deliveries, so the work grows with the square of C.
        """
        event, delivery = self.seconds_per_event * rate, self.seconds_per_delivery * rate
        return (math.sqrt(event**2 + 4 * delivery * machines) - event) / (2 * delivery)

    def __str__(self) -> str:
        return (
            f"each connection  {self.bytes_per_connection / 1024:6.1f} KiB, and "
            f"{1e6 * self.seconds_per_connection:,.0f} µs of a core to make it\n"
            f"each event said  {1e6 * self.seconds_per_event:6.1f} µs of a core\n"
            f"each delivery    {1e6 * self.seconds_per_delivery:6.1f} µs of a core"
        )


def cost_of(filling: Sequence[Filled], talks: Sequence[Talk], busy: Sequence[Busy] = ()) -> Cost:
    """The slopes through what was measured, by least squares."""
    counts = [each.connections for each in filling]
    memory = linear_regression(counts, [each.memory for each in filling])
    joining = linear_regression(counts, [each.seconds for each in filling])
    per_event, per_delivery = _two_slopes(
        [talk.events for talk in talks],
        [talk.deliveries for talk in talks],
        [talk.seconds for talk in talks],
    )
    return Cost(
        bytes_per_connection=memory.slope,
        bytes_at_rest=memory.intercept,
        seconds_per_connection=joining.slope,
        seconds_per_event=per_event,
        seconds_per_delivery=per_delivery,
        filling=tuple(filling),
        talks=tuple(talks),
        busy=tuple(busy),
    )


def _two_slopes(x: Sequence[float], y: Sequence[float], z: Sequence[float]) -> tuple[float, float]:
    """The a and b for which a·x + b·y is nearest to z: the normal equations, by Cramer's rule."""

    def dot(one: Sequence[float], other: Sequence[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    xx, xy, yy, xz, yz = dot(x, x), dot(x, y), dot(y, y), dot(x, z), dot(y, z)
    determinant = xx * yy - xy * xy
    return (xz * yy - yz * xy) / determinant, (yz * xx - xz * xy) / determinant
