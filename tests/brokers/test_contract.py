"""What every broker promises, tried on each of them, with a fake Redis, a real one, a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.conftest import PATIENCE, eventually, pubsub, stream, tasks, within
from wsdemo.brokers import Broker, BrokerDown, LocalBroker, QueueBroker, Receipt
from wsdemo.cluster import BROKERS
from wsdemo.redis.backend import RedisBackend, redis_backend
from wsdemo.redis.cluster import EmbeddedRedisCluster
from wsdemo.redis.shards import ShardedRedis
from wsdemo.server import GameServer

Heard = list[tuple[str, bytes]]

KINDS = [
    ("none", "fake"),
    ("pubsub", "fake"),
    ("pubsub", "embedded"),
    ("stream", "fake"),
    ("stream", "embedded"),
    ("queue", "fake"),
    ("queue", "embedded"),
    ("pubsub", "cluster"),
    ("stream", "cluster"),
]

_numbers = count(1)


async def publish(broker: Broker, game: str, payload: bytes) -> Receipt:
    """Publish something that was not published before."""
    return await broker.publish(game, payload, f"e-{next(_numbers)}")


class QueueOfOne(QueueBroker):
    """Queues are for players: here each server has one, for as long as it is subscribed."""

    def __init__(self, redis: Redis | ShardedRedis, **options: Any) -> None:
        super().__init__(redis, **options)
        self._one_at_a_time = asyncio.Lock()

    async def subscribe(self, game: str) -> None:
        await super().subscribe(game)
        async with self._one_at_a_time:
            if self._server not in self._readers.get(game, {}):
                await self.resume(game, self._server, None)

    async def unsubscribe(self, game: str) -> None:
        await self.forget(game, self._server)
        await super().unsubscribe(game)


class Maker:
    """Makes one broker for each server; those of a Redis share it."""

    def __init__(self, kind: str, redis: RedisBackend, stack: AsyncExitStack) -> None:
        self.kind = kind
        self.redis = redis
        self._stack = stack
        self._names = count(1)

    async def start(self) -> tuple[Broker, Heard]:
        """A broker that has started, and what it relays."""
        broker = self.make()
        heard: Heard = []
        self._stack.push_async_callback(lambda: within(broker.stop()))
        await broker.start(lambda game, payload, *_: heard.append((game, payload)))
        return broker, heard

    def make(self) -> Broker:
        """A broker that has not started."""
        if self.kind == "none":
            return LocalBroker()
        name = f"S{next(self._names)}"
        if self.kind == "queue":
            return QueueOfOne(self.redis.broker_client(), server=name, prefix=self.redis.prefix)
        return (stream if self.kind == "stream" else pubsub)(self.redis, name)

    @property
    def reaches_others(self) -> bool:
        """Whether there is anything between the servers."""
        return self.kind != "none"


@pytest.fixture(params=KINDS, ids="-".join)
async def maker(
    request: pytest.FixtureRequest, nodes: EmbeddedRedisCluster
) -> AsyncIterator[Maker]:
    """Each broker, on each Redis where it needs one."""
    kind, redis = request.param
    async with AsyncExitStack() as stack:
        choice = nodes.url if redis == "cluster" else redis
        backend = await stack.enter_async_context(redis_backend(choice))
        yield Maker(kind, backend, stack)


def test_every_broker_is_tried() -> None:
    """A broker that is added to the package is added here."""
    assert {kind for kind, _ in KINDS} == set(BROKERS)


async def test_it_names_itself_and_its_hub(maker: Maker) -> None:
    """Its name is the one a learner types; there is a hub where something is between servers."""
    broker = maker.make()
    assert broker.name == maker.kind
    assert bool(broker.hub) == maker.reaches_others


async def test_after_subscribe_an_event_arrives(maker: Maker) -> None:
    """What is published after `subscribe` returned is relayed, by whichever server it came in."""
    (a, heard_a), (b, heard_b) = await maker.start(), await maker.start()
    await a.subscribe("g")
    await b.subscribe("g")
    await publish(a, "g", b"1")
    await a.sync()
    await b.sync()
    assert heard_a == [("g", b"1")]
    assert heard_b == ([("g", b"1")] if maker.reaches_others else [])


async def test_subscribe_leaves_no_hole(maker: Maker) -> None:
    """Not one event is lost, however soon after `subscribe` it is published."""
    (a, _), (b, heard) = await maker.start(), await maker.start()
    speaker = a if maker.reaches_others else b
    for number in range(50):
        game = f"g{number}"
        await b.subscribe(game)
        await publish(speaker, game, b"x")
    await b.sync()
    assert [game for game, _ in heard] == [f"g{number}" for number in range(50)]


async def test_concurrent_first_subscribers_lose_nothing(maker: Maker) -> None:
    """Each of several that subscribe at once may rely on it as soon as its own call returns."""
    (a, _), (b, heard) = await maker.start(), await maker.start()
    speaker = a if maker.reaches_others else b
    for number in range(20):
        game = f"g{number}"

        async def subscribe(who: int, game: str = game) -> None:
            await b.subscribe(game)
            await publish(speaker, game, b"%d" % who)

        await asyncio.gather(*map(subscribe, range(5)))
        await b.sync()
        arrived = sorted(payload for g, payload in heard if g == game)
        assert arrived == [b"0", b"1", b"2", b"3", b"4"]


async def test_subscribing_twice_delivers_once(maker: Maker) -> None:
    """A second subscription to the same game is the same subscription."""
    a, heard = await maker.start()
    await a.subscribe("g")
    await within(a.subscribe("g"))
    await publish(a, "g", b"1")
    await a.sync()
    assert heard == [("g", b"1")]


async def test_all_servers_relay_in_one_order(maker: Maker) -> None:
    """Also when all of them publish at once; what one publishes in turn stays in turn."""
    servers = [await maker.start() for _ in range(3)]
    for broker, _ in servers:
        await broker.subscribe("g")

    async def publish_in_turn(number: int, broker: Broker) -> None:
        for turn in range(100):
            await publish(broker, "g", b"%d %d" % (number, turn))

    await asyncio.gather(*(publish_in_turn(n, broker) for n, (broker, _) in enumerate(servers)))
    for broker, _ in servers:
        await broker.sync()
    for number, (_, heard) in enumerate(servers):
        assert len(heard) == (300 if maker.reaches_others else 100)
        own = [payload for _, payload in heard if payload.startswith(b"%d " % number)]
        assert own == [b"%d %d" % (number, turn) for turn in range(100)]
        if maker.reaches_others:
            assert heard == servers[0][1]


async def test_what_one_server_is_given_in_an_order_stays_in_it(maker: Maker) -> None:
    """Also when it is given the next before the first is done, and has never published before.

    Two players of one server speak one after the other, and every run has to tell it so.
    """
    numbers = [b"%d" % number for number in range(10)]
    for _ in range(30):
        a, heard = await maker.start()
        await a.subscribe("g")
        await asyncio.gather(*(publish(a, "g", number) for number in numbers))
        await a.sync()
        assert [payload for _, payload in heard] == numbers
        await within(a.stop())


async def test_sync_is_a_barrier(maker: Maker) -> None:
    """When it returns, all that was published before, here or there, has been relayed here."""
    (a, heard_a), (b, heard_b) = await maker.start(), await maker.start()
    await a.subscribe("g")
    await b.subscribe("g")
    for number in range(1, 101):
        await publish(b if number % 2 else a, "g", b"x")
        await a.sync()
        assert len(heard_a) == (number if maker.reaches_others else number // 2)
    await b.sync()
    assert len(heard_b) == (100 if maker.reaches_others else 50)


async def test_syncs_may_overlap(maker: Maker) -> None:
    """Many players of one server settle at once; each gets its answer."""
    (a, heard), (b, _) = await maker.start(), await maker.start()
    await a.subscribe("g")

    async def publish_and_sync(number: int) -> None:
        await publish(a, "g", b"%d" % number)
        await a.sync()
        assert ("g", b"%d" % number) in heard

    await within(asyncio.gather(*map(publish_and_sync, range(100)), *(b.sync() for _ in range(50))))


async def test_games_are_apart(maker: Maker) -> None:
    """An event is relayed with its game's name, and only for games that are subscribed."""
    a, heard = await maker.start()
    for game in ("g", "g:1", "Ω game"):
        await a.subscribe(game)
    for game in ("g", "g:1", "Ω game"):
        await publish(a, game, game.encode())
    await a.sync()
    assert sorted(heard) == [(game, game.encode()) for game in ("g", "g:1", "Ω game")]


async def test_unsubscribe_ends_it(maker: Maker) -> None:
    """Other games go on; subscribing again begins anew."""
    (a, _), (b, heard) = await maker.start(), await maker.start()
    if not maker.reaches_others:
        return  # there is nothing to be unsubscribed from
    await b.subscribe("g")
    await b.subscribe("other")
    await b.unsubscribe("g")
    await publish(a, "g", b"not this one")
    await publish(a, "other", b"1")
    await b.sync()
    await b.subscribe("g")
    await publish(a, "g", b"2")
    await b.sync()
    assert sorted(heard) == [("g", b"2"), ("other", b"1")]


async def test_unsubscribing_from_what_it_is_not_subscribed_to(maker: Maker) -> None:
    """Is no error, and changes nothing."""
    a, heard = await maker.start()
    await a.subscribe("g")
    await a.unsubscribe("never")
    await publish(a, "g", b"1")
    await a.sync()
    assert heard == [("g", b"1")]


async def test_coming_and_going_in_haste(maker: Maker) -> None:
    """The last call counts, and after a `subscribe` has returned nothing is lost."""
    (a, _), (b, heard) = await maker.start(), await maker.start()
    speaker = a if maker.reaches_others else b
    for number in range(50):
        await b.subscribe("g")
        await b.unsubscribe("g")
        await b.subscribe("g")
        await publish(speaker, "g", b"%d" % number)
        await b.unsubscribe("g")
        await b.subscribe("g")
        await b.sync()
        assert (b"%d" % number) in [payload for _, payload in heard] or maker.reaches_others
    heard.clear()
    await publish(speaker, "g", b"last")
    await b.sync()
    assert heard == [("g", b"last")]


async def test_publishing_to_nobody(maker: Maker) -> None:
    """Is no error: nobody is a number of receivers."""
    a, _ = await maker.start()
    if maker.kind == "queue":  # there is nobody in whose queue it would be kept
        with pytest.raises(BrokerDown, match="queues"):
            await publish(a, "nobody is here", b"x")
        return
    receipt = await publish(a, "nobody is here", b"x")
    assert receipt.receivers == {"none": 1, "pubsub": 0}.get(maker.kind)


async def test_publish_counts_the_servers(maker: Maker) -> None:
    """It returns how many were subscribed, its own server included; or else the event's number."""
    servers = [await maker.start() for _ in range(3)]
    for broker, _ in servers:
        await broker.subscribe("g")
    receipt = await publish(servers[0][0], "g", b"x")
    assert receipt.receivers == {"none": 1, "pubsub": 3}.get(maker.kind)
    assert (receipt.position is not None) == (maker.kind in ("stream", "queue"))


async def test_bytes_arrive_unchanged(maker: Maker) -> None:
    """Whatever they are: a broker does not look inside."""
    a, heard = await maker.start()
    await a.subscribe("g")
    payloads = [b"\x00\r\n$5", bytes(range(256)), b"x" * 2**20, "🎲".encode()]
    for payload in payloads:
        await publish(a, "g", payload)
    await a.sync()
    assert [payload for _, payload in heard] == payloads


async def test_a_hundred_publish_at_once(maker: Maker) -> None:
    """A server with many players loses none of their events."""
    a, heard = await maker.start()
    await a.subscribe("g")
    await asyncio.gather(*(publish(a, "g", b"%d" % n) for n in range(100)))
    await a.sync()
    assert len(heard) == 100


async def test_stop_leaves_nothing(maker: Maker) -> None:
    """Not a task, when it returns."""
    before = tasks()
    broker = maker.make()
    await broker.start(lambda *_: None)
    await broker.subscribe("g")
    await publish(broker, "g", b"1")
    await broker.sync()
    await within(broker.stop())
    assert not tasks() - before


async def test_stop_of_one_is_nothing_to_the_others(maker: Maker) -> None:
    """They go on hearing, and Redis counts it no more."""
    (a, heard), (b, heard_b) = await maker.start(), await maker.start()
    await a.subscribe("g")
    await b.subscribe("g")
    await b.sync()
    await within(b.stop())
    async with asyncio.timeout(PATIENCE):
        while (await publish(a, "g", b"1")).receivers not in (1, None):
            pass
    await a.sync()
    assert heard[-1] == ("g", b"1")
    assert heard_b == []


async def test_stop_while_events_arrive(maker: Maker) -> None:
    """A broker can be stopped in the middle of whatever it hears."""
    for turns in range(30):
        a, _ = await maker.start()
        await a.subscribe("g")
        speaking = [asyncio.create_task(publish(a, "g", b"x")) for _ in range(10)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await within(a.stop())
        await asyncio.gather(*speaking, return_exceptions=True)


async def test_stop_without_start(maker: Maker) -> None:
    """Is what happens when a server's own start fails."""
    await within(maker.make().stop())


# Until 3.12, asyncio itself drops a connection whose making is cancelled in its last moment.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_stop_in_the_middle_of_start(maker: Maker, turns: int) -> None:
    """However far a start has come, a stop ends all of it."""
    before = tasks()
    broker = maker.make()
    starting = asyncio.create_task(broker.start(lambda *_: None))
    for _ in range(turns):
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    await within(broker.stop())
    await eventually(lambda: not tasks() - before)


async def test_a_server_needs_no_more_than_the_seam(maker: Maker) -> None:
    """The game server runs on each of them."""
    server = GameServer("A", maker.make())
    await within(server.start(), PATIENCE)
    await within(server.stop(), PATIENCE)
