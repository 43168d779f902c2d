"""A run as a scenario: from a trace, the Python that does again what somebody did in it.

What people do is in the trace beside what came of it: who was asked to join, to speak, to go
elsewhere; what was broken, and mended. What the parts did by themselves they do again by
themselves, so a scenario has none of it.
"""

from __future__ import annotations

import keyword
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from wsdemo.trace import HasTrace, Record, Trace

__all__ = ["as_scenario", "load_scenario", "save_scenario"]

INDENT = "    "
SETTLE = "await cluster.settle()"

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


def as_scenario(trace: Trace, name: str = "my_run") -> str:
    """The source of an async function of a cluster that does the same once more.

    It says which cluster it wants. Raises `ValueError` for a name that no function can have, for a
    run in which nobody has done anything, and for a trace that no run has written.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"{name!r} can be no function's name; use letters, digits and _")
    writer = _Writer()
    for record in trace:
        writer.feed(record)
    lines = writer.finished()
    if not lines:
        raise ValueError("nobody has done anything in this run yet: there is nothing to do again")
    about = trace.about
    at_first = [_text(each) for each in about.get("servers", ()) if each not in writer.added]
    wanted = f"servers=[{', '.join(at_first)}], broker={_text(about.get('broker'))}"
    return "\n".join(
        [
            f"async def {name}(cluster):",
            f"{INDENT}{_docstring(f'Play it on `open_cluster({wanted})`.')}",
            *lines,
        ]
    )


def save_scenario(run: HasTrace | Trace, path: str | PathLike[str]) -> None:
    """Write a run, live or recorded, as a scenario into a Python file; it is called as the file is.

    Raises `ValueError` as `as_scenario` does, and `OSError`.
    """
    trace = run if isinstance(run, Trace) else run.trace
    Path(path).write_text(as_scenario(trace, Path(path).stem) + "\n", encoding="utf-8")


def load_scenario(path: str | PathLike[str]) -> Callable[[Any], Any]:
    """The scenario that is in such a file, as it is now: it may have been edited.

    Runs the file. Raises `ValueError` if it has no function of its name, and what its code raises.
    """
    found = runpy.run_path(str(path)).get(Path(path).stem)
    if not callable(found):
        raise ValueError(f"{path} has no function {Path(path).stem}")
    scenario: Callable[[Any], Any] = found
    return scenario


@dataclass
class _Writer:
    """Writes a line for each thing that was done, under the caption that it was done under."""

    lines: list[str] = field(default_factory=list)
    added: set[str] = field(default_factory=set)  # servers that were not there at first
    _players: dict[str, str] = field(default_factory=dict)  # how to speak of each
    _said: set[str] = field(default_factory=set)
    _frozen: set[str] = field(default_factory=set)
    _beat: list[str] = field(default_factory=list)  # what was done since the last caption
    _caption: tuple[str, str] | None = None

    def feed(self, record: Record) -> None:
        """Take the next record."""
        if record.kind == "step":
            self._end_beat()
            self._caption = (str(record.data.get("caption", "")), str(record.data.get("notes", "")))
            return
        self._beat += self._done(record)

    def finished(self) -> list[str]:
        """All lines of the function's body."""
        self._end_beat()
        return self.lines

    def _end_beat(self) -> None:
        """A step settles at its end, which nothing does while a part stands still."""
        beat, self._beat = self._beat, []
        if self._caption is None:
            self.lines += [f"{INDENT}{line}" for line in beat]
            return
        arguments = _arguments(*self._caption)
        if self._frozen or not beat:
            self.lines.append(f"{INDENT}cluster.beat({arguments})")
            self.lines += [f"{INDENT}{line}" for line in beat]
        else:
            if beat[-1] == SETTLE:  # as a step does at its end
                del beat[-1]
            self.lines.append(f"{INDENT}async with cluster.step({arguments}):")
            self.lines += [f"{INDENT}{INDENT}{line}" for line in beat]
        self._caption = None

    def _done(self, record: Record) -> Iterator[str]:
        what = (record.kind, str(record.data.get("reason", "")))
        match record.kind:
            case "settle" if self._beat and self._beat[-1] != SETTLE and not self._frozen:
                yield SETTLE  # what comes next was done when all before it had come to rest
            case "asked":
                yield from self._asked(record)
            case "send" if record.event not in self._said or not record.data.get("confirm"):
                yield self._say(record)
            case "start":
                self.added.add(record.at)
                yield f"await cluster.add_server({_text(record.at)})"
            case "fault" | "heal" if what[1] == "reply lost":
                replies = _number(record.data.get("replies", 0))
                yield f"await cluster.lose_redis_replies({_text(record.at)}, {replies})"
            case "fault" | "heal" if record.peer == "redis" and what in _LINKS:
                yield f"await cluster.{_LINKS[what]}({_text(record.at)})"
            case "fault" | "heal" if record.at in self._players and what in _PLAYERS:
                yield f"{self._player(record.at)}.{_PLAYERS[what]}"
            case "fault" | "heal" if not record.peer and record.at == "redis" and what in _REDIS:
                self._stands_still(record.at, what[1])
                deed = "stop_redis(keep=True)" if record.data.get("keep") else _REDIS[what]
                yield f"await cluster.{deed}"
            case "fault" | "heal" if not record.peer and what in _SERVERS:
                self._stands_still(record.at, what[1])
                yield f"await cluster.{_SERVERS[what]}({_text(record.at)})"

    def _say(self, record: Record) -> str:
        """One that waits to be confirmed is said again by itself, any other by somebody."""
        arguments = [_text(record.data["body"])]
        if record.event in self._said:
            arguments.append(f"again={_text(record.event)}")
        elif record.data.get("confirm"):
            arguments.append("confirm=True")
        self._said.add(record.event)
        return f"await {self._player(record.at)}.send({', '.join(arguments)})"

    def _stands_still(self, part: str, reason: str) -> None:
        if reason == "frozen":
            self._frozen.add(part)
        else:
            self._frozen.discard(part)

    def _asked(self, record: Record) -> Iterator[str]:
        server = record.data.get("server")
        on = f"server={_text(server)}" if server else ""
        match record.data["to"]:
            case "join":
                names = ", ".join(filter(None, [_text(record.at), on]))
                variable = self._name(record.at)
                assigned = f"[{variable}] = " if variable.isidentifier() else ""
                yield f"{assigned}await cluster.join({names})"
            case "reconnect":
                resume = "" if record.data.get("resume", True) else "resume=False"
                arguments = ", ".join(filter(None, [on, resume]))
                yield f"await {self._player(record.at)}.reconnect({arguments})"
            case "disconnect" | "leave" as deed:
                yield f"await {self._player(record.at)}.{deed}()"

    def _name(self, player: str) -> str:
        """The variable for a player, where its name can be made one."""
        variable = player.lower()
        taken = {"cluster", *self._players.values()}
        usable = variable.isascii() and variable.isidentifier() and not keyword.iskeyword(variable)
        if not usable or variable in taken:
            variable = f"cluster.player({_text(player)})"
        self._players[player] = variable
        return variable

    def _player(self, name: str) -> str:
        return self._players.get(name, f"cluster.player({_text(name)})")


def _arguments(caption: str, notes: str) -> str:
    """Each on a line of its own, if there are two."""
    if not notes:
        return _text(caption)
    lines = [_text(caption), f"notes={_text(notes)}"]
    return "".join(f"\n{INDENT}{INDENT}{line}," for line in lines) + f"\n{INDENT}"


def _docstring(text: str) -> str:
    """Whatever a trace that came from elsewhere has for a name, it stays within the quotes."""
    is_simple = text.isprintable() and '"""' not in text and "\\" not in text
    return f'"""{text}"""' if is_simple else repr(text)


def _number(given: object) -> int:
    if not isinstance(given, int):
        raise ValueError(f"this trace has {given!r} where a number belongs")
    return given


def _text(text: object) -> str:
    """A string as source, in double quotes where it needs no others."""
    plain = str(text)
    is_simple = plain.isprintable() and not {'"', "\\"} & set(plain)
    return f'"{plain}"' if is_simple else repr(plain)
