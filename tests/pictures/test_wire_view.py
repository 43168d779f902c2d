"""The pictures of what went over the wire: whatever was said can be drawn, and is put in words."""

from __future__ import annotations

import io
import itertools
from math import inf

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image
from websockets.frames import Frame, Opcode

from wsdemo.pictures.picture import Picture, one_line, shortened
from wsdemo.pictures.wire import LANES, MOST, conversation_picture, delays_picture
from wsdemo.wire import Chunk, Conversation, Delays, Side

REQUEST = b"GET /chat HTTP/1.1\r\nHost: x\r\n\r\n"
RESPONSE = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
HOSTILE = [
    "$\\frac{1}{0}$ <b>$",
    "$",
    "\\$\\",
    "\x00\x1b[31m\u202e\u2028\n\r\ttabs",
    "x" * 1_000_000,
    "☃🦖 \u0301\u0301\u0301",
    "",
]


def frame(side: Side, text: str | bytes, opcode: Opcode = Opcode.TEXT) -> tuple[Side, bytes]:
    """A frame of this side."""
    data = text.encode() if isinstance(text, str) else text
    return side, Frame(opcode, data).serialize(mask=side == "client")


def talk_of(*said: tuple[Side, bytes], fin: bool = False) -> Conversation:
    """A conversation after its handshake, a piece each millisecond, which takes half of it."""
    talk = Conversation([Chunk(0.0, "client", REQUEST), Chunk(0.001, "server", RESPONSE)])
    clock = itertools.count(2)
    talk.chunks += [Chunk(next(clock) / 1000, side, data) for side, data in said]
    if fin:
        talk.chunks += [Chunk(next(clock) / 1000, "server", end="FIN")]
        talk.chunks += [Chunk(next(clock) / 1000, "client", end="FIN")]
    for chunk in talk.chunks:
        chunk.arrived = chunk.t + 0.0005
    return talk


def texts(picture: Picture) -> list[str]:
    """Everything that is written in it."""
    [ax] = picture.axes
    return [text.get_text() for text in ax.texts if text.get_text()]


def arrows(picture: Picture) -> list[tuple[str, float, float]]:
    """Whose each arrow is, how far down it begins, and how far down it ends."""
    [ax] = picture.axes
    found = [t for t in ax.texts if isinstance(t, Annotation) and not t.get_text()]
    sides = {x: side for side, x in LANES.items()}
    return [(sides[t.xyann[0]], float(t.xyann[1]), float(t.xy[1])) for t in found]


def size_of(picture: Picture) -> tuple[int, int]:
    """The width and the height of its PNG, which can be read."""
    png = picture._repr_png_()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        return image.size


class TestConversation:
    def test_words_say_what_it_shows(self) -> None:
        """A line for each message in order: whose, which, what it says, and its bytes."""
        said = [
            frame("client", "hello"),
            frame("server", "hello"),
            frame("client", "", Opcode.PING),
            frame("client", b"\x03\xe8bye", Opcode.CLOSE),
        ]
        picture = conversation_picture(talk_of(*said, fin=True))
        assert repr(picture).splitlines() == [
            "A conversation on the wire",
            f"client HTTP GET /chat HTTP/1.1, {len(REQUEST)} bytes",
            f"server HTTP HTTP/1.1 101 Switching Protocols, {len(RESPONSE)} bytes",
            "client text hello, 11 bytes",
            "server text hello, 7 bytes",
            "client ping , 6 bytes",
            "client close 1000 bye, 11 bytes",
            "server end FIN, 0 bytes",
            "client end FIN, 0 bytes",
        ]

    def test_an_arrow_for_each_message_from_who_sent_it(self) -> None:
        """From top to bottom as they were sent, each down to where it arrives."""
        said = [frame("client", "a"), frame("client", "b"), frame("server", "c")]
        found = arrows(conversation_picture(talk_of(*said, fin=True)))
        sides = ["client", "server", "client", "client", "server", "server", "client"]
        assert [side for side, _, _ in found] == sides
        rows = [row for _, top, bottom in found for row in (top, bottom)]
        assert rows == sorted(rows)
        assert all(bottom - top > 0.9 for _, top, bottom in found)

    def test_what_crosses_is_seen_to(self) -> None:
        """Each begins above where the other ends; and the words say so."""
        talk = talk_of(frame("client", "a"), frame("server", "b"), frame("client", "c"))
        one, other = talk.chunks[2:4]
        one.arrived, other.arrived = 0.0036, 0.0037
        picture = conversation_picture(talk)
        (_, top, bottom), (_, start, end) = arrows(picture)[2:4]
        assert top < start < bottom < end
        assert [line for line in repr(picture).splitlines() if "crosses" in line] == [
            "server text b, 3 bytes, crosses one before it"
        ]

    def test_what_has_not_arrived_ends_half_way(self) -> None:
        """It may still be under way."""
        talk = talk_of(frame("client", "a"))
        talk.chunks[-1].arrived = inf
        [ax] = conversation_picture(talk).axes
        tips = [t.xy[0] for t in ax.texts if isinstance(t, Annotation) and not t.get_text()]
        assert tips == [LANES["server"], LANES["client"], sum(LANES.values()) / 2]

    def test_a_time_without_a_word_is_a_gap(self) -> None:
        """It says how long, and makes room for that; not while something is under way."""
        talk = talk_of(*[frame("client", "x")] * 4)
        near = arrows(conversation_picture(talk))
        for chunk, later in zip(talk.chunks[2:], (0.0, 0.0207, 3.0, 3.0), strict=True):
            chunk.t += later
            chunk.arrived += later
        talk.chunks[-1].arrived += 5
        picture = conversation_picture(talk)
        assert [text for text in texts(picture) if "later" in text] == [
            "21 ms later",
            "3 s later",
        ]
        assert arrows(picture)[3][1] > near[3][1] + 1

    @pytest.mark.parametrize(
        ("side", "text", "shown"),
        [
            ("client", '{"type":"join","game":"g","player":"P1"}', "join P1"),
            ("server", '{"type":"welcome","server":"A","game":"g"}', "welcome"),
            ("client", '{"type":"send","id":"1","body":"hello"}', "hello"),
            ("server", '{"type":"event","id":"P2-1","player":"P2","body":"jump"}', "P2: jump"),
            ("client", '{"player":"P1"}', '{"player":"P1"}'),
            ("client", "[1, 2]", "[1, 2]"),
            ("client", "[" * 100_000, "[" * 23 + "…"),
            ("client", "hello", "hello"),
            ("client", "", "(text)"),
        ],
    )
    def test_a_text_is_shown_by_what_matters(self, side: Side, text: str, shown: str) -> None:
        """Of a game's messages, who and what, without the JSON around it; any other as it is."""
        assert shown in texts(conversation_picture(talk_of(frame(side, text))))

    def test_the_others_are_shown_by_their_kind(self) -> None:
        """A close has its code; the end of TCP takes no bytes of the conversation."""
        said = [
            frame("client", "still there?", Opcode.PING),
            frame("server", b"\x03\xe8bye", Opcode.CLOSE),
        ]
        shown = texts(conversation_picture(talk_of(*said, fin=True)))
        assert {"GET /chat", "101 Switching Protocols", "ping", "close 1000 bye"} <= set(shown)
        assert shown.count("TCP ends (FIN)") == 2
        assert "18 bytes" in shown
        assert "0 bytes" not in shown

    def test_it_can_be_read_from_the_back_row(self) -> None:
        """It is as wide as a notebook, and no text in it is smaller than 10 points."""
        picture = conversation_picture(talk_of(frame("client", "hello"), fin=True))
        [ax] = picture.axes
        sizes = [float(text.get_fontsize()) for text in [*ax.texts, ax.xaxis.label]]
        assert min(sizes) >= 10
        assert size_of(picture)[0] <= 1050

    def test_at_most_so_many_messages(self) -> None:
        """The first ones, and the picture and its words say how many there are in all."""
        picture = conversation_picture(talk_of(*[frame("client", f"{n}") for n in range(MOST)]))
        assert len(arrows(picture)) == MOST
        first, *lines = repr(picture).splitlines()
        assert len(lines) == MOST
        assert first == f"A conversation on the wire, the first {MOST} of {MOST + 2}"
        [ax] = picture.axes
        assert ax.get_xlabel().endswith(f", the first {MOST} of {MOST + 2}")
        size_of(picture)
        just_as_many = conversation_picture(talk_of(*[frame("client", "x")] * (MOST - 2)))
        assert "first" not in repr(just_as_many).splitlines()[0]

    def test_what_keeps_it_alive_is_left_out_first(self) -> None:
        """So a long silence hides nothing else; a ping that somebody has sent is kept."""
        silence = [frame("server", b"\x01\x02\x03\xff", Opcode.PING)] * MOST
        mine = [frame("client", "still there?", Opcode.PING)]
        picture = conversation_picture(talk_of(*silence, *mine, fin=True))
        first, *lines = repr(picture).splitlines()
        assert first == f"A conversation on the wire, without {MOST} pings and pongs"
        assert [line.split()[1] for line in lines] == ["HTTP", "HTTP", "ping", "end", "end"]
        few = conversation_picture(talk_of(*silence[:2], *mine))
        assert repr(few).count("ping") == 3

    def test_a_frame_in_one_piece_with_the_handshake_is_a_message_of_its_own(self) -> None:
        """And the handshake has the bytes of its head only."""
        chunks = [
            Chunk(0.0, "client", REQUEST, arrived=0.05),
            Chunk(0.1, "server", RESPONSE + frame("server", "hi")[1], arrived=0.2),
        ]
        assert repr(conversation_picture(Conversation(chunks))).splitlines()[2:] == [
            f"server HTTP HTTP/1.1 101 Switching Protocols, {len(RESPONSE)} bytes",
            "server text hi, 4 bytes",
        ]

    def test_the_rest_of_a_long_frame_is_no_http(self) -> None:
        """Whatever words it begins with: they are in the middle of a frame."""
        _, data = frame("server", "HTTP/1.1 200 OK")
        talk = talk_of(frame("client", "x"), ("server", data[:2]), ("server", data[2:]))
        assert [line.split()[1] for line in repr(conversation_picture(talk)).splitlines()[1:]] == [
            "HTTP",
            "HTTP",
            "text",
            "text",
        ]

    def test_one_side_may_end_before_the_other(self) -> None:
        """What the other says after that stands after it."""
        talk = talk_of(frame("client", "x"))
        talk.chunks.append(Chunk(1.0, "client", end="FIN"))
        talk.chunks.append(Chunk(2.0, *frame("server", "y")))
        kinds = [line.split()[:2] for line in repr(conversation_picture(talk)).splitlines()[-2:]]
        assert kinds == [["client", "end"], ["server", "text"]]

    def test_plain_http_is_shown_to_its_end(self) -> None:
        """Each question and each answer, with their bodies."""
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\x81\x00abc"
        said: list[tuple[Side, bytes]] = [("client", REQUEST), ("server", answer)] * 2
        chunks = [Chunk(n, side, data, arrived=n + 0.5) for n, (side, data) in enumerate(said)]
        talk = Conversation(chunks)
        assert (
            repr(conversation_picture(talk)).splitlines()[1:]
            == [
                f"client HTTP GET /chat HTTP/1.1, {len(REQUEST)} bytes",
                f"server HTTP HTTP/1.1 200 OK, {len(answer)} bytes",
            ]
            * 2
        )

    @pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
    @pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
    def test_words_are_text_and_not_formulas(self, text: str, opcode: Opcode) -> None:
        """What is said is drawn as it is, dollar signs and all, and stays on its line."""
        picture = conversation_picture(talk_of(frame("client", text, opcode)))
        assert size_of(picture) == size_of(conversation_picture(talk_of(frame("client", "x"))))
        assert len(repr(picture).splitlines()) == 4
        assert len(repr(picture)) < 300
        assert all(c.isprintable() or c == "\n" for c in repr(picture))
        if len(text) < 60:
            assert text.count("$") == repr(picture).count("$")

    def test_what_is_no_utf_8_can_be_drawn(self) -> None:
        """Also where the first lines are no HTTP that anybody knows."""
        talk = talk_of(frame("server", b"\xff\xfe\x00", Opcode.BINARY), ("server", b"\x83\x01\xff"))
        talk.chunks[0] = Chunk(0, "client", b"GET /\xff\x00$\xb2$\r\n\r\n")
        size_of(conversation_picture(talk))

    def test_an_empty_one_is_a_picture(self) -> None:
        """Two lines and no arrow."""
        picture = conversation_picture(Conversation())
        assert repr(picture) == "A conversation on the wire"
        assert texts(picture) == ["client", "server"]
        assert size_of(picture) > (500, 100)


class TestDelays:
    def test_words_say_how_many_were_heard(self) -> None:
        """By each way; and how often it was asked, in vain or not."""
        delays = Delays([1.0, 2.0], {"WebSocket": [1.1, 2.1], "polling": [1.5]}, [0.5, 1.4])
        picture = delays_picture(delays)
        assert repr(picture).splitlines() == [
            "When each event was said and heard",
            "WebSocket: 2 of 2 heard",
            "polling: 1 of 2 heard",
            "asked 2 times, 1 of them in vain",
        ]
        size_of(picture)

    def test_it_is_to_scale(self) -> None:
        """Each event from when it was said to when it was heard, in ms from whatever came first."""
        delays = Delays(
            [7.0, 8.0], {"WebSocket": [7.125, 8.25], "polling": [7.5, 8.5]}, [6.5, 7.25, 8.375]
        )
        [ax] = delays_picture(delays).axes
        lines = [
            (list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))  # type: ignore[arg-type]
            for line in ax.lines
        ]
        above, below = -1, 1
        for x, way in [
            ([500, 625], above),
            ([1500, 1750], above),
            ([500, 1000], below),
            ([1500, 2000], below),
        ]:
            assert (x, [0, way]) in lines
        assert ([500, 1500], [0, 0]) in lines
        assert ([625, 1750], [above] * 2) in lines
        assert ([1000, 2000], [below] * 2) in lines
        assert ([0], [below]) in lines  # asked in vain

    def test_it_explains_itself(self) -> None:
        """Each line has a name, with what its empty marks are; beside it stand the waits."""
        delays = Delays(
            [7.0, 8.0], {"WebSocket": [7.125, 8.125], "polling": [7.5, 8.25]}, [6.5, 7.25, 8.2]
        )
        [ax] = delays_picture(delays).axes
        assert [text.get_text() for text in ax.texts] == [
            "125 ms later",
            "250 to 500 ms later,\n375 on average",
        ]
        names = {label.get_text() for label in ax.get_yticklabels()}
        assert names == {
            "said",
            "heard by WebSocket",
            "heard by polling\n○ asked in vain (1)",
        }

    @pytest.mark.parametrize(
        "delays",
        [
            Delays([], {}, []),
            Delays([], {"WebSocket": [], "polling": []}, [0.1]),
            Delays([1.0], {"WebSocket": [], "polling": []}, []),
        ],
    )
    def test_nothing_said_or_heard_is_a_picture(self, delays: Delays) -> None:
        """Lines without anything on them."""
        picture = delays_picture(delays)
        assert size_of(picture) > (500, 100)
        assert not picture.axes[0].texts


class TestPicture:
    def test_it_is_a_figure_that_shows_itself(self) -> None:
        """As a PNG of few colours, with the size in inches that it was given, at 110 dots each."""
        picture = Picture(3, 2)
        picture.subplots()
        assert isinstance(picture, Figure)
        assert size_of(picture) == (330, 220)
        with Image.open(io.BytesIO(picture._repr_png_())) as image:
            assert image.mode == "P"

    def test_a_text_is_cut_and_stays_on_its_line(self) -> None:
        """To so many characters, of which an escaped dollar sign is one."""
        assert one_line("abcd", 4) == "abcd"
        assert one_line("abcde", 4) == "abc…"
        assert one_line("a\nb\x00", 4) == "a\ufffdb\ufffd"
        assert shortened("$$$$", 4) == r"\$\$\$\$"
        assert shortened("$$$$$", 4) == r"\$\$\$…"
