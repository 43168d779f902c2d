"""What of a file would survive a power cut: what has been synced to the disk, and nothing later.

The operating system keeps what a process has written, also when that process is killed. So to see
what a power cut costs, the file has to be cut to what was synced, as LazyFS does for whole file
systems: https://github.com/dsrhaslab/lazyfs
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from wsdemo.changes import Changes
from wsdemo.lifetime import end

__all__ = ["Disk"]

EVERY = 1.0  # seconds: Redis's own `appendfsync everysec`


class Disk:
    """A Redis's append-only file, synced once a second, as Redis itself does with `everysec`.

    When Redis does it, it does not say; so this does it too, and knows up to where.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._synced: dict[Path, int] = {}  # bytes
        self._changes = Changes()
        self._syncing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sync now and then every second, until `stop`."""
        self._syncing = asyncio.create_task(self._sync_every_second(), name="the disk syncs")

    async def stop(self) -> None:
        """Sync no more."""
        await end(self._syncing)
        self._changes.announce()

    async def until_synced(self) -> None:
        """Return once everything that is written now has been synced, or never will be."""
        written, syncing = self._sizes(), self._syncing
        await self._changes.until(
            lambda: (
                syncing is None
                or syncing.done()
                or all(self._synced.get(path, 0) >= size for path, size in written.items())
            )
        )

    def lose_power(self) -> None:
        """Cut off what has not been synced. The process that writes must have ended."""
        for path, size in self._sizes().items():
            if size > self._synced.get(path, 0):
                os.truncate(path, self._synced.get(path, 0))

    async def _sync_every_second(self) -> None:
        while True:
            await asyncio.to_thread(self._sync)
            self._changes.announce()
            await asyncio.sleep(EVERY)

    def _sync(self) -> None:
        for path, size in self._sizes().items():
            with suppress(FileNotFoundError), path.open("rb+") as file:
                os.fsync(file.fileno())
                self._synced[path] = size

    def _sizes(self) -> dict[Path, int]:
        """The files that Redis writes to: since version 7 it is the last increment."""
        found = [*self._folder.glob("appendonlydir/*.incr.aof"), self._folder / "appendonly.aof"]
        return {path: path.stat().st_size for path in found if path.is_file()}
