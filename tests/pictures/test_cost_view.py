"""The pictures of what a server costs show the numbers that they are given, and say them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from ipywidgets import IntProgress
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from wsdemo.experiments.cost import Busy, Cost, Filled, Talk, cost_of
from wsdemo.pictures.cost import ProgressBar, cost_picture, wall_picture
from wsdemo.pictures.picture import Picture

# 2 KiB a connection; 100 players who speak once a second fill a core, or 10 with little to do.
FILLING = [Filled(n, 2**20 * 50 + 2048 * n, 0.001 * n) for n in (0, 100, 200)]
TALKS = [
    *(Talk(p, p, e, p * e, 0.004 * e + 0.00006 * p * e) for p, e in ((2, 50), (10, 20))),
    *(Talk(p, 1, e, p * e, 0.04 * e + 0.006 * p * e) for p, e in ((1, 50), (10, 20))),
]
BUSY = [
    Busy(players=100, said=10, events=10, share=0.33, waits=(0.003, 0.004)),
    Busy(players=100, said=50, events=40, share=0.92, waits=(0.003, 0.05)),
    Busy(players=100, said=300, events=90, share=1, waits=(0.003, 1.234)),
]


def a_cost() -> Cost:
    return cost_of(FILLING, TALKS, BUSY)


def along(line: Line2D) -> list[tuple[float, float]]:
    """The points of a line."""
    xy = np.asarray(line.get_xydata(), dtype=float)
    return [(float(x), float(y)) for x, y in xy]


def points(ax: Axes) -> list[tuple[Any, Any]]:
    """Where there is a dot; to be compared with what is near it, too."""
    return [xy for line in ax.lines if line.get_marker() == "o" for xy in along(line)]


def written(ax: Axes) -> list[str]:
    return [ax.get_title("left"), *(text.get_text() for text in ax.texts)]


def assert_drawn(picture: Picture) -> None:
    with Image.open(io.BytesIO(picture._repr_png_())) as image:
        image.load()
        assert image.width > 1000


def test_each_measured_point_is_there_and_the_lines_are_the_costs() -> None:
    """Memory in MiB, with its slope in the title; the share in per cent, and where it is all."""
    picture = cost_picture(a_cost())
    left, middle, _ = picture.axes
    assert points(left) == [(n, pytest.approx(50 + n / 512)) for n in (0, 100, 200)]
    assert left.get_title("left") == "2.0 KiB for each connection"
    dots = [(1000, 33), (4000, 92), (9000, 100), (pytest.approx(10_000), 100)]
    assert points(middle) == [(pytest.approx(x), pytest.approx(y)) for x, y in dots]
    ends = [along(line)[-1] for line in middle.lines if line.get_marker() == "None"]
    assert ends[0] == pytest.approx((100 / (0.04 + 0.006 * 100), 100))
    assert ends[1] == pytest.approx((10_000, 100))
    assert written(middle) == ["The wall: 10,000 a second", "little to do", "much to do"]
    assert_drawn(picture)


def test_how_long_events_took_stands_beside_how_fast_they_were_said() -> None:
    """A bar for each rate, in another colour beyond the wall; and all numbers in words."""
    picture = cost_picture(a_cost())
    *_, right = picture.axes
    bars = [patch for patch in right.patches if isinstance(patch, Rectangle)]
    assert [bar.get_height() for bar in bars] == pytest.approx([4, 50, 1234])
    assert [label.get_text() for label in right.get_xticklabels()] == ["10", "50", "300"]
    assert bars[0].get_facecolor() == bars[1].get_facecolor() != bars[2].get_facecolor()
    assert written(right) == ["Beyond the wall: 1,200 ms", "4", "50", "1,234"]
    lines = picture.words.splitlines()
    assert lines[0] == "What one server costs"
    assert lines[1].startswith("each connection     2.0 KiB")
    assert [" ".join(line.split()) for line in lines[-3:]] == [
        "10% 1,000 33% 10% to 640% 4.0 ms",
        "50% 4,000 92% 40% to 2560% 50.0 ms",
        "300% 9,000 100% 90% to 5760% 1234.0 ms",
    ]


def test_the_walls_stand_where_the_work_fills_the_machine() -> None:
    """1, 2, 4 and 8 times the machine, each on the curve of the work, and in the words."""
    cost = a_cost()
    picture = wall_picture(cost)
    [ax] = picture.axes
    assert points(ax) == [(pytest.approx(cost.players(m)), m) for m in (1, 2, 4, 8)]
    [curve] = [line for line in map(along, ax.lines) if len(line) > 100]
    for players, work in curve:
        assert work == pytest.approx(cost.seconds(players, players**2))
    assert written(ax) == [
        "Twice the machine: 1.5 times the players",
        *("one machine", "100"),
        *("2 times the machine", "150"),
        *("4 times the machine", "230"),
        *("8 times the machine", "330"),
    ]
    assert picture.words.splitlines() == [
        "Players in one game, each says one thing a second",
        "1 times the machine: 100",
        "2 times the machine: 150",
        "4 times the machine: 230",
        "8 times the machine: 330",
    ]
    assert_drawn(picture)


def test_another_rate_moves_the_walls_and_is_named() -> None:
    """Four things a second, on four machines, is once a second on one."""
    picture = wall_picture(a_cost(), rate=4)
    [ax] = picture.axes
    assert points(ax)[2] == (pytest.approx(100), 4)
    assert ax.get_xlabel() == "players in one game, each says 4 things a second"


def test_a_measurement_that_is_off_can_be_drawn() -> None:
    """Beyond the wall, all at rest, or more than one core."""
    for busy in ([Busy(100, 1000, 1000, 1.7, (0.1,))], [Busy(100, 1, 0, 0, (0.0,))]):
        assert_drawn(cost_picture(cost_of(FILLING, TALKS, busy)))


def test_the_bar_fills() -> None:
    """It is a widget, green once all is done."""
    bar = ProgressBar("one server")
    [shown] = [each for each in vars(bar).values() if isinstance(each, IntProgress)]
    bar(0.456)
    assert (shown.value, shown.bar_style) == (46, "")
    bar(1)
    assert (shown.value, shown.bar_style) == (100, "success")


def test_the_words_of_a_bar_are_true_at_any_time() -> None:
    """They are stored as they were when it was shown: a share would be that of the start."""
    bar = ProgressBar("one server")
    words = repr(bar)
    assert words.startswith("one server: ")
    assert "%" not in words
    shown = bar._repr_mimebundle_()
    assert shown["text/plain"] == words
    assert "application/vnd.jupyter.widget-view+json" in shown
    bar(1)
    assert repr(bar) == words
