"""A live stage in a real JupyterLab: every control acts on the real cluster in the kernel."""

from __future__ import annotations

from pathlib import Path

import nbformat
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import ARTEFACTS, Lab, run_all

CELLS = [
    """import asyncio
from wsdemo import Stage, open_cluster
cluster = await open_cluster(broker="pubsub", redis="embedded")
p1, p2 = await cluster.join("P1", "P2", server="A")
await cluster.settle()
Stage(cluster)""",
    # While this cell awaits, buttons work all the same.
    "enough = asyncio.Event()\nawait enough.wait()",
]


def write_notebook(lab: Lab) -> str:
    """A notebook with a live stage, in the folder that the lab shows."""
    notebook = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}},
        cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS],  # type: ignore[no-untyped-call]
    )
    path = Path(lab.runtime.parent, "notebooks", "live.ipynb")
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    return path.name


class Controls:
    """The controls of a live stage, as a person uses them."""

    def __init__(self, stage: Locator) -> None:
        self.stage = stage

    async def press(self, part: str, button: str) -> None:
        """Choose a part, press a button, and wait until it has been carried out."""
        await self.stage.get_by_label("Act on", exact=True).select_option(part)
        control = self.stage.locator(".controls").get_by_role("button", name=button, exact=True)
        await expect(control).to_be_enabled(timeout=20_000)
        await expect(control).not_to_have_attribute("aria-disabled", "true", timeout=20_000)
        await control.click()
        await expect(self.stage.locator(".controls")).to_have_attribute(
            "aria-busy", "false", timeout=20_000
        )

    async def why_not(self, part: str, button: str) -> str:
        """Why a button cannot be pressed now."""
        await self.stage.get_by_label("Act on", exact=True).select_option(part)
        control = self.stage.locator(".controls").get_by_role("button", name=button, exact=True)
        return await control.get_attribute("aria-description") or ""

    async def see(self, what: str) -> None:
        """Wait until the picture shows something."""
        await expect(self.stage.locator(what).first).to_be_visible(timeout=30_000)


async def test_every_control_of_a_live_stage(page: Page, lab: Lab) -> None:
    """Players, servers, Redis and the cluster do what the buttons say, while a cell awaits.

    In stills, which take no time: lesson 04 is tested with its movement.
    """
    await page.emulate_media(reduced_motion="reduce")
    stage = await run_all(page, lab, write_notebook(lab), stages=1)
    await expect(page.get_by_text("[*]:", exact=True)).to_have_count(1, timeout=60_000)
    await stage.scroll_into_view_if_needed()
    controls = Controls(stage)
    ARTEFACTS.mkdir(exist_ok=True)

    # A player
    await stage.get_by_label("What it says").fill("hello")
    await controls.press("player P1", "Send")
    await controls.see("[data-slot][data-for='P2'][data-outcome='heard']")
    await controls.press("player P1", "Reconnect to B")
    assert await controls.why_not("player P1", "Reconnect to B") == "P1 is on B already."
    await controls.press("player P1", "Disconnect")
    await controls.see("[data-player='P1'][data-state='away']")
    await controls.press("player P1", "Reconnect, the balancer’s choice")
    await controls.see("[data-player='P1'][data-state='connected']")

    # A server
    await controls.press("server A", "Kill")
    await controls.see(".server.down[data-server='A']")
    assert await controls.why_not("server A", "Kill") == "Server A is down already."
    await page.screenshot(path=ARTEFACTS / "live_killed.png")
    await controls.press("server A", "Restart")
    await controls.see(".server.up[data-server='A']")
    await controls.press("server B", "Freeze")
    await controls.see(".server.frozen[data-server='B']")
    await page.screenshot(path=ARTEFACTS / "live_frozen.png")
    await controls.press("server B", "Thaw")
    await controls.see(".server.up[data-server='B']")

    # Redis
    await controls.press("redis redis", "Stop")
    await controls.see(".broker.down")
    assert await controls.why_not("redis redis", "Stop") == "Redis is down already."
    await page.screenshot(path=ARTEFACTS / "live_redis_down.png")
    await controls.press("redis redis", "Start")
    await controls.press("redis redis", "Stop, keep its data")
    await controls.see(".broker.down")
    await controls.press("redis redis", "Start")
    await controls.see(".broker.up")
    await controls.press("redis redis", "Freeze")
    await controls.see(".broker.frozen")
    await controls.press("redis redis", "Thaw")
    await controls.see(".broker.up")

    # The cluster
    await controls.press("cluster cluster", "Add a player")
    await controls.see("[data-player='P3'][data-state='connected']")
    await controls.press("cluster cluster", "Add a server")
    await controls.see(".server.up[data-server='C']")
    await controls.press("player P3", "Reconnect to C")
    await page.screenshot(path=ARTEFACTS / "live_grown.png")

    # Back in time while the run goes on, and live again
    await stage.get_by_label("Playhead").fill("0")
    live = stage.get_by_role("button", name="Live")
    await expect(live).to_have_attribute("aria-pressed", "false")
    await live.click()
    await expect(live).to_have_attribute("aria-pressed", "true")

    # Anew, with another broker
    await controls.press("cluster cluster", "Start anew without a broker")
    await expect(stage.get_by_role("status")).to_contain_text("started anew, without a broker")
    await controls.see("[data-pane='none']")
    await controls.see("[data-player='P1'][data-state='connected']")
    await page.screenshot(path=ARTEFACTS / "live_anew.png")
