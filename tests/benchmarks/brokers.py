"""What each guarantee costs, beside pub/sub: prints a table.

Two servers, one Redis, players who are bare WebSocket clients, so that a player costs the same
whatever the broker. All but Redis share one process and one core: a player's own work is part of
every figure, and brings the ratios nearer to 1 than the brokers alone would. With `--players 1`
there is little of it.

This takes about 45 seconds, and on a slow machine does fewer rounds.

The brokers take turns, round after round and every other one backwards, and each ratio is the
median of those within a round: a machine that others share is faster in one second than in the
next. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from websockets.asyncio.client import ClientConnection, connect

from wsdemo.brokers import Broker, LocalBroker, PubSubBroker, QueueBroker, StreamBroker
from wsdemo.protocol import Ack, Join, Send, encode
from wsdemo.redis.backend import OwnRedis, redis_backend
from wsdemo.server import GameServer

BROKERS = ("none", "pubsub", "stream", "queue")
WHAT = ("events", "p50", "p99")  # of the figures below
BODY = "x" * 48  # the frame of an event is then about 100 bytes
IN_FLIGHT = 2  # events of each player when saturated: enough for no server to be ever idle
WARM_UP = 0.1  # seconds
SATURATED = 0.3  # seconds
STEADY = 0.6  # seconds
REST = 0.05  # seconds, for the last acknowledgements
RATE = 50  # events a second for the latencies, by default: every broker can carry them
KEPT = 1000  # events, to see what Redis keeps of them,
KEPT_FOR = 5  # players on each server
PATIENCE = 20.0  # seconds for any one part, at most


class Frame(msgspec.Struct):
    """What a client looks at in a frame of its server's."""

    type: str
    id: str = ""
    player: str = ""
    seq: int = 0
    acks: bool = False


_decode = msgspec.json.Decoder(Frame).decode


@dataclass
class Client:
    """A player with as little of its own as there can be."""

    name: str
    server: str
    socket: ClientConnection
    heard: int = 0
    said: int = 0
    acks: bool = False
    departures: dict[str, float] = field(default_factory=dict)
    """When its events were sent."""
    arrivals: dict[str, float] = field(default_factory=dict)
    """When events were heard, while anybody wants to know."""
    times_arrivals: bool = False
    own: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IN_FLIGHT))

    async def join(self) -> None:
        """Be welcomed."""
        await self.socket.send(encode(Join("g", self.name)), text=True)
        self.acks = _decode(await self.socket.recv()).acks

    async def say(self) -> str:
        """Send an event; its id."""
        self.said += 1
        event = f"{self.name}-{self.said}"
        self.departures[event] = perf_counter()
        await self.socket.send(encode(Send(event, BODY)), text=True)
        return event

    async def hear(self) -> None:
        """Take what comes, and acknowledge it where that is asked for."""
        async for frame in self.socket:
            message = _decode(frame)
            if message.type != "event":
                continue
            self.heard += 1
            if self.times_arrivals:
                self.arrivals[message.id] = perf_counter()
            if message.player == self.name:
                self.own.release()
            if self.acks:
                await self.socket.send(encode(Ack(message.seq)), text=True)

    async def say_on(self) -> None:
        """Say something as soon as something else of one's own has been heard."""
        while True:
            await self.own.acquire()
            await self.say()


@dataclass(frozen=True)
class Figures:
    """What one broker did in one round."""

    events: float  # a second
    p50: float  # ms
    p99: float  # ms


@dataclass(frozen=True)
class Kept:
    """What is in Redis after so many events."""

    keys: int
    size: int | None  # bytes, where Redis says

    def __str__(self) -> str:
        size = "?" if self.size is None else f"{self.size / 1024:,.0f}"
        return f"{size} KiB in {self.keys} keys"


@asynccontextmanager
async def crowd(name: str, redis: OwnRedis, players: int) -> AsyncIterator[list[Client]]:
    """So many players on each of two servers; without a broker all on one, to hear the same."""
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(GameServer(at, make_broker(name, redis, at)))
            for at in (("A",) if name == "none" else ("A", "B"))
        ]
        clients = []
        for number in range(2 * players):
            server = servers[number % len(servers)]
            link = connect(server.url, proxy=None, compression=None)
            socket = await stack.enter_async_context(link)
            clients.append(Client(f"P{number}", server.name, socket))
            await clients[-1].join()
        async with asyncio.TaskGroup() as group:
            hearing = [group.create_task(client.hear()) for client in clients]
            yield clients
            for task in hearing:
                task.cancel()


def make_broker(name: str, redis: OwnRedis, server: str) -> Broker:
    """A broker of that name for one server."""
    if name == "none":
        return LocalBroker()
    kinds: dict[str, Callable[..., Broker]] = {
        "pubsub": PubSubBroker,
        "stream": StreamBroker,
        "queue": QueueBroker,
    }
    return kinds[name](redis.client(), server=server, prefix=f"{name}:")


async def event_rate(clients: list[Client], seconds: float) -> float:
    """Events a second that everybody hears, when everybody says as much as can be."""
    async with asyncio.TaskGroup() as group:
        saying = [group.create_task(client.say_on()) for client in clients]
        await asyncio.sleep(WARM_UP)
        before, began = sum(client.heard for client in clients), perf_counter()
        await asyncio.sleep(seconds)
        heard, took = sum(client.heard for client in clients) - before, perf_counter() - began
        for task in saying:
            task.cancel()
    await all_heard(clients)
    return heard / len(clients) / took


async def latencies(clients: list[Client], seconds: float, rate: int) -> list[float]:
    """Milliseconds from an event's departure to each arrival on the other server, in order."""
    for client in clients:
        client.departures.clear()
        client.arrivals.clear()
        client.times_arrivals = True
    began = perf_counter()
    for number in range(int(seconds * rate)):
        await asyncio.sleep(max(0.0, began + number / rate - perf_counter()))
        await clients[number % len(clients)].say()
    await all_heard(clients)
    for client in clients:
        client.times_arrivals = False
    alone = len({client.server for client in clients}) == 1
    return sorted(
        1000 * (hearer.arrivals[event] - departure)
        for sender in clients
        for event, departure in sender.departures.items()
        for hearer in clients
        if hearer.server != sender.server or (alone and hearer is not sender)
    )


async def all_heard(clients: list[Client]) -> None:
    """Return once everybody has heard everything."""
    said = sum(client.said for client in clients)
    while any(client.heard < said for client in clients):  # noqa: ASYNC110 - waking costs more
        await asyncio.sleep(0.005)


async def measure(clients: list[Client], rate: int) -> Figures:
    """One broker's turn in one round."""
    gc.collect()
    async with asyncio.timeout(PATIENCE):
        events = await event_rate(clients, SATURATED)
        await asyncio.sleep(REST)
        times = await latencies(clients, STEADY, rate)
        await asyncio.sleep(REST)
        return Figures(events, times[len(times) // 2], times[len(times) * 99 // 100])


async def take_turns(
    redis: OwnRedis, players: int, *, count: int, seconds: float, rate: int
) -> list[dict[str, Figures]]:
    """So many rounds, or as many as begin within so many seconds."""
    rounds: list[dict[str, Figures]] = []
    async with AsyncExitStack() as stack:
        crowds = {
            name: await stack.enter_async_context(crowd(name, redis, players)) for name in BROKERS
        }
        end = perf_counter() + seconds
        while len(rounds) < count and (not rounds or perf_counter() < end):
            order = BROKERS if len(rounds) % 2 else BROKERS[::-1]
            rounds.append({name: await measure(crowds[name], rate) for name in order})
    return rounds


async def kept(name: str, redis: OwnRedis, *, away: int = 0) -> Kept:
    """What is in Redis once everybody has heard KEPT events but so many players, who were away."""
    admin = redis.client()
    await admin.flushall()
    async with asyncio.timeout(PATIENCE), crowd(name, redis, KEPT_FOR) as clients:
        gone, clients = clients[:away], clients[away:]
        for client in gone:
            await client.socket.close()
        for number in range(KEPT):
            client = clients[number % len(clients)]
            await client.own.acquire()
            await client.say()
        await all_heard(clients)
        found = await in_redis(admin)
        while (later := await in_redis(admin)) != found:  # the last acknowledgements
            found = later
        await admin.aclose()
        return found


async def in_redis(redis: Redis) -> Kept:
    """What there is now."""
    await asyncio.sleep(0.05)
    keys = await redis.keys()
    try:
        return Kept(len(keys), sum([await redis.memory_usage(key, samples=0) or 0 for key in keys]))
    except RedisError:  # the fake one knows nothing of memory
        return Kept(len(keys), None)


def table(rounds: list[dict[str, Figures]]) -> Iterable[str]:
    """Medians of the rounds, and of the ratios within each round."""
    yield f"{'':8}{'events/s':>10}{'p50 ms':>9}{'p99 ms':>9}   beside pubsub: events, p50, p99"
    for name in BROKERS:
        own = [each[name] for each in rounds]
        pairs = [(each[name], each["pubsub"]) for each in rounds]
        events, p50, p99 = (median(getattr(f, what) for f in own) for what in WHAT)
        ratios = [median(getattr(f, what) / getattr(g, what) for f, g in pairs) for what in WHAT]
        beside = "".join(f"{ratio:>8.2f}" for ratio in ratios)
        yield f"{name:8}{events:>10,.0f}{p50:>9.2f}{p99:>9.2f}   {beside}"


async def main(count: int, seconds: float, choice: str, players: int, rate: int) -> None:
    """Print the table."""
    backend = redis_backend(choice)
    assert isinstance(backend, OwnRedis)
    async with backend as redis:
        rounds = await take_turns(redis, players, count=count, seconds=seconds, rate=rate)
        print(
            f"{os.cpu_count()} cores, Python {platform.python_version()}, {choice} Redis; "
            f"2 servers with {players} players each, {len(rounds)} rounds; "
            f"saturated, then {rate} events/s (none: all players on one server)"
        )
        print(*table(rounds), sep="\n")
        print(f"\nIn Redis after {KEPT:,} events, with {KEPT_FOR} players on each server")
        for name in BROKERS[1:]:
            print(f"{name:8}{await kept(name, redis)}")
        print(f"{'queue':8}{await kept('queue', redis, away=1)}, while a player was away")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, default=32, help="later than this, no round begins"
    )
    parser.add_argument("--redis", choices=("embedded", "fake"), default="embedded")
    parser.add_argument("--players", type=int, default=20, help="on each server")
    parser.add_argument("--rate", type=int, default=RATE, help="events a second, for the latencies")
    arguments = parser.parse_args()
    asyncio.run(
        main(
            arguments.rounds, arguments.seconds, arguments.redis, arguments.players, arguments.rate
        )
    )
