"""A game server as a process of its own, from the command line to its last word."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.conftest import BrokerThatIsAsked, Client, dial, eventually, game_server, shown, within
from tests.raw import CLOSE, frame, limits_reached, raw
from tests.test_canary import ask_whether_ready
from wsdemo.limits import Limits
from wsdemo.protocol import MAX_BODY
from wsdemo.redis.backend import EmbeddedRedis
from wsdemo.redis.cluster import EmbeddedRedisCluster
from wsdemo.serve import REDIS_VARIABLE, SECRET_VARIABLE, Settings, shared_redis
from wsdemo.server import STRAGGLE, GameServer
from wsdemo.tokens import sign

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
    async with _running(sys.executable, "-m", "wsdemo", "serve", *arguments) as server:
        yield server


@asynccontextmanager
async def _running(*command: str) -> AsyncIterator[Process]:
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
        ({}, "needs a Redis that all servers share: put its URL"),
        ({"redis": "fake"}, "redis 'fake' is one process's own, and broker 'pubsub' needs a Redis"),
        ({"redis": "embedded"}, "into WSDEMO_REDIS or after --redis, or use --broker none"),
        (
            {"redis": "127.0.0.1:6379"},
            "is no URL of a Redis: it has to start with redis://, rediss",
        ),
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


NOWHERE = "redis://:secret@127.0.0.1:1"


@pytest.mark.parametrize(
    ("arguments", "variable", "says"),
    [
        ([], "", "the following arguments are required: --name"),
        (["--name", "A"], "", "wsdemo: broker 'pubsub' needs a Redis"),
        (["--name", "A"], "fake", "wsdemo: redis 'fake' is one process's own"),
        (["--name", "A"], "http://:secret@127.0.0.1", "wsdemo: what WSDEMO_REDIS or --redis says"),
        (["--name", "A"], NOWHERE, "No Redis answers at 127.0.0.1:1. Start one"),
        (["--name", "A", "--redis", NOWHERE], "fake", "No Redis answers at 127.0.0.1:1. Start one"),
    ],
)
async def test_what_it_cannot_do_is_said_in_words(
    arguments: list[str], variable: str, says: str
) -> None:
    """Not in a traceback, without a password, and the exit status is not 0."""
    command = [sys.executable, "-m", "wsdemo", "serve", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, env={**os.environ, REDIS_VARIABLE: variable}
    )
    _, said = await within(process.communicate(), START)
    assert process.returncode
    assert says in said.decode()
    assert "Traceback" not in said.decode()
    assert ":secret@" not in said.decode()


async def test_the_environment_names_the_redis_and_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So it is in no command line, and the server tells nobody."""
    password = secrets.token_hex(8)
    async with EmbeddedRedis() as redis:
        async with redis.client() as client:
            await client.config_set("requirepass", password)
        monkeypatch.setenv(REDIS_VARIABLE, redis.url.replace("://", f"://:{password}@"))
        async with serving("--name", "A", "--drain", "0") as server, dial(server.url) as client:
            await client.join("P1")
            assert password not in " ".join(psutil.Process(server.process.pid).cmdline())
            assert await server.end() == 0
            await server.read_until("ended")
    assert password not in json.dumps(server.logged)


def test_what_the_command_line_says_counts_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment only stands in for it."""
    monkeypatch.setenv(REDIS_VARIABLE, "redis://there")
    assert (shared_redis("redis://here"), shared_redis()) == ("redis://here", "redis://there")
    monkeypatch.delenv(REDIS_VARIABLE)
    assert shared_redis() == ""


def test_a_url_is_not_shown() -> None:
    """Not by what is printed of the settings, and not by the error for one that is none."""
    assert "secret" not in repr(Settings("A", redis=NOWHERE))
    with pytest.raises(ValueError, match="no URL of a Redis") as refused:
        Settings("A", redis=NOWHERE.replace("redis", "http"))
    assert "secret" not in shown(refused.value)


# A name for the signal that only Windows has.
BREAK = """
import signal
signal.SIGBREAK = signal.SIGUSR1
from wsdemo.cli import main
raise SystemExit(main(["serve", "--name", "A", "--broker", "none", "--drain", "0"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has the real one")
async def test_a_break_lets_it_drain_too() -> None:
    """On Windows, it is all that another program can send."""
    async with _running(sys.executable, "-c", BREAK) as server, dial(server.url) as client:
        await client.join("P1")
        assert await server.end(signal.SIGUSR1) == 0
        assert await client.closed() == (1012, "server A is draining")
        await server.read_until("ended")


async def test_a_port_that_is_taken_is_named() -> None:
    """Two servers cannot share one; the error says what to do."""
    async with game_server() as server:
        command = [sys.executable, "-m", "wsdemo", "serve", "--name", "B", "--broker", "none"]
        process = await asyncio.create_subprocess_exec(
            *command, "--port", str(server.port), stderr=asyncio.subprocess.PIPE
        )
        _, said = await within(process.communicate(), START)
        assert process.returncode == 1
        assert f"wsdemo: cannot listen at 127.0.0.1:{server.port}: " in said.decode()
        assert "in use; name another --port" in said.decode()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    """Whoever can connect there is on this machine."""
    assert Settings("A", host, broker="none").host == host


class TestDraining:
    async def test_each_client_has_a_moment_of_its_own(self) -> None:
        """They go one after the other, spread over the time, at moments that chance decides."""
        async with AsyncExitStack() as stack:
            gone = [
                await stack.enter_async_context(_moments_of_leaving(seconds=0.4, clients=8))
                for _ in range(2)
            ]
        for moments in gone:
            assert moments == sorted(moments)
            for number, moment in enumerate(moments):
                assert number * 0.05 <= moment < (number + 1) * 0.05 + 0.2
        offsets = [[round(m - 0.05 * n, 3) for n, m in enumerate(moments)] for moments in gone]
        assert offsets[0] != offsets[1], "two servers that drain are in step"
        assert len(set(offsets[0])) > 4, "there is no chance in it"

    async def test_who_does_not_answer_holds_nobody_up(self) -> None:
        """Neither a client that reads nothing nor one that never says goodbye."""
        async with game_server() as server, AsyncExitStack() as stack:
            speaker = await (await stack.enter_async_context(dial(server.url))).join("P1")
            stalled = await stack.enter_async_context(raw(server.port, receive_buffer=4096))
            rude = await stack.enter_async_context(raw(server.port))
            for number, wire in enumerate((stalled, rude), 2):
                await wire.upgrade()
                await wire.say("join", game="g", player=f"P{number}")
                await within(server.until(partial(_is_in, server, f"P{number}")))
            connection = server._games["g"].players["P2"]
            number = 0
            while not connection.transport.get_write_buffer_size():
                number += 1
                await speaker.say("send", id=f"{number}", body="x" * MAX_BODY)
                await speaker.hear()
            draining = asyncio.create_task(server.drain(0.1))
            assert await speaker.closed() == (1012, "server A is draining")
            await within(draining, 0.1 + STRAGGLE + 1)
            await eventually(lambda: not server.calls and not server._sockets)

    async def test_the_process_ends_whatever_its_clients_do(self) -> None:
        """With 0, and soon: those in their handshake, those that were said goodbye to, and all."""
        async with serving("--name", "A", "--broker", "none", "--drain", "0.2") as server:
            port = int(server.url.rpartition(":")[2])
            async with AsyncExitStack() as stack:
                wires = [await stack.enter_async_context(raw(port)) for _ in range(5)]
                silent, half_a_head, upgraded, wrong, leaving = wires
                await half_a_head.push(b"GET / HTTP/1.1\r\nHost:")
                for wire in (upgraded, wrong, leaving):
                    await wire.upgrade()
                await wrong.push(b"\xff" * 10)
                await leaving.push(frame(CLOSE, b"\x03\xe8"))
                began = time.monotonic()
                assert await server.end() == 0
                assert time.monotonic() - began < 0.2 + 2 * STRAGGLE + 1
                for wire in (silent, half_a_head):
                    assert await wire.hear_to_the_end() == []

    async def test_stopping_waits_for_nobody_in_its_handshake(self) -> None:
        """A socket that asks for nothing, or slowly, is cut."""
        async with game_server() as server, raw(server.port) as silent, raw(server.port) as slow:
            await slow.push(b"GET / HTTP/1.1\r\n")
            await eventually(lambda: len(server._sockets) == 2)
            await within(server.stop(), STRAGGLE)
            assert await silent.hear_to_the_end() == await slow.hear_to_the_end() == []

    async def test_who_is_still_joining_is_sent_away_too(self) -> None:
        """And who had asked for a WebSocket before, and was let in after."""
        broker = BrokerThatIsAsked()
        async with game_server(broker=broker) as server, dial(server.url) as joining:
            await joining.say("join", game="g", player="P1")
            await broker.asked.wait()
            await within(server.drain(0))
            assert await joining.closed() == (1012, "server A is draining")
            broker.answer.set()
            await eventually(lambda: not server.calls and not server.players("g"))


def _is_in(server: GameServer, player: str) -> bool:
    return player in server.players("g")


@asynccontextmanager
async def _moments_of_leaving(seconds: float, clients: int) -> AsyncIterator[list[float]]:
    """When each of so many clients is sent away, in seconds since the server began to drain."""
    async with game_server() as server, AsyncExitStack() as stack:
        found = [await stack.enter_async_context(dial(server.url)) for _ in range(clients)]
        await eventually(lambda: server.counts.connections == clients)
        began = time.monotonic()

        async def moment(client: Client) -> float:
            await client.closed()
            return time.monotonic() - began

        moments = asyncio.gather(*map(moment, found))
        await server.drain(seconds)
        yield await moments


class TestTokens:
    async def test_what_the_command_prints_lets_a_player_join(self, tmp_path: Path) -> None:
        """With the secret in a file for one and in the environment for the other."""
        secret = secrets.token_urlsafe(32)
        file = tmp_path / "secret"
        file.write_text(f"{secret}\n", encoding="utf-8")
        arguments = ["--join-secret-file", str(file)]
        async with serving("--name", "A", "--broker", "none", *arguments) as server:
            command = [sys.executable, "-m", "wsdemo", "token", "--game", "g", "--player", "P1"]
            process = await asyncio.create_subprocess_exec(
                *command,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, SECRET_VARIABLE: secret},
            )
            printed, _ = await within(process.communicate(), START)
            token = printed.decode().strip()
            async with dial(server.url) as client:
                error = await client.ask("join", game="g", player="P1")
                assert error["code"] == "bad-token"
                error = await client.ask("join", game="g", player="P2", token=token)
                assert error["code"] == "bad-token"
                welcome = await client.ask("join", game="g", player="P1", token=token)
                assert welcome["type"] == "welcome"
            assert (await numbers(server))["wsdemo_tokens_refused_total"] == 2
            assert await server.end() == 0
            await server.read_until("ended")
            for written in (secret, token):
                assert written not in json.dumps(server.logged)

    async def test_it_listens_where_others_can_reach_it_with_a_secret_only(
        self, tmp_path: Path
    ) -> None:
        """Then on all addresses, the loopback too."""
        with pytest.raises(ValueError, match=SECRET_VARIABLE):
            Settings("A", "0.0.0.0", broker="none")
        secret = secrets.token_bytes(16)
        Settings("A", "0.0.0.0", broker="none", join_secret=secret)
        async with (
            game_server(host="0.0.0.0", join_secret=secret) as server,
            dial(f"ws://127.0.0.1:{server.port}") as client,
        ):
            assert (await client.ask("join", game="g", player="P1"))["code"] == "bad-token"
            token = sign(secret, "g", "P1", 60)
            welcome = await client.ask("join", game="g", player="P1", token=token)
            assert welcome["type"] == "welcome"

    def test_a_secret_is_not_shown(self) -> None:
        """Not by what is printed of the settings, and not by the error for one too short."""
        secret = secrets.token_hex(16)
        assert secret not in repr(Settings("A", broker="none", join_secret=secret.encode()))
        with pytest.raises(ValueError, match="can be guessed") as refused:
            Settings("A", broker="none", join_secret=secret[:15].encode())
        assert secret[:15] not in shown(refused.value)


async def test_limits_are_options() -> None:
    """Each has its own, and what cannot be is refused in words."""
    arguments = ["--name", "A", "--broker", "none", "--game", "g", "--max-players", "1"]
    async with serving(*arguments) as server, dial(server.url) as p1, dial(server.url) as p2:
        await p1.join("P1")
        error = await p2.ask("join", game="g", player="P2")
        assert error["message"] == "at most 1 players of a game on this server (max_players)"
        assert (await p2.ask("join", game="h", player="P2"))["code"] == "no-such-game"
        assert (await limits_reached(int(server.url.rpartition(":")[2])))["max_players"] == 1
    command = [sys.executable, "-m", "wsdemo", "serve", "--name", "A", "--broker", "none"]
    process = await asyncio.create_subprocess_exec(
        *command, "--max-message", "300000", stderr=asyncio.subprocess.PIPE
    )
    _, said = await within(process.communicate(), START)
    assert said.decode().startswith("wsdemo: max_message is 300000; use more than 0 and at most")


async def test_each_limit_has_an_option() -> None:
    """Named as the errors and the metrics name it."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "wsdemo", "serve", "--help"], stdout=asyncio.subprocess.PIPE
    )
    said, _ = await within(process.communicate(), START)
    for limit in fields(Limits):
        assert f"--{limit.name.replace('_', '-')} N" in said.decode()


FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))
from wsdemo.cli import main
main(["serve", "--name", "A", "--broker", "none", *sys.argv[1:]])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize("connections", [10_000, 10**9])
async def test_where_fewer_files_may_be_open_it_takes_fewer_connections(connections: int) -> None:
    """It says so, and never has to see that there are no more: others are cut before."""
    command = [sys.executable, "-c", FEW_FILES.format(files=750)]
    async with _running(*command, "--max-connections", str(connections)) as server:
        [warning] = [line for line in server.logged if line["levelname"] == "WARNING"]
        assert (warning["max_connections"], warning["remedy"]) == (46, "raise ulimit -n")
        port = int(server.url.rpartition(":")[2])
        sockets = Limits(max_connections=46).max_sockets
        assert sockets == 150
        async with AsyncExitStack() as stack:
            calls = [stack.enter_async_context(raw(port)) for _ in range(400)]
            wires = await asyncio.gather(*calls)
            ends = [asyncio.create_task(wire.hear_to_the_end()) for wire in wires]
            await eventually(lambda: sum(end.done() for end in ends) == len(wires) - sockets)
            for wire in wires:
                wire.end_writing()
            await asyncio.gather(*ends)
        counted = await limits_reached(port)
        assert counted["max_connections"] == len(wires) - sockets
        async with dial(server.url) as client:
            await client.join("P1")
        assert await server.end() == 0
        await server.read_until("ended")
        assert [line["message"] for line in server.logged][1:] == ["ready", "draining", "ended"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
async def test_far_too_few_files_are_an_error() -> None:
    """A server that could take nobody does not start."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", FEW_FILES.format(files=100)], stderr=asyncio.subprocess.PIPE
    )
    _, said = await within(process.communicate(), START)
    assert said.decode() == "wsdemo: 100 open files are too few for a server: raise ulimit -n\n"
