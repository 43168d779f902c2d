"""The space-time diagram: a line for each part, time to the right, an arrow for each hop.

Time is story time (see `story`): each hop is as long as any other, and the beats of several runs
stand one below the other. A message that was lost ends in a cross, and the player who missed it
shows one too.
"""

from __future__ import annotations

import textwrap
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import Any

from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes

from wsdemo.ledger import ledger
from wsdemo.picture import COLOURS, INK, QUIET, REDIS, Picture, shortened
from wsdemo.story import Beat, Hop, Left, Link, Loss, Outcome, Place, Said, Story, tell
from wsdemo.trace import Source, Trace, traces

__all__ = ["Timeline", "timeline"]

MARKERS = ["o", "^", "s", "D", "p", "*", "P", "h"]
# matplotlib's own first; the others have the letters of other scripts, where they are installed.
FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK JP",
    "Noto Sans Devanagari",
    "Hiragino Sans",
    "Arial Unicode MS",
    "Microsoft YaHei",
    "Nirmala UI",
)
LONGEST = 64.0  # hops from left to right; of a longer run, the end is shown
MOST_HOPS = 1000  # arrows; more than that could not be told apart
CAUSE_WIDTH = 3.0  # hops that the words of a cause take up


class Timeline(Picture):
    """The diagram, which shows itself in a notebook."""


def timeline(source: Source) -> Timeline:
    """The diagram of a trace, a live cluster, or the runs that `compare` returned."""
    installed = set(font_manager.get_font_names())
    with rc_context({"font.family": [font for font in FONTS if font in installed]}):
        return _draw(traces(source))


def _draw(found: Mapping[str, Trace]) -> Timeline:
    stories = [tell(trace) for trace in found.values()]
    beats = _common_beats(stories)
    lanes = [_lanes(story) for story in stories]
    heights = [0.36 * len(lane) + 1.0 for lane in lanes]
    width = max(8.0, 0.5 * min(LONGEST, beats[-1]) + 2)
    figure = Timeline(width, sum(heights))
    axes = figure.subplots(len(stories), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[
        :, 0
    ]
    for ax, story, lane in zip(axes, stories, lanes, strict=True):
        _Drawing(ax, story, lane, beats).draw()
    figure.supxlabel(
        "▶ a message arrives    ✖ it is lost, and who misses it    ● subscribed to the channel",
        fontsize=8,
        color=QUIET,
    )
    words = [f"{ledger(trace).title}: {ledger(trace).summary}" for trace in found.values()]
    figure.words = "\n".join(["Space-time diagram", *words])
    return figure


def _common_beats(stories: Sequence[Story]) -> list[float]:
    """Where each beat begins, and the last one ends, so that the longest of each has room."""
    spans = [_spans(story) for story in stories]
    edges = [0.0]
    for k in range(max(map(len, spans), default=0)):
        edges.append(edges[-1] + max(span[k] for span in spans if k < len(span)))
    return edges


def _spans(story: Story) -> list[float]:
    starts = [item.s for item in story.items if isinstance(item, Beat)] or [0.0]
    return [end - start for start, end in pairwise([0.0, *starts[1:], story.end])]


def _lanes(story: Story) -> dict[str, int]:
    """The line of each part, counted from the top: players, servers, Redis."""
    players = dict.fromkeys(item.player for item in story.items if isinstance(item, Place))
    hub = [] if story.broker == "none" else ["redis"]
    return {part: line for line, part in enumerate([*players, *story.every_server, *hub])}


class _Drawing:
    """One run's diagram in one pair of axes."""

    def __init__(
        self, ax: Axes, story: Story, lanes: dict[str, int], edges: Sequence[float]
    ) -> None:
        self._ax = ax
        self._story = story
        self._lanes = lanes
        self._edges = edges
        self._starts = [0.0, *[item.s for item in story.items if isinstance(item, Beat)][1:]]
        self._senders = {i.event: i.player for i in story.items if isinstance(i, Said)}
        hops = sorted(self._x(item.s0) for item in story.items if isinstance(item, Hop))
        self._begin = max(0.0, edges[-1] - LONGEST, *hops[-MOST_HOPS - 1 : -MOST_HOPS])

    def draw(self) -> None:
        self._frame()
        self._part_lines()
        self._beats()
        self._arrows()
        self._losses()
        for item in self._story.items:
            match item:
                case Said() if self._shows(item.s):
                    self._said(item)
                case Outcome(outcome="missed") if self._shows(item.s):
                    self._cross(self._x_end(item.s), self._lanes[item.player], item.event)
                case Link() if "redis" in self._lanes and self._shows(item.s):
                    self._link(item)

    def _shows(self, s: float) -> bool:
        return self._x(s) >= self._begin

    def _x(self, s: float) -> float:
        """Where something that begins at story time `s` stands, with all runs' beats aligned."""
        k = max(0, bisect_right(self._starts, s) - 1)
        return self._edges[k] + s - self._starts[k]

    def _x_end(self, s: float) -> float:
        """Where something stands that ends at `s`: in the beat before, if one begins just then."""
        k = max(0, bisect_left(self._starts, s) - 1)
        return self._edges[k] + s - self._starts[k]

    def _style(self, player: str) -> tuple[str, str]:
        n = self._lanes.get(player, 0)
        return COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)]

    def _frame(self) -> None:
        ax = self._ax
        title = self._story.title + (", the end of a longer run" if self._begin else "")
        ax.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=22)
        ax.set_ylim(len(self._lanes) - 0.4, -0.8)
        losses = [self._x_end(item.s1) for item in self._story.items if isinstance(item, Loss)]
        room = max([self._edges[-1] + 0.4, *(x + CAUSE_WIDTH for x in losses)])
        ax.set_xlim(self._begin - 0.2, room)
        ax.set_yticks(range(len(self._lanes)), [self._name(part) for part in self._lanes])
        ax.set_xticks([])
        ax.tick_params(left=False, labelsize=10, labelcolor=INK)
        for side in ax.spines.values():
            side.set_visible(False)

    def _name(self, part: str) -> str:
        if part in self._story.every_server:
            return f"server {part}"
        return "Redis" if part == "redis" else shortened(part)

    def _part_lines(self) -> None:
        end = self._x_end(self._story.end)
        for part, line in self._lanes.items():
            if part in self._story.every_server or part == "redis":
                colour = REDIS if part == "redis" else QUIET
                self._ax.plot([0, end], [line, line], color=colour, linewidth=1.6, alpha=0.6)
            else:
                self._player_line(part, end)

    def _player_line(self, player: str, end: float) -> None:
        """Solid while on a server, with the server's name where that begins; dotted while away."""
        stays = [i for i in self._story.items if isinstance(i, Place) and i.player == player]
        left = [i.s for i in self._story.items if isinstance(i, Left) and i.player == player]
        line, (colour, _) = self._lanes[player], self._style(player)
        until = [*(self._x(stay.s0) for stay in stays[1:]), self._x(left[-1]) if left else end]
        for stay, stop in zip(stays, until, strict=True):
            start = self._x_end(stay.s1)
            style = "-" if stay.server else (0, (1, 3))
            self._ax.plot([start, stop], [line, line], color=colour, linewidth=1.6, linestyle=style)
            if stay.server and start >= self._begin:
                self._tag(start - 0.15, line, f"on {stay.server}", colour)

    def _tag(self, x: float, y: float, text: str, colour: str) -> None:
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour}
        self._ax.text(x, y, text, fontsize=7, color=colour, ha="right", va="center", bbox=box)

    def _beats(self) -> None:
        beats = [item for item in self._story.items if isinstance(item, Beat)]
        for beat, (start, end) in zip(beats, pairwise(self._edges), strict=False):
            if start < self._begin:
                continue
            self._ax.axvline(start, color="#d9dee4", linewidth=0.8, zorder=0)
            words = _wrapped(beat.caption, int((end - start) * 7.5))
            self._ax.text(start + 0.08, -0.78, words, fontsize=8, color=INK, va="bottom")

    def _said(self, item: Said) -> None:
        colour, marker = self._style(item.player)
        x, y = self._x(item.s), self._lanes[item.player]
        self._ax.plot(x, y, marker=marker, markersize=6, color=colour)
        self._ax.text(
            x,
            y - 0.18,
            f"“{shortened(item.body)}”",
            fontsize=8,
            color=colour,
            ha="center",
            va="bottom",
        )

    def _arrows(self) -> None:
        """All in one go: one by one, a thousand hops would take a minute."""
        hops = [i for i in self._story.items if isinstance(i, Hop) and self._shows(i.s0)]
        if not hops:
            return
        x0 = [self._x(hop.s0) for hop in hops]
        y0 = [self._lanes[hop.source] for hop in hops]
        dx = [self._x_end(hop.s1) - x for hop, x in zip(hops, x0, strict=True)]
        dy = [self._lanes[hop.target] - y for hop, y in zip(hops, y0, strict=True)]
        colours = [self._style(self._senders[hop.event])[0] for hop in hops]
        data_units: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1}
        shape: dict[str, Any] = {"units": "inches", "width": 0.014, "headwidth": 7}
        shape |= {"headlength": 8, "headaxislength": 8}
        self._ax.quiver(x0, y0, dx, dy, color=colours, **data_units, **shape, zorder=2)

    def _losses(self) -> None:
        """Each part of the way, dashed, up to a cross; beside the last of a row, the cause."""
        losses = sorted(
            (i for i in self._story.items if isinstance(i, Loss) and self._shows(i.s0)),
            key=lambda loss: (loss.source, loss.target, loss.s1),
        )
        for loss, after in zip_longest(losses, losses[1:]):
            x, y = self._loss(loss)
            same = after and (after.source, after.target) == (loss.source, loss.target)
            cause = _cause(loss)
            if not same or _cause(after) != cause or after.s1 - loss.s1 > CAUSE_WIDTH:
                colour, _ = self._style(self._senders[loss.event])
                self._ax.text(x + 0.2, y, cause, fontsize=7, color=colour, va="center")

    def _loss(self, item: Loss) -> tuple[float, float]:
        colour, _ = self._style(self._senders[item.event])
        x0, x1 = self._x(item.s0), self._x_end(item.s1)
        y0, y1 = self._lanes[item.source], self._lanes[item.target]
        part = 0.8 if item.target in item.players else 0.5
        x, y = x0 + part * (x1 - x0), y0 + part * (y1 - y0)
        self._ax.plot([x0, x], [y0, y], color=colour, linewidth=1.1, linestyle="--")
        self._cross(x, y, item.event)
        return x, y

    def _cross(self, x: float, y: float, event: str) -> None:
        colour, _ = self._style(self._senders[event])
        self._ax.plot(
            x, y, marker="X", markersize=8, color="white", markeredgecolor=colour, zorder=4
        )

    def _link(self, item: Link) -> None:
        x, y = self._x(item.s), self._lanes[item.server]
        marker = "o" if item.up else "x"
        self._ax.plot(x, y, marker=marker, markersize=5, color=REDIS, zorder=3)


def _cause(loss: Loss) -> str:
    return loss.why if loss.source == loss.target else loss.cause


def _wrapped(text: str, columns: int) -> str:
    return textwrap.fill(text.replace("$", r"\$"), max(12, columns))
