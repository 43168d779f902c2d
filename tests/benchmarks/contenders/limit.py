"""The limit: a frame is built once, and its bytes are written to each transport.

No Python server that writes to asyncio's transports one by one can do less for a delivery.
"""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

from tests.benchmarks.contenders.one_game import play


def write(connections: set[ServerConnection], event: bytes) -> None:
    """Past the WebSocket protocol."""
    frame = Frame(Opcode.TEXT, event).serialize(mask=False)
    for connection in connections:
        try:  # costs nothing, unlike a look at the connection's state
            connection.transport.write(frame)
        except RuntimeError:
            continue  # it is just being closed


if __name__ == "__main__":
    asyncio.run(play(write))
