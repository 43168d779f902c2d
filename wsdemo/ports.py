"""Where to listen, and how to end it: hosts and ports."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from ipaddress import ip_address

__all__ = ["BACKLOG", "accept_no_more", "address", "bound_socket", "is_loopback"]

BACKLOG = 1024
"""TCP connections that may wait to be accepted.

A system drops one more, whose client tries again after 1, 3 and 7 seconds. Of a herd that comes
back at once, asyncio's 100 leave many to that.
"""


def bound_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that has the port, a free one for 0. Until it listens, calls are refused.

    Raises `OSError` if the port is taken.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # Named as TCP, or asyncio leaves Nagle's algorithm on: a second event would wait 40 ms.
    bound = socket.socket(family, kind, socket.IPPROTO_TCP)
    if os.name == "posix":  # elsewhere it would let two programs listen on one port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


async def accept_no_more(server: asyncio.Server) -> None:
    """Let a server get to know whom it is just accepting, before it is closed.

    If it is closed at once, asyncio drops them without a word to them or to us: they would wait for
    an answer in vain (https://github.com/python/cpython/issues/109564).
    """
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        with suppress(NotImplementedError):  # the event loop of Windows, which is not so hasty
            loop.remove_reader(listener)
    for _ in range(2):  # until they have their transports, and then their protocols
        await asyncio.sleep(0)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it, as far as its name or number says."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address(host: str, port: int) -> str:
    """Both, as they stand in a URL; the number of an IPv6 host goes into brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
