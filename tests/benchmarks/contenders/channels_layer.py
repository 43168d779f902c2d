"""channels_redis: a group for each game, and its Pub/Sub layer between the servers.

The layer is used directly, as Channels' documentation has it for outside of consumers, behind
`websockets`. Channels' own consumers would be many times slower: in each delivery they ask a
thread about old database connections.
https://channels.readthedocs.io/en/stable/topics/channel_layers.html
"""

from __future__ import annotations

import asyncio

from channels_redis.pubsub import RedisPubSubChannelLayer
from websockets.asyncio.server import ServerConnection, serve

from tests.benchmarks.contenders.arguments import Arguments


async def main() -> None:
    """Serve until killed."""
    arguments = Arguments()
    layer = RedisPubSubChannelLayer(hosts=[arguments.redis])

    async def relay(connection: ServerConnection, channel: str) -> None:
        while True:
            event = await layer.receive(channel)
            await connection.send(event["text"])

    async def handle(connection: ServerConnection) -> None:
        assert connection.request
        game = connection.request.path.strip("/")
        channel = await layer.new_channel()
        await layer.group_add(game, channel)
        relaying = asyncio.create_task(relay(connection, channel))
        try:
            async for frame in connection:
                await layer.group_send(game, {"type": "game.event", "text": frame})
        finally:
            await layer.group_discard(game, channel)
            relaying.cancel()

    async with serve(handle, "127.0.0.1", arguments.port, compression=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
