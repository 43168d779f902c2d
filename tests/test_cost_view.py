"""The pictures of what a server costs show the numbers that they are given, and say them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from PIL import Image

from wsdemo.cost import Busy, Cost, Filled, Talk, cost_of
from wsdemo.cost_view import ProgressBar, cost_picture, wall_picture
from wsdemo.picture import Picture

# 2 KiB a connection; 100 players who speak once a second fill a core.
FILLING = [Filled(n, 2**20 * 50 + 2048 * n, 0.001 * n) for n in (0, 100, 200)]
TALKS = [Talk(p, e, p * e, 0.004 * e + 0.00006 * p * e) for p, e in ((1, 50), (10, 20))]
BUSY = [Busy(players=100, events=10, share=0.1), Busy(players=100, events=40, share=0.42)]


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


def test_each_measured_point_is_there_and_the_line_is_the_cost() -> None:
    """Memory in MiB, with its slope in the title; the share in per cent, and where it is all."""
    picture = cost_picture(a_cost())
    left, right = picture.axes
    assert points(left) == [(n, pytest.approx(50 + n / 512)) for n in (0, 100, 200)]
    assert left.get_title("left") == "2.0 KiB for each connection"
    assert points(right) == [(1000, 10), (4000, 42), (pytest.approx(10_000), 100)]
    assert written(right) == ["60 µs of a core for each delivery", "the wall: 10,000"]
    assert picture.words.splitlines()[0] == "What one server costs"
    assert "each connection     2.0 KiB" in picture.words
    assert_drawn(picture)


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
    for busy in ([Busy(100, 1000, 1.7)], [Busy(100, 0, 0)]):
        assert_drawn(cost_picture(cost_of(FILLING, TALKS, busy)))


def test_the_bar_shows_how_much_is_done() -> None:
    """It is a widget, and says in words how far it is where none can be shown."""
    bar = ProgressBar("one server")
    assert repr(bar) == "one server: 0 %"
    bar(0.456)
    assert repr(bar) == "one server: 46 %"
    shown = bar._repr_mimebundle_()
    assert shown["text/plain"] == "one server: 46 %"
    assert "application/vnd.jupyter.widget-view+json" in shown
