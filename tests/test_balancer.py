"""The balancer: its policies as functions, and the proxy between raw TCP ends."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import NO_LINGER, dial, eventually, game_server, recorded, tasks, within
from wsdemo import balancer as balancer_module
from wsdemo.balancer import (
    MAX_HEAD,
    POLICIES,
    Balancer,
    Target,
    least_connections,
    round_robin,
    sticky,
)
from wsdemo.trace import Trace

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

HEAD = b"GET /?player=P1 HTTP/1.1\r\nHost: x\r\n\r\n"


def targets(*names: str) -> list[Target]:
    """Servers that are only names."""
    return [Target(name, "127.0.0.1", 1) for name in names]


def calls_of(balancer: Balancer, player: str) -> list[str]:
    """The connections of one player that are open."""
    return [request for request in balancer.calls if f"player={player}" in request]


class TestPolicies:
    def test_round_robin_takes_each_in_turn(self) -> None:
        """Whoever calls, the next in line gets it."""
        policy = round_robin()
        abc = targets("A", "B", "C")
        assert [policy(abc, f"P{n}").name for n in range(7)] == list("ABCABCA")

    def test_round_robin_goes_on_with_those_that_are_left(self) -> None:
        """With fewer servers than before it still chooses one of them."""
        policy = round_robin()
        for n in range(5):
            policy(targets("A", "B", "C"), f"P{n}")
        assert {policy(targets("B"), "P1").name for _ in range(3)} == {"B"}

    def test_two_balancers_do_not_share_their_turn(self) -> None:
        """Each policy that is made counts for itself."""
        first, second = round_robin(), round_robin()
        first(targets("A", "B"), "P1")
        assert second(targets("A", "B"), "P1").name == "A"

    def test_least_connections_takes_the_emptiest(self) -> None:
        """The first of those with the fewest open connections."""
        policy = least_connections()
        abc = targets("A", "B", "C")
        assert policy(abc, "P1").name == "A"
        abc[0].connections, abc[1].connections, abc[2].connections = 3, 1, 1
        assert policy(abc, "P1").name == "B"

    def test_sticky_stays(self) -> None:
        """One client, one server, in whatever order the servers are listed, in every process."""
        for n in range(50):
            key = f"P{n}"
            choices = {sticky()(targets(*order), key).name for order in ("ABC", "CBA", "BAC")}
            assert len(choices) == 1

    def test_sticky_spreads(self) -> None:
        """No server gets them all."""
        policy = sticky()
        shares = Counter(policy(targets("A", "B", "C"), f"P{n}").name for n in range(300))
        assert min(shares[name] for name in "ABC") > 50

    def test_sticky_moves_only_those_whose_server_is_out(self) -> None:
        """The others stay where they are, and all come back when the server does."""
        policy = sticky()
        keys = [f"P{n}" for n in range(100)]
        before = {key: policy(targets("A", "B", "C"), key).name for key in keys}
        without_b = {key: policy(targets("A", "C"), key).name for key in keys}
        assert {key for key in keys if without_b[key] != before[key]} == {
            key for key in keys if before[key] == "B"
        }
        assert {key: policy(targets("A", "B", "C"), key).name for key in keys} == before

    def test_all_are_listed(self) -> None:
        """The names that `open_cluster(balance=...)` takes."""
        assert set(POLICIES) == {"round-robin", "least-connections", "sticky"}


# The proxy


@asynccontextmanager
async def backend(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    port: int = 0,
) -> AsyncIterator[int]:
    """A TCP server behind the balancer; gives its port."""
    running: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await within(asyncio.gather(*running, return_exceptions=True))


def says(name: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A server that says its name, then what it has been told, until the other side ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(name)
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    return serve


async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that never ends what it says."""
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


def slam(writer: asyncio.StreamWriter) -> None:
    """Reset the connection."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    writer.transport.abort()


async def until_the_end(reader: asyncio.StreamReader) -> bytes:
    """What arrives before the connection ends, with or without a goodbye."""
    try:
        return await within(reader.read())
    except ConnectionError:
        return b""


@asynccontextmanager
async def call(balancer: Balancer, head: bytes = HEAD) -> AsyncIterator[Streams]:
    """A TCP connection to the balancer that has sent the head of a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
    try:
        writer.write(head)
        yield reader, writer
    finally:
        writer.transport.abort()


async def who_answers(balancer: Balancer, player: str = "P1") -> str:
    """The name of the server that a new connection of the player gets to, once it has ended."""
    async with call(balancer, HEAD.replace(b"P1", player.encode())) as (reader, writer):
        name = (await within(reader.readexactly(1))).decode()
        writer.write_eof()
        await within(reader.read())
    await within(balancer.until(lambda: not calls_of(balancer, player)))
    return name


@pytest.fixture
async def balancer() -> AsyncIterator[Balancer]:
    """A round-robin balancer with a trace."""
    async with Balancer(round_robin(), trace=Trace()) as balancer:
        yield balancer


class TestRouting:
    async def test_the_policy_decides(self, balancer: Balancer) -> None:
        """Each connection in turn, and the trace says whose it was and where it went."""
        async with backend(says(b"A")) as a, backend(says(b"B")) as b:
            balancer.add("A", "127.0.0.1", a)
            balancer.add("B", "127.0.0.1", b)
            assert [await who_answers(balancer, p) for p in ("P1", "P2", "P3")] == ["A", "B", "A"]
        assert balancer._trace is not None
        assert [(r.at, r.peer, r.data) for r in balancer._trace.select("route")] == [
            ("balancer", "A", {"player": "P1"}),
            ("balancer", "B", {"player": "P2"}),
            ("balancer", "A", {"player": "P3"}),
        ]

    async def test_the_next_one_goes_to_the_server_that_was_asked_for(
        self, balancer: Balancer
    ) -> None:
        """Once, and only the connection that opens with that request."""
        async with backend(says(b"A")) as a, backend(says(b"B")) as b:
            balancer.add("A", "127.0.0.1", a)
            balancer.add("B", "127.0.0.1", b)
            balancer.send("/?player=P1", "B")
            assert await who_answers(balancer, "P2") == "A"
            assert await who_answers(balancer, "P1") == "B"
            assert await who_answers(balancer, "P1") == "B"  # whose turn it is now
            assert await who_answers(balancer, "P1") == "A"

    async def test_who_is_not_ready_gets_nobody_unless_nobody_is(self, balancer: Balancer) -> None:
        """A server that cannot hear the others is out, while there is one that can."""
        async with backend(says(b"A")) as a, backend(says(b"B")) as b:
            balancer.add("A", "127.0.0.1", a)
            balancer.add("B", "127.0.0.1", b)
            balancer.set_ready("A", False)
            assert [await who_answers(balancer, p) for p in ("P1", "P2")] == ["B", "B"]
            balancer.set_ready("B", False)
            assert {await who_answers(balancer, p) for p in ("P1", "P2")} == {"A", "B"}
            balancer.set_ready("A", True)
            assert [await who_answers(balancer, p) for p in ("P1", "P2")] == ["A", "A"]

    async def test_a_name_is_read_as_it_was_written(self, balancer: Balancer) -> None:
        """Percent-encoding and other scripts name the same player; no name is no player."""
        trace = balancer._trace
        assert trace is not None
        async with backend(says(b"A")) as a:
            balancer.add("A", "127.0.0.1", a)
            heads = {
                b"GET /?player=Zo%C3%AB%20x HTTP/1.1": "Zoë x",
                b"GET /?a=1&player=P%2B1 HTTP/1.1": "P+1",
                b"GET / HTTP/1.1": "",
                b"GET /?player= HTTP/1.1": "",
            }
            for number, (head, player) in enumerate(heads.items(), start=1):
                async with call(balancer, head + b"\r\n\r\n") as (reader, _):
                    assert await within(reader.readexactly(1)) == b"A"
                [*_, route] = await recorded(trace, "route", times=number)
                assert route.data["player"] == player

    async def test_least_connections_counts_those_that_are_open(self) -> None:
        """A connection that has ended, cleanly or not, does not count any more."""
        async with (
            backend(says(b"A")) as a,
            backend(says(b"B")) as b,
            Balancer(least_connections()) as balancer,
        ):
            balancer.add("A", "127.0.0.1", a)
            balancer.add("B", "127.0.0.1", b)
            assert [await who_answers(balancer) for _ in range(3)] == ["A", "A", "A"]
            async with call(balancer, HEAD.replace(b"P1", b"P2")) as (reader, writer):
                assert await within(reader.readexactly(1)) == b"A"
                assert [await who_answers(balancer) for _ in range(3)] == ["B", "B", "B"]
                slam(writer)
                await within(balancer.until(lambda: not calls_of(balancer, "P2")))
            assert {t.connections for t in balancer.targets.values()} == {0}
            assert await who_answers(balancer) == "A"

    async def test_sticky_clients_move_only_while_their_server_is_out(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They come back with it, each to the server it had."""
        monkeypatch.setattr(balancer_module, "SECONDS_OUT", 0.5)
        players = [f"P{n}" for n in range(12)]
        async with Balancer(sticky()) as balancer, backend(says(b"A")) as a:
            balancer.add("A", "127.0.0.1", a)
            async with backend(says(b"B")) as b:
                balancer.add("B", "127.0.0.1", b)
                home = {player: await who_answers(balancer, player) for player in players}
                assert set(home.values()) == {"A", "B"}
                assert {p: await who_answers(balancer, p) for p in players} == home
            assert {await who_answers(balancer, player) for player in players} == {"A"}
            async with backend(says(b"B"), b):
                async with asyncio.timeout(5):
                    while {p: await who_answers(balancer, p) for p in players} != home:
                        pass

    async def test_clients_without_a_name_stick_by_their_address(self) -> None:
        """Which is one and the same for all that call from this machine."""
        async with (
            backend(says(b"A")) as a,
            backend(says(b"B")) as b,
            Balancer(sticky()) as balancer,
        ):
            balancer.add("A", "127.0.0.1", a)
            balancer.add("B", "127.0.0.1", b)
            assert len({await who_answers(balancer, "") for _ in range(6)}) == 1


class TestServersThatAreDown:
    async def test_one_is_taken_out_of_rotation_and_comes_back(
        self, balancer: Balancer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is tried once, then left alone for a while; nobody is turned away meanwhile."""
        monkeypatch.setattr(balancer_module, "SECONDS_OUT", 0.5)
        trace = balancer._trace
        assert trace is not None
        async with backend(says(b"A")) as a:
            balancer.add("A", "127.0.0.1", a)
            async with backend(says(b"B")) as b:
                balancer.add("B", "127.0.0.1", b)
            assert [await who_answers(balancer) for _ in range(4)] == ["A"] * 4
            [fault] = trace.select("fault")
            assert (fault.at, fault.peer) == ("balancer", "B")
            assert fault.data["reason"]
            async with backend(says(b"B"), b), asyncio.timeout(5):
                while await who_answers(balancer) != "B":
                    pass

    async def test_one_that_is_asked_for_gives_way_to_another(self, balancer: Balancer) -> None:
        """The player gets to a server that is there."""
        async with backend(says(b"A")) as a:
            balancer.add("A", "127.0.0.1", a)
            async with backend(says(b"B")) as b:
                balancer.add("B", "127.0.0.1", b)
            balancer.send("/?player=P1", "B")
            assert await who_answers(balancer) == "A"
            balancer.send("/?player=P1", "nowhere")
            assert await who_answers(balancer) == "A"

    async def test_all_of_them_is_a_503(self, balancer: Balancer) -> None:
        """The client gets an answer that HTTP has for this."""
        for names in ((), ("A", "B")):
            for name in names:
                async with backend(says(b"")) as port:
                    balancer.add(name, "127.0.0.1", port)
            with pytest.raises(InvalidStatus) as refused:
                async with dial(balancer.url):
                    pass
            assert refused.value.response.status_code == 503

    async def test_one_that_was_removed_gets_nobody_new(self, balancer: Balancer) -> None:
        """But keeps the connections that it has."""
        async with backend(says(b"A")) as a, backend(says(b"B")) as b:
            balancer.add("A", "127.0.0.1", a)
            balancer.add("B", "127.0.0.1", b)
            async with call(balancer) as (reader, writer):
                assert await within(reader.readexactly(1)) == b"A"
                balancer.remove("A")
                assert [await who_answers(balancer, "P2") for _ in range(3)] == ["B"] * 3
                writer.write(b"still here")
                assert await within(reader.readexactly(10)) == b"still here"


class TestBadHeads:
    @pytest.mark.parametrize(
        "head",
        [b"x" * (MAX_HEAD * 3), b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * MAX_HEAD],
        ids=["no line ends", "endless lines"],
    )
    async def test_an_endless_one_is_cut_off(self, balancer: Balancer, head: bytes) -> None:
        """After MAX_HEAD bytes the connection is gone, and no server has heard of it."""
        async with backend(says(b"A")) as a:
            balancer.add("A", "127.0.0.1", a)
            async with call(balancer, head) as (reader, _):
                assert await until_the_end(reader) == b""
        assert balancer._trace is not None
        assert not balancer._trace.select("route")

    async def test_one_that_does_not_come_is_cut_off(
        self, balancer: Balancer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody may hold a connection open by saying nothing."""
        monkeypatch.setattr(balancer_module, "SECONDS_FOR_HEAD", 0.05)
        async with call(balancer, b"GET / HT") as (reader, _):
            assert await within(reader.read()) == b""

    @pytest.mark.parametrize(
        "head",
        [
            b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET //[ HTTP/1.1\r\n\r\n",
            b"GET http://[::1 HTTP/1.1\r\n\r\n",
            b"GET /?player=%ff%fe HTTP/1.1\r\n\r\n",
            b"GET /?player=\xff HTTP/1.1\r\n\r\n",
            b"GET /?" + b"&" * 4000 + b" HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\r\n\r\n",
        ],
    )
    async def test_nonsense_raises_nothing(self, balancer: Balancer, head: bytes) -> None:
        """It is passed on, or ended; the next client is served."""
        async with backend(says(b"A")) as a:
            balancer.add("A", "127.0.0.1", a)
            async with call(balancer, head) as (reader, writer):
                writer.write_eof()
                await within(reader.read())
            assert await who_answers(balancer, "P2") == "A"


class TestCopying:
    async def test_bytes_arrive_unchanged_both_ways(self, balancer: Balancer) -> None:
        """Also those that came in one piece with the head, and after one side has ended its own."""
        data = bytes(range(256)) * 4096
        async with backend(says(b"A")) as a:
            balancer.add("A", "127.0.0.1", a)
            async with call(balancer, HEAD + b"early") as (reader, writer):
                assert await within(reader.readexactly(6)) == b"Aearly"
                writer.write(data)
                writer.write_eof()
                assert await within(reader.read()) == data

    async def test_an_abort_by_the_client_reaches_the_server(self) -> None:
        """The server sees a connection that broke, not a player who said goodbye."""
        trace = Trace()
        async with game_server(trace=trace) as server, Balancer(round_robin()) as balancer:
            balancer.add("A", "127.0.0.1", server.port)
            async with dial(balancer.url) as client:
                await client.join("P1")
                client.slam()
                [gone] = await recorded(trace, "disconnect")
            assert gone.data["code"] == 1006

    async def test_an_abort_by_the_server_reaches_the_client(self) -> None:
        """The client sees a connection that broke, without a close code."""
        async with game_server() as server, Balancer(round_robin()) as balancer:
            balancer.add("A", "127.0.0.1", server.port)
            async with dial(balancer.url) as client:
                await client.join("P1")
                server._games["g"].players["P1"].transport.abort()
                assert await client.closed() == (None, "")

    async def test_a_reset_while_the_other_side_does_not_read(self, balancer: Balancer) -> None:
        """Both directions fail in the same moment, and neither failure is left unlooked at."""
        async with backend(flood) as a:
            balancer.add("A", "127.0.0.1", a)
            async with call(balancer) as (reader, writer):
                await within(reader.readexactly(1))
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                await _filled()
                slam(writer)
                await within(balancer.until(lambda: not calls_of(balancer, "P1")))

    async def test_back_pressure_passes_through(self, balancer: Balancer) -> None:
        """A server that sends without end is held up by a client that does not read."""
        sent = 0

        async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            while sent < 256 * 2**20:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536

        async with backend(count) as a:
            balancer.add("A", "127.0.0.1", a)
            async with call(balancer) as (reader, writer):
                await within(reader.readexactly(1))
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                await _filled()
                assert sent < 64 * 2**20
                before = sent
                for _ in range(100):
                    await asyncio.sleep(0)
                assert sent == before
                writer.transport.resume_reading()  # type: ignore[attr-defined]
                await within(reader.readexactly(before))


class TestLifetime:
    async def test_stop_cuts_what_is_connected(self) -> None:
        """Whether it has said who it is or not; both sides notice, and no trouble is reported."""
        async with backend(says(b"A")) as a:
            balancer = Balancer(round_robin())
            await balancer.start()
            balancer.add("A", "127.0.0.1", a)
            async with call(balancer) as (first, _), call(balancer, b"GET /") as (second, _):
                await within(first.readexactly(1))
                await eventually(lambda: len(balancer._calls) == 2)
                await within(balancer.stop())
                for reader in (first, second):
                    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                        await within(reader.readexactly(1))

    @pytest.mark.parametrize("turns", range(6))
    async def test_stop_does_not_overlook_one_that_just_calls(self, turns: int) -> None:
        """However short before the stop a client connects, nothing of it stays behind."""
        balancer = Balancer(round_robin())
        await balancer.start()
        before = tasks()
        with socket.create_connection(("127.0.0.1", balancer.port)):
            for _ in range(turns):
                await asyncio.sleep(0)
            await balancer.stop()
            for _ in range(5):
                await asyncio.sleep(0)
            assert not tasks() - before
        with warnings.catch_warnings():  # asyncio itself may drop one it has not announced yet
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    async def test_a_taken_port_is_an_error(self, balancer: Balancer) -> None:
        """`start` raises `OSError`, and `stop` has nothing to do then."""
        second = Balancer(round_robin(), port=balancer.port)
        with pytest.raises(OSError, match="in use"):
            await second.start()
        await second.stop()

    async def test_a_call_leaves_no_task(self, balancer: Balancer) -> None:
        """A connection that has ended is gone, with all that carried it."""
        async with backend(says(b"A")) as a:
            balancer.add("A", "127.0.0.1", a)
            before = tasks()
            for _ in range(3):
                await who_answers(balancer)
            await eventually(lambda: not tasks() - before)


async def _filled() -> None:
    """Wait until the calls through the balancer have come to a standstill: all buffers full."""
    still, last = 0, -1
    while still < 20:
        size = sum(writer.transport.get_write_buffer_size() for writer in _writers())
        still, last = (still + 1, size) if size == last and size > 0 else (0, size)
        await asyncio.sleep(0.001)


def _writers() -> list[asyncio.StreamWriter]:
    """Where the balancer's copies write to."""
    coroutines: list[Any] = [task.get_coro() for task in asyncio.all_tasks()]
    return [c.cr_frame.f_locals["writer"] for c in coroutines if c.__name__ == "_copy"]


async def test_a_port_can_be_kept_for_the_next_one() -> None:
    """Between the two nobody else can take it, and whoever calls is refused."""
    one = Balancer(round_robin())
    await one.start()
    one.keeps_port = True
    await one.stop()
    assert one.kept_port
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", one.port)
    with pytest.raises(OSError, match="in use"), socket.socket() as thief:
        thief.bind(("127.0.0.1", one.port))
    async with Balancer(round_robin(), listener=one.kept_port) as other:
        assert other.port == one.port
        _, writer = await asyncio.open_connection("127.0.0.1", other.port)
        writer.close()
        await writer.wait_closed()
