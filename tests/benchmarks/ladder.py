"""The highest rate that holds, on a ladder of rates that is the same for everybody."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import sleep

from tests.benchmarks.driver import Crowd, Lost, Step
from tests.benchmarks.servers import Servers

__all__ = ["Climb", "highest", "rung"]

LOWEST = 5.0  # events a second, in all
FACTOR = 1.05  # from one rung to the next
DOUBLE = 14  # rungs in which the rate doubles
FIRST = 2 * DOUBLE  # the rung to begin with, if nothing is known
REST = 0.1  # seconds after a rate that did not hold


def rung(number: int) -> float:
    """Events a second."""
    return LOWEST * FACTOR**number


def highest(holds: Callable[[int], bool], start: int, stride: int) -> int:
    """The highest rung that holds, if those below it do; -1 if none does.

    From the start in strides that double, up or down, until there is one that holds and one that
    does not; then halves what is between.
    """
    below, above = -1, None
    number = max(0, start)
    while above is None or above - below > 1:
        if holds(number):
            below = number
            number += stride
        else:
            above = number
            number = max(below + 1, number - stride)
        stride *= 2
        if above is not None and below >= 0:
            number = (below + above) // 2
    return below


@dataclass
class Climb:
    """How one contender's servers climb with so many clients. A context manager.

    A rate that does not hold is tried once more: on a shared machine, one pause of another
    program's making is enough to miss the bound.
    """

    servers: Servers
    clients: int
    seconds: float
    steps: list[Step] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    """What the servers did to clients, where a rate was too much for them."""

    def __enter__(self) -> Climb:
        self._stack = ExitStack()
        self._open()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def top(self, start: int | None) -> int:
        """The highest rung that holds; `start` is where it may be."""
        stride = DOUBLE if start is None else 2
        return highest(self._holds, FIRST if start is None else start, stride)

    def steady(self, rate: float, seconds: float) -> Step:
        """A step at one rate, to its end."""
        return self.crowd.run(rate, seconds, to_the_end=True)

    def _holds(self, number: int) -> bool:
        return self._try(number) or self._try(number)

    def _try(self, number: int) -> bool:
        try:
            step = self.crowd.run(rung(number), self.seconds)
        except Lost as loss:
            self.losses.append(str(loss))
            self._stack.close()
            self._open()
            return False
        self.steps.append(step)
        if not step.holds:
            sleep(REST)
        return step.holds

    def _open(self) -> None:
        crowd = Crowd(self.servers.ports, self.clients, self.servers.contender.dialect)
        self.crowd = self._stack.enter_context(crowd)
