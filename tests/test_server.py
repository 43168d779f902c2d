"""The game server, spoken to by clients that are not ours."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from types import FrameType
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import (
    PATIENCE,
    BrokerThatIsAsked,
    Client,
    dial,
    eventually,
    game_server,
    pubsub,
    recorded,
    tasks,
    within,
)
from wsdemo.balancer import Balancer, round_robin
from wsdemo.brokers import Broker, BrokerDown, LocalBroker, Receipt
from wsdemo.limits import Limits
from wsdemo.protocol import MAX_BODY, MAX_FRAME, MAX_NAME
from wsdemo.redis.backend import FakeRedis, RedisBackend
from wsdemo.server import GameServer
from wsdemo.trace import Trace

JOIN = {"type": "join", "game": "g", "player": "P1"}
TWO_MIB = 2 * 2**20


@pytest.fixture
async def server() -> AsyncIterator[GameServer]:
    """A server whose players may say 100 wrong things."""
    async with game_server(limits=Limits(max_bad_messages=100), trace=Trace()) as server:
        yield server


@pytest.fixture
async def p1(server: GameServer) -> AsyncIterator[Client]:
    """P1, who has joined."""
    async with dial(server.url) as client:
        yield await client.join("P1")


@pytest.fixture
async def p2(server: GameServer) -> AsyncIterator[Client]:
    """P2, who has joined, and is to notice nothing."""
    async with dial(server.url) as client:
        yield await client.join("P2")


class TestConversation:
    async def test_join_is_answered_with_a_welcome(self, server: GameServer) -> None:
        """The welcome names the server and the game, and carries nothing a broker must number."""
        async with dial(server.url) as client:
            welcome = await client.ask("join", game="g", player="P1")
        assert welcome == {"type": "welcome", "server": "A", "game": "g"}

    async def test_join_may_carry_resume(self, server: GameServer) -> None:
        """A broker that keeps nothing ignores where a player's hearing ended."""
        async with dial(server.url) as client:
            welcome = await client.ask(**JOIN, resume={"epoch": "e1", "seq": 17})
        assert welcome == {"type": "welcome", "server": "A", "game": "g"}

    async def test_an_event_reaches_everyone_and_its_sender(self, p1: Client, p2: Client) -> None:
        """Whoever sends an event hears it too, and all hear the same frame."""
        await p2.say("send", id="P2-1", body="jump")
        event = {"type": "event", "id": "P2-1", "player": "P2", "body": "jump"}
        assert await p1.hear() == await p2.hear() == event

    async def test_the_player_of_an_event_is_the_connection(self, p1: Client, p2: Client) -> None:
        """An id that looks like another player's does not make the event theirs."""
        await p2.say("send", id="P1-1", body="it was me")
        assert (await p1.hear())["player"] == "P2"

    async def test_sync_is_answered_after_the_events_sent_before_it(self, p1: Client) -> None:
        """The answer comes after one's own events, in order, however many were sent."""
        for number in range(50):
            await p1.say("send", id=f"P1-{number}", body="x")
        await p1.say("sync", id="here")
        assert [(await p1.hear())["id"] for _ in range(51)] == [
            *(f"P1-{number}" for number in range(50)),
            "here",
        ]

    async def test_ack_is_taken_without_an_answer(self, p1: Client) -> None:
        """A broker that keeps nothing has nothing to say to an ack."""
        await p1.say("ack", seq=18)
        await p1.silence()

    async def test_leave_ends_the_connection_normally(
        self, server: GameServer, p1: Client, p2: Client
    ) -> None:
        """The player is gone from the game, the others stay."""
        await p1.say("leave")
        assert await p1.closed() == (1000, "")
        await within(server.until(lambda: server.players("g") == ["P2"]))
        await p2.silence()

    async def test_games_are_apart(self, server: GameServer, p1: Client) -> None:
        """An event stays in its game, and one name can be in two games."""
        async with dial(server.url) as other:
            await other.join("P1", game="another")
            await other.say("send", id="1", body="x")
            assert (await other.hear())["body"] == "x"
        await p1.silence()

    async def test_text_of_any_script_arrives_unchanged(self, p1: Client, p2: Client) -> None:
        """Bodies are text, not markup: nothing is escaped, cut or interpreted."""
        body = "<script>alert(1)</script> \u202e\x00 ünïcode 🎲 \\ \" '"
        await p1.say("send", id="P1-1", body=body)
        assert (await p2.hear())["body"] == body

    async def test_the_longest_body_passes(self, p1: Client, p2: Client) -> None:
        """MAX_BODY characters fit into a frame even if each takes a long escape, and arrive."""
        body = "🎲" * MAX_BODY
        await p1.say_raw(json.dumps({"type": "send", "id": "P1-1", "body": "é" * MAX_BODY}))
        await p1.say_raw(
            json.dumps({"type": "send", "id": "P1-2", "body": body}, ensure_ascii=False)
        )
        assert (await p2.hear())["body"] == "é" * MAX_BODY
        assert (await p2.hear())["body"] == body

    async def test_a_message_may_come_in_fragments(self, p1: Client, p2: Client) -> None:
        """Fragments of one text message are one message."""
        await p1.connection.send(['{"type":"send","id":"P1-1",', '"body":"in parts"}'])
        assert (await p2.hear())["body"] == "in parts"

    async def test_names_may_be_of_any_script(self, server: GameServer) -> None:
        """Letters and digits of any script, and marks between them; MAX_NAME is allowed."""
        for name in ("Zoë", "Игрок 1", "玩家-1", "a.b:c_d", "x" * MAX_NAME):
            async with dial(server.url) as client:
                await client.join(name)

    async def test_the_name_is_free_again_after_a_disconnect(self, server: GameServer) -> None:
        """A player can come back under its own name as soon as the server has noticed."""
        for _ in range(3):
            async with dial(server.url) as client:
                await client.join("P1")
            await within(server.until(lambda: not server.players("g")))

    async def test_events_wait_for_the_welcome(self) -> None:
        """What a player hears first is the welcome, though others speak all the time."""
        async with game_server() as server, dial(server.url) as speaker:
            await speaker.join("P1")

            async def speak() -> None:
                for number in range(300):
                    await speaker.say("send", id=f"P1-{number}", body="x")
                    await speaker.hear()

            speaking = asyncio.create_task(speak())
            for number in range(20):
                async with dial(server.url) as client:
                    await client.join(f"N{number}")
            await speaking

    async def test_the_trace_tells_the_whole_way(
        self, server: GameServer, p1: Client, p2: Client
    ) -> None:
        """receive, relay and one deliver for each player, in the order in which they happened."""
        await p1.say("send", id="P1-1", body="jump")
        await p2.hear()
        trace = server._trace
        assert trace is not None
        way = [(r.kind, r.at, r.peer) for r in trace.select(event="P1-1")]
        assert way == [
            ("receive", "A", "P1"),
            ("relay", "A", ""),
            ("deliver", "A", "P1"),
            ("deliver", "A", "P2"),
        ]


BAD_FRAMES: dict[str, str | bytes] = {
    "not JSON": "hello",
    "nothing": "",
    "half an object": '{"type":"send"',
    "two objects": '{"type":"leave"}{"type":"leave"}',
    "a list": "[]",
    "null": "null",
    "a number": "17",
    "no type": '{"id":"1","body":"x"}',
    "a type there is not": '{"type":"shout","body":"x"}',
    "a type of the server's": '{"type":"event","id":"1","player":"P2","body":"x"}',
    "a type that is no text": '{"type":["send"],"id":"1","body":"x"}',
    "a field there is not": '{"type":"send","id":"1","body":"x","to":"P2"}',
    "a field too few": '{"type":"send","id":"1"}',
    "a body that is no text": '{"type":"send","id":"1","body":17}',
    "an id with markup": '{"type":"send","id":"<b>","body":"x"}',
    "an empty id": '{"type":"send","id":"","body":"x"}',
    "a body too long": json.dumps({"type": "send", "id": "1", "body": "x" * (MAX_BODY + 1)}),
    "a negative seq": '{"type":"ack","seq":-1}',
    "a seq that is no integer": '{"type":"ack","seq":1.5}',
    "a lone surrogate": '{"type":"send","id":"1","body":"\\ud800"}',
    "a binary frame": json.dumps({"type": "send", "id": "1", "body": "x"}).encode(),
    "binary rubbish": bytes(range(256)),
    "deep nesting": '{"type":"send","id":"1","body":' + "[" * 5000 + "]" * 5000 + "}",
}

BAD_NAMES = {
    "markup": "<b>P1</b>",
    "an ampersand": "P&1",
    "a quotation mark": 'P"1',
    "a control character": "P\x071",
    "a newline": "P1\n",
    "a NUL": "\x00",
    "right-to-left override": "P\u202e1",
    "a zero-width space": "P\u200b1",
    "nothing": "",
    "a space": " ",
    "spaces around": " P1 ",
    "33 characters": "x" * (MAX_NAME + 1),
    "a slash": "../P1",
}


class TestBadInput:
    @pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
    async def test_a_bad_frame_gets_an_error_and_nobody_else_notices(
        self, server: GameServer, p1: Client, p2: Client, frame: str | bytes
    ) -> None:
        """The sender is told what was wrong and may go on; no other player hears of it."""
        await p1.say_raw(frame)
        error = await p1.hear()
        assert (error["type"], error["code"]) == ("error", "bad-message")
        assert error["message"]
        await p1.silence()
        await p2.silence()
        await p1.say("send", id="P1-1", body="still here")
        assert (await p2.hear())["body"] == "still here"

    @pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
    async def test_a_bad_frame_before_the_join_gets_an_error(
        self, server: GameServer, p2: Client, frame: str | bytes
    ) -> None:
        """The same holds for a client that has not joined."""
        async with dial(server.url) as client:
            await client.say_raw(frame)
            assert (await client.hear())["code"] == "bad-message"
            await client.join("P1")
        await p2.silence()

    @pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
    @pytest.mark.parametrize("field", ["player", "game"])
    async def test_a_bad_name_is_refused(
        self, server: GameServer, p2: Client, field: str, name: str
    ) -> None:
        """Markup, control characters, the invisible and the too long name nobody and nothing."""
        async with dial(server.url) as client:
            error = await client.ask(**{**JOIN, field: name})
            assert (error["type"], error["code"]) == ("error", "bad-message")
            await client.join("P1")
        await p2.silence()

    @pytest.mark.parametrize("type", ["send", "ack", "sync", "leave"])
    async def test_join_comes_first(self, server: GameServer, p2: Client, type: str) -> None:
        """Anything else is answered with what to do first."""
        fields: dict[str, dict[str, Any]] = {
            "send": {"id": "1", "body": "x"},
            "ack": {"seq": 1},
            "sync": {"id": "1"},
            "leave": {},
        }
        async with dial(server.url) as client:
            error = await client.ask(type, **fields[type])
            assert (error["type"], error["code"]) == ("error", "join-first")
            assert "join" in error["message"]
            await client.join("P1")
        await p2.silence()

    async def test_joining_twice_is_refused(
        self, server: GameServer, p1: Client, p2: Client
    ) -> None:
        """A player stays who and where it is."""
        error = await p1.ask("join", game="g2", player="P9")
        assert (error["type"], error["code"]) == ("error", "already-joined")
        assert "P1" in error["message"]
        assert server.players("g") == ["P1", "P2"]
        assert server.players("g2") == []
        await p2.silence()

    async def test_a_second_p1_is_refused(self, server: GameServer, p1: Client) -> None:
        """The first keeps its name and its connection."""
        async with dial(server.url) as client:
            error = await client.ask(**JOIN)
            assert (error["type"], error["code"]) == ("error", "name-taken")
            assert "P1" in error["message"]
            await client.join("P2")
        await p1.say("send", id="P1-1", body="x")
        assert (await p1.hear())["body"] == "x"

    async def test_two_at_once_cannot_both_be_p1(self) -> None:
        """A name is taken from the moment its join waits for the broker."""
        async with (
            game_server(broker=_SlowBroker()) as server,
            dial(server.url) as one,
            dial(server.url) as other,
        ):
            answers = await asyncio.gather(one.ask(**JOIN), other.ask(**JOIN))
        assert sorted(answer["type"] for answer in answers) == ["error", "welcome"]

    async def test_a_part_of_the_picture_is_no_name(self) -> None:
        """A player called like a server would be taken for it in every view."""
        async with game_server(reserved_names=["redis", "B"]) as server:
            for name in ("A", "B", "redis"):
                async with dial(server.url) as client:
                    assert (await client.ask("join", game="g", player=name))["code"] == "name-taken"

    async def test_refused_joins_leave_nothing_in_memory(self) -> None:
        """A game that nobody got into is forgotten."""
        async with game_server(reserved_names=["redis"]) as server:
            for number in range(5):
                async with dial(server.url) as client:
                    await client.ask("join", game=f"g{number}", player="redis")
            await eventually(lambda: not server._games, "the server forgets them")

    async def test_five_bad_messages_end_the_connection(self) -> None:
        """Each is answered, the fifth is followed by close code 1008 with the reason."""
        async with (
            game_server() as server,
            dial(server.url) as other,
            dial(server.url) as client,
        ):
            await other.join("P2")
            await client.join("P1")
            for _ in range(5):
                assert (await client.ask("shout"))["code"] == "bad-message"
            code, reason = await client.closed()
            assert (code, reason) == (1008, "at most 5 bad messages (max_bad_messages)")
            await within(server.until(lambda: server.players("g") == ["P2"]))
            await other.silence()

    async def test_no_join_in_time_ends_the_connection(self) -> None:
        """A client that never joins is let go with 1008, however much it says."""
        limits = Limits(seconds_to_join=0.05, max_bad_messages=10**6)
        async with game_server(limits=limits) as server:
            async with dial(server.url) as silent:
                code, reason = await silent.closed()
                assert code == 1008
                assert "join" in reason
            async with dial(server.url) as chatty:
                with pytest.raises(ConnectionClosed) as ended:
                    await _ask_for_ever(chatty)
                assert ended.value.rcvd is not None
                assert ended.value.rcvd.code == 1008

    async def test_the_time_to_join_ends_with_the_join(self) -> None:
        """A player may stay longer than it may take to join."""
        async with (
            game_server(limits=Limits(seconds_to_join=0.2)) as server,
            dial(server.url) as p1,
            dial(server.url) as late,
        ):
            await p1.join("P1")
            await late.closed()  # which takes as long as that
            await p1.silence()


@pytest.mark.parametrize("through_the_balancer", [False, True], ids=["direct", "balancer"])
class TestThroughTheBalancerToo:
    @pytest.fixture
    async def url(self, server: GameServer, through_the_balancer: bool) -> AsyncIterator[str]:
        async with Balancer(round_robin()) as balancer:
            balancer.add("A", "127.0.0.1", server.port)
            yield balancer.url if through_the_balancer else server.url

    @pytest.mark.parametrize("size", [MAX_FRAME + 1, TWO_MIB])
    @pytest.mark.parametrize("frame", ["text", "binary", "fragments"])
    async def test_too_big_gets_an_error_and_1009(
        self, url: str, p2: Client, size: int, frame: str
    ) -> None:
        """JSON says "too-big", then the connection ends with 1009; nobody else notices."""
        async with dial(url) as client:
            await client.join("P1")
            part = "x" * (size // 64 + 1)
            what: Any = {"text": "x" * size, "binary": b"x" * size, "fragments": [part] * 64}
            sending = asyncio.create_task(client.connection.send(what[frame]))
            error = await client.hear()
            assert (error["type"], error["code"]) == ("error", "too-big")
            assert str(MAX_FRAME) in error["message"]
            assert (await client.closed())[0] == 1009
            await asyncio.gather(sending, return_exceptions=True)
        await p2.silence()

    async def test_too_big_before_the_join(self, url: str) -> None:
        """Size is judged before anything else is."""
        async with dial(url) as client:
            sending = asyncio.create_task(client.connection.send("x" * TWO_MIB))
            assert (await client.hear())["code"] == "too-big"
            assert (await client.closed())[0] == 1009
            await asyncio.gather(sending, return_exceptions=True)

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "http://127.0.0.1", "http://127.0.0.1:1", "null"]
    )
    async def test_a_page_from_elsewhere_gets_403(
        self, server: GameServer, url: str, origin: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A web page of another origin cannot connect; no page sees why, but the log says it."""
        for _ in range(3):
            with pytest.raises(InvalidStatus) as refused:
                async with dial(url, origin=origin):
                    pass
            assert refused.value.response.status_code == 403
            assert f"'{origin}' may not connect" in refused.value.response.body.decode()
        [line] = [record for record in caplog.records if "refuses pages" in record.message]
        assert f"'{origin}'" in line.message
        assert server.counts.origins_refused == 3

    async def test_a_slammed_connection_is_only_its_own(
        self, server: GameServer, url: str, p2: Client
    ) -> None:
        """A client that resets its TCP connection is gone; the others go on."""
        for _ in range(5):
            async with dial(url) as client:
                await client.join("P1")
                await client.say("send", id="P1-1", body="last words")
                client.slam()
            await within(server.until(lambda: server.players("g") == ["P2"]))
        while (await p2.ask("sync", id="here"))["type"] == "event":
            pass
        while (await p2.hear())["type"] == "event":
            pass


class TestOrigins:
    async def test_own_origin_and_none_are_welcome(self, server: GameServer) -> None:
        """Pages that this server would serve, and clients that are no browser, may connect."""
        for host in ("127.0.0.1", "localhost"):
            async with dial(server.url, origin=f"http://{host}:{server.port}") as client:
                await client.join("P1")
            await within(server.until(lambda: not server.players("g")))
        async with dial(server.url) as client:
            await client.join("P1")

    async def test_further_origins_can_be_let_in(self) -> None:
        """`origins` lists pages from elsewhere that may connect."""
        async with (
            game_server(origins=["https://class.example"]) as server,
            dial(server.url, origin="https://class.example") as client,
        ):
            await client.join("P1")


class TestWhoDoesNotRead:
    """One who stops reading must not fill the server's memory, nor hold up the others."""

    LIMITS = Limits(max_waiting=256 * 1024)

    async def test_is_aborted_and_the_others_go_on_hearing(self) -> None:
        """Once over `Limits.max_waiting`, its connection is cut, and the trace says why."""
        trace = Trace()
        async with (
            game_server(limits=self.LIMITS, trace=trace) as server,
            dial(server.url) as p2,
            dial(server.url, max_queue=1) as stalled,
        ):
            await p2.join("P2")
            await stalled.join("P1")
            stalled.connection.transport.pause_reading()
            heard = 0
            body = "x" * MAX_BODY
            while server.players("g") != ["P2"]:
                await p2.say("send", id=f"P2-{heard}", body=body)
                assert (await p2.hear())["id"] == f"P2-{heard}"
                heard += 1
                assert heard * MAX_BODY < 64 * 2**20, "it is still not cut off"
            [fault] = trace.select("fault")
            assert (fault.at, fault.peer, fault.data["reason"]) == ("A", "P1", "too slow")
            waiting = fault.data["bytes_waiting"]
            assert self.LIMITS.max_waiting < waiting < 1.5 * self.LIMITS.max_waiting
            await p2.silence()
            stalled.connection.transport.abort()

    async def test_is_found_whatever_happens_in_other_games(self) -> None:
        """The bound holds for each player, also while another game is the busier one."""
        async with (
            game_server(limits=self.LIMITS) as server,
            dial(server.url) as busy,
            dial(server.url) as slow_one,
            dial(server.url, max_queue=1) as stalled,
        ):
            await busy.join("P1", game="busy")
            await slow_one.join("P1", game="slow")
            await stalled.join("P2", game="slow")
            stalled.connection.transport.pause_reading()
            connection = server._games["slow"].players["P2"]
            for number in range(2000):
                await slow_one.say("send", id=f"{number}", body="x" * MAX_BODY)
                await slow_one.hear()
                for _ in range(3):  # so that it is always the busy game that crosses a quarter
                    await busy.say("send", id=f"{number}", body="x" * MAX_BODY)
                    await busy.hear()
                waiting = connection.transport.get_write_buffer_size()
                assert waiting < 4 * self.LIMITS.max_waiting
                if server.players("slow") == ["P1"]:
                    break
            stalled.connection.transport.abort()

    async def test_does_not_hold_up_stop(self) -> None:
        """The server stops though one of its players does not read."""
        async with game_server() as server, dial(server.url) as p2:
            await p2.join("P2")
            async with dial(server.url, max_queue=1) as stalled:
                await stalled.join("P1")
                stalled.connection.transport.pause_reading()
                connection = server._games["g"].players["P1"]
                number = 0
                while connection.transport.get_write_buffer_size() == 0:
                    await p2.say("send", id=f"P2-{number}", body="x" * MAX_BODY)
                    await p2.hear()
                    number += 1
                await within(server.stop(), 3)
                stalled.connection.transport.abort()


class TestTheBroker:
    async def test_garbage_on_the_channel_is_dropped(self, redis: RedisBackend) -> None:
        """Whatever somebody else publishes there, no player hears it and the server goes on."""
        async with game_server(broker=pubsub(redis, "A")) as server, dial(server.url) as p1:
            await p1.join("P1")
            stranger = redis.client()
            for garbage in (
                b"",
                b"hello",
                b"\xff\xfe",
                b"null",
                b'{"type":"leave"}',
                b'{"type":"event","id":"1","player":"<b>","body":"x"}',
                b'{"type":"event","id":"1","player":"P9","body":"\xff"}',
                b"x" * 2**20,
            ):
                await stranger.publish(f"{redis.prefix}game:g", garbage)
                await stranger.publish(f"{redis.prefix}server:A", garbage)
            await stranger.aclose()
            await p1.silence()

    async def test_down_refuses_a_join_for_later(self) -> None:
        """A join that cannot be subscribed is answered with an error, then 1013."""
        async with game_server(broker=_BrokerThatIsDown()) as server, dial(server.url) as client:
            error = await client.ask(**JOIN)
            assert (error["type"], error["code"]) == ("error", "broker-down")
            assert (await client.closed())[0] == 1013
            await eventually(lambda: not server._games)

    async def test_down_is_told_to_the_sender_and_the_one_who_syncs(self) -> None:
        """The error carries the id of what was asked; the player stays."""
        broker, trace = _BrokerThatIsDown(), Trace()
        broker.up = True
        async with game_server(broker=broker, trace=trace) as server, dial(server.url) as p1:
            await p1.join("P1")
            broker.up = False
            error = await p1.ask("send", id="P1-1", body="x")
            assert (error["code"], error["id"]) == ("broker-down", "P1-1")
            error = await p1.ask("sync", id="s")
            assert (error["code"], error["id"]) == ("broker-down", "s")
            broker.up = True
            await p1.silence()
            assert [r.event for r in trace.select("unpublished")] == ["P1-1"]

    async def test_down_does_not_count_as_a_bad_message(self) -> None:
        """It is not the client's fault."""
        broker = _BrokerThatIsDown()
        broker.up = True
        async with game_server(broker=broker) as server, dial(server.url) as p1:
            await p1.join("P1")
            broker.up = False
            for number in range(20):
                assert (await p1.ask("send", id=f"{number}", body="x"))["code"] == "broker-down"

    async def test_a_hundred_players_may_speak_at_once(self, redis: RedisBackend) -> None:
        """Nothing is lost because many say something in the same moment."""
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(game_server(broker=pubsub(redis, "A")))
            clients = []
            for number in range(100):
                client = await stack.enter_async_context(dial(server.url))
                clients.append(await client.join(f"P{number}"))

            async def speak_and_hear(number: int, client: Client) -> list[str]:
                await client.say("send", id=f"{number}", body="x")
                return [(await client.hear()).get("id", "") for _ in clients]

            everything = await asyncio.gather(
                *(speak_and_hear(number, client) for number, client in enumerate(clients))
            )
            assert sorted(everything[0], key=int) == [str(number) for number in range(100)]
            assert all(heard == everything[0] for heard in everything)


async def test_who_gives_up_while_the_server_subscribes_does_not_join() -> None:
    """By the time the broker has answered, it may be a player of another server's."""
    trace, broker = Trace(), BrokerThatIsAsked()
    async with game_server(broker=broker, trace=trace) as server, dial(server.url) as client:
        await client.say("join", game="g", player="P1")
        await broker.asked.wait()
        client.slam()
        await eventually(lambda: not getattr(server, "_sockets"))  # noqa: B009
        broker.answer.set()
        await eventually(lambda: not server.calls)
        assert (server.players("g"), trace.select("join", "disconnect")) == ([], [])


@pytest.mark.parametrize("part", ["server", "killed server", "balancer"])
@pytest.mark.parametrize("turns", range(8))
async def test_who_calls_in_the_moment_of_the_end_is_told(part: str, turns: int) -> None:
    """Whatever the event loop has come to with it: nobody waits for an answer in vain."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(game_server())
        ended: GameServer | Balancer = server
        if part == "balancer":
            ended = await stack.enter_async_context(Balancer(round_robin()))
        caller = stack.enter_context(socket.socket())
        caller.connect(("127.0.0.1", ended.port))
        for _ in range(turns):
            await asyncio.sleep(0)
        await (server.kill() if part == "killed server" else ended.stop())
        caller.setblocking(False)
        with suppress(ConnectionError):
            answer = await within(asyncio.get_running_loop().sock_recv(caller, 100))
            assert answer == b""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system allows 128")
@pytest.mark.parametrize("part", ["server", "balancer"])
async def test_many_may_call_in_the_same_moment(part: str) -> None:
    """Each of 400 is connected before the server gets to the first of them; none is dropped."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(game_server())
        port = server.port
        if part == "balancer":
            balancer = await stack.enter_async_context(Balancer(round_robin()))
            port = balancer.port
        callers = [stack.enter_context(socket.socket()) for _ in range(400)]
        for caller in callers:
            caller.settimeout(PATIENCE)  # this blocks the server too
            caller.connect(("127.0.0.1", port))


async def test_an_event_is_made_into_a_frame_once_for_all_its_players(server: GameServer) -> None:
    """Each of them costs one call of ours more, and no larger dictionary."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1

    async with dial(server.url) as client, dial(server.url) as other:
        await client.join("P1")
        await other.join("P2")
        for connection in getattr(server, "_sockets"):  # noqa: B009
            assert not vars(connection).keys() & {"_gate", "_sockets", "_unread", "_unsent"}
        sys.setprofile(count)
        server.relay("g", b'{"type":"event","id":"1","player":"P2","body":"x"}')
        sys.setprofile(None)
        assert calls["Frame.serialize"] == 1
        assert calls["Connection.write"] == 2
        assert not [call for call in calls if call.startswith(("Connection.send", "Gate"))]
        assert (await client.hear())["id"] == (await other.hear())["id"] == "1"


async def test_what_comes_in_one_turn_of_the_loop_is_written_in_one_go(
    server: GameServer, p1: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its order, of which what the protocol itself says meanwhile, such as a ping, is a part."""
    [connection] = server._sockets
    write, written = connection.transport.write, list[bytes]()
    monkeypatch.setattr(connection.transport, "write", written.append)
    relay_two(server)
    assert not written
    connection.protocol.send_ping(b"there?")
    connection.send_data()
    relay_two(server)
    await a_turn()
    events, ping, more = written
    assert b"there?" in ping
    assert events == more
    monkeypatch.undo()
    for each in written:
        write(each)
    assert [(await p1.hear())["id"] for _ in range(4)] == ["1", "2", "1", "2"]


async def test_nothing_is_written_to_who_is_cut_off_in_the_same_turn(
    server: GameServer, p1: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no socket any more."""
    [connection] = server._sockets
    written = list[bytes]()
    monkeypatch.setattr(connection.transport, "write", written.append)
    relay_two(server)
    connection.transport.abort()
    await a_turn()
    assert not written


async def a_turn() -> None:
    """What the event loop was about to do is done."""
    await asyncio.sleep(0)


def relay_two(server: GameServer) -> None:
    for number in (1, 2):
        server.relay("g", b'{"type":"event","id":"%d","player":"P2","body":"x"}' % number)


class TestFrozen:
    async def test_what_was_relayed_just_before_is_written_when_it_is_thawed(
        self, server: GameServer, p1: Client
    ) -> None:
        """It stands still before the turn of the loop has ended in which it would be written."""
        client = p1.connection.transport.get_extra_info("socket").fileno()
        relay_two(server)
        server.freeze()
        await a_turn()
        assert not select.select([client], [], [], 0)[0]
        server.relay("g", b'{"type":"event","id":"3","player":"P2","body":"x"}')
        server.thaw()
        assert [(await p1.hear())["id"] for _ in range(3)] == ["1", "2", "3"]

    async def test_what_a_broker_still_relays_is_written_when_it_is_thawed(
        self, server: GameServer, p1: Client
    ) -> None:
        """Nothing has left for the client before."""
        client = p1.connection.transport.get_extra_info("socket").fileno()
        server.freeze()
        for number in (1, 2):
            server.relay("g", b'{"type":"event","id":"%d","player":"P2","body":"x"}' % number)
        assert not select.select([client], [], [], 0)[0]
        server.thaw()
        assert select.select([client], [], [], 0)[0]
        assert [(await p1.hear())["id"] for _ in range(2)] == ["1", "2"]

    async def test_nothing_is_answered_until_it_is_thawed(
        self, server: GameServer, p1: Client, p2: Client
    ) -> None:
        """Not even a ping; then everything, in the order in which it was said."""
        server.freeze()
        assert server.state == "frozen"
        pong = await p1.connection.ping()
        for number in range(10):
            await p1.say("send", id=f"P1-{number}", body="x")
            await p2.say("send", id=f"P2-{number}", body="x")
        listening = asyncio.create_task(p1.hear())
        await asyncio.wait([listening, asyncio.ensure_future(pong)], timeout=0.05)
        assert not listening.done()
        assert not pong.done()  # type: ignore[attr-defined]
        assert server._trace is not None
        assert not server._trace.select("receive")
        server.thaw()
        await within(pong)
        heard = [(await within(listening))["id"], *[(await p1.hear())["id"] for _ in range(19)]]
        for player in ("P1", "P2"):
            own = [event for event in heard if event.startswith(player)]
            assert own == [f"{player}-{number}" for number in range(10)]

    async def test_a_client_that_goes_meanwhile_is_heard_to_its_end(
        self, server: GameServer, p2: Client
    ) -> None:
        """What it said before it went counts; that it has gone is learned after that."""
        async with dial(server.url) as client:
            await client.join("P3")
            server.freeze()
            await client.say("send", id="P3-1", body="x")
            client.connection.transport.abort()
        assert "P3" in server.players("g")
        server.thaw()
        assert (await p2.hear())["id"] == "P3-1"
        await within(server.until(lambda: "P3" not in server.players("g")))

    async def test_a_handshake_waits_too(self, server: GameServer) -> None:
        """A new client has a TCP connection, and an answer only when it is thawed."""
        server.freeze()
        async with asyncio.TaskGroup() as group:
            dialling = group.create_task(_dial_and_join(server.url))
            await eventually(lambda: server._sockets)
            await asyncio.wait([dialling], timeout=0.02)
            assert not dialling.done()
            server.thaw()

    async def test_killed_it_leaves_nothing_that_had_waited(self) -> None:
        """What clients had said is gone with it, and its tasks too."""
        before = tasks()
        server = GameServer("A", LocalBroker(), trace=Trace())
        await server.start()
        assert server.state == "up"
        async with dial(server.url) as joined, dial(server.url) as gone:
            await joined.join("P1")
            await gone.join("P2")
            server.freeze()
            await joined.say("send", id="P1-1", body="x")
            reset = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            gone.connection.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, reset
            )
            gone.connection.transport.abort()
            await eventually(lambda: len(server._sockets) == 1)
            await within(server.kill())
            assert await joined.closed() == (None, "")
        assert str(server.state) == "down"
        await server.stop()
        await within(server.kill())  # of what is not there: nothing
        assert server._trace is None
        await eventually(lambda: not tasks() - before)


async def _dial_and_join(url: str) -> None:
    async with dial(url) as client:
        await client.join("P9")


class TestLifetime:
    async def test_no_event_waits_for_the_acknowledgement_of_another(self) -> None:
        """Nagle's algorithm is off on the connections that a server accepts."""
        async with game_server() as server, Balancer(round_robin()) as balancer:
            balancer.add("A", "127.0.0.1", server.port)
            async with dial(balancer.url) as p1:
                await p1.join("P1")
                (connection,) = server._server.connections  # type: ignore[union-attr]
                accepted = connection.transport.get_extra_info("socket")
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    async def test_stop_says_going_away(self) -> None:
        """Players are told with 1001 that it is the server who goes."""
        async with game_server() as server, dial(server.url) as p1:
            await p1.join("P1")
            await within(server.stop())
            assert (await p1.closed())[0] == 1001

    async def test_without_a_trace_everything_works(self, redis: RedisBackend) -> None:
        """Tracing is optional: errors, events and goodbyes need none."""
        async with (
            game_server("A", pubsub(redis, "A")) as a,
            game_server("B", pubsub(redis, "B")) as b,
            dial(a.url) as p1,
            dial(b.url) as p2,
        ):
            await p1.join("P1")
            await p2.join("P2")
            await p1.say("send", id="P1-1", body="jump")
            assert (await p2.hear())["body"] == (await p1.hear())["body"] == "jump"
            assert (await p1.ask("shout"))["code"] == "bad-message"
            await p1.say("leave")
            assert (await p1.closed())[0] == 1000

    async def test_a_taken_port_is_an_error_that_leaves_nothing(self) -> None:
        """`start` raises `OSError`; no socket, task or subscription stays behind."""
        redis = FakeRedis()
        async with game_server() as first:
            second = GameServer("B", pubsub(redis, "B"), port=first.port)
            with pytest.raises(OSError, match="in use"):
                await second.start()
            await second.stop()

    async def test_a_server_may_start_again_on_its_port(self) -> None:
        """Connections that linger from before do not keep the port."""
        port = 0
        for _ in range(3):
            async with game_server(port=port) as server, dial(server.url) as p1:
                port = server.port
                await p1.join("P1")

    async def test_nobody_is_in_a_game_that_is_not(self, server: GameServer) -> None:
        """Asking for it does not make it."""
        assert server.players("nowhere") == []

    def test_nothing_is_written_to_stderr(self) -> None:
        """In a program that has not set up logging, bad clients leave no line on the screen."""
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", _BAD_CLIENTS],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "")

    async def test_the_start_is_recorded_where_it_matters(self, redis: RedisBackend) -> None:
        """A join is recorded after the subscription it had to wait for."""
        trace = Trace()
        async with (
            game_server(broker=pubsub(redis, "A", trace), trace=trace) as server,
            dial(server.url) as p1,
        ):
            await p1.join("P1")
            await recorded(trace, "join")
            assert [record.kind for record in trace] == ["subscribe", "join"]


async def _ask_for_ever(client: Client) -> None:
    while True:
        await client.ask("leave")


_BAD_CLIENTS = """
import asyncio, gc, socket
from websockets.asyncio.client import connect
from wsdemo import open_cluster

async def main():
    async with open_cluster(redis="fake") as cluster:
        ports = [cluster.balancer.port, *(server.port for server in cluster.servers.values())]
        await cluster.join("P2", server="A")
        for port in ports:
            for rubbish in (
                b"", b"GET / HTTP/1.1\\r\\n", b"\\x16\\x03\\x01" + bytes(200), b"GET /\\r\\n\\r\\n",
                b"GET //[ HTTP/1.1\\r\\n\\r\\n", b"POST / HTTP/1.1\\r\\n\\r\\n", b"x" * 20000,
                b"GET /?player=%ff%00 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n",
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(rubbish)
                if len(rubbish) < 20000:
                    writer.write_eof()
                try:
                    await asyncio.wait_for(reader.read(), 5)
                except ConnectionError:
                    pass
                writer.close()
            url = f"ws://127.0.0.1:{port}"
            for frame in (b"binary", "rubbish", "x" * 2**21):
                try:
                    async with connect(url, proxy=None) as client:
                        await client.send('{"type":"join","game":"g","player":"P1"}')
                        await client.send(frame)
                        while "error" not in await client.recv():
                            pass
                        sock = client.transport.get_extra_info("socket")
                        linger = (1).to_bytes(4, "little") + bytes(4)
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        client.transport.abort()
                except Exception:
                    pass
            try:
                async with connect(url, proxy=None, origin="https://evil.example"):
                    pass
            except Exception:
                pass
        await cluster.settle()
    gc.collect()
    print("done")

asyncio.run(main())
"""


class _SlowBroker(LocalBroker):
    """Takes some turns of the loop for each subscription."""

    async def subscribe(self, game: str) -> None:
        for _ in range(50):
            await asyncio.sleep(0)


class _BrokerThatIsDown(Broker):
    """Refuses everything, unless it is up: then it is as good as none."""

    name = "down"
    hub = "redis"
    up = False

    def _check(self) -> None:
        if not self.up:
            raise BrokerDown("out of order")

    async def subscribe(self, game: str) -> None:
        self._check()

    async def unsubscribe(self, game: str) -> None:
        pass

    async def publish(self, game: str, payload: bytes, event: str) -> Receipt:
        self._check()
        self._relay(game, payload, None, "", 0)
        return Receipt(receivers=1)

    async def sync(self) -> None:
        self._check()
