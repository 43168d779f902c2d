"""A real JupyterLab, a real browser: lesson 04 as a learner sees it."""

from __future__ import annotations

from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import ARTEFACTS, Lab, run_all

# Where the tokens are, once there are some; and where they are two frames later.
TOKENS = (
    "stage => [...stage.querySelectorAll('[data-token]')].map(t => t.getAttribute('transform'))"
)
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


async def tokens(stage: Locator) -> list[str]:
    found: list[str] = await stage.evaluate(TOKENS)
    return found


async def test_lesson_04_in_jupyterlab(page: Page, lab: Lab) -> None:
    """No dialog appears, the stage plays and pauses, and its button moves the real P1 to B."""
    stages = await run_all(page, lab, "04_pubsub.ipynb", stages=2)
    await expect(page.locator(".jp-Dialog, .Toastify__toast")).to_have_count(0)
    replay, live = stages.nth(0), stages.nth(1)

    await replay.scroll_into_view_if_needed()
    await expect(replay.locator("[data-pane]")).to_have_count(2)
    await replay.get_by_role("button", name="Play", exact=True).click()
    await replay.locator("[data-token]").first.wait_for(timeout=30_000)
    before = await tokens(replay)
    await page.evaluate(TWO_FRAMES)
    assert await tokens(replay) != before, "the tokens do not move while it plays"

    await replay.get_by_role("button", name="Pause", exact=True).click()
    paused = await tokens(replay)
    assert paused
    await page.evaluate(TWO_FRAMES)
    assert await tokens(replay) == paused, "the tokens move while it is paused"
    ARTEFACTS.mkdir(exist_ok=True)
    await page.screenshot(path=ARTEFACTS / "lab_04_replay.png")

    assert lab.ask_kernel("p1.server") == "'A'"
    await live.scroll_into_view_if_needed()
    await live.get_by_label("Speed").select_option(label="4×")  # it moves as before, and sooner
    await live.get_by_label("Act on", exact=True).select_option("player P1")
    await live.get_by_role("button", name="Reconnect to B").click()
    p1 = live.locator("[data-player='P1']")
    await expect(p1).to_have_attribute("data-state", "connected", timeout=30_000)
    await expect(live.get_by_role("button", name="Reconnect to A")).to_be_enabled(timeout=30_000)
    assert lab.ask_kernel("p1.server") == "'B'"

    await live.get_by_label("What it says").fill("hello")
    await live.get_by_role("button", name="Send", exact=True).click()
    heard = live.locator("[data-slot][data-for='P3'][data-outcome='heard']")
    await expect(heard).to_have_count(1, timeout=30_000)  # once the picture has caught up
    assert lab.ask_kernel("[event.body for event in p3.heard]") == "['hello']"
    await expect(live.locator(".caption")).to_have_text("P1 says “hello”")
    await page.screenshot(path=ARTEFACTS / "lab_04_live.png")
