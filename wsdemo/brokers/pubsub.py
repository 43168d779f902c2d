"""Redis Pub/Sub: an event reaches whoever is subscribed at that moment, at most once.

PUBLISH hands the event to each subscriber's connection and forgets it; the number it returns says
how many connections that were, not who heard. https://redis.io/docs/latest/develop/pubsub/
"""

from __future__ import annotations

from typing import ClassVar

from wsdemo.brokers.base import Receipt
from wsdemo.brokers.redis_broker import RedisBroker

__all__ = ["PubSubBroker"]


class PubSubBroker(RedisBroker):
    """Publishes each event on the channel of its game, and relays what it hears there."""

    name: ClassVar[str] = "pubsub"

    async def publish(self, game: str, payload: bytes, event: str = "") -> Receipt:
        """PUBLISH. The result counts the connections that Redis handed the event to."""
        channel = self._game_prefix + game
        return Receipt(receivers=await self._ask(lambda: self._redis.publish(channel, payload)))

    def _hear(self, game: str, message: bytes) -> None:
        self._relay(game, message, None, "", 2)
