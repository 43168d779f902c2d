"""The inside of a server process that belongs to a cluster: it does what the cluster asks of it.

Beside the server's own port there is one connection, to the cluster: on it the process tells what
happens, for the trace, and is asked to do things. It ends with that connection. If the cluster does
not listen, as when a cell blocks, some 16 MiB wait for it, and then the server stands still.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

import msgspec

from wsdemo.brokers import Broker, LocalBroker, new_broker
from wsdemo.limits import Limits
from wsdemo.processes.channel import MAX_LINE, Channel
from wsdemo.redis.backend import remote_redis
from wsdemo.redis.line import Line
from wsdemo.server import Canary, GameServer
from wsdemo.trace import Kind, Trace

__all__ = ["PASS", "Orders", "main"]

PASS = "WSDEMO_WORKER"  # the variable with the cluster's port and the word to say there


class Orders(msgspec.Struct, frozen=True):
    """What server to be. `began` is when the cluster's trace did: see `Trace.began`."""

    name: str
    port: int
    broker: str
    redis: str
    prefix: str
    history: int
    link_is_cut: bool
    origins: list[str]
    reserved_names: list[str]
    limits: Limits
    canary: Canary
    began: float


class _TellingTrace(Trace):
    """Tells what is recorded, and keeps none of it."""

    def __init__(self, channel: Channel, began: float) -> None:
        super().__init__()
        self._channel = channel
        self._began = began

    def append(self, kind: Kind, at: str, peer: str = "", event: str = "", /, **data: Any) -> None:
        self._channel.tell("record", self.now(), kind, at, peer, event, data)


class _Worker:
    """A server, and the channel to its cluster."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._channel = Channel(reader, writer, self._asked, self._told)
        self._line = Line()
        self._server: GameServer | None = None
        self._trace: Trace = Trace()
        self._last: list[Any] = []  # that it told of how things are

    async def run(self) -> None:
        """Work until the channel ends."""
        try:
            await self._channel.run()
        finally:
            if self._server:
                await self._server.stop()

    async def _asked(self, what: str, arguments: list[Any]) -> Any:
        if what == "begin":
            return await self._begin(msgspec.convert(arguments[0], Orders))
        assert self._server
        match what:
            case "sync":
                await self._server.sync()
            case "hears":
                return await self._server.hears_now()
            case "send away":
                await self._server.send_away(*arguments)
            case "stop":
                await self._server.stop()
        self._tell_how_it_is()
        return None

    def _told(self, what: str, arguments: list[Any]) -> None:
        match what:
            case "mark":
                self._channel.tell("mark", self._trace.now())
            case "cut":
                self._line.cut()
            case "mend":
                self._line.mend()
            case "lose replies":
                self._line.replies_to_lose = arguments[0]

    async def _begin(self, orders: Orders) -> int:
        self._trace = _TellingTrace(self._channel, orders.began)
        if orders.link_is_cut:
            self._line.cut()
        self._server = GameServer(
            orders.name,
            self._broker(orders),
            port=orders.port,
            origins=orders.origins,
            reserved_names=orders.reserved_names,
            may_join=self._may_join,
            on_hearing_change=self._tell_how_it_is,
            limits=orders.limits,
            canary=orders.canary,
            trace=self._trace,
        )
        await self._server.start()
        self._tasks = [
            asyncio.create_task(work(self._server)) for work in (self._watch, self._keep_pace)
        ]
        return self._server.port

    def _broker(self, orders: Orders) -> Broker:
        if orders.broker == "none":
            return LocalBroker()
        return new_broker(
            orders.broker,
            remote_redis(orders.redis, orders.prefix).broker_client(self._line),
            server=orders.name,
            prefix=orders.prefix,
            history=orders.history,
            trace=self._trace,
        )

    async def _may_join(self, player: str, request: str) -> bool:
        return bool(await self._channel.ask("may join", player, request))

    async def _watch(self, server: GameServer) -> None:
        while True:
            await server.until(lambda: self._how_it_is() != self._last)
            self._tell_how_it_is()

    async def _keep_pace(self, server: GameServer) -> None:
        """Let nothing more happen here while what did is not heard."""
        with suppress(ConnectionError):  # then the process ends, too
            while True:
                await self._channel.behind.wait()
                server.freeze()
                await self._channel.caught_up()
                server.thaw()

    def _tell_how_it_is(self) -> None:
        how_it_is = self._how_it_is()
        if how_it_is != self._last:
            self._last = how_it_is
            self._channel.tell("now", *how_it_is)

    def _how_it_is(self) -> list[Any]:
        assert self._server
        return [sorted(self._server.calls), self._server.hears]


async def _work() -> None:
    port, word = os.environ.pop(PASS).split()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port), limit=MAX_LINE)
    writer.write(word.encode() + b"\n")
    await _Worker(reader, writer).run()


def main() -> None:
    """Be a worker until the cluster, or its process, ends."""
    asyncio.run(_work())
