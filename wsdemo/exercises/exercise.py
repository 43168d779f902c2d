"""What an exercise is: a claim, and a judge who tries an attempt and says what is wrong with it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from wsdemo.exercises.attempt import Attempt, NotYet

__all__ = ["Exercise", "Judge"]

MOST_TOLD = 3  # things that are wrong

Judge = Callable[[Attempt, random.Random], Awaitable[list[str]]]
"""Gives what is wrong with an attempt, or raises `NotYet`. The chance decides the fresh run."""


@dataclass(frozen=True)
class Exercise:
    """A claim that is to become true, and who judges whether it has."""

    claim: str
    judge: Judge = field(repr=False)

    async def check(self, attempt: Any, seed: int | None = None) -> None:
        """Try the attempt on a fresh run, and print whether it passes, or what went wrong."""
        async with Attempt(attempt) as tried:
            try:
                wrong = await self.judge(tried, random.Random(seed))
            except NotYet as reason:
                wrong = [str(reason)]
        told = [f"✗ Not yet: {each}" for each in wrong[:MOST_TOLD]]
        if len(wrong) > MOST_TOLD:
            told.append(f"… and {len(wrong) - MOST_TOLD} more")
        print("\n".join(told or [f"✓ {self.claim}"]))
