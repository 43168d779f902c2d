"""The coefficients of the capacity model, measured: what a server and Redis use for one of each.

One server is a process of its own, on a Redis of its own. Both say how much time of a core they
have used, before and after so many of one thing. It all goes over loopback: a network card, TLS and
a proxy in front would cost more, and none of them is in here.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect

from wsdemo.brokers import PubSubBroker
from wsdemo.experiments.capacity import Costs
from wsdemo.experiments.server_cost import Meter
from wsdemo.processes.stand_alone import StandAloneServer
from wsdemo.protocol import Event, Join, Send, Sync, Synced, decode_from_server, encode
from wsdemo.redis.backend import SERVE_PREFIX, EmbeddedRedis, RedisUnavailable

__all__ = ["measured_costs"]

PUBLISHED = 1000  # that Redis is measured by, for nobody and for so many subscribers
SUBSCRIBERS = 8
EVENTS = 300  # that the server is measured by, as each of the following
ALONE, TOGETHER = 1, 20  # players of the games that hear them
FEW, MANY = 30, 130  # connections, between which its memory is measured
PING_EVERY = 20.0  # seconds between two pings to one connection: what `websockets` does
EVENT = encode(Event("1", "P1", "x" * 50))  # about 100 bytes


async def measured_costs(
    progress: Callable[[float], None] = lambda share: None, *, instead: Costs | None = None
) -> Costs:
    """What one server and one Redis use, on this machine, in about two seconds.

    `progress` is told how much is done, from 0 to 1. Where there is no Redis to start, the costs
    that are given `instead` are returned, with a warning; without them, that raises
    `RedisUnavailable`. Raises `RuntimeError` if the server does not start.
    """
    try:
        return await _measured(progress)
    except RedisUnavailable as error:
        if instead is None:
            raise
        warnings.warn(f"These are another machine's costs, not this one's: {error}", stacklevel=2)
        return instead


async def _measured(progress: Callable[[float], None]) -> Costs:
    async with AsyncExitStack() as running:
        backend = await running.enter_async_context(EmbeddedRedis())
        redis_publish, redis_delivery = await _redis_costs(backend)
        progress(0.3)
        arguments = ("--broker", "pubsub", "--redis", backend.url)
        server = await running.enter_async_context(StandAloneServer("A", *arguments))
        meter = Meter(server)
        await meter.learn_its_price()
        progress(0.5)
        crowd = _Crowd(running, server)
        await crowd.grow(FEW)
        before = await _memory(meter)
        await crowd.grow(MANY)
        memory = (await _memory(meter) - before) / (MANY - FEW)
        progress(0.7)
        other = PubSubBroker(backend.client(), server="B", prefix=SERVE_PREFIX)
        await other.start(lambda *event: None)
        running.push_async_callback(other.stop)
        alone = await _seconds(meter, lambda: crowd.hear(other, "alone"))
        together = await _seconds(meter, lambda: crowd.hear(other, "together"))
        progress(0.8)
        said = await _seconds(meter, crowd.say)
        pings = await _seconds(meter, crowd.ping)
        progress(1.0)
    delivery = max(0.0, together - alone) / (TOGETHER - ALONE)
    return Costs(
        delivery=delivery,
        received=max(0.0, alone - delivery),
        published=max(0.0, said - alone),
        kept=pings / PING_EVERY,
        memory=memory,
        redis_publish=redis_publish,
        redis_delivery=redis_delivery,
    )


class _Crowd:
    """Players of one server: the first is alone in a game, the next ones together, then others."""

    def __init__(self, running: AsyncExitStack, server: StandAloneServer) -> None:
        self._running = running
        self._url = f"ws://127.0.0.1:{server.port}"
        self._players: list[ClientConnection] = []

    async def grow(self, size: int) -> None:
        """Let more connect and join, so that they are so many."""
        for number in range(len(self._players), size):
            player = await self._running.enter_async_context(
                connect(self._url, proxy=None, compression=None, ping_interval=None, max_queue=None)
            )
            game = "alone" if number < ALONE else "together" if number <= TOGETHER else "others"
            await player.send(encode(Join(game, f"P{number}")), text=True)
            await player.recv()
            self._players.append(player)

    async def hear(self, other: PubSubBroker, game: str) -> None:
        """Events of another server, one after the other, until all have been written."""
        for _ in range(EVENTS):
            await other.publish(game, EVENT)
        await self._sync()

    async def say(self) -> None:
        """Events of the player that is alone, each when the one before was heard."""
        for number in range(EVENTS):
            await self._players[0].send(encode(Send(f"{number}", "x" * 50)), text=True)
            await self._players[0].recv()

    async def ping(self) -> None:
        """Pings of that player, each when the one before was answered."""
        for _ in range(EVENTS):
            await (await self._players[0].ping())

    async def _sync(self) -> None:
        await self._players[0].send(encode(Sync("1")), text=True)
        while not isinstance(decode_from_server(await self._players[0].recv()), Synced):
            pass


async def _seconds(meter: Meter, do: Callable[[], Awaitable[None]]) -> float:
    """What the server uses while this is done, for each of EVENTS."""
    before = await meter.read()
    await do()
    after = await meter.read()
    used = "process_cpu_seconds_total"
    return (after[used] - before[used]) / EVENTS


async def _memory(meter: Meter) -> float:
    """Bytes that the server holds."""
    return (await meter.read())["process_resident_memory_bytes"]


async def _redis_costs(backend: EmbeddedRedis) -> tuple[float, float]:
    """Seconds of Redis for a PUBLISH, and for each of its subscribers."""
    async with AsyncExitStack() as running:
        redis = await running.enter_async_context(backend.client())
        alone = await _redis_seconds(redis)
        for _ in range(SUBSCRIBERS):
            client = await running.enter_async_context(backend.client())
            link = await running.enter_async_context(client.pubsub())
            await link.subscribe("channel")
            await link.get_message(timeout=None)
        together = await _redis_seconds(redis)
    return alone, max(0.0, together - alone) / SUBSCRIBERS


async def _redis_seconds(redis: Redis) -> float:
    """What Redis uses for each of so many events on the channel, one at a time."""

    async def used() -> float:
        info = await redis.info("cpu")
        # The main thread does it all; the others, where they are told apart, do something else.
        return sum(
            float(info.get(f"used_cpu_{kind}_main_thread", info[f"used_cpu_{kind}"]))
            for kind in ("user", "sys")
        )

    before = await used()
    for _ in range(PUBLISHED):
        await redis.publish("channel", EVENT)
    return (await used() - before) / PUBLISHED
