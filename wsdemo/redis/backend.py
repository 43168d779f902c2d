"""Where the Redis is: in this process (fakeredis), started by this package, or at a URL.

- "fake": fakeredis, on a loopback port. Nothing to install; what it knows is in this process.
- "embedded": a real server on a free loopback port, which ends with the backend, or with us.
- a URL, redis://, rediss:// or unix://: somebody else's and shared, so names get a prefix;
  redis+cluster://host:port,host:port is a cluster, of which some nodes are named.

The first two are ours, so they can be stopped, killed and frozen.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import tempfile
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ClusterDownError, RedisError

from wsdemo.lifetime import Lifetime
from wsdemo.ports import address
from wsdemo.processes.child import Child, can_freeze
from wsdemo.redis.disk import Disk
from wsdemo.redis.kept import Kept, count_kept
from wsdemo.redis.line import Line
from wsdemo.redis.process import (
    RedisUnavailable,
    find_server_binary,
    free_port,
    last_words,
    server_command,
)
from wsdemo.redis.shards import Address, NoCluster, ShardedRedis

__all__ = [
    "PERSISTENCE",
    "SERVE_PREFIX",
    "URLS",
    "EmbeddedRedis",
    "FakeRedis",
    "OwnRedis",
    "RedisBackend",
    "RedisState",
    "RedisUnavailable",
    "RemoteCluster",
    "RemoteRedis",
    "check_choice",
    "find_server_binary",
    "redis_backend",
    "remote_redis",
]

SERVE_PREFIX = "wsdemo:"  # of all that servers have in a Redis when they run by themselves
CONNECT_TIMEOUT = 2.0  # seconds
START_TIMEOUT = 5.0  # seconds
_CLUSTER = "redis+cluster://"
URLS = ("redis://", "rediss://", "unix://", _CLUSTER)  # how those begin that can be used
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


def _options(url: str) -> dict[str, Any]:
    """For a client of the Redis at this URL."""
    # Some networks drop a connection and tell neither end; the system asks now and then.
    return _OPTIONS if url.startswith("unix:") else {**_OPTIONS, "socket_keepalive": True}


def _client(url: str, line: Line | None = None) -> Redis:
    return (line or Line()).client(url, **_options(url))


RedisState = Literal["up", "down", "frozen"]
Persistence = Literal["none", "everysec", "always"]
PERSISTENCE: tuple[Persistence, ...] = get_args(Persistence)


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
        return _client(self.url, line)

    def broker_client(self, line: Line | None = None) -> Redis | ShardedRedis:
        """The same for a broker, which on a cluster asks many nodes."""
        return self.client(line)

    async def client_for(self, name: str) -> Redis:
        """A client of the Redis that has a key or a channel: on a cluster, of one node."""
        return self.client()

    async def kept(self) -> Kept:
        """What is in it under our prefix. Raises `redis.RedisError` if it does not answer."""
        client = self.client()
        try:
            return await count_kept(client, self.prefix)
        finally:
            await client.aclose()

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
        from wsdemo.redis.fake import FakeRedisServer

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
            for url in _node_urls(self._url):
                pool = ConnectionPool.from_url(url, **_options(url))
                pool.make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError):
            return False
        return True

    async def start(self) -> None:
        """See that it answers."""
        redis = self.broker_client()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT + 0.5):
                await redis.ping()
        except AuthenticationError as error:
            raise RedisUnavailable(
                f"Redis at {self._where} wants another user or password. {self._ways_out}"
            ) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise RedisUnavailable(self._trouble(error)) from error
        finally:
            await redis.aclose()

    def _trouble(self, error: Exception) -> str:
        return f"No Redis answers at {self._where}. {self._ways_out}"


class RemoteCluster(RemoteRedis):
    """A Redis Cluster that somebody else runs, at a redis+cluster:// URL that names some nodes."""

    def client(self, line: Line | None = None) -> Redis:
        """A client of the first node named, and of no other."""
        return _client(_node_urls(self._url)[0], line)

    def broker_client(self, line: Line | None = None) -> ShardedRedis:
        """One that knows which node to ask for what."""
        one_line = line or Line()
        return ShardedRedis(
            [_address(url) for url in _node_urls(self._url)],
            lambda node: _client(_node_url(self._url, *node), one_line),
        )

    async def client_for(self, name: str) -> Redis:
        """A client of the node that has it now. Raises `redis.RedisError` if no node has."""
        redis = self.broker_client()
        try:
            node = await redis.owner_for_sure(name)
        finally:
            await redis.aclose()
        return _client(_node_url(self._url, *node))

    async def kept(self) -> Kept:
        """What is on all nodes together."""
        redis = self.broker_client()
        try:
            await redis.look()
            kept = [await count_kept(redis.client(node), self.prefix) for node in redis.nodes]
        finally:
            await redis.aclose()
        return Kept(sum(each.keys for each in kept), sum(each.content for each in kept))

    def _trouble(self, error: Exception) -> str:
        if isinstance(error, NoCluster):
            return (
                f"The Redis at {self._where} is no cluster: write redis:// for redis+cluster://, "
                "with one host."
            )
        if isinstance(error, ClusterDownError):
            return f"The cluster at {self._where} is down: {error}."
        return f"No node of a Redis Cluster answers at {self._where}. {self._ways_out}"


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
            port = self._port or free_port()
            try:
                self._launch(port, Path(self._folder.name))
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
        words = last_words(Path(self._folder.name))
        raise RedisUnavailable(
            f'{self._binary} has not started: {words} Use redis="fake" meanwhile.'
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

    def _launch(self, port: int, folder: Path) -> None:
        options = {
            "appendonly": "no" if self._persistence == "none" else "yes",
            "appendfsync": "everysec" if self._persistence == "none" else self._persistence,
            "auto-aof-rewrite-percentage": 0,  # one file, which only grows
        }
        self._child = Child(server_command(self._binary, folder, port, options))

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
    return EmbeddedRedis(persistence) if choice == "embedded" else remote_redis(choice)


def remote_redis(url: str, prefix: str = "", ways_out: str = _WAYS_OUT) -> RemoteRedis:
    """The Redis, or the cluster, at a URL. Raises `ValueError` for one that cannot be."""
    kind = RemoteCluster if url.startswith(_CLUSTER) else RemoteRedis
    return kind(url, prefix, ways_out)


def check_choice(choice: str | None = None) -> str:
    """What `redis_backend` would take. Raises `ValueError`, listing what there is."""
    choice = choice or os.environ.get("WSDEMO_REDIS") or "fake"
    if choice in ("fake", "embedded"):
        return choice
    if choice.startswith(URLS):
        _where(choice)
        return choice
    shown = (
        repr(choice) if re.fullmatch(r"[\w.:-]{1,40}", choice) else "(not shown, for its password)"
    )
    raise ValueError(
        f'unknown redis {shown}; there are: "fake", "embedded", '
        "or a URL that starts with redis://, rediss://, unix:// or redis+cluster://"
    )


def _node_urls(url: str) -> list[str]:
    """The URL itself or, of a cluster, one for each node that it names. Raises `ValueError`."""
    if not url.startswith(_CLUSTER):
        return [url]
    who, at, hosts = urlsplit(url).netloc.rpartition("@")
    return [_of_node(url, f"{who}{at}{host}") for host in hosts.split(",")]


def _node_url(url: str, host: str, port: int) -> str:
    """The URL of any other node of a cluster, with the same user, password and options."""
    who, at, _ = urlsplit(url).netloc.rpartition("@")
    return _of_node(url, f"{who}{at}{address(host, port)}")


def _of_node(url: str, place: str) -> str:
    return urlsplit(url)._replace(scheme="redis", netloc=place).geturl()


def _address(url: str) -> Address:
    parts = urlsplit(url)
    return parts.hostname or "localhost", parts.port or 6379


def _where(url: str) -> str:
    """The hosts and ports in a URL, or its path, and nothing else of it."""
    try:
        urls = _node_urls(url)
        where = [_where_is(each) for each in urls]
    except ValueError:
        where = [""]
    if not all(where):
        raise ValueError(
            "the Redis URL has no valid host and port; "
            "in a password, write %2F for /, %3F for ?, %23 for # and %40 for @"
        )
    if url.startswith(_CLUSTER) and urlsplit(url).path.strip("/") not in ("", "0"):
        raise ValueError("a Redis Cluster has no databases but 0: leave out what follows the hosts")
    return ", ".join(where)


def _where_is(url: str) -> str:
    """The same of a URL with one host; empty if there is a mistake in it."""
    parts = urlsplit(url)
    port = 6379 if parts.port is None else parts.port
    if not port or "@" in parts.path + parts.query + parts.fragment:
        return ""
    return parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{port}"
