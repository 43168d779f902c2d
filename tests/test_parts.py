"""Parts that are killed, frozen, added and started anew while players play."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from tests.conftest import (
    bodies,
    cancelled_after,
    children,
    dial,
    eventually,
    every_run,
    here,
    listeners,
    more,
    recorded,
    tasks,
    within,
)
from wsdemo import Cluster, ledger, open_cluster
from wsdemo import player as player_module
from wsdemo.brokers import redis_broker as pubsub_module
from wsdemo.parts import MAX_SERVERS, USUAL
from wsdemo.player import NotConnected, Player
from wsdemo.redis.backend import EmbeddedRedis, RedisUnavailable
from wsdemo.trace import Record, Trace


@pytest.fixture
async def embedded() -> AsyncIterator[Cluster]:
    """A cluster with a Redis that can be stopped and frozen."""
    async with open_cluster(redis="embedded") as cluster:
        yield cluster


def faults(trace: Trace) -> list[tuple[str, str, str]]:
    """What was broken and healed, in order, but for what a part has noticed of another."""
    found = [record for record in trace.select("fault", "heal") if not record.peer]
    return [(record.kind, record.at, record.data["reason"]) for record in found]


def assert_balanced(cluster: Cluster) -> None:
    """Everything is decided, and each miss has a cause that the trace proves."""
    book = ledger(cluster)
    assert (book.balances, book.pending) == (True, 0), book
    for fate in book:
        if fate.outcome == "missed":
            about = cluster.trace.select(event=fate.event)
            assert _proves(fate.cause, fate.server, fate.player, about, cluster.trace), fate


def _proves(cause: str, server: str, player: str, about: list[Record], trace: Trace) -> bool:
    kinds = {record.kind for record in about}
    relayed = {record.at for record in about if record.kind == "relay"}
    since = about[0].n
    match cause:
        case "never reached a server":
            return "receive" not in kinds
        case "no broker between servers":
            return trace.about["broker"] == "none" and relayed != {server}
        case "player away":
            return bool(trace.select("disconnect", peer=player))
        case "redis down":
            broken = [("fault", "redis", "stopped"), ("fault", "redis", "frozen")]
            return bool(set(faults(trace)) & set(broken)) and server not in relayed
        case "lost with its server":
            killed = trace.select("fault", at=server) + trace.select("fault", at=about[0].peer)
            return server not in relayed and any(record.n > since for record in killed)
        case "server not subscribed":
            return "publish" in kinds and server not in relayed
    return False


async def settled(cluster: Cluster) -> None:
    """Settle, and see that the ledger balances."""
    await cluster.settle()
    assert_balanced(cluster)


def test_what_is_not_recorded_is_what_a_cluster_does_by_itself() -> None:
    """Whoever reads a trace can take what it does not say for the default."""
    parameters = inspect.signature(open_cluster).parameters
    assert {name: parameters[name].default for name in USUAL} == USUAL


class TestAServerThatIsAdded:
    @every_run
    async def test_is_one_like_the_others(self, broker: str, redis: str) -> None:
        """The balancer sends players to it, it hears what the broker carries, and it is told of."""
        async with open_cluster(["A"], broker, redis) as cluster:
            [p1] = await cluster.join("P1")
            await cluster.add_server("B")
            assert [record.at for record in cluster.trace.select("start")] == ["B"]
            assert cluster.trace.about["servers"] == ["A", "B"]
            [p2] = await cluster.join("P2", server="B")
            assert {(await cluster.join(f"P{n}"))[0].server for n in (3, 4)} == {"A", "B"}
            await p1.send("x")
            await settled(cluster)
            assert bodies(p2.heard) == (["x"] if broker == "pubsub" else [])
            assert cluster.server_state("B") == "up"

    @pytest.mark.parametrize("name", ["A", "redis", "<b>", "", "P1", "x" * 33])
    async def test_has_a_name_of_its_own(self, name: str) -> None:
        """A name that is taken or cannot be is refused, and nothing is started."""
        async with open_cluster(["A"], broker="none") as cluster:
            await cluster.join("P1")
            ports = listeners()
            with pytest.raises(ValueError, match="name"):
                await cluster.add_server(name)
            assert (list(cluster.servers), listeners()) == (["A"], ports)

    async def test_keeps_its_name_from_players(self) -> None:
        """Nobody can join as C once there is a server C, wherever they knock."""
        async with open_cluster(["A"], broker="none") as cluster:
            await cluster.add_server("C")
            with pytest.raises(ValueError, match="name"):
                await cluster.join("C")
            async with dial(cluster.servers["A"].url) as raw:
                assert (await raw.ask("join", game="g", player="C"))["code"] == "name-taken"

    async def test_is_one_of_26_at_most(self) -> None:
        """The next one is refused with a reason."""
        async with open_cluster([f"S{n}" for n in range(MAX_SERVERS)], broker="none") as cluster:
            with pytest.raises(RuntimeError, match="at most 26"):
                await cluster.add_server("one more")


class TestAServerThatIsKilled:
    @every_run
    async def test_its_players_come_back_elsewhere(self, broker: str, redis: str) -> None:
        """No goodbye; the balancer finds out, and the players play on by themselves."""
        async with open_cluster(["A", "B"], broker, redis) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            [p3] = await cluster.join("P3", server="B")
            await cluster.kill_server("A")
            assert cluster.server_state("A") == "down"
            await settled(cluster)
            assert [p.server for p in (p1, p2, p3)] == ["B", "B", "B"]
            await p1.send("x")
            await settled(cluster)
            assert bodies(p1.heard) == bodies(p2.heard) == bodies(p3.heard) == ["x"]
            assert faults(cluster.trace) == [("fault", "A", "killed")]
            [fault] = cluster.trace.select("fault", at="A")
            gone = cluster.trace.select("disconnect", at="A", peer="P1")
            assert [record.n > fault.n for record in gone] == [True]

    async def test_says_no_goodbye(self) -> None:
        """A client's connection ends without a close frame, whatever state it is in."""
        async with open_cluster(broker="none") as cluster:
            url = cluster.servers["A"].url
            half_open = socket.create_connection(("127.0.0.1", cluster.servers["A"].port))
            with half_open:
                async with dial(url) as joined, dial(url) as silent:
                    await joined.join("R1")
                    await cluster.kill_server("A")
                    assert await joined.closed() == (None, "")
                    assert await silent.closed() == (None, "")

    async def test_is_refused_twice_and_its_port_is_kept(self) -> None:
        """A second kill says what to do; nobody else can listen there; a call to it is refused."""
        async with open_cluster(broker="none") as cluster:
            port = cluster.servers["A"].port
            await cluster.kill_server("A")
            with pytest.raises(RuntimeError, match=r"down already.*restart_server\('A'\)"):
                await cluster.kill_server("A")
            with pytest.raises(RuntimeError, match=r"down.*restart_server\('A'\)"):
                await cluster.freeze_server("A")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            with socket.socket() as thief, pytest.raises(OSError, match=r"in use|permitted"):
                thief.bind(("127.0.0.1", port))

    async def test_an_unknown_one_lists_those_there_are(self) -> None:
        """For each thing that can be done to a server."""
        async with open_cluster(broker="none") as cluster:
            for act in (
                cluster.kill_server,
                cluster.restart_server,
                cluster.freeze_server,
                cluster.thaw_server,
            ):
                with pytest.raises(ValueError, match="unknown server 'C'; there are: A, B"):
                    await act("C")
            with pytest.raises(ValueError, match="unknown server 'C'; there are: A, B"):
                cluster.server_state("C")

    @every_run
    async def test_restarts_on_its_port(self, broker: str, redis: str) -> None:
        """As another process would: the same address, no players, a link of its own."""
        async with open_cluster(["A"], broker, redis) as cluster:
            [p1] = await cluster.join("P1")
            url = cluster.servers["A"].url
            for _ in range(3):
                await cluster.kill_server("A")
                await cluster.restart_server("A")
                await settled(cluster)
            await cluster.restart_server("A")  # of one that runs: killed, then started
            await settled(cluster)
            assert (cluster.servers["A"].url, p1.server) == (url, "A")
            await p1.send("x")
            await settled(cluster)
            assert bodies(p1.heard) == ["x"]
            assert (
                faults(cluster.trace)
                == [
                    ("fault", "A", "killed"),
                    ("heal", "A", "restarted"),
                ]
                * 4
            )

    @every_run
    async def test_in_traffic_each_miss_has_a_cause(self, broker: str, redis: str) -> None:
        """Wherever the kill comes in an event's way, the books balance afterwards."""
        async with open_cluster(["A", "B"], broker, redis) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            [p3] = await cluster.join("P3", server="B")
            for turns in range(0, 30, 2):
                await asyncio.gather(*(_say(p, f"{turns}") for p in (p1, p2, p3) for _ in range(3)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                await cluster.kill_server("A")
                await _say(p3, "meanwhile")
                await cluster.restart_server("A")
                await settled(cluster)
                for player in (p1, p2):
                    await player.reconnect(server="A")
            assert ledger(cluster).missed > 0

    async def test_with_all_its_like(self) -> None:
        """With no server left, a settle names who is on its way; one restart brings all back."""
        async with open_cluster() as cluster:
            p1, p2 = await cluster.join("P1", "P2")
            await cluster.kill_server("A")
            await cluster.kill_server("B")
            with pytest.raises(TimeoutError, match="P1 is on its way"):
                await cluster.settle(timeout=0.1)
            await cluster.restart_server("B")
            await settled(cluster)
            assert (p1.server, p2.server) == ("B", "B")


async def _say(player: Player, body: str) -> None:
    with suppress(NotConnected):
        await player.send(body)


class TestAServerThatIsFrozen:
    @every_run
    async def test_goes_on_with_all_that_has_waited(self, broker: str, redis: str) -> None:
        """What its players say and should hear comes once it is thawed, all of it and in order."""
        async with open_cluster(["A", "B"], broker, redis) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            [p3] = await cluster.join("P3", server="B")
            await cluster.freeze_server("A")
            assert cluster.server_state("A") == "frozen"
            before = len(cluster.trace)
            for number in range(20):
                await p1.send(f"{number}")
                await p3.send(f"B {number}")
            await cluster.settle()
            assert not cluster.trace.select("receive", "relay", "deliver", "publish", at="A")
            assert (p1.heard, p2.heard) == ([], [])
            assert [e.player for e in p3.heard] == ["P3"] * 20
            book = ledger(cluster)
            assert (book.missed == 0) == (broker == "pubsub")
            assert book.pending > 0
            await cluster.thaw_server("A")
            await settled(cluster)
            assert p1.heard == p2.heard
            for heard in (p1.heard, p2.heard):
                assert [e.body for e in heard if e.player == "P1"] == [f"{n}" for n in range(20)]
            if broker == "pubsub":
                assert ledger(cluster).missed == 0
                assert len(p1.heard) == len(p3.heard) == 40
            assert [r.n >= before for r in cluster.trace.select("receive", at="A")] == [True] * 20

    @every_run
    async def test_answers_no_new_client_until_it_is_thawed(self, broker: str, redis: str) -> None:
        """There is a TCP connection, and then nothing: the handshake waits as well."""
        async with open_cluster(["A", "B"], broker, redis) as cluster:
            await cluster.freeze_server("A")
            joining = asyncio.create_task(cluster.join("P1", server="A"))
            await recorded(cluster.trace, "route", peer="A")
            await within(cluster.settle())
            assert not joining.done()
            await cluster.thaw_server("A")
            [p1] = await within(joining)
            assert p1.server == "A"
            await settled(cluster)

    async def test_settle_begun_before_does_not_hang(self) -> None:
        """A freeze in the middle of a settle is noticed by it, at whatever moment it comes."""
        async with open_cluster() as cluster:
            p1, p2 = await cluster.join("P1", "P2")
            for turns in range(0, 60, 3):
                await p1.send("x")
                await p2.send("x")
                settling = asyncio.create_task(cluster.settle(timeout=3))
                for _ in range(turns):
                    await asyncio.sleep(0)
                await cluster.freeze_server("A")
                await within(settling)
                await cluster.thaw_server("A")
                await settled(cluster)
            assert ledger(cluster).missed == 0

    async def test_its_player_may_go_elsewhere(self) -> None:
        """The client's side of the connection ends; the server learns of it when it is thawed."""
        async with open_cluster() as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            await cluster.freeze_server("A")
            await p1.reconnect(server="B")
            await p1.send("x")
            await cluster.settle()
            assert (p1.server, bodies(p1.heard), bodies(p2.heard)) == ("B", ["x"], [])
            assert not cluster.trace.select("disconnect", at="A")
            await cluster.thaw_server("A")
            await settled(cluster)
            assert len(cluster.trace.select("disconnect", at="A", peer="P1")) == 1
            assert (bodies(p1.heard), bodies(p2.heard)) == (["x"], ["x"])

    async def test_may_be_killed(self) -> None:
        """What had waited is lost with it; its players come back elsewhere."""
        async with open_cluster() as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            [p3] = await cluster.join("P3", server="B")
            await cluster.freeze_server("A")
            await p1.send("never read")
            await p3.send("never relayed")
            await cluster.settle()
            await cluster.kill_server("A")
            await settled(cluster)
            assert (p1.server, p2.server) == ("B", "B")
            book = ledger(cluster)
            causes = {(event, cause) for p in ("P1", "P2") for event, cause in book.missed_by(p)}
            assert causes == {
                ("P1-1", "never reached a server"),
                ("P3-1", "lost with its server"),
            }
            await cluster.restart_server("A")
            await settled(cluster)

    async def test_only_what_is_frozen_can_be_thawed(self) -> None:
        """The errors say what to do first."""
        async with open_cluster(broker="none") as cluster:
            with pytest.raises(RuntimeError, match=r"up, not frozen.*freeze_server\('A'\)"):
                await cluster.thaw_server("A")
            await cluster.freeze_server("A")
            with pytest.raises(RuntimeError, match=r"frozen already.*thaw_server\('A'\)"):
                await cluster.freeze_server("A")

    async def test_holds_up_a_client_that_talks_on(self) -> None:
        """What is kept for a frozen server has a bound, and nothing is lost at it."""
        async with open_cluster(["A"], broker="none") as cluster:
            [p1] = await cluster.join("P1")
            await cluster.freeze_server("A")
            said = 0

            async def talk() -> None:
                nonlocal said
                for _ in range(2000):
                    await p1.send("x" * 16_000)
                    said += 1

            talking = asyncio.create_task(talk())
            connection = here(cluster, "A")._games["g"].players["P1"]
            await eventually(lambda: not connection.transport.is_reading())
            assert getattr(connection, "_unread") <= 2**19  # noqa: B009
            assert not talking.done()
            await cluster.thaw_server("A")
            await asyncio.wait_for(talking, 30)
            await cluster.settle(timeout=30)
            assert len(p1.heard) == 2000

    @pytest.mark.parametrize("redis", ["fake", "embedded"])
    async def test_falls_too_far_behind(self, redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Past a bound its subscription is given up: a gap, with the misses that it explains."""
        monkeypatch.setattr(pubsub_module, "BYTES_WAITING", 1000)
        async with open_cluster(redis=redis) as cluster:
            [p1] = await cluster.join("P1", server="A")
            [p2] = await cluster.join("P2", server="B")
            await cluster.freeze_server("A")
            for _ in range(30):
                await p2.send("x" * 100)
                await cluster.settle()
            await cluster.thaw_server("A")
            await recorded(cluster.trace, "gap", at="A")
            await settled(cluster)
            assert 0 < len(p1.heard) < 10
            assert len(p2.heard) == 30
            causes = {cause for _, cause in ledger(cluster).missed_by("P1")}
            assert causes == {"server not subscribed"}
            await p2.send("again")
            await settled(cluster)
            assert bodies(p1.heard)[-1] == "again"

    @every_run
    async def test_stop_is_quick(self, broker: str, redis: str) -> None:
        """A cluster whose servers all stand still, with clients at the door, ends at once."""
        before, processes = tasks(), children()
        cluster = await open_cluster(broker=broker, redis=redis)
        [p1, _] = await cluster.join("P1", "P2")
        _, writer = await asyncio.open_connection("127.0.0.1", cluster.servers["A"].port)
        for name in ("A", "B"):
            await cluster.freeze_server(name)
        await p1.send("x")
        await within(cluster.stop(), 0.5)
        writer.close()
        assert not tasks() - before
        assert not children() - processes
        assert cluster.trace.ended


class TestLeaving:
    """A player that has left is owed nothing, whether its server could say so or not."""

    async def test_while_the_server_dies(self) -> None:
        """Whatever the server still got of the goodbye."""
        for turns in range(12):
            async with open_cluster(broker="none") as cluster:
                [p1] = await cluster.join("P1", server="B")
                [p2] = await cluster.join("P2", server="A")
                leaving = asyncio.create_task(p1.leave())
                for _ in range(turns):
                    await asyncio.sleep(0)
                await cluster.kill_server("B")
                await asyncio.wait([leaving])
                await p2.send("x")
                await settled(cluster)
                assert p1.left == (ledger(cluster).players == ["P2"]), f"after {turns} turns"

    async def test_a_server_that_is_frozen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The player does not wait for it for ever; nor does settle."""
        monkeypatch.setattr(player_module, "JOIN_TIMEOUT", 0.2)
        async with open_cluster(broker="none") as cluster:
            [p1] = await cluster.join("P1", server="B")
            [p2] = await cluster.join("P2", server="A")
            await cluster.freeze_server("B")
            leaving = asyncio.create_task(p1.leave())
            await eventually(lambda: p1.left)
            await cluster.settle()
            await within(leaving)
            await p2.send("x")
            await settled(cluster)
            assert ledger(cluster).players == ["P2"]
            await cluster.thaw_server("B")
            await settled(cluster)
            [p1] = await cluster.join("P1", server="B")
            await p2.send("y")
            await settled(cluster)
            assert ledger(cluster).missed_by("P1") == [("P2-2", "no broker between servers")]

    async def test_interrupted(self) -> None:
        """It has left, with no connection, or it has not."""
        turns, how = 0, ""
        while how != "finished before":
            async with open_cluster(broker="none") as cluster:
                p1, p2 = await cluster.join("P1", "P2", server="A")
                how = await cancelled_after(turns, p1.leave)
                assert p1.left != p1.connected, f"after {turns} turns"
                await p2.send("x")
                await settled(cluster)
                await cluster.change_broker("pubsub")
            turns = more(turns)

    async def test_and_settling(self) -> None:
        """What a player said before it left is waited for."""
        async with open_cluster(broker="none") as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            for n in range(5):
                await p1.send(f"{n}")
            leaving = asyncio.create_task(p1.leave())
            await eventually(lambda: p1.left)
            await settled(cluster)
            assert len(p2.heard) == 5
            await within(leaving)


class TestRedis:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"broker": "none"}, r"^There is no Redis in this cluster; .* has one\.$"),
            ({"redis": "URL"}, r"somebody else's.*open_cluster\(redis=\"embedded\"\)"),
        ],
    )
    async def test_only_an_own_one_can_be_broken(self, options: dict[str, Any], words: str) -> None:
        """The sentence says why not, before anybody tries and when somebody does."""
        async with EmbeddedRedis() as other:
            if options.get("redis") == "URL":
                options = {"redis": other.url}
            async with open_cluster(**options) as cluster:
                for act in (
                    cluster.stop_redis,
                    cluster.start_redis,
                    cluster.freeze_redis,
                    cluster.thaw_redis,
                ):
                    with pytest.raises(RuntimeError, match=words) as error:
                        await act()
                    assert str(error.value) == cluster.redis_cannot
                state = "" if cluster.broker == "none" else "up"
                assert cluster.redis_state == state

    async def test_an_own_one_can(self, embedded: Cluster) -> None:
        """Then there is no reason why not."""
        assert (embedded.redis_cannot, embedded.redis_state) == ("", "up")

    async def test_stops_and_starts_in_traffic(self, embedded: Cluster) -> None:
        """On the same port; what is said meanwhile is missed because Redis was down."""
        p1, p2 = await embedded.join("P1", "P2", server="A")
        [p3] = await embedded.join("P3", server="B")
        assert isinstance(embedded.redis, EmbeddedRedis)
        url = embedded.redis.url
        for turns in range(0, 40, 4):
            await asyncio.gather(*(_say(p, f"{turns}") for p in (p1, p2, p3) for _ in range(3)))
            for _ in range(turns):
                await asyncio.sleep(0)
            await embedded.stop_redis()
            assert embedded.redis_state == "down"
            await p3.send("meanwhile")
            await settled(embedded)
            await embedded.start_redis()
            await _say(p1, "at once")
            await settled(embedded)
        book = ledger(embedded)
        meanwhile = [e for e in book.events if book.body(e) == "meanwhile"]
        assert {(e, "redis down") for e in meanwhile} <= set(book.missed_by("P3"))
        assert embedded.redis.url == url
        assert set(faults(embedded.trace)) == {
            ("fault", "redis", "stopped"),
            ("heal", "redis", "started"),
        }

    async def test_freezes_and_thaws_in_traffic(
        self, embedded: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What could not be confirmed is not given up, and is heard after the thaw."""
        p1, p2 = await embedded.join("P1", "P2", server="A")
        [p3] = await embedded.join("P3", server="B")
        await p3.send("first")  # whoever makes a connection now would not get as far as to publish
        for _ in range(3):
            await embedded.settle()
            await embedded.freeze_redis()
            assert embedded.redis_state == "frozen"
            asked = len(embedded.trace.select("unpublished"))
            with monkeypatch.context() as impatient:  # only now: a busy machine is no frozen one
                impatient.setattr(pubsub_module, "ANSWER_TIMEOUT", 0.1)
                await p3.send("meanwhile")
                await recorded(embedded.trace, "unpublished", times=asked + 1)
                await embedded.settle()
            assert ledger(embedded).pending == 3
            await embedded.thaw_redis()
            await settled(embedded)
            await p1.send("afterwards")
            await settled(embedded)
            assert bodies(p1.heard) == bodies(p2.heard) == bodies(p3.heard)
        assert bodies(p1.heard) == ["first", *["meanwhile", "afterwards"] * 3]
        assert ledger(embedded).missed == 0

    async def test_says_what_to_do_first(self, embedded: Cluster) -> None:
        """Each state has its own way out, and what needs Redis says that it does."""
        with pytest.raises(RuntimeError, match=r"not frozen.*freeze_redis\(\)"):
            await embedded.thaw_redis()
        with pytest.raises(RuntimeError, match=r"started already.*stop_redis\(\)"):
            await embedded.start_redis()
        await embedded.freeze_redis()
        with pytest.raises(RuntimeError, match=r"frozen already.*thaw_redis\(\)"):
            await embedded.freeze_redis()
        with pytest.raises(RuntimeError, match=r"frozen.*thaw_redis\(\)"):
            await embedded.restart_server("A")
        await embedded.stop_redis()
        with pytest.raises(RuntimeError, match=r"down already.*start_redis\(\)"):
            await embedded.stop_redis()
        with pytest.raises(RuntimeError, match=r"down already.*start_redis\(\)"):
            await embedded.freeze_redis()
        for act in (embedded.add_server, embedded.restart_server):
            with pytest.raises(RuntimeError, match=r"down.*start_redis\(\)"):
                await act("C" if act == embedded.add_server else "A")
        assert embedded.server_state("A") == "up"
        await embedded.start_redis()
        await embedded.settle()

    async def test_that_crashed_can_be_started_again(self, embedded: Cluster) -> None:
        """Somebody outside has killed the process: it is down, and a start is what helps."""
        assert isinstance(embedded.redis, EmbeddedRedis)
        assert embedded.redis.pid is not None
        os.kill(embedded.redis.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        await eventually(lambda: embedded.redis_state == "down")
        await embedded.start_redis()
        await embedded.settle()

    @pytest.mark.parametrize("state", ["down", "frozen"])
    async def test_stop_is_quick_whatever_it_is(self, state: str) -> None:
        """No process is left, stopped or not."""
        before, processes = tasks(), children()
        cluster = await open_cluster(redis="embedded")
        [p1] = await cluster.join("P1")
        await (cluster.stop_redis() if state == "down" else cluster.freeze_redis())
        await p1.send("x")
        await within(cluster.stop(), 1)
        assert not children() - processes
        assert not tasks() - before


class TestAnotherBroker:
    async def test_nobody_can_take_its_port_meanwhile(self) -> None:
        """Another program that tries all the while never gets it."""
        stolen = list[int]()

        async def steal(port: int) -> None:
            while True:
                with socket.socket() as thief, suppress(OSError):
                    thief.bind(("127.0.0.1", port))
                    stolen.append(port)
                await asyncio.sleep(0)

        async with open_cluster(["A"], "none", "embedded") as cluster:
            stealing = asyncio.create_task(steal(cluster.balancer.port))
            await cluster.change_broker("pubsub")
            stealing.cancel()
            await asyncio.wait([stealing])
        assert stolen == []

    @pytest.mark.parametrize("redis", ["fake", "embedded"])
    async def test_everything_starts_anew(self, redis: str) -> None:
        """The same variables, servers, players and places; another trace, and nothing heard."""
        async with open_cluster(["A", "B"], "none", redis) as cluster:
            p1, p2, p3, p4 = await cluster.join("P1", "P2", "P3", "P4", server="A")
            await p1.reconnect(server="B")
            await p2.send("before")
            await p3.disconnect()
            await p4.leave()
            await cluster.add_server("C")
            await cluster.kill_server("C")
            await cluster.settle()
            first, url, told = cluster.trace, cluster.url, list[str]()
            unwatch = cluster.on_run_change(
                lambda: told.append(f"{cluster.broker} {cluster.trace.ended}")
            )
            await cluster.change_broker("pubsub")
            assert (first.ended, cluster.trace is first, cluster.url) == (True, False, url)
            assert cluster.trace[0].kind == "step"
            assert cluster.trace[0].data == {
                "caption": "The cluster starts anew, with Redis Pub/Sub"
            }
            assert cluster.trace.about == {
                "broker": "pubsub",
                "servers": ["A", "B", "C"],
                "game": "g",
            }
            assert (cluster.broker, cluster.redis_state) == ("pubsub", "up")
            assert told == ["none True", "pubsub False"]
            assert [p.server for p in (p1, p2, p3, p4)] == ["B", "A", None, None]
            assert p4.left
            assert p2.heard == []
            assert await p2.send("jump") == "P2-1"
            await settled(cluster)
            assert bodies(p1.heard) == ["jump"]
            await p3.reconnect(server="C")
            [p4] = await cluster.join("P4")
            assert await p4.send("x") == "P4-1"
            await settled(cluster)
            unwatch()
            await cluster.change_broker("none")
            assert cluster.trace[0].data["caption"] == "The cluster starts anew, without a broker"
            assert (len(told), cluster.redis) == (2, None)
            await p2.send("again")
            await settled(cluster)
            assert (bodies(p1.heard), bodies(p2.heard)) == ([], ["again"])

    async def test_with_parts_that_are_broken(self, embedded: Cluster) -> None:
        """They start anew like the others, and soon."""
        p1, p2 = await embedded.join("P1", "P2")
        await embedded.freeze_redis()
        await embedded.freeze_server("A")
        await embedded.kill_server("B")
        await within(embedded.change_broker("pubsub"), 4)
        assert embedded.trace.select("welcome", at="P1")
        await p1.send("x")
        await settled(embedded)
        assert bodies(p2.heard) == ["x"]
        assert {embedded.server_state(name) for name in "AB"} == {"up"}
        assert embedded.redis_state == "up"

    async def test_while_a_player_reconnects(self) -> None:
        """Whoever wants to reconnect meanwhile is told to wait, and the new start does not fail."""
        refused = 0
        for turns in range(0, 60, 3):
            async with open_cluster(broker="pubsub", redis="fake") as cluster:
                p1, p2 = await cluster.join("P1", "P2", server="A")
                changing = asyncio.create_task(cluster.change_broker("none"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                try:
                    await p1.reconnect(server="B")
                except NotConnected as error:
                    refused += "wait for `change_broker` to return" in str(error)
                await within(changing)
                await p2.send("x")
                await settled(cluster)
        assert refused

    async def test_while_a_cell_waits_for_settle(self) -> None:
        """The settle returns, and nobody is bothered with errors that are nobody's."""
        for turns in range(0, 30, 2):
            async with open_cluster(broker="pubsub", redis="fake") as cluster:
                await cluster.join("P1", "P2", server="A")
                settling = asyncio.create_task(cluster.settle())
                for _ in range(turns):
                    await asyncio.sleep(0)
                await cluster.change_broker("none")
                await within(settling)

    async def test_while_a_player_leaves(self) -> None:
        """It has left, and is not in the new run."""
        async with open_cluster(broker="none") as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            await cluster.freeze_server("A")
            leaving = asyncio.create_task(p1.leave())
            await eventually(lambda: p1.left)
            await cluster.change_broker("pubsub")
            await within(leaving)
            assert (p1.left, p1.connected, p2.connected) == (True, False, True)

    async def test_while_players_join_one_by_one(self) -> None:
        """Whoever is part of the new run is so from its beginning: the trace has all of them."""
        turns, done = 0, False
        while not done:
            async with open_cluster(broker="none") as cluster:
                joining = asyncio.create_task(cluster.join("P1", "P2", "P3"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                done = joining.done()
                await within(cluster.change_broker("pubsub"))
                await asyncio.wait([joining])
                joining.exception()
                for player in cluster.players.values():
                    assert cluster.trace.select("connect", at=player.name), f"after {turns} turns"
            turns = more(turns)

    async def test_there_is_not(self) -> None:
        """An unknown one lists what there is, and nothing has happened."""
        async with open_cluster(broker="none") as cluster:
            trace = cluster.trace
            with pytest.raises(ValueError, match="unknown broker 'rabbit'; there are: none"):
                await cluster.change_broker("rabbit")
            assert cluster.trace is trace
            assert not trace.ended

    async def test_that_cannot_start_stops_the_cluster(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error says so and why, and nothing is left."""
        before, ports = tasks(), listeners()
        cluster = await open_cluster(broker="none", redis="embedded")
        [p1] = await cluster.join("P1")

        def none_to_be_had() -> None:
            raise RedisUnavailable("there is no redis-server")

        monkeypatch.setattr("wsdemo.redis.backend.find_server_binary", none_to_be_had)
        with pytest.raises(RuntimeError, match=r"is stopped.*there is no redis-server"):
            await cluster.change_broker("pubsub")
        assert not tasks() - before
        assert listeners() == ports
        with pytest.raises(RuntimeError, match="is stopped"):
            await p1.send("x")
        await cluster.stop()

    @every_run
    async def test_in_traffic(self, broker: str, redis: str) -> None:
        """Whatever is under way belongs to the old run, and nothing of it to the new one."""
        async with open_cluster(broker=broker, redis=redis) as cluster:
            players = await cluster.join("P1", "P2", "P3")
            for turns in range(0, 24, 3):
                speaking = [asyncio.create_task(_say(p, f"{n}")) for p in players for n in range(5)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                other = "none" if cluster.broker == "pubsub" else "pubsub"
                await cluster.change_broker(other)
                await asyncio.gather(*speaking)
                await settled(cluster)
                said = {record.event for record in cluster.trace.select("send")}
                assert {e.id for p in players for e in p.heard} <= said


CHANGES: dict[str, Callable[[Cluster], Coroutine[Any, Any, None]]] = {
    "add": lambda cluster: cluster.add_server("C"),
    "kill": lambda cluster: cluster.kill_server("A"),
    "restart": lambda cluster: cluster.restart_server("A"),
    "freeze": lambda cluster: cluster.freeze_server("A"),
    "another broker": lambda cluster: cluster.change_broker("none"),
    "stop Redis": lambda cluster: cluster.stop_redis(),
    "freeze Redis": lambda cluster: cluster.freeze_redis(),
}


# Until 3.12, asyncio itself drops a connection whose making is cancelled in its last moment.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("change", CHANGES)
async def test_an_interrupted_change_is_done_or_not(change: str) -> None:
    """A cell that is cancelled after each number of turns leaves a cluster that stops cleanly."""
    before, ports, processes = tasks(), listeners(), children()
    turns, how = 0, ""
    while how != "finished before":
        cluster = await open_cluster(redis="embedded")
        await cluster.join("P1", server="A")
        how = await cancelled_after(turns, partial(CHANGES[change], cluster))
        assert cluster.server_state("A") in ("up", "down", "frozen")
        await within(cluster.stop(), 3)
        assert not tasks() - before
        assert not listeners() - ports, f"after {turns} turns"
        assert not children() - processes, f"after {turns} turns"
        turns = more(turns)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_stop_in_the_middle_of_a_change_ends_all(change: str) -> None:
    """However far the change has come, the stop waits for it and then leaves nothing."""
    before, ports, processes = tasks(), listeners(), children()
    turns, done = 0, False
    while not done:
        cluster = await open_cluster(redis="embedded")
        await cluster.join("P1", server="A")
        changing = asyncio.create_task(CHANGES[change](cluster))
        for _ in range(turns):
            await asyncio.sleep(0)
        done = changing.done()
        await within(cluster.stop())
        await asyncio.gather(changing, return_exceptions=True)
        assert cluster.trace.ended
        await eventually(lambda: not tasks() - before)
        assert not listeners() - ports, f"after {turns} turns"
        assert not children() - processes, f"after {turns} turns"
        turns = more(turns)


async def test_a_join_in_the_middle_of_a_new_start() -> None:
    """It fails or is part of the new run; a player is in the cluster or it is not."""
    turns, done = 0, False
    while not done:
        async with open_cluster(broker="none") as cluster:
            [p1] = await cluster.join("P1", server="A")
            joining = asyncio.create_task(cluster.join("P2", server="B"))
            for _ in range(turns):
                await asyncio.sleep(0)
            done = joining.done()
            await within(cluster.change_broker("pubsub"))
            await asyncio.wait([joining])
            assert list(cluster.players) == (["P1"] if joining.exception() else ["P1", "P2"])
            await p1.send("x")
            await settled(cluster)
            for player in cluster.players.values():
                assert bodies(player.heard) == ["x"]
        turns = more(turns)


@every_run
@pytest.mark.parametrize("seed", range(8))
async def test_after_anything_at_all_the_books_balance(
    broker: str, redis: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random kills, restarts, freezes and moves under traffic; healed and settled, all is clear."""
    before, ports, processes = tasks(), listeners(), children()
    async with open_cluster(["A", "B", "C"][: 2 + seed % 2], broker, redis) as cluster:
        havoc = _Havoc(cluster, random.Random(seed))
        await cluster.join("P1", "P2", "P3")
        monkeypatch.setattr(pubsub_module, "ANSWER_TIMEOUT", 0.5)
        for _ in range(40):
            await havoc.go_on()
        monkeypatch.undo()
        await havoc.heal()
        await cluster.settle()
        await cluster.players["P1"].send("the last")
        await settled(cluster)
        for player in cluster.players.values():
            if broker == "pubsub" and player.connected:
                assert bodies(player.heard)[-1] == "the last"
        assert ledger(cluster).twice == 0
    assert not tasks() - before
    assert not listeners() - ports
    assert not children() - processes


class _Havoc:
    """Does random things to a cluster, each of which a person at the stage could do."""

    def __init__(self, cluster: Cluster, choose: random.Random) -> None:
        self.cluster = cluster
        self.choose = choose

    async def go_on(self) -> None:
        acts = [self.speak] * 6 + [self.kill, self.restart, self.freeze, self.thaw, self.move]
        acts += [self.redis, self.settle, self.turn, self.turn]
        await self.choose.choice(acts)()

    def name(self, state: str) -> str | None:
        found = [n for n in self.cluster.servers if self.cluster.server_state(n) == state]
        return self.choose.choice(found) if found else None

    async def speak(self) -> None:
        for player in self.cluster.players.values():
            await _say(player, f"{self.choose.random()}")

    async def turn(self) -> None:
        for _ in range(self.choose.randint(0, 40)):
            await asyncio.sleep(0)

    async def kill(self) -> None:
        if name := self.name(self.choose.choice(["up", "frozen"])):
            await self.cluster.kill_server(name)

    async def restart(self) -> None:
        name = self.name(self.choose.choice(["up", "down", "frozen"]))
        if name and self.cluster.redis_state in ("", "up"):
            await self.cluster.restart_server(name)

    async def freeze(self) -> None:
        if name := self.name("up"):
            await self.cluster.freeze_server(name)

    async def thaw(self) -> None:
        if name := self.name("frozen"):
            await self.cluster.thaw_server(name)

    async def move(self) -> None:
        """One player moves to a server that answers."""
        player = self.choose.choice(list(self.cluster.players.values()))
        name = self.name("up")
        if name and self.cluster.redis_state in ("", "up"):
            await player.reconnect(server=name)

    async def redis(self) -> None:
        if self.cluster.redis_cannot:
            return
        match self.cluster.redis_state:
            case "down":
                await self.cluster.start_redis()
            case "frozen":
                await self.choose.choice([self.cluster.thaw_redis, self.cluster.stop_redis])()
            case _:
                await self.choose.choice([self.cluster.freeze_redis, self.cluster.stop_redis])()

    async def settle(self) -> None:
        if self.name("up") and self.cluster.redis_state in ("", "up"):
            await self.cluster.settle()

    async def heal(self) -> None:
        if self.cluster.redis_state == "down":
            await self.cluster.start_redis()
        if self.cluster.redis_state == "frozen":
            await self.cluster.thaw_redis()
        for name in self.cluster.servers:
            match self.cluster.server_state(name):
                case "frozen":
                    await self.cluster.thaw_server(name)
                case "down":
                    await self.cluster.restart_server(name)
