"""Server processes that are killed at random while players talk: each hears all that is kept, once.

Run by itself, it kills many: python -m tests.chaos_processes --kills 100 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from tests.conftest import runs
from wsdemo.balancer import Balancer, round_robin
from wsdemo.lifetime import end
from wsdemo.player import NotConnected, Player
from wsdemo.processes.stand_alone import StandAloneServer
from wsdemo.protocol import decode_event
from wsdemo.redis.backend import SERVE_PREFIX, EmbeddedRedis, RemoteRedis

__all__ = ["Outcome", "chaos"]

SERVERS = ("A", "B", "C")
PACE = 0.05  # seconds, on average, between two events of a player
LIFE = 2.0  # seconds, on average, until the next process is ended
DEATH = 1.0  # seconds, on average, until it is started again
PATIENCE = 30.0  # seconds in which all that is kept is heard once nothing is killed any more


@dataclass
class Outcome:
    """What was kept, and what was heard of it."""

    seconds: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)  # of processes, by how they ended
    confirmed: dict[int, str] = field(default_factory=dict)  # events by number, as senders know
    kept: dict[int, str] = field(default_factory=dict)  # as Redis has them: the last of them
    last: int = 0  # the number of the last one
    heard: dict[str, list[tuple[int, str]]] = field(default_factory=dict)  # by each player
    gaps: dict[str, int] = field(default_factory=dict)
    connections: int = 0

    def violations(self) -> Iterator[str]:
        """What did not hold."""
        for player, heard in self.heard.items():
            numbers = [number for number, _ in heard]
            if numbers != [*range(1, self.last + 1)]:
                lost = sorted(set(range(1, self.last + 1)) - set(numbers))
                yield f"{player} has not heard 1 to {self.last} in order, once: without {lost[:20]}"
            if self.gaps[player]:
                yield f"{player} was told of {self.gaps[player]} gaps"
            wrong = {n for n, event in heard if self.kept.get(n, event) != event}
            by_number = dict(heard)
            wrong |= {n for n, event in self.confirmed.items() if by_number.get(n) != event}
            if wrong:
                yield f"{player} has heard something else as {sorted(wrong)[:20]}"
            twice = [event for event, n in Counter(e for _, e in heard).items() if n > 1]
            if twice:
                yield f"{player} has heard twice: {twice[:20]}"

    def __str__(self) -> str:
        ends = ", ".join(f"{n} {how}" for how, n in sorted(self.ends.items()))
        return (
            f"{self.seconds:.0f} s; processes ended: {ends}; {self.last} events kept, "
            f"{len(self.confirmed)} of them confirmed to their senders; {len(self.heard)} players "
            f"with {self.connections} connections heard {sum(map(len, self.heard.values()))}"
        )


async def chaos(
    kills: int,
    seed: int,
    *,
    players: int = 12,
    life: float = LIFE,
    death: float = DEATH,
    progress: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Let players talk through three servers, and end so many of those, a few by asking them to."""
    chance, outcome = random.Random(seed), Outcome()
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(EmbeddedRedis())
        balancer = await stack.enter_async_context(Balancer(round_robin()))
        arguments = ["--broker", "stream", "--redis", redis.url, "--drain", "0.3"]
        servers = [StandAloneServer(name, *arguments) for name in SERVERS]
        for server in servers:
            stack.push_async_callback(server.stop)
        await asyncio.gather(*(_start(server, balancer) for server in servers))
        crowd = [Player(f"P{number}", balancer.url) for number in range(1, players + 1)]
        for player in crowd:
            stack.push_async_callback(player.stop)
        await asyncio.gather(*(player.connect() for player in crowd))
        ending = asyncio.Event()
        talking = [
            asyncio.create_task(_talk(player, random.Random(f"{seed}{player.name}"), ending))
            for player in crowd
        ]
        for talk in talking:
            stack.push_async_callback(end, talk)
        starting: list[asyncio.Task[None]] = []
        for number in range(1, kills + 1):
            await asyncio.sleep(chance.expovariate(1 / life))
            server = chance.choice(servers)
            if server.name not in balancer.targets:
                await asyncio.gather(*starting)  # it is dead yet
            how = "by SIGTERM" if chance.random() < 0.2 else "by SIGKILL"
            outcome.ends[how] += 1
            await _end(server, how == "by SIGTERM", balancer)
            starting.append(
                asyncio.create_task(_restart(server, balancer, chance.expovariate(1 / death)))
            )
            progress(f"{number}: {server.name} ended {how}; P1 has heard {len(crowd[0].heard)}")
        await asyncio.gather(*starting)
        ending.set()
        async with asyncio.timeout(PATIENCE):
            for confirmed in await asyncio.gather(*talking):
                outcome.confirmed |= confirmed
        await _look(redis.url, outcome)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while min(map(_number, crowd)) < outcome.last:  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(PACE)
        outcome.heard = {
            player.name: [(event.seq or 0, f"{event.player}/{event.id}") for event in player.heard]
            for player in crowd
        }
        outcome.gaps = {player.name: len(player.gaps) for player in crowd}
        outcome.connections = sum(len(player.former_calls) + 1 for player in crowd)
    outcome.seconds = time.monotonic() - began
    return outcome


def _number(player: Player) -> int:
    return player.position.seq if player.position else 0


async def _start(server: StandAloneServer, balancer: Balancer) -> None:
    await server.start()
    balancer.add(server.name, "127.0.0.1", server.port)


async def _restart(server: StandAloneServer, balancer: Balancer, pause: float) -> None:
    await asyncio.sleep(pause)
    await _start(server, balancer)


async def _end(server: StandAloneServer, politely: bool, balancer: Balancer) -> None:
    """At once, or as whoever deploys another version does it; then it has to end by itself."""
    if politely:
        process = psutil.Process(server.pid)
        os.kill(server.pid, signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            while runs(process):  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.02)
    balancer.remove(server.name)
    await server.stop()


async def _talk(player: Player, chance: random.Random, ending: asyncio.Event) -> dict[int, str]:
    """Say things until the end, each until it is confirmed; what was, by number."""
    confirmed: dict[int, str] = {}
    while not ending.is_set():
        try:
            await player.welcomed()
            number = await player.send("x" * chance.randint(0, 200), confirm=True)
        except NotConnected:
            continue  # it has gone between the two: nothing was said
        confirmed[number] = f"{player.name}/{player.name}-{player.events_said}"
        await asyncio.sleep(chance.expovariate(1 / PACE))
    return confirmed


async def _look(url: str, outcome: Outcome) -> None:
    """What Redis has kept in the end."""
    redis: Any
    async with RemoteRedis(url, SERVE_PREFIX).client() as redis:
        outcome.last = int(await redis.hget(f"{SERVE_PREFIX}stream:{{g}}:about", "seq"))
        for entry, fields in await redis.xrange(f"{SERVE_PREFIX}stream:{{g}}:events"):
            event = decode_event(fields[b"event"])
            outcome.kept[int(entry.split(b"-")[0])] = f"{event.player}/{event.id}"


async def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--players", type=int, default=12)
    parser.add_argument("--seed", type=int, default=None, help="default: any")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(10**9)
    print(f"seed {seed}", flush=True)
    outcome = await chaos(
        asked.kills,
        seed,
        players=asked.players,
        progress=lambda line: print(line, flush=True),
    )
    found = list(outcome.violations())
    print(outcome, *found or ["every player has heard every one of them, once, in order"], sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
