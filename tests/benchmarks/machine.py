"""How much of the machine other programs take: a rate that fails then says nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

import psutil

__all__ = ["Look", "Machine"]

DISTURBED = 0.1  # of all processors' time, taken by others


@dataclass(frozen=True)
class Look:
    """The clocks of one moment, in seconds: the wall's, that of all programs, our own."""

    wall: float
    busy: float
    own: float


@dataclass
class Machine:
    """Watches for others' work. What it spoils is done again, for so many seconds in all."""

    patience: float
    shares: list[float] = field(default_factory=list)
    """What others took of the machine, during each try."""
    spoiled: int = 0
    """Tries that failed, counted, and may have failed because of others."""

    def look(self) -> Look:
        """The clocks now. Of our own work, also that of our children and theirs."""
        all_times = psutil.cpu_times()
        # What the kernel does for interrupts, as on loopback, belongs to no process.
        busy = all_times.user + all_times.system + getattr(all_times, "nice", 0.0)
        busy += getattr(all_times, "steal", 0.0)
        me = psutil.Process()
        own = 0.0
        for process in [me, *me.children(recursive=True)]:
            times = process.cpu_times()
            own += times.user + times.system
        return Look(monotonic(), busy, own)

    def spoils(self, before: Look, holds: bool) -> bool:
        """Whether a try that began then has to be done again."""
        now = self.look()
        wall = max(1e-9, now.wall - before.wall)
        work = (now.busy - before.busy) - (now.own - before.own)
        share = work / wall / (psutil.cpu_count() or 1)
        self.shares.append(min(max(0.0, share), 1.0))  # clocks that tick are not exact
        if holds or self.shares[-1] < DISTURBED:
            return False
        if self.patience <= 0:
            self.spoiled += 1
            return False
        self.patience -= wall
        return True
