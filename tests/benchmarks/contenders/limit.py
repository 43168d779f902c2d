"""The limit: a frame is built once, and its bytes are written to each transport.

No Python server that writes to asyncio's transports one by one can do less for a delivery.
"""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

from tests.benchmarks.contenders.arguments import Arguments

CHANNEL = "game"

connections: set[ServerConnection] = set()


async def relay(redis: Redis) -> None:
    """Write what Redis says to everybody."""
    async with redis.pubsub(ignore_subscribe_messages=True) as link:
        await link.subscribe(CHANNEL)
        while True:
            if message := await link.get_message(timeout=None):
                frame = Frame(Opcode.TEXT, message["data"]).serialize(mask=False)
                for connection in connections:
                    connection.transport.write(frame)


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
