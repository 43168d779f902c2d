"""The stage's colours: every one can be told from what it stands on, in light and in dark."""

from __future__ import annotations

import re

import pytest

from wsdemo.page import style
from wsdemo.pictures import picture

COLOURS: dict[str, tuple[str, str]] = {
    name: (light, dark)
    for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", style())
}
HUES = [name for name in COLOURS if name.startswith("hue-")]
TEXT = ["ink", "quiet", "redis", "miss", *HUES]
MARKS = ["rule", "wire", "focus", "redis", "miss", *HUES]


def luminance(colour: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("names", "least"), [(TEXT, 4.5), (MARKS, 3.0)], ids=["text", "marks"])
def test_colours_stand_out(names: list[str], least: float, mode: int) -> None:
    """Text has at least 4.5:1 against both backgrounds, marks have 3:1."""
    assert len(HUES) == 7
    for name in names:
        for ground in ("paper", "back"):
            found = contrast(COLOURS[name][mode], COLOURS[ground][mode])
            assert found >= least, f"{name} on {ground}: {found:.2f}"


def test_pictures_have_the_stage_s_colours() -> None:
    """What is Redis, and which player it is, looks the same in a diagram as on the stage."""
    assert [COLOURS[name][0] for name in HUES] == picture.COLOURS
    for name in ("ink", "quiet", "redis"):
        assert COLOURS[name][0] == getattr(picture, name.upper())
