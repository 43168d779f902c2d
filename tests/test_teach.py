"""Predictions, checks and shown source, as a learner meets them."""

from __future__ import annotations

import pytest

from wsdemo import compare, ledger, scenarios
from wsdemo.server import GameServer
from wsdemo.teach import check, predict, ready, show


@pytest.mark.parametrize(
    ("misses", "says"),
    [
        ("fire", "You predicted “fire”."),
        (["fire", "hide"], "That is what you predicted."),
        (["jump"], "You predicted “jump”."),
        ([], "You predicted nothing."),
    ],
)
async def test_a_prediction_is_held_against_the_run(
    misses: list[str] | str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The comparison says what was missed, and whether that is what was predicted."""
    runs = await compare(scenarios.p1_moves_to_b, ["none"])
    predict("P1", misses).compare(ledger(runs)["none"])
    printed = capsys.readouterr().out
    assert "Without a broker, P1 missed “hide” and “fire”." in printed
    assert says in printed


async def test_without_a_prediction_nothing_is_given_away(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever has not predicted is asked to, first."""
    runs = await compare(scenarios.p1_moves_to_b, "none")
    predict("P1").compare(ledger(runs)["none"])
    printed = capsys.readouterr().out
    assert printed == "You made no prediction: write one into the cell above, and run both again.\n"


def test_a_check_says_whether_the_claim_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """A claim that does not hold is “not yet”, without an error."""
    check("one is one", True)
    check("one is two", False)
    assert capsys.readouterr().out == "✓ one is one\n✗ Not yet: one is two\n"


def test_shown_source_is_the_package_s_own() -> None:
    """`show` gives the lines that run, once as text and once highlighted."""
    shown = show(GameServer.relay)
    assert repr(shown).startswith("def relay(")
    assert repr(shown) in shown._repr_markdown_()


async def test_ready_says_so_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """On a machine that has what the course needs, one and the same line is printed."""
    await ready()
    assert capsys.readouterr().out == "This machine is ready.\n"
