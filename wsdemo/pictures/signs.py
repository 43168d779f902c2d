"""The signs of the space-time diagram, and the legend that explains those that were drawn.

None is told from another by its colour alone. What the stage shows too has the stage's sign and
colour here: a player's shape, the hollow cross where a message was lost, the empty place of a
player who missed it, dots for what is not there.
"""

from __future__ import annotations

from math import ceil
from typing import Any

from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.path import Path

from wsdemo.pictures.picture import COLOURS, INK, REDIS

__all__ = ["ILL", "LINES", "LOST", "MISSED", "SUBSCRIBED", "Legend", "Style", "look"]

Style = dict[str, Any]

_SHAPES = ["o", "^", "s", "D", "p", "*", "P", "h"]
SAID = "a message is said"
_ICE, _PALE_ICE = "#0072b2", "#cfe3f1"
ILL = "#8a3c00"

_TO, _ON, _SHUT = Path.MOVETO, Path.LINETO, Path.CLOSEPOLY
_SQUARE = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
_CROSS = [(-0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (0.5, -0.5)]
_EMPTY = Path([*_SQUARE, *_CROSS], [_TO, _ON, _ON, _ON, _SHUT, _TO, _ON, _TO, _ON])
_SHAFT = [(-1, -0.06), (0.3, -0.06), (0.3, -0.32), (1, 0), (0.3, 0.32), (0.3, 0.06), (-1, 0.06)]
_ARROW = Path([*_SHAFT, (-1, -0.06)], [_TO, *[_ON] * 6, _SHUT])
_BEGINS = Path([(-1, -0.3), (-1, 0.3), (-1, 0), (1, 0)], [_TO, _ON, _TO, _ON])
_ENDS = Path([(1, -0.3), (1, 0.3), (1, 0), (-1, 0)], [_TO, _ON, _TO, _ON])

_HOLLOW: Style = {"markersize": 10.5, "markerfacecolor": "white", "markeredgewidth": 1.5}
LOST: Style = {"marker": "X", **_HOLLOW}
MISSED: Style = {"marker": _EMPTY, **_HOLLOW}
SUBSCRIBED: Style = {"color": REDIS, "linewidth": 2.6}
# A part's line, in layers. Of one that is "absent" there is nothing to see.
LINES: dict[str, list[Style]] = {
    "absent": [],
    "up": [{"linewidth": 2.2}],
    "down": [{"linewidth": 2.2, "linestyle": (0, (1, 3))}],
    "frozen": [
        {"linewidth": 11, "color": _PALE_ICE, "solid_capstyle": "butt"},
        {"linewidth": 4, "color": _ICE, "linestyle": (0, (0.1, 2)), "dash_capstyle": "round"},
    ],
}


def look(n: int) -> Style:
    """The colour and the shape of a picture's n-th player."""
    return {"color": COLOURS[n % len(COLOURS)], "marker": _SHAPES[n % len(_SHAPES)]}


class Legend:
    """What was drawn of all that there is: nobody has to learn more signs than a picture has."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._speakers: dict[str, Style] = {}

    def see(self, sign: str) -> None:
        """This sign was drawn."""
        self._seen.add(sign)

    def hear(self, player: str, shape: Style) -> None:
        """This player was drawn to say something."""
        self._speakers[player] = shape

    def draw(self, figure: Figure, size: float) -> None:
        """Put it below a figure, in letters of so many points."""
        found = self._found()
        figure.legend(
            list(found.values()),
            list(found),
            loc="outside lower center",
            ncols=len(found) if len(found) <= 6 else ceil(len(found) / 2),
            handler_map={found.get(SAID): HandlerTuple(ndivide=None, pad=0.3)},
            frameon=False,
            fontsize=size,
            labelcolor=INK,
            handlelength=2.4,
            handletextpad=0.6,
        )

    def _found(self) -> dict[str, Any]:
        """Words, and the sign that stands before them."""
        away = " or ".join(word for word in ("away", "down") if word in self._seen)
        signs: dict[str, Any] = {
            "arrives": _mark(marker=_ARROW, color=INK, markersize=27, markeredgewidth=0),
            "is lost": _mark(**LOST, color=INK),
            "is missed": _mark(**MISSED, color=INK),
            "subscribed to the channel": _stroke(_BEGINS),
            "subscription ends": _stroke(_ENDS),
            "frozen": tuple(Line2D([], [], **layer) for layer in LINES["frozen"]),
        }
        found = {words: sign for words, sign in signs.items() if words in self._seen}
        if self._speakers:
            shapes = list(self._speakers.values())[:3]
            found = {SAID: tuple(_mark(**shape, markersize=8) for shape in shapes), **found}
        if away:
            found[away] = Line2D([], [], color=INK, **LINES["down"][0])
        return found


def _mark(**style: Any) -> Line2D:
    return Line2D([], [], linestyle="none", **style)


def _stroke(path: Path) -> Line2D:
    width = SUBSCRIBED["linewidth"]
    return _mark(marker=path, color=REDIS, markersize=27, fillstyle="none", markeredgewidth=width)
