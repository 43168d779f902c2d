"""A server that does not hear itself says so, and its players go where they are heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.conftest import bodies, here, recorded, within
from wsdemo import Cluster, faults, ledger, open_cluster
from wsdemo.parts import Server
from wsdemo.server import Canary

QUICK = Canary(every=0.02, bound=0.1)

keeping = pytest.mark.parametrize("broker", ["pubsub", "stream", "queue"])


async def ask_whether_ready(server: Server) -> str:
    """The status line with which it answers, as it would any load balancer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: wsdemo\r\n\r\n")
    answer = await within(reader.read())
    writer.close()
    await writer.wait_closed()
    return answer.split(b"\r\n")[0].decode()


async def until(cluster: Cluster, condition: Callable[[], bool]) -> None:
    await within(cluster.until(condition))
    assert condition()


def reasons(cluster: Cluster, server: str) -> list[str]:
    found = cluster.trace.select("fault", "heal", at=server, peer="redis")
    return [record.data["reason"] for record in found]


@keeping
async def test_its_players_are_sent_elsewhere(broker: str) -> None:
    """Closed with 1012, they come back on the server that hears, and hear each other there."""
    async with open_cluster(broker=broker, canary=QUICK) as cluster:
        p1, p2 = await cluster.join("P1", "P2", server="A")
        async with faults.redis_link_cut(cluster, "A"):
            await until(cluster, lambda: p1.server == p2.server == "B")
            assert not cluster.servers["A"].hears
            assert await ask_whether_ready(cluster.servers["A"]) == (
                "HTTP/1.1 503 Service Unavailable"
            )
            assert await ask_whether_ready(cluster.servers["B"]) == "HTTP/1.1 200 OK"
            [p3] = await cluster.join("P3")  # the balancer has taken A out
            assert p3.server == "B"
            await p1.send("here")
            await cluster.settle()
            assert bodies(p2.heard) == bodies(p3.heard) == ["here"]
        await until(cluster, lambda: cluster.servers["A"].hears)
        assert await ask_whether_ready(cluster.servers["A"]) == "HTTP/1.1 200 OK"
        assert reasons(cluster, "A") == ["link cut", "deaf", "link mended", "hears again"]
        codes = {
            r.data["code"] for r in cluster.trace.select("disconnect", at="A") if r.peer != "redis"
        }
        assert codes == {1012}
        assert ledger(cluster).balances


async def test_while_nobody_hears_all_stay_where_they_are() -> None:
    """A frozen Redis, whose connections stand, is noticed; but nobody is better off elsewhere."""
    async with open_cluster(broker="pubsub", canary=QUICK) as cluster:
        players = await cluster.join("P1", "P2")
        calls = [player.call for player in players]
        async with faults.redis_frozen(cluster):
            await until(cluster, lambda: not any(s.hears for s in cluster.servers.values()))
            await asyncio.gather(*(server.hears_now() for server in cluster.servers.values()))
            assert [player.server for player in players] == ["A", "B"]
        await until(cluster, lambda: all(s.hears for s in cluster.servers.values()))
        await cluster.settle()
        assert [player.call for player in players] == calls


async def test_a_listener_that_has_died_is_noticed() -> None:
    """The server's other connection to Redis goes on working, and pretends that all is well."""
    async with open_cluster(broker="pubsub", canary=QUICK) as cluster:
        [p1] = await cluster.join("P1", server="A")
        listener = here(cluster, "A")._broker._link._listener  # type: ignore[attr-defined]
        while not listener.done():
            listener.cancel()
            await asyncio.wait({listener}, timeout=0.05)
        await until(cluster, lambda: p1.server == "B")


async def test_one_that_stood_still_is_not_deaf() -> None:
    """While it is frozen it cannot hear itself, and that is no news."""
    async with open_cluster(broker="pubsub", canary=QUICK) as cluster:
        [p1] = await cluster.join("P1", server="A")
        async with faults.server_frozen(cluster, "A"), faults.redis_link_cut(cluster, "B"):
            await recorded(cluster.trace, "fault", at="B", peer="redis", times=2)
            assert reasons(cluster, "B") == ["link cut", "deaf"]
        await cluster.settle()
        assert cluster.servers["A"].hears
        assert reasons(cluster, "A") == []
        assert p1.server == "A"


async def test_a_loop_that_was_kept_busy_makes_nobody_deaf() -> None:
    """What came in meanwhile is looked at too late once, and the next time it is there."""
    async with open_cluster(broker="pubsub", canary=Canary(every=0, bound=0.05)) as cluster:
        for _ in range(5):
            for server in cluster.servers.values():
                await server.hears_now()
            time.sleep(0.08)  # a cell that computes  # noqa: ASYNC251
            await cluster.settle()
        assert not cluster.trace.select("fault")


async def test_without_a_broker_there_is_nothing_to_hear() -> None:
    """Such a server is always ready, and has no canary."""
    async with open_cluster(broker="none", canary=QUICK) as cluster:
        assert await cluster.servers["A"].hears_now()
        assert here(cluster, "A")._watching is None
        assert await ask_whether_ready(cluster.servers["A"]) == "HTTP/1.1 200 OK"
