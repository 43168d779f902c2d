"""What a server hears that is not for it, and how it holds with many who do not read."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from time import sleep
from types import TracebackType
from urllib.parse import urlsplit

import psutil

from tests.benchmarks.driver import MARK, Client, Crowd, Lost, Step
from tests.benchmarks.servers import CONTENDERS, Contender, Servers
from wsdemo.limits import Limits
from wsdemo.open_files import allow_open_files

__all__ = ["Held", "Strangers", "hold", "strangers"]

EVENTS = 100  # and so many a second
PLAYERS = 10
LOOK = 0.05  # seconds between two looks at the memory
BODY = 16_000  # bytes of the events that fill the buffers of those who do not read
RATE = 40.0  # of them a second: fast enough that no keep-alive is quicker than the limit
BYTES = 5 * 2**20  # of them, for each who does not read: more than system and server keep for it
SLACK = 1.25  # the limits are looked at now and then
GROWTH = 2.0  # a buffer that grows takes memory in advance
GAME = 100  # players in each game
OTHER_FILES = 200
SMALL = 4096  # bytes of the receive buffer of one who does not read


@dataclass(frozen=True)
class Strangers:
    """What a server gets from Redis of a game that it has players in, and of one it has not."""

    events: int
    own: int
    strange: int

    def __str__(self) -> str:
        return (
            f"of {self.events} events in another server's game, it gets {self.strange}; "
            f"of {self.events} in its own, {self.own}"
        )


class _Line:
    """A way to Redis that counts the events that come along it. A context manager."""

    def __init__(self, redis: str) -> None:
        parts = urlsplit(redis)
        self._to = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self.events = 0
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> _Line:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._to)
                self._sockets += [near, far]
                for source, target, counts in ((near, far, False), (far, near, True)):
                    arguments = (source, target, counts)
                    threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                self.events += data.count(MARK) if counts else 0
                target.sendall(data)


def strangers(contender: Contender, redis: str, events: int = EVENTS) -> Strangers:
    """Play on A alone, then on B alone, and count what B is told."""
    with ExitStack() as stack:
        line = stack.enter_context(_Line(redis))
        servers = stack.enter_context(Servers(contender, redis, own_redis=[redis, line.url]))
        crowds = [
            stack.enter_context(Crowd([port], PLAYERS, contender.dialect, game_of))
            for port, game_of in zip(
                servers.ports, (lambda number: "a", lambda number: "b"), strict=True
            )
        ]
        counts = []
        for crowd in crowds:
            before = line.events
            step = crowd.run(EVENTS, events / EVENTS, to_the_end=True)
            if step.missing:
                raise Lost(f"{contender.name}: {step.missing} deliveries are missing")
            sleep(0.2)  # for what may still come to B
            counts.append(line.events - before)
        return Strangers(events, own=counts[1], strange=counts[0])


@dataclass(frozen=True)
class Held:
    """What came of it."""

    connections: int
    stalled: int
    idle: int  # bytes of the server with all of them, before anything was said
    peak: int  # and at most
    end: int  # and once all has been heard
    cut: int  # connections of those who did not read
    step: Step

    @property
    def bound(self) -> int:
        """Bytes that the server may take at most, if its limits for who does not read are kept."""
        limits = Limits()
        waiting = min(self.stalled * limits.max_waiting, limits.max_waiting_in_all)
        return self.idle + int(GROWTH * SLACK * waiting)

    def __str__(self) -> str:
        mib = [f"{each / 2**20:,.0f}" for each in (self.idle, self.peak, self.end)]
        return (
            f"{self.connections:,} connections on one server, {self.stalled:,} of which do not "
            f"read: {self.step.sent} events of {BODY:,} bytes, {self.step.missing} deliveries "
            f"missing to the others; {self.cut:,} cut; "
            f"memory {mib[0]} MiB, at most {mib[1]}, then {mib[2]}"
        )


def hold(
    redis: str, say: Callable[[str], None], *, connections: int = 5000, stalled: int = 1000
) -> Held:
    """Play with so many on one server, some of whom do not read, until it has had enough of those.

    They are in two of the games, and every second event is for these.
    """
    connections = _room_for(connections, say)
    readers = connections - stalled
    contender = CONTENDERS["wsdemo pubsub"]
    with ExitStack() as stack:
        servers = stack.enter_context(Servers(contender, redis, count=1))
        port = servers.ports[0]
        games = max(3, readers // GAME)
        crowd = stack.enter_context(
            Crowd([port], readers, contender.dialect, lambda number: f"g{number % games}")
        )
        sleepers = [
            Client(port, f"g{number % 2}", f"S{number}", contender.dialect, SMALL)
            for number in range(stalled)
        ]
        first = [players[0] for players in crowd.games.values()]
        speakers = [each for n, other in enumerate(first[2:]) for each in (first[n % 2], other)]
        events = 2 * 2 * BYTES // BODY
        with _Watch(servers.processes[0]) as watch:
            step = crowd.run(RATE, events / RATE, BODY, speakers=speakers, to_the_end=True)
        cut = sum(_is_cut(each) for each in sleepers)
        return Held(connections, stalled, watch.idle, watch.peak, watch.now, cut, step)


class _Watch:
    """Looks at a process's memory. A context manager."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.idle = self.peak = self.now = self._memory()

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self.now = self._memory()

    def _memory(self) -> int:
        return int(self._process.memory_info().rss)

    def _look(self) -> None:
        while not self._ended.wait(LOOK):
            self.peak = max(self.peak, self._memory())


def _is_cut(client: Client) -> bool:
    """Whether the server has ended a connection. Reads all that the system still has of it."""
    client.socket.settimeout(0.01)
    try:
        while client.socket.recv(2**16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        client.socket.close()
    return True


def _room_for(connections: int, say: Callable[[str], None]) -> int:
    """As many connections as the system lets one process have, and no more than are wanted."""
    room = allow_open_files(connections + OTHER_FILES) - OTHER_FILES
    if room < connections:
        say(f"Only {room} connections: the system lets a process open {room + OTHER_FILES} files")
    return room
