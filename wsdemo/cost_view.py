"""Pictures of what one server costs, and of where the wall is that a larger machine only moves."""

from __future__ import annotations

from typing import Any

from ipywidgets import IntProgress
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from wsdemo.cost import Cost
from wsdemo.picture import COLOURS, INK, QUIET, Picture

__all__ = ["ProgressBar", "cost_picture", "wall_picture"]

MEASURED, FITTED, WALL = COLOURS[0], COLOURS[4], COLOURS[1]
MACHINES = (1, 2, 4, 8)
MIB = 2**20


class ProgressBar:
    """A bar in the notebook, to be called with how much is done, from 0 to 1."""

    def __init__(self, words: str) -> None:
        self._words = words
        self._bar = IntProgress(max=100, description=words, style={"description_width": "initial"})

    def __call__(self, share: float) -> None:
        """Fill it so far."""
        self._bar.value = round(100 * share)
        if share >= 1:
            self._bar.bar_style = "success"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = self._bar._repr_mimebundle_(**options)
        return {**bundle, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"{self._words}: {self._bar.value} %"


def cost_picture(cost: Cost) -> Picture:
    """Memory against connections; and how busy a core is against deliveries a second."""
    picture = Picture(11, 4.6)
    left, right = picture.subplots(1, 2)
    _memory(left, cost)
    _core(right, cost)
    picture.words = f"What one server costs\n{cost}"
    return picture


def wall_picture(cost: Cost, rate: float = 1.0) -> Picture:
    """How much work one game is in which each says `rate` events a second, and who can do it."""
    picture = Picture(11, 5.4)
    ax = picture.subplots()
    walls = [cost.players(machines, rate) for machines in MACHINES]
    most = 1.12 * walls[-1]
    players = [most * step / 200 for step in range(201)]
    work = [cost.seconds(c * rate, c * c * rate) for c in players]
    ax.plot(players, work, color=MEASURED, linewidth=3.5, zorder=3)
    for machines, wall in zip(MACHINES, walls, strict=True):
        ax.plot([0, wall], [machines, machines], color=WALL, linewidth=1.6)
        ax.plot([wall, wall], [0, machines], color=QUIET, linewidth=1, linestyle=":")
        ax.plot(wall, machines, "o", markersize=10, color=WALL, zorder=4)
        times = "one machine" if machines == 1 else f"{machines} times the machine"
        beside: dict[str, Any] = {"textcoords": "offset points", "color": WALL}
        ax.annotate(times, (0, machines), (6, 4), fontsize=13, **beside)
        number = _rounded(wall)
        ax.annotate(number, (wall, machines), (9, -18), fontsize=16, weight="bold", **beside)
    ax.set_xlim(0, most)
    ax.set_ylim(0, 1.12 * MACHINES[-1])
    ax.set_yticks(MACHINES)
    said = f"each says {_times(rate)} a second"
    _axes(ax, f"players in one game, {said}", "work, in cores like this one")
    _title(ax, f"Twice the machine: {walls[1] / walls[0]:.1f} times the players")
    picture.words = f"Players in one game, {said}\n" + "\n".join(
        f"{machines} times the machine: {_rounded(wall)}"
        for machines, wall in zip(MACHINES, walls, strict=True)
    )
    return picture


def _memory(ax: Axes, cost: Cost) -> None:
    counts = [float(each.connections) for each in cost.filling]
    ends = [0.0, max(counts)]
    line = [(cost.bytes_at_rest + cost.bytes_per_connection * end) / MIB for end in ends]
    ax.plot(ends, line, color=FITTED, linewidth=3, label="fitted")
    _measured(ax, counts, [each.memory / MIB for each in cost.filling])
    _axes(ax, "connections", "memory, MiB")
    _title(ax, f"{cost.bytes_per_connection / 1024:.1f} KiB for each connection")


def _core(ax: Axes, cost: Cost) -> None:
    players = cost.busy[-1].players
    wall = players / cost.seconds(1, players)
    rates = [each.deliveries for each in cost.busy]
    seen = min(wall, max(rates))
    label = "computed from the cost"
    ax.plot([0, seen], [0, 100 * seen / wall], color=FITTED, linewidth=3, label=label)
    ax.plot([seen, wall], [100 * seen / wall, 100], color=FITTED, linewidth=3, linestyle=":")
    shares = [100 * each.share for each in cost.busy]
    _measured(ax, rates, shares)
    ax.axhline(100, color=WALL, linewidth=2)
    ax.plot(wall, 100, "o", color=WALL, markersize=10)
    text = f"the wall: {_rounded(wall)}"
    ax.text(wall, 104, text, fontsize=14, weight="bold", color=WALL, ha="right", va="bottom")
    ax.set_xlim(0, 1.1 * max(wall, *rates))
    ax.set_ylim(0, max(118, *shares))
    ax.set_yticks(range(0, 101, 25))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    _axes(ax, "deliveries a second", "of one core, %")
    _title(ax, f"{1e6 * cost.seconds_per_delivery:.0f} µs of a core for each delivery")


def _measured(ax: Axes, x: list[float], y: list[float]) -> None:
    ax.plot(x, y, "o", color=MEASURED, markersize=8, label="measured")


def _rounded(number: float) -> str:
    """To two digits: it is not known better than that."""
    return f"{float(f'{number:.2g}'):,.0f}"


def _times(rate: float) -> str:
    return "one thing" if rate == 1 else f"{rate:g} things"


def _title(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="left", fontsize=15, fontweight="bold", color=INK, pad=12)


def _axes(ax: Axes, x: str, y: str) -> None:
    ax.set_xlabel(x, fontsize=13, color=INK)
    ax.set_ylabel(y, fontsize=13, color=INK)
    ax.tick_params(length=0, labelsize=12, labelcolor=INK)
    ax.grid(axis="y", color=QUIET, alpha=0.2)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(QUIET)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="lower right", frameon=False, fontsize=12, labelcolor=INK)
