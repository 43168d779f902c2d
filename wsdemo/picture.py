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

# Okabe and Ito's palette: told apart by people with any form of colour blindness.
# https://jfly.uni-koeln.de/color/
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#B8860B", "#5D5D5D"]
INK, QUIET, REDIS = "#1f2933", "#7b8794", "#9b2226"
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
    return {"image/png": {"alt": " ".join(words.split())[:ALT_LENGTH]}}


def shortened(text: str, most: int = WORD_SHOWN) -> str:
    """A text as a figure can show it, on one line, cut to so many characters."""
    return one_line(text, most).replace("$", r"\$")


def one_line(text: str, most: int) -> str:
    """A text on one line, cut to so many characters."""
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(c if c.isprintable() else "�" for c in cut)
