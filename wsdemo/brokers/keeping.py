"""What the brokers that keep events have in common: how much they keep, and for how long.

A game that nobody plays any more is forgotten, or Redis would fill up: its keys expire, all in one
moment. Whoever comes back later finds another epoch, and is told that what was kept is lost. While
a server has players in a game, it sees to it that the game is kept, though nobody says anything.
"""

from __future__ import annotations

import asyncio
import secrets

from redis.asyncio import Redis

from wsdemo.brokers.base import Relay, Skip
from wsdemo.brokers.redis_broker import HISTORY, RedisBroker
from wsdemo.redis.shards import ShardedRedis
from wsdemo.trace import Trace

__all__ = ["PAGE", "PAGES", "PAGE_SIZE", "SECONDS_TO_KEEP", "KeepingBroker"]

PAGE = 200  # events in one answer of Redis, at most
PAGE_SIZE = 2**17  # bytes of them, at most, but for a single one: a server writes a page at once

# The first of these entries of a stream, as many as a page has.
PAGES = f"""
local unpack = unpack or table.unpack
local function page(entries)
  local size = 0
  for n, entry in ipairs(entries) do
    size = size + #entry[2][2]
    if n > 1 and size > {PAGE_SIZE} then return {{unpack(entries, 1, n - 1)}} end
  end
  return entries
end
"""

SECONDS_TO_KEEP = 86_400.0
LONGEST = 1e9  # seconds
ROOM = 8 * 2**20  # bytes: an event of n bytes leaves room for ROOM / n, at most, that one included


class KeepingBroker(RedisBroker):
    """Keeps a game's last `history` events, fewer if they are large, and as many ids of events.

    By those a retry is known. A game in which nobody has been for `seconds_to_keep`, or a fifth
    less, is forgotten. Raises `ValueError` for a time that cannot be.
    """

    def __init__(
        self,
        redis: Redis | ShardedRedis,
        *,
        server: str,
        prefix: str = "",
        history: int = HISTORY,
        seconds_to_keep: float = SECONDS_TO_KEEP,
        trace: Trace | None = None,
    ) -> None:
        if not 0 < seconds_to_keep <= LONGEST:
            raise ValueError(
                f"seconds_to_keep is {seconds_to_keep:g}; use more than 0 and at most {LONGEST:g}"
            )
        super().__init__(redis, server=server, prefix=prefix, trace=trace)
        self._history = history
        self._seconds_to_keep = seconds_to_keep
        self._key_prefix = f"{prefix}{self.name}:"
        self._keeping: asyncio.TimerHandle | None = None

    async def start(self, relay: Relay, skip: Skip = lambda *gap: None) -> None:
        """Reach Redis, listen, and keep what is played here."""
        await super().start(relay, skip)
        self._keep_later()

    async def stop(self) -> None:
        """End listening and reading; what nobody else keeps will expire."""
        if self._keeping:
            self._keeping.cancel()
        await super().stop()

    def _keep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._keeping = loop.call_later(self._seconds_to_keep / 10, self._keep_games)

    def _keep_games(self) -> None:
        """See what there is to be read of each game: for Redis, that is to use it."""
        for game in tuple(self._games_heard.values()):
            self._subscribed(game)
        self._keep_later()

    def _first_arguments(self) -> tuple[str, int]:
        """Those of each script: an epoch, in case that one begins, and for how many ms to keep."""
        return secrets.token_hex(8), max(1, round(1000 * self._seconds_to_keep))

    def _room(self, payload: bytes) -> int:
        """How many events are kept from now on, this one included.

        So a stream, or a queue, has at most ROOM x (1 + ln history) bytes, about 8 times ROOM.
        """
        return max(1, min(self._history, ROOM // max(1, len(payload))))
