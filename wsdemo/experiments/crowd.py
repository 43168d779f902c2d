"""What each of many servers receives, counted: with one channel for all games, and one for each.

A server's broker is the part of it that listens to Redis, and here it listens alone, for the games
of players that are put on servers at random. Redis, its channels and what comes through them are
real; only the players' own connections are left out, which have no part in this.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from wsdemo.brokers import OneChannelBroker, PubSubBroker
from wsdemo.experiments.measured import Channels, Received
from wsdemo.redis.backend import RedisBackend, redis_backend
from wsdemo.redis.cluster import EmbeddedRedisCluster

__all__ = ["messages_on_a_cluster", "messages_received", "placed"]

EVENT = b"x" * 100
BROKERS: dict[Channels, type[PubSubBroker]] = {"all": OneChannelBroker, "game": PubSubBroker}

Progress = Callable[[float], None]
"""Is told how much is done, from 0 to 1."""


def placed(servers: int, games: int, players: int, seed: int = 1) -> list[set[int]]:
    """For each game the servers that hold its players, each put on one at random.

    The players are dealt to the games in turn. The same seed puts them on the same servers.
    """
    chance = random.Random(seed)
    homes: list[set[int]] = [set() for _ in range(games)]
    for player in range(players):
        homes[player % games].add(chance.randrange(servers))
    return homes


async def messages_received(
    servers: Sequence[int] = (1, 2, 4, 8),
    games: Sequence[int] = (1, 50, 200),
    players: int = 400,
    events: int = 50,
    *,
    redis: str | None = None,
    progress: Progress = lambda share: None,
) -> list[Received]:
    """Say so many events, in each game in turn, for each number of servers and of games.

    The players of all games together stay as many. Each case is measured with one channel for all
    games and with one for each, on the Redis that `redis_backend` gives for this choice. Raises
    `ValueError` for a game without players, and what the backend and the brokers raise.
    """
    cases = [(count, some, each) for count in servers for some in games for each in BROKERS]
    found = []
    async with redis_backend(redis) as backend:
        for number, (count, some, channels) in enumerate(cases):
            found.append(await _received(backend, channels, count, some, players, events))
            progress((number + 1) / len(cases))
    return found


async def messages_on_a_cluster(
    servers: int = 8, games: int = 200, players: int = 400, events: int = 50
) -> list[Received]:
    """The same for one number of each, on a Redis Cluster of three nodes, which starts in seconds.

    What was published on each node is its own count. Raises `RedisUnavailable` where there is no
    server to run, and what `messages_received` does.
    """
    async with AsyncExitStack() as running:
        cluster = await running.enter_async_context(EmbeddedRedisCluster())
        backend = await running.enter_async_context(redis_backend(cluster.url))
        nodes = [
            await running.enter_async_context(cluster.client(number))
            for number in range(len(cluster.ports))
        ]

        async def published() -> list[int]:
            stats = [await node.info("commandstats") for node in nodes]
            return [each.get("cmdstat_spublish", {}).get("calls", 0) for each in stats]

        return [
            await _received(backend, channels, servers, games, players, events, published)
            for channels in BROKERS
        ]


async def _received(
    backend: RedisBackend,
    channels: Channels,
    servers: int,
    games: int,
    players: int,
    events: int,
    published: Callable[[], Awaitable[list[int]]] | None = None,
) -> Received:
    """What each server received, and, if they can be asked, what the nodes of a cluster took."""
    if not 1 <= games <= players:
        raise ValueError(f"{players} players in {games} games: each game has at least one")
    homes = placed(servers, games, players)
    before = await published() if published else []
    async with AsyncExitStack() as running:
        brokers = []
        for server in range(servers):
            broker = BROKERS[channels](
                backend.broker_client(), server=f"S{server}", prefix=f"{backend.prefix}crowd:"
            )
            running.push_async_callback(broker.stop)
            await broker.start(lambda *event: None)
            brokers.append(broker)
        for game, home in enumerate(homes[:events]):  # in the others, nobody says anything
            for server in home:
                await brokers[server].subscribe(f"game {game}")
        for event in range(events):
            game = event % games
            await brokers[min(homes[game])].publish(f"game {game}", EVENT)
        after = await published() if published else []
        for broker in brokers:
            await broker.sync()  # which is a message of its own, not counted
    by_server = [broker.received for broker in brokers]
    by_node = [late - early for early, late in zip(before, after, strict=True)]
    return Received(channels, games, players, events, by_server, by_node)
