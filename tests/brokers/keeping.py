"""What the tests of the brokers that keep events share."""

from __future__ import annotations

from wsdemo.brokers import Broker
from wsdemo.protocol import Position

__all__ = ["publish"]


async def publish(broker: Broker, *names: int) -> Position:
    """Publish events that are called by numbers, one after the other; the last one's position."""
    for name in names:
        position = (await broker.publish("g", b"%d" % name, f"P1-{name}")).position
    assert position is not None
    return position
