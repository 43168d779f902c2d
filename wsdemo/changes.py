"""Waiting for something to be true, without looking at it again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Changes"]


class Changes:
    """Wakes whoever waits for a condition, each time something changes that may fulfil it."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def announce(self) -> None:
        """Something has changed."""
        changed, self._next = self._next, asyncio.Event()
        changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds."""
        while not condition():
            await self._next.wait()
