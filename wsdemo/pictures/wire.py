"""Pictures of what went over the wire: who said what in which order, and who heard it when."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

from matplotlib.axes import Axes

from wsdemo.pictures.picture import COLOURS, INK, QUIET, Picture, one_line, shortened
from wsdemo.wire import END_OF_HEAD, Conversation, Delays, Frame, Passage, Side, in_ms

__all__ = ["conversation_picture", "delays_picture"]

WIDTH, ROW = 9.4, 0.27  # inches
LANES: dict[Side, float] = {"client": 2.9, "server": 5.9}
OTHER: dict[Side, Side] = {"client": "server", "server": "client"}
MOST = 40  # messages in one picture
LONG = 0.01  # seconds without a word that are drawn as a gap
KINDS = {"HTTP": QUIET, "text": COLOURS[0], "binary": COLOURS[0], "ping": COLOURS[2]}
KINDS |= {"pong": COLOURS[2], "close": COLOURS[1], "end": COLOURS[1]}
CENTRED: dict[str, Any] = {"ha": "center", "va": "center"}
WAYS = {"WebSocket": -1, "polling": 1}  # above and below what is said


@dataclass(frozen=True)
class _Message(Passage):
    kind: str
    label: str
    size: int


@dataclass(frozen=True)
class _Moment:
    """A message leaves or arrives, at one side."""

    t: float
    message: int
    side: Side
    is_arrival: bool


@dataclass
class _Rows:
    """How far down a picture everything is; a gap with its length in seconds."""

    leaves: dict[int, float] = field(default_factory=dict)
    arrives: dict[int, float] = field(default_factory=dict)
    gaps: list[tuple[float, float]] = field(default_factory=list)
    last: float = 0.0


def conversation_picture(talk: Conversation) -> Picture:
    """A line for each side, down which time goes, and an arrow for each message between them."""
    shown, cut = _shown(talk)
    rows = _rows(shown)
    picture = Picture(WIDTH, ROW * (rows.last + 4))
    ax = picture.subplots()
    _lanes(ax, rows)
    for n, message in enumerate(shown):
        _arrow(ax, message, rows.leaves[n], rows.arrives.get(n))
    ax.set_xlabel(f"time goes down, not to scale{cut}", fontsize=10, color=QUIET)
    words = [_words(message, shown[:n]) for n, message in enumerate(shown)]
    picture.words = "\n".join([f"A conversation on the wire{cut}", *words])
    return picture


def delays_picture(delays: Delays) -> Picture:
    """When each event was said, and when it was heard by each way, to scale; and each question."""
    zero = min([*delays.said, *delays.asked], default=0.0)
    names = {0: "said"}
    picture = Picture(WIDTH, 3.4)
    ax = picture.subplots()
    for way, colour in zip(delays.heard, COLOURS, strict=False):
        names[WAYS[way]] = f"heard by {way}"
        _way(ax, way, delays, zero, colour)
    in_vain = _ms(delays.in_vain, zero)
    if in_vain and "polling" in delays.heard:
        names[WAYS["polling"]] += f"\n○ asked in vain ({len(in_vain)})"
        ax.plot(in_vain, [WAYS["polling"]] * len(in_vain), "o", color=QUIET, mfc="white")
    ax.plot(_ms(delays.said, zero), [0] * len(delays.said), "s", markersize=9, color=INK)
    ax.set_yticks(list(names), list(names.values()), fontsize=11)
    ax.set_ylim(1.5, -1.5)
    ax.set_xlabel("milliseconds", fontsize=10, color=QUIET)
    _quiet(ax)
    picture.words = "\n".join(["When each event was said and heard", *_counts(delays)])
    return picture


# What there is to show


def _shown(talk: Conversation) -> tuple[list[_Message], str]:
    """What there is room for, and what else there was. Of a silence's pings there may be many."""
    frames, cut = talk.frames, ""
    found = _messages(talk, frames)
    others = [frame for frame in frames if not _keeps_alive(frame)]
    if len(found) > MOST and len(others) < len(frames):
        found = _messages(talk, others)
        cut = f", without {len(frames) - len(others)} pings and pongs"
    if len(found) > MOST:
        cut += f", the first {MOST} of {len(found)}"
    return found[:MOST], cut


def _keeps_alive(frame: Frame) -> bool:
    """Whether the library has said it by itself: its pings have four random bytes."""
    return frame.name in ("ping", "pong") and frame.length == 4


def _messages(talk: Conversation, frames: Sequence[Frame]) -> list[_Message]:
    """The handshake, or any other HTTP, then these frames, then how it ended."""
    first = frames[0].t if frames else inf
    found = [
        _Message(c.t, c.side, c.arrived, "HTTP", *_http(c.data, has_body=not frames))
        for c in talk.chunks
        if c.data[:5] in (b"GET /", b"HTTP/") and c.t <= first
    ]
    found += [_Message(f.t, f.side, f.arrived, f.name, f.text, f.size) for f in frames]
    found += [_Message(c.t, c.side, c.arrived, "end", c.end, 0) for c in talk.ends]
    return sorted(found, key=lambda message: message.t)


def _http(data: bytes, has_body: bool) -> tuple[str, int]:
    """The first line, and the size: after a handshake's head, frames may follow in one piece."""
    head, end, _ = data.partition(END_OF_HEAD)
    line = head.split(b"\r\n", 1)[0].decode("latin-1")
    return line, len(data) if has_body else len(head + end)


def _words(message: _Message, before: Sequence[_Message]) -> str:
    crosses = ", crosses one before it" if any(map(message.crosses, before)) else ""
    label = one_line(message.label, 60)
    return f"{message.side} {message.kind} {label}, {message.size} bytes{crosses}"


def _label(message: _Message) -> str:
    """What matters of a message, in a few words."""
    match message.kind:
        case "HTTP":
            return message.label.replace("HTTP/1.1", "").strip()
        case "end":
            return f"TCP ends ({message.label})"
        case "text" | "binary":
            return _gist(message.label) or f"({message.kind})"
        case "close":
            return f"close {message.label}".rstrip()
    return message.kind


def _gist(text: str) -> str:
    """Of a game's JSON, who says what, or else its type and who it is about; all of other text."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(said, dict) or "type" not in said:
        return text
    if "body" in said:
        return f"{said['player']}: {said['body']}" if "player" in said else str(said["body"])
    return f"{said['type']} {said.get('player', '')}".rstrip()


# Where it is


def _rows(messages: Sequence[_Message]) -> _Rows:
    """Each moment below the one before it: in order, but not to scale."""
    rows, before = _Rows(), None
    under_way: set[int] = set()
    for moment in _moments(messages):
        if before:
            rows.last += _step(before, moment, len(under_way))
            if not under_way and moment.t - before.t >= LONG:
                rows.gaps.append((rows.last, moment.t - before.t))
                rows.last += 1.4
        (rows.arrives if moment.is_arrival else rows.leaves)[moment.message] = rows.last
        if messages[moment.message].arrived < inf:
            under_way ^= {moment.message}
        before = moment
    return rows


def _moments(messages: Sequence[_Message]) -> list[_Moment]:
    found = [_Moment(m.t, n, m.side, False) for n, m in enumerate(messages)]
    found += [
        _Moment(m.arrived, n, OTHER[m.side], True)
        for n, m in enumerate(messages)
        if m.arrived < inf
    ]
    return sorted(found, key=lambda moment: moment.t)


def _step(before: _Moment, now: _Moment, under_way: int) -> float:
    """Arrows slope, more so if they cross. Texts do not touch. An answer is near its question."""
    if now.is_arrival and not before.is_arrival:
        return 1.0 if under_way < 2 else 1.8
    is_answer = before.is_arrival and not now.is_arrival
    return 0.4 if is_answer == (before.side == now.side) else 0.9


# How it is drawn


def _lanes(ax: Axes, rows: _Rows) -> None:
    stops = [-0.8, *(row + gap for row, _ in rows.gaps for gap in (0.1, 1.3)), rows.last + 0.6]
    for side, x in LANES.items():
        ax.text(x, -1.4, side, fontsize=14, color=INK, weight="bold", **CENTRED)
        for n, (start, end) in enumerate(pairwise(stops)):
            ax.plot([x, x], [start, end], ":" if n % 2 else "-", color=QUIET, linewidth=2)
    for row, seconds in rows.gaps:
        long = f"{seconds:.0f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
        middle = sum(LANES.values()) / 2
        ax.text(middle, row + 0.7, f"{long} later", fontsize=10, color=QUIET, **CENTRED)
    ax.set_xlim(0, WIDTH)
    ax.set_ylim(rows.last + 0.8, -2)
    ax.set_xticks([])
    ax.set_yticks([])
    _quiet(ax)


def _arrow(ax: Axes, message: _Message, top: float, bottom: float | None) -> None:
    """From who has sent it to who has heard it; half-way if it has not arrived."""
    start, end = LANES[message.side], LANES[OTHER[message.side]]
    tip = ((start + end) / 2, top + 0.5) if bottom is None else (end, bottom)
    colour = KINDS.get(message.kind, INK)
    arrow = {"arrowstyle": "-|>", "mutation_scale": 18, "linewidth": 2.2, "color": colour}
    ax.annotate("", tip, (start, top), arrowprops={**arrow, "shrinkA": 0, "shrinkB": 0})
    away = -1 if start < end else 1
    align: dict[str, Any] = {"ha": "right" if away < 0 else "left", "va": "center"}
    label = ax.text(start + 0.15 * away, top, shortened(_label(message), 24), **align)
    label.set(fontsize=12, weight="bold", color=INK if message.kind == "HTTP" else colour)
    if message.size:
        beside: dict[str, Any] = {"xycoords": label, "textcoords": "offset points", **align}
        size = f"{message.size} bytes"
        ax.annotate(size, (max(away, 0), 0.5), (8 * away, 0), fontsize=10, color=QUIET, **beside)


def _way(ax: Axes, way: str, delays: Delays, zero: float, colour: str) -> None:
    """From each event as it was said to each as it was heard, and beside it how late that was."""
    heard, line = _ms(delays.heard[way], zero), WAYS[way]
    for x in zip(_ms(delays.said, zero), heard, strict=False):
        ax.plot(x, [0, line], color=colour, linewidth=1.5)
    ax.plot(heard, [line] * len(heard), "o", markersize=9, color=colour)
    if heard:
        late = in_ms(delays.waits[way]).replace(", ", ",\n")
        beside: dict[str, Any] = {"va": "center", "transform": ax.get_yaxis_transform()}
        ax.text(1.02, line, late, fontsize=11, color=colour, **beside)


def _counts(delays: Delays) -> Iterator[str]:
    for way, heard in delays.heard.items():
        yield f"{way}: {len(heard)} of {len(delays.said)} heard"
    if delays.asked:
        yield f"asked {len(delays.asked)} times, {len(delays.in_vain)} of them in vain"


def _ms(moments: Sequence[float], zero: float) -> list[float]:
    return [1000 * (moment - zero) for moment in moments]


def _quiet(ax: Axes) -> None:
    ax.tick_params(left=False, bottom=False, labelcolor=INK)
    for side in ax.spines.values():
        side.set_visible(False)
