"""A Redis for the tests of the brokers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from wsdemo.redis_backend import FakeRedis
from wsdemo.redis_cluster import EmbeddedRedisCluster


@pytest.fixture
async def fake() -> AsyncIterator[FakeRedis]:
    """A Redis in this process, to be stopped, frozen, and looked into."""
    async with FakeRedis() as redis:
        yield redis


@pytest.fixture(scope="session")
def nodes() -> Iterator[EmbeddedRedisCluster]:
    """Three nodes, for all tests: it takes them 2 s to start. Whoever breaks one, mends it."""
    cluster = EmbeddedRedisCluster()
    with ThreadPoolExecutor(1) as elsewhere:  # a loop may be running here

        def run(work: Coroutine[Any, Any, None]) -> None:
            elsewhere.submit(asyncio.run, work).result()

        run(cluster.start())
        yield cluster
        run(cluster.stop())
