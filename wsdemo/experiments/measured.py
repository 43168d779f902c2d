"""What was measured of many servers and many clients, as numbers that can be counted and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

__all__ = ["Arrivals", "Channels", "Received"]

Channels = Literal["all", "game"]
"""Whether all games share one channel, or each has its own."""


@dataclass(frozen=True)
class Received:
    """How many messages each server received while so many events were said in all games."""

    channels: Channels
    games: int
    players: int
    """Of all games together."""
    events: int
    by_server: Sequence[int]
    by_node: Sequence[int] = ()
    """How many were published on each node, where Redis is a cluster."""

    @property
    def servers(self) -> int:
        """How many there were."""
        return len(self.by_server)

    @property
    def share(self) -> float:
        """Of all events, how many a server received, on average: 1 is every one."""
        return sum(self.by_server) / self.servers / self.events

    def __str__(self) -> str:
        channels = "one channel for all" if self.channels == "all" else "a channel for each"
        nodes = f"; published on each node of Redis: {self.by_node}" if self.by_node else ""
        games = "1 game" if self.games == 1 else f"{self.games} games"
        return f"{games}, {channels}: {self.by_server}{nodes}"


@dataclass(frozen=True)
class Arrivals:
    """When clients came to connect, in seconds since the first server went away."""

    title: str
    clients: int
    came: list[float] = field(default_factory=list)
    """Attempts that were let in."""
    refused: list[float] = field(default_factory=list)
    """Attempts for which there was no server."""
    gave_up: list[float] = field(default_factory=list)
    """Attempts that took too long for the client."""
    marks: list[tuple[float, str]] = field(default_factory=list)
    """What else happened, and when."""

    @property
    def attempts(self) -> list[float]:
        """All of them, to connect."""
        return [*self.came, *self.refused, *self.gave_up]

    @property
    def seconds(self) -> float:
        """How long it took, to the last mark: then all are in."""
        return self.marks[-1][0] if self.marks else 0.0

    def counts(self, moments: Sequence[float], width: float = 0.1) -> list[int]:
        """How many of these attempts were in each so many seconds, up to the last of all."""
        counts = [0] * (int(max([0.0, *self.attempts]) / width) + 1)
        for moment in moments:
            counts[max(0, int(moment / width))] += 1
        return counts

    def most(self, width: float = 0.1) -> int:
        """Attempts in the busiest so many seconds."""
        return max(self.counts(self.attempts, width))

    def moves(self) -> list[int]:
        """How many were let in from each mark to the next."""
        marks = [moment for moment, _ in self.marks]
        return [
            sum(begin <= moment < end for moment in self.came) for begin, end in pairwise(marks)
        ]

    def __str__(self) -> str:
        tried = len(self.attempts)
        in_vain = f", {len(self.gave_up)} gave up" if self.gave_up else ""
        return (
            f"{self.title}: {self.clients} clients tried {tried} times "
            f"({tried / self.clients:.1f} each), at most {self.most()} times in 100 ms{in_vain}; "
            f"all were in after {self.seconds:.1f} s"
        )
