"""The stage: a run as a moving diagram, live or replayed, one pane for each run.

This side tells the story (see `story`) and carries out what the buttons ask for; `static/stage.js`
draws. A stage that is stored with a notebook, or shown where no widgets run, is the timeline's PNG
and the outcome in words.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import string
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count, zip_longest
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import anywidget
import msgspec
import traitlets
from msgspec import Meta

from wsdemo.ledger import TITLES, ledger
from wsdemo.page import ESM, STYLE, page
from wsdemo.story import Beat, Item, Story, Teller
from wsdemo.timeline import timeline
from wsdemo.trace import HasTrace, Record, Source, Trace, TraceError, load_traces, traces

__all__ = ["LiveCluster", "Stage"]

MAX_BODY = 200  # characters that the stage's text field may send
NOTHING = (
    "There is no run to show; give a cluster, its trace, the file of one, "
    "or what `await compare(...)` returned."
)


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

    @property
    def players(self) -> Mapping[str, object]:
        """Its players, by name."""

    @property
    def servers(self) -> Mapping[str, object]:
        """Its servers, by name."""

    @property
    def redis_cannot(self) -> str:
        """Why its Redis cannot be stopped, started, frozen or thawed; empty if it can."""

    def player(self, name: str) -> _LivePlayer:
        """The player of that name. Raises `ValueError`."""

    def on_renewal(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back each time a new run, with a new trace, stands; the result ends that."""

    async def settle(self) -> None:
        """Return when nothing more can happen without a new action."""

    async def join(self, *names: str) -> object:
        """Let new players join, where the balancer puts them."""

    async def add_server(self, name: str) -> object:
        """Start one more server."""

    async def kill_server(self, name: str) -> object:
        """End a server as a crash does."""

    async def restart_server(self, name: str) -> object:
        """Start a server again that was killed."""

    async def freeze_server(self, name: str) -> object:
        """Let a server do nothing, as if its process were stopped."""

    async def thaw_server(self, name: str) -> object:
        """Let a frozen server go on."""

    async def stop_redis(self) -> object:
        """End Redis."""

    async def start_redis(self) -> object:
        """Start Redis again."""

    async def freeze_redis(self) -> object:
        """Let Redis do nothing."""

    async def thaw_redis(self) -> object:
        """Let a frozen Redis go on."""

    async def change_broker(self, broker: str) -> object:
        """Start everything anew, with another broker and the same players."""


_Asked = dict[str, Any]


class _Act(msgspec.Struct, frozen=True):
    """What a button of the browser's asks for."""

    id: Annotated[int, Meta(ge=0, le=2**53)]
    action: Annotated[str, Meta(max_length=40)]
    part: Annotated[str, Meta(max_length=80)]
    choice: Annotated[str, Meta(max_length=80)] | None = None
    body: Annotated[str, Meta(max_length=100_000)] | None = None


class _Run:
    """One trace, told as far as it goes, and from then on record by record."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._teller = Teller(trace)
        self.items: list[Item] = []
        for record in trace:
            self.feed(record)

    def feed(self, record: Record) -> None:
        self.items += self._teller.feed(record)

    @property
    def story(self) -> Story:
        return self._teller.story(self.items)

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = msgspec.to_builtins(self.story)
        return told

    def more(self, run: int, start: int) -> dict[str, Any]:
        items = msgspec.to_builtins(self.items[start:])
        return {"type": "more", "run": run, "from": start, "items": items, "end": self._teller.end}


class Stage(anywidget.AnyWidget):
    """Shows a live cluster, a trace, or the runs that `compare` returned, side by side.

    With a live cluster its buttons act on the real sockets. A path is that of a saved trace. What
    cannot be shown is said on the stage. Raises `TypeError` for what can be no run, and `OSError`
    for a file that cannot be read.
    """

    _esm = ESM
    _css = STYLE

    runs = traitlets.List(traitlets.Dict()).tag(sync=True)
    live = traitlets.Bool(False).tag(sync=True)
    key = traitlets.Unicode().tag(sync=True)  # by which a page remembers where it was
    problem = traitlets.Unicode().tag(sync=True)  # stands instead of the picture
    acts = traitlets.Dict().tag(sync=True)

    _unwatch_trace: Callable[[], None] | None = None
    _unwatch_renewal: Callable[[], None] | None = None

    def __init__(self, source: Source | str | PathLike[str]) -> None:
        self._found, problem = _found(source)
        self._cluster = _live_cluster(source)
        self._flush_is_due = False
        self._actions: set[asyncio.Task[None]] = set()
        self._tell()
        if self._cluster is None:
            problem = problem or _mismatch([run.story for run in self._told])
        super().__init__(
            runs=[run.told() for run in self._told],
            live=self._cluster is not None,
            key=secrets.token_hex(8),
            problem=problem,
            acts=self._acts(),
        )
        self.on_msg(self._on_message)
        if self._cluster is not None:
            self._unwatch_renewal = self._cluster.on_renewal(self._renew)

    def save_html(self, path: str | PathLike[str]) -> None:
        """Write the stage, as a replay of what has happened so far, into one HTML page.

        It needs no network, no kernel and no other file. Raises `OSError`.
        """
        told = {
            "runs": [run.told() for run in self._told],
            "key": self.key,
            "problem": self.problem,
        }
        titles = " · ".join(run.story.title for run in self._told)
        _write(Path(path), page(told, _shortened(f"{titles or 'No run'} – wsdemo", 200)))

    def close(self) -> None:
        """Take the stage out of the page; the cluster goes on."""
        for unwatch in (self._unwatch_trace, self._unwatch_renewal):
            if unwatch:
                unwatch()
        self._unwatch_trace = self._unwatch_renewal = None
        super().close()

    def _tell(self) -> None:
        """Tell the traces from their beginning, and a live one from now on."""
        self._told = [_Run(trace) for trace in self._found.values()]
        self._unsent = [len(run.items) for run in self._told]
        if self._unwatch_trace:
            self._unwatch_trace()
        if self._cluster is not None:
            self._unwatch_trace = self._cluster.trace.watch(self._on_record)

    def _renew(self) -> None:
        """The cluster was started anew, by a button of this stage or by anybody else."""
        assert self._cluster is not None
        self._found = traces(self._cluster)
        self._tell()
        with self.hold_sync():  # a page gets both at once
            self.runs = [run.told() for run in self._told]
            self.acts = self._acts()

    def _acts(self) -> dict[str, Any]:
        """What a live stage's buttons can do besides what all can."""
        if self._cluster is None:
            return {}
        cannot = self._cluster.redis_cannot
        return {"brokers": dict(TITLES), "unable": {"redis": cannot} if cannot else {}}

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
        answer = {"rest": self._rest, "act": self._act}.get(str(content.get("type")))
        loop = self._cluster.loop if self._cluster else None
        if answer and not (loop and _called_in(loop, answer, dict(content))):
            answer(dict(content))  # nothing of these runs changes any more

    def _rest(self, asked: _Asked) -> None:
        """A page asks for what it does not have yet."""
        have = asked.get("have")
        counts = have if isinstance(have, list) else []
        for n, (run, start) in enumerate(zip(self._told, counts, strict=False)):
            if type(start) is int and 0 <= start < len(run.items):
                self.send(run.more(n, start))

    def _act(self, asked: _Asked) -> None:
        """A button was pressed."""
        number = asked.get("id")
        if self._cluster is None or type(number) is not int:
            return
        try:
            act = msgspec.convert(asked, _Act)
            loop = asyncio.get_running_loop()
        except msgspec.ValidationError as error:
            self._fail(number, f"The stage cannot read this: {error}.")
        except RuntimeError:
            self._fail(number, "The cluster is stopped; open another with `await open_cluster()`.")
        else:
            action = loop.create_task(self._carry_out(self._cluster, act))
            self._actions.add(action)
            action.add_done_callback(self._actions.discard)

    async def _carry_out(self, cluster: LiveCluster, act: _Act) -> None:
        try:
            await _deed(cluster, act)(cluster, act)
            text = _renewed(act) if act.action == "change-broker" else ""
            if act.action != "freeze":  # what is frozen does not come to rest
                text = await _settled(cluster) or text
        except Exception as error:  # the outermost edge of a button: its error goes to the stage
            self._fail(act.id, str(error) or repr(error))
        else:
            self.send({"type": "done", "id": act.id, "text": text})

    def _fail(self, number: int, text: str) -> None:
        self.send({"type": "failed", "id": number, "text": text})

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, with the timeline and the outcome for where there are no widgets."""
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        data = {**data, "text/plain": repr(self)}
        if not self.problem:
            image = timeline(self._found)._repr_png_()
            data["image/png"] = base64.b64encode(image).decode()
        return data, metadata

    def __repr__(self) -> str:
        outcomes = [ledger(run.trace) for run in self._told]
        return self.problem or "\n".join(f"{each.title}: {each.summary}" for each in outcomes)


# What a stage is of


def _found(source: Source | str | PathLike[str]) -> tuple[dict[str, Trace], str]:
    """The traces that there are to show; if none, a sentence that says why."""
    try:
        found = load_traces(source) if isinstance(source, str | PathLike) else traces(source)
    except TraceError as error:
        return {}, str(error)
    return found, "" if found else NOTHING


def _live_cluster(source: object) -> LiveCluster | None:
    return source if isinstance(source, LiveCluster) and not source.trace.ended else None


def _mismatch(stories: Sequence[Story]) -> str:
    """Why stories cannot stand under one playhead: where their beats first differ."""
    for story in stories[1:]:
        pairs = zip_longest(_captions(stories[0]), _captions(story))
        for number, captions in enumerate(pairs, start=1):
            if captions[0] != captions[1]:
                here, there = (
                    f"{_described(caption)} in “{_shortened(each.title, 30)}”"
                    for caption, each in zip(captions, (stories[0], story), strict=True)
                )
                return (
                    f"These runs do not tell the same story: beat {number} is {here}, but {there}."
                )
    return ""


def _captions(story: Story) -> list[str]:
    """Each beat's, the first being what comes before any step, if anything does."""
    beats = [item for item in story.items if isinstance(item, Beat)]
    before = [""] if not beats or beats[0].s > 0 else []
    return before + [beat.caption for beat in beats]


def _described(caption: str | None) -> str:
    if caption is None:
        return "missing"
    return f"“{_shortened(caption, 60)}”" if caption else "without a caption"


def _shortened(text: str, most: int) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text[: most + 1])
    return printable if len(printable) <= most else f"{printable[: most - 1]}…"


def _write(path: Path, text: str) -> None:
    """Write all of a file, or leave none."""
    file = path.open("wb")
    try:
        with file:
            file.write(text.encode())
    except OSError:
        if path.is_file():  # and not a device
            path.unlink()
        raise


def _called_in(
    loop: asyncio.AbstractEventLoop, answer: Callable[[_Asked], None], asked: _Asked
) -> bool:
    """Whether the loop, from whatever thread, was given this to do; one that has ended cannot."""
    try:
        loop.call_soon_threadsafe(answer, asked)
    except RuntimeError:
        return False
    return True


# What its buttons do

_Deed = Callable[[LiveCluster, _Act], Awaitable[object]]

_DEEDS: dict[tuple[str, str], _Deed] = {
    ("player", "send"): lambda cluster, act: cluster.player(act.part).send(_body(act)),
    ("player", "disconnect"): lambda cluster, act: cluster.player(act.part).disconnect(),
    ("player", "reconnect"): lambda cluster, act: cluster.player(act.part).reconnect(
        act.choice or None
    ),
    ("server", "kill"): lambda cluster, act: cluster.kill_server(act.part),
    ("server", "restart"): lambda cluster, act: cluster.restart_server(act.part),
    ("server", "freeze"): lambda cluster, act: cluster.freeze_server(act.part),
    ("server", "thaw"): lambda cluster, act: cluster.thaw_server(act.part),
    ("redis", "stop"): lambda cluster, act: cluster.stop_redis(),
    ("redis", "start"): lambda cluster, act: cluster.start_redis(),
    ("redis", "freeze"): lambda cluster, act: cluster.freeze_redis(),
    ("redis", "thaw"): lambda cluster, act: cluster.thaw_redis(),
    ("cluster", "add-player"): lambda cluster, act: cluster.join(
        _first_free((f"P{n}" for n in count(1)), cluster)
    ),
    ("cluster", "add-server"): lambda cluster, act: cluster.add_server(
        _first_free(string.ascii_uppercase, cluster)
    ),
    ("cluster", "change-broker"): lambda cluster, act: cluster.change_broker(act.choice or ""),
}


def _deed(cluster: LiveCluster, act: _Act) -> _Deed:
    """What a button asks for. Raises `ValueError` for what no button can ask for."""
    kinds = list(_kinds(cluster, act.part))
    for kind in kinds:
        if (kind, act.action) in _DEEDS:
            return _DEEDS[kind, act.action]
    if not kinds:
        parts = ", ".join([*cluster.players, *cluster.servers])
        raise ValueError(f"unknown part {act.part!r}; there are: {parts}")
    raise ValueError(f"the stage cannot do {act.action!r} with {act.part}")


def _kinds(cluster: LiveCluster, part: str) -> Iterator[str]:
    """What a name may stand for; a player may be called like the cluster as a whole."""
    if part in cluster.players:
        yield "player"
    if part in cluster.servers:
        yield "server"
    if part in ("redis", "cluster"):
        yield part


def _body(act: _Act) -> str:
    body = (act.body or "").strip()
    if not body:
        raise ValueError("there is nothing to say; write something first")
    if len(body) > MAX_BODY:
        raise ValueError(f"that is {len(body):,} characters; write at most {MAX_BODY}")
    return body


def _first_free(names: Iterable[str], cluster: LiveCluster) -> str:
    taken: Collection[str] = {*cluster.players, *cluster.servers}
    for name in names:
        if name not in taken:
            return name
    raise ValueError("every letter from A to Z is taken")


def _renewed(act: _Act) -> str:
    title = TITLES.get(act.choice or "", f"With {act.choice}")
    how = title[:1].lower() + title[1:]
    return f"The cluster was started anew, {how}. Its players have joined again."


async def _settled(cluster: LiveCluster) -> str:
    """Wait for what an action brings about; what has not come to rest is said, and goes on."""
    try:
        await cluster.settle()
    except TimeoutError as error:
        return f"Done, but {error}."
    return ""
