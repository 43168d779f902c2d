"""The browser that tests, the stage's benchmark and the README's picture look with."""

from __future__ import annotations

import shutil

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NO_CHROMIUM = f"no Chromium on PATH ({', '.join(CHROMIUMS)})"


def find_chromium() -> str | None:
    """Where the first of them is that this machine has."""
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)
