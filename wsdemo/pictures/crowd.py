"""Pictures of many servers and many clients: what each server receives, and how clients return."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from wsdemo.experiments.capacity import (
    COSTS,
    SERVERS,
    Channels,
    Costs,
    Load,
    Machine,
    Plan,
    most_games,
    plan,
    servers_of_a_game,
)
from wsdemo.experiments.measured import Arrivals, Received
from wsdemo.pictures.picture import COLOURS, INK, QUIET, Picture

__all__ = ["arrivals_picture", "capacity_picture", "received_picture"]

ALL, GAME = COLOURS[1], COLOURS[0]  # one channel for all, a channel for each game
OUTCOMES: dict[str, Any] = {
    "let in": {"facecolor": COLOURS[0]},
    "gave up": {"facecolor": COLOURS[5], "hatch": "..."},
    "refused": {"facecolor": COLOURS[1], "hatch": "///"},
}
WIDTH = 0.1  # seconds of one bar

LEAST, MOST = 1_000, 10_000_000  # connections
MOST_NEEDED = 10_000  # servers
PAST_THE_END = "#e7e9eb"
STEPS = 48
LINES = {
    "CPU": (COLOURS[0], "-"),
    "sockets": (COLOURS[1], "--"),
    "Redis": (COLOURS[2], "-."),
}
THE_END = {
    "CPU": "one server cannot\nreceive all events",
    "network": "one server's link cannot\ntake all events",
    "Redis": "Redis cannot write each\nevent to more servers",
}


def received_picture(found: Sequence[Received]) -> Picture:
    """For each number of games: what share of all events a server receives, by how many there are.

    Dots are measured; the line is the formula.
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
    """For each run, how many clients tried to connect in each 100 ms, and what became of it."""
    picture = Picture(9.0, 1.75 * len(runs) + 0.7)
    axes = picture.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for ax, run in zip(axes, runs, strict=True):
        _arrivals(ax, run)
    most = max(1, *(run.most(WIDTH) for run in runs))
    axes[0].set_ylim(0, 1.5 * most)
    axes[-1].set_xlabel("seconds", fontsize=11, color=INK)
    picture.supylabel("attempts to connect in 100 ms", fontsize=12, color=INK)
    picture.words = "\n".join(map(str, runs))
    return picture


def _arrivals(ax: Axes, run: Arrivals) -> None:
    outcomes = {"let in": run.came, "gave up": run.gave_up, "refused": run.refused}
    height = run.counts([], WIDTH)
    x = [WIDTH * (number + 0.5) for number in range(len(height))]
    for outcome, moments in outcomes.items():
        counts = run.counts(moments, WIDTH)
        ax.bar(x, counts, 0.85 * WIDTH, height, edgecolor="w", **OUTCOMES[outcome])
        height = [below + count for below, count in zip(height, counts, strict=True)]
    top = height.index(max(height))
    ax.annotate(
        f"{height[top]}",
        (x[top], height[top]),
        (0, 5),
        textcoords="offset points",
        ha="center",
        fontsize=13,
        weight="bold",
        color=INK,
        bbox={"facecolor": "w", "edgecolor": "none", "pad": 1},  # no mark runs through it
    )
    for moment, what in run.marks:
        ax.axvline(moment, color=QUIET, linewidth=1, linestyle=":", zorder=0)
        ax.text(moment, 0.97, f" {what}", fontsize=10, color=QUIET, va="top", transform=_beside(ax))
    ax.set_title(run.title, fontsize=13, color=INK, loc="left")
    if len(run.came) < len(run.attempts):
        _legend(ax, [outcome for outcome, moments in outcomes.items() if moments])
    _quiet(ax)


def _legend(ax: Axes, outcomes: Sequence[str]) -> None:
    ax.legend(
        handles=[Patch(edgecolor="w", label=each, **OUTCOMES[each]) for each in outcomes],
        loc="lower right",
        bbox_to_anchor=(1.0, 0.98),
        ncols=len(outcomes),
        frameon=False,
        fontsize=11,
        labelcolor=INK,
        borderpad=0.0,
        handlelength=1.5,
    )


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
    machine = machine or Machine()
    game = Load(players, players / every, games=1)
    picture = Picture(11.5, 5.0)
    axes = picture.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.12})
    titles: dict[Channels, str] = {
        "all": "One channel for all games",
        "game": "A channel for each game",
    }
    words = []
    for ax, (channels, title) in zip(axes, titles.items(), strict=True):
        plans, ends = _growth(game, costs, machine, channels)
        finding = _capacity(ax, plans, ends)
        ax.set_title(f"{title}:\n{finding}", fontsize=14, color=INK, loc="left", weight="bold")
        many = plan(game.times(MOST // players), costs, machine, channels)
        beyond = [
            f"{what}: no number is enough beyond {end:,} connections" for what, end in ends.items()
        ]
        words.append("\n".join([str(many), *beyond]))
    axes[0].set_ylabel("how many it takes", fontsize=13, color=INK)
    picture.supxlabel(
        f"connections, in games of {players}; everyone says one thing every {every:g} seconds; "
        f"servers and Redis are filled to {100 * machine.full:.0f} %",
        fontsize=12,
        color=INK,
    )
    picture.words = "\n\n".join(words)
    return picture


def _growth(
    game: Load, costs: Costs, machine: Machine, channels: Channels
) -> tuple[list[Plan], dict[str, int]]:
    """Plans for more and more games, as far as there are any; and where each resource ends.

    That is up to how many connections some number of it is enough, the least first.
    """
    ends = {}
    for what in (*SERVERS, "Redis"):
        games = most_games(game, what, costs, machine, channels)
        if games is not None and games * game.connections < MOST:
            ends[what] = games * game.connections
    last = max(1, min([MOST, *ends.values()]) // game.connections)
    first = max(1, min(last, LEAST // game.connections))
    steps = {round(first * (last / first) ** (step / STEPS)) for step in range(STEPS + 1)}
    plans = [plan(game.times(games), costs, machine, channels) for games in sorted(steps)]
    return plans, dict(sorted(ends.items(), key=lambda end: end[1]))


def _capacity(ax: Axes, plans: Sequence[Plan], ends: dict[str, int]) -> str:
    """A line for each resource, up to the end if there is one; return the finding."""
    last = plans[-1]
    size = last.load.connections
    enough = [each.load.connections for each in plans if set(each.needs.values()) == {1}]
    ax.plot([LEAST, *enough], [1, *(1 for _ in enough)], color=QUIET, linewidth=3)
    ax.text(1.15 * LEAST, 1.2, "one of\neach is\nenough", fontsize=11, color=QUIET)
    for what, (colour, style) in LINES.items():
        needs = [(each.load.connections, each.needs[what] or 1) for each in plans]
        flat = sum(need == 1 for _, need in needs)
        ax.plot(*zip(*needs[max(0, flat - 1) :], strict=True), style, color=colour, linewidth=3)
        ax.annotate(
            _needed(what, needs[-1][1]),
            (size, needs[-1][1]),
            (8, 0),
            textcoords="offset points",
            fontsize=12,
            color=colour,
            va="center",
            weight="bold",
            annotation_clip=False,
        )
    _log_axes(ax)
    if not ends:
        return f"{size:,} connections take {last.servers:,} servers"
    why = THE_END[next(iter(ends))]
    ax.axvspan(size, MOST, color=PAST_THE_END, linewidth=0)  # over the grid, under the words
    ax.axvline(size, color=INK, linewidth=1.5, zorder=1)
    ax.text(1.3 * size, MOST_NEEDED / 2, why, fontsize=11, color=INK, va="top")
    return f"the end is at {size:,} connections"


def _needed(what: str, count: int) -> str:
    unit = "node" if what == "Redis" else "server"
    number = f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"
    return f"{number} of Redis" if what == "Redis" else f"{number} for {what}"


def _log_axes(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(LEAST, MOST)
    ax.set_ylim(0.8, MOST_NEEDED)
    ax.set_xticks([1e3, 1e5, 1e7], ["1,000", "100,000", "10 million"])
    ax.set_yticks([1, 10, 100, 1000, 10_000], ["1", "10", "100", "1,000", "10,000"])
    ax.minorticks_off()
    ax.grid(axis="y", color=QUIET, alpha=0.25)
    _quiet(ax)


def _beside(ax: Axes) -> object:
    return ax.get_xaxis_transform()


def _quiet(ax: Axes) -> None:
    ax.tick_params(left=False, bottom=False, labelcolor=INK, labelsize=11)
    for name, side in ax.spines.items():
        side.set_visible(name == "bottom")
        side.set_color(QUIET)
