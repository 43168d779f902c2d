"""The fake Redis behind its port: to redis-py it is a real one, also when it breaks."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import NoScriptError, RedisError, ResponseError

from tests.conftest import eventually, listeners, more, tasks, within
from wsdemo.redis.backend import EmbeddedRedis, FakeRedis, OwnRedis, RedisUnavailable
from wsdemo.redis.fake import FakeRedisServer

EVERY_BYTE = bytes(range(256))


@pytest.fixture(params=[FakeRedis, EmbeddedRedis])
async def own(request: pytest.FixtureRequest) -> AsyncIterator[OwnRedis]:
    """A Redis of ours that answers: once the fake, once a real one."""
    async with request.param() as redis:
        yield redis


@asynccontextmanager
async def client(redis: OwnRedis) -> AsyncIterator[Redis]:
    """A client, to be closed."""
    opened = redis.client()
    yield opened
    await opened.aclose()


@asynccontextmanager
async def subscribed(redis: Redis, *channels: str) -> AsyncIterator[PubSub]:
    """A subscription whose confirmations have been read."""
    async with redis.pubsub() as link:
        await link.subscribe(*channels)
        for count, channel in enumerate(channels, start=1):
            assert await message(link) == ("subscribe", channel.encode(), count)
        yield link


async def message(link: PubSub) -> tuple[str, bytes, Any]:
    """The next one: its type, its channel, and what it says."""
    got = await within(link.get_message(timeout=None))
    assert got is not None
    return got["type"], got["channel"], got["data"]


async def is_cut(link: PubSub) -> None:
    """Wait until the link ends."""
    with suppress(RedisError, OSError):
        while True:
            await message(link)


def _vanish(link: Any) -> None:
    """End its connection without a goodbye."""
    link.connection._writer.transport.abort()


# Every command that a broker uses, in each of the ways that it may end; then what is left of them.
COMMANDS: list[tuple[Any, ...]] = [
    ("PING",),
    ("PING", EVERY_BYTE),
    ("SET", "text", "value"),
    ("SET", "text", "other", "NX"),
    ("GET", "text"),
    ("GET", "nothing"),
    ("INCR", "text"),
    ("INCR", "number"),
    ("HSET", "about", "epoch", "e", "seq", 0),
    ("HSET", "about", "epoch", "e"),
    ("HGET", "about", "epoch"),
    ("HGET", "about", "nothing"),
    ("HINCRBY", "about", "seq", 5),
    ("HINCRBY", "about", "epoch", 1),
    ("HKEYS", "about"),
    ("HKEYS", "nothing"),
    ("HDEL", "about", "nothing", "seq"),
    ("HGET", "text", "epoch"),
    ("XADD", "events", "MAXLEN", 3, "1-0", "event", EVERY_BYTE),
    ("XADD", "events", "MAXLEN", 3, "1-0", "event", "the same number"),
    *(("XADD", "events", "MAXLEN", 3, f"{n}-0", "event", n) for n in range(2, 6)),
    ("XRANGE", "events", "4-0", "+", "COUNT", 1),
    ("XRANGE", "events", "1-0", "+", "COUNT", 200),
    ("XRANGE", "events", "9-0", "+", "COUNT", 200),
    ("XRANGE", "nothing", "-", "+"),
    ("XLEN", "events"),
    ("XTRIM", "events", "MINID", "5-0"),
    ("XLEN", "events"),
    ("XADD", "text", "*", "event", "x"),
    ("ZADD", "ids", 1, "a", 2, "b"),
    ("ZADD", "ids", 3, "a"),
    ("ZSCORE", "ids", "a"),
    ("ZSCORE", "ids", "nothing"),
    ("ZREMRANGEBYSCORE", "ids", "-inf", 2),
    ("ZSCORE", "events", "a"),
    ("PUBLISH", "nobody", "x"),
    ("EVAL", "return {1, 'two', false, {3, {}}, 4.9}", 0),
    ("EVAL", "return redis.call('HGET', KEYS[1], ARGV[1])", 1, "about", "epoch"),
    ("EVAL", "return redis.call('HGET', KEYS[1], ARGV[1])", 1, "text", "epoch"),
    ("EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", 1, "text", EVERY_BYTE),
    ("EVAL", "return {redis.error_reply('TRIED nothing'), redis.status_reply('FINE')}", 0),
    ("EVAL", "return redis.error_reply('TRIED nothing')", 0),
    ("EVALSHA", "0" * 40, 0),
    ("GET", "text"),
    ("EXISTS", "text", "about", "nothing"),
    ("DEL", "text", "about", "events", "ids", "number", "nothing"),
    ("DBSIZE",),
    ("SET", "text"),
]


async def _answer_to(redis: Redis, *command: Any) -> Any:
    return await within(redis.execute_command(*command))  # type: ignore[no-untyped-call]


async def _answer(redis: Redis, command: tuple[Any, ...]) -> Any:
    try:
        return _comparable(await _answer_to(redis, *command))
    except ResponseError as error:
        return _comparable(error)


def _comparable(answer: Any) -> Any:
    """An error as its type and first word: its sentence differs from one Redis to the next."""
    if isinstance(answer, list):
        return [_comparable(each) for each in answer]
    if isinstance(answer, ResponseError):
        return type(answer).__name__, str(answer).split(" ")[0]
    return answer


class TestLikeARealOne:
    async def test_answers_are_the_same(self) -> None:
        """Each command, also one that fails, has the answer that a real Redis gives."""
        async with (
            FakeRedis() as fake,
            EmbeddedRedis() as real,
            client(fake) as one,
            client(real) as other,
        ):
            for command in COMMANDS:
                assert await _answer(one, command) == await _answer(other, command), command

    async def test_a_message_reaches_its_subscribers(self, own: OwnRedis) -> None:
        """PUBLISH counts them, in each channel by itself, and each hears it, in order."""
        async with (
            client(own) as speaker,
            client(own) as hearer,
            subscribed(hearer, "a", "b") as both,
            subscribed(hearer, "b") as second,
        ):
            assert await speaker.publish("a", EVERY_BYTE) == 1
            assert await speaker.publish("b", b"2") == 2
            assert await speaker.publish("c", b"3") == 0
            assert await message(both) == ("message", b"a", EVERY_BYTE)
            assert await message(both) == ("message", b"b", b"2")
            assert await message(second) == ("message", b"b", b"2")
            await both.unsubscribe("b")
            assert await message(both) == ("unsubscribe", b"b", 1)
            assert await speaker.publish("b", b"4") == 1
            assert await message(second) == ("message", b"b", b"4")

    async def test_a_client_that_vanishes_is_not_counted(self, own: OwnRedis) -> None:
        """A subscription ends with its connection, whether there was a goodbye or not."""
        async with client(own) as speaker:
            for _ in range(5):
                hearer = own.client()
                async with subscribed(hearer, "a"), subscribed(hearer, "a") as vanishing:
                    assert await speaker.publish("a", b"x") == 2
                    _vanish(vanishing)
                    await _count(speaker, 1)
                await hearer.aclose()
                await _count(speaker, 0)

    async def test_a_script_is_loaded_when_it_is_missing(self, own: OwnRedis) -> None:
        """NOSCRIPT is the error that redis-py knows; it then loads the script, and after a loss."""
        async with client(own) as redis:
            script = redis.register_script("return {KEYS[1], ARGV[1], redis.call('INCR', 'n')}")
            with pytest.raises(NoScriptError):
                await redis.evalsha(script.sha, 0)
            assert await script(["k"], [EVERY_BYTE]) == [b"k", EVERY_BYTE, 1]
            assert await script(["k"], [EVERY_BYTE]) == [b"k", EVERY_BYTE, 2]
            assert await redis.script_flush()
            assert await script(["k"], ["v"]) == [b"k", b"v", 3]

    async def test_a_pipeline_answers_in_order(self, own: OwnRedis) -> None:
        """As a transaction and without one; an error in the middle is one answer among others."""
        async with client(own) as redis:
            for transaction in (True, False):
                pipeline = redis.pipeline(transaction=transaction)
                for command in (
                    ("SET", "k", "v"),
                    ("INCR", "k"),
                    ("HGET", "none", "f"),
                    ("GET", "k"),
                ):
                    pipeline.execute_command(*command)
                done, error, nothing, value = await pipeline.execute(raise_on_error=False)
                assert (done, nothing, value) == (True, None, b"v")
                assert isinstance(error, ResponseError)

    async def test_an_error_says_its_kind_first(self, own: OwnRedis) -> None:
        """WRONGTYPE is in the text; the connection is as good as before."""
        async with client(own) as redis:
            await redis.set("k", "v")
            with pytest.raises(ResponseError, match=r"^WRONGTYPE Operation against a key"):
                await redis.xadd("k", {"a": "b"})
            with pytest.raises(ResponseError, match=r"^unknown command"):
                await _answer_to(redis, "NOSUCH", "x")
            assert await redis.get("k") == b"v"

    async def test_a_large_value_comes_back_whole(self, own: OwnRedis) -> None:
        """Eight megabytes, in whatever pieces they come, with other commands meanwhile."""
        large = random.Random(1).randbytes(2**23)
        async with client(own) as redis:
            await within(asyncio.gather(redis.set("k", large), *(redis.ping() for _ in range(10))))
            async with client(own) as another, subscribed(another, "a") as link:
                got, *_ = await within(
                    asyncio.gather(redis.get("k"), *(redis.incr("n") for _ in range(10)))
                )
                assert got == large
                assert await redis.publish("a", large) == 1
                assert await message(link) == ("message", b"a", large)

    async def test_a_command_may_come_byte_by_byte(self, own: OwnRedis) -> None:
        """It is answered once it is there; what came with it is answered as well, in order."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(own.url.split(":")[-1]))
        writer.transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        for byte in b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert await within(reader.readexactly(4)) == b":1\r\n"
        writer.write(b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n" * 3 + b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1")
        assert await within(reader.readexactly(19)) == b":2\r\n:3\r\n:4\r\n$1\r\n4\r\n"
        writer.close()
        await writer.wait_closed()

    async def test_many_clients_at_once(self, own: OwnRedis) -> None:
        """Forty, each with its own connection, and each hears all that is said."""
        clients = [own.client() for _ in range(40)]
        links = [each.pubsub() for each in clients]
        await within(asyncio.gather(*(link.subscribe("a") for link in links)))
        for link in links:
            assert (await message(link))[0] == "subscribe"
        counts = await within(asyncio.gather(*(each.publish("a", b"x") for each in clients)))
        assert counts == [40] * 40
        for link in links:
            for _ in clients:
                assert await message(link) == ("message", b"a", b"x")
        assert await within(asyncio.gather(*(each.incr("n") for each in clients)))
        assert await clients[0].get("n") == b"40"
        await asyncio.gather(*(link.aclose() for link in links))  # type: ignore[no-untyped-call]
        await asyncio.gather(*(each.aclose() for each in clients))


async def _count(speaker: Redis, subscribers: int) -> None:
    """Wait until so many are counted: that a connection has ended takes a moment to arrive."""
    async with asyncio.timeout(5):
        while await speaker.publish("a", b"x") != subscribers:
            pass


class TestItsEnd:
    async def test_cuts_everybody_at_once(self, own: OwnRedis) -> None:
        """Whoever listens or has asked is told, and whoever calls is refused; the port is kept."""
        async with client(own) as redis, subscribed(redis, "a") as link:
            await redis.ping()
            waiting = asyncio.create_task(is_cut(link))
            await own.crash()
            await within(waiting)
            assert own.state == "down"
            for _ in range(3):
                with pytest.raises((RedisError, OSError)):
                    await redis.ping()
            if isinstance(own, FakeRedis):
                kept = own._server._kept_port
                assert kept
                assert own.url.endswith(f":{kept.getsockname()[1]}")
            url = own.url
            await own.start()
            assert (own.state, own.url) == ("up", url)
            assert await redis.ping()
            async with subscribed(redis, "a"):
                assert await redis.publish("a", b"x") == 1  # the one before has gone with its link

    async def test_keeps_what_it_knows_or_forgets_it(self, own: OwnRedis) -> None:
        """As it is told; a crash without persistence forgets."""
        ends: list[tuple[Callable[[], Awaitable[None]], bool]] = [
            (lambda: own.shut_down(keep=True), True),
            (lambda: own.shut_down(keep=False), False),
            (own.crash, False),
        ]
        for end, is_kept in ends:
            async with client(own) as before:
                await before.set("k", EVERY_BYTE)
                script = before.register_script("return redis.call('GET', 'k')")
                assert await script() == EVERY_BYTE
            await within(end())
            await own.start()
            async with client(own) as after:
                assert await after.get("k") == (EVERY_BYTE if is_kept else None)
                assert await script(client=after) == (EVERY_BYTE if is_kept else None)

    async def test_twice_is_once(self) -> None:
        """There is nothing to end, and nothing to start, the second time."""
        redis, ports = FakeRedis(), listeners()
        await redis.start()
        await redis.start()
        assert len(listeners() - ports) == 1
        await redis.crash()
        await redis.crash()
        await redis.start()
        async with client(redis) as one:
            assert await one.ping()
        await redis.stop()
        await redis.stop()
        assert listeners() == ports

    async def test_with_calls_in_that_very_moment(self) -> None:
        """Whenever it comes in their way, each call is answered or ends, and leaves nothing."""
        before = tasks()
        server = FakeRedisServer()
        turns, is_early = 0, True
        while is_early:
            await server.start()
            calls = [asyncio.create_task(_call(server.port)) for _ in range(4)]
            for _ in range(turns):
                await asyncio.sleep(0)
            is_early = not all(call.done() for call in calls)
            dying = asyncio.create_task(server.die())
            calls.append(asyncio.create_task(_call(server.port)))
            await within(asyncio.gather(dying, *calls))
            assert not server.connections, f"after {turns} turns"
            assert not tasks() - before, f"after {turns} turns"
            turns = more(turns)
        await server.stop()
        gc.collect()

    async def test_with_more_calls_than_can_wait(self) -> None:
        """A crowd at the door that nobody has let in yet holds up nothing."""
        server = FakeRedisServer()
        await server.start()
        crowd = [socket.socket() for _ in range(300)]
        for each in crowd:
            each.setblocking(False)
            with suppress(BlockingIOError):
                each.connect(("127.0.0.1", server.port))
        await within(server.die())
        assert not server.connections
        for each in crowd:
            each.close()
        await server.stop()


async def _call(port: int) -> bytes:
    """Call, ask something, and give the answer, empty if there is none."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return b""
    try:
        writer.write(b"*1\r\n$4\r\nPING\r\n")
        return await reader.readline()
    except OSError:
        return b""
    finally:
        writer.transport.abort()


class TestStandingStill:
    async def test_what_is_asked_waits(self, own: OwnRedis) -> None:
        """Nobody is answered until it goes on; then everybody is, in order."""
        async with client(own) as redis, client(own) as another, subscribed(another, "a") as link:
            await redis.ping()
            own.freeze()
            assert own.state == "frozen"
            asked = [asyncio.ensure_future(redis.rpush("list", n)) for n in range(3)]
            saying = asyncio.ensure_future(redis.publish("a", b"x"))
            calling = asyncio.ensure_future(another.ping())
            await asyncio.wait([*asked, saying, calling], timeout=0.05)
            assert not any(each.done() for each in (*asked, saying, calling))
            own.thaw()
            assert str(own.state) == "up"
            assert sorted(await within(asyncio.gather(*asked))) == [1, 2, 3]
            assert await within(saying) == 1
            assert await message(link) == ("message", b"a", b"x")
            assert await within(calling)

    async def test_says_what_it_is(self, own: OwnRedis) -> None:
        """To freeze what is frozen, or to thaw what is not, is an error."""
        with pytest.raises(RuntimeError, match="Redis is up, so it cannot be thawed"):
            own.thaw()
        own.freeze()
        with pytest.raises(RuntimeError, match="Redis is frozen, so it cannot be frozen"):
            own.freeze()
        own.thaw()
        await own.crash()
        with pytest.raises(RuntimeError, match="Redis is down, so it cannot be frozen"):
            own.freeze()

    @pytest.mark.parametrize("keep", [True, False])
    async def test_it_can_be_ended(self, own: OwnRedis, keep: bool) -> None:
        """Whoever waits is cut, and after the next start it stands still no more."""
        async with client(own) as redis:
            await redis.set("k", "v")
            own.freeze()
            asking = asyncio.ensure_future(redis.get("k"))
            await asyncio.sleep(0)
            await within(own.shut_down(keep=keep))
            with suppress(RedisError, OSError):  # in good order, it may be answered first
                await within(asking)
            assert own.state == "down"
            await own.start()
            assert await within(redis.get("k")) == (b"v" if keep else None)

    async def test_who_vanishes_meanwhile_is_forgotten(self, own: OwnRedis) -> None:
        """However it goes on: a subscriber that has gone is not counted."""
        for goes_on in (True, False):
            async with client(own) as redis:
                hearer = own.client()
                async with subscribed(hearer, "a") as link:
                    own.freeze()
                    _vanish(link)
                await hearer.aclose()
                if isinstance(own, FakeRedis):  # elsewhere it is the kernel that knows
                    await eventually(lambda: len(own._server.connections) == 0)
                if goes_on:
                    own.thaw()
                else:
                    await own.shut_down(keep=True)
                    await own.start()
                await _count(redis, 0)

    async def test_what_was_asked_of_one_that_dies_is_not_done(self) -> None:
        """It was never read: the next one, with the same data, knows nothing of it."""
        async with FakeRedis() as redis, client(redis) as one:
            await one.set("k", "before")
            redis.freeze()
            asking = asyncio.ensure_future(one.set("k", "after"))
            await eventually(lambda: redis._server.gate._waiting)
            await redis.shut_down(keep=True)
            with pytest.raises((RedisError, OSError)):
                await within(asking)
            await redis.start()
            assert await one.get("k") == b"before"


async def test_without_a_port_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what is missing."""

    def none(host: str, port: int) -> socket.socket:
        raise OSError("no port is free")

    monkeypatch.setattr("wsdemo.redis.fake.bound_socket", none)
    with pytest.raises(RedisUnavailable, match="No port for the fake Redis: no port is free"):
        await FakeRedis().start()
