"""What a lesson needs besides the runs: readiness, predictions, checks, and source to read."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from wsdemo.doctor import examine
from wsdemo.prediction import predict

__all__ = ["ShownSource", "check", "predict", "ready", "show"]


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


def check(claim: str, holds: bool) -> None:
    """Print whether a claim holds, so that what the text says stands or falls with the run.

    Raises `TypeError` for what has yet to be awaited, which would hold whatever it gives.
    """
    if inspect.isawaitable(holds):
        raise TypeError("write `await` before what the claim is checked by")
    print(f"✓ {claim}" if holds else f"✗ Not yet: {claim}")
