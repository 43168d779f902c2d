"""A run as a scenario: what somebody has done can be done again."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.conftest import recorded, within
from wsdemo import Cluster, Trace, faults, open_cluster, scenarios
from wsdemo import player as player_module
from wsdemo.cluster import BROKERS
from wsdemo.compare import compare
from wsdemo.controls import Act, carry_out
from wsdemo.ledger import KEEPERS, ledger
from wsdemo.player import NotConnected, Player
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


async def save_and_play(play: Scenario, broker: str) -> str:
    """Play it, and again what it is saved as: the fates are the same. Returns what was saved."""
    async with open_cluster(broker=broker) as cluster:
        await within(play(cluster), 20)
        await cluster.settle()
        source, first = as_scenario(cluster.trace), cluster.trace
    again = (await within(compare(scenario(source), broker), 20))[broker].trace
    assert fates(again) == fates(first)
    return source


async def two_players(cluster: Cluster) -> list[Player]:
    """P1 on A, and P2 on B."""
    return [*await cluster.join("P1", server="A"), *await cluster.join("P2", server="B")]


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


async def test_it_says_on_what_cluster_it_was_played(tmp_path: Path) -> None:
    """With the options that are not the usual ones: a shorter history loses more."""
    options: dict[str, Any] = {"history": 3, "balance": "least-connections"}
    async with open_cluster(["A", "B", "C"], "stream", **options) as cluster:
        await cluster.join("P1")
        await cluster.add_server("D")
        cluster.trace.save(tmp_path / "run.jsonl")
        source = as_scenario(Trace.load(tmp_path / "run.jsonl"))
    wanted = 'servers=["A", "B", "C"], broker="stream", balance="least-connections", history=3'
    assert f"`open_cluster({wanted})`" in source


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
    other = path.rename(tmp_path / "another_story.py")
    assert load_scenario(other).__name__ == "my_story"  # it is the only one
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
    trace.append("welcome", evil)
    trace.append("send", evil, evil, evil, body=evil)
    trace.append("send", evil, evil, evil, body=evil)
    trace.append("settle", "scenario")
    trace.append("step", "scenario", caption=evil)
    trace.append("asked", evil, to="reconnect", server=evil)
    trace.append("start", evil)
    trace.append("welcome", evil)
    trace.append("asked", evil, to=evil)
    trace.append("fault", evil, reason="killed")
    trace.append("fault", evil, "redis", reason="link cut")
    tree = ast.parse(as_scenario(trace))
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    player = f"cluster.player({evil!r})"
    assert {name.replace(ast.unparse(ast.Constant(evil)), repr(evil)) for name in called} == {
        *("cluster.step", "cluster.beat", "cluster.join", "cluster.player", "cluster.add_server"),
        *("asyncio.create_task", "asyncio.sleep", "cluster.kill_server", "cluster.cut_redis_link"),
        *(f"{player}.send", f"{player}.reconnect"),
    }


def test_a_name_that_python_keeps_for_itself_becomes_no_variable() -> None:
    """Nobody may assign to it."""
    trace = Trace(broker="none", servers=["A"])
    trace.append("asked", "__DEBUG__", to="join")
    trace.append("welcome", "__DEBUG__")
    trace.append("send", "__DEBUG__", "A", "__DEBUG__-1", body="jump")
    source = as_scenario(trace)
    compile(source, "scenario", "exec")
    assert 'cluster.player("__DEBUG__").send("jump")' in source


@pytest.mark.parametrize(("kind", "what"), [("send", "body"), ("asked", "to")])
def test_a_trace_that_lacks_something_is_refused(kind: Literal["send", "asked"], what: str) -> None:
    """It says what, and where."""
    trace = Trace(broker="stream", servers=["A"])
    trace.append("settle", "scenario")
    trace.append(kind, "P1", "A", "P1-1")
    with pytest.raises(ValueError, match=f"does not say `{what}` in its record 1"):
        as_scenario(trace)


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
    assert "stop_redis(keep=True)\n        await cluster.start_redis()" in source
    assert 'send("jump")\n    await cluster.settle()\n    await p1.send("duck")' in source


# Under other brokers


async def _stopped(cluster: Cluster, p1: Player, p2: Player) -> None:
    async with faults.redis_stopped(cluster, keep=True):
        await p1.send("jump")
        await cluster.settle()
    await cluster.settle()


async def _frozen(cluster: Cluster, p1: Player, p2: Player) -> None:
    async with faults.redis_frozen(cluster):
        await p1.send("jump")


async def _cut(cluster: Cluster, p1: Player, p2: Player) -> None:
    async with faults.redis_link_cut(cluster, "B"):
        await p1.send("jump")


async def _reply_lost(cluster: Cluster, p1: Player, p2: Player) -> None:
    async with faults.reply_lost(cluster, "A"):
        await p1.send("jump")
        await cluster.settle()


async def _confirmed(cluster: Cluster, p1: Player, p2: Player) -> None:
    jump = await p2.send("jump")
    await cluster.settle()
    await p2.send("jump", again=jump, confirm=True)
    await p1.send("duck", confirm=True)


@pytest.mark.parametrize("deed", [_stopped, _frozen, _cut, _reply_lost, _confirmed])
async def test_it_plays_under_every_broker(deed: Any) -> None:
    """Only where there is a Redis, it breaks; only where that can be, it is confirmed."""

    async def play(cluster: Cluster) -> None:
        p1, p2 = await two_players(cluster)
        async with cluster.step("Something is done"):
            await deed(cluster, p1, p2)
        async with cluster.step("P2 speaks"):
            await p2.send("hide")

    first = (await compare(play, "stream"))["stream"].trace
    runs = await within(compare(scenario(as_scenario(first)), BROKERS), 20)
    assert fates(runs["stream"].trace) == fates(first)
    for broker, run in runs.items():
        confirmed = [record.event for record in run.trace.select("confirm")]
        assert confirmed == (["P2-1", "P1-1"] if broker in KEEPERS and deed is _confirmed else [])
        broken = bool(run.trace.select("fault"))
        assert broken == (broker != "none" and deed is not _confirmed)


# What somebody waits for while other things happen


@pytest.mark.parametrize("broker", KEEPERS)
async def test_what_was_confirmed_only_later_is_awaited_only_there(broker: str) -> None:
    """Else who speaks while Redis is away would wait for ever for its return."""

    async def play(cluster: Cluster) -> None:
        p1, p2 = await two_players(cluster)
        async with faults.redis_stopped(cluster, keep=True):
            saying = asyncio.create_task(p2.send("jump", confirm=True))
            await recorded(cluster.trace, "send")
            await p2.send("hide")  # the second that it says
            await cluster.settle()
        await saying
        await p1.send("duck")

    source = await save_and_play(play, broker)
    assert 'saying = asyncio.create_task(p2.send("jump", confirm=confirms))' in source
    assert source.index("start_redis()") < source.index("await saying")


async def test_several_may_wait_to_be_confirmed_at_once() -> None:
    """Each has a variable of its own, and none that a player has."""

    async def play(cluster: Cluster) -> None:
        p1, p2, saying = [*await two_players(cluster), *await cluster.join("Saying", server="A")]
        async with cluster.step("Redis is away"):
            await cluster.stop_redis(keep=True)
            words = [(p1, "jump"), (p2, "duck"), (saying, "hide"), (p1, "seek")]
            said = [asyncio.create_task(each.send(word, confirm=True)) for each, word in words]
            await cluster.settle()
        async with cluster.step("Redis is back"):
            await cluster.start_redis()
            await asyncio.gather(*said)

    source = await save_and_play(play, "stream")
    begun = [line.split()[0] for line in source.splitlines() if "create_task" in line]
    assert begun == ["saying", "saying_2", "saying_3", "saying_4"]
    assert 'await cluster.join("Saying", server="A")' in source


async def test_what_is_confirmed_before_anything_else_is_done_needs_no_task() -> None:
    """Also if two speak at once."""

    async def play(cluster: Cluster) -> None:
        p1, p2 = await two_players(cluster)
        await p1.send("jump", confirm=True)
        await asyncio.gather(p1.send("duck", confirm=True), p2.send("hide", confirm=True))

    assert "asyncio" not in await save_and_play(play, "stream")


@pytest.mark.parametrize("leaves", [False, True])
async def test_what_was_never_confirmed_is_not_waited_for(leaves: bool) -> None:
    """Somebody gave up, or left: it was tried in vain, and so it is again."""

    async def play(cluster: Cluster) -> None:
        p1, p2 = await two_players(cluster)
        await cluster.stop_redis(keep=True)
        saying = asyncio.create_task(p2.send("jump", confirm=True))
        await recorded(cluster.trace, "unpublished")
        if leaves:
            await p2.leave()
        saying.cancel()
        with suppress(asyncio.CancelledError, RuntimeError):
            await saying
        await cluster.start_redis()
        await cluster.settle()
        await p1.send("duck")

    source = await save_and_play(play, "stream")
    assert "saying.cancel()  # it was never confirmed" in source
    if leaves:  # before its end, else that would be an error that nobody takes
        assert source.index("saying.cancel()") < source.index("p2.leave()")


async def test_who_still_waits_when_it_is_saved_gives_up() -> None:
    """The scenario has an end, with nothing left that runs."""
    async with open_cluster(broker="stream") as cluster:
        _, p2 = await two_players(cluster)
        await cluster.stop_redis()
        saying = asyncio.create_task(p2.send("jump", confirm=True))
        await recorded(cluster.trace, "unpublished")
        source = as_scenario(cluster.trace)
        saying.cancel()
    again = (await within(compare(scenario(source), "stream")))["stream"].trace
    assert [record.event for record in again.select("give up")] == ["P2-1"]


async def test_who_comes_only_when_something_is_healed_is_awaited_only_there() -> None:
    """Else it would give up before the server thaws."""

    async def play(cluster: Cluster) -> None:
        p1, p2 = await two_players(cluster)
        await cluster.freeze_server("B")
        coming = asyncio.create_task(p1.reconnect(server="B"))
        await recorded(cluster.trace, "asked", at="P1", times=2)
        await cluster.thaw_server("B")
        await coming
        await p2.send("jump")

    source = await save_and_play(play, "pubsub")
    assert 'await cluster.thaw_server("B")\n    await coming\n' in source


async def test_what_befalls_a_player_while_it_joins_befalls_it_again() -> None:
    """It has no variable yet by which to speak of it."""

    async def play(cluster: Cluster) -> None:
        [p1] = await cluster.join("P1", server="B")
        await cluster.freeze_server("A")
        coming = asyncio.create_task(cluster.join("P2", server="A"))
        await recorded(cluster.trace, "asked", at="P2")
        cluster.player("P2").cut_link()
        await cluster.thaw_server("A")
        cluster.player("P2").mend_link()
        [p2] = await coming
        await p2.send("jump")
        await p1.send("duck")

    source = await save_and_play(play, "pubsub")
    assert 'cluster.player("P2").cut_link()' in source
    assert '    [p2] = await coming\n    await p2.send("jump")' in source


# What was refused


async def test_what_was_refused_is_not_done_again() -> None:
    """A server that there is not, and a connection that there is already."""

    async def play(cluster: Cluster) -> None:
        p1, p2 = await two_players(cluster)
        with pytest.raises(ValueError, match="unknown server 'Z'"):
            await p1.reconnect(server="Z")
        with pytest.raises(ValueError, match="unknown server 'Z'"):
            await cluster.join("P3", server="Z")
        with pytest.raises(RuntimeError, match="connected already"):
            await p2.connect()
        await p1.send("jump")

    source = await save_and_play(play, "pubsub")
    assert "Z" not in source
    assert "connect(" not in source


async def test_who_could_not_come_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Redis no server lets anybody in: who was to join is not there, nor who was to return.

    Nor does anything settle while a player of a killed server finds no other.
    """
    monkeypatch.setattr(player_module, "JOIN_TIMEOUT", 0.2)

    async def play(cluster: Cluster) -> None:
        p1, p2 = await two_players(cluster)
        await cluster.stop_redis(keep=True)
        with pytest.raises(NotConnected):
            await p1.reconnect(server="B")
        with pytest.raises(NotConnected):
            await cluster.join("P3")
        cluster.beat("B is killed")
        await cluster.kill_server("B")
        await recorded(cluster.trace, "connect", at="P2", times=3)
        cluster.beat("Redis is back")
        await cluster.start_redis()
        monkeypatch.undo()
        await cluster.until(lambda: p2.connected)
        await p2.send("jump")
        await cluster.settle()
        await p1.reconnect()
        await cluster.join("P3")
        await p2.send("duck")

    source = await save_and_play(play, "stream")
    assert "await p1.disconnect()  # it was to come back, and could not" in source
    assert source.count('cluster.join("P3")') == 1


# What had time to happen


async def test_who_comes_back_by_itself_is_waited_for() -> None:
    """Its server is killed; it speaks when it is on another."""

    async def play(cluster: Cluster) -> None:
        _, p2 = await two_players(cluster)
        await cluster.kill_server("B")
        await cluster.until(lambda: p2.connected)
        await p2.send("jump")

    source = await save_and_play(play, "pubsub")
    assert 'kill_server("B")\n    await cluster.settle()\n    await p2.send' in source


async def test_who_comes_back_on_a_mended_link_is_waited_for() -> None:
    """It hears what is said when it is there again."""

    async def play(cluster: Cluster) -> None:
        p1, p2 = await two_players(cluster)
        async with faults.link_cut(p2):
            await recorded(cluster.trace, "disconnect", at="P2")
        await cluster.until(lambda: p2.connected)
        await p1.send("jump")
        await p1.send("duck")

    source = await save_and_play(play, "pubsub")
    assert "p2.mend_link()\n    await cluster.settle()\n    await p1.send" in source


async def test_what_was_heard_before_the_next_deed_is_so_again() -> None:
    """As if each were in a cell of its own, which nobody settles: P2 is away while P1 speaks."""

    async def play(cluster: Cluster) -> None:
        p1, p2 = await two_players(cluster)
        p2.cut_link()
        await recorded(cluster.trace, "disconnect", at="B", peer="P2")
        await p1.send("jump")
        await recorded(cluster.trace, "hear", at="P1")
        p2.mend_link()
        await cluster.until(lambda: p2.connected)

    for broker in ("none", "pubsub"):
        source = await save_and_play(play, broker)
        assert 'send("jump")\n    await cluster.settle()\n    p2.mend_link()' in source


async def test_what_failed_before_the_next_deed_fails_again() -> None:
    """Redis is back before anything is said, or after."""

    async def play(cluster: Cluster) -> None:
        p1, _ = await two_players(cluster)
        await cluster.stop_redis()
        await p1.send("jump")
        await recorded(cluster.trace, "unpublished")
        await cluster.start_redis()

    await save_and_play(play, "pubsub")


async def test_nobody_waits_for_what_nobody_waited_for() -> None:
    """Words that follow at once do so again."""

    async def play(cluster: Cluster) -> None:
        p1, p2 = await two_players(cluster)
        await p1.send("jump")
        await p1.send("duck")
        await p2.send("hide")

    body = (await save_and_play(play, "stream")).split("broker=")[1]
    assert body.count("settle") == 1
    assert body.rstrip().endswith("await cluster.settle()")


# Who is there


@pytest.mark.parametrize("broker", ["none", "stream"])
async def test_a_run_that_began_with_another_broker_is_whole(broker: str) -> None:
    """Who was away at its start, and then returned, joins it."""

    async def play(cluster: Cluster) -> None:
        p1, p2 = await two_players(cluster)
        await p1.disconnect()
        await cluster.change_broker(broker)
        await p2.send("jump")
        await p1.reconnect(server="A")
        await p2.send("duck")

    assert '[p1] = await cluster.join("P1", server="A")' in await save_and_play(play, broker)


async def test_who_connects_or_joins_again_does_so_again() -> None:
    """And an id that somebody has chosen stays."""

    async def play(cluster: Cluster) -> None:
        p1, p2 = await two_players(cluster)
        await p1.disconnect()
        await p1.connect(server="B")
        await p1.send("jump", again="mine")
        await p1.send("jump", again="mine")
        await cluster.settle()
        await p2.leave()
        [p2] = await cluster.join("P2", server="A")
        await p2.send("duck")

    source = await save_and_play(play, "stream")
    assert 'await p1.connect(server="B")' in source
    assert source.count('[p2] = await cluster.join("P2"') == 2


@pytest.mark.parametrize("name", ["", "2nd", "my run", "class", "a(b)", "__debug__"])
def test_a_name_that_no_function_can_have_is_refused(name: str) -> None:
    """The error says what to use."""
    with pytest.raises(ValueError, match="can be no function's name; use letters"):
        as_scenario(Trace(broker="none", servers=["A"]), name)


@pytest.mark.parametrize("name", ["asyncio", "cluster", "\uff41syncio"])
def test_a_name_that_a_scenario_needs_itself_is_refused(name: str) -> None:
    """A file of that name would be saved, and could not be played."""
    with pytest.raises(ValueError, match=f"'{name}' means something else in a scenario"):
        as_scenario(Trace(broker="none", servers=["A"]), name)


def test_only_a_scenario_is_taken_for_one(tmp_path: Path) -> None:
    """Something else may have the file's name."""
    path = tmp_path / "told.py"
    path.write_text("told = 3\n\nasync def another(cluster):\n    pass\n", encoding="utf-8")
    assert load_scenario(path).__name__ == "another"
    path.write_text("def told(cluster):\n    pass\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no function told"):
        load_scenario(path)


def test_a_run_in_which_nobody_has_done_anything_is_none() -> None:
    """There is nothing to do again."""
    with pytest.raises(ValueError, match="nobody has done anything"):
        as_scenario(Trace(broker="none", servers=["A"]))


async def _press(cluster: Any, presses: Iterable[tuple[str, str, str, str]]) -> None:
    for number, (part, action, choice, body) in enumerate(presses):
        health = {name: cluster.server_state(name) for name in cluster.servers}
        act = Act(number, part, action, choice, body)
        await carry_out(cluster, act, {**health, "redis": cluster.redis_state})
