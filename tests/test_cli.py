"""The command line, as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import v4

from wsdemo.cluster import BROKERS
from wsdemo.ledger import ledger
from wsdemo.trace import load_traces


def wsdemo(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wsdemo", *arguments]
    options = {"capture_output": True, "text": True, "encoding": "utf-8", **options}
    return subprocess.run(command, timeout=60, check=False, **options)


@pytest.mark.parametrize("redis", ["fake", "embedded"])
def test_run_prints_the_ledgers_and_saves_the_traces(redis: str, tmp_path: Path) -> None:
    """`run` prints one ledger for each broker, and what it saves gives the same ledgers again."""
    saved = tmp_path / "out.jsonl"
    brokers = ["--broker", "none", "--broker", "pubsub"]
    ran = wsdemo("run", "p1_moves_to_b", *brokers, "--redis", redis, "--trace", str(saved))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "heard 10 · missed 2 · twice 0" in ran.stdout
    assert "heard 12 · missed 0 · twice 0" in ran.stdout
    assert repr(ledger(load_traces(saved))) in ran.stdout


def test_what_a_pipe_has_no_letter_for_is_no_error() -> None:
    """A pipe on Windows has no “→”: the doctor's advice comes all the same."""
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "cp1252",
        "WSDEMO_REDIS": "redis://127.0.0.1:1",
    }
    ran = wsdemo("doctor", env=environment, encoding="cp1252")
    assert ran.returncode == 1
    assert "MISSING  WSDEMO_REDIS" in ran.stdout
    assert "? unset it, or set it to fake" in ran.stdout


def test_a_cell_that_fails_stops_the_site_and_is_told(tmp_path: Path) -> None:
    """Which lesson it is stands above; what went wrong, in a line."""
    cell = v4.new_code_cell("1 / 0")  # type: ignore[no-untyped-call]
    notebook = v4.new_notebook(cells=[cell])  # type: ignore[no-untyped-call]
    nbformat.write(notebook, tmp_path / "00_broken.ipynb")  # type: ignore[no-untyped-call]
    ran = wsdemo("site", "--notebooks", str(tmp_path), "--out", str(tmp_path / "site"))
    assert (ran.returncode, ran.stdout) == (1, "1 of 1: 00_broken\n")
    assert ran.stderr == "wsdemo: a cell failed: ZeroDivisionError: division by zero\n"


def test_run_saves_the_animation_too(tmp_path: Path) -> None:
    """`--html` writes a page with a pane for each run, and says where it is."""
    saved = tmp_path / "out.html"
    ran = wsdemo("run", "p1_moves_to_b", "--redis", "fake", "--html", str(saved))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"Saved to {saved}" in ran.stdout
    page = saved.read_text(encoding="utf-8")
    told = json.loads(page.split('id="told">')[1].split("</script>")[0])
    assert [run["broker"] for run in told["runs"]] == list(BROKERS)


@pytest.mark.parametrize("before", [None, "an older page"])
def test_a_page_that_does_not_fit_on_the_disk_leaves_what_was(
    tmp_path: Path, before: str | None
) -> None:
    """Half a page is worse than none, and than the one that was there."""
    resource = pytest.importorskip("resource")

    def small_files_only() -> None:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, most))

    saved = tmp_path / "out.html"
    if before:
        saved.write_text(before, encoding="utf-8")
    run = ["run", "p1_moves_to_b", "--redis", "fake", "--html", str(saved)]
    ran = wsdemo(*run, preexec_fn=small_files_only)
    assert ran.returncode == 1
    assert "too large" in ran.stderr
    assert f"{saved}" in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert "Saved" not in ran.stdout
    assert [file.read_text(encoding="utf-8") for file in tmp_path.iterdir()] == (
        [before] if before else []
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nope"], "unknown scenario 'nope'; there are: p1_moves_to_b"),
        (["run", "p1_moves_to_b", "--broker", "x"], "unknown broker 'x'; there are: none, pubsub"),
        (["run", "p1_moves_to_b", "--redis", "x"], "unknown redis 'x'; there are: "),
        (["run", "p1_moves_to_b", "--broker", "none", "--broker", "none"], "name each broker once"),
        (["run", "p1_moves_to_b", "--trace", "/no/such/folder/x"], "No such file"),
        (["run", "p1_moves_to_b", "--html", "/no/such/folder/x"], "No such file"),
    ],
)
def test_what_it_cannot_do_is_said_in_a_line(arguments: list[str], says: str) -> None:
    """A wrong argument gives exit status 1 and one line on stderr, with what there is."""
    ran = wsdemo(*arguments)
    assert ran.returncode == 1
    assert ran.stderr.startswith("wsdemo: ")
    assert says in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_redis_that_does_not_answer_is_named_without_its_password() -> None:
    """The error names host and port and the two ways out, never the password."""
    ran = wsdemo("run", "p1_moves_to_b", "--redis", "redis://user:secret@127.0.0.1:1/0")
    assert ran.returncode == 1
    assert "127.0.0.1:1" in ran.stderr
    assert '"fake"' in ran.stderr
    assert '"embedded"' in ran.stderr
    assert "secret" not in ran.stdout + ran.stderr


def test_doctor_finds_what_the_course_needs() -> None:
    """On a machine on which the tests run, nothing that the course needs is missing."""
    ran = wsdemo("doctor")
    assert ran.returncode == 0
    assert "MISSING" not in ran.stdout
    for what in ("Python", "packages", "ports", "Redis", "browser"):
        assert what in ran.stdout


def test_run_can_have_a_process_for_each_server() -> None:
    """It ends as it does in one process."""
    ran = wsdemo("run", "p1_moves_to_b", "--redis", "fake", "--broker", "pubsub", "--processes")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "heard 12 · missed 0 · twice 0" in ran.stdout
