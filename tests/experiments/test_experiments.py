"""What Redis does, and does not say, as the lessons show it."""

from __future__ import annotations

import pytest

from wsdemo import open_cluster
from wsdemo.experiments.streams import (
    after_trimming,
    group_reads,
    history_first,
    subscription_first,
)
from wsdemo.redis.backend import FakeRedis, RedisBackend
from wsdemo.redis.kept import Kept, count_kept


@pytest.fixture(params=["fake", "embedded"], autouse=True)
def _redis(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSDEMO_REDIS", request.param)


async def test_history_first_has_a_hole() -> None:
    """What is said between the two steps is in neither; the other order has it, once."""
    assert await history_first() == [1, 2, 4]
    assert await subscription_first() == [1, 2, 3, 4]


async def test_what_was_trimmed_is_passed_over_in_silence() -> None:
    """The next event that there is comes, however many are missing, and no error."""
    assert await after_trimming() == [8, 9, 10]
    assert await after_trimming(kept=9) == [3, 4, 5, 6, 7, 8, 9, 10]


async def test_a_group_shares_a_stream_out() -> None:
    """Each event goes to one reader."""
    assert await group_reads() == [[1, 3, 5], [2, 4, 6]]


async def test_what_a_cluster_has_in_redis_is_counted() -> None:
    """Nothing under Pub/Sub; the same for every Redis under a broker that keeps events."""
    found = {}
    for broker in ("none", "pubsub", "stream", "queue"):
        async with open_cluster(broker=broker) as cluster:
            [p1] = await cluster.join("P1")
            await p1.send("jump")
            await cluster.settle()
            found[broker] = await cluster.kept()
    assert found["none"] == found["pubsub"] == Kept(0, 0)
    assert (found["stream"].keys, found["queue"].keys) == (3, 4)
    assert found["stream"].content > found["queue"].content > 0  # all is acknowledged


async def test_names_and_values_are_counted_of_what_has_the_prefix() -> None:
    """Each kind of value that a broker writes, and nothing of anybody else's."""
    backend: RedisBackend
    async with FakeRedis() as backend:
        redis = backend.client()
        await redis.set("p:s", "12345")
        await redis.hset("p:h", "ab", "cd")
        await redis.zadd("p:z", {"xyz": 1})
        await redis.xadd("p:x", {"k": "value"}, id="1-0")
        await redis.set("other", "not this")
        assert await count_kept(redis, "p:") == Kept(4, 4 * 3 + 5 + 4 + 3 + (3 + 1 + 5))
        await redis.aclose()
