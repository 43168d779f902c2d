"""What each of many servers receives, counted: with one channel for all games, and one for each.

A server's broker is the part of it that listens to Redis, and here it listens alone, for the games
of players that are put on servers at random. Redis, its channels and what comes through them are
real; only the players' own connections are left out, which have no part in this.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from wsdemo.brokers import PubSubBroker
from wsdemo.measured import Channels, Received
from wsdemo.redis_backend import RedisBackend, redis_backend

__all__ = ["messages_received", "placed"]

ALL = "all"  # the channel of all games, where they share one
EVENT = b"x" * 100
CHANNELS: tuple[Channels, ...] = ("all", "game")

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
    games: Sequence[int] = (1, 10, 50, 200),
    players: int = 400,
    events: int = 100,
    *,
    redis: str | None = None,
    progress: Progress = lambda share: None,
) -> list[Received]:
    """Say so many events, in each game in turn, for each number of servers and of games.

    The players of all games together stay as many. Each case is measured with one channel for all
    games and with one for each, on the Redis that `redis_backend` gives for this choice. Raises
    `ValueError` for a game without players, and what the backend and the brokers raise.
    """
    if not 1 <= max(games) <= players:
        raise ValueError(f"{players} players in {max(games)} games: each game has at least one")
    cases = [(count, some, each) for count in servers for some in games for each in CHANNELS]
    found = []
    async with redis_backend(redis) as backend:
        for number, (count, some, channels) in enumerate(cases):
            homes = placed(count, some, players)
            by_server = await _counted(backend, channels, homes, count, events)
            found.append(Received(channels, some, players, events, by_server))
            progress((number + 1) / len(cases))
    return found


async def _counted(
    backend: RedisBackend, channels: Channels, homes: list[set[int]], servers: int, events: int
) -> list[int]:
    """How many events each server received, of events that are said in each game in turn."""
    received = [0] * servers

    def counter(server: int) -> Callable[..., None]:
        def count(*event: object) -> None:
            received[server] += 1

        return count

    async with AsyncExitStack() as running:
        brokers: list[PubSubBroker] = []
        for server in range(servers):
            broker = PubSubBroker(
                backend.client(), server=f"S{server}", prefix=f"{backend.prefix}crowd:"
            )
            await broker.start(counter(server))
            running.push_async_callback(broker.stop)
            brokers.append(broker)
        for game, home in enumerate(homes):
            for server in home:
                await brokers[server].subscribe(_channel(channels, game))
        for event in range(events):
            game = event % len(homes)
            await brokers[min(homes[game])].publish(_channel(channels, game), EVENT, "")
        for broker in brokers:
            await broker.sync()
    return received


def _channel(channels: Channels, game: int) -> str:
    return ALL if channels == "all" else f"game {game}"
