"""A prediction in a real JupyterLab: marked with the keyboard alone, and read by the kernel."""

from __future__ import annotations

from pathlib import Path

import nbformat
from playwright.async_api import Page, expect

from tests.browser.conftest import ARTEFACTS, Lab, run_all

CELLS = (
    "from wsdemo.teach import predict",
    'guess = predict("P1", among=["jump", "duck", "<b>hide</b>", "fire"])\nguess',
    'choice = predict("How many servers does Redis hand the event to, if P1 is on B, and P2 and P3 '
    'are on A?", between=["1", "2", "3"])\nchoice',
)


async def test_a_prediction_is_marked_with_the_keyboard(
    page: Page, lab: Lab, tmp_path: Path
) -> None:
    """Tab goes to each answer, Space gives it; it is said at once, and the kernel knows."""
    notebook = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
        cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS],  # type: ignore[no-untyped-call]
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}},
    )
    nbformat.write(notebook, tmp_path / "notebooks" / "prediction.ipynb")  # type: ignore[no-untyped-call]
    await run_all(page, lab, "prediction.ipynb", stages=0)
    box = page.get_by_label("jump", exact=True)
    await expect(box).to_be_visible(timeout=60_000)
    await expect(page.get_by_text("No prediction yet.", exact=True)).to_have_count(2)

    await box.focus()
    await page.keyboard.press("Space")
    await expect(page.get_by_text("You have marked: jump.", exact=True)).to_be_visible()
    await page.keyboard.press("Space")
    for _ in range(2):
        await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await expect(page.get_by_text("You have marked: <b>hide</b>.", exact=True)).to_be_visible()
    await expect(page.get_by_label("<b>hide</b>", exact=True)).to_be_checked()

    await page.get_by_label("1", exact=True).focus()
    await page.keyboard.press("Space")
    await expect(page.get_by_text("You have chosen “1”.", exact=True)).to_be_visible()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await expect(page.get_by_text("You have chosen “2”.", exact=True)).to_be_visible()
    await expect(page.get_by_label("1", exact=True)).not_to_be_checked()
    ARTEFACTS.mkdir(exist_ok=True)
    await page.screenshot(path=ARTEFACTS / "lab_prediction.png")
    assert lab.ask_kernel("guess.marked, choice.chosen") == "(['<b>hide</b>'], '2')"
