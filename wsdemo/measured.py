"""What was measured of many servers and many clients, as numbers that can be counted and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Arrivals:
    """When clients came to connect, in seconds since the first server went away."""

    title: str
    clients: int
    came: list[float] = field(default_factory=list)
    """Attempts that were let in."""
    refused: list[float] = field(default_factory=list)
    """Attempts that were not."""
    marks: list[tuple[float, str]] = field(default_factory=list)
    """What else happened, and when."""

    def counts(self, refused: bool = False, width: float = 0.1) -> list[int]:
        """How many were let in, or refused, in each so many seconds, up to the last of either."""
        last = max([0.0, *self.came, *self.refused])
        counts = [0] * (int(last / width) + 1)
        for moment in self.refused if refused else self.came:
            counts[max(0, int(moment / width))] += 1
        return counts

    @property
    def attempts(self) -> int:
        """To connect, all together."""
        return len(self.came) + len(self.refused)

    def most(self, width: float = 0.1) -> int:
        """Attempts in the busiest so many seconds."""
        return max(map(sum, zip(self.counts(False, width), self.counts(True, width), strict=True)))

    def __str__(self) -> str:
        return (
            f"{self.title}: {self.clients} clients tried {self.attempts} times, "
            f"at most {self.most()} times in 100 ms"
        )
