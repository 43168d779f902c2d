"""Everyone in one game: what comes goes to Redis, and what Redis says to everybody."""

from __future__ import annotations

from collections.abc import Callable

from redis.asyncio import Redis
from websockets.asyncio.server import ServerConnection, serve

from tests.benchmarks.contenders.arguments import Arguments

CHANNEL = "game"


async def play(write: Callable[[set[ServerConnection], bytes], None]) -> None:
    """Serve until killed; `write` brings an event to all connections."""
    arguments = Arguments()
    redis = Redis.from_url(arguments.redis)
    connections: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            async for frame in connection:
                await redis.publish(CHANNEL, frame)
        finally:
            connections.discard(connection)

    async with (
        serve(handle, "127.0.0.1", arguments.port, compression=None),
        redis.pubsub(ignore_subscribe_messages=True) as link,
    ):
        await link.subscribe(CHANNEL)
        while True:
            if message := await link.get_message(timeout=None):
                write(connections, message["data"])
