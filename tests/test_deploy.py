"""The servers behind a real load balancer, with the configurations that are in deploy/."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import inspect
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import fields
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import yaml
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Origin

from tests.conftest import Client, bodies, dial, eventually, game_server, pubsub, within
from tests.test_serve import START, Process, serving
from wsdemo.brokers.keeping import PAGE_SIZE
from wsdemo.cli import _parser
from wsdemo.limits import BURST, Limits
from wsdemo.player import Player
from wsdemo.ports import bound_socket
from wsdemo.redis.backend import EmbeddedRedis, FakeRedis, RemoteRedis, find_server_binary
from wsdemo.server import Canary, GameServer

REPOSITORY = Path(__file__).parents[1]
DEPLOY = REPOSITORY / "deploy"
NAMES = "ABC"

# What a client has to send for a server to take it as a player.
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def text_of(file: str) -> str:
    return (DEPLOY / file).read_text(encoding="utf-8")


# A balancer as a process


class Front:
    """A load balancer that runs, in front of the servers A, B and C."""

    def __init__(self, kind: str, port: int, folder: Path) -> None:
        self.kind = kind
        self.port = port
        self.folder = folder
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8")

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def get(
        self, path: str, headers: dict[str, str] | None = None, source: str = "127.0.0.1"
    ) -> tuple[int, str]:
        """Ask for a path, sent as it is: the status, and the head, lowered, and the body."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(source, 0)
        )
        lines = {"Host": "wsdemo", **(headers or {})}
        asked = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"GET {path} HTTP/1.1\r\n{asked}\r\n".encode())
        try:
            head = (await within(reader.readuntil(b"\r\n\r\n"))).decode().lower()
            length = re.search(r"^content-length: (\d+)", head, re.MULTILINE)
            text = await within(reader.readexactly(int(length[1]) if length else 0))
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        return int(head.split()[1]), head + text.decode()

    async def until_it_answers(self) -> None:
        async with asyncio.timeout(START):
            while True:
                assert self.runs, self.log
                with suppress(OSError, asyncio.IncompleteReadError):
                    await self.get("/no-such-thing")
                    return
                await asyncio.sleep(0.01)

    async def state(self, server: str) -> str:
        """What HAProxy thinks of a server, as in UP or DOWN."""
        reader, writer = await asyncio.open_unix_connection(self.folder / "socket")
        writer.write(b"show stat json\n")
        [fields] = [
            {field["field"]["name"]: field["value"]["value"] for field in line}
            for line in json.loads(await within(reader.read()))
            if {"servers", server} <= {field["value"]["value"] for field in line}
        ]
        writer.close()
        await writer.wait_closed()
        return str(fields["status"])

    async def until_state(self, server: str, state: str) -> None:
        """Wait until HAProxy thinks so; it tells nobody, so it is asked again and again."""
        async with asyncio.timeout(START):
            while await self.state(server) != state:
                assert self.runs, self.log
                await asyncio.sleep(0.02)


def executable(kind: str) -> str:
    """Where the program is; the test is skipped, with what to do, if there is none."""
    found = shutil.which(kind) or shutil.which(kind, path="/usr/sbin:/usr/local/sbin")
    if not found:
        pytest.skip(f"no {kind} here: install it, as in: sudo apt-get install {kind}")
    return found


@contextmanager
def held_port() -> Iterator[int]:
    """A port that nobody listens on, and that only who asks for it by number can get.

    Linux lets two sockets have it that both ask for this, while none listens; elsewhere it is only
    free when this begins.
    """
    with bound_socket("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        if sys.platform == "linux":
            yield port
            return
    yield port


@asynccontextmanager
async def balancing(kind: str, ports: Sequence[int]) -> AsyncIterator[Front]:
    """A balancer with deploy/'s configuration and other addresses.

    It knows of three servers: the last of fewer stands for the rest, too.
    """
    program = executable(kind)
    with tempfile.TemporaryDirectory(prefix="wsdemo-") as folder, ExitStack() as stack:
        port = stack.enter_context(held_port())
        front = Front(kind, port, Path(folder))
        servers = [f"127.0.0.1:{port}" for port in (*ports, *[ports[-1]] * (3 - len(ports)))]
        start = _haproxy if kind == "haproxy" else _nginx
        arguments, environment = start(front, servers)
        with (front.folder / "log").open("wb") as log:
            front.process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            await front.until_it_answers()
            yield front
            assert front.runs, front.log
        finally:
            await end(front.process)


def _haproxy(front: Front, servers: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Its arguments and its environment."""
    environment = {f"SERVER_{name}": at for name, at in zip(NAMES, servers, strict=True)}
    environment["HAPROXY_BIND"] = f"127.0.0.1:{front.port}"
    environment["HAPROXY_SOCKET"] = str(front.folder / "socket")
    return ["-db", "-f", str(DEPLOY / "haproxy.cfg")], environment


def _nginx(front: Front, servers: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    text = replaced(
        text_of("nginx.conf"),
        {
            "listen 8080;": f"listen 127.0.0.1:{front.port};",
            **{
                f"server {name.lower()}:8001 ": f"server {at} "
                for name, at in zip(NAMES, servers, strict=True)
            },
        },
    )
    path = front.folder / "nginx.conf"
    path.write_text(text, encoding="utf-8")
    return ["-p", f"{front.folder}/", "-c", str(path), "-e", "stderr", "-g", "daemon off;"], {}


def replaced(text: str, swaps: dict[str, str]) -> str:
    """The text with each of these exchanged; each must be in it, once."""
    for old, new in swaps.items():
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in it"
        text = text.replace(old, new)
    return text


async def end(process: asyncio.subprocess.Process) -> None:
    """Let it end, with its workers, or else make it."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await within(process.wait())
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise


@asynccontextmanager
async def playing(name: str, url: str) -> AsyncIterator[Player]:
    """A player, connected, who comes back by itself until the end of the block."""
    player = Player(name, url)
    await player.connect()
    try:
        yield player
    finally:
        await player.stop()


either = pytest.mark.parametrize("kind", ["haproxy", "nginx"])


@asynccontextmanager
async def one_server(kind: str) -> AsyncIterator[tuple[Front, GameServer]]:
    """A balancer, and a server behind it in this process."""
    async with game_server() as server, balancing(kind, [server.port]) as front:
        yield front, server


# Servers that come to an end


async def all_hear(players: Sequence[Player], body: str, speaker: Player) -> None:
    """Somebody says something; all have heard the same, up to that."""
    await speaker.send(body, confirm=True)
    await eventually(lambda: all(bodies(player.heard)[-1:] == [body] for player in players))
    assert all(bodies(player.heard) == bodies(players[0].heard) for player in players)


@either
async def test_players_outlive_their_servers(kind: str) -> None:
    """One server drains, then one is killed: all come back on the rest, and have missed nothing."""
    executable(kind)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(EmbeddedRedis())
        options = ["--redis", redis.url, "--broker", "stream", "--drain", "1"]
        servers = await asyncio.gather(
            *(stack.enter_async_context(serving("--name", name, *options)) for name in NAMES)
        )
        a, b, _ = servers
        front = await stack.enter_async_context(
            balancing(kind, [port_of(each) for each in servers])
        )

        watchers: dict[str, Client] = {}  # one on each server, in a game of their own
        for number in range(3):
            client = await stack.enter_async_context(dial(front.url))
            welcome = await client.ask("join", game="other", player=f"W{number}")
            watchers[welcome["server"]] = client
        players = [
            await stack.enter_async_context(playing(f"P{number}", front.url)) for number in range(6)
        ]
        assert set(watchers) == {player.server for player in players} == set(NAMES)
        await all_hear(players, "on three servers", players[0])

        a.process.send_signal(signal.SIGTERM)
        await a.read_until("draining")
        late = [
            await stack.enter_async_context(playing(f"L{number}", front.url)) for number in range(4)
        ]
        assert a.process.returncode is None, "it was to be still there when they came"
        assert "A" not in {player.server for player in late}
        assert {player.call for player in late} == {f"/?player=L{n}&call=1" for n in range(4)}, (
            "they had to call again"
        )
        speaker = next(player for player in players if player.server != "A")
        await speaker.send("while A drains", confirm=True)
        assert await watchers["A"].closed() == (1012, "server A is draining")
        assert await within(a.process.wait()) == 0
        await eventually(lambda: all(player.server in ("B", "C") for player in players))
        assert {player.server for player in players} == {"B", "C"}
        await all_hear(players, "on two servers", players[0])
        for name in "BC":
            await watchers[name].silence()  # it stays, and nobody has told it anything

        b.process.kill()
        await b.process.wait()
        await eventually(lambda: all(player.server == "C" for player in [*players, *late]))
        await watchers["C"].silence()
        late.append(await stack.enter_async_context(playing("L4", front.url)))
        await all_hear(players, "on one server", late[-1])
        assert bodies(players[0].heard) == [
            "on three servers",
            "while A drains",
            "on two servers",
            "on one server",
        ]
        assert not any(player.gaps for player in [*players, *late])
        if kind == "haproxy":
            await front.until_state("A", "DOWN")
            await front.until_state("B", "DOWN")
            assert await front.state("C") == "UP"


def port_of(server: Process) -> int:
    return int(server.url.rpartition(":")[2])


async def test_haproxy_sends_nobody_to_a_deaf_server_and_cuts_nobody_there() -> None:
    """Its Redis does not answer: it lives, its players stay, the next ones come to the other."""
    async with AsyncExitStack() as stack:
        servers, redises = [], []
        for name in "AB":
            redis = await stack.enter_async_context(FakeRedis())
            server = game_server(name, pubsub(redis, name), canary=Canary(every=0.02, bound=0.1))
            servers.append(await stack.enter_async_context(server))
            redises.append(redis)
        front = await stack.enter_async_context(
            balancing("haproxy", [server.port for server in servers])
        )
        there: dict[str, Client] = {}
        for number in range(2):
            client = await stack.enter_async_context(dial(front.url))
            there[(await client.ask("join", game="g", player=f"P{number}"))["server"]] = client
        assert set(there) == set("AB")
        redises[0].freeze()
        await front.until_state("A", "DOWN")
        for number in range(2, 4):
            client = await stack.enter_async_context(dial(front.url))
            assert (await client.ask("join", game="g", player=f"P{number}"))["server"] == "B"
        await there["A"].say("no-such-type")
        assert (await there["A"].hear())["code"] == "bad-message"  # who is there is still answered
        redises[0].thaw()
        await front.until_state("A", "UP")


async def test_haproxy_passes_a_frozen_server_over() -> None:
    """Its port takes calls and nothing answers; HAProxy gives up on it, and asks another."""
    async with (
        game_server("A") as a,
        game_server("B") as b,
        balancing("haproxy", [a.port, b.port]) as front,
    ):
        a.freeze()
        for number in range(2):  # of two calls, one would be A's
            async with dial(front.url) as client:
                welcome = await client.ask("join", game="g", player=f"P{number}")
                assert welcome["server"] == "B"
        a.thaw()


# Who gets through


@either
@pytest.mark.parametrize("headers", [{}, UPGRADE], ids=["asked for", "as an upgrade"])
async def test_what_is_for_operators_cannot_be_had_through_it(
    kind: str, headers: dict[str, str]
) -> None:
    """Neither as it is nor spelled in another way; the server itself gives it."""
    async with one_server(kind) as (front, server):
        for path in ("metrics", "healthz", "readyz"):
            for spelled in (
                f"/{path}",
                f"/{path}?player=P1",
                f"/{path}/",
                f"//{path}",
                f"/./{path}",
                f"/x/../{path}",
                f"/%{ord(path[0]):x}{path[1:]}",
                f"/{path.upper()}",
                f"http://127.0.0.1:{server.port}/{path}",
                f"/?/../{path}" if not headers else f"/{path}#/",
            ):
                status, text = await front.get(spelled, headers)
                assert status in (400, 404, 426), (spelled, status)
                assert not re.search(r"wsdemo_|^(alive|ready)$", text, re.MULTILINE), (
                    spelled,
                    text,
                )
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: wsdemo\r\n\r\n")
        assert b"wsdemo_players" in await within(reader.read())
        writer.close()
        await writer.wait_closed()


@either
async def test_who_is_no_player_is_told_what_to_ask_for(kind: str) -> None:
    """A browser that opens the address gets 426, from the balancer; an upgrade gets its 101."""
    async with one_server(kind) as (front, server):
        server.freeze()  # who is no player is no matter for it
        status, head = await front.get("/?player=P1")
        server.thaw()
        assert status == 426
        assert "upgrade: websocket" in head
        status, head = await front.get("/?player=P1", UPGRADE)
        assert status == 101
        assert "s3pplmbitxaq9kygzzhzrbk+xoo=" in head


@either
async def test_a_server_learns_where_a_client_is_from_the_balancer_alone(kind: str) -> None:
    """What the client itself claims is thrown away; its query and its origin are passed on."""
    asked = []

    async def record(connection: ServerConnection) -> None:
        asked.append(connection.request)

    def be_ready(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(HTTPStatus.OK, "") if request.path == "/readyz" else None

    async with serve(record, "127.0.0.1", 0, process_request=be_ready) as server:
        port = server.sockets[0].getsockname()[1]
        async with (
            balancing(kind, [port]) as front,
            connect(
                f"{front.url}/?player=P1&call=2",
                origin=Origin("http://localhost:3000"),
                additional_headers={"X-Forwarded-For": "192.0.2.1", "X-Other": "kept"},
                proxy=None,
            ) as connection,
        ):
            await within(connection.wait_closed())
    [request] = asked
    assert request is not None
    assert request.path == "/?player=P1&call=2"
    assert request.headers.get_all("X-Forwarded-For") == ["127.0.0.1"]
    assert request.headers["X-Other"] == "kept"
    assert request.headers["Origin"] == "http://localhost:3000"


@either
async def test_one_source_cannot_have_all_connections(kind: str) -> None:
    """It has 60; for one more it gets 429, until one of them has gone."""
    async with one_server(kind) as (front, server), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(dial(front.url)) for _ in range(60)]
        assert len(server.calls) == 1  # all call with the same words
        with pytest.raises(InvalidStatus) as refused:
            await within(connect(front.url, proxy=None).__aenter__())
        assert refused.value.response.status_code == 429
        await clients[0].connection.close()
        await eventually(lambda: connections(server) == 59)
        async with dial(front.url) as client:
            await client.join("P1")


def connections(server: GameServer) -> int:
    return len(server._visits)


@either
async def test_one_source_cannot_call_without_end(kind: str) -> None:
    """After some 100 calls it gets 429, while another source is served."""
    async with one_server(kind) as (front, _):
        statuses: list[int] = []
        while len(statuses) < 1000 and 429 not in statuses:  # some ten a second are forgiven
            statuses.append((await front.get("/", UPGRADE))[0])
        assert set(statuses[:95]) == {101}
        assert statuses[-1] == 429
        assert statuses == sorted(statuses)
        if sys.platform == "linux":  # elsewhere this machine has no other address
            assert (await front.get("/", UPGRADE, source="127.0.0.2"))[0] == 101


def test_a_quiet_player_is_not_cut_off() -> None:
    """The balancers wait for longer than a server does that pings and gets no answer."""
    keeping = inspect.signature(serve).parameters
    patience = keeping["ping_interval"].default + keeping["ping_timeout"].default
    for file, setting in (
        ("haproxy.cfg", r"^ +timeout tunnel (\d+)s$"),
        ("nginx.conf", r"^ +proxy_read_timeout (\d+)s;$"),
        ("nginx.conf", r"^ +proxy_send_timeout (\d+)s;$"),
    ):
        [seconds] = re.findall(setting, text_of(file), re.MULTILINE)
        assert patience < int(seconds) < 2 * patience


# compose.yaml and the image, without Docker


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content = yaml.safe_load(text_of("compose.yaml"))
    assert isinstance(content, dict)
    return content


@pytest.fixture(scope="module")
def servers(compose: dict[str, Any]) -> dict[str, Any]:
    """The services that are game servers."""
    return {name: service for name, service in compose["services"].items() if "build" in service}


def command_of(service: dict[str, Any]) -> list[str]:
    """What is run in its container, after the image's own `python -m wsdemo`."""
    dockerfile = text_of("Dockerfile")
    [own] = re.findall(r"^ENTRYPOINT (.+)$", dockerfile, re.M)
    assert service["entrypoint"][:3] == json.loads(own)
    return [*service["entrypoint"][3:], *service["command"]]


def asked_of(service: dict[str, Any]) -> argparse.Namespace:
    """The same, as the command line understands it."""
    return _parser().parse_args(command_of(service))


def test_compose_yaml_is_as_its_schema_says(compose: dict[str, Any]) -> None:
    """No setting is misspelled, or of another kind than it is to be."""
    schemas = resources.files("check_jsonschema.builtin_schemas.vendor")
    schema = json.loads((schemas / "compose-spec.json").read_text(encoding="utf-8"))
    jsonschema.validate(compose, schema)
    compose["services"]["a"]["stop_grace_perio"] = "1s"
    with pytest.raises(jsonschema.ValidationError, match="stop_grace_perio"):
        jsonschema.validate(compose, schema)
    del compose["services"]["a"]["stop_grace_perio"]


def test_its_servers_are_what_the_command_line_takes(servers: dict[str, Any]) -> None:
    """Each by its own name, all with one secret, and each has the time that it wants to drain."""
    for name, service in servers.items():
        asked = asked_of(service)
        assert asked.name == name.upper()
        assert asked.host == "0.0.0.0"  # in a container, 127.0.0.1 is the container itself
        assert service["environment"]["WSDEMO_REDIS"] == "redis://redis:6379"
        assert not asked.redis  # or it would not be that one
        grace = re.fullmatch(r"(\d+)s", service["stop_grace_period"])
        assert grace
        assert int(grace[1]) > asked.drain + 10
        assert service["environment"] == servers["a"]["environment"]
        assert service["environment"]["WSDEMO_JOIN_SECRET"].startswith("${WSDEMO_JOIN_SECRET:?")
    assert set(servers) == set("abc")


def test_the_balancers_know_its_servers(compose: dict[str, Any], servers: dict[str, Any]) -> None:
    """By their names and ports; it gives each balancer the file that is here."""
    addresses = [f"{name}:{asked_of(service).port}" for name, service in servers.items()]
    haproxy, nginx = (text_of(file) for file in ("haproxy.cfg", "nginx.conf"))
    assert re.findall(r'^ +server [ABC] "\$\{SERVER_[ABC]-(\S+)\}"', haproxy, re.M) == addresses
    assert re.findall(r"^ +server (\S+) ", nginx, re.M) == addresses
    for name, listens in (
        ("haproxy", re.findall(r'^ +bind "\$\{HAPROXY_BIND-:(\d+)\}"', haproxy, re.M)),
        ("nginx", re.findall(r"^ +listen (\d+);", nginx, re.M)),
    ):
        service = compose["services"][name]
        [port] = service["ports"]
        assert [port.rpartition(":")[2]] == listens
        [volume] = service["volumes"]
        assert (DEPLOY / volume.split(":")[0]).is_file()
        assert set(service["depends_on"]) == set(servers)


def test_a_server_is_not_full_before_the_balancers_say_so(servers: dict[str, Any]) -> None:
    """A full one is not ready, and would be taken out; and a balancer has players wait."""
    haproxy, nginx = (text_of(file) for file in ("haproxy.cfg", "nginx.conf"))
    [most] = set(re.findall(r" maxconn (\d+) resolvers", haproxy))
    assert set(re.findall(r" max_conns=(\d+);", nginx)) == {most}
    for service in servers.values():
        assert int(most) < asked_of(service).max_connections


KIB = 1024
READ = 256 * KIB  # that asyncio takes from a socket in one go
FRAME = KIB // 2  # that a frame takes at most, beside what is in it
EVENT = 256  # bytes that an event has more than the message by which it came
CONNECTION = 20 * KIB
PROCESS = 64 * KIB**2


def test_all_clients_at_their_worst_fit_into_a_server_s_memory(servers: dict[str, Any]) -> None:
    """By the sum that is in compose.yaml, with what is set there and in the server itself."""
    text = text_of("compose.yaml")
    queue_length = inspect.signature(serve).parameters["max_queue"].default
    for service in servers.values():
        asked = asked_of(service)
        limits = Limits(**{each.name: getattr(asked, each.name) for each in fields(Limits)})
        buffers = (service["sysctls"][f"net.ipv4.tcp_{way}mem"] for way in "wr")
        summands = [
            limits.max_waiting * 5 // 4,
            (queue_length + 1) * limits.max_message + READ,
            sum(int(each.split()[-1]) for each in buffers),
            CONNECTION,
        ]
        assert re.findall(r"^  # +(\d+)   \S", text, re.M) == [f"{n // KIB}" for n in summands]
        waiting = sum(summands) * limits.max_sockets
        assert f"{sum(summands) // KIB:,} KiB, and {waiting / KIB**2:.0f} MiB" in text
        assert waiting + PROCESS < 0.9 * size(service["mem_limit"])
        # What the sum takes for granted:
        frames = 2 * BURST * limits.max_rate
        assert f"{frames:.0f} frames" in text
        assert frames * FRAME <= READ
        assert PAGE_SIZE + limits.max_message + EVENT <= limits.max_waiting, (
            "who comes back is cut off for what it has missed"
        )


def size(text: str) -> int:
    """Bytes, as Docker writes them."""
    power: int = KIB ** " kmg".index(text[-1])
    return int(text[:-1]) * power


def test_only_the_balancers_can_be_reached_and_from_this_machine_alone(
    compose: dict[str, Any],
) -> None:
    """Servers and Redis are on a network that goes nowhere, and everything has its bounds."""
    for name, service in compose["services"].items():
        is_balancer = name in ("haproxy", "nginx")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert ("ports" in service) == is_balancer
        assert service["networks"] == (["inside", "outside"] if is_balancer else ["inside"])
        assert {"mem_limit", "pids_limit", "cpus", "logging", "read_only"} <= set(service)
        assert service["logging"]["options"]["max-size"]
    assert compose["networks"]["inside"]["internal"]


async def test_redis_takes_what_it_is_told(compose: dict[str, Any]) -> None:
    """A real one starts with these options, and then has them."""
    _, *options = compose["services"]["redis"]["command"]
    with tempfile.TemporaryDirectory(prefix="wsdemo-") as folder, held_port() as port:
        command = [str(find_server_binary()), *options, "--port", str(port), "--dir", folder]
        command += ["--bind", "127.0.0.1"]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            assert process.stdout
            said = b""
            while b"Ready to accept connections" not in said:
                line = await within(process.stdout.readline())
                assert line, said
                said += line
            async with RemoteRedis(f"redis://127.0.0.1:{port}", "").client() as client:
                told = await client.config_get("maxmemory*", "append*")
        finally:
            process.terminate()
            await process.communicate()
    assert told["maxmemory"] == str(256 * 2**20)
    assert told["maxmemory-policy"] == "noeviction"
    assert (told["appendonly"], told["appendfsync"]) == ("yes", "everysec")


async def test_a_server_lives_on_what_the_image_has(servers: dict[str, Any]) -> None:
    """With no package but those of the image, and told what compose.yaml tells it, it is healthy.

    It lets in who brings a token, and nobody else.
    """
    wsdemo = [sys.executable, "-c", ABSENT.format(absent=absent_packages()) + RUN]
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(EmbeddedRedis())
        environment = {
            **os.environ,
            "WSDEMO_JOIN_SECRET": "correct horse battery staple",
            "WSDEMO_REDIS": redis.url,
        }
        elsewhere = {"--host": "127.0.0.1", "--port": "0", "--drain": "0"}
        command = told(command_of(servers["a"]), elsewhere)
        process = await asyncio.create_subprocess_exec(
            *wsdemo, *command, env=environment, stderr=asyncio.subprocess.PIPE
        )
        stack.push_async_callback(killed, process)
        server = Process(process)
        await server.read_until("ready")
        assert psutil.Process(process.pid).memory_info().rss < PROCESS
        kind, python, *check = servers["a"]["healthcheck"]["test"]
        assert (kind, python) == ("CMD", "python")
        check[-1] = replaced(check[-1], {":8001/": f":{port_of(server)}/"})
        assert await status_of(sys.executable, *check) == 0

        printing = await asyncio.create_subprocess_exec(
            *wsdemo,
            *("token", "--game", "g", "--player", "P1", "--seconds", "60"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )
        token, _ = await within(printing.communicate(), START)
        async with dial(server.url) as client:
            refused = await client.ask("join", game="g", player="P1")
            assert refused["code"] == "bad-token"
            welcome = await client.ask("join", game="g", player="P1", token=token.decode().strip())
            assert welcome["type"] == "welcome"

        assert await server.end() == 0
        assert await status_of(sys.executable, *check) == 1


RUN = "from wsdemo.cli import main; sys.exit(main(sys.argv[1:]))"


def told(command: Sequence[str], others: dict[str, str]) -> list[str]:
    """The command with other values of these options, each of which is in it."""
    command = list(command)
    for option, value in others.items():
        command[command.index(option) + 1] = value
    return command


async def status_of(*command: str) -> int:
    """The exit status of a command, which may complain."""
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    return await within(process.wait(), START)


async def killed(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()


# Has Python behave as if these were not installed.
ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"the image has no {{name}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def absent_packages() -> set[str]:
    """What can be imported here and not in the image."""
    there = set(locked(DEPLOY / "requirements.txt")) | {"wsdemo"}
    found = importlib.metadata.packages_distributions()
    return {name for name, origins in found.items() if not there & set(map(plain, origins))}


def locked(file: Path) -> dict[str, set[str]]:
    """The versions in it of each package, by its name; there may be some for an older Python."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([^#\s=]+)==(\S+)", file.read_text(encoding="utf-8"), re.M):
        versions.setdefault(plain(name), set()).add(version)
    return versions


def plain(name: str) -> str:
    """A distribution's name, of all its spellings the one by which it can be compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_image_has_the_locked_versions() -> None:
    """Those that learners and tests have."""
    here = locked(REPOSITORY / "requirements.txt")
    image = locked(DEPLOY / "requirements.txt")
    assert image
    assert image.items() <= here.items()
    assert not {"jupyterlab", "matplotlib", "fakeredis"} & set(image)


def test_the_image_is_made_of_what_is_here() -> None:
    """Each file that is copied is here, and not withheld from Docker."""
    dockerfile = text_of("Dockerfile")
    sources = {
        source
        for words in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.M)
        for source in words.split()
    }
    ignored = text_of("Dockerfile.dockerignore").splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == sources
    assert all((REPOSITORY / source).exists() for source in sources)
    assert {"pyproject.toml", "wsdemo", "deploy/requirements.txt"} <= sources
    [user] = re.findall(r"^USER (\d+):\d+$", dockerfile, re.M)
    assert int(user) > 0
