"""Which player is on which server, step by step, under different policies of a balancer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Placement", "Placements"]


@dataclass(frozen=True)
class Placement:
    """Who is where after something has happened."""

    after: str
    servers: Sequence[str]
    """Those that are up."""
    players: Mapping[str, str]
    """Each player's server."""

    @property
    def counts(self) -> dict[str, int]:
        """How many players each server has."""
        on = list(self.players.values())
        return {server: on.count(server) for server in self.servers}


class Placements(dict[str, list[Placement]]):
    """The placements under each policy, all after the same steps; printed, a table of counts."""

    def moved(self, policy: str) -> list[int]:
        """How many players are elsewhere than they were, at each step."""
        found = []
        before: Mapping[str, str] = {}
        for placement in self[policy]:
            now = placement.players
            found.append(sum(before.get(player, now[player]) != now[player] for player in now))
            before = now
        return found

    def __str__(self) -> str:
        steps = [placement.after for placement in next(iter(self.values()), [])]
        columns = [["", *steps], *([policy, *self._cells(policy)] for policy in self)]
        widths = [max(map(len, column)) for column in columns]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in zip(*columns, strict=True)
        )

    __repr__ = __str__

    def _cells(self, policy: str) -> list[str]:
        return [
            ", ".join(f"{server} {count}" for server, count in placement.counts.items())
            + (f", {moved} moved" if moved else "")
            for placement, moved in zip(self[policy], self.moved(policy), strict=True)
        ]
