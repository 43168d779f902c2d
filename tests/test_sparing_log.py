"""A log that does not repeat itself."""

from __future__ import annotations

import logging

import pytest

from wsdemo import sparing_log
from wsdemo.sparing_log import SILENCE, SparingLog


def test_a_trouble_is_logged_again_only_after_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is said of it meanwhile; another one is logged at once."""
    now = 0.0
    monkeypatch.setattr(sparing_log, "monotonic", lambda: now)
    log = SparingLog(logging.getLogger("sparing"))
    for now in (0.0, SILENCE, SILENCE + 1, 2 * SILENCE + 1, 2 * SILENCE + 2):
        log.warning("at %g it is out of reach", now, trouble="reach")
    log.warning("it is full")
    assert [record.getMessage() for record in caplog.records] == [
        "at 0 it is out of reach",
        f"at {SILENCE + 1:g} it is out of reach",
        f"at {2 * SILENCE + 2:g} it is out of reach",
        "it is full",
    ]
    assert {record.filename for record in caplog.records} == {"test_sparing_log.py"}
