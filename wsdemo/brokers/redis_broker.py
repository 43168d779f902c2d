"""What every broker on a Redis has: a link that it listens on, and commands that end in time."""

from __future__ import annotations

import asyncio
import itertools
import random
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from wsdemo.brokers.base import Broker, BrokerDown, Relay, Skip
from wsdemo.lifetime import end
from wsdemo.trace import Kind, Trace

__all__ = ["HISTORY", "RedisBroker", "RedisGone", "numbered_entries"]

ANSWER_TIMEOUT = 2.0  # seconds that Redis may take to answer; a frozen one never does
FIRST_PAUSE = 0.02  # seconds, at most, before the first attempt to reach a Redis that went away
LONGEST_PAUSE = 0.5  # seconds, at most, between two later ones
READS = 16  # at a time; each takes a connection, of which a client has so many
HISTORY = 1000  # events that a broker keeps, if it keeps any
BYTES_WAITING = 4 * 2**20  # of events, at most, for a server that stands still

_T = TypeVar("_T")


class RedisGone(BrokerDown):
    """There is no Redis at the other end any more."""


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
        self, redis: Redis, *, server: str, prefix: str = "", trace: Trace | None = None
    ) -> None:
        super().__init__()
        self._redis = redis
        self._server = server
        self._game_prefix = f"{prefix}game:"
        self._own_channel = f"{prefix}server:{server}"
        self._trace = trace
        self._link: PubSub | None = None  # None while Redis is out of reach
        self._wanted = {self._own_channel}
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        self._confirmed_before: set[str] = set()
        self._syncs: dict[bytes, asyncio.Future[bool]] = {}
        self._sync_ids = itertools.count(1)
        self._turn = asyncio.Lock()
        self._reads = asyncio.Semaphore(READS)
        self._waiting = 0  # bytes of events that came while the gate was shut
        self._listener: asyncio.Task[None] | None = None

    async def start(self, relay: Relay, skip: Skip = lambda *gap: None) -> None:
        """Listen; return once the channel of this server itself, for its syncs, is confirmed."""
        await super().start(relay, skip)
        self._listener = asyncio.create_task(self._listen(), name=f"{self._server} listens")
        await self._answer(asyncio.shield(self._confirmation(self._own_channel)))

    def forsake(self) -> None:
        """Nothing is relayed any more, and nothing recorded."""
        super().forsake()
        self._trace = None

    async def stop(self) -> None:
        """End listening and let go of Redis."""
        if self._link:
            with suppress(BrokerDown):
                await self._in_time(self._link.unsubscribe())
        await end(self._listener)
        self._listener = None
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
        channel = self._game_prefix + game
        if channel not in self._wanted:
            self._wanted.add(channel)
            if self._link:
                await self._answer(self._link.subscribe(channel))
        await self._answer(asyncio.shield(self._confirmation(channel)))

    async def unsubscribe(self, game: str) -> None:
        """UNSUBSCRIBE. A Redis that is away has forgotten this server already."""
        channel = self._game_prefix + game
        self._wanted.discard(channel)
        self._confirmed.pop(channel, None)
        self._confirmed_before.discard(channel)
        self._record("unsubscribe", channel)
        if self._link:
            with suppress(BrokerDown):
                await self._answer(self._link.unsubscribe(channel))

    async def sync(self) -> None:
        """Publish a marker and wait to hear it: Redis keeps the order of what it passes on.

        Then wait until nothing more is being read in the background. A Redis that is away has
        nothing to pass on; one that is back is waited for. Raises `BrokerDown` if Redis is there
        and does not answer.
        """
        with suppress(RedisGone):
            while self._listener and not await self._hears_itself():
                pass  # the link broke meanwhile
        while reading := self._being_read():
            await self._answer(asyncio.wait(reading))

    async def hears_itself(self, seconds: float) -> bool:
        """Whether a marker comes back: neither a frozen Redis nor a dead listener can pretend to.

        The client library's own health check notices neither.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._hears_itself()
        except (TimeoutError, BrokerDown):
            return False

    async def _hears_itself(self) -> bool:
        """Whether a marker comes back; not so if the link breaks before it does."""
        if not self._link:
            await self._answer(self._redis.ping())
            for channel in sorted(self._wanted):
                await self._answer(asyncio.shield(self._confirmation(channel)))
        marker = b"sync %d" % next(self._sync_ids)
        heard = self._syncs[marker] = asyncio.get_running_loop().create_future()
        try:
            await self._say(self._own_channel, marker)
            return await self._answer(heard)
        finally:
            del self._syncs[marker]

    @abstractmethod
    def _hear(self, game: str, message: bytes) -> None:
        """A message has come on the game's channel."""

    def _subscribed(self, game: str) -> None:
        """The game's channel is listened to, for the first time or again."""

    async def _say(self, channel: str, message: bytes) -> int:
        """PUBLISH; the number of subscribers that Redis has handed it to."""
        return await self._ask(lambda: self._redis.publish(channel, message))

    async def _ask(self, command: Callable[[], Awaitable[_T]]) -> _T:
        """What Redis answers to a command whose place in the order matters.

        One at a time: on two connections, a second event may overtake the first.
        """

        async def in_turn() -> _T:
            async with self._turn:
                return await command()

        return await self._answer(in_turn())

    async def _insist(self, command: Callable[[], Awaitable[_T]]) -> _T | None:
        """What Redis answers in the end; None if the link is lost, whose return begins it anew."""
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._answer(command())
            except BrokerDown:
                if self._link is None:
                    return None
                await asyncio.sleep(random.uniform(0, pause))
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _listen(self) -> None:
        """Keep a link to Redis for as long as the server lives, and relay what comes through it."""
        pause = FIRST_PAUSE
        while True:
            try:
                async with self._redis.pubsub() as link:
                    asked: set[str] = set()
                    while missing := self._wanted - asked:  # more may be wanted meanwhile
                        await link.subscribe(*sorted(missing))
                        asked |= missing
                    self._link = link
                    pause = FIRST_PAUSE
                    while self._arrive(await link.get_message(timeout=None)):
                        pass
                    await link.unsubscribe()  # or the fake Redis would keep events for this link
                    raise ConnectionError(f"more than {BYTES_WAITING} bytes waited for this server")
            except Exception as error:  # whatever it is, this server must not stay deaf
                had_a_link = self._link is not None
                self._lose_link()
                await self.gate.passed()
                if had_a_link:
                    self._record("disconnect", reason=str(error))
            finally:
                self._lose_link()
            await asyncio.sleep(random.uniform(0, pause))  # so that servers do not return in step
            await self.gate.passed()
            pause = min(2 * pause, LONGEST_PAUSE)

    def _arrive(self, message: dict[str, Any] | None) -> bool:
        """Take a message now or, while the server stands still, let it wait if there is room."""
        if message is None:
            return True
        event = message["data"] if message["type"] == "message" else b""
        self._waiting = self._waiting + len(event) if self.gate.is_shut else 0
        if self._waiting > BYTES_WAITING:
            return False
        self.gate.call(self._take, message)
        return True

    def _take(self, message: dict[str, Any]) -> None:
        channel = message["channel"].decode()
        if message["type"] == "subscribe":
            self._confirm(channel)
        elif message["type"] != "message":
            return
        elif channel == self._own_channel:
            heard = self._syncs.get(message["data"])
            if heard and not heard.done():
                heard.set_result(True)
        elif channel in self._wanted:
            self._hear(channel.removeprefix(self._game_prefix), message["data"])

    def _confirm(self, channel: str) -> None:
        confirmation = self._confirmation(channel)
        if not confirmation.done():
            confirmation.set_result(None)
        if channel == self._own_channel:
            return
        self._record("subscribe", channel)
        if channel in self._confirmed_before:
            self._record("gap", channel)
        self._confirmed_before.add(channel)
        self._subscribed(channel.removeprefix(self._game_prefix))

    def _confirmation(self, channel: str) -> asyncio.Future[None]:
        if self._listener is None:
            raise RedisGone("this server has stopped")
        if channel not in self._confirmed:
            self._confirmed[channel] = asyncio.get_running_loop().create_future()
        return self._confirmed[channel]

    def _lose_link(self) -> None:
        self._link = None
        for channel in [c for c, confirmation in self._confirmed.items() if confirmation.done()]:
            del self._confirmed[channel]
        for heard in self._syncs.values():
            if not heard.done():
                heard.set_result(False)  # it will not come any more

    async def _answer(self, answer: Awaitable[_T]) -> _T:
        """What Redis answers; a server that stands still learns of it when it goes on."""
        try:
            result = await self._in_time(answer)
        except BrokerDown:
            await self.gate.passed()
            raise
        await self.gate.passed()
        return result

    async def _in_time(self, answer: Awaitable[_T]) -> _T:
        """What Redis answers. Raises `BrokerDown` if it is not there or does not answer."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await answer
        except TimeoutError as error:
            what = "has not answered" if self._link else "has been out of reach"
            raise BrokerDown(f"Redis {what} for {ANSWER_TIMEOUT:g} s") from error
        except (RedisError, OSError) as error:
            raise RedisGone(f"Redis is out of reach: {error}") from error

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
