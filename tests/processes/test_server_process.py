"""A cluster whose servers are processes: what can be done, and seen, is the same."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import signal
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_here

from tests.conftest import bodies, children, dial, eventually, listeners, recorded, within
from wsdemo import Cluster, faults, ledger, open_cluster, scenarios
from wsdemo.brokers import BrokerDown
from wsdemo.compare import compare
from wsdemo.limits import Limits
from wsdemo.processes import server_process
from wsdemo.processes.server_process import ServerProcess
from wsdemo.protocol import MAX_BODY
from wsdemo.trace import Kind, Trace

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def process(cluster: Cluster, server: str) -> ServerProcess:
    """A server of the cluster, which is one."""
    found = cluster.servers[server]
    assert isinstance(found, ServerProcess)
    return found


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with open_cluster(broker="pubsub", processes=True) as cluster:
        yield cluster


async def test_the_story_is_the_same_as_in_one_process() -> None:
    """Who misses what, and why, and in which order things happen, does not tell them apart."""
    options = {"brokers": ["none", "pubsub"], "redis": "fake"}
    here = await compare(scenarios.p1_moves_to_b, **options)
    there = await compare(scenarios.p1_moves_to_b, processes=True, **options)
    assert str(ledger(there)) == str(ledger(here))
    for broker in here:
        kinds = [
            sorted((record.kind, record.at, record.peer, record.event) for record in run.trace)
            for run in (here[broker], there[broker])
        ]
        assert kinds[0] == kinds[1]


async def test_causes_come_before_effects_in_the_trace(cluster: Cluster) -> None:
    """Each record has its time, all times are of one clock, and the trace is in their order."""
    p1, p2 = [*await cluster.join("P1", server="A"), *await cluster.join("P2", server="B")]
    for number in range(30):
        await (p1, p2)[number % 2].send("x")
    await cluster.settle()
    assert_in_order(cluster.trace)


def assert_in_order(trace: Trace) -> None:
    """Times grow, and each event is sent, received, relayed, delivered and heard, as it must be."""
    times = [record.t for record in trace]
    assert times == sorted(times)
    assert [record.n for record in trace] == list(range(len(times)))
    order: list[Kind] = ["send", "receive", "relay", "deliver", "hear"]
    for event in {record.event for record in trace.select("send")}:
        kinds = [record.kind for record in trace.select(*order, event=event)]
        first = [kinds.index(kind) for kind in order]
        assert first == sorted(first)
    for heard in trace.select("hear"):
        [delivered] = trace.select("deliver", at=heard.peer, peer=heard.at, event=heard.event)
        assert delivered.n < heard.n


async def test_each_has_a_process_id_and_leaves_nothing() -> None:
    """They are other processes than this one, and gone with the cluster."""
    before = children()
    async with open_cluster(["A", "B"], broker="none", processes=True) as cluster:
        ids = {process(cluster, name).pid for name in cluster.servers}
        assert len(ids | {os.getpid()}) == 3
        assert ids <= {child.pid for child in children()}
    assert not children() - before
    assert [process(cluster, name).state for name in "AB"] == ["down", "down"]


async def test_one_that_somebody_kills_is_down_and_its_players_come_back(cluster: Cluster) -> None:
    """No call of the cluster's ended it, yet the trace says so; a restart is what helps."""
    p1, p2 = await cluster.join("P1", "P2", server="A")
    pid = process(cluster, "A").pid
    assert pid
    os.kill(pid, KILL)
    await within(cluster.until(lambda: p1.server == p2.server == "B"))
    [fault] = cluster.trace.select("fault", at="A")
    assert fault.data["reason"] == "killed"
    gone = cluster.trace.select("disconnect", at="A")
    assert {record.peer for record in gone} == {"P1", "P2"}
    assert cluster.server_state("A") == "down"
    await cluster.restart_server("A")
    await p1.reconnect(server="A")
    await p2.send("here")
    await cluster.settle()
    assert bodies(p1.heard) == ["here"]
    assert ledger(cluster).balances


async def test_one_that_somebody_has_just_killed_can_be_restarted_at_once(cluster: Cluster) -> None:
    """Whoever restarts it may know before we do; the trace has its end before its return."""
    [p1] = await cluster.join("P1", server="A")
    pid = process(cluster, "A").pid
    assert pid
    os.kill(pid, KILL)
    await eventually(lambda: cluster.server_state("A") == "down")
    await cluster.restart_server("A")
    await within(cluster.until(lambda: p1.connected))
    await cluster.settle()
    told = [
        (each.kind, each.data["reason"]) for each in cluster.trace.select("fault", "heal", at="A")
    ]
    assert told == [("fault", "killed"), ("heal", "restarted")]
    assert [each.peer for each in cluster.trace.select("disconnect", at="A")] == ["P1"]


# A server that is killed as soon as it has let a player in.
LETS_IN_AND_DIES = """
import os, signal
from wsdemo.processes import channel
from wsdemo.processes import worker

class Channel(channel.Channel):
    def tell(self, what, *arguments):
        super().tell(what, *arguments)
        if what == "record" and "join" in arguments:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

worker.Channel = Channel
worker.main()
"""


async def test_who_was_let_in_in_its_last_moment_is_gone_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That it lets a player in it says before the player knows; it may have no time for more."""
    monkeypatch.setattr(server_process, "WORKER", [sys.executable, "-c", LETS_IN_AND_DIES])
    async with (
        open_cluster(["A"], broker="none", processes=True) as cluster,
        dial(cluster.servers["A"].url) as client,
    ):
        await client.say("join", game="g", player="P1")
        [gone] = await recorded(cluster.trace, "disconnect", at="A")
    assert gone.peer == "P1"


# A server that tells of a player who was never let in.
TELLS_NONSENSE = """
from wsdemo.processes import channel
from wsdemo.processes import worker

class Channel(channel.Channel):
    def tell(self, what, *arguments):
        super().tell(what, *arguments)
        if what == "record" and "join" in arguments:
            super().tell("record", arguments[0], "disconnect", "A", "P2", "", {"game": "g"})

worker.Channel = Channel
worker.main()
"""


async def test_one_whose_words_make_no_sense_is_gone_and_the_mistake_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fault of ours is not passed over as the end of a process."""
    monkeypatch.setattr(server_process, "WORKER", [sys.executable, "-c", TELLS_NONSENSE])
    mistakes: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: mistakes.append(context["exception"])
    )
    async with (
        open_cluster(["A"], broker="none", processes=True) as cluster,
        dial(cluster.servers["A"].url) as client,
    ):
        await client.say("join", game="g", player="P1")
        await recorded(cluster.trace, "fault", at="A")
        assert cluster.server_state("A") == "down"
    del cluster
    gc.collect()  # so that it is reported
    [mistake] = mistakes
    assert isinstance(mistake, ValueError)


async def test_nothing_that_it_did_stands_after_its_end(cluster: Cluster) -> None:
    """A server is killed in the middle of traffic: its last records come before the fault."""
    p1, p2 = [*await cluster.join("P1", server="A"), *await cluster.join("P2", server="B")]
    for _ in range(200):
        await p1.send("x")
    async with faults.server_killed(cluster, "A"):
        [fault] = await recorded(cluster.trace, "fault", at="A")
        await within(cluster.until(lambda: p1.server == "B"))
    later = [record.kind for record in cluster.trace if record.at == "A" and record.n > fault.n]
    assert set(later[: later.index("heal")]) <= {"disconnect"}
    await p2.send("go on")
    await cluster.settle()
    assert ledger(cluster).balances


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot freeze a process")
async def test_a_frozen_one_says_nothing_and_holds_up_nobody_else(cluster: Cluster) -> None:
    """Others settle meanwhile; when it goes on, its players hear what has waited."""
    p1, p2, p3 = [
        *await cluster.join("P1", server="A"),
        *await cluster.join("P2", "P3", server="B"),
    ]
    async with faults.server_frozen(cluster, "A"):
        await p2.send("meanwhile")
        await cluster.settle()
        assert bodies(p3.heard) == ["meanwhile"]
        assert bodies(p1.heard) == []
    await cluster.settle()
    assert bodies(p1.heard) == ["meanwhile"]
    source = process(cluster, "A")._source
    assert source
    assert math.isfinite(source.reached), "its records are waited for again"
    for _ in range(30):
        await p2.send("later")
    await cluster.settle()
    assert_in_order(cluster.trace)


async def test_one_that_is_not_listened_to_holds_its_players_up() -> None:
    """While a cell blocks, what it has to tell does not fill its memory; later, all is told."""
    async with open_cluster(["A"], broker="none", processes=True) as cluster:
        with (
            connect_here(cluster.servers["A"].url, proxy=None) as client,
            ThreadPoolExecutor() as us,
        ):
            client.send(json.dumps({"type": "join", "game": "g", "player": "P1"}))
            await asyncio.to_thread(client.recv)
            said = us.submit(_talk_until_nothing_comes_back, client, 4000).result()  # it blocks
            assert said < 4000
            await asyncio.to_thread(client.recv)
            client.send(json.dumps({"type": "leave"}))
        await recorded(cluster.trace, "leave", at="A")
        assert len(cluster.trace.select("deliver", at="A", peer="P1")) == said


def _talk_until_nothing_comes_back(client: ClientConnection, most: int) -> int:
    """How often it has said something."""
    for said in range(1, most):
        body = f"{said}".ljust(MAX_BODY)
        client.send(json.dumps({"type": "send", "id": f"{said}", "body": body}))
        try:
            client.recv(timeout=1)
        except TimeoutError:
            return said
    return most


async def test_a_stranger_at_the_door_is_not_taken_for_the_process(cluster: Cluster) -> None:
    """While one starts, any program here can find the port on which it is to call."""
    before = listeners()
    adding = asyncio.create_task(cluster.add_server("C"))
    await eventually(lambda: listeners() - before)
    reader, writer = await asyncio.open_connection(*(listeners() - before).pop())
    writer.write(b"let me in\n")
    assert await within(reader.read()) == b""
    writer.close()
    await writer.wait_closed()
    await within(adding)
    assert cluster.server_state("C") == "up"


async def test_its_link_to_redis_can_be_cut_and_its_replies_lost() -> None:
    """What is done to a line of this process is done to that one's."""
    async with open_cluster(broker="stream", processes=True) as cluster:
        p1, p2 = [*await cluster.join("P1", server="A"), *await cluster.join("P2", server="B")]
        async with faults.redis_link_cut(cluster, "A"):
            await recorded(cluster.trace, "disconnect", at="A", peer="redis")
            await p2.send("while A is cut off")
            await within(cluster.until(lambda: bodies(p2.heard) == ["while A is cut off"]))
            with pytest.raises(BrokerDown, match="out of reach"):
                await cluster.restart_server("A")  # its link is its next process's
            assert cluster.server_state("A") == "down"
        await cluster.restart_server("A")
        await p1.reconnect(server="A")
        await cluster.settle()
        assert bodies(p1.heard) == ["while A is cut off"]
        async with faults.reply_lost(cluster, "A"):
            await p1.send("taken, though nobody said so")
            await cluster.settle()
        assert bodies(p2.heard)[1:] == ["taken, though nobody said so"]
        assert len(cluster.trace.select("unpublished", at="A")) == 1


async def test_a_player_is_in_the_game_once(cluster: Cluster) -> None:
    """A stranger cannot take a name that is taken on another server's process, or a part's."""
    await cluster.join("P1", server="A")
    for name in ("P1", "redis", "B"):
        async with dial(cluster.servers["B"].url) as stranger:
            refused = await stranger.ask("join", game="g", player=name)
            assert refused["code"] == "name-taken"


async def test_limits_hold_there_too() -> None:
    """They are handed over with everything else that a server is told."""
    limits = Limits(max_players=1)
    async with open_cluster(["A"], broker="none", processes=True, limits=limits) as cluster:
        await cluster.join("P1")
        async with dial(cluster.servers["A"].url) as other:
            assert (await other.ask("join", game="g", player="P2"))["code"] == "game-full"


async def test_the_broker_can_be_changed_and_servers_added(cluster: Cluster) -> None:
    """New processes, at the same address, with the same players."""
    [p1] = await cluster.join("P1", server="A")
    url, pid = cluster.url, process(cluster, "A").pid
    await cluster.change_broker("stream")
    assert (cluster.url, p1.server) == (url, "A")
    assert process(cluster, "A").pid != pid
    await cluster.add_server("C")
    [p2] = await cluster.join("P2", server="C")
    await p2.send("hello")
    await cluster.settle()
    assert bodies(p1.heard) == ["hello"]


async def test_one_that_cannot_start_says_why() -> None:
    """And nothing is left of those that could."""
    before = children()
    async with open_cluster(["A"], processes=True) as cluster:
        await cluster.kill_server("A")
        await cluster.servers["A"].stop()  # which lets go of its port
        thief = await asyncio.start_server(lambda *_: None, "127.0.0.1", cluster.servers["A"].port)
        async with thief:
            with pytest.raises((BrokerDown, OSError), match="in use"):
                await within(cluster.restart_server("A"))
        assert cluster.server_state("A") == "down"
    await eventually(lambda: not children() - before)


async def test_the_stage_follows_processes_as_it_follows_servers(cluster: Cluster) -> None:
    """Each record reaches whoever watches the trace, once, in order, while the run goes on."""
    seen: list[int] = []
    cluster.trace.watch(lambda record: seen.append(record.n))
    p1, p2 = await cluster.join("P1", "P2")
    await p2.send("x")
    await within(cluster.until(lambda: bodies(p1.heard) == ["x"]))
    await cluster.settle()
    assert seen == list(range(seen[0], len(cluster.trace)))
