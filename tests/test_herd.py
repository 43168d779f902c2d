"""Clients that lose their server and come back, spread out or not, over real sockets."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from itertools import islice, pairwise, repeat

import pytest

from tests.conftest import within
from wsdemo import herd
from wsdemo.herd import crash, evenly, jittered, rolling_restart
from wsdemo.measured import Arrivals


class TestARollingRestart:
    """One server after the other."""

    async def test_all_come_back_in_one_moment(self) -> None:
        """Drained at once, each server's clients come back in the same 100 ms."""
        run = await within(rolling_restart(clients=40, servers=("A", "B"), apart=0.3))
        assert [what for _, what in run.marks] == ["A drains", "B drains"]
        assert run.marks[1][0] >= 0.3
        assert run.refused == []
        assert run.attempts == 20 + 40  # B has all of them when its turn comes
        assert run.most() > 20

    async def test_a_drain_that_takes_its_time_spreads_them(self) -> None:
        """Over 0.3 s, no 100 ms has more than half of them."""
        run = await within(rolling_restart(clients=40, servers=("A", "B"), over=0.3, apart=0.0))
        assert run.attempts == 60
        assert run.most() <= 20

    async def test_the_next_one_waits_until_all_are_back(self) -> None:
        """However long the clients take, nobody is away when the next server drains."""
        steps: list[float] = []
        run = await within(
            rolling_restart(clients=10, apart=0.0, back_off=evenly(0.05), progress=steps.append)
        )
        drained = [moment for moment, _ in run.marks]
        assert all(later - earlier >= 0.05 for earlier, later in pairwise(drained))
        assert steps == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]

    async def test_who_was_let_in_begins_anew(self) -> None:
        """Each time that it was connected, a client's back-off starts from its beginning."""
        asked = 0

        def back_off() -> Iterator[float]:
            nonlocal asked
            asked += 1
            return repeat(0.0)

        await within(rolling_restart(clients=4, servers=("A", "B"), apart=0.0, back_off=back_off))
        assert asked == 4 + 2 + 4  # at first, after A, and after B, which then has all

    async def test_the_only_server_can_be_restarted(self) -> None:
        """Its clients are refused until it is there again."""
        run = await within(
            rolling_restart(clients=5, servers=("A",), apart=0.0, back_off=evenly(0.01))
        )
        assert len(run.came) == 5


class TestACrash:
    """The one server is gone, and comes back."""

    async def test_clients_without_jitter_try_in_step(self) -> None:
        """Each time all of them: while it is away, and when it is back."""
        run = await within(crash(clients=40, away=0.15, back_off=evenly(0.1)))
        assert [what for _, what in run.marks] == ["A is killed", "A is back"]
        assert len(run.came) == 40
        assert len(run.refused) >= 40
        assert min(run.came) >= 0.1

    async def test_jitter_spreads_them(self) -> None:
        """They do not try together, and all are back in the end."""
        run = await within(crash(clients=40, away=0.1, back_off=jittered(0.8, 0.8)))
        assert len(run.came) == 40
        assert run.most() < 30


@pytest.mark.parametrize("clients", [0, herd.MOST_CLIENTS + 1])
async def test_more_clients_than_sockets_are_refused(clients: int) -> None:
    """The error says how many there may be."""
    with pytest.raises(ValueError, match=f"use 1 to {herd.MOST_CLIENTS}"):
        await within(crash(clients=clients))


async def test_it_can_be_cancelled() -> None:
    """Whatever it was doing, nothing of it is left."""
    before = asyncio.all_tasks()
    for turns in (1, 10, 30, 60, 90, 100, 105, 110, 200):
        task = asyncio.create_task(rolling_restart(clients=10, apart=0.0))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await within(asyncio.wait([task]))
    gc.collect()
    assert not {task for task in asyncio.all_tasks() - before if not task.done()}


def test_back_offs() -> None:
    """The same time and again; or a random one, whose bound doubles up to an end."""
    assert list(islice(evenly(0.1)(), 3)) == [0.1, 0.1, 0.1]
    for _ in range(20):
        delays = list(islice(jittered(0.1, 0.4)(), 5))
        assert all(
            0 <= delay <= bound
            for delay, bound in zip(delays, [0.1, 0.2, 0.4, 0.4, 0.4], strict=True)
        )
    assert len(set(islice(jittered()(), 10))) == 10


class TestArrivals:
    """Counting."""

    def test_each_moment_is_in_one_bar(self) -> None:
        """Up to the last of those let in and those refused."""
        run = Arrivals("x", 3, came=[0.0, 0.05, 0.31], refused=[0.1, 0.45])
        assert run.counts() == [2, 0, 0, 1, 0]
        assert run.counts(refused=True) == [0, 1, 0, 0, 1]
        assert (run.attempts, run.most(), run.most(width=1.0)) == (5, 2, 5)
        assert str(run) == "x: 3 clients tried 5 times, at most 2 times in 100 ms"

    def test_nothing_is_counted_too(self) -> None:
        """Nobody came."""
        assert (Arrivals("x", 3).counts(), Arrivals("x", 3).most()) == ([0], 0)
