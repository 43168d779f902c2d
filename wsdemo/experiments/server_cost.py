"""What one server costs for each connection, each event and each delivery, by its own numbers.

The server is a process of its own, without a broker, which says over HTTP how much memory it holds
and how much time of a core it has used. The clients are here, and do as little as clients can.

What it does not see: the operating system's memory for each socket, which is not the process's, and
the network, which is not there.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import psutil

from wsdemo.experiments.cost import Busy, Cost, Filled, Talk, cost_of
from wsdemo.open_files import open_files
from wsdemo.processes.stand_alone import StandAloneServer
from wsdemo.protocol import Join, Send, encode

__all__ = ["Meter", "server_cost"]

FEWEST, MOST = 50, 5000  # connections
STEPS = 10  # in which they are made
AT_ONCE = 50  # connections that are being made; 100 can wait to be accepted
SHARES = (0.05, 0.1, 0.15, 0.7)  # of the connections in each game; one of the first plays alone
TRIES = 3  # of which the middle one counts: a machine is quicker at one moment than at another
SPEAKERS = 400  # at most, while many speak
# What a talk is measured by, in deliveries; and how many of them an event is like, whoever hears
# it. So all games weigh about the same.
ONE_SPEAKS, EVENT_OF_ONE = 900, 25
MANY_SPEAK, EVENT_OF_MANY = 150_000, 100
PAUSE = 2.0  # times what the event took: what has just been done is cheaper to do again
# Shares of what the server can do, by its costs with much to do; the last is more than it can.
PACES = (0.02, 0.05, 0.1, 0.25, 0.5, 4.0)
SECONDS_AT_A_PACE = 0.15
IN_ONE_GO = 50  # events that are said before the clients look at what has come
SPARE_FILES = 50
SECONDS = 60.0  # that a measurement may take

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def server_cost(
    connections: int = 500, progress: Callable[[float], None] = lambda share: None
) -> Cost:
    """Start a server, connect players to it, let some speak, and read what it used.

    There can be 50 to 5,000 of them. `progress` is told how much is done, from 0 to 1. On POSIX,
    this process may open as many files as that needs while it lasts, if the system allows. Raises
    `ValueError` for another number of connections, `OSError` if so many cannot be opened, saying
    what to do, `RuntimeError` if the server does not start, and `TimeoutError` after a minute.
    """
    if not FEWEST <= connections <= MOST:
        raise ValueError(f"{connections} connections: use {FEWEST} to {MOST:,}")
    limit = asyncio.timeout(SECONDS)
    try:
        async with limit:
            return await _measure(connections, progress)
    except TimeoutError:
        if not limit.expired():
            raise
        raise TimeoutError(
            f"{connections:,} connections could not be measured in {SECONDS:g} s; "
            f"try fewer: server_cost(connections={max(FEWEST, connections // 4)})"
        ) from None


async def _measure(connections: int, progress: Callable[[float], None]) -> Cost:
    ticks = _ticks(1 + STEPS + TRIES * (1 + len(SHARES)) + len(PACES), progress)
    with _files_for(connections):
        arguments = ("--broker", "none", "--max-players", f"{MOST}")
        async with StandAloneServer("A", *arguments) as server:
            meter = Meter(server)
            await meter.learn_its_price()
            next(ticks)
            with _crowd(server.port, _games(connections)) as crowd:
                filling = [await _filled(meter, 0)]
                for step in range(1, STEPS + 1):
                    await crowd.grow(round(connections * step / STEPS))
                    filling.append(await _filled(meter, len(crowd.clients)))
                    next(ticks)
                await meter.learn_its_price()  # it may be another one with so many
                games = crowd.games()
                cost = cost_of(filling, await _talks(meter, games, ticks))
                busy = []
                for pace in PACES:
                    busy.append(await _busy(meter, games[-1], pace, cost))
                    next(ticks)
    return replace(cost, busy=tuple(busy))


async def _talks(
    meter: Meter, games: Sequence[Sequence[_Client]], ticks: Iterator[None]
) -> list[Talk]:
    """One player of each game speaks, then many of them, where there are more."""
    tries: dict[tuple[int, int], list[Talk]] = {}
    for _ in range(TRIES):
        for game in games:
            for speakers in [game[-1:], game[:SPEAKERS]][: len(game)]:
                talk = await _talk(meter, game, speakers)
                tries.setdefault((talk.players, talk.speakers), []).append(talk)
            next(ticks)
    return [sorted(each, key=lambda talk: talk.seconds)[TRIES // 2] for each in tries.values()]


class _Client(asyncio.Protocol):
    """A WebSocket client that knows no more than whether, and when, what it waits for has come."""

    def __init__(self, game: str, player: str) -> None:
        self._hello = HANDSHAKE + _frame(encode(Join(game, player)))
        self._transport: asyncio.Transport | None = None
        self._tail = b""
        self._is_over: Callable[[], bool] = lambda: False
        self._came: asyncio.Future[None] | None = None
        self._lost: ConnectionError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._came:
            self._tail += data
            if self._is_over():
                self._end_wait()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = ConnectionError("the server has closed a connection")
        self._end_wait(self._lost)

    async def join(self) -> None:
        """Return once the server has taken it into the game."""
        await self._say(self._hello, until=b'"welcome"')

    async def speak(self, event: str) -> None:
        """Say an event, and return once it has come back."""
        await self._say(_event(event), until=b'"event","id":"%b"' % event.encode())

    def say(self, event: str) -> None:
        """Say an event, and do not wait for it."""
        assert self._transport
        self._transport.write(_event(event))

    def hear(self, run: str, count: int) -> tuple[dict[int, float], asyncio.Future[None]]:
        """When each event of a run came, by its number; and what is done once there are so many."""
        clock = asyncio.get_running_loop().time
        pattern = re.compile(rb'"event","id":"%b-(\d+)"' % re.escape(run.encode()))
        times: dict[int, float] = {}

        def note() -> bool:
            end, now = 0, clock()
            for event in pattern.finditer(self._tail):
                times[int(event[1])] = now
                end = event.end()
            self._tail = self._tail[end:]
            return len(times) == count

        return times, self._wait(note)

    def hang_up(self) -> None:
        """Be gone, without a goodbye."""
        if self._transport:
            self._transport.abort()

    async def _say(self, data: bytes, until: bytes) -> None:
        assert self._transport
        came = self._wait(lambda: until in self._tail)
        self._transport.write(data)
        await came

    def _wait(self, is_over: Callable[[], bool]) -> asyncio.Future[None]:
        self._tail, self._is_over = b"", is_over
        came = self._came = asyncio.get_running_loop().create_future()
        if self._lost:  # while nobody waited
            self._end_wait(self._lost)
        return came

    def _end_wait(self, error: Exception | None = None) -> None:
        came, self._came = self._came, None
        if came and not came.done():
            if error:
                came.set_exception(error)
            else:
                came.set_result(None)


class _Crowd:
    """The clients, in the order in which they come: each in the game that is its turn."""

    def __init__(self, port: int, games: Sequence[str]) -> None:
        self._port = port
        self._games = games
        self.clients: list[_Client] = []

    async def grow(self, size: int) -> None:
        """Let more connect and join, so that they are so many."""
        while (before := len(self.clients)) < size:
            numbers = range(before, min(size, before + AT_ONCE))
            # All are there to be hung up, also if one of them fails.
            self.clients += (_Client(self._games[number], f"P{number}") for number in numbers)
            try:
                async with asyncio.TaskGroup() as group:
                    for client in self.clients[before:]:
                        group.create_task(self._connect(client))
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None

    def games(self) -> list[list[_Client]]:
        """The players of each game, from the smallest to the largest."""
        found: dict[str, list[_Client]] = {}
        for client, game in zip(self.clients, self._games, strict=True):
            found.setdefault(game, []).append(client)
        return list(found.values())

    async def _connect(self, client: _Client) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: client, "127.0.0.1", self._port)
        await client.join()


@contextmanager
def _crowd(port: int, games: Sequence[str]) -> Iterator[_Crowd]:
    crowd = _Crowd(port, games)
    try:
        yield crowd
    finally:
        for client in crowd.clients:
            client.hang_up()


class Meter:
    """Reads the server's numbers, and takes off what the reading itself costs it."""

    def __init__(self, server: StandAloneServer) -> None:
        self._server = server
        self._price = 0.0  # seconds of a core for each reading
        self._read = 0

    async def learn_its_price(self) -> None:
        """Read a few times while nothing else happens."""
        used = [(await self.read())["process_cpu_seconds_total"] for _ in range(4)]
        self._price = min(after - before for before, after in pairwise(used))

    async def read(self) -> dict[str, float]:
        """The numbers as they would be if nobody had asked."""
        numbers = await self._server.numbers()
        self._read += 1
        numbers["process_cpu_seconds_total"] -= self._price * self._read
        return numbers


async def _filled(meter: Meter, connections: int) -> Filled:
    numbers = await meter.read()
    return Filled(
        connections,
        numbers["process_resident_memory_bytes"],
        numbers["process_cpu_seconds_total"],
    )


async def _talk(meter: Meter, game: Sequence[_Client], speakers: Sequence[_Client]) -> Talk:
    """Let one player of a game speak now and then, or many of them without a pause."""
    players, pause = len(game), 0.0
    events = MANY_SPEAK / (players + EVENT_OF_MANY)
    if len(speakers) == 1:
        events, pause = ONE_SPEAKS / (players + EVENT_OF_ONE), PAUSE
    times = max(2, round(events / len(speakers)))
    before = await meter.read()
    await asyncio.gather(*(_speak(client, times, pause) for client in speakers))
    after = await meter.read()

    def more(name: str) -> float:
        return after[name] - before[name]

    return Talk(
        players=players,
        speakers=len(speakers),
        events=round(more("wsdemo_events_received_total")),
        deliveries=round(more("wsdemo_deliveries_total")),
        seconds=more("process_cpu_seconds_total"),
    )


async def _speak(client: _Client, times: int, pause: float) -> None:
    """Say something so many times, each once the one before was heard, and a pause later."""
    clock = asyncio.get_running_loop().time
    for number in range(times):
        began = clock()
        await client.speak(f"{number}")
        await asyncio.sleep(pause * (clock() - began))


async def _busy(meter: Meter, game: Sequence[_Client], pace: float, cost: Cost) -> Busy:
    """Let the players speak at this share of what the server can do, whether it can or not."""
    clock = asyncio.get_running_loop().time
    rate = pace / cost.seconds(1, len(game))
    count, run = max(2, round(SECONDS_AT_A_PACE * rate)), f"at {pace:g}"
    # The last one to whom an event is written.
    heard, all_heard = game[-1].hear(run, count)
    before, began = await meter.read(), clock()
    try:
        said = await _say_in_turn(game, run, count, rate)
        took_to_say = clock() - began
        await all_heard
    finally:
        all_heard.cancel()
    took, after = clock() - began, await meter.read()
    used = after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
    return Busy(
        players=len(game),
        said=count / took_to_say,
        events=count / took,
        share=used / took,
        waits=tuple(heard[number] - said[number] for number in range(count)),
    )


async def _say_in_turn(game: Sequence[_Client], run: str, count: int, rate: float) -> list[float]:
    """Let the players say so many events, at so many a second, one player after the other: when."""
    clock = asyncio.get_running_loop().time
    began, said = clock(), list[float]()
    while len(said) < count:
        due = min(count, len(said) + IN_ONE_GO, 1 + int((clock() - began) * rate))
        for number in range(len(said), due):
            said.append(clock())
            game[number % len(game)].say(f"{run}-{number}")
        await asyncio.sleep(max(0.0, began + due / rate - clock()))
    return said


def _games(connections: int) -> list[str]:
    """Which game each player is in: the first alone in one, the others as SHARES says."""
    sizes = [round(share * connections) for share in SHARES[:-1]]
    sizes.append(connections - sum(sizes))
    sizes[:1] = [1, sizes[0] - 1]
    return [f"{game}" for game, size in enumerate(sizes) for _ in range(size)]


def _event(event: str) -> bytes:
    return _frame(encode(Send(event, "jump")))


def _frame(payload: bytes) -> bytes:
    """A client's text frame. Its mask is of zeros: nobody here has to be protected from it."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + payload


def _ticks(count: int, progress: Callable[[float], None]) -> Iterator[None]:
    """Tells, each time, that one more of `count` parts is done."""
    for done in range(1, count + 1):
        progress(done / count)
        yield


@contextmanager
def _files_for(connections: int) -> Iterator[None]:
    """Let this process, and those that it starts, open so many sockets more, while it lasts.

    Raises `OSError`, saying what to do, if the system does not allow it.
    """
    has = 0 if sys.platform == "win32" else psutil.Process().num_fds()  # which has no such limit
    files = has + connections + SPARE_FILES
    with open_files(files) as allowed:
        if allowed < files:
            raise OSError(
                f"Each connection is an open file, and this process may open {allowed:,} files, "
                f"not {files:,}: `ulimit -n` says how many. Say `ulimit -n {files}` in the shell "
                "before you start JupyterLab from it, or measure fewer connections."
            )
        yield
