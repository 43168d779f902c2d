"""A queue for each player: an event stays in it until the player has acknowledged it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.brokers.keeping import publish
from tests.conftest import dial, eventually, game_server, recorded, tasks, within
from wsdemo.brokers import BrokerDown, GameFull, QueueBroker, Resumption
from wsdemo.brokers import queue as queue_module
from wsdemo.limits import Limits
from wsdemo.protocol import Position
from wsdemo.redis.backend import EmbeddedRedis, FakeRedis, RedisBackend
from wsdemo.redis.line import Line
from wsdemo.server import GameServer
from wsdemo.trace import Trace


class Heard:
    """What a server was told for each player: numbers of events, and losses."""

    def __init__(self) -> None:
        self.of: defaultdict[str, list[int | None]] = defaultdict(list)
        self.skips: list[tuple[str, Position, str]] = []

    def relay(self, game: str, payload: bytes, seq: int | None, player: str, hops: int) -> None:
        self.of[player].append(seq)

    def skip(self, game: str, position: Position, reason: str, player: str) -> None:
        self.skips.append((player, position, reason))


@asynccontextmanager
async def started(
    redis: RedisBackend,
    server: str,
    *,
    history: int = 1000,
    line: Line | None = None,
    trace: Trace | None = None,
) -> AsyncIterator[tuple[QueueBroker, Heard]]:
    """A server's broker that has started and listens to the game, and what it is told."""
    broker = QueueBroker(
        redis.client(line), server=server, prefix=redis.prefix, history=history, trace=trace
    )
    heard = Heard()
    try:
        await broker.start(heard.relay, heard.skip)
        await broker.subscribe("g")
        yield broker, heard
    finally:
        await within(broker.stop())


async def lengths(redis: RedisBackend) -> dict[str, int]:
    """How many events each queue has, by player."""
    client, stem = redis.client(), f"{redis.prefix}queue:{{g}}:of:"
    try:
        found: Any = await client.keys(f"{stem}*")
        keys = [key.decode() for key in found]
        return {key.removeprefix(stem): await client.xlen(key) for key in keys}
    finally:
        await client.aclose()


async def has_length(redis: RedisBackend, player: str, length: int) -> None:
    """Wait until the player's queue is so long; a queue that is empty may be there or not."""
    async with asyncio.timeout(5):
        while (await lengths(redis)).get(player, 0) != length:
            pass


def upto(last: int, first: int = 1) -> list[int]:
    return list(range(first, last + 1))


class TestAQueue:
    async def test_has_each_event_for_each_player(self, redis: RedisBackend) -> None:
        """In the order of numbers without a hole, whichever server it came from."""
        async with started(redis, "A") as a, started(redis, "B") as b:
            for broker, players in ((a[0], ("P1", "P2")), (b[0], ("P3",))):
                for player in players:
                    await broker.resume("g", player, None)
            await asyncio.gather(publish(a[0], *upto(50)), publish(b[0], *upto(100, 51)))
            await a[0].sync()
            await b[0].sync()
            assert a[1].of == {"P1": upto(100), "P2": upto(100)}
            assert b[1].of == {"P3": upto(100)}
            assert await lengths(redis) == {"P1": 100, "P2": 100, "P3": 100}

    async def test_begins_when_its_player_joins(self, fake: FakeRedis) -> None:
        """Whoever is new has missed nothing, and gets nothing of what was before."""
        async with started(fake, "A") as (a, heard):
            await a.resume("g", "P1", None)
            end = await publish(a, 1, 2)
            assert await a.resume("g", "P2", None) == Resumption(end)
            await publish(a, 3)
            await a.sync()
            assert heard.of == {"P1": [1, 2, 3], "P2": [3]}

    async def test_survives_an_absence_and_moves(self, redis: RedisBackend) -> None:
        """What comes while the player is nowhere is there for it, on another server too."""
        async with started(redis, "A") as (a, heard_a), started(redis, "B") as (b, heard_b):
            await a.resume("g", "P1", None)
            since = await publish(a, 1)
            await a.sync()
            a.acknowledge("g", "P1", 1)
            a.detach("g", "P1")
            await publish(a, *upto(250, 2))
            await a.sync()
            assert heard_a.of == {"P1": [1]}
            found = await b.resume("g", "P1", since)
            await b.sync()
            assert found == Resumption(since, recovered=True)
            assert heard_b.of == {"P1": upto(250, 2)}

    async def test_knows_what_was_acknowledged(self, fake: FakeRedis) -> None:
        """A player that has forgotten its position goes on after its last acknowledgement."""
        async with started(fake, "A") as (a, _), started(fake, "B") as (b, heard):
            await a.resume("g", "P1", None)
            end = await publish(a, *upto(5))
            await a.sync()
            a.acknowledge("g", "P1", 3)
            await has_length(fake, "P1", 2)
            a.detach("g", "P1")
            found = await b.resume("g", "P1", None)
            await b.sync()
            assert found == Resumption(Position(end.epoch, 3), recovered=True)
            assert heard.of == {"P1": [4, 5]}

    async def test_is_struck_off_by_a_position(self, fake: FakeRedis) -> None:
        """Whoever says what it has heard, when it comes back, has acknowledged it."""
        async with started(fake, "A") as (a, heard):
            await a.resume("g", "P1", None)
            epoch = (await publish(a, *upto(5))).epoch
            a.detach("g", "P1")
            await a.sync()
            heard.of.clear()
            await a.resume("g", "P1", Position(epoch, 4))
            await a.sync()
            assert heard.of == {"P1": [5]}
            assert await lengths(fake) == {"P1": 1}

    async def test_is_taken_away_for_good(self, redis: RedisBackend) -> None:
        """Only when its player has left, and then nothing is put into it any more."""
        async with started(redis, "A") as (a, heard):
            await a.resume("g", "P1", None)
            await a.resume("g", "P2", None)
            await publish(a, 1)
            a.detach("g", "P1")
            assert (await lengths(redis))["P1"] == 1
            await a.forget("g", "P1")
            await publish(a, 2)
            await a.sync()
            assert await lengths(redis) == {"P2": 2}
            assert heard.of["P2"] == [1, 2]

    async def test_is_not_made_anew_by_a_server_that_stood_still(self, fake: FakeRedis) -> None:
        """The player has left through another server; the first one finds no queue to read."""
        async with started(fake, "A") as (a, heard), started(fake, "B") as (b, _):
            await a.resume("g", "P1", None)
            await a.resume("g", "P2", None)
            await a.sync()
            a.gate.shut()
            await b.resume("g", "P1", None)
            await b.forget("g", "P1")
            await publish(b, 1)
            a.gate.open()
            await a.sync()
            await publish(b, 2)
            await a.sync()
            assert await lengths(fake) == {"P2": 2}
            assert heard.skips == []

    async def test_begins_anew_for_whoever_returns_after_leaving(self, fake: FakeRedis) -> None:
        """An old position is no claim to what was not kept, and it is said so."""
        async with started(fake, "A") as (a, _):
            await a.resume("g", "P1", None)
            await a.resume("g", "P2", None)
            since = await publish(a, 1)
            await a.forget("g", "P1")
            end = await publish(a, 2)
            found = await a.resume("g", "P1", since)
            assert found == Resumption(end, recovered=False, reason="trimmed")

    @pytest.mark.parametrize("seq", [4, 2**63, 2**64 - 1])
    async def test_read_from_beyond_the_end(self, fake: FakeRedis, seq: int) -> None:
        """Nobody can have heard that: the player is told where the game is."""
        async with started(fake, "A") as (a, _):
            await a.resume("g", "P1", None)
            end = await publish(a, 1, 2, 3)
            found = await a.resume("g", "P1", Position(end.epoch, seq))
            assert found == Resumption(end, recovered=False, reason="new epoch")

    async def test_read_with_an_epoch_of_another_game(self, fake: FakeRedis) -> None:
        """Its numbers say nothing, so nothing is struck off, and the player is told."""
        async with started(fake, "A") as (a, heard):
            await a.resume("g", "P1", None)
            end = await publish(a, 1, 2, 3)
            await a.sync()
            heard.of.clear()
            found = await a.resume("g", "P1", Position("elsewhere", 2))
            await a.sync()
            start = Position(end.epoch, 0)
            assert found == Resumption(start, recovered=False, reason="new epoch")
            assert heard.of == {"P1": [1, 2, 3]}


class TestARetry:
    async def test_is_put_into_no_queue_again(self, redis: RedisBackend) -> None:
        """It gets the first number, from whichever server, one after the other or at once."""
        async with started(redis, "A") as (a, heard), started(redis, "B") as (b, _):
            await a.resume("g", "P1", None)
            receipts = await asyncio.gather(
                *(broker.publish("g", b"x", "P1-1") for broker in (a, b) * 5)
            )
            await publish(b, 2)
            assert (await publish(a, 1)).seq == 1
            await a.sync()
            assert sum(receipt.is_new for receipt in receipts) == 1
            assert heard.of == {"P1": [1, 2]}
            assert await lengths(redis) == {"P1": 2}

    async def test_after_a_lost_reply(self, fake: FakeRedis) -> None:
        """What was taken, though nobody could know, is there once."""
        line, payload = Line(), b'{"type":"event","id":"P1-1"}'
        async with started(fake, "A", line=line) as (a, heard):
            await a.resume("g", "P1", None)
            line.replies_to_lose = 1
            with pytest.raises(BrokerDown, match="out of reach"):
                await a.publish("g", payload, "P1-1")
            assert not (await a.publish("g", payload, "P1-1")).is_new
            await a.sync()
            assert heard.of == {"P1": [1]}


class TestAnAcknowledgement:
    async def test_strikes_off(self, redis: RedisBackend) -> None:
        """Everything up to its number leaves this player's queue, and no other's."""
        async with started(redis, "A") as (a, _):
            await a.resume("g", "P1", None)
            await a.resume("g", "P2", None)
            await publish(a, *upto(5))
            await a.sync()
            a.acknowledge("g", "P1", 3)
            await a.sync()
            assert await lengths(redis) == {"P1": 2, "P2": 5}
            a.acknowledge("g", "P1", 5)
            await a.sync()
            assert (await lengths(redis)).get("P1", 0) == 0

    async def test_of_what_was_not_written_is_ignored(self, fake: FakeRedis) -> None:
        """So is one from before, and one of somebody who is not here."""
        async with started(fake, "A") as (a, _):
            await a.resume("g", "P1", None)
            await publish(a, *upto(5))
            await a.sync()
            a.acknowledge("g", "P1", 2)
            for seq in (6, 2**64 - 1, 2, 0):
                a.acknowledge("g", "P1", seq)
            a.acknowledge("g", "P9", 3)
            await a.sync()
            assert await lengths(fake) == {"P1": 3}

    async def test_that_is_long_in_coming(
        self, fake: FakeRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Events are written again after the last one acknowledged, each time later."""
        monkeypatch.setattr(queue_module, "ACK_TIMEOUT", 0.02)
        monkeypatch.setattr(queue_module, "LONGEST_ACK_TIMEOUT", 0.08)
        async with started(fake, "A") as (a, heard):
            await a.resume("g", "P1", None)
            reader = a._readers["g"]["P1"]
            reader.timeout = 0.02
            await publish(a, *upto(3))
            a.acknowledge("g", "P1", 1)
            await eventually(lambda: len(heard.of["P1"]) >= 3)
            a.acknowledge("g", "P1", 1)
            await eventually(lambda: len(heard.of["P1"]) >= 7)
            assert heard.of["P1"][:7] == [1, 2, 3, 2, 3, 2, 3]
            await eventually(lambda: reader.timeout == 0.08)
            await eventually(lambda: reader.written == 3)
            a.acknowledge("g", "P1", 3)
            assert reader.timeout == 0.02
            assert reader.timer is None
            await a.sync()
            assert await lengths(fake) in ({}, {"P1": 0})
            assert reader.timer is None

    async def test_that_comes_leaves_nothing_to_repeat(self, fake: FakeRedis) -> None:
        """Nor does an absence: nobody waits for a player who is not here."""
        async with started(fake, "A") as (a, _):
            for player in ("P1", "P2"):
                await a.resume("g", player, None)
            readers = dict(a._readers["g"])
            await publish(a, 1)
            await a.sync()
            assert all(reader.timer for reader in readers.values())
            a.acknowledge("g", "P1", 1)
            a.detach("g", "P2")
            assert not any(reader.timer for reader in readers.values())


class TestTheBound:
    async def test_is_kept_and_told(self, fake: FakeRedis) -> None:
        """The oldest event gives way; that is recorded, and the player is told of the gap."""
        trace = Trace()
        async with started(fake, "A", history=5, trace=trace) as (a, heard):
            await a.resume("g", "P1", None)
            await a.resume("g", "P2", None)
            since = await publish(a, 1)
            await a.sync()
            for player in ("P1", "P2"):
                a.acknowledge("g", player, 1)
            await a.sync()
            a.detach("g", "P1")
            for name in upto(8, 2):
                await publish(a, name)
                await a.sync()
                a.acknowledge("g", "P2", name)
                await a.sync()
            assert (await lengths(fake))["P1"] == 5
            trims = [record.data["player"] for record in trace.select("trim")]
            assert trims == ["P1", "P1"]
            heard.of.clear()
            found = await a.resume("g", "P1", since)
            await a.sync()
            start = Position(since.epoch, 3)
            assert found == Resumption(start, recovered=False, reason="trimmed")
            assert heard.of == {"P1": upto(8, 4)}
            assert heard.skips == []

    async def test_is_told_to_whoever_is_here(self, fake: FakeRedis) -> None:
        """A server that was cut off while the queue overflowed says what is lost, once."""
        line = Line()
        async with (
            started(fake, "A", history=5) as (a, _),
            started(fake, "B", history=5, line=line) as (b, heard),
        ):
            await b.resume("g", "P1", None)
            await a.resume("g", "P2", None)
            await publish(a, 1)
            await b.sync()
            line.cut()
            await eventually(lambda: not b._link.is_up)
            end = await publish(a, *upto(10, 2))
            line.mend()
            await b.sync()
            assert heard.of == {"P1": [1, *upto(10, 6)]}
            assert heard.skips == [("P1", Position(end.epoch, 5), "trimmed")]

    async def test_holds_for_ids_too(self, fake: FakeRedis) -> None:
        """There are as many as a queue has events, and five kinds of keys do not grow."""
        async with started(fake, "A", history=5) as (a, _):
            await a.resume("g", "P1", None)
            await publish(a, *upto(20))
            client = fake.client()
            ids = await client.zrange("queue:{g}:ids", 0, -1)
            found: Any = await client.keys()
            keys = sorted(key.decode() for key in found)
            await client.aclose()
        assert ids == [b"P1-%d" % name for name in upto(20, 16)]
        stem = "queue:{g}"
        assert keys == [f"{stem}:about", f"{stem}:ids", f"{stem}:of:P1", f"{stem}:players"]


class TestTheNumberOfQueues:
    async def test_is_bounded_for_those_who_are_new(self, redis: RedisBackend) -> None:
        """On all servers, with those who are away, who may come back; whoever leaves makes room."""
        async with started(redis, "A") as (a, _), started(redis, "B") as (b, heard):
            a.max_players = b.max_players = 2
            await a.resume("g", "P1", None)
            await b.resume("g", "P2", None)
            b.detach("g", "P2")
            since = await publish(a, 1)
            for broker, position in ((a, None), (b, None), (b, since)):
                with pytest.raises(GameFull):
                    await broker.resume("g", "P3", position)
            assert sorted(await lengths(redis)) == ["P1", "P2"]
            assert (await b.resume("g", "P2", None)).recovered
            await b.sync()
            assert heard.of == {"P2": [1]}
            await a.forget("g", "P1")
            assert await b.resume("g", "P3", None) == Resumption(since)

    async def test_is_the_server_s_limit(self, redis: RedisBackend) -> None:
        """Who comes and goes leaves no more queues than a game may have players, and is told so."""
        limits = Limits(max_players=2)
        broker = QueueBroker(redis.client(), server="A", prefix=redis.prefix)
        async with game_server(broker=broker, limits=limits) as server:
            for name in ("P1", "P2"):
                async with dial(server.url) as client:
                    await client.join(name)
            async with dial(server.url) as client:
                error = await client.ask("join", game="g", player="P3")
                assert (error["type"], error["code"]) == ("error", "game-full")
                assert "max_players" in error["message"]
                await client.join("P3", game="another")
                assert list(server._games) == ["another"]
            async with dial(server.url) as client:
                await client.join("P1")
        client_of_redis = redis.client()
        players = await client_of_redis.hkeys(f"{redis.prefix}queue:{{g}}:players")
        await client_of_redis.aclose()
        assert sorted(players) == [b"P1", b"P2"]


class TestRedisThatLosesItsData:
    async def test_while_it_runs(self, redis: RedisBackend) -> None:
        """Until queues are made anew nothing is taken; then players are told, and it goes on."""
        async with started(redis, "A") as (a, heard_a), started(redis, "B") as (b, heard_b):
            await a.resume("g", "P1", None)
            await b.resume("g", "P2", None)
            before = await publish(a, 1, 2)
            await a.sync()
            await b.sync()
            client = redis.client()
            await client.flushall()
            await client.aclose()
            with pytest.raises(BrokerDown, match="queues are being made anew"):
                await publish(a, 3)
            await a.sync()
            after = await publish(a, 3)
            await a.sync()
            await b.sync()
            await publish(b, 4)
            await a.sync()
            await b.sync()
            assert after.seq == 1
            assert after.epoch != before.epoch
            assert heard_a.skips == [("P1", Position(after.epoch, 0), "new epoch")]
            assert heard_a.of == {"P1": [1, 2, 1, 2]}
            assert heard_b.skips == [("P2", Position(after.epoch, 1), "new epoch")]
            assert heard_b.of == {"P2": [1, 2, 2]}

    async def test_in_a_restart(self, fake: FakeRedis) -> None:
        """Each server makes its players' queues anew as soon as it is back."""
        async with started(fake, "A") as (a, heard_a), started(fake, "B") as (b, heard_b):
            await a.resume("g", "P1", None)
            await b.resume("g", "P2", None)
            before = await publish(a, 1)
            await a.sync()
            await b.sync()
            await fake.shut_down(keep=False)
            await fake.start()
            await eventually(lambda: heard_a.skips and heard_b.skips)
            after = await publish(a, 1)
            await a.sync()
            await b.sync()
            assert after.seq == 1
            assert after.epoch != before.epoch
            start = Position(after.epoch, 0)
            assert heard_a.skips == [("P1", start, "new epoch")]
            assert heard_b.skips == [("P2", start, "new epoch")]
            assert heard_a.of["P1"] == heard_b.of["P2"] == [1, 1]

    async def test_but_not_in_a_crash_with_a_file(self) -> None:
        """With its file written before each answer, queues are as they were, in another epoch."""
        async with EmbeddedRedis("always") as redis, started(redis, "A") as (a, heard):
            await a.resume("g", "P1", None)
            before = await publish(a, *upto(20))
            await redis.crash()
            await redis.start()
            await a.sync()
            after = await publish(a, 21)
            await a.sync()
            assert after.seq == 21
            assert after.epoch != before.epoch
            assert heard.of == {"P1": upto(21)}
            assert heard.skips == [("P1", Position(after.epoch, 20), "")]
            assert await lengths(redis) == {"P1": 21}


class TestAServerThatWasAway:
    async def test_its_link_was_cut(self, redis: RedisBackend) -> None:
        """It reads on where it was, in order, each event once."""
        line, trace = Line(), Trace()
        async with (
            started(redis, "A") as (a, _),
            started(redis, "B", line=line, trace=trace) as (b, heard),
        ):
            await b.resume("g", "P1", None)
            speaking = asyncio.create_task(publish(a, *upto(300)))
            for times in range(1, 4):
                await eventually(lambda: len(heard.of["P1"]) >= 50 * times)  # noqa: B023
                await eventually(lambda: b._link.is_up)
                line.cut()
                await recorded(trace, "disconnect", times=times)
                line.mend()
            await within(speaking)
            await b.sync()
            assert heard.of == {"P1": upto(300)}
            assert heard.skips == []

    async def test_it_stood_still(self, fake: FakeRedis) -> None:
        """What has waited is relayed when it goes on, in order, and once."""
        async with started(fake, "A") as (a, _), started(fake, "B") as (b, heard):
            await b.resume("g", "P1", None)
            b.gate.shut()
            await publish(a, *upto(250))
            await a.sync()
            assert heard.of == {}
            b.gate.open()
            await b.sync()
            assert heard.of == {"P1": upto(250)}

    async def test_players_join_under_traffic(self, fake: FakeRedis) -> None:
        """From where each was told that it begins, it has neither a hole nor an event twice."""
        async with started(fake, "A") as (a, _), started(fake, "B") as (b, heard):
            await a.resume("g", "P9", None)
            speaking = asyncio.create_task(publish(a, *upto(60)))
            starts = {}
            for number in range(12):
                found = await b.resume("g", f"P{number}", None)
                assert found.position is not None
                starts[f"P{number}"] = found.position.seq
            await speaking
            await b.sync()
            for player, start in starts.items():
                assert heard.of[player] == upto(60, start + 1)

    async def test_its_player_gave_up_while_it_joined(self, fake: FakeRedis) -> None:
        """Then nobody reads its queue there: it may be on another server by now."""
        broker = QueueBroker(fake.client(), server="A")
        async with GameServer("A", broker) as server, dial(server.url) as stays:
            await stays.join("P1")
            async with dial(server.url) as goes:
                fake.freeze()
                await goes.say("join", game="g", player="P2")
                await eventually(lambda: "P2" in server._games["g"].arriving)
                goes.slam()
            await eventually(lambda: len(server._sockets) == 1)
            fake.thaw()
            await server.until(lambda: len(server.calls) == 1)
            await server.until(lambda: "P2" not in server._games["g"].arriving)
            assert list(broker._readers["g"]) == ["P1"]


class TestReadingThatFails:
    async def test_is_taken_up_again(
        self, fake: FakeRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever went wrong in it: the server reads what comes next, and is not deaf for ever."""
        async with started(fake, "A") as (a, heard), started(fake, "B") as (b, _):
            await a.resume("g", "P1", None)
            await a.sync()
            with monkeypatch.context() as patch:
                patch.setattr(a, "_insist", _fails)
                a._wake("g")
                with pytest.raises(RuntimeError, match="ours"):
                    await a._reading["g"]
            await publish(b, 1, 2)
            await eventually(lambda: heard.of == {"P1": [1, 2]})

    async def test_of_a_game_that_has_ended_leaves_nothing(self, fake: FakeRedis) -> None:
        """What comes a moment too late is about a game of which nothing is known here."""
        async with started(fake, "A") as (a, _):
            await a.resume("g", "P1", None)
            await a.unsubscribe("g")
            a._wake("g")
            await a.sync()
            assert not a._readers


async def _fails(*_: object) -> None:
    raise RuntimeError("a mistake of ours")


class TestStopping:
    @pytest.mark.parametrize("turns", range(0, 40, 6))
    async def test_leaves_no_task(self, fake: FakeRedis, turns: int) -> None:
        """However far a server is with whatever it does."""
        async with started(fake, "A") as (a, _):
            line = Line()
            async with started(fake, "B", line=line) as (b, _):
                await b.resume("g", "P1", None)
                await publish(a, *upto(10))
                line.cut()
                line.mend()
                speaking = asyncio.create_task(publish(a, *upto(20, 11)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                await within(b.stop())
                assert not [task for task in tasks() if task.get_name().startswith("B ")]
                await speaking

    async def test_while_it_reads(self, fake: FakeRedis) -> None:
        """Whoever waits for all that was published does not wait for ever."""
        async with started(fake, "A") as (a, _):
            await a.resume("g", "P1", None)
            fake.freeze()
            a._wake("g")
            await asyncio.sleep(0)
            await within(a.stop())
            fake.thaw()
            await within(a.sync(), 1)
