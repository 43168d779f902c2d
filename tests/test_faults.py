"""Faults: what they do, that they end with their block, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import gc
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import psutil
import pytest

from tests.conftest import (
    bodies,
    cancelled_after,
    children,
    eventually,
    listeners,
    more,
    recorded,
    tasks,
    within,
)
from wsdemo import Cluster, faults, ledger, open_cluster
from wsdemo import server as server_module
from wsdemo.brokers import redis_broker as broker_module
from wsdemo.limits import Limits
from wsdemo.player import NotConnected, Player
from wsdemo.protocol import MAX_BODY
from wsdemo.redis.backend import EmbeddedRedis
from wsdemo.trace import Trace

Record = tuple[str, str, str, str]


@dataclass(frozen=True)
class Fault:
    """One of the context managers, and all that it is to be."""

    block: Callable[[Cluster], AbstractAsyncContextManager[None]]
    at: str
    peer: str
    broken: str
    healed: str
    holds: Callable[[Cluster], bool]
    by_hand: Callable[[Cluster], Awaitable[None] | None]
    again: str  # what is said to whoever breaks it once more

    def records(self) -> list[Record]:
        """The fault and its cure."""
        return [
            ("fault", self.at, self.peer, self.broken),
            ("heal", self.at, self.peer, self.healed),
        ]


OF_PLAYERS = {
    "link cut": Fault(
        lambda c: faults.link_cut(c.players["P1"]),
        *("P1", "balancer", "link cut", "link mended"),
        lambda c: c.players["P1"].is_cut_off and c.players["P1"]._socket is None,
        lambda c: c.players["P1"].mend_link(),
        r"P1's link is cut already; `p1\.mend_link\(\)` first",
    ),
    "reader stalled": Fault(
        lambda c: faults.reader_stalled(c.players["P1"]),
        *("P1", "", "stalled", "reads on"),
        lambda c: c.players["P1"].is_cut_off and c.players["P1"].connected,
        lambda c: c.players["P1"].go_on_reading(),
        r"P1 reads nothing already; `p1\.go_on_reading\(\)` first",
    ),
}
OF_SERVERS = {
    "server killed": Fault(
        lambda c: faults.server_killed(c, "A"),
        *("A", "", "killed", "restarted"),
        lambda c: c.server_state("A") == "down",
        lambda c: c.restart_server("A"),
        r"A is down already; `await cluster\.restart_server\('A'\)` first",
    ),
    "server frozen": Fault(
        lambda c: faults.server_frozen(c, "A"),
        *("A", "", "frozen", "thawed"),
        lambda c: c.server_state("A") == "frozen",
        lambda c: c.thaw_server("A"),
        r"A is frozen already; `await cluster\.thaw_server\('A'\)` first",
    ),
}
OF_REDIS = {
    "redis stopped": Fault(
        lambda c: faults.redis_stopped(c),
        *("redis", "", "stopped", "started"),
        lambda c: c.redis_state == "down",
        lambda c: c.start_redis(),
        r"Redis is down already; `await cluster\.start_redis\(\)` first",
    ),
    "redis stopped, to keep": Fault(
        lambda c: faults.redis_stopped(c, keep=True),
        *("redis", "", "stopped", "started"),
        lambda c: c.redis_state == "down",
        lambda c: c.start_redis(),
        r"Redis is down already; `await cluster\.start_redis\(\)` first",
    ),
    "redis killed": Fault(
        lambda c: faults.redis_killed(c),
        *("redis", "", "killed", "started"),
        lambda c: c.redis_state == "down",
        lambda c: c.start_redis(),
        r"Redis is down already; `await cluster\.start_redis\(\)` first",
    ),
    "redis frozen": Fault(
        lambda c: faults.redis_frozen(c),
        *("redis", "", "frozen", "thawed"),
        lambda c: c.redis_state == "frozen",
        lambda c: c.thaw_redis(),
        r"Redis is frozen already; `await cluster\.thaw_redis\(\)` first",
    ),
}
OF_LINKS = {
    "redis link cut": Fault(
        lambda c: faults.redis_link_cut(c, "A"),
        *("A", "redis", "link cut", "link mended"),
        lambda c: c.redis_link_is_cut("A"),
        lambda c: c.mend_redis_link("A"),
        r"A's link to Redis is cut already; `await cluster\.mend_redis_link\('A'\)` first",
    ),
    "reply lost": Fault(
        lambda c: faults.reply_lost(c, "A"),
        *("A", "redis", "reply lost", "reply lost"),
        lambda c: c._parts.lines["A"].replies_to_lose == 1,
        lambda c: c.lose_redis_replies("A", 0),
        r"Replies to server A are lost already; `cluster\.lose_redis_replies\('A', 0\)` first",
    ),
}
FAULTS = {**OF_PLAYERS, **OF_SERVERS, **OF_REDIS, **OF_LINKS}

# Each broker and each Redis, and the faults that are others there.
WHERE: list[tuple[str, str, dict[str, Fault]]] = [
    ("none", "fake", {**OF_PLAYERS, **OF_SERVERS}),
    ("pubsub", "fake", FAULTS),
    ("stream", "fake", FAULTS),
    ("queue", "fake", FAULTS),
    ("pubsub", "embedded", {**OF_REDIS, **OF_LINKS}),
    ("stream", "embedded", {**OF_REDIS, **OF_LINKS}),
]


def records(trace: Trace) -> list[Record]:
    """What was broken and healed on purpose; nobody's noticing of it."""
    found = trace.select("fault", "heal")
    noticed = [r for r in found if r.at == "balancer" or r.data["reason"] == "too slow"]
    return [(r.kind, r.at, r.peer, r.data["reason"]) for r in found if r not in noticed]


def causes(cluster: Cluster, player: str) -> dict[str, str]:
    """Why this player missed what it missed, by what was said."""
    book = ledger(cluster)
    return {book.body(event): cause for event, cause in book.missed_by(player)}


async def settled(cluster: Cluster) -> None:
    """Settle, and see that everything is decided, each miss with a cause."""
    await cluster.settle()
    book = ledger(cluster)
    assert (book.balances, book.pending) == (True, 0), book


@contextmanager
def impatience() -> Iterator[None]:
    """Redis is given up soon; only where it is broken, for a busy machine is slow, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker_module, "ANSWER_TIMEOUT", 0.1)
        yield


class TestEach:
    @pytest.mark.parametrize(("broker", "redis", "those"), WHERE)
    async def test_holds_in_its_block_and_no_longer(
        self, broker: str, redis: str, those: dict[str, Fault]
    ) -> None:
        """It is so inside, healed at the end, and both are recorded; then all hear each other."""
        async with open_cluster(["A", "B"], broker, redis) as cluster:
            [p1] = await cluster.join("P1", server="A")
            [p2] = await cluster.join("P2", server="B")
            for name, fault in those.items():
                before = len(records(cluster.trace))
                async with fault.block(cluster):
                    assert records(cluster.trace)[before:] == fault.records()[:1]
                    await eventually(lambda: fault.holds(cluster))  # noqa: B023
                assert records(cluster.trace)[before:] == fault.records()
                assert not fault.holds(cluster)
                await settled(cluster)
                for player in (p1, p2):
                    await player.send(name)
                    await settled(cluster)
                if broker == "none" and p1.server != p2.server:
                    assert bodies(p1.heard)[-1:] == bodies(p2.heard)[-1:] == [name]
                else:
                    assert bodies(p1.heard)[-2:] == bodies(p2.heard)[-2:] == [name, name]

    async def test_is_healed_when_the_block_fails(self) -> None:
        """The error goes on to the caller, as it was."""
        async with open_cluster() as cluster:
            await cluster.join("P1", server="A")
            for fault in FAULTS.values():
                before = len(records(cluster.trace))
                with pytest.raises(ZeroDivisionError):
                    async with fault.block(cluster):
                        raise ZeroDivisionError
                assert records(cluster.trace)[before:] == fault.records()
                assert not fault.holds(cluster)
                await settled(cluster)

    async def test_may_be_healed_by_hand(self) -> None:
        """Then the end of the block has nothing to do."""
        async with open_cluster() as cluster:
            await cluster.join("P1", server="A")
            for fault in FAULTS.values():
                before = len(records(cluster.trace))
                async with fault.block(cluster):
                    healing = fault.by_hand(cluster)
                    if healing is not None:
                        await healing
                    assert not fault.holds(cluster)
                assert records(cluster.trace)[before:] == fault.records()
                await settled(cluster)

    async def test_says_what_to_do_if_it_is_so_already(self) -> None:
        """The second one is refused, and the first one holds on and is healed at its own end."""
        async with open_cluster() as cluster:
            await cluster.join("P1", server="A")
            for fault in FAULTS.values():
                before = len(records(cluster.trace))
                async with fault.block(cluster):
                    await eventually(lambda: fault.holds(cluster))  # noqa: B023
                    for _ in range(2):
                        with pytest.raises(RuntimeError, match=fault.again):
                            async with fault.block(cluster):
                                pytest.fail("it has begun")
                    assert fault.holds(cluster)
                assert records(cluster.trace)[before:] == fault.records()
                await settled(cluster)

    @pytest.mark.parametrize("redis", ["fake", "embedded"])
    async def test_does_not_hold_up_a_stop(self, redis: str) -> None:
        """The end of its block is no error, and no task, port or process is left."""
        before, ports, processes = tasks(), listeners(), children()
        for name, fault in (OF_REDIS if redis == "embedded" else FAULTS).items():
            cluster = await open_cluster(redis=redis)
            [p1] = await cluster.join("P1", server="A")
            async with fault.block(cluster):
                await within(cluster.stop(), 2)
            assert records(cluster.trace) == fault.records()[:1]
            await eventually(lambda: not tasks() - before)
            for late in (fault.block(cluster), faults.link_cut(p1)):
                with pytest.raises(RuntimeError, match="is stopped; open another"):
                    async with late:
                        pytest.fail("there is nothing to break")
            assert listeners() == ports, name
        assert not children() - processes

    @pytest.mark.parametrize("broker", ["none", "stream"])
    async def test_ends_with_its_run(self, broker: str) -> None:
        """A new start has whole parts, and the end of the block breaks nothing of it."""
        for name, fault in FAULTS.items():
            async with open_cluster(["A"]) as cluster:
                p1, p2 = await cluster.join("P1", "P2")
                async with AsyncExitStack() as stack:
                    await stack.enter_async_context(fault.block(cluster))
                    if name == "link cut":
                        await eventually(lambda: not p1.connected)  # noqa: B023
                    await within(cluster.change_broker(broker), 4)
                    await p2.send("x")
                    await settled(cluster)
                    assert bodies(p1.heard) == ["x"], name
                assert records(cluster.trace) == []
                await settled(cluster)

    async def test_heals_nothing_of_another_run(self) -> None:
        """What is broken in the new one is so for whoever has broken it there."""
        async with open_cluster() as cluster:
            for fault in (*OF_SERVERS.values(), *OF_REDIS.values()):
                async with AsyncExitStack() as stack:
                    async with fault.block(cluster):
                        await cluster.change_broker("pubsub")
                        await stack.enter_async_context(fault.block(cluster))
                    assert fault.holds(cluster)
                assert records(cluster.trace) == fault.records()

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
    async def test_is_healed_when_a_cell_is_interrupted(self, fault: Fault) -> None:
        """Wherever that is, also while the part is about to break or to heal."""
        turns, how = 0, ""
        while how != "finished before":
            async with open_cluster() as cluster:
                await cluster.join("P1", server="A")
                how = await cancelled_after(turns, partial(_through, fault, cluster))
                assert records(cluster.trace) in ([], fault.records()), f"after {turns} turns"
                assert not fault.holds(cluster), f"after {turns} turns"
                await settled(cluster)
            turns = more(turns)

    @pytest.mark.parametrize("fault", ["server killed", "redis stopped", "redis link cut"])
    async def test_may_end_while_the_cluster_stops(self, fault: str) -> None:
        """In whatever moment: what heals a stopped cluster has nothing to do."""
        turns, done = 0, False
        while not done:
            cluster = await open_cluster()
            going = asyncio.create_task(_through(FAULTS[fault], cluster))
            for _ in range(turns):
                await asyncio.sleep(0)
            done = going.done()
            is_broken = bool(records(cluster.trace))
            await within(cluster.stop())
            try:
                await going
            except RuntimeError:
                assert not is_broken, f"after {turns} turns"
            turns = more(turns)


async def _through(fault: Fault, cluster: Cluster) -> None:
    async with fault.block(cluster):
        await asyncio.sleep(0)


class TestWhatCannotBreak:
    async def test_a_redis_at_a_url(self) -> None:
        """It is somebody else's, and the error says what to use; a link to it can be cut."""
        async with EmbeddedRedis() as other, open_cluster(redis=other.url) as cluster:
            [p1] = await cluster.join("P1", server="A")
            for fault in OF_REDIS.values():
                with pytest.raises(RuntimeError, match=r"somebody else's.*redis=\"embedded\""):
                    async with fault.block(cluster):
                        pytest.fail("it has begun")
            assert records(cluster.trace) == []
            for fault in OF_LINKS.values():
                async with fault.block(cluster):
                    pass
                await settled(cluster)
            await p1.send("x")
            await settled(cluster)
            assert bodies(p1.heard) == ["x"]

    async def test_where_there_is_no_redis(self) -> None:
        """The error says so."""
        async with open_cluster(broker="none") as cluster:
            for fault in (*OF_REDIS.values(), *OF_LINKS.values()):
                with pytest.raises(RuntimeError, match="There is no Redis in this cluster"):
                    async with fault.block(cluster):
                        pytest.fail("it has begun")
            assert records(cluster.trace) == []

    async def test_a_server_that_there_is_not(self) -> None:
        """The error lists those there are."""
        async with open_cluster() as cluster:
            for fault in (
                faults.server_killed,
                faults.server_frozen,
                faults.redis_link_cut,
                faults.reply_lost,
            ):
                with pytest.raises(ValueError, match="unknown server 'C'; there are: A, B"):
                    async with fault(cluster, "C"):
                        pytest.fail("it has begun")

    async def test_a_player_that_has_left(self) -> None:
        """The error says that it has."""
        async with open_cluster(broker="none") as cluster:
            [p1] = await cluster.join("P1", server="A")
            await p1.leave()
            for fault in (faults.link_cut, faults.reader_stalled):
                with pytest.raises(RuntimeError, match="P1 has left the game"):
                    async with fault(p1):
                        pytest.fail("it has begun")
            assert records(cluster.trace) == []


class TestOneInTheOther:
    @pytest.mark.parametrize("redis", ["fake", "embedded"])
    async def test_all_at_once(self, redis: str) -> None:
        """Each is healed at its own end, and afterwards everyone hears everyone."""
        async with open_cluster(["A", "B", "C"], "pubsub", redis) as cluster:
            p1, p2, p3 = await cluster.join("P1", "P2", "P3")
            async with (
                faults.link_cut(p1),
                faults.reader_stalled(p2),
                faults.server_killed(cluster, "A"),
                faults.server_frozen(cluster, "B"),
                faults.redis_link_cut(cluster, "C"),
                faults.reply_lost(cluster, "C"),
                faults.redis_stopped(cluster),
            ):
                with impatience():
                    await p3.send("lost")
                    await cluster.settle()
            await settled(cluster)
            assert [record[0] for record in records(cluster.trace)] == ["fault"] * 7 + ["heal"] * 7
            await p1.send("x")
            await settled(cluster)
            assert [bodies(p.heard) for p in (p1, p2, p3)] == [["x"]] * 3

    async def test_of_another_part(self) -> None:
        """A fault may begin and end while another one holds."""
        async with open_cluster() as cluster:
            p1, p2 = await cluster.join("P1", "P2")
            async with faults.link_cut(p1):
                for fault in (*OF_SERVERS.values(), *OF_REDIS.values(), *OF_LINKS.values()):
                    async with fault.block(cluster):
                        pass
                    await cluster.settle()
                    assert p1.is_cut_off
                async with faults.link_cut(p2):
                    pass
            await settled(cluster)
            assert (p1.connected, p2.connected) == (True, True)


class TestAPlayer:
    @pytest.mark.parametrize("broker", ["none", "pubsub", "stream", "queue"])
    async def test_whose_link_is_cut_comes_back_by_itself(self, broker: str) -> None:
        """Settle works meanwhile; what a broker keeps is heard later, the rest was missed."""
        async with open_cluster(["A", "B"], broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            async with faults.link_cut(p1):
                await eventually(lambda: not p1.connected)
                await p2.send("meanwhile")
                await cluster.settle()
                assert (bodies(p1.heard), bodies(p2.heard)) == ([], ["meanwhile"])
                assert ledger(cluster).pending == (broker in ("stream", "queue"))
                with pytest.raises(NotConnected, match="while disconnected"):
                    await p1.send("x")
                assert not p1.connected
            await settled(cluster)
            assert p1.connected
            if broker in ("stream", "queue"):
                assert bodies(p1.heard) == ["meanwhile"]
                assert p1.recovered
            else:
                assert causes(cluster, "P1") == {"meanwhile": "player away"}

    async def test_whose_link_is_cut_may_be_told_to_wait(self) -> None:
        """An event to be confirmed is said again once it is back, and is kept once."""
        async with open_cluster(broker="stream") as cluster:
            p1, p2 = await cluster.join("P1", "P2")
            for turns in range(1, 20, 6):
                saying = asyncio.create_task(p1.send(f"{turns}", confirm=True))
                for _ in range(turns):
                    await asyncio.sleep(0)
                async with faults.link_cut(p1):
                    await eventually(lambda: not p1.connected)
                    await cluster.settle()
                await within(saying)
                await settled(cluster)
            assert bodies(p1.heard) == bodies(p2.heard) == [f"{n}" for n in range(1, 20, 6)]
            assert ledger(cluster).twice == 0

    @pytest.mark.parametrize("broker", ["none", "pubsub", "stream", "queue"])
    async def test_that_does_not_read_is_held_up(self, broker: str) -> None:
        """What it is to hear is pending; it reads on at the end, and has missed nothing."""
        async with open_cluster(["A", "B"], broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            said = [f"{n}" for n in range(50)]
            async with faults.reader_stalled(p1):
                for body in said:
                    await p2.send(body)
                await cluster.settle()
                assert (bodies(p1.heard), bodies(p2.heard)) == ([], said)
                book = ledger(cluster)
                assert (book.pending, book.missed) == (50, 0)
            await settled(cluster)
            assert bodies(p1.heard) == said
            assert not cluster.trace.select("disconnect", peer="P1")

    @pytest.mark.parametrize("broker", ["pubsub", "stream"])
    async def test_that_does_not_read_is_cut_off_in_the_end(
        self, broker: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Past the server's limit it is too slow; what it misses has that cause, if it misses."""
        monkeypatch.setattr(server_module, "Limits", lambda: Limits(max_waiting=2**17))
        async with open_cluster(["A"], broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2")
            async with faults.reader_stalled(p1):
                said = 0
                while not cluster.trace.select("fault", at="A"):
                    await p2.send(f"{said}".ljust(MAX_BODY, "x"))
                    said += 1
                    await eventually(lambda: len(p2.heard) == said)  # noqa: B023
                    assert said * MAX_BODY < 64 * 2**20, "it is still not cut off"
                await cluster.settle()
                [fault] = cluster.trace.select("fault", at="A")
                assert (fault.peer, fault.data["reason"]) == ("P1", "too slow")
                assert cluster.servers["A"].players("g") == ["P2"]
                assert p1.heard == []
            await settled(cluster)
            assert (p1.connected, len(p2.heard)) == (True, said)
            if broker == "stream":
                assert bodies(p1.heard) == bodies(p2.heard)
            else:
                missed = causes(cluster, "P1")
                assert set(missed.values()) == {"player too slow"}
                assert len(missed) + len(p1.heard) == said
            await p2.send("again")
            await settled(cluster)
            assert bodies(p1.heard)[-1] == "again"


class TestAServer:
    @pytest.mark.parametrize("redis", ["fake", "embedded"])
    async def test_that_cannot_reach_redis(self, redis: str) -> None:
        """The other server's players hear each other; its own miss that, as it is not there."""
        async with open_cluster(["A", "B"], "pubsub", redis) as cluster:
            [p1] = await cluster.join("P1", server="A")
            p2, p3 = await cluster.join("P2", "P3", server="B")
            async with faults.redis_link_cut(cluster, "A"):
                await recorded(cluster.trace, "disconnect", at="A", peer="redis")
                await p2.send("of B")
                await p1.send("of A")
                await settled(cluster)
                assert bodies(p2.heard) == bodies(p3.heard) == ["of B"]
                assert p1.heard == []
                assert causes(cluster, "P1") == {
                    "of B": "server not subscribed",
                    "of A": "server without Redis",
                }
                assert causes(cluster, "P2") == {"of A": "server without Redis"}
                assert p1.errors[-1].code == "broker-down"
                assert p1.connected
            await settled(cluster)
            assert cluster.trace.select("gap", at="A", peer="redis")
            await p2.send("x")
            await settled(cluster)
            assert (bodies(p1.heard), bodies(p2.heard)) == (["x"], ["of B", "x"])

    @pytest.mark.parametrize("redis", ["fake", "embedded"])
    @pytest.mark.parametrize("broker", ["stream", "queue"])
    async def test_that_cannot_reach_what_is_kept(self, broker: str, redis: str) -> None:
        """Its players hear everything, in order, once it can."""
        async with open_cluster(["A", "B"], broker, redis) as cluster:
            [p1] = await cluster.join("P1", server="A")
            [p2] = await cluster.join("P2", server="B")
            async with faults.redis_link_cut(cluster, "A"):
                saying = asyncio.create_task(p1.send("of A", confirm=True))
                await p2.send("of B")
                await cluster.settle()
                assert (bodies(p1.heard), bodies(p2.heard)) == ([], ["of B"])
                assert not saying.done()
            await within(saying)
            await settled(cluster)
            assert bodies(p1.heard) == bodies(p2.heard) == ["of B", "of A"]

    @pytest.mark.parametrize("redis", ["fake", "embedded"])
    async def test_that_gets_no_reply_does_not_know(self, redis: str) -> None:
        """Under Pub/Sub the event is out; whoever says it again is heard twice."""
        async with open_cluster(["A", "B"], "pubsub", redis) as cluster:
            [p1] = await cluster.join("P1", server="A")
            [p2] = await cluster.join("P2", server="B")
            async with faults.reply_lost(cluster, "A"):
                await p2.send("of B")
                await cluster.settle()
                event = await p1.send("x")
                await settled(cluster)
                assert p1.errors[-1].code == "broker-down"
                [unpublished] = cluster.trace.select("unpublished")
                assert (unpublished.at, unpublished.event) == ("A", event)
                assert bodies(p1.heard) == bodies(p2.heard) == ["of B", "x"]
                await p1.send("x", again=event)
                await settled(cluster)
                assert bodies(p1.heard) == bodies(p2.heard) == ["of B", "x", "x"]
            assert ledger(cluster).twice == 2
            assert ledger(cluster).missed == 0

    @pytest.mark.parametrize("redis", ["fake", "embedded"])
    @pytest.mark.parametrize("broker", ["stream", "queue"])
    async def test_that_gets_no_reply_says_it_again(self, broker: str, redis: str) -> None:
        """Where events are kept, a retry is known by its id: it is confirmed, and heard once."""
        async with open_cluster(["A", "B"], broker, redis) as cluster:
            [p1] = await cluster.join("P1", server="A")
            [p2] = await cluster.join("P2", server="B")
            async with faults.reply_lost(cluster, "A", replies=3):
                first = await within(p1.send("x", confirm=True))
                assert cluster._parts.lines["A"].replies_to_lose == 0
                second = await within(p1.send("y", confirm=True))
            await settled(cluster)
            assert second == first + 1
            assert bodies(p1.heard) == bodies(p2.heard) == ["x", "y"]
            assert [r.data["is_new"] for r in cluster.trace.select("store")] == [False, True]
            assert len(cluster.trace.select("unpublished")) == 3
            assert len(cluster.trace.select("send", at="P1")) == 5
            assert ledger(cluster).twice == 0
            assert records(cluster.trace) == OF_LINKS["reply lost"].records()

    async def test_that_is_gone_loses_what_was_for_it(self) -> None:
        """Its players go elsewhere at once, and another process has its place at the end."""
        async with open_cluster() as cluster:
            [p1] = await cluster.join("P1", server="A")
            [p2] = await cluster.join("P2", server="B")
            former = cluster.servers["A"]
            async with faults.server_killed(cluster, "A"):
                await settled(cluster)
                assert p1.server == "B"
            assert cluster.servers["A"] is not former
            assert cluster.servers["A"].url == former.url
            await p2.reconnect(server="A")
            await p1.send("x")
            await settled(cluster)
            assert bodies(p2.heard) == ["x"]

    async def test_that_stands_still_holds_up_its_players(self) -> None:
        """What they say and hear is pending, and comes at the end."""
        async with open_cluster() as cluster:
            [p1] = await cluster.join("P1", server="A")
            [p2] = await cluster.join("P2", server="B")
            async with faults.server_frozen(cluster, "A"):
                await p1.send("1")
                await p2.send("2")
                await cluster.settle()
                assert (bodies(p1.heard), bodies(p2.heard)) == ([], ["2"])
                assert ledger(cluster).pending == 3
            await settled(cluster)
            assert set(bodies(p1.heard)) == set(bodies(p2.heard)) == {"1", "2"}


class TestRedis:
    @pytest.mark.parametrize("redis", ["fake", "embedded"])
    @pytest.mark.parametrize("fault", ["redis stopped", "redis stopped, to keep", "redis killed"])
    async def test_that_is_down_carries_nothing(self, fault: str, redis: str) -> None:
        """Under Pub/Sub what is said meanwhile is lost, and the ledger says why."""
        async with open_cluster(redis=redis) as cluster:
            p1, p2 = await cluster.join("P1", "P2")
            async with FAULTS[fault].block(cluster):
                await p1.send("meanwhile")
                await settled(cluster)
                assert causes(cluster, "P1") == causes(cluster, "P2") == {"meanwhile": "redis down"}
            await settled(cluster)
            await p1.send("x")
            await settled(cluster)
            assert bodies(p1.heard) == bodies(p2.heard) == ["x"]

    @pytest.mark.parametrize("redis", ["fake", "embedded"])
    @pytest.mark.parametrize("broker", ["stream", "queue"])
    @pytest.mark.parametrize("fault", ["redis stopped", "redis stopped, to keep", "redis killed"])
    async def test_that_was_down_goes_on_or_begins_anew(
        self, fault: str, broker: str, redis: str
    ) -> None:
        """What it has kept is not told again, what it has lost is told of; then all is heard."""
        is_kept = fault == "redis stopped, to keep"
        async with open_cluster(broker=broker, redis=redis) as cluster:
            p1, p2 = await cluster.join("P1", "P2")
            await p1.send("before", confirm=True)
            await settled(cluster)
            async with FAULTS[fault].block(cluster):
                saying = asyncio.create_task(p1.send("meanwhile", confirm=True))
                await cluster.settle()
                assert not saying.done()
            number = await within(saying)
            await settled(cluster)
            assert number == (2 if is_kept else 1)
            for player in (p1, p2):
                if broker == "queue" and not is_kept and len(player.heard) == 1:
                    # The other server was back before, and the event not for this one's players.
                    assert causes(cluster, player.name) == {"meanwhile": "lost with Redis"}
                else:
                    assert bodies(player.heard) == ["before", "meanwhile"]
            gaps = [gap.reason for player in (p1, p2) for gap in player.gaps]
            assert gaps == ([] if is_kept else ["new epoch"] * 2)
            assert ledger(cluster).twice == 0

    @pytest.mark.parametrize("broker", ["stream", "queue"])
    async def test_with_its_file_loses_nothing_when_it_is_killed(self, broker: str) -> None:
        """The next one has all that was confirmed, and goes on with its numbers."""
        async with open_cluster(broker=broker, redis="embedded", persistence="always") as cluster:
            p1, p2 = await cluster.join("P1", "P2")
            async with faults.link_cut(p2):
                assert await within(p1.send("before", confirm=True)) == 1
                async with faults.redis_killed(cluster):
                    saying = asyncio.create_task(p1.send("meanwhile", confirm=True))
                    await cluster.settle()
                assert await within(saying) == 2
            await settled(cluster)
            assert bodies(p1.heard) == bodies(p2.heard) == ["before", "meanwhile"]
            assert (p1.gaps, p2.gaps) == ([], [])

    @pytest.mark.parametrize("redis", ["fake", "embedded"])
    @pytest.mark.parametrize("broker", ["pubsub", "stream", "queue"])
    async def test_that_stands_still_is_behind(self, broker: str, redis: str) -> None:
        """What it has been given is pending, and heard by everyone once it goes on."""
        async with open_cluster(broker=broker, redis=redis) as cluster:
            p1, p2 = await cluster.join("P1", "P2")
            await p1.send("first")
            await settled(cluster)
            async with faults.redis_frozen(cluster):
                with impatience():
                    await p1.send("meanwhile")
                    await recorded(cluster.trace, "unpublished")
                    await cluster.settle()
                assert bodies(p1.heard) == bodies(p2.heard) == ["first"]
                assert ledger(cluster).pending == 2
            await settled(cluster)
            assert bodies(p1.heard) == bodies(p2.heard) == ["first", "meanwhile"]


@pytest.mark.parametrize("redis", ["fake", "embedded"])
@pytest.mark.parametrize("broker", ["pubsub", "stream"])
async def test_twenty_restarts_leave_nothing_behind(broker: str, redis: str) -> None:
    """The cluster still relays, with no more tasks, sockets and objects than after three."""
    async with open_cluster(broker=broker, redis=redis) as cluster:
        p1, p2 = await cluster.join("P1", "P2")
        first: Counter[str] | None = None
        for number in range(20):
            async with faults.redis_stopped(cluster):
                pass
            await settled(cluster)
            await _say(p1, f"{number}", broker)
            await settled(cluster)
            assert bodies(p1.heard)[-1] == bodies(p2.heard)[-1] == f"{number}"
            if number == 2:
                first = _what_there_is()
        assert first is not None
        grown = _what_there_is() - first
        # What the trace and the players keep grows. A connection more or less in a pool may be.
        for kind in ("Record", "Gap", "Event", "Position"):
            del grown[kind]
        assert max(grown.values(), default=0) < 10, grown
        assert len(p1.heard) == len(p2.heard) == 20


async def _say(player: Player, body: str, broker: str) -> None:
    if broker == "pubsub":
        await player.send(body)
    else:
        await within(player.send(body, confirm=True))


def _what_there_is() -> Counter[str]:
    """How many tasks and sockets there are, and objects of each kind that are somebody's here."""
    gc.collect()
    ours = re.compile(r"(wsdemo|redis|fakeredis|websockets|asyncio|_asyncio)\b")
    kinds = Counter(
        type(each).__name__
        for each in gc.get_objects()
        if ours.match(str(getattr(type(each), "__module__", "")))
        # The loop keeps a cancelled timer until its time has come, or until half of them are such.
        and not (isinstance(each, asyncio.TimerHandle) and each.cancelled())
    )
    kinds["tasks"] = len(tasks())
    kinds["sockets"] = len(psutil.Process().net_connections(kind="all"))
    return kinds
