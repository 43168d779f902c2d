"""The stage: a run as a moving diagram, live or replayed, one pane for each run.

This side tells the story (see `story`) and carries out what the buttons ask for; `static/stage.js`
draws. A stage that is stored with a notebook, or shown where no widgets run, is the timeline's PNG
and the outcome in words.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from os import PathLike
from pathlib import Path
from typing import Any

import anywidget
import msgspec
import traitlets

from wsdemo.controls import Act, LiveCluster, carry_out, offers
from wsdemo.ledger import ledger
from wsdemo.notebook import MadeInCells, current_cell, hear_while_awaiting
from wsdemo.page import TOLD, module, page, style
from wsdemo.pictures.space_time import timeline
from wsdemo.story import Beat, Health, Item, Said, Story, Teller
from wsdemo.trace import Record, Source, Trace, TraceError, load_traces, traces

__all__ = ["Stage"]

NOTHING = (
    "There is no run to show; give a cluster, its trace, the file of one, "
    "or what `await compare(...)` returned."
)
_CHANGE_WHAT_CAN_BE_DONE = frozenset(
    ["join", "connect", "welcome", "disconnect", "leave", "start", "fault", "heal", "settle"]
)

_Asked = dict[str, Any]


class _Run:
    """One trace, told as far as it goes, and from then on record by record."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._teller = Teller(trace)
        self.items: list[Item] = []
        self.title = self.story.title
        self.health: dict[str, str] = {}  # of each part that is or was not well
        for record in trace:
            self.feed(record)

    def feed(self, record: Record) -> None:
        new = self._teller.feed(record)
        self.items += new
        self.health |= {item.part: item.state for item in new if isinstance(item, Health)}

    @property
    def story(self) -> Story:
        return self._teller.story(self.items)

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = msgspec.to_builtins(self.story)
        return {**told, "title": self.title}

    def more(self, run: int, start: int) -> dict[str, Any]:
        items = msgspec.to_builtins(self.items[start:])
        return {"type": "more", "run": run, "from": start, "items": items, "end": self._teller.end}


class Stage(anywidget.AnyWidget):
    """Shows a live cluster, a trace, or the runs that `compare` returned, side by side.

    With a live cluster its buttons act on the real sockets. A path is that of a saved trace. What
    cannot be shown is said on the stage.

    `look` is an event's id: the stage opens with the inspector on it, in the first run that has it,
    at the end of the beat in which it was said; a page that remembers where it was stays there.
    `minutes` are those planned for presenting it, of which the console (key P) shows what is left.

    Raises `TypeError` for what can be no run, `OSError` for a file that cannot be read, and
    `ValueError` for an event that nobody said.
    """

    _esm = module()
    _css = style()

    runs = traitlets.List(traitlets.Dict()).tag(sync=True)
    live = traitlets.Bool(False).tag(sync=True)
    key = traitlets.Unicode().tag(sync=True)  # by which a page remembers where it was
    problem = traitlets.Unicode().tag(sync=True)  # stands instead of the picture
    acts = traitlets.Dict().tag(sync=True)
    look = traitlets.Unicode().tag(sync=True)  # the event that the stage opens with, if any
    minutes = traitlets.Float(0.0).tag(sync=True)  # planned, or 0

    _unwatch_trace: Callable[[], None] | None = None
    _unwatch_runs: Callable[[], None] | None = None
    _hear_no_more: Callable[[], None] | None = None

    def __init__(
        self, source: Source | str | PathLike[str], *, look: str = "", minutes: float = 0
    ) -> None:
        if not 0 <= minutes < math.inf:
            raise ValueError(f"minutes are those planned, or 0 for none, and not {minutes!r}")
        self._found, problem = _found(source)
        self._cluster = _live_cluster(source)
        self._flush_is_due = self._offers_are_due = False
        self._actions: set[asyncio.Task[None]] = set()
        self._tell()
        if self._cluster is None:
            problem = problem or _mismatch([run.story for run in self._told])
        if look and not problem:
            _check_said(look, self._told)
        self._watch()
        super().__init__(
            runs=[run.told() for run in self._told],
            live=self._cluster is not None,
            key=secrets.token_hex(8),
            problem=problem,
            acts=self._offer(),
            look=look,
            minutes=minutes,
        )
        self.on_msg(self._on_message)
        if self._cluster is not None:
            self._unwatch_runs = self._cluster.on_run_change(self._change_run)
            self._hear_no_more = hear_while_awaiting(self.model_id or "")
            self._replace_earlier()

    def save_html(self, path: str | PathLike[str]) -> None:
        """Write the stage, as a replay of what has happened so far, into one HTML page.

        It needs no network, no kernel and no other file. Raises `OSError`.
        """
        traits = {name: getattr(self, name) for name in TOLD}
        told = {**traits, "runs": [run.told() for run in self._told]}  # up to now
        titles = " · ".join(run.title for run in self._told)
        _write(Path(path), page(told, _shortened(f"{titles or 'No run'} – wsdemo", 200)))

    def close(self) -> None:
        """Take the stage out of the page; the cluster goes on."""
        for end in (self._unwatch_trace, self._unwatch_runs, self._hear_no_more):
            if end:
                end()
        self._unwatch_trace = self._unwatch_runs = self._hear_no_more = None
        super().close()

    def _replace_earlier(self) -> None:
        """A cell that is run again has a new stage: nobody sees the ones that it had before."""
        if cell := current_cell():
            for stage in _live.earlier(cell):
                stage.close()
            _live.note(cell, self)

    def _tell(self) -> None:
        """Tell the traces from their beginning."""
        self._told = [_Run(trace) for trace in self._found.values()]
        titles = Counter(run.title for run in self._told)
        for name, run in zip(self._found, self._told, strict=True):
            if titles[run.title] > 1:  # two runs of one broker go by the names they were given
                run.title = f"{run.title} ({name})"
        self._unsent = [len(run.items) for run in self._told]

    def _watch(self) -> None:
        """Tell a live trace from now on."""
        if self._unwatch_trace:
            self._unwatch_trace()
        if self._cluster is not None:
            self._unwatch_trace = self._cluster.trace.watch(self._on_record)

    def _change_run(self) -> None:
        """The cluster stops or was started anew, by a button of this stage or by anybody else."""
        assert self._cluster is not None
        if self._cluster.trace is self._told[0].trace:
            self.acts = self._offer()
            return
        self._found = traces(self._cluster)
        self._tell()
        self._watch()
        with self.hold_sync():  # a page gets all at once
            self.runs = [run.told() for run in self._told]
            self.acts = self._offer()
            self.look = ""  # was in the run before

    def _offer(self) -> dict[str, Any]:
        """What the buttons of a live stage can do now."""
        if self._cluster is None:
            return {}
        found: dict[str, Any] = msgspec.to_builtins(offers(self._cluster, self._told[0].health))
        return found

    def _on_record(self, record: Record) -> None:
        """Send what is new, gathered until the event loop comes round again."""
        self._told[0].feed(record)
        self._offers_are_due |= record.kind in _CHANGE_WHAT_CAN_BE_DONE
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        for n, run in enumerate(self._told):
            if len(run.items) > self._unsent[n]:
                self.send(run.more(n, self._unsent[n]))
                self._unsent[n] = len(run.items)
        if self._offers_are_due:
            self._offers_are_due = False
            self.acts = self._offer()

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
                self.send({**run.more(n, start), "rest": True})

    def _act(self, asked: _Asked) -> None:
        """A button was pressed."""
        number = asked.get("id")
        if self._cluster is None or type(number) is not int:
            return
        try:
            act = msgspec.convert(asked, Act)
            loop = asyncio.get_running_loop()
        except msgspec.ValidationError as error:
            self._fail(number, f"The stage cannot read this: {error}.")
        except RuntimeError:
            self._fail(number, "The cluster is stopped; open another with `await open_cluster()`.")
        else:
            action = loop.create_task(self._carry_out(self._cluster, act))
            self._actions.add(action)
            action.add_done_callback(self._actions.discard)

    async def _carry_out(self, cluster: LiveCluster, act: Act) -> None:
        try:
            text = await carry_out(cluster, act, self._told[0].health)
        except Exception as error:  # the outermost edge of a button: its error goes to the stage
            self._fail(act.id, str(error) or repr(error))
        else:
            self.send({"type": "done", "id": act.id, "text": text})
        finally:
            self.acts = self._offer()

    def _fail(self, number: int, text: str) -> None:
        self.send({"type": "failed", "id": number, "text": text})

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, with the timeline and the outcome for where there are no widgets."""
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        data = {**data, "text/plain": repr(self)}
        if not self.problem:
            picture, words = timeline(self._found)._repr_mimebundle_()
            data["image/png"] = picture["image/png"]
            metadata = {**metadata, **words}
        return data, metadata

    def __repr__(self) -> str:
        outcomes = [ledger(run.trace) for run in self._told]
        return self.problem or "\n".join(f"{each.title}: {each.summary}" for each in outcomes)


_live = MadeInCells[Stage](lambda stage: stage._unwatch_trace is None)


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


def _check_said(event: str, told: Sequence[_Run]) -> None:
    said = [item.event for run in told for item in run.items if isinstance(item, Said)]
    if event not in said:
        names = _shortened(", ".join(dict.fromkeys(said)), 200)
        raise ValueError(f"unknown event {event!r}; there are: {names or 'none'}")


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
    """Write all of a file, or leave what was there."""
    target = path.resolve()
    if target.exists() and not target.is_file():  # a device
        target.write_bytes(text.encode())
        return
    beside = target.with_name(f".{target.name}.part")
    try:
        beside.write_bytes(text.encode())
        beside.replace(target)
    except BaseException as error:  # also where the cell is interrupted
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
            del error.filename2  # or the error would tell of a move from one to the other
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
