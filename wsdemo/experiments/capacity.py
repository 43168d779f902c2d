"""How many servers, and what Redis must carry: a model on paper, with measured coefficients.

It is arithmetic on rates, in equilibrium: it knows no queue, no burst, no latency and no failure.
Everyone is equal: each game has the same number of players, each player says as much as any other,
and the balancer puts each on a server at random, or else each game on one. Seconds are of one
core's time, sizes are bytes, rates are for a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

__all__ = [
    "COSTS",
    "Channels",
    "Costs",
    "Load",
    "Machine",
    "Plan",
    "Usage",
    "most_games",
    "plan",
    "servers_of_a_game",
    "usage",
]

Channels = Literal["all", "game"]
"""Whether all games share one channel, or each has its own."""

OVERHEAD = 68
"""Bytes on the wire beside a message: Ethernet 14, IPv4 20, TCP with timestamps 32, WebSocket 2.

Each message is taken to have a packet of its own.
"""
SERVERS = ("CPU", "memory", "network", "sockets")  # what servers run out of
MOST_SERVERS = 10**9  # where the search ends: more of them would not help either


@dataclass(frozen=True)
class Load:
    """What players do. Raises `ValueError` for what cannot be."""

    connections: int
    events: float
    """That all players together say in a second."""
    games: int
    size: float = 100.0
    """Bytes of one event."""

    def __post_init__(self) -> None:
        if not 1 <= self.games <= self.connections:
            raise ValueError(
                f"{self.connections:,} connections in {self.games:,} games: "
                "there is at least one game, and each has at least one player"
            )
        if self.events < 0 or self.size < 0:
            raise ValueError(f"{self.events:g} events of {self.size:g} bytes: use 0 or more")

    @property
    def players(self) -> float:
        """Of one game."""
        return self.connections / self.games

    @property
    def deliveries(self) -> float:
        """A second: each event goes to each player of its game, the one who said it too."""
        return self.events * self.players

    def times(self, games: int) -> Load:
        """So many times all of it: more games, of as many players, who say as much."""
        return Load(games * self.connections, games * self.events, games * self.games, self.size)

    def __str__(self) -> str:
        return (
            f"{self.connections:,} connections, {_games(self.games)} of {_short(self.players)}, "
            f"{_short(self.events)} events/s of {_short(self.size)} bytes"
        )


@dataclass(frozen=True)
class Costs:
    """What one of each costs: the coefficients of the model."""

    delivery: float
    """Seconds of a server for one event written to one player."""
    received: float
    """Seconds of a server for one event from the broker, without its deliveries."""
    published: float
    """Seconds of a server for one event that a player says, until the broker has it."""
    kept: float
    """Seconds of a server, each second, for one silent connection: pings and timers."""
    memory: float
    """Bytes of a server for one connection, the kernel's buffers not counted."""
    redis_publish: float
    """Seconds of Redis's one thread for a PUBLISH, without its subscribers."""
    redis_delivery: float
    """Seconds of Redis's one thread for one event written to one subscriber."""

    def __str__(self) -> str:
        rows = [
            (1e6 * self.published, "µs of a server's core for an event that a player says"),
            (1e6 * self.received, "µs for an event that comes from Redis"),
            (1e6 * self.delivery, "µs for each player that it is written to"),
            (1e6 * self.kept, "µs each second for a silent connection"),
            (self.memory / 1024, "KiB of a server's memory for a connection"),
            (1e6 * self.redis_publish, "µs of Redis's thread for an event that is published"),
            (1e6 * self.redis_delivery, "µs for each server that it is written to"),
        ]
        return "\n".join(f"{value:6.1f} {words}" for value, words in rows)


COSTS = Costs(
    delivery=9e-6,
    received=125e-6,
    published=205e-6,
    kept=3.2e-6,
    memory=14_400,
    redis_publish=21e-6,
    redis_delivery=4e-6,
)
"""As `measured_costs` found them on a machine: AMD EPYC, Python 3.11, Redis 7.0, over loopback.

Something to calculate with until one has one's own, and the same each time.
"""


@dataclass(frozen=True)
class Machine:
    """What one server has. By default one process of Python: one core, whatever the machine has."""

    cores: float = 1.0
    memory: float = 4e9
    """Bytes."""
    network: float = 125e6
    """Bytes a second, each way; by default a gigabit link's."""
    sockets: int = 28_232
    """How many connections it can hold, a bound that is stated and not measured.

    By default what one proxy with one address can open to one port of a server: Linux gives it
    ports 32768 to 60999 (net.ipv4.ip_local_port_range). Without a proxy, or behind one with more
    addresses, it is how many files a process may have open (`ulimit -n`, often 1024 unless raised).
    """
    full: float = 0.6
    """The share of cores, memory and network that is to be used: the rest is for bursts, and for
    the players of a server that fails."""


@dataclass(frozen=True)
class Usage:
    """What so many servers and their Redis have to do under a load. Rates are for a second."""

    servers: int
    received: float
    """Events that each server gets from the broker."""
    deliveries: float
    """Events that each server writes to players."""
    cores: float
    """Seconds of a core that each server needs in a second."""
    memory: float
    """Bytes for each server's connections."""
    network: float
    """Bytes a second of each server, in the busier direction."""
    sockets: float
    """Connections of each server."""
    redis_in: float
    """Events that all servers publish."""
    redis_out: float
    """Events that Redis writes to all servers."""
    redis_cores: float
    """Seconds of Redis's one thread that it needs in a second: above 1, it takes more than one."""

    def __str__(self) -> str:
        each = "the one server" if self.servers == 1 else f"each of {self.servers:,} servers"
        return "\n".join(
            [
                f"{each} receives {_short(self.received)} events/s from Redis "
                f"and writes {_short(self.deliveries)}/s to {_short(self.sockets)} players",
                f"Redis takes {_short(self.redis_in)} events/s and writes "
                f"{_short(self.redis_out)}/s: work for {_short(self.redis_cores)} of its threads",
            ]
        )


@dataclass(frozen=True)
class Plan:
    """What a load needs, so that nothing is used more than it is meant to be."""

    load: Load
    costs: Costs
    machine: Machine
    channels: Channels
    together: bool
    """Whether all players of a game are on one server."""
    needs: dict[str, int | None]
    """How many servers it takes for CPU, memory, network and sockets, each taken alone, and how
    many nodes of Redis; None if no number is enough."""
    usage: Usage | None
    """With as many servers as are needed; None if no number of them is enough."""

    @property
    def servers(self) -> int | None:
        """How many it takes; None if no number is enough."""
        return self.usage.servers if self.usage else None

    @property
    def redis_nodes(self) -> int | None:
        """Over how many nodes the channels must be spread; None if no number is enough."""
        return self.needs["Redis"]

    @property
    def first(self) -> str:
        """What one server and one Redis would run out of first, as this load grew from nothing.

        If no number of something is enough, it is what comes to that end first, as more and more is
        said.
        """
        if self.usage is None or self.redis_nodes is None:
            return self._end()
        shares = _shares(self.usage, self.machine)
        of_one = {what: share * self.usage.servers for what, share in shares.items()}
        of_one["Redis"] = self.usage.redis_cores / self.machine.full
        return max(of_one, key=lambda what: of_one[what])

    def _end(self) -> str:
        """What has no solution just beyond the most events for which everything has one."""
        low, high, beyond = 0.0, 1.0, self
        for _ in range(40):
            middle = (low + high) / 2
            load = replace(self.load, events=middle * self.load.events)
            less = plan(load, self.costs, self.machine, self.channels, together=self.together)
            if None in less.needs.values():
                high, beyond = middle, less
            else:
                low = middle
        return next(what for what, need in beyond.needs.items() if need is None)

    def __str__(self) -> str:
        channels = "one channel for all" if self.channels == "all" else "a channel for each game"
        place = "; each game on one server" if self.together else ""
        return "\n".join(
            [
                f"{self.load}; {channels}{place}",
                *(f"  servers for {what:8} {_number(self.needs[what]):>12}" for what in SERVERS),
                f"  nodes of Redis       {_number(self.redis_nodes):>12}",
                str(self.usage) if self.usage else "no number of servers is enough",
                f"runs out first: {self.first}",
            ]
        )


def servers_of_a_game(servers: float, players: float) -> float:
    """How many of so many servers hold a player of a game, on average.

    Each of the k players is put on one of the S servers at random. One given server is passed over
    by one player with probability 1 - 1/S, by all k with (1 - 1/S)^k. So it holds at least one with
    1 - (1 - 1/S)^k; and what is expected of S servers is S times that. Averages add up, though
    whether two servers hold a player is not independent.

    The limits: 1 for one server or one player; k for many more servers than players; S for many
    more players than servers, where a channel for each game saves nothing.
    """
    nobody: float = (1 - 1 / servers) ** players
    return servers * (1 - nobody)


def usage(
    load: Load,
    costs: Costs,
    servers: int,
    channels: Channels = "game",
    *,
    together: bool = False,
) -> Usage:
    """What each of so many servers, and their Redis, do under this load.

    A server receives an event once, if it has players of the game (or, with one channel for all,
    in any case), and writes it to each of those. If each game is `together` on one server, there
    are no more servers than games that have anything to do.
    """
    if together:
        servers = min(servers, load.games)
    everywhere = channels == "all"
    copies = servers if everywhere else servers_of_a_game(servers, 1 if together else load.players)
    connections = load.connections / servers
    said = load.events / servers
    received = load.events * copies / servers
    deliveries = load.deliveries / servers
    return Usage(
        servers=servers,
        received=received,
        deliveries=deliveries,
        cores=connections * costs.kept
        + said * costs.published
        + received * costs.received
        + deliveries * costs.delivery,
        memory=connections * costs.memory,
        network=max(said + received, said + deliveries) * (load.size + OVERHEAD),
        sockets=connections,
        redis_in=load.events,
        redis_out=load.events * copies,
        redis_cores=load.events * (costs.redis_publish + copies * costs.redis_delivery),
    )


def plan(
    load: Load,
    costs: Costs = COSTS,
    machine: Machine | None = None,
    channels: Channels = "game",
    *,
    together: bool = False,
) -> Plan:
    """The least number of servers, and of Redis nodes, for this load.

    `together`: all players of a game are on one server, and not each on one at random.

    Redis nodes are those of a cluster with sharded Pub/Sub (SPUBLISH), where a channel lives on one
    node. So one channel for all cannot be spread, and no game over two nodes. With plain PUBLISH
    a cluster hands each event to each of its nodes, and more of them carry no more.
    """
    machine = machine or Machine()

    def with_servers(count: int) -> Usage:
        return usage(load, costs, count, channels, together=together)

    def least(what: str) -> int | None:
        return _least(lambda count: _shares(with_servers(count), machine)[what] <= 1)

    needs = {what: least(what) for what in SERVERS}
    enough = [need for need in needs.values() if need is not None]
    used = None
    if len(enough) == len(needs):
        used = with_servers(max(enough))
    needs["Redis"] = _nodes(load, used, machine.full, channels)
    return Plan(load, costs, machine, channels, together, needs, used)


def most_games(
    game: Load,
    what: str,
    costs: Costs = COSTS,
    machine: Machine | None = None,
    channels: Channels = "game",
) -> int | None:
    """How many games like this one there can be, so that some number of `what` is enough.

    `what` is one of a plan's needs. None if there is no end.
    """
    too_many = _least(
        lambda games: plan(game.times(games), costs, machine, channels).needs[what] is None
    )
    return None if too_many is None else too_many - 1


def _shares(used: Usage, machine: Machine) -> dict[str, float]:
    """How much each server uses of what it is meant to: above 1, it is too much."""
    return {
        "CPU": used.cores / (machine.full * machine.cores),
        "memory": used.memory / (machine.full * machine.memory),
        "network": used.network / (machine.full * machine.network),
        "sockets": used.sockets / machine.sockets,
    }


def _nodes(load: Load, used: Usage | None, full: float, channels: Channels) -> int | None:
    """Over how many nodes Redis's work must be spread: at most one for each channel."""
    if used is None:
        return None
    nodes = max(1, math.ceil(used.redis_cores / full))
    return nodes if nodes <= (1 if channels == "all" else load.games) else None


def _least(is_enough: Callable[[int], bool]) -> int | None:
    """The least number that is enough, where each greater one is too; None if there is none."""
    if not is_enough(MOST_SERVERS):
        return None
    low, high = 0, MOST_SERVERS  # low is not enough, high is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _number(need: int | None) -> str:
    return "never enough" if need is None else f"{need:,}"


def _short(value: float) -> str:
    """A number to three digits, without an exponent."""
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _games(count: int) -> str:
    return "1 game" if count == 1 else f"{count:,} games"
