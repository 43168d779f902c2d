"""What the tests share: a client that speaks the wire by itself, waiting, and a look at leftovers.

No test sleeps. It waits for the thing itself, and `PATIENCE` bounds only how long a broken program
may keep us: no test depends on its length.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import stat
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, Self, TypeVar

import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from wsdemo import Cluster
from wsdemo.brokers import Broker, LocalBroker, PubSubBroker, StreamBroker
from wsdemo.redis.backend import RedisBackend, redis_backend
from wsdemo.redis.cluster import EmbeddedRedisCluster
from wsdemo.server import GameServer
from wsdemo.trace import Record, Trace

# A broker, and a Redis for it to use.
RUNS = [("none", "fake"), ("pubsub", "fake"), ("pubsub", "embedded")]
every_run = pytest.mark.parametrize(("broker", "redis"), RUNS)

PATIENCE = 5.0 * float(os.environ.get("WSDEMO_TEST_PATIENCE", "1"))  # seconds

_T = TypeVar("_T")


# Waiting


async def within(awaitable: Awaitable[_T], patience: float = PATIENCE) -> _T:
    """What it gives, or `TimeoutError` if that takes longer than anybody would wait."""
    async with asyncio.timeout(patience):
        return await awaitable


async def eventually(condition: Callable[[], object], what: str = "") -> None:
    """Wait for something that tells nobody when it happens: look again after each turn."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.001)


async def recorded(trace: Trace, *kinds: Any, times: int = 1, **fields: Any) -> list[Record]:
    """Wait until the trace has so many of these records, and give them."""
    enough = asyncio.Event()

    def look(_: Record | None = None) -> None:
        if len(trace.select(*kinds, **fields)) >= times:
            enough.set()

    unwatch = trace.watch(look)
    try:
        look()
        await within(enough.wait())
    finally:
        unwatch()
    return trace.select(*kinds, **fields)


# A client that is not ours


class Client:
    """Any WebSocket client: says whatever it likes, and gives back what it hears."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, type: str, **fields: Any) -> None:
        """Send a message of the wire."""
        await within(self.connection.send(json.dumps({"type": type, **fields})))

    async def say_raw(self, frame: str | bytes) -> None:
        """Send a frame, whatever is in it."""
        await within(self.connection.send(frame))

    async def hear(self) -> dict[str, Any]:
        """The next message; each is a JSON object in a text frame."""
        frame = await within(self.connection.recv())
        assert isinstance(frame, str), "servers send text frames"
        message = json.loads(frame)
        assert isinstance(message, dict)
        return message

    async def ask(self, type: str, **fields: Any) -> dict[str, Any]:
        """Send a message and give the next one that arrives."""
        await self.say(type, **fields)
        return await self.hear()

    async def join(self, player: str, game: str = "g") -> Self:
        """Join, and hear the welcome."""
        welcome = await self.ask("join", game=game, player=player)
        assert welcome["type"] == "welcome", welcome
        return self

    async def silence(self) -> None:
        """Make sure that nothing has been said to this client that it has not heard."""
        assert await self.ask("sync", id="silence") == {"type": "synced", "id": "silence"}

    async def closed(self) -> tuple[int | None, str]:
        """The code and the reason with which the connection ends; nothing else may arrive."""
        try:
            frame = await within(self.connection.recv())
        except ConnectionClosed as error:
            return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (None, "")
        raise AssertionError(f"instead of the end came {frame!r}")

    def slam(self) -> None:
        """Cut the TCP connection with a reset, as a machine does that loses its program."""
        sock = self.connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.connection.transport.abort()


NO_LINGER = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
if os.name == "nt":
    NO_LINGER = (1).to_bytes(2, "little") + (0).to_bytes(2, "little")


@asynccontextmanager
async def dial(url: str, **options: Any) -> AsyncIterator[Client]:
    """Connect to a server or a balancer."""
    options = {"proxy": None, "close_timeout": 1, **options}
    async with connect(url, **options) as connection:
        yield Client(connection)


# Servers and brokers


@asynccontextmanager
async def game_server(
    name: str = "A", broker: Broker | None = None, **options: Any
) -> AsyncIterator[GameServer]:
    """A server by itself, without a broker unless one is given."""
    server = GameServer(name, broker or LocalBroker(), **options)
    try:
        await server.start()
        yield server
    finally:
        await within(server.stop())


class BrokerThatIsAsked(LocalBroker):
    """Subscribes once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def subscribe(self, game: str) -> None:
        self.asked.set()
        await self.answer.wait()


def here(cluster: Cluster, server: str) -> GameServer:
    """A server that runs in this process, whatever it has inside."""
    found = cluster.servers[server]
    assert isinstance(found, GameServer)
    return found


def pubsub(redis: RedisBackend, server: str, trace: Trace | None = None) -> PubSubBroker:
    """A server's broker on this Redis."""
    return PubSubBroker(redis.broker_client(), server=server, prefix=redis.prefix, trace=trace)


def stream(redis: RedisBackend, server: str, trace: Trace | None = None) -> StreamBroker:
    """The same, one that keeps the events."""
    return StreamBroker(redis.broker_client(), server=server, prefix=redis.prefix, trace=trace)


@pytest.fixture(params=["fake", "embedded"])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[RedisBackend]:
    """A Redis that answers: once fakeredis, once a real one."""
    async with redis_backend(request.param) as backend:
        yield backend


@pytest.fixture(scope="session")
def nodes() -> Iterator[EmbeddedRedisCluster]:
    """Three nodes, for all tests: it takes them 2 s to start. Whoever breaks one, mends it."""
    cluster = EmbeddedRedisCluster()
    with ThreadPoolExecutor(1) as elsewhere:  # a loop may be running here

        def run(work: Coroutine[Any, Any, None]) -> None:
            elsewhere.submit(asyncio.run, work).result()

        run(cluster.start())
        yield cluster
        run(cluster.stop())


# Leftovers


def listeners() -> set[tuple[str, int]]:
    """The addresses that this process listens on."""
    if not os.path.isdir("/dev/fd"):
        connections = psutil.Process().net_connections(kind="tcp")
        return {(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN}
    # psutil reads the whole table of the kernel, with the thousands of connections that have ended.
    found = set()
    for descriptor in map(int, os.listdir("/dev/fd")):
        with suppress(OSError):  # one was the look itself
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                of_the_net = sock.family in (socket.AF_INET, socket.AF_INET6)
                if of_the_net and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.add(sock.getsockname()[:2])
    return found


_lasting = set[int]()


@pytest.fixture(scope="session")
def lasting() -> set[int]:
    """The ids of child processes that several tests share."""
    return _lasting


def children() -> set[psutil.Process]:
    """Every process that descends from this one, but for those that tests share."""
    found = psutil.Process().children(recursive=True)
    # Asked later: a shared one may have another child by now.
    shared = {child for pid in _lasting for child in _family(pid)}
    return set(filter(runs, found)) - shared


def _family(pid: int) -> set[psutil.Process]:
    process = psutil.Process(pid)
    return {process, *process.children(recursive=True)}


def runs(process: psutil.Process) -> bool:
    """Whether it does anything: one that has ended and only waits to be collected does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def tasks() -> set[asyncio.Task[Any]]:
    """Every other task of this loop."""
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.fixture(autouse=True)
def _leaves_no_port_and_no_process() -> Iterator[None]:
    ports_before, children_before = listeners(), children()
    yield
    ports = listeners() - ports_before
    _, waited_for = psutil.wait_procs(list(children() - children_before), timeout=2)
    alive = list(filter(runs, waited_for))
    for process in alive:
        process.kill()
    assert not ports, f"the test left open: {ports}"
    assert not alive, f"the test left running: {alive}"


@pytest.fixture
async def _leaves_no_task() -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    before, troubles = tasks(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    yield
    left = tasks() - before
    if left:  # one that has been told to end may need a moment for its goodbyes
        _, left = await asyncio.wait(left, timeout=2)
    for task in left:
        task.cancel()
    gc.collect()  # an error that nobody has looked at is reported when its task is freed
    await asyncio.sleep(0)
    assert not left, f"the test left running: {left}"
    assert not troubles, f"asyncio had to report: {troubles}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look after each test that has a loop. The others may run one of their own."""
    for item in items:
        function = getattr(item, "function", None)
        if asyncio.iscoroutinefunction(function) and isinstance(item, pytest.Function):
            item.fixturenames.insert(0, "_leaves_no_task")


def pytest_collection_finish() -> None:
    """Spare the look for leftovers everything that was there before the first test."""
    gc.collect()
    gc.freeze()


# Cancelling


async def cancelled_after(
    turns: int, make: Callable[[], Coroutine[Any, Any, Any]]
) -> Literal["cancelled", "finished all the same", "finished before"]:
    """Start it, cancel it after so many turns of the loop, and see what came of it.

    Until 3.12, Python's own `wait_for` may swallow a cancellation that comes in the moment in which
    the thing waited for has happened. What has finished all the same must then be in order.
    """
    task = asyncio.create_task(make())
    for _ in range(turns):
        await asyncio.sleep(0)
        if task.done():
            break
    under_way = task.cancel()
    _, deaf = await asyncio.wait([task], timeout=PATIENCE)
    if deaf:
        where = task.get_stack()
        task.cancel()
        raise AssertionError(f"cancelled after {turns} turns, it goes on: {where}")
    if task.cancelled():
        return "cancelled"
    task.result()  # its own error, if there was one
    return "finished all the same" if under_way else "finished before"


def more(turns: int) -> int:
    """The next number of turns to try: each at first, for most happens then."""
    return turns + 1 + turns // 12


def shown(error: BaseException) -> str:
    """Everything that a person may get to see of an error and of those that led to it."""
    seen: list[BaseException] = []

    def walk(errors: Iterable[BaseException | None]) -> None:
        for each in errors:
            if each is not None and each not in seen:
                seen.append(each)
                walk([each.__cause__, None if each.__suppress_context__ else each.__context__])
                walk(getattr(each, "exceptions", ()))

    walk([error])
    return "\n".join(f"{each}\n{each!r}" for each in seen)


def bodies(heard: Collection[Any]) -> list[str]:
    """What the events said."""
    return [event.body for event in heard]
