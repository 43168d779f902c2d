"""The trace: one record for each thing that happened, in the order in which it happened.

Actors (players, balancer, servers, brokers) append to a trace; everything a person sees is computed
from one: the stage, the timeline, the ledger, the checks of the exercises. Neither side knows the
other, so a saved trace can be looked at without Redis, without sockets and without a kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import msgspec

__all__ = [
    "SCHEMA_VERSION",
    "HasTrace",
    "Kind",
    "Record",
    "Source",
    "Trace",
    "TraceError",
    "is_elsewhere",
    "load_traces",
    "save_traces",
    "traces",
]

SCHEMA_VERSION = 1

Kind = Literal[
    # what the scenario says
    "step",  # a beat begins: data["caption"] is its sentence, data["notes"] what to say about it
    "settle",  # everything recorded so far has come to rest
    "start",  # a server was added to those there were at first
    # connections
    "asked",  # player: somebody has it join, reconnect, disconnect or leave, as data["to"] says
    "connect",  # player -> balancer: it opens a socket
    "route",  # balancer -> server: for data["player"]
    "join",  # server <- player: registered, events reach it from here on
    "welcome",  # player <- server
    "disconnect",  # player or server: the other end is gone
    "leave",  # server <- player: it left and is owed nothing more; the player's, if no server's
    # one event's way; store, ack, replay and duplicate belong to brokers that keep events
    "send",  # player -> server, with data["body"]; data["frame"] is the text on the wire
    "receive",  # server <- player, with data["body"] and data["frame"]
    "publish",  # server -> redis: carried out, with data["receivers"]
    "unpublished",  # server -> redis: it could not be, or is not known to be, for data["reason"]
    "store",  # server -> redis: kept, with data["seq"]; not data["is_new"] if it had been before.
    # A stream says how many it has by now: data["kept"]
    "relay",  # server <- redis (or its own broker): to its own players goes data["frame"]
    "deliver",  # server -> player
    "hear",  # player <- server
    "trim",  # server -> redis: data["player"]'s queue was full, so its oldest event is gone
    "confirm",  # player <- server: what it said is kept, with data["seq"]
    "give up",  # player: it waits no longer for that
    "ack",  # player -> server: everything up to data["seq"] is heard
    "replay",  # server -> player: what it has missed
    "duplicate",  # player <- server: it had heard this one before
    "reject",  # server -> player: bad input, with data["code"]
    # what the servers know of the broker
    "subscribe",  # server -> redis: confirmed, for data["channel"]
    "unsubscribe",  # server -> redis
    "gap",  # server <- redis: the subscription was made anew, events may be missing; server ->
    # player: those before data["seq"] of data["epoch"] are lost that it has not heard
    # what breaks. Without a peer it is somebody's doing: at a server, data["reason"] is "killed" or
    # "frozen", at redis "stopped", "killed", "power cut" or "frozen". With one, `at` has noticed
    # it: the balancer that a server does not answer, a server that a player is "too slow"
    "fault",  # the part that failed
    "heal",  # the part that came back: "restarted" or "started", or "thawed"
]

_KINDS = frozenset(get_args(Kind))


class TraceError(ValueError):
    """A saved trace cannot be read; the message says which line and why."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened.

    `n` is its index in the trace, `t` the seconds since the trace began, `at` the part it happened
    at, `peer` the part at the other end and `event` the id of the event it is about; both are empty
    where there is none.
    """

    n: int
    t: float
    kind: Kind
    at: str
    peer: str = ""
    event: str = ""
    data: dict[str, Any] = {}


class _Header(msgspec.Struct, frozen=True):
    wsdemo_trace: int
    about: dict[str, Any] = {}
    records: int = 0


class Trace:
    """An append-only list of records. `about` holds what is true of the run as a whole."""

    def __init__(self, /, **about: Any) -> None:
        self.about: dict[str, Any] = about
        self._records: list[Record] = []
        self._watchers: list[Callable[[Record], None]] = []
        self._began = time.perf_counter()
        self._ended = False

    def append(self, kind: Kind, at: str, peer: str = "", event: str = "", /, **data: Any) -> None:
        """Record that `kind` happened at `at`. After `end()` nothing is recorded any more."""
        if not self._ended:
            self._add(self.now(), kind, at, peer, event, data)

    @property
    def began(self) -> float:
        """When it did, by `time.perf_counter`, which all processes of a machine share."""
        return self._began

    def now(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self._began

    def _add(
        self, t: float, kind: Kind, at: str, peer: str, event: str, data: dict[str, Any]
    ) -> None:
        record = Record(len(self._records), t, kind, at, peer, event, data)
        self._records.append(record)
        for watcher in tuple(self._watchers):
            watcher(record)

    def end(self) -> None:
        """The run is over: what its parts do while they shut down does not belong to it."""
        self._ended = True

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self._ended

    def select(
        self,
        *kinds: Kind,
        at: str | None = None,
        peer: str | None = None,
        event: str | None = None,
    ) -> list[Record]:
        """The records of these kinds (of any, if none is named) that match every given field."""
        unknown = set(kinds) - _KINDS
        if unknown:
            raise ValueError(
                f"unknown kind {', '.join(sorted(unknown))}; there are: {', '.join(sorted(_KINDS))}"
            )
        return [
            record
            for record in self._records
            if (not kinds or record.kind in kinds)
            and (at is None or record.at == at)
            and (peer is None or record.peer == peer)
            and (event is None or record.event == event)
        ]

    def watch(self, watcher: Callable[[Record], None]) -> Callable[[], None]:
        """Call `watcher` with each record from now on; the result, when called, ends that."""

        def call(record: Record) -> None:
            watcher(record)

        def unwatch() -> None:
            if call in self._watchers:
                self._watchers.remove(call)

        self._watchers.append(call)

        return unwatch

    def save(self, path: str | PathLike[str]) -> None:
        """Write a header line and then one JSON object a line, UTF-8."""
        save_traces(path, [self])

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Trace:
        """Read what `save` wrote. Raises `TraceError` for anything else, `OSError` for no file."""
        found = load_traces(path)
        if len(found) > 1:
            raise TraceError(
                f"{path} holds {len(found)} traces; read it with `wsdemo.trace.load_traces`"
            )
        return next(iter(found.values()))

    def _restore(self, record: Record) -> None:
        if record.n != len(self._records):
            raise TraceError(f"record {record.n} stands where {len(self._records)} should")
        self._records.append(record)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, n: int) -> Record:
        return self._records[n]

    def __repr__(self) -> str:
        about = ", ".join(f"{key}={value!r}" for key, value in self.about.items())
        return f"Trace({about}): {len(self)} records"


def _read_header(line: bytes) -> _Header:
    try:
        header = msgspec.json.decode(line, type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TraceError(f"not the header of a saved trace ({error})") from error
    if header.wsdemo_trace > SCHEMA_VERSION:
        raise TraceError(
            f"written by a later wsdemo, as trace version {header.wsdemo_trace}; "
            f"this one reads up to {SCHEMA_VERSION}, so upgrade wsdemo"
        )
    return header


_decoder = msgspec.json.Decoder(Record)


def save_traces(path: str | PathLike[str], found: Iterable[Trace]) -> None:
    """Write several traces into one file, one after the other, each with its header line."""
    encode = msgspec.json.encode
    with Path(path).open("wb") as file:
        for trace in found:
            file.write(encode(_Header(SCHEMA_VERSION, trace.about, len(trace))) + b"\n")
            file.writelines(encode(record) + b"\n" for record in trace)


def load_traces(path: str | PathLike[str]) -> dict[str, Trace]:
    """The traces in a file, by the name of their broker. Raises `TraceError` and `OSError`."""
    *lines, rest = Path(path).read_bytes().split(b"\n")
    found: dict[str, Trace] = {}
    trace, awaited = None, 0
    for number, line in enumerate(lines, start=1):
        try:
            if awaited == 0:
                header = _read_header(line)
                trace = Trace(**header.about)
                trace.end()
                name, awaited = str(trace.about.get("broker", "run")), header.records
                if name in found:
                    raise TraceError(f"a second trace of {name}")
                found[name] = trace
            elif trace is not None:
                trace._restore(_decoder.decode(line))
                awaited -= 1
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise TraceError(f"{path}, line {number}: {error}") from error
    if rest or awaited or trace is None:
        raise TraceError(f"{path} is cut short in line {len(lines) + 1}; save the trace again")
    return found


def is_elsewhere(record: Record, game: object) -> bool:
    """Whether a record is about another game: servers that a cluster shares may hold several."""
    return game is not None and record.data.get("game", game) != game


class HasTrace(Protocol):
    """A live cluster, or one run of a comparison."""

    @property
    def trace(self) -> Trace:
        """What has been recorded."""


Source = Trace | HasTrace | Mapping[str, "Trace | HasTrace"]
"""What a view can show: a trace, a live cluster, the result of `compare` or of `load_traces`."""


def traces(source: Source) -> dict[str, Trace]:
    """The traces in a source, by the name of their broker. Raises `TypeError` for anything else."""
    if isinstance(source, Mapping):
        return {str(name): _trace(run) for name, run in source.items()}
    trace = _trace(source)
    return {str(trace.about.get("broker", "run")): trace}


def _trace(source: object) -> Trace:
    trace = source if isinstance(source, Trace) else getattr(source, "trace", None)
    if isinstance(trace, Trace):
        return trace
    raise TypeError(
        f"cannot show {type(source).__name__}; "
        "give a cluster, its trace, or what `await compare(...)` returned"
    )
