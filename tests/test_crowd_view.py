"""The pictures of many servers and clients: each can be drawn, and says in words what it shows."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from wsdemo.capacity import COSTS, Machine
from wsdemo.crowd_view import arrivals_picture, capacity_picture, received_picture
from wsdemo.measured import Arrivals, Received
from wsdemo.picture import Picture

FOUND = [
    Received("all", 1, 40, 10, [10, 10]),
    Received("game", 1, 40, 10, [10, 10]),
    Received("all", 20, 40, 10, [10, 10]),
    Received("game", 20, 40, 10, [7, 6]),
]


def size(picture: Picture) -> tuple[int, int]:
    """Of its PNG, which must be one."""
    return Image.open(io.BytesIO(picture._repr_png_())).size


def texts(picture: Picture) -> list[str]:
    """What is written in it."""
    return [text.get_text() for ax in picture.axes for text in [ax.title, *ax.texts]]


class TestReceived:
    """What each server receives."""

    def test_a_pane_for_each_number_of_games(self) -> None:
        """With a dot for each number of servers and each kind of channel."""
        picture = received_picture(FOUND)
        assert size(picture)[0] > 500
        assert [ax.get_title() for ax in picture.axes] == ["1 game of 40", "20 games of 2"]
        dots = [line for line in picture.axes[1].lines if line.get_marker() in ("o", "s")]
        assert np.concatenate([dot.get_xydata() for dot in dots]).tolist() == [[2, 1], [2, 0.65]]

    def test_it_says_the_shares(self) -> None:
        """A line for each number of games and of servers."""
        assert repr(received_picture(FOUND)).splitlines()[2:] == [
            "    1        2                100 %         100 %",
            "   20        2                100 %          65 %",
        ]


class TestArrivals:
    """When clients came."""

    def test_a_pane_for_each_run_with_its_worst_moment(self) -> None:
        """All on one scale, so that they can be compared."""
        first = Arrivals("at once", 5, came=[0.01] * 5, marks=[(0.0, "A drains")])
        other = Arrivals("in between", 5, came=[0.3, 0.4], refused=[0.11, 0.12, 0.13])
        picture = arrivals_picture(first, other)
        assert size(picture)[1] > 300
        assert picture.axes[0].get_ylim() == picture.axes[1].get_ylim() == (0, 1.35 * 5)
        assert {"5", " A drains", "3", "refused", "let in"} <= set(texts(picture))
        assert repr(picture) == f"{first}\n{other}"

    def test_nobody_who_came_is_drawn_too(self) -> None:
        """An empty run is a picture without bars."""
        assert size(arrivals_picture(Arrivals("none", 3)))[0] > 500


class TestCapacity:
    """How many servers it takes."""

    def test_what_is_never_enough_ends_with_a_cross(self) -> None:
        """With one channel for all, CPU and Redis do; with one for each game, nothing does."""
        picture = capacity_picture()
        crosses = [[line for line in ax.lines if line.get_marker() == "X"] for ax in picture.axes]
        assert [len(each) for each in crosses] == [2, 0]
        assert size(picture)[0] > 800
        assert " CPU: the end" in texts(picture)
        assert " CPU" in texts(picture)

    def test_it_says_where_the_end_is(self) -> None:
        """To the next step of the picture: 0.6 of a core, for 0.1 events of each connection."""
        [line] = [line for line in repr(capacity_picture()).splitlines() if line[:5] == "CPU: "]
        end = int(line.split()[-2].replace(",", ""))
        assert end == pytest.approx(0.6 / COSTS.received * 10, rel=0.1)
        assert end < 0.6 / COSTS.received * 10

    def test_a_larger_machine_goes_further(self) -> None:
        """Its end is that of the machine that it is given."""
        words = repr(capacity_picture(machine=Machine(cores=8))).splitlines()
        [line] = [line for line in words if line[:5] == "CPU: "]
        assert int(line.split()[-2].replace(",", "")) > 300_000
