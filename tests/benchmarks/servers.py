"""The contenders, and their server processes: what each is, how it starts, what it has used."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from tempfile import TemporaryFile
from time import monotonic, sleep
from typing import IO

import psutil

from tests.benchmarks.driver import PLAIN, SOCKET_IO, WSDEMO, Dialect
from wsdemo.processes.child import Child

__all__ = ["CONTENDERS", "Contender", "Servers"]

START = 60.0  # seconds that a server may take to listen, on a machine that has much to do


@dataclass(frozen=True)
class Contender:
    """One way to play on two servers."""

    name: str
    module: str  # and what else stands before the arguments that all have
    dialect: Dialect
    does: str  # beside what all do, or not
    needs: Sequence[str] = ()  # packages that are not the project's own
    arguments: Sequence[str] = ()
    has_games: bool = True  # or everybody is in one

    @property
    def lacks(self) -> list[str]:
        """The packages that are not here."""
        return [package for package in self.needs if not find_spec(package)]

    def command(self, name: str, port: int, redis: str) -> list[str]:
        """What starts one server process."""
        common = ["--name", name, "--port", str(port), "--redis", redis]
        return [sys.executable, "-m", *self.module.split(), *common, *self.arguments]


def _wsdemo(broker: str, does: str) -> Contender:
    return Contender(
        f"wsdemo {broker}", "wsdemo serve", WSDEMO, does, arguments=("--broker", broker)
    )


def _contender(
    name: str, module: str, does: str, needs: Sequence[str] = (), **more: object
) -> Contender:
    dialect = SOCKET_IO if "socketio" in needs else PLAIN
    place = f"tests.benchmarks.contenders.{module}"
    return Contender(name, place, dialect, does, needs, has_games=bool(needs))


CONTENDERS = {
    contender.name: contender
    for contender in (
        _contender(
            "websockets", "bare", "nothing more; one game, and no bound for who does not read"
        ),
        _wsdemo(
            "pubsub",
            "names and games; checks each message and each event; cuts who does not read; "
            "one order on all servers; notices when it is deaf; metrics; and what comes in one "
            "turn of its event loop it writes in one go, where the others write each frame",
        ),
        _contender("limit", "limit", "less: one game, and its frames pass no WebSocket protocol"),
        _wsdemo(
            "stream",
            "as pubsub; and keeps and numbers the last 1,000 events in Redis, confirms each one to "
            "its sender, and replays",
        ),
        _contender(
            "python-socketio",
            "socketio_rooms",
            "rooms; JSON is read and written in each server; heartbeats; polling as a way out; the "
            "sender's own server does not wait for Redis, so there is no one order",
            ("socketio", "uvicorn"),
        ),
        _contender(
            "channels_redis",
            "channels_layer",
            "groups; a channel in Redis, a queue without bound and two tasks for each player; "
            "MessagePack; its layer alone, without Channels' slower consumers",
            ("channels_redis",),
        ),
        _contender(
            "broadcaster",
            "broadcaster_starlette",
            "channels; a queue without bound and two tasks for each player",
            ("broadcaster", "starlette", "uvicorn"),
        ),
    )
}


class Servers:
    """Server processes of one contender, which share a Redis. A context manager.

    Raises `RuntimeError` if one ends before it listens.
    """

    def __init__(
        self, contender: Contender, redis: str, count: int = 2, own_redis: Sequence[str] = ()
    ) -> None:
        self.contender = contender
        self._redis = [*own_redis, *[redis] * (count - len(own_redis))]
        self._stack = ExitStack()
        self.log: IO[bytes]
        self.ports: list[int] = []
        self.processes: list[psutil.Process] = []
        self._children: list[Child] = []

    def __enter__(self) -> Servers:
        with self._stack:
            self.log = self._stack.enter_context(TemporaryFile())
            self.ports = _free_ports(len(self._redis))
            for number, (port, redis) in enumerate(zip(self.ports, self._redis, strict=True)):
                command = self.contender.command("AB"[number], port, redis)
                child = Child(command, errors=self.log)
                self._stack.callback(child.end)
                self._children.append(child)
                self.processes.append(psutil.Process(child.pid))
            for port, child in zip(self.ports, self._children, strict=True):
                self._wait_for(port, child)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def said(self) -> str:
        """The end of what they have logged."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-2000:]

    def cpu(self) -> float:
        """Seconds that they have worked, all together, for themselves and in the kernel."""
        times = [process.cpu_times() for process in self.processes]
        return float(sum(each.user + each.system for each in times))

    def memory(self) -> int:
        """Bytes of their own, all together."""
        return sum(_memory(process) for process in self.processes)

    def _wait_for(self, port: int, child: Child) -> None:
        end = monotonic() + START
        name = self.contender.name
        while True:
            if not child.runs:
                raise RuntimeError(f"a server of {name} has ended; it said: {self.said}")
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            if monotonic() > end:
                raise RuntimeError(f"a server of {name} does not listen; it said: {self.said}")
            sleep(0.02)  # a port that opens tells nobody


def _memory(process: psutil.Process) -> int:
    """Of memory that it shares with nobody, where the system says; else all that is in memory."""
    info = process.memory_full_info()
    return int(getattr(info, "uss", info.rss))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
