"""What the doctor says of machines that lack something."""

from __future__ import annotations

import asyncio
import importlib.metadata
import shutil

import pytest

from wsdemo import doctor
from wsdemo.redis.backend import RedisUnavailable


async def test_without_a_redis_binary_it_says_what_still_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No server binary is no obstacle: the finding says so, and how to get one."""

    def none_found() -> None:
        raise RedisUnavailable("there is none")

    monkeypatch.setattr(doctor, "find_server_binary", none_found)
    found = {finding.what: finding for finding in await doctor.examine()}["embedded Redis"]
    assert not found.ok
    assert not found.needed
    assert 'redis="fake"' in str(found)


async def test_a_package_that_is_too_old_or_missing_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To be there is not enough: an older one would fail later, and say less."""
    version = importlib.metadata.version

    def other(name: str) -> str:
        if name == "anywidget":
            raise importlib.metadata.PackageNotFoundError(name)
        return "12.0" if name == "websockets" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", other)
    found = {finding.what: finding for finding in await doctor.examine()}["packages"]
    assert (found.ok, found.needed) == (False, True)
    assert found.found == "lacking anywidget, websockets>=17.0 (there is 12.0)"


async def test_a_redis_that_was_chosen_and_does_not_answer_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """WSDEMO_REDIS naming nothing that answers is something to repair, and shows no password."""
    monkeypatch.setenv("WSDEMO_REDIS", "redis://u:secret@127.0.0.1:1")
    found = {finding.what: finding for finding in await doctor.examine()}["WSDEMO_REDIS"]
    assert not found.ok
    assert found.needed
    assert "secret" not in str(found)


async def test_a_machine_that_may_not_listen_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no program may listen on loopback, the finding says so."""

    async def refuse(*args: object, **options: object) -> None:
        raise PermissionError("not permitted")

    monkeypatch.setattr(asyncio, "start_server", refuse)
    found = {finding.what: finding for finding in await doctor.examine()}["ports"]
    assert not found.ok
    assert "not permitted" in str(found)


def test_a_browser_is_found_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first browser on PATH is taken, and None says that there is none."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name == "chrome" else None)
    monkeypatch.setattr(doctor, "NOT_ON_PATH", ())
    assert doctor.find_browser() == "/bin/chrome"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert doctor.find_browser() is None
