"""What a broker keeps has an end: a game that nobody plays, a player who never returns, a size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.brokers.keeping import publish
from tests.conftest import PATIENCE, within
from wsdemo.brokers import BrokerDown, QueueBroker, StreamBroker, keeping, new_broker
from wsdemo.brokers.keeping import SECONDS_TO_KEEP
from wsdemo.protocol import Position
from wsdemo.redis.backend import EmbeddedRedis, FakeRedis, RedisBackend

Keeping = QueueBroker | StreamBroker
Skips = list[tuple[Position, str]]

HOUR = 3_600_000  # ms
DAY = 24 * HOUR


@pytest.fixture(params=["stream", "queue"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def client(redis: RedisBackend) -> AsyncIterator[Redis]:
    """To look into Redis with."""
    client = redis.client()
    yield client
    await client.aclose()


@asynccontextmanager
async def started(
    kind: str, redis: RedisBackend, server: str, seconds_to_keep: float = SECONDS_TO_KEEP
) -> AsyncIterator[tuple[Keeping, list[bytes], Skips]]:
    """A server's broker that listens to the game, with the events and the losses it is told."""
    broker = new_broker(
        kind, redis.client(), server=server, prefix=redis.prefix, seconds_to_keep=seconds_to_keep
    )
    assert isinstance(broker, Keeping)
    heard, skips = list[bytes](), Skips()
    try:
        await broker.start(
            lambda game, payload, *_: heard.append(payload),
            lambda game, position, reason, player: skips.append((position, reason)),
        )
        await broker.subscribe("g")
        yield broker, heard, skips
    finally:
        await within(broker.stop())


async def left(client: Redis) -> dict[str, int]:
    """For how many ms each key will be there; -1 is for ever."""
    keys: Any = await client.keys()
    return {key.decode(): await client.pttl(key) for key in keys}


async def shorten(client: Redis, milliseconds: int) -> None:
    """Let time go by, until all keys have so much left."""
    for key in await client.keys():
        await client.pexpire(key, milliseconds)


class TestAGame:
    async def test_has_no_key_that_stays_for_ever(
        self, kind: str, redis: RedisBackend, client: Redis
    ) -> None:
        """Whatever it was used for last, and all that is about all of it goes in one moment."""
        async with started(kind, redis, "A") as (a, _, _):
            for use in (
                lambda: a.resume("g", "P1", None),
                lambda: publish(a, 1),
                lambda: a.resume("g", "P2", None),
                lambda: a.forget("g", "P1"),
                lambda: publish(a, 2),
                lambda: a.forget("g", "P2"),
                lambda: a.resume("g", "P3", None),
            ):
                await use()
                await a.sync()
                found = await left(client)
                assert all(0.8 * DAY < each <= DAY for each in found.values()), found
                of_all = [each for key, each in found.items() if ":of:" not in key]
                assert max(of_all) - min(of_all) < 1000

    async def test_that_nobody_plays_is_forgotten_and_whoever_returns_is_told(
        self, kind: str, redis: RedisBackend, client: Redis
    ) -> None:
        """It is a loss like any other: never a hole that nobody mentions."""
        async with started(kind, redis, "A", seconds_to_keep=0.1) as (a, _, _):
            await a.resume("g", "P1", None)
            before = await publish(a, 1, 2, 3)
        await _is_gone(client)
        async with started(kind, redis, "B") as (b, heard, _):
            found = await b.resume("g", "P1", before)
            assert (found.recovered, found.reason) == (False, "new epoch")
            after = await publish(b, 4)
            await b.sync()
            assert heard == [b"4"]
            assert after.epoch != before.epoch

    async def test_that_expires_while_it_is_played_is_told_too(
        self, kind: str, redis: RedisBackend, client: Redis
    ) -> None:
        """A server that was cut off from Redis for so long goes on in the new epoch."""
        async with started(kind, redis, "A") as (a, heard, skips):
            await a.resume("g", "P1", None)
            before = await publish(a, 1)
            await a.sync()
            await shorten(client, 1)
            await _is_gone(client)
            async with started(kind, redis, "B") as (b, _, _):
                await b.resume("g", "P2", None)
                await publish(b, 2)
                await a.sync()
                await publish(b, 3)
            await a.sync()
            assert [reason for _, reason in skips] == ["new epoch"]
            assert heard == ([b"1", b"2", b"3"] if kind == "stream" else [b"1", b"3"])
            assert (await a.resume("g", "P1", before)).recovered is False

    async def test_that_is_played_stays_though_nobody_says_anything(
        self, kind: str, redis: RedisBackend, client: Redis
    ) -> None:
        """The server that has its players asks for it now and then."""
        async with started(kind, redis, "A", seconds_to_keep=3) as (a, _, _):
            await a.resume("g", "P1", None)
            await publish(a, 1)
            await a.sync()
            await shorten(client, 2500)
            async with asyncio.timeout(PATIENCE):
                while min((await left(client)).values()) <= 2500:
                    pass

    async def test_is_not_written_to_at_each_look(
        self, kind: str, redis: RedisBackend, client: Redis
    ) -> None:
        """As long as it has most of its time left."""
        async with started(kind, redis, "A") as (a, _, _):
            await a.resume("g", "P1", None)
            since = await publish(a, 1)
            await a.sync()
            await shorten(client, DAY - HOUR)
            await a.resume("g", "P1", since)
            await a.sync()
            assert max((await left(client)).values()) <= DAY - HOUR

    async def test_cannot_be_kept_for_no_time(self, kind: str, fake: FakeRedis) -> None:
        """Nor for ever."""
        client = fake.client()
        for seconds in (0, -1, float("inf"), float("nan")):
            with pytest.raises(ValueError, match="seconds_to_keep"):
                new_broker(kind, client, server="A", seconds_to_keep=seconds)
        await client.aclose()


class TestAPlayerWhoIsAway:
    async def test_for_too_long_is_none_any_more(self, redis: RedisBackend, client: Redis) -> None:
        """Its queue has expired, and nothing is put into a new one; it is told when it returns."""
        async with started("queue", redis, "A") as (a, _, _):
            await a.resume("g", "P1", None)
            await a.resume("g", "P2", None)
            since = await publish(a, 1)
            await a.sync()
            a.acknowledge("g", "P2", 1)
            a.detach("g", "P1")
            await client.pexpire(f"{redis.prefix}queue:{{g}}:of:P1", 1)
            await _is_gone(client, "*:of:P1")
            end = await publish(a, 2)
            assert await _players(redis, client) == ["P2"]
            assert not await client.keys("*:of:P1")
            found = await a.resume("g", "P1", Position(since.epoch, 0))
            assert (found.position, found.recovered) == (end, False)

    async def test_is_one_as_long_as_it_has_missed_nothing(
        self, redis: RedisBackend, client: Redis
    ) -> None:
        """An empty queue that expires is no loss; nor is one that was left out after a loss."""
        async with started("queue", redis, "A") as (a, heard, _):
            await a.resume("g", "P1", None)
            await publish(a, 1)
            await a.sync()
            a.acknowledge("g", "P1", 1)
            await a.sync()
            a.detach("g", "P1")
            await client.delete(f"{redis.prefix}queue:{{g}}:of:P1")
            about = f"{redis.prefix}queue:{{g}}:about"
            await client.hset(about, mapping={"seq": 5, "lost": 5, "lost_of": "another"})
            since = await publish(a, 6)
            assert since.seq == 6
            assert await _players(redis, client) == ["P1"]
            await a.resume("g", "P1", None)
            await a.sync()
            assert heard == [b"1", b"6"]

    async def test_has_a_new_queue_in_a_new_game(self, redis: RedisBackend, client: Redis) -> None:
        """Though its old one is there for a moment longer than what is about all of the game."""
        async with started("queue", redis, "A") as (a, heard, _):
            await a.resume("g", "P1", None)
            await publish(a, 1, 2, 3)
            await a.sync()
            a.detach("g", "P1")
            for part in ("about", "ids", "players"):
                await client.delete(f"{redis.prefix}queue:{{g}}:{part}")
            heard.clear()
            await a.resume("g", "P1", None)
            assert (await publish(a, 4)).seq == 1
            await a.sync()
            assert heard == [b"4"]

    async def test_has_the_time_that_it_was_last_here(
        self, redis: RedisBackend, client: Redis
    ) -> None:
        """New events do not make its queue stay longer; those of who is here do stay."""
        async with started("queue", redis, "A") as (a, _, _):
            await a.resume("g", "P1", None)
            await a.resume("g", "P2", None)
            await publish(a, 1)
            await a.sync()
            a.detach("g", "P1")
            await shorten(client, HOUR)
            await publish(a, 2)
            await a.sync()
            found = await left(client)
            [of_p1] = [each for key, each in found.items() if key.endswith(":of:P1")]
            assert of_p1 <= HOUR
            assert all(each > HOUR or key.endswith(":of:P1") for key, each in found.items())


class TestLargeEvents:
    async def test_leave_room_for_fewer(
        self, kind: str, redis: RedisBackend, client: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By their bytes; a retry is known as ever, and what is trimmed is told."""
        monkeypatch.setattr(keeping, "ROOM", 100)
        key = "events" if kind == "stream" else "of:P1"
        async with started(kind, redis, "A") as (a, _, _):
            await a.resume("g", "P1", None)
            since = await publish(a, 1)
            await a.sync()
            a.detach("g", "P1")
            kept = list[int]()
            for size in (1, 1, 1, 30, 30, 30, 30, 101, 10, 10):
                name = f"{len(kept)}-{size}"
                await a.publish("g", b"x" * size, name)
                kept.append(await client.xlen(f"{redis.prefix}{kind}:{{g}}:{key}"))
            assert kept == [2, 3, 4, 3, 3, 3, 3, 1, 2, 3]
            assert not (await a.publish("g", b"x", "0-1")).is_new
            found = await a.resume("g", "P1", since)
            assert (found.recovered, found.reason) == (False, "trimmed")

    async def test_are_kept_one_at_least(self, kind: str, fake: FakeRedis) -> None:
        """Or nobody would hear it; a small one leaves room for all of the history."""
        async with started(kind, fake, "A") as (a, _, _):
            assert a._room(b"x" * 2 * keeping.ROOM) == 1
            assert a._room(b"") == a._room(b"x" * 1000) == 1000


async def _players(redis: RedisBackend, client: Redis) -> list[str]:
    """Who has a queue."""
    found: Any = await client.hkeys(f"{redis.prefix}queue:{{g}}:players")
    return sorted(player.decode() for player in found)


async def _is_gone(client: Redis, what: str = "*") -> None:
    """Wait until there is no such key."""
    async with asyncio.timeout(PATIENCE):
        while await client.keys(what):
            pass


async def test_a_redis_that_is_full_refuses_and_forgets_nothing(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever says something is told why; once there is room, all goes on where it was."""
    async with (
        EmbeddedRedis() as redis,
        redis.client() as client,
        started(kind, redis, "A") as (broker, _, skips),
    ):
        await broker.resume("g", "P2", None)
        before = await publish(broker, 1)
        await client.config_set("maxmemory", 1)
        with pytest.raises(BrokerDown) as refused:
            await publish(broker, 2)
        assert str(refused.value) == "Redis has no memory left for more"
        await client.config_set("maxmemory", 0)
        assert await publish(broker, 3) == Position(before.epoch, before.seq + 1)
        joined = await broker.resume("g", "P2", Position(before.epoch, 0))
        await within(broker.sync())
        assert (joined.reason, skips) == ("", [])
    [warning] = [record for record in caplog.records if record.name == "wsdemo.brokers"]
    assert "maxmemory" in warning.getMessage()
