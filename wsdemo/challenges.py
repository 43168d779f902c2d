"""Challenges for free play, and whether a run has met them, by its trace alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from textwrap import wrap

from wsdemo.ledger import Ledger, ledger
from wsdemo.story import Keeps, tell
from wsdemo.trace import HasTrace, Record, Trace

__all__ = ["CHALLENGES", "MOST_KEPT", "Challenge", "Grades", "Scorecard", "grades"]

MOST_KEPT = 10  # events
WIDTH, INDENT = 90, "     "  # characters: a notebook breaks longer lines within words


@dataclass(frozen=True)
class Challenge:
    """Something to bring about. `lacks` says what a run still lacks: nothing, if it has met it."""

    name: str
    task: str
    lacks: Callable[[Trace, Ledger], list[str]]


@dataclass(frozen=True)
class Grades:
    """What a run lacks for each challenge, nothing if it has met it; and what was met before."""

    lacking: dict[str, list[str]]
    before: frozenset[str] = frozenset()

    @property
    def met(self) -> list[str]:
        """The names of those that are met, or were."""
        return [name for name, lacks in self.lacking.items() if not lacks or name in self.before]

    def __repr__(self) -> str:
        lines = [f"{len(self.met)} of {len(CHALLENGES)} challenges met"]
        for number, challenge in enumerate(CHALLENGES, start=1):
            lacks = self.lacking[challenge.name]
            is_met = challenge.name in self.met
            when = " (Met before.)" if is_met and lacks else ""
            task = f"{'✓' if is_met else '✗'} {number}. {challenge.task}{when}"
            lines += wrap(task, WIDTH, subsequent_indent=INDENT)
            lines += [f"{INDENT}not yet: {each}" for each in lacks if not is_met]
        return "\n".join(lines)


class Scorecard:
    """Remembers which challenges have been met, over all the runs that it was shown."""

    def __init__(self) -> None:
        self._met: frozenset[str] = frozenset()

    def grade(self, run: HasTrace | Trace) -> Grades:
        """How a run stands, live or recorded, beside what earlier ones have met."""
        found = Grades(grades(run).lacking, self._met)
        self._met = frozenset(found.met)
        return found


def grades(run: HasTrace | Trace) -> Grades:
    """How a run stands, live or recorded: all challenges are tried on one and the same run.

    Raises `TypeError` for what is no run.
    """
    trace = run if isinstance(run, Trace) else getattr(run, "trace", None)
    if not isinstance(trace, Trace):
        raise TypeError("give the cluster, or one of the runs, as in `grades(cluster)`")
    found = ledger(trace)
    return Grades({each.name: each.lacks(trace, found) for each in CHALLENGES})


def _unless(holds: object, words: str) -> list[str]:
    return [] if holds else [words]


def _nobody_misses(found: Ledger) -> list[str]:
    missed = [f"{found.body(f.event)!r} by {f.player}" for f in found if f.outcome == "missed"]
    pending = [f"{found.body(f.event)!r} by {f.player}" for f in found if f.outcome == "pending"]
    return [
        *_unless(not missed, f"missed: {_some(missed)}"),
        *_unless(not pending, f"yet to be heard: {_some(pending)}"),
    ]


def _some(names: list[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _loses_two(trace: Trace, found: Ledger) -> list[str]:
    """P1 misses exactly two events, and nobody else any, although there is a broker."""
    by_p1 = found.missed_by("P1")
    return [
        *_unless(trace.about.get("broker") != "none", "there is no broker between the servers"),
        *_unless(len(by_p1) == 2, f"P1 misses {len(by_p1)}"),
        *_unless(found.missed == len(by_p1), f"others miss {found.missed - len(by_p1)}"),
    ]


def _publish_said_one(trace: Trace, found: Ledger) -> list[str]:
    """PUBLISH reached somebody, and a player of another server missed the event all the same."""
    missed = {fate.event for fate in found if fate.outcome == "missed"}
    misled = [
        record
        for record in trace.select("publish")
        if record.data.get("receivers", 0) >= 1 and record.event in missed
    ]
    return _unless(misled, "no event that PUBLISH counted a receiver for was missed by anybody")


def _survives_a_server(trace: Trace, found: Ledger) -> list[str]:
    """A server that has players is killed, more is said before it is back, nobody misses it."""
    kills = [
        record
        for record in trace.select("fault")
        if record.data.get("reason") == "killed" and _players_on(trace, record)
    ]
    meanwhile = [event for kill in kills for event in _said_during(trace, kill)]
    return [
        *_unless(kills, "no server was killed while it had players"),
        *_unless(not kills or meanwhile, "nothing was said between its end and its return"),
        *_nobody_misses(found),
    ]


def _survives_redis(trace: Trace, found: Ledger) -> list[str]:
    """Somebody hears only after a restart of Redis what was said before it; few events are kept."""
    ends = [
        record.n
        for record in trace.select("fault", at="redis")
        if record.data.get("reason") in ("stopped", "killed", "power cut")
    ]
    starts = trace.select("heal", at="redis")
    backs = [record.n for record in starts if record.data.get("reason") == "started"]
    returns = [(end, back) for end in ends if (back := next((n for n in backs if n > end), None))]
    said = {record.event: record.n for record in reversed(trace.select("send"))}
    late = any(
        said.get(record.event, len(trace)) < end and back < record.n
        for record in trace.select("hear")
        for end, back in returns
    )
    counts = [item.count for item in tell(trace).items if isinstance(item, Keeps)]
    kept = max(filter(None, counts), default=0)
    return [
        *_unless(returns, "Redis has not been away and come back"),
        *_unless(
            late or not returns, "nobody heard, after its return, what was said before it went"
        ),
        *_unless(kept <= MOST_KEPT, f"{kept} events were kept at a time; ten are enough"),
        *_nobody_misses(found),
    ]


def _heard_once(trace: Trace, found: Ledger) -> list[str]:
    """An event is kept, said again, and known: what “exactly once” comes to."""
    known = [r for r in trace.select("store") if not r.data.get("is_new", True)]
    return [
        *_unless(known, "no event that was kept has been said again and known by its id"),
        *_unless(not found.twice, "somebody has heard an event twice"),
        *_nobody_misses(found),
    ]


def _spread(trace: Trace, found: Ledger) -> list[str]:
    """After a server was killed and restarted, each of three or more servers has a player."""
    servers = [str(name) for name in trace.about.get("servers", ())]
    here = _where(trace)
    empty = [name for name in servers if name not in here.values()]
    restarted = [r for r in trace.select("heal") if r.data.get("reason") == "restarted"]
    return [
        *_unless(len(servers) >= 3, f"there are {len(servers)} servers"),
        *_unless(restarted, "no server has been killed and restarted"),
        *_unless(not empty, f"nobody is on {', '.join(empty)}"),
    ]


def _where(trace: Iterable[Record]) -> dict[str, str]:
    """Which server each player is on, at the end of these records."""
    here: dict[str, str] = {}
    for record in trace:
        if record.kind == "join":
            here[record.peer] = record.at
        elif record.kind in ("disconnect", "leave") and here.get(record.peer) == record.at:
            del here[record.peer]
    return here


def _players_on(trace: Trace, fault: Record) -> bool:
    return fault.at in _where(record for record in trace if record.n < fault.n).values()


def _said_during(trace: Trace, kill: Record) -> list[str]:
    """What was said from a server's end until its return, or the end of the run."""
    returns = [heal.n for heal in trace.select("heal", at=kill.at) if heal.n > kill.n]
    until = min(returns, default=len(trace))
    return [record.event for record in trace.select("send") if kill.n < record.n < until]


CHALLENGES = (
    Challenge(
        "loses two",
        "With a broker, let P1 miss exactly two events, and nobody else any.",
        _loses_two,
    ),
    Challenge(
        "publish said one",
        "Let Redis count a receiver for an event that somebody misses all the same.",
        _publish_said_one,
    ),
    Challenge(
        "survives a server",
        "Kill a server that has players, let others talk before it is back: nobody misses a word.",
        _survives_a_server,
    ),
    Challenge(
        "survives Redis",
        "While a player is away, say something, and restart Redis: the player hears it when it is "
        "back, nobody misses a word, and at no time are more than ten events kept.",
        _survives_redis,
    ),
    Challenge(
        "heard once",
        "Say an event again that Redis has kept, as after a lost reply: all have heard it once.",
        _heard_once,
    ),
    Challenge(
        "spread",
        "Kill and restart one of three servers, and end with a player on each.",
        _spread,
    ),
)
