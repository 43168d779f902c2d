"""A durable queue for each player: an event stays in it until the player has acknowledged it.

One script gives an event its number and puts a copy into the queue of everybody in the game, there
or away. The server that a player is on reads its queue, and reads it again from the last number
acknowledged if that is long in coming; when the player is on another server, that one does. So an
event may be written to a player more than once, and is heard once, by its number.

A queue is a stream that only one server reads at a time, and everything before the number that is
acknowledged leaves it. A consumer group would do nothing for that: it is for several readers that
share out one stream among them, each event to one, where here everyone is to hear every event.
https://redis.io/docs/latest/develop/data-types/streams/#consumer-groups

A queue has a bound. At the bound its oldest event gives way to a new one, for a game cannot wait
for a player who may never come back; the player is told of the gap when it does. Whoever stays away
for too long loses the queue, which expires, and its place: a game has so many queues at most.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

from wsdemo.brokers.base import BrokerDown, GameFull, Receipt, Resumption, reason_of_gap
from wsdemo.brokers.epochs import EPOCHS
from wsdemo.brokers.keeping import PAGE, PAGES, KeepingBroker
from wsdemo.brokers.redis_broker import numbered_entries
from wsdemo.protocol import Position

__all__ = ["QueueBroker"]

ACK_TIMEOUT = 5.0  # seconds without an acknowledgement before events are written again
LONGEST_ACK_TIMEOUT = 60.0  # it doubles each time

# KEYS: about, ids, players (-> number acknowledged), queues. ARGV: an epoch, in case that one
# begins; for how many ms to keep; ...
_EPOCH = (
    EPOCHS
    + """
if not epoch then
  for _, player in ipairs(redis.call('HKEYS', KEYS[3])) do
    redis.call('DEL', KEYS[4] .. player)
  end
  redis.call('DEL', KEYS[2], KEYS[3])
  begin()
end
"""
)

# KEYS: the same, and the channel of those to wake. ARGV: the same, the event's id, the event, the
# bound, that of ids, and how to publish. No epoch: Redis has lost its data, and nobody is in the
# game until the servers have noticed. A queue expires so long after its player was last on a
# server: that one has, and not only nothing in it, whose player has not had all there was.
_STORE = (
    EPOCHS
    + """
if not epoch then return {} end
local known = redis.call('ZSCORE', KEYS[2], ARGV[3])
if known then return {epoch, tonumber(known), 0, {}} end
local before = seq
seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
local full, players = {}, redis.call('HGETALL', KEYS[3])
for n = 1, #players, 2 do
  local player, acked = players[n], tonumber(players[n + 1])
  local queue = KEYS[4] .. player
  local length = redis.call('XLEN', queue)
  if length == 0 and math.max(acked, lost) < before then
    redis.call('HDEL', KEYS[3], player)
  else
    if length >= tonumber(ARGV[5]) then table.insert(full, player) end
    redis.call('XADD', queue, 'MAXLEN', ARGV[5], string.format('%d-0', seq), 'event', ARGV[4])
    if redis.call('PTTL', queue) == -1 then redis.call('PEXPIRE', queue, ARGV[2]) end
  end
end
redis.call('ZADD', KEYS[2], seq, ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', seq - tonumber(ARGV[6]))
keep()
redis.call(ARGV[7], KEYS[5], '')
return {epoch, seq, 1, full}
"""
)

# ... how many events at most; how many players may have a queue; and for each player its name, the
# epoch and the number after which to read, the number that it has acknowledged, and whether it is
# about to join. A player without a queue gets one, as of now, if it joins and there is room, or if
# Redis may have lost it: else it has left elsewhere.
_READ = (
    PAGES
    + _EPOCH
    + """
for i = 5, #ARGV, 5 do go_on(ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 4] == '0') end
local read = {}
for i = 5, #ARGV, 5 do
  local player, acked = ARGV[i], tonumber(ARGV[i + 3])
  local after, holds = go_on(ARGV[i + 1], tonumber(ARGV[i + 2]))
  local queue = KEYS[4] .. player
  local before = tonumber(redis.call('HGET', KEYS[3], player))
  local is_new = 0
  if not before then
    before = seq
    holds = holds and after == seq
    local joins = ARGV[i + 4] == '1'
    if joins and redis.call('HLEN', KEYS[3]) >= tonumber(ARGV[4]) then
      is_new = -1
    elseif joins or ARGV[i + 1] ~= epoch then
      is_new = 1
      redis.call('DEL', queue)
      redis.call('HSET', KEYS[3], player, seq)
    end
  end
  if not holds then
    if ARGV[i + 1] ~= epoch then after = before end
  elseif acked > before then
    before = acked
    redis.call('HSET', KEYS[3], player, acked)
    redis.call('XTRIM', queue, 'MINID', string.format('%d-0', acked + 1))
  end
  after = math.min(math.max(after, before), seq)
  local first = string.format('%d-0', after + 1)
  local events = page(redis.call('XRANGE', queue, first, '+', 'COUNT', ARGV[3]))
  local left = redis.call('PTTL', queue)
  if left ~= -2 and left < 0.9 * tonumber(ARGV[2]) then redis.call('PEXPIRE', queue, ARGV[2]) end
  table.insert(read, {after, holds and 1 or 0, is_new, events})
end
keep()
return {epoch, seq, lost, read}
"""
)

# ... the player.
_LEAVE = (
    _EPOCH
    + """
redis.call('HDEL', KEYS[3], ARGV[3])
redis.call('DEL', KEYS[4] .. ARGV[3])
keep()
"""
)


@dataclass
class _Reader:
    """How far a player of this server is: what was written to it, and what it has acknowledged."""

    epoch: str
    written: int
    acked: int
    timeout: float = ACK_TIMEOUT
    timer: asyncio.TimerHandle | None = None

    def stop_waiting(self) -> None:
        if self.timer:
            self.timer.cancel()
        self.timer = None


class _Read(NamedTuple):
    """What one player's queue has."""

    after: int
    holds: bool  # whether the position asked for does in this epoch
    is_new: bool
    events: list[tuple[int, bytes]]
    end: Position
    lost: int  # the last number that Redis is known to have lost

    @property
    def start(self) -> Position:
        """Before the first event. It is later than `after` if some were lost."""
        return Position(self.end.epoch, self.events[0][0] - 1) if self.events else self.end

    def since(self, epoch: str, number: int) -> Position:
        """A position as it is called in this epoch, if it holds there."""
        return Position(self.end.epoch if self.holds else epoch, number)


class QueueBroker(KeepingBroker):
    """Keeps each event for each player of the game until that player has acknowledged it.

    There are so many in a queue, at most, as a `KeepingBroker` keeps, and `max_players` queues.
    """

    name: ClassVar[str] = "queue"
    wants_acks: ClassVar[bool] = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._store = self._redis.register_script(_STORE)
        self._read = self._redis.register_script(_READ)
        self._leave = self._redis.register_script(_LEAVE)
        self._readers: defaultdict[str, dict[str, _Reader]] = defaultdict(dict)
        self._woken: set[str] = set()  # games in which there may be something to read
        self._reading: dict[str, asyncio.Task[None]] = {}

    async def stop(self) -> None:
        """End listening and reading. Whoever is a player stays one."""
        await super().stop()
        self._reading.clear()
        for game in self._readers.values():
            for reader in game.values():
                reader.stop_waiting()

    async def publish(self, game: str, payload: bytes, event: str = "") -> Receipt:
        """Put the event into every player's queue, unless it is there, and wake the servers."""
        channel = self._channel(game)
        keys = [*self._keys(game), channel]
        kept = (self._room(payload), self._history)
        arguments = (*self._first_arguments(), event, payload, *kept, self._verb)
        stored = await self._ask(channel, lambda: self._store(keys, arguments))
        if not stored:
            self._wake(game)
            raise BrokerDown("Redis has lost its data, and the players' queues are being made anew")
        epoch, seq, is_new, full = stored
        for player in full:
            self._record("trim", game=game, player=player.decode())
        return Receipt(position=Position(epoch.decode(), int(seq)), is_new=bool(is_new))

    async def resume(self, game: str, player: str, since: Position | None) -> Resumption:
        """Read the player's queue from now on, after what it has acknowledged or says it heard."""
        epoch, seq = (since.epoch, since.seq) if since else ("", 0)
        reader = _Reader(epoch, seq, seq)
        [read] = await self.answer(self._queues(game, {player: reader}, joins=True))
        start = read.start
        reader.epoch, reader.written = start.epoch, start.seq
        reader.acked = start.seq
        self.detach(game, player)
        self._readers[game][player] = reader
        self._wake(game)
        expected = start if read.is_new else Position(start.epoch, read.after)
        if since:
            expected = read.since(since.epoch, since.seq)
        is_first = read.is_new and since is None
        recovered = None if is_first else expected == start
        return Resumption(start, recovered, reason_of_gap(expected, start, read.lost))

    async def unsubscribe(self, game: str) -> None:
        """None of the game's players is here any more."""
        for reader in self._readers.pop(game, {}).values():
            reader.stop_waiting()
        await super().unsubscribe(game)

    def detach(self, game: str, player: str) -> None:
        """Read the player's queue no more; it goes on filling."""
        reader = self._readers.get(game, {}).pop(player, None)
        if reader:
            reader.stop_waiting()

    async def forget(self, game: str, player: str) -> None:
        """Take the player's queue away."""
        self.detach(game, player)
        arguments = (*self._first_arguments(), player)
        leave = partial(self._leave, self._keys(game), arguments)
        await self._ask(self._channel(game), leave)

    def acknowledge(self, game: str, player: str, seq: int) -> None:
        """Everything up to this number may leave the player's queue."""
        reader = self._readers[game].get(player)
        if reader and reader.acked < seq <= reader.written:
            reader.acked = seq
            reader.timeout = ACK_TIMEOUT
            reader.stop_waiting()
            self._wake(game)

    def _being_read(self) -> list[asyncio.Task[None]]:
        return list(self._reading.values())

    def _hear(self, game: str, message: bytes) -> None:
        self._wake(game)

    def _subscribed(self, game: str) -> None:
        self._wake(game)

    def _wake(self, game: str) -> None:
        """There may be something to read, or to strike off."""
        self._woken.add(game)
        if game not in self._reading:
            self._reading[game] = asyncio.create_task(
                self._read_on(game), name=f"{self._server} reads {game}"
            )

    async def _read_on(self, game: str) -> None:
        try:
            while game in self._woken and (readers := dict(self._readers.get(game, {}))):
                self._woken.discard(game)
                found = await self._insist(game, lambda: self._queues(game, readers))
                if found is None:
                    break
                for (player, reader), read in zip(readers.items(), found, strict=True):
                    if self._readers.get(game, {}).get(player) is reader:
                        self._write(game, player, reader, read)
        finally:  # whatever went wrong: what comes next is a reason to read again
            self._woken.discard(game)
            del self._reading[game]

    def _write(self, game: str, player: str, reader: _Reader, read: _Read) -> None:
        """Write to a player what its queue has, and see to it that it is acknowledged."""
        before = read.since(reader.epoch, max(reader.written, read.after))
        start = read.start
        if before != start:
            reason = reason_of_gap(before, start, read.lost)
            self._skip(game, start, reason, player)
            # Nothing is left before what was trimmed; before a loss there may be.
            reader.acked = start.seq if reason == "trimmed" else min(reader.acked, start.seq)
        elif reader.epoch != start.epoch:
            self._skip(game, start, "", player)
        reader.epoch, reader.written = start.epoch, start.seq
        for seq, payload in read.events:
            reader.written = seq
            self._relay(game, payload, seq, player, 4)  # woken, it asked
        if reader.written < read.end.seq:
            self._woken.add(game)
        if reader.written > reader.acked and reader.timer is None:
            reader.timer = asyncio.get_running_loop().call_later(
                reader.timeout, self._write_again, game, reader
            )

    def _write_again(self, game: str, reader: _Reader) -> None:
        """The acknowledgement is long in coming: begin again after the last one."""
        reader.timer = None
        reader.timeout = min(2 * reader.timeout, LONGEST_ACK_TIMEOUT)
        reader.written = reader.acked
        self._wake(game)

    async def _queues(
        self, game: str, readers: dict[str, _Reader], *, joins: bool = False
    ) -> list[_Read]:
        """What each of these players' queues has."""
        bounds = (*self._first_arguments(), PAGE, self.max_players)
        arguments: list[str | int] = [*bounds, *_arguments(readers, joins)]
        async with self._reads[self._node(game)]:
            epoch, seq, lost, found = await self._read(self._keys(game), arguments)
        if any(is_new < 0 for _, _, is_new, _ in found):
            raise GameFull(f"there are {self.max_players} players in the game already")
        end = Position(epoch.decode(), int(seq))
        return [
            _Read(
                int(after),
                bool(holds),
                bool(is_new),
                numbered_entries(events),
                end,
                int(lost),
            )
            for after, holds, is_new, events in found
        ]

    def _keys(self, game: str) -> list[str]:
        """The braces keep all of a game's keys on one node of a Redis Cluster."""
        stem = f"{self._key_prefix}{{{game}}}"
        return [f"{stem}:about", f"{stem}:ids", f"{stem}:players", f"{stem}:of:"]


def _arguments(readers: dict[str, _Reader], joins: bool) -> Iterator[str]:
    for player, reader in readers.items():
        yield from (player, reader.epoch, str(reader.written), str(reader.acked), str(int(joins)))
