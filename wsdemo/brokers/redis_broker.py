"""What every broker on a Redis has: a link that it listens on, and commands that end in time."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)

from wsdemo.brokers.base import Broker, BrokerDown, Relay, Skip
from wsdemo.brokers.link import FIRST_PAUSE, LONGEST_PAUSE, Link, RedisGone
from wsdemo.brokers.sharded import ShardedLink
from wsdemo.lifetime import end
from wsdemo.redis.shards import Address, ShardedRedis
from wsdemo.sparing_log import SparingLog
from wsdemo.trace import Kind, Trace

__all__ = ["HISTORY", "RedisBroker", "RedisGone", "numbered_entries"]

_log = logging.getLogger("wsdemo.brokers")

ANSWER_TIMEOUT = 2.0  # seconds that Redis may take to answer; a frozen one never does
READS = 16  # at a time; each takes a connection, of which a client has so many
HISTORY = 1000  # events that a broker keeps, if it keeps any
BYTES_WAITING = 4 * 2**20  # of events, at most, for a server that stands still

_T = TypeVar("_T")


@dataclass(eq=False)
class _Letter:
    channel: str
    message: bytes
    waits: bool = True  # to be sent
    receivers: int = 0
    trouble: Exception | None = None


class RedisBroker(Broker):
    """Listens on one channel for each game that its server has players in.

    `redis` must neither retry nor reconnect by itself, as the clients of `redis_backend` do not: a
    retried PUBLISH may be a second one, and a subscription made anew is something to know about.
    `server` names the server in the trace. `prefix` keeps clusters apart that share one Redis.

    While the gate is shut, what arrives waits. A server that falls more than BYTES_WAITING behind
    loses its subscription, and has a gap when it goes on: Redis would do the same to it, though
    only at 32 MB (client-output-buffer-limit pubsub).
    """

    hub: ClassVar[str] = "redis"

    def __init__(
        self,
        redis: Redis | ShardedRedis,
        *,
        server: str,
        prefix: str = "",
        trace: Trace | None = None,
    ) -> None:
        super().__init__()
        self._redis = redis
        self._server = server
        self._prefix = prefix
        self._trace = trace
        self._link = self._new_link(f"{prefix}server:{server}")
        self._games_heard: dict[str, str] = {}  # by the channels that are wanted
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        self._confirmed_before: set[str] = set()
        self._turns = defaultdict[Address | None, asyncio.Lock](asyncio.Lock)
        self._outboxes = defaultdict[Address | None, list[_Letter]](list)
        self._reads = defaultdict[Address | None, asyncio.Semaphore](
            lambda: asyncio.Semaphore(READS)
        )
        self._waiting = 0  # bytes of events that came while the gate was shut
        self._runs = False
        self._log = SparingLog(_log)

    async def start(self, relay: Relay, skip: Skip = lambda *gap: None) -> None:
        """Reach Redis, and listen."""
        await super().start(relay, skip)
        self._runs = True
        await self._link.start()

    def forsake(self) -> None:
        """Nothing is relayed any more, and nothing recorded."""
        super().forsake()
        self._trace = None

    async def stop(self) -> None:
        """End listening and let go of Redis."""
        await self._link.stop()
        self._runs = False
        for reading in self._being_read():  # nothing wakes another one any more
            await end(reading)
        for confirmation in self._confirmed.values():
            if not confirmation.done():
                confirmation.set_exception(RedisGone("this server has stopped"))
                confirmation.exception()  # nobody may be waiting for it
        await self._redis.aclose()

    def _being_read(self) -> list[asyncio.Task[None]]:
        """What reads for this server in the background."""
        return []

    async def subscribe(self, game: str) -> None:
        """SUBSCRIBE, and wait for the confirmation: before it, Redis sends nothing."""
        channel = self._channel(game)
        if channel not in self._games_heard:
            self._games_heard[channel] = game
            await self._link.subscribe(channel)
        await self.answer(asyncio.shield(self.confirmation(channel)))

    async def unsubscribe(self, game: str) -> None:
        """UNSUBSCRIBE. A Redis that is away has forgotten this server already."""
        channel = self._channel(game)
        self._games_heard.pop(channel, None)
        self._confirmed.pop(channel, None)
        self._confirmed_before.discard(channel)
        self._record("unsubscribe", channel)
        await self._link.unsubscribe(channel)

    async def sync(self) -> None:
        """Publish a marker and wait to hear it: Redis keeps the order of what it passes on.

        Then wait until nothing more is being read in the background. A Redis that is away has
        nothing to pass on; one that is back is waited for. Raises `BrokerDown` if Redis is there
        and does not answer.
        """
        await self._link.sync()
        while reading := self._being_read():
            await self.answer(asyncio.wait(reading))

    async def hears_itself(self, seconds: float) -> bool:
        """Whether a marker comes back: neither a frozen Redis nor a dead listener can pretend to.

        The client library's own health check notices neither.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._link.hears_itself()
        except (TimeoutError, BrokerDown):
            return False

    def listen_anew(self) -> None:
        """Give up each connection on which nothing comes, though its Redis takes what is said."""
        self._link.listen_anew()

    @abstractmethod
    def _hear(self, game: str, message: bytes) -> None:
        """A message has come on the game's channel."""

    def _subscribed(self, game: str) -> None:
        """The game's channel is listened to, for the first time or again."""

    # Names, and the nodes that have them

    @property
    def _is_sharded(self) -> bool:
        return isinstance(self._redis, ShardedRedis)

    def _new_link(self, own_channel: str) -> Link | ShardedLink:
        if isinstance(self._redis, ShardedRedis):
            return ShardedLink(self._redis, own_channel, self, server=self._server)
        return Link(self._redis, own_channel, self, server=self._server)

    def _channel(self, game: str) -> str:
        """The braces keep it, on a Redis Cluster, on the node of the game's keys."""
        slot = f"{{{game}}}:" if self._is_sharded else ""
        return f"{self._prefix}{slot}game:{game}"

    def _node(self, name: str) -> Address | None:
        """Which node of a cluster has a channel, or a game."""
        return self._redis.owner(name) if isinstance(self._redis, ShardedRedis) else None

    @property
    def _verb(self) -> str:
        """The command with which a script publishes."""
        return "SPUBLISH" if self._is_sharded else "PUBLISH"

    # Asking

    async def say(self, channel: str, message: bytes) -> int:
        """PUBLISH; the number of subscribers that Redis has handed it to.

        What waits for its turn together goes together: many small round trips would take longer
        than all the rest.
        """
        outbox = self._outboxes[self._node(channel)]
        letter = _Letter(channel, message)
        outbox.append(letter)
        try:
            return await self._ask(channel, lambda: self._post(outbox, letter))
        finally:
            letter.waits = False

    async def _post(self, outbox: list[_Letter], own: _Letter) -> int:
        """Send everything in the outbox, unless another one has sent it meanwhile."""
        if own.waits:
            letters = [letter for letter in outbox if letter.waits]
            outbox.clear()
            for letter in letters:
                letter.waits = False
                letter.trouble = TimeoutError()  # should the time of whoever sends them run out
            try:
                answers = await self._publish(letters)
            except (RedisError, OSError) as error:
                for letter in letters:
                    letter.trouble = error
            else:
                for letter, receivers in zip(letters, answers, strict=True):
                    letter.receivers, letter.trouble = receivers, None
        if own.trouble:
            raise own.trouble
        return own.receivers

    async def _publish(self, letters: Sequence[_Letter]) -> list[int]:
        if len(letters) == 1 or isinstance(self._redis, ShardedRedis):
            return [await self._redis.publish(each.channel, each.message) for each in letters]
        line = self._redis.pipeline(transaction=False)
        for each in letters:
            line.publish(each.channel, each.message)
        return await line.execute()

    async def _ask(self, channel: str, command: Callable[[], Awaitable[_T]]) -> _T:
        """What Redis answers to a command whose place in the order matters.

        One at a time: on two connections, a second event may overtake the first.
        """

        async def in_turn() -> _T:
            async with self._turns[self._node(channel)]:
                return await command()

        return await self.answer(in_turn())

    async def _insist(self, game: str, command: Callable[[], Awaitable[_T]]) -> _T | None:
        """What Redis answers in the end; None if the link is lost, whose return begins it anew.

        It may refuse for long, if it has no memory left, say: the log tells.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                return await self.answer(command())
            except BrokerDown:
                if not self._link.reaches(self._channel(game)):
                    return None
                await asyncio.sleep(random.uniform(0, pause))
                pause = min(2 * pause, LONGEST_PAUSE)

    async def answer(self, answer: Awaitable[_T]) -> _T:
        """What Redis answers; a server that stands still learns of it when it goes on."""
        try:
            result = await self.in_time(answer)
        except BrokerDown:
            await self.gate.passed()
            raise
        await self.gate.passed()
        return result

    async def in_time(self, answer: Awaitable[_T]) -> _T:
        """What Redis answers. Raises `BrokerDown` if it is not there, does not answer, or refuses.

        Players are told the error, and nothing of Redis's own words, which name addresses and such.
        """
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await answer
        except TimeoutError as error:
            what = "has not answered" if self._link.is_up else "has been out of reach"
            raise self._down(f"Redis {what} for {ANSWER_TIMEOUT:g} s", error) from error
        except (MovedError, ClusterCrossSlotError) as error:
            words = "Redis is one node of a cluster: redis+cluster:// is for all"
            raise self._down(words, error) from error
        except ClusterDownError as error:
            words = "no node of the Redis Cluster serves this game"
            raise self._down(words, error, RedisGone) from error
        except OutOfMemoryError as error:
            raise self._down("Redis has no memory left for more", error) from error
        except (ResponseError, AuthenticationError, AuthorizationError) as error:
            raise self._down("Redis has refused what it was asked", error) from error
        except (RedisError, OSError) as error:
            raise self._down("Redis is out of reach", error, RedisGone) from error

    def _down(
        self, words: str, error: Exception, kind: type[BrokerDown] = BrokerDown
    ) -> BrokerDown:
        """The error for players; the log has the reason, though not for each of them."""
        why = (type(error).__name__, error)
        self._log.warning("server %s: %s (%s: %s)", self._server, words, *why, trouble=words)
        return kind(words)

    # What the link tells

    def arrive(self, link: Link, message: dict[str, Any]) -> bool:
        """Take a message now or, while the server stands still, let it wait if there is room."""
        event = message["data"] if message["type"] in ("message", "smessage") else b""
        self._waiting = self._waiting + len(event) if self.gate.is_shut else 0
        if self._waiting > BYTES_WAITING:
            return False
        self.gate.call(link.take, message)
        return True

    def heard(self, channel: str, message: bytes) -> None:
        """A message has come, if only for a game that has just ended here."""
        self.received += 1
        if channel in self._games_heard:
            self._hear(self._games_heard[channel], message)

    def confirmed(self, channel: str) -> None:
        """The channel is listened to; if it was before, something may have been missed."""
        confirmation = self.confirmation(channel)
        if not confirmation.done():
            confirmation.set_result(None)
        if channel not in self._games_heard:
            return  # it is this server's own
        self._record("subscribe", channel)
        if channel in self._confirmed_before:
            self._record("gap", channel)
        self._confirmed_before.add(channel)
        self._subscribed(self._games_heard[channel])

    def confirmation(self, channel: str) -> asyncio.Future[None]:
        """Set once the channel is listened to. Raises `RedisGone` if this server has stopped."""
        if not self._runs:
            raise RedisGone("this server has stopped")
        if channel not in self._confirmed:
            self._confirmed[channel] = asyncio.get_running_loop().create_future()
        return self._confirmed[channel]

    def lost(self, channels: Collection[str]) -> None:
        """These channels are not listened to any more."""
        for channel in channels:
            if channel in self._confirmed and self._confirmed[channel].done():
                del self._confirmed[channel]

    def disconnected(self, channels: Collection[str], reason: str) -> None:
        """It was noticed: of one Redis, for all; of a node of a cluster, for these."""
        for channel in sorted(channels) if self._is_sharded else [""]:
            self._record("disconnect", channel, reason=reason)

    def _record(self, kind: Kind, channel: str = "", **data: Any) -> None:
        if self._trace is not None:
            if channel:
                data["channel"] = channel
            self._trace.append(kind, self._server, self.hub, **data)


def numbered_entries(entries: Sequence[tuple[bytes, list[bytes]]]) -> list[tuple[int, bytes]]:
    """The numbers and payloads of a stream's entries, up to the first hole.

    An entry's id is its number and a 0.
    """
    numbered = [(int(number.split(b"-")[0]), fields[1]) for number, fields in entries]
    return [
        (seq, payload) for n, (seq, payload) in enumerate(numbered) if seq == numbered[0][0] + n
    ]
