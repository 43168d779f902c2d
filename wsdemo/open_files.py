"""How many files a process may have open; each connection is one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

if sys.platform != "win32":
    import resource

__all__ = ["allow_open_files", "open_files"]


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
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, most))
    except (OSError, ValueError):  # macOS has a limit behind the one that it tells
        return allowed
    return more


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
