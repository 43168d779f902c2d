"""Story time: what real runs look like when each hop takes as long as any other."""

from __future__ import annotations

import asyncio
import json
import random
import shlex
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from itertools import pairwise
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect

from wsdemo import compare, faults, open_cluster, scenarios
from wsdemo.cluster import BROKERS, Cluster
from wsdemo.ledger import ledger
from wsdemo.player import Player
from wsdemo.story import (
    BREATH,
    HEADWAY,
    Beat,
    Command,
    Frame,
    Health,
    Hop,
    Item,
    Keeps,
    Left,
    Link,
    Loss,
    Outcome,
    Place,
    Said,
    Story,
    Teller,
    tell,
)
from wsdemo.trace import Trace

A_LITTLE = 1e-6  # story times are sums of fractions


def run(seed: int, broker: str, steps: int = 4, deeds: int = 4) -> tuple[Trace, list[Item]]:
    """The trace of a random game on a real cluster, and what was told of it while it ran."""
    return asyncio.run(_run(seed, broker, steps, deeds))


async def _run(seed: int, broker: str, steps: int, deeds: int) -> tuple[Trace, list[Item]]:
    told: list[Item] = []
    async with open_cluster(servers=["A", "B", "C"], broker=broker, redis="fake") as cluster:
        teller = Teller(cluster.trace)
        cluster.trace.watch(lambda record: told.extend(teller.feed(record)))
        game = RandomGame(cluster, random.Random(seed))
        try:
            for n in range(steps):
                async with cluster.step(f"Step {n}"):
                    for _ in range(game.random.randint(1, deeds)):
                        await game.act()
                    await game.quiet()
        finally:
            await asyncio.gather(*(client.close() for client in game.clients))
    return cluster.trace, told


class RandomGame:
    """Does to a cluster, at random, whatever its players can do."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self.cluster = cluster
        self.random = chance
        self.clients: list[ClientConnection] = []
        self.visitors = 0

    async def act(self) -> None:
        """One or two players do something at the same time; nobody waits for what comes of it."""
        players = self.random.sample(["P1", "P2", "P3", "P4", "Zoé"], self.random.choice([1, 1, 2]))
        await asyncio.gather(*(self._deed(player)() for player in players))

    def _deed(self, name: str) -> Callable[[], Awaitable[object]]:
        player = self.cluster.players.get(name)
        deeds: list[Callable[[], Awaitable[object]]] = [self._come_by]
        if player is None or player.left:
            deeds += [lambda: self._join(name)] * 4
        elif player.connected:
            deeds += [lambda: self._say(player)] * 6
            deeds += [lambda: self._move(player)] * 2
            deeds += [lambda: self._cut(player), player.disconnect, lambda: self._leave(player)]
        elif not player.coming_back:
            deeds += [lambda: self._move(player)] * 4
        return self.random.choice(deeds)

    def _server(self) -> str | None:
        return self.random.choice([*self.cluster.servers, None])

    async def _join(self, name: str) -> None:
        with suppress(ConnectionError):  # its last connection may not have ended yet
            await self.cluster.join(name, server=self._server())

    async def _say(self, player: Player) -> None:
        await player.send(self.random.choice(["jump", "hide", "<b>", "", "x" * 50]))

    async def _move(self, player: Player) -> None:
        await player.reconnect(self._server())

    async def _leave(self, player: Player) -> None:
        await player.leave()

    async def _cut(self, player: Player) -> None:
        if player._socket:
            player._socket.transport.abort()

    async def _come_by(self) -> None:
        """A client that is no part of the cluster joins, says something, and may go."""
        if self.visitors == 2:
            return
        self.visitors += 1
        number = self.visitors
        server = self.random.choice(list(self.cluster.servers.values()))
        client = await connect(server.url, proxy=None)
        self.clients.append(client)
        await client.send(json.dumps({"type": "join", "game": "g", "player": f"F{number}"}))
        await client.recv()
        await client.send(json.dumps({"type": "send", "id": f"foreign-{number}", "body": "hello"}))
        if self.random.random() < 0.5:
            await client.close()

    async def quiet(self) -> None:
        """Wait as `settle` does, but for these clients too, of whom the cluster knows nothing."""
        for _ in range(2):
            players = [player for player in self.cluster.players.values() if player.connected]
            syncs = [*(player.sync() for player in players), *map(_sync, self.clients)]
            await asyncio.gather(*syncs, return_exceptions=True)


async def _sync(client: ClientConnection) -> None:
    await client.send('{"type":"sync","id":"quiet"}')
    while json.loads(await client.recv())["type"] != "synced":
        pass


_T = TypeVar("_T")


def of(story: Story, kind: type[_T]) -> list[_T]:
    """The items of one kind, in the order in which they were told."""
    return [item for item in story.items if isinstance(item, kind)]


def journeys(story: Story) -> list[Hop | Loss]:
    """Everything that moves from one part to another."""
    return [item for item in story.items if isinstance(item, Hop | Loss)]


def starts(item: Item) -> float:
    """When an item begins."""
    return item.s0 if isinstance(item, Hop | Loss | Place) else item.s


def ends(item: Item) -> float:
    """When an item is over."""
    return item.s1 if isinstance(item, Hop | Loss | Place) else item.s


# What is true of every story, each as a function of a run

Truth = Callable[[Trace, Story], None]


def names_only_what_there_was(trace: Trace, story: Story) -> None:
    """Every part and every event in the story is one of the trace."""
    parts = {name for record in trace for name in (record.at, record.peer)} - {"", "scenario"}
    events = {record.event for record in trace} - {""}
    for item in story.items:
        match item:
            case Hop() | Loss():
                assert {item.source, item.target} <= parts | {"redis"}, item
                assert item.event in events, item
            case Said() | Outcome():
                assert item.player in parts, item
                assert item.event in events, item
            case Place():
                assert item.player in parts, item
                assert item.server in {"", *story.every_server}, item
            case Left():
                assert item.player in parts, item
            case Link() | Command():
                assert item.server in story.every_server, item
            case Frame():
                assert item.event in events, item
            case Keeps():
                assert item.count is None or item.count >= 0, item
            case Health():
                assert item.part in parts | {"redis"}, item


def takes_one_hop_for_each_hop(trace: Trace, story: Story) -> None:
    """Each hop, and each loss, is one unit of story time long."""
    for item in journeys(story):
        assert item.s1 - item.s0 == pytest.approx(1), item


def shows_every_message(trace: Trace, story: Story) -> None:
    """Each message that the trace says has arrived has one hop, with its real duration."""
    foreign = {record.peer for record in trace.select("join")} - {
        record.at for record in trace.select("connect")
    }
    expected = [(r.event, r.peer, r.at) for r in trace.select("receive", "hear")]
    expected += [(r.event, r.peer, r.at) for r in trace.select("relay") if r.peer]
    written = trace.select("deliver", "replay")
    expected += [(r.event, r.at, r.peer) for r in written if r.peer in foreign]
    expected += [(r.event, "redis", r.at) for r in trace.select("replay")]
    for event in {r.event for r in trace.select("receive")}:
        tries = trace.select("receive", event=event)
        ends = [*(again.n for again in tries[1:]), len(trace)]
        for received, end in zip(tries, ends, strict=True):
            seen = trace.select("publish", "store", "relay", event=event, peer="redis")
            if any(received.n < r.n < end for r in seen):
                expected += [(event, received.at, "redis")]
    shown = Counter((hop.event, hop.source, hop.target) for hop in of(story, Hop))
    assert not Counter(expected) - shown
    assert not shown - Counter(expected) - died_waiting(trace)
    for hop in of(story, Hop):
        assert hop.ms is None or 0 <= hop.ms < 60_000, hop
    hops = of(story, Hop)
    for player, event in {(heard.at, heard.event) for heard in trace.select("hear")}:
        there = [hop for hop in hops if (hop.target, hop.event) == (player, event)]
        left = trace.select("deliver", "replay", peer=player, event=event)
        heard = trace.select("hear", at=player, event=event)
        for hop, came in zip(there, heard, strict=True):
            took = [round((came.t - went.t) * 1000, 3) for went in left if went.n < came.n]
            assert hop.ms in took, hop
    for sent in trace.select("send"):
        said = [item for item in of(story, Said) if item.event == sent.event]
        assert [(item.player, item.body) for item in said] == [(sent.at, sent.data["body"])]


def died_waiting(trace: Trace) -> Counter[tuple[str, str, str]]:
    """Messages that a part which stands still may have got, though no record says so."""
    frozen, linked = set[str](), set[str]()
    found: Counter[tuple[str, str, str]] = Counter()
    for record in trace:
        match record.kind:
            case "fault" if not record.peer and record.data["reason"] == "frozen":
                frozen.add(record.at)
            case "fault" | "heal" if not record.peer:
                frozen.discard(record.at)
            case "subscribe":
                linked.add(record.at)
            case "send" if record.peer in frozen:
                found[record.event, record.at, record.peer] += 1
            case "receive" if "redis" in frozen:
                found[record.event, record.at, "redis"] += 1
            case "publish":
                for server in linked & frozen:
                    found[record.event, "redis", server] += 1
    return found


def puts_causes_before_effects(trace: Trace, story: Story) -> None:
    """No message leaves a part that it has not come to."""
    said = {item.event: item for item in of(story, Said)}
    for item in journeys(story):
        arrivals = [
            h.s1 for h in of(story, Hop) if (h.event, h.target) == (item.event, item.source)
        ]
        if item.source == said[item.event].player:
            arrivals.append(said[item.event].s)
        assert arrivals, f"nothing of {item.event} came to {item.source}: {item}"
        assert item.s0 >= min(arrivals) - A_LITTLE, item


def keeps_a_distance_on_each_link(trace: Trace, story: Story) -> None:
    """Two messages in one direction between two parts do not cover each other."""
    links = defaultdict(list)
    for hop in of(story, Hop):
        links[hop.source, hop.target].append(hop)
    for hops in links.values():
        for first, second in pairwise(sorted(hops, key=lambda hop: hop.s0)):
            assert second.s0 - first.s0 >= HEADWAY - A_LITTLE, (first, second)


def keeps_the_order_of_what_is_heard(trace: Trace, story: Story) -> None:
    """A player hears in the story in the order in which it really heard."""
    for player in {record.at for record in trace.select("hear")}:
        order = [record.event for record in trace.select("hear", at=player)]
        hops = [hop for hop in of(story, Hop) if hop.target == player]
        assert [hop.event for hop in sorted(hops, key=lambda hop: hop.s1)] == order


def tells_one_beat_after_the_other(trace: Trace, story: Story) -> None:
    """What a step brings about lies between its beat, and a breath, and the next."""
    assert [beat.caption for beat in of(story, Beat)] == [
        record.data["caption"] for record in trace.select("step")
    ]
    for n, item in enumerate(story.items):
        if isinstance(item, Beat):
            for before in story.items[:n]:
                assert ends(before) <= item.s + A_LITTLE, (before, item)
            for after in story.items[n + 1 :]:
                breath = 0 if isinstance(after, Beat) else BREATH
                assert starts(after) >= item.s + breath - A_LITTLE, (item, after)


def comes_to_the_ledgers_outcomes(trace: Trace, story: Story) -> None:
    """What becomes of each event is what the ledger says, and certain not before it happens."""
    told = {(o.event, o.player): (o.outcome, o.cause) for o in of(story, Outcome)}
    assert told == {
        (fate.event, fate.player): (fate.outcome, fate.cause)
        for fate in ledger(trace)
        if fate.outcome != "pending"
    }
    for outcome in of(story, Outcome):
        shown_by = [
            item.s1
            for item in story.items
            if (
                isinstance(item, Hop)
                and (item.event, item.target) == (outcome.event, outcome.player)
            )
            or (
                isinstance(item, Loss)
                and item.event == outcome.event
                and outcome.player in item.players
            )
        ]
        assert any(abs(s1 - outcome.s) < A_LITTLE for s1 in shown_by), outcome


def shows_each_miss_once(trace: Trace, story: Story) -> None:
    """Each miss is shown by one message that gets lost, for the cause that the ledger names."""
    shown = sorted(
        (loss.event, player, loss.cause) for loss in of(story, Loss) for player in loss.players
    )
    assert shown == sorted(
        (fate.event, fate.player, fate.cause) for fate in ledger(trace) if fate.outcome == "missed"
    )


def has_each_player_in_one_place(trace: Trace, story: Story) -> None:
    """A player is at one server, on its way to it, or away, and it is not told twice."""
    for player in {place.player for place in of(story, Place)}:
        places = [place for place in of(story, Place) if place.player == player]
        for place in places:
            assert place.s0 < place.s1 if place.server else place.s0 == place.s1, place
        for first, second in pairwise(places):
            assert second.s0 >= first.s1 - A_LITTLE, (first, second)
            if first.server:
                assert second.server == "", (first, second)
            else:
                assert second.server != "", (first, second)
    joined = [(r.peer, r.at) for r in trace.select("join")]
    assert sorted((p.player, p.server) for p in of(story, Place) if p.server) == sorted(joined)
    told = [item.player for item in of(story, Left)]
    left = [r.at if r.peer in story.every_server else r.peer for r in trace.select("leave")]
    assert Counter(told) <= Counter(left)  # both the player and its server may say so
    assert set(told) == set(left)


def delivers_to_who_is_there(trace: Trace, story: Story) -> None:
    """A message between a server and a player travels while the player is at the server."""
    for hop in of(story, Hop):
        player, server = (
            (hop.source, hop.target)
            if hop.target in story.every_server
            else (hop.target, hop.source)
        )
        if "redis" in (player, server):
            continue
        there = [p for p in of(story, Place) if p.player == player and p.s1 <= hop.s0 + A_LITTLE]
        assert there, f"{player} has been nowhere: {hop}"
        assert there[-1].server == server, (there[-1], hop)


def hears_only_through_a_link(trace: Trace, story: Story) -> None:
    """Redis gives a message only to a server that is subscribed, unless that asks for it.

    And links change in order.
    """
    asked = {(r.event, r.at) for r in trace.select("relay") if r.data.get("hops") == 4}
    asked |= {(r.event, r.at) for r in trace.select("replay")}
    for server in story.every_server:
        changes = [link for link in of(story, Link) if link.server == server]
        for earlier, later in pairwise(changes):
            assert later.s >= earlier.s - A_LITTLE, (earlier, later)
        for hop in of(story, Hop):
            if (hop.source, hop.target) == ("redis", server) and (hop.event, server) not in asked:
                before = [link for link in changes if link.s <= hop.s0 + A_LITTLE]
                assert before, f"{server} was never subscribed: {hop}"
                assert before[-1].up, (before[-1], hop)


def ends_with_its_last_item(trace: Trace, story: Story) -> None:
    """Nothing happens after the end of the story, and nothing before its beginning."""
    assert all(0 <= starts(item) <= ends(item) <= story.end for item in story.items)


TRUTHS: list[Truth] = [
    names_only_what_there_was,
    takes_one_hop_for_each_hop,
    shows_every_message,
    puts_causes_before_effects,
    keeps_a_distance_on_each_link,
    keeps_the_order_of_what_is_heard,
    tells_one_beat_after_the_other,
    comes_to_the_ledgers_outcomes,
    shows_each_miss_once,
    has_each_player_in_one_place,
    delivers_to_who_is_there,
    hears_only_through_a_link,
    ends_with_its_last_item,
]

every_truth = pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.__name__)


# Real runs


# Each scenario with each broker; but some break a Redis, so there must be one.
PLAYED = [
    (name, broker) for name in ("p1_moves_to_b", "p1_is_away", "p1_forgets") for broker in BROKERS
]
PLAYED += [(name, broker) for name in ("three_outages", "retry") for broker in BROKERS[1:]]
PLAYED += [("crash", broker) for broker in ("stream", "queue")]  # for it waits until all is kept


@cache
def comparison(scenario: str = "p1_moves_to_b") -> dict[str, Trace]:
    """The traces of a scenario of the course, with each broker that can play it."""
    brokers = [broker for name, broker in PLAYED if name == scenario]
    runs = asyncio.run(compare(scenario, brokers=brokers, redis="fake"))
    return {broker: run.trace for broker, run in runs.items()}


@cache
def random_runs(broker: str) -> list[tuple[Trace, list[Item]]]:
    """Some random games, each with what was told of it while it ran."""
    return [run(seed, broker) for seed in range(12)]


@pytest.mark.parametrize(("scenario", "broker"), PLAYED)
def test_what_is_true_of_the_lessons_scenarios(scenario: str, broker: str) -> None:
    """The scenarios of the course are told truly, with each broker."""
    trace = comparison(scenario)[broker]
    for truth in TRUTHS:
        truth(trace, tell(trace))


@pytest.mark.parametrize("broker", ["none", "pubsub"])
@every_truth
def test_what_is_true_of_some_games(truth: Truth, broker: str) -> None:
    """Games in which players come and go at random are told truly."""
    for trace, _ in random_runs(broker):
        truth(trace, tell(trace))


@given(seed=st.integers(12, 2**32), broker=st.sampled_from(["none", "pubsub"]))
@settings(max_examples=15, deadline=None)
def test_what_is_true_of_any_game(seed: int, broker: str) -> None:
    """Whatever the players do, the story of it is true, live as well as later."""
    trace, told = run(seed, broker, steps=3, deeds=6)
    story = tell(trace)
    assert story.items == told
    for truth in TRUTHS:
        truth(trace, story)


@pytest.mark.parametrize("broker", ["none", "pubsub"])
def test_a_live_story_is_the_whole_story(broker: str) -> None:
    """Record by record, while the run goes on, the same is told as of the whole trace."""
    for trace, told in random_runs(broker):
        assert tell(trace).items == told


def test_the_games_are_worth_telling() -> None:
    """The random games hold what the tests above are about: moves, losses, several causes."""
    stories = [tell(trace) for trace, _ in random_runs("none") + random_runs("pubsub")]
    causes = {loss.cause for story in stories for loss in of(story, Loss)}
    assert causes >= {"no broker between servers", "player away"}
    kinds = {type(item) for story in stories for item in story.items}
    assert kinds == {Beat, Said, Hop, Loss, Place, Left, Link, Frame, Command, Outcome}
    assert sum(len(of(story, Hop)) for story in stories) > 200


def test_what_no_step_tells_is_told_too() -> None:
    """A run without any step has a story that begins at once."""

    async def play() -> Trace:
        async with open_cluster(broker="none") as cluster:
            (p1,) = await cluster.join("P1")
            await p1.send("jump")
            await cluster.settle()
        return cluster.trace

    trace = asyncio.run(play())
    for truth in TRUTHS:
        truth(trace, tell(trace))
    assert not of(tell(trace), Beat)


def test_without_a_broker_two_messages_end_between_the_servers() -> None:
    """P1 on server B misses what P2 and P3 say on A, and both get lost on the way from A to B."""
    story = tell(comparison()["none"])
    assert (story.title, story.broker) == ("Without a broker", "none")
    assert story.servers == ["A", "B"]
    assert len(of(story, Beat)) == 4
    assert [(loss.event, loss.source, loss.target, loss.players) for loss in of(story, Loss)] == [
        ("P2-2", "A", "B", ["P1"]),
        ("P3-2", "A", "B", ["P1"]),
    ]
    assert not of(story, Link)


def test_with_pubsub_every_message_takes_the_same_way() -> None:
    """What P2 says on A reaches all three players at once, three hops after it was received."""
    story = tell(comparison()["pubsub"])
    assert story.title == "With Redis Pub/Sub"
    assert not of(story, Loss)
    (said,) = [item for item in of(story, Said) if item.event == "P2-2"]
    way = {
        (hop.source, hop.target): hop.s0 - said.s for hop in of(story, Hop) if hop.event == "P2-2"
    }
    assert way == pytest.approx(
        {
            ("P2", "A"): 0,
            ("A", "redis"): 1,
            ("redis", "A"): 2,
            ("redis", "B"): 2,
            ("A", "P2"): 3,
            ("A", "P3"): 3,
            ("B", "P1"): 3,
        }
    )
    assert [(link.server, link.up) for link in of(story, Link)] == [("A", True), ("B", True)]


@pytest.mark.parametrize(
    ("broker", "at_the_end_of_each_beat"), [("stream", [1, 3, 3]), ("queue", [0, 2, 0])]
)
def test_what_redis_keeps_while_p1_is_away(broker: str, at_the_end_of_each_beat: list[int]) -> None:
    """A stream keeps everything, a queue what its player has not acknowledged."""
    story = tell(comparison("p1_forgets")[broker])
    ends = [*(beat.s for beat in of(story, Beat)[1:]), story.end]
    kept = [[keeps.count for keeps in of(story, Keeps) if keeps.s <= end][-1] for end in ends]
    assert kept == at_the_end_of_each_beat
    assert not of(tell(comparison("p1_is_away")["pubsub"]), Keeps)


@pytest.mark.parametrize("broker", ["stream", "queue"])
async def test_what_redis_keeps_is_not_known_until_it_is_counted_again(broker: str) -> None:
    """It has lost everything, and begins anew; a queue has lost its oldest event before that."""
    async with open_cluster(broker=broker, redis="fake", history=3) as cluster:
        p1, p2 = await cluster.join("P1", "P2")
        await p2.disconnect()
        for number in range(5):
            await p1.send(f"{number}")
        await cluster.settle()
        async with faults.redis_stopped(cluster):
            pass
        await cluster.settle()
        await p1.send("the first")
        await cluster.settle()
    counts = [keeps.count for keeps in of(tell(cluster.trace), Keeps)]
    before, after = counts[: counts.index(None)], counts[counts.index(None) + 1 :]
    assert before[-1] == 3
    assert after == ([1] if broker == "stream" else [1, 0])


def test_both_runs_of_a_comparison_begin_with_the_same_beats() -> None:
    """What a comparison puts side by side has the same captions."""
    captions = [[beat.caption for beat in of(tell(t), Beat)] for t in comparison().values()]
    assert captions[0] == captions[1]
    assert captions[0][0] == "P1, P2 and P3 play on server A"


def test_who_joins_again_says_new_things() -> None:
    """A player of a name that has left is told from the one before by the ids of its events."""

    async def play() -> Trace:
        async with open_cluster(broker="none") as cluster:
            for _ in range(2):
                async with cluster.step("P1 comes, says something and leaves"):
                    (p1,) = await cluster.join("P1")
                    await p1.send("jump")
                    await cluster.settle()
                    await p1.leave()
        return cluster.trace

    trace = asyncio.run(play())
    assert len({record.event for record in trace.select("send")}) == 2
    assert (ledger(trace).heard, ledger(trace).twice) == (2, 0)
    for truth in TRUTHS:
        truth(trace, tell(trace))


# What real runs seldom show, written by hand


def written(broker: str, *records: str) -> Trace:
    """A trace of these records, one a line: kind, at, peer ("-" for none), event, details."""
    trace = Trace(broker=broker, servers=["A", "B", "C"])
    for line in "\n".join(records).splitlines():
        words = shlex.split(line) if "'" in line else line.split()
        data = dict(word.split("=", 1) for word in words if "=" in word)
        kind, at, *rest = ["" if word == "-" else word for word in words if "=" not in word]
        trace.append(kind, at, *rest, **data)  # type: ignore[arg-type]
    return trace


def arrives(player: str, server: str) -> str:
    """A player of the cluster's comes to a server."""
    return (
        f"connect {player} balancer\nroute balancer {server} player={player}\n"
        f"join {server} {player}\nwelcome {player} {server}"
    )


BEGIN = "step scenario caption=Begin"
P1_ON_A = f"{BEGIN}\n{arrives('P2', 'A')}\n{arrives('P1', 'A')}"
P1_ON_B = f"{BEGIN}\n{arrives('P2', 'A')}\n{arrives('P1', 'B')}"
SUBSCRIBED = "subscribe A redis\nsubscribe B redis"
SAID = "send P2 A P2-1 body=jump\nreceive A P2 P2-1 body=jump"
LOCAL = "relay A - P2-1\ndeliver A P2 P2-1\nhear P2 A P2-1"
HEARD = "relay A redis P2-1\ndeliver A P2 P2-1\nhear P2 A P2-1"
GONE = "disconnect P1 A\ndisconnect A P1"
SETTLED = "settle scenario"

LOST: dict[str, tuple[str, str, int, str, *tuple[str, ...]]] = {
    "never reached a server": ("P2", "A", 0, "pubsub", P1_ON_A, "send P2 A P2-1 body=jump"),
    "no broker between servers": ("A", "B", 1, "none", P1_ON_B, SAID, LOCAL),
    "redis down": ("A", "redis", 1, "pubsub", P1_ON_B, SAID, "unpublished A redis P2-1 reason=x"),
    "server without Redis": (
        *("A", "redis", 1, "pubsub", P1_ON_B, "fault A redis reason='link cut'", SAID),
        "unpublished A redis P2-1 reason=x",
    ),
    "server not subscribed": (
        *("redis", "B", 2, "pubsub", P1_ON_B, "subscribe A redis", SAID),
        *("publish A redis P2-1 receivers=1", HEARD),
    ),
    "player away": ("A", "P1", 1, "none", P1_ON_A, GONE, SAID, LOCAL),
    "player away, from its own server": (
        *("B", "P1", 3, "pubsub", P1_ON_B, SUBSCRIBED, SAID, HEARD, "relay B redis P2-1"),
        *("deliver B P1 P2-1", "disconnect P1 B"),
    ),
    "lost with its server": ("A", "redis", 1, "pubsub", P1_ON_B, SAID, "disconnect P2 A"),
}


@pytest.mark.parametrize("case", LOST)
def test_a_message_is_lost_where_it_was_lost(case: str) -> None:
    """For each cause, the message sets out from the last part that had it, to the next."""
    source, target, hops, broker, *records = LOST[case]
    cause, *_ = case.split(",")
    trace = written(broker, *records, SETTLED)
    story = tell(trace)
    (loss,) = [loss for loss in of(story, Loss) if "P1" in loss.players]
    assert (loss.source, loss.target, loss.cause) == (source, target, cause)
    assert loss.s0 - of(story, Said)[0].s == pytest.approx(hops)
    for truth in TRUTHS:
        truth(trace, story)


def test_a_message_to_a_player_too_slow_is_lost_on_its_last_hop() -> None:
    """What was written to a player that does not read is lost between its server and it."""
    trace = written(
        "none",
        *(P1_ON_A, SAID, "relay A - P2-1\ndeliver A P1 P2-1\ndeliver A P2 P2-1\nhear P2 A P2-1"),
    )
    trace.append("fault", "A", "P1", reason="too slow")
    for line in (*GONE.splitlines(), SETTLED):
        trace.append(*line.split())  # type: ignore[arg-type]
    (loss,) = of(tell(trace), Loss)
    assert (loss.source, loss.target, loss.players) == ("A", "P1", ["P1"])
    assert loss.cause == "player too slow"
    for truth in TRUTHS:
        truth(trace, tell(trace))


def test_one_message_is_lost_for_all_players_of_a_server() -> None:
    """Players of one server miss an event together, those of another by a message of their own."""
    trace = written("none", P1_ON_B, arrives("P3", "B"), arrives("P4", "C"), SAID, LOCAL, SETTLED)
    losses = {(loss.source, loss.target): loss.players for loss in of(tell(trace), Loss)}
    assert losses == {("A", "B"): ["P1", "P3"], ("A", "C"): ["P4"]}


def test_what_is_under_way_is_not_lost() -> None:
    """A story that ends before a message does shows how far it has come, and no outcome."""
    trace = written("pubsub", P1_ON_B, SUBSCRIBED, SAID, "publish A redis P2-1 receivers=2")
    story = tell(trace)
    assert [(hop.source, hop.target) for hop in of(story, Hop)] == [("P2", "A"), ("A", "redis")]
    assert not of(story, Loss)
    assert not of(story, Outcome)


def test_what_a_foreign_client_says_is_lost_after_it_was_received() -> None:
    """Of a client outside the cluster, too, a message comes to its server before it leaves it."""
    trace = written(
        "none",
        *(P1_ON_B, "join A F1\nreceive A F1 x-1 body=hi\nrelay A - x-1\ndeliver A F1 x-1"),
        *("deliver A P2 x-1\nhear P2 A x-1", SETTLED),
    )
    story = tell(trace)
    (loss,) = of(story, Loss)
    arrived = next(hop.s1 for hop in of(story, Hop) if (hop.source, hop.target) == ("F1", "A"))
    assert (loss.source, loss.target) == ("A", "B")
    assert loss.s0 >= arrived
    for truth in TRUTHS:
        truth(trace, story)


def test_redis_may_answer_after_it_has_passed_an_event_on() -> None:
    """Whether the answer or the first relay comes first, the event goes to Redis once."""
    answer = "publish A redis P2-1 receivers=1"
    first, last = (
        written("pubsub", P1_ON_A, "subscribe A redis", SAID, *order, SETTLED)
        for order in ((answer, HEARD), (HEARD, answer))
    )
    for trace in (first, last):
        hops = [hop for hop in of(tell(trace), Hop) if hop.target == "redis"]
        assert len(hops) == 1
        for truth in TRUTHS:
            truth(trace, tell(trace))


def test_a_lost_subscription_is_lost_until_it_is_back() -> None:
    """However long the beat, a link goes down after what came through it, and up after that."""
    again = SAID.replace("P2-1", "P2-2"), HEARD.replace("P2-1", "P2-2")
    published = "publish A redis P2-1 receivers=1"
    trace = written(
        "pubsub",
        *(P1_ON_A, "subscribe A redis", SAID, published, HEARD),
        *("disconnect A redis reason=gone", "subscribe A redis channel=g\ngap A redis channel=g"),
        *(again[0], published.replace("P2-1", "P2-2"), again[1], SETTLED),
    )
    story = tell(trace)
    assert [(link.server, link.up) for link in of(story, Link)] == [
        ("A", True),
        ("A", False),
        ("A", True),
    ]
    hears_only_through_a_link(trace, story)
    tells_one_beat_after_the_other(trace, story)


def test_a_server_is_unsubscribed_after_what_it_has_heard() -> None:
    """The last player's going takes the link down after, not before, what it still heard."""
    trace = written(
        "pubsub",
        *(BEGIN, arrives("P2", "A"), SETTLED, "step scenario caption=Go", "subscribe A redis"),
        *(SAID, "publish A redis P2-1 receivers=1", HEARD, "leave A P2\ndisconnect A P2"),
        *("unsubscribe A redis", "disconnect P2 A", SETTLED),
    )
    hears_only_through_a_link(trace, tell(trace))
    links = [(link.server, link.up) for link in of(tell(trace), Link)]
    assert links == [("A", True), ("A", False)]


def test_a_late_goodbye_does_not_move_who_has_moved() -> None:
    """A server that notices late that a player has gone does not take it away from another."""
    for arrival in ("join A F1\njoin B F1", f"{arrives('F1', 'A')}\n{arrives('F1', 'B')}"):
        trace = written("none", BEGIN, arrival, "disconnect A F1", SETTLED)
        assert [place.server for place in of(tell(trace), Place)] == ["A", "B"]


def test_who_joins_while_a_message_is_under_way_is_there_when_it_comes() -> None:
    """Players that have just joined are shown at their server before an event is delivered."""
    players = ["F1", "F2", "F3", "F4"]
    trace = written(
        "pubsub",
        *(BEGIN, arrives("P2", "A"), "subscribe A redis", SAID),
        *("publish A redis P2-1 receivers=1", *(f"join A {player}" for player in players)),
        *("relay A redis P2-1", *(f"deliver A {player} P2-1" for player in ["P2", *players])),
        *("hear P2 A P2-1", SETTLED),
    )
    story = tell(trace)
    delivers_to_who_is_there(trace, story)
    keeps_a_distance_on_each_link(trace, story)
    puts_causes_before_effects(trace, story)


def test_what_a_stranger_publishes_happens_now() -> None:
    """An event that no server received, as somebody else published it, is told where it came."""
    trace = written(
        "pubsub",
        *(P1_ON_A, "subscribe A redis", SETTLED, "step scenario caption=Later"),
        *(HEARD.replace("P2-1", "stray-1"), "deliver A P1 stray-1\nhear P1 A stray-1", SETTLED),
    )
    story = tell(trace)
    tells_one_beat_after_the_other(trace, story)
    takes_one_hop_for_each_hop(trace, story)
    keeps_a_distance_on_each_link(trace, story)
    ends_with_its_last_item(trace, story)
    for hop in of(story, Hop):
        assert hop.s0 >= of(story, Beat)[-1].s


# What stands on the wire, and what Redis is asked to do


def test_the_frames_are_told_as_they_were() -> None:
    """A player's frame is told with what it says, the servers' when the first of them relays it."""
    trace = written(
        "pubsub",
        *(P1_ON_B, SUBSCRIBED, SAID.replace("body=jump", 'body=jump frame={"id":"P2-1"}')),
        *("publish A redis P2-1 receivers=2", "relay A redis P2-1 frame={to-all}"),
        *("deliver A P2 P2-1\nhear P2 A P2-1", "relay B redis P2-1 frame={to-all}"),
        *("deliver B P1 P2-1\nhear P1 B P2-1", SETTLED),
    )
    story = tell(trace)
    (said,), (frame,) = of(story, Said), of(story, Frame)
    assert (said.frame, frame.event, frame.frame) == ('{"id":"P2-1"}', "P2-1", "{to-all}")
    (relayed,) = [hop for hop in of(story, Hop) if (hop.source, hop.target) == ("redis", "A")]
    assert frame.s == pytest.approx(relayed.s1)
    for truth in TRUTHS:
        truth(trace, story)


def test_a_foreign_client_s_frame_is_the_one_its_server_received() -> None:
    """Of a client outside the cluster only its server can say what it put on the wire."""
    trace = written("none", BEGIN, "join A F1\nreceive A F1 x-1 body=hi frame={hi}", SETTLED)
    assert [said.frame for said in of(tell(trace), Said)] == ["{hi}"]


@pytest.mark.parametrize(
    ("length", "ending"),
    [
        (2000, ""),
        (2001, " … (the first 2,000 of 2,001 characters)"),
        (123_456, " … (the first 2,000 of 123,456 characters)"),
    ],
)
def test_a_long_frame_is_cut_and_says_so(length: int, ending: str) -> None:
    """What a page gets of a frame is bounded, and its ending says how long the frame was."""
    trace = Trace(broker="none", servers=["A"])
    trace.append("send", "P1", "A", "P1-1", body="x", frame="x" * length)
    (said,) = of(tell(trace), Said)
    assert said.frame.removeprefix("x" * 2000) == ending


def test_what_redis_carried_out_is_told_when_it_did() -> None:
    """Subscriptions come with their links, and a publish with the arrival at Redis."""
    channel = "channel=wsdemo:1:game:g"
    trace = written(
        "pubsub",
        *(P1_ON_A, f"subscribe A redis {channel}", SAID, "publish A redis P2-1 receivers=1"),
        *(HEARD, "deliver A P1 P2-1\nhear P1 A P2-1", SETTLED, f"unsubscribe A redis {channel}"),
        f"unsubscribe A redis {channel}",
    )
    story = tell(trace)
    up, down = of(story, Link)
    (published,) = [hop for hop in of(story, Hop) if hop.target == "redis"]
    assert of(story, Command) == [
        Command(up.s, "A", "SUBSCRIBE wsdemo:1:game:g"),
        Command(published.s1, "A", "PUBLISH wsdemo:1:game:g → 1"),
        Command(down.s, "A", "UNSUBSCRIBE wsdemo:1:game:g"),
    ]
    assert (up.up, down.up) == (True, False)
    assert up.channel == down.channel == "wsdemo:1:game:g"


def test_another_game_s_channel_is_no_link_of_this_one() -> None:
    """A server that holds a second game is not drawn as subscribed to this one for it."""
    trace = Trace(broker="pubsub", servers=["A"], game="g")
    trace.append("subscribe", "A", "redis", channel="game:other")
    trace.append("subscribe", "A", "redis", channel="game:g")
    trace.append("unsubscribe", "A", "redis", channel="game:other")
    trace.append("disconnect", "A", "redis", channel="game:other", reason="its node is gone")
    links = of(tell(trace), Link)
    assert [(link.up, link.channel) for link in links] == [(True, "game:g")]


def test_notes_are_told_with_their_beat() -> None:
    """What an instructor may say at a step comes with its caption."""
    trace = Trace(broker="none")
    trace.append("step", "scenario", caption="Begin", notes="Ask who hears it.")
    trace.append("step", "scenario", caption="Go")
    assert [(beat.caption, beat.notes) for beat in of(tell(trace), Beat)] == [
        ("Begin", "Ask who hears it."),
        ("Go", ""),
    ]


# What breaks, and comes back

KILLED = "fault A reason=killed"
STOPPED = "fault redis reason=stopped"
PUBLISHED = "publish A redis P2-1 receivers=2"
TO_P1_ON_B = "relay B redis P2-1\ndeliver B P1 P2-1\nhear P1 B P2-1"
MEANWHILE = arrives("P3", "C")  # takes its time

BROKEN: dict[str, tuple[str, ...]] = {
    "a server killed": ("pubsub", P1_ON_A, "subscribe A redis", SETTLED, KILLED, SETTLED),
    "killed while a frame was on its way": (
        *("none", P1_ON_A, "send P2 A P2-1 body=jump", MEANWHILE, KILLED, SETTLED),
    ),
    "killed before it could publish": ("pubsub", P1_ON_B, SAID, MEANWHILE, KILLED, SETTLED),
    "killed before it was told": (
        *("pubsub", P1_ON_B, SUBSCRIBED, SAID, PUBLISHED, HEARD, MEANWHILE),
        *("fault B reason=killed", SETTLED),
    ),
    "killed after others were told, and before its own players": (
        *("pubsub", P1_ON_B, SUBSCRIBED, SAID, TO_P1_ON_B, MEANWHILE, KILLED, SETTLED),
    ),
    "Redis stopped before it was asked": (
        *("pubsub", P1_ON_B, SUBSCRIBED, SETTLED, STOPPED, "disconnect A redis"),
        *(SAID, "unpublished A redis P2-1", SETTLED, "heal redis reason=started"),
        *(SUBSCRIBED, SETTLED),
    ),
    "Redis stopped before it answered": (
        *("pubsub", P1_ON_B, SUBSCRIBED, SAID, MEANWHILE, STOPPED),
        *("disconnect A redis", "unpublished A redis P2-1", "heal redis reason=started", SETTLED),
    ),
    "Redis frozen and thawed": (
        *("pubsub", P1_ON_B, SUBSCRIBED, SETTLED, "fault redis reason=frozen", SAID),
        *("heal redis reason=thawed", PUBLISHED, HEARD, TO_P1_ON_B, SETTLED),
    ),
    "a server frozen and thawed": (
        *("none", P1_ON_A, SETTLED, "fault A reason=frozen", "send P2 A P2-1 body=jump"),
        *("send P2 A P2-2 body=hide", "heal A reason=thawed", "receive A P2 P2-1 body=jump"),
        *(LOCAL, "deliver A P1 P2-1\nhear P1 A P2-1", "receive A P2 P2-2 body=hide"),
        *(LOCAL.replace("P2-1", "P2-2"), "deliver A P1 P2-2\nhear P1 A P2-2", SETTLED),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_faults_are_told_between_causes_and_effects(case: str) -> None:
    """Parts fall after all that had arrived; what that costs, or a return makes good, comes after.

    A change of health comes with the record of it, so that the laws hold for what is around it.
    """
    broker, *records = BROKEN[case]
    trace = written(broker, *records)
    story = tell(trace)
    changes = [record for record in trace.select("fault", "heal") if not record.peer]
    states = {"killed": "down", "stopped": "down", "frozen": "frozen"}
    assert [(health.part, health.state, health.reason) for health in of(story, Health)] == [
        (record.at, states.get(reason := record.data["reason"], "up"), reason) for record in changes
    ]
    for n, item in enumerate(story.items):
        if isinstance(item, Health):
            for before in story.items[:n]:
                assert starts(before) <= item.s + A_LITTLE, (before, item)
            for after in story.items[n + 1 :]:
                around = isinstance(after, Hop | Loss) and item.part in (after.source, after.target)
                if around and not (isinstance(after, Loss) and item.state == "up"):
                    assert starts(after) >= item.s - A_LITTLE, (item, after)
    for truth in TRUTHS:
        truth(trace, story)


def test_what_a_thawed_redis_still_had_is_passed_on_after_the_thaw() -> None:
    """An event that the server gave up waits at Redis, is not lost, and comes in the next step."""
    trace = written(
        "pubsub",
        *(P1_ON_B, SUBSCRIBED, SETTLED, "fault redis reason=frozen", SAID),
        *("unpublished A redis P2-1", SETTLED, "step scenario caption=Thaw"),
        *("heal redis reason=thawed", HEARD, TO_P1_ON_B, SETTLED),
    )
    story = tell(trace)
    tells_one_beat_after_the_other(trace, story)
    puts_causes_before_effects(trace, story)
    thaw = of(story, Health)[-1]
    hops = of(story, Hop)
    assert all(hop.s0 >= thaw.s for hop in hops if hop.source == "redis")
    assert [hop.s1 < thaw.s for hop in hops if hop.target == "redis"] == [True]
    assert [outcome.outcome for outcome in of(story, Outcome) if outcome.player == "P1"] == [
        "heard"
    ]


async def test_a_player_that_reads_nothing_is_no_server() -> None:
    """What a player or a link suffers is told by what is lost, not as the state of a part."""
    async with open_cluster(broker="pubsub") as cluster:
        p1, _ = await cluster.join("P1", "P2")
        async with faults.reader_stalled(p1), faults.redis_link_cut(cluster, "B"):
            await p1.send("jump")
            await cluster.settle()
        async with faults.link_cut(p1), faults.reply_lost(cluster, "A"):
            await cluster.settle()
        await cluster.settle()
    story = tell(cluster.trace)
    assert not of(story, Health)
    assert story.every_server == ["A", "B"]


FROZEN = "fault A reason=frozen"
SENT = "send P2 A P2-1 body=jump"


def test_a_message_waits_at_a_server_that_stands_still() -> None:
    """It gets there, once, is seen to be there as long as that lasts, and then goes on."""
    received = f"receive A P2 P2-1 body=jump\n{LOCAL}\ndeliver A P1 P2-1\nhear P1 A P2-1"
    trace = written(
        *("none", P1_ON_A, SETTLED, FROZEN, SENT, SETTLED, "step scenario caption=Thaw"),
        *("heal A reason=thawed", received, SETTLED),
    )
    story = tell(trace)
    fault, heal = of(story, Health)
    (there,) = [hop for hop in of(story, Hop) if hop.target == "A"]
    assert fault.s <= there.s0 < there.s1 < heal.s
    assert min(hop.s0 for hop in of(story, Hop) if hop.source == "A") >= heal.s
    for truth in TRUTHS:
        truth(trace, story)


def test_a_message_waits_at_redis_and_at_subscribers_that_stand_still() -> None:
    """As long as Redis stands still no server gets it, and as long as B does its players do not."""
    frozen = [f"fault {part} reason=frozen" for part in ("redis", "B")]
    trace = written(
        *("pubsub", P1_ON_B, SUBSCRIBED, SETTLED, frozen[0], SAID, "heal redis reason=thawed"),
        *(frozen[1], PUBLISHED, HEARD, SETTLED, "heal B reason=thawed", TO_P1_ON_B, SETTLED),
    )
    story = tell(trace)
    redis_goes_on, _, b_goes_on = of(story, Health)[1:]
    ways = [(hop.source, hop.target) for hop in of(story, Hop)]
    assert ways[:2] == [("P2", "A"), ("A", "redis")]
    assert sorted(ways[2:]) == [("A", "P2"), ("B", "P1"), ("redis", "A"), ("redis", "B")]
    for hop in of(story, Hop):
        assert (hop.s0 >= redis_goes_on.s) == (hop.source in ("redis", "B") or hop.target == "P2")
        assert (hop.s0 >= b_goes_on.s) == (hop.source == "B")
    for truth in TRUTHS:
        truth(trace, story)


@pytest.mark.parametrize(
    ("part", "records"),
    [
        ("A", ("none", P1_ON_A, SETTLED, FROZEN, SENT, SETTLED, "fault A reason=killed")),
        (
            "B",
            (
                *("pubsub", P1_ON_B, SUBSCRIBED, SETTLED, "fault B reason=frozen", SAID),
                *(PUBLISHED, HEARD, SETTLED, "fault B reason=killed"),
            ),
        ),
        (
            "redis",
            (
                *("pubsub", P1_ON_B, SUBSCRIBED, SETTLED, "fault redis reason=frozen", SAID),
                *("fault redis reason=stopped", "unpublished A redis P2-1 reason=x"),
            ),
        ),
        (
            "redis",
            (
                *("pubsub", P1_ON_B, SUBSCRIBED, SETTLED, "fault redis reason=frozen", SAID),
                *("unpublished A redis P2-1 reason=frozen", "fault redis reason=stopped"),
            ),
        ),
    ],
)
def test_what_waits_at_a_part_dies_with_it(part: str, records: tuple[str, ...]) -> None:
    """It was lost in there, and is not sent a second time in order to be lost."""
    story = tell(written(*records, SETTLED))
    (loss,) = [loss for loss in of(story, Loss) if "P1" in loss.players]
    assert (loss.source, loss.target) == (part, part)
    assert loss.why == f"lost with {part.replace('redis', 'Redis')}"
    assert loss.s0 >= of(story, Health)[-1].s
    assert len([hop for hop in of(story, Hop) if hop.target == part and hop.source != part]) == 1


def test_what_a_redis_that_stands_still_gave_no_answer_to_is_not_lost_with_it() -> None:
    """The server gave up; Redis has not died, and may still pass the message on."""
    story = tell(
        written(
            *("pubsub", P1_ON_B, SUBSCRIBED, SETTLED, "fault redis reason=frozen", SAID),
            *("unpublished A redis P2-1 reason=frozen", SETTLED),
        )
    )
    assert not of(story, Loss)
    assert [hop.target for hop in of(story, Hop)][-1] == "redis"


def test_what_a_redis_that_stood_still_was_never_asked_is_lost_there() -> None:
    """The server gave up before it was its turn: after the thaw, nothing comes."""
    story = tell(
        written(
            *("pubsub", P1_ON_B, SUBSCRIBED, SETTLED, "fault redis reason=frozen", SAID),
            *("unpublished A redis P2-1 reason=frozen", SETTLED, "step scenario caption=Thaw"),
            *("heal redis reason=thawed", SETTLED),
        )
    )
    assert {loss.why for loss in of(story, Loss)} == {"Redis does not answer"}


def test_a_server_that_stands_still_has_no_link_to_a_redis_that_has_ended() -> None:
    """It does not notice; but what is published then cannot come to it, nor wait there."""
    trace = written(
        *("pubsub", P1_ON_B, SUBSCRIBED, SETTLED, "fault B reason=frozen", STOPPED),
        *("disconnect A redis", "heal redis reason=started", "subscribe A redis", SAID),
        *("publish A redis P2-1 receivers=1", HEARD, "heal B reason=thawed"),
        *("disconnect B redis", "subscribe B redis", SETTLED),
    )
    story = tell(trace)
    assert not [hop for hop in of(story, Hop) if hop.target == "B" and hop.source == "redis"]
    assert [(link.server, link.up) for link in of(story, Link)][2:4] == [("B", False), ("A", False)]
    (loss,) = of(story, Loss)
    assert (loss.source, loss.target, loss.players) == ("redis", "B", ["P1"])


@pytest.mark.parametrize(
    "records",
    [
        (
            *("none", P1_ON_A, "join A F1", SETTLED, FROZEN, SENT, SETTLED, "heal A reason=thawed"),
            *("step scenario caption=Next", "receive A P2 P2-1 body=jump", LOCAL),
            *("deliver A P1 P2-1\nhear P1 A P2-1", "deliver A F1 P2-1", SETTLED),
        ),
        (
            *("pubsub", P1_ON_B, "join B F1", SUBSCRIBED, SETTLED, "fault B reason=frozen", SAID),
            *(PUBLISHED, HEARD, SETTLED, "heal B reason=thawed", "step scenario caption=Next"),
            *(TO_P1_ON_B, "deliver B F1 P2-1", SETTLED),
        ),
    ],
)
def test_a_beat_may_begin_between_a_thaw_and_what_waited_for_it(records: tuple[str, ...]) -> None:
    """What waited goes on in the beat in which it does, to players of the cluster and others."""
    trace = written(*records)
    story = tell(trace)
    beat = of(story, Beat)[-1]
    assert all(hop.s0 >= beat.s for hop in of(story, Hop) if hop.target in ("P1", "F1"))
    for truth in TRUTHS:
        truth(trace, story)


def test_what_a_redis_that_stood_still_does_comes_after_its_thaw() -> None:
    """It carries out the command then, and it is then that a server has not subscribed."""
    story = tell(
        written(
            *("pubsub", P1_ON_B, "subscribe A redis", SETTLED, "fault redis reason=frozen", SAID),
            *(MEANWHILE, "heal redis reason=thawed", "publish A redis P2-1 receivers=1"),
            *(HEARD, SETTLED),
        )
    )
    thaw = of(story, Health)[-1]
    (loss,) = of(story, Loss)
    assert (loss.source, loss.target) == ("redis", "B")
    assert loss.s0 >= thaw.s
    assert of(story, Command)[-1].s >= thaw.s


def test_a_player_is_welcomed_after_the_beat_that_began_meanwhile() -> None:
    """It takes its time to get there, whatever was recorded in between."""
    came, welcome = arrives("P2", "A").rsplit("\n", 1)
    story = tell(written("none", BEGIN, came, "step scenario caption=Next", welcome, SETTLED))
    (place,) = of(story, Place)
    assert of(story, Beat)[-1].s <= place.s0 < place.s1


@pytest.mark.parametrize(
    ("broker", "records", "lost"),
    [
        ("none", (SAID, LOCAL), ("A", "B")),
        ("pubsub", (SAID, "publish A redis P2-1 receivers=1", HEARD), ("redis", "B")),
        (
            "pubsub",
            (SAID, "publish A redis P2-1 receivers=2", HEARD, "relay B redis P2-1"),
            ("B", "P1"),
        ),
    ],
)
def test_who_is_away_misses_it_on_the_way_to_where_it_was(
    broker: str, records: tuple[str, ...], lost: tuple[str, str]
) -> None:
    """On the first part of that way that there is not, whoever's server said it."""
    gone = "disconnect P1 B\ndisconnect B P1"
    story = tell(written(broker, P1_ON_B, SUBSCRIBED, gone, SETTLED, *records, SETTLED))
    (loss,) = of(story, Loss)
    assert (loss.source, loss.target, loss.players) == (*lost, ["P1"])
    assert loss.why == ("no way to {target}" if broker == "none" else "P1 is away")


async def test_who_is_back_was_away() -> None:
    """What a stream has for a player that does not ask for it is lost when it is there again."""
    story = tell((await compare(scenarios.p1_forgets, "stream"))["stream"].trace)
    assert {loss.why for loss in of(story, Loss)} == {"P1 was away"}


def test_who_leaves_a_server_that_stands_still_leaves_once() -> None:
    """The server hears of it after its thaw."""
    story = tell(
        written(
            *("none", P1_ON_A, SETTLED, FROZEN, "leave P1 A\ndisconnect P1 A"),
            *("heal A reason=thawed", "leave A P1\ndisconnect A P1", SETTLED),
        )
    )
    assert [left.player for left in of(story, Left)] == ["P1"]


def test_the_players_of_a_killed_server_are_away_and_then_elsewhere() -> None:
    """A death cuts everybody off at once, whoever notices first, and takes the link down."""
    trace = written(
        "pubsub",
        *(P1_ON_A, "subscribe A redis channel=game:g", SETTLED, KILLED),
        *("disconnect P2 A", arrives("P2", "B"), "disconnect P1 A", arrives("P1", "B"), SETTLED),
    )
    story = tell(trace)
    (health,) = of(story, Health)
    assert of(story, Link)[-1] == Link(health.s, "A", False, "game:g")
    for player in ("P1", "P2"):
        _, away, back = (place for place in of(story, Place) if place.player == player)
        assert (away.server, away.s0, back.server) == ("", health.s, "B")
        assert back.s0 >= away.s0 + 1 - A_LITTLE
    has_each_player_in_one_place(trace, story)
    ends_with_its_last_item(trace, story)


def test_a_server_that_was_added_comes_up() -> None:
    """A story begins with the servers that there were; another is there from its start on."""
    trace = written("none", P1_ON_A, SETTLED, "start D", arrives("P3", "D"), SETTLED)
    trace.about["servers"].append("D")  # as a cluster may do that has one more
    story = tell(trace)
    assert story.servers == ["A", "B", "C"]
    assert story.every_server == ["A", "B", "C", "D"]
    (health,) = of(story, Health)
    assert (health.part, health.state) == ("D", "up")
    assert health.s <= of(story, Place)[-1].s0
    names_only_what_there_was(trace, story)


def test_faults_of_links_are_not_about_the_health_of_a_part() -> None:
    """A balancer that finds a server gone is well, and so is a server with a slow player."""
    trace = written("none", P1_ON_A, "fault balancer A reason=killed", "fault A P1 reason=frozen")
    trace.append("fault", "A", "P1", reason="too slow")
    trace.append("fault", "A", reason="out of paper")
    assert not of(tell(trace), Health)


async def break_servers(cluster: Cluster) -> None:
    """Servers die, stand still and are added, while players talk."""
    async with cluster.step("Everyone joins"):
        p1, p2, p3 = await cluster.join("P1", "P2", "P3", server="A")
        await p1.send("one")
    async with cluster.step("A dies"):
        await p2.send("two")
        await cluster.kill_server("A")
    async with cluster.step("P2 says something, wherever it is"):
        await p2.send("three")
    async with cluster.step("A comes back, and P1 to it"):
        await cluster.restart_server("A")
        await p1.reconnect(server="A")
    async with cluster.step("A stands still, and P1 does not know"):
        await cluster.freeze_server("A")
        await p1.send("four")
    async with cluster.step("P2 says something meanwhile"):
        await p2.send("five")
    async with cluster.step("A goes on"):
        await cluster.thaw_server("A")
    async with cluster.step("D is added, and P3 goes there"):
        await cluster.add_server("D")
        await p3.reconnect(server="D")
        await p3.send("six")


async def break_redis(cluster: Cluster) -> None:
    """Redis ends, starts again and stands still, while players talk."""
    async with cluster.step("Everyone joins"):
        p1, _ = [*await cluster.join("P1", server="A"), *await cluster.join("P2", server="B")]
        await p1.send("one")
    async with cluster.step("Redis ends"):
        await cluster.stop_redis()
        await p1.send("two")
    async with cluster.step("Redis is back"):
        await cluster.start_redis()
    async with cluster.step("P1 says something"):
        await p1.send("three")
    async with cluster.step("Redis stands still, and goes on"):
        await cluster.freeze_redis()
        await p1.send("four")
        await cluster.thaw_redis()


@pytest.mark.parametrize(
    ("broker", "redis", "scenario"),
    [
        ("none", "fake", break_servers),
        ("pubsub", "fake", break_servers),
        ("pubsub", "embedded", break_servers),
        ("pubsub", "embedded", break_redis),
    ],
)
def test_what_really_breaks_is_told_truly(
    broker: str, redis: str, scenario: Callable[[Cluster], Awaitable[None]]
) -> None:
    """The story of real faults is true, live as well as later, and shows the health of each."""

    async def play() -> tuple[Trace, list[Item]]:
        told: list[Item] = []
        async with open_cluster(["A", "B"], broker, redis) as cluster:
            teller = Teller(cluster.trace)
            cluster.trace.watch(lambda record: told.extend(teller.feed(record)))
            await scenario(cluster)
        return cluster.trace, told

    trace, told = asyncio.run(play())
    story = tell(trace)
    assert story.items == told
    for truth in TRUTHS:
        truth(trace, story)
    states = [(health.part, health.state) for health in of(story, Health)]
    if scenario is break_redis:
        assert states == [("redis", state) for state in ("down", "up", "frozen", "up")]
    else:
        assert states == [*(("A", s) for s in ("down", "up", "frozen", "up")), ("D", "up")]
    assert all(said.frame for said in of(story, Said))
    assert len(of(story, Frame)) >= len(of(story, Said)) - 1


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_is_missing_from_a_trace_it_has_a_story(data: st.DataObject) -> None:
    """A trace with holes, as one that began late would have, is told as far as it goes."""
    whole = random_runs(data.draw(st.sampled_from(["none", "pubsub"])))[0][0]
    kept = data.draw(st.sets(st.integers(0, len(whole) - 1)))
    trace = Trace(**whole.about)
    for record in whole:
        if record.n in kept:
            trace.append(record.kind, record.at, record.peer, record.event, **record.data)
    assert all(0 <= starts(item) <= ends(item) for item in tell(trace).items)


@pytest.mark.parametrize(
    ("broker", "title"),
    [("none", "Without a broker"), ("pubsub", "With Redis Pub/Sub"), ("carrier pigeon", None)],
)
def test_a_story_says_what_it_is_a_story_of(broker: str, title: str | None) -> None:
    """The title is that of the ledger, and a story without records ends where it begins."""
    story = tell(Trace(broker=broker, servers=["A"]))
    assert story == Story(title or f"With {broker}", broker, ["A"], [], 0.0)
    assert story.title == ledger(Trace(broker=broker)).title


def test_a_trace_that_says_nothing_of_itself_has_a_story() -> None:
    """A trace need not be a cluster's."""
    assert tell(Trace()).items == []


def test_items_can_be_sent_to_a_page() -> None:
    """Each item is one JSON object that says its type, and comes back as it was."""
    for trace in comparison().values():
        items = tell(trace).items
        encoded = msgspec.json.encode(items)
        assert {each["type"] for each in json.loads(encoded)} >= {"beat", "said", "hop", "place"}
        assert msgspec.json.decode(encoded, type=list[Item]) == items
