"""No broker: an event reaches the players of this server, and nobody else."""

from __future__ import annotations

from typing import ClassVar

from wsdemo.brokers.base import Broker, Receipt

__all__ = ["LocalBroker"]


class LocalBroker(Broker):
    """Hands each event straight back to the server it came from."""

    name: ClassVar[str] = "none"
    hub: ClassVar[str] = ""

    async def subscribe(self, game: str) -> None:
        """Nothing to do: there is nobody to hear."""

    async def unsubscribe(self, game: str) -> None:
        """Nothing to do."""

    async def publish(self, game: str, payload: bytes, event: str = "") -> Receipt:
        """Relay on this server."""
        self._relay(game, payload, None, "", 0)
        return Receipt(receivers=1)

    async def sync(self) -> None:
        """Nothing to wait for: `publish` has already relayed."""
