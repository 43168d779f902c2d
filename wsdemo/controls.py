"""The controls of a live stage: what can be done to each part of a cluster now, and doing it."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Annotated, NamedTuple, Protocol, runtime_checkable

import msgspec
from msgspec import Meta

from wsdemo.ledger import TITLES
from wsdemo.trace import HasTrace

__all__ = ["Act", "LiveCluster", "Offer", "carry_out", "offers"]

ENDED = (
    "This run has ended: the cluster is stopped, or about to start anew. If nothing happens, "
    "run the cell that opens the cluster, and then this one."
)
NAMES = string.ascii_uppercase  # of servers
MAX_BODY = 200  # characters that the stage's text field may send


class LivePlayer(Protocol):
    """What the controls need of a player."""

    connected: bool
    coming_back: bool
    server: str | None
    left: bool

    async def send(self, body: str) -> str:
        """Say something."""

    async def disconnect(self) -> None:
        """Close the connection and stay away."""

    async def reconnect(self, server: str | None = None) -> None:
        """Drop the connection, if there is one, and make another."""


@runtime_checkable
class LiveCluster(HasTrace, Protocol):
    """What the controls need of a cluster in order to act on it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that everything of the cluster runs on."""

    @property
    def broker(self) -> str:
        """What is between its servers."""

    @property
    def players(self) -> Mapping[str, LivePlayer]:
        """Its players, by name."""

    @property
    def servers(self) -> Mapping[str, object]:
        """Its servers, by name."""

    @property
    def redis_cannot(self) -> str:
        """Why its Redis cannot be stopped, started, frozen or thawed; empty if it can."""

    def player(self, name: str) -> LivePlayer:
        """The player of that name. Raises `ValueError`."""

    def on_run_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back each time a run ends, and when another, with a new trace, stands.

        The result ends that.
        """

    def beat(self, caption: str, notes: str = "") -> None:
        """Tell what happens from now on under this caption, with notes for whoever presents it."""

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

    async def stop_redis(self, keep: bool = False) -> object:
        """End Redis; if it is to keep its data, it has them when it is started again."""

    async def start_redis(self) -> object:
        """Start Redis again."""

    async def freeze_redis(self) -> object:
        """Let Redis do nothing."""

    async def thaw_redis(self) -> object:
        """Let a frozen Redis go on."""

    async def change_broker(self, broker: str) -> object:
        """Start everything anew, with another broker and the same players."""


# What can be done


class Offer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A button. `why` it cannot be pressed now, if it cannot."""

    action: str
    label: str
    why: str = ""
    choice: str = ""


def offers(cluster: LiveCluster, health: Mapping[str, str]) -> dict[str, list[Offer]]:
    """The buttons for each part, as "player P1", "server A", "redis redis", "cluster cluster".

    `health` says which parts are "down" or "frozen"; whatever is not in it is up.
    """
    found = _offers(cluster, health)
    if not cluster.trace.ended:
        return found
    return {
        part: [msgspec.structs.replace(offer, why=ENDED) for offer in of]
        for part, of in found.items()
    }


def _offers(cluster: LiveCluster, health: Mapping[str, str]) -> dict[str, list[Offer]]:
    found = {
        f"player {name}": list(_for_player(cluster, name, player, health))
        for name, player in cluster.players.items()
        if not player.left
    }
    redis = "up" if cluster.broker == "none" else health.get("redis", "up")
    for name in cluster.servers:
        found[f"server {name}"] = _for_server(f"Server {name}", health.get(name, "up"), redis)
    if cluster.broker != "none":
        found["redis redis"] = _for_redis(cluster.redis_cannot, health.get("redis", "up"))
    up = [name for name in cluster.servers if health.get(name, "up") == "up"]
    is_full = len(cluster.servers) >= len(NAMES)
    found["cluster cluster"] = [
        Offer("add-player", "Add a player", "" if up else "No server is up: restart one first."),
        Offer(
            "add-server",
            "Add a server",
            f"There are {len(NAMES)} servers, and no more names." if is_full else _cure(redis),
        ),
        *(
            Offer(
                "change-broker",
                f"Start anew {_in_a_sentence(title)}",
                choice=broker,
            )
            for broker, title in TITLES.items()
        ),
    ]
    return found


def _for_player(
    cluster: LiveCluster, name: str, player: LivePlayer, health: Mapping[str, str]
) -> Iterable[Offer]:
    away = f"{name} is away: reconnect it first." if not player.connected else ""
    gone = "" if player.connected or player.coming_back else f"{name} is away already."
    yield Offer("send", "Send", away)
    yield Offer("disconnect", "Disconnect", gone)
    for server in cluster.servers:
        why = f"{name} is on {server} already." if player.server == server else ""
        if health.get(server, "up") != "up":
            why = f"Server {server} is {health[server]}."
        yield Offer("reconnect", f"Reconnect to {server}", why, server)
    yield Offer("reconnect", "Reconnect, the balancer’s choice")


def _for_server(name: str, health: str, redis: str) -> list[Offer]:
    down = f"{name} is down already." if health == "down" else ""
    return [
        Offer("kill", "Kill", down),
        Offer("restart", "Restart", _cure(redis)),
        Offer("freeze", "Freeze", down or (f"{name} is frozen already." if health != "up" else "")),
        Offer("thaw", "Thaw", f"{name} is not frozen." if health != "frozen" else ""),
    ]


def _cure(redis: str) -> str:
    """Why no server can start now, if Redis is not up."""
    deed = {"down": "start", "frozen": "thaw"}.get(redis)
    return f"Redis is {redis}: {deed} it first." if deed else ""


def _for_redis(cannot: str, health: str) -> list[Offer]:
    """The same, unless it is not this cluster's to break."""
    down = "Redis is down already." if health == "down" else ""
    whys = {
        ("stop", "Stop"): down,
        ("stop-and-keep", "Stop, keep its data"): down,
        ("start", "Start"): "" if down else "Redis runs already.",
        ("freeze", "Freeze"): down or ("Redis is frozen already." if health != "up" else ""),
        ("thaw", "Thaw"): "Redis is not frozen." if health != "frozen" else "",
    }
    return [Offer(action, label, cannot or why) for (action, label), why in whys.items()]


# Doing it


class Act(msgspec.Struct, frozen=True):
    """What a button asks for: to do this to that part, as "player P1"."""

    id: Annotated[int, Meta(ge=0, le=2**53)]
    part: Annotated[str, Meta(max_length=80)]
    action: Annotated[str, Meta(max_length=40)]
    choice: Annotated[str, Meta(max_length=80)] = ""
    body: Annotated[str, Meta(max_length=100_000)] = ""


async def carry_out(cluster: LiveCluster, act: Act, health: Mapping[str, str]) -> str:
    """Do it, and wait until it has had its effect. Returns what there is to say, if anything.

    Raises `ValueError` for what no button asks for, and whatever the cluster itself raises.
    """
    kind, _, name = act.part.partition(" ")
    if (kind, act.action) not in _DEEDS:
        raise ValueError(f"the stage cannot do {act.action!r} to {act.part!r}")
    deed = _DEEDS[kind, act.action]
    if deed.caption and _is_offered(cluster, act, health):  # else the cluster says why not
        to = f" to {act.choice}" if act.choice else ""
        body = _body(act.body) if act.action == "send" else ""
        cluster.beat(deed.caption.format(name=name, to=to, body=body), deed.notes.format(name=name))
    await deed.do(cluster, name, act)
    text = _renewed(act.choice) if act.action == "change-broker" else ""
    if act.action != "freeze":  # what is frozen does not come to rest
        text = await _settled(cluster) or text
    return text


class _Deed(NamedTuple):
    """What a button does, and the caption and the notes under which it is told."""

    do: Callable[[LiveCluster, str, Act], Awaitable[object]]
    caption: str = ""  # a new start has its own
    notes: str = ""


_DEEDS: dict[tuple[str, str], _Deed] = {
    ("player", "send"): _Deed(
        lambda cluster, name, act: cluster.player(name).send(_body(act.body)),
        "{name} says “{body}”",
        "Who hears it, and by which way? Who misses it, and does {name} know?",
    ),
    ("player", "disconnect"): _Deed(
        lambda cluster, name, act: cluster.player(name).disconnect(),
        "{name} disconnects",
        "Let somebody say something now. Who keeps it for {name}?",
    ),
    ("player", "reconnect"): _Deed(
        lambda cluster, name, act: cluster.player(name).reconnect(act.choice or None),
        "{name} reconnects{to}",
        "The connection is new. Whom will {name} hear from now on? Does it get what it missed?",
    ),
    ("server", "kill"): _Deed(
        lambda cluster, name, act: cluster.kill_server(name),
        "Server {name} is killed",
        "Who was on {name}? How do they learn of it, and where do they come back?",
    ),
    ("server", "restart"): _Deed(
        lambda cluster, name, act: cluster.restart_server(name),
        "Server {name} is restarted",
        "It knows nothing of before. Does anybody come back to it by themselves?",
    ),
    ("server", "freeze"): _Deed(
        lambda cluster, name, act: cluster.freeze_server(name),
        "Server {name} freezes",
        "Its connections stand. How long until its players notice? Let somebody say something.",
    ),
    ("server", "thaw"): _Deed(
        lambda cluster, name, act: cluster.thaw_server(name),
        "Server {name} thaws",
        "What has waited goes on, in order. What did not wait for it?",
    ),
    ("redis", "stop"): _Deed(
        lambda cluster, name, act: cluster.stop_redis(),
        "Redis stops, and its data are gone",
        "All players are still connected. Let somebody say something: who is told that it failed?",
    ),
    ("redis", "stop-and-keep"): _Deed(
        lambda cluster, name, act: cluster.stop_redis(keep=True),
        "Redis stops, and keeps its data",
        "What does it have to keep? Let somebody who was away come back after its start.",
    ),
    ("redis", "start"): _Deed(
        lambda cluster, name, act: cluster.start_redis(),
        "Redis starts",
        "The servers subscribe again. Is what was said meanwhile made good?",
    ),
    ("redis", "freeze"): _Deed(
        lambda cluster, name, act: cluster.freeze_redis(),
        "Redis freezes",
        "Its connections stand, and it answers nothing. How is that told from a slow one?",
    ),
    ("redis", "thaw"): _Deed(
        lambda cluster, name, act: cluster.thaw_redis(),
        "Redis thaws",
        "It does what had reached it. What had not, and was a sender told so meanwhile?",
    ),
    ("cluster", "add-player"): _Deed(
        lambda cluster, name, act: _add(cluster.join, (f"P{n}" for n in range(1, 1000)), cluster),
        "A player joins",
        "The balancer has chosen its server. Does it hear what was said before?",
    ),
    ("cluster", "add-server"): _Deed(
        lambda cluster, name, act: _add(cluster.add_server, NAMES, cluster),
        "A server is added",
        "It is empty. Who will come to it: those who are here, or those who come next?",
    ),
    ("cluster", "change-broker"): _Deed(
        lambda cluster, name, act: cluster.change_broker(act.choice)
    ),
}


def _is_offered(cluster: LiveCluster, act: Act, health: Mapping[str, str]) -> bool:
    return any(
        (offer.action, offer.choice, offer.why) == (act.action, act.choice, "")
        for offer in offers(cluster, health).get(act.part, [])
    )


def _body(text: str) -> str:
    body = text.strip()
    if not body:
        raise ValueError("there is nothing to say; write something first")
    if len(body) > MAX_BODY:
        raise ValueError(f"that is {len(body):,} characters; write at most {MAX_BODY}")
    return body


async def _add(
    add: Callable[[str], Awaitable[object]], names: Iterable[str], cluster: LiveCluster
) -> None:
    """Add one under the first name that is free."""
    reason: ValueError | None = None
    for name in names:
        if name in cluster.players or name in cluster.servers:
            continue
        try:
            await add(name)
        except ValueError as error:  # a client that is none of ours has it, or somebody was quicker
            reason = error
            continue
        return
    raise ValueError(f"every name is taken, up to {name}") from reason


def _renewed(broker: str) -> str:
    how = _in_a_sentence(TITLES.get(broker, f"With {broker}"))
    return f"The cluster was started anew, {how}. Whoever was connected has joined again."


def _in_a_sentence(title: str) -> str:
    return title[:1].lower() + title[1:]


async def _settled(cluster: LiveCluster) -> str:
    """Wait for what an action brings about; what has not come to rest is said, and goes on."""
    try:
        await cluster.settle()
    except TimeoutError as error:
        return f"Done, but {error}."
    return ""
