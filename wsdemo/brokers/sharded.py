"""The links of a server to a Redis Cluster: one to each node that has some of its games.

Sharded Pub/Sub: a channel has a slot, as a key has, and what is published on it (SPUBLISH) goes to
those who are subscribed to it at the node with that slot (SSUBSCRIBE), and to no other node.
https://redis.io/docs/latest/develop/pubsub/#sharded-pubsub

Each link breaks and comes back by itself, and the games of the other nodes do not notice. When a
slot moves to another node, the old one ends the subscriptions in it; they are made anew at the new
one, and what is published in between is lost, which is recorded as any other gap is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Collection, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import MovedError, RedisError

from wsdemo.brokers.base import BrokerDown
from wsdemo.brokers.link import LONGEST_PAUSE, Link, LinkOwner
from wsdemo.gate import Gate
from wsdemo.lifetime import end
from wsdemo.redis.shards import Address, ShardedRedis

__all__ = ["ShardedLink"]

_log = logging.getLogger("wsdemo.brokers")

_T = TypeVar("_T")


class ShardedLink:
    """All of a server's links to the nodes of a cluster, to be used like a link to one Redis.

    The server says something to itself through each that has games, and each has to be heard. To
    whom a channel belongs is looked up again whenever there is doubt: a link is broken, a slot was
    withdrawn, nothing is heard.
    """

    def __init__(
        self, redis: ShardedRedis, own_channel: str, owner: LinkOwner, *, server: str
    ) -> None:
        self._redis = redis
        self._own_channel = own_channel
        self._owner = owner
        self._server = server
        self._links: dict[Address, _NodeLink] = {}
        self._homes: dict[str, _NodeLink | None] = {}  # of the games' channels
        self._is_in_doubt = False
        self._stirred = asyncio.Event()
        self._settled = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._next_doubt: asyncio.TimerHandle | None = None

    @property
    def is_up(self) -> bool:
        """Whether all nodes with games are in reach."""
        return all(home and home.is_up for home in self._homes.values())

    def reaches(self, channel: str) -> bool:
        """Whether the channel's node is."""
        home = self._homes.get(channel)
        return home is not None and home.is_up

    async def start(self) -> None:
        """See who has which slots."""
        await self._owner.answer(self._redis.look())
        self._settled.set()
        self._keeper = asyncio.create_task(self._keep_up(), name=f"{self._server} follows slots")

    async def stop(self) -> None:
        """End all links."""
        await end(self._keeper)
        self._keeper = None
        if self._next_doubt:
            self._next_doubt.cancel()
        await asyncio.gather(*(link.stop() for link in self._links.values()))

    async def subscribe(self, channel: str) -> None:
        """SSUBSCRIBE at the node that has the channel's slot."""
        self._homes.setdefault(channel, None)
        await self._bring_home(channel)
        if not self._homes.get(channel):
            self._doubt()

    async def unsubscribe(self, channel: str) -> None:
        """SUNSUBSCRIBE there."""
        home = self._homes.pop(channel, None)
        if home:
            await home.unsubscribe(channel)

    async def sync(self) -> None:
        """Sync with each node that has games, once no slot is being followed any more."""
        is_sure = False
        while self._keeper and not is_sure:
            await self._owner.answer(self._settled.wait())
            await _all(link.sync() for link in self._with_games())
            is_sure = self._settled.is_set()

    async def hears_itself(self) -> bool:
        """Whether a marker comes back through each; without a game, whether the cluster answers."""
        heard = False
        try:
            if not self._homes:
                await self._owner.answer(self._redis.look())
            markers = await _all(link.hears_itself() for link in self._with_games())
            heard = all(markers) and all(self._homes.values())
        finally:
            if not heard:
                self._doubt()
        return heard

    def listen_anew(self) -> None:
        """Give up each node's connection that is dead, and no other."""
        for link in self._with_games():
            link.listen_anew()

    def _with_games(self) -> list[_NodeLink]:
        return [link for link in self._links.values() if link.channels]

    # Following the slots

    async def _keep_up(self) -> None:
        """Whenever there is doubt, look who has which slots, and go there."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            try:
                await self._follow()
            except Exception:  # whatever it is, this server must go on following
                _log.exception("server %s cannot follow the cluster's slots", self._server)
            if not self._stirred.is_set():
                self._settled.set()
            if not all(self._homes.values()):  # nobody has its slot
                self._doubt_later()

    async def _follow(self) -> None:
        if self._is_in_doubt:
            self._is_in_doubt = False
            with suppress(RedisError, OSError, TimeoutError):  # the links will try again, and ask
                await self._redis.look()
        for channel in tuple(self._homes):
            with suppress(BrokerDown):
                await self._bring_home(channel)
        for address in tuple(self._links):
            with suppress(BrokerDown):
                await self._see_to_link(address)

    async def _bring_home(self, channel: str) -> None:
        """Have a channel, if it is still wanted, on the link to the node that has its slot now."""
        address = self._redis.owner(channel)
        if channel not in self._homes:
            return
        if address is None:
            if before := self._homes[channel]:
                self._take_from(before, channel, "no node has its slot")
            return
        home, before = self._link_to(address), self._homes[channel]
        if home is not before:
            if before:
                self._take_from(before, channel, "its slot has moved")
            self._homes[channel] = home
            await home.subscribe(channel)

    def _link_to(self, address: Address) -> _NodeLink:
        if address not in self._links:
            own_channel = self._redis.name_at(address, self._own_channel) or self._own_channel
            redis = self._redis.client(address)
            link = _NodeLink(address, redis, own_channel, self, server=self._server)
            self._links[address] = link
            link.listen()
        return self._links[address]

    async def _see_to_link(self, address: Address) -> None:
        """Let go of a node that has no game here and is away; keep another one's own channel."""
        link = self._links[address]
        if not link.channels and not link.is_up:
            del self._links[address]
            await link.stop()
        elif not link.can_call_itself or self._redis.owner(link.own_channel) != address:
            own_channel = self._redis.name_at(address, self._own_channel)
            if own_channel:  # or it has no slot any more
                await link.call_itself(own_channel)

    def _take_from(self, link: _NodeLink, channel: str, reason: str) -> None:
        link.drop(channel)
        self._homes[channel] = None
        self._owner.lost({channel})
        self._owner.disconnected({channel}, reason)

    def _doubt(self) -> None:
        self._is_in_doubt = True
        self._stir()

    def _doubt_later(self) -> None:
        """Ask again in a while, however many have found that a slot is nobody's."""
        if self._next_doubt is None:
            loop = asyncio.get_running_loop()
            self._next_doubt = loop.call_later(LONGEST_PAUSE, self._doubt_again)

    def _doubt_again(self) -> None:
        self._next_doubt = None
        self._doubt()

    def _stir(self) -> None:
        self._settled.clear()
        self._stirred.set()

    # What the links tell

    @property
    def gate(self) -> Gate:
        """The server's."""
        return self._owner.gate

    def withdrawn(self, link: _NodeLink, channel: str) -> None:
        """A node has ended a subscription, for it has lost the slot."""
        if channel == link.own_channel:
            link.can_call_itself = False
        else:
            self._take_from(link, channel, "its slot has moved")
        self._doubt()

    def refused(self, link: _NodeLink, moved: MovedError) -> None:
        """A node has not begun one, for it has not the slot, and says who has."""
        self._redis.learn(moved, link.address)
        for channel in link.unconfirmed():
            if self._redis.owner(channel) != link.address:
                link.drop(channel)
                self._homes[channel] = None
        self._stir()

    def lost(self, channels: Collection[str]) -> None:
        """A node may be gone for good, and its slots be elsewhere."""
        self._owner.lost(channels)
        self._doubt()

    def disconnected(self, channels: Collection[str], reason: str) -> None:
        """Only these channels' node is gone."""
        self._owner.disconnected(channels, reason)

    def arrive(self, link: Link, message: dict[str, Any]) -> bool:
        """All links share the room that there is."""
        return self._owner.arrive(link, message)

    def heard(self, channel: str, message: bytes) -> None:
        """Whichever link it came through."""
        self._owner.heard(channel, message)

    def confirmed(self, channel: str) -> None:
        """Likewise."""
        self._owner.confirmed(channel)

    def confirmation(self, channel: str) -> asyncio.Future[None]:
        """Likewise."""
        return self._owner.confirmation(channel)

    async def say(self, channel: str, message: bytes) -> int:
        """SPUBLISH, in its node's turn."""
        return await self._owner.say(channel, message)

    async def answer(self, answer: Awaitable[_T]) -> _T:
        """What the node answers."""
        return await self._owner.answer(answer)

    async def in_time(self, answer: Awaitable[_T]) -> _T:
        """The same, though the gate is shut."""
        return await self._owner.in_time(answer)


class _NodeLink(Link):
    """A link to one node, whose channels may be given to another one."""

    _owner: ShardedLink

    def __init__(
        self, address: Address, redis: Redis, own_channel: str, owner: ShardedLink, *, server: str
    ) -> None:
        super().__init__(redis, own_channel, owner, server=server)
        self.address = address
        self.can_call_itself = True
        """Whether its own channel, too, is this node's, as far as we know."""
        self._unanswered = Counter[str]()  # SSUBSCRIBEs

    def unconfirmed(self) -> list[str]:
        """The games' channels that the node has been asked for in vain so far."""
        return [channel for channel in self.channels if self._unanswered[channel] > 0]

    def drop(self, channel: str) -> None:
        """The channel is another node's: there is nothing to be ended here."""
        self.channels.discard(channel)
        del self._unanswered[channel]
        self._answered(channel)

    async def call_itself(self, own_channel: str) -> None:
        """Have another channel for what the server says to itself: this one is not here now."""
        self._fail_syncs()
        self._owner.lost({self.own_channel})
        del self._unanswered[self.own_channel]
        self._answered(self.own_channel)
        self.own_channel = own_channel
        self.can_call_itself = True
        if self._pubsub:
            await self._owner.answer(self._subscribe(self._pubsub, own_channel))

    def take(self, message: dict[str, Any]) -> None:
        """A subscription that nobody here has ended was ended by the node."""
        channel = message["channel"].decode()
        match message["type"]:
            case "ssubscribe":
                self._unanswered[channel] -= 1
            case "sunsubscribe" if channel in self.wanted and self._unanswered[channel] < 1:
                self._owner.withdrawn(self, channel)
        super().take(message)

    async def _subscribe(self, pubsub: PubSub, *channels: str) -> None:
        for channel in channels:  # one by one: in one command, all must have the same slot
            self._unanswered[channel] += 1
            await pubsub.ssubscribe(channel)

    async def _unsubscribe(self, pubsub: PubSub, *channels: str) -> None:
        await pubsub.sunsubscribe(*channels)

    async def _next(self, pubsub: PubSub) -> dict[str, Any] | None:
        while True:
            try:
                return await super()._next(pubsub)
            except MovedError as moved:  # the link stands: it was about one channel
                self._owner.refused(self, moved)

    def _lose(self) -> None:
        self._unanswered.clear()
        super()._lose()


async def _all(actions: Iterable[Awaitable[_T]]) -> list[_T]:
    """Do all of it, and only then raise what went wrong first."""
    tasks = [asyncio.ensure_future(action) for action in actions]
    await asyncio.gather(*tasks, return_exceptions=True)
    return [task.result() for task in tasks]
