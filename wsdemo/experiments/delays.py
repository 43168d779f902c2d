"""The same events over a WebSocket and by polling: how late each is heard, and at what cost."""

from __future__ import annotations

import asyncio
import random
import time

from websockets.asyncio.client import connect

from wsdemo.brokers import LocalBroker
from wsdemo.experiments.polling import PollingServer, poll
from wsdemo.protocol import Join, Send, encode
from wsdemo.server import GameServer
from wsdemo.tap import Tap
from wsdemo.wire import Delays

__all__ = ["websocket_and_polling"]


async def websocket_and_polling(
    events: int = 5, pause: float = 0.15, every: float = 0.25
) -> Delays:
    """The same events heard over a WebSocket, and by a client that asks `every` so many seconds.

    There are about `pause` seconds between them: chance says when, as it does with players.
    """
    async with (
        GameServer("A", LocalBroker()) as server,
        Tap(server.url) as tap,
        PollingServer() as polled,
        Tap(polled.url) as polled_tap,
        connect(tap.url, proxy=None, compression=None) as client,
        connect(server.url, proxy=None, compression=None) as speaker,
    ):
        for name, connection in (("P1", client), ("P2", speaker)):
            await connection.send(encode(Join("g", name)), text=True)
            await connection.recv()
        setup = tap.conversations[0].kept
        said: list[float] = []
        heard: list[float] = []

        async def listen() -> None:
            while len(heard) < events:
                await client.recv()
                heard.append(time.perf_counter())

        async with asyncio.TaskGroup() as group:
            polling = group.create_task(poll(polled_tap.url, every, events))
            group.create_task(listen())
            for number in range(events):
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))
                said.append(time.perf_counter())
                polled.say(f"event {number}")
                await speaker.send(encode(Send(f"{number}", f"event {number}")), text=True)
        websocket, questions = tap.conversations[0], polled_tap.conversations[0]
        return Delays(
            said,
            {"WebSocket": heard, "polling": [t for _, t in polling.result()]},
            [questions.began + c.t for c in questions.chunks if c.side == "client" and c.data],
            {"WebSocket": setup, "polling": 0},  # who asks has said nothing before
            {"WebSocket": websocket.kept - setup, "polling": questions.kept},
        )
