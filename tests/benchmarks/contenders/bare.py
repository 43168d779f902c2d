"""A bare `websockets.broadcast` loop: what its documentation shows, and Redis Pub/Sub behind it.

https://websockets.readthedocs.io/en/stable/topics/broadcast.html
"""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection, broadcast

from tests.benchmarks.contenders.one_game import play


def write(connections: set[ServerConnection], event: bytes) -> None:
    """As the library does it."""
    broadcast(connections, event, text=True)


if __name__ == "__main__":
    asyncio.run(play(write))
