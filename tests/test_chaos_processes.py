"""Whichever server process is killed under load, its players hear all that is kept, once.

A few kills each time; python -m tests.chaos_processes makes as many as one likes.
"""

from __future__ import annotations

import pytest

from tests.chaos_processes import Outcome, chaos


async def test_players_of_killed_processes_miss_nothing() -> None:
    """They come back on another one, and resume."""
    outcome = await chaos(3, seed=1, players=6, life=0.3, death=0.1)
    assert not list(outcome.violations()), outcome
    assert outcome.ends.total() == 3
    assert outcome.connections > len(outcome.heard), "no connection was cut"
    assert outcome.last == len(outcome.confirmed) > 0


HEARD = [(1, "P1/P1-1"), (2, "P2/P2-1"), (3, "P1/P1-2")]


@pytest.mark.parametrize(
    ("heard", "gaps", "says"),
    [
        (HEARD, 0, ""),
        (HEARD[:2], 0, "has not heard 1 to 3"),
        (HEARD[1:], 0, "has not heard 1 to 3"),
        ([*HEARD, HEARD[2]], 0, "has not heard 1 to 3"),
        ([HEARD[1], HEARD[0], HEARD[2]], 0, "has not heard 1 to 3"),
        (HEARD, 1, "was told of 1 gaps"),
        ([*HEARD[:2], (3, "P1/P1-9")], 0, "has heard something else as [3]"),
        ([*HEARD[:2], (3, "P1/P1-1")], 0, "has heard twice: ['P1/P1-1']"),
    ],
)
def test_what_is_missed_is_seen(heard: list[tuple[int, str]], gaps: int, says: str) -> None:
    """Lost, twice, out of order, told of a gap, or something else than what is kept."""
    outcome = Outcome(confirmed=dict(HEARD), kept=dict(HEARD[1:]), last=3)
    outcome.heard, outcome.gaps = {"P1": heard}, {"P1": gaps}
    found = "; ".join(outcome.violations())
    assert says in found if says else not found
