"""A game server as a process of its own, from the command line to its last word."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.conftest import Client, dial, eventually, game_server, within
from tests.test_canary import ask_whether_ready
from wsdemo.redis_backend import EmbeddedRedis
from wsdemo.redis_cluster import EmbeddedRedisCluster
from wsdemo.serve import Settings

START = 30.0  # seconds that a process may take to start on a machine that has much to do


class Process:
    """A `python -m wsdemo serve` that runs, and what it has logged."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.logged: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return next(str(line["url"]) for line in self.logged if line["message"] == "ready")

    async def read_until(self, message: str) -> None:
        """Read its log up to this message."""
        assert self.process.stderr
        while message not in [line["message"] for line in self.logged]:
            line = await within(self.process.stderr.readline(), START)
            assert line, f"it has ended; it said: {self.logged}"
            self.logged.append(json.loads(line))

    async def get(self, path: str) -> tuple[int, str]:
        """What it answers over HTTP: the status, and the text."""
        host, port = self.url.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head, _, text = (await within(reader.read())).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split()[1]), text.decode()

    async def end(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the exit status."""
        self.process.send_signal(by)
        return await within(self.process.wait(), 20)


@asynccontextmanager
async def serving(*arguments: str) -> AsyncIterator[Process]:
    """A server process that is ready; it is killed at the end if it still runs."""
    command = [sys.executable, "-m", "wsdemo", "serve", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        server = Process(process)
        await server.read_until("ready")
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def numbers(server: Process) -> dict[str, float]:
    """Its metrics, as Prometheus's own parser reads them."""
    status, text = await server.get("/metrics")
    assert status == 200
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    return {sample.name: sample.value for family in families for sample in family.samples}


async def test_two_processes_are_one_game_through_redis_until_one_drains() -> None:
    """P1 on A and P2 on B hear each other; after SIGTERM, B sends P2 away and ends with 0."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(EmbeddedRedis())
        a, b = await asyncio.gather(
            *(
                stack.enter_async_context(
                    serving("--name", name, "--redis", redis.url, "--drain", "0.5")
                )
                for name in ("A", "B")
            )
        )
        p1 = await (await stack.enter_async_context(dial(a.url))).join("P1")
        p2 = await (await stack.enter_async_context(dial(b.url))).join("P2")
        await p1.say("send", id="1", body="hello")
        assert (await p2.hear())["body"] == (await p1.hear())["body"] == "hello"
        assert await b.get("/healthz") == (200, "alive\n")
        assert await b.get("/readyz") == (200, "ready\n")
        counted = await numbers(b)
        assert counted["wsdemo_players"] == counted["wsdemo_joins_total"] == 1
        assert counted["wsdemo_events_relayed_total"] == counted["wsdemo_deliveries_total"] == 1
        assert (await numbers(a))["wsdemo_events_received_total"] == 1

        process = psutil.Process(b.process.pid)
        with process.oneshot():
            used, held = process.cpu_times(), process.memory_info().rss
        cost = await numbers(b)
        seconds = used.user + used.system
        assert seconds - 0.02 < cost["process_cpu_seconds_total"] < seconds + 1
        assert cost["process_resident_memory_bytes"] == pytest.approx(held, rel=0.1)

        leaving = asyncio.create_task(p2.closed())
        assert await b.end() == 0
        assert await leaving == (1012, "server B is draining")
        await b.read_until("ended")
        assert [line["message"] for line in b.logged] == ["ready", "draining", "ended"]
        assert {line["server"] for line in b.logged} == {"B"}
        await p1.silence()  # A goes on


async def test_two_processes_meet_on_a_redis_cluster(nodes: EmbeddedRedisCluster) -> None:
    """Each named one node of it, and not the same."""
    first, _, last = (f"redis+cluster://127.0.0.1:{port}" for port in nodes.ports)
    async with AsyncExitStack() as stack:
        a, b = await asyncio.gather(
            stack.enter_async_context(serving("--name", "A", "--redis", first, "--drain", "0")),
            stack.enter_async_context(serving("--name", "B", "--redis", last, "--drain", "0")),
        )
        for game in ("g1", "g2", "g3"):
            p1 = await (await stack.enter_async_context(dial(a.url))).join("P1", game)
            p2 = await (await stack.enter_async_context(dial(b.url))).join("P2", game)
            await p1.say("send", id="1", body=game)
            assert (await p2.hear())["body"] == (await p1.hear())["body"] == game
        alone = await (await stack.enter_async_context(dial(b.url))).join("P3", "g4")
        await alone.say("send", id="1", body="only on B")
        await alone.hear()
        received = "wsdemo_broker_messages_total"
        assert [(await numbers(server))[received] for server in (a, b)] == [3, 4]
        assert (await a.end(), await b.end()) == (0, 0)


@pytest.mark.parametrize("broker", ["none", "stream", "queue"])
async def test_any_broker_serves(broker: str) -> None:
    """One that keeps events confirms them; without one, players of the same server hear."""
    async with AsyncExitStack() as stack:
        where: list[str] = []
        if broker != "none":
            redis = await stack.enter_async_context(EmbeddedRedis())
            where = ["--redis", redis.url]
        server = await stack.enter_async_context(serving("--name", "A", "--broker", broker, *where))
        client = await (await stack.enter_async_context(dial(server.url))).join("P1")
        await client.say("send", id="1", body="hello")
        heard = [await client.hear() for _ in range(1 if broker == "none" else 2)]
        assert sorted(message["type"] for message in heard) == (
            ["event"] if broker == "none" else ["event", "stored"]
        )
        assert await server.end(signal.SIGINT) == 0


async def test_a_server_that_drains_takes_nobody_and_says_so() -> None:
    """It is alive and not ready; those it has are sent away one after the other."""
    async with game_server() as server, AsyncExitStack() as stack:
        clients: list[Client] = []
        for number in range(3):
            client = await stack.enter_async_context(dial(server.url))
            clients.append(await client.join(f"P{number}"))
        draining = asyncio.create_task(server.drain(0.3))
        await clients[0].closed()
        with pytest.raises(InvalidStatus) as refused:
            await within(connect(server.url, proxy=None).__aenter__())
        assert refused.value.response.status_code == 503
        assert await ask_whether_ready(server) == "HTTP/1.1 503 Service Unavailable"
        assert [await client.closed() for client in clients[1:]] == [
            (1012, "server A is draining")
        ] * 2
        await within(draining)
        await eventually(lambda: not server.calls)


async def test_nobody_is_waited_for_who_has_gone_by_itself() -> None:
    """A server without players has drained, whatever time it was given."""
    async with game_server() as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(dial(server.url)) for _ in range(3)]
        for number, client in enumerate(clients):
            await client.join(f"P{number}")
        draining = asyncio.create_task(server.drain(3600))
        for client in clients:
            await client.say("leave")
        await within(draining)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "needs a Redis that all servers share: --redis"),
        ({"name": "<b>", "broker": "none"}, "cannot be the name of a server"),
        ({"broker": "none", "port": 70_000}, "there is no port 70000: use 0"),
        ({"broker": "none", "drain": -1.0}, "--drain -1: use 0 to 3600 seconds"),
        ({"broker": "none", "drain": float("nan")}, "--drain nan: use 0 to"),
        ({"broker": "x"}, "unknown broker 'x'; there are: none, pubsub, stream, queue"),
        ({"broker": "none", "host": "0.0.0.0"}, "use --host 127.0.0.1"),
        ({"broker": "none", "host": "example.org"}, "use --host 127.0.0.1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], says: str) -> None:
    """The error says what to write instead."""
    with pytest.raises(ValueError, match=re.escape(says)):
        Settings(**{"name": "A", **settings})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: --name"),
        (["--name", "A"], "wsdemo: broker 'pubsub' needs a Redis"),
        (
            ["--name", "A", "--redis", "redis://:secret@127.0.0.1:1"],
            "No Redis answers at 127.0.0.1:1. Start one",
        ),
    ],
)
async def test_what_it_cannot_do_is_said_in_words(arguments: list[str], says: str) -> None:
    """Not in a traceback, without a password, and the exit status is not 0."""
    command = [sys.executable, "-m", "wsdemo", "serve", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await within(process.communicate(), START)
    assert process.returncode
    assert says in said.decode()
    assert "Traceback" not in said.decode()
    assert ":secret@" not in said.decode()


async def test_a_port_that_is_taken_is_named() -> None:
    """Two servers cannot share one."""
    async with game_server() as server:
        command = [sys.executable, "-m", "wsdemo", "serve", "--name", "B", "--broker", "none"]
        process = await asyncio.create_subprocess_exec(
            *command, "--port", str(server.port), stderr=asyncio.subprocess.PIPE
        )
        _, said = await within(process.communicate(), START)
        assert process.returncode == 1
        assert "in use" in said.decode()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    """Whoever can connect there is on this machine."""
    assert Settings("A", host, broker="none").host == host
