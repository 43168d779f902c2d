"""One trace of what happened in several processes, in the order in which it happened.

All processes of a machine read the same clock (`time.perf_counter`), so the order is that of the
times. A record is held back until no process can have an earlier one: each says now and then how
far it is, and is asked to as long as something is held back.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Any

from wsdemo.changes import Changes
from wsdemo.trace import Kind, Trace

__all__ = ["MergedTrace", "Source"]


class Source:
    """Another process that records. It is asked how far it is, and says so to `reach`."""

    def __init__(self, trace: MergedTrace, ask: Callable[[], None]) -> None:
        self._trace = trace
        self._ask = ask
        self._is_asked = False
        self.reached = trace.now()
        """It will have nothing earlier than this; in seconds since the trace began."""

    def add(
        self, t: float, kind: Kind, at: str, peer: str, event: str, data: dict[str, Any]
    ) -> None:
        """Something happened there, at this time."""
        self.reached = max(self.reached, t)
        self._trace.hold(t, kind, at, peer, event, data)

    def reach(self, t: float) -> None:
        """It is so far."""
        self._is_asked = False
        self.reached = max(self.reached, t)
        self._trace.release()

    def pause(self) -> None:
        """It stands still, and nobody waits for it."""
        self.reached = math.inf
        self._trace.release()

    def resume(self) -> None:
        """It goes on."""
        self._is_asked = False
        self.reached = self._trace.now()

    def ask(self) -> None:
        """Ask it how far it is, unless it is asked already or stands still."""
        if not self._is_asked and not math.isinf(self.reached):
            self._is_asked = True
            self._ask()


class MergedTrace(Trace):
    """A trace to which other processes add."""

    def __init__(self, /, **about: Any) -> None:
        super().__init__(**about)
        self._sources: set[Source] = set()
        self._held: list[tuple[float, int, tuple[Any, ...]]] = []  # a heap, earliest first
        self._wanted = 0.0  # how far somebody waits for every process to be
        self._turns = itertools.count()
        self._released = Changes()

    def source(self, ask: Callable[[], None]) -> Source:
        """One more process that adds to it, until `leave`."""
        source = Source(self, ask)
        self._sources.add(source)
        return source

    def leave(self, source: Source) -> None:
        """That process adds nothing any more."""
        self._sources.discard(source)
        self.release()

    def append(self, kind: Kind, at: str, peer: str = "", event: str = "", /, **data: Any) -> None:
        """Record that `kind` happened at `at`, in this process."""
        self.hold(self.now(), kind, at, peer, event, data)

    def hold(
        self, t: float, kind: Kind, at: str, peer: str, event: str, data: dict[str, Any]
    ) -> None:
        """Record something that happened at this time, once its turn comes."""
        if self._ended:
            return
        heapq.heappush(self._held, (t, next(self._turns), (kind, at, peer, event, data)))
        self.release()

    def release(self) -> None:
        """Record what is held back and comes before all that can still come."""
        self._record(min((source.reached for source in self._sources), default=math.inf))
        for source in self._sources:
            if self._held or source.reached < self._wanted:
                source.ask()
        self._released.announce()

    async def collect(self) -> None:
        """Return once all that has happened up to now, in any process, is recorded."""
        now = self._wanted = self.now()
        self.release()
        await self._released.until(lambda: not self._is_behind(now))

    def end(self) -> None:
        """The run is over: what is held back is recorded, and nothing more."""
        self._record(math.inf)
        super().end()

    def _is_behind(self, t: float) -> bool:
        return any(source.reached < t for source in self._sources) and not self._ended

    def _record(self, up_to: float) -> None:
        while self._held and self._held[0][0] <= up_to:
            t, _, record = heapq.heappop(self._held)
            # One that a process said late, which stood still meanwhile, comes after what stands.
            self._add(max(t, self[-1].t if len(self) else t), *record)
