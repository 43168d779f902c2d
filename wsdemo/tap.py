"""A tap between a client and a server, which keeps what passes: as Wireshark does on a network."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from wsdemo.lifetime import Lifetime
from wsdemo.wire import Conversation, Side

__all__ = ["Tap"]

CHUNK = 65_536  # bytes read at a time
SECONDS_OUT = 5.0  # for a server to be reached


class Tap(Lifetime):
    """A TCP proxy before the server at `url`. Each connection is a conversation, which it keeps."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._scheme = where.scheme
        self._target = (where.hostname or "127.0.0.1", where.port or 80)
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self.conversations: list[Conversation] = []

    @property
    def url(self) -> str:
        """Where a client connects instead."""
        if self._server is None:
            raise RuntimeError("This tap does not listen; use it with `async with`.")
        return f"{self._scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        """Listen on a free loopback port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Cut whoever is still connected, and listen no more. What was kept stays."""
        server, self._server = self._server, None
        if server:
            server.close()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.create_task(self._pass_on(reader, writer), name="a tap passes on")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = Conversation()
        self.conversations.append(talk)
        writers = [writer]
        try:
            async with asyncio.timeout(SECONDS_OUT):
                from_server, to_server = await asyncio.open_connection(*self._target)
            writers.append(to_server)
            async with asyncio.TaskGroup() as copies:
                copies.create_task(_copy(talk, "client", reader, to_server))
                copies.create_task(_copy(talk, "server", from_server, writer))
        except* OSError:  # also a server that cannot be reached: it is passed on as a cut
            pass
        finally:
            clean = all(chunk.end == "FIN" for chunk in talk.ends) and len(talk.ends) == 2
            for each in writers:
                if clean:
                    each.close()
                else:
                    each.transport.abort()


async def _copy(
    talk: Conversation, side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while data := await reader.read(CHUNK):
            talk.add(side, data)
            writer.write(data)
            await writer.drain()
    except ConnectionResetError:
        talk.add(side, end="RST")
        raise
    talk.add(side, end="FIN")
    if writer.can_write_eof():
        writer.write_eof()
