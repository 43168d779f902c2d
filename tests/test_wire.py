"""What went over the wire, taken apart: checked against the RFC and the `websockets` library."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, CloseCode, Frame, Opcode

from wsdemo import wire
from wsdemo.wire import GUID, Chunk, Conversation, Delays, Passage, Side

REQUEST = b"GET /chat HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
SIDES: tuple[Side, Side] = ("client", "server")
CONTROL = (Opcode.CLOSE, Opcode.PING, Opcode.PONG)


def talk_of(*said: tuple[Side, bytes]) -> Conversation:
    """A conversation in which both have said this, a piece each millisecond."""
    return Conversation([Chunk(n / 1000, side, data) for n, (side, data) in enumerate(said)])


def shaken(*said: tuple[Side, bytes]) -> Conversation:
    """The same after a handshake."""
    return talk_of(("client", REQUEST), ("server", RESPONSE), *said)


class TestHandshake:
    def test_the_guid_answers_the_key_of_the_rfc(self) -> None:
        """RFC 6455, section 1.3, answers this key so."""
        hashed = sha1(f"dGhlIHNhbXBsZSBub25jZQ=={GUID}".encode()).digest()
        assert b64encode(hashed) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

    def test_request_and_response_are_the_heads(self) -> None:
        """Without the empty line that ends them, and whatever comes after it."""
        talk = shaken(("client", b"\x81\x80abcd"), ("server", b"\x81\x00"))
        assert talk.request == REQUEST.decode().removesuffix("\r\n\r\n")
        assert talk.response == RESPONSE.decode().removesuffix("\r\n\r\n")
        assert talk.said("server") == RESPONSE + b"\x81\x00"

    @pytest.mark.parametrize("name", ["upgrade", "UPGRADE", "Upgrade"])
    def test_a_header_is_found_in_any_case(self, name: str) -> None:
        """HTTP does not tell capitals from small letters in names."""
        assert shaken().header(name) == "websocket"

    def test_a_header_of_the_request_comes_first(self) -> None:
        """Of a name that both have, the request's is given; without the spaces around it."""
        response = b"HTTP/1.1 200 OK\r\nX-Who:server\r\nX-Only:  a: b \r\n\r\n"
        talk = talk_of(("client", b"GET / HTTP/1.1\r\nx-who: client\r\n\r\n"), ("server", response))
        assert talk.header("X-Who") == "client"
        assert talk.header("x-only") == "a: b"

    def test_a_header_that_is_not_there_is_empty(self) -> None:
        """Also in the body, and where nobody has said anything."""
        body = b"HTTP/1.1 200 OK\r\n\r\nX-Body: no\r\n"
        assert talk_of(("client", REQUEST), ("server", body)).header("X-Body") == ""
        assert Conversation().header("Host") == ""


# Each kind of frame, with a payload of each length at which the head looks different


LENGTHS = st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536]) | st.integers(0, 300)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """A frame that the RFC allows."""
    opcode = draw(st.sampled_from(Opcode))
    length = draw(st.integers(0, 125) if opcode in CONTROL else LENGTHS)
    pattern = draw(st.binary(min_size=1, max_size=8))
    payload = (pattern * (length // len(pattern) + 1))[:length]
    return Frame(opcode, payload, fin=opcode in CONTROL or draw(st.booleans()))


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes, cut anywhere."""
    cuts = sorted(draw(st.sets(st.integers(1, max(len(data) - 1, 1)), max_size=12)))
    found = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [piece for piece in found if piece]


Said = tuple[list[tuple[Side, bytes]], dict[Side, list[tuple[Frame, bytes]]]]


@st.composite
def talks(draw: st.DrawFn) -> Said:
    """Pieces of what both sides say, in one order, and the frames that they make."""
    said: dict[Side, list[tuple[Frame, bytes]]] = {}
    queues: dict[Side, list[bytes]] = {}
    heads: dict[Side, bytes] = {"client": REQUEST, "server": RESPONSE}
    for side, head in heads.items():
        sent = draw(st.lists(frames(), max_size=4))
        said[side] = [(frame, frame.serialize(mask=side == "client")) for frame in sent]
        queues[side] = draw(pieces(head + b"".join(data for _, data in said[side])))
    order = draw(st.permutations([side for side in queues for _ in queues[side]]))
    return [(side, queues[side].pop(0)) for side in order], said


class TestFrames:
    @given(talks())
    @settings(deadline=None)
    def test_as_websockets_has_made_them(self, talk: Said) -> None:
        """Whatever is sent, by whom, and in which pieces: it is found, head, mask and payload."""
        order, said = talk
        found = talk_of(*order).frames
        assert [frame.t for frame in found] == sorted(frame.t for frame in found)
        heads = {"client": len(REQUEST), "server": len(RESPONSE)}
        for side, sent in said.items():
            mine = [frame for frame in found if frame.side == side]
            assert [(f.opcode, f.fin, f.payload) for f in mine] == [
                (f.opcode, f.fin, f.data) for f, _ in sent
            ]
            assert {f.masked for f in mine} <= {side == "client"}
            last = heads[side]
            for frame, (_, data) in zip(mine, sent, strict=True):
                last += len(data)
                n = round(1000 * frame.t)  # the piece that has brought its last byte
                before = sum(len(piece) for who, piece in order[:n] if who == side)
                assert before < last <= before + len(order[n][1])
                assert frame.head + frame.raw == data
                assert frame.size == len(data)
                assert frame.length == len(frame.payload)
                assert frame.mask == (frame.head[-4:] if side == "client" else b"")

    @given(frames(), st.sampled_from(SIDES))
    @settings(deadline=None)
    def test_one_that_is_cut_short_is_not_given(self, frame: Frame, side: Side) -> None:
        """Not until its last byte has come, and it is as old as that byte."""
        sent = frame.serialize(mask=side == "client")
        for cut in {*range(min(len(sent), 16)), len(sent) // 2, len(sent) - 1}:
            assert shaken((side, sent[:cut])).frames == []
            [found] = shaken((side, sent[:cut]), (side, sent[cut:])).frames
            assert (found.payload, found.t) == (frame.data, 0.003)

    def test_the_two_sides_in_the_order_in_which_they_spoke(self) -> None:
        """A ping that was whole before an answer stands before it, whoever has begun first."""
        text = Frame(Opcode.TEXT, b"hello").serialize(mask=False)
        ping = Frame(Opcode.PING, b"?").serialize(mask=True)
        talk = shaken(("server", text[:3]), ("client", ping), ("server", text[3:]))
        assert [(f.side, f.name) for f in talk.frames] == [("client", "ping"), ("server", "text")]

    def test_an_empty_line_in_a_frame_ends_no_head(self) -> None:
        """Only the first one does, also when a frame comes in the same piece."""
        data = Frame(Opcode.TEXT, b"a\r\n\r\nb").serialize(mask=False)
        [frame] = talk_of(("client", REQUEST), ("server", RESPONSE + data)).frames
        assert frame.payload == b"a\r\n\r\nb"

    @pytest.mark.parametrize("code", [CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY])
    @pytest.mark.parametrize("reason", ["", "see you", "até logo"])
    def test_a_close_says_its_code_and_its_reason(self, code: int, reason: str) -> None:
        """The two first bytes are a number, the rest is text."""
        sent = Frame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=True)
        [close] = shaken(("client", sent)).frames
        assert (close.name, close.text) == ("close", f"{code} {reason}".strip())

    def test_a_close_may_be_empty(self) -> None:
        """Without a code it says nothing."""
        [close] = shaken(("server", Frame(Opcode.CLOSE, b"").serialize(mask=False))).frames
        assert close.text == ""

    @pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PONG])
    def test_what_is_not_utf_8_can_be_read_all_the_same(self, opcode: Opcode) -> None:
        """A sign stands for what is no letter; the bytes are as they were."""
        sent = Frame(opcode, b"\x03\xe8\xff\xfe!").serialize(mask=True)
        [frame] = shaken(("client", sent)).frames
        assert frame.payload == b"\x03\xe8\xff\xfe!"
        assert frame.text.endswith("\ufffd\ufffd!")
        assert "\ufffd!" in repr(frame)

    def test_an_opcode_that_nobody_knows_has_its_number(self) -> None:
        """The RFC keeps some for later."""
        [frame] = shaken(("server", b"\x83\x00")).frames
        assert (frame.name, frame.opcode) == ("opcode 3", 3)

    @pytest.mark.parametrize(
        ("opcode", "name"), [(0, "continuation"), (2, "binary"), (9, "ping"), (10, "pong")]
    )
    def test_the_others_have_names(self, opcode: int, name: str) -> None:
        """As the RFC calls them; and the number is the same wherever it is shown."""
        [frame] = shaken(("server", bytes([0x80 | opcode, 0]))).frames
        assert frame.name == name
        assert f" opcode={frame.opcode} " in repr(frame)

    def test_one_shows_its_bits_and_not_all_of_a_long_text(self) -> None:
        """On one line, whatever it says."""
        sent = Frame(Opcode.TEXT, b"a\nb" * 30_000, fin=False).serialize(mask=True)
        [frame] = shaken(("client", sent)).frames
        shown = repr(frame)
        assert shown.startswith(r"client text  fin=0 opcode=1 masked=1 length=90000 'a\nba\nb")
        assert len(shown) < 120

    def test_plain_http_has_none(self) -> None:
        """Bodies are no frames, though they look like some: only a 101 is followed by frames."""
        question = b"GET /events?after=0 HTTP/1.1\r\nHost: x\r\n\r\n"
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\x81\x00"
        said: list[tuple[Side, bytes]] = [("client", question), ("server", answer)]
        assert talk_of(*said * 2).frames == []


class TestFind:
    def test_the_first_frame_that_says_it(self) -> None:
        """Whoever has said it, and however long the rest is."""
        said = [Frame(Opcode.TEXT, text).serialize(mask=False) for text in (b"no", b"a b", b"b")]
        talk = shaken(*[("server", data) for data in said])
        assert talk.find("b").payload == b"a b"

    def test_what_nobody_has_said_is_an_error(self) -> None:
        """It says what to do."""
        with pytest.raises(LookupError, match="no frame has said 'hello' yet; send one"):
            shaken().find("hello")


class TestCrossing:
    @pytest.mark.parametrize(
        ("one", "other", "do"),
        [
            (("client", 1, 3), ("server", 2, 4), True),
            (("client", 1, 4), ("server", 2, 3), True),
            (("client", 1, inf), ("server", 2, inf), True),
            (("client", 1, 2), ("server", 3, 4), False),
            (("client", 1, 2), ("server", 3, inf), False),
            (("client", 1, 3), ("client", 2, 4), False),
        ],
    )
    def test_each_spoke_before_it_had_heard_the_other(
        self, one: tuple[Side, float, float], other: tuple[Side, float, float], do: bool
    ) -> None:
        """Only then have they crossed: one after the other has not, nor two of one side."""
        sides = [Passage(t, side, arrived) for side, t, arrived in (one, other)]
        assert sides[0].crosses(sides[1]) == sides[1].crosses(sides[0]) == do

    def test_a_frame_has_arrived_with_its_last_byte(self) -> None:
        """As it was sent with it; until then it has not."""
        talk = shaken(("server", b"\x81\x02a"), ("server", b"b\x81\x00"))
        assert [frame.arrived for frame in talk.frames] == [inf, inf]
        talk.chunks[-2].arrived, talk.chunks[-1].arrived = 5.0, 6.0
        assert [(frame.t, frame.arrived) for frame in talk.frames] == [(0.003, 6.0)] * 2


class TestDelays:
    def test_a_question_without_an_event_was_in_vain(self) -> None:
        """Two events may come with one answer, and each answer is that to the question before."""
        delays = Delays([1.5, 1.6, 3.5], {"polling": [2.1, 2.1, 4.1]}, [0, 1, 2, 3, 4])
        assert delays.in_vain == [0, 1, 3]
        assert Delays([], {}, [0]).in_vain == [0]
        assert Delays([], {}, []).in_vain == []

    def test_how_many_questions_an_event_has_waited_for(self) -> None:
        """The most of any event; none for one that came with an answer that was under way."""
        heard = {"polling": [2.1, 4.1]}
        assert Delays([1.5, 3.5], heard, [1, 2, 3, 4]).most_questions == 1
        assert Delays([1.5, 2.5], heard, [1, 2, 3, 4]).most_questions == 2
        assert Delays([2.05], heard, [1, 2, 3]).most_questions == 0
        assert Delays([1.5], {}, []).most_questions == 0

    def test_it_says_what_each_way_took(self) -> None:
        """The set-up and what came after it in bytes, and the waits: least, most, and average."""
        delays = Delays(
            [1.0, 2.0],
            {"WebSocket": [1.001, 2.003], "polling": [1.03, 2.09]},
            [0.5, 1.02, 1.5, 2.08],
            {"WebSocket": 500, "polling": 0},
            {"WebSocket": 116, "polling": 2406},
        )
        assert str(delays).splitlines() == [
            "in bytes    set-up  after it  an event   which was heard",
            "WebSocket      500       116        58   1 to 3 ms later, 2 on average",
            "polling          0     2,406     1,203   30 to 90 ms later, 60 on average",
            "polling asked 4 times, 2 of them in vain",
        ]
        assert "never" in str(Delays([1.0], {"WebSocket": []}, []))
        assert "   1 ms later" in str(Delays([1.0], {"WebSocket": [1.001]}, []))


class TestKeeping:
    def test_up_to_most_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of both sides together, and no byte more; of what was kept, nothing is lost."""
        monkeypatch.setattr(wire, "MOST", 10)
        talk = Conversation()
        for side in SIDES * 2:
            talk.add(side, b"1234")
        assert talk.kept == 10
        assert (talk.said("client"), talk.said("server")) == (b"123412", b"1234")
        assert len(talk.chunks) == 3
        assert talk.add("server", b"1234").data == b""

    def test_the_end_is_kept_however_long_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """How a conversation ended can be asked also of one that was too long to keep."""
        monkeypatch.setattr(wire, "MOST", 1)
        talk = Conversation()
        talk.add("client", b"xxx")
        talk.add("client", end="FIN")
        talk.add("server", end="RST")
        assert [(c.side, c.end, c.data) for c in talk.ends] == [
            ("client", "FIN", b""),
            ("server", "RST", b""),
        ]

    def test_time_goes_on_from_when_it_began(self) -> None:
        """Each chunk is as late as it came."""
        talk = Conversation()
        for _ in range(3):
            talk.add("client", b"x")
        times = [chunk.t for chunk in talk.chunks]
        assert times == sorted(times)
        assert 0 <= times[0] < 5
