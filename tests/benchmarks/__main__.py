"""wsdemo beside other ways to play on two servers: prints a table, and draws it.

Each contender is two server processes and one Redis; the same driver, in a process of its own,
sends the same events to all. A rate holds if every delivery was made and 99 of 100 within 50 ms.
The contenders take turns, repeat after repeat and every other one backwards, and each ratio is
the median of those within a repeat: a machine that others share is faster in one minute than in
the next. Nothing here passes or fails but the holding.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from tests.benchmarks.driver import Lost
from tests.benchmarks.holding import hold, strangers
from tests.benchmarks.ladder import Climb, rung
from tests.benchmarks.memory import idle_bytes
from tests.benchmarks.report import Results, Turn, save, table
from tests.benchmarks.servers import CONTENDERS, Contender, Servers
from wsdemo.redis_backend import EmbeddedRedis

CLIENTS = (20, 100, 400)
REPEATS = 5
SECONDS = 1.0  # of each rate
STEADY_CLIENTS = 100
STEADY = 100.0  # events a second, at which the servers' work is measured: all can carry them
STEADY_SECONDS = 4.0
IDLE = 1000  # connections
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
    contender: Contender, redis: str, asked: argparse.Namespace, before: Turn | None
) -> Turn:
    """One contender's turn in one repeat."""
    turn = Turn(contender.name)
    with Servers(contender, redis) as servers:
        for clients in asked.clients:
            with Climb(servers, clients, asked.seconds) as ladder:
                if clients == asked.steady_clients:
                    cpu = servers.cpu()
                    step = ladder.steady(STEADY, asked.steady_seconds)
                    turn.steady = step
                    turn.cpu = (servers.cpu() - cpu) / (step.sent * clients - step.missing) * 1e6
                top = ladder.top(before.tops.get(clients) if before else None)
                turn.tops[clients] = top
                turn.rates[clients] = rung(top) if top >= 0 else 0.0
                turn.steps += ladder.steps
                turn.losses += ladder.losses
    return turn


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, flush=True)


def measure(contenders: Sequence[Contender], asked: argparse.Namespace) -> Results:
    """Every part that is asked for."""
    about = (
        f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}; "
        "2 server processes and a driver on it, and one Redis"
    )
    results = Results(about, list(asked.clients))
    began = monotonic()
    with own_redis() as redis:
        for repeat in range(asked.repeats if {"rates", "memory"} & {*asked.part} else 0):
            turns: dict[str, Turn] = {}
            for contender in contenders[:: -1 if repeat % 2 else 1]:
                start = monotonic()
                before = results.turns[-1].get(contender.name) if results.turns else None
                turn = Turn(contender.name)
                if "rates" in asked.part:
                    turn = climb(contender, redis, asked, before)
                if "memory" in asked.part:
                    turn.idle = idle_bytes(contender, redis, asked.idle)
                turns[contender.name] = turn
                say(f"{repeat + 1}/{asked.repeats} {turn}  [{monotonic() - start:.0f} s]")
            results.turns.append(turns)
            took = monotonic() - began
            if repeat < asked.repeats - 1:
                left = took / (repeat + 1) * (asked.repeats - repeat - 1)
                say(f"   {took / 60:.0f} minutes so far, about {left / 60:.0f} to go")
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
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--quick", action="store_true", help="one short repeat, with 20 clients")
    parser.add_argument("--out", type=Path, default=Path("tests/artefacts/bench"), metavar="FOLDER")
    asked = parser.parse_args()
    asked.part = asked.part or list(PARTS)
    asked.steady_seconds = STEADY_SECONDS
    asked.idle, asked.connections, asked.stalled = IDLE, 5000, 1000
    if asked.quick:
        asked.clients, asked.repeats, asked.seconds = (20,), 1, 0.4
        asked.steady_seconds, asked.idle, asked.connections, asked.stalled = 1.0, 100, 200, 20
    asked.steady_clients = min(asked.clients, key=lambda count: abs(count - STEADY_CLIENTS))
    contenders = [CONTENDERS[name] for name in asked.contender or CONTENDERS]
    missing = sorted({package for contender in contenders for package in contender.lacks})
    if missing:
        names = ", ".join(missing)
        parser.error(f"not installed: {names}. `make bench` does, in an environment of its own")
    say("This takes a minute" if asked.quick else "With every part this takes about half an hour")
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
