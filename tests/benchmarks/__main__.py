"""wsdemo beside other ways to play on two servers: prints a table, and draws it.

Each contender is two server processes and one Redis; the same driver, in a process of its own,
sends the same events to all. A rate holds if every delivery was made and 99 of 100 within 50 ms.
The contenders take turns, rate after rate, and every other repeat backwards, and each ratio is
the median of those within a repeat: a machine that others share is faster in one minute than in
the next. Nothing here passes or fails but the holding.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic

from tests.benchmarks.driver import Lost
from tests.benchmarks.holding import hold, strangers
from tests.benchmarks.ladder import Climb, rung
from tests.benchmarks.machine import Machine
from tests.benchmarks.memory import idle_bytes
from tests.benchmarks.report import Results, Turn, save, table
from tests.benchmarks.servers import CONTENDERS, Contender, Servers
from wsdemo.redis.backend import EmbeddedRedis

CLIENTS = (20, 100, 400)
REPEATS = 5
SECONDS = 1.0  # of each rate
STEADY_CLIENTS = 100
STEADY = 100.0  # events a second, at which the servers' work is measured: all can carry them
STEADY_SECONDS = 4.0
IDLE = 1000  # connections
PATIENCE = 300.0  # seconds, in all, for tries that others spoil
PARTS = ("rates", "memory", "strangers", "holding")


@contextmanager
def own_redis() -> Iterator[str]:
    """The URL of a Redis that lives as long as this."""
    with asyncio.Runner() as runner:
        redis = EmbeddedRedis()
        runner.run(redis.start())
        try:
            yield redis.url
        finally:
            runner.run(redis.stop())


def climb(
    machine: Machine,
    servers: Sequence[Servers],
    clients: int,
    asked: argparse.Namespace,
    turns: Mapping[str, Turn],
) -> None:
    """All climb with so many clients, each from where it got to before, a rate each in turn."""
    with ExitStack() as stack:
        climbs: dict[str, Climb] = {}
        for each in servers:
            start = turns[each.contender.name].tops.get(clients)
            ladder = Climb(machine, each, clients, asked.seconds, start)
            climbs[each.contender.name] = stack.enter_context(ladder)
        if clients == asked.steady_clients:
            for name, ladder in climbs.items():
                cpu = ladder.servers.cpu()
                turns[name].steady = step = ladder.steady(STEADY, asked.steady_seconds)
                turns[name].cpu = (ladder.servers.cpu() - cpu) / step.delivered * 1e6
        while waiting := [ladder for ladder in climbs.values() if ladder.top is None]:
            for ladder in waiting:
                ladder.advance()
        for name, ladder in climbs.items():
            assert ladder.top is not None
            turns[name].tops[clients] = ladder.top
            turns[name].rates[clients] = rung(ladder.top)
            turns[name].steps += ladder.steps
            turns[name].losses += ladder.losses
    rates = ", ".join(f"{name} {turns[name].rates[clients]:,.0f}" for name in climbs)
    say(f"  with {clients} clients, events/s: {rates}")


def repeat(
    machine: Machine,
    contenders: Sequence[Contender],
    redis: str,
    asked: argparse.Namespace,
    before: Mapping[str, Turn],
) -> dict[str, Turn]:
    """Every contender's turn. Those that wait for theirs have next to no work.

    Each has a Redis of its own: on the same one, those that use the same channel would hear, and
    send on, each other's events.
    """
    turns = {
        contender.name: Turn(contender.name, dict(before[contender.name].tops) if before else {})
        for contender in contenders
    }
    if "rates" in asked.part:
        with ExitStack() as stack:
            servers = [
                stack.enter_context(Servers(each, stack.enter_context(own_redis())))
                for each in contenders
            ]
            for clients in asked.clients:
                climb(machine, servers, clients, asked, turns)
    if "memory" in asked.part:
        for contender in contenders:
            turns[contender.name].idle = idle_bytes(contender, redis, asked.idle)
    return turns


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, flush=True)


def measure(contenders: Sequence[Contender], asked: argparse.Namespace) -> Results:
    """Every part that is asked for."""
    about = (
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}; "
        "2 server processes and a driver on it, and one Redis"
    )
    machine = Machine(asked.patience)
    results = Results(about, list(asked.clients))
    began = monotonic()
    with own_redis() as redis:
        count = asked.repeats if {"rates", "memory"} & {*asked.part} else 0
        for number in range(1, count + 1):
            order = contenders[:: 1 if number % 2 else -1]
            before = results.turns[-1] if results.turns else {}
            results.turns.append(repeat(machine, order, redis, asked, before))
            took = (monotonic() - began) / 60
            say(
                f"{number} of {count} repeats after {took:.0f} minutes, "
                f"about {took / number * (count - number):.0f} to go"
            )
        results.others = machine.shares
        results.spoiled = machine.spoiled
        if "strangers" in asked.part:
            for contender in contenders:
                if contender.has_games:
                    results.strangers[contender.name] = strangers(contender, redis)
                    say(f"{contender.name}: {results.strangers[contender.name]}")
        if "holding" in asked.part:
            results.held = hold(redis, say, connections=asked.connections, stalled=asked.stalled)
            say(str(results.held))
    return results


def main() -> int:
    """Measure, and report."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--contender", action="append", choices=CONTENDERS, metavar="NAME")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="in all")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each rate")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help="for tries that fail while other programs work, and are made again",
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument(
        "--quick", action="store_true", help="one short repeat with 20 clients, no holding"
    )
    parser.add_argument("--out", type=Path, default=Path("tests/artefacts/bench"), metavar="FOLDER")
    asked = parser.parse_args()
    asked.part = asked.part or list(PARTS[:-1] if asked.quick else PARTS)
    asked.steady_seconds = STEADY_SECONDS
    asked.idle, asked.connections, asked.stalled = IDLE, 5000, 1000
    if asked.quick:
        asked.clients, asked.repeats, asked.seconds = (20,), 1, 0.4
        asked.steady_seconds, asked.idle, asked.connections, asked.stalled = 1.0, 100, 500, 100
    asked.steady_clients = min(asked.clients, key=lambda count: abs(count - STEADY_CLIENTS))
    contenders = [CONTENDERS[name] for name in asked.contender or CONTENDERS]
    missing = sorted({package for contender in contenders for package in contender.lacks})
    if missing:
        names = ", ".join(missing)
        parser.error(f"not installed: {names}. `make bench` does, in an environment of its own")
    say(
        "This takes a minute"
        if asked.quick
        else "With every part this takes about a quarter of an hour"
    )
    try:
        results = measure(contenders, asked)
    except (Lost, RuntimeError) as error:
        print(f"The benchmark cannot go on: {error}")
        return 1
    print("", table(results), sep="\n")
    save(results, asked.out)
    print(f"\nSaved to {asked.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
