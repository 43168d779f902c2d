"""Clients that do everything wrong, against a server process, while others play on it.

Run by itself, it makes many: python -m tests.fuzz --connections 100000 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from itertools import count

import psutil

from tests.conftest import Client, dial, within
from tests.raw import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Refused,
    Wire,
    frame,
    limits_reached,
    raw,
    upgrade,
)
from wsdemo.limits import Limits
from wsdemo.processes.stand_alone import StandAloneServer
from wsdemo.redis.backend import EmbeddedRedis

__all__ = ["ATTACKS", "Report", "fuzz"]

HONEST = ("H1", "H2", "H3")
PACE = 0.05  # seconds between two events of an honest player
TRICKLE = 0.02  # seconds between two bytes of a slow client
HUNG = 30.0  # seconds after which an attack should long have been ended by the server
KEEP = 10.0  # seconds for which Redis keeps a game that nobody plays: attackers leave many
QUIET = 15.0  # seconds in which a server lets go of what is left of the attackers
SLACK = 2 * 2**20  # bytes by which a process may be larger for reasons of its memory's own
FOR_A_FEW = Limits(
    max_connections=400,
    max_rate=50,  # with what all of them may say, a server on one core is busy
    max_waiting=100_000,
    seconds_to_join=1.0,
    seconds_to_answer=2.0,
)


# The attackers


@dataclass
class Hand:
    """What an attack is made with: chance that can be had again, a server, and a name of its own"""

    chance: random.Random
    port: int
    number: int

    @property
    def name(self) -> str:
        return f"X{self.number}"

    async def wire(self, receive_buffer: int = 0) -> Wire:
        """A connection to the server; whoever gets none is refused."""
        return await Wire.to(self.port, receive_buffer)

    async def upgraded(self, receive_buffer: int = 0) -> Wire:
        wire = await self.wire(receive_buffer)
        try:
            await wire.upgrade()
        except BaseException:
            wire.close()
            raise
        return wire

    async def joined(self, receive_buffer: int = 0, game: str = "") -> Wire:
        wire = await self.upgraded(receive_buffer)
        await wire.say("join", game=game or self.name, player=self.name)
        return wire

    def some_bytes(self, most: int) -> bytes:
        return self.chance.randbytes(self.chance.randint(1, most))


Attack = Callable[[Hand], Awaitable[Wire | None]]


@dataclass(frozen=True)
class Kind:
    """An attack, how often it is made, and what can come of it; any is cut if it has to be."""

    attack: Attack
    outcomes: frozenset[str]
    weight: float

    def may_be(self, outcome: str) -> bool:
        """Whether it may end like this, if only now and then."""
        return outcome != "hung" and ("any" in self.outcomes or outcome in self.outcomes | REFUSED)

    def is_refused(self, outcome: str) -> bool:
        """Whether the server had no time to look at it."""
        return "any" not in self.outcomes and outcome in REFUSED - self.outcomes


ATTACKS: dict[str, Kind] = {}
LATE = "1008"  # where there is much to do, it is not joined in time
REFUSED = {"HTTP 503", "cut", LATE}  # by a server that is full, or has been too busy to look


def kind(*outcomes: str, weight: float = 1.0) -> Callable[[Attack], Attack]:
    """What an attack gives back is listened to until it ends; this is how it may end."""

    def enter(attack: Attack) -> Attack:
        words = attack.__name__.strip("_").replace("_", " ")
        ATTACKS[words] = Kind(attack, frozenset(outcomes), weight)
        return attack

    return enter


@kind("cut")
async def _says_nothing(hand: Hand) -> Wire:
    return await hand.wire()


@kind("cut")
async def _asks_slowly(hand: Hand) -> Wire:
    wire = await hand.wire()
    head = upgrade(hand.port)
    for place in range(len(head) - 1):  # never its last byte
        await wire.push(head[place : place + 1])
        if wire.is_cut:
            break
        await asyncio.sleep(TRICKLE)
    return wire


@kind("HTTP 400", "HTTP 414", "HTTP 426", "HTTP 431", "cut")
async def _says_something_else(hand: Hand) -> Wire:
    """Not HTTP, or hardly: TLS, SSH, another method, no line ends, ..."""
    wire = await hand.wire()
    tail = hand.chance.choice([b"", b"\r\n", b"\r\n\r\n"])
    await wire.push(
        hand.chance.choice(
            [
                hand.some_bytes(5000) + tail,
                b"\x16\x03\x01" + hand.some_bytes(300),
                b"SSH-2.0-OpenSSH_9\r\n",
                b"\r\n\r\n\r\n",
                b"GET /\r\n\r\n",
                b"GET / HTTP/9.9\r\n\r\n",
                b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n",
                b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
                b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
                b"GET / HTTP/1.1\r\n: no name\r\n\r\n",
                b"GET / HTTP/1.1\nHost: x\n\n",
                b"GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
                b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
                frame(TEXT, b"hello") * 50,
            ]
        )
    )
    wire.end_writing()
    return wire


@kind("HTTP 414", "HTTP 431", "HTTP 400")
async def _asks_at_length(hand: Hand) -> Wire:
    wire = await hand.wire()
    long = b"x" * hand.chance.choice([9_000, 100_000, 2_000_000])
    start = b"GET / HTTP/1.1\r\n"
    await wire.push(
        hand.chance.choice(
            [
                b"GET /" + long + b" HTTP/1.1\r\n\r\n",
                start + b"Long: " + long + b"\r\n\r\n",
                start + b"".join(b"H%d: x\r\n" % n for n in range(300)) + b"\r\n",
                start + long,
            ]
        )
    )
    return wire


@kind("HTTP 400", "HTTP 403", "HTTP 426", "cut")
async def _asks_wrongly(hand: Hand) -> Wire:
    """A request for a WebSocket in which one thing is wrong, such as the origin."""
    wire = await hand.wire()
    before, after = hand.chance.choice(
        [
            (b"Upgrade: websocket", b"Upgrade: h2c"),
            (b"Upgrade: websocket\r\n", b""),
            (b"Connection: Upgrade", b"Connection: close"),
            (b"Connection: Upgrade\r\n", b""),
            (b"Version: 13", b"Version: 8"),
            (b"Version: 13", b"Version: 13, 13"),
            (b"Version: 13", b"Version: \xff"),
            (b"Key: dGhlIHNhbXBsZSBub25jZQ==", b"Key: short"),
            (b"Key: dGhlIHNhbXBsZSBub25jZQ==", b"Key: \x00\x01"),
            (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""),
            (b"Upgrade: websocket", b"Origin: https://evil.example\r\nUpgrade: websocket"),
            (b"Upgrade: websocket", b"Origin: null\r\nUpgrade: websocket"),
            (b"Upgrade: websocket", b"Origin: http://a\r\nOrigin: http://b\r\nUpgrade: websocket"),
        ]
    )
    await wire.push(upgrade(hand.port).replace(before, after))
    return wire


@kind("HTTP 200", "HTTP 426", "HTTP 400", "HTTP 503")
async def _asks_for_a_page(hand: Hand) -> Wire:
    wire = await hand.wire()
    path = hand.chance.choice(
        ["/healthz", "/readyz", "/metrics", "/", "/../../etc/passwd", "/%00", "/metrics?x=" * 50]
    )
    await wire.push(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return wire


@kind("1002", "1007", weight=3)
async def _breaks_the_framing(hand: Hand) -> Wire:
    """RFC 6455 says of each that the connection fails."""
    wire = await hand.upgraded()
    if hand.chance.random() < 0.5:
        await wire.say("join", game=hand.name, player=hand.name)
    text = frame(TEXT, b'{"type":"leave"}')
    await wire.push(
        hand.chance.choice(
            [
                *(bytes([text[0] | bit]) + text[1:] for bit in (0x10, 0x20, 0x40)),
                *(frame(opcode, b"x") for opcode in (0x3, 0x7, 0xB, 0xF)),
                b"\x81\x05hello",  # without a mask
                frame(PING, b"x", fin=False),
                frame(CLOSE, b"\x03\xe8", fin=False),
                frame(PING, b"x" * 126),
                frame(CLOSE, b"x"),
                *(frame(CLOSE, code.to_bytes(2, "big")) for code in (0, 999, 1005, 1006, 1015)),
                frame(CLOSE, b"\x03\xe8\xff\xfe"),
                frame(CONT, b"of nothing"),
                frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
                frame(TEXT, b"a", fin=False) + frame(CLOSE, b"\x03\xe8"),
                frame(TEXT, b"\xff\xfe"),
                frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"("),
                frame(TEXT, b"\xed\xa0\x80"),
            ]
        )
    )
    return wire


@kind("any", weight=2)
async def _sends_noise(hand: Hand) -> Wire:
    """Frames with some of their bits turned, or none at all."""
    wire = await hand.upgraded()
    good = frame(TEXT, b'{"type":"join","game":"g","player":"%s"}' % hand.name.encode())
    good += frame(TEXT, b'{"type":"send","id":"1","body":"x"}') + frame(PING, b"") * 3
    noise = bytearray(good if hand.chance.random() < 0.7 else hand.some_bytes(3000))
    for _ in range(hand.chance.randint(1, 5)):
        noise[hand.chance.randrange(len(noise))] ^= 1 << hand.chance.randrange(8)
    await wire.push(bytes(noise))
    wire.end_writing()
    return wire


@kind("1009")
async def _says_too_much(hand: Hand) -> Wire:
    """A length that is too long, with and without the bytes."""
    wire = await hand.upgraded()
    length = hand.chance.choice([262_145, 2**32, 2**63, 2**64 - 1])
    await wire.push(bytes([0x80 | TEXT, 0xFF]) + length.to_bytes(8, "big") + bytes(4))
    if hand.chance.random() < 0.3:
        await wire.push(b"x" * 300_000)
    return wire


@kind("1008", "1009")
async def _never_ends_a_message(hand: Hand) -> Wire:
    wire = await hand.upgraded()
    size = hand.chance.choice([0, 0, 1, 1000])
    await wire.push(frame(TEXT, b"x" * size, fin=False))
    part = frame(CONT, b"x" * size, fin=False) * 100
    for _ in range(50):
        if wire.is_cut:
            break
        await wire.push(part)
    return wire


@kind("1008", "cut")
async def _never_ends_a_frame(hand: Hand) -> Wire:
    """In the middle of one it cannot answer a ping, either."""
    wire = await (hand.joined() if hand.chance.random() < 0.1 else hand.upgraded())
    await wire.push(frame(TEXT, b"x" * 1000)[: hand.chance.randint(1, 900)])
    return wire


@kind("1008", "cut")
async def _pings_without_end(hand: Hand) -> Wire:
    wire = await hand.upgraded(receive_buffer=4096)
    opcode = hand.chance.choice([PING, PONG])
    flood = frame(opcode, hand.some_bytes(125)) * 100
    for _ in range(100):
        if wire.is_cut:
            break
        await wire.push(flood)
    return wire


ODD = [
    "",
    "null",
    "17",
    "[]",
    '"join"',
    "{}",
    "{",
    '{"type":"join"}',
    '{"type":"join","game":"g","player":"P","extra":1}',
    '{"type":"event","id":"1","player":"H1","body":"x"}',
    '{"type":"send","id":"1","body":"\\ud800"}',
    '{"type":"send","id":"1","body":' + "[" * 100_000,
    '{"type":"send","id":"1","body":' + '{"a":' * 20_000 + "1" + "}" * 20_000 + "}",
    '{"type":"ack","seq":-1}',
    '{"type":"ack","seq":1e400}',
    '{"type":"ack","seq":' + "9" * 5000 + "}",
    '{"type":"sync","id":""}',
    '{"type":"send","id":"' + "x" * 200_000 + '","body":""}',
    '{"type":"join","type":"leave","type":"join"}',
    '{"type":"shout"}' + " " * 100_000,
    "\ufeff{}",
    "NaN",
]


@kind("1008", weight=3)
async def _says_odd_things(hand: Hand) -> Wire:
    wire = await hand.upgraded()
    if hand.chance.random() < 0.5:
        await wire.say("join", game=hand.name, player=hand.name)
    for _ in range(5):
        text = hand.chance.choice(ODD).encode(errors="surrogatepass")
        opcode = BINARY if hand.chance.random() < 0.2 else TEXT
        await wire.push(long_frame(opcode, text))
    return wire


NAMES = [
    *("", " ", "<b>", "a\x00b", "a\u202eb", "x" * 33, "x" * 100_000, "H1", "A", "../x", "%s", "\n"),
    *("'; --", "\ud800", "a  b", "\u0301a", "{g}", "*", "game:*", "\u200b"),
]


@kind("1008")
async def _joins_under_odd_names(hand: Hand) -> Wire:
    """Each with something that no join can carry, or that somebody else has."""
    wire = await hand.upgraded()
    for _ in range(5):
        name = hand.chance.choice(NAMES)
        wishes: list[dict[str, object]] = [
            {"game": "g", "player": name},
            {"game": f"{name}<", "player": hand.name},
            {"game": "g", "player": hand.name, "token": "x" * 2000},
            {"game": "g", "player": hand.name, "resume": {"epoch": "e", "seq": -1}},
            {"game": "g", "player": hand.name, "resume": {"epoch": name + "\n", "seq": 1}},
            {"game": "g", "player": hand.name, "resume": "x" * 1000},
            {"game": None, "player": hand.name},
        ]
        wish = {"type": "join", **hand.chance.choice(wishes)}
        await wire.push(long_frame(TEXT, json.dumps(wish).encode()))
    return wire


@kind("1000", LATE)
async def _resumes_what_never_was(hand: Hand) -> Wire:
    """Then leaves, as it should."""
    wire = await hand.upgraded()
    resume = {
        "epoch": hand.chance.choice(["e", "none", "0"]),
        "seq": hand.chance.choice([0, 2**62]),
    }
    await wire.say("join", game="g", player=hand.name, resume=resume)
    await wire.say("leave")
    return wire


@kind("1008")
async def _says_too_many(hand: Hand) -> Wire:
    """More messages a second than it may."""
    wire = await hand.joined()
    for number in range(30):
        many = [b'{"type":"send","id":"%d-%d","body":"x"}' % (number, n) for n in range(50)]
        await wire.push(b"".join(frame(TEXT, text) for text in many))
        if wire.is_cut:
            break
    return wire


@kind("cut", "1008", weight=0.2)
async def _reads_nothing_of_a_busy_game(hand: Hand) -> Wire:
    """Until it is cut off, or the other one has said all it may."""
    async with raw(hand.port) as speaker:
        await speaker.upgrade()
        await speaker.say("join", game=hand.name, player="speaker")
        await speaker.hear()
        stalled = await hand.joined(receive_buffer=4096)
        for number in range(600):
            await stalled.push(frame(PONG, b""))
            if stalled.is_cut:
                break
            await speaker.say("send", id=f"{number}", body="x" * 16_000)
            while (await speaker.hear()).get("id") != f"{number}":
                pass
        return stalled


@kind("cut", "1008", weight=0.2)
async def _asks_and_reads_no_answer(hand: Hand) -> Wire:
    wire = await hand.joined(receive_buffer=4096)
    question = frame(TEXT, b'{"type":"sync","id":"%s"}' % (b"x" * 60))
    for _ in range(40):
        if wire.is_cut:
            break
        await wire.push(question * 20)
    return wire


@kind("left", weight=8)
async def _goes_in_the_middle(hand: Hand) -> None:
    """Of whatever it was about to do, with a reset or without one."""
    wire = await hand.wire()
    join = frame(TEXT, json.dumps({"type": "join", "game": "g", "player": hand.name}).encode())
    send = frame(TEXT, b'{"type":"send","id":"1","body":"%s"}' % (b"x" * 500))
    all_it_says = upgrade(hand.port) + join + send * 3 + frame(CLOSE, b"\x03\xe8")
    place = hand.chance.choice([0, hand.chance.randrange(len(all_it_says))])
    await wire.push(all_it_says[:place])
    if hand.chance.random() < 0.5:
        await asyncio.sleep(0)
    if hand.chance.random() < 0.5:
        wire.reset()
    else:
        wire.close()


@kind("left", weight=0.75)
async def _comes_and_goes(hand: Hand) -> None:
    """A storm of connections that ask for nothing."""
    wires = [await hand.wire() for _ in range(20)]
    for wire in wires:
        hand.chance.choice([wire.close, wire.reset])()


@kind("1000")
async def _stays_after_the_goodbye(hand: Hand) -> Wire:
    wire = await hand.joined()
    await wire.push(frame(CLOSE, b"\x03\xe8bye"))
    return wire


@kind("cut", weight=2)
async def _hangs_up_half(hand: Hand) -> Wire:
    """It says nothing more, and listens on."""
    wire = await hand.chance.choice([hand.wire, hand.upgraded, hand.joined])()
    wire.end_writing()
    return wire


@kind("1008", weight=0.5)
async def _never_joins(hand: Hand) -> Wire:
    return await hand.upgraded()


def long_frame(opcode: int, payload: bytes) -> bytes:
    """A frame of any length."""
    if len(payload) < 2**16:
        return frame(opcode, payload)
    head = bytes([0x80 | opcode, 0xFF]) + len(payload).to_bytes(8, "big")
    return head + bytes(4) + payload


# The honest


@dataclass
class Honest:
    """A player who talks all the while, and has to hear all that the honest ones say.

    It says the next thing once it has heard itself, and the same again if the server could not.
    """

    name: str
    client: Client
    said: int = 0
    heard: Counter[str] = field(default_factory=Counter)
    delays: list[float] = field(default_factory=list)  # seconds until it has heard itself
    said_again: int = 0
    falls_silent: bool = False
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def speak(self) -> None:
        """Until it falls silent."""
        while not self.falls_silent:
            self.said += 1
            began = time.monotonic()
            while self.heard[self.name] < self.said:
                self.answered.clear()
                await self.client.say("send", id=f"{self.said}", body="x" * 200)
                await self.answered.wait()
                await asyncio.sleep(PACE)  # a server that has said no has much to do
            self.delays.append(time.monotonic() - began - PACE)

    async def listen(self) -> None:
        """Raises `AssertionError` for what is not the next event of an honest player."""
        while True:
            message = await self.client.hear()
            player = message.get("player", "")
            if message["type"] == "event" and player in HONEST:
                self.heard[player] += 1
                assert message["id"] == str(self.heard[player]), f"{self.name} heard {message}"
                if player == self.name:
                    self.answered.set()
            elif message["type"] == "error" and message["code"] == "broker-down":
                self.said_again += 1
                self.answered.set()
            else:
                is_harmless = message["type"] in ("event", "stored") or message.get("recovered")
                assert is_harmless, f"{self.name} heard {message}"


@asynccontextmanager
async def talking(port: int) -> AsyncIterator[list[Honest]]:
    """Honest players, who talk; at the end they must have heard everything, once, in order."""
    async with AsyncExitStack() as stack:
        honest = []
        for name in HONEST:
            client = await stack.enter_async_context(dial(f"ws://127.0.0.1:{port}"))
            honest.append(Honest(name, await client.join(name)))
        listening = [asyncio.create_task(player.listen()) for player in honest]
        speaking = [asyncio.create_task(player.speak()) for player in honest]
        try:
            yield honest
        finally:
            for player in honest:
                player.falls_silent = True
            with suppress(TimeoutError):
                await within(asyncio.wait(speaking))
                await within(_all_is_heard(honest))
            for task in (*speaking, *listening):
                task.cancel()
            ends = await asyncio.gather(*listening, *speaking, return_exceptions=True)
        for end in ends:
            is_well = end is None or isinstance(end, asyncio.CancelledError)
            assert is_well, f"an honest player ended: {end!r}"
        said = {player.name: player.said for player in honest}
        for player in honest:
            assert player.heard == said, f"{player.name} heard {player.heard} of {said}"


async def _all_is_heard(honest: list[Honest]) -> None:
    said = {player.name: player.said for player in honest}
    while any(player.heard != said for player in honest):  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(PACE)


# The server


@dataclass(frozen=True)
class Size:
    """What a server process holds when nobody but the honest is there."""

    memory: int  # bytes
    files: int
    sockets: int
    tasks: int
    clients: int

    def __str__(self) -> str:
        megabytes = self.memory / 2**20
        rest = f"{self.files} files, {self.sockets} sockets, {self.tasks} tasks"
        return f"{megabytes:.1f} MiB, {rest}, {self.clients} clients"

    def holds(self, before: Size) -> bool:
        """Whether nothing but its memory is larger."""
        now, then = (
            (size.files, size.sockets, size.tasks, size.clients) for size in (self, before)
        )
        return all(after <= first for after, first in zip(now, then, strict=True))


async def size_of(server: StandAloneServer) -> Size:
    """Its size now."""
    numbers = await server.numbers()
    process = psutil.Process(server.pid)
    return Size(
        process.memory_info().rss,
        process.num_fds() if hasattr(process, "num_fds") else process.num_handles(),
        len(process.net_connections(kind="tcp")),
        int(numbers["wsdemo_tasks"]),
        int(numbers["wsdemo_connected_clients"]),
    )


async def quiet(server: StandAloneServer, before: Size) -> Size:
    """Its size once it has let go of all that is left of the attackers, or after QUIET."""
    clock = asyncio.get_running_loop().time
    until = clock() + QUIET
    while True:
        size = await size_of(server)
        if size.holds(before) or clock() > until:
            return size
        await asyncio.sleep(0.05)


@dataclass
class Report:
    """What came of it."""

    seconds: float = 0.0
    connections: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    said_again: int = 0
    limits_reached: dict[str, float] = field(default_factory=dict)

    def violations(self, slack: int = SLACK) -> Iterator[str]:
        """What did not hold. The first round is to warm up: connections to Redis are kept."""
        yield from self.unexpected
        for name, kind in ATTACKS.items():
            ends = Counter({end: n for (what, end), n in self.outcomes.items() if what == name})
            refused = sum(n for end, n in ends.items() if kind.is_refused(end))
            if refused > max(5, ends.total() / 5):
                yield f"{name}: {refused} of {ends.total()} were not looked at"
        if self.said_again > max(5, len(self.delays) / 100):
            yield f"the honest were refused {self.said_again} times, of {len(self.delays)} events"
        _, first, *_, last = self.sizes
        if not last.holds(first):
            yield f"the server has kept something: {first} before, {last} after"
        late = self.sizes[-1 - len(self.sizes) // 3]
        if last.memory > late.memory + slack:
            yield f"the server grows: {late} after two thirds, {last} at the end"

    def _delay(self, part: float) -> float:
        return sorted(self.delays)[min(int(part * len(self.delays)), len(self.delays) - 1)]

    def __str__(self) -> str:
        lines = [f"{self.connections} connections in {self.seconds:.1f} s"]
        for name in ATTACKS:
            ends = {end: n for (what, end), n in sorted(self.outcomes.items()) if what == name}
            lines.append(f"  {name}: {', '.join(f'{n} {end}' for end, n in ends.items())}")
        lines += [f"  round {number}: {size}" for number, size in enumerate(self.sizes)]
        lines.append(f"  limits reached: {self.limits_reached}")
        half, most, worst = (1000 * self._delay(part) for part in (0.5, 0.99, 1.0))
        lines.append(
            f"  the honest said {len(self.delays)} events, {self.said_again} times again, and each "
            f"heard all of them, itself within {half:.0f} ms (p50), {most:.0f} (p99), {worst:.0f}"
        )
        return "\n".join(lines)


async def fuzz(
    server: StandAloneServer,
    connections: int,
    seed: int,
    *,
    rounds: int = 4,
    at_once: int = 200,
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Attack a server that runs, in so many rounds, and look at it after each."""
    report = Report()
    began = time.monotonic()
    await _looks_well(server)
    async with talking(server.port) as honest:
        report.sizes.append(await size_of(server))
        numbers = count(1)
        for turn in range(1, rounds + 1):
            until = connections * turn // rounds
            await _attack(server.port, seed, numbers, until, at_once, report)
            before = report.sizes[1] if turn > 1 else replace(report.sizes[0], files=99, sockets=99)
            report.sizes.append(await quiet(server, before))
            seconds = time.monotonic() - began
            progress(f"{report.connections} in {seconds:.0f} s: {report.sizes[-1]}")
        await _looks_well(server)
    report.delays = [delay for player in honest for delay in player.delays]
    report.said_again = sum(player.said_again for player in honest)
    report.seconds = time.monotonic() - began
    report.limits_reached = await limits_reached(server.port)
    return report


async def _attack(
    port: int, seed: int, numbers: Iterator[int], until: int, at_once: int, report: Report
) -> None:
    async def go_on() -> None:
        while report.connections < until:
            number = next(numbers)
            chance = random.Random(f"{seed}:{number}")
            [name] = chance.choices([*ATTACKS], [kind.weight for kind in ATTACKS.values()])
            if number <= len(ATTACKS):  # each at least once
                name = [*ATTACKS][number - 1]
            report.connections += 20 if name == "comes and goes" else 1
            outcome = await _outcome(ATTACKS[name].attack, Hand(chance, port, number))
            report.outcomes[name, outcome] += 1
            if not ATTACKS[name].may_be(outcome):
                report.unexpected.append(f"{name} (number {number} of seed {seed}): {outcome}")

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(go_on())


async def _outcome(attack: Attack, hand: Hand) -> str:
    try:
        async with asyncio.timeout(HUNG):
            try:
                wire = await attack(hand)
            except Refused as refused:
                return str(refused)
            except ConnectionError:
                return "cut"
            if wire is None:
                return "left"
            try:
                return await wire.outcome(HUNG)
            finally:
                hand.chance.choice([wire.close, wire.reset])()
    except TimeoutError:
        return "hung"


async def _looks_well(server: StandAloneServer) -> None:
    """It answers as ever, to whoever looks and to whoever joins."""
    async with raw(server.port) as wire:
        assert await wire.get("/healthz") == (200, "alive\n")
    async with raw(server.port) as wire:
        assert await wire.get("/readyz") == (200, "ready\n")
    async with dial(f"ws://127.0.0.1:{server.port}") as client:
        await client.join("newcomer", game="another")
        await client.say("send", id="1", body="x")
        assert {(await client.hear())["type"]} <= {"event", "stored"}


@asynccontextmanager
async def attacked(broker: str, limits: Limits) -> AsyncIterator[StandAloneServer]:
    """A server with these limits, and a Redis if it needs one."""
    async with AsyncExitStack() as stack:
        arguments = ["--broker", broker]
        if broker != "none":
            redis = await stack.enter_async_context(EmbeddedRedis())
            arguments += ["--redis", redis.url, "--seconds-to-keep", str(KEEP)]
        for limit in fields(limits):
            option = f"--{limit.name.replace('_', '-')}"
            arguments += [option, str(getattr(limits, limit.name))]
        yield await stack.enter_async_context(StandAloneServer("A", *arguments))


async def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--broker", default="stream")
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None, help="default: any")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(10**9)
    print(f"seed {seed}, broker {asked.broker}", flush=True)
    async with attacked(asked.broker, FOR_A_FEW) as server:
        report = await fuzz(
            server,
            asked.connections,
            seed,
            rounds=asked.rounds,
            at_once=asked.at_once,
            progress=lambda line: print(line, flush=True),
        )
    print(report)
    found = list(report.violations())
    print(*found or ["nothing has grown, and everything ended as it should"], sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
