"""An attempt: what a learner wrote, and how it is run, so that a check always comes to its end."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import linecache
import re
import reprlib
import sys
import time
import traceback
import types
from collections.abc import Callable, Collection, Coroutine, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from itertools import islice
from typing import Any, Self

__all__ = ["Attempt", "NotYet", "brief", "shown"]

BOUND = 10.0  # seconds that an attempt may take, in all of a check
FIRST = asyncio.FIRST_COMPLETED
GRACE = 1.0  # seconds in which it may end, once it is told to
MANY = 1_000  # things that a generator may give
LONGEST = 300  # characters of an error
LONGEST_NUMBER = 60  # digits; Python itself refuses to write more than 4,300


class NotYet(Exception):
    """Why an attempt cannot be judged, in a sentence for whoever wrote it."""


class Attempt:
    """What was `given` to a check. If it is a function, a judge calls it, as often as it likes.

    Use it with `async with`: what the function has left running ends with that.
    """

    def __init__(self, given: Any) -> None:
        self.given = given
        function = _function_of(given)
        self._file = getattr(getattr(function, "__code__", None), "co_filename", "")
        self._namespace = getattr(function, "__globals__", None)
        self._seconds = BOUND
        self._tasks: set[asyncio.Task[Any]] = set()  # that it has begun
        self._over = asyncio.Event()  # whatever still runs then stays where it is
        self._noting = _noting_tasks()
        self._too_much: asyncio.Future[str] | None = None  # what a call does, if anybody says so

    async def __aenter__(self) -> Self:
        self._noting.__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            while running := _not_done(self._tasks):  # some begin others at their end
                self._tasks = set()
                await _end(running, self._over)
        finally:
            self._over.set()
            self._noting.__exit__(None, None, None)

    async def __call__(self, *arguments: Any) -> Any:
        """What the function gives, asynchronous or not; all that a generator gives, as a list.

        Raises `NotYet` if it fails, naming its line; if all its calls together have not ended after
        `BOUND` seconds, naming the line where it waits; and if it is no function. What never waits,
        such as `while True: pass`, cannot be stopped from here: nothing else runs meanwhile, and it
        takes a restart of the kernel.
        """
        self._require_function()
        if self._seconds <= 0:
            raise NotYet(f"its calls have taken more than {BOUND:g} s")
        began = time.monotonic()
        call, left = self._call(arguments), asyncio.Event()
        context = copy_context()
        context.run(_trying.set, self)
        stop = self._too_much = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._outcome(call, left), context=context)
        try:
            await asyncio.wait({task, stop}, timeout=self._seconds, return_when=FIRST)
            if task.done():
                return task.result()
            place = self._place(self._where_it_waits(call)) or "it"
            if stop.done():
                raise NotYet(f"{place} {stop.result()}")
            raise NotYet(f"after {BOUND:g} s, {place} was still under way")
        finally:
            self._seconds -= time.monotonic() - began
            await _end({task}, left)
            self._tasks = _not_done(self._tasks)

    def end_call(self, too_much: str) -> None:
        """End the call that is under way, if one is: it does something too often, in these words.

        That call raises `NotYet`.
        """
        if self._too_much and not self._too_much.done():
            self._too_much.set_result(too_much)

    def _require_function(self) -> None:
        if not callable(self.given):
            if inspect.iscoroutine(self.given):
                self.given.close()  # or Python would complain that nobody has awaited it
            raise NotYet("give `check` the function itself, without brackets after its name")

    async def _call(self, arguments: tuple[Any, ...]) -> Any:
        result = self.given(*arguments)
        if inspect.isasyncgen(result):
            raise NotYet("an `async def` with `yield` in it does not run; use `return`")
        if inspect.isawaitable(result):
            result = await result
        return _all_of(result) if isinstance(result, Iterator) else result

    async def _outcome(self, call: Coroutine[Any, Any, Any], left: asyncio.Event) -> Any:
        """What a call gives. Raises `NotYet` for whatever it raises."""
        try:
            return await _led(call, left)
        except (NotYet, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # the outermost edge of what a learner wrote: sys.exit() too
            place = self._place(self._where_it_failed(error)) or "it failed"
            text = brief(": ".join(filter(None, [type(error).__name__, str(error)])))
            raise NotYet(f"{place}: {text}") from None

    def _where_it_waits(self, waiting: Any) -> int:
        """The innermost line of the learner's in which a coroutine stands; 0 if in none."""
        number = 0
        while inspect.iscoroutine(waiting) and waiting.cr_frame:
            if waiting.cr_frame.f_code.co_filename == self._file:
                number = waiting.cr_frame.f_lineno
            waiting = waiting.cr_await
        return number

    def _where_it_failed(self, error: BaseException) -> int:
        """The innermost line of the learner's that led to the error; 0 if none did."""
        frames = traceback.extract_tb(error.__traceback__)
        numbers = [frame.lineno for frame in frames if frame.filename == self._file]
        return (numbers[-1] if numbers else 0) or 0

    def _place(self, number: int) -> str:
        text = linecache.getline(self._file, number).strip() if number else ""
        return f"line {number}, `{text}`" if text else f"line {number}" if number else ""

    # What it leaves running

    def begin(
        self, work: Coroutine[Any, Any, Any], make: Callable[..., asyncio.Task[Any]]
    ) -> asyncio.Task[Any]:
        """Have a task made that does this work, within bounds, and ends with the check."""
        task = make(_within_bounds(work, self._over))
        task.add_done_callback(lambda _: _close_if_never_begun(work))
        self._tasks.add(task)
        return task

    def is_from_there(self, frame: types.FrameType | None) -> bool:
        """Whether what asyncio does in this frame it does for code from where the function is."""
        while frame and str(frame.f_globals.get("__name__")).partition(".")[0] == "asyncio":
            frame = frame.f_back
        return frame is not None and frame.f_globals is self._namespace


_trying: ContextVar[Attempt | None] = ContextVar("_trying", default=None)


class _TaskFactory:
    """Has an attempt begin each task that its own code creates.

    The cluster's own tasks, which its methods create, end with that.
    """

    def __init__(self, before: Callable[..., asyncio.Task[Any]] | None) -> None:
        self.before = before
        self.attempts = 0  # that are tried

    def __call__(
        self, loop: asyncio.AbstractEventLoop, work: Any, **how: Any
    ) -> asyncio.Future[Any]:
        before: Callable[..., asyncio.Task[Any]] = self.before or _task
        make = partial(before, loop, **how)
        attempt = _trying.get()
        if attempt and asyncio.iscoroutine(work) and attempt.is_from_there(sys._getframe(1)):
            return attempt.begin(work, make)
        return make(work)


@contextmanager
def _noting_tasks() -> Iterator[None]:
    """Tasks are noted meanwhile. Several attempts may be tried at once."""
    loop = asyncio.get_running_loop()
    before: Any = loop.get_task_factory()
    factory = before if isinstance(before, _TaskFactory) else _TaskFactory(before)
    loop.set_task_factory(factory)
    factory.attempts += 1
    try:
        yield
    finally:
        factory.attempts -= 1
        if not factory.attempts:  # whatever an attempt has set instead
            loop.set_task_factory(factory.before)


def _task(loop: asyncio.AbstractEventLoop, work: Any, **how: Any) -> asyncio.Task[Any]:
    return asyncio.Task(work, loop=loop, **how)


async def _within_bounds(work: Coroutine[Any, Any, Any], left: asyncio.Event) -> Any:
    """Do the work until it ends or is left.

    Raises `RuntimeError` in place of `SystemExit`, which would end the kernel.
    """
    try:
        return await _led(work, left)
    except SystemExit as error:
        told = RuntimeError(": ".join(filter(None, ["SystemExit", str(error)])))
        raise told.with_traceback(error.__traceback__) from None


def _close_if_never_begun(work: Coroutine[Any, Any, Any]) -> None:
    """Or Python would complain that nobody has awaited it."""
    if inspect.iscoroutine(work) and inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
        work.close()


def _function_of(given: Any) -> Any:
    """The function that is called when this is; None if it cannot be called."""
    if not callable(given):
        return None
    function = inspect.unwrap(given)
    while isinstance(function, partial):
        function = function.func
    return function if hasattr(function, "__code__") else type(function).__call__


def shown(given: Any) -> str:
    """A value as a learner would write it, if it is short, and no address of where it is."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", _repr.repr(given))


def brief(text: str, longest: int = LONGEST) -> str:
    """A text in one line that is not too long."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        is_long = abs(x) >= 10**LONGEST_NUMBER
        many = f"a number of more than {LONGEST_NUMBER} digits"
        return many if is_long else super().repr_int(x, level)


_repr = _Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = LONGEST_NUMBER


def _all_of(results: Iterator[Any]) -> list[Any]:
    found = list(islice(results, MANY + 1))
    if len(found) > MANY:
        raise NotYet(f"your function gives more than {MANY:,} things, and no end is in sight")
    return found


@types.coroutine
def _led(call: Coroutine[Any, Any, Any], left: asyncio.Event) -> Generator[Any, Any, Any]:
    """Lead a call from one thing that it waits for to the next, to its end, or until it is left.

    So does a task; but one goes on with what catches its own end, such as a bare `except` in a
    loop, and for ever, with no wait in between once the cluster has stopped.
    """
    step: Callable[[], Any] = partial(call.send, None)
    while not left.is_set():
        try:
            awaited = step()
        except StopIteration as end:
            return end.value
        try:
            yield awaited
            step = partial(call.send, None)
        except BaseException as error:  # not ours: it is the call's to deal with
            step = partial(call.throw, error)
    # To clear it away would set it going again, so it never is, not even with the interpreter.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(call))
    return None


async def _end(tasks: Collection[asyncio.Task[Any]], left: asyncio.Event) -> None:
    """Cancel tasks until they have ended; nobody hears of how.

    What has not ended in time is left as it is.
    """
    try:
        deadline = time.monotonic() + GRACE
        while (running := _not_done(tasks)) and time.monotonic() < deadline:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=GRACE / 10)
    finally:
        left.set()
        for task in tasks:
            if not task.done():
                task.cancel()
            elif not task.cancelled():
                task.exception()  # or Python would complain that nobody has asked


def _not_done(tasks: Iterable[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    return {task for task in tasks if not task.done()}
