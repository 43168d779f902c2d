"""What a lesson needs besides the runs: readiness, predictions, checks, and source to read."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from wsdemo.doctor import examine
from wsdemo.ledger import Ledger

__all__ = ["Prediction", "ShownSource", "check", "predict", "ready", "show"]


async def ready() -> None:
    """Print that this machine has what the course needs, or else what it lacks and what to do."""
    lacking = [finding for finding in await examine() if finding.needed and not finding.ok]
    print("This machine is ready." if not lacking else "\n".join(map(str, lacking)))


class ShownSource:
    """Python source, highlighted where the notebook can."""

    def __init__(self, source: str) -> None:
        self._source = source

    def _repr_markdown_(self) -> str:
        return f"```python\n{self._source}\n```"

    def __repr__(self) -> str:
        return self._source


def show(*objects: type | Callable[..., Any]) -> ShownSource:
    """The source of functions, methods or classes of the package, as it runs."""
    sources = [textwrap.dedent(inspect.getsource(each)).rstrip() for each in objects]
    return ShownSource("\n\n".join(sources))


class Prediction:
    """What a learner expects one player to miss, to be held against a run."""

    def __init__(self, player: str, missed: Iterable[str] | None) -> None:
        self._player = player
        words = [missed] if isinstance(missed, str) else missed
        self._missed = None if words is None else list(words)

    def compare(self, found: Ledger) -> None:
        """Print what the player missed in this run, beside what was expected.

        Without a prediction, ask for one first.
        """
        if self._missed is None:
            print("You made no prediction: write one into the cell above, and run both again.")
            return
        missed = [found.body(event) for event, _ in found.missed_by(self._player)]
        print(f"{found.title}, {self._player} missed {_listed(missed)}.")
        if set(self._missed) == set(missed):
            print("That is what you predicted.")
        else:
            print(f"You predicted {_listed(self._missed)}.")

    def __repr__(self) -> str:
        if self._missed is None:
            return f"No prediction yet of what {self._player} misses."
        return f"Predicted: {self._player} misses {_listed(self._missed)}."


def predict(player: str, misses: Iterable[str] | None = None) -> Prediction:
    """A prediction that `player` misses the events that say these words; an empty list for none."""
    return Prediction(player, misses)


def check(claim: str, holds: bool) -> None:
    """Print whether a claim holds, so that what the text says stands or falls with the run."""
    print(f"✓ {claim}" if holds else f"✗ Not yet: {claim}")


def _listed(words: Iterable[str]) -> str:
    quoted = [f"“{word}”" for word in words]
    return (
        " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
        or "nothing"
    )
