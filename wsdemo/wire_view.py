"""Pictures of what went over the wire: who said what in which order, and who heard it when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from wsdemo.picture import COLOURS, INK, QUIET, Picture, one_line, shortened
from wsdemo.wire import END_OF_HEAD, Conversation, Delays, Side

__all__ = ["conversation_picture", "delays_picture"]

LANES: dict[Side, float] = {"server": 1.0, "client": 0.0}
MOST = 40  # messages in one picture
KINDS = {"HTTP": QUIET, "text": COLOURS[0], "binary": COLOURS[0], "ping": COLOURS[2]}
KINDS |= {"pong": COLOURS[2], "close": COLOURS[1], "end": COLOURS[1]}


@dataclass(frozen=True)
class _Message:
    t: float
    side: Side
    kind: str
    label: str
    size: int


def conversation_picture(talk: Conversation) -> Picture:
    """A line for each side, and an arrow for each message in order, with its time and bytes."""
    every = _messages(talk)
    shown = every[:MOST]
    picture = Picture(max(7.0, 0.85 * len(shown) + 1.5), 3.6)
    ax = picture.subplots()
    _lanes(ax, len(shown))
    for x, message in enumerate(shown):
        _arrow(ax, x, message)
    cut = f", the first {MOST} of {len(every)}" if len(every) > MOST else ""
    ax.set_xlabel(
        f"milliseconds since the client connected (not to scale){cut}", fontsize=8, color=QUIET
    )
    ax.set_xticks(range(len(shown)), [f"{1000 * each.t:.1f}" for each in shown], fontsize=7)
    words = [
        f"{each.side} {each.kind} {one_line(each.label, 60)}, {each.size} bytes" for each in shown
    ]
    picture.words = "\n".join([f"A conversation on the wire{cut}", *words])
    return picture


def delays_picture(delays: Delays) -> Picture:
    """When each event was said, and when it was heard by each way, to scale; and each question."""
    said, heard, asked = delays.said, delays.heard, delays.asked
    picture = Picture(9.0, 0.75 * (len(heard) + 1) + 0.8)
    ax = picture.subplots()
    zero = min([*said, *asked], default=0.0)
    for line, (way, times) in enumerate(heard.items(), 1):
        colour = COLOURS[line % len(COLOURS)]
        for begin, end in zip(said, times, strict=False):
            x = [1000 * (begin - zero), 1000 * (end - zero)]
            ax.plot(x, [0, line], color=colour, linewidth=1, alpha=0.7)
            ax.plot(x[1], line, marker="o", markersize=7, color=colour)
        late = [1000 * (end - begin) for begin, end in zip(said, times, strict=False)]
        if late:
            text = f"at most {max(late):,.0f} ms later"
            ax.text(1.01, line, text, fontsize=9, color=colour, va="center", transform=_beside(ax))
        if way == "polling":
            x = [1000 * (moment - zero) for moment in asked]
            ax.plot(x, [line + 0.28] * len(x), "|", markersize=9, color=QUIET)
    ax.plot([1000 * (moment - zero) for moment in said], [0] * len(said), "s", color=INK)
    names = ["said", *(f"heard by {way}" for way in heard)]
    ax.set_yticks(range(len(names)), names, fontsize=10)
    ax.set_ylim(len(heard) + 0.6, -0.5)
    note = "    | the client asks" if asked else ""
    ax.set_xlabel(f"milliseconds{note}", fontsize=8, color=QUIET)
    _quiet(ax)
    picture.words = "When each event was said and heard\n" + "\n".join(
        f"{way}: {len(times)} of {len(said)} heard" for way, times in heard.items()
    )
    return picture


def _messages(talk: Conversation) -> list[_Message]:
    """The handshake, or any other HTTP, then the frames, then how it ended."""
    frames = talk.frames
    first = frames[0].t if frames else float("inf")
    found = [
        _Message(chunk.t, chunk.side, "HTTP", *_http(chunk.data, has_body=not frames))
        for chunk in talk.chunks
        if chunk.data[:5] in (b"GET /", b"HTTP/") and chunk.t <= first
    ]
    found += [_Message(f.t, f.side, f.name, f.text, f.size) for f in frames]
    found += [_Message(chunk.t, chunk.side, "end", chunk.end, 0) for chunk in talk.ends]
    return sorted(found, key=lambda message: message.t)


def _http(data: bytes, has_body: bool) -> tuple[str, int]:
    """The first line, and the size: after a handshake's head, frames may follow in one piece."""
    head, end, _ = data.partition(END_OF_HEAD)
    line = head.split(b"\r\n", 1)[0].decode("latin-1")
    return line, len(data) if has_body else len(head + end)


def _lanes(ax: Axes, count: int) -> None:
    for side, y in LANES.items():
        ax.axhline(y, color=QUIET, linewidth=1.6, alpha=0.6)
        ax.text(-0.9, y, side, fontsize=11, color=INK, ha="right", va="center", fontweight="bold")
    ax.set_xlim(-0.8, max(count, 1) - 0.3)
    ax.set_ylim(-0.4, 1.4)
    ax.set_yticks([])
    _quiet(ax)


def _arrow(ax: Axes, x: float, message: _Message) -> None:
    start = LANES[message.side]
    end = 1 - start
    colour = KINDS.get(message.kind, INK)
    ax.annotate(
        "",
        (x, end),
        (x, start),
        arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.8, "shrinkA": 0},
    )
    away = -1 if start < 0.5 else 1  # from the arrow
    align: dict[str, Any] = {"ha": "center", "va": "top" if away < 0 else "bottom"}
    ax.text(x, start + 0.06 * away, message.kind, fontsize=9, color=colour, weight="bold", **align)
    if message.size:
        ax.text(x, start + 0.22 * away, f"{message.size} B", fontsize=7, color=QUIET, **align)
    label = shortened(message.label, 24)
    ax.text(x + 0.09, 0.5, label, fontsize=7, color=colour, rotation=90, ha="left", va="center")


def _beside(ax: Axes) -> object:
    return ax.get_yaxis_transform()


def _quiet(ax: Axes) -> None:
    ax.tick_params(left=False, bottom=False, labelcolor=INK)
    for side in ax.spines.values():
        side.set_visible(False)
