"""Checks and shown source, as a learner meets them."""

from __future__ import annotations

import pytest

from wsdemo.server import GameServer
from wsdemo.teach import check, ready, show


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


async def test_what_has_yet_to_be_awaited_holds_nothing() -> None:
    """A forgotten `await` would make any claim true."""
    asked = ready()
    with pytest.raises(TypeError, match="write `await`"):
        check("this machine is ready", asked)  # type: ignore[arg-type]
    await asked
