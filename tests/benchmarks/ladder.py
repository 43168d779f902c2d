"""The highest rate that holds, on a ladder of rates that is the same for everybody."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import sleep

from tests.benchmarks.driver import Crowd, Lost, Step
from tests.benchmarks.machine import Machine
from tests.benchmarks.servers import Servers

__all__ = ["Climb", "highest", "rung"]

LOWEST = 5.0  # events a second, in all
FACTOR = 1.05  # from one rung to the next
DOUBLE = 14  # rungs in which the rate doubles
FIRST = 3 * DOUBLE  # the rung to begin with, if nothing is known
TRIES = 3
OPENINGS = 5  # tries to find everybody registered, on servers that still have much to do
LONG_REST = 1.0  # seconds after one at which a server let go of clients


def rung(number: int) -> float:
    """Events a second; 0 below the ladder."""
    return LOWEST * FACTOR**number if number >= 0 else 0.0


def highest(start: int, stride: int) -> Generator[int, bool, int]:
    """Find the highest rung that holds: yields a rung, and is sent whether it does.

    From the start in strides that grow, though up to a doubling of the rate at most, until there is
    one that holds and one that does not; then halves what is between. Returns -1 if none holds.
    """
    below, above, number = -1, None, max(0, start)
    while above is None or above - below > 1:
        if (yield number):
            below = number
        else:
            above = number
        if above is None:
            number = below + stride
        elif below < 0:
            number = max(0, above - stride)
        else:
            number = (below + above) // 2
        stride = min(2 * stride, DOUBLE)
    return below


@dataclass
class Climb:
    """How one contender's servers climb with so many clients. A context manager.

    A rate holds if it does in one of so many TRIES: on a shared machine, one pause of another
    program's making is enough to miss the bound, and nothing makes a rate hold by chance. A try
    that others spoil does not count, as long as the machine's patience lasts.
    """

    machine: Machine
    servers: Servers
    clients: int
    seconds: float
    start: int | None = None
    """The rung at which it may end."""
    steps: list[Step] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    """What the servers did to clients, where a rate was too much for them."""
    top: int | None = None
    """The highest rung that holds, once it is known."""

    def __enter__(self) -> Climb:
        start, stride = (FIRST, DOUBLE) if self.start is None else (self.start, 2)
        self._search = highest(start, stride)
        self._rung = next(self._search)
        self._tries = 0
        self._stack = ExitStack()
        self._open()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def steady(self, rate: float, seconds: float) -> Step:
        """A step at one rate, to its end."""
        return self.crowd.run(rate, seconds, to_the_end=True)

    def advance(self) -> None:
        """Try the next rate, or the same one again."""
        before = self.machine.look()
        holds = self._try(self._rung)
        if self.machine.spoils(before, holds):
            return
        self._tries += 1
        if not holds and self._tries < TRIES:
            return
        self._tries = 0
        try:
            self._rung = self._search.send(holds)
        except StopIteration as end:
            self.top = end.value

    def _try(self, number: int) -> bool:
        try:
            step = self.crowd.run(rung(number), self.seconds)
        except Lost as loss:
            self.losses.append(str(loss))
            self._stack.close()
            self._open()
            return False
        self.steps.append(step)
        return step.holds

    def _open(self) -> None:
        for left in reversed(range(OPENINGS)):
            try:
                crowd = Crowd(self.servers.ports, self.clients, self.servers.contender.dialect)
                self.crowd = self._stack.enter_context(crowd)
                return
            except Lost as loss:
                if not left:
                    name, said = self.servers.contender.name, self.servers.said
                    raise Lost(f"{name}: {loss}; its servers said: {said}") from loss
                sleep(LONG_REST)
