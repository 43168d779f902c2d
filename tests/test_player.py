"""The player: what it hears, and how it comes back."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.conftest import PATIENCE, bodies, eventually, game_server, recorded, tasks, within
from wsdemo import player as player_module
from wsdemo.player import JoinRefused, NotConnected, Player, full_jitter
from wsdemo.server import GameServer
from wsdemo.trace import Trace

WELCOME = '{"type":"welcome","server":"A","game":"g"}'


@asynccontextmanager
async def playing(name: str, url: str, trace: Trace | None = None) -> AsyncIterator[Player]:
    """A player that has joined."""
    player = Player(name, url, trace=trace)
    try:
        await within(player.connect())
        yield player
    finally:
        await within(player.stop())


@pytest.fixture
async def server() -> AsyncIterator[GameServer]:
    """A server without a broker."""
    async with game_server() as server:
        yield server


class TestBackOff:
    def test_delays_stay_below_a_bound_that_doubles(self) -> None:
        """Full jitter: each is drawn between nothing and the bound of its attempt."""
        for _ in range(200):
            for attempt, delay in enumerate(itertools.islice(full_jitter(0.1, 3.0), 12)):
                assert 0 <= delay <= min(3.0, 0.1 * 2**attempt)

    def test_delays_fill_the_whole_range(self) -> None:
        """They are spread from nothing to the bound, evenly, or players come back in step."""
        random.seed(1)
        drawn = [next(itertools.islice(full_jitter(1.0, 8.0), 2, 3)) for _ in range(2000)]
        assert min(drawn) < 0.1
        assert max(drawn) > 3.9
        assert 1.8 < sum(drawn) / len(drawn) < 2.2

    def test_it_never_ends(self) -> None:
        """However long a server is away, there is a next attempt, and no overflow."""
        delays = full_jitter()
        assert all(0 <= next(delays) <= 2.0 for _ in range(5000))


class TestPlaying:
    async def test_it_hears_everyone_and_itself_in_order(self, server: GameServer) -> None:
        """`heard` is the game as the server tells it, one's own events included."""
        async with playing("P1", server.url) as p1, playing("P2", server.url) as p2:
            for number in range(10):
                await p1.send(f"a{number}")
                await p2.send(f"b{number}")
            await p1.sync()
            await p2.sync()
            await p1.sync()
            assert p1.heard == p2.heard
            assert [b for b in bodies(p1.heard) if b[0] == "a"] == [f"a{n}" for n in range(10)]
            assert len(p1.heard) == 20

    async def test_the_ids_of_its_events(self, server: GameServer) -> None:
        """Name and number: the same in every run, and never twice, also after a reconnect."""
        async with playing("P1", server.url) as p1:
            assert [await p1.send("x"), await p1.send("x")] == ["P1-1", "P1-2"]
            await p1.sync()
            await p1.reconnect()
            assert await p1.send("x") == "P1-3"
            await p1.sync()
            assert [event.id for event in p1.heard] == ["P1-1", "P1-2", "P1-3"]

    async def test_a_reconnect_is_another_connection(self, server: GameServer) -> None:
        """Of the same player, to the same server if that is where it gets."""
        trace = Trace()
        async with playing("P1", server.url, trace) as p1:
            for _ in range(5):
                await within(p1.reconnect())
            assert server.players("g") == ["P1"]
        assert len(trace.select("welcome")) == 6

    async def test_leaving(self, server: GameServer) -> None:
        """The server forgets the player, and the player does nothing any more."""
        async with playing("P1", server.url) as p1:
            await p1.leave()
            await within(server.until(lambda: not server.players("g")))
            assert (p1.left, p1.connected, p1.coming_back) == (True, False, False)
            with pytest.raises(RuntimeError, match="has left the game"):
                await p1.reconnect()

    async def test_renewed_it_is_as_at_the_beginning(self, server: GameServer) -> None:
        """The same player, for another run: nothing heard, and its events are counted from 1."""
        player = Player("P1", server.url)
        await within(player.connect())
        await player.send("x")
        await within(player.sync())
        heard = player.heard
        await within(player.disconnect())
        trace = Trace()
        player.renew(trace)
        assert (player.heard, len(heard), player.connected) == ([], 1, False)
        await within(player.connect())
        assert await player.send("y") == "P1-1"
        await within(player.sync())
        assert [event.body for event in player.heard] == ["y"]
        assert len(trace.select("hear")) == 1
        await within(player.stop())

    @pytest.mark.parametrize("name", ["<b>", "", "x" * 33, "a\nb"])
    def test_names_that_cannot_be(self, name: str) -> None:
        """The same rules as on the wire, before anything is sent."""
        with pytest.raises(ValueError, match="cannot be the name of a player"):
            Player(name, "ws://127.0.0.1:1")
        with pytest.raises(ValueError, match="cannot be the name of a game"):
            Player("P1", "ws://127.0.0.1:1", game=name)

    async def test_names_of_any_script(self, server: GameServer) -> None:
        """They pass through a URL and back."""
        for name in ("Zoë 1", "玩家", "a:b.c-d_e"):
            async with playing(name, server.url) as player:
                await player.send("x")
                await player.sync()
                assert player.heard[0].player == name


class TestMistakes:
    async def test_sending_while_disconnected(self, server: GameServer) -> None:
        """The error says what to do first; nothing is sent later behind one's back."""
        async with playing("P1", server.url) as p1:
            await p1.disconnect()
            for act in (lambda: p1.send("x"), p1.leave, p1.sync):
                with pytest.raises(NotConnected, match=r"P1 cannot .*`await p1\.reconnect\(\)`"):
                    await act()
            await p1.reconnect()
            await p1.sync()
            assert p1.heard == []

    async def test_connecting_twice(self, server: GameServer) -> None:
        """The error names the call that was meant."""
        async with playing("P1", server.url) as p1:
            with pytest.raises(RuntimeError, match=r"use reconnect\(\)"):
                await p1.connect()

    async def test_what_is_refused_was_not_asked(self, server: GameServer) -> None:
        """A trace has only what could be done: who plays it again does no more."""
        trace = Trace()
        async with playing("P1", server.url, trace) as p1:
            with pytest.raises(RuntimeError, match="connected already"):
                await p1.connect()
            with pytest.raises(RuntimeError, match="no balancer"):
                await p1.reconnect(server="B")
            assert [record.data["to"] for record in trace.select("asked")] == ["join"]
            await p1.reconnect()
            assert [record.data["to"] for record in trace.select("asked")] == ["join", "reconnect"]

    async def test_after_stop(self, server: GameServer) -> None:
        """Every call says that the run is over."""
        async with playing("P1", server.url) as p1:
            await p1.stop()
            await p1.stop()
            for act in (lambda: p1.send("x"), p1.leave, p1.connect, p1.reconnect, p1.sync):
                with pytest.raises(RuntimeError, match=r"stopped; open another"):
                    await act()

    async def test_a_join_that_is_refused(self, server: GameServer) -> None:
        """The error has the server's words; the next attempt is free to succeed."""
        before = tasks()
        async with playing("P1", server.url) as p1:
            second = Player("P1", server.url)
            with pytest.raises(JoinRefused, match="there is a P1 in the game already"):
                await within(second.connect())
            assert not second.connected
            await p1.leave()
            await within(server.until(lambda: not server.players("g")))
            await within(second.reconnect())
            assert second.connected
            await second.stop()
        await eventually(lambda: not tasks() - before)

    async def test_nobody_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """After JOIN_TIMEOUT the error says why, and the player does not go on trying."""
        monkeypatch.setattr(player_module, "JOIN_TIMEOUT", 0.1)
        before = tasks()
        async with game_server() as server:
            url = server.url
        player = Player("P1", url)
        with pytest.raises(NotConnected, match=r"P1 could not join within 0\.1 s"):
            await within(player.connect())
        assert not tasks() - before

    async def test_no_balancer_to_steer(self, server: GameServer) -> None:
        """A player without one cannot ask for a server."""
        async with playing("P1", server.url) as p1:
            with pytest.raises(RuntimeError, match="no balancer"):
                await p1.reconnect(server="B")
            assert p1.connected


class _Servers:
    """A WebSocket server that welcomes each player and then does something to the connection."""

    def __init__(self, end: Callable[[ServerConnection, int], object]) -> None:
        self.end = end
        self.connections = 0

    async def __call__(self, connection: ServerConnection) -> None:
        self.connections += 1
        await connection.recv()
        await connection.send(WELCOME)
        result = self.end(connection, self.connections)
        if asyncio.iscoroutine(result):
            await result
        await connection.wait_closed()


class TestComingBack:
    @pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 4000, None])
    async def test_after_every_kind_of_end(self, code: int | None) -> None:
        """A goodbye by the server, whatever its code, and a cut connection: it comes back."""

        def end(connection: ServerConnection, number: int) -> object:
            if number > 2:
                return None
            if code is not None:
                return connection.close(code)
            connection.transport.abort()
            return None

        trace, handler = Trace(), _Servers(end)
        async with serve(handler, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with playing("P1", f"ws://127.0.0.1:{port}", trace):
                await recorded(trace, "welcome", times=3)
        kinds = [record.kind for record in trace if record.kind != "asked"]
        assert kinds[:8] == ["connect", "welcome", "disconnect"] * 2 + ["connect", "welcome"]

    async def test_with_a_delay_each_time(self) -> None:
        """A server that closes at once gets as many connections as there were delays, not more."""
        delays: list[float] = []

        def backoff() -> Iterator[float]:
            for delay in itertools.chain([0.0] * 5, itertools.repeat(3600.0)):
                delays.append(delay)
                yield delay

        handler = _Servers(lambda connection, number: connection.close(1000))
        async with serve(handler, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            player = Player("P1", f"ws://127.0.0.1:{port}", backoff=backoff)
            await within(player.connect())
            await eventually(lambda: len(delays) == 6)
            for _ in range(50):
                await asyncio.sleep(0)
            assert (handler.connections, len(delays)) == (6, 6)
            await within(player.stop())

    async def test_the_back_off_goes_on_through_short_connections(self) -> None:
        """A connection that was accepted and dropped does not start it from the beginning."""
        started = 0

        def backoff() -> Iterator[float]:
            nonlocal started
            started += 1
            return itertools.repeat(0.0)

        handler = _Servers(lambda connection, number: connection.close(1001))
        async with serve(handler, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            player = Player("P1", f"ws://127.0.0.1:{port}", backoff=backoff)
            await within(player.connect())
            await eventually(lambda: handler.connections > 10)
            await within(player.stop())
        assert started == 1

    async def test_the_back_off_starts_anew_after_a_stable_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who has been connected for a while is not punished for what was before."""
        monkeypatch.setattr(player_module, "STABLE", -1.0)
        started = 0

        def backoff() -> Iterator[float]:
            nonlocal started
            started += 1
            return itertools.repeat(0.0)

        handler = _Servers(lambda connection, number: connection.close(1001))
        async with serve(handler, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            player = Player("P1", f"ws://127.0.0.1:{port}", backoff=backoff)
            await within(player.connect())
            await eventually(lambda: handler.connections > 3)
            await within(player.stop())
        assert started > 2

    async def test_to_a_server_that_was_away(self) -> None:
        """It tries until the server is there again, and plays on."""
        trace = Trace()
        async with game_server() as server:
            port = server.port
            player = Player("P1", server.url, trace=trace)
            await within(player.connect())
        await recorded(trace, "connect", times=3)
        async with game_server(port=port):
            await within(player.welcomed())
            await player.send("x")
            await player.sync()
            assert bodies(player.heard) == ["x"]
            await within(player.stop())

    async def test_a_name_that_the_server_still_holds(self, server: GameServer) -> None:
        """Who has been welcomed before is patient with a server that has not noticed yet."""
        trace = Trace()
        async with playing("P1", server.url, trace) as p1:
            server._games["g"].arriving.add("P1")
            server._games["g"].players["P1"].transport.abort()
            await eventually(lambda: len(p1.errors) >= 2)
            assert {error.code for error in p1.errors} == {"name-taken"}
            server._games["g"].arriving.discard("P1")
            await within(p1.welcomed())
            assert server.players("g") == ["P1"]

    async def test_a_sync_that_was_under_way_fails(self) -> None:
        """Nobody waits for an answer that cannot come any more."""

        async def drop_at_sync(connection: ServerConnection, number: int) -> None:
            await connection.recv()
            connection.transport.abort()

        async with serve(_Servers(drop_at_sync), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with playing("P1", f"ws://127.0.0.1:{port}") as p1:
                with pytest.raises(NotConnected, match="P1 lost its connection"):
                    await within(p1.sync())

    async def test_disconnect_means_stay_away(self, server: GameServer) -> None:
        """Also in the middle of coming back."""
        async with playing("P1", server.url) as p1:
            await server.stop()
            await eventually(lambda: not p1.connected)
            assert p1.coming_back
            await within(p1.disconnect())
            assert not p1.coming_back
            with pytest.raises(NotConnected, match="reconnect"):
                await within(p1.welcomed())

    async def test_a_server_that_talks_nonsense(self) -> None:
        """It is told as an error to whoever waits, and nothing is left running."""

        async def nonsense(connection: ServerConnection) -> None:
            await connection.recv()
            await connection.send("nonsense")
            await connection.wait_closed()

        before = tasks()
        async with serve(nonsense, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            player = Player("P1", f"ws://127.0.0.1:{port}")
            with pytest.raises((ValueError, ConnectionError)):
                await within(player.connect(), 2 * PATIENCE)
            await within(player.stop())
        await eventually(lambda: not tasks() - before)
