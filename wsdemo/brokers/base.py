"""The seam between a server and whatever carries events from server to server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from wsdemo.gate import Gate
from wsdemo.protocol import Position

__all__ = [
    "Broker",
    "BrokerDown",
    "GameFull",
    "Receipt",
    "Relay",
    "Resumption",
    "Skip",
    "reason_of_gap",
]

NO_BOUND = 2**53

Relay = Callable[[str, bytes, int | None, str, int], None]
"""What a server does with an event: (game, the event's frame, its number, for which player, hops).

Without a number it has none, and without a player it is for all of the game that are here. The hops
are those that it took from server to server.
"""

Skip = Callable[[str, Position, str, str], None]
"""What a server does when events are lost: (game, where it goes on, why, for which player).

Without a reason nothing is, and only the epoch has another name.
"""


class BrokerDown(ConnectionError):
    """The broker could not carry out what was asked of it; the text says why.

    It may have done so all the same: only its answer is missing. Players are told the text, so it
    is plain words: what only whoever runs the broker may know is logged.
    """


class GameFull(Exception):
    """A game has as many players as it may, with those who are away and may come back."""


@dataclass(frozen=True)
class Receipt:
    """What a broker says of an event that it has taken."""

    receivers: int | None = None
    """To how many subscribers it was handed, where the broker then forgets it."""
    position: Position | None = None
    """The event's own, where the broker keeps it."""
    is_new: bool = True
    """False if an event of this name was there already; the position is that one's."""
    kept: int | None = None
    """How many events the broker now keeps, if it says so."""


@dataclass(frozen=True)
class Resumption:
    """Where a player's hearing goes on: after `position`, with `missed`, then with what is relayed.

    Without a position there is no memory of anything; `recovered` is None if nothing was to be.
    """

    position: Position | None = None
    recovered: bool | None = None
    reason: str = ""
    missed: Sequence[tuple[int, bytes]] = ()
    has_more: bool = False
    """Whether even then something is missing: resume again, from `end`."""

    @property
    def end(self) -> Position | None:
        """After the last of `missed`."""
        if self.position is None or not self.missed:
            return self.position
        return Position(self.position.epoch, self.missed[-1][0])


class Broker(ABC):
    """One server's way to the others.

    `hub` names the part that events pass through between servers; it is empty where there is none.
    """

    name: ClassVar[str]
    hub: ClassVar[str]
    wants_acks: ClassVar[bool] = False

    def __init__(self) -> None:
        self.gate = Gate()
        """Its server's own, shut while that stands still: then nothing is relayed or answered."""
        self.received = 0
        """How many messages other than its own have come to it from between the servers."""
        self.max_players = NO_BOUND
        """How many a game may have, on all servers and away, if something is kept for each."""

    async def start(self, relay: Relay, skip: Skip = lambda *gap: None) -> None:
        """Be ready to publish and to subscribe.

        From now on `relay` is called with each event, and `skip` when some will never come.
        """
        self._relay = relay
        self._skip = skip

    def forsake(self) -> None:
        """Its server is dead: from now on nothing is relayed, and nothing recorded."""
        self._relay = lambda *event: None
        self._skip = lambda *gap: None

    async def stop(self) -> None:  # noqa: B027 - most have something to close, not all
        """Release connections and tasks."""

    @abstractmethod
    async def subscribe(self, game: str) -> None:
        """Hear the game's events. On return the subscription is confirmed. Raises `BrokerDown`."""

    @abstractmethod
    async def unsubscribe(self, game: str) -> None:
        """Hear the game's events no more."""

    @abstractmethod
    async def publish(self, game: str, payload: bytes, event: str) -> Receipt:
        """Send an event to every server that is subscribed, this one included.

        `event` is its name, by which a broker that keeps events knows a retry. Raises `BrokerDown`.
        """

    async def resume(self, game: str, player: str, since: Position | None) -> Resumption:
        """What a player of a subscribed game has missed since then.

        Raises `BrokerDown`, and `GameFull` if nothing more can be kept for a new player.

        All that is relayed after this returns is for the player too, if it is registered at once.
        """
        return Resumption()

    def acknowledge(self, game: str, player: str, seq: int) -> None:  # noqa: B027 - nothing is kept
        """The player has heard everything up to this number."""

    def detach(self, game: str, player: str) -> None:  # noqa: B027 - nothing is kept
        """The player is on this server no more, and may come back on any."""

    async def forget(self, game: str, player: str) -> None:  # noqa: B027 - nothing is kept
        """The player has left for good."""

    async def hears_itself(self, seconds: float) -> bool:
        """Whether what it says comes back to it within so many seconds."""
        return True

    def listen_anew(self) -> None:  # noqa: B027 - most have nothing that could be dead
        """It has not heard itself for long: listen on another connection, if this one is dead."""

    @abstractmethod
    async def sync(self) -> None:
        """Return once each event published before this call has been relayed here, or is lost."""


def reason_of_gap(since: Position, start: Position, lost: int = 0) -> str:
    """Why hearing goes on at `start`, and not where it ended; empty if that is the same.

    "new epoch": Redis has lost what it had, or its end, up to the number `lost`; "trimmed": it has
    kept later ones only.
    """
    if since == start:
        return ""
    is_later = since.epoch == start.epoch and since.seq < start.seq
    return "trimmed" if is_later and not since.seq < lost <= start.seq else "new epoch"
