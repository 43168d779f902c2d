"""A server's line to Redis: its connections, which can be cut, and whose replies can be lost."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection

__all__ = ["Line"]


class Line:
    """All connections of one server to Redis.

    To cut it is to do what a network does that breaks: connections end without a goodbye, and no
    other is made. Unlike a real break, both ends learn of it at once.
    """

    def __init__(self) -> None:
        self.is_cut = False
        self.replies_to_lose: int | None = None
        """How many more commands that carry an event are carried out, and their replies lost.

        None, and not 0, until somebody wants some to be.
        """
        self._connections: WeakSet[_OnLine] = WeakSet()

    def client(self, url: str, **options: Any) -> Redis:
        """A client of the Redis at `url` whose connections are on this line."""
        pool = ConnectionPool.from_url(url, **options)
        pool.connection_class = _on_a_line(pool.connection_class)
        pool.connection_kwargs["line"] = self
        return Redis.from_pool(pool)

    def cut(self) -> None:
        """End every connection, and let no other be made."""
        self.is_cut = True
        for connection in tuple(self._connections):
            connection.abort()

    def mend(self) -> None:
        """Let connections be made again."""
        self.is_cut = False

    def admit(self, connection: _OnLine) -> None:
        """Take note of a connection that is about to be made. Raises `OSError` if it is cut."""
        if self.is_cut:
            raise ConnectionRefusedError("the line to Redis is cut")
        self._connections.add(connection)


class _OnLine(AbstractConnection):
    """A connection of redis-py's, of whatever kind, on a line."""

    def __init__(self, *, line: Line, **options: Any) -> None:
        super().__init__(**options)
        self._line = line
        self._carries_event = False

    async def _connect(self) -> None:
        self._line.admit(self)
        await super()._connect()  # type: ignore[no-untyped-call,safe-super]
        if self._line.is_cut:
            self.abort()

    def abort(self) -> None:
        """Cut it, if it stands."""
        writer = getattr(self, "_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def send_command(self, *args: Any, **kwargs: Any) -> None:
        self._carries_event = any(_is_event(argument) for argument in args)
        await super().send_command(*args, **kwargs)

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        answer = await super().read_response(*args, **kwargs)
        if self._carries_event and self._line.replies_to_lose:
            self._line.replies_to_lose -= 1
            self.abort()
            await self.disconnect(nowait=True)
            raise ConnectionResetError("the connection broke before Redis's reply arrived")
        return answer


def _is_event(argument: Any) -> bool:
    return isinstance(argument, bytes) and argument.startswith(b'{"type":"event"')


def _on_a_line(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """The same kind of connection (TCP, TLS, Unix), on a line."""
    return type(f"{kind.__name__}OnALine", (_OnLine, kind), {})
