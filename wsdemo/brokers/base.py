"""The seam between a server and whatever carries events from server to server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from wsdemo.gate import Gate

__all__ = ["Broker", "BrokerDown", "Relay"]

Relay = Callable[[str, bytes], None]
"""What a server does with an event that reaches it: (game, the event's frame)."""


class BrokerDown(ConnectionError):
    """The broker could not carry out what was asked of it; the text says why."""


class Broker(ABC):
    """One server's way to the others.

    `hub` names the part that events pass through between servers; it is empty where there is none.
    """

    name: ClassVar[str]
    hub: ClassVar[str]

    def __init__(self) -> None:
        self.gate = Gate()
        """Its server's own, shut while that stands still: then nothing is relayed or answered."""

    async def start(self, relay: Relay) -> None:
        """Be ready to publish and to subscribe. From now on `relay` is called with each event."""
        self._relay = relay

    def forsake(self) -> None:
        """Its server is dead: from now on nothing is relayed, and nothing recorded."""
        self._relay = lambda game, payload: None

    async def stop(self) -> None:  # noqa: B027 - most have something to close, not all
        """Release connections and tasks."""

    @abstractmethod
    async def subscribe(self, game: str) -> None:
        """Hear the game's events. On return the subscription is confirmed. Raises `BrokerDown`."""

    @abstractmethod
    async def unsubscribe(self, game: str) -> None:
        """Hear the game's events no more."""

    @abstractmethod
    async def publish(self, game: str, payload: bytes) -> int:
        """Send an event to every server that is subscribed, this one included.

        Returns how many received it, as far as the broker can tell. Raises `BrokerDown`.
        """

    @abstractmethod
    async def sync(self) -> None:
        """Return once each event published before this call has been relayed here, or is lost."""
