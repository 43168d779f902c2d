"""The cluster: what a learner types, what `settle` promises, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
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
from wsdemo import Cluster, faults, ledger, open_cluster
from wsdemo.cluster import extend_limit
from wsdemo.player import Player
from wsdemo.redis.backend import EmbeddedRedis, FakeRedis
from wsdemo.server import Canary
from wsdemo.trace import Kind, Record, Trace


def record_of(kind: Kind) -> Record:
    """One record of what happens to P1."""
    trace = Trace(broker="pubsub", servers=["A"])
    trace.append(kind, "P1")
    return trace[-1]


class TestWhatALearnerTypes:
    @pytest.mark.parametrize("redis", ["fake", "embedded"])
    async def test_the_readme_verbatim(self, redis: str) -> None:
        """Open, join, send, settle, hear, reconnect and stop, as the README has it."""
        cluster = await open_cluster(servers=["A", "B"], broker="pubsub", redis=redis)
        p1, p2, p3 = await cluster.join("P1", "P2", "P3", server="A")
        await p2.send("jump")
        await cluster.settle()
        assert [e.body for e in p1.heard] == ["jump"]
        [event] = p1.heard
        assert (event.id, event.player, event.body, event.seq) == ("P2-1", "P2", "jump", None)
        await p1.reconnect(server="B")
        assert cluster.trace[-1].n == len(cluster.trace) - 1
        assert re.fullmatch(r"ws://127\.0\.0\.1:\d+", cluster.url)
        assert re.fullmatch(r"ws://127\.0\.0\.1:\d+", cluster.servers["B"].url)
        assert len({cluster.url, *(server.url for server in cluster.servers.values())}) == 3
        assert (p1.server, p2.server, p3.server) == ("B", "A", "A")
        await p3.send("duck")
        await cluster.settle()
        assert bodies(p1.heard) == bodies(p2.heard) == bodies(p3.heard) == ["jump", "duck"]
        assert ledger(cluster).balances
        await cluster.stop()

    async def test_every_part_can_be_broken_as_the_readme_has_it(self) -> None:
        """The README's second example: server A is killed, and what is said then is kept."""
        cluster = await open_cluster(broker="stream", redis="embedded", persistence="always")
        p1, p2 = await cluster.join("P1", "P2")
        async with faults.server_killed(cluster, "A"):
            await cluster.until(lambda: p1.connected and p2.connected)
            assert p1.server == p2.server == "B"
            assert await p2.send("jump", confirm=True) == 1
        await cluster.stop()

    def test_one_that_was_not_awaited_says_so(self) -> None:
        """Whoever forgets the `await` is told of it."""
        with pytest.raises(AttributeError, match="not open; write `await open_cluster"):
            open_cluster().join  # noqa: B018

    async def test_the_same_call_is_a_context_manager(self) -> None:
        """`async with` starts it and stops it, also after an error."""
        async with open_cluster(broker="none") as cluster:
            await cluster.join("P1")
        with pytest.raises(RuntimeError, match="stopped"):
            await cluster.join("P2")

        async def cell() -> None:
            nonlocal cluster
            async with open_cluster(broker="none") as cluster:
                await cluster.join("P1")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await cell()
        with pytest.raises(RuntimeError, match="stopped"):
            await cluster.settle()

    async def test_without_words_it_is_a_and_b_with_pubsub(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The defaults are the story's; the Redis is the fake one unless WSDEMO_REDIS says more."""
        monkeypatch.delenv("WSDEMO_REDIS", raising=False)
        async with open_cluster() as cluster:
            assert (list(cluster.servers), cluster.broker) == (["A", "B"], "pubsub")
            assert type(cluster.redis).__name__ == "FakeRedis"
        monkeypatch.setenv("WSDEMO_REDIS", "embedded")
        async with open_cluster() as cluster:
            assert isinstance(cluster.redis, EmbeddedRedis)

    async def test_players_spread_unless_a_server_is_named(self) -> None:
        """The balancer takes the servers in turn."""
        async with open_cluster(["A", "B", "C"], broker="none") as cluster:
            players = await cluster.join("P1", "P2", "P3", "P4")
            assert [player.server for player in players] == ["A", "B", "C", "A"]
            await players[0].reconnect(server="C")
            assert players[0].server == "C"
            assert cluster.player("P1") is players[0]

    async def test_repr_tells_who_is_where(self) -> None:
        """A cluster shown in a notebook says nothing that differs from run to run."""
        async with open_cluster(broker="none") as cluster:
            p1, _ = await cluster.join("P1", "P2", server="A")
            assert repr(cluster) == "Cluster, running, broker none (A: P1 P2, B: nobody)"
            await p1.reconnect(server="B")
            await cluster.settle()
            assert repr(cluster) == "Cluster, running, broker none (A: P2, B: P1)"

    async def test_a_step_may_have_notes(self) -> None:
        """They are recorded with the caption, where there are any."""
        async with open_cluster(broker="none") as cluster:
            async with cluster.step("First", notes="Ask what will happen."):
                pass
            async with cluster.step("Second"):
                pass
            assert [record.data for record in cluster.trace.select("step")] == [
                {"caption": "First", "notes": "Ask what will happen."},
                {"caption": "Second"},
            ]

    async def test_the_frames_are_recorded_as_they_were(self) -> None:
        """What was sent, received and relayed, to the letter."""
        async with open_cluster() as cluster:
            [p1] = await cluster.join("P1", server="A")
            await p1.send('"é"')
            await cluster.settle()
            sent = '{"type":"send","id":"P1-1","body":"\\"é\\""}'
            event = '{"type":"event","id":"P1-1","player":"P1","body":"\\"é\\""}'
            kinds: list[tuple[Kind, str]] = [("send", sent), ("receive", sent), ("relay", event)]
            for kind, frame in kinds:
                assert [r.data["frame"] for r in cluster.trace.select(kind)] == [frame], kind


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "listed"),
        [
            ({"broker": "rabbit"}, ["none", "pubsub"]),
            ({"redis": "sqlite"}, ["fake", "embedded", "redis://"]),
            ({"balance": "random"}, ["round-robin", "least-connections", "sticky"]),
        ],
    )
    async def test_an_unknown_choice_lists_what_there_is(
        self, options: dict[str, Any], listed: list[str]
    ) -> None:
        """Which is said before anything is started."""
        with pytest.raises(ValueError, match="unknown") as error:
            open_cluster(**options)
        for choice in [*options.values(), *listed]:
            assert choice in str(error.value)

    async def test_an_unknown_server_or_player_lists_what_there_is(self) -> None:
        """And leaves everything as it was."""
        async with open_cluster(broker="none") as cluster:
            [p1] = await cluster.join("P1", server="A")
            for act in (
                lambda: cluster.join("P2", server="C"),
                lambda: p1.reconnect(server="C"),
            ):
                with pytest.raises(ValueError, match=r"unknown server 'C'; there are: A, B"):
                    await act()
            with pytest.raises(ValueError, match=r"unknown player 'P9'; there are: P1"):
                cluster.player("P9")
            assert (p1.server, list(cluster.players)) == ("A", ["P1"])
            await cluster.join("P2")
            await cluster.settle()

    @pytest.mark.parametrize(
        "servers", [[], ["A", "A"], ["redis"], ["<b>"], ["balancer"], [""], ["x" * 33]]
    )
    async def test_servers_that_cannot_be(self, servers: list[str]) -> None:
        """None, two of one name, and names that are taken or not allowed."""
        with pytest.raises(ValueError, match=r"server|name"):
            open_cluster(servers=servers)

    @pytest.mark.parametrize("name", ["A", "redis", "balancer", "scenario", "<b>", "", "x" * 33])
    async def test_players_that_cannot_be(self, name: str) -> None:
        """No player joins if one of the names cannot be."""
        async with open_cluster(broker="none") as cluster:
            with pytest.raises(ValueError, match="name"):
                await cluster.join("P1", name)
            assert cluster.players == {}
            await cluster.join("P1")

    async def test_a_second_p1(self) -> None:
        """The error says what to do first; the first P1 plays on."""
        async with open_cluster(broker="none") as cluster:
            [p1] = await cluster.join("P1", server="A")
            for names in (["P1"], ["P2", "P1"], ["P3", "P3"]):
                with pytest.raises(ValueError, match="in the game already; use its player"):
                    await cluster.join(*names, server="B")
            assert list(cluster.players) == ["P1"]
            await p1.send("x")
            await cluster.settle()
            assert bodies(p1.heard) == ["x"]

    async def test_one_who_has_left_may_join_again(self) -> None:
        """Under the same name, at once, on any server, as often as it likes."""
        async with open_cluster() as cluster:
            [p2] = await cluster.join("P2", server="A")
            for turn in range(10):
                [p1] = await cluster.join("P1", server="AB"[turn % 3 % 2])
                await p1.leave()
                with pytest.raises(RuntimeError, match=r"has left .* cluster\.join\('P1'\)"):
                    await p1.send("x")
            await p2.send("x")
            await cluster.settle()
            assert bodies(p1.heard) == []

    async def test_calls_after_stop(self) -> None:
        """Each says what to do first; stopping again is no mistake, and the trace stays."""
        async with open_cluster() as cluster:
            [p1] = await cluster.join("P1")
            await p1.send("x")
            await cluster.settle()
        await cluster.stop()
        before = len(cluster.trace)
        for act in (
            lambda: cluster.join("P2"),
            cluster.settle,
            lambda: p1.send("x"),
            p1.reconnect,
            p1.leave,
            lambda: cluster.step("more").__aenter__(),
        ):
            call: Callable[[], Awaitable[Any]] = act
            with pytest.raises(RuntimeError, match=r"stopped; open another .*open_cluster"):
                await call()
        assert (len(cluster.trace), bodies(p1.heard)) == (before, ["x"])
        assert ledger(cluster).heard == 1

    async def test_a_cluster_that_was_not_awaited(self) -> None:
        """Its calls say that it has not started."""
        cluster = Cluster(broker="none")
        with pytest.raises(RuntimeError, match=r"not started; use `await open_cluster\(\)`"):
            await cluster.join("P1")

    async def test_a_redis_that_is_not_there_leaves_nothing(self) -> None:
        """The error comes out of the call that opens, and no part stays behind."""
        before = tasks()
        with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1\b"):
            await open_cluster(redis="redis://:pass@127.0.0.1:1")
        assert not tasks() - before


class TestSettle:
    @every_run
    async def test_the_same_events_in_the_same_order_for_all(self, broker: str, redis: str) -> None:
        """Whoever is on whichever server, with everybody speaking at once."""
        async with open_cluster(["A", "B", "C"], broker, redis) as cluster:
            players = await cluster.join(*(f"P{n}" for n in range(9)))

            async def speak(player: Player) -> None:
                for number in range(20):
                    await player.send(f"{player.name} {number}")

            await asyncio.gather(*map(speak, players))
            await cluster.settle()
            groups = [players] if broker == "pubsub" else [players[n::3] for n in range(3)]
            for group in groups:
                assert len(group[0].heard) == 20 * len(group)
                for player in group:
                    assert player.heard == group[0].heard
                for speaker in group:
                    own = [e.body for e in group[0].heard if e.player == speaker.name]
                    assert own == [f"{speaker.name} {number}" for number in range(20)]
            assert ledger(cluster).balances

    @every_run
    @pytest.mark.parametrize("seed", range(12))
    async def test_after_any_story_everything_has_come_to_rest(
        self, broker: str, redis: str, seed: int
    ) -> None:
        """Random stories: all who should have heard have, and nothing more is recorded."""
        choose = random.Random(seed)
        servers = ["A", "B", "C"][: choose.randint(1, 3)]
        async with open_cluster(servers, broker, redis, game="a game") as cluster:
            story = _Story(cluster, choose)
            for _ in range(choose.randint(5, 25)):
                await story.go_on()
                if choose.random() < 0.4:
                    await story.settle_and_check()
            await story.settle_and_check()
            book = ledger(cluster)
            assert book.balances, book
            assert book.pending == book.twice == 0

    async def test_it_does_not_sleep(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It waits for things that happen: with nothing broken, no clock is asked.

        A server does so now and then, to find out whether it is deaf; not in this test.
        """
        async with open_cluster(canary=Canary(every=3600)) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")

            async def no_sleep(delay: float, result: object = None) -> None:
                raise AssertionError(f"asyncio.sleep({delay})")

            monkeypatch.setattr(asyncio, "sleep", no_sleep)
            for _ in range(20):
                await p1.send("x")
                await p2.send("y")
                await cluster.settle()
            monkeypatch.undo()
            assert len(p1.heard) == len(p2.heard) == 40

    async def test_it_names_what_is_under_way_when_time_is_up(self) -> None:
        """A server that has stopped answering is named together with who waits for it."""
        async with open_cluster(broker="none") as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            held = asyncio.Event()
            server = here(cluster, "A")
            answer = server._answer

            async def hold(*arguments: Any) -> None:
                await held.wait()
                await answer(*arguments)

            server._answer = hold  # type: ignore[method-assign, assignment]
            with pytest.raises(TimeoutError, match=r"P1 has no answer from server A") as error:
                await cluster.settle(timeout=0.05)
            assert "P2 has no answer from server A" in str(error.value)
            held.set()
            await cluster.settle()
            assert (p1.connected, p2.connected) == (True, True)

    async def test_what_gets_further_extends_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each event that is heard meanwhile gives it its time anew."""
        seen: list[tuple[float, str]] = []

        def extend(limit: asyncio.Timeout, timeout: float, began: float, record: Record) -> None:
            seen.append((timeout, record.kind))
            extend_limit(limit, timeout, began, record)

        monkeypatch.setattr("wsdemo.cluster.extend_limit", extend)
        async with open_cluster(broker="pubsub") as cluster:
            p1, _ = await cluster.join("P1", "P2")
            await p1.send("jump")
            await cluster.settle(timeout=50)
            assert (50, "hear") in seen
            count = len(seen)
            await p1.send("duck")
            await recorded(cluster.trace, "hear", at="P2", times=2)
            assert len(seen) == count

    async def test_what_goes_on_slowly_is_waited_for(self) -> None:
        """A slow machine is none that stands still, as long as events get further."""
        now, began = asyncio.get_running_loop().time(), time.monotonic()
        async with asyncio.timeout_at(now + 10) as limit:
            extend_limit(limit, 60, began, record_of("connect"))
            assert limit.when() == now + 10
            extend_limit(limit, 60, began, record_of("hear"))
            assert limit.when() == pytest.approx(now + 60, abs=30)
            await asyncio.sleep(0)

    async def test_it_is_not_waited_for_for_ever(self) -> None:
        """After six times as long, it is over, whatever gets further."""
        now = asyncio.get_running_loop().time()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(now + 60) as limit:
                extend_limit(limit, 60, time.monotonic() - 360, record_of("hear"))
                assert limit.when() == pytest.approx(now, abs=30)
                await asyncio.sleep(0)

    async def test_who_gives_up_says_after_how_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A Redis that nobody here has frozen is given up sooner than the time that was given."""
        async with open_cluster(broker="pubsub", redis="fake") as cluster:
            await cluster.join("P1")
            assert isinstance(cluster.redis, FakeRedis)
            cluster.redis._server.freeze()
            monkeypatch.setattr(FakeRedis, "state", "up")
            with pytest.raises(
                TimeoutError, match=r"^after [234] s still under way: .*Redis has not"
            ):
                await cluster.settle()

    async def test_a_frozen_redis_is_at_rest_once_the_servers_have_given_it_up(self) -> None:
        """What was said is pending until it goes on: it may have it, though it has not answered."""
        async with open_cluster(broker="pubsub", redis="fake") as cluster:
            p1, _ = await cluster.join("P1", "P2")
            await cluster.freeze_redis()
            await p1.send("jump")
            await cluster.settle()
            assert cluster.trace.select("unpublished")
            assert ledger(cluster).pending == 2
            await cluster.thaw_redis()
            await cluster.settle()
            assert ledger(cluster).balances

    async def test_it_waits_for_a_player_on_its_way_back(self) -> None:
        """A player that was cut off counts as under way until it is back."""
        async with open_cluster(broker="none") as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            connection = here(cluster, "A")._games["g"].players["P1"]
            connection.transport.abort()
            await recorded(cluster.trace, "disconnect", at="A", peer="P1")
            await cluster.settle()
            assert p1.connected
            await p2.send("x")
            await cluster.settle()
            assert len(cluster.trace.select("welcome", at="P1")) == 2

    async def test_it_names_a_player_that_cannot_come_back(self) -> None:
        """All servers down is something to be told, not to wait for."""
        async with open_cluster(broker="none") as cluster:
            await cluster.join("P1", server="A")
            for server in cluster.servers.values():
                await server.stop()
            await recorded(cluster.trace, "disconnect", at="P1")
            with pytest.raises(TimeoutError, match="P1 is on its way to a connection"):
                await cluster.settle(timeout=0.1)

    async def test_a_raw_client_plays_beside_the_players(self) -> None:
        """It hears them, they hear it, on any server, and settle is not held up by it."""
        async with open_cluster() as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            async with dial(cluster.servers["B"].url) as raw:
                await raw.join("R1")
                await p1.send("from P1")
                assert (await raw.hear())["body"] == "from P1"
                await raw.say("send", id="R1-1", body="from R1")
                assert (await raw.hear())["id"] == "R1-1"
                await cluster.settle()
                assert bodies(p1.heard) == bodies(p2.heard) == ["from P1", "from R1"]
            async with dial(f"{cluster.url}/?player=R2") as raw:
                await raw.join("R2")
                await cluster.settle()
            await cluster.settle()
            assert ledger(cluster).balances

    async def test_a_stranger_with_a_players_name_does_not_hold_it_up(self) -> None:
        """Whoever calls the balancer as P1 without being it is no concern of P1's."""
        async with open_cluster(broker="none") as cluster:
            await cluster.join("P1", server="A")
            async with dial(f"{cluster.url}/?player=P1"):
                await cluster.settle(timeout=1)

    async def test_many_players_at_once(self) -> None:
        """Sixty players on one server speak in the same moment, and all are heard by all."""
        async with open_cluster() as cluster:
            players = await cluster.join(*(f"P{n}" for n in range(60)), server="A")
            await asyncio.gather(*(player.send("x") for player in players))
            await cluster.settle()
            assert {len(player.heard) for player in players} == {60}

    async def test_redis_that_returns_is_waited_for(self) -> None:
        """Once Redis is there again, what is said after a settle is heard on every server."""
        async with open_cluster(redis="embedded") as cluster:
            [p1] = await cluster.join("P1", server="A")
            [p2] = await cluster.join("P2", server="B")
            redis = cluster.redis
            assert redis is not None
            for turn in range(3):
                await redis.stop()
                await redis.start()
                await cluster.settle()
                await p1.send(f"{turn}")
                await cluster.settle()
            assert bodies(p1.heard) == bodies(p2.heard) == ["0", "1", "2"]


class _Story:
    """Takes random steps, and knows by itself who has to have heard what."""

    def __init__(self, cluster: Cluster, choose: random.Random) -> None:
        self.cluster = cluster
        self.choose = choose
        self.players: dict[str, Player] = {}  # those that are in the game
        self.owed: dict[Player, list[str]] = {}  # ids of events
        self.names = 0

    async def go_on(self) -> None:
        steps = [self.join, self.send, self.send, self.burst, self.move, self.drop, self.leave]
        await self.choose.choice(steps)()

    async def join(self) -> None:
        self.names += 1
        [player] = await self.cluster.join(f"P{self.names}", server=self.any_server())
        self.players[player.name] = player
        self.owed[player] = []

    async def send(self) -> None:
        speakers = [player for player in self.players.values() if player.connected]
        if speakers:
            await self.say(self.choose.choice(speakers))

    async def burst(self) -> None:
        speakers = [player for player in self.players.values() if player.connected]
        await asyncio.gather(*(self.say(player) for player in speakers for _ in range(5)))
        await self.cluster.settle()  # or what is on its way meets whatever comes next

    async def move(self) -> None:
        if self.players:
            player = self.choose.choice(list(self.players.values()))
            await self.cluster.settle()
            await player.reconnect(server=self.any_server())

    async def drop(self) -> None:
        """The connection of one player breaks; it is back by the next settle."""
        there = [player for player in self.players.values() if player.connected]
        if not there:
            return
        player = self.choose.choice(there)
        await self.cluster.settle()
        server = here(self.cluster, str(player.server))
        server._games[self.cluster.game].players[player.name].transport.abort()
        await recorded(self.cluster.trace, "disconnect", at=player.name)
        await self.cluster.settle()

    async def leave(self) -> None:
        there = [player for player in self.players.values() if player.connected]
        if len(there) > 1:
            player = self.choose.choice(there)
            await self.cluster.settle()
            await player.leave()
            del self.players[player.name]

    async def say(self, speaker: Player) -> None:
        server = speaker.server
        event = await speaker.send(f"{self.choose.random()}")
        for player in self.players.values():
            same = player.server == server
            if player.connected and (same or self.cluster.broker == "pubsub"):
                self.owed[player].append(event)

    def any_server(self) -> str | None:
        return self.choose.choice([None, *self.cluster.servers])

    async def settle_and_check(self) -> None:
        await self.cluster.settle()
        for player, owed in self.owed.items():
            heard = [event.id for event in player.heard]
            assert sorted(heard) == sorted(owed), player.name
        for one in self.players.values():
            for other in self.players.values():
                both = {e.id for e in one.heard} & {e.id for e in other.heard}
                order = [[e.id for e in p.heard if e.id in both] for p in (one, other)]
                assert order[0] == order[1], f"{one.name} and {other.name}"
        before = len(self.cluster.trace)
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.sleep(0.002)
        assert list(self.cluster.trace)[before:] == []


async def _open_and_stop(broker: str, redis: str) -> None:
    async with open_cluster(broker=broker, redis=redis) as cluster:
        await cluster.join("P1", "P2")
        await cluster.settle()


# Until 3.12, asyncio itself drops a connection whose making is cancelled in its last moment.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
class TestInterrupted:
    """A cell that is interrupted is a task that is cancelled, wherever it happens to be."""

    @every_run
    async def test_opening(self, broker: str, redis: str) -> None:
        """`await open_cluster()`, cancelled after each number of turns, leaves nothing."""
        before, ports, processes = tasks(), listeners(), children()
        opened: list[Cluster] = []

        async def cell() -> None:
            opened.append(await open_cluster(broker=broker, redis=redis))

        turns, how = 0, ""
        while how != "finished before":
            how = await cancelled_after(turns, cell)
            if opened:
                await within(opened.pop().stop())
            await eventually(lambda: not tasks() - before)
            assert not listeners() - ports, f"after {turns} turns"
            assert not children() - processes, f"after {turns} turns"
            turns = more(turns)

    @every_run
    async def test_a_whole_run(self, broker: str, redis: str) -> None:
        """The same for a block that opens, plays and stops, while it starts and while it stops."""
        before, ports, processes = tasks(), listeners(), children()
        turns, how = 0, ""
        while how != "finished before":
            how = await cancelled_after(turns, lambda: _open_and_stop(broker, redis))
            await eventually(lambda: not tasks() - before)
            assert not listeners() - ports, f"after {turns} turns"
            assert not children() - processes, f"after {turns} turns"
            turns = more(turns)

    async def test_joining(self) -> None:
        """A player whose join was interrupted is not there, and its name is free."""
        async with open_cluster() as cluster:
            before = tasks()
            turns, how = 0, ""
            while how != "finished before":
                how = await cancelled_after(turns, lambda: cluster.join("P1", server="A"))
                if how == "cancelled":
                    assert cluster.players == {}
                else:
                    await cluster.players["P1"].leave()
                await eventually(lambda: not _of_player(tasks() - before))
                await eventually(lambda: cluster.servers["A"].players("g") == [])
                turns = more(turns)
            [p1] = await cluster.join("P1", server="A")
            await cluster.settle()
            assert p1.server == "A"

    async def test_reconnecting(self) -> None:
        """The player is away or on its way, and the next reconnect goes where it is to go."""
        async with open_cluster() as cluster:
            [p1] = await cluster.join("P1", server="A")
            turns, how = 0, ""
            while how != "finished before":
                how = await cancelled_after(turns, lambda: p1.reconnect(server="B"))
                await within(p1.reconnect(server="A"))
                assert p1.server == "A", f"after {turns} turns"
                await cluster.settle(timeout=2)
                turns += 1

    @every_run
    async def test_stopping(self, broker: str, redis: str) -> None:
        """What an interrupted stop has not stopped, the next one does."""
        before, ports, processes = tasks(), listeners(), children()
        turns, how = 0, ""
        while how != "finished before":
            cluster = await open_cluster(broker=broker, redis=redis)
            await cluster.join("P1", "P2")
            how = await cancelled_after(turns, cluster.stop)
            await within(cluster.stop())
            await eventually(lambda: not tasks() - before)
            assert not listeners() - ports, f"after {turns} turns"
            assert not children() - processes, f"after {turns} turns"
            turns = more(turns)

    async def test_settling(self) -> None:
        """An interrupted settle changes nothing."""
        async with open_cluster() as cluster:
            p1, p2 = await cluster.join("P1", "P2")
            turns, how = 0, ""
            while how != "finished before":
                how = await cancelled_after(turns, cluster.settle)
                turns = more(turns)
            await p1.send("x")
            await cluster.settle()
            assert bodies(p2.heard) == ["x"]


def _of_player(left: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    return {task for task in left if task.get_name().startswith("player")}


class TestStopping:
    @every_run
    async def test_nothing_is_left_when_stop_returns(self, broker: str, redis: str) -> None:
        """Not a moment later: then."""
        before, processes = tasks(), children()
        cluster = await open_cluster(broker=broker, redis=redis)
        players = await cluster.join("P1", "P2", "P3")
        await players[0].send("x")
        await cluster.stop()
        assert not tasks() - before
        assert not children() - processes

    async def test_with_strangers_connected(self) -> None:
        """Their connections are closed; nobody is waited for, nothing is reported."""
        async with open_cluster() as cluster:
            await cluster.join("P1")
            reader, writer = await asyncio.open_connection("127.0.0.1", cluster.balancer.port)
            async with dial(cluster.url) as raw, dial(cluster.servers["A"].url) as direct:
                await raw.join("R1")
                await direct.join("R2")
                await within(cluster.stop(), 3)
                await raw.closed()
                await direct.closed()
            assert await within(reader.read()) == b""
            writer.close()

    async def test_with_a_player_on_its_way_back(self) -> None:
        """A player that looks for a server in vain stops looking."""
        before = tasks()
        async with open_cluster(broker="none") as cluster:
            await cluster.join("P1")
            for server in cluster.servers.values():
                await server.stop()
            await recorded(cluster.trace, "disconnect", at="P1")
        assert not tasks() - before

    async def test_the_trace_ends_with_the_run(self) -> None:
        """What the parts do while they shut down is not recorded."""
        async with open_cluster() as cluster:
            await cluster.join("P1")
            await cluster.settle()
            before = len(cluster.trace)
        assert (len(cluster.trace), cluster.trace.ended) == (before, True)
