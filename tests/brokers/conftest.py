"""A Redis for the tests of the brokers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from wsdemo.redis.backend import FakeRedis


@pytest.fixture
async def fake() -> AsyncIterator[FakeRedis]:
    """A Redis in this process, to be stopped, frozen, and looked into."""
    async with FakeRedis() as redis:
        yield redis
