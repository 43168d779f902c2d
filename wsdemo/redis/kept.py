"""What a cluster has in Redis: how many keys, and how many bytes of content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Kept", "count_kept"]


@dataclass(frozen=True)
class Kept:
    """`content` counts the bytes of names and values, and none that Redis itself adds to them.

    So it is the same for every Redis; the memory that one takes up is several times as much.
    """

    keys: int
    content: int


async def count_kept(redis: Any, prefix: str) -> Kept:
    """Everything whose key begins with the prefix."""
    keys = [key async for key in redis.scan_iter(match=f"{prefix}*")]
    content = 0
    for key in keys:
        match await redis.type(key):
            case b"stream":
                content += _size(await redis.xrange(key))
            case b"hash":
                content += _size(await redis.hgetall(key))
            case b"zset":
                content += _size(await redis.zrange(key, 0, -1))
            case b"string":
                content += _size(await redis.get(key))
    return Kept(len(keys), content + _size(keys))


def _size(value: Any) -> int:
    match value:
        case bytes():
            return len(value)
        case dict():
            return sum(_size(key) + _size(each) for key, each in value.items())
        case list() | tuple():
            return sum(map(_size, value))
    return 0
