"""One game server as a process of its own, until it is told to end.

Beside the players' WebSockets it answers, over HTTP on the same port: `/healthz`, that the process
lives; `/readyz`, that players may be sent to it; `/metrics`, what it has done, for Prometheus. Logs
go to standard error, a JSON object each.

SIGTERM (or SIGINT) lets it drain: it takes no more players, and sends those that it has away, over
a few seconds, so that they do not all come to the other servers in one moment; then it ends. On
Windows, where nobody can send it these from outside, Ctrl+Break (CTRL_BREAK_EVENT) does the same.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from bisect import bisect_right
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pythonjsonlogger.json import JsonFormatter

from wsdemo.brokers import REDIS_BROKERS, SECONDS_TO_KEEP, Broker, LocalBroker, new_broker
from wsdemo.limits import Limits
from wsdemo.open_files import allow_open_files
from wsdemo.ports import address, is_loopback
from wsdemo.protocol import check_name
from wsdemo.redis.backend import SERVE_PREFIX, URLS, remote_redis
from wsdemo.server import GameServer
from wsdemo.tokens import check_secret, read_secret

__all__ = ["REDIS_VARIABLE", "SECRET_VARIABLE", "Settings", "join_secret", "serve", "shared_redis"]

_log = logging.getLogger("wsdemo.serve")

BROKERS = ("none", *REDIS_BROKERS)
SECRET_VARIABLE = "WSDEMO_JOIN_SECRET"
REDIS_VARIABLE = "WSDEMO_REDIS"
ENDINGS = ("SIGTERM", "SIGINT", "SIGBREAK")  # the last one is only on Windows
SPARE_FILES = 600  # beside clients: Redis, modules that are read, sockets accepted to be cut again
LONGEST_DRAIN = 3600.0  # seconds


@dataclass(frozen=True)
class Settings:
    """How a server is run. Raises `ValueError`, saying what to write instead."""

    name: str
    host: str = "127.0.0.1"
    port: int = 0
    redis: str = field(default="", repr=False)  # a URL, in which there may be a password
    broker: str = "pubsub"
    origins: Collection[str] = ()
    games: Collection[str] = ()  # if any are named, there are no others
    drain: float = 5.0  # seconds over which its players are sent away
    seconds_to_keep: float = SECONDS_TO_KEEP  # what is in Redis of a game that nobody plays
    limits: Limits = field(default_factory=Limits)
    join_secret: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        check_name(self.name, "server")
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"there is no port {self.port}: use 0, for a free one, to 65535")
        if not 0 <= self.drain <= LONGEST_DRAIN:
            raise ValueError(f"--drain {self.drain:g}: use 0 to {LONGEST_DRAIN:g} seconds")
        if self.broker not in BROKERS:
            raise ValueError(f"unknown broker {self.broker!r}; there are: {', '.join(BROKERS)}")
        if self.broker != "none":
            _check_shared(self.redis, self.broker)
        for game in self.games:
            check_name(game, "game")
        if self.join_secret:
            check_secret(self.join_secret)
        elif not is_loopback(self.host):
            raise ValueError(
                f"{self.host} can be reached from other machines, and nobody has to say who they "
                f"are: put a secret into {SECRET_VARIABLE} or --join-secret-file, by which "
                "players' tokens are signed; or use --host 127.0.0.1, behind a balancer here"
            )


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Raises `RedisUnavailable`, `BrokerDown`, `OSError` if the port is taken, or `RuntimeError` if
    the system lets it open too few files.
    """
    _log_as_json()
    limits = _fitting(settings.limits)
    broker = await _broker(settings)
    server = GameServer(
        settings.name,
        broker,
        host=settings.host,
        port=settings.port,
        origins=settings.origins,
        games=settings.games,
        join_secret=settings.join_secret,
        limits=limits,
        on_hearing_change=lambda: _log.warning(
            "hears again" if server.hears else "deaf", extra={"server": settings.name}
        ),
    )
    ending = asyncio.Event()
    with _signals(ending):
        async with _running(server, settings):
            about = {"server": settings.name, "url": server.url, "broker": settings.broker}
            _log.info("ready", extra=about)
            await ending.wait()
            _log.info("draining", extra={**about, "players": len(server.calls)})
            await server.drain(settings.drain)
        _log.info("ended", extra=about)


async def _broker(settings: Settings) -> Broker:
    if settings.broker == "none":
        return LocalBroker()
    ways_out = f"Start one, or name another in {REDIS_VARIABLE} or after --redis."
    redis = remote_redis(settings.redis, SERVE_PREFIX, ways_out)
    await redis.start()  # to say in words what is wrong, if it does not answer
    return new_broker(
        settings.broker,
        redis.broker_client(),
        server=settings.name,
        prefix=redis.prefix,
        seconds_to_keep=settings.seconds_to_keep,
    )


@asynccontextmanager
async def _running(server: GameServer, settings: Settings) -> AsyncIterator[None]:
    """As with the server itself, but that a port which cannot be had is named."""
    try:
        await server.start()
    except OSError as error:
        if error.errno is None:  # it is the broker's, and in words
            raise
        raise OSError(
            f"cannot listen at {address(settings.host, settings.port)}: {error.strerror}; "
            "name another --port (0 is a free one) or --host"
        ) from error
    try:
        yield
    finally:
        await server.stop()


@contextmanager
def _signals(ending: asyncio.Event) -> Iterator[None]:
    """While it lasts, each of ENDINGS that the system has sets the event."""
    loop = asyncio.get_running_loop()

    def end(*signal_and_frame: object) -> None:
        loop.call_soon_threadsafe(ending.set)

    there = [getattr(signal, name) for name in ENDINGS if hasattr(signal, name)]
    before = {each: signal.signal(each, end) for each in there}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _log_as_json() -> None:
    handler = logging.StreamHandler(sys.stderr)
    fields = ("asctime", "levelname", "name", "message")
    handler.setFormatter(JsonFormatter(" ".join(f"%({name})s" for name in fields)))
    for ours in map(logging.getLogger, ("wsdemo", "asyncio")):
        ours.handlers[:] = [handler]
        ours.setLevel(logging.INFO)
        ours.propagate = False
    logging.getLogger("wsdemo.server").setLevel(logging.WARNING)  # not each connection


def shared_redis(url: str = "") -> str:
    """This URL or, without one, what the environment says; empty if that says nothing either."""
    return url or os.environ.get(REDIS_VARIABLE, "")


def _check_shared(url: str, broker: str) -> None:
    """Raises `ValueError`, without the URL, if servers could not share this Redis."""
    if url in ("", "fake", "embedded"):
        its_own = f"redis {url!r} is one process's own, and " if url else ""
        raise ValueError(
            f"{its_own}broker {broker!r} needs a Redis that all servers share: put its URL, as in "
            f"redis://127.0.0.1:6379, into {REDIS_VARIABLE} or after --redis, or use --broker none"
        )
    if not url.startswith(URLS):
        raise ValueError(
            f"what {REDIS_VARIABLE} or --redis says is no URL of a Redis: it has to start with "
            f"{', '.join(URLS[:-1])} or {URLS[-1]}"
        )


def join_secret(file: Path | None = None) -> bytes:
    """The secret in this file or, without one, in the environment; empty if it is in neither.

    Raises `OSError`, and `ValueError` if it could be guessed.
    """
    if file:
        return read_secret(file)
    secret = os.environ.get(SECRET_VARIABLE, "").strip().encode()
    return secret and check_secret(secret)


def _fitting(limits: Limits) -> Limits:
    """The limits, with fewer connections if the system does not allow so many open files."""
    wanted = limits.max_sockets + SPARE_FILES
    allowed = allow_open_files(wanted)
    if allowed >= wanted:
        return limits
    fewer = bisect_right(
        range(1, limits.max_connections + 1),
        allowed - SPARE_FILES,
        key=lambda number: replace(limits, max_connections=number).max_sockets,
    )
    if not fewer:
        raise RuntimeError(f"{allowed} open files are too few for a server: raise ulimit -n")
    _log.warning(
        "the system allows fewer open files than there may be connections: it takes fewer",
        extra={"max_connections": fewer, "remedy": "raise ulimit -n"},
    )
    return replace(limits, max_connections=fewer)
