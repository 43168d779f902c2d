"""The command line, as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wsdemo.ledger import ledger
from wsdemo.trace import load_traces


def wsdemo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wsdemo", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
    )


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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nope"], "unknown scenario 'nope'; there are: p1_moves_to_b"),
        (["run", "p1_moves_to_b", "--broker", "x"], "unknown broker 'x'; there are: none, pubsub"),
        (["run", "p1_moves_to_b", "--redis", "x"], "unknown redis 'x'; there are: "),
        (["run", "p1_moves_to_b", "--broker", "none", "--broker", "none"], "name each broker once"),
        (["run", "p1_moves_to_b", "--trace", "/no/such/folder/x"], "No such file"),
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
