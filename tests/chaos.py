"""Random stories of players and faults, as source that can be pasted into a notebook, and run.

Run by itself, it plays many: python -m tests.chaos --broker stream --redis fake --tries 2000
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from wsdemo import Cluster, ledger, open_cluster
from wsdemo.brokers import redis_broker
from wsdemo.ledger import KEEPERS, Ledger
from wsdemo.redis import disk
from wsdemo.redis.backend import PERSISTENCE, Persistence
from wsdemo.trace import Record

__all__ = ["OFTEN", "Act", "play", "scenario", "violations"]

SERVERS = ("A", "B")
PLAYERS = ("p1", "p2", "p3")
IMPATIENCE = 0.3  # seconds, so that a Redis that stands still does not hold up everything
SYNC_EVERY = 0.05  # seconds, so that a power cut loses some events and not all


class Act(NamedTuple):
    """What to do, and two numbers that choose with whom and how."""

    what: str
    one: int
    other: int


class _Model:
    """What is broken at a place in the story, so that only what can be done there is done."""

    def __init__(self, broker: str, has_redis: bool, persistence: Persistence) -> None:
        self.broker = broker
        self.persistence = persistence
        self.keeps = broker in KEEPERS
        self.has_redis = has_redis
        self.servers = dict.fromkeys(SERVERS, "up")
        self.redis = "up"
        self.cut = set[str]()  # servers, from Redis
        self.players = dict.fromkeys(PLAYERS, "there")
        self.events = 0

    def lines(self, act: Act) -> Iterator[str]:
        """The lines of source that do it; none if it cannot be done now."""
        yield from getattr(self, f"_{act.what}")(act)

    def _pick(self, names: Iterable[str], number: int) -> Iterator[str]:
        found = sorted(names)
        if found:
            yield found[number % len(found)]

    def _send(self, act: Act) -> Iterator[str]:
        player = PLAYERS[act.one % 3]
        self.events += 1
        if self.keeps and act.other % 2:
            sending = f'{player}.send("{self.events}", confirm=True)'
            yield f"sending.append(asyncio.create_task({sending}))"
        else:
            yield "with suppress(NotConnected):"
            yield f'    await {player}.send("{self.events}")'

    def _turn(self, act: Act) -> Iterator[str]:
        yield f"for _ in range({1 + 7 * act.one + act.other}):"
        yield "    await asyncio.sleep(0)"

    def _move(self, act: Act) -> Iterator[str]:
        """Only where it can be: a player who finds no server that answers would wait for long."""
        player = PLAYERS[act.one % 3]
        reachable = [n for n, state in self.servers.items() if state == "up" and n not in self.cut]
        if self.players[player] == "there" and self.redis == "up":
            for server in self._pick(reachable, act.other):
                yield f'await {player}.reconnect("{server}")'

    def _cut_link(self, act: Act) -> Iterator[str]:
        for player in self._pick([p for p, s in self.players.items() if s == "there"], act.one):
            self.players[player] = "cut"
            yield f"{player}.cut_link()"

    def _mend_link(self, act: Act) -> Iterator[str]:
        for player in self._pick([p for p, s in self.players.items() if s == "cut"], act.one):
            self.players[player] = "there"
            yield f"{player}.mend_link()"

    def _stall(self, act: Act) -> Iterator[str]:
        for player in self._pick([p for p, s in self.players.items() if s == "there"], act.one):
            self.players[player] = "stalled"
            yield f"{player}.stop_reading()"

    def _read_on(self, act: Act) -> Iterator[str]:
        for player in self._pick([p for p, s in self.players.items() if s == "stalled"], act.one):
            self.players[player] = "there"
            yield f"{player}.go_on_reading()"

    def _kill(self, act: Act) -> Iterator[str]:
        """Not where Redis may lose events that nobody but a server knows of."""
        if self.persistence == "everysec":
            return
        for server in self._pick([n for n, s in self.servers.items() if s != "down"], act.one):
            self.servers[server] = "down"
            yield f'await cluster.kill_server("{server}")'

    def _restart(self, act: Act) -> Iterator[str]:
        down = [n for n, s in self.servers.items() if s == "down" and n not in self.cut]
        if self.redis == "up":
            for server in self._pick(down, act.one):
                self.servers[server] = "up"
                yield f'await cluster.restart_server("{server}")'

    def _freeze(self, act: Act) -> Iterator[str]:
        for server in self._pick([n for n, s in self.servers.items() if s == "up"], act.one):
            self.servers[server] = "frozen"
            yield f'await cluster.freeze_server("{server}")'

    def _thaw(self, act: Act) -> Iterator[str]:
        for server in self._pick([n for n, s in self.servers.items() if s == "frozen"], act.one):
            self.servers[server] = "up"
            yield f'await cluster.thaw_server("{server}")'

    def _stop_redis(self, act: Act) -> Iterator[str]:
        if self.has_redis and self.redis != "down":
            self.redis = "down"
            if self.persistence == "none":
                yield f"await cluster.stop_redis(keep={self.keeps})"
            else:
                if act.other % 2:
                    yield "await cluster.redis_has_saved()"
                    for number in range(act.other % 4):
                        yield from self._send(Act("send", number + act.one, 2))
                yield f"await cluster.kill_redis(power_cut={bool(act.one % 4)})"

    def _start_redis(self, act: Act) -> Iterator[str]:
        if self.redis == "down":
            self.redis = "up"
            yield "await cluster.start_redis()"

    def _freeze_redis(self, act: Act) -> Iterator[str]:
        if self.has_redis and self.redis == "up":
            self.redis = "frozen"
            yield "await cluster.freeze_redis()"

    def _thaw_redis(self, act: Act) -> Iterator[str]:
        if self.redis == "frozen":
            self.redis = "up"
            yield "await cluster.thaw_redis()"

    def _cut_redis(self, act: Act) -> Iterator[str]:
        if self.has_redis:
            for server in self._pick(set(SERVERS) - self.cut, act.one):
                self.cut.add(server)
                yield f'await cluster.cut_redis_link("{server}")'

    def _mend_redis(self, act: Act) -> Iterator[str]:
        for server in self._pick(self.cut, act.one):
            self.cut.discard(server)
            yield f'await cluster.mend_redis_link("{server}")'

    def _lose_reply(self, act: Act) -> Iterator[str]:
        if self.has_redis:
            server = SERVERS[act.one % 2]
            yield f'await cluster.lose_redis_replies("{server}", 0)'
            yield f'await cluster.lose_redis_replies("{server}", {1 + act.other % 2})'

    def _settle(self, act: Act) -> Iterator[str]:
        """Only while somebody can answer."""
        is_whole = self.redis == "up" and not self.cut
        if is_whole and all(state == "up" for state in self.servers.values()):
            yield "await cluster.settle()"

    def heal(self) -> Iterator[str]:
        """Whatever is broken, mended."""
        acts = ["start_redis", "thaw_redis"]
        acts += ["mend_redis"] * len(self.cut)
        acts += ["thaw"] * 2 + ["restart"] * 2 + ["mend_link"] * 3 + ["read_on"] * 3
        for what in acts:
            yield from self.lines(Act(what, 0, 0))
        if self.has_redis:
            for server in SERVERS:
                yield f'await cluster.lose_redis_replies("{server}", 0)'


ACTS = sorted(
    name[1:]
    for name in vars(_Model)
    if name.startswith("_") and not name.startswith("__") and name != "_pick"
)


# More is said than broken; a reply is lost only if something is said soon after.
OFTEN = [*ACTS, *["send"] * 6, *["turn"] * 2, *["lose_reply"] * 2]

_HEAD = """\
import asyncio
from contextlib import suppress

from wsdemo.player import NotConnected


"""


def scenario(
    acts: Iterable[Act], broker: str, has_redis: bool, persistence: Persistence = "none"
) -> str:
    """The source of a scenario: players join, these acts, then everything is healed.

    With a persistence, Redis crashes instead of being stopped.
    """
    model = _Model(broker, has_redis, persistence)
    lines = [
        'p1, p2 = await cluster.join("P1", "P2", server="A")',
        '[p3] = await cluster.join("P3", server="B")',
        "sending = []",
    ]
    for act in acts:
        lines += model.lines(act)
    lines += model.heal()
    lines += [
        "await asyncio.gather(*sending, return_exceptions=True)",
    ]
    body = textwrap.indent("\n".join(lines), "    ")
    return f"{_HEAD}async def violation(cluster):\n{body}\n"


async def play(
    source: str,
    broker: str,
    redis: str,
    persistence: Persistence = "none",
    processes: bool = False,
) -> list[str]:
    """Run it, and say what did not hold."""
    names: dict[str, Any] = {}
    exec(source, names)  # what is run is what is printed
    violation: Callable[[Cluster], Awaitable[None]] = names["violation"]
    cluster = await open_cluster(
        list(SERVERS), broker, redis, persistence=persistence, processes=processes
    )
    patience = redis_broker.ANSWER_TIMEOUT
    cluster.trace.watch(_Haste(patience))
    try:
        try:
            async with asyncio.timeout(60):
                await violation(cluster)
                await cluster.settle()
                found = list(violations(cluster, persistence))
                await cluster.players["P1"].send("the last")
                await cluster.settle()
        except TimeoutError as error:
            return [f"it did not end: {error}"]
        return found or [
            f"after one more event: {what}" for what in violations(cluster, persistence)
        ]
    finally:
        await cluster.stop()
        redis_broker.ANSWER_TIMEOUT = patience


class _Haste:
    """Servers give up a Redis that is broken sooner than usual, and only such a one.

    Where all is well they are as patient as ever: a busy machine may take its time.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._broken = set[tuple[str, str]]()

    def __call__(self, record: Record) -> None:
        if "redis" not in (record.at, record.peer) or record.data.get("reason") == "reply lost":
            return
        if record.kind == "fault":
            self._broken.add((record.at, record.peer))
        elif record.kind == "heal":
            self._broken.discard((record.at, record.peer))
        redis_broker.ANSWER_TIMEOUT = IMPATIENCE if self._broken else self._patience


# For each cause, a kind of fault or event without which it cannot be.
_PROOF: dict[str, Callable[[Any, Any], bool]] = {
    "no broker between servers": lambda record, fate: record.kind == "relay",
    "redis down": lambda record, fate: (
        record.kind == "fault" and "redis" in (record.at, record.peer)
    ),
    "server without Redis": lambda record, fate: (
        record.kind == "fault"
        and record.peer == "redis"
        and record.data.get("reason") == "link cut"
    ),
    "server not subscribed": lambda record, fate: (
        (record.kind in ("fault", "disconnect") and "redis" in (record.at, record.peer))
        or (record.kind == "fault" and record.at in SERVERS)
    ),
    "player away": lambda record, fate: (
        record.kind == "disconnect" and fate.player in (record.at, record.peer)
    ),
    "player too slow": lambda record, fate: (
        record.kind == "fault" and fate.player in (record.at, record.peer)
    ),
    "never reached a server": lambda record, fate: record.kind in ("fault", "disconnect"),
    "lost with its server": lambda record, fate: (
        record.kind == "fault" and record.data.get("reason") == "killed"
    ),
    "lost with Redis": lambda record, fate: (
        record.kind == "fault" and record.data.get("reason") == "power cut"
    ),
}


def violations(cluster: Cluster, persistence: Persistence = "none") -> Iterator[str]:
    """What the broker promises, and this run did not keep.

    With a file that is on the disk now and then, Redis may lose events; then players are told.
    """
    found = ledger(cluster)
    records = list(cluster.trace)
    if not found.balances:
        pending = [(fate.event, fate.player) for fate in found if fate.outcome == "pending"]
        yield f"the ledger does not balance: {found.summary}; pending: {pending}"
    for fate in found:
        if fate.outcome == "missed" and not any(
            _PROOF.get(fate.cause, lambda record, fate: False)(record, fate) for record in records
        ):
            yield f"{fate.player} missed {fate.event}: {fate.cause}, which nothing proves"
    if cluster.broker in KEEPERS:
        yield from _broken_promises_of_a_keeper(cluster, found, persistence == "everysec")
    elif found.twice:
        yield f"heard twice: {found.twice}"


def _untold_losses(cluster: Cluster) -> Iterator[str]:
    """What Redis has lost without the player's being told, at the latest with the next event."""
    for name, player in cluster.players.items():
        lost = [e for e, cause in ledger(cluster).missed_by(name) if cause == "lost with Redis"]
        if lost and not player.gaps:
            yield f"{name} was not told of the loss of {lost}"


def _broken_promises_of_a_keeper(cluster: Cluster, found: Ledger, may_lose: bool) -> Iterator[str]:
    if found.twice:
        yield f"heard twice: {found.twice}"
    stored = [record.event for record in cluster.trace.select("store") if record.data["is_new"]]
    if len(stored) > len(set(stored)) and not may_lose:
        yield f"stored twice: {sorted(stored)}"
    kept = {record.event for record in cluster.trace if record.kind in ("store", "relay")}
    for fate in found:
        is_lost = may_lose and fate.cause == "lost with Redis"
        if fate.outcome == "missed" and fate.event in kept and not is_lost:
            yield f"{fate.player} missed {fate.event}, which was kept: {fate.cause}"
    for player in cluster.players.values():
        if any(not may_lose or gap.reason != "new epoch" for gap in player.gaps):
            yield f"{player.name} was told of a gap: {player.gaps}"
        if may_lose:
            continue  # a number may be given again, in another epoch
        numbers = [event.seq for event in player.heard]
        if numbers != sorted(numbers, key=lambda seq: seq or 0):
            yield f"{player.name} heard out of order: {numbers}"
    if may_lose:
        return
    sequences = {
        tuple((event.seq, event.id) for event in player.heard)
        for player in cluster.players.values()
    }
    orders: dict[int | None, set[str]] = {}
    for seq, event in (pair for sequence in sequences for pair in sequence):
        orders.setdefault(seq, set()).add(event)
    if any(len(events) > 1 for events in orders.values()):
        yield f"one number for several events: {orders}"


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", default="stream")
    parser.add_argument("--redis", default="fake")
    parser.add_argument("--persistence", default="none", choices=PERSISTENCE)
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="of the first (default: any)")
    parser.add_argument("--processes", action="store_true", help="a process for each server")
    asked = parser.parse_args()
    first = asked.seed if asked.seed is not None else random.SystemRandom().randrange(10**9)
    disk.EVERY = SYNC_EVERY
    bad = 0
    for seed in range(first, first + asked.tries):
        chosen = random.Random(seed)
        acts = [
            Act(
                chosen.choice([*ACTS, "send", "send", "send", "turn"]),
                *chosen.choices(range(10), k=2),
            )
            for _ in range(chosen.randint(1, 30))
        ]
        source = scenario(acts, asked.broker, asked.broker != "none", asked.persistence)
        with suppress(KeyboardInterrupt):
            found = asyncio.run(
                play(source, asked.broker, asked.redis, asked.persistence, asked.processes)
            )
            if found:
                bad += 1
                print(f"# seed {seed}:", *found, sep="\n# ", flush=True)
                print(source, flush=True)
            continue
        break
    print(f"{asked.tries} schedules from seed {first} on: {bad} with a violation")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(_main())
