"""What a server refuses: each limit by its name, where it refuses and in the numbers."""

from __future__ import annotations

import asyncio
import itertools
import math
import re
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus

from tests.conftest import PATIENCE, dial, eventually, game_server, stream, within
from tests.raw import CLOSE, CONT, PING, PONG, TEXT, Refused, Wire, frame, limits_reached, raw
from wsdemo import connection as connection_module
from wsdemo import limits as limits_module
from wsdemo import protocol
from wsdemo.brokers import LocalBroker
from wsdemo.connection import Connection
from wsdemo.limits import BURST, Allowance, Limits
from wsdemo.ports import is_loopback
from wsdemo.protocol import MAX_BODY, Event, encode
from wsdemo.redis.backend import RedisBackend
from wsdemo.server import GameServer

SECRET = secrets.token_bytes(16)
SMALL_BUFFER = 4096  # bytes, so that a client which does not read is soon noticed


# What can be asked for


def test_a_frame_is_as_long_as_the_protocol_has_it() -> None:
    """The limits are a leaf and cannot ask it."""
    assert limits_module.MAX_FRAME == protocol.MAX_FRAME == Limits().max_message


@pytest.mark.parametrize("name", [limit.name for limit in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, -math.inf])
def test_a_limit_that_lets_nothing_through_is_refused(name: str, value: float) -> None:
    """The error names it, and says what to use."""
    with pytest.raises(ValueError, match=f"{name} is {value:g}; use more than 0"):
        Limits(**{name: value})  # type: ignore[arg-type]  # whatever the type, it is no number


def test_a_message_cannot_be_longer_than_what_others_read() -> None:
    """Players, too, take frames up to MAX_FRAME only."""
    with pytest.raises(ValueError, match="max_message is 262145; use more than 0 and at most"):
        Limits(max_message=protocol.MAX_FRAME + 1)


def test_each_limit_says_what_it_is() -> None:
    """In the words that `serve --help` shows."""
    assert all(limit.metadata["words"] for limit in fields(Limits))


class TestAllowance:
    def test_some_may_come_at_once_and_then_the_rate_holds(self) -> None:
        """BURST seconds' worth, then one for each part of a second."""
        allowance = Allowance(10, now=100.0)
        assert [allowance.take(100.0) for _ in range(51)] == [True] * 50 + [False]
        assert [allowance.take(100.125) for _ in range(2)] == [True, False]

    def test_silence_saves_up_no_more_than_that(self) -> None:
        """An hour of it lets no flood through."""
        allowance = Allowance(10, now=0.0)
        assert sum(allowance.take(3600.0) for _ in range(1000)) == 10 * BURST

    def test_a_very_low_rate_lets_one_through(self) -> None:
        """Or nobody could ever join."""
        allowance = Allowance(0.01, now=0.0)
        assert [allowance.take(0.0), allowance.take(0.0), allowance.take(100.0)] == [
            True,
            False,
            True,
        ]

    @given(st.floats(0.01, 1e4), st.lists(st.floats(0, 1), max_size=200))
    def test_over_any_time_it_is_the_rate_and_the_burst(
        self, rate: float, pauses: list[float]
    ) -> None:
        """Whenever the messages come."""
        allowance = Allowance(rate, now=0.0)
        times = list(itertools.accumulate(pauses))
        taken = sum(allowance.take(now) for now in times)
        assert taken <= max(rate * BURST, 1.0) + rate * (times[-1] if times else 0) + 1e-6


# Each limit, reached

Reach = Callable[[GameServer, AsyncExitStack], Awaitable[str]]


async def _too_many_connections(server: GameServer, stack: AsyncExitStack) -> str:
    await stack.enter_async_context(dial(server.url))  # the third: two are there already
    with pytest.raises(InvalidStatus) as refused:
        await within(dial(server.url).__aenter__())
    assert refused.value.response.status_code == 503
    assert await get(server, "/readyz") == (503, "full\n")
    return refused.value.response.body.decode()


async def _too_many_players(server: GameServer, stack: AsyncExitStack) -> str:
    third = await stack.enter_async_context(dial(server.url))
    await third.join("P3")
    fourth = await stack.enter_async_context(dial(server.url))
    error = await fourth.ask("join", game="g", player="P4")
    assert error["code"] == "game-full"
    await fourth.join("P4", game="another")
    return str(error["message"])


async def _too_fast(server: GameServer, stack: AsyncExitStack) -> str:
    client = await stack.enter_async_context(dial(server.url))
    await client.join("P3")
    for _ in range(2):
        await client.silence()
    error = await client.ask("sync", id="1")
    assert error["code"] == "too-fast"
    return str(error["message"])


async def _too_big(server: GameServer, stack: AsyncExitStack) -> str:
    client = await stack.enter_async_context(dial(server.url))
    await client.say_raw("x" * 1000)
    assert (await client.hear())["code"] == "bad-message"
    await client.say_raw("x" * 1001)
    error = await client.hear()
    assert error["code"] == "too-big"
    assert (await client.closed())[0] == 1009
    return str(error["message"])


async def _too_much_waiting(server: GameServer, stack: AsyncExitStack) -> None:
    """Its connection is cut: it would not read why."""
    stalled = await stack.enter_async_context(stalling(server))
    speaker = await stack.enter_async_context(dial(server.url))
    await speaker.join("P4")
    while "P3" in server.players("g"):
        await speaker.say("send", id="1", body="x" * MAX_BODY)
        await speaker.hear()
    stalled.close()


async def _too_much_waiting_for_one(server: GameServer, stack: AsyncExitStack) -> str:
    await _too_much_waiting(server, stack)
    return "(max_waiting)"


async def _too_much_waiting_in_all(server: GameServer, stack: AsyncExitStack) -> str:
    await _too_much_waiting(server, stack)
    return "(max_waiting_in_all)"


async def _too_many_bad_messages(server: GameServer, stack: AsyncExitStack) -> str:
    client = await stack.enter_async_context(dial(server.url))
    for _ in range(3):
        assert (await client.ask("shout"))["code"] == "bad-message"
    code, reason = await client.closed()
    assert code == 1008
    return reason


async def _too_late(server: GameServer, stack: AsyncExitStack) -> str:
    client = await stack.enter_async_context(dial(server.url))
    code, reason = await client.closed()
    assert code == 1008
    return reason


async def _no_answer(server: GameServer, stack: AsyncExitStack) -> str:
    wire = await stack.enter_async_context(raw(server.port))
    await wire.upgrade()  # and answers no ping
    code, reason = await wire.closed()
    assert code == 1008
    return reason


REACHED: dict[str, tuple[Limits, Reach]] = {
    "max_connections": (Limits(max_connections=3), _too_many_connections),
    "max_players": (Limits(max_players=3), _too_many_players),
    "max_rate": (Limits(max_rate=0.6), _too_fast),
    "max_message": (Limits(max_message=1000), _too_big),
    "max_waiting": (Limits(max_waiting=100_000), _too_much_waiting_for_one),
    "max_waiting_in_all": (Limits(max_waiting_in_all=100_000), _too_much_waiting_in_all),
    "max_bad_messages": (Limits(max_bad_messages=3), _too_many_bad_messages),
    "seconds_to_join": (Limits(seconds_to_join=0.1), _too_late),
    "seconds_to_answer": (Limits(seconds_to_answer=0.1), _no_answer),
}


def test_every_limit_is_tried() -> None:
    """One that is added to the package is added here."""
    assert set(REACHED) == {limit.name for limit in fields(Limits)}


@pytest.mark.parametrize("name", REACHED)
async def test_a_limit_is_named_and_counted_and_others_go_on(name: str) -> None:
    """By its own name, once, in the error and in the metrics; just below it all had been well."""
    limits, reach = REACHED[name]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(game_server(limits=limits))
        p1, p2 = [await stack.enter_async_context(dial(server.url)) for _ in range(2)]
        for number, client in enumerate((p1, p2), 1):
            await client.join(f"P{number}")
        assert not server.counts.limits_reached
        async with AsyncExitStack() as others:
            words = await reach(server, others)
            counted = await limits_reached(server.port)
        assert f"({name})" in words
        assert server.counts.limits_reached == {name: 1}
        assert counted == {each.name: float(each.name == name) for each in fields(Limits)}
        await p1.say("send", id="P1-last", body="x")
        for client in (p1, p2):
            while (await client.hear()).get("id") != "P1-last":
                pass


async def test_who_never_asks_for_a_websocket_is_too_late_as_well() -> None:
    """There is nobody to be told, but it counts."""
    async with game_server(limits=Limits(seconds_to_join=0.1)) as server, raw(server.port) as wire:
        await wire.push(b"GET / HTTP/1.1\r\n")
        assert await wire.outcome(PATIENCE) == "cut"
        await eventually(lambda: server.counts.limits_reached == {"seconds_to_join": 1})


async def test_room_that_becomes_free_can_be_taken() -> None:
    """By the next client and the next player; the server is ready again."""
    async with game_server(limits=Limits(max_connections=1, max_players=1)) as server:
        for _ in range(3):
            async with dial(server.url) as client:
                await client.join("P1")
                assert await get(server, "/readyz") == (503, "full\n")
                assert (await get(server, "/healthz"))[0] == 200
            await eventually(lambda: not server.calls)
            assert await get(server, "/readyz") == (200, "ready\n")
    assert not server.counts.limits_reached  # who looks whether it is full has not been refused


async def test_the_last_place_is_for_one_of_those_who_come_at_once() -> None:
    """A place is taken from the moment a join waits for the broker."""
    async with AsyncExitStack() as stack:
        limits = Limits(max_players=2)
        server = await stack.enter_async_context(game_server(broker=_Slow(), limits=limits))
        clients = [await stack.enter_async_context(dial(server.url)) for _ in range(5)]
        answers = await asyncio.gather(
            *(client.ask("join", game="g", player=f"P{n}") for n, client in enumerate(clients))
        )
        assert sorted(answer["type"] for answer in answers) == ["error"] * 3 + ["welcome"] * 2


async def test_only_the_games_that_are_named_are_played() -> None:
    """Nobody else's game takes up memory here."""
    async with game_server(games=["g", "h"]) as server, dial(server.url) as client:
        error = await client.ask("join", game="x", player="P1")
        assert (error["code"], error["message"]) == ("no-such-game", "there is no game x here")
        await client.join("P1", game="h")
        assert server.players("x") == []


# Who can reach it


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org", "192.0.2.1", "", "127.0.0.1.nip"])
def test_a_host_that_others_can_reach_needs_a_secret(host: str) -> None:
    """The server itself insists on it, whoever makes one."""
    assert not is_loopback(host)
    with pytest.raises(ValueError, match=f"other machines can reach {re.escape(host)}.*secret"):
        GameServer("A", LocalBroker(), host=host)
    GameServer("A", LocalBroker(), host=host, join_secret=SECRET)


async def test_an_ipv6_address_stands_in_brackets() -> None:
    """The URL can be dialled, and a page from it is of the server's own origin."""
    if not _has_ipv6():
        pytest.skip("this machine has no ::1")
    async with game_server(host="::1") as server:
        assert server.url == f"ws://[::1]:{server.port}"
        async with dial(server.url, origin=f"http://[::1]:{server.port}") as client:
            await client.join("P1")


# What does not read, does not answer, does not go


async def test_who_was_cut_off_has_it_all_when_it_comes_back(redis: RedisBackend) -> None:
    """Where the broker keeps events, to be too slow is to be late, not to miss anything."""
    async with AsyncExitStack() as stack:
        limits = Limits(max_waiting=100_000)
        server = await stack.enter_async_context(
            game_server(broker=stream(redis, "A"), limits=limits)
        )
        speaker = await stack.enter_async_context(dial(server.url))
        await speaker.join("P1")
        slow = await stack.enter_async_context(raw(server.port, receive_buffer=SMALL_BUFFER))
        await slow.upgrade()
        await slow.say("join", game="g", player="P2")
        welcome = await slow.hear()
        said = 0
        while "P2" in server.players("g"):
            said += 1
            await speaker.say("send", id=f"{said}", body=f"{said}".ljust(MAX_BODY))
            assert {(await speaker.hear())["type"] for _ in range(2)} == {"event", "stored"}
        heard = await slow.hear_to_the_end()
        assert 0 < len(heard) < said
        assert server.counts.limits_reached == {"max_waiting": 1}
        back = await stack.enter_async_context(dial(server.url))
        resume = {"epoch": welcome["epoch"], "seq": heard[-1]["seq"]}
        again = await back.ask("join", game="g", player="P2", resume=resume)
        assert again["recovered"] is True
        heard += [await back.hear() for _ in range(said - len(heard))]
        assert [event["id"] for event in heard] == [f"{number}" for number in range(1, said + 1)]


async def test_what_comes_in_one_turn_of_the_event_loop_waits_too() -> None:
    """Not only what the transport has: a page of a history is written without a pause."""
    async with game_server(limits=Limits(max_waiting=2**20)) as server, stalling(server):
        [connection] = server._sockets
        event, most = encode(Event("1", "P4", "x" * MAX_BODY)), 0
        for _ in range(32 * 2**20 // MAX_BODY):  # the system takes some of it, too
            server.relay("g", event)
            most = max(most, connection.waiting)
        assert most < 1.25 * 2**20 + 2 * MAX_BODY
        assert server.counts.limits_reached == {"max_waiting": 1}


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "does not read"])
async def test_a_long_history_waits_for_its_reader(redis: RedisBackend, reads: bool) -> None:
    """It is written a part at a time: who reads has it all, who does not fills no memory with it.

    Who reads may say something meanwhile, and is not taken for one that does not.
    """
    limits = Limits(max_waiting=400_000)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            game_server(broker=stream(redis, "A"), limits=limits)
        )
        speaker = await stack.enter_async_context(dial(server.url))
        welcome = await speaker.ask("join", game="g", player="P1")
        for number in range(1, 201):
            await speaker.say("send", id=f"{number}", body="x" * MAX_BODY)
            assert {(await speaker.hear())["type"] for _ in range(2)} == {"event", "stored"}
        wire = await stack.enter_async_context(raw(server.port, SMALL_BUFFER))
        await wire.upgrade()
        resume = {"epoch": welcome["epoch"], "seq": 0}
        await wire.say("join", game="g", player="P2", resume=resume)
        if reads:
            await wire.say("sync", id="meanwhile")
            heard = [(await wire.hear())["type"] for _ in range(202)]
            assert sorted(heard) == ["event"] * 200 + ["synced", "welcome"]
        else:
            connection = await _paused(server)
            for _ in range(20):
                await speaker.silence()
                assert connection.waiting < limits.max_waiting
        assert not server.counts.limits_reached


async def test_of_all_those_who_do_not_read_the_ones_with_the_most_waiting_go_first() -> None:
    """As many of them as it takes, and nobody who reads."""
    limits = Limits(max_waiting_in_all=2**20)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(game_server(limits=limits))
        speakers = [await stack.enter_async_context(dial(server.url)) for _ in range(2)]
        for game, speaker in zip("gh", speakers, strict=True):
            await speaker.join("P1", game=game)
        for number in range(20):  # of each game
            for game in "gh":
                wire = await stack.enter_async_context(raw(server.port, SMALL_BUFFER))
                await wire.upgrade()
                await wire.say("join", game=game, player=f"S{number}")
                await wire.hear()
        while len(server.players("g")) == 21:
            for speaker in [speakers[0]] * 3 + [speakers[1]]:
                await speaker.say("send", id="1", body="x" * MAX_BODY)
                await speaker.hear()
        waiting = sum(connection.waiting for connection in server._sockets)
        assert waiting <= limits.max_waiting_in_all
        assert len(server.players("h")) == 21  # three times as much was said in the other game
        for speaker in speakers:
            await speaker.silence()


async def test_many_joins_and_a_goodbye_leave_no_game_behind() -> None:
    """Said at once, so that the goodbye is there before the first of the joins is looked at."""
    async with game_server() as server, raw(server.port) as wire:
        await wire.upgrade()
        join = b'{"type":"join","game":"g%d","player":"P1"}'
        joins = b"".join(frame(TEXT, join % number) for number in range(50))
        await wire.push(joins + frame(CLOSE, b"\x03\xe8"))
        assert await wire.outcome(PATIENCE) == "1000"
        await within(server.until(lambda: not server.calls))
        assert not server._games


async def test_who_leaves_can_join_no_other_game_on_its_way_out() -> None:
    """Its connection is about to end, and nobody would ever leave that game again."""
    async with game_server() as server, raw(server.port) as wire:
        await wire.upgrade()
        joins = [b'{"type":"join","game":"%s","player":"P1"}' % game for game in (b"g", b"h")]
        words = [joins[0], b'{"type":"leave"}', joins[1]]
        await wire.push(b"".join(frame(TEXT, each) for each in words))
        assert [heard["game"] for heard in await wire.hear_to_the_end()] == ["g"]
        wire.close()
        await within(server.until(lambda: not server.calls))
        assert not server._games


async def test_pings_without_end_fill_no_memory() -> None:
    """Their answers wait too, for a client that does not read them."""
    limits = Limits(max_waiting=50_000, max_rate=10**9)
    async with game_server(limits=limits) as server, raw(server.port, SMALL_BUFFER) as wire:
        await wire.upgrade()
        [connection] = server._sockets
        ping, most = frame(PING, b"x" * 125) * 100, 0
        while not wire.is_cut:
            await wire.push(ping)
            await asyncio.sleep(0)
            most = max(most, connection.transport.get_write_buffer_size())
        assert most < limits.max_waiting * 1.25 + 2**18  # it reads so many bytes at once
        await eventually(lambda: not server.calls and not server._sockets)
        assert server.counts.limits_reached == {"max_waiting": 1}


@pytest.mark.parametrize(
    "opcode", [PING, PONG, CONT, TEXT], ids=["pings", "pongs", "fragments", "messages"]
)
async def test_frames_have_a_rate_too(opcode: int) -> None:
    """Pings, pongs and fragments cost the server as much as messages; all count."""
    async with game_server(limits=Limits(max_rate=20)) as server, raw(server.port) as wire:
        await wire.upgrade()
        if opcode == CONT:
            await wire.push(frame(TEXT, b"", fin=False))
        await wire.push(frame(opcode, b"", fin=opcode != CONT) * 201)
        assert await wire.closed() == (1008, "at most 40 frames a second (max_rate)")
        assert server.counts.limits_reached == {"max_rate": 1}


async def test_nothing_is_made_of_what_came_after_one_frame_too_many(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same packet: the parts of a message of which some are lost are no message.

    Also if there is time enough between them for one more to be allowed.
    """
    ticks = itertools.count(1)
    monkeypatch.setattr(connection_module, "monotonic", lambda: next(ticks) * 0.1)
    async with game_server(limits=Limits(max_rate=2)) as server, raw(server.port) as wire:
        await wire.upgrade()
        join = frame(TEXT, b'{"type":"join","game":"g","player":"P1"}')
        parts = frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 50 + frame(CONT, b"")
        await wire.push(parts + join)
        assert (await wire.closed())[0] == 1008
        await eventually(lambda: not server.calls)
        assert server.counts.joins == 0
        assert server.counts.limits_reached == {"max_rate": 1}
    assert not [record for record in caplog.records if record.levelname != "INFO"]


async def test_fragments_and_pings_below_the_rate_are_well() -> None:
    """They take nothing from the messages that a client may send."""
    async with game_server(limits=Limits(max_rate=20)) as server, raw(server.port) as wire:
        await wire.upgrade()
        await wire.push(frame(PING, b"") * 50)
        await wire.say("join", game="g", player="P1")
        assert (await wire.hear())["type"] == "welcome"
        for _ in range(80):
            await wire.say("sync", id="x")
            assert (await wire.hear())["type"] == "synced"


async def test_a_message_in_endless_fragments_ends() -> None:
    """Even of fragments that have nothing in them."""
    async with game_server(limits=Limits(max_rate=10**6)) as server, raw(server.port) as wire:
        await wire.upgrade()
        await wire.push(frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 5000)
        assert (await wire.hear())["code"] == "too-big"
        assert (await wire.closed())[0] == 1009
        assert server.counts.limits_reached == {"max_message": 1}


@pytest.mark.parametrize(
    "last_words",
    [
        b"\xff" * 20,
        b"\x81\x05hello",
        b"\x88\x82\x00\x00\x00\x00\x03\xe8",
        b"\x81\xff\x7f" + b"\xff" * 40,
    ],
    ids=["garbage", "a frame without a mask", "a close", "a frame too long"],
)
async def test_who_has_been_said_goodbye_to_has_to_go(
    last_words: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that keeps its end of the connection open all the same is cut off."""
    monkeypatch.setattr(connection_module, "HANG_UP", 0.05)
    async with game_server() as server, raw(server.port) as wire:
        await wire.upgrade()
        await wire.push(last_words)
        await wire.hear_to_the_end()  # of what the server says; its own end it keeps open
        await within(server.until(lambda: not server.calls))
        await eventually(lambda: not server._sockets)


async def test_what_was_on_its_way_to_a_server_that_says_goodbye_counts() -> None:
    """Until the client has answered the goodbye, in however many pieces it comes."""
    async with game_server() as server, dial(server.url) as p2, raw(server.port) as wire:
        await p2.join("P2")
        await wire.upgrade()
        await wire.say("join", game="g", player="P1")
        assert (await wire.hear())["type"] == "welcome"
        closing = asyncio.create_task(server._games["g"].players["P1"].close(1012))
        with pytest.raises(Refused, match="1012"):
            await wire.hear()
        for number in ("1", "2"):
            await wire.say("send", id=number, body="x")
            assert (await p2.hear())["id"] == number
        last = frame(TEXT, b'{"type":"send","id":"3","body":"%s"}' % (b"x" * MAX_BODY))
        await wire.push(last + frame(CLOSE, b"\x03\xf4"))
        assert (await p2.hear())["id"] == "3"
        assert await wire.outcome(PATIENCE) == "cut"
        await within(closing)


async def test_who_reads_nothing_has_to_go_though_nothing_more_is_said() -> None:
    """A ping cannot even be sent to it, so the library's own look would wait for ever."""
    limits = Limits(seconds_to_answer=0.2)
    async with game_server(limits=limits) as server, dial(server.url) as speaker:
        await speaker.join("P4")
        async with stalling(server) as stalled:
            connection = server._games["g"].players["P3"]
            connection.transport.write(bytes(2**24))  # at once, or the ping would come before
            assert connection.paused
            await within(server.until(lambda: server.players("g") == ["P4"]))
            assert server.counts.limits_reached == {"seconds_to_answer": 1}
            stalled.close()
        await speaker.silence()


async def test_who_answers_may_stay() -> None:
    """However long it says nothing."""
    async with (
        game_server(limits=Limits(seconds_to_answer=0.02)) as server,
        dial(server.url) as p1,
        raw(server.port) as silent,
    ):
        await p1.join("P1")
        await silent.upgrade()
        assert "(seconds_to_answer)" in (await silent.closed())[1]
        await p1.silence()


async def test_more_sockets_than_there_can_be_clients_are_cut() -> None:
    """Those who ask for nothing do not keep out those who do, once they are given up."""
    limits = Limits(max_connections=1, seconds_to_join=0.5)
    async with game_server(limits=limits) as server, AsyncExitStack() as stack:
        for _ in range(limits.max_sockets):
            await stack.enter_async_context(raw(server.port))
        await eventually(lambda: len(server._sockets) == limits.max_sockets)
        one_more = await stack.enter_async_context(raw(server.port))
        assert await one_more.hear_to_the_end() == []
        assert server.counts.limits_reached == {"max_connections": 1}
        await eventually(lambda: not server._sockets)
        async with dial(server.url) as client:
            await client.join("P1")


# What the tests share


async def get(server: GameServer, path: str) -> tuple[int, str]:
    """What it answers over HTTP: the status, and the text."""
    async with raw(server.port) as wire:
        return await wire.get(path)


async def _paused(server: GameServer) -> Connection:
    """The connection for which more waits than the library lets through."""
    await eventually(lambda: any(each.paused for each in server._sockets))
    return next(each for each in server._sockets if each.paused)


@asynccontextmanager
async def stalling(server: GameServer) -> AsyncIterator[Wire]:
    """P3, who has joined and reads nothing more."""
    async with raw(server.port, SMALL_BUFFER) as wire:
        await wire.upgrade()
        await wire.say("join", game="g", player="P3")
        await within(server.until(lambda: "P3" in server.players("g")))
        yield wire


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


class _Slow(LocalBroker):
    """Takes some turns of the loop for each subscription."""

    async def subscribe(self, game: str) -> None:
        for _ in range(50):
            await asyncio.sleep(0)
