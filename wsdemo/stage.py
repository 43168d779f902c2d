"""The stage: a run as a moving diagram, live or replayed, one pane for each run.

This side tells the story (see `story`) and carries out what the buttons ask for; `static/stage.js`
draws. A stage that is stored with a notebook, or shown where no widgets run, is the timeline's PNG
and the outcome in words.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import anywidget
import msgspec
import traitlets

from wsdemo.ledger import ledger
from wsdemo.story import Item, Teller
from wsdemo.timeline import timeline
from wsdemo.trace import HasTrace, Record, Source, Trace, traces

__all__ = ["LiveCluster", "Stage"]

_STATIC = Path(__file__).parent / "static"
MAX_BODY = 200  # characters that the stage's text field may send


class _LivePlayer(Protocol):
    async def send(self, body: str) -> str: ...
    async def disconnect(self) -> None: ...
    async def reconnect(self, server: str | None = None) -> None: ...


@runtime_checkable
class LiveCluster(HasTrace, Protocol):
    """What the stage needs of a cluster in order to act on it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that everything of the cluster runs on."""

    def player(self, name: str) -> _LivePlayer:
        """The player of that name. Raises `ValueError`."""

    async def settle(self) -> None:
        """Return when nothing more can happen without a new action."""


class _Run:
    """One trace, told as far as it goes, and from then on record by record."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._teller = Teller(trace)
        self.items: list[Item] = []
        for record in trace:
            self.items += self._teller.feed(record)

    def feed(self, record: Record) -> None:
        self.items += self._teller.feed(record)

    @property
    def end(self) -> float:
        return self._teller.end

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = msgspec.to_builtins(self._teller.story(self.items))
        return told

    def more(self, run: int, start: int) -> dict[str, Any]:
        items = msgspec.to_builtins(self.items[start:])
        return {"type": "more", "run": run, "from": start, "items": items, "end": self.end}


class Stage(anywidget.AnyWidget):
    """Shows a live cluster, a trace, or the runs that `compare` returned, side by side.

    With a live cluster its buttons act on the real sockets.
    """

    _esm = _STATIC / "stage.js"
    _css = _STATIC / "stage.css"

    runs = traitlets.List(traitlets.Dict()).tag(sync=True)
    live = traitlets.Bool(False).tag(sync=True)

    _unwatch: Callable[[], None] | None = None

    def __init__(self, source: Source) -> None:
        found = traces(source)
        self._source = source
        self._told = [_Run(trace) for trace in found.values()]
        self._cluster = _live_cluster(source)
        self._unsent = [len(run.items) for run in self._told]
        self._flush_is_due = False
        self._actions: set[asyncio.Task[None]] = set()
        super().__init__(runs=[run.told() for run in self._told], live=self._cluster is not None)
        self.on_msg(self._on_message)
        if self._cluster is not None:
            self._unwatch = self._cluster.trace.watch(self._on_record)

    def close(self) -> None:
        """Take the stage out of the page; the cluster goes on."""
        if self._unwatch:
            self._unwatch()
        super().close()

    def _on_record(self, record: Record) -> None:
        """Send what is new, gathered until the event loop comes round again."""
        self._told[0].feed(record)
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        for n, run in enumerate(self._told):
            if len(run.items) > self._unsent[n]:
                self.send(run.more(n, self._unsent[n]))
                self._unsent[n] = len(run.items)

    def _on_message(self, _: Any, content: Any, buffers: Any) -> None:
        """From the browser. Some kernels call this on another thread than the cluster's."""
        if not isinstance(content, Mapping):
            return
        if content.get("type") == "rest":
            have = content.get("have")
            counts = have if isinstance(have, list) else []
            for n, (run, start) in enumerate(zip(self._told, counts, strict=False)):
                if isinstance(start, int) and 0 <= start < len(run.items):
                    self.send(run.more(n, start))
        elif content.get("type") == "act" and self._cluster is not None:
            loop = self._cluster.loop
            if loop is not None:
                loop.call_soon_threadsafe(self._act, dict(content))

    def _act(self, asked: dict[str, Any]) -> None:
        action = asyncio.get_running_loop().create_task(self._carry_out(asked))
        self._actions.add(action)
        action.add_done_callback(self._actions.discard)

    async def _carry_out(self, asked: dict[str, Any]) -> None:
        number = asked.get("id")
        try:
            assert self._cluster is not None
            await _action(self._cluster, asked)
            await self._cluster.settle()
        except Exception as error:  # the outermost edge of a button: its error goes to the stage
            self.send({"type": "failed", "id": number, "text": str(error) or repr(error)})
        else:
            self.send({"type": "done", "id": number})

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, with the timeline and the outcome for where there are no widgets."""
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        image = timeline(self._source)._repr_png_()
        data = {**data, "text/plain": repr(self), "image/png": base64.b64encode(image).decode()}
        return data, metadata

    def __repr__(self) -> str:
        outcomes = [ledger(run.trace) for run in self._told]
        return "\n".join(f"{each.title}: {each.summary}" for each in outcomes)


def _live_cluster(source: Source) -> LiveCluster | None:
    return source if isinstance(source, LiveCluster) and not source.trace.ended else None


def _action(cluster: LiveCluster, asked: dict[str, Any]) -> Awaitable[object]:
    """What a button asks for. Raises `ValueError` for what no button can ask for."""
    player = cluster.player(str(asked.get("player")))
    match asked:
        case {"action": "send", "body": str(body)} if body.strip():
            return player.send(body.strip()[:MAX_BODY])
        case {"action": "send"}:
            raise ValueError("there is nothing to say; write something first")
        case {"action": "disconnect"}:
            return player.disconnect()
        case {"action": "reconnect"}:
            server = asked.get("server")
            return player.reconnect(str(server) if server else None)
    raise ValueError(f"the stage cannot do {str(asked.get('action'))[:40]!r}")
