"""Ports to listen on."""

from __future__ import annotations

import os
import socket

__all__ = ["bound_socket"]


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
