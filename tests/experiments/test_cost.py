"""What one server costs, by its own numbers; and what goes wrong with that, in words."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import psutil
import pytest

from tests.conftest import eventually
from wsdemo.experiments.cost import Busy, Filled, Talk, cost_of
from wsdemo.experiments.server_cost import Meter, server_cost
from wsdemo.processes.stand_alone import StandAloneServer


def children() -> list[psutil.Process]:
    """The processes that this one has started and that still run."""
    return [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]


async def test_a_server_is_measured_by_its_own_numbers() -> None:
    """Each step and each talk is what the server counted; the slopes are of a size that can be."""
    shares: list[float] = []
    before = children()
    cost = await server_cost(60, progress=shares.append)
    assert shares == sorted(set(shares))
    assert shares[-1] == 1
    assert [each.connections for each in cost.filling] == list(range(0, 61, 6))
    by_one = [talk.players for talk in cost.talks if talk.speakers == 1]
    assert by_one[0] == 1
    assert sum(by_one) == 60
    by_all = [talk.players for talk in cost.talks if talk.speakers == talk.players]
    assert by_all == by_one
    for talk in cost.talks:
        assert talk.events % talk.speakers == 0
        assert talk.deliveries == talk.events * talk.players > 0
        assert talk.seconds > 0
    seconds = [each.seconds for each in cost.filling]
    assert seconds == sorted(seconds)
    assert 1024 < cost.bytes_per_connection < 100 * 1024
    assert cost.bytes_at_rest > 10e6
    assert 1e-6 < cost.one.per_delivery < 1e-3
    assert cost.one.per_delivery < cost.one.per_event < 1e-2
    assert children() == before


async def test_the_server_is_held_against_its_costs_below_and_beyond_the_wall() -> None:
    """At five rates the core is as busy as computed; at a sixth, events come in too fast.

    What was said is what the server can do by its costs, times a pace; all of it is heard.
    """
    cost = await server_cost(200)
    *below, beyond = cost.busy
    assert len(below) > 2
    for busy in cost.busy:
        assert busy.players == cost.talks[-1].players == 140
        assert busy.deliveries == pytest.approx(busy.events * busy.players) != 0
        assert 0 < busy.share < 1.5  # garbage may be collected, and the system take its own time
        assert all(0 < wait < 30 for wait in busy.waits)
        assert busy.events < 1.01 * busy.said
    said = [busy.said for busy in cost.busy]
    assert said == sorted(set(said))
    paces = [cost.seconds(busy.said, busy.said * busy.players) for busy in cost.busy]
    assert paces[-2] < 1 < paces[-1]
    assert all(cost.explains(busy, within=3) for busy in below)
    assert beyond.events < beyond.said / 1.1
    assert beyond.last > below[0].last


def a_talk(players: int, speakers: int, events: int, event: float, delivery: float) -> Talk:
    """One in which each event and each delivery takes so many seconds."""
    deliveries = players * events
    return Talk(players, speakers, events, deliveries, event * events + delivery * deliveries)


def two_talks(event: float, delivery: float) -> list[Talk]:
    """With these costs while all speak, and while one does with some that are ten times that."""
    return [
        *(a_talk(players, players, 20, event, delivery) for players in (2, 10)),
        *(a_talk(players, 1, 20, 10 * event, 10 * delivery) for players in (1, 10)),
    ]


EMPTY = [Filled(0, 0, 0), Filled(1, 0, 0)]


def test_twice_the_machine_is_not_twice_the_players() -> None:
    """100 players, each once a second: 100 events and 10,000 deliveries fill a machine."""
    cost = cost_of(EMPTY, two_talks(0.004, 0.00006))
    assert cost.seconds(100, 10_000) == pytest.approx(1)
    assert cost.players() == pytest.approx(100)
    assert cost.players(machines=4) == pytest.approx(100 * 2.26, rel=0.01)
    assert cost.players(rate=0.25) == pytest.approx(cost.players(machines=4))
    for machines in (1, 2, 4, 8, 1000):
        players = cost.players(machines, rate=3)
        assert cost.seconds(3 * players, 3 * players**2) == pytest.approx(machines)


def test_the_slopes_are_those_of_what_was_measured() -> None:
    """10 MB, 2,000 bytes and 3 ms a connection; 0.5 ms an event, 0.1 ms a delivery; ten times that.

    The latter while one speaks at a time.
    """
    filling = [Filled(n, 10e6 + 2000 * n, 1 + 0.003 * n) for n in (0, 100, 200, 400)]
    cost = cost_of(filling, two_talks(0.0005, 0.0001))
    assert cost.bytes_per_connection == pytest.approx(2000)
    assert cost.bytes_at_rest == pytest.approx(10e6)
    assert cost.seconds_per_connection == pytest.approx(0.003)
    assert cost.one.seconds(events=2, deliveries=30) == pytest.approx(0.04)
    assert cost.many.seconds(events=2, deliveries=30) == pytest.approx(0.004)
    assert str(cost).splitlines() == [
        "each connection     2.0 KiB, and 3,000 µs of a core to make it: 300 s for 100,000",
        "each event said  5000.0 µs of a core with little to do, 500.0 µs with much",
        "each delivery    1000.0 µs of a core with little to do, 100.00 µs with much",
    ]


@pytest.mark.parametrize("off", [0, 1])
def test_nothing_costs_less_than_nothing(off: int) -> None:
    """What was measured badly may have such a slope: then all that it cost is the deliveries'."""
    talks = two_talks(0.001, 0.001)
    talks[off] = replace(talks[off], seconds=5 * talks[off].seconds)
    cost = cost_of(EMPTY, talks)
    assert cost.many.per_event == 0
    assert 0.001 < cost.many.per_delivery < 0.01
    assert 1 < cost.players() < 1 / 0.001


@pytest.mark.parametrize(
    ("share", "explained"), [(0.09, False), (0.11, True), (1.0, True), (3.9, True), (4.1, False)]
)
def test_what_is_measured_at_a_rate_is_held_against_both_costs(
    share: float, explained: bool
) -> None:
    """20 % of a core with much to do, 200 % with little: a factor of two more is not much."""
    cost = cost_of(EMPTY, two_talks(0.004, 0.00006))
    busy = Busy(players=100, said=20, events=20, share=share, waits=(0.1,))
    assert cost.explains(busy, within=2) == explained


def test_the_last_events_are_a_tenth() -> None:
    """Their median tells whether those that come later wait longer."""
    waits = tuple(number / 100 for number in range(100))
    assert Busy(1, 1, 1, 1, waits).last == pytest.approx(0.945)
    assert Busy(1, 1, 1, 1, waits[:3]).last == pytest.approx(0.02)


def test_all_points_count_and_not_the_first_and_the_last_only() -> None:
    """One reading that is off moves the slope by its share."""
    noise = {0: 0.0, 100: 0.0, 200: 0.0, 300: 0.0, 400: 50_000.0}
    filling = [Filled(n, 2000.0 * n + more, n) for n, more in noise.items()]
    assert cost_of(filling, two_talks(1, 1)).bytes_per_connection == pytest.approx(
        2000 + 50_000 * 2 / 1000
    )


@pytest.mark.parametrize("connections", [0, 49, 5001, -1])
async def test_a_number_of_connections_has_bounds(connections: int) -> None:
    """The error says which."""
    with pytest.raises(ValueError, match="use 50 to 5,000"):
        await server_cost(connections)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit to open files")
def test_too_few_open_files_are_said_in_words() -> None:
    """A limit that we may raise is raised for as long as it lasts; else the error says what to do.

    In a process of its own: a hard limit cannot be taken back.
    """
    program = """
import asyncio, resource
from wsdemo.experiments.server_cost import server_cost
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (90, most))
cost = asyncio.run(server_cost(100))
print(cost.filling[-1].connections, *resource.getrlimit(resource.RLIMIT_NOFILE), most)
resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))
try:
    asyncio.run(server_cost(100))
except OSError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    numbers, error = done.stdout.splitlines()
    connections, soft, hard, most = numbers.split()
    assert (connections, soft, hard) == ("100", "90", most)
    assert "may open 90 files, not 1" in error
    assert "`ulimit -n` says how many" in error


async def test_what_the_measuring_costs_is_taken_off() -> None:
    """Between two readings of a server that does nothing else, it has used next to nothing."""
    async with StandAloneServer("A", "--broker", "none") as server:
        meter = Meter(server)
        untouched = [(await meter.read())["process_cpu_seconds_total"] for _ in range(10)]
        await meter.learn_its_price()
        net = [(await meter.read())["process_cpu_seconds_total"] for _ in range(20)]

    def cheapest(readings: list[float]) -> float:
        return min(after - before for before, after in pairwise(readings))

    assert cheapest(net) < cheapest(untouched) / 2


async def test_a_measurement_that_is_broken_off_leaves_nothing_behind() -> None:
    """Neither the server nor a connection: an interrupted cell can be run again."""
    before = children()

    def stop(share: float) -> None:
        if share > 0.3:
            raise KeyError("enough")

    with pytest.raises(KeyError):
        await server_cost(50, progress=stop)
    assert children() == before


@pytest.mark.parametrize("later", [0, 0.002, 0.005, 0.01])
async def test_a_server_that_dies_is_no_riddle(later: float) -> None:
    """Who talks with it is told that the connection is gone, in whatever moment that is."""
    before = children()

    def kill() -> None:
        for process in children():
            if process not in before and "serve" in process.cmdline():
                process.kill()
                process.wait()

    def kill_in_the_middle(share: float) -> None:
        if share > 0.55:  # some speak, and wait for what they say
            asyncio.get_running_loop().call_later(later, kill)

    with pytest.raises(OSError, match=re.compile("connect|answer", re.I)) as error:
        await server_cost(50, progress=kill_in_the_middle)
    assert not isinstance(error.value, TimeoutError)  # nobody waits for the minute to be over
    assert children() == before


async def test_a_process_that_does_not_start_says_why() -> None:
    """With the words that it has said itself, and nothing of it stays."""
    before = children()
    with pytest.raises(RuntimeError, match=r"server A did not start: .*unknown broker 'x'"):
        await StandAloneServer("A", "--broker", "x").start()
    assert children() == before


async def test_a_process_can_be_stopped_while_it_starts_and_twice() -> None:
    """Whoever gives up waiting leaves no process behind."""
    before = children()
    process = StandAloneServer("A", "--broker", "none")
    starting = asyncio.create_task(process.start())
    await eventually(lambda: children() != before)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert children() == before
    await process.stop()
