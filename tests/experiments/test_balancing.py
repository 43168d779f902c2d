"""What each balancing policy does as servers and players come and go, and the picture of it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from wsdemo.balancer import POLICIES
from wsdemo.experiments.balancing import from_one_address, policies_compared
from wsdemo.experiments.placement import Placement, Placements
from wsdemo.pictures.picture import Picture
from wsdemo.pictures.placement import placements_picture

BEFORE = Placement("2 join", ("A", "B"), {"P1": "A", "P2": "B"})
AFTER = Placement("A is killed", ("B",), {"P1": "B", "P2": "B", "P3": "B"})


async def test_what_the_policies_differ_in_and_what_not() -> None:
    """None moves a player who is connected. Sticky brings those who return to where they were.

    Least-connections gives an empty server all who are new, and nobody of the others.
    """
    found = await policies_compared()
    assert list(found) == list(POLICIES)
    for policy, placements in found.items():
        _, returned, killed, back, joined = placements
        assert killed.counts == {"B": 12}
        assert back.counts == {"A": 0, "B": 12}
        assert sum(joined.counts.values()) == 18
        assert joined.counts["B"] >= 12
        moved = found.moved(policy)
        assert moved[2] == returned.counts["A"]
        assert [moved[0], *moved[3:]] == [0, 0, 0]
    assert found.moved("sticky")[1] == 0
    assert found.moved("round-robin")[1] > 0
    assert found.moved("least-connections")[1] > 0
    assert found["least-connections"][-1].counts == {"A": 6, "B": 12}
    assert found["round-robin"][-1].counts == {"A": 3, "B": 15}


async def test_it_is_the_same_each_time() -> None:
    """Whatever order those whose server died happen to return in: a lesson prints it."""
    assert str(await policies_compared()) == str(await policies_compared())


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_crowd_behind_one_address(policy: str) -> None:
    """To a balancer that goes by the address they are one client; the others do not care."""
    counts = await from_one_address(policy, clients=4)
    assert sorted(counts.values()) == ([0, 4] if policy == "sticky" else [2, 2])


def test_placements_are_a_table() -> None:
    """A line for each step, a column for each policy; who came only now has not moved."""
    found = Placements({"round-robin": [BEFORE, AFTER], "sticky": [BEFORE, BEFORE]})
    assert found.moved("round-robin") == [0, 1]
    assert repr(found).splitlines() == [
        "             round-robin   sticky",
        "2 join       A 1, B 1      A 1, B 1",
        "A is killed  B 3, 1 moved  A 1, B 1",
    ]
    assert repr(Placements()) == ""


class TestPicture:
    def marks(self, picture: Picture) -> list[list[tuple[str, int]]]:
        """Of each panel: each mark's shape, and which server it is on, by number."""
        found = []
        for ax in picture.axes:
            marks = []
            for line in ax.lines:
                if line.get_marker() not in (None, "None"):
                    places = np.asarray(line.get_xdata(), dtype=float)
                    marks += [(str(line.get_marker()), round(float(x))) for x in places]
            found.append(marks)
        return found

    def test_each_player_is_a_mark_of_where_it_was_first(self) -> None:
        """On the server where it is, in the shape of the server where it began."""
        picture = placements_picture(Placements({"sticky": [BEFORE, AFTER]}))
        assert self.marks(picture) == [
            [("o", 0), ("s", 1)],
            [("o", 1), ("s", 1), ("s", 1)],
        ]

    def test_it_says_what_it_shows(self) -> None:
        """The steps above, the policies at the side, counts below, who moved; and the table."""
        found = Placements({"round-robin": [BEFORE, AFTER], "sticky": [BEFORE, BEFORE]})
        picture = placements_picture(found)
        titles = [ax.get_title() for ax in picture.axes]
        assert titles == ["2 join", "A is killed", "", ""]
        assert [ax.get_ylabel() for ax in picture.axes] == ["round-robin", "", "sticky", ""]
        assert [[text.get_text() for text in ax.texts] for ax in picture.axes] == [
            ["A  1", "B  1"],
            ["A  ✗", "B  3", "1 moved"],
            ["A  1", "B  1"],
            ["A  1", "B  1"],
        ]
        assert repr(picture) == f"Which player is on which server\n{found}"

    def test_many_players_and_none_can_be_drawn(self) -> None:
        """In a column as high as it takes."""
        crowd = Placement("all", ("A",), {f"P{n}": "A" for n in range(200)})
        for found in (Placements(), Placements({"sticky": [crowd]}), Placements({"sticky": []})):
            with Image.open(io.BytesIO(placements_picture(found)._repr_png_())) as image:
                image.load()
                assert image.width > 200
