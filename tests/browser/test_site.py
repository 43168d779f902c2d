"""The course as web pages, opened from disk in a browser that has no network."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import v4
from playwright.async_api import Browser, Page, expect

from tests.browser.conftest import ARTEFACTS, needs_axe, violations
from wsdemo.cli import main
from wsdemo.prediction import ASKED_TO_CHOOSE, ASKED_TO_MARK
from wsdemo.site import _cell

BROKEN = "<img src=x onerror=window.broken=1>"

FIRST = [
    v4.new_markdown_cell(  # type: ignore[no-untyped-call]
        "# 00 First\n\n- **You will learn** why `A` cannot write to B.\n\n"
        "Go on with [the second](01_second.ipynb), or see the [README](../README.md).\n\n"
        "<details><summary>Hint</summary>\n\n```python\nx = 1\n```\n\n</details>\n\n## Watch"
    ),
    v4.new_code_cell(  # type: ignore[no-untyped-call]
        "from wsdemo import Stage, compare, ledger, open_cluster, scenarios\n"
        "runs = await compare(scenarios.p1_moves_to_b)\nStage(runs, look='P2-2', minutes=7)"
    ),
    v4.new_code_cell("ledger(runs)"),  # type: ignore[no-untyped-call]
    v4.new_code_cell(  # type: ignore[no-untyped-call]
        "cluster = await open_cluster(broker='none')\n[p1] = await cluster.join('P1')\n"
        f"await p1.send('{BROKEN}')\nawait cluster.settle()\nprint('{BROKEN}')\nStage(cluster)"
    ),
]
SECOND = [
    v4.new_markdown_cell("# 01 Second"),  # type: ignore[no-untyped-call]
    v4.new_code_cell("1 + 1"),  # type: ignore[no-untyped-call]
]


def write(folder: Path, name: str, cells: list[Any]) -> None:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = v4.new_notebook(cells=cells, metadata=kernel)  # type: ignore[no-untyped-call]
    nbformat.write(notebook, folder / name)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lessons, run and written by the command."""
    notebooks, out = (tmp_path_factory.mktemp(name) for name in ("notebooks", "site"))
    write(notebooks, "00_first.ipynb", FIRST)
    write(notebooks, "01_second.ipynb", SECOND)
    assert main(["site", "--notebooks", str(notebooks), "--out", str(out)]) == 0
    return out


async def test_its_stages_move_without_a_kernel_and_without_a_network(
    site: Path, offline: Page
) -> None:
    """Two stages on one page, each for itself; and what was said on them is no markup."""
    await offline.goto((site / "00_first.html").as_uri())
    stages = offline.locator(".wsdemo-stage")
    await expect(stages).to_have_count(2)
    first = stages.first
    await first.get_by_role("button", name="Play", exact=True).click()
    await first.locator("[data-token]").first.wait_for()
    await first.focus()
    await offline.keyboard.press("End")
    await expect(first.locator(".counts").nth(0)).to_have_text("heard 10 · missed 2 · twice 0")
    await expect(offline.get_by_text("In the notebook, this stage is live.")).to_have_count(1)
    await expect(offline.locator("table").first).to_contain_text("no broker between servers")
    assert await offline.evaluate("window.broken") is None
    ARTEFACTS.mkdir(exist_ok=True)
    await offline.screenshot(path=ARTEFACTS / "site_lesson.png", full_page=True)


async def test_one_gets_from_page_to_page(site: Path, offline: Page) -> None:
    """From the index to a lesson, by a lesson's own link to the next, and back."""
    await offline.goto((site / "index.html").as_uri())
    await expect(offline.locator(".lessons")).to_contain_text("why A cannot write to B")
    await offline.locator(".lessons").get_by_role("link", name="00 First").click()
    await expect(offline.get_by_text("README")).to_be_visible()
    await expect(offline.get_by_role("link", name="README")).to_have_count(0)  # it is not there
    await offline.get_by_role("link", name="the second").click()
    await expect(offline.get_by_role("heading", level=1)).to_have_text("01 Second")
    await offline.get_by_role("link", name="← 00 First").click()
    await offline.get_by_role("link", name="All lessons").click()
    await expect(offline).to_have_title("wsdemo")


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_anyone_can_use_it(site: Path, chromium: Browser, scheme: str) -> None:
    """axe-core finds nothing of WCAG 2.2 A and AA, nor of its best practices, on any page."""
    # The page's own policy would keep axe-core out.
    context = await chromium.new_context(bypass_csp=True, color_scheme=scheme)  # type: ignore[arg-type]
    page = await context.new_page()
    for name in ("index", "00_first", "01_second"):
        await page.goto((site / f"{name}.html").as_uri())
        assert await violations(page) == [], name
    await context.close()


def test_a_page_loads_nothing_and_runs_only_its_own_script(site: Path) -> None:
    """Its policy says so, and a page without anything to move or to scroll has no script at all."""
    names = ("00_first", "01_second", "index")
    lesson, other, index = ((site / f"{name}.html").read_text(encoding="utf-8") for name in names)
    for text in (lesson, other):
        assert "default-src 'none'; script-src 'sha256-" in text
    assert "<script" not in index
    for text in (lesson, other, index):
        assert not re.search(r"(?:src|href)=\"(?!data:|\w+\.html|#)", text)
    told = re.findall(r'class="told">(.*?)</script>', lesson)
    first, second = map(json.loads, told)
    assert (len(first["runs"]), first["look"], first["minutes"]) == (2, "P2-2", 7)
    assert (len(second["runs"]), second["look"], second["minutes"]) == (1, "", 0)


def test_without_a_notebook_there_is_no_site(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error says what to name."""
    out = tmp_path / "site"
    assert main(["site", "--notebooks", str(tmp_path), "--out", str(out)]) == 1
    assert "there is no notebook in" in capsys.readouterr().err
    assert not out.exists()


async def test_the_keyboard_stops_only_where_there_is_something_to_scroll(
    site: Path, chromium: Browser
) -> None:
    """On a wide page a line of code is seen whole; on a narrow one the keys can get to its end."""
    for width, stops in ((1200, 0), (320, 1)):
        page = await chromium.new_page(viewport={"width": width, "height": 800})
        await page.goto((site / "00_first.html").as_uri())
        await expect(page.locator(".wsdemo-stage").first).to_be_visible()
        found = await page.locator("main > .source pre[tabindex]").count()
        assert (found > 0) == (stops > 0), width
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await page.close()


def test_what_is_printed_in_parts_is_one_and_nobody_is_asked_to_run_a_cell() -> None:
    """A kernel sends what is printed as it likes; and there is nothing to mark here."""
    asked = f"{ASKED_TO_MARK}\n{ASKED_TO_CHOOSE}\n"
    outputs = [
        v4.new_output("stream", name="stdout", text=text)  # type: ignore[no-untyped-call]
        for text in ("P1 missed “hide”.\n", asked)
    ]
    cell = v4.new_code_cell("show()", outputs=outputs)  # type: ignore[no-untyped-call]
    [_, output] = _cell(cell, {})
    assert output == '<div class="output"><pre>P1 missed “hide”.\n</pre></div>'
