"""The wire's messages, and what is not one of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wsdemo.protocol import (
    MAX_BODY,
    MAX_FRAME,
    MAX_NAME,
    Ack,
    BadMessage,
    Close,
    Error,
    Event,
    FromClient,
    FromServer,
    Join,
    Leave,
    Position,
    Send,
    Stored,
    Sync,
    Synced,
    Welcome,
    check_name,
    decode_event,
    decode_from_client,
    decode_from_server,
    encode,
)

FROM_CLIENT: dict[str, FromClient] = {
    '{"type":"join","game":"g","player":"P1"}': Join("g", "P1"),
    '{"type":"join","game":"g","player":"P1","resume":{"epoch":"e1","seq":17}}': Join(
        "g", "P1", Position("e1", 17)
    ),
    '{"type":"send","id":"P2-1","body":"jump"}': Send("P2-1", "jump"),
    '{"type":"ack","seq":18}': Ack(18),
    '{"type":"sync","id":"1"}': Sync("1"),
    '{"type":"leave"}': Leave(),
}
FROM_SERVER: dict[str, FromServer] = {
    '{"type":"welcome","server":"B","game":"g"}': Welcome("B", "g"),
    '{"type":"welcome","server":"B","game":"g","epoch":"e1","seq":17,"recovered":true}': Welcome(
        "B", "g", "e1", 17, True
    ),
    '{"type":"event","id":"P2-1","player":"P2","body":"jump"}': Event("P2-1", "P2", "jump"),
    '{"type":"event","id":"P2-1","player":"P2","body":"jump","seq":18}': Event(
        "P2-1", "P2", "jump", 18
    ),
    '{"type":"stored","id":"P2-1","seq":18}': Stored("P2-1", 18),
    '{"type":"synced","id":"1"}': Synced("1"),
    '{"type":"error","code":"bad-message","message":"…"}': Error("bad-message", "…"),
    '{"type":"error","code":"broker-down","message":"…","id":"P2-1"}': Error(
        "broker-down", "…", "P2-1"
    ),
}


def decode_event_text(frame: str) -> Event:
    """An event that travels as the bytes of this frame."""
    return decode_event(frame.encode())


Decoder = Callable[[str], FromClient | FromServer]
DECODERS: list[Decoder] = [decode_from_client, decode_from_server, decode_event_text]
every_decoder = pytest.mark.parametrize("decode", DECODERS)


def refusal(decode: Decoder, frame: str) -> str:
    """What a decoder says is wrong with a frame."""
    with pytest.raises(BadMessage) as raised:
        decode(frame)
    return str(raised.value)


# The messages there are


@pytest.mark.parametrize(("frame", "message"), FROM_CLIENT.items())
def test_a_clients_message_is_read_and_written(frame: str, message: FromClient) -> None:
    """Each message of a client has the one form that the wire's table gives it."""
    assert decode_from_client(frame) == message
    assert encode(message).decode() == frame


@pytest.mark.parametrize(("frame", "message"), FROM_SERVER.items())
def test_a_servers_message_is_read_and_written(frame: str, message: FromServer) -> None:
    """Each message of a server has the one form that the wire's table gives it."""
    assert decode_from_server(frame) == message
    assert encode(message).decode() == frame


def test_each_side_takes_only_the_others_messages() -> None:
    """A server takes no welcome, a client takes no join, and a broker carries only events."""
    for frame, message in FROM_SERVER.items():
        refusal(decode_from_client, frame)
        if not isinstance(message, Event):
            refusal(decode_event_text, frame)
    for frame in FROM_CLIENT:
        refusal(decode_from_server, frame)
        refusal(decode_event_text, frame)


def test_an_event_travels_through_a_broker_as_its_frame() -> None:
    """What a server encodes for its players is what it decodes from a broker."""
    event = Event("P2-1", "P2", 'h“i"\\de\x00😀', 3)
    assert decode_event(encode(event)) == event
    assert decode_from_server(encode(event).decode()) == event


def test_space_and_order_do_not_matter() -> None:
    """A client may write its JSON as it likes."""
    frame = ' {\n "body" : "jump",\t"id":"P2\\u002d1" , "type":"send" }\r\n'
    assert decode_from_client(frame) == Send("P2-1", "jump")


@pytest.mark.parametrize(
    ("frame", "decode"),
    [(frame, decode_from_client) for frame in FROM_CLIENT]
    + [(frame, decode_from_server) for frame in FROM_SERVER]
    + [(frame, decode_event_text) for frame in FROM_SERVER if "event" in frame],
)
def test_a_wrong_field_is_named(frame: str, decode: Decoder) -> None:
    """A field too many, of another type, or too few is refused, and the text names it."""
    optional = {"resume", "epoch", "seq", "recovered", "id"}
    fields: dict[str, Any] = json.loads(frame)
    assert "`admin`" in refusal(decode, json.dumps({**fields, "admin": True}))
    for name in fields.keys() - {"type"}:
        assert f"$.{name}" in refusal(decode, json.dumps({**fields, name: [1]}))
        assert f"$.{name}" in refusal(
            decode, json.dumps({**fields, name: False if name != "recovered" else 1})
        )
        fewer = json.dumps({key: value for key, value in fields.items() if key != name})
        if name in optional and not (name == "id" and "body" in fields):
            with suppress(BadMessage):
                decode(fewer)
        else:
            assert f"`{name}`" in refusal(decode, fewer)


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        ('{"type":"join","game":"g","player":"P1","resume":{"epoch":"e"}}', "`seq`"),
        ('{"type":"join","game":"g","player":"P1","resume":{"seq":1}}', "`epoch`"),
        ('{"type":"join","game":"g","player":"P1","resume":{"epoch":"e","seq":-1}}', "resume.seq"),
        ('{"type":"join","game":"g","player":"P1","resume":{"epoch":"","seq":1}}', "resume.epoch"),
        ('{"type":"join","game":"g","player":"P1","resume":{"epoch":"e","seq":1,"x":1}}', "`x`"),
        ('{"type":"ack","seq":-1}', "$.seq"),
        ('{"type":"ack","seq":1.5}', "$.seq"),
        ('{"type":"ack","seq":"1"}', "$.seq"),
        ('{"type":"ack"}', "`seq`"),
        ('{"type":"send","id":"P2-1"}', "`body`"),
        ('{"type":"send","body":"jump"}', "`id`"),
        ('{"type":"send","id":"","body":"jump"}', "$.id"),
        ('{"type":"send","id":"<b>","body":"jump"}', "'<b>' is no name or id"),
        (f'{{"type":"send","id":"{"x" * 65}","body":"jump"}}', "$.id"),
        ('{"type":"sync","id":"\\n"}', "is no name or id"),
        ('{"type":"shout"}', "shout"),
        ('{"type":"Leave"}', "Leave"),
        ('{"type":1}', "$.type"),
        ('{"type":null}', "$.type"),
        ('{"Type":"leave"}', "`type`"),
        ("{}", "`type`"),
    ],
)
def test_what_a_client_got_wrong_is_named(frame: str, named: str) -> None:
    """The refusal says which field of the client's message is wrong."""
    assert named in refusal(decode_from_client, frame)


def test_an_event_needs_its_id() -> None:
    """Neither a player nor a broker takes an event without its id, player or body."""
    for name in ("id", "player", "body"):
        fields = {"type": "event", "id": "P2-1", "player": "P2", "body": "jump"}
        del fields[name]
        assert f"`{name}`" in refusal(decode_from_server, json.dumps(fields))
        assert f"`{name}`" in refusal(decode_event_text, json.dumps(fields))


def test_a_server_says_only_what_the_table_lists() -> None:
    """An error has one of the codes there are."""
    assert "$.code" in refusal(decode_from_server, '{"type":"error","code":"x","message":"…"}')


DEEP = "[" * 60_000
NONSENSE = {
    "nothing": "",
    "spaces": " \n",
    "text": "jump",
    "half": '{"type":"leave"',
    "two": '{"type":"leave"}{"type":"leave"}',
    "list": '["leave"]',
    "string": '"leave"',
    "null": "null",
    "NaN": '{"type":"ack","seq":NaN}',
    "infinity": '{"type":"ack","seq":Infinity}',
    "too large a number": '{"type":"ack","seq":1e999}',
    "too many digits": '{"type":"ack","seq":%s}' % ("9" * 5_000),
    "single quotes": "{'type':'leave'}",
    "comma at the end": '{"type":"leave",}',
    "comment": '{"type":"leave"} // bye',
    "byte order mark": '\ufeff{"type":"leave"}',
    "null byte": '{"type":"leave"}\0',
    "raw control character": '{"type":"send","id":"1","body":"\x01"}',
    "lone surrogate": '{"type":"send","id":"1","body":"\\ud800"}',
    "lone second surrogate": '{"type":"send","id":"1","body":"\\udc00"}',
    "lone surrogate in a name": '{"type":"leave","\\ud800":1}',
    "deep list": DEEP,
    "deep list closed": DEEP + "]" * 60_000,
    "deep object": '{"type":' * 10_000,
    "deep body": '{"type":"send","id":"1","body":' + DEEP,
    "deep event body": '{"type":"event","id":"1","player":"P1","body":' + DEEP,
    "deep, before the type": '{"x":' + DEEP,
    "deep, closed, before the type": '{"x":' + DEEP + "]" * 60_000 + ',"type":"leave"}',
    "deep, closed, before an event": '{"x":' + DEEP + "]" * 60_000 + ',"type":"event"}',
    "deep, after the type": '{"type":"leave","x":' + DEEP,
    "two types": '{"type":"leave","type":"join"}',
}


@every_decoder
@pytest.mark.parametrize("frame", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_a_bad_message(decode: Decoder, frame: str) -> None:
    """Whatever is no message of the wire is refused with a reason, and never otherwise."""
    assert refusal(decode, frame)


def test_a_frame_with_a_lone_surrogate_is_a_bad_message() -> None:
    """Text that could not have come in UTF-8 is refused."""
    refusal(decode_from_client, '{"type":"send","id":"1","body":"\ud800"}')
    refusal(decode_from_server, '{"type":"synced","id":"\udfff"}')


@pytest.mark.parametrize("decode", [decode_from_client, decode_from_server])
def test_a_binary_frame_is_refused(decode: Callable[[str | bytes], object]) -> None:
    """A binary frame is a bad message even where its bytes are one; the text says what to send."""
    for frame in (b'{"type":"leave"}', b'{"type":"synced","id":"1"}', b""):
        with pytest.raises(BadMessage, match="binary frame; send JSON in a text frame"):
            decode(frame)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"\x00" * 100,
        b'{"type":"event","id":"P2-1","player":"P2","body":"\xff"}',
        b'{"type":"event","id":"P2-1","player":"P2","\xc3":"x"}',
        b'{"type":"event","id":"P2-1","player":"P2","body":"\xed\xa0\x80"}',
    ],
)
def test_what_a_stranger_publishes_is_a_bad_message(payload: bytes) -> None:
    """Bytes on a broker's channel that are no event are refused."""
    with pytest.raises(BadMessage):
        decode_event(payload)


def test_a_field_given_twice_counts_once() -> None:
    """The last of two fields of one name counts, and it is checked as if it were alone."""
    assert decode_from_client('{"type":"ack","seq":1,"seq":2}') == Ack(2)
    refusal(decode_from_client, '{"type":"ack","seq":1,"seq":-1}')


# Any input at all

keys = st.sampled_from(
    [
        "type",
        "game",
        "player",
        "id",
        "body",
        "seq",
        "resume",
        "epoch",
        "server",
        "recovered",
        "code",
        "message",
        "x",
    ]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(st.characters(), max_size=40)
    | st.sampled_from(["join", "send", "ack", "sync", "leave", "welcome", "event", "stored"])
    | st.sampled_from(["synced", "error", "bad-message", "P1", "g", "P2-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)
bodies = st.text(st.characters(codec="utf-8"), max_size=60)
names = st.sampled_from(["P1", "g", "P2-1", "Мария", "", "<b>"])
numbers = st.integers(-1, 2**65) | st.sampled_from([0, 2**63, 2**64, 10**25, 10**4000])
likely = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                "join",
                "send",
                "ack",
                "sync",
                "leave",
                "welcome",
                "event",
                "stored",
                "synced",
                "error",
            ]
        )
    },
    optional={
        "game": names,
        "player": names,
        "id": names,
        "body": bodies,
        "seq": numbers,
        "resume": st.none() | st.fixed_dictionaries({"epoch": names, "seq": numbers}),
        "server": names,
        "epoch": st.none() | names,
        "recovered": st.none() | st.booleans(),
        "code": st.sampled_from(["bad-message", "too-big", "name-taken", "nope"]),
        "message": bodies,
    },
)


def _as_frame(value: object, ascii_only: bool) -> str:
    with suppress(ValueError):
        return json.dumps(value, ensure_ascii=ascii_only)
    return "1" + "0" * 4_400  # Python itself will not write so long a number


frames = st.one_of(
    st.text(),
    st.text(st.characters()),  # lone surrogates too
    st.builds(_as_frame, values, st.booleans()),
    st.builds(_as_frame, st.dictionaries(keys, values, max_size=5), st.booleans()),
    st.builds(_as_frame, likely, st.booleans()),
    st.builds(
        lambda frame, end: frame[:end],
        st.builds(_as_frame, likely, st.booleans()),
        st.integers(0, 80),
    ),
)


@given(frame=frames)
@example(frame='{"type":"ack","seq":18446744073709551616}')
@example(frame='{"type":"welcome","server":"","game":"","seq":-99999999999999999999999}')
def test_any_text_is_a_message_or_refused(frame: str) -> None:
    """Whatever text comes, it is a message, which can be said again, or a `BadMessage`."""
    decoders: list[Callable[[str], FromClient | FromServer]] = [
        decode_from_client,
        decode_from_server,
    ]
    for decode in decoders:
        with suppress(BadMessage):
            message = decode(frame)
            again = encode(message)
            assert len(again) <= MAX_FRAME
            assert decode(again.decode()) == message


@given(payload=st.binary() | frames.map(lambda frame: frame.encode(errors="surrogatepass")))
def test_any_bytes_are_an_event_or_refused(payload: bytes) -> None:
    """Whatever bytes come through a broker, they are an event or a `BadMessage`."""
    with suppress(BadMessage):
        event = decode_event(payload)
        assert decode_event(encode(event)) == event


@given(fields=likely)
def test_what_is_right_is_not_refused(fields: dict[str, Any]) -> None:
    """A send is refused only for a wrong id, and a body may hold any text."""
    frame = json.dumps({"type": "send", "id": "P2-1", "body": fields.get("body", "")})
    assert decode_from_client(frame) == Send("P2-1", fields.get("body", ""))


# Sizes

LONGEST_ID = "\U00010400" * 64
LONGEST_NAME = "\U00010400" * MAX_NAME
MUST_BE_ESCAPED = [chr(code) for code in range(0x20)] + ['"', "\\"]


@pytest.mark.parametrize("character", [*MUST_BE_ESCAPED, "a", "é", "隠", "😀", "\x7f"])
def test_the_longest_body_fits_a_frame(character: str) -> None:
    """A body of full length fits, with the longest names, even when each character is escaped."""
    body = character * MAX_BODY
    as_said = encode(Send(LONGEST_ID, body))
    assert len(as_said) <= MAX_FRAME
    assert decode_from_client(as_said.decode()) == Send(LONGEST_ID, body)
    event = Event(LONGEST_ID, LONGEST_NAME, body, 2**64)
    as_heard = encode(event)
    assert len(as_heard) <= MAX_FRAME
    assert decode_from_server(as_heard.decode()) == decode_event(as_heard) == event


@pytest.mark.parametrize("character", [*MUST_BE_ESCAPED, "é", "隠"])
def test_the_longest_body_fits_however_it_is_escaped(character: str) -> None:
    r"""Six bytes for each character, as `\u0001`, are still within a frame."""
    frame = '{"type":"send","id":"1","body":"%s"}' % (f"\\u{ord(character):04x}" * MAX_BODY)
    assert len(frame) <= MAX_FRAME
    assert decode_from_client(frame) == Send("1", character * MAX_BODY)


def test_the_longest_body_fits_as_python_writes_it() -> None:
    r"""A client that writes 😀 as two escapes, as `json.dumps` does, may say the longest body."""
    frame = json.dumps({"type": "send", "id": "1", "body": "😀" * MAX_BODY})
    assert len(frame) <= MAX_FRAME
    assert decode_from_client(frame) == Send("1", "😀" * MAX_BODY)


def test_a_longer_body_is_refused() -> None:
    """One character more than the longest body is a bad message, both ways."""
    body = "x" * (MAX_BODY + 1)
    assert "$.body" in refusal(decode_from_client, encode(Send("1", body)).decode())
    assert "$.body" in refusal(decode_from_server, encode(Event("1", "P1", body)).decode())


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"leave","%s":1}' % ("x" * (MAX_FRAME - 30)),
        '{"type":"leave","%s":1}' % ("\\u0001" * (MAX_FRAME // 6 - 4)),
        '{"type":"%s"}' % ("\\u0001" * (MAX_FRAME // 6 - 2)),
        '{"type":"%s"}' % ("\\n" * (MAX_FRAME // 2 - 6)),
        '{"type":"%s"}' % ("\x7f\\u007f" * (MAX_FRAME // 7 - 6)),
        DEEP,
        "x" * MAX_FRAME,
        "\ud800" * MAX_FRAME,
    ],
    ids=[
        "name",
        "name, escaped",
        "type",
        "type, short escapes",
        "type, mixed",
        "deep",
        "text",
        "lone",
    ],
)
def test_a_refusal_can_be_said(frame: str) -> None:
    """However long the bad message, the reason fits in the frame that tells the client."""
    reason = refusal(decode_from_client, frame)
    said = encode(Error("bad-message", reason))
    assert len(said) <= MAX_FRAME
    assert decode_from_server(said.decode()) == Error("bad-message", reason)


# Names

GOOD_NAMES = {
    "plain": "P1",
    "one letter": "x",
    "digits": "7",
    "space inside": "Player One",
    "marks": "a.b-c_d:e",
    "longest": "x" * MAX_NAME,
    "longest of other scripts": "隠" * MAX_NAME,
    "Cyrillic": "Мария",
    "Greek": "Ἀθηνᾶ",
    "Arabic": "عمر",
    "Hebrew": "דוד",
    "Han": "李雷",
    "kana": "さくら",
    "Hangul": "민준",
    "Latin, composed": "Zoé",
    "Latin, decomposed": "Zoe\u0301",
    "Devanagari, with vowel signs": "दीपा",
    "Tamil, with vowel signs": "மீனா",
    "Thai, with vowel signs": "ปิติ",
}
BAD_NAMES = {
    "empty": "",
    "a space": " ",
    "only spaces": "    ",
    "space before": " P1",
    "space after": "P1 ",
    "too long": "x" * (MAX_NAME + 1),
    "too long of other scripts": "隠" * (MAX_NAME + 1),
    "tag": "<b>P1</b>",
    "opening": "a<b",
    "entity": "a&amp;b",
    "double quote": 'a"b',
    "single quote": "a'b",
    "backtick": "a`b",
    "dollar": "$P1$",
    "backslash": "a\\b",
    "slash": "a/b",
    "query": "a?b",
    "ampersand": "a&b",
    "fragment": "a#b",
    "per cent": "a%20b",
    "new line": "P1\n",
    "new line inside": "P\n1",
    "carriage return": "P1\r",
    "tab": "P\t1",
    "null": "P\0001",
    "delete": "P\x7f1",
    "next line": "P1\x85",
    "escape": "\x1b[31mP1",
    "no-break space": "P\xa01",
    "only no-break spaces": "\xa0\xa0",
    "ideographic space": "\u3000",
    "line separator": "P1\u2028",
    "paragraph separator": "P\u20291",
    "zero-width space": "P\u200b1",
    "zero-width non-joiner": "P\u200c1",
    "zero-width joiner": "P\u200d1",
    "word joiner": "P\u20601",
    "byte order mark": "\ufeffP1",
    "soft hyphen": "P\xad1",
    "left-to-right mark": "P1\u200e",
    "right-to-left mark": "P1\u200f",
    "right-to-left override": "\u202eP1",
    "right-to-left isolate": "\u2067P1\u2069",
    "Mongolian vowel separator": "P\u180e1",
    "combining grapheme joiner": "P\u034f1",
    "variation selector": "P1\ufe0f",
    "tag character": "P1\U000e0041",
    "Braille blank": "\u2800",
    "Hangul filler": "\u3164",
    "halfwidth Hangul filler": "P1\uffa0",
    "Hangul choseong filler": "\u115f",
    "Hangul jungseong filler": "\u1160",
    "private use": "\ue000",
    "lone surrogate": "P\ud8001",
    "a mark alone": "\u0301",
}


def joined_under(name: str) -> list[str]:
    """The messages of clients in which a name stands for a player or a game."""
    return [
        json.dumps({"type": "join", "game": "g", "player": name}),
        json.dumps({"type": "join", "game": name, "player": "P1"}),
    ]


@pytest.mark.parametrize("name", GOOD_NAMES.values(), ids=GOOD_NAMES)
def test_a_name_may_be_of_any_script(name: str) -> None:
    """Letters of any script, digits, a few marks and spaces between them make a name."""
    assert check_name(name, "player") == name
    assert [decode_from_client(frame) for frame in joined_under(name)] == [
        Join("g", name),
        Join(name, "P1"),
    ]
    event = Event("1", name, "jump")
    assert decode_event(encode(event)) == event


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_name_hides_nothing(name: str) -> None:
    """Markup, control characters and what nobody can see are refused everywhere."""
    with pytest.raises(ValueError, match="cannot be the name of a player"):
        check_name(name, "player")
    for frame in joined_under(name):
        refusal(decode_from_client, frame)
    refusal(decode_event_text, json.dumps({"type": "event", "id": "1", "player": name, "body": ""}))


def test_check_name_says_why() -> None:
    """The error shows the name, says what it was to name, and what a name is made of."""
    with pytest.raises(ValueError, match="cannot be the name of a game") as raised:
        check_name("<b>\n", "game")
    message = str(raised.value)
    assert r"'<b>\n'" in message
    assert f"1 to {MAX_NAME} letters, digits" in message
    assert message.isprintable()


def test_check_name_does_not_repeat_a_long_name() -> None:
    """A name of a megabyte makes a short error."""
    with pytest.raises(ValueError, match="cannot be") as raised:
        check_name("x" * 2**20, "player")
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("name", [None, 1, b"P1", ["P1"]])
def test_check_name_takes_only_text(name: Any) -> None:
    """A name that is no text is refused like any other bad name."""
    with pytest.raises(ValueError, match="cannot be the name of a player"):
        check_name(name, "player")


@given(name=st.text(st.characters(), max_size=40))
def test_a_good_name_is_short_and_visible(name: str) -> None:
    """Any text that passes for a name is printable, of 1 to 32 characters, and has no markup."""
    with suppress(ValueError):
        assert check_name(name, "player") is name
        assert 1 <= len(name) <= MAX_NAME
        assert name.isprintable()
        assert name == name.strip()
        assert not set(name) & set("<>&\"'`/\\")
        assert decode_from_client(encode(Join(name, name)).decode()) == Join(name, name)


def test_close_codes_are_the_registered_ones() -> None:
    """The close codes are those of RFC 6455 and its registry."""
    assert {code.name: int(code) for code in Close} == {
        "DONE": 1000,
        "GOING_AWAY": 1001,
        "POLICY": 1008,
        "TOO_BIG": 1009,
        "RESTARTING": 1012,
        "TRY_AGAIN_LATER": 1013,
    }
