"""Polling: a server that keeps what is said, and a client that asks for it again and again."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.conftest import NO_LINGER, cancelled_after, eventually, more, tasks, within
from wsdemo.experiments import polling
from wsdemo.experiments.polling import PollingServer, poll
from wsdemo.tap import Tap


class Asker:
    """An HTTP client with one connection, which writes whatever it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, path: str, method: str = "GET") -> tuple[str, bytes]:
        """The first line of the answer, and its body."""
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))
        head = (await within(self.reader.readuntil(b"\r\n\r\n"))).decode("latin-1")
        [length] = [
            int(line.split(":")[1])
            for line in head.splitlines()
            if line.lower().startswith("content-length:")
        ]
        return head.splitlines()[0], await within(self.reader.readexactly(length))

    async def events(self, after: int) -> list[str]:
        """What was said after so many events."""
        line, body = await self.ask(f"/events?after={after}")
        assert line == "HTTP/1.1 200 OK"
        found = json.loads(body)
        assert isinstance(found, list)
        return found

    async def is_hung_up(self) -> bool:
        """Wait for the end of the connection: nothing else may come."""
        return await within(self.reader.read()) == b""


@asynccontextmanager
async def asker(server: PollingServer | Tap) -> AsyncIterator[Asker]:
    """A connection to the server."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Asker(reader, writer)
    finally:
        writer.transport.abort()


@pytest.fixture(autouse=True)
def _leaves_no_thread_and_no_word(capfd: pytest.CaptureFixture[str]) -> Any:
    """Whatever happens, all threads but those of asyncio end, and nobody has printed anything."""
    before = set(threading.enumerate())
    yield
    left = {each for each in set(threading.enumerate()) - before if "asyncio" not in each.name}
    assert not left, f"the test left running: {left}"
    assert capfd.readouterr() == ("", "")


class TestServer:
    async def test_it_tells_what_was_said_after_so_many(self) -> None:
        """All of it, in order, with every letter; nothing to who knows it all."""
        async with PollingServer() as server, asker(server) as client:
            assert await client.events(after=0) == []
            for body in ("one", 'Olá "☃"', ""):
                server.say(body)
            assert await client.events(after=0) == ["one", 'Olá "☃"', ""]
            assert await client.events(after=2) == [""]
            assert await client.events(after=3) == await client.events(after=999_999_999) == []

    async def test_a_connection_is_kept_for_several_questions(self) -> None:
        """Also for several clients, each in its own time."""
        async with PollingServer() as server, asker(server) as first, asker(server) as second:
            for n in range(3):
                assert await first.events(after=n) == []
                server.say("x")
                assert await second.events(after=n) == ["x"]

    @pytest.mark.parametrize(
        "path",
        [
            "/events",
            "/events?after=",
            "/events?after=-1",
            "/events?after=x",
            "/events?after=%D9%A3",
            "/events?after=1&after=2",
            "/events?after=" + "9" * 5000,
            "/events?before=1",
            "/?after=1",
            "//[?after=1",
            "http://[::1?after=1",
            "/events?after=\xb2",
        ],
    )
    async def test_what_it_cannot_answer_is_a_400_that_says_what_to_ask(self, path: str) -> None:
        """Then it hangs up, and the next client is served."""
        async with PollingServer() as server:
            async with asker(server) as client:
                line, body = await client.ask(path)
                assert line == "HTTP/1.1 400 ask for /events?after=NUMBER"
                assert b"ask for /events?after=NUMBER" in body
                assert await client.is_hung_up()
            async with asker(server) as client:
                assert await client.events(after=0) == []

    async def test_only_questions_are_answered(self) -> None:
        """Nobody can say something over HTTP."""
        async with PollingServer() as server, asker(server) as client:
            line, _ = await client.ask("/events?after=0", method="POST")
            assert line.startswith("HTTP/1.1 501 ")

    async def test_an_answer_is_one_piece(self) -> None:
        """Head and body in one segment: a second one might wait for 40 ms (Nagle's algorithm)."""
        async with PollingServer() as server, Tap(server.url) as tap:
            async with asker(tap) as client:
                for _ in range(50):
                    await client.events(after=0)
            [talk] = tap.conversations
            sides = [chunk.side for chunk in talk.chunks if chunk.data]
            assert sides == ["client", "server"] * 50

    async def test_it_keeps_so_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One more is refused, and what to do is said; those that it has stay."""
        monkeypatch.setattr(polling, "MOST_EVENTS", 2)
        async with PollingServer() as server, asker(server) as client:
            server.say("1")
            server.say("2")
            with pytest.raises(RuntimeError, match="keeps 2 events and has them; start a new one"):
                server.say("3")
            assert await client.events(after=0) == ["1", "2"]

    async def test_a_client_that_cuts_the_connection_bothers_nobody(self) -> None:
        """Between questions, in the middle of one, and before it has its answer."""
        async with PollingServer() as server:
            server.say("x" * 1_000_000)
            for words in (b"", b"GET /ev", b"GET /events?after=0 HTTP/1.1\r\n\r\n" * 9):
                async with asker(server) as client:
                    await client.events(after=1)
                    client.writer.write(words)
                    sock = client.writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                    client.writer.transport.abort()
            async with asker(server) as client:
                assert await client.events(after=1) == []


class TestLifetime:
    async def test_stop_hangs_up_and_ends_its_threads(self) -> None:
        """Whoever is connected is told nothing any more; nobody can connect."""
        before = threading.active_count()
        async with PollingServer() as server, asker(server) as idle, asker(server) as other:
            await other.events(after=0)
            await idle.events(after=0)
            assert threading.active_count() == before + 3
            await within(server.stop())
            assert threading.active_count() == before
            assert await idle.is_hung_up()
            assert await other.is_hung_up()
            await server.stop()  # once more does nothing

    async def test_stop_does_not_wait_for_a_client_that_does_not_read(self) -> None:
        """A long answer that nobody takes does not hold it up."""
        async with PollingServer() as server, asker(server) as client:
            server.say("x" * 20_000_000)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.writer.write(b"GET /events?after=0 HTTP/1.1\r\n\r\n")
            await eventually(lambda: threading.active_count() > 2)
            await within(server.stop())

    async def test_before_start_it_says_what_to_do(self) -> None:
        """A server that does not run has no url, and can be told nothing."""
        server = PollingServer()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="use it with `async with`"):
                _ = server.url
            with pytest.raises(RuntimeError, match="use it with `async with`"):
                server.say("x")
            await server.stop()
            async with server, asker(server) as client:
                assert await client.events(after=0) == []  # also the second time
                server.say("x")


class TestPoll:
    async def test_it_asks_until_it_has_heard_so_many(self) -> None:
        """Each once, in order, and with the time at which it was heard."""
        async with PollingServer() as server, Tap(server.url) as tap:
            server.say("before")
            began = time.perf_counter()
            polling = asyncio.create_task(poll(tap.url, every=0.001, count=3))
            await eventually(lambda: tap.conversations)
            [talk] = tap.conversations
            await eventually(lambda: b"before" in talk.said("server"))
            server.say("event 0")
            await eventually(lambda: b"event 0" in talk.said("server"))
            server.say("event 1")
            heard = await within(polling)
            assert [body for body, _ in heard] == ["before", "event 0", "event 1"]
            times = [began, *(t for _, t in heard), time.perf_counter()]
            assert times == sorted(times)

    async def test_it_asks_every_so_many_seconds(self) -> None:
        """Not more often: it waits as long, at least, between two questions."""
        async with PollingServer() as server, Tap(server.url) as tap:
            polling = asyncio.create_task(poll(tap.url, every=0.02, count=1))
            await eventually(lambda: tap.conversations and len(tap.conversations[0].chunks) >= 6)
            server.say("x")
            await within(polling)
            [talk] = tap.conversations
            asked = [chunk.t for chunk in talk.chunks if chunk.side == "client" and chunk.data]
            answered = [chunk.t for chunk in talk.chunks if chunk.side == "server"]
            assert len(asked) >= 4
            waits = [b - a for a, b in zip(answered, asked[1:], strict=False)]
            assert min(waits) > 0.01  # clocks differ a little

    async def test_a_server_that_goes_away_is_an_error(self) -> None:
        """It says so, and leaves nothing."""
        before = tasks()
        async with PollingServer() as server, Tap(server.url) as tap:
            url = server.url
            direct = asyncio.create_task(poll(url, every=0.001, count=1))
            tapped = asyncio.create_task(poll(tap.url, every=0.001, count=1))
            await eventually(lambda: tap.conversations and len(tap.conversations[0].chunks) > 3)
            await server.stop()
            for polling in (direct, tapped):
                with pytest.raises(ConnectionError, match=r"The server at http://.* has gone"):
                    await within(polling)
        await eventually(lambda: not tasks() - before)
        with pytest.raises(ConnectionError, match="Connect call failed"):
            await within(poll(url, every=0.001, count=1))

    async def test_a_server_of_another_kind_is_an_error(self) -> None:
        """The answer is shown, and what to give instead."""

        async def teapot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(teapot, "127.0.0.1", 0) as other:
            url = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"
            with pytest.raises(ConnectionError, match=r"teapot.* url of a PollingServer"):
                await within(poll(url, every=0, count=1))

    async def test_a_server_that_does_not_answer_is_an_error(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody waits for it longer than SECONDS_OUT."""
        monkeypatch.setattr(polling, "SECONDS_OUT", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as deaf:  # it never accepts
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
            with pytest.raises(TimeoutError, match="does not answer"):
                await within(poll(url, every=0, count=1))

    async def test_it_can_be_cancelled_at_any_moment(self) -> None:
        """It ends at once, and leaves no connection."""
        async with PollingServer() as server:
            turns, outcome = 0, ""
            while turns < 60:
                outcome = await cancelled_after(turns, lambda: poll(server.url, 0.001, 1))
                assert outcome == "cancelled"
                turns = more(turns)
            running = server._server
            assert running is not None
            await eventually(lambda: not running._clients)
