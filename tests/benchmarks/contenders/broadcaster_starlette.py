"""broadcaster with Starlette: a channel for each game, as its README has it.

https://github.com/encode/broadcaster
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from tests.benchmarks.contenders.arguments import Arguments
from tests.benchmarks.contenders.uvicorn_server import serve


def application(redis: str) -> Any:
    """The ASGI application."""
    broadcast = Broadcast(redis)

    async def play(websocket: WebSocket) -> None:
        await websocket.accept()
        game = websocket.path_params["game"]

        async with anyio.create_task_group() as tasks:

            async def receive() -> None:
                async for frame in websocket.iter_text():
                    await broadcast.publish(channel=game, message=frame)
                tasks.cancel_scope.cancel()

            tasks.start_soon(receive)
            async with broadcast.subscribe(channel=game) as subscriber:
                async for event in subscriber:
                    await websocket.send_text(event.message)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        # broadcaster 0.3.1 begins to listen before its first subscription is made, and with a
        # redis-py of today finds none and stops: the first is for nobody, the second is heard.
        async with broadcast, broadcast.subscribe(channel="nobody"):
            yield

    return Starlette(routes=[WebSocketRoute("/{game}", play)], lifespan=lifespan)


if __name__ == "__main__":
    arguments = Arguments()
    serve(application(arguments.redis), arguments.port)
