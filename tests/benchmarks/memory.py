"""What a connection costs a server while nothing happens on it."""

from __future__ import annotations

from time import monotonic, sleep

from tests.benchmarks.driver import Client
from tests.benchmarks.servers import Contender, Servers

__all__ = ["idle_bytes"]

WARM_UP = 50  # connections before the first look: what they all share is there then
GAME = 50  # players in each game
CALM = 0.3  # seconds between two looks
PATIENCE = 10.0  # seconds until memory stays as it is


def idle_bytes(contender: Contender, redis: str, connections: int) -> float:
    """Bytes for each of so many idle connections of players who have joined."""
    with Servers(contender, redis, count=1) as servers:
        clients: list[Client] = []

        def join(count: int) -> None:
            for number in range(len(clients), len(clients) + count):
                game, player = f"g{number // GAME}", f"P{number}"
                clients.append(Client(servers.ports[0], game, player, contender.dialect))

        try:
            join(WARM_UP)
            before = _calm(servers)
            join(connections)
            return (_calm(servers) - before) / connections
        finally:
            for client in clients:
                client.close()


def _calm(servers: Servers) -> int:
    """The memory, once it stays as it is."""
    end = monotonic() + PATIENCE
    found = servers.memory()
    while True:
        sleep(CALM)
        last, found = found, servers.memory()
        if abs(found - last) < found / 1000 or monotonic() > end:
            return found
