"""The same without WebSockets: a client that asks again and again whether there is news.

The server is the standard library's, in a thread of its own. Its connection stays open from one
question to the next, which is the best case for polling.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from wsdemo.lifetime import Lifetime

__all__ = ["PollingServer", "poll"]

MOST_EVENTS = 10_000  # kept for clients to ask for


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # with connections that stay open
    server_version, sys_version = "polling", ""
    server: _Server

    def do_GET(self) -> None:
        """Answer `GET /events?after=3` with the bodies of all events after the third."""
        query = parse_qs(urlsplit(self.path).query)
        after = query.get("after", [""])[0]
        if not after.isdecimal():
            self.send_error(400, "ask for /events?after=NUMBER")
            return
        answer = json.dumps(self.server.events[int(after) :]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    events: list[str]


class PollingServer(Lifetime):
    """Keeps what is said, for whoever asks for it over HTTP."""

    def __init__(self) -> None:
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where clients ask."""
        if self._server is None:
            raise RuntimeError("This server does not run; use it with `async with`.")
        return f"http://127.0.0.1:{self._server.server_port}"

    def say(self, body: str) -> None:
        """There is an event."""
        if self._server is None:
            raise RuntimeError("This server does not run; use it with `async with`.")
        if len(self._server.events) >= MOST_EVENTS:
            raise RuntimeError(f"This server keeps {MOST_EVENTS} events, and it has them.")
        self._server.events.append(body)

    async def start(self) -> None:
        """Listen on a free loopback port."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.events = []
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    async def stop(self) -> None:
        """Listen no more."""
        server, self._server = self._server, None
        if server and self._thread:
            await asyncio.to_thread(server.shutdown)
            server.server_close()
            self._thread.join()


async def poll(url: str, every: float, count: int) -> list[tuple[str, float]]:
    """Ask `every` so many seconds until there have been `count` events.

    Returns what each said, and when it was heard, in seconds of `time.perf_counter`.
    """
    where = urlsplit(url)
    connection = HTTPConnection(where.hostname or "127.0.0.1", where.port, timeout=5)
    heard: list[tuple[str, float]] = []

    def ask() -> list[str]:
        connection.request("GET", f"/events?after={len(heard)}")
        found: list[str] = json.loads(connection.getresponse().read())
        return found

    try:
        while True:
            bodies = await asyncio.to_thread(ask)
            heard += [(body, time.perf_counter()) for body in bodies]
            if len(heard) >= count:
                return heard
            await asyncio.sleep(every)
    finally:
        connection.close()
