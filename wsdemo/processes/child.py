"""A child process that ends with us, however we end, and that can be frozen meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

__all__ = ["Child", "can_freeze"]

# In a group of its own: interrupting a cell sends SIGINT to the kernel's whole group.
_OWN_GROUP: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if sys.platform == "win32"
    else {"start_new_session": True}
)

# Ends the child when our end of the pipe closes.
_GUARD = (
    "import os, signal, sys; sys.stdin.buffer.read(); "
    f"os.kill(int(sys.argv[1]), {int(getattr(signal, 'SIGKILL', signal.SIGTERM))})"
)


class Child:
    """A process that has been started, with further variables in its `environment`.

    What it says on its standard output is not read; `errors` takes in what it says on its standard
    error, which else is ours. Raises `OSError` if it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        errors: IO[bytes] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            **_OWN_GROUP,
        )
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _GUARD, str(self.pid)],
                stdin=subprocess.PIPE,
                **_OWN_GROUP,
            )
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        self._frozen = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended, by itself or by us."""
        return self._process.poll() is None

    @property
    def is_frozen(self) -> bool:
        """Whether it stands still."""
        return self._frozen and self.runs

    def freeze(self) -> None:
        """Let it stand still (SIGSTOP); what it is told waits in the kernel's buffers."""
        if sys.platform != "win32":  # see `can_freeze`
            os.kill(self.pid, signal.SIGSTOP)
            os.waitpid(self.pid, os.WUNTRACED)  # a signal takes a moment; from here it is so
        self._frozen = True

    def thaw(self) -> None:
        """Let it go on with what has waited (SIGCONT)."""
        if sys.platform != "win32":
            os.kill(self.pid, signal.SIGCONT)
        self._frozen = False

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); where there is no such signal, end it."""
        self._process.terminate()

    def wait(self) -> int:
        """Block until it has ended; its exit status."""
        return self._process.wait()

    def end(self) -> None:
        """End it at once (SIGKILL), if it still runs."""
        # The guard first: later, the child's process id may be somebody else's.
        for process in (self._guard, self._process):
            process.kill()
            process.communicate()
        self._frozen = False


def can_freeze() -> bool:
    """Whether this system can let a process stand still, as Windows cannot."""
    return hasattr(signal, "SIGSTOP")
