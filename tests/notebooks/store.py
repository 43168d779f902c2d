"""Run every notebook from a fresh kernel and store what it puts out: `make notebooks`.

Widget state is left out: a stage's PNG and words are what a reader without a kernel sees. The
README's picture of the stage is made here too, from a run of its own, if there is a Chromium.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image
from playwright.async_api import async_playwright

from tests.chromium import NO_CHROMIUM, find_chromium
from wsdemo import Stage, compare

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
MOMENT = 2.8  # of the playhead, in beats: “hide” has no way to B, and is on its way through Redis
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def run(path: Path) -> Any:
    """The notebook at `path`, executed."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook,
        timeout=60,
        kernel_name=KERNEL["name"],
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        store_widget_state=False,
    )
    return client.execute()


def tidy(notebook: Any) -> Any:
    """Without what differs from run to run, or belongs to a kernel that is gone."""
    about = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    notebook.metadata = nbformat.from_dict(about)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data.pop(WIDGET, None)
    return notebook


async def picture_of_the_stage(path: Path) -> None:
    """P1 on server B, in the moment that matters, as a browser draws it."""
    runs = await compare("p1_moves_to_b")
    chromium = find_chromium()
    if chromium is None:
        print(f"{NO_CHROMIUM}: {path.name} stays as it is")
        return
    with tempfile.TemporaryDirectory() as folder:
        page_of_it = Path(folder, "stage.html")
        Stage(runs).save_html(page_of_it)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
            )
            size = {"width": 1200, "height": 900}
            page = await browser.new_page(
                viewport=size,  # type: ignore[arg-type]
                device_scale_factor=1.25,
                color_scheme="light",
            )
            await page.goto(page_of_it.as_uri())
            stage = page.locator(".wsdemo-stage")
            move = "(e, T) => { e.value = T; e.dispatchEvent(new Event('input', {bubbles: true})) }"
            await stage.get_by_label("Playhead").evaluate(move, MOMENT)
            drawn = await stage.screenshot()
            await browser.close()
    Image.open(io.BytesIO(drawn)).convert("RGB").quantize(128).save(path, optimize=True)


def main() -> None:
    """Store the notebooks that are named on the command line, or all."""
    os.environ["WSDEMO_REDIS"] = "fake"
    named = [Path(name) for name in sys.argv[1:]]
    for path in named or sorted(NOTEBOOKS.glob("*.ipynb")):
        print(f"running {path.name}", flush=True)
        nbformat.write(tidy(run(path)), path)  # type: ignore[no-untyped-call]
    asyncio.run(picture_of_the_stage(NOTEBOOKS / "stage.png"))


if __name__ == "__main__":
    main()
