"""Whatever happens to players, servers and Redis, each broker keeps what it promises.

The same few schedules each time; WSDEMO_CHAOS=2000 plays so many others, for each broker and Redis.
What fails is shown as a scenario, which can be pasted into a notebook and watched on the stage.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import chaos
from tests.chaos import OFTEN, Act, play, scenario
from tests.conftest import RUNS
from wsdemo.brokers import redis_broker
from wsdemo.cluster import BROKERS
from wsdemo.redis import disk
from wsdemo.redis.backend import Persistence

MANY = int(os.environ.get("WSDEMO_CHAOS", "0"))
KINDS: list[tuple[str, str, Persistence]] = [
    *((broker, redis, "none") for broker, redis in RUNS),
    ("stream", "fake", "none"),
    ("stream", "embedded", "none"),
    ("stream", "embedded", "everysec"),
    ("stream", "embedded", "always"),
    ("queue", "fake", "none"),
    ("queue", "embedded", "none"),
    ("queue", "embedded", "everysec"),
    ("queue", "embedded", "always"),
]

schedules = st.lists(
    st.builds(Act, st.sampled_from(OFTEN), st.integers(0, 9), st.integers(0, 9)),
    min_size=10,
    max_size=40,
)


@pytest.fixture(autouse=True, scope="module")
def _hasty() -> Iterator[None]:
    """Redis's disk is synced sooner than usual; and what the stories change is put back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_broker, "ANSWER_TIMEOUT", redis_broker.ANSWER_TIMEOUT)
        patch.setattr(disk, "EVERY", chaos.SYNC_EVERY)
        yield


def test_every_broker_is_tried() -> None:
    """A broker that is added to the package is added here."""
    assert {broker for broker, _, _ in KINDS} == set(BROKERS)


@pytest.mark.parametrize(("broker", "redis", "persistence"), KINDS)
def test_it_keeps_its_promise(broker: str, redis: str, persistence: Persistence) -> None:
    """The ledger balances, with causes that are proven; what is kept is heard once, in order."""

    @settings(
        max_examples=MANY or (10 if redis == "embedded" else 30),
        derandomize=not MANY,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(schedules)
    def try_one(acts: list[Act]) -> None:
        source = scenario(acts, broker, broker != "none", persistence)
        found = asyncio.run(play(source, broker, redis, persistence))
        where = f"# {broker=}, {redis=}, {persistence=}"
        assert not found, "\n".join([*found, "", where, source])

    try_one()
