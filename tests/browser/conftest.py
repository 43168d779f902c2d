"""A JupyterLab of its own, and a browser to look at it with."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from playwright.async_api import Browser, Error, Locator, Page, async_playwright, expect

from tests.chromium import NO_CHROMIUM, find_chromium
from wsdemo.processes.child import Child
from wsdemo.redis.process import free_port

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ARTEFACTS = Path(__file__).parents[1] / "artefacts"

AXE = Path(sys.prefix, "npm", "node_modules", "axe-core", "axe.min.js")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
needs_axe = pytest.mark.skipif(not AXE.exists(), reason="needs axe-core, which `make dev` installs")


@dataclass(frozen=True)
class Website:
    """A server of web pages that has been started, and the log in which it says what is wrong."""

    url: str
    process: Child
    log: Path

    async def open(self, page: Page, path: str = "") -> None:
        """Go to one of its pages, once it answers."""
        try:
            async with asyncio.timeout(60):
                while not await self._opens(page, path):  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pytest.fail(f"{self.url} does not answer. {self._last_words()}")

    async def _opens(self, page: Page, path: str) -> bool:
        if not self.process.runs:
            pytest.fail(f"the server of {self.url} has ended. {self._last_words()}")
        try:
            await page.goto(f"{self.url}{path}", timeout=60_000)
        except Error as error:
            if "net::ERR_" not in error.message:
                raise
            return False  # nobody listens yet
        return True

    def _last_words(self) -> str:
        said = self.log.read_text(encoding="utf-8", errors="replace")
        return f"Its log ends so:\n{said[-3000:]}"


@contextmanager
def website(command: Sequence[str], port: int, log: Path, **environment: str) -> Iterator[Website]:
    """A server in a process of its own, which the command lets listen on this port."""
    with log.open("wb") as output:
        process = Child(command, environment, output)
        try:
            yield Website(f"http://127.0.0.1:{port}", process, log)
        finally:
            process.terminate()
            process.wait()
            process.end()


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: where it is, and the folder in which its kernels leave their keys."""

    site: Website
    token: str
    runtime: Path

    async def open(self, page: Page, notebook: str) -> None:
        """Go to a notebook, as it was saved."""
        await self.site.open(page, f"/lab/tree/{notebook}?token={self.token}&reset")

    def ask_kernel(self, expression: str) -> str:
        """What an expression is worth in the one kernel that runs."""
        (connection,) = self.runtime.glob("kernel-*.json")
        client = BlockingKernelClient(connection_file=str(connection))
        client.load_connection_file()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=30)
            reply = client.execute(
                "", user_expressions={"asked": expression}, reply=True, timeout=30
            )
            return str(reply["content"]["user_expressions"]["asked"]["data"]["text/plain"])
        finally:
            client.stop_channels()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    token = secrets.token_hex(8)
    port = free_port()
    folders = {
        f"JUPYTER{name}_DIR": str(tmp_path / name.lower())
        for name in ("_CONFIG", "_RUNTIME", "LAB_SETTINGS", "LAB_WORKSPACES")
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}"]
    command += [f"--IdentityProvider.token={token}", "--ServerApp.port_retries=0"]
    command += [f"--ServerApp.root_dir={tmp_path / 'notebooks'}"]
    if hasattr(os, "getuid") and os.getuid() == 0:
        command.append("--allow-root")
    with website(command, port, tmp_path / "lab.log", WSDEMO_REDIS="fake", **folders) as site:
        yield Lab(site, token, tmp_path / "_runtime")


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory, lasting: set[int]) -> Iterator[str]:
    """Where the one Chromium of a module is told what to do; to start one takes a second."""
    path = find_chromium()
    if path is None:
        pytest.skip(NO_CHROMIUM)
    profile = tmp_path_factory.mktemp("chromium")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += ["--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio"]
    flags += [f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    with (profile / "log").open("wb") as log:
        browser = Child([path, *flags], errors=log)
        lasting.add(browser.pid)
        try:
            yield f"http://127.0.0.1:{_devtools_port(browser, profile)}"
        finally:
            browser.terminate()
            browser.wait()
            browser.end()
            lasting.discard(browser.pid)


def _devtools_port(browser: Child, profile: Path) -> int:
    """The port that it has chosen: it writes it into a file, and tells nobody else."""
    found = profile / "DevToolsActivePort"
    for _ in range(3000):
        if found.exists() and (lines := found.read_text(encoding="utf-8").split()):
            return int(lines[0])
        assert browser.runs, (profile / "log").read_text(encoding="utf-8", errors="replace")
        time.sleep(0.01)
    raise TimeoutError("Chromium has not started")


@pytest.fixture
async def chromium(devtools: str) -> AsyncIterator[Browser]:
    """The browser, without anything that another test has left in it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(devtools)
        yield browser
        for context in browser.contexts:
            await context.close()
        await browser.close()  # our connection to it


@pytest.fixture
async def page(chromium: Browser) -> Page:
    return await chromium.new_page(viewport={"width": 1400, "height": 1000})


@pytest.fixture
async def offline(chromium: Browser) -> AsyncIterator[Page]:
    """A page in which nothing may be asked for from a network, nor go wrong."""
    context = await chromium.new_context(offline=True, viewport={"width": 1200, "height": 1000})
    page = await context.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    assert not wrong
    assert all(url.startswith(("file:", "about:", "data:")) for url in asked)
    await context.close()


async def violations(page: Page, *, without: Collection[str] = ()) -> list[tuple[str, str]]:
    """What axe-core finds on the page, and where first, by all rules but those left out."""
    await page.add_script_tag(path=AXE)
    options = {"runOnly": TAGS, "rules": {rule: {"enabled": False} for rule in without}}
    found = await page.evaluate("options => axe.run(document, options)", options)
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]]


async def run_all(page: Page, lab: Lab, notebook: str, stages: int) -> Locator:
    """Open a notebook, run all its cells, and return its stages once they are drawn."""
    await lab.open(page, notebook)
    await page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
    # Whoever is faster than the kernel is asked by JupyterLab which kernel they want.
    await page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
    await page.get_by_role("menuitem", name="Run", exact=True).click()
    await page.get_by_text("Run All Cells", exact=True).click()
    found = page.locator(".wsdemo-stage")
    await expect(found).to_have_count(stages, timeout=60_000)
    return found
