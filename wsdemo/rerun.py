"""A run as a scenario: from a trace, the Python that does again what somebody did in it.

What people do is in the trace beside what came of it: who was asked to join, to speak, to go
elsewhere; what was broken, and mended. What the parts did by themselves they do again by
themselves, so a scenario has none of it; but where they had the time for it, it waits for them.

It plays under any broker: what only some can do is asked of those alone.
"""

from __future__ import annotations

import inspect
import keyword
import runpy
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from os import PathLike
from pathlib import Path
from textwrap import indent
from typing import Any

from wsdemo.trace import HasTrace, Record, Trace

__all__ = ["as_scenario", "load_scenario", "save_scenario"]

INDENT = "    "
SETTLE = "cluster.settle()"
BEGIN = "await asyncio.sleep(0)  # so that it begins"
HAS_REDIS = 'has_redis = cluster.broker != "none"  # else there is none to break'
CONFIRMS = 'confirms = cluster.broker in ("stream", "queue")  # the others confirm nothing'

_SERVERS = {
    ("fault", "killed"): "kill_server",
    ("heal", "restarted"): "restart_server",
    ("fault", "frozen"): "freeze_server",
    ("heal", "thawed"): "thaw_server",
}
_REDIS = {
    ("fault", "stopped"): "stop_redis()",
    ("fault", "killed"): "kill_redis()",
    ("fault", "power cut"): "kill_redis(power_cut=True)",
    ("heal", "started"): "start_redis()",
    ("fault", "frozen"): "freeze_redis()",
    ("heal", "thawed"): "thaw_redis()",
}
_LINKS = {("fault", "link cut"): "cut_redis_link", ("heal", "link mended"): "mend_redis_link"}
_PLAYERS = {
    ("fault", "link cut"): "cut_link()",
    ("heal", "link mended"): "mend_link()",
    ("fault", "stalled"): "stop_reading()",
    ("heal", "reads on"): "go_on_reading()",
}
_OUR_NAMES = {"asyncio", "cluster", "confirms", "has_redis"}  # and those of tasks
_TASKS = ("saying", "coming")


def as_scenario(trace: Trace, name: str = "my_run") -> str:
    """The source of an async function of a cluster that does the same once more.

    It says which cluster it wants. Under another broker it plays as well, but where something there
    waits for a frozen Redis, its `settle` may give up with `TimeoutError`.

    Raises `ValueError` for a name that no such function can have, for a run in which nobody has
    done anything, and for a trace that no run has written.
    """
    plain = unicodedata.normalize("NFKC", name)  # as Python reads it
    if not plain.isidentifier() or keyword.iskeyword(plain) or plain == "__debug__":
        raise ValueError(f"{name!r} can be no function's name; use letters, digits and _")
    if plain in _OUR_NAMES:
        raise ValueError(f"{name!r} means something else in a scenario; use another name")
    answers = _answers(trace)
    writer = _Writer(answers, _Witness(set(answers.values())))
    for record in trace:
        writer.feed(record)
    beats = writer.finished()
    deeds = [deed for beat in beats for deed in beat.deeds]
    body = [line for beat in beats for line in beat.source()]
    if not body:
        raise ValueError("nobody has done anything in this run yet: there is nothing to do again")
    lines = [
        _docstring(f"Play it on `open_cluster({_wanted(trace, writer.added)})`."),
        *([HAS_REDIS] if any(deed.needs_redis for deed in deeds) else []),
        *([CONFIRMS] if any(deed.is_confirmed for deed in deeds) else []),
        *body,
    ]
    imports = "import asyncio\n\n\n" if any(deed.task for deed in deeds) else ""
    return f"{imports}async def {name}(cluster):\n" + _indented(lines)


def save_scenario(run: HasTrace | Trace, path: str | PathLike[str]) -> None:
    """Write a run, live or recorded, as a scenario into a Python file; it is called as the file is.

    Raises `ValueError` as `as_scenario` does, and `OSError`.
    """
    trace = run if isinstance(run, Trace) else run.trace
    Path(path).write_text(as_scenario(trace, Path(path).stem) + "\n", encoding="utf-8")


def load_scenario(path: str | PathLike[str]) -> Callable[[Any], Any]:
    """The scenario that is in such a file, as it is now: it may have been edited, and renamed.

    Runs the file, and takes the `async def` of the file's name, or else the only one. Raises
    `ValueError` if there is none, and what the file's code raises.
    """
    name, found = Path(path).stem, runpy.run_path(str(path))
    functions: dict[str, Callable[[Any], Any]] = {
        key: each for key, each in found.items() if inspect.iscoroutinefunction(each)
    }
    if name in functions:
        return functions[name]
    if len(functions) != 1:
        raise ValueError(f"{path} has no function {name}")
    return next(iter(functions.values()))


@dataclass(eq=False)
class _Deed:
    """A call that somebody made, and how it is made again."""

    call: str
    result: str = ""  # what it gives, with an equals sign
    is_awaited: bool = True
    needs_redis: bool = False
    is_confirmed: bool = False  # where that can be
    lasts: bool = False  # until the trace says that it has ended
    by: str = ""  # the player who says it, or comes
    task: str = ""  # the variable of the task that it is, if others came before its end
    why: str = ""
    number: int = 0

    def source(self) -> list[str]:
        """Its lines."""
        if self.task:
            return [f"{self.task} = asyncio.create_task({self.call})", BEGIN]
        waits = "await " if self.is_awaited else ""
        why = f"  # {self.why}" if self.why else ""
        return [f"{self.result}{waits}{self.call}{why}"]


@dataclass
class _Beat:
    """What was done under one caption, or before the first."""

    caption: str | None = None
    notes: str = ""
    deeds: list[_Deed] = field(default_factory=list)

    def source(self) -> Iterator[str]:
        """Its lines: a step's, if it came to rest at its end, as a step does."""
        if self.caption is None:
            yield from _lines(self.deeds)
        elif len(self.deeds) > 1 and self.deeds[-1].call == SETTLE:
            yield f"async with cluster.step({_arguments(self.caption, self.notes)}):"
            yield _indented(_lines(self.deeds[:-1]))
        else:
            yield f"cluster.beat({_arguments(self.caption, self.notes)})"
            yield from _lines(self.deeds)


@dataclass
class _Witness:
    """Tells whether there was time between two deeds for what the first one brought about.

    Somebody may have waited for just that, or have gone on in another cell. While a player is on
    the way to a connection, nothing settles.
    """

    due: Collection[int]  # the welcomes that somebody waited for
    _has_seen: bool = False
    _wanted: set[str] = field(default_factory=set)  # players that nobody has sent away
    _there: set[str] = field(default_factory=set)
    _cut_off: set[str] = field(default_factory=set)  # they are not waited for

    @property
    def has_seen_rest(self) -> bool:
        """Whether all may have come to rest since the last deed."""
        return self._has_seen and not self._wanted - self._there - self._cut_off

    def forget(self) -> None:
        """Another deed comes."""
        self._has_seen = False

    def feed(self, record: Record, is_busy: bool) -> None:
        """Take the next record; while somebody waits anyway, little follows from what happens."""
        match record.kind, record.data.get("reason"):
            case "welcome", _:
                self._has_seen |= record.n not in self.due
                self._wanted.add(record.at)
                self._there.add(record.at)
            case "disconnect", _:
                self._has_seen |= record.at in self._wanted and not is_busy
                self._there.discard(record.at)
            case "hear", _:
                self._has_seen |= not is_busy
            case "unpublished", _:
                self._has_seen = True
            case "asked", _:  # if it is to come, its welcome is still to come, too
                self._wanted.discard(record.at)
            case "fault", "link cut" | "stalled":
                self._cut_off.add(record.at)
            case "heal", "link mended" | "reads on":
                self._cut_off.discard(record.at)


@dataclass
class _Writer:
    """Writes down each thing that was done, under the caption that it was done under."""

    answers: dict[int, int]
    witness: _Witness
    added: set[str] = field(default_factory=set)  # servers that were not there at first
    _beats: list[_Beat] = field(default_factory=lambda: [_Beat()])
    _variables: dict[str, str] = field(default_factory=dict)  # how to speak of each player
    _in_the_game: set[str] = field(default_factory=set)
    _said: set[str] = field(default_factory=set)
    _under_way: dict[int | str, _Deed] = field(default_factory=dict)  # by welcome, or by event
    _tasks: list[tuple[_Deed, _Deed]] = field(default_factory=list)  # what begins and ends each
    _count: int = 0  # of deeds
    _last_short: int = 0  # the number of the last one that did not last
    _is_at_rest: bool = True

    def feed(self, record: Record) -> None:
        """Take the next record."""
        is_busy = bool(self._under_way)
        match record.kind:
            case "step":
                self._wait_as_it_did()
                data = record.data
                self._beats.append(_Beat(str(data.get("caption", "")), str(data.get("notes", ""))))
            case "settle":
                self._settle()
            case "asked":
                self._asked(record)
            case "welcome":
                self._end(record.n)
            case "send" if record.event not in self._under_way:  # else it repeats it by itself
                self._send(record)
            case "confirm":
                self._end(record.event)
            case "give up":
                self._give_up(record.event)
            case "start":
                self.added.add(record.at)
                self._do(_Deed(f"cluster.add_server({_text(record.at)})"))
            case "fault" | "heal":
                self._break_or_heal(record)
        self.witness.feed(record, is_busy)

    def finished(self) -> list[_Beat]:
        """All beats."""
        self._give_up_all()
        self._wait_as_it_did()
        self._name_tasks()
        return self._beats

    def _do(self, deed: _Deed) -> None:
        self._wait_as_it_did()
        self._write(deed)
        self._is_at_rest = False

    def _wait_as_it_did(self) -> None:
        """What comes next was done when what was before had had its effect; so it is again."""
        if self.witness.has_seen_rest:
            self._settle()
        self.witness.forget()

    def _settle(self) -> None:
        if not self._is_at_rest:
            self._write(_Deed(SETTLE))
        self._is_at_rest = True
        self.witness.forget()

    def _write(self, deed: _Deed) -> None:
        self._count += 1
        deed.number = self._count
        if not deed.lasts:
            self._last_short = deed.number
        self._beats[-1].deeds.append(deed)

    # What lasts

    def _begin(self, deed: _Deed, until: int | str) -> None:
        deed.lasts = True
        self._do(deed)
        self._under_way[until] = deed

    def _end(self, key: int | str) -> None:
        """It is awaited where it stands, unless something else was done before it ended."""
        deed = self._under_way.pop(key, None)
        if deed and deed.number < self._last_short:
            self._end_task(deed, _Deed("", result=deed.result, lasts=True))

    def _give_up(self, event: str) -> None:
        if deed := self._under_way.pop(event, None):
            why = "it was never confirmed"
            self._end_task(deed, _Deed(".cancel()", is_awaited=False, why=why))

    def _give_up_all(self, by: str = "") -> None:
        for key, deed in tuple(self._under_way.items()):
            if isinstance(key, str) and by in ("", deed.by):
                self._give_up(key)

    def _end_task(self, begin: _Deed, end: _Deed) -> None:
        self._tasks.append((begin, end))
        self._do(end)

    def _name_tasks(self) -> None:
        """In the order in which they begin."""
        names: list[str] = []
        for begin, end in sorted(self._tasks, key=lambda task: task[0].number):
            name = "saying" if begin.is_confirmed else "coming"
            names.append(name)
            again = names.count(name)
            begin.task = f"{name}_{again}" if again > 1 else name
            end.call = begin.task + end.call

    # What players do

    def _send(self, record: Record) -> None:
        """An id is written only where it is not the next that a player gives by itself."""
        arguments = [_text(_required(record, "body"))]
        own_id = record.event.removeprefix(f"{record.at}/")
        if record.event in self._said or own_id != record.event:
            arguments.append(f"again={_text(own_id)}")
        self._said.add(record.event)
        is_confirmed = bool(record.data.get("confirm"))
        if is_confirmed:
            arguments.append("confirm=confirms")
        call = f"{self._player(record.at)}.send({', '.join(arguments)})"
        deed = _Deed(call, is_confirmed=is_confirmed, by=record.at)
        if is_confirmed:
            self._begin(deed, until=record.event)
        else:
            self._do(deed)

    def _asked(self, record: Record) -> None:
        player = self._player(record.at)
        is_known = record.at in self._in_the_game
        match _required(record, "to"):
            case "join" | "reconnect" if record.n in self.answers:
                self._begin(self._coming(record), until=self.answers[record.n])
            case "join" | "reconnect" if is_known:
                why = "it was to come back, and could not"
                self._do(_Deed(f"{player}.disconnect()", why=why))
            case "disconnect" if is_known:
                self._do(_Deed(f"{player}.disconnect()"))
            case "leave" if is_known:
                self._give_up_all(by=record.at)
                self._in_the_game.discard(record.at)
                self._do(_Deed(f"{player}.leave()"))

    def _coming(self, record: Record) -> _Deed:
        """Who is asked to reconnect before it has ever joined did so under another broker."""
        server = record.data.get("server")
        on = f"server={_text(server)}" if server else ""
        if record.at in self._in_the_game:
            verb = "connect" if record.data["to"] == "join" else "reconnect"
            resume = "" if record.data.get("resume", True) else "resume=False"
            arguments = ", ".join(filter(None, [on, resume]))
            return _Deed(f"{self._player(record.at)}.{verb}({arguments})", by=record.at)
        self._in_the_game.add(record.at)
        variable = self._name(record.at)
        result = f"[{variable}] = " if variable.isidentifier() else ""
        arguments = ", ".join(filter(None, [_text(record.at), on]))
        return _Deed(f"cluster.join({arguments})", result, by=record.at)

    def _name(self, player: str) -> str:
        """The variable for a player, where its name can be made one."""
        variable = player.lower()
        others = {each for name, each in self._variables.items() if name != player}
        usable = variable.isascii() and variable.isidentifier() and not keyword.iskeyword(variable)
        usable &= not variable.startswith("_")  # names like __debug__ cannot be assigned
        if not usable or variable in others | _OUR_NAMES or variable.startswith(_TASKS):
            variable = f"cluster.player({_text(player)})"
        self._variables[player] = variable
        return variable

    def _player(self, name: str) -> str:
        """How to speak of a player; one that is still joining has no variable yet."""
        is_joining = any(deed.result and deed.by == name for deed in self._under_way.values())
        by_name = f"cluster.player({_text(name)})"
        return by_name if is_joining else self._variables.get(name, by_name)

    # What breaks, and is healed

    def _break_or_heal(self, record: Record) -> None:
        what = (record.kind, str(record.data.get("reason", "")))
        part = _text(record.at)
        if what[1] == "reply lost":
            replies = _number(record.data.get("replies", 0))
            self._do(_Deed(f"cluster.lose_redis_replies({part}, {replies})", needs_redis=True))
        elif record.peer == "redis" and what in _LINKS:
            self._do(_Deed(f"cluster.{_LINKS[what]}({part})", needs_redis=True))
        elif record.at in self._in_the_game and what in _PLAYERS:
            self._do(_Deed(f"{self._player(record.at)}.{_PLAYERS[what]}", is_awaited=False))
        elif not record.peer and record.at == "redis" and what in _REDIS:
            call = "stop_redis(keep=True)" if record.data.get("keep") else _REDIS[what]
            self._do(_Deed(f"cluster.{call}", needs_redis=True))
        elif not record.peer and what in _SERVERS:
            self._do(_Deed(f"cluster.{_SERVERS[what]}({part})"))


def _wanted(trace: Trace, added: Collection[str]) -> str:
    """What a cluster has to be given in order to be like the one that the trace is of."""
    about = trace.about
    at_first = [_text(each) for each in about.get("servers", ()) if each not in added]
    given = {"servers": f"[{', '.join(at_first)}]"}
    for name in ("broker", "balance", "persistence"):
        if name in about:
            given[name] = _text(about[name])
    if "history" in about:
        given["history"] = str(_number(about["history"]))
    return ", ".join(f"{name}={value}" for name, value in given.items())


def _answers(trace: Trace) -> dict[int, int]:
    """For each time that somebody was to come, and came: the record of it, and of the welcome."""
    asked: dict[str, int] = {}
    answers: dict[int, int] = {}
    for record in trace.select("asked", "welcome"):
        if record.kind == "asked":
            asked[record.at] = record.n
        elif record.at in asked:
            answers.setdefault(asked[record.at], record.n)
    return answers


def _lines(deeds: Iterable[_Deed]) -> Iterator[str]:
    """Those that need a Redis, only where there is one."""
    for needs_redis, some in groupby(deeds, lambda deed: deed.needs_redis):
        lines = [line for deed in some for line in deed.source()]
        if needs_redis:
            yield "if has_redis:"
            yield _indented(lines)
        else:
            yield from lines


def _indented(lines: Iterable[str]) -> str:
    return indent("\n".join(lines), INDENT)


def _arguments(caption: str, notes: str) -> str:
    """Each on a line of its own, if there are two."""
    if not notes:
        return _text(caption)
    return "\n" + _indented([f"{_text(caption)},", f"notes={_text(notes)},"]) + "\n"


def _docstring(text: str) -> str:
    """Whatever a trace that came from elsewhere has for a name, it stays within the quotes."""
    is_simple = text.isprintable() and '"""' not in text and "\\" not in text
    return f'"""{text}"""' if is_simple else repr(text)


def _number(given: object) -> int:
    if not isinstance(given, int):
        raise ValueError(f"this trace has {given!r} where a number belongs")
    return given


def _required(record: Record, key: str) -> object:
    if key not in record.data:
        raise ValueError(f"this trace does not say `{key}` in its record {record.n}")
    return record.data[key]


def _text(text: object) -> str:
    """A string as source, in double quotes where it needs no others."""
    plain = str(text)
    is_simple = plain.isprintable() and not {'"', "\\"} & set(plain)
    return f'"{plain}"' if is_simple else repr(plain)
