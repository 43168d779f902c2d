"""Redis Pub/Sub: confirmed before relied on, and back again however often Redis goes away."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest
from redis.asyncio import Redis

from tests.conftest import (
    PATIENCE,
    dial,
    eventually,
    game_server,
    pubsub,
    recorded,
    tasks,
    within,
)
from wsdemo import open_cluster
from wsdemo.brokers import BrokerDown, OneChannelBroker, PubSubBroker
from wsdemo.brokers import link as link_module
from wsdemo.brokers import redis_broker as pubsub_module
from wsdemo.brokers.link import LONGEST_PAUSE
from wsdemo.brokers.redis_broker import ANSWER_TIMEOUT, RedisGone
from wsdemo.redis.backend import EmbeddedRedis, RedisBackend, RemoteRedis
from wsdemo.server import Canary
from wsdemo.trace import Trace

Heard = list[bytes]

posix_only = pytest.mark.skipif(os.name != "posix", reason="there is no SIGSTOP on Windows")


@pytest.fixture
async def embedded() -> AsyncIterator[EmbeddedRedis]:
    """A real Redis, to be stopped and frozen."""
    async with EmbeddedRedis() as redis:
        yield redis


@asynccontextmanager
async def started(
    redis: RedisBackend,
    server: str,
    trace: Trace | None = None,
    kind: type[PubSubBroker] = PubSubBroker,
) -> AsyncIterator[tuple[PubSubBroker, Heard]]:
    """A server's broker that has started, and what it relays."""
    broker = kind(redis.broker_client(), server=server, prefix=redis.prefix, trace=trace)
    heard: Heard = []
    try:
        await broker.start(lambda game, payload, *_: heard.append(payload))
        yield broker, heard
    finally:
        await within(broker.stop())


@contextmanager
def frozen(redis: EmbeddedRedis) -> Iterator[None]:
    """A Redis that is there and does not answer."""
    assert redis.pid is not None
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(redis.pid, signal.SIGCONT)


class Monitor:
    """What a real Redis sees."""

    def __init__(self, redis: EmbeddedRedis) -> None:
        self._client = Redis.from_url(redis.url)
        self.commands: list[str] = []

    async def __aenter__(self) -> Monitor:
        self._monitor = self._client.monitor()
        await self._monitor.__aenter__()  # type: ignore[no-untyped-call]
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self._monitor.__aexit__(None, None, None)  # type: ignore[no-untyped-call]
        await self._client.aclose()

    async def _watch(self) -> None:
        while True:
            command = await self._monitor.next_command()
            self.commands.append(command["command"])

    async def seen(self, *verbs: str) -> list[str]:
        """The commands so far that begin with one of these verbs, in order."""
        end = f"ECHO {time.monotonic_ns()}"
        await self._client.execute_command(*end.split())  # type: ignore[no-untyped-call]
        await eventually(lambda: end in self.commands)
        return [c for c in self.commands if c.upper().startswith(verbs)]


class TestSubscribing:
    async def test_is_confirmed_before_it_returns(self, redis: RedisBackend) -> None:
        """When `subscribe` returns, Redis itself counts this server among the subscribers."""
        client = redis.client()
        async with started(redis, "A") as (broker, _):
            for number in range(20):
                await broker.subscribe(f"g{number}")
                assert await client.publish(f"{redis.prefix}game:g{number}", b"x") == 1
        await client.aclose()

    async def test_is_recorded_once_with_no_gap(self, redis: RedisBackend) -> None:
        """A first subscription, and one after an unsubscribe, is no gap."""
        trace = Trace()
        async with started(redis, "A", trace) as (broker, _):
            await broker.subscribe("g")
            await broker.unsubscribe("g")
            await broker.subscribe("g")
            await broker.sync()
        kinds = [(record.kind, record.at, record.peer) for record in trace]
        assert kinds == [
            ("subscribe", "A", "redis"),
            ("unsubscribe", "A", "redis"),
            ("subscribe", "A", "redis"),
        ]
        assert trace[0].data == {"channel": f"{redis.prefix}game:g"}

    async def test_prefixes_keep_clusters_apart(self, embedded: EmbeddedRedis) -> None:
        """Two clusters that share a Redis, as by a URL, do not hear each other."""
        async with (
            open_cluster(redis=embedded.url) as one,
            open_cluster(redis=embedded.url) as other,
        ):
            [p1] = await one.join("P1", server="A")
            [p2] = await other.join("P1", server="A")
            await p1.send("x")
            await p2.send("y")
            await one.settle()
            await other.settle()
            assert [e.body for e in p1.heard] == ["x"]
            assert [e.body for e in p2.heard] == ["y"]


@posix_only
class TestWhatWaitsTogether:
    async def test_goes_together_and_in_order(self, embedded: EmbeddedRedis) -> None:
        """Far fewer messages to Redis than events, each with its own answer."""
        client = embedded.client()
        payloads = [f"{number}".encode() for number in range(200)]
        async with started(embedded, "A") as (broker, heard):
            await broker.subscribe("g")
            before = await client.info("stats")
            receipts = await asyncio.gather(
                *(
                    broker.publish("g" if number % 2 else "empty", each)
                    for number, each in enumerate(payloads)
                )
            )
            after = await client.info("stats")
            await broker.sync()
            assert [receipt.receivers for receipt in receipts] == [0, 1] * 100
            assert heard == payloads[1::2]
            assert after["total_reads_processed"] - before["total_reads_processed"] < 20
        await client.aclose()

    async def test_an_event_that_is_given_up_before_its_turn_is_never_sent(
        self, redis: RedisBackend
    ) -> None:
        """The others are."""
        async with started(redis, "A") as (broker, heard):
            await broker.subscribe("g")
            publishing = [
                asyncio.create_task(broker.publish("g", b"%d" % number)) for number in range(4)
            ]
            await asyncio.sleep(0)  # the first one has its turn, the others wait
            publishing[2].cancel()
            await asyncio.gather(*publishing, return_exceptions=True)
            await broker.sync()
            assert heard == [b"0", b"1", b"3"]

    async def test_is_given_up_together_if_the_one_that_sends_it_is(
        self, embedded: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody can know whether Redis had it, and nobody waits for an answer that cannot come."""
        async with started(embedded, "A") as (broker, _):
            await broker.subscribe("g")
            monkeypatch.setattr(pubsub_module, "ANSWER_TIMEOUT", 2 * PATIENCE)
            with frozen(embedded):
                publishing = [
                    asyncio.create_task(broker.publish("g", b"%d" % number)) for number in range(4)
                ]
                for sender in publishing[:2]:  # the second one sends for all who are left
                    await asyncio.sleep(0.05)  # a turn that comes tells nobody
                    sender.cancel()
                results = await within(asyncio.gather(*publishing[2:], return_exceptions=True))
            assert [type(result) for result in results] == [BrokerDown] * 2
            await within(broker.sync())
            assert (await broker.publish("g", b"x")).receivers == 1

    async def test_finds_together_that_there_is_no_redis(self, embedded: EmbeddedRedis) -> None:
        """Each is told the same, whoever has sent it."""
        async with started(embedded, "A") as (broker, _):
            await broker.subscribe("g")
            assert embedded.pid is not None
            os.kill(embedded.pid, signal.SIGSTOP)
            publishing = [
                asyncio.create_task(broker.publish("g", b"%d" % number)) for number in range(4)
            ]
            await asyncio.sleep(0.05)  # a turn that comes tells nobody
            publishing[0].cancel()  # the second one sends for all
            await asyncio.sleep(0.05)
            await embedded.stop()
            results = await within(asyncio.gather(*publishing[1:], return_exceptions=True))
            assert [type(result) for result in results] == [RedisGone] * 3


class TestOneChannelForAllGames:
    async def test_games_are_apart_all_the_same(self, redis: RedisBackend) -> None:
        """A server is sent every game's events, and relays those of its own, whatever they are."""
        payloads = [b"x", b"", b"\n", b"a\nb\n", bytes(range(256))]
        async with (
            started(redis, "A", kind=OneChannelBroker) as (a, heard_a),
            started(redis, "B", kind=OneChannelBroker) as (b, heard_b),
        ):
            await a.subscribe("g")
            await b.subscribe("h")
            await b.subscribe("Ω game")
            for payload in payloads:
                assert (await a.publish("g", payload)).receivers == 2
            await b.publish("h", b"of h")
            await b.publish("Ω game", b"of the other")
            await b.publish("nobody's", b"?")
            await a.sync()
            await b.sync()
            assert heard_a == payloads
            assert heard_b == [b"of h", b"of the other"]
            assert a.received == b.received == len(payloads) + 3

    async def test_the_last_game_that_ends_ends_the_subscription(self, redis: RedisBackend) -> None:
        """Until then the others' events arrive; afterwards none does."""
        async with started(redis, "A", kind=OneChannelBroker) as (a, heard):
            await a.subscribe("g")
            await a.subscribe("h")
            await a.unsubscribe("g")
            assert (await a.publish("g", b"dropped")).receivers == 1
            assert (await a.publish("h", b"heard")).receivers == 1
            await a.sync()
            assert a.received == 2
            await a.unsubscribe("h")
            async with asyncio.timeout(PATIENCE):  # it goes another way than PUBLISH does
                while (await a.publish("h", b"x")).receivers:
                    pass
            assert heard == [b"heard"]


class TestWhatRedisSees:
    async def test_one_publish_for_each_event(self, embedded: EmbeddedRedis) -> None:
        """SUBSCRIBE comes before any, each server subscribes once, no event is published twice."""
        async with Monitor(embedded) as monitor:
            async with open_cluster(redis=embedded.url) as cluster:
                p1, p2, p3 = await cluster.join("P1", "P2", "P3", server="A")
                await p1.reconnect(server="B")
                for number in range(10):
                    await asyncio.gather(p1.send(f"a{number}"), p2.send(f"b{number}"))
                await cluster.settle()
                assert len(p3.heard) == 20
            seen = await monitor.seen("SUBSCRIBE", "PUBLISH")
        channel = next(c.split()[1] for c in seen if c.split()[1].endswith("game:g"))
        ours = [command for command in seen if command.split()[1] == channel]
        assert channel.startswith("wsdemo:")
        assert [command.split()[0] for command in ours] == ["SUBSCRIBE"] * 2 + ["PUBLISH"] * 20
        assert len(set(ours)) == 21

    async def test_nothing_is_stored(self, embedded: EmbeddedRedis) -> None:
        """Pub/Sub keeps nothing: no command that writes a key."""
        async with Monitor(embedded) as monitor:
            async with open_cluster(redis=embedded.url) as cluster:
                [p1] = await cluster.join("P1")
                await p1.send("x")
                await cluster.settle()
            await monitor.seen()
            verbs = {command.split()[0].upper() for command in monitor.commands}
        allowed = {"HELLO", "CLIENT", "PING", "SUBSCRIBE", "UNSUBSCRIBE", "PUBLISH", "ECHO"}
        assert verbs <= allowed | {"SELECT", "AUTH", "INFO", "QUIT", "MONITOR"}


class TestAReplyThatIsLost:
    @pytest.mark.parametrize("reply", ["lost", "never read"])
    async def test_is_no_second_publish(self, embedded: EmbeddedRedis, reply: str) -> None:
        """The event went out once, though whoever sent it cannot know, and is told so."""
        async with _no_reply_to_publish(embedded, cut=reply == "lost") as url:
            far = RemoteRedis(url)
            far.prefix = embedded.prefix
            with pytest.MonkeyPatch.context() as patch:
                if reply == "never read":
                    patch.setattr(pubsub_module, "ANSWER_TIMEOUT", 0.2)
                async with started(far, "A") as (a, _), started(embedded, "B") as (b, heard):
                    await b.subscribe("g")
                    for payload in (b"1", b"2", b"3"):
                        with pytest.raises(BrokerDown):
                            await within(a.publish("g", payload))
                    await b.sync()
            assert heard == [b"1", b"2", b"3"]


@asynccontextmanager
async def _no_reply_to_publish(redis: EmbeddedRedis, cut: bool) -> AsyncIterator[str]:
    """The URL of a way to this Redis on which replies to PUBLISH get lost, or it is cut then."""
    tasks_here: set[asyncio.Task[None]] = set()
    port = int(redis.url.rsplit(":", 1)[1])

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks_here.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

        async def back() -> None:
            while data := await far_reader.read(65536):
                writer.write(data)

        answers = asyncio.create_task(back())
        try:
            while data := await reader.read(65536):
                if b"PUBLISH" in data:
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                    far_writer.write(data)
                    await far_reader.read(65536)  # Redis has carried it out
                    if cut:
                        return
                else:
                    far_writer.write(data)
        except OSError:
            pass
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            far_writer.close()
            writer.close()

    proxy = await asyncio.start_server(carry, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    finally:
        proxy.close()
        await within(asyncio.gather(*tasks_here, return_exceptions=True))


class TestAServerThatStandsStill:
    async def test_is_told_of_everything_afterwards(self, redis: RedisBackend) -> None:
        """While the gate is shut nothing is relayed; then all of it, in order."""
        async with started(redis, "A") as (a, heard), started(redis, "B") as (b, _):
            await a.subscribe("g")
            a.gate.shut()
            for number in range(20):
                assert (await b.publish("g", b"%d" % number)).receivers == 1
            await b.sync()
            assert heard == []
            a.gate.open()
            await a.sync()
            assert heard == [b"%d" % number for number in range(20)]

    async def test_learns_of_an_answer_afterwards(self, redis: RedisBackend) -> None:
        """An answer that came in time is none that came too late, however long it waited."""
        async with started(redis, "A") as (a, _):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(pubsub_module, "ANSWER_TIMEOUT", 0.5)
                a.gate.shut()
                publishing = asyncio.create_task(a.publish("g", b"x"))
                await asyncio.wait([publishing], timeout=0.6)
                assert not publishing.done()
                a.gate.open()
                assert (await within(publishing)).receivers == 0

    async def test_has_a_gap_past_a_bound(
        self, redis: RedisBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What had waited before is relayed, what came later is not, and the trace shows a gap."""
        monkeypatch.setattr(pubsub_module, "BYTES_WAITING", 10)
        trace = Trace()
        async with started(redis, "A", trace) as (a, heard), started(redis, "B") as (b, _):
            await a.subscribe("g")
            a.gate.shut()
            for number in range(30):
                await b.publish("g", b"%02d" % number)
                await b.sync()
            a.gate.open()
            await recorded(trace, "gap")
            assert heard == [b"%02d" % number for number in range(5)]
            await b.publish("g", b"again")
            await a.sync()
            assert heard[-1] == b"again"

    async def test_forsaken_it_relays_and_records_nothing(self, redis: RedisBackend) -> None:
        """Its server has been killed: what still arrives is for nobody."""
        trace = Trace()
        async with started(redis, "A", trace) as (a, heard):
            await a.subscribe("g")
            before = len(trace)
            a.forsake()
            await a.publish("g", b"x")
            await a.sync()
            await a.unsubscribe("g")
            assert (heard, len(trace)) == ([], before)


class TestAConnectionThatIsDropped:
    async def test_is_given_up_by_a_server_that_does_not_hear_itself(
        self, embedded: EmbeddedRedis
    ) -> None:
        """No end of it is told, and it stands as ever: only what it says to itself is missing."""
        trace = Trace()
        async with _forgetful_network(embedded) as network:
            broker = pubsub(RemoteRedis(network.url), "A", trace)
            canary = Canary(every=0.02, bound=0.1)
            async with (
                game_server(broker=broker, canary=canary, trace=trace) as server,
                dial(server.url) as client,
            ):
                await client.join("P1")
                await client.ask("send", id="1", body="before")
                network.forget()
                await recorded(trace, "gap")
                await recorded(trace, "heal")
                assert server.hears
                event = await client.ask("send", id="2", body="after")
                assert (event["type"], event["body"]) == ("event", "after")
                [broken] = trace.select("disconnect", peer="redis")
                assert broken.data["reason"] == "nothing comes on this connection"

    async def test_is_not_given_up_for_one_word_that_is_late(
        self, redis: RedisBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nor for a second one, if something has come in between."""
        async with started(redis, "A") as (a, _):
            before = a._link._pubsub  # type: ignore[union-attr]
            for _ in range(3):
                with monkeypatch.context() as patch:
                    patch.setattr(a._link, "take", lambda message: None)
                    assert not await a.hears_itself(0.1)
                a.listen_anew()
                assert await a.hears_itself(PATIENCE)
            assert a._link._pubsub is before  # type: ignore[union-attr]

    @posix_only
    async def test_is_not_what_it_is_if_redis_does_not_answer(
        self, embedded: EmbeddedRedis
    ) -> None:
        """A frozen Redis has the subscription as it was, and all that was said is heard."""
        trace = Trace()
        async with started(embedded, "A", trace) as (a, heard):
            await a.subscribe("g")
            with frozen(embedded):
                for _ in range(3):
                    assert not await a.hears_itself(0.05)
                    a.listen_anew()
            assert (await within(a.publish("g", b"x"))).receivers == 1
            await a.sync()
            assert heard == [b"x"]
            assert not trace.select("gap", "disconnect")

    @posix_only
    async def test_while_it_is_made_is_not_waited_for_for_ever(
        self, embedded: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever accepts a connection and says nothing does not keep a server deaf."""
        monkeypatch.setattr(link_module, "PATIENCE", 0.1)
        async with (
            _forgetful_network(embedded) as network,
            started(RemoteRedis(network.url), "A") as (a, heard),
        ):
            await a.subscribe("g")
            with network.mute():
                network.cut()
                await eventually(lambda: not a._link.is_up)
                await network.was_called(times=2)
            await eventually(lambda: a._link.is_up)
            await a.subscribe("g")
            assert (await a.publish("g", b"x")).receivers == 1
            await a.sync()
            assert heard == [b"x"]


class _Network:
    """A way to Redis, on which it can be forgotten where what is said belongs."""

    def __init__(self, port: int) -> None:
        self._redis_port = port
        self._flows: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._calls = 0
        self._is_mute = False
        self.url = ""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a new connection's bytes, both ways."""
        self._calls += 1
        self._writers.append(writer)
        if self._is_mute:
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._redis_port)
        self._writers.append(far_writer)
        for source, target in ((reader, far_writer), (far_reader, writer)):
            self._flows.append(asyncio.create_task(_pump(source, target)))

    def forget(self) -> None:
        """Drop all that is said on the connections that there are: they stay, for both ends."""
        for flow in self._flows:
            flow.cancel()

    @contextmanager
    def mute(self) -> Iterator[None]:
        """Meanwhile, new connections are taken, and nothing is said on them."""
        self._is_mute = True
        yield
        self._is_mute = False

    def cut(self) -> None:
        """End all connections that there are."""
        self.forget()
        for writer in self._writers:
            writer.transport.abort()

    async def was_called(self, times: int) -> None:
        """Wait until so many more connections were made."""
        until = self._calls + times
        await eventually(lambda: self._calls >= until)

    async def end(self) -> None:
        """Leave nothing behind."""
        self.cut()
        await asyncio.gather(*self._flows, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
    target.close()


@asynccontextmanager
async def _forgetful_network(redis: EmbeddedRedis) -> AsyncIterator[_Network]:
    """A way to this Redis that begins to drop connections when it is told to."""
    network = _Network(int(redis.url.rsplit(":", 1)[1]))
    proxy = await asyncio.start_server(network.carry, "127.0.0.1", 0)
    network.url = f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    try:
        yield network
    finally:
        proxy.close()
        await network.end()


class TestRedisThatRefuses:
    async def test_to_be_listened_to_is_asked_again_after_longer_and_longer_pauses(
        self, embedded: EmbeddedRedis, caplog: pytest.LogCaptureFixture
    ) -> None:
        """To have asked is no success. The log says why, once."""
        client, trace = embedded.client(), Trace()
        async with started(embedded, "A", trace) as (a, _):
            await a.subscribe("g")
            await _allow(client, "-subscribe")
            await client.client_kill_filter(_type="pubsub")
            await eventually(lambda: a._link._pause == LONGEST_PAUSE)  # type: ignore[union-attr]
            await _allow(client, "+subscribe")
            await recorded(trace, "gap")
            assert a._link._pause < LONGEST_PAUSE  # type: ignore[union-attr]
            said = [record.getMessage() for record in caplog.records]
            assert len([words for words in said if "NoPermissionError" in words]) == 1
        await client.aclose()

    async def test_an_event_says_so_in_plain_words(
        self, embedded: EmbeddedRedis, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is there, so it is not "out of reach"; its own words are in the log, once."""
        client = embedded.client()
        async with started(embedded, "A") as (a, _):
            await _allow(client, "-publish")
            for _ in range(3):
                with pytest.raises(BrokerDown) as refused:
                    await a.publish("g", b"x")
                assert str(refused.value) == "Redis has refused what it was asked"
            await _allow(client, "+publish")
            assert (await a.publish("g", b"x")).receivers == 0
        await client.aclose()
        [warning] = [record for record in caplog.records if record.name == "wsdemo.brokers"]
        assert "NoPermissionError" in warning.getMessage()

    async def test_connections_are_told_of_without_an_address(
        self, embedded: EmbeddedRedis, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The log has it, and says that the link is broken; players are told the same each time."""
        async with started(embedded, "A") as (a, _):
            await embedded.stop()
            await eventually(lambda: not a._link.is_up)
            with pytest.raises(RedisGone) as gone:
                await a.publish("g", b"x")
            assert str(gone.value) == "Redis is out of reach"
        port = embedded.url.rsplit(":", 1)[1]
        said = [record.getMessage() for record in caplog.records]
        assert [words for words in said if "out of reach" in words and port in words]
        assert [words for words in said if "server A does not hear Redis" in words]


async def _allow(client: Redis, rule: str) -> None:
    await client.execute_command("ACL", "SETUSER", "default", rule)  # type: ignore[no-untyped-call]


class TestRedisThatGoesAway:
    async def test_the_subscription_returns_each_time(self, embedded: EmbeddedRedis) -> None:
        """After each return events pass again; `subscribe` and `gap` are recorded once for each."""
        traces = Trace(), Trace()
        async with (
            started(embedded, "A", traces[0]) as (a, heard_a),
            started(embedded, "B", traces[1]) as (b, heard_b),
        ):
            await a.subscribe("g")
            await b.subscribe("g")
            for turn in range(1, 5):
                await embedded.stop()
                await embedded.start()
                for trace in traces:
                    await recorded(trace, "gap", times=turn)
                assert (await within(a.publish("g", b"%d" % turn))).receivers == 2
                await a.sync()
                await b.sync()
            assert heard_a == heard_b == [b"1", b"2", b"3", b"4"]
            for trace in traces:
                assert len(trace.select("subscribe")) == 5
                assert len(trace.select("gap")) == 4

    async def test_publish_while_it_is_down_fails_at_once(self, embedded: EmbeddedRedis) -> None:
        """Nobody is kept waiting, and nothing is kept for later."""
        async with started(embedded, "A") as (a, heard):
            await a.subscribe("g")
            await embedded.stop()
            for number in range(3):
                with pytest.raises(BrokerDown, match="out of reach"):
                    await within(a.publish("g", b"%d" % number), 1)
            await within(a.sync(), 1)
            await embedded.start()

            async def published() -> bool:
                return (await a.publish("g", b"after")).receivers == 1

            async with asyncio.timeout(PATIENCE):
                while not await published():
                    pass
            await a.sync()
            assert heard == [b"after"]

    async def test_a_subscribe_meanwhile_waits_for_its_return(
        self, embedded: EmbeddedRedis
    ) -> None:
        """If it returns in time, the subscription is as good as any."""
        async with started(embedded, "A") as (a, heard):
            await embedded.stop()
            await eventually(lambda: not a._link.is_up)
            subscribing = asyncio.create_task(a.subscribe("late"))
            await asyncio.sleep(0)
            await embedded.start()
            await within(subscribing)
            assert (await a.publish("late", b"x")).receivers == 1
            await a.sync()
            assert heard == [b"x"]

    async def test_a_subscribe_while_the_link_is_being_made(self, embedded: EmbeddedRedis) -> None:
        """A game that is wanted in the very moment of the return is not forgotten."""
        async with started(embedded, "A") as (a, _):
            for number in range(5):
                linking = asyncio.Event()
                link = a._link._pubsub  # type: ignore[union-attr]
                assert link is not None
                subscribe = type(link).subscribe

                async def announce(self: object, *channels: object, **options: object) -> object:
                    linking.set()  # noqa: B023
                    await asyncio.sleep(0)  # as it takes on a real network, at least
                    return await subscribe(self, *channels, **options)  # type: ignore[arg-type]  # noqa: B023

                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(type(link), "subscribe", announce)
                    await embedded.stop()
                    await embedded.start()
                    await within(linking.wait())
                    await within(a.subscribe(f"late{number}"))
                    assert (await a.publish(f"late{number}", b"x")).receivers == 1
                await eventually(lambda: a._link.is_up)

    async def test_a_subscribe_that_waits_in_vain(
        self, embedded: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is told so in bounded time, and may try again."""
        async with started(embedded, "A") as (a, _):
            monkeypatch.setattr(pubsub_module, "ANSWER_TIMEOUT", 0.1)
            await embedded.stop()
            await eventually(lambda: not a._link.is_up)
            with pytest.raises(BrokerDown):
                await within(a.subscribe("g"), 1)
            await a.unsubscribe("g")
            await embedded.start()
            await eventually(lambda: a._link.is_up)
            monkeypatch.undo()
            await within(a.subscribe("g"))
            assert (await a.publish("g", b"x")).receivers == 1

    async def test_stop_while_it_is_down(self, embedded: EmbeddedRedis) -> None:
        """A broker that looks for its Redis in vain can be stopped."""
        before = tasks()
        async with started(embedded, "A") as (a, _):
            await a.subscribe("g")
            await embedded.stop()
            await eventually(lambda: not a._link.is_up)
        assert not tasks() - before

    async def test_no_redis_at_the_start(self, embedded: EmbeddedRedis) -> None:
        """`start` raises `BrokerDown`, and a stop leaves nothing."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pubsub_module, "ANSWER_TIMEOUT", 0.1)
            broker = pubsub(embedded, "A")
            await embedded.stop()
            with pytest.raises(BrokerDown):
                await within(broker.start(lambda *_: None))
            await within(broker.stop())


@posix_only
class TestRedisThatIsFrozen:
    async def test_is_noticed_by_whoever_asks(self, embedded: EmbeddedRedis) -> None:
        """publish, subscribe and sync raise `BrokerDown` after ANSWER_TIMEOUT, together."""
        async with started(embedded, "A") as (a, _):
            await a.subscribe("g")
            with frozen(embedded):
                began = time.monotonic()
                failures = await within(
                    asyncio.gather(
                        a.publish("g", b"x"), a.sync(), a.subscribe("h"), return_exceptions=True
                    )
                )
                took = time.monotonic() - began
            assert [type(failure) for failure in failures] == [BrokerDown] * 3
            assert "has not answered" in str(failures[0])
            assert ANSWER_TIMEOUT <= took + 0.1 < ANSWER_TIMEOUT + 1

    async def test_nothing_is_published_twice_and_no_answer_is_mixed_up(
        self, embedded: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What comes too late belongs to nobody else: receivers are counted right afterwards."""
        async with started(embedded, "A") as (a, heard), started(embedded, "B") as (b, _):
            await a.subscribe("g")
            await b.subscribe("g")
            monkeypatch.setattr(pubsub_module, "ANSWER_TIMEOUT", 0.1)
            with frozen(embedded):
                for number in range(3):
                    with pytest.raises(BrokerDown):
                        await a.publish("g", b"frozen %d" % number)
                with pytest.raises(BrokerDown):
                    await a.sync()
            monkeypatch.undo()
            for number in range(10):
                assert (await a.publish("g", b"%d" % number)).receivers == 2
                assert (await a.publish("nobody", b"x")).receivers == 0
            await a.sync()
            assert len(heard) == len(set(heard))
            assert [payload for payload in heard if b"frozen" not in payload] == [
                b"%d" % number for number in range(10)
            ]

    async def test_stop_does_not_wait_for_it(self, embedded: EmbeddedRedis) -> None:
        """A broker, and a whole cluster, ends though its Redis does not answer."""
        async with started(embedded, "A") as (a, _):
            await a.subscribe("g")
            with frozen(embedded):
                await within(a.stop(), 1)
        cluster = await open_cluster(redis="embedded")
        assert isinstance(cluster.redis, EmbeddedRedis)
        await cluster.join("P1", "P2")
        with frozen(cluster.redis), pytest.MonkeyPatch.context() as patch:
            patch.setattr(pubsub_module, "ANSWER_TIMEOUT", 0.1)
            with pytest.raises(TimeoutError, match="P1 has no answer"):
                await within(cluster.settle())
        await within(cluster.stop(), 3)
