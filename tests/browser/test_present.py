"""`make present` in a browser, where a network swallows all that is asked of it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import ARTEFACTS, Website, website
from wsdemo.redis.process import free_port

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def presented(tmp_path: Path) -> Iterator[Website]:
    """Lesson 03 as it is presented."""
    if not (make := shutil.which("make")):
        pytest.skip("no make on PATH")
    if not Path(PROJECT, ".venv").exists():
        pytest.skip("what make starts is in .venv, which `make dev` makes")
    port = free_port()
    flags = f"PRESENT_FLAGS=--no-browser --port={port} --Voila.port_retries=0"
    command = subprocess.run(
        [make, "--dry-run", "--old-file=.venv/lab.stamp", "present", "LESSON=03", flags],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    ).stdout
    shell = ["sh", "-c", f"cd {shlex.quote(str(PROJECT))}\n{command}"]
    with website(shell, port, tmp_path / "log", WSDEMO_REDIS="fake") as site:
        yield site


async def test_a_lesson_is_presented_without_its_code_and_without_a_network(
    page: Page, presented: Website
) -> None:
    """Its stage is drawn though whatever is asked for elsewhere is never answered."""
    asked: list[str] = []

    async def swallow(route: Route) -> None:
        asked.append(route.request.url)

    await page.route(lambda called: not called.startswith(presented.url), swallow)
    await presented.open(page)
    stage = page.locator(".wsdemo-stage").first
    await expect(stage.locator("[data-player='P1']").first).to_be_visible(timeout=60_000)
    await expect(page.locator(".jp-CodeCell .jp-InputArea")).to_have_count(0)
    await expect(page.get_by_role("heading", level=1)).to_contain_text("03")
    await expect(page.get_by_role("heading", name="Recap", exact=True)).to_be_visible()
    await expect(page.get_by_role("heading", name="Exercise")).to_have_count(0)
    await expect(page.get_by_text("Not yet").filter(visible=True)).to_have_count(0)
    ARTEFACTS.mkdir(exist_ok=True)
    await page.screenshot(path=ARTEFACTS / "present_03.png")
    assert asked == []
