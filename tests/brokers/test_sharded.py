"""Brokers on a Redis Cluster: each game on its node, and no node's trouble is another's."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, cast

import pytest
from redis.crc import key_slot

from tests.conftest import PATIENCE, eventually, recorded, tasks, within
from wsdemo import faults, ledger, open_cluster
from wsdemo.brokers import (
    BrokerDown,
    OneChannelBroker,
    PubSubBroker,
    QueueBroker,
    Receipt,
    StreamBroker,
    redis_broker,
)
from wsdemo.brokers import sharded as sharded_module
from wsdemo.brokers.redis_broker import RedisBroker
from wsdemo.brokers.sharded import ShardedLink
from wsdemo.redis.backend import FakeRedis, redis_backend
from wsdemo.redis.cluster import EmbeddedRedisCluster
from wsdemo.redis.shards import ShardedRedis
from wsdemo.trace import Trace

posix_only = pytest.mark.skipif(os.name != "posix", reason="there is no SIGSTOP on Windows")

SHARES = (5461, 10_922, 16_384)  # where each node's slots end, at first


def games_on(number: int, count: int = 1) -> list[str]:
    """Names of games whose slots are this node's."""
    names = (f"g{n}" for n in range(10_000))
    found = (name for name in names if _share(name) == number)
    return [next(found) for _ in range(count)]


def _share(game: str) -> int:
    return next(number for number, end in enumerate(SHARES) if key_slot(game.encode()) < end)


Heard = dict[str, list[bytes]]


class Server:
    """A server's broker, and what it relays of each game."""

    def __init__(self, broker: RedisBroker, trace: Trace) -> None:
        self.broker = broker
        self.trace = trace
        self.heard: Heard = {}
        self._said = 0

    async def publish(self, game: str, payload: bytes) -> Receipt:
        """Publish something that was not published before."""
        self._said += 1
        return await self.broker.publish(game, payload, f"{id(self)}-{self._said}")

    def relay(self, game: str, payload: bytes, *_: object) -> None:
        self.heard.setdefault(game, []).append(payload)

    def gaps(self) -> list[str]:
        """The games of the channels that were listened to anew."""
        channels = [str(record.data["channel"]) for record in self.trace.select("gap")]
        return [channel.rsplit(":", 1)[1] for channel in channels]

    @property
    def redis(self) -> ShardedRedis:
        """Its client."""
        assert isinstance(self.broker._redis, ShardedRedis)
        return self.broker._redis

    @property
    def link(self) -> ShardedLink:
        """What it has instead of a link to one Redis."""
        assert isinstance(self.broker._link, ShardedLink)
        return self.broker._link


class Servers:
    """Makes servers that share the cluster, under a prefix of their own."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self.redis = redis_backend(url)
        self._stack = stack
        self._count = 0

    async def start(self, *games: str, kind: type[RedisBroker] = PubSubBroker) -> Server:
        """One that is subscribed to these games."""
        self._count += 1
        trace = Trace()
        name = f"S{self._count}"
        broker = kind(
            self.redis.broker_client(), server=name, prefix=self.redis.prefix, trace=trace
        )
        server = Server(broker, trace)
        self._stack.push_async_callback(lambda: within(broker.stop()))
        await broker.start(server.relay)
        for game in games:
            await broker.subscribe(game)
        return server


@pytest.fixture
async def servers(nodes: EmbeddedRedisCluster) -> AsyncIterator[Servers]:
    """None so far."""
    async with AsyncExitStack() as stack:
        yield Servers(nodes.url, stack)


async def ask(nodes: EmbeddedRedisCluster, number: int, *words: object) -> Any:
    """What one node answers."""
    async with nodes.client(number) as client:
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]


@contextmanager
def frozen(nodes: EmbeddedRedisCluster, number: int) -> Iterator[None]:
    """A node that is there and does not answer."""
    nodes.freeze(number)
    try:
        yield
    finally:
        nodes.thaw(number)


async def move(nodes: EmbeddedRedisCluster, slot: int, source: int, target: int) -> None:
    """Move a slot with all its keys, as `redis-cli --cluster reshard` does."""
    ids = [await ask(nodes, number, "CLUSTER MYID") for number in range(3)]
    await ask(nodes, target, "CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
    await ask(nodes, source, "CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
    while keys := await ask(nodes, source, "CLUSTER GETKEYSINSLOT", slot, 10):
        for key in keys:  # one at a time, as it may well be
            await ask(nodes, source, "MIGRATE", "127.0.0.1", nodes.ports[target], key, 0, 1000)
    for number in (target, source, 3 - source - target):
        await ask(nodes, number, "CLUSTER SETSLOT", slot, "NODE", ids[target])


class Traffic:
    """Somebody who goes on publishing numbers in a game, and notes which Redis has taken."""

    def __init__(self, server: Server, game: str) -> None:
        self.taken: list[bytes] = []
        self.refused: list[float] = []  # seconds that it took to say so
        self._server = server
        self._game = game
        self._ends = False

    async def __aenter__(self) -> Traffic:
        self._speaking = asyncio.create_task(self._speak())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        """Publish no more."""
        self._ends = True
        await within(self._speaking)

    async def more(self, count: int = 20) -> None:
        """Wait until so many more were taken."""
        until = len(self.taken) + count
        await eventually(lambda: len(self.taken) >= until)

    async def _speak(self) -> None:
        number = 0
        while not self._ends:
            payload = b"%d" % number
            began = time.monotonic()
            try:
                await self._server.publish(self._game, payload)
                self.taken.append(payload)
            except BrokerDown:
                self.refused.append(time.monotonic() - began)
            number += 1
            await asyncio.sleep(0.001)


class TestWhoIsSentWhat:
    async def test_events_reach_all_servers_of_a_game(self, servers: Servers) -> None:
        """Whichever node has it, and in one order; the receivers are counted as ever."""
        games = [game for number in range(3) for game in games_on(number, 2)]
        a, b = await servers.start(*games), await servers.start(*games)
        for number in range(20):
            for game in games:
                speaker = (a, b)[number % 2]
                assert (await speaker.publish(game, b"%d" % number)).receivers == 2
        await a.broker.sync()
        await b.broker.sync()
        assert a.heard == b.heard == {game: [b"%d" % n for n in range(20)] for game in games}

    async def test_a_server_subscribes_to_its_players_games_only(
        self, servers: Servers, nodes: EmbeddedRedisCluster
    ) -> None:
        """Each node has the channels of its own games, and a server is sent nothing of others'."""
        games = [*games_on(0), *games_on(1), *games_on(2)]
        a, b, c = [await servers.start(game) for game in games]
        idle = await servers.start()
        for number, game in enumerate(games):
            assert await nodes.node_of(game) == number
            for _ in range(10 * (number + 1)):
                await idle.publish(game, b"x")
            channels = await ask(nodes, number, "PUBSUB SHARDCHANNELS", f"{servers.redis.prefix}*")
            told = sorted(
                channel.decode().removeprefix(servers.redis.prefix) for channel in channels
            )
            own = next(name for name in told if name.startswith(f"server:S{number + 1}:"))
            assert told == [own, f"{{{game}}}:game:{game}"][:: -1 if own > "{" else 1]
        for server in (a, b, c, idle):
            await server.broker.sync()
        assert [server.broker.received for server in (a, b, c, idle)] == [10, 20, 30, 0]
        await a.broker.unsubscribe(games[0])
        await b.publish(games[0], b"x")
        await a.broker.sync()
        assert a.broker.received == 10

    async def test_coming_and_going_in_haste_is_no_gap(self, servers: Servers) -> None:
        """The end of a subscription that the server itself has ended is not the node's doing."""
        [game] = games_on(0)
        a = await servers.start()
        for _ in range(20):
            await a.broker.subscribe(game)
            await a.broker.unsubscribe(game)
            await a.broker.subscribe(game)
            assert (await a.publish(game, b"x")).receivers == 1
            await a.broker.unsubscribe(game)
        assert a.trace.select("gap", "disconnect") == []

    async def test_with_one_channel_for_all_games_each_is_sent_all(self, servers: Servers) -> None:
        """What a channel for each game saves: here every server receives every event."""
        games = [*games_on(0), *games_on(1), *games_on(2)]
        all_three = [await servers.start(game, kind=OneChannelBroker) for game in games]
        for game in games:
            for _ in range(10):
                await all_three[0].publish(game, b"x")
        for game, server in zip(games, all_three, strict=True):
            await server.broker.sync()
            assert server.broker.received == 30
            assert server.heard == {game: [b"x"] * 10}

    @pytest.mark.parametrize("broker", ["pubsub", "stream", "queue"])
    async def test_whole_clusters_play_on_it(
        self, nodes: EmbeddedRedisCluster, broker: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By WSDEMO_REDIS; a server's lines can be cut, and what is kept is counted."""
        monkeypatch.setenv("WSDEMO_REDIS", nodes.url)
        async with open_cluster(broker=broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2")
            await p1.send("1")
            await cluster.settle()
            async with faults.redis_link_cut(cluster, "B"):
                await p1.send("2")
                await cluster.settle()
            await cluster.settle()
            await p1.send("3")
            await cluster.settle()
            hears = [event.body for event in p2.heard]
            assert hears == (["1", "3"] if broker == "pubsub" else ["1", "2", "3"])
            assert ledger(cluster).balances
            assert (await cluster.kept()).keys == {"pubsub": 0, "stream": 3, "queue": 5}[broker]


class TestANodeThatGoesAway:
    async def test_killed_in_the_middle_of_traffic(self) -> None:
        """Its games are refused at once and return with a gap; the others' lose nothing."""
        games = [games_on(number)[0] for number in range(3)]
        async with EmbeddedRedisCluster() as nodes, AsyncExitStack() as stack:
            plays = [
                await stack.enter_async_context(_Play(nodes.url, games, kind))
                for kind in (PubSubBroker, StreamBroker)
            ]
            for play in plays:
                await play.goes_on(0, 1, 2)
            orphan = await Servers(nodes.url, stack).start(games_on(1, 2)[1])
            await nodes.crash(1)
            for play in plays:
                await play.is_refused(1)
                await play.goes_on(0, 2)
            await asyncio.gather(*(play.tells_the_truth_without(1) for play in plays))
            await _take_over(nodes, games_on(1, 2)[1])
            await recorded(orphan.trace, "gap")
            assert (await orphan.publish(games_on(1, 2)[1], b"x")).receivers == 1
            assert await orphan.broker.hears_itself(PATIENCE)
            await nodes.restart(1)
            for play in plays:
                await recorded(play.a.trace, "gap")
                await recorded(play.b.trace, "gap")
                await play.goes_on(0, 1, 2)
                assert await play.a.broker.hears_itself(PATIENCE)
            for play in plays:
                await play.has_lost_at_most_some_of(1)

    @posix_only
    async def test_frozen_it_is_noticed_where_its_games_are(
        self, servers: Servers, nodes: EmbeddedRedisCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`sync` and `publish` say so, `hears_itself` tells the truth, and others go on."""
        [here], [there] = games_on(0), games_on(2)
        a, b = await servers.start(here, there), await servers.start(here, there)
        await b.broker.unsubscribe(here)  # so that what becomes of it is nothing to B
        monkeypatch.setattr(redis_broker, "ANSWER_TIMEOUT", 0.3)
        with frozen(nodes, 0):
            answers = await within(
                asyncio.gather(
                    a.broker.sync(),
                    *(a.publish(here, b"?") for _ in range(40)),
                    a.publish(there, b"first"),  # it does not wait for a turn behind them
                    return_exceptions=True,
                )
            )
            assert [type(answer) for answer in answers] == [BrokerDown] * 41 + [Receipt]
            assert not await a.broker.hears_itself(0.2)
            assert await b.broker.hears_itself(PATIENCE)
            for number in range(20):
                assert (await a.publish(there, b"%d" % number)).receivers == 2
            await b.broker.sync()
        monkeypatch.undo()
        await a.broker.sync()
        assert await a.broker.hears_itself(PATIENCE)
        await a.publish(here, b"again")
        await a.broker.sync()
        assert a.heard[here][-1] == b"again"
        numbers = [b"%d" % number for number in range(20)]
        assert a.heard[there] == b.heard[there] == [b"first", *numbers]
        assert a.gaps() == b.gaps() == []


async def _take_over(nodes: EmbeddedRedisCluster, game: str) -> None:
    """Give a game of node 1, which is gone, to node 0, as a replica of node 1 would take it."""
    slot, me = key_slot(game.encode()), await ask(nodes, 0, "CLUSTER MYID")
    [gone] = {
        owner[2]
        for _, _, owner, *_ in await ask(nodes, 0, "CLUSTER SLOTS")
        if owner[1] == nodes.ports[1]
    }
    await ask(nodes, 0, "CLUSTER SETSLOT", slot, "IMPORTING", gone)
    for number in (0, 2):
        await ask(nodes, number, "CLUSTER SETSLOT", slot, "NODE", me)


class _Play(AsyncExitStack):
    """Two servers in three games on as many nodes, with traffic, and a third in the first game."""

    def __init__(self, url: str, games: list[str], kind: type[RedisBroker]) -> None:
        super().__init__()
        self.games = games
        self._kind = kind
        self._servers = Servers(url, self)

    async def __aenter__(self) -> _Play:
        await super().__aenter__()
        self.a = await self._servers.start(*self.games, kind=self._kind)
        self.b = await self._servers.start(*self.games, kind=self._kind)
        self.other = await self._servers.start(self.games[0], kind=self._kind)
        speakers = (self.a, self.b, self.a)
        self.traffic = [
            await self.enter_async_context(Traffic(speaker, game))
            for speaker, game in zip(speakers, self.games, strict=True)
        ]
        return self

    async def goes_on(self, *numbers: int) -> None:
        """Events of these games are taken."""
        await asyncio.gather(*(self.traffic[number].more() for number in numbers))

    async def is_refused(self, number: int) -> None:
        """Those of this game are not, and it is said in bounded time."""
        await eventually(lambda: len(self.traffic[number].refused) > 20)
        assert max(self.traffic[number].refused) < redis_broker.ANSWER_TIMEOUT + 0.5

    async def tells_the_truth_without(self, number: int) -> None:
        """Servers with a game there do not hear all of themselves, and have nothing to wait for."""
        assert not await self.a.broker.hears_itself(PATIENCE)
        assert await self.other.broker.hears_itself(PATIENCE)
        await within(self.a.broker.sync(), 1)
        _, late = games_on(number, 2)
        with pytest.raises(BrokerDown, match="out of reach"):
            await self.other.broker.subscribe(late)
        await self.other.broker.unsubscribe(late)

    async def has_lost_at_most_some_of(self, number: int) -> None:
        """And everything is recorded as it was."""
        for each in self.traffic:
            await each.end()
        for server in (self.a, self.b):
            await server.broker.sync()
            assert set(server.gaps()) == {self.games[number]}
            lost = {str(record.data["channel"]) for record in server.trace.select("disconnect")}
            assert {channel.rsplit(":", 1)[1] for channel in lost} == {self.games[number]}
            for game, traffic in zip(self.games, self.traffic, strict=True):
                if game == self.games[number]:
                    assert server.heard[game][-20:] == traffic.taken[-20:]
                else:
                    assert server.heard[game] == traffic.taken
                    assert not traffic.refused
        assert self.other.heard == {self.games[0]: self.traffic[0].taken}
        assert self.other.trace.select("gap", "disconnect") == []


class TestASlotThatMoves:
    @pytest.mark.parametrize("kind", [PubSubBroker, StreamBroker])
    async def test_is_followed_while_the_game_is_played(
        self, servers: Servers, nodes: EmbeddedRedisCluster, kind: type[RedisBroker]
    ) -> None:
        """There and back: each server is at the new node soon, and a stream loses nothing."""
        [game], [other] = games_on(0), games_on(1)
        slot = key_slot(game.encode())
        a = await servers.start(game, other, kind=kind)
        b = await servers.start(game, other, kind=kind)
        async with Traffic(a, game) as moved, Traffic(b, other) as settled:
            await asyncio.gather(moved.more(), settled.more())
            for turn, (source, target) in enumerate(((0, 1), (1, 0)), start=1):
                await move(nodes, slot, source, target)
                for server in (a, b):
                    await recorded(server.trace, "gap", times=turn)
                channels = await ask(nodes, target, "PUBSUB SHARDCHANNELS", f"*:game:{game}")
                assert len(channels) == 1
                await asyncio.gather(moved.more(), settled.more())
        for server in (a, b):
            await server.broker.sync()
            assert server.gaps() == [game, game]
            assert server.heard[game][-20:] == moved.taken[-20:]
            assert server.heard[game] == moved.taken or kind is PubSubBroker
            assert server.heard[other] == settled.taken
        assert not moved.refused + settled.refused

    async def test_has_been_followed_when_a_sync_returns(
        self, servers: Servers, nodes: EmbeddedRedisCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However long it takes to see where it is, what is published from then on is heard."""
        [game] = games_on(1)
        slot = key_slot(game.encode())
        a, speaker = await servers.start(game), await servers.start()
        look, may_look = a.redis.look, asyncio.Event()

        async def look_later() -> None:
            await may_look.wait()
            await look()

        monkeypatch.setattr(a.redis, "look", look_later)
        for source, target in ((1, 2), (2, 0), (0, 1)):
            may_look.clear()
            a.broker.gate.shut()  # so that the sync begins before the server knows of the move
            syncing = asyncio.create_task(a.broker.sync())
            await move(nodes, slot, source, target)
            await eventually(lambda: a.broker.gate._waiting)
            a.broker.gate.open()
            await asyncio.wait([syncing], timeout=0.1)
            assert not syncing.done()
            may_look.set()
            await within(syncing)
            await speaker.redis.look()
            assert (await speaker.publish(game, b"x")).receivers == 1
        await a.broker.sync()
        assert a.heard == {game: [b"x"] * 3}

    @pytest.mark.parametrize("looks", ["as ever", "in vain"])
    async def test_though_it_is_a_servers_own(
        self,
        servers: Servers,
        nodes: EmbeddedRedisCluster,
        monkeypatch: pytest.MonkeyPatch,
        looks: str,
    ) -> None:
        """What a server says to itself goes by another slot of the node then.

        It learns so from the node itself if all others are behind the times.
        """

        async def look() -> None:
            """See nothing new."""

        [game] = games_on(0)
        a = await servers.start(game)
        if looks == "in vain":
            monkeypatch.setattr(a.redis, "look", look)
        [link] = a.link._links.values()
        before = link.own_channel
        slot = key_slot(before.encode())
        await move(nodes, slot, 0, 2)
        try:
            await eventually(lambda: link.own_channel != before)
            assert await a.broker.hears_itself(PATIENCE)
            await a.publish(game, b"x")
            await a.broker.sync()
            assert (a.heard, a.gaps()) == ({game: [b"x"]}, [])
        finally:
            await move(nodes, slot, 2, 0)

    async def test_to_nobody(self, servers: Servers, nodes: EmbeddedRedisCluster) -> None:
        """A game whose slot no node serves is refused in words, until one does."""
        [game] = games_on(2)
        slot = key_slot(game.encode())
        a = await servers.start(game)
        late = await servers.start(kind=QueueBroker)
        for number in range(3):
            await ask(nodes, number, "CLUSTER DELSLOTS", slot)
        try:
            await eventually(
                lambda: not a.link.reaches(f"{servers.redis.prefix}{{{game}}}:game:{game}")
            )
            for server in (a, late):
                with pytest.raises(BrokerDown, match="no node of the Redis Cluster serves"):
                    await server.broker.publish(game, b"x", "e")
            assert not await a.broker.hears_itself(PATIENCE)
        finally:
            await ask(nodes, 2, "CLUSTER ADDSLOTS", slot)
        await recorded(a.trace, "gap")
        assert (await a.publish(game, b"y")).receivers == 1
        await a.broker.sync()
        assert a.heard == {game: [b"y"]}


class TestANodeWhoseConnectionIsDead:
    async def test_is_listened_to_anew_and_no_other(
        self, servers: Servers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing comes on it, and neither end was told."""
        [here], [there] = games_on(0), games_on(1)
        a = await servers.start(here, there)
        dead = a.link._homes[a.broker._channel(here)]
        other = a.link._homes[a.broker._channel(there)]
        assert dead
        assert other
        before, of_other = dead._pubsub, other._pubsub
        take = dead.take
        monkeypatch.setattr(
            dead, "take", lambda message: None if dead._pubsub is before else take(message)
        )
        for _ in range(2):
            assert not await a.broker.hears_itself(0.2)
            a.broker.listen_anew()
        await recorded(a.trace, "gap")
        assert await a.broker.hears_itself(PATIENCE)
        assert a.gaps() == [here]
        assert other._pubsub is of_other


class TestASlotThatIsNobodys:
    async def test_is_asked_for_no_more_often_the_more_often_it_is_missed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many find so, one look follows another after a pause."""
        pause = 0.05
        monkeypatch.setattr(sharded_module, "LONGEST_PAUSE", pause)
        redis = _NoSlots()
        link = ShardedLink(cast("ShardedRedis", redis), "own", _Owner(), server="A")
        await link.start()
        await link.subscribe("g")
        for times in range(2, 30):
            link._doubt()
            await eventually(lambda: redis.looks >= times)  # noqa: B023
        before, began = redis.looks, time.monotonic()
        await eventually(lambda: redis.looks >= before + 11)
        assert time.monotonic() - began > 0.9 * 10 * pause
        await link.stop()


class _NoSlots:
    """A cluster in which no node has any slot."""

    looks = 0

    async def look(self) -> None:
        self.looks += 1

    def owner(self, name: str) -> None:
        return None


class _Owner(RedisBroker):
    """Whoever has the link, with nothing else."""

    name = "none"

    def __init__(self) -> None:
        super().__init__(FakeRedis().client(), server="A")

    async def publish(self, game: str, payload: bytes, event: str) -> Receipt:
        raise NotImplementedError

    def _hear(self, game: str, message: bytes) -> None:
        raise NotImplementedError


async def test_twenty_starts_and_stops_leak_nothing(nodes: EmbeddedRedisCluster) -> None:
    """Not a task here, and not a connection at any node."""

    async def connections() -> list[int]:
        return [len(await ask(nodes, number, "CLIENT LIST")) for number in range(3)]

    games = [*games_on(0), *games_on(1), *games_on(2)]
    tasks_before, before = tasks(), await connections()
    backend = redis_backend(nodes.url)
    for _ in range(20):
        broker = StreamBroker(backend.broker_client(), server="A", prefix=backend.prefix)
        await broker.start(lambda *_: None)
        for game in games:
            await broker.subscribe(game)
            await broker.publish(game, b"x", "e")
        await broker.sync()
        await within(broker.stop())
        assert not tasks() - tasks_before
    async with asyncio.timeout(PATIENCE):
        while await connections() != before:
            pass


async def test_what_is_known_of_the_slots_may_be_old(servers: Servers) -> None:
    """A node that is asked in vain says whom to ask, and no other game notices."""
    [here] = games_on(0)
    a = await servers.start(here)
    redis = a.redis
    for game in (*games_on(1), *games_on(2)):
        channel = a.broker._channel(game)
        right, wrong = redis.owner(channel), redis.owner(here)
        assert right
        assert wrong
        redis._moved[key_slot(game.encode())] = wrong
        await a.broker.subscribe(game)
        assert redis.owner(channel) == right
        redis._moved[key_slot(game.encode())] = wrong
        assert (await a.publish(game, b"x")).receivers == 1
        assert redis.owner(channel) == right
    await a.publish(here, b"x")
    await a.broker.sync()
    assert len(a.heard) == 3
    assert a.trace.select("gap", "disconnect") == []


async def test_one_node_by_itself_is_no_redis_for_all_games(nodes: EmbeddedRedisCluster) -> None:
    """At a redis:// URL, it refuses what it has no slot for; the error says what to write."""
    backend = redis_backend(f"redis://127.0.0.1:{nodes.ports[0]}")
    broker = StreamBroker(backend.broker_client(), server="A", prefix=backend.prefix)
    try:
        await broker.start(lambda *_: None)
        for act in (broker.publish(games_on(1)[0], b"x", "e"), broker.subscribe(games_on(2)[0])):
            with pytest.raises(BrokerDown, match=r"one node of a cluster: redis\+cluster://"):
                await act
    finally:
        await broker.stop()
