"""The space-time diagram: a line for each part, time to the right, an arrow for each hop.

Time is story time (see `story`): each hop is as long as any other, and the beats of several runs
stand one below the other. A long run goes on in another row: a notebook makes a wide picture as
narrow as itself, and its words too small to be read.
"""

from __future__ import annotations

import textwrap
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from math import ceil, inf
from typing import Any

from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from wsdemo.ledger import ledger
from wsdemo.pictures.picture import INK, QUIET, REDIS, Picture, shortened
from wsdemo.pictures.signs import ILL, LINES, LOST, MISSED, SUBSCRIBED, Legend, Style, look
from wsdemo.story import Beat, Health, Hop, Left, Link, Loss, Outcome, Place, Said, Story, tell
from wsdemo.trace import Source, Trace, traces

__all__ = ["Timeline", "timeline"]

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
TITLE, NAME, WORDS, SMALL = 15.0, 14.0, 12.0, 10.5  # points
LETTER = 0.56  # the width of an average letter, of its height
CAPTION_LINES = 5
FEWEST, MOST = 8, 24  # letters on the longest line of a caption, however little time it has

WIDTH = 11.2  # inches; its words can be read where it is shown 900 pixels wide
LANE = 0.5  # inches from one line to the next
HOP = 0.36  # inches, the least that one takes up
ROW = 26.0  # hops that there is room for in one row
LONGEST = 64.0  # hops; of a longer run, the end is shown
MOST_HOPS = 1000  # arrows; more than that could not be told apart
AFTER = 0.5  # hops for which the lines go on when all is over
CAUSE_WIDTH = 3.0  # hops between two losses for one cause that is told once
MARGIN = 0.3  # hops on both sides
ABOVE, BENEATH = 0.7, 0.6  # lines that there is room for above the first and below the last
BELOW = 0.5  # inches for the legend
BOX = 0.2  # inches, of one that is missed
MOST_BESIDE = 3  # boxes that give way to each other
SIDE, NEAR = 0.14, 0.07  # inches from a sign to the words beside it, and above it


class Timeline(Picture):
    """The diagram, which shows itself in a notebook."""


def timeline(source: Source) -> Timeline:
    """The diagram of a trace, a live cluster, or the runs that `compare` returned."""
    installed = set(font_manager.get_font_names())
    with rc_context({"font.family": [font for font in FONTS if font in installed]}):
        return _draw(traces(source))


def _draw(found: Mapping[str, Trace]) -> Timeline:
    stories = [tell(trace) for trace in found.values()]
    edges = _common_edges(stories)
    runs = [_Run(story, edges) for story in stories]
    players = dict.fromkeys(player for run in runs for player in run.players)
    cast = _Cast({player: look(n) for n, player in enumerate(players)}, Legend())
    rows = _rows(runs, edges)
    drawings = [_Drawing(run, row, cast) for row in rows for run in runs]
    heights = [drawing.height for drawing in drawings]
    heads = [drawing.head for drawing in drawings]
    figure = Timeline(rows[0].width, sum(heights) + sum(heads) + BELOW)
    figure.set_layout_engine("constrained", h_pad=0.1)
    axes = figure.subplots(len(drawings), 1, squeeze=False, height_ratios=heights)
    for ax, drawing in zip(axes[:, 0], drawings, strict=True):
        drawing.draw(ax)
    cast.legend.draw(figure, WORDS)
    books = [ledger(trace) for trace in found.values()]
    outcomes = [line for book in books for line in (f"{book.title}: {book.summary}", *book.losses)]
    captions = [beat.caption for beat in _beats(stories[0]) if beat.caption]
    beats = [f"Beat {number}: {caption}" for number, caption in enumerate(captions, start=1)]
    figure.words = "\n".join(["Space-time diagram", *outcomes, *beats])
    return figure


def _inches(letters: float, points: float) -> float:
    """How wide about so many letters are."""
    return letters * points * LETTER / 72


# Where everything stands


def _beats(story: Story) -> list[Beat]:
    """Each beat; the first is what comes before any step, if anything does."""
    told = [item for item in story.items if isinstance(item, Beat)]
    return told if told and told[0].s == 0 else [Beat(0.0, ""), *told]


def _common_edges(stories: Sequence[Story]) -> list[float]:
    """Where each beat begins, and the last one ends, so that the longest of each has room."""
    edges = [0.0]
    for spans in zip_longest(*map(_spans, stories), fillvalue=0.0):
        edges.append(edges[-1] + max(spans))
    return edges


def _spans(story: Story) -> Iterator[float]:
    """For each beat the hops that it lasts, or that its caption takes up if that is more."""
    beats = _beats(story)
    ends = [*(beat.s for beat in beats[1:]), story.end + AFTER]
    for beat, end in zip(beats, ends, strict=True):
        yield max(end - beat.s, _inches(_least(beat.caption), WORDS) / HOP)


def _least(caption: str) -> int:
    """How many letters the longest line of a caption has that is set as narrow as can be."""
    words = caption.split()
    longest = max(map(len, words), default=0)
    lines = 1.0 * len(caption) / (CAPTION_LINES - 1)
    return 2 + min(max(FEWEST, longest, ceil(lines)), MOST) if words else 0


class _Run:
    """A story, and where its parts and its moments stand in the picture."""

    def __init__(self, story: Story, edges: Sequence[float]) -> None:
        self.story = story
        self.beats = _beats(story)
        self.players = list(dict.fromkeys(i.player for i in story.items if isinstance(i, Place)))
        hub = [] if story.broker == "none" else ["redis"]
        parts = [*self.players, *story.every_server, *hub]
        self.lanes = {part: line for line, part in enumerate(parts)}  # counted from the top
        self.senders = {i.event: i.player for i in story.items if isinstance(i, Said)}
        self._edges = edges
        hops = sorted(self.x(item.s0) for item in story.items if isinstance(item, Hop))
        self.begin = max([0.0, *hops[-MOST_HOPS - 1 : -MOST_HOPS]])  # of what can be shown
        self.end = self.x(story.end) + AFTER

    def x(self, s: float) -> float:
        """Where a moment of the story stands. Between two beats it belongs to the first."""
        k = max(0, bisect_left(self.beats, s, key=lambda beat: beat.s) - 1)
        return self._edges[k] + s - self.beats[k].s

    def spans(self) -> Iterator[tuple[Beat, tuple[float, float]]]:
        """Each beat, and where it begins and ends."""
        yield from zip(self.beats, pairwise(self._edges), strict=False)

    def moves(self) -> Iterator[tuple[float, float]]:
        """From when to when something is on its way."""
        for item in self.story.items:
            if isinstance(item, Hop | Loss | Place):
                yield self.x(item.s0), self.x(item.s1)

    def name(self, part: str) -> str:
        """A part's name, as it stands before its line."""
        if part in self.story.every_server:
            return f"server {shortened(part)}"
        return "Redis" if part == "redis" else shortened(part)

    def states(self, part: str) -> Iterator[tuple[float, float, str, str]]:
        """From where to where a server or Redis was how, and the word for what began that."""
        changes = [i for i in self.story.items if isinstance(i, Health) and i.part == part]
        start, state, word = 0.0, "up", ""
        if changes and changes[0].state == "up":
            state = "absent"
        for change in changes:
            yield start, self.x(change.s), state, word
            start, word = self.x(change.s), _word_for(state, change)
            state = change.state
        yield start, self.end, state, word

    def stays(self, player: str) -> Iterator[tuple[float, float, str]]:
        """From where to where a player was on a server, or was away ("")."""
        begun: tuple[float, str] | None = None
        for item in self.story.items:
            match item:
                case Place() if item.player == player and (item.server or begun):
                    if begun:
                        yield begun[0], self.x(item.s0), begun[1]
                    begun = self.x(item.s1), item.server
                case Left() if item.player == player and begun:
                    yield begun[0], self.x(item.s), begun[1]
                    begun = None  # that its connection closes then is no news
        if begun:
            yield begun[0], self.end, begun[1]

    def subscriptions(self, server: str) -> Iterator[tuple[float, float]]:
        """From where to where a server was subscribed; to infinity, if it still is."""
        start = None
        for item in self.story.items:
            if not isinstance(item, Link) or item.server != server:
                continue
            if item.up and start is None:
                start = self.x(item.s)
            elif not item.up and start is not None:
                yield start, self.x(item.s)
                start = None
        if start is not None:
            yield start, inf


def _word_for(before: str, change: Health) -> str:
    """What is said of a part's change, beside its line."""
    if change.state == "up":
        return {"absent": "added", "frozen": "thawed"}.get(before, "back")
    return change.reason or change.state


@dataclass(frozen=True)
class _Row:
    """What one row of the picture shows of a run, in hops. All rows have the same scale."""

    begin: float
    end: float
    room: float  # from left to right
    hop: float  # inches that one hop takes up
    width: float  # inches of the whole picture
    title: str  # what is said of it after the run's title

    def hops(self, inches: float) -> float:
        """How many hops are so long."""
        return inches / self.hop

    def begins(self, x: float) -> bool:
        """Whether what sets out then is in this row."""
        return self.begin <= x < self.end

    def ends(self, x: float) -> bool:
        """Whether what has come about by then is in this row."""
        return self.begin < x <= self.end


def _rows(runs: Sequence[_Run], edges: Sequence[float]) -> list[_Row]:
    """As few as can be, and about as long as each other."""
    begin = max(0.0, edges[-1] - LONGEST, *(run.begin for run in runs))
    starts = [begin, *_cuts(runs, edges, begin)]
    stops = [*starts[1:], edges[-1]]
    room = max(stop - start for start, stop in zip(starts, stops, strict=True)) + 2 * MARGIN
    names = max((len(run.name(part)) for run in runs for part in run.lanes), default=0)
    margin = 0.3 + _inches(names, NAME)
    hop = max(HOP, (WIDTH - margin) / room)
    titles = [", the end of a longer run" if begin else "", *[", continued"] * len(starts[1:])]
    return [
        _Row(start, stop, room, hop, margin + room * hop, title)
        for start, stop, title in zip(starts, stops, titles, strict=True)
    ]


def _cuts(runs: Sequence[_Run], edges: Sequence[float], begin: float) -> list[float]:
    """Where one row ends and the next begins: with a beat, or in a long one while all is quiet."""
    length = edges[-1] - begin
    count = ceil(length / ROW)
    even = [begin + length * k / count for k in range(1, count)]
    costs = dict.fromkeys(_quiet(runs), ROW / 4) | dict.fromkeys(edges[1:-1], 0.0)
    costs = {x: cost for x, cost in costs.items() if begin < x < edges[-1]}
    best = [min(costs, key=lambda x: abs(x - at) + costs[x]) for at in even if costs]
    return sorted(set(best))


def _quiet(runs: Sequence[_Run]) -> Iterator[float]:
    """Moments at which somebody says something while nothing is on its way in any run."""
    said = {run.x(item.s) for run in runs for item in run.story.items if isinstance(item, Said)}
    until = 0.0
    for start, stop in sorted(span for run in runs for span in run.moves()):
        if start >= until and start in said:
            yield start
        until = max(until, stop)


# What is drawn there


@dataclass(frozen=True)
class _Cast:
    """What all rows share: how each player looks, and which signs have been used."""

    looks: Mapping[str, Style]
    legend: Legend


class _Drawing:
    """One row of one run, in one pair of axes."""

    _ax: Axes

    def __init__(self, run: _Run, row: _Row, cast: _Cast) -> None:
        self._run = run
        self._row = row
        self._cast = cast
        self._items = run.story.items
        self._captions = list(self._find_captions())
        self._lines = max((text.count("\n") + 1 for _, text in self._captions), default=0)

    @property
    def height(self) -> float:
        """Of the lines, in inches."""
        return LANE * (len(self._run.lanes) + ABOVE + BENEATH - 1)

    @property
    def head(self) -> float:
        """Of what is above them."""
        return (TITLE * 1.5 + self._pad) / 72 + 0.2

    @property
    def _pad(self) -> float:
        """Points between the lines and the title, for the captions."""
        return 10 + 1.3 * WORDS * self._lines

    def draw(self, ax: Axes) -> None:
        """Draw all of it."""
        self._ax = ax
        self._frame()
        self._beats()
        for part, y in self._run.lanes.items():
            if part in self._cast.looks:
                self._player_line(part, y)
            else:
                self._part_line(part, y)
            if "redis" in self._run.lanes and part in self._run.story.every_server:
                self._subscriptions(part, y + 0.15)
        self._words()
        self._arrows()
        self._losses()
        self._misses()

    def _frame(self) -> None:
        ax, row = self._ax, self._row
        title = self._run.story.title + row.title
        ax.set_title(title, loc="left", fontsize=TITLE, fontweight="bold", color=INK, pad=self._pad)
        ax.set_ylim(len(self._run.lanes) - 1 + BENEATH, -ABOVE)
        ax.set_xlim(row.begin - MARGIN, row.begin - MARGIN + row.room)
        ax.set_yticks(list(self._run.lanes.values()), list(map(self._label, self._run.lanes)))
        ax.set_xticks([])
        ax.tick_params(left=False, labelsize=NAME, labelcolor=INK)
        for side in ax.spines.values():
            side.set_visible(False)

    def _label(self, part: str) -> str:
        """A part's name; of a player that is on a server when a row begins, that too."""
        name = self._run.name(part)
        if part in self._cast.looks and self._row.begin > 0:
            for start, stop, server in self._run.stays(part):
                if server and start <= self._row.begin < stop:
                    return f"{name} on {shortened(server)}"
        return name

    # Captions

    def _find_captions(self) -> Iterator[tuple[float, str]]:
        """Where each beat begins in this row, and its caption on as many lines as it needs."""
        row = self._row
        for beat, (start, end) in self._run.spans():
            if beat.caption and row.begins(start):
                end = row.begin + row.room if end == row.end else end
                letters = int((end - start - 0.3) * row.hop / _inches(1, WORDS))
                yield start, _wrapped(beat.caption, letters)

    def _beats(self) -> None:
        for x, words in self._captions:
            self._ax.axvline(x, color="#d9dee4", linewidth=1.1, zorder=0)
            style: Style = {"fontsize": WORDS, "color": INK, "va": "bottom"}
            self._ax.text(x + self._row.hops(NEAR), 0.02 - ABOVE, words, **style)

    # Lines

    def _stretch(self, start: float, stop: float, y: float, style: Style) -> bool:
        """A line, as far as this row has it; whether that is any."""
        start, stop = max(start, self._row.begin), min(stop, self._row.end)
        if start < stop:
            self._ax.plot([start, stop], [y, y], **style)
        return start < stop

    def _part_line(self, part: str, y: int) -> None:
        """A server's or that of Redis, with a word where it goes and where it is back."""
        colour = REDIS if part == "redis" else QUIET
        for start, stop, state, word in self._run.states(part):
            for layer in LINES[state]:
                if self._stretch(start, stop, y, {"color": colour, **layer}):
                    self._cast.legend.see(state)
            if word and self._row.ends(start):
                self._change(start, y, part, state, word)

    def _change(self, x: float, y: int, part: str, state: str, word: str) -> None:
        """Before an end the word for it, and after a return the word for that."""
        colour, side = (INK, "left") if state == "up" else (ILL, "right")
        stroke = {"marker": "|", "markersize": 13, "markeredgewidth": 2, "color": colour}
        self._mark(x, y, stroke)
        below = part == "redis"  # where no arrow goes
        y_word, above_or_below = (y + 0.2, "top") if below else (y - 0.2, "bottom")
        style = {"fontsize": SMALL, "fontweight": "bold", "ha": side, "va": above_or_below}
        self._write(x, y_word, word, colour, **style)

    def _player_line(self, player: str, y: int) -> None:
        """With the server's name where a stay on it begins."""
        colour = self._cast.looks[player]["color"]
        for start, stop, server in self._run.stays(player):
            for layer in LINES["up" if server else "down"]:
                seen = self._stretch(start, stop, y, {"color": colour, **layer})
                if seen and not server:
                    self._cast.legend.see("away")
            if server and self._row.ends(start):
                self._tag(start, player, f"on {shortened(server)}", colour)

    def _tag(self, x: float, player: str, text: str, colour: str) -> None:
        """A word in a frame, before a moment of a player's and what it missed just then."""
        room = self._row.hops(_inches(len(text), SMALL) + 2 * SIDE)
        beside = [at for at in self._missed(player) if x - room < at < x + self._row.hops(SIDE)]
        missed = [at - self._row.hops(BOX / 2) for at in beside]
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour}
        style: Style = {"fontsize": SMALL, "color": colour, "bbox": box, "zorder": 5}
        at = min([x, *missed]) - self._row.hops(SIDE)
        self._ax.text(at, self._run.lanes[player], text, ha="right", va="center", **style)

    def _missed(self, player: str) -> list[float]:
        """When it becomes certain that a player misses something."""
        outcomes = (item for item in self._items if isinstance(item, Outcome))
        missed = (i for i in outcomes if i.outcome == "missed" and i.player == player)
        return [self._run.x(item.s) for item in missed]

    def _subscriptions(self, server: str, y: float) -> None:
        """A second line below a server's own, which begins and ends with a stroke."""
        stroke = {"marker": "|", "markersize": 9, "color": REDIS, "markeredgewidth": 2.4}
        for start, stop in self._run.subscriptions(server):
            if self._stretch(start, min(stop, self._run.end), y, SUBSCRIBED):
                self._cast.legend.see("subscribed to the channel")
            for x in (start, stop):
                if self._row.ends(x):
                    self._mark(x, y, stroke)
            if self._row.ends(stop):
                self._cast.legend.see("subscription ends")

    # Messages

    def _words(self) -> None:
        """Who says what, and when."""
        for group in self._told_together():
            player = group[-1].player
            y, shape = self._run.lanes[player], self._look(player)
            xs = [self._run.x(item.s) for item in group]
            for x in xs:
                self._mark(x, y, shape | {"markersize": 9})
            end = xs[-1] + self._row.hops(NEAR)
            style = {"fontsize": WORDS, "ha": "right", "va": "bottom"}
            self._write(end, y - 0.25, _quoted(group), shape["color"], **style)
            self._cast.legend.hear(player, shape)

    def _told_together(self) -> Iterator[list[Said]]:
        """What each player says in this row, in groups where one's words would cover another's."""
        last: dict[str, list[Said]] = {}
        for item in self._items:
            if not isinstance(item, Said) or not self._row.begins(self._run.x(item.s)):
                continue
            group = last.get(item.player)
            begin = self._run.x(item.s) - self._row.hops(_inches(len(_quoted([item])), WORDS))
            if group and begin < self._run.x(group[-1].s):
                group.append(item)
                continue
            if group:
                yield group
            last[item.player] = [item]
        yield from last.values()

    def _arrows(self) -> None:
        """All in one go: one by one, a thousand hops would take a minute."""
        run = self._run
        hops = [i for i in self._items if isinstance(i, Hop) and self._row.begins(run.x(i.s0))]
        if not hops:
            return
        x0 = [run.x(hop.s0) for hop in hops]
        y0 = [run.lanes[hop.source] for hop in hops]
        dx = [run.x(hop.s1) - x for hop, x in zip(hops, x0, strict=True)]
        dy = [run.lanes[hop.target] - y for hop, y in zip(hops, y0, strict=True)]
        colours = [self._colour(hop.event) for hop in hops]
        data_units: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1}
        shape: dict[str, Any] = {"units": "inches", "width": 0.02, "headwidth": 7}
        shape |= {"headlength": 8, "headaxislength": 8}
        self._ax.quiver(x0, y0, dx, dy, color=colours, **data_units, **shape, zorder=2.5)
        self._cast.legend.see("arrives")

    def _losses(self) -> None:
        """Each part of the way, dashed, up to a cross; beside a row of them, the cause."""
        groups: list[list[Loss]] = []
        for loss in sorted(self._lost(), key=lambda loss: (loss.source, loss.target, loss.s1)):
            before = groups[-1][-1] if groups else None
            if before and _is_next(before, loss):
                groups[-1].append(loss)
            else:
                groups.append([loss])
        ways = [[self._loss(loss) for loss in group] for group in groups]
        for group, ends in zip(groups, ways, strict=True):
            others = [x for each in ways if each is not ends for x, y in each if y == ends[0][1]]
            self._why(group[-1], [x for x, _ in ends], ends[0][1], others)

    def _lost(self) -> list[Loss]:
        """What is lost in this row."""
        losses = (item for item in self._items if isinstance(item, Loss))
        return [loss for loss in losses if self._row.begins(self._run.x(loss.s0))]

    def _why(self, loss: Loss, ends: list[float], y: float, others: list[float]) -> None:
        """The cause, after the last cross of a row or, if others are there, before the first."""
        why = shortened(loss.why.replace("{target}", loss.target), 40)
        beside = self._row.hops(SIDE)
        room = self._row.hops(_inches(len(why), SMALL)) + 2 * beside
        before = any(ends[0] - room < x < ends[0] for x in others)
        after = any(ends[-1] <= x < ends[-1] + room for x in others)
        side, at = ("left", ends[-1] + beside)
        if after and not before:
            side, at = ("right", ends[0] - beside)
        self._write(at, y, why, self._colour(loss.event), fontsize=SMALL, va="center", ha=side)

    def _loss(self, item: Loss) -> tuple[float, float]:
        """Its way ends between two lines, where there is room for the words."""
        x0, x1 = self._run.x(item.s0), self._run.x(item.s1)
        y0, y1 = self._run.lanes[item.source], self._run.lanes[item.target]
        lines = abs(y1 - y0)
        crossed = lines - 1 if item.target in item.players else lines // 2
        part = (crossed + 0.5) / lines if lines else 0.5
        x, y = x0 + part * (x1 - x0), y0 + part * (y1 - y0)
        colour = self._colour(item.event)
        self._ax.plot([x0, x], [y0, y], color=colour, linewidth=1.5, linestyle="--", zorder=2.5)
        self._mark(x, y, LOST | {"color": colour})
        self._cast.legend.see("is lost")
        return x, y

    def _misses(self) -> None:
        """A box for each, beside whatever arrives just then, and so as not to hide it."""
        taken: dict[str, list[float]] = {}
        for item in self._items:
            if isinstance(item, Hop) and item.target in self._cast.looks:
                taken.setdefault(item.target, []).append(self._run.x(item.s1))
        for item in self._items:
            if isinstance(item, Outcome) and item.outcome == "missed":
                x, y = self._run.x(item.s), self._run.lanes[item.player]
                if self._row.ends(x):
                    x = self._beside(x, taken.setdefault(item.player, []))
                    taken[item.player].append(x)
                    self._mark(x, y, MISSED | {"color": self._colour(item.event)})
                    self._cast.legend.see("is missed")

    def _beside(self, x: float, taken: Sequence[float]) -> float:
        """The next place from there on that is free; where many crowd, that place itself."""
        at, room = x, self._row.hops(BOX)
        for _ in range(MOST_BESIDE):
            near = [other for other in taken if abs(other - at) < 0.99 * room]
            if not near:
                return at
            at = max(near) + room
        return x

    def _look(self, player: str) -> Style:
        return self._cast.looks.get(player, look(0))

    def _colour(self, event: str) -> str:
        """The colour of who said something."""
        return str(self._look(self._run.senders[event])["color"])

    def _mark(self, x: float, y: float, style: Style) -> None:
        self._ax.plot(x, y, linestyle="none", zorder=4, clip_on=False, **style)

    def _write(self, x: float, y: float, text: str, colour: str, **style: Any) -> None:
        """Words that can be read on whatever they cross."""
        halo = [withStroke(linewidth=3, foreground="white")]
        self._ax.text(x, y, text, color=colour, path_effects=halo, zorder=5, **style)


def _quoted(said: Sequence[Said]) -> str:
    """What is said, if that is little enough to be told."""
    if len(said) > 2:
        return f"{len(said)} messages"
    return ", ".join(f"“{shortened(item.body)}”" for item in said)


def _is_next(before: Loss, loss: Loss) -> bool:
    """Whether one cause, told once, is enough for both."""
    same = (before.source, before.target, before.why) == (loss.source, loss.target, loss.why)
    return same and loss.s1 - before.s1 <= CAUSE_WIDTH


def _plain(text: str) -> str:
    """A text that is not a formula."""
    return text.replace("$", r"\$")


def _wrapped(text: str, letters: int) -> str:
    width = max(FEWEST, letters)
    return _plain(textwrap.fill(text, width, max_lines=CAPTION_LINES, placeholder=" …"))
