"""The pictures of many servers and clients: each can be drawn, and says in words what it shows."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from wsdemo.experiments.capacity import COSTS, Load, Machine, plan
from wsdemo.experiments.measured import Arrivals, Received
from wsdemo.pictures.crowd import THE_END, arrivals_picture, capacity_picture, received_picture
from wsdemo.pictures.picture import Picture

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


def ends(picture: Picture) -> dict[str, int]:
    """Beyond how many connections no number of each resource is enough, as the words say."""
    found = re.findall(r"^(\w+): no number is enough beyond ([\d,]+)", repr(picture), re.M)
    return {what: int(number.replace(",", "")) for what, number in found}


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
        other = Arrivals(
            "in between", 5, came=[0.3, 0.4], refused=[0.11, 0.12], gave_up=[0.15, 0.15]
        )
        picture = arrivals_picture(first, other)
        assert size(picture)[1] > 300
        assert picture.axes[0].get_ylim() == picture.axes[1].get_ylim() == (0, 1.5 * 5)
        assert {"5", " A drains", "4"} <= set(texts(picture))
        assert picture.axes[0].get_legend() is None
        legend = picture.axes[1].get_legend()
        assert legend
        assert [text.get_text() for text in legend.get_texts()] == ["let in", "gave up", "refused"]
        assert repr(picture) == f"{first}\n{other}"

    def test_nobody_who_came_is_drawn_too(self) -> None:
        """An empty run is a picture without bars."""
        assert size(arrivals_picture(Arrivals("none", 3)))[0] > 500


class TestCapacity:
    """How many servers it takes."""

    def test_each_pane_says_what_it_finds(self) -> None:
        """With one channel for all there is an end, and why; with one for each game, there is not.

        At ten million connections, the numbers are those of a plan.
        """
        picture = capacity_picture()
        assert size(picture)[0] > 800
        everything, own = (ax.get_title(loc="left") for ax in picture.axes)
        end = ends(picture)["Redis"]
        assert everything == f"One channel for all games:\nthe end is at {end:,} connections"
        assert THE_END["Redis"] in texts(picture)
        many = plan(Load(10_000_000, 1_000_000, 1_000_000))
        assert own.endswith(f"10,000,000 connections take {many.servers:,} servers")
        assert {
            f"{many.servers:,} servers for CPU",
            f"{many.redis_nodes} nodes of Redis",
            "1 node of Redis",
        } <= set(texts(picture))

    def test_it_says_where_the_ends_are(self) -> None:
        """Of a core, 0.6 receives so many events, a tenth of one from each connection.

        Redis comes to its end before, for there are so many servers then.
        """
        found = ends(capacity_picture())
        most = 0.6 / COSTS.received * 10
        assert most - 10 <= found["CPU"] < most
        assert found["Redis"] < found["CPU"] < found["network"]
        assert list(found) == ["Redis", "CPU", "network"]

    def test_another_machine_has_another_end(self) -> None:
        """With eight cores for a server, one can receive eight times as much."""
        found = ends(capacity_picture(machine=Machine(cores=8)))
        assert found["CPU"] == pytest.approx(8 * 0.6 / COSTS.received * 10, rel=0.001)
