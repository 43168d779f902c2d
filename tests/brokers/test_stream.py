"""Redis Streams: numbers without a hole, each event once, and whoever was away has it later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.brokers.keeping import publish
from tests.conftest import eventually, recorded, tasks, within
from wsdemo.brokers import BrokerDown, Resumption, StreamBroker
from wsdemo.brokers import redis_broker as redis_module
from wsdemo.protocol import Position
from wsdemo.redis.backend import FakeRedis, RedisBackend
from wsdemo.redis.line import Line
from wsdemo.trace import Trace


@dataclass
class Heard:
    """What a server was told: events by number, and the losses."""

    events: list[tuple[int | None, bytes]] = field(default_factory=list)
    skips: list[tuple[Position, str]] = field(default_factory=list)

    @property
    def numbers(self) -> list[int | None]:
        return [seq for seq, _ in self.events]

    async def has(self, count: int) -> None:
        """Wait until so many events have come."""
        await eventually(lambda: len(self.events) >= count)


@asynccontextmanager
async def started(
    redis: RedisBackend,
    server: str,
    game: str = "g",
    *,
    history: int = 1000,
    line: Line | None = None,
    trace: Trace | None = None,
) -> AsyncIterator[tuple[StreamBroker, Heard]]:
    """A server's broker that has started and listens to a game, and what it is told."""
    broker = StreamBroker(
        redis.client(line), server=server, prefix=redis.prefix, history=history, trace=trace
    )
    heard = Heard()
    try:
        await broker.start(
            lambda game, payload, seq, player, hops: heard.events.append((seq, payload)),
            lambda game, position, reason, player: heard.skips.append((position, reason)),
        )
        await broker.subscribe(game)
        yield broker, heard
    finally:
        await within(broker.stop())


def upto(last: int, first: int = 1) -> list[int]:
    return list(range(first, last + 1))


def at_the_gate(broker: StreamBroker) -> bool:
    """Whether an answer of Redis waits for this server to go on."""
    return bool(broker.gate._opened._waiters)


async def resume(broker: StreamBroker, since: Position) -> tuple[list[Resumption], list[int]]:
    """Resume until there is no more: each part, and the numbers of all that was missed."""
    parts = [await broker.resume("g", "P1", since)]
    while parts[-1].has_more:
        end = parts[-1].end
        assert end is not None
        parts.append(await broker.resume("g", "P1", end))
    return parts, [seq for part in parts for seq, _ in part.missed]


class TestNumbers:
    async def test_have_no_hole(self, redis: RedisBackend) -> None:
        """However many servers publish at once, and each server relays them in their order."""
        async with started(redis, "A") as a, started(redis, "B") as b, started(redis, "C") as c:

            async def publish_in_turn(broker: StreamBroker, first: int) -> list[Position]:
                return [await publish(broker, name) for name in range(first, first + 40)]

            found = await asyncio.gather(
                *(publish_in_turn(broker, 40 * n) for n, (broker, _) in enumerate((a, b, c)))
            )
            positions = [position for each in found for position in each]
            for broker, _ in (a, b, c):
                await broker.sync()
        assert sorted(position.seq for position in positions) == upto(120)
        assert len({position.epoch for position in positions}) == 1
        assert a[1].numbers == upto(120)
        assert a[1].events == b[1].events == c[1].events

    async def test_are_each_game_s_own(self, fake: FakeRedis) -> None:
        """Two games of one Redis have their own numbers, and their own epochs."""
        async with started(fake, "A") as (a, _):
            await a.subscribe("other")
            first = await a.publish("g", b"x", "P1-1")
            second = await a.publish("other", b"x", "P1-1")
        assert first.position
        assert second.position
        assert (first.position.seq, second.position.seq) == (1, 1)
        assert first.position.epoch != second.position.epoch


class TestARetry:
    async def test_gets_the_first_number(self, redis: RedisBackend) -> None:
        """An event that is kept already is not kept again, from whichever server it comes."""
        async with started(redis, "A") as (a, heard_a), started(redis, "B") as (b, heard_b):
            first = await a.publish("g", b"1", "P1-1")
            await publish(a, 2)
            again = await b.publish("g", b"1", "P1-1")
            await a.sync()
            await b.sync()
        assert again.position == first.position
        assert (first.is_new, again.is_new) == (True, False)
        assert heard_a.numbers == heard_b.numbers == [1, 2]

    async def test_at_the_same_moment(self, redis: RedisBackend) -> None:
        """Of many that publish one event at once, from several servers, one is the first."""
        async with started(redis, "A") as a, started(redis, "B") as b, started(redis, "C") as c:
            receipts = await asyncio.gather(
                *(broker.publish("g", b"x", "P1-1") for broker, _ in (a, b, c) * 5)
            )
            for broker, heard in (a, b, c):
                await broker.sync()
                assert heard.events == [(1, b"x")]
        assert sum(receipt.is_new for receipt in receipts) == 1
        assert len({receipt.position for receipt in receipts}) == 1

    async def test_after_a_reply_was_lost(self, redis: RedisBackend) -> None:
        """Whoever could not know whether it was taken says it again, and it is there once."""
        line, payload = Line(), b'{"type":"event","id":"P1-1"}'
        async with (
            started(redis, "A", line=line) as (a, heard_a),
            started(redis, "B") as (b, heard_b),
        ):
            line.replies_to_lose = 2
            for _ in range(2):
                with pytest.raises(BrokerDown, match="out of reach"):
                    await a.publish("g", payload, "P1-1")
            receipt = await a.publish("g", payload, "P1-1")
            await a.sync()
            await b.sync()
        assert receipt.position
        assert receipt.position.seq == 1
        assert not receipt.is_new
        assert heard_a.events == heard_b.events == [(1, payload)]

    async def test_is_known_while_the_event_is_kept(self, fake: FakeRedis) -> None:
        """And not for longer: then it is an event like any other."""
        async with started(fake, "A", history=5) as (a, _):
            await publish(a, *upto(5))
            assert (await publish(a, 1)).seq == 1
            await publish(a, 6)
            assert (await publish(a, 1)).seq == 7


class TestTheWindow:
    async def test_is_exact(self, redis: RedisBackend) -> None:
        """So many events are kept, by so many ids, and there is no key more."""
        async with started(redis, "A", history=7) as (a, _):
            await publish(a, *upto(30))
            client = redis.client()
            found: Any = await client.keys()
            keys = sorted(key.decode() for key in found)
            kept: Any = await client.xrange(f"{redis.prefix}stream:{{g}}:events")
            ids = await client.zrange(f"{redis.prefix}stream:{{g}}:ids", 0, -1)
            await client.aclose()
        assert keys == [f"{redis.prefix}stream:{{g}}:{part}" for part in ("about", "events", "ids")]
        assert [fields[b"event"] for _, fields in kept] == [b"%d" % name for name in upto(30, 24)]
        assert ids == [b"P1-%d" % name for name in upto(30, 24)]


class TestResuming:
    async def test_without_a_position(self, fake: FakeRedis) -> None:
        """Whoever is new begins now: there was nothing to recover."""
        async with started(fake, "A") as (a, _):
            now = await publish(a, 1, 2)
            await a.sync()
            assert await a.resume("g", "P1", None) == Resumption(now)

    async def test_with_nothing_missed(self, fake: FakeRedis) -> None:
        """Hearing goes on where it ended."""
        async with started(fake, "A") as (a, _):
            now = await publish(a, 1, 2)
            await a.sync()
            assert await a.resume("g", "P1", now) == Resumption(now, recovered=True, missed=[])

    async def test_gives_all_that_was_missed(self, redis: RedisBackend) -> None:
        """In order, in parts of bounded size; also on a server that was not there at the time."""
        async with started(redis, "A") as (a, _):
            since = await publish(a, *upto(10))
            await publish(a, *upto(460, 11))
            async with started(redis, "B") as (b, heard):
                parts, missed = await resume(b, since)
                assert heard.events == []
        assert missed == upto(460, 11)
        assert [len(part.missed) for part in parts] == [200, 200, 50]
        assert [part.recovered for part in parts] == [True, True, True]
        assert parts[0].position == since

    async def test_after_the_window_has_moved_on(self, redis: RedisBackend) -> None:
        """It is said so, and goes on before the first event that is kept; one later is in time."""
        async with started(redis, "A", history=5) as (a, _):
            epoch = (await publish(a, *upto(10))).epoch
            await a.sync()
            late = await a.resume("g", "P1", Position(epoch, 4))
            in_time = await a.resume("g", "P1", Position(epoch, 5))
        assert (late.recovered, late.reason) == (False, "trimmed")
        assert late.position == in_time.position == Position(epoch, 5)
        assert in_time.recovered
        assert [seq for seq, _ in late.missed] == [seq for seq, _ in in_time.missed] == upto(10, 6)

    @pytest.mark.parametrize("seq", [4, 2**53 + 1, 2**63, 2**64 - 1])
    async def test_from_beyond_the_end(self, fake: FakeRedis, seq: int) -> None:
        """Nobody can have heard that: the player is told where the game is."""
        async with started(fake, "A") as (a, _):
            end = await publish(a, 1, 2, 3)
            await a.sync()
            found = await a.resume("g", "P1", Position(end.epoch, seq))
            assert found == Resumption(end, recovered=False, reason="new epoch", missed=[])

    async def test_from_another_game(self, fake: FakeRedis) -> None:
        """Its epoch is not this game's, so its numbers say nothing."""
        async with started(fake, "A") as (a, _):
            await a.subscribe("other")
            await publish(a, 1, 2, 3)
            other = (await a.publish("other", b"x", "P1-9")).position
            await a.sync()
            found = await a.resume("g", "P1", other)
        assert (found.recovered, found.reason) == (False, "new epoch")
        assert [seq for seq, _ in found.missed] == [1, 2, 3]

    async def test_while_events_arrive_leaves_no_hole(self, redis: RedisBackend) -> None:
        """What was missed and what is relayed from then on are all events, each once."""
        async with started(redis, "A") as (a, _), started(redis, "B") as (b, heard):
            since = await publish(a, 0)
            speaking = asyncio.create_task(publish(a, *range(1, 200)))
            joins = []
            while not speaking.done():
                parts, missed = await resume(b, since)
                joins.append((since, missed, len(heard.events)))
                end = parts[-1].end
                assert end is not None
                assert all(part.recovered for part in parts)
                since = end
                await asyncio.sleep(0)
            await speaking
            await b.sync()
            for since, missed, relayed in joins:
                assert missed + heard.numbers[relayed:] == upto(200, since.seq + 1)
        assert len(joins) > 20

    async def test_while_the_next_event_overtakes_the_answer(self, fake: FakeRedis) -> None:
        """That nothing was missed is no longer true then, and not what the player is told."""
        async with started(fake, "A") as (a, _), started(fake, "B") as (b, heard):
            since = await publish(a, 1)
            await b.sync()
            b.gate.shut()
            resuming = asyncio.create_task(resume(b, since))
            await eventually(lambda: at_the_gate(b))
            await publish(a, 2)
            await a.sync()
            await eventually(lambda: b.gate._waiting)
            b.gate.open()
            _, missed = await within(resuming)
            await b.sync()
            assert heard.numbers == [1, 2]
            assert missed == [2]

    async def test_on_a_server_that_is_behind(self, fake: FakeRedis) -> None:
        """A player that has heard more than the server is relayed nothing a second time."""
        line = Line()
        async with started(fake, "A") as (a, _), started(fake, "B", line=line) as (b, heard):
            await publish(a, 1)
            await b.sync()
            line.cut()
            await eventually(lambda: not b._link.is_up)
            since = await publish(a, 2, 3)
            resuming = asyncio.create_task(b.resume("g", "P1", since))
            line.mend()
            try:
                found = await within(resuming)
            except BrokerDown:  # it was asked too soon
                found = await within(b.resume("g", "P1", since))
            relayed = len(heard.events)
            await publish(a, 4)
            await b.sync()
        assert found == Resumption(since, recovered=True, missed=[])
        assert heard.numbers[relayed:] == [4]

    async def test_by_many_at_once(self, redis: RedisBackend) -> None:
        """A server that gets all the players of another one gives each what it has missed."""
        async with started(redis, "A") as (a, _):
            since = await publish(a, 1)
            await publish(a, 2)
            await a.sync()
            found = await asyncio.gather(*(a.resume("g", f"P{n}", since) for n in range(200)))
        assert [f.missed for f in found] == [[(2, b"2")]] * 200


class TestRedisThatLosesItsData:
    async def test_while_it_runs(self, redis: RedisBackend) -> None:
        """After FLUSHALL another epoch begins; servers say so, and so hears who resumes."""
        async with started(redis, "A") as (a, heard_a), started(redis, "B") as (b, heard_b):
            before = await publish(a, 1, 2, 3)
            await a.sync()
            await b.sync()
            client = redis.client()
            await client.flushall()
            await client.aclose()
            after = await publish(a, 4)
            await a.sync()
            await b.sync()
            found = await b.resume("g", "P1", before)
        assert after.epoch != before.epoch
        assert after.seq == 1
        start = Position(after.epoch, 0)
        for heard in (heard_a, heard_b):
            assert heard.events[3:] == [(1, b"4")]
            assert heard.skips == [(start, "new epoch")]
        assert found == Resumption(
            start, recovered=False, reason="new epoch", missed=[(1, b"4")], has_more=False
        )

    async def test_in_a_restart(self, fake: FakeRedis) -> None:
        """A server that returns to an empty Redis is told, though nobody says anything."""
        async with started(fake, "A") as (a, heard_a), started(fake, "B") as (b, heard_b):
            before = await publish(a, 1, 2, 3)
            await a.sync()
            await b.sync()
            await fake.shut_down(keep=False)
            await fake.start()
            await eventually(lambda: heard_a.skips and heard_b.skips)
            assert heard_a.skips == heard_b.skips
            assert [(start.seq, why) for start, why in heard_a.skips] == [(0, "new epoch")]
            found = await a.resume("g", "P1", before)
            start = heard_a.skips[0][0]
            assert found == Resumption(start, recovered=False, reason="new epoch", missed=[])
            assert await publish(a, 1) == Position(heard_a.skips[0][0].epoch, 1)
            await b.sync()
            assert heard_b.events[3:] == [(1, b"1")]

    async def test_or_does_not_lose_them(self, fake: FakeRedis) -> None:
        """A restart with all data is an absence like any other."""
        async with started(fake, "A") as (a, heard):
            before = await publish(a, 1, 2, 3)
            await a.sync()
            await fake.shut_down(keep=True)
            await fake.start()
            await a.sync()
            assert await publish(a, 4) == Position(before.epoch, 4)
            await a.sync()
            assert (heard.numbers, heard.skips) == ([1, 2, 3, 4], [])


class TestAServerThatWasAway:
    async def test_its_link_was_cut(self, redis: RedisBackend) -> None:
        """It goes on where it was, in order, each event once, though Redis woke nobody."""
        line, trace = Line(), Trace()
        async with (
            started(redis, "A") as (a, _),
            started(redis, "B", line=line, trace=trace) as (b, heard),
        ):
            await publish(a, 1)
            await b.sync()
            line.cut()
            await recorded(trace, "disconnect")
            await publish(a, *upto(250, 2))
            assert heard.numbers == [1]
            line.mend()
            await b.sync()
            assert heard.numbers == upto(250)
            await publish(a, 251)
            await b.sync()
        assert heard.numbers == upto(251)
        assert heard.skips == []

    async def test_while_others_go_on(self, redis: RedisBackend) -> None:
        """Also if its link breaks again and again under traffic."""
        line, trace = Line(), Trace()
        async with (
            started(redis, "A") as (a, _),
            started(redis, "B", line=line, trace=trace) as (b, heard),
        ):
            speaking = asyncio.create_task(publish(a, *upto(200)))
            for times in range(1, 6):
                await heard.has(20 * times)
                await eventually(lambda: b._link.is_up)
                line.cut()
                await recorded(trace, "disconnect", times=times)
                line.mend()
            await within(speaking)
            await b.sync()
        assert heard.numbers == upto(200)

    async def test_it_stood_still(self, fake: FakeRedis) -> None:
        """What has waited is relayed, in order, and once, when it goes on under traffic."""
        async with started(fake, "A") as (a, _), started(fake, "B") as (b, heard):
            await publish(a, 1)
            await b.sync()
            b.gate.shut()
            await publish(a, *upto(250, 2))
            speaking = asyncio.create_task(publish(a, *upto(300, 251)))
            await a.sync()
            assert heard.numbers == [1]
            b.gate.open()
            await speaking
            await b.sync()
        assert heard.numbers == upto(300)

    async def test_it_stood_still_past_a_bound(
        self, fake: FakeRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It loses its subscription, as under Pub/Sub, but no event."""
        monkeypatch.setattr(redis_module, "BYTES_WAITING", 100)
        trace = Trace()
        async with started(fake, "A") as (a, _), started(fake, "B", trace=trace) as (b, heard):
            b.gate.shut()
            await publish(a, *upto(60))
            await eventually(lambda: b._waiting > 100)
            b.gate.open()
            await recorded(trace, "gap")
            await b.sync()
        assert heard.numbers == upto(60)

    async def test_for_too_long(self, fake: FakeRedis) -> None:
        """It says from where on it has events, and relays those."""
        line = Line()
        async with (
            started(fake, "A", history=10) as (a, _),
            started(fake, "B", history=10, line=line) as (b, heard),
        ):
            await publish(a, 1)
            await b.sync()
            line.cut()
            await eventually(lambda: not b._link.is_up)
            end = await publish(a, *upto(25, 2))
            line.mend()
            await b.sync()
        assert heard.numbers == [1, *upto(25, 16)]
        assert heard.skips == [(Position(end.epoch, 15), "trimmed")]

    async def test_without_players_meanwhile(self, fake: FakeRedis) -> None:
        """A server that unsubscribes and comes back begins now; a player has what it missed."""
        async with started(fake, "A") as (a, _), started(fake, "B") as (b, heard):
            since = await publish(a, 1)
            await b.sync()
            await b.unsubscribe("g")
            await publish(a, 2, 3)
            await b.sync()
            assert heard.numbers == [1]
            await b.subscribe("g")
            found = await b.resume("g", "P1", since)
            await publish(a, 4)
            await b.sync()
        assert [seq for seq, _ in found.missed] == [2, 3]
        assert heard.numbers == [1, 4]
        assert heard.skips == []

    async def test_with_somebody_else_s_message(self, fake: FakeRedis) -> None:
        """What is no event of ours on the game's channel costs neither the link nor an event."""
        trace = Trace()
        async with started(fake, "A", trace=trace) as (a, heard):
            client = fake.client()
            for message in ("", "hello", "one two three", "e 1x {}"):
                await client.publish("game:g", message)
                await publish(a, len(heard.events))
                await a.sync()
            await client.aclose()
        assert heard.numbers == upto(4)
        assert not trace.select("disconnect")


class TestReadingThatFails:
    async def test_is_taken_up_again(
        self, fake: FakeRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever went wrong in it: the server hears what comes next, and is not deaf for ever."""
        async with started(fake, "A") as (a, heard), started(fake, "B") as (b, _):
            with monkeypatch.context() as patch:
                patch.setattr(a, "_insist", _fails)
                with pytest.raises(RuntimeError, match="ours"):
                    await a._catch_up("g")
            await publish(b, 1, 2)
            await eventually(lambda: heard.numbers == [1, 2])


async def _fails(*_: object) -> None:
    raise RuntimeError("a mistake of ours")


class TestStopping:
    @pytest.mark.parametrize("turns", range(0, 40, 6))
    async def test_leaves_no_task(self, fake: FakeRedis, turns: int) -> None:
        """However far a server is with whatever it does."""
        before = tasks()
        async with started(fake, "A") as (a, _):
            line = Line()
            async with started(fake, "B", line=line) as (b, _):
                await publish(a, *upto(10))
                line.cut()
                line.mend()
                speaking = asyncio.create_task(publish(a, *upto(20, 11)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                await within(b.stop())
                assert not [task for task in tasks() if task.get_name().startswith("B ")]
                await speaking
        assert not tasks() - before

    async def test_while_it_reads(self, fake: FakeRedis) -> None:
        """Whoever waits for all that was published does not wait for ever."""
        before = tasks()
        async with started(fake, "A") as (a, _):
            await publish(a, 1)
            fake.freeze()
            a._catch_up("g")
            await asyncio.sleep(0)
            await within(a.stop())
            fake.thaw()
            assert not tasks() - before
            await within(a.sync(), 1)
