"""A picture of which player is on which server, step by step, under different policies."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from wsdemo.experiments.placement import Placement, Placements
from wsdemo.pictures.picture import COLOURS, INK, QUIET, Picture

__all__ = ["placements_picture"]

WIDE = 4  # players beside each other on a server
MOVED: dict[str, Any] = {"fontsize": 13, "color": INK, "va": "top"}
MARKERS = "osD^vPX"  # as many as there are colours


def placements_picture(found: Placements) -> Picture:
    """A row for each policy, a column for each step; a mark for each player.

    Its colour and its shape say on which server the player was first.
    """
    steps = max([1, *map(len, found.values())])
    picture = Picture(2.3 * steps, 1.9 * max(1, len(found)) + 0.4)
    panels = picture.subplots(max(1, len(found)), steps, squeeze=False, sharex=True, sharey=True)
    every = [placement for placements in found.values() for placement in placements]
    servers = sorted({server for each in every for server in each.servers})
    fullest = max((count for each in every for count in each.counts.values()), default=0)
    top = fullest // WIDE + 1.2  # rows, with room for words above them
    for row, (policy, placements) in zip(panels, found.items(), strict=False):
        first: dict[str, str] = {}
        moved = found.moved(policy)
        for ax, placement, count in zip(row, placements, moved, strict=False):
            first = {**placement.players, **first}
            _draw(ax, placement, servers, first, top)
            if count:
                ax.text(0.02, 0.98, f"{count} moved", transform=ax.transAxes, **MOVED)
        row[0].set_ylabel(policy, fontsize=12, fontweight="bold", color=INK, labelpad=10)
    for ax, placement in zip(panels[0], next(iter(found.values()), []), strict=False):
        ax.set_title(placement.after, fontsize=14, fontweight="bold", color=INK)
    picture.words = f"Which player is on which server\n{found}"
    return picture


def _draw(
    ax: Axes, placement: Placement, servers: list[str], first: dict[str, str], top: float
) -> None:
    """The servers side by side, and their players on them, from the floor up."""
    for x, server in enumerate(servers):
        there = [player for player, place in placement.players.items() if place == server]
        there.sort(key=lambda player: first[player])  # so that those of one colour lie together
        for look, home in enumerate(servers):
            spots = [_spot(n) for n, player in enumerate(there) if first[player] == home]
            shape, colour = MARKERS[look % len(MARKERS)], COLOURS[look % len(COLOURS)]
            xs, ys = [x + across for across, _ in spots], [up for _, up in spots]
            ax.plot(xs, ys, shape, markersize=9, color=colour)
        is_up = server in placement.servers
        label = f"{server}  {len(there)}" if is_up else f"{server}  ✗"
        colour = INK if is_up else QUIET
        ax.text(x, -1.0, label, fontsize=14, color=colour, ha="center", va="center")
    ax.axhline(-0.5, color=QUIET, linewidth=1, alpha=0.6)
    ax.set_xlim(-0.55, len(servers) - 0.45)
    ax.set_ylim(-1.5, top)
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)


def _spot(number: int) -> tuple[float, int]:
    """Where the player of this number stands on its server: across, and up."""
    return 0.2 * (number % WIDE - (WIDE - 1) / 2), number // WIDE
