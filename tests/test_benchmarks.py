"""The benchmark's own parts: its driver counts, its ladder finds, its table divides."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, broadcast, serve

from tests.benchmarks.__main__ import own_redis
from tests.benchmarks.driver import PLAIN, Crowd, Lost, Step
from tests.benchmarks.holding import Strangers, strangers
from tests.benchmarks.ladder import highest
from tests.benchmarks.machine import Look, Machine
from tests.benchmarks.report import Results, Turn, save, table
from tests.benchmarks.servers import CONTENDERS, Servers


@pytest.fixture
def redis() -> Iterator[str]:
    """The URL of a real one."""
    with own_redis() as url:
        yield url


@pytest.mark.parametrize("name", ["wsdemo pubsub", "websockets", "limit"])
def test_every_delivery_of_two_processes_is_counted(name: str, redis: str) -> None:
    """Everybody hears each event once, on both servers, and the servers' work is seen."""
    with (
        Servers(CONTENDERS[name], redis) as servers,
        Crowd(servers.ports, 6, servers.contender.dialect) as crowd,
    ):
        step = crowd.run(100, 0.2, to_the_end=True)
        assert (step.sent, step.delivered, step.missing, step.repeated) == (20, 120, 0, 0)
        assert 0 < step.p50 <= step.p99
        assert servers.cpu() > 0
        assert servers.memory() > 2**20


async def test_the_driver_notices_what_is_lost_and_what_comes_twice() -> None:
    """Also in frames whose length takes two or eight bytes more."""
    connections: set[ServerConnection] = set()
    times = {3: 0, 7: 2}  # how often an event comes, by the last digit of its number

    async def handle(connection: ServerConnection) -> None:
        connections.add(connection)
        async for frame in connection:
            assert isinstance(frame, str)
            digit = int(frame[frame.index("@") + 8])
            for _ in range(times.get(digit, 1)):
                broadcast(connections, frame)

    def play(port: int) -> list[Step]:
        with Crowd([port], 3, PLAIN) as crowd:  # which takes two events
            return [crowd.run(1000, 0.010, size, to_the_end=True) for size in (300, 70_000)]

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        steps = await asyncio.to_thread(play, server.sockets[0].getsockname()[1])
    assert [(step.missing, step.repeated, step.delivered) for step in steps] == [(3, 3, 27)] * 2
    assert not any(step.holds for step in steps)


async def test_a_client_that_is_sent_away_is_no_measurement() -> None:
    """The error says what the server said."""

    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.close(1008, "enough")

    def play(port: int) -> None:
        with Crowd([port], 1, PLAIN):
            pass

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        with pytest.raises(Lost, match="P0 was sent away: 1008 enough"):
            await asyncio.to_thread(play, server.sockets[0].getsockname()[1])


def test_a_server_is_told_nothing_of_a_game_that_it_has_no_players_in(redis: str) -> None:
    """And each event of its own game once."""
    assert strangers(CONTENDERS["wsdemo pubsub"], redis, 20) == Strangers(20, own=20, strange=0)


@pytest.mark.parametrize(("start", "stride"), [(0, 14), (42, 14), (10, 2), (60, 2)])
def test_the_ladder_finds_the_highest_rung_that_holds(start: int, stride: int) -> None:
    """Wherever it is, from wherever it begins, without trying a rung twice."""
    for top in range(-1, 100):
        search = highest(start, stride)
        tried: Counter[int] = Counter()
        number, found = next(search), None
        while found is None:
            tried[number] += 1
            try:
                number = search.send(number <= top)
            except StopIteration as end:
                found = end.value
        assert found == top
        assert max(tried.values()) == 1
        assert tried.total() <= 16


def test_a_rate_holds_if_every_delivery_was_made_once_and_nearly_all_in_time() -> None:
    """One that is missing, one too many, or one in fifty too late: it does not."""
    step = Step(
        10, 5, sent=10, delivered=50, missing=0, repeated=0, p50=0, p99=0.05, lag=0, gave_up=False
    )
    assert step.holds
    for change in ({"missing": 1}, {"repeated": 1}, {"p99": 0.051}, {"gave_up": True}):
        assert not replace(step, **change).holds


def test_a_rate_that_fails_while_others_work_is_tried_again_as_long_as_patience_lasts() -> None:
    """One that holds all the same holds, and one that fails undisturbed fails."""
    machine = Machine(patience=1.5)
    now = machine.look()
    disturbed = Look(now.wall - 1, now.busy - 100, now.own)
    assert not machine.spoils(disturbed, holds=True)
    assert not machine.spoils(Look(now.wall - 1, now.busy, now.own), holds=False)
    assert [machine.spoils(disturbed, holds=False) for _ in range(3)] == [True, True, False]
    assert machine.spoiled == 1


def test_ratios_are_those_within_a_repeat(tmp_path: Path) -> None:
    """A machine that is half as fast in one repeat changes no ratio; and all of it can be saved."""
    results = Results("here", [20])
    for speed in (1.0, 0.5, 2.0):
        results.turns.append(
            {
                name: Turn(
                    name,
                    rates={20: rate * speed},
                    steps=[Step(rate * speed, 20, 10, 200, 0, 0, 0.002, delay, 0.0, False)],
                    idle=rate,
                )
                for name, rate, delay in (
                    ("websockets", 100.0, 0.004),
                    ("wsdemo pubsub", 96.0, 9.0),  # longer than the picture shows
                    ("limit", 150.0, 0.003),
                )
            }
        )
    save(results, tmp_path)
    text = table(results)
    part = text[text.index("divided by another's in the same repeat") :].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part if "≥" in line]
    assert rows == [
        ["websockets", "0.96 (0.96–0.96)", "≥ 0.95", "yes"],
        ["limit", "0.64 (0.64–0.64)", "≥ 0.75", "no"],
    ]
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == text + "\n"
    assert (tmp_path / "results.json").stat().st_size > 1000
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
