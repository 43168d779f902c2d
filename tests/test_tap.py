"""The tap: what passes through it is unchanged, and what it keeps is what has passed."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import warnings
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from hashlib import sha1
from math import inf
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.conftest import NO_LINGER, dial, eventually, tasks, within
from wsdemo import tap as tap_module
from wsdemo import wire
from wsdemo.experiments.delays import websocket_and_polling
from wsdemo.tap import Tap
from wsdemo.wire import GUID, Conversation

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(connection: ServerConnection) -> None:
    """A WebSocket server that says what it is told."""
    with suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)


@asynccontextmanager
async def tapped(
    handler: Callable[[ServerConnection], Awaitable[None]] = echo,
) -> AsyncIterator[Tap]:
    """A tap before a WebSocket server."""
    async with (
        serve(handler, "127.0.0.1", 0, compression=None, max_size=None, close_timeout=1) as server,
        Tap(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") as tap,
    ):
        yield tap


@asynccontextmanager
async def tcp(serve: Serve) -> AsyncIterator[Tap]:
    """A tap before a TCP server, which hangs up when it has served."""
    running: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        async with Tap(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as tap:
            yield tap
    finally:
        server.close()
        await within(asyncio.gather(*running, return_exceptions=True))


@asynccontextmanager
async def call(tap: Tap) -> AsyncIterator[Streams]:
    """A TCP connection to the tap."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(tap.url.rsplit(":", 1)[1]))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def slam(writer: asyncio.StreamWriter) -> None:
    """Reset the connection."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    writer.transport.abort()


def ends(talk: Conversation) -> set[tuple[str, str]]:
    """Who ended it, and how."""
    return {(chunk.side, chunk.end) for chunk in talk.ends}


def said(talk: Conversation) -> list[tuple[str, str, str]]:
    """The frames: whose, which, and what they say."""
    return [(frame.side, frame.name, frame.text) for frame in talk.frames]


BOTH_FIN = {("client", "FIN"), ("server", "FIN")}


class TestKeeping:
    async def test_a_whole_conversation(self) -> None:
        """A handshake, texts, a ping, a goodbye, and the end of TCP: what was sent is kept."""
        async with tapped() as tap:
            async with dial(tap.url, compression=None) as client:
                await client.say_raw("Olá")
                assert await within(client.connection.recv()) == "Olá"
                await within(await client.connection.ping(b"?"))
                await client.say_raw(b"\x00\xff")
                assert await within(client.connection.recv()) == b"\x00\xff"
                await client.connection.close(4000, "enough")
            [talk] = tap.conversations
            await eventually(lambda: len(talk.ends) == 2)
            assert said(talk) == [
                ("client", "text", "Olá"),
                ("server", "text", "Olá"),
                ("client", "ping", "?"),
                ("server", "pong", "?"),
                ("client", "binary", "\x00\ufffd"),
                ("server", "binary", "\x00\ufffd"),
                ("client", "close", "4000 enough"),
                ("server", "close", "4000 enough"),
            ]
            assert all(
                frame.fin and frame.masked == (frame.side == "client") for frame in talk.frames
            )
            assert talk.request.startswith("GET / HTTP/1.1\r\n")
            assert talk.response.startswith("HTTP/1.1 101 Switching Protocols\r\n")
            hashed = sha1(f"{talk.header('Sec-WebSocket-Key')}{GUID}".encode()).digest()
            assert talk.header("Sec-WebSocket-Accept") == b64encode(hashed).decode()
            assert ends(talk) == BOTH_FIN
            heads = len(talk.request) + len(talk.response) + 8
            assert talk.kept == heads + sum(frame.size for frame in talk.frames)

    async def test_the_server_may_say_goodbye_first(self) -> None:
        """Its close comes first then, and both end as they should."""

        async def leave(connection: ServerConnection) -> None:
            await connection.close(1001, "bye")

        async with tapped(leave) as tap:
            async with dial(tap.url) as client:
                assert await client.closed() == (1001, "bye")
            [talk] = tap.conversations
            await eventually(lambda: len(talk.ends) == 2)
            assert said(talk) == [("server", "close", "1001 bye"), ("client", "close", "1001 bye")]
            assert ends(talk) == BOTH_FIN

    async def test_several_at_once_are_kept_apart(self) -> None:
        """Each connection is a conversation of its own, in the order in which they began."""
        async with tapped() as tap:
            async with dial(tap.url) as a, dial(tap.url) as b, dial(tap.url) as c:
                for turn in "12":
                    for name, client in {"a": a, "b": b, "c": c}.items():
                        await client.say_raw(name + turn)
                        assert await within(client.connection.recv()) == name + turn
            for name, talk in zip("abc", tap.conversations, strict=True):
                texts = [(side, text) for side, kind, text in said(talk) if kind == "text"]
                assert texts == [
                    (side, name + turn) for turn in "12" for side in ("client", "server")
                ]

    async def test_the_time_is_that_of_the_clock(self) -> None:
        """A question has its time after it was made up, and its answer before it was read."""
        async with tapped() as tap, dial(tap.url) as client:
            for _ in range(3):
                before = time.perf_counter()
                await client.say_raw("x")
                await within(client.connection.recv())
                after = time.perf_counter()
                talk = tap.conversations[0]
                question, answer = talk.frames[-2:]
                moments = [question.t, question.arrived, answer.t, answer.arrived]
                times = [before, *(talk.began + t for t in moments), after]
                assert times == sorted(times)
                assert not question.crosses(answer)


class TestPassingOn:
    async def test_a_large_message_is_unchanged(self) -> None:
        """3 MB each way; more than is kept, and yet all of it arrives, and ends as it should."""
        message = bytes(range(256)) * 12_000
        async with tapped() as tap:
            async with dial(tap.url, compression=None, max_size=None) as client:
                await client.say_raw(message)
                assert await within(client.connection.recv()) == message
            assert client.connection.close_code == 1000
            [talk] = tap.conversations
            await eventually(lambda: len(talk.ends) == 2)
            assert talk.frames[0].payload == message
            assert ends(talk) == BOTH_FIN
            assert talk.kept == wire.MOST

    async def test_the_rest_of_a_long_answer_arrives(self) -> None:
        """Both have ended, and the tap itself still has some of it: it arrives to the last byte."""
        sent = 0

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            assert await reader.read() == b"question"
            while not _waiting():
                writer.write(b"x" * 4096)
                await writer.drain()
                sent += 4096
                await asyncio.sleep(0)

        async with tcp(answer) as tap, call(tap) as (reader, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"question")
            writer.write_eof()
            await eventually(lambda: tap.conversations and len(tap.conversations[0].ends) == 2)
            await eventually(lambda: not tap._calls)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert len(await within(reader.read())) == sent
            assert [(c.side, c.end) for c in tap.conversations[0].ends] == [
                ("client", "FIN"),
                ("server", "FIN"),
            ]

    async def test_back_pressure_passes_through(self) -> None:
        """A server that sends without end is held up by a client that does not read."""
        sent = 0

        async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            while sent < 256 * 2**20:
                writer.write(b"x" * 65_536)
                await writer.drain()
                sent += 65_536

        async with tcp(flood) as tap, call(tap) as (reader, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            still, last = 0, -1
            while still < 50 or not sent:
                still, last = (still + 1, sent) if sent == last else (0, sent)
                await asyncio.sleep(0.001)
            assert sent < 64 * 2**20
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            await within(reader.readexactly(sent + 2 * wire.MOST))
            assert tap.conversations[0].kept == wire.MOST

    async def test_the_path_of_the_url_stays(self) -> None:
        """Who calls the tap's url asks for what the server's url asks for."""
        async with Tap("ws://127.0.0.1:1/chat?room=3") as tap:
            assert tap.url.startswith("ws://127.0.0.1:")
            assert tap.url.endswith("/chat?room=3")
            assert ":1/" not in tap.url


class TestCrossing:
    async def test_what_both_say_crosses(self) -> None:
        """Whoever speaks first: neither arrives before the other was sent. Then it goes on."""
        speakers: asyncio.Queue[ServerConnection] = asyncio.Queue()

        async def speak(connection: ServerConnection) -> None:
            speakers.put_nowait(connection)
            await echo(connection)

        async with tapped(speak) as tap, dial(tap.url) as client:
            server = await within(speakers.get())
            [talk] = tap.conversations
            for one, other in ((client.connection, server), (server, client.connection)) * 3:
                before = len(talk.frames)
                async with tap.crossing(talk):
                    await one.send("hello")
                    await other.send("jump")
                await within(client.connection.recv())
                await within(client.connection.recv())  # the echo
                first, second, answer = talk.frames[before:]
                assert {first.text, second.text} == {"hello", "jump"}
                assert first.crosses(second)
                assert not answer.crosses(first)
                assert not answer.crosses(second)

    async def test_nothing_arrives_until_both_have_spoken(self) -> None:
        """Not even if one side says much, or says that it has ended."""
        heard = asyncio.Event()
        go_on = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readexactly(1) == b"0"
            await go_on.wait()
            writer.write(b"answer")
            assert await reader.read() == b"12"
            heard.set()

        async with tcp(answer) as tap, call(tap) as (reader, writer):
            writer.write(b"0")
            await eventually(lambda: tap.conversations and tap.conversations[0].chunks)
            [talk] = tap.conversations
            await eventually(lambda: talk.chunks[0].arrived < inf)
            async with tap.crossing(talk):
                writer.write(b"1")
                await eventually(lambda: talk.said("client") == b"01")
                writer.write(b"2")
                writer.write_eof()
                assert talk.chunks[-1].arrived == inf
                assert not heard.is_set()
                go_on.set()
            assert await within(reader.read()) == b"answer"
            await within(heard.wait())
            await within(talk.over.wait())
            assert max(chunk.arrived for chunk in talk.chunks) < inf

    async def test_who_says_nothing_is_not_waited_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is an error that says what to do, and what the other has said arrives."""
        monkeypatch.setattr(tap_module, "SECONDS_OUT", 0.05)
        async with tapped() as tap, dial(tap.url) as client:
            [talk] = tap.conversations
            with pytest.raises(TimeoutError, match="let both say something"):
                async with tap.crossing(talk):
                    await client.say_raw("x")
            assert await within(client.connection.recv()) == "x"

    async def test_an_error_in_it_holds_up_nobody(self) -> None:
        """It goes on as it is, and what was said arrives."""
        async with tapped() as tap, dial(tap.url) as client:
            with suppress(ZeroDivisionError):
                async with tap.crossing(tap.conversations[0]):
                    await client.say_raw("x")
                    _ = 1 / 0
            assert await within(client.connection.recv()) == "x"


class TestCuts:
    async def test_by_the_client(self) -> None:
        """It is kept as a reset by the client, and the server sees a connection that broke."""
        codes: asyncio.Queue[int | None] = asyncio.Queue()

        async def wait(connection: ServerConnection) -> None:
            await connection.wait_closed()
            codes.put_nowait(connection.close_code)

        async with tapped(wait) as tap, dial(tap.url) as client:
            client.slam()
            assert await within(codes.get()) == 1006
            [talk] = tap.conversations
            await within(talk.over.wait())
            assert ends(talk) == {("client", "RST")}
            assert said(talk) == []
            assert talk.ends[0].arrived < inf

    async def test_a_client_that_just_ends(self) -> None:
        """It says no goodbye, but its system ends TCP; the server does so too, and has its 1006."""
        codes: asyncio.Queue[int | None] = asyncio.Queue()

        async def wait(connection: ServerConnection) -> None:
            await connection.wait_closed()
            codes.put_nowait(connection.close_code)

        async with tapped(wait) as tap, dial(tap.url) as client:
            [talk] = tap.conversations
            assert not talk.over.is_set()
            client.connection.transport.abort()
            await within(talk.over.wait())
            assert [(c.side, c.end) for c in talk.ends] == [("client", "FIN"), ("server", "FIN")]
            assert said(talk) == []
            assert await within(codes.get()) == 1006

    async def test_by_the_server(self) -> None:
        """It is kept as a reset by the server, and the client sees a connection that broke."""

        async def cut(connection: ServerConnection) -> None:
            await connection.recv()
            sock = connection.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            connection.transport.abort()

        async with tapped(cut) as tap, dial(tap.url) as client:
            await client.say_raw("x")
            assert await client.closed() == (None, "")
            assert ends(tap.conversations[0]) == {("server", "RST")}

    async def test_by_a_client_that_is_being_told_something(self) -> None:
        """It is the client who cut, though it is the server's bytes that cannot be passed on."""

        async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()

        async with tcp(flood) as tap:
            for _ in range(5):
                async with call(tap) as (reader, writer):
                    await within(reader.readexactly(100_000))
                    slam(writer)
                    await eventually(lambda: not tap._calls)
            assert [ends(talk) for talk in tap.conversations] == [{("client", "RST")}] * 5
            assert [len(talk.ends) for talk in tap.conversations] == [1] * 5

    async def test_by_one_that_had_ended_what_it_says(self) -> None:
        """It has ended twice then, and the server's answer cannot be passed on."""
        go_on = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            await go_on.wait()
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()

        async with tcp(answer) as tap, call(tap) as (_, writer):
            writer.write_eof()
            await eventually(lambda: tap.conversations and tap.conversations[0].ends)
            slam(writer)
            go_on.set()
            await eventually(lambda: not tap._calls)
            assert [(c.side, c.end) for c in tap.conversations[0].ends] == [
                ("client", "FIN"),
                ("client", "RST"),
            ]

    async def test_a_server_that_is_not_there(self) -> None:
        """The client is cut off, without a word; the next one is served all the same."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # but it does not listen
            async with Tap(f"ws://127.0.0.1:{taken.getsockname()[1]}") as tap:
                for _ in range(2):
                    async with call(tap) as (reader, _):
                        with suppress(ConnectionError):
                            assert await within(reader.read()) == b""
                await eventually(lambda: not tap._calls)
                assert [talk.chunks for talk in tap.conversations] == [[], []]

    async def test_a_server_that_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody waits for it longer than SECONDS_OUT."""
        monkeypatch.setattr(tap_module, "SECONDS_OUT", 0.05)
        with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            for each in (first, second):  # its queue is full
                each.setblocking(False)
                each.connect_ex(deaf.getsockname())
            async with Tap(f"ws://127.0.0.1:{deaf.getsockname()[1]}") as tap, call(tap) as (r, _):
                with suppress(ConnectionError):
                    assert await within(r.read()) == b""


class TestLifetime:
    async def test_stop_cuts_what_is_under_way(self) -> None:
        """Both sides notice; no task and no port is left, and what was kept stays."""
        async with tapped() as tap:
            before = tasks()
            async with dial(tap.url) as idle, dial(tap.url) as talker:
                await talker.say_raw("x")
                assert await within(talker.connection.recv()) == "x"
                url = tap.url
                await within(tap.stop())
                assert not tap._calls
                assert await idle.closed() == (None, "")
                assert await talker.closed() == (None, "")
                with pytest.raises(OSError, match="Connect call failed"):
                    async with dial(url):
                        pass
            await eventually(lambda: not tasks() - before)
            assert said(tap.conversations[1]) == [("client", "text", "x"), ("server", "text", "x")]
            await tap.stop()  # once more does nothing

    @pytest.mark.parametrize("turns", range(6))
    async def test_stop_does_not_overlook_one_that_just_calls(self, turns: int) -> None:
        """However short before the stop a client connects, nothing of it stays behind."""
        async with tapped() as tap:
            before = tasks()
            with socket.create_connection(("127.0.0.1", int(tap.url.rsplit(":", 1)[1]))) as client:
                for _ in range(turns):
                    await asyncio.sleep(0)
                await tap.stop()
                for _ in range(5):
                    await asyncio.sleep(0)
                assert not {each for each in tasks() - before if "tap" in each.get_name()}
                client.settimeout(5)
                with suppress(ConnectionError), warnings.catch_warnings():
                    warnings.simplefilter("ignore", ResourceWarning)
                    gc.collect()  # asyncio itself may drop one it has not announced yet
                    assert await asyncio.to_thread(client.recv, 1) == b""

    async def test_before_start_it_says_what_to_do(self) -> None:
        """A tap that does not listen, not yet or not any more, has no url."""
        tap = Tap("ws://127.0.0.1:1")
        with pytest.raises(RuntimeError, match="async with"):
            _ = tap.url
        await tap.stop()
        async with tap:
            assert tap.url
        with pytest.raises(RuntimeError, match="async with"):
            _ = tap.url

    @pytest.mark.parametrize("url", ["wss://x:1", "https://x", "127.0.0.1:8000", "ws:", ""])
    async def test_what_it_cannot_tap_is_said_at_once(self, url: str) -> None:
        """No url of a server, or one whose bytes are encrypted."""
        with pytest.raises(ValueError, match=r"as ws://127\.0\.0\.1:8000"):
            Tap(url)


class TestWebSocketAndPolling:
    async def test_each_event_is_heard_both_ways_and_never_before_it_was_said(self) -> None:
        """There are as many times as events, in order."""
        began = time.perf_counter()
        delays = await within(websocket_and_polling(events=4, pause=0.001, every=0.002))
        assert set(delays.heard) == {"WebSocket", "polling"}
        assert delays.said == sorted(delays.said)
        for times in delays.heard.values():
            assert len(times) == len(delays.said) == 4
            assert times == sorted(times)
            assert all(said < heard for said, heard in zip(delays.said, times, strict=True))
        assert delays.asked == sorted(delays.asked)
        assert began < delays.asked[0]
        assert delays.asked[-1] < delays.heard["polling"][-1]

    async def test_the_sizes_are_those_on_the_wire(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of the handshake and the join; of the events; of every question and answer."""
        taps: list[Tap] = []

        class Watched(Tap):
            async def start(self) -> None:
                taps.append(self)
                await super().start()

        monkeypatch.setattr("wsdemo.experiments.delays.Tap", Watched)
        delays = await within(websocket_and_polling(events=3, pause=0.001, every=0.002))
        [websocket], [polling] = (tap.conversations for tap in taps)
        events = [frame for frame in websocket.frames if '"type":"event"' in frame.text]
        assert [f"event {n}" in frame.text for n, frame in enumerate(events)] == [True] * 3
        assert delays.size == {
            "WebSocket": sum(frame.size for frame in events),
            "polling": polling.kept,
        }
        others = [frame for frame in websocket.frames if frame not in events]
        assert [frame.name for frame in others[:2]] == ["text", "text"]  # the join, the welcome
        heads = len(websocket.request) + len(websocket.response) + 8
        assert delays.setup == {
            "WebSocket": heads + sum(frame.size for frame in others[:2]),
            "polling": 0,
        }
        assert polling.said("server").count(b"\r\n\r\n[]") == len(delays.in_vain)
        assert polling.said("client").count(b"GET /events?after=") == len(delays.asked)
        assert polling.said("server").count(b"HTTP/1.1 200 OK") == len(delays.asked)

    async def test_no_events_take_no_time(self) -> None:
        """Then there is one question, and its answer is that there is nothing."""
        delays = await within(websocket_and_polling(events=0))
        assert (delays.said, delays.heard) == ([], {"WebSocket": [], "polling": []})
        assert delays.size["WebSocket"] == 0
        assert len(delays.asked) == len(delays.in_vain) == 1

    async def test_what_the_lesson_says(self) -> None:
        """Its checks hold: what is set up costs once, and who asks does so in vain, and waits."""
        delays = await within(websocket_and_polling(events=5, pause=0.45, every=0.1), 30)
        setup, size = delays.setup["WebSocket"], delays.size
        assert size["WebSocket"] < setup
        assert size["WebSocket"] + setup < size["polling"]
        assert 2 * len(delays.in_vain) > len(delays.asked)
        assert delays.most_questions <= 1


def _waiting() -> int:
    """The bytes that wait in taps to be passed on."""
    coroutines: list[Any] = [task.get_coro() for task in asyncio.all_tasks()]
    writers = [c.cr_frame.f_locals["writer"] for c in coroutines if c.__name__ == "_copy"]
    return sum(writer.transport.get_write_buffer_size() for writer in writers)
