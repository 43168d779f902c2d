"""Redis Pub/Sub: an event reaches whoever is subscribed at that moment, at most once.

PUBLISH hands the event to each subscriber's connection and forgets it; the number it returns says
how many connections that were, not who heard. https://redis.io/docs/latest/develop/pubsub/
"""

from __future__ import annotations

from typing import Any, ClassVar

from wsdemo.brokers.base import Receipt
from wsdemo.brokers.redis_broker import RedisBroker

__all__ = ["OneChannelBroker", "PubSubBroker"]

ALL_GAMES = "*"  # which no game is called


class PubSubBroker(RedisBroker):
    """Publishes each event on the channel of its game, and relays what it hears there."""

    name: ClassVar[str] = "pubsub"

    async def publish(self, game: str, payload: bytes, event: str = "") -> Receipt:
        """PUBLISH. The result counts the connections that Redis handed the event to."""
        return Receipt(receivers=await self.say(self._channel(game), payload))

    def _hear(self, game: str, message: bytes) -> None:
        self._relay(game, message, None, "", 2)


class OneChannelBroker(PubSubBroker):
    """Publishes all games' events on one channel: a server is sent those of every game.

    It is for comparison. Each message ends with its game's name, in a line of its own, and a server
    that has no player in it drops the message; only `received` has counted it.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._games_here: set[str] = set()

    async def publish(self, game: str, payload: bytes, event: str = "") -> Receipt:
        """PUBLISH. The result counts all servers that have a player, in whatever game."""
        return await super().publish(ALL_GAMES, payload + b"\n" + game.encode(), event)

    async def subscribe(self, game: str) -> None:
        """SUBSCRIBE, for the first game."""
        self._games_here.add(game)
        await super().subscribe(ALL_GAMES)

    async def unsubscribe(self, game: str) -> None:
        """UNSUBSCRIBE, after the last game."""
        self._games_here.discard(game)
        if not self._games_here:
            await super().unsubscribe(ALL_GAMES)

    def _hear(self, game: str, message: bytes) -> None:
        payload, _, name = message.rpartition(b"\n")
        if (game := name.decode(errors="replace")) in self._games_here:
            self._relay(game, payload, None, "", 2)
