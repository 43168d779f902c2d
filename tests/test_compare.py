"""The same scenario under several brokers, in lockstep."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import cancelled_after, children, eventually, listeners, more, tasks, within
from wsdemo import Cluster, compare, scenarios
from wsdemo.compare import Run


async def test_each_broker_has_its_run(redis: object) -> None:
    """Runs by broker, in the order of the brokers, each with a trace and a ledger of its own."""
    runs = await within(compare(scenarios.p1_moves_to_b, brokers=["pubsub", "none"]))
    assert list(runs) == ["pubsub", "none"]
    for broker, run in runs.items():
        assert isinstance(run, Run)
        assert (run.broker, run.trace.about["broker"], run.ledger.broker) == (broker,) * 3
        assert run.trace.ended
        assert run.ledger.balances
    assert (runs["none"].ledger.missed, runs["pubsub"].ledger.missed) == (2, 0)


async def test_no_run_is_a_step_ahead() -> None:
    """Step k + 1 begins nowhere before step k has ended everywhere."""
    log: list[tuple[str, str, int]] = []

    async def scenario(cluster: Cluster) -> None:
        for number in range(6):
            async with cluster.step(f"{number}"):
                log.append((cluster.broker, "begins", number))
                if (cluster.broker == "none") == (number % 2 == 0):  # each is the slow one in turn
                    for _ in range(200):
                        await asyncio.sleep(0)
            log.append((cluster.broker, "ended", number))

    await within(compare(scenario, brokers=["none", "pubsub"]))
    for number in range(5):
        begins = min(log.index((b, "begins", number + 1)) for b in ("none", "pubsub"))
        ended = max(log.index((b, "ended", number)) for b in ("none", "pubsub"))
        assert ended < begins


@pytest.mark.parametrize(("none", "pubsub"), [(1, 4), (4, 1), (0, 2), (2, 0)])
async def test_runs_of_different_length_do_not_hang(none: int, pubsub: int) -> None:
    """The longer one goes on alone."""

    async def scenario(cluster: Cluster) -> None:
        for number in range({"none": none, "pubsub": pubsub}[cluster.broker]):
            async with cluster.step(f"{number}"):
                pass

    runs = await within(compare(scenario))
    assert len(runs["none"].trace.select("step")) == none
    assert len(runs["pubsub"].trace.select("step")) == pubsub


@pytest.mark.parametrize("broker", ["none", "pubsub"])
@pytest.mark.parametrize("when", ["before the first step", "in a step", "after the last step"])
async def test_the_error_of_one_run_is_raised_and_all_stop(broker: str, when: str) -> None:
    """The error itself, as the scenario raised it, not wrapped into something else."""
    clusters: list[Cluster] = []

    async def scenario(cluster: Cluster) -> None:
        clusters.append(cluster)

        def fail_if(now: str) -> None:
            if cluster.broker == broker and now == when:
                raise ZeroDivisionError(now)

        fail_if("before the first step")
        await cluster.join("P1")
        async with cluster.step("one"):
            fail_if("in a step")
        async with cluster.step("two"):
            pass
        fail_if("after the last step")

    before = tasks()
    with pytest.raises(ZeroDivisionError, match=when):
        await within(compare(scenario))
    assert all(cluster.trace.ended for cluster in clusters)
    assert not tasks() - before


async def test_mistakes_are_told_as_they_are() -> None:
    """An unknown broker, one named twice, none, and options that there are not."""
    with pytest.raises(ValueError, match="unknown broker 'rabbit'; there are: none, pubsub"):
        await compare(scenarios.p1_moves_to_b, brokers=["none", "rabbit"])
    for brokers in (["none", "none"], []):
        with pytest.raises(ValueError, match="each broker once"):
            await compare(scenarios.p1_moves_to_b, brokers=brokers)
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1\b"):
        await compare(scenarios.p1_moves_to_b, redis="redis://127.0.0.1:1")
    with pytest.raises(TypeError, match="colour"):
        await compare(scenarios.p1_moves_to_b, colour="blue")


# Until 3.12, asyncio itself drops a connection whose making is cancelled in its last moment.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("redis", ["fake", "embedded"])
async def test_an_interrupted_one_leaves_nothing(redis: str) -> None:
    """Cancelled after each of many numbers of turns: no port, no task, no process."""
    before, ports, processes = tasks(), listeners(), children()
    turns, how = 0, ""
    while how != "finished before":
        how = await cancelled_after(turns, lambda: compare(scenarios.p1_moves_to_b, redis=redis))
        await eventually(lambda: not tasks() - before)
        assert not listeners() - ports, f"after {turns} turns"
        assert not children() - processes, f"after {turns} turns"
        turns = more(turns)
