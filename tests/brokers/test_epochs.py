"""A Redis that is started again may have lost the last events: whoever can know, is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.brokers.keeping import publish
from tests.conftest import eventually, within
from wsdemo.brokers import QueueBroker, StreamBroker
from wsdemo.brokers.base import Resumption
from wsdemo.protocol import Position
from wsdemo.redis.backend import EmbeddedRedis, RedisBackend
from wsdemo.redis.line import Line

BROKERS: dict[str, type[QueueBroker | StreamBroker]] = {
    "stream": StreamBroker,
    "queue": QueueBroker,
}
Keeping = QueueBroker | StreamBroker


@pytest.fixture(params=list(BROKERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Heard:
    """What P1's server was told: numbers of events, and where and why it went on elsewhere."""

    def __init__(self) -> None:
        self.events: list[int | None] = []
        self._payloads = set[bytes]()
        self.new: list[int | None] = []  # without those of a second time
        self.skips: list[tuple[Position, str]] = []

    def relay(self, game: str, payload: bytes, seq: int | None, player: str, hops: int) -> None:
        if player in ("", "P1"):
            self.events.append(seq)
            if payload not in self._payloads:
                self._payloads.add(payload)
                self.new.append(seq)

    def skip(self, game: str, position: Position, reason: str, player: str) -> None:
        if player in ("", "P1"):
            self.skips.append((position, reason))


@asynccontextmanager
async def started(
    kind: str, redis: RedisBackend, server: str, line: Line | None = None
) -> AsyncIterator[tuple[Keeping, Heard]]:
    """A broker that has started and listens to the game."""
    broker, heard = BROKERS[kind](redis.client(line), server=server), Heard()
    try:
        await broker.start(heard.relay, heard.skip)
        await broker.subscribe("g")
        yield broker, heard
    finally:
        await within(broker.stop())


async def resumed(broker: Keeping, heard: Heard, since: Position) -> tuple[Resumption, list[int]]:
    """How P1's hearing goes on, and the numbers of the events that are given to it."""
    heard.events.clear()
    heard.skips.clear()
    found = await broker.resume("g", "P1", since)
    given = [seq for seq, _ in found.missed]
    while found.has_more and found.end:
        more = await broker.resume("g", "P1", found.end)
        given += [seq for seq, _ in more.missed]
        if not more.recovered:
            heard.skips.append((more.position or since, more.reason))
        found = Resumption(found.position, found.recovered, found.reason, found.missed)
    await broker.sync()
    return found, given + [seq for seq in heard.events if seq is not None]


async def test_one_that_has_lost_nothing_has_another_epoch_and_all_positions_hold(
    kind: str,
) -> None:
    """Each server and player goes on where it was; it only learns the epoch's new name."""
    async with EmbeddedRedis("always") as redis, started(kind, redis, "A") as (a, heard):
        await a.resume("g", "P1", None)
        before = await publish(a, *range(1, 11))
        await a.sync()
        await redis.crash()
        await redis.start()
        await a.sync()
        after = await publish(a, 11)
        await a.sync()
        assert after.seq == 11
        assert after.epoch != before.epoch
        assert heard.events == list(range(1, 12))
        assert heard.skips == [(Position(after.epoch, 10), "")]
        found, given = await resumed(a, heard, Position(before.epoch, 8))
        assert (found.position, found.recovered, found.reason) == (
            Position(after.epoch, 8),
            True,
            "",
        )
        assert given == [9, 10, 11]


async def test_one_that_has_lost_its_last_events_says_so_to_who_was_away(kind: str) -> None:
    """What was on the disk is replayed; then a number is missing, and the reason is a loss."""
    async with EmbeddedRedis("everysec") as redis, started(kind, redis, "A") as (a, heard):
        await a.resume("g", "P1", None)
        await a.resume("g", "P2", None)
        before = await publish(a, *range(1, 6))
        await redis.until_saved()
        await publish(a, *range(6, 11))
        await a.sync()
        await redis.crash(power_cut=True)
        await redis.start()
        await a.sync()
        after = await publish(a, 11)
        await a.sync()
        assert after.seq == 11
        assert heard.new == [*range(1, 11), 11]
        assert {reason for _, reason in heard.skips} == {"new epoch"}
        found, given = await resumed(a, heard, Position(before.epoch, 3))
        assert (found.position, found.recovered) == (Position(after.epoch, 3), True)
        assert given == [4, 5, 11]
        assert heard.skips == [(Position(after.epoch, 10), "new epoch")]


async def test_new_events_do_not_pass_for_those_that_are_lost(kind: str) -> None:
    """A server that comes back late hears them all, though their numbers were given before."""
    line = Line()
    async with (
        EmbeddedRedis("everysec") as redis,
        started(kind, redis, "A", line) as (a, heard),
    ):
        await a.resume("g", "P1", None)
        await publish(a, *range(1, 6))
        await redis.until_saved()
        await publish(a, *range(6, 11))
        await a.sync()
        line.cut()
        await redis.crash(power_cut=True)
        await redis.start()
        async with started(kind, redis, "B") as (b, _):
            await b.resume("g", "P2", None)
            new = await publish(b, *range(11, 14))
            assert new.seq == 8
            line.mend()
            await eventually(lambda: a._link.is_up)
            await a.sync()
            assert heard.new == [*range(1, 11), 6, 7, 8]
            assert heard.skips[0][1] == "new epoch"
            # 9 and 10 are left out, for whoever comes back to miss
            assert (await publish(b, 14)).seq == 11
            await a.sync()
            assert heard.new == [*range(1, 11), 6, 7, 8, 11]


async def test_what_a_client_claims_to_have_heard_makes_no_gap_for_others(
    kind: str, redis: RedisBackend
) -> None:
    """Only a server's word says that something is lost."""
    async with started(kind, redis, "A") as (a, heard):
        await a.resume("g", "P1", None)
        before = await publish(a, 1, 2, 3)
        await a.sync()
        await start_again(kind, redis)
        for number in (4, 2**63, 2**64 - 1):
            found = await a.resume("g", "P2", Position(before.epoch, number))
            assert (found.recovered, found.reason) == (False, "new epoch")
        assert (await publish(a, 4)).seq == 4
        await a.sync()
        assert heard.events == [1, 2, 3, 4]


async def test_only_so_many_epochs_that_have_ended_are_remembered(
    kind: str, redis: RedisBackend
) -> None:
    """A later position holds, one from long ago does not, and what is kept is bounded."""
    async with started(kind, redis, "A") as (a, heard):
        await a.resume("g", "P1", None)
        await a.resume("g", "P2", None)
        positions = []
        for number in range(1, 101):
            positions.append(await publish(a, number))
            await a.sync()
            await start_again(kind, redis)
        assert (await a.resume("g", "P2", positions[-10])).recovered
        assert (await a.resume("g", "P2", positions[0])).recovered is False
        assert heard.events == list(range(1, 101))
        about = await about_of(kind, redis)
        assert max(map(len, about)) <= 1000
        assert len(about) <= 6


async def start_again(kind: str, redis: RedisBackend) -> None:
    """Let the next question find another run of Redis than the one that has been written down."""
    client = redis.client()
    await client.hset(f"{redis.prefix}{kind}:{{g}}:about", "run", "another")
    await client.aclose()


async def about_of(kind: str, redis: RedisBackend) -> list[str | bytes]:
    """What is kept of the game besides its events."""
    client = redis.client()
    try:
        return list((await client.hgetall(f"{redis.prefix}{kind}:{{g}}:about")).values())
    finally:
        await client.aclose()
