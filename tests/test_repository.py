"""The files that tools and newcomers read: what they name is there, and is as its schema has it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("*.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_the_workflow_is_as_its_schema_says() -> None:
    """No key is misspelled, or of another kind than it is to be."""
    workflow = yaml.safe_load(text_of(".github/workflows/tests.yml"))
    workflow["on"] = workflow.pop(True)  # YAML 1.1 takes the word for a truth value
    schemas = resources.files("check_jsonschema.builtin_schemas.vendor")
    schema = json.loads((schemas / "github-workflows.json").read_text(encoding="utf-8"))
    jsonschema.validate(workflow, schema)


def test_the_workflow_runs_what_the_readme_says() -> None:
    """Where there is no make, its commands are the README's own; elsewhere `.ci/run` calls make."""
    workflow = text_of(".github/workflows/tests.yml")
    assert "run: bash .ci/run" in workflow
    assert "make test" in text_of(".ci/run")
    told = re.findall(r"^(?:pip install -r|python -m pytest) .*$", readme(), re.M)
    wanted = [line for line in told if "requirements.txt" not in line]
    assert len(wanted) == 3
    for line in wanted:
        assert line in workflow


def test_the_workflow_tries_the_oldest_and_the_newest_python_that_are_locked() -> None:
    """Both of the Makefile's, on each system."""
    workflow = text_of(".github/workflows/tests.yml")
    newest = re.search(r"^NEWEST = 3(\d+)$", text_of("Makefile"), re.M)
    assert newest
    assert workflow.count(f'python: ["3.11", "3.{newest[1]}"]') == 2


def test_the_container_opens_what_is_there() -> None:
    """Its settings are JSON, and the notebook that it opens exists."""
    container = json.loads(text_of(".devcontainer/devcontainer.json"))
    for name in container["customizations"]["codespaces"]["openFiles"]:
        assert (ROOT / name).is_file()
    assert "-r requirements.txt" in container["postCreateCommand"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_and_names_is_there(page: Path) -> None:
    """Links to files, and names of files and folders that are set as code."""
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)\)", text)
    named = re.findall(r"`((?:wsdemo|tests|notebooks|deploy|\.ci)/[\w./]*)`", text)
    assert not [name for name in links + named if not (ROOT / name).exists()]


def test_the_readme_has_a_row_for_each_lesson() -> None:
    """With the minutes that the lesson itself says."""
    for path in sorted((ROOT / "notebooks").glob("0*.ipynb")):
        first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
        minutes = re.search(r"\*\*(\d+) minutes", "".join(first["source"]))
        assert minutes, f"{path.name} does not say how long it takes"
        row = re.search(rf"\(notebooks/{path.name}\) \|.*\| (\d+) \|", readme())
        assert row, f"the README has no row for {path.name}"
        assert row[1] == minutes[1]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_what_a_notebook_links_to_is_there(notebook: Path) -> None:
    """Links from lesson to lesson, and to other files."""
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", told(notebook))
    assert links
    assert not [link for link in links if not (notebook.parent / link).exists()]


def test_words_are_spelled_as_others_do(tmp_path: Path) -> None:
    """In the pages, and in what the notebooks tell."""
    for notebook in NOTEBOOKS:
        (tmp_path / f"{notebook.stem}.md").write_text(told(notebook), encoding="utf-8")
    texts = [*PAGES, *sorted((ROOT / "notebooks").glob("*.md")), *sorted(tmp_path.glob("*.md"))]
    command = [sys.executable, "-X", "utf8", "-c"]
    command += ["from codespell_lib import _script_main as main; main()"]
    looked = subprocess.run(
        [*command, *map(str, texts)], capture_output=True, text=True, encoding="utf-8"
    )
    assert not looked.stdout, looked.stdout
    assert not looked.stderr, looked.stderr


def told(notebook: Path) -> str:
    """The text of a notebook's own, without its code and what that puts out."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def readme() -> str:
    return text_of("README.md")
