"""A tap between a client and a server, which keeps what passes: as Wireshark does on a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from wsdemo.changes import Changes
from wsdemo.lifetime import Lifetime
from wsdemo.wire import Chunk, Conversation, Side

__all__ = ["Tap"]

CHUNK = 65_536  # bytes read at a time
SECONDS_OUT = 5.0  # for a server to be reached, or for both sides to speak
OTHER: dict[Side, Side] = {"client": "server", "server": "client"}


class Tap(Lifetime):
    """A TCP proxy before the server at `url`. Each connection is a conversation, which it keeps."""

    def __init__(self, url: str) -> None:
        self._where = urlsplit(url)
        if self._where.scheme not in ("ws", "http") or not self._where.hostname:
            raise ValueError(
                f"A tap reads what passes, so {url!r} must be the ws:// or http:// of a server, "
                "as ws://127.0.0.1:8000; what is encrypted it could not read."
            )
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()  # what is under way arrives
        self._open.set()
        self._changes = Changes()
        self.conversations: list[Conversation] = []

    @property
    def url(self) -> str:
        """Where a client connects instead."""
        if self._server is None:
            raise RuntimeError("This tap does not listen; use it with `async with`.")
        port = self._server.sockets[0].getsockname()[1]
        return self._where._replace(netloc=f"127.0.0.1:{port}").geturl()

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

    @asynccontextmanager
    async def crossing(self, talk: Conversation) -> AsyncIterator[None]:
        """Let what both sides say in this block cross on its way, as it can on any longer line.

        Nothing arrives until each side has said something. Raises `TimeoutError` if one does not.
        """
        begun = len(talk.chunks)
        self._open.clear()
        try:
            yield
            await self._both_to_speak(talk, begun)
        finally:
            self._open.set()

    async def _both_to_speak(self, talk: Conversation, begun: int) -> None:
        try:
            async with asyncio.timeout(SECONDS_OUT):
                await self._changes.until(
                    lambda: {chunk.side for chunk in talk.chunks[begun:]} == set(OTHER)
                )
        except TimeoutError:
            raise TimeoutError(
                "Nothing crosses while only one side speaks; let both say something."
            ) from None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # it called just before `stop`
            writer.transport.abort()
            return
        talk = Conversation()
        self.conversations.append(talk)
        call = asyncio.create_task(self._pass_on(talk, reader, writer), name="a tap passes on")
        self._calls.add(call)
        call.add_done_callback(lambda _: self._hang_up(call, talk, writer))

    def _hang_up(
        self, call: asyncio.Task[None], talk: Conversation, writer: asyncio.StreamWriter
    ) -> None:
        self._calls.discard(call)
        _end(talk, writer)
        for chunk in talk.ends:
            chunk.arrived = min(chunk.arrived, talk.now)
        talk.over.set()

    async def _pass_on(
        self, talk: Conversation, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(SECONDS_OUT):
                from_server, to_server = await asyncio.open_connection(
                    self._where.hostname, self._where.port or 80
                )
        except OSError:  # it cannot be reached, which is passed on as a cut
            return
        try:
            async with asyncio.TaskGroup() as copies:
                copies.create_task(self._copy(talk, "client", reader, to_server))
                copies.create_task(self._copy(talk, "server", from_server, writer))
        except* OSError:  # one side has cut the connection, as `talk` says
            pass
        finally:
            _end(talk, to_server)

    async def _copy(
        self,
        talk: Conversation,
        side: Side,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Pass on what a side sends. Raises `OSError` if it cuts the connection, or the other."""
        cut_by = side
        try:
            while data := await reader.read(CHUNK):
                chunk = await self._keep(talk, side, data)
                cut_by = OTHER[side]  # if this cannot be written
                writer.write(data)
                await writer.drain()
                chunk.arrived = talk.now
                cut_by = side
            chunk = await self._keep(talk, side)
            cut_by = OTHER[side]
            if writer.can_write_eof():
                writer.write_eof()
            chunk.arrived = talk.now
        except OSError:
            if not any(chunk.end == "RST" for chunk in talk.ends):  # both copies may come upon it
                talk.add(cut_by, end="RST")
            raise

    async def _keep(self, talk: Conversation, side: Side, data: bytes = b"") -> Chunk:
        """Keep what a side has sent, or that it has ended, until it may arrive."""
        chunk = talk.add(side, data, end="" if data else "FIN")
        self._changes.announce()
        await self._open.wait()
        return chunk


def _end(talk: Conversation, writer: asyncio.StreamWriter) -> None:
    """End a connection as both sides have ended theirs: cleanly, or else with a cut."""
    if [chunk.end for chunk in talk.ends] == ["FIN", "FIN"]:
        writer.close()
    else:
        writer.transport.abort()
