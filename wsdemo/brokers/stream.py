"""Redis Streams: an event is kept, with a number, so that whoever was away can have it later.

One script gives an event its number, adds it to its game's stream, and wakes the servers: nothing
can come in between. A server that has been away goes on from the last number it has relayed, a
player from the last one it has heard, on whichever server it lands.

A stream keeps only a window of events, and a Redis may lose its data. Neither is an error: Redis
answers what it has. Two things tell. Numbers follow each other without a hole, so one that is
missing has been trimmed; and a stream carries an epoch, drawn at random when it begins, so another
one has begun. https://redis.io/docs/latest/develop/data-types/streams/
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any, ClassVar

from wsdemo.brokers.base import Receipt, Resumption, reason_of_gap
from wsdemo.brokers.epochs import EPOCHS
from wsdemo.brokers.keeping import PAGE, PAGES, KeepingBroker
from wsdemo.brokers.redis_broker import numbered_entries
from wsdemo.protocol import Position

__all__ = ["StreamBroker"]

# KEYS: about, events, ids. ARGV: an epoch, in case that one begins; for how many ms to keep; ...
_EPOCH = (
    EPOCHS
    + """
if not epoch then
  redis.call('DEL', KEYS[2], KEYS[3])
  begin()
end
"""
)

# KEYS: also the channel of those to wake. ... the event's id, the event, how many are kept, and how
# many ids, and the command that publishes.
_STORE = (
    _EPOCH
    + """
local known = redis.call('ZSCORE', KEYS[3], ARGV[3])
if known then return {epoch, tonumber(known), 0, redis.call('XLEN', KEYS[2])} end
seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[5], string.format('%d-0', seq), 'event', ARGV[4])
redis.call('ZADD', KEYS[3], seq, ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', seq - tonumber(ARGV[6]))
keep()
redis.call(ARGV[7], KEYS[4], string.format('%s %d ', epoch, seq) .. ARGV[4])
return {epoch, seq, 1, redis.call('XLEN', KEYS[2])}
"""
)

# ... the epoch and the number after which to read, how many events at most, and 1 if a server has
# got so far.
_READ = (
    PAGES
    + _EPOCH
    + """
local after, holds = go_on(ARGV[3], tonumber(ARGV[4]), ARGV[6] == '1')
local events = {}
if tonumber(ARGV[5]) > 0 then
  local first = string.format('%d-0', after + 1)
  events = page(redis.call('XRANGE', KEYS[2], first, '+', 'COUNT', ARGV[5]))
end
keep()
return {epoch, seq, holds and 1 or 0, lost, events}
"""
)


@dataclass(frozen=True)
class _Page:
    """What Redis has after a position: the first events, and the position after the last of all."""

    since: Position  # as it is called in this epoch, if it holds there
    events: list[tuple[int, bytes]]
    end: Position
    lost: int  # the last number that Redis is known to have lost

    @property
    def start(self) -> Position:
        """Before the first event. Where that is not `since`, there was a loss."""
        return Position(self.end.epoch, self.events[0][0] - 1) if self.events else self.end

    @property
    def reason(self) -> str:
        """Why it was; empty if there was none."""
        return reason_of_gap(self.since, self.start, self.lost)


@dataclass
class _Game:
    """How far a server is with a game: everything up to `position` has been relayed here."""

    position: Position | None = None  # None until it is known
    reading: asyncio.Task[None] | None = None
    waiting: deque[bytes] = field(default_factory=lambda: deque(maxlen=PAGE))  # heard meanwhile


class StreamBroker(KeepingBroker):
    """Keeps the last events of each game, and relays them in the order of their numbers.

    The message that wakes a server carries the event, so that one that is up to date need not ask.
    """

    name: ClassVar[str] = "stream"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._store = self._redis.register_script(_STORE)
        self._read = self._redis.register_script(_READ)
        self._games: dict[str, _Game] = {}

    async def stop(self) -> None:
        """End listening and reading."""
        await super().stop()
        self._games.clear()

    async def publish(self, game: str, payload: bytes, event: str = "") -> Receipt:
        """Add the event to the stream, unless one of this name is there, and wake the servers."""
        channel = self._channel(game)
        keys = [*self._keys(game), channel]
        kept = (self._room(payload), self._history)
        arguments = (*self._first_arguments(), event, payload, *kept, self._verb)
        epoch, seq, is_new, count = await self._ask(channel, lambda: self._store(keys, arguments))
        return Receipt(None, Position(epoch.decode(), int(seq)), bool(is_new), int(count))

    async def subscribe(self, game: str) -> None:
        """Listen, and only then see how far the stream is: what comes later wakes this server."""
        await super().subscribe(game)
        here = self._games.setdefault(game, _Game())
        if here.position is None:
            page = await self.answer(self._page(game, None, 0))
            if here.position is None:  # nobody was quicker
                here.position = page.end
                self._hear_what_waits(game, here)

    async def unsubscribe(self, game: str) -> None:
        """Forget how far this server was: without a player, it is behind with nothing."""
        here = self._games.pop(game, None)
        if here and here.reading:
            here.reading.cancel()
        await super().unsubscribe(game)

    async def resume(self, game: str, player: str, since: Position | None) -> Resumption:
        """What the player has missed, as far as this server is; later events are yet to come."""
        here = self._games[game]
        if since is None:
            return Resumption(here.position)
        page = await self.answer(self._page(game, since, PAGE))
        while not _has_come_to(page.start, here.position):
            await super().subscribe(game)  # the link may not have returned yet
            await self.answer(asyncio.shield(self._catch_up(game)))
            page = await self.answer(self._page(game, since, PAGE))
        relayed = here.position.seq if here.position else 0
        missed = [(seq, event) for seq, event in page.events if seq <= relayed]
        return Resumption(
            page.start,
            recovered=not page.reason,
            reason=page.reason,
            missed=missed,
            # The next one may have been relayed while Redis's answer was on its way.
            has_more=(missed[-1][0] if missed else page.start.seq) < relayed,
        )

    def _being_read(self) -> list[asyncio.Task[None]]:
        return [game.reading for game in self._games.values() if game.reading]

    def _hear(self, game: str, message: bytes) -> None:
        """Relay an event that is the next one; see what is missing before any other."""
        here = self._games.get(game)
        if here is None:
            return
        if here.position is None or here.reading:
            here.waiting.append(message)
            return
        try:
            epoch, number, payload = message.split(b" ", 2)
            position = Position(epoch.decode(), int(number))
        except ValueError:  # somebody else publishes on our channel
            self._log.warning("server %s drops what is no event of a stream", self._server)
            return
        if position == _next(here.position):
            here.position = position
            self._relay(game, payload, position.seq, "", 2)
        elif position.epoch != here.position.epoch or position.seq > here.position.seq:
            self._catch_up(game)

    def _hear_what_waits(self, game: str, here: _Game) -> None:
        waiting, here.waiting = here.waiting, deque(maxlen=PAGE)
        for message in waiting:
            self._hear(game, message)

    def _subscribed(self, game: str) -> None:
        here = self._games.get(game)
        if here and here.position:
            self._catch_up(game)

    def _catch_up(self, game: str) -> asyncio.Task[None]:
        """Read on from where this server is, in the background."""
        here = self._games[game]
        if here.reading is None:
            reading = self._read_on(game, here)
            here.reading = asyncio.create_task(reading, name=f"{self._server} reads {game}")
        return here.reading

    async def _read_on(self, game: str, here: _Game) -> None:
        is_behind = True
        try:
            while is_behind and here.position:
                page = await self._insist(
                    game, lambda: self._page(game, here.position, PAGE, mine=True)
                )
                is_behind = page is not None and self._go_on(game, here, here.position, page)
        finally:
            here.reading = None  # whatever went wrong: the next event is a reason to read again
        self._hear_what_waits(game, here)

    def _go_on(self, game: str, here: _Game, since: Position, page: _Page) -> bool:
        """Relay a page. Returns whether there is another one."""
        if page.start != since:  # if only by the name of the epoch
            self._skip(game, page.start, page.reason, "")
        here.position = page.start
        for seq, payload in page.events:
            here.position = Position(page.end.epoch, seq)
            self._relay(game, payload, seq, "", 4)  # it was asked for
        return here.position != page.end

    async def _page(
        self, game: str, since: Position | None, count: int, *, mine: bool = False
    ) -> _Page:
        since = since or Position("none", 0)
        arguments = (*self._first_arguments(), since.epoch, since.seq, count, int(mine))
        async with self._reads[self._node(game)]:
            answer = await self._read(self._keys(game), arguments)
        epoch, seq, holds, lost, events = answer
        end = Position(epoch.decode(), int(seq))
        return _Page(
            Position(end.epoch, since.seq) if holds else since,
            numbered_entries(events),
            end,
            int(lost),
        )

    def _keys(self, game: str) -> list[str]:
        """The braces keep all of a game's keys on one node of a Redis Cluster."""
        stream = f"{self._key_prefix}{{{game}}}"
        return [f"{stream}:about", f"{stream}:events", f"{stream}:ids"]


def _has_come_to(start: Position, position: Position | None) -> bool:
    """Whether a server that is there has relayed everything up to the start."""
    return position is not None and position.epoch == start.epoch and position.seq >= start.seq


def _next(position: Position) -> Position:
    return Position(position.epoch, position.seq + 1)
