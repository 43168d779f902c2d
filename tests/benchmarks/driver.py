"""Clients that cost little and the same for every server: raw sockets, one thread, one loop.

A client is a socket and what is left of a frame. No WebSocket library, no event loop and no JSON
is in it: an event carries a mark with its number, and whatever the server wraps it in, the driver
looks for the mark in each text frame and for nothing else.

Events are sent when they are due, whether or not earlier ones have come back (an open loop), and
an event's delay counts from when it was due. So neither a slow server nor a slow driver hides a
delay by asking for less. https://www.scylladb.com/2021/04/22/on-coordinated-omission/
"""

from __future__ import annotations

import base64
import gc
import os
import selectors
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter

__all__ = ["BOUND", "PLAIN", "SOCKET_IO", "WSDEMO", "Client", "Crowd", "Dialect", "Lost", "Step"]

BOUND = 0.050  # seconds in which 99 of 100 deliveries have to be made
HOPELESS = 2.0  # seconds after which an event that has not come is not waited for with more events
SILENCE = 1.5  # seconds without any delivery, after which what is missing is lost
PATIENCE = 20.0  # seconds for a server to answer a connection, or to let everybody hear
EVENT = 100  # bytes of an event as its players hear it, about
MARK = b"@"  # and eight digits: the number of an event
TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
READ = 2**18  # bytes at a time


class Lost(Exception):
    """A server has closed a connection, or somebody never heard; the text says which."""


@dataclass(frozen=True)
class Dialect:
    """How a client of one kind of server joins a game, and how it says something there.

    The frames of `hello` are sent one after the other, each once the frame has come that begins
    with what stands before it.
    """

    path: Callable[[str], str]
    hello: Callable[[str, str], Sequence[tuple[bytes, bytes]]]
    event: Callable[[str, bytes, int], bytes]
    answers: dict[bytes, bytes] = field(default_factory=dict)
    """Frames that the server wants an answer to, as its heartbeats."""


def _padding(frame: bytes, size: int) -> bytes:
    return b"x" * max(0, size - len(frame))


def _plain(player: str, mark: bytes, size: int) -> bytes:
    frame = b'{"type":"event","id":"%s","player":"%s","body":"%s%%s"}' % (
        mark[1:],
        player.encode(),
        mark,
    )
    return frame % _padding(frame[2:], size)


def _wsdemo(player: str, mark: bytes, size: int) -> bytes:
    heard = _plain(player, mark, 0)  # the server puts the sender's name in
    frame = b'{"type":"send","id":"%s","body":"%s%s"}'
    return frame % (mark[1:], mark, _padding(heard, size))


def _socket_io(player: str, mark: bytes, size: int) -> bytes:
    return b'42["send",%s]' % _plain(player, mark, size - len(b'42["event",]'))


# The server relays what it gets, and a game is a path.
PLAIN = Dialect(lambda game: f"/{game}", lambda game, player: (), _plain)
WSDEMO = Dialect(
    lambda game: "/",
    lambda game, player: (
        (b"", b'{"type":"join","game":"%s","player":"%s"}' % (game.encode(), player.encode())),
        (b'{"type":"welcome"', b""),
    ),
    _wsdemo,
)
SOCKET_IO = Dialect(  # Engine.IO 4: "0" opens, "2" is a ping, "3" its answer, "4" a message
    lambda game: "/socket.io/?EIO=4&transport=websocket",
    lambda game, player: (
        (b"0{", b"40"),
        (b"40{", b'42["join","%s"]' % game.encode()),
    ),
    _socket_io,
    answers={b"2": b"3"},
)


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """A client's frame. The masking key is 0: the server unmasks as ever, the driver need not."""
    size = len(payload)
    if size < 126:
        head = bytes((opcode, 0x80 | size))
    elif size < 2**16:
        head = bytes((opcode, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((opcode, 0xFF)) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


class Client:
    """One connection. Raises `Lost` if the server does not take it or lets go of it."""

    __slots__ = ("dialect", "game", "outbox", "player", "rest", "seen", "socket", "texts")

    def __init__(
        self, port: int, game: str, player: str, dialect: Dialect, receive_buffer: int = 0
    ) -> None:
        self.game = game
        self.player = player
        self.dialect = dialect
        self.rest = b""  # of a frame that has not come as a whole
        self.outbox = b""  # what the server's socket has not taken
        self.seen = bytearray()  # how often each event has been heard, in the current step
        self.texts: list[bytes] = []  # frames without a mark
        self.socket = socket.socket()
        try:
            if receive_buffer:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.socket.settimeout(PATIENCE)
            self.socket.connect(("127.0.0.1", port))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._shake_hands(dialect.path(game))
            for awaited, said in dialect.hello(game, player):
                self._await(awaited)
                if said:
                    self.socket.sendall(frame(said))
        except (OSError, Lost) as error:
            self.socket.close()
            raise Lost(f"{player} cannot join on port {port}: {error}") from error
        self.socket.setblocking(False)

    def _shake_hands(self, path: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self.rest:
            self.rest += self.receive()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise Lost(head.partition(b"\r\n")[0].decode(errors="replace"))

    def _await(self, beginning: bytes) -> None:
        while beginning and not any(text.startswith(beginning) for text in self.texts):
            self.take(b"", [])  # it may have come with what came before
            if not any(text.startswith(beginning) for text in self.texts):
                self.take(self.receive(), [])

    def close(self) -> None:
        """Say goodbye, if the server still listens, and let go."""
        with suppress(OSError, Lost):
            self.say(frame((1000).to_bytes(2, "big"), CLOSE))
        self.socket.close()

    def say(self, data: bytes) -> None:
        """Send, as far as the server's socket takes it; the rest goes with the next call."""
        data = self.outbox + data
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise Lost(f"{self.player}: {error}") from error
        self.outbox = data[sent:]

    def receive(self) -> bytes:
        """What has come. Raises `Lost` if that is the end."""
        try:
            data = self.socket.recv(READ)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise Lost(f"{self.player}: {error}") from error
        if not data:
            raise Lost(f"{self.player}: the server has closed the connection")
        return data

    def take(self, data: bytes, numbers: list[int]) -> None:
        """Add the numbers of the events in what has come."""
        if self.rest:
            data = self.rest + data
        at, end = 0, len(data)
        while end - at >= 2:
            size, body = data[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                body += width
                size = int.from_bytes(data[at + 2 : body], "big") if body <= end else end
            if body + size > end:
                break
            if data[at] == TEXT:
                mark = data.find(MARK, body, body + size)
                if mark > 0:
                    numbers.append(int(data[mark + 1 : mark + 9]))
                else:
                    self._take_text(data[body : body + size])
            else:
                self._take_control(data[at], data[body : body + size])
            at = body + size
        self.rest = data[at:]

    def _take_text(self, text: bytes) -> None:
        answer = self.dialect.answers.get(text)
        if answer:
            self.say(frame(answer))
        elif text.startswith((b'{"type":"error"', b"41", b"44")):
            raise Lost(f"{self.player} was told: {text.decode(errors='replace')}")
        elif len(self.texts) < 3:
            self.texts.append(text)

    def _take_control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.say(frame(payload, PONG))
        elif opcode == CLOSE:
            reason = payload[2:].decode(errors="replace")
            code = int.from_bytes(payload[:2], "big")
            raise Lost(f"{self.player} was sent away: {code} {reason}")


@dataclass(frozen=True)
class Step:
    """What came of one rate. Times in seconds."""

    rate: float  # events a second, in all
    clients: int
    sent: int  # events
    delivered: int
    missing: int  # deliveries
    repeated: int  # deliveries of what had been delivered
    p50: float
    p99: float
    lag: float  # by which the driver itself was late with an event, at most
    gave_up: bool

    @property
    def holds(self) -> bool:
        """Whether every delivery was made, once, and 99 of 100 within the bound."""
        return not (self.gave_up or self.missing or self.repeated) and self.p99 <= BOUND


class Crowd:
    """Clients in one game or several, on the servers in turn. A context manager.

    When it opens, everybody is registered: each client has heard an event from each server.
    """

    def __init__(
        self,
        ports: Sequence[int],
        clients: int,
        dialect: Dialect,
        game_of: Callable[[int], str] = lambda number: "g",
    ) -> None:
        self._ports = ports
        self._count = clients
        self._dialect = dialect
        self._game_of = game_of
        self._selector = selectors.DefaultSelector()
        self._next = 0  # the number of the next event
        self.games: dict[str, list[Client]] = {}
        self.clients: list[Client] = []

    def __enter__(self) -> Crowd:
        try:
            for number in range(self._count):
                client = self._add(number)
                if len(self.games[client.game]) == len(self._ports):
                    self._assert_registered([client.game])  # no two are a server's first ones
            self._assert_registered(self.games)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._selector.close()
        for client in self.clients:
            client.close()

    def _add(self, number: int) -> Client:
        port = self._ports[number % len(self._ports)]
        client = Client(port, self._game_of(number), f"P{number}", self._dialect)
        self.clients.append(client)
        self.games.setdefault(client.game, []).append(client)
        self._selector.register(client.socket, selectors.EVENT_READ, client)
        return client

    def _assert_registered(self, games: Iterable[str]) -> None:
        speakers = [client for game in games for client in self.games[game][: len(self._ports)]]
        end = perf_counter() + PATIENCE
        while True:
            step = self._run(1000, speakers, len(speakers), 0, silence=0.3)
            if not step.missing:
                return
            if perf_counter() > end:
                raise Lost(f"{step.missing} of the first events are not heard by everybody")

    def run(
        self,
        rate: float,
        seconds: float,
        size: int = EVENT,
        *,
        speakers: Sequence[Client] = (),
        to_the_end: bool = False,
    ) -> Step:
        """So many events a second, each heard by everybody in its game. Raises `Lost`.

        The speakers take turns, everybody by default. Stops sending once it is clear that the rate
        does not hold, unless it is to go on `to_the_end`.
        """
        collecting = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            count = max(1, round(rate * seconds))
            return self._run(rate, speakers or self.clients, count, size, to_the_end=to_the_end)
        finally:
            if collecting:
                gc.enable()

    def _run(
        self,
        rate: float,
        speakers: Sequence[Client],
        count: int,
        size: int,
        *,
        silence: float = SILENCE,
        to_the_end: bool = False,
    ) -> Step:
        first, self._next = self._next, self._next + count
        for client in self.clients:
            client.seen = bytearray(count)
        turns = [speakers[number % len(speakers)] for number in range(count)]
        waited_for = [len(self.games[client.game]) for client in turns]
        hopeless = max(1, sum(waited_for) // 100)
        delays: list[float] = []
        numbers: list[int] = []
        clogged: set[Client] = set()
        sent = oldest = late = repeated = 0
        lag = 0.0
        gave_up = False
        began = last = perf_counter() + 0.002
        while True:
            now = perf_counter()
            while not gave_up and sent < count and began + sent / rate <= now:
                lag = max(lag, now - began - sent / rate)
                client = turns[sent]
                mark = MARK + b"%08d" % (first + sent)
                client.say(frame(client.dialect.event(client.player, mark, size)))
                if client.outbox:
                    clogged.add(client)
                sent += 1
                last = now
            while oldest < sent and not waited_for[oldest]:
                oldest += 1
            is_over = gave_up or sent == count
            if is_over and (oldest == sent or now - last > silence):
                break
            if oldest < sent and (late > hopeless or now - began - oldest / rate > HOPELESS):
                gave_up = not to_the_end
            for client in clogged:
                client.say(b"")
            clogged = {client for client in clogged if client.outbox}
            due = now + 0.05 if is_over else began + sent / rate
            for key, _ in self._selector.select(min(max(0.0, due - now), 0.05)):
                client = key.data
                client.take(client.receive(), numbers)
                last = perf_counter()
                for number in numbers:
                    event = number - first
                    if not 0 <= event < sent:
                        continue  # of a step before
                    if client.seen[event]:
                        repeated += 1
                        continue
                    client.seen[event] = 1
                    waited_for[event] -= 1
                    delay = last - began - event / rate
                    delays.append(delay)
                    if delay > BOUND:
                        late += 1
                numbers.clear()
        delays.sort()
        missing = sum(waited_for[:sent])
        return Step(
            rate,
            len(self.clients),
            sent,
            len(delays),
            missing,
            repeated,
            p50=_share(delays, missing, 0.50),
            p99=_share(delays, missing, 0.99),
            lag=lag,
            gave_up=gave_up,
        )


def _share(delays: list[float], missing: int, part: float) -> float:
    """The delay that such a part of all deliveries had at most; without end if they are missing."""
    rank = int(part * (len(delays) + missing))
    return delays[rank] if rank < len(delays) else float("inf")
