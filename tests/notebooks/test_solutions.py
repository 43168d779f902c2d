"""Every notebook's exercises: as a learner gets them, and with the solutions put in.

An exercise is a code cell with a line to fill in; the fold "Solution" before it has what to put
there. As a learner gets it, it says "not yet", and no cell fails; solved, it passes.

The notebooks are executed here with the solutions. As a learner gets them nbval executes them, and
sees that each output is the stored one, so what those say is looked at.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
TO_FILL_IN = re.compile(r"^( *)# your lines? here$|^.*# your answer$", re.M)
SOLUTION = re.compile(r"<summary>Solution</summary>\s+```python\n(.*?)```", re.S)
HINT = re.compile(r"<summary>Hint")
NOT_YET = "✗ Not yet: "
pytestmark = pytest.mark.timeout(300)  # a lesson that measures is long, on a busy machine
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@EACH
def test_a_learner_is_told_not_yet(path: Path) -> None:
    """Before anything is filled in, each exercise says so, and no cell fails."""
    notebook = read(path)
    for cell in exercises_of(notebook):
        assert NOT_YET in printed(cell), cell.source
        assert not cell.metadata.get("tags"), "nobody compares what it says"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [out for cell in code for out in cell.outputs if out.output_type == "error"]


@EACH
def test_the_solution_passes(path: Path) -> None:
    """With each exercise's own solution put in, every check in its cell passes."""
    notebook = read(path)
    exercises = exercises_of(notebook)
    for cell, solution in zip(exercises, solutions_of(notebook), strict=True):
        cell.source = solved(cell.source, solution)
    execute(notebook, path)
    for cell in exercises:
        assert "✓ " in printed(cell), (cell.source, printed(cell))
        assert NOT_YET not in printed(cell), (cell.source, printed(cell))


@EACH
def test_each_exercise_has_its_solution(path: Path) -> None:
    """A notebook has exercises; before each stand two hints and one solution, and nowhere else."""
    notebook = read(path)
    assert exercises_of(notebook)
    told: list[str] = []  # since the exercise before
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            told.append(cell.source)
        elif TO_FILL_IN.search(cell.source):
            text = "\n".join(told)
            assert len(HINT.findall(text)) == 2, cell.source
            assert len(SOLUTION.findall(text)) == 1, cell.source
            told = []
    assert not SOLUTION.search("\n".join(told)), "a solution without an exercise after it"


@pytest.mark.parametrize(
    ("cell", "solution", "expected"),
    [
        ("# your line here\n\ncheck", "do()\n", "do()\n\ncheck"),
        ("def f():\n    # your lines here\n", "    a\n    b\n", "def f():\n    a\n    b\n"),
        ("def f():\n    # your lines here\n", "if a:\n    b\n", "def f():\n    if a:\n        b\n"),
        ("x = ...  # your answer\ncheck(x)", "x = 3\n", "x = 3\ncheck(x)"),
    ],
)
def test_a_solution_takes_the_place_of_the_line(cell: str, solution: str, expected: str) -> None:
    """It stands as far in as the line did, whether it is shown so or not."""
    assert solved(cell, solution) == expected


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def exercises_of(notebook: Any) -> list[Any]:
    """The code cells in which there is something to fill in."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if TO_FILL_IN.search(cell.source)]


def solutions_of(notebook: Any) -> list[str]:
    """What the folds have, in the order of the exercises."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [solution for text in texts for solution in SOLUTION.findall(text)]


def solved(source: str, solution: str) -> str:
    """A cell with a solution in the place of the line that is to be filled in."""

    def lines(place: re.Match[str]) -> str:
        return textwrap.indent(textwrap.dedent(solution).rstrip("\n"), place[1] or "")

    return TO_FILL_IN.sub(lines, source, count=1)


def execute(notebook: Any, path: Path) -> None:
    """Run it in a kernel of its own. Raises `CellExecutionError` for the first cell that fails."""
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources=resources).execute()


def printed(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)
