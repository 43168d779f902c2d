"""What carries events from server to server: one short file for each guarantee."""

from typing import Any

from redis.asyncio import Redis

from wsdemo.brokers.base import Broker, BrokerDown, GameFull, Receipt, Relay, Resumption
from wsdemo.brokers.keeping import SECONDS_TO_KEEP
from wsdemo.brokers.local import LocalBroker
from wsdemo.brokers.pubsub import OneChannelBroker, PubSubBroker
from wsdemo.brokers.queue import QueueBroker
from wsdemo.brokers.redis_broker import HISTORY, RedisBroker
from wsdemo.brokers.stream import StreamBroker
from wsdemo.redis.shards import ShardedRedis

__all__ = [
    "REDIS_BROKERS",
    "SECONDS_TO_KEEP",
    "Broker",
    "BrokerDown",
    "GameFull",
    "LocalBroker",
    "OneChannelBroker",
    "PubSubBroker",
    "QueueBroker",
    "Receipt",
    "Relay",
    "Resumption",
    "StreamBroker",
    "new_broker",
]

REDIS_BROKERS: dict[str, type[RedisBroker]] = {
    broker.name: broker for broker in (PubSubBroker, StreamBroker, QueueBroker)
}


def new_broker(
    name: str,
    redis: Redis | ShardedRedis,
    *,
    history: int = HISTORY,
    seconds_to_keep: float = SECONDS_TO_KEEP,
    **options: Any,
) -> RedisBroker:
    """One server's broker of this name on a Redis.

    `history` and `seconds_to_keep` are for those that keep events: how many of a game, and for how
    long once nobody plays it.
    """
    if name != PubSubBroker.name:
        options.update(history=history, seconds_to_keep=seconds_to_keep)
    return REDIS_BROKERS[name](redis, **options)
