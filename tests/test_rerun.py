"""A run as a scenario: what somebody has done can be done again."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import within
from wsdemo import Cluster, Trace, faults, open_cluster, scenarios
from wsdemo.compare import compare
from wsdemo.controls import Act, carry_out
from wsdemo.ledger import ledger
from wsdemo.rerun import as_scenario, load_scenario, save_scenario
from wsdemo.scenarios import SCENARIOS, Scenario


def scenario(source: str, name: str = "my_run") -> Scenario:
    """What the source defines, with nothing but the language to help."""
    names: dict[str, Any] = {}
    exec(compile(source, "scenario", "exec"), names)
    found: Scenario = names[name]
    return found


def fates(trace: Trace) -> list[tuple[str, str, str, str]]:
    """What became of everything that was said."""
    return [(each.event, each.player, each.outcome, each.cause) for each in ledger(trace)]


def captions(trace: Trace) -> list[str]:
    return [record.data["caption"] for record in trace.select("step")]


@pytest.mark.parametrize(
    ("name", "broker"),
    [
        *[("p1_moves_to_b", broker) for broker in ("none", "pubsub", "stream", "queue")],
        *[(name, "pubsub") for name in sorted(SCENARIOS.keys() - {"power_cut", "crash"})],
        ("retry", "stream"),
        ("p1_forgets", "queue"),
    ],
)
async def test_a_story_that_is_told_again_has_the_same_end(name: str, broker: str) -> None:
    """The same beats, and the same fate of each event for each player."""
    first = (await compare(name, broker))[broker].trace
    again = (await compare(scenario(as_scenario(first)), broker))[broker].trace
    assert captions(again) == captions(first)
    assert fates(again) == fates(first)


async def test_what_buttons_did_is_done_again() -> None:
    """Each of those that a live stage has."""
    presses: list[tuple[str, str, str, str]] = [
        *[("cluster cluster", "add-player", "", "")] * 3,
        ("player P2", "send", "", "jump"),
        ("player P1", "disconnect", "", ""),
        ("player P2", "send", "", 'say "hide"\\ now'),
        ("player P1", "reconnect", "B", ""),
        ("cluster cluster", "add-server", "", ""),
        ("player P3", "reconnect", "C", ""),
        ("server A", "kill", "", ""),
        ("player P3", "send", "", "fire"),
        ("server A", "restart", "", ""),
        ("redis redis", "stop", "", ""),
        ("player P1", "send", "", "lost"),
        ("redis redis", "start", "", ""),
        ("player P1", "send", "", "duck"),
    ]
    async with open_cluster(broker="pubsub") as cluster:
        await _press(cluster, presses)
        source = as_scenario(cluster.trace, "by_hand")
        first = cluster.trace
    assert 'open_cluster(servers=["A", "B"], broker="pubsub")' in source
    async with open_cluster(broker="pubsub") as cluster:
        await within(scenario(source, "by_hand")(cluster), 20)
        await cluster.settle()
        again = cluster.trace
    assert captions(again) == captions(first)
    assert fates(again) == fates(first)


async def test_what_stands_still_meanwhile_is_not_waited_for() -> None:
    """Nothing settles while a server is frozen, so those beats end without."""
    async with open_cluster(broker="pubsub") as cluster:
        p1, p2 = [*await cluster.join("P1", server="A"), *await cluster.join("P2", server="B")]
        async with cluster.step("B freezes, and P1 speaks"), faults.server_frozen(cluster, "B"):
            await p1.send("jump")
            cluster.beat("P1 speaks again")
            await p1.send("hide")
        async with cluster.step("P2 speaks"):
            await p2.send("seek")
        source, first = as_scenario(cluster.trace), cluster.trace
    assert 'cluster.beat("B freezes, and P1 speaks")' in source
    assert 'async with cluster.step("P2 speaks"):' in source
    async with open_cluster(broker="pubsub") as cluster:
        await within(scenario(source)(cluster), 20)
        assert fates(cluster.trace) == fates(first)


async def test_a_player_that_left_and_one_that_forgot_do_so_again() -> None:
    """Also those whose names can be no variable."""

    async def play(cluster: Cluster) -> None:
        zoe, p1, _ = await cluster.join("Zoë 2", "P1", "cluster", server="A")
        await zoe.send("jump")
        await p1.reconnect(server="B", resume=False)
        await zoe.leave()
        await p1.send("seek")

    first = (await compare(play, "stream"))["stream"].trace
    source = as_scenario(first)
    assert 'await cluster.player("Zoë 2").leave()' in source
    assert 'await p1.reconnect(server="B", resume=False)' in source
    again = (await compare(scenario(source), "stream"))["stream"].trace
    assert fates(again) == fates(first)


async def test_what_was_said_before_the_first_beat_comes_to_rest_as_it_did() -> None:
    """Else a server that is killed next would take it along."""
    async with open_cluster(broker="stream") as cluster:
        [p1] = await cluster.join("P1", server="A")
        await p1.send("jump")
        await cluster.settle()
        async with cluster.step("A is killed"):
            await cluster.kill_server("A")
        source = as_scenario(cluster.trace)
    said, step = 'await p1.send("jump")', 'async with cluster.step("A is killed"):'
    assert f"{said}\n    await cluster.settle()\n    {step}" in source


async def test_a_saved_trace_will_do(tmp_path: Path) -> None:
    """It says all that is needed."""
    run = (await compare(scenarios.p1_moves_to_b, "pubsub"))["pubsub"]
    run.trace.save(tmp_path / "run.jsonl")
    assert as_scenario(Trace.load(tmp_path / "run.jsonl")) == as_scenario(run.trace)


async def test_a_scenario_can_be_saved_and_edited_and_played_again(tmp_path: Path) -> None:
    """The file's name is the function's; what it holds now is what is played."""
    path = tmp_path / "my_story.py"
    first = (await compare(scenarios.p1_moves_to_b, "pubsub"))["pubsub"]
    save_scenario(first, path)
    again = (await compare(load_scenario(path), "pubsub"))["pubsub"].trace
    assert fates(again) == fates(first.trace)
    path.write_text(path.read_text(encoding="utf-8").replace("hide", "seek"), encoding="utf-8")
    edited = (await compare(load_scenario(path), "pubsub"))["pubsub"].ledger
    assert [edited.body(event) for event in edited.events] == ["jump", "duck", "seek", "fire"]
    path.write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no function my_story"):
        load_scenario(path)


@pytest.mark.parametrize(
    "evil",
    [
        '"""+print("run")+"""',
        "'''+print('run')+'''",
        "\\",
        '\\"""\nprint("run")\n"""',
        "\nprint('run')",
        "\u2028print('run')",
        '")\nprint("run")  # {print("run")}',
    ],
)
def test_what_a_trace_says_stays_text(evil: str) -> None:
    """A trace may come from anywhere: nothing in it becomes code."""
    trace = Trace(broker=evil, servers=[evil])
    trace.append("step", "scenario", caption=evil, notes=evil)
    trace.append("asked", evil, to="join", server=evil)
    trace.append("send", evil, event=evil, body=evil)
    trace.append("send", evil, event=evil, body=evil)
    trace.append("asked", evil, to="reconnect", server=evil)
    trace.append("start", evil)
    trace.append("fault", evil, reason="killed")
    trace.append("fault", evil, "redis", reason="link cut")
    tree = ast.parse(as_scenario(trace))
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    player = f"cluster.player({evil!r})"
    assert {name.replace(ast.unparse(ast.Constant(evil)), repr(evil)) for name in called} == {
        *("cluster.step", "cluster.join", "cluster.player", "cluster.add_server"),
        *("cluster.kill_server", "cluster.cut_redis_link", f"{player}.send", f"{player}.reconnect"),
    }


@pytest.mark.parametrize("replies", ["print('run')", [1], None])
def test_a_trace_with_no_number_where_one_belongs_is_refused(replies: object) -> None:
    """It says what stands there."""
    trace = Trace(broker="stream", servers=["A"])
    trace.append("fault", "A", "redis", reason="reply lost", replies=replies)
    with pytest.raises(ValueError, match="where a number belongs"):
        as_scenario(trace)


async def test_a_redis_that_ends_frozen_and_keeps_its_data_stands_still_no_more() -> None:
    """What is said after its return comes to rest, as it did."""
    async with open_cluster(broker="stream") as cluster:
        [p1] = await cluster.join("P1")
        await cluster.freeze_redis()
        await cluster.stop_redis(keep=True)
        await cluster.start_redis()
        await p1.send("jump")
        await cluster.settle()
        await p1.send("duck")
        source = as_scenario(cluster.trace)
    assert "await cluster.stop_redis(keep=True)\n    await cluster.start_redis()" in source
    assert 'send("jump")\n    await cluster.settle()\n    await p1.send("duck")' in source


@pytest.mark.parametrize("name", ["", "2nd", "my run", "class", "a(b)"])
def test_a_name_that_no_function_can_have_is_refused(name: str) -> None:
    """The error says what to use."""
    with pytest.raises(ValueError, match="can be no function's name; use letters"):
        as_scenario(Trace(broker="none", servers=["A"]), name)


def test_a_run_in_which_nobody_has_done_anything_is_none() -> None:
    """There is nothing to do again."""
    with pytest.raises(ValueError, match="nobody has done anything"):
        as_scenario(Trace(broker="none", servers=["A"]))


async def _press(cluster: Any, presses: Iterable[tuple[str, str, str, str]]) -> None:
    for number, (part, action, choice, body) in enumerate(presses):
        health = {name: cluster.server_state(name) for name in cluster.servers}
        act = Act(number, part, action, choice, body)
        await carry_out(cluster, act, {**health, "redis": cluster.redis_state})
