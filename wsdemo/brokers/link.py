"""A server's link to Redis: its subscriptions, and the way back to them when Redis goes away."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Awaitable, Collection
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from wsdemo.brokers.base import BrokerDown
from wsdemo.gate import Gate
from wsdemo.lifetime import end

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Link", "LinkOwner", "RedisGone"]

_log = logging.getLogger("wsdemo.brokers")

PATIENCE = 5.0  # seconds, at most, to reach Redis and to say what to listen to
FIRST_PAUSE = 0.02  # seconds, at most, before the first attempt to reach a Redis that went away
LONGEST_PAUSE = 0.5  # seconds, at most, between two later ones

_T = TypeVar("_T")


class RedisGone(BrokerDown):
    """There is no Redis at the other end any more."""


class LinkOwner(Protocol):
    """Who has the link, and is told of all that comes through it."""

    @property
    def gate(self) -> Gate:
        """The server's."""

    def arrive(self, link: Link, message: dict[str, Any]) -> bool:
        """Have `link.take` the message, now or later. False if there is no room for it."""

    def heard(self, channel: str, message: bytes) -> None:
        """A message has come on a channel."""

    def confirmed(self, channel: str) -> None:
        """From now on the channel is listened to."""

    def confirmation(self, channel: str) -> asyncio.Future[None]:
        """What `confirmed` sets for the channel. Raises `RedisGone` once all is stopped."""

    def lost(self, channels: Collection[str]) -> None:
        """These are not listened to now: the link is broken, or could not be made."""

    def disconnected(self, channels: Collection[str], reason: str) -> None:
        """A link that stood is broken; this is said only once the gate is open."""

    async def say(self, channel: str, message: bytes) -> int:
        """Publish, in turn."""

    async def answer(self, answer: Awaitable[_T]) -> _T:
        """What Redis answers. Raises `BrokerDown`."""

    async def in_time(self, answer: Awaitable[_T]) -> _T:
        """The same, though the gate is shut."""


class Link:
    """A connection to one Redis, listening to a channel of the server itself and those of games."""

    def __init__(self, redis: Redis, own_channel: str, owner: LinkOwner, *, server: str) -> None:
        self.own_channel = own_channel
        self.channels: set[str] = set()  # of games
        self._redis = redis
        self._owner = owner
        self._server = server
        self._pubsub: PubSub | None = None  # None while Redis is out of reach
        self._syncs: dict[bytes, asyncio.Future[bool]] = {}
        self._sync_ids = itertools.count(1)
        self._said_in_vain = 0  # markers that Redis has taken since one has come back
        self._listener: asyncio.Task[None] | None = None
        self._patience: asyncio.Timeout | None = None  # with the connection to listen on
        self._pause = FIRST_PAUSE
        self._unconfirmed: set[str] = set()  # of what was asked for when the link was made
        self._trouble = ""  # that was logged last

    @property
    def is_up(self) -> bool:
        """Whether Redis is in reach, as far as we know."""
        return self._pubsub is not None

    def reaches(self, channel: str) -> bool:
        """Whether this channel's Redis is: there is only one."""
        return self.is_up

    @property
    def wanted(self) -> set[str]:
        """All channels that it listens to, or will."""
        return {self.own_channel, *self.channels}

    async def start(self) -> None:
        """Listen; return once the channel of this server itself, for its syncs, is confirmed."""
        self.listen()
        await self._owner.answer(asyncio.shield(self._owner.confirmation(self.own_channel)))

    def listen(self) -> None:
        """Listen, from now on and again after each break."""
        self._listener = asyncio.create_task(self._listen(), name=f"{self._server} listens")

    async def stop(self) -> None:
        """End all subscriptions, and listen no more."""
        if self._pubsub:
            with suppress(BrokerDown):
                await self._owner.in_time(self._unsubscribe(self._pubsub))
        await end(self._listener)
        self._listener = None

    async def subscribe(self, channel: str) -> None:
        """SUBSCRIBE, now or once Redis is back."""
        self.channels.add(channel)
        if self._pubsub:
            await self._owner.answer(self._subscribe(self._pubsub, channel))

    async def unsubscribe(self, channel: str) -> None:
        """UNSUBSCRIBE. A Redis that is away has forgotten this server already."""
        self.channels.discard(channel)
        if self._pubsub:
            with suppress(BrokerDown):
                await self._owner.answer(self._unsubscribe(self._pubsub, channel))

    async def sync(self) -> None:
        """Wait until a marker has come back: Redis keeps the order of what it passes on.

        A Redis that is away has nothing to pass on; one that is back is waited for.
        """
        with suppress(RedisGone):
            while self._listener and not await self.hears_itself():
                pass  # the link broke meanwhile

    async def hears_itself(self) -> bool:
        """Whether a marker comes back; not so if the link breaks before it does."""
        if not self._pubsub:
            await self._owner.answer(self._redis.ping())
            for channel in sorted(self.wanted):
                await self._owner.answer(asyncio.shield(self._owner.confirmation(channel)))
        marker = b"sync %d" % next(self._sync_ids)
        heard = self._syncs[marker] = asyncio.get_running_loop().create_future()
        try:
            await self._owner.say(self.own_channel, marker)
            self._said_in_vain += not heard.done()
            return await self._owner.answer(heard)
        finally:
            del self._syncs[marker]

    def listen_anew(self) -> None:
        """Give up a connection on which nothing comes, though Redis takes what is said.

        Some networks drop a connection, and tell neither end: then it stands as ever, for whoever
        only listens. Where Redis does not answer, it is no better to have another one.
        """
        is_dead = self._said_in_vain > 1  # once, it may be on its way
        if is_dead and self._pubsub and self._patience and not self._patience.expired():
            self._patience.reschedule(0)

    def take(self, message: dict[str, Any]) -> None:
        """Do what is to be done about a message that has arrived."""
        channel = message["channel"].decode()
        match message["type"]:
            case "subscribe" | "ssubscribe" if channel in self.wanted:
                self._answered(channel)
                self._owner.confirmed(channel)
            case "message" | "smessage" if channel == self.own_channel:
                self._said_in_vain = 0
                heard = self._syncs.get(message["data"])
                if heard and not heard.done():
                    heard.set_result(True)
            case "message" | "smessage":
                self._owner.heard(channel, message["data"])

    async def _listen(self) -> None:
        """Keep a link to Redis for as long as the server lives, and relay what comes through it."""
        while True:
            try:
                async with asyncio.timeout(PATIENCE) as self._patience:
                    await self._listen_once(self._patience)
            except Exception as error:  # whatever it is, this server must not stay deaf
                had_a_link = self.is_up
                reason = str(error) or "nothing comes on this connection"
                self._complain(error, reason)
                self._lose()
                await self._owner.gate.passed()
                if had_a_link:
                    self._owner.disconnected(self.channels, reason)
            finally:
                self._lose()
            # so that servers do not return in step
            await asyncio.sleep(random.uniform(0, self._pause))
            await self._owner.gate.passed()
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    async def _listen_once(self, patience: asyncio.Timeout) -> None:
        """Listen on one connection, until it breaks."""
        async with self._redis.pubsub() as pubsub:
            asked: set[str] = set()
            while missing := self.wanted - asked:  # more may be wanted meanwhile
                self._unconfirmed |= missing
                await self._subscribe(pubsub, *sorted(missing))
                asked |= missing
            self._pubsub = pubsub
            patience.reschedule(None)
            while self._arrive(await self._next(pubsub)):
                pass
            await self._unsubscribe(pubsub)  # or the fake Redis would keep events for this link
            raise ConnectionError("more waited for this server than there is room for")

    def _answered(self, channel: str) -> None:
        """Once all are, there is a link: to have asked is not enough, for Redis may refuse."""
        self._unconfirmed.discard(channel)
        if not self._unconfirmed:
            self._pause = FIRST_PAUSE
            self._trouble = ""

    def _complain(self, error: Exception, reason: str) -> None:
        """Log each break of a link, but not each try to make one: they fail alike."""
        trouble = f"{type(error).__name__}: {reason}"
        if trouble != self._trouble:
            self._trouble = trouble
            is_ours = not isinstance(error, (RedisError, OSError))
            words = "server %s does not hear Redis: %s"
            _log.warning(words, self._server, trouble, exc_info=error if is_ours else None)

    async def _subscribe(self, pubsub: PubSub, *channels: str) -> None:
        await pubsub.subscribe(*channels)

    async def _unsubscribe(self, pubsub: PubSub, *channels: str) -> None:
        await pubsub.unsubscribe(*channels)

    async def _next(self, pubsub: PubSub) -> dict[str, Any] | None:
        message: dict[str, Any] | None = await pubsub.get_message(timeout=None)
        return message

    def _arrive(self, message: dict[str, Any] | None) -> bool:
        return message is None or self._owner.arrive(self, message)

    def _lose(self) -> None:
        self._pubsub = None
        self._unconfirmed.clear()
        self._fail_syncs()
        self._owner.lost(self.wanted)

    def _fail_syncs(self) -> None:
        self._said_in_vain = 0
        for heard in self._syncs.values():
            if not heard.done():
                heard.set_result(False)  # it will not come any more
