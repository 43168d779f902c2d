"""What has been measured, as a table, as JSON, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.driver import BOUND, Step
from tests.benchmarks.holding import Held, Strangers
from tests.benchmarks.servers import CONTENDERS

__all__ = ["Results", "Turn", "save", "table"]

OWN = "wsdemo pubsub"
MARKS = {  # the least that wsdemo's highest rate should be, beside that of each other one
    "websockets": 0.95,
    "limit": 0.75,
    "channels_redis": 1.4,
    "python-socketio": 4.0,
    "broadcaster": 1.0,
}
MEMORY_MARK = 1.15  # the most that its idle connection should take, beside bare websockets'
LONGEST = 2000.0  # ms, in the picture
# Told apart without colour too (Okabe and Ito's palette).
STYLES: dict[str, dict[str, Any]] = {
    "wsdemo pubsub": {"color": "#0072b2", "marker": "o", "linewidth": 2.4},
    "wsdemo stream": {"color": "#56b4e9", "marker": "s", "linewidth": 1.4},
    "websockets": {"color": "#009e73", "marker": "^", "linewidth": 1.4},
    "limit": {"color": "#777777", "marker": "D", "linewidth": 1.4},
    "python-socketio": {"color": "#d55e00", "marker": "v", "linewidth": 1.4},
    "channels_redis": {"color": "#cc79a7", "marker": "P", "linewidth": 1.4},
    "broadcaster": {"color": "#e69f00", "marker": "X", "linewidth": 1.4},
}


@dataclass
class Turn:
    """What one contender did in one repeat."""

    contender: str
    tops: dict[int, int] = field(default_factory=dict)  # rungs, by the number of clients
    rates: dict[int, float] = field(default_factory=dict)  # events a second
    steady: Step | None = None
    cpu: float | None = None  # seconds for a million deliveries
    idle: float | None = None  # bytes
    steps: list[Step] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)


@dataclass
class Results:
    """What all did."""

    about: str
    clients: list[int]
    turns: list[dict[str, Turn]] = field(default_factory=list)  # one for each repeat
    others: list[float] = field(default_factory=list)
    """What other programs took of the machine, in each try of a rate."""
    spoiled: int = 0
    """Tries that failed while they took much, and still counted."""
    strangers: dict[str, Strangers] = field(default_factory=dict)
    held: Held | None = None

    @property
    def names(self) -> list[str]:
        """The contenders that had turns, in the order of their list."""
        return [name for name in CONTENDERS if self.turns and name in self.turns[0]]

    def of(self, name: str) -> list[Turn]:
        """One contender's turns."""
        return [turns[name] for turns in self.turns if name in turns]

    def ratios(self, name: str, clients: int) -> list[float]:
        """wsdemo's highest rate beside another's, within each repeat."""
        pairs = [(turns.get(OWN), turns.get(name)) for turns in self.turns]
        return [
            own.rates[clients] / other.rates[clients]
            for own, other in pairs
            if own and other and other.rates.get(clients) and clients in own.rates
        ]


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """The median, and the least and the most."""
    if not values:
        return "–"
    middle = format(median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({format(min(values), form)}–{format(max(values), form)})"


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, in columns that read well as they are."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    lines[1] = [lines[1][0], *(f"{dashes[:-1]}:" for dashes in lines[1][1:])]

    def row(cells: list[str]) -> str:
        pads = [f"{cells[0]:<{widths[0]}}"]
        pads += [f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join(pads)} |"

    return "\n".join(map(row, lines))


def table(results: Results) -> str:
    """Everything in words and figures; Markdown."""
    parts = [results.about + "."]
    if results.others:
        parts[0] += (
            f" Other programs took {median(results.others):.0%} of it in the median try and "
            f"{max(results.others):.0%} at most; {results.spoiled} of {len(results.others)} tries "
            "failed meanwhile and were not made again."
        )
    names = results.names
    if any(turn.rates for name in names for turn in results.of(name)):
        parts += [_rates(results, names), _ratios(results, names)]
    if any(turn.cpu or turn.idle for name in names for turn in results.of(name)):
        parts.append(_costs(results, names))
    if results.strangers:
        parts.append(_strangers(results))
    if results.held:
        parts.append(_held(results.held))
    parts.append("What each does beside taking events and delivering them:\n")
    shown = names or list(results.strangers)
    parts[-1] += "\n".join(f"- {name}: {CONTENDERS[name].does}." for name in shown)
    losses = [f"- {name}: {loss}" for name in names for t in results.of(name) for loss in t.losses]
    if losses:
        parts.append("\n".join(["Where a rate was too much:", *dict.fromkeys(losses)]))
    return "\n\n".join(parts)


def _rates(results: Results, names: Sequence[str]) -> str:
    head = ["events/s", *(f"{clients} clients" for clients in results.clients)]
    rows = [
        [name, *(spread([t.rates[n] for t in results.of(name)]) for n in results.clients)]
        for name in names
    ]
    return (
        "The highest rate at which every delivery was made and 99 of 100 within 50 ms; each event "
        f"goes to all clients. Medians of {len(results.turns)} repeats, with the least and the "
        "most.\n\n" + grid(head, rows)
    )


def _ratios(results: Results, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        if name == OWN:
            continue
        ratios = [results.ratios(name, clients) for clients in results.clients]
        mark = MARKS.get(name)
        reached = "–"
        if mark and all(ratios):
            good = [median(each) >= mark for each in ratios]
            where = [str(n) for n, ok in zip(results.clients, good, strict=True) if ok]
            reached = "yes" if all(good) else f"with {', '.join(where)}" if where else "no"
        rows.append(
            [
                name,
                *(spread(each, ".2f") for each in ratios),
                f"≥ {mark:g}" if mark else "–",
                reached,
            ]
        )
    head = ["ratio", *(f"{clients} clients" for clients in results.clients), "wanted", "reached"]
    return f"{OWN}'s highest rate, divided by another's in the same repeat.\n\n" + grid(head, rows)


def _costs(results: Results, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        turns = results.of(name)
        steady = [turn.steady for turn in turns if turn.steady]
        rows.append(
            [
                name,
                spread([turn.cpu for turn in turns if turn.cpu], ".1f"),
                spread([step.p50 * 1000 for step in steady], ".1f"),
                spread([step.p99 * 1000 for step in steady], ".1f"),
                spread([turn.idle / 1024 for turn in turns if turn.idle], ".1f"),
            ]
        )
    head = ["at a fixed rate", "CPU s/million", "p50 ms", "p99 ms", "KiB idle"]
    text = (
        "What a delivery costs the two servers, how long it takes, and what a connection costs "
        "a server while nothing happens on it (no compression).\n\n" + grid(head, rows)
    )
    pairs = [(turns.get(OWN), turns.get("websockets")) for turns in results.turns]
    memory = [
        own.idle / bare.idle for own, bare in pairs if own and bare and own.idle and bare.idle
    ]
    if memory:
        reached = "yes" if median(memory) <= MEMORY_MARK else "no"
        text += (
            f"\n\n{OWN}'s idle connection beside that of bare websockets: "
            f"{spread(memory, '.2f')}; wanted ≤ {MEMORY_MARK}: {reached}."
        )
    return text


def _strangers(results: Results) -> str:
    rows = [[name, f"{found.strange}", f"{found.own}"] for name, found in results.strangers.items()]
    count = next(iter(results.strangers.values())).events
    return (
        f"What a server gets from Redis of {count} events in a game that it has no players in "
        "(wanted: 0), and in its own.\n\n" + grid(["events", "of another's", "of its own"], rows)
    )


def _held(held: Held) -> str:
    lost = held.step.missing == 0 and held.step.repeated == 0
    within = held.peak <= held.bound
    return (
        f"{held}. Memory stays within the {held.bound / 2**20:,.0f} MiB that the limits for those "
        f"who do not read allow: {'yes' if within else 'no'}. The others lose nothing: "
        f"{'yes' if lost else 'no'}."
    )


def save(results: Results, folder: Path) -> None:
    """The table, the figures and the picture, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    Path(folder, "table.md").write_text(table(results) + "\n", encoding="utf-8")
    Path(folder, "results.json").write_text(json.dumps(asdict(results), indent=1), encoding="utf-8")
    if any(turn.rates for turns in results.turns for turn in turns.values()):
        draw(results).savefig(Path(folder, "rates.png"), dpi=150)


def draw(results: Results) -> Figure:
    """The highest rates, from the least to the most, and below them the best delay at each rate."""
    names = results.names
    figure = Figure(figsize=(4.2 * len(results.clients) + 1.2, 7.2), layout="constrained")
    figure.suptitle(
        "How many events a second two servers and one Redis carry, each event to all clients",
        x=0.01,
        ha="left",
    )
    above, below = figure.subplots(2, len(results.clients), squeeze=False, height_ratios=(1, 1.2))
    for column, clients in enumerate(results.clients):
        _draw_tops(above[column], results, names, clients)
        _draw_delays(below[column], results, names, clients)
    for axes in above[1:]:
        axes.set_yticklabels([])
    for axes in below[1:]:
        axes.set_yticklabels([])
    below[0].set_ylabel("99 of 100 deliveries within, at best")
    return figure


def _draw_tops(axes: Axes, results: Results, names: Sequence[str], clients: int) -> None:
    for place, name in enumerate(names):
        rates = [turn.rates[clients] for turn in results.of(name)]
        style = STYLES[name]
        middle = median(rates)
        axes.barh(-place, middle, color=style["color"], height=0.62)
        axes.plot([min(rates), max(rates)], [-place, -place], color="#222222", linewidth=1.2)
        axes.plot(middle, -place, marker=style["marker"], color="#222222", markersize=5)
        axes.annotate(
            f"{middle:,.0f}",
            (max(rates), -place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks([-place for place in range(len(names))], names)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.22)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title(f"{clients} clients", loc="left", fontsize=11)
    axes.set_xlabel("highest rate that holds, events/s")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_delays(axes: Axes, results: Results, names: Sequence[str], clients: int) -> None:
    for name in names:
        found: dict[float, list[float]] = {}
        for turn in results.of(name):
            for step in turn.steps:
                if step.clients == clients:
                    found.setdefault(step.rate, []).append(step.p99 * 1000)
        curve = sorted((rate, min(delays)) for rate, delays in found.items())
        shown = [point for point in curve if point[1] < LONGEST]
        rates, delays = [rate for rate, _ in shown], [delay for _, delay in shown]
        axes.plot(rates, delays, **STYLES[name], label=name, markersize=4)
    axes.axhline(BOUND * 1000, color="#222222", linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(1, LONGEST)
    axes.set_yticks([1, 10, 50, 100, 1000], ["1 ms", "10 ms", "50 ms", "100 ms", "1 s"])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("events/s")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
