"""Small experiments with Redis alone, without servers and players: what it does, and does not say.

Each starts with a Redis of its own (as WSDEMO_REDIS says), and leaves nothing in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.client import PubSub

from wsdemo.redis.backend import redis_backend

__all__ = ["after_trimming", "group_reads", "history_first", "subscription_first"]


async def history_first() -> list[int]:
    """Read history, then subscribe. Event 3 comes in between."""
    async with _a_stream() as (redis, name):
        await _say(redis, name, 1, 2)
        history = await redis.xrange(name)
        await _say(redis, name, 3)
        async with redis.pubsub() as link:
            await _subscribe(link, name)
            await _say(redis, name, 4)
            live = await _heard(link, until=4)
    return [_number(entry) for entry, _ in history] + live


async def subscription_first() -> list[int]:
    """Subscribe, then read history, then drop what was heard before. Event 3 comes in between."""
    async with _a_stream() as (redis, name):
        await _say(redis, name, 1, 2)
        async with redis.pubsub() as link:
            await _subscribe(link, name)
            await _say(redis, name, 3)
            history = await redis.xrange(name)
            await _say(redis, name, 4)
            live = await _heard(link, until=4)
    read = [_number(entry) for entry, _ in history]
    return read + [number for number in live if number > read[-1]]


async def after_trimming(kept: int = 3) -> list[int]:
    """Ten events, of which a stream keeps the last ones; then ask for those after event 2."""
    async with _a_stream() as (redis, name):
        for number in range(1, 11):
            await redis.xadd(name, {"said": "x"}, id=f"{number}-0", maxlen=kept, approximate=False)
        [(_, entries)] = await redis.xread({name: "2-0"})
    return [_number(entry) for entry, _ in entries]


async def group_reads(readers: int = 2) -> list[list[int]]:
    """Six events, read by servers that are one consumer group: what each of them gets."""
    async with _a_stream() as (redis, name):
        await redis.xgroup_create(name, "servers", mkstream=True)
        await _say(redis, name, *range(1, 7))
        got: list[list[int]] = [[] for _ in range(readers)]
        for turn in range(6):
            reader = turn % readers
            [(_, [(entry, _)])] = await redis.xreadgroup(
                "servers", f"server {reader}", {name: ">"}, count=1
            )
            got[reader].append(_number(entry))
    return got


@asynccontextmanager
async def _a_stream() -> AsyncIterator[tuple[Any, str]]:
    """A client, and the name of a stream that nobody else uses.

    Any: redis-py's own types leave open what each version of the protocol would return.
    """
    async with redis_backend() as backend:
        name = f"{backend.prefix}experiment"
        redis = await backend.client_for(name)
        try:
            yield redis, name
        finally:
            await redis.delete(name)
            await redis.aclose()


async def _say(redis: Any, name: str, *numbers: int) -> None:
    for number in numbers:
        await redis.xadd(name, {"said": "x"}, id=f"{number}-0")
        await redis.publish(name, number)


async def _subscribe(link: PubSub, name: str) -> None:
    await link.subscribe(name)
    await link.get_message(timeout=None)  # the confirmation: before it, Redis sends nothing


async def _heard(link: PubSub, until: int) -> list[int]:
    heard: list[int] = []
    while not heard or heard[-1] < until:
        message = await link.get_message(timeout=None)
        if message and message["type"] == "message":
            heard.append(int(message["data"]))
    return heard


def _number(entry: bytes) -> int:
    return int(entry.split(b"-")[0])
