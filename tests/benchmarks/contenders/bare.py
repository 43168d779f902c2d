"""A bare `websockets.broadcast` loop: what its documentation shows, and Redis Pub/Sub behind it.

https://websockets.readthedocs.io/en/stable/topics/broadcast.html
"""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis
from websockets.asyncio.server import ServerConnection, broadcast, serve

from tests.benchmarks.contenders.arguments import Arguments

CHANNEL = "game"

connections: set[ServerConnection] = set()


async def relay(redis: Redis) -> None:
    """Write what Redis says to everybody."""
    async with redis.pubsub(ignore_subscribe_messages=True) as link:
        await link.subscribe(CHANNEL)
        while True:
            if message := await link.get_message(timeout=None):
                broadcast(connections, message["data"], text=True)


async def main() -> None:
    """Serve until killed."""
    arguments = Arguments()
    redis = Redis.from_url(arguments.redis)

    async def handle(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            async for frame in connection:
                await redis.publish(CHANNEL, frame)
        finally:
            connections.discard(connection)

    async with serve(handle, "127.0.0.1", arguments.port, compression=None):
        await relay(redis)


if __name__ == "__main__":
    asyncio.run(main())
