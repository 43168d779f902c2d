"""The same scenario under several brokers, in lockstep: no run is a step ahead of another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wsdemo.cluster import open_cluster
from wsdemo.ledger import Ledger, ledger
from wsdemo.scenarios import Scenario, scenario_named
from wsdemo.trace import Trace

__all__ = ["Run", "compare"]


@dataclass(frozen=True)
class Run:
    """One broker's run of a scenario."""

    broker: str
    trace: Trace

    @property
    def ledger(self) -> Ledger:
        """Who heard and who missed what in it."""
        return ledger(self.trace)


async def compare(
    scenario: Scenario | str, brokers: Sequence[str] | str = ("none", "pubsub"), **options: Any
) -> dict[str, Run]:
    """Run a scenario, given or named, under each broker or the only one, on a cluster of its own.

    `options` go to `open_cluster`. Returns the runs by broker. If one fails, the others are stopped
    and its error is raised.
    """
    play = scenario_named(scenario) if isinstance(scenario, str) else scenario
    brokers = [brokers] if isinstance(brokers, str) else brokers
    if len(set(brokers)) < len(brokers) or not brokers:
        raise ValueError(f"name each broker once, and at least one; got {list(brokers)}")
    lockstep = asyncio.Barrier(len(brokers))

    async def step_together() -> None:
        with suppress(asyncio.BrokenBarrierError):
            await lockstep.wait()

    async def run(broker: str) -> Run:
        async with open_cluster(broker=broker, **options) as cluster:
            cluster.before_step = step_together
            try:
                await play(cluster)
                await cluster.settle()
                if cluster.redis_state in ("up", ""):
                    kept = await cluster.kept()
                    cluster.trace.about.update(keys=kept.keys, content=kept.content)
            finally:
                await (
                    lockstep.abort()
                )  # a run that has ended holds nobody up; the others go on alone
        return Run(broker, cluster.trace)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(broker)) for broker in brokers]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return {task.result().broker: task.result() for task in tasks}
