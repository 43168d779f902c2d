"""The barrier that `settle` goes through: the same sockets and the same broker, not a pause."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from functools import partial
from typing import Any

from wsdemo.balancer import Balancer
from wsdemo.parts import Parts, Server
from wsdemo.player import NotConnected, Player

__all__ = ["Barrier"]


class _PartsChanged(Exception):
    """A part was broken or healed meanwhile."""


class Barrier:
    """To be passed once by every player and every server that can.

    A frozen server is left out, and so is whoever waits for its answer: nothing more can happen to
    them until somebody thaws it. A frozen Redis is waited for until the servers give it up: so
    long, something can still happen. `under_way` says in words what is still waited for.
    """

    def __init__(self, players: Iterable[Player], parts: Parts) -> None:
        self._players = list(players)
        self._parts = parts
        self.under_way: set[str] = set()

    async def passed(self) -> bool:
        """Whether everyone got all the way through; not so if something broke or healed meanwhile.

        Raises `TimeoutError` if a broker does not answer.
        """
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch_the_parts())
                await self._pass()
                watch.cancel()
        except ExceptionGroup as errors:
            _, others = errors.split((NotConnected, _PartsChanged))
            if others:
                self.under_way.update(str(error) for error in _leaves(others))
                raise TimeoutError from others
            self.under_way.clear()
            return False
        return True

    async def _watch_the_parts(self) -> None:
        before = self._parts.conditions()
        await self._parts.changes.until(lambda: self._parts.conditions() != before)
        raise _PartsChanged

    async def _pass(self) -> None:
        await self._all(
            self._wait(
                f"{player.name} is on its way to a connection", partial(self._arrive, player)
            )
            for player in self._players
            if player.coming_back and not player.is_cut_off
        )
        await self._all(
            self._wait(f"{player.name} is leaving", player.parted)
            for player in self._players
            if player.left and not self._is_held_up(player)
        )
        await self._all(
            self._wait(
                f"an old connection of {player.name} is still open", partial(self._be_one, player)
            )
            for player in self._players
        )
        await self._all(
            self._wait(f"{player.name} waits to be told that its event is kept", player.confirmed)
            for player in self._players
            if player.unconfirmed and self._can_be_confirmed(player)
        )
        # What was said has been published; what was published, heard; what was heard, acknowledged.
        for _ in range(3 if self._parts.trace.about["broker"] == "queue" else 2):
            await self._sync()
            if self._parts.redis_state == "frozen":
                return  # nothing more comes through it

    async def _sync(self) -> None:
        through_players = [
            self._wait(f"{player.name} has no answer from server {player.server}", player.sync)
            for player in self._players
            if not player.left
            and (player.connected or player.coming_back)
            and not self._is_held_up(player)
        ]
        through_servers = [  # for clients that are none of ours
            self._wait(f"server {server.name} has no answer from its broker", server.sync)
            for server in self._parts.are("up")
        ]
        await self._all([*through_players, *through_servers])

    def _is_held_up(self, player: Player) -> bool:
        """Whether it waits for a server that is frozen, in its game or at the door."""
        if player.is_cut_off:
            return True
        name = player.server or self._parts.balancer.server_of(player.call)
        return any(server.name == name for server in self._parts.are("frozen"))

    def _can_be_confirmed(self, player: Player) -> bool:
        """Whether it can reach a Redis that answers, or will by itself."""
        server = player.server or self._parts.balancer.server_of(player.call)
        if self._parts.redis_state != "up" or self._parts.is_cut_from_redis(server):
            return False
        return (player.connected or player.coming_back) and not self._is_held_up(player)

    async def _arrive(self, player: Player) -> None:
        """Return once it is connected, or held up."""
        ends = [
            asyncio.create_task(player.welcomed()),
            asyncio.create_task(self._parts.balancer.until(lambda: self._is_held_up(player))),
        ]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                end.result()
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    async def _be_one(self, player: Player) -> None:
        """Return once no part takes a connection for open that the player has left behind."""
        former = set(player.former_calls)
        unaware = set[str]().union(*(server.calls for server in self._parts.are("frozen")))
        parts: list[Server | Balancer] = [*self._parts.are("up"), self._parts.balancer]
        for part in parts:
            await part.until(lambda: former.isdisjoint(part.calls))  # noqa: B023
        player.former_calls -= former - unaware

    async def _wait(self, what: str, for_what: Callable[[], Awaitable[None]]) -> None:
        self.under_way.add(what)
        try:
            await for_what()
        except NotConnected:
            raise
        except ConnectionError:  # in a server's words, its broker does not answer
            if self._parts.redis_state != "frozen":
                raise
        self.under_way.discard(what)

    async def _all(self, waits: Iterable[Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for wait in waits:
                group.create_task(wait)


def _leaves(errors: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in errors.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
