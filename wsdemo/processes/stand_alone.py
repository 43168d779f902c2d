"""One game server as a process of its own, started from here: where it is, and its numbers."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client.parser import text_string_to_metric_families

from wsdemo.lifetime import Lifetime
from wsdemo.processes.child import Child

__all__ = ["StandAloneServer"]

LOOK_EVERY = 0.01  # seconds, into the log of a process that starts
SECONDS_TO_ANSWER = 10.0
SECONDS_TO_START = 30.0


class StandAloneServer(Lifetime):
    """A `python -m wsdemo serve` that ends with us, with these further arguments."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "wsdemo", "serve", "--name", name, *arguments]
        self._port = 0
        self._child: Child | None = None
        self._folder: TemporaryDirectory[str] | None = None

    @property
    def port(self) -> int:
        """The port it listens on, on 127.0.0.1, once started."""
        return self._port

    @property
    def pid(self) -> int:
        """Its process id. Raises `RuntimeError` if it does not run."""
        if self._child is None:
            raise RuntimeError(f"server {self.name} is not running; start it first")
        return self._child.pid

    async def start(self) -> None:
        """Return once it takes players.

        Raises `RuntimeError`, with its own words, if it ends instead; and `TimeoutError`.
        """
        try:
            self._port = await self._ready_port(*self._launch())
        except BaseException:
            await self.stop()
            raise

    def _launch(self) -> tuple[Child, Path]:
        """The process, and the file that it logs to."""
        self._folder = TemporaryDirectory(ignore_cleanup_errors=True)  # Windows keeps open files
        log = Path(self._folder.name, "log")
        with log.open("wb") as errors:
            self._child = Child(self._command, errors=errors)
        return self._child, log

    async def _ready_port(self, child: Child, log: Path) -> int:
        waited = 0.0
        while not (port := _port_in(log)):
            if not child.runs:
                raise RuntimeError(f"server {self.name} did not start: {_said_in(log)}")
            if waited > SECONDS_TO_START:
                raise TimeoutError(f"server {self.name} was not ready in {SECONDS_TO_START:g} s")
            await asyncio.sleep(LOOK_EVERY)  # a file that grows tells nobody
            waited += LOOK_EVERY
        return port

    async def stop(self) -> None:
        """End it at once."""
        child, self._child = self._child, None
        if child:
            child.end()
        folder, self._folder = self._folder, None
        if folder:
            folder.cleanup()

    async def numbers(self) -> dict[str, float]:
        """What it says under `/metrics`, by name. Raises `OSError` if it does not answer."""
        families = text_string_to_metric_families(await self._get("/metrics"))
        return {sample.name: sample.value for family in families for sample in family.samples}

    async def _get(self, path: str) -> str:
        async with asyncio.timeout(SECONDS_TO_ANSWER):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                answer = await reader.read()
            finally:
                writer.transport.abort()
        _, end_of_head, text = answer.partition(b"\r\n\r\n")
        if not end_of_head:
            raise ConnectionError(f"server {self.name} has not answered to the end; does it run?")
        return text.decode()


def _port_in(log: Path) -> int:
    """The port in the line of a log that says “ready”; 0 until there is one."""
    for line in log.read_bytes().splitlines():
        with suppress(ValueError):  # half a line, or another program's word
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("message") == "ready":
                return int(str(entry["url"]).rpartition(":")[2])
    return 0


def _said_in(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip() or "it said nothing"
