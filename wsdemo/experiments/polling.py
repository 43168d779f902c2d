"""The same without WebSockets: a client that asks again and again whether there is news.

The server is the standard library's, in threads of its own. Its connection stays open from one
question to the next, which is the best case for polling.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from wsdemo.lifetime import Lifetime

__all__ = ["PollingServer", "poll"]

MOST_EVENTS = 10_000  # kept for clients to ask for
SECONDS_OUT = 5.0  # for a server to answer
QUESTION = re.compile(r"/events\?after=([0-9]{1,9})")
ANSWER = re.compile(rb"HTTP/1.1 200 .*\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE | re.DOTALL)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # with connections that stay open
    server_version, sys_version = "polling", ""
    wbufsize = -1  # an answer's head and body go out in one piece
    server: _Server

    def do_GET(self) -> None:
        """Answer `GET /events?after=3` with the bodies of all events after the third."""
        question = QUESTION.fullmatch(self.path)
        if not question:
            self.send_error(400, "ask for /events?after=NUMBER")
            return
        answer = json.dumps(self.server.events[int(question[1]) :]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # `server_close` waits for them

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: list[str] = []
        self._clients: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        """A client has connected."""
        client, address = super().get_request()
        self._clients.add(client)
        return client, address

    def shutdown_request(self, request: Any) -> None:
        """A client is gone."""
        self._clients.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has cut the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """Hang up, and wait until nobody is served any more."""
        for client in tuple(self._clients):
            with suppress(OSError):  # it has hung up itself
                client.shutdown(socket.SHUT_RDWR)
        super().server_close()


class PollingServer(Lifetime):
    """Keeps what is said, for whoever asks for it over HTTP."""

    def __init__(self) -> None:
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"http://127.0.0.1:{self._running.server_port}"

    @property
    def _running(self) -> _Server:
        if self._server is None:
            raise RuntimeError("This server does not run; use it with `async with`.")
        return self._server

    def say(self, body: str) -> None:
        """There is an event."""
        events = self._running.events
        if len(events) >= MOST_EVENTS:
            raise RuntimeError(
                f"This server keeps {MOST_EVENTS} events and has them; start a new one."
            )
        events.append(body)

    async def start(self) -> None:
        """Listen on a free loopback port."""
        self._server = _Server()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    async def stop(self) -> None:
        """Hang up, and listen no more."""
        server, self._server = self._server, None
        if server and self._thread:
            server.shutdown()  # within 10 ms; nobody can cancel it halfway
            server.server_close()
            self._thread.join()


async def poll(url: str, every: float, count: int) -> list[tuple[str, float]]:
    """Ask `every` so many seconds until there have been `count` events.

    Returns what each said, and when it was heard, in seconds of `time.perf_counter`. Raises
    `ConnectionError` if the server goes away or gives another answer, `TimeoutError` if it gives
    none.
    """
    where = urlsplit(url)
    heard: list[tuple[str, float]] = []
    async with asyncio.timeout(SECONDS_OUT):
        reader, writer = await asyncio.open_connection(where.hostname, where.port or 80)
    try:
        while True:
            question = f"GET /events?after={len(heard)} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n"
            writer.write(question.encode())
            bodies = await _answer(reader, url)
            heard += [(body, time.perf_counter()) for body in bodies]
            if len(heard) >= count:
                return heard
            await asyncio.sleep(every)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, url: str) -> list[str]:
    try:
        async with asyncio.timeout(SECONDS_OUT):
            head = await reader.readuntil(b"\r\n\r\n")
            if found := ANSWER.match(head):
                bodies: list[str] = json.loads(await reader.readexactly(int(found[1])))
                return bodies
    except (asyncio.IncompleteReadError, ConnectionError):
        raise ConnectionError(f"The server at {url} has gone; start one, and poll that.") from None
    except TimeoutError:
        raise TimeoutError(f"The server at {url} does not answer; start another.") from None
    line = head.decode("latin-1").splitlines()[0]
    raise ConnectionError(f"{url} answers {line!r}; give poll() the url of a PollingServer.")
