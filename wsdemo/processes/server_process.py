"""A game server in a process of its own, which a cluster has as it has those in its own process."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import IO, Any

from wsdemo.brokers import BrokerDown
from wsdemo.changes import Changes
from wsdemo.lifetime import Lifetime
from wsdemo.ports import address, bound_socket
from wsdemo.processes.channel import MAX_LINE, AskFailed, Channel
from wsdemo.processes.child import Child, can_freeze
from wsdemo.processes.merged_trace import MergedTrace, Source
from wsdemo.processes.worker import PASS, Orders
from wsdemo.server import ServerState
from wsdemo.trace import Kind

__all__ = ["ServerProcess"]

WORKER = [sys.executable, "-c", "from wsdemo.processes.worker import main; main()"]
START_TIMEOUT = 30.0  # seconds; Python itself takes most of what it needs
STOP_TIMEOUT = 5.0  # seconds
SECONDS_FOR_WORD = 1.0  # that whoever calls has to say it
HOST = "127.0.0.1"

_log = logging.getLogger("wsdemo.processes.server_process")


class ServerProcess(Lifetime):
    """A `GameServer` that another process runs, from `start()` to `stop()`.

    It does what it is asked with the same words, and its `trace` gets what happens there.
    `on_end` is called if the process ends though nobody here has ended it. A `predecessor`, which
    has ended, keeps the port until this one's process is about to listen: Python takes its time to
    start, and another program could take the port meanwhile.
    """

    def __init__(
        self,
        orders: Orders,
        trace: MergedTrace,
        *,
        may_join: Callable[[str, str], Awaitable[bool]],
        on_hearing_change: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
        predecessor: ServerProcess | None = None,
    ) -> None:
        self.name = orders.name
        self.hears = True
        self.calls: set[str] = set()
        """The requests of the clients that are connected."""
        self._orders = orders
        self._trace = trace
        self._may_join = may_join
        self._on_hearing_change = on_hearing_change
        self._on_end = on_end
        self._predecessor = predecessor
        self._port = orders.port
        self._players: dict[str, list[str]] = {}
        self._changes = Changes()
        self._child: Child | None = None
        self._channel: Channel | None = None
        self._source: Source | None = None
        self._running: asyncio.Task[None] | None = None
        self._kept_port: socket.socket | None = None
        self._errors: IO[bytes] | None = None
        self._word = secrets.token_hex(16)
        self._called: asyncio.Future[Channel] | None = None

    @property
    def url(self) -> str:
        """Where players connect."""
        return f"ws://{address(HOST, self._port)}"

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        return self._port

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._child.pid if self._child and self._child.runs else None

    @property
    def state(self) -> ServerState:
        """Whether the process runs, has ended, or stands still."""
        if self._child is None or not self._child.runs:
            return "down"
        return "frozen" if self._child.is_frozen else "up"

    def players(self, game: str) -> list[str]:
        """The names of its players in a game, in the order in which they joined."""
        return list(self._players.get(game, []))

    async def start(self) -> None:
        """Start the process, and let it listen. Raises `BrokerDown`, `RuntimeError`, `OSError`."""
        loop = asyncio.get_running_loop()
        self._called = loop.create_future()
        door = await asyncio.start_server(self._let_in, HOST, 0, limit=MAX_LINE)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process runs
        try:
            port = door.sockets[0].getsockname()[1]
            self._child = Child(WORKER, {PASS: f"{port} {self._word}"}, self._errors)
            self._channel = await self._calls(self._child, self._called)
            self._source = self._trace.source(lambda: self._tell("mark"))
            if self._predecessor:
                await self._predecessor.stop()
            self._port = await self._channel.ask("begin", self._orders)
        except BaseException as error:
            last_words = self._last_words()
            await self.stop()
            if isinstance(error, AskFailed):
                raise BrokerDown(str(error)) from error
            if isinstance(error, TimeoutError):
                raise RuntimeError(
                    f"The process of server {self.name} has not started. {last_words}"
                ) from error
            raise
        finally:
            door.close()

    async def _calls(self, child: Child, called: asyncio.Future[Channel]) -> Channel:
        """The channel on which the process calls. Raises `TimeoutError` if it does not."""
        async with asyncio.timeout(START_TIMEOUT):
            while not called.done():
                await asyncio.wait({called}, timeout=0.05)  # a process that ends tells nobody
                if not child.runs:
                    raise TimeoutError
        return called.result()

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Whoever calls must know the word: any program here may find the port."""
        with suppress(ConnectionError, ValueError, TimeoutError):
            async with asyncio.timeout(SECONDS_FOR_WORD):
                word = (await reader.readline()).strip()
            is_ours = hmac.compare_digest(word, self._word.encode())
            if is_ours and self._called and not self._called.done():
                channel = Channel(reader, writer, self._asked, self._told)
                self._running = asyncio.create_task(self._run(channel), name=f"hears {self.name}")
                self._called.set_result(channel)
                return
        writer.close()

    async def _run(self, channel: Channel) -> None:
        try:
            await channel.run()
        finally:  # after a mistake in `_told`, too
            await self._notice_the_end()

    async def _notice_the_end(self) -> None:
        if self._source:
            self._trace.leave(self._source)
        child, self._child = self._child, None
        if child:  # it has ended by itself, or by somebody else's hand
            await asyncio.to_thread(child.end)
            self._keep_port()
            _log.warning("the process of server %s has ended. %s", self.name, self._last_words())
            self._is_gone()
            self._on_end()

    async def _asked(self, what: str, arguments: list[Any]) -> bool:
        return await self._may_join(*arguments)

    def _told(self, what: str, arguments: list[Any]) -> None:
        assert self._source
        match what:
            case "record":
                self._source.add(*arguments)
                _, kind, _, player, _, data = arguments
                self._follow(kind, player, data)
            case "mark":
                self._source.reach(*arguments)
            case "now":
                calls, hears = arguments
                self.calls = set(calls)
                changed, self.hears = hears != self.hears, hears
                if changed:
                    self._on_hearing_change()
                self._changes.announce()

    def _follow(self, kind: Kind, player: str, data: dict[str, Any]) -> None:
        """Know its players by its records: it says them before it lets a player know."""
        match kind:
            case "join":
                self._players.setdefault(data["game"], []).append(player)
            case "disconnect" if "game" in data:  # a line to Redis has none
                self._players[data["game"]].remove(player)
            case _:
                return
        self._changes.announce()

    def _tell(self, what: str, *arguments: Any) -> None:
        if self._channel:
            self._channel.tell(what, *arguments)

    async def cut_redis_link(self) -> None:
        """Have it cut its line to Redis; one that stands still does so when it goes on."""
        await self._order("cut")

    async def mend_redis_link(self) -> None:
        """Have it mend that line."""
        await self._order("mend")

    async def lose_redis_replies(self, replies: int | None) -> None:
        """Have it lose so many replies of Redis: see `Line`."""
        await self._order("lose replies", replies)

    async def _order(self, what: str, *arguments: Any) -> None:
        self._tell(what, *arguments)
        if self.state == "up":
            with suppress(BrokerDown):
                await self._ask("heard")  # what was told before is done before

    async def _ask(self, what: str, *arguments: Any) -> Any:
        """Have it do something. Raises `BrokerDown`, in its words."""
        assert self._channel
        try:
            return await self._channel.ask(what, *arguments)
        except AskFailed as error:
            raise BrokerDown(str(error)) from error

    def freeze(self) -> None:
        """Let the process stand still (SIGSTOP), until `thaw`.

        Raises `RuntimeError` where a system has no such signal, as Windows has not.
        """
        if not can_freeze():
            raise RuntimeError("This system cannot freeze a process; kill the server instead.")
        if self._child and self._source:
            self._child.freeze()
            self._source.pause()

    def thaw(self) -> None:
        """Let it go on (SIGCONT), with all that has waited."""
        if self._child and self._source:
            self._source.resume()
            self._child.thaw()

    async def kill(self) -> None:
        """End the process at once (SIGKILL). Its port is kept until the next start, or `stop`."""
        child, self._child = self._child, None
        if child is None:
            return
        child.end()
        self._keep_port()
        await self.ended()  # what it had said before is heard
        self._is_gone()

    async def ended(self) -> None:
        """Return once all that it had said before it ended is heard."""
        if self._running:
            await self._running

    def _keep_port(self) -> None:
        with suppress(OSError):  # somebody was quicker: then a restart will say so
            self._kept_port = bound_socket(HOST, self._port)

    async def stop(self) -> None:
        """Have it close every connection and end; by force, if it does not in STOP_TIMEOUT."""
        if self._kept_port:
            self._kept_port.close()
            self._kept_port = None
        child, self._child = self._child, None
        if child is None:
            return
        if child.is_frozen:
            self.thaw()
        try:
            if self._channel and not self._channel.closed:
                async with asyncio.timeout(STOP_TIMEOUT):
                    await self._channel.ask("stop")
        except (TimeoutError, AskFailed):
            pass  # then it ends now
        finally:
            if self._channel:
                self._channel.close()
            child.end()
            await self.ended()
            self._forget()

    def _is_gone(self) -> None:
        """Its players are connected to nothing any more: the last thing to say of it."""
        for game, players in self._players.items():
            for player in players:
                self._trace.append("disconnect", self.name, player, game=game, code=None)
        self._forget()

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "It has said nothing."

    def _forget(self) -> None:
        if self._errors:
            self._errors.close()
            self._errors = None
        self._players, self.calls = {}, set()
        self._changes.announce()

    async def sync(self) -> None:
        """As the server's own. Raises `BrokerDown`."""
        await self._ask("sync")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of its players."""
        await self._changes.until(condition)

    async def send_away(self, seconds: float = 0.5, why: str = "deaf") -> None:
        """As the server's own."""
        with suppress(BrokerDown):
            await self._ask("send away", seconds, why)

    async def hears_now(self) -> bool:
        """As the server's own."""
        try:
            return bool(await self._ask("hears"))
        except BrokerDown:
            return False
