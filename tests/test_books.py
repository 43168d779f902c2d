"""The books are right where several things happen at once, or somebody else plays along.

Real clusters and real sockets; each test holds what a run did against what its ledger says of it.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest

from tests.conftest import dial, within
from wsdemo import Cluster, Trace, ledger, open_cluster, timeline
from wsdemo.story import Loss, tell


@pytest.fixture(params=["fake", "embedded"])
async def cluster(request: pytest.FixtureRequest) -> Any:
    async with open_cluster(redis=request.param) as cluster:
        yield cluster


def test_the_order_of_hearing_is_each_players_own() -> None:
    """Two players who heard the same in opposite orders are told apart."""
    trace = Trace(broker="pubsub", servers=["A"])
    for player in ("P1", "P2"):
        trace.append("connect", player, "balancer")
        trace.append("join", "A", player)
    for event in ("P1-1", "P2-1"):
        trace.append("send", event[:2], "A", event, body="x")
    for player, events in (("P1", ["P1-1", "P2-1"]), ("P2", ["P2-1", "P1-1", "P2-1"])):
        for event in events:
            trace.append("hear", player, "A", event)
    assert ledger(trace).heard_by("P1") == ["P1-1", "P2-1"]
    assert ledger(trace).heard_by("P2") == ["P2-1", "P1-1"]


async def test_two_clients_may_use_the_same_id(cluster: Cluster) -> None:
    """An id is its sender's own: two who both say "1", or one who says P1-1, mix up nothing."""
    [p1] = await cluster.join("P1", server="B")
    async with dial(cluster.url) as x, dial(cluster.url) as y:
        await x.join("X")
        await y.join("Y")
        for client in (x, y):
            await client.say("send", id="1", body="hello")
        await x.say("send", id="P1-1", body="not P1")
        await p1.send("from P1")
        for client in (x, y):
            for _ in range(4):
                await client.hear()
        await cluster.settle()
        found = ledger(cluster)
        assert sorted(found.events) == ["P1-1", "X/1", "X/P1-1", "Y/1"]
        assert (found.heard, found.missed, found.twice) == (12, 0, 0)
        assert found.sender("P1-1") == "P1"
        assert sorted(event.body for event in p1.heard) == ["from P1", "hello", "hello", "not P1"]


async def test_a_settle_speaks_only_for_what_was_said_before_it(cluster: Cluster) -> None:
    """What is said while it runs is pending, never missed; no loss is drawn that was none."""
    p1, _ = await cluster.join("P1", "P2")
    for turns in range(40):

        async def later(turns: int = turns) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await p1.send("x")

        await asyncio.gather(cluster.settle(), later())
        assert ledger(cluster).missed == 0
    await cluster.settle()
    assert ledger(cluster).heard == 80
    assert not [item for item in tell(cluster.trace).items if isinstance(item, Loss)]


async def test_whoever_has_left_is_owed_nothing_from_then_on(cluster: Cluster) -> None:
    """When `leave` returns the server has taken the player out, whatever was under way."""
    [p2] = await cluster.join("P2", server="A")
    for _ in range(10):
        [p1] = await cluster.join("P1", server="A")  # at once after leaving, on the same server
        for _ in range(10):
            await p1.send("x")
        await p1.leave()
        assert cluster.servers["A"].players("g") == ["P2"]
        event = await p2.send("y")
        await cluster.settle()
        assert ledger(cluster).fate(event, "P1") is None
    assert ledger(cluster).balances


async def test_a_leave_is_heard_while_redis_is_away() -> None:
    """A send that fails does not keep the server from hearing that the player leaves."""
    async with open_cluster(redis="embedded") as cluster:
        p1, p2 = await cluster.join("P1", "P2", server="A")
        assert cluster.redis is not None
        await cluster.redis.stop()
        await p1.send("lost")
        await p1.leave()
        await cluster.redis.start()
        await cluster.settle()
        event = await p2.send("y")
        await cluster.settle()
        assert ledger(cluster).fate(event, "P1") is None


async def test_another_game_is_not_in_the_books(cluster: Cluster) -> None:
    """A client of another game, even under a player's name, is owed nothing and changes nothing."""
    [p1] = await cluster.join("P1", server="A")
    async with dial(cluster.servers["B"].url) as x, dial(cluster.servers["A"].url) as y:
        await x.join("X", game="other")
        await y.join("Y", game="other")
        await x.say("send", id="1", body="elsewhere")
        await x.hear()
        await p1.send("hi")
        await cluster.settle()
    found = ledger(cluster)
    assert (found.players, found.heard, found.missed) == (["P1"], 1, 0)
    assert {getattr(item, "player", "P1") for item in tell(cluster.trace).items} == {"P1"}


async def test_two_reconnects_at_once_both_end_connected(cluster: Cluster) -> None:
    """One follows the other, and on return of each the player is connected."""
    [p1] = await cluster.join("P1", server="A")
    await within(asyncio.gather(p1.reconnect("B"), p1.reconnect("B")))
    assert (p1.connected, p1.server) == (True, "B")
    await within(asyncio.gather(p1.disconnect(), p1.reconnect("A")))
    assert (p1.connected, p1.server) == (True, "A")
    await within(asyncio.gather(p1.reconnect("B"), p1.disconnect()))
    assert not p1.connected


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_a_reconnect_gets_its_server_though_the_player_was_coming_back(turns: int) -> None:
    """An attempt of its own that is under way does not use up what was asked for."""
    async with open_cluster(broker="none", balance="sticky") as cluster:
        [p1] = await cluster.join("P1", server="A")
        assert p1._socket is not None
        p1._socket.transport.abort()
        for _ in range(turns):
            await asyncio.sleep(0)
        for server in ("A", "B"):
            await p1.reconnect(server)
            assert p1.server == server


@pytest.mark.parametrize("server", ["A", "B"])
async def test_a_players_name_is_taken_on_every_server(server: str) -> None:
    """A stranger who comes as P1 is refused wherever P1 is, and P1 itself may move."""
    async with open_cluster(broker="none") as cluster:
        [p1] = await cluster.join("P1", server="A")
        async with dial(cluster.servers[server].url) as stranger:
            refused = await stranger.ask("join", game="g", player="P1")
            assert (refused["type"], refused["code"]) == ("error", "name-taken")
            await stranger.join("P2")
            with pytest.raises(ValueError, match="P2 is in the game already"):
                await cluster.join("P2")
        await p1.reconnect("B")
        assert p1.server == "B"


async def test_other_scripts_are_drawn_without_a_warning() -> None:
    """Letters that no font of this machine has cost nobody a line on stderr."""
    async with open_cluster(broker="none") as cluster:
        [p1] = await cluster.join("小明")
        await p1.send("👋🏽 नमस्ते")
        await cluster.settle()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert timeline(cluster)._repr_png_().startswith(b"\x89PNG")


async def test_a_wrong_redis_is_refused_also_where_none_is_needed() -> None:
    """A slip in the name shows at once, not in the first lesson that uses it."""
    with pytest.raises(ValueError, match="unknown redis 'bogus'"):
        await open_cluster(broker="none", redis="bogus")


async def test_a_cluster_starts_once() -> None:
    """Starting it again, running or stopped, says what to do, and leaves it as it was."""
    opening = open_cluster(broker="none")
    cluster = await opening
    with pytest.raises(RuntimeError, match="open another"):
        await opening
    [p1] = await cluster.join("P1")
    assert p1.connected
    await cluster.stop()
    with pytest.raises(RuntimeError, match="open another"):
        await cluster.start()


def test_who_was_too_slow_once_is_not_so_for_ever() -> None:
    """A client that joins again starts afresh, also one that leaves no records of its own."""
    trace = Trace(broker="none", servers=["A"])
    trace.append("join", "A", "R")
    trace.append("fault", "A", "R", reason="too slow")
    trace.append("disconnect", "A", "R")
    trace.append("join", "A", "R")
    trace.append("join", "A", "S")
    trace.append("receive", "A", "S", "S-1", body="x")
    trace.append("relay", "A", "", "S-1")
    trace.append("deliver", "A", "S", "S-1")
    trace.append("settle", "scenario")
    assert ledger(trace).missed_by("R") == [("S-1", "player away")]
