"""Figures that show themselves in a notebook and say in words what they show."""

from __future__ import annotations

import base64
import io
import warnings
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["COLOURS", "INK", "QUIET", "REDIS", "Picture", "alt", "one_line", "shortened"]

# The stage's, as it is on white: after Okabe and Ito, told apart by people with any form of colour
# blindness, and each dark enough to be read. https://jfly.uni-koeln.de/color/
COLOURS = ["#0072b2", "#b84a00", "#00795a", "#a8417f", "#7d5a00", "#5b4fc4", "#4a5560"]
INK, QUIET, REDIS = "#1f2933", "#5a6775", "#a4262c"
WORD_SHOWN = 14  # characters
ALT_LENGTH = 1000  # characters


class Picture(Figure):
    """A matplotlib figure that shows itself in a notebook and says in words what it shows."""

    words = ""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        """A PNG in 128 colours: a third of the size, for notebooks keep their pictures in git."""
        drawn, packed = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png", dpi=110)
        Image.open(drawn).convert("RGB").quantize(128).save(packed, format="png", optimize=True)
        return packed.getvalue()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The picture, and in words what it shows, also for who cannot see it."""
        image = base64.b64encode(self._repr_png_()).decode()
        return {"image/png": image, "text/plain": self.words}, alt(self.words)

    def savefig(self, fname: Any, **options: Any) -> None:
        """As matplotlib does it, without a warning for each letter that no font here has."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
            super().savefig(fname, **options)

    def __repr__(self) -> str:
        return self.words


def alt(words: str) -> dict[str, dict[str, str]]:
    """The metadata by which a notebook's PNG has words for who cannot see it."""
    lines = [" ".join(line.split()) for line in words.splitlines()]
    return {"image/png": {"alt": one_line(". ".join(filter(None, lines)), ALT_LENGTH)}}


def shortened(text: str, most: int = WORD_SHOWN) -> str:
    """A text as a figure can show it, on one line, cut to so many characters."""
    return one_line(text, most).replace("$", r"\$")


def one_line(text: str, most: int) -> str:
    """A text on one line, cut to so many characters."""
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(c if c.isprintable() else "�" for c in cut)
