"""Clients that lose their server and come back, spread out or not, over real sockets."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from itertools import islice, pairwise, repeat

import pytest

from tests.conftest import within
from wsdemo.experiments import herd
from wsdemo.experiments.herd import crash, doubling, evenly, jittered, rolling_restart
from wsdemo.experiments.measured import Arrivals


class TestARollingRestart:
    """One server after the other."""

    async def test_all_come_back_in_one_moment(self) -> None:
        """Drained at once, each server's clients come back in the same 100 ms."""
        run = await within(rolling_restart(clients=40, servers=("A", "B"), apart=0.3))
        assert [what for _, what in run.marks] == ["A drains", "B drains", "all are in"]
        assert run.marks[1][0] >= 0.3
        assert run.refused == run.gave_up == []
        assert run.moves() == [20, 40]  # B has all of them when its turn comes
        assert run.most() > 20

    async def test_each_server_has_those_of_the_ones_before(self) -> None:
        """However long its clients take, all of them are on the others before it is back."""
        run = await within(
            rolling_restart(clients=24, apart=0.0, back_off=jittered(0.1, longest=0.1))
        )
        assert run.moves() == [8, 12, 18]

    async def test_a_drain_that_takes_its_time_spreads_them(self) -> None:
        """Over 0.8 s, no 100 ms has more than half of them, on a busy machine either."""
        run = await within(rolling_restart(clients=40, servers=("A", "B"), over=0.8, apart=0.0))
        assert run.moves() == [20, 40]
        assert run.most() <= 20

    async def test_the_next_one_waits_until_all_are_back(self) -> None:
        """However long the clients take, nobody is away when the next server drains."""
        steps: list[float] = []
        run = await within(
            rolling_restart(clients=10, apart=0.0, back_off=evenly(0.05), progress=steps.append)
        )
        drained = [moment for moment, _ in run.marks]
        assert len(drained) == 4
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
        """Its clients wait until it is there again."""
        run = await within(
            rolling_restart(clients=5, servers=("A",), apart=0.0, back_off=evenly(0.01))
        )
        assert run.moves() == [5]
        assert run.refused == run.gave_up == []


class TestACrash:
    """The one server is gone, and comes back."""

    async def test_clients_without_jitter_try_in_step(self) -> None:
        """Each time all of them: while it is away, and when it is back."""
        run = await within(crash(clients=40, away=0.15, back_off=evenly(0.1)))
        assert [what for _, what in run.marks] == ["A is killed", "A is back", "all are in"]
        assert run.seconds == run.marks[-1][0] >= 0.15
        assert len(run.came) == 40
        assert len(run.refused) >= 40
        assert min(run.came) >= 0.1

    async def test_jitter_spreads_them(self) -> None:
        """They do not try together, and all are back in the end."""
        run = await within(crash(clients=40, away=0.1, back_off=jittered(0.8, 0.8)))
        assert len(run.came) == 40
        assert run.most() < 30

    async def test_a_server_lets_in_no_more_than_it_can(self) -> None:
        """One after the other, while the others wait."""
        run = await within(crash(clients=20, away=0.0, back_off=evenly(0.01), capacity=100))
        assert run.seconds >= 0.2
        assert run.gave_up == []

    async def test_who_waits_for_too_long_gives_up_and_comes_again(self) -> None:
        """The server goes on with those who have gone, and lets in all of them in the end.

        It has time for 8 in 0.2 s; the other 12 come again when it is done with them.
        """
        run = await within(
            crash(clients=20, away=0.0, back_off=evenly(0.4), capacity=40, patience=0.2)
        )
        assert len(run.came) == 20
        assert len(run.gave_up) >= 12
        assert run.seconds >= 0.4 + 0.2 + 0.4

    async def test_in_step_it_takes_longer_than_with_jitter(self) -> None:
        """And more of them give up: as lesson 08 shows."""
        in_step, jitter = await within(
            asyncio.gather(
                *(
                    crash(back_off=back_off(0.1, 0.8), capacity=120, patience=0.3)
                    for back_off in (doubling, jittered)
                )
            ),
            patience=30,
        )
        assert len(in_step.came) == len(jitter.came) == 60
        assert len(in_step.gave_up) > len(jitter.gave_up)
        assert in_step.seconds > jitter.seconds


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


async def test_garbage_holds_nobody_up() -> None:
    """What there was before a run is not looked through while it lasts, and is again after it."""
    frozen: list[int] = []
    before = gc.get_freeze_count()
    await within(
        crash(clients=2, away=0.0, progress=lambda _: frozen.append(gc.get_freeze_count()))
    )
    assert min(frozen) > before
    assert gc.get_freeze_count() == before


def test_back_offs() -> None:
    """The same time and again; or a random one, whose bound doubles up to an end."""
    assert list(islice(evenly(0.1)(), 3)) == [0.1, 0.1, 0.1]
    assert list(islice(doubling(0.1, 0.5)(), 5)) == [0.1, 0.2, 0.4, 0.5, 0.5]
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
        """Up to the last of all attempts, whatever came of them."""
        run = Arrivals("x", 3, came=[0.0, 0.05, 0.31], refused=[0.1, 0.45], gave_up=[0.11])
        assert run.counts(run.came) == [2, 0, 0, 1, 0]
        assert run.counts(run.refused) == [0, 1, 0, 0, 1]
        assert run.counts(run.gave_up) == [0, 1, 0, 0, 0]
        assert (len(run.attempts), run.most(), run.most(width=1.0)) == (6, 2, 6)
        assert str(run) == (
            "x: 3 clients tried 6 times (2.0 each), at most 2 times in 100 ms, 1 gave up; "
            "all were in after 0.0 s"
        )

    def test_moves_are_counted_between_marks(self) -> None:
        """Each of those let in belongs to what was before it; nobody is after the last mark."""
        run = Arrivals(
            "x", 3, came=[0.2, 0.0, 1.5], marks=[(0.0, "A"), (1.0, "B"), (2.0, "all are in")]
        )
        assert run.moves() == [2, 1]
        assert run.seconds == 2.0
        assert str(run) == (
            "x: 3 clients tried 3 times (1.0 each), at most 1 times in 100 ms; "
            "all were in after 2.0 s"
        )

    def test_nothing_is_counted_too(self) -> None:
        """Nobody came."""
        nobody = Arrivals("x", 3)
        assert (nobody.counts([]), nobody.most(), nobody.moves(), nobody.seconds) == ([0], 0, [], 0)
