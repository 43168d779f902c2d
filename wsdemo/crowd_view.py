"""Pictures of many servers and many clients: what each server receives, and how clients return."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes

from wsdemo.capacity import (
    COSTS,
    Channels,
    Costs,
    Load,
    Machine,
    Plan,
    plan,
    servers_of_a_game,
)
from wsdemo.measured import Arrivals, Received
from wsdemo.picture import COLOURS, INK, QUIET, Picture

__all__ = ["arrivals_picture", "capacity_picture", "received_picture"]

ALL, GAME = COLOURS[1], COLOURS[0]  # one channel for all, a channel for each game
LET_IN, REFUSED = COLOURS[0], COLOURS[1]
WIDTH = 0.1  # seconds of one bar


def received_picture(found: Sequence[Received]) -> Picture:
    """For each number of games: what share of all events a server receives, by how many there are.

    Dots are measured; the line is what chance makes of it.
    """
    games = sorted({each.games for each in found})
    picture = Picture(3.0 * len(games) + 1.2, 3.6)
    axes = picture.subplots(1, len(games), sharey=True, squeeze=False)[0]
    for ax, count in zip(axes, games, strict=True):
        here = [each for each in found if each.games == count]
        _received(ax, here, count)
    axes[0].set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"], fontsize=11)
    axes[0].set_ylabel("of all events,\na server receives", fontsize=12, color=INK)
    axes[0].text(1.2, 1.06, "one channel for all", fontsize=12, color=ALL, weight="bold")
    axes[0].text(1.2, 0.87, "one for each game", fontsize=12, color=GAME, weight="bold")
    picture.supxlabel("servers", fontsize=12, color=INK)
    picture.words = "\n".join(
        [
            "Of all events, each server receives, on average",
            "games  servers  one channel for all  one for each",
            *_rows(found),
        ]
    )
    return picture


def _received(ax: Axes, found: Sequence[Received], games: int) -> None:
    players = found[0].players / games
    most = max(each.servers for each in found)
    line = [1 + step / 20 for step in range(20 * (most - 1) + 1)]
    ax.plot([1, most], [1, 1], color=ALL, linewidth=1.5, alpha=0.5)
    ax.plot(
        line,
        [servers_of_a_game(s, players) / s for s in line],
        color=GAME,
        linewidth=1.5,
        alpha=0.5,
    )
    for each in found:
        own = each.channels == "game"
        ax.plot(
            each.servers,
            each.share,
            marker="o" if own else "s",
            markersize=9 if own else 8,
            color=GAME if own else ALL,
            zorder=3 if own else 2,
            clip_on=False,
        )
    name = "1 game" if games == 1 else f"{games:,} games"
    ax.set_title(f"{name} of {players:.0f}", fontsize=14, color=INK)
    ax.set_ylim(0, 1.15)
    ax.set_xlim(0.5, most + 0.5)
    ax.set_xticks(sorted({each.servers for each in found}))
    _quiet(ax)


def _rows(found: Sequence[Received]) -> Iterable[str]:
    shares = {(each.games, each.servers, each.channels): each.share for each in found}
    for games, servers in sorted({(each.games, each.servers) for each in found}):
        everywhere, own = (shares.get((games, servers, each)) for each in ("all", "game"))
        yield f"{games:5}  {servers:7}  {_percent(everywhere):>19}  {_percent(own):>12}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def arrivals_picture(*runs: Arrivals) -> Picture:
    """For each run, how many clients tried to connect in each 100 ms, and how many were let in."""
    picture = Picture(9.0, 1.75 * len(runs) + 0.7)
    axes = picture.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for ax, run in zip(axes, runs, strict=True):
        _arrivals(ax, run)
    most = max(1, *(run.most(WIDTH) for run in runs))
    axes[0].set_ylim(0, 1.35 * most)
    axes[-1].set_xlabel("seconds", fontsize=11, color=INK)
    picture.supylabel("attempts to connect in 100 ms", fontsize=12, color=INK)
    picture.words = "\n".join(map(str, runs))
    return picture


def _arrivals(ax: Axes, run: Arrivals) -> None:
    came, refused = run.counts(width=WIDTH), run.counts(refused=True, width=WIDTH)
    x = [WIDTH * (number + 0.5) for number in range(len(came))]
    ax.bar(x, came, width=0.85 * WIDTH, color=LET_IN)
    ax.bar(x, refused, width=0.85 * WIDTH, bottom=came, color=REFUSED, hatch="///", edgecolor="w")
    top = max(range(len(came)), key=lambda number: came[number] + refused[number])
    ax.annotate(
        f"{came[top] + refused[top]}",
        (x[top], came[top] + refused[top]),
        (0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=13,
        weight="bold",
        color=INK,
    )
    for moment, what in run.marks:
        ax.axvline(moment, color=QUIET, linewidth=1, linestyle=":")
        ax.text(moment, 0.97, f" {what}", fontsize=10, color=QUIET, va="top", transform=_beside(ax))
    ax.set_title(run.title, fontsize=13, color=INK, loc="left")
    if run.refused:
        legend = [("let in", LET_IN, 0.99), ("refused", REFUSED, 0.91)]
        for words, colour, x_end in legend:
            ax.text(
                x_end,
                1.03,
                words,
                fontsize=12,
                color=colour,
                weight="bold",
                ha="right",
                transform=ax.transAxes,
            )
    _quiet(ax)


def capacity_picture(
    costs: Costs = COSTS,
    machine: Machine | None = None,
    *,
    players: int = 10,
    every: float = 10.0,
) -> Picture:
    """Servers, by what they run out of, and Redis nodes, for a thousand to ten million connections.

    Each player of a game of so many says one event `every` so many seconds.
    """
    sizes = [10 ** (3 + step / 24) for step in range(97)]
    picture = Picture(11.5, 4.6)
    axes = picture.subplots(1, 2, sharey=True)
    titles: dict[Channels, str] = {
        "all": "one channel for all games",
        "game": "a channel for each game",
    }
    words = []
    for ax, (channels, title) in zip(axes, titles.items(), strict=True):
        plans = []
        for size in sizes:
            games = round(size / players)
            load = Load(games * players, games * players / every, games)
            plans.append(plan(load, costs, machine, channels))
        words += [_capacity(ax, plans), ""]
        ax.set_title(title, fontsize=14, color=INK)
    axes[0].set_ylabel("servers, or nodes of Redis", fontsize=12, color=INK)
    picture.supxlabel("connections", fontsize=12, color=INK)
    picture.words = "\n".join(words).rstrip()
    return picture


def _capacity(ax: Axes, plans: Sequence[Plan]) -> str:
    """A line for each resource; what is never enough ends, with a cross."""
    said = [str(plans[-1])]
    names = [name for name in plans[0].needs if name not in ("memory", "network")]
    for name, colour, style in zip(names, COLOURS, ["-", "--", "-."], strict=False):
        known = [
            (each.load.connections, need)
            for each in plans
            if (need := each.needs[name]) is not None
        ]
        if not known:
            continue
        x, y = zip(*known, strict=True)
        ax.plot(x, y, color=colour, linewidth=3, linestyle=style)
        ends = len(known) < len(plans)
        if ends:
            ax.plot(x[-1], y[-1], "X", markersize=13, color=colour, zorder=3)
            said.append(f"{name}: no number is enough beyond {x[-1]:,} connections")
        text = f" {name}: the end" if ends else f" {name}"
        ax.annotate(
            text,
            (x[-1], y[-1]),
            (8, 0),
            textcoords="offset points",
            fontsize=12,
            color=colour,
            va="center",
            weight="bold",
            annotation_clip=False,
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(1e3, 1e7)
    ax.set_ylim(0.8, 1e4)
    ax.set_xticks([1e3, 1e5, 1e7], ["1,000", "100,000", "10 million"])
    ax.set_yticks([1, 10, 100, 1000, 10_000], ["1", "10", "100", "1,000", "10,000"])
    ax.minorticks_off()
    ax.grid(axis="y", color=QUIET, alpha=0.25)
    _quiet(ax)
    return "\n".join(said)


def _beside(ax: Axes) -> object:
    return ax.get_xaxis_transform()


def _quiet(ax: Axes) -> None:
    ax.tick_params(left=False, bottom=False, labelcolor=INK, labelsize=11)
    for name, side in ax.spines.items():
        side.set_visible(name == "bottom")
        side.set_color(QUIET)
