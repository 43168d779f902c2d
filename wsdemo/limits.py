"""How much a server takes, from one client and from all of them, before it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["Allowance", "Limits"]

MAX_FRAME = 262_144  # bytes, as the protocol has it
BURST = 5.0  # seconds' worth of messages that a client may send at once


def _limit(default: float, words: str, most: float = math.inf) -> Any:
    return field(default=default, metadata={"words": words, "most": most})


@dataclass(frozen=True)
class Limits:
    """What a server refuses, and says in words by the limit's name; each refusal is counted.

    Raises `ValueError` for a limit that lets nothing through.
    """

    max_connections: int = _limit(10_000, "clients that are connected")
    max_players: int = _limit(1_000, "players of one game on this server")
    max_rate: float = _limit(
        1_000.0,
        f"messages a second of one client, over {BURST:g} s; twice with pings and such",
    )
    max_message: int = _limit(MAX_FRAME, "bytes in a message", most=MAX_FRAME)
    max_waiting: int = _limit(2**20, "bytes that wait for a client that does not read")
    max_waiting_in_all: int = _limit(2**28, "bytes that wait for all clients together")
    max_bad_messages: int = _limit(5, "messages of one client that are refused")
    seconds_to_join: float = _limit(10.0, "seconds from a client's connection to its join")
    seconds_to_answer: float = _limit(20.0, "seconds for a client to answer a ping, sent as often")

    def __post_init__(self) -> None:
        for each in fields(self):
            value, most = getattr(self, each.name), each.metadata["most"]
            if not 0 < value <= most:
                up_to = "" if math.isinf(most) else f" and at most {most:g}"
                raise ValueError(f"{each.name} is {value:g}; use more than 0{up_to}")

    @property
    def max_sockets(self) -> int:
        """With those that are yet to ask for a WebSocket, or ask for something else."""
        return self.max_connections + self.max_connections // 10 + 100


class Allowance:
    """What one client may still say: it grows at `rate` messages a second, to BURST seconds' worth.

    A token bucket: https://en.wikipedia.org/wiki/Token_bucket
    """

    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._left = max(rate * BURST, 1.0)
        self._at = now

    def take(self, now: float) -> bool:
        """Whether one more message is within it, at this time of the same clock."""
        self._left = min(self._left + (now - self._at) * self._rate, max(self._rate * BURST, 1.0))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
