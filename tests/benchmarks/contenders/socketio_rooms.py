"""python-socketio: a room for each game, and its `AsyncRedisManager` between the servers.

https://python-socketio.readthedocs.io/en/stable/server.html
"""

from __future__ import annotations

from typing import Any

import socketio

from tests.benchmarks.contenders.arguments import Arguments
from tests.benchmarks.contenders.uvicorn_server import serve


def application(redis: str) -> Any:
    """The ASGI application."""
    server = socketio.AsyncServer(
        async_mode="asgi", client_manager=socketio.AsyncRedisManager(redis)
    )

    async def join(player: str, game: str) -> None:
        await server.save_session(player, {"game": game})
        await server.enter_room(player, game)

    async def send(player: str, event: dict[str, str]) -> None:
        session = await server.get_session(player)
        await server.emit("event", event, room=session["game"])

    server.on("join", join)
    server.on("send", send)
    return socketio.ASGIApp(server)


if __name__ == "__main__":
    arguments = Arguments()
    serve(application(arguments.redis), arguments.port)
