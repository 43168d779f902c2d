"""The gate that all that comes to a server passes: while it is shut, the server stands still."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Gate"]


class Gate:
    """Open at first. What comes while it is shut waits, and goes on in order when it opens."""

    def __init__(self) -> None:
        self.is_shut = False
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...], bool]] = deque()
        self._opened = asyncio.Event()

    def shut(self) -> None:
        """Nothing passes from now on."""
        self.is_shut = True
        self._opened = asyncio.Event()

    def open(self) -> None:
        """What waits goes on: first the tasks that were in the middle of something."""
        self.is_shut = False
        self._opened.set()
        while self._waiting:
            action, arguments, _ = self._waiting.popleft()
            action(*arguments)

    def drop(self) -> None:
        """Open, but what waits is never done, unless it was to be done in any case."""
        self._waiting = deque(each for each in self._waiting if each[2])
        self.open()

    def call(
        self, action: Callable[..., object], *arguments: Any, in_any_case: bool = False
    ) -> None:
        """Do something now, or once the gate opens."""
        if self.is_shut:
            self._waiting.append((action, arguments, in_any_case))
        else:
            action(*arguments)

    async def passed(self) -> None:
        """Return at once, or once the gate opens."""
        while self.is_shut:
            await self._opened.wait()
