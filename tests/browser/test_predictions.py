"""A prediction in a real JupyterLab: marked with the keyboard alone, and held against a run."""

from __future__ import annotations

from pathlib import Path

import nbformat
from playwright.async_api import Page, expect

from tests.browser.conftest import ARTEFACTS, Lab, run_all

CELLS = (
    "from wsdemo import compare, scenarios\nfrom wsdemo.teach import predict",
    'guess = predict("P1", among=["jump", "<b>duck</b>", "hide"])\nguess',
    'choice = predict("How many?", between=["1", "2", "3"])\nchoice',
    'runs = await compare(scenarios.p1_moves_to_b, "none")\nguess.compare(runs["none"])',
)


async def test_a_prediction_is_marked_with_the_keyboard(
    page: Page, lab: Lab, tmp_path: Path
) -> None:
    """Tab goes to each answer, Space gives it, and the stage opens at the first that is wrong."""
    notebook = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
        cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS],  # type: ignore[no-untyped-call]
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}},
    )
    nbformat.write(notebook, tmp_path / "notebooks" / "prediction.ipynb")  # type: ignore[no-untyped-call]
    stages = await run_all(page, lab, "prediction.ipynb", stages=0)
    await expect(page.get_by_text("P1 missed “hide”")).to_be_visible(timeout=60_000)
    await expect(page.get_by_text("No prediction yet.", exact=True)).to_have_count(2)

    await page.get_by_label("jump", exact=True).focus()
    await page.keyboard.press("Space")
    await expect(page.get_by_text("You have marked: jump.", exact=True)).to_be_visible()
    compare = page.get_by_role("button", name="Compare").filter(visible=True)
    await expect(compare).to_have_count(1)
    await compare.press("Enter")
    verdict = "P1 missed “hide”: 0 of 2 right."
    await expect(page.get_by_text(f"You have marked: jump. {verdict}")).to_be_visible()
    await page.get_by_label("jump", exact=True).focus()
    await page.keyboard.press("Space")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await expect(page.get_by_text("You have marked: <b>duck</b>.", exact=True)).to_be_visible()

    await page.get_by_label("1", exact=True).focus()
    await page.keyboard.press("Space")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await expect(page.get_by_text("You have chosen “2”.", exact=True)).to_be_visible()
    await expect(page.get_by_label("1", exact=True)).not_to_be_checked()

    await page.locator(".jp-CodeCell .cm-content").last.click()
    await page.keyboard.press("Control+Enter")
    await expect(stages).to_have_count(1, timeout=60_000)
    await expect(page.locator("pre").get_by_text("1 of 2 right")).to_be_visible()
    await stages.scroll_into_view_if_needed()
    ARTEFACTS.mkdir(exist_ok=True)
    await page.screenshot(path=ARTEFACTS / "lab_prediction.png")
    assert lab.ask_kernel("guess.marked, choice.chosen") == "(['<b>duck</b>'], '2')"
