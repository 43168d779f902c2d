"""What every stored notebook must be, before nbval compares its outputs."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
IS_A_CELL = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> dict[str, Any]:
    path: Path = request.param
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for cell in code_cells(notebook) for output in cell["outputs"]]


def test_there_are_lessons() -> None:
    """The course has lessons: an empty folder does not pass for a checked one."""
    assert len(NOTEBOOKS) >= 3


def test_every_code_cell_was_run_in_order(notebook: dict[str, Any]) -> None:
    """Each code cell has been executed, top to bottom: nbval passes over one that was not."""
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_what_a_prediction_asks_fits_on_its_line(notebook: dict[str, Any]) -> None:
    """JupyterLab cuts off what does not, in a window of 1280 pixels."""
    asked = [
        call.args[0].value
        for cell in code_cells(notebook)
        for call in ast.walk(compile(source(cell), "cell", "exec", IS_A_CELL))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "predict"
        if isinstance(call.args[0], ast.Constant)
    ]
    assert asked
    assert all(len(str(each)) <= 90 for each in asked)


def test_it_names_its_kernel(notebook: dict[str, Any]) -> None:
    """A kernelspec is stored, or JupyterLab asks for one in a dialog."""
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


def test_it_stores_no_widget_state(notebook: dict[str, Any]) -> None:
    """Neither widget state nor a widget view is stored: their kernel is gone, their PNG is not."""
    assert "widgets" not in notebook["metadata"]
    assert not [output for output in outputs(notebook) if WIDGET in output.get("data", {})]


def test_each_stage_stored_its_picture_and_its_outcome(notebook: dict[str, Any]) -> None:
    """A stage can be read without a kernel: its PNG and its counts are there."""
    stages = [cell for cell in code_cells(notebook) if re.search(r"^Stage\(", source(cell), re.M)]
    assert stages
    for cell in stages:
        data = cell["outputs"][-1]["data"]
        assert "image/png" in data
        assert "heard" in "".join(data["text/plain"])


def test_each_picture_has_words_for_who_cannot_see_it(notebook: dict[str, Any]) -> None:
    """nbconvert and others take them from there."""
    pictures = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert all(output["metadata"]["image/png"]["alt"] for output in pictures)


def test_no_output_is_an_error_or_a_passing_detail(notebook: dict[str, Any]) -> None:
    """No stored output is an error, a memory address or a path of the machine it ran on."""
    assert not [output for output in outputs(notebook) if output["output_type"] == "error"]
    words = [
        "".join(part) if isinstance(part, list) else part
        for output in outputs(notebook)
        for part in [output.get("text", ""), *output.get("data", {}).values()]
    ]
    for text in words:
        assert not re.search(r" at 0x[0-9a-f]+|/home/|/root/|/tmp/|/Users/|[A-Z]:\\Users", text)


def test_its_cells_have_the_form_of_a_lesson(notebook: dict[str, Any]) -> None:
    """8 to 14 short code cells; no class, star import, shell line, plotting or sleep in any."""
    cells = [source(cell) for cell in code_cells(notebook)]
    assert 8 <= len(cells) <= 14
    assert sorted(len(cell.splitlines()) for cell in cells)[len(cells) // 2] < 5
    for cell in cells:
        assert len(cell.splitlines()) <= 12
        assert not re.search(r"^\s*(class |from .* import \*|!|%)|sleep\(|pyplot", cell, re.M)


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])
