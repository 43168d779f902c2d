"""The load balancer: routing policies, which are functions, and a TCP proxy that asks one of them.

The proxy reads the head of the HTTP request that opens a WebSocket, as far as it needs to know who
is calling (`?player=P1`, as HAProxy's `balance url_param player` does), and from then on copies
bytes in both directions.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from wsdemo.changes import Changes
from wsdemo.lifetime import Lifetime
from wsdemo.ports import BACKLOG, accept_no_more, bound_socket
from wsdemo.trace import Kind, Trace

__all__ = ["POLICIES", "Balancer", "Policy", "Target", "least_connections", "round_robin", "sticky"]

MAX_HEAD = 8192  # bytes in the head of a request
SECONDS_FOR_HEAD = 10.0
SECONDS_OUT = 1.0  # how long a server that did not answer stays out of the rotation
CHUNK = 65536  # bytes


@dataclass
class Target:
    """A server, as the balancer sees it. `out_until` is a time of the event loop's clock."""

    name: str
    host: str
    port: int
    connections: int = 0
    out_until: float = 0.0
    ready: bool = True


Policy = Callable[[Sequence[Target], str], Target]
"""Chooses among the servers that are in rotation (at least one), for the client with this key."""


def round_robin() -> Policy:
    """Each in turn."""
    turns = itertools.count()
    return lambda targets, key: targets[next(turns) % len(targets)]


def least_connections() -> Policy:
    """The one with the fewest open connections; the first of several."""
    return lambda targets, key: min(targets, key=lambda target: target.connections)


def sticky() -> Policy:
    """The same client to the same server, for as long as that one is in rotation.

    Rendezvous hashing: https://en.wikipedia.org/wiki/Rendezvous_hashing
    """

    def weight(target: Target, key: str) -> bytes:
        return hashlib.sha256(f"{target.name}\0{key}".encode()).digest()

    return lambda targets, key: max(targets, key=lambda target: weight(target, key))


POLICIES: dict[str, Callable[[], Policy]] = {
    "round-robin": round_robin,
    "least-connections": least_connections,
    "sticky": sticky,
}


class Balancer(Lifetime):
    """A TCP proxy in front of the servers that are added to it; with a `listener`, on its port."""

    def __init__(
        self,
        policy: Policy,
        *,
        name: str = "balancer",
        host: str = "127.0.0.1",
        port: int = 0,
        listener: socket.socket | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.name = name
        self._policy = policy
        self._host = host
        self._port = port
        self._listener = listener
        self.keeps_port = False
        """Whether `stop` leaves the port to `kept_port`, so that nobody else can take it."""
        self.kept_port: socket.socket | None = None
        self._trace = trace
        self._targets: dict[str, Target] = {}
        self._sent: dict[str, str] = {}  # request -> the server its connection goes to
        self._calls: dict[asyncio.Task[None], str] = {}  # -> its request
        self._carried: dict[str, str] = {}  # request -> the server its connection went to
        self._changes = Changes()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where players connect."""
        return f"ws://{self._host}:{self._port}"

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        return self._port

    @property
    def targets(self) -> dict[str, Target]:
        """The servers behind it, by name, in or out of the rotation."""
        return dict(self._targets)

    def add(self, name: str, host: str, port: int) -> None:
        """Put a server into the rotation."""
        self._targets[name] = Target(name, host, port)

    def set_ready(self, name: str, ready: bool) -> None:
        """Take a server out that says it is not ready, or put it back.

        While none is ready, all are as good as each other, and stay in:
        https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/panic_threshold
        """
        if name in self._targets:
            self._targets[name].ready = ready

    def remove(self, name: str) -> None:
        """Take a server out for good. Its connections stay."""
        self._targets.pop(name, None)

    def send(self, request: str, server: str) -> None:
        """The connection that opens with this request goes to this server, whatever the policy."""
        self._sent[request] = server

    @property
    def calls(self) -> set[str]:
        """The requests of the clients that are connected, as `/?player=P1&call=2`."""
        return set(self._calls.values())

    def server_of(self, request: str) -> str:
        """The server that the connection with this request went to; empty if there is none."""
        return self._carried.get(request, "")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of the connections."""
        await self._changes.until(condition)

    async def start(self) -> None:
        """Listen. Raises `OSError` if the port is taken."""
        listener = self._listener or bound_socket(self._host, self._port)
        self._server = await asyncio.start_server(
            self._accept, sock=listener, limit=MAX_HEAD, backlog=BACKLOG
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut what is still connected."""
        server, self._server = self._server, None
        if server:
            await accept_no_more(server)
            server.close()
            if self.keeps_port:
                with suppress(OSError):  # somebody was quicker: then the next one will say so
                    self.kept_port = bound_socket(self._host, self._port)
        for call in tuple(self._calls):
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # it called just before `stop`
            writer.transport.abort()
            return
        call = asyncio.get_running_loop().create_task(self._take(reader, writer))
        self._calls[call] = ""
        call.add_done_callback(lambda _: self._hang_up(call, writer))

    def _hang_up(self, call: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        writer.close()
        del self._calls[call]
        self._changes.announce()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One call, from the first byte to the last."""
        call = asyncio.current_task()
        assert call is not None
        try:
            async with asyncio.timeout(SECONDS_FOR_HEAD):
                head = await reader.readuntil(b"\r\n\r\n")
            request = self._calls[call] = _request(head)
            player = _caller(request)
            address: str = writer.get_extra_info("peername")[0]
            await self._carry(head, reader, writer, request, key=player or address)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            writer.transport.abort()  # whoever is at the other end is no client, or has gone

    async def _carry(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: str,
        key: str,
    ) -> None:
        """Connect to a server and copy both ways until either side ends."""
        for target in self._choices(request, key):
            try:
                async with asyncio.timeout(SECONDS_OUT):
                    upstream = await asyncio.open_connection(target.host, target.port)
            except (OSError, TimeoutError) as error:
                self._take_out(target, error)
                continue
            self._record("route", target.name, player=_caller(request))
            target.connections += 1
            self._carried[request] = target.name
            self._changes.announce()
            try:
                upstream[1].write(head)
                await _copy_both_ways((reader, writer), upstream)
            finally:
                target.connections -= 1
                self._carried.pop(request, None)
            return
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    def _choices(self, request: str, key: str) -> Iterator[Target]:
        """The server that was asked for, then what the policy chooses, each at most once."""
        tried: set[str] = set()
        asked_for = self._targets.get(self._sent.pop(request, ""))
        if asked_for:
            tried.add(asked_for.name)
            yield asked_for
        while True:
            now = asyncio.get_running_loop().time()
            targets = [
                target
                for target in self._targets.values()
                if target.name not in tried and target.out_until <= now
            ]
            if not targets:
                return
            target = self._policy([t for t in targets if t.ready] or targets, key)
            tried.add(target.name)
            yield target

    def _take_out(self, target: Target, error: Exception) -> None:
        target.out_until = asyncio.get_running_loop().time() + SECONDS_OUT
        self._record("fault", target.name, reason=str(error) or "no answer")

    def _record(self, kind: Kind, peer: str, **data: Any) -> None:
        if self._trace is not None:
            self._trace.append(kind, self.name, peer, **data)


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def _request(head: bytes) -> str:
    """What the head of an HTTP request asks for, empty where it is no request."""
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    return words[1] if len(words) == 3 else ""


def _caller(request: str) -> str:
    """The `player` of a request's query, empty where it names none."""
    try:
        return parse_qs(urlsplit(request).query).get("player", [""])[0]
    except ValueError:
        return ""


async def _copy_both_ways(client: _Stream, server: _Stream) -> None:
    copies = [
        asyncio.create_task(_copy(client[0], server[1])),
        asyncio.create_task(_copy(server[0], client[1])),
    ]
    try:
        done, rest = await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        if rest and not any(copy.exception() for copy in done):
            await asyncio.wait(rest, timeout=SECONDS_OUT)  # for the other side's goodbye
    finally:
        # A list, so that each is looked at: asyncio reports a failure that nobody has seen.
        ended = [copy.done() and not copy.cancelled() and not copy.exception() for copy in copies]
        clean = all(ended)
        for copy in copies:
            copy.cancel()
        for _, writer in (client, server):
            if clean:
                writer.close()
            else:
                writer.transport.abort()  # a cut connection is passed on as one


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
