"""Pictures of what one server costs, and of where the wall is that a larger machine only moves."""

from __future__ import annotations

from typing import Any

from ipywidgets import IntProgress
from matplotlib.axes import Axes

from wsdemo.experiments.cost import Busy, Cost
from wsdemo.pictures.picture import COLOURS, INK, QUIET, Picture

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
        # The same at any time: it stays as it was when the bar was shown, which is at the start.
        return f"{self._words}: a bar shows how far it is, while this runs"


def cost_picture(cost: Cost) -> Picture:
    """Memory against connections; and at even rates, how busy a core is and how long events take.

    The last of the rates is to be beyond the wall.
    """
    picture = Picture(13, 4.8)
    left, middle, right = picture.subplots(1, 3)
    _memory(left, cost)
    _core(middle, cost)
    _waits(right, cost)
    picture.words = "\n".join(["What one server costs", f"{cost}", *_rows(cost)])
    return picture


def _rows(cost: Cost) -> list[str]:
    """At each rate: how busy the core was, what the costs say of that, and how long events took."""
    row = "{:>8}  {:>12}  {:>14}  {:>14}  {:>11}".format
    return [
        row("of wall", "deliveries/s", "a core is busy", "computed", "events took"),
        *(
            row(
                f"{_pace(cost, each):.0%}",
                _rounded(each.deliveries),
                f"{each.share:.0%}",
                " to ".join(
                    f"{speech.seconds(each.events, each.deliveries):.0%}"
                    for speech in (cost.many, cost.one)
                ),
                f"{1e3 * each.last:.1f} ms",
            )
            for each in cost.busy
        ),
    ]


def _pace(cost: Cost, busy: Busy) -> float:
    """How much was said, as a share of what the server can do by its costs."""
    return cost.seconds(busy.said, busy.said * busy.players)


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
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
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
    _axes(ax, "connections", "memory of the process, MiB")
    _title(ax, f"{cost.bytes_per_connection / 1024:.1f} KiB for each connection")


def _core(ax: Axes, cost: Cost) -> None:
    players = cost.busy[-1].players
    dots = [(each.deliveries, 100 * each.share) for each in cost.busy if each.share > 0]
    little, much = (players / speech.seconds(1, players) for speech in (cost.one, cost.many))
    least, most = min([little, *(x for x, _ in dots)]) / 4, 4 * max([much, *(x for x, _ in dots)])
    for wall, words in ((little, "little to do"), (much, "much to do")):
        ax.plot([least, wall], [100 * least / wall, 100], color=FITTED, linewidth=3)
        ax.text(wall, 112, words, fontsize=12, color=INK, ha="center", va="bottom")
    _measured(ax, [x for x, _ in dots], [y for _, y in dots])
    ax.axhline(100, color=WALL, linewidth=2)
    ax.plot(much, 100, "o", color=WALL, markersize=10)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(least, most)
    ax.set_ylim(0.7, max([180, *(1.2 * y for _, y in dots)]))
    ax.set_yticks([1, 10, 100], ["1", "10", "100"])
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.minorticks_off()
    _axes(ax, f"deliveries a second, to {players} players", "of one core, %")
    _title(ax, f"The wall: {_rounded(much)} a second")


def _waits(ax: Axes, cost: Cost) -> None:
    waits = [1e3 * each.last for each in cost.busy]
    paces = [_pace(cost, each) for each in cost.busy]
    colours = [MEASURED if pace < 1 else WALL for pace in paces]
    bars = ax.bar(range(len(waits)), waits, color=colours, width=0.7)
    ax.bar_label(bars, [f"{wait:,.0f}" for wait in waits], fontsize=12, color=INK, padding=3)
    ax.set_xticks(range(len(paces)), [f"{100 * pace:.0f}" for pace in paces])
    ax.margins(y=0.12)
    _axes(ax, "rate, in % of the wall", "until all have heard it, ms")
    _title(ax, f"Beyond the wall: {_rounded(waits[-1])} ms")


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
