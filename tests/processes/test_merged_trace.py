"""A trace to which several processes add, in the order of a clock that they share."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import within
from wsdemo.processes.merged_trace import MergedTrace, Source


class Other:
    """Another process, as far as the trace sees one: it is asked how far it is."""

    def __init__(self, trace: MergedTrace) -> None:
        self.asked = 0
        self.source: Source = trace.source(self._ask)

    def _ask(self) -> None:
        self.asked += 1

    def says(self, t: float, event: str) -> None:
        self.source.add(t, "relay", "B", "redis", event, {})


@pytest.fixture
def trace() -> MergedTrace:
    return MergedTrace(broker="pubsub")


def events(trace: MergedTrace) -> list[str]:
    return [record.event for record in trace]


def test_alone_it_is_a_trace_like_any_other(trace: MergedTrace) -> None:
    """Nothing is held back where nobody else adds anything."""
    trace.append("send", "P1", "A", "1")
    assert events(trace) == ["1"]


def test_a_record_waits_for_what_may_come_before_it(trace: MergedTrace) -> None:
    """The other process is asked, once, and what it had done earlier takes its place."""
    other = Other(trace)
    before = trace.now()
    trace.append("send", "P1", "A", "2")
    trace.append("send", "P1", "A", "3")
    assert events(trace) == []
    assert other.asked == 1
    other.says(before, "1")
    assert events(trace) == ["1"]
    other.source.reach(trace.now())
    assert events(trace) == ["1", "2", "3"]
    assert [record.n for record in trace] == [0, 1, 2]


def test_it_is_asked_again_as_long_as_something_waits(trace: MergedTrace) -> None:
    """An answer from before the last record does not let that one pass."""
    other = Other(trace)
    trace.append("send", "P1", "A", "1")
    between = trace.now()
    trace.append("send", "P1", "A", "2")
    other.source.reach(between)
    assert events(trace) == ["1"]
    assert other.asked == 2


def test_every_process_has_to_be_so_far(trace: MergedTrace) -> None:
    """One that lags holds back, until it says so, stands still, or is gone."""
    one, two = Other(trace), Other(trace)
    trace.append("send", "P1", "A", "1")
    one.source.reach(trace.now())
    assert events(trace) == []
    two.source.pause()
    assert events(trace) == ["1"]
    two.source.resume()
    trace.append("send", "P1", "A", "2")
    one.source.reach(trace.now())
    assert events(trace) == ["1"]
    trace.leave(two.source)
    assert events(trace) == ["1", "2"]


def test_what_is_said_late_comes_last_and_time_does_not_go_back(trace: MergedTrace) -> None:
    """A process that had stood still in the middle of saying something says it afterwards."""
    other = Other(trace)
    early = trace.now()
    other.source.pause()
    trace.append("fault", "B")
    other.source.resume()
    other.says(early, "late")
    other.source.reach(trace.now())
    assert [record.kind for record in trace] == ["fault", "relay"]
    assert trace[1].t == trace[0].t


async def test_to_collect_is_to_wait_for_everything_up_to_now(trace: MergedTrace) -> None:
    """Though an answer to an earlier question comes first."""
    other = Other(trace)
    trace.append("send", "P1", "A", "1")
    early = trace.now()
    collecting = asyncio.create_task(trace.collect())
    await asyncio.sleep(0)
    other.source.reach(early)
    await asyncio.sleep(0)
    assert not collecting.done()
    other.says(trace.now(), "2")
    other.source.reach(trace.now())
    await within(collecting)
    assert events(trace) == ["1", "2"]


def test_at_the_end_nothing_is_held_back_and_nothing_more_is_taken(trace: MergedTrace) -> None:
    """What a process says while it shuts down does not belong to the run."""
    other = Other(trace)
    trace.append("send", "P1", "A", "1")
    trace.end()
    other.says(trace.now(), "2")
    assert events(trace) == ["1"]
