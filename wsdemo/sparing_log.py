"""A log that does not repeat itself: what others do wrong may come a thousand times a second."""

from __future__ import annotations

import logging
import math
from time import monotonic

__all__ = ["SILENCE", "SparingLog"]

SILENCE = 10.0  # seconds from one line to the next about the same trouble


class SparingLog:
    """Warns of each trouble once in a while. There are as many as its owner has words for."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._logged: dict[str, float] = {}  # when, by trouble

    def warning(self, words: str, *arguments: object, trouble: str = "") -> None:
        """Log this, unless something was about the same trouble, by its words, not long ago."""
        now = monotonic()
        trouble = trouble or words
        if now - self._logged.get(trouble, -math.inf) > SILENCE:
            self._logged[trouble] = now
            self._logger.warning(words, *arguments, stacklevel=2)
