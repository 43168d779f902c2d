"""What the package knows of the notebook it runs in, if it does run in one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Cell", "MadeInCells", "current_cell", "hear_while_awaiting"]

T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """A cell, by a name that stays the same when it is run again, and which run of it this is."""

    name: str
    run: str


class MadeInCells(Generic[T]):
    """What each cell has made in its last run, and what of it is not over yet."""

    def __init__(self, is_over: Callable[[T], bool]) -> None:
        self._is_over = is_over
        self._made: dict[str, tuple[str, list[T]]] = {}

    def earlier(self, cell: Cell) -> list[T]:
        """What an earlier run of this cell has made, for its present run to replace."""
        run, made = self._made.get(cell.name, (cell.run, []))
        return [] if run == cell.run else made

    def note(self, cell: Cell, thing: T) -> None:
        """This run of the cell has made something."""
        run, made = self._made.get(cell.name, (cell.run, []))
        kept = [each for each in made if run == cell.run and not self._is_over(each)]
        self._made[cell.name] = (cell.run, [*kept, thing])


def current_cell() -> Cell | None:
    """The notebook cell that is being run; None outside a notebook.

    It goes by the front end's id, so that a cell can be edited in between; where a front end sends
    none, by the name that the kernel gives to the cell's code.
    """
    shell = _shell()
    if shell is None:
        return None
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    name = parent.get("metadata", {}).get("cellId") or _calling_file()
    return Cell(str(name), str(parent.get("header", {}).get("msg_id", "")))


def hear_while_awaiting(widget: str) -> Callable[[], None]:
    """Let a widget, by its model's id, get its messages while a cell awaits; the result ends that.

    Newer kernels do so by themselves. ipykernel before 7 keeps all messages until the cell has
    ended; this takes those of one widget from before its queue, and leaves all others alone.
    """
    kernel: Any = getattr(_shell(), "kernel", None)
    if not hasattr(kernel, "schedule_dispatch") or not hasattr(kernel, "msg_queue"):
        return lambda: None
    listening = kernel.__dict__.setdefault("_wsdemo_widgets", set())
    if not listening:
        kernel.shell_stream.on_recv(lambda frames: _take(kernel, listening, frames), copy=False)
    listening.add(widget)
    return lambda: listening.discard(widget)


def _take(kernel: Any, listening: set[str], frames: list[Any]) -> None:
    """A message has come: for a widget that listens at once, any other in its turn."""
    identities, parts = kernel.session.feed_identities(frames, copy=False)
    _, header, _, _, content, *_ = (part.bytes for part in parts)
    if json.loads(header)["msg_type"] == "comm_msg" and json.loads(content)["comm_id"] in listening:
        message = kernel.session.deserialize(parts, content=True, copy=False)
        kernel.comm_manager.comm_msg(kernel.shell_stream, identities, message)
    else:
        kernel.schedule_dispatch(kernel.dispatch_shell, frames)


def _shell() -> Any:
    """The kernel's shell; None outside a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if hasattr(shell, "kernel") else None


def _calling_file() -> str:
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("wsdemo"):
        frame = frame.f_back
    return frame.f_code.co_filename
