"""How many files a process may have open; each connection is one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

if sys.platform != "win32":
    import resource

__all__ = ["allow_open_files", "open_files"]

OPEN_MAX = 10_240  # that setrlimit(2) of macOS says to be content with


def allow_open_files(wanted: int) -> int:
    """Let this process, and those that it starts, have so many open. Returns how many they may.

    That is fewer than `wanted` if the system does not allow as many.
    """
    if sys.platform == "win32":
        return wanted  # there is no such limit
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= wanted:
        return wanted
    more = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    for number in (more, min(more, OPEN_MAX)):
        if number > allowed:
            with suppress(OSError, ValueError):  # macOS has a limit behind the one that it tells
                resource.setrlimit(resource.RLIMIT_NOFILE, (number, most))
                return number
    return allowed


@contextmanager
def open_files(wanted: int) -> Iterator[int]:
    """The same, while it lasts."""
    if sys.platform == "win32":
        yield wanted
        return
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield allow_open_files(wanted)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
