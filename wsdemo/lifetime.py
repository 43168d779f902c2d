"""What starts, runs and stops, and does so with `async with`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

__all__ = ["Lifetime", "end"]


class Lifetime(ABC):
    """Runs from `start()` to `stop()`."""

    @abstractmethod
    async def start(self) -> None:
        """Be ready on return."""

    @abstractmethod
    async def stop(self) -> None:
        """Leave nothing behind; nothing happens if it is not running."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


async def end(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task until it has ended: now and then a client library swallows it."""
    while task and not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.05)
