"""The instructor's guide: its minutes add up, and what it promises is what the notebooks show."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from wsdemo import scenarios

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
GUIDE = (NOTEBOOKS / "instructors_guide.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its first two lines."""
    section = GUIDE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


PLANS = {"The 50-minute plan": 50, "The 2-hour plan": 120}
SHOWN = [row[-1] for heading in (*PLANS, "Five misconceptions") for row in rows(heading)]


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_fills_its_time_without_a_hole_and_has_slack(plan: str) -> None:
    """Each row begins where the one before ends; a twentieth of the time is for nothing."""
    times = [tuple(map(int, row[0].split("–"))) for row in rows(plan)]
    ends = [0, *(end for _, end in times)]
    assert [begin for begin, _ in times] == ends[:-1]
    assert ends == sorted(set(ends))
    assert ends[-1] == PLANS[plan]
    slack = sum(
        end - begin
        for (begin, end), row in zip(times, rows(plan), strict=True)
        if row[1] == "**slack**"
    )
    assert slack >= PLANS[plan] / 20


def test_a_plan_refers_only_to_minutes_that_there_are() -> None:
    """“As at 5–12” names where rows begin and end."""
    times = [row[0].split("–") for row in rows("The 50-minute plan")]
    begins, ends = zip(*times, strict=True)
    for told in re.findall(r"As at ([^.]*)\.", GUIDE):
        for begin, end in re.findall(r"(\d+)–(\d+)", told):
            assert begin in begins, told
            assert end in ends, told


def test_what_the_screen_shows_is_a_stored_output() -> None:
    """Whatever is set as code in the last column."""
    stored = words(" ".join(map(outputs, NOTEBOOKS.glob("*.ipynb"))))
    promised = [each for cell in SHOWN for each in re.findall(r"`([^`]+)`", cell)]
    assert promised
    assert not [each for each in promised if words(each) not in stored]


def test_the_beats_are_those_of_the_scenarios() -> None:
    """Whatever is set in italics where a plan says what to play."""
    told = Path(scenarios.__file__).read_text(encoding="utf-8")
    beats = [
        beat for plan in PLANS for row in rows(plan) for beat in re.findall(r"\*([^*]+)\*", row[1])
    ]
    assert len(beats) > 15
    assert not [
        beat for beat in beats if beat != "slack" and beat != "break" and f'"{beat}"' not in told
    ]


def test_its_links_lead_somewhere() -> None:
    """To notebooks beside it, and to its own headings."""
    links = re.findall(r"\]\(([^)]+)\)", GUIDE)
    headings = [
        re.sub(r"[^\w -]", "", each).lower().replace(" ", "-")
        for each in re.findall(r"^## (.+)$", GUIDE, re.M)
    ]
    for link in links:
        assert link[1:] in headings if link.startswith("#") else (NOTEBOOKS / link).is_file(), link


def outputs(notebook: Path) -> str:
    """All text that the cells of a notebook have put out."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    found = [output for cell in cells for output in cell.get("outputs", [])]
    return " ".join(
        "".join(each.get("text", each.get("data", {}).get("text/plain", ""))) for each in found
    )


def words(text: str) -> str:
    return " ".join(text.split())
