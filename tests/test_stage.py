"""The stage's Python side: what it tells the browser, and what it does when asked to."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import dial, within
from wsdemo import Cluster, Stage, compare, open_cluster, scenarios
from wsdemo.controls import ENDED, LiveCluster
from wsdemo.story import tell
from wsdemo.trace import SCHEMA_VERSION, Trace, save_traces


class Browser:
    """The other end of a stage: collects what is sent to it, and asks for things."""

    def __init__(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stage = stage
        self.items: list[Any] = list(stage.runs[0]["items"])
        self.answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        monkeypatch.setattr(stage, "send", self._receive)

    @property
    def cluster(self) -> Any:
        """What the stage acts on."""
        return self.stage._cluster

    def renew(self) -> None:
        """Tell the stage of a new run, as a cluster does."""
        for callback in self.cluster.callbacks:
            callback()

    def _receive(self, content: dict[str, Any]) -> None:
        json.dumps(content)  # nothing else can be sent
        if content["type"] == "more":
            assert content["from"] == len(self.items)
            self.items += content["items"]
        else:
            self.answers.put_nowait(content)

    async def ask(self, **content: Any) -> dict[str, Any]:
        """Press a button, and wait for the answer."""
        return await self.ask_on(self.answers, **{"type": "act", "id": 1, **content})

    async def ask_on(self, answers: asyncio.Queue[Any], **message: Any) -> dict[str, Any]:
        """Ask on another thread, as some kernels do, and wait for an answer on this one."""
        press = threading.Thread(target=self.stage._on_message, args=(None, message, []))
        press.start()
        answer: dict[str, Any] = await within(answers.get(), 10)
        return answer


DEEDS = [
    *("send", "disconnect", "reconnect", "join", "add_server", "change_broker"),
    *("kill_server", "restart_server", "freeze_server", "thaw_server"),
    *("stop_redis", "start_redis", "freeze_redis", "thaw_redis"),
]


class Pretended:
    """Takes the place of a cluster where all that matters is what a button asks it for."""

    def __init__(self) -> None:
        self.trace = Trace(broker="pubsub", servers=["A", "B"], game="g")
        self.loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self.broker = "pubsub"
        self.connected, self.coming_back, self.left, self.server = True, False, False, "A"
        self.players = {"P1": self, "P3": self, "cluster": self}
        self.servers = {"A": self, "C": self}
        self.redis_cannot = "It is not ours."
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.unsettled: Exception | None = None
        self.callbacks: list[Callable[[], object]] = []
        for name in DEEDS:
            setattr(self, name, self._deed(name))

    def player(self, name: str) -> Any:
        """A player, who is no better than the cluster."""
        return self

    def on_run_change(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Remember whom to tell."""
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def beat(self, caption: str, notes: str = "") -> None:
        """Tell what follows under this caption."""
        self.trace.append("step", "scenario", caption=caption, notes=notes)

    async def settle(self) -> None:
        """Come to rest, or not."""
        self.asked.append("settle")
        if self.unsettled:
            raise self.unsettled

    def _deed(self, name: str) -> Callable[..., Awaitable[object]]:
        async def deed(*arguments: Any, **how: Any) -> object:
            named = (f"{key}={value}" for key, value in how.items())
            self.asked.append(" ".join([name, *map(str, arguments), *named]))
            if self.error:
                raise self.error
            return name

        return deed


@pytest.fixture
async def pretended(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Browser]:
    stage = Stage(Pretended())
    yield Browser(stage, monkeypatch)
    stage.close()


@pytest.fixture
async def browser(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Browser]:
    async with open_cluster(broker="pubsub") as cluster:
        await cluster.join("P1", "P2", server="A")
        await cluster.settle()
        stage = Stage(cluster)
        yield Browser(stage, monkeypatch)
        stage.close()


def test_a_cluster_is_all_that_the_stage_asks_for() -> None:
    """What the stage calls is there, in a cluster as in the one that takes its place here."""
    assert isinstance(Cluster(), LiveCluster)


def cluster_of(browser: Browser) -> Cluster:
    cluster = browser.stage._cluster
    assert isinstance(cluster, Cluster)
    return cluster


async def test_a_replay_carries_the_story_of_each_run() -> None:
    """The stage of a comparison holds each run's whole story, and is not live."""
    runs = await compare(scenarios.p1_moves_to_b)
    stage = Stage(runs)
    assert not stage.live
    assert [run["title"] for run in stage.runs] == ["Without a broker", "With Redis Pub/Sub"]
    assert stage.runs[1]["items"] == msgspec.to_builtins(tell(runs["pubsub"].trace).items)
    stage.close()


async def test_the_reconnect_button_moves_the_real_player(browser: Browser) -> None:
    """What the button asks for happens on the sockets, and the browser is told each item of it."""
    p1 = cluster_of(browser).players["P1"]
    assert (await browser.ask(action="reconnect", part="player P1", choice="B"))["type"] == "done"
    assert p1.server == "B"
    assert (await browser.ask(action="send", part="player P2", body=" hide "))["type"] == "done"
    assert [event.body for event in p1.heard] == ["hide"]
    await asyncio.sleep(0)  # one turn of the loop, in which what is new is sent
    assert browser.items == msgspec.to_builtins(tell(cluster_of(browser).trace).items)


async def test_disconnect_and_the_balancer_s_choice(browser: Browser) -> None:
    """A player can be disconnected, and come back wherever the balancer puts it."""
    p1 = cluster_of(browser).players["P1"]
    assert (await browser.ask(action="disconnect", part="player P1"))["type"] == "done"
    assert not p1.connected
    assert (await browser.ask(action="reconnect", part="player P1"))["type"] == "done"
    assert p1.connected


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            {"action": "send", "part": "player P9", "body": "x"},
            "unknown player 'P9'; there are: P1, P2",
        ),
        ({"action": "kill", "part": "server Z"}, "unknown server 'Z'; there are: A, B"),
        ({"action": "reconnect", "part": "player P1", "choice": "Z"}, "there are: A, B"),
        ({"action": "send", "part": "player P1", "body": "  "}, "write something first"),
        ({"action": "send", "part": "player P1", "body": 7}, "cannot read this: Expected `str`"),
        ({"action": "send", "part": "player P1"}, "write something first"),
        (
            {"action": "send", "part": "player P1", "body": "x" * 201},
            "201 characters; write at most 200",
        ),
        (
            {"action": "send", "part": "player P1", "body": "x" * 10**6},
            "cannot read this: Expected",
        ),
        ({"action": "explode", "part": "player P1"}, "cannot do 'explode' to 'player P1'"),
        ({"action": "send", "part": "server A", "body": "x"}, "cannot do 'send' to 'server A'"),
        ({"action": "add-player", "part": "redis redis"}, "cannot do 'add-player' to 'redis"),
        ({"action": "send", "part": "P" * 100}, "cannot read this: Expected"),
        ({"action": ["send"], "part": "player P1"}, "cannot read this: Expected"),
        ({"part": "player P1"}, "cannot read this: Object missing required field `action`"),
    ],
)
async def test_what_cannot_be_done_is_said_in_words(
    browser: Browser, asked: dict[str, Any], says: str
) -> None:
    """An action that fails answers with its id and a sentence, and changes nothing."""
    answer = await browser.ask(**asked)
    assert (answer["type"], answer["id"]) == ("failed", 1)
    assert says in answer["text"]


async def test_sending_while_disconnected_says_what_to_do(browser: Browser) -> None:
    """The error of the player itself reaches the stage."""
    await browser.ask(action="disconnect", part="player P1")
    answer = await browser.ask(action="send", part="player P1", body="hello?")
    assert "reconnect()` first" in answer["text"]


async def test_the_buttons_break_and_heal_real_parts(browser: Browser) -> None:
    """A server that is killed loses its players to another, and can come back; others are added."""
    cluster = cluster_of(browser)
    for action, part in [("kill", "A"), ("restart", "A"), ("freeze", "B"), ("thaw", "B")]:
        assert (await browser.ask(action=action, part=f"server {part}"))["type"] == "done"
        if action == "kill":
            assert [player.server for player in cluster.players.values()] == ["B", "B"]
    again = await browser.ask(action="thaw", part="server B")
    assert again["type"] == "failed"
    assert "Server B is up, not frozen" in again["text"]
    assert (await browser.ask(action="add-server", part="cluster cluster"))["type"] == "done"
    assert (await browser.ask(action="add-player", part="cluster cluster"))["type"] == "done"
    assert list(cluster.servers) == ["A", "B", "C"]
    assert list(cluster.players) == ["P1", "P2", "P3"]
    for action in ("freeze", "thaw", "stop", "start"):
        assert (await browser.ask(action=action, part="redis redis"))["type"] == "done"
    await asyncio.sleep(0)
    assert browser.items == msgspec.to_builtins(tell(cluster.trace).items)
    told = [(item["part"], item["state"]) for item in browser.items if item["type"] == "health"]
    assert told[:5] == [("A", "down"), ("A", "up"), ("B", "frozen"), ("B", "up"), ("C", "up")]
    assert told[5:] == [("redis", state) for state in ("frozen", "up", "down", "up")]
    assert base64.b64decode(browser.stage._repr_mimebundle_()[0]["image/png"])


async def test_each_button_begins_a_beat_that_says_what_it_did(browser: Browser) -> None:
    """So that a run made by hand can be read, stepped through and saved like any other."""
    for part, act in [
        ("player P1", {"action": "send", "body": " {name} jumps "}),
        ("player P1", {"action": "reconnect", "choice": "B"}),
        ("player P1", {"action": "reconnect"}),
        ("server A", {"action": "kill"}),
        ("cluster cluster", {"action": "add-player"}),
    ]:
        assert (await browser.ask(part=part, **act))["type"] == "done"
    for part, act in [
        ("player P1", {"action": "send", "body": " "}),
        ("player P1", {"action": "reconnect", "choice": "Z"}),
        ("player P9", {"action": "disconnect"}),
        ("server B", {"action": "thaw"}),
    ]:
        assert (await browser.ask(part=part, **act))["type"] == "failed"
    await asyncio.sleep(0)
    beats = [item for item in browser.items if item["type"] == "beat"]
    assert [item["caption"] for item in beats] == [
        "P1 says “{name} jumps”",
        "P1 reconnects to B",
        "P1 reconnects",
        "Server A is killed",
        "A player joins",
    ]
    assert [item["notes"].partition("?")[0] for item in beats] == [
        "Who hears it, and by which way",
        *["The connection is new. Whom will P1 hear from now on"] * 2,
        "Who was on A",
        "The balancer has chosen its server. Does it hear what was said before",
    ]


@pytest.mark.parametrize(
    ("broker", "title"), [("none", "Without a broker"), ("pubsub", "With Redis Pub/Sub")]
)
async def test_a_button_begins_a_new_run_with_another_broker_or_the_same(
    browser: Browser, broker: str, title: str
) -> None:
    """The stage shows the new run from its beginning, and its buttons go on working."""
    await browser.ask(action="send", part="player P1", body="spoilt")
    again = {"action": "change-broker", "part": "cluster cluster", "choice": broker}
    offered = [
        offer for offer in browser.stage.acts[again["part"]] if offer.get("choice") == broker
    ]
    assert [offer.get("why", "") for offer in offered] == [""]
    answer = await browser.ask(**again)
    assert answer["text"].startswith(
        f"The cluster was started anew, {title[0].lower()}{title[1:]}."
    )
    (run,) = browser.stage.runs
    assert run["title"] == title
    assert not [item for item in run["items"] if item["type"] == "said"]
    assert ("redis redis" in browser.stage.acts) == (broker == "pubsub")
    browser.items = list(run["items"])
    assert (await browser.ask(action="send", part="player P1", body="jump"))["type"] == "done"
    await asyncio.sleep(0)
    assert browser.items[-1]["type"] == "outcome"


async def test_when_the_cluster_stops_no_button_can_be_pressed_any_more(browser: Browser) -> None:
    """Whoever stops it: every button says that the run has ended, and the picture stays."""
    cluster = cluster_of(browser)
    before = browser.stage.runs
    await cluster.stop()
    assert browser.stage.runs is before
    assert set(browser.stage.acts) >= {"player P1", "server A", "redis redis", "cluster cluster"}
    whys = {offer.get("why") for offers in browser.stage.acts.values() for offer in offers}
    assert whys == {ENDED}
    assert "run the cell that opens the cluster" in ENDED


async def test_a_new_view_asks_for_the_rest(browser: Browser) -> None:
    """A view that is opened later gets what the first message did not hold."""
    await browser.ask(action="send", part="player P2", body="jump")
    await asyncio.sleep(0)
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    browser.stage.send = sent.put_nowait
    answer = await browser.ask_on(sent, type="rest", have=[2])
    assert answer["from"] == 2
    assert answer["items"] == browser.items[2:]


@pytest.mark.parametrize(
    "content",
    [
        *(None, 7, [], {}, {"type": 1}, {"type": ["act"]}, {"type": "act"}),
        *({"type": "act", "id": "1", "action": "send"}, {"type": "act", "id": True}),
        *({"type": "rest"}, {"type": "rest", "have": ["x", -1]}, {"type": "rest", "have": {}}),
    ],
)
async def test_nonsense_from_the_browser_is_passed_over(browser: Browser, content: Any) -> None:
    """A message that is none of the known ones has no effect."""
    browser.stage._on_message(None, content, [])
    await asyncio.sleep(0)  # the turn of the loop in which it would be answered
    assert browser.answers.empty()


BUTTONS = [
    ("player P1", "send", "hi", "send hi"),
    ("player P1", "disconnect", None, "disconnect"),
    ("player P1", "reconnect", "A", "reconnect A"),
    ("player P1", "reconnect", None, "reconnect None"),
    ("server A", "kill", None, "kill_server A"),
    ("server A", "restart", None, "restart_server A"),
    ("server A", "freeze", None, "freeze_server A"),
    ("server A", "thaw", None, "thaw_server A"),
    ("redis redis", "stop", None, "stop_redis"),
    ("redis redis", "stop-and-keep", None, "stop_redis keep=True"),
    ("redis redis", "start", None, "start_redis"),
    ("redis redis", "freeze", None, "freeze_redis"),
    ("redis redis", "thaw", None, "thaw_redis"),
    ("cluster cluster", "add-player", None, "join P2"),
    ("cluster cluster", "add-server", None, "add_server B"),
    ("cluster cluster", "change-broker", "none", "change_broker none"),
    ("player cluster", "send", "a player of that name", "send a player of that name"),
]


@pytest.mark.parametrize(("part", "action", "more", "does"), BUTTONS)
async def test_each_button_does_one_thing(
    pretended: Browser, part: str, action: str, more: str | None, does: str
) -> None:
    """Each asks the cluster for its own, and waits until it has come to rest, or is frozen."""
    extra = {"body" if action == "send" else "choice": more} if more else {}
    answer = await pretended.ask(id=7, action=action, part=part, **extra)
    assert (answer["type"], answer["id"]) == ("done", 7)
    assert pretended.cluster.asked == [does] + ["settle"] * (action != "freeze")


@pytest.mark.parametrize(
    ("broker", "how"),
    [("pubsub", "with Redis Pub/Sub"), ("none", "without a broker"), ("new", "with new")],
)
async def test_a_new_start_says_what_it_is(pretended: Browser, broker: str, how: str) -> None:
    """Who changes the broker is told that everything is new, and that the players are back."""
    answer = await pretended.ask(action="change-broker", part="cluster cluster", choice=broker)
    sentence = f"The cluster was started anew, {how}. Whoever was connected has joined again."
    assert answer == {"type": "done", "id": 1, "text": sentence}


async def test_what_a_button_did_and_what_has_not_come_to_rest(pretended: Browser) -> None:
    """Something that was done is not called a failure because it is still having its effect."""
    pretended.cluster.unsettled = TimeoutError("after 5 s still under way: P1 waits")
    answer = await pretended.ask(action="disconnect", part="player P1")
    assert answer["type"] == "done"
    assert answer["text"] == "Done, but after 5 s still under way: P1 waits."


@pytest.mark.parametrize(
    ("error", "says"), [(RuntimeError("Redis is down."), "Redis is down."), (KeyError(), "KeyE")]
)
async def test_any_error_becomes_words(pretended: Browser, error: Exception, says: str) -> None:
    """What goes wrong in a button is said on the stage, whatever it is."""
    pretended.cluster.error = error
    answer = await pretended.ask(action="stop", part="redis redis")
    assert answer["type"] == "failed"
    assert says in answer["text"]


async def test_what_is_added_takes_nobodys_name(browser: Browser) -> None:
    """Not a stranger's, nor the one that a press just before has taken."""
    cluster = cluster_of(browser)
    async with dial(cluster.url) as one, dial(cluster.url) as other:
        await one.join("P3")
        await other.join("C")
        for kind in ("player", "server"):
            asked = [browser.ask(action=f"add-{kind}", part="cluster cluster") for _ in range(2)]
            assert {answer["type"] for answer in await asyncio.gather(*asked)} == {"done"}
    assert list(cluster.players) == ["P1", "P2", "P4", "P5"]
    assert list(cluster.servers) == ["A", "B", "D", "E"]


async def test_what_cannot_be_added_is_not_offered(browser: Browser) -> None:
    """So a run that is kept does not tell of it; the button says why it cannot be."""

    def whys() -> list[str]:
        offers = browser.stage.acts["cluster cluster"]
        return [o.get("why", "") for o in offers if o["action"] in ("add-player", "add-server")]

    cluster = cluster_of(browser)
    await cluster.stop_redis()
    await asyncio.sleep(0)
    assert whys() == ["", "Redis is down: start it first."]
    for server in ("A", "B"):
        await cluster.kill_server(server)
    await asyncio.sleep(0)
    assert whys() == ["No server is up: restart one first.", "Redis is down: start it first."]


async def test_a_full_alphabet_has_no_more_servers(pretended: Browser) -> None:
    """Servers are called A to Z."""
    pretended.cluster.servers = dict.fromkeys("ABCDEFGHIJKLMNOPQRSTUVWXYZ", pretended.cluster)
    answer = await pretended.ask(action="add-server", part="cluster cluster")
    assert answer["text"] == "every name is taken, up to Z"


async def test_a_live_stage_offers_what_can_be_done_and_says_why_not(browser: Browser) -> None:
    """What cannot be done now is offered with the reason, and what is so changes with the run."""

    def why(part: str, action: str, choice: str = "") -> str:
        (found,) = [
            offer.get("why", "")
            for offer in browser.stage.acts[part]
            if offer["action"] == action and offer.get("choice", "") == choice
        ]
        return str(found)

    assert why("player P1", "send") == ""
    assert why("player P1", "reconnect", "A") == "P1 is on A already."
    assert why("redis redis", "stop") == ""
    assert why("redis redis", "start") == "Redis runs already."
    cluster = cluster_of(browser)
    await cluster.players["P1"].disconnect()
    await cluster.freeze_server("B")
    await cluster.settle()
    await asyncio.sleep(0)  # one turn of the loop, in which what is new is sent
    assert why("player P1", "send") == "P1 is away: reconnect it first."
    assert why("player P1", "disconnect") == "P1 is away already."
    assert why("player P1", "reconnect", "A") == ""
    assert why("player P1", "reconnect", "B") == "Server B is frozen."
    assert why("server B", "freeze") == "Server B is frozen already."
    assert why("server A", "thaw") == "Server A is not frozen."
    await cluster.thaw_server("B")
    await cluster.kill_server("B")
    await cluster.settle()
    await asyncio.sleep(0)
    assert why("server B", "kill") == "Server B is down already."
    assert why("server B", "restart") == ""


async def test_after_a_new_start_the_new_run_is_shown(pretended: Browser) -> None:
    """The stage shows the new trace from its beginning, follows it, and is done with the old."""
    cluster, stage = pretended.cluster, pretended.stage
    old = cluster.trace
    old.append("step", "scenario", caption="Old")
    await asyncio.sleep(0)
    cluster.trace = Trace(broker="none", servers=["A"])
    cluster.trace.append("step", "scenario", caption="New")
    pretended.renew()
    assert [run["title"] for run in stage.runs] == ["Without a broker"]
    assert [item["caption"] for item in stage.runs[0]["items"]] == ["New"]
    pretended.items = list(stage.runs[0]["items"])
    old.append("step", "scenario", caption="Too late")
    cluster.trace.append("step", "scenario", caption="Newer")
    await asyncio.sleep(0)
    assert [item["caption"] for item in pretended.items] == ["New", "Newer"]


async def test_a_closed_stage_watches_nothing(pretended: Browser) -> None:
    """Once it is closed, neither new records nor new runs reach it."""
    pretended.stage.close()
    assert pretended.cluster.callbacks == []
    pretended.cluster.trace.append("step", "scenario", caption="Unseen")
    await asyncio.sleep(0)
    assert pretended.items == []


async def test_a_cluster_whose_loop_has_ended_can_still_be_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A page gets what it lacks, and a button says that there is nothing to act on any more."""

    def ask() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        monkeypatch.setattr(stage, "send", sent.append)
        stage._on_message(None, {"type": "rest", "have": [0]}, [])
        stage._on_message(
            None, {"type": "act", "id": 3, "action": "stop", "part": "redis redis"}, []
        )
        return sent

    cluster = Pretended()
    cluster.trace.append("step", "scenario", caption="Begin")
    stage = Stage(cluster)
    cluster.loop = asyncio.new_event_loop()
    cluster.loop.close()
    rest, failed = await asyncio.to_thread(ask)
    assert [item["caption"] for item in rest["items"]] == ["Begin"]
    assert (failed["type"], failed["id"]) == ("failed", 3)
    assert "open another with" in failed["text"]
    stage.close()


async def test_a_stage_opens_with_an_event_that_was_said() -> None:
    """The browser is told the event's id; one that nobody said is named in the error."""
    runs = await compare(scenarios.p1_moves_to_b)
    stage = Stage(runs, look="P2-2")
    assert stage.look == "P2-2"
    stage.close()
    with pytest.raises(ValueError, match="unknown event 'P9-1'; there are: P2-1, P3-1, P2-2"):
        Stage(runs, look="P9-1")
    with pytest.raises(ValueError, match="unknown event 'P2-1'; there are: none"):
        Stage(Trace(), look="P2-1")


def test_where_there_is_no_picture_there_is_nothing_to_look_at() -> None:
    """What is wrong with the runs is said on the stage, whatever it was to open with."""
    stage = Stage({}, look="P2-2")
    assert "no run to show" in stage.problem
    stage.close()


async def test_an_event_of_one_run_is_not_looked_at_in_the_next(pretended: Browser) -> None:
    """A run that is started anew may have an event of the same id."""
    cluster = pretended.cluster
    cluster.trace.append("send", "P1", "A", "P1-1", body="x", frame="x")
    stage = Stage(cluster, look="P1-1")
    cluster.trace = Trace(broker="none", servers=["A"])
    pretended.renew()
    assert stage.look == ""
    stage.close()


@pytest.mark.parametrize("minutes", [-1, float("nan"), float("inf")])
def test_planned_minutes_are_a_number(minutes: float) -> None:
    """What cannot be planned is refused."""
    with pytest.raises(ValueError, match="minutes are those planned"):
        Stage(Trace(), minutes=minutes)


def test_a_stage_has_a_key_of_its_own() -> None:
    """By its key a page can remember where it was in this stage, and in no other."""
    stages = [Stage(Trace()) for _ in range(2)]
    assert len({stage.key for stage in stages} - {""}) == 2
    for stage in stages:
        stage.close()


async def test_what_is_stored_is_a_picture_and_the_outcome() -> None:
    """Where no widgets run, the PNG shows the run and the text says how it ended."""
    stage = Stage(await compare(scenarios.p1_moves_to_b))
    data, metadata = stage._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert data["text/plain"] == (
        "Without a broker: heard 10 · missed 2 · twice 0\n"
        "With Redis Pub/Sub: heard 12 · missed 0 · twice 0"
    )
    assert metadata["image/png"]["alt"].startswith(
        "Space-time diagram. Without a broker: heard 10 · missed 2 · twice 0. "
        "P1 missed “hide”, “fire”: no broker between servers. "
        "With Redis Pub/Sub: heard 12 · missed 0 · twice 0. Beat 1: P1, P2 and P3 play on server A."
    )
    stage.close()


def test_a_saved_trace_is_a_replay_without_a_kernel_s_loop() -> None:
    """A trace needs no event loop, no Redis and no sockets to be shown; an empty one neither."""
    stage = Stage(Trace(broker="none", servers=["A", "B"]))
    assert not stage.live
    assert stage.runs[0]["items"] == []
    stage.close()


async def test_a_stage_of_a_stopped_cluster_is_a_replay() -> None:
    """Nothing can be done to a cluster that has stopped, so its stage has no buttons."""
    async with open_cluster(broker="none") as cluster:
        await cluster.join("P1")
    stage = Stage(cluster)
    assert not stage.live
    stage.close()


def test_what_cannot_be_shown_is_refused() -> None:
    """Something that is no run at all is refused, with what can be shown."""
    with pytest.raises(TypeError, match="give a cluster, its trace, or what"):
        Stage(7)  # type: ignore[arg-type]


# Files, and what cannot be shown


@pytest.fixture
async def saved(tmp_path: Path) -> Path:
    """The saved traces of a comparison."""
    runs = await compare(scenarios.p1_moves_to_b)
    path = tmp_path / "run.jsonl"
    save_traces(path, [run.trace for run in runs.values()])
    return path


@pytest.mark.parametrize("kind", [str, Path])
def test_a_saved_trace_is_shown_by_its_path(saved: Path, kind: Callable[[Path], Any]) -> None:
    """A file with several traces is a stage with several panes."""
    stage = Stage(kind(saved))
    assert [run["title"] for run in stage.runs] == ["Without a broker", "With Redis Pub/Sub"]
    assert (stage.live, stage.problem) == (False, "")
    assert repr(stage).startswith("Without a broker: heard 10 · missed 2")
    stage.close()


def broken_files(whole: bytes) -> dict[str, tuple[bytes, str]]:
    """What may come in the place of a saved trace, and what is to be said of it."""
    later = b'{"wsdemo_trace":%d,"about":{},"records":0}\n' % (SCHEMA_VERSION + 1)
    return {
        "cut short": (whole[:-40], "is cut short in line"),
        "of a later version": (later, "written by a later wsdemo"),
        "no trace": (b"PK\x03\x04\n\xff\xfe", "not the header of a saved trace"),
        "empty": (b"", "is cut short in line 1"),
        "deeply nested": (b"[" * 100_000 + b"\n", "not the header of a saved trace"),
    }


@pytest.mark.parametrize("case", broken_files(b""))
async def test_a_file_that_is_no_trace_is_a_sentence_on_the_stage(saved: Path, case: str) -> None:
    """What is wrong with it is said on the stage and in its stored output, which has no image."""
    content, says = broken_files(saved.read_bytes())[case]
    path = saved.with_name("broken.jsonl")
    path.write_bytes(content)
    stage = Stage(path)
    assert says in stage.problem
    assert "broken.jsonl" in stage.problem
    assert stage.runs == []
    assert repr(stage) == stage.problem
    data, _ = stage._repr_mimebundle_()
    assert data["text/plain"] == stage.problem
    assert "image/png" not in data
    stage.close()


def test_a_file_that_is_not_there_is_an_error() -> None:
    """A wrong path is the caller's to correct."""
    with pytest.raises(FileNotFoundError):
        Stage("no/such/run.jsonl")


def test_no_runs_at_all_is_a_sentence() -> None:
    """An empty comparison has nothing to show, and says so."""
    stage = Stage({})
    assert "no run to show" in stage.problem
    assert repr(stage) == stage.problem
    stage.close()


def told(*captions: str, broker: str = "none", before: bool = False) -> Trace:
    """A trace of these steps; something may have happened before the first."""
    trace = Trace(broker=broker, servers=["A"])
    if before:
        trace.append("send", "P1", "A", "P1-1", body="x")
        trace.append("receive", "A", "P1", "P1-1", body="x")
    for caption in captions:
        trace.append("step", "scenario", caption=caption)
    return trace


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (told("Begin", "Stop"), "beat 2 is “Go” in “Without a broker”, but “Stop” in “With x”."),
        (told("Begin"), "beat 2 is “Go” in “Without a broker”, but missing in “With x”."),
        (told("Begin", "Go", "On"), "beat 3 is missing in “Without a broker”, but “On” in “With"),
        (told("Begin", "Go" * 99), f"but “{'Go' * 29}G…” in “With x”."),
        (
            told("Begin", "Go", before=True),
            "beat 1 is “Begin” in “Without a broker”, but without a caption in “With x”.",
        ),
    ],
)
def test_runs_that_tell_different_stories_are_not_put_side_by_side(there: Trace, says: str) -> None:
    """Where the beats of two runs first differ, the stage says where, and what each says."""
    there.about["broker"] = "x"
    here = told("Begin", "Go")
    stage = Stage({"same": here, "too": told("Begin", "Go", broker="pubsub"), "other": there})
    assert stage.problem.startswith("These runs do not tell the same story: ")
    assert says in stage.problem
    assert repr(stage) == stage.problem
    stage.close()
    alone = Stage({"one": here, "two": told("Begin", "Go", broker="pubsub")})
    assert alone.problem == ""
    alone.close()


async def test_a_server_is_not_restarted_before_the_redis_that_it_needs(browser: Browser) -> None:
    """Its button says what to do first; without a broker there is nothing to wait for."""
    for part, action in (("server A", "kill"), ("redis redis", "stop")):
        await browser.ask(part=part, action=action)
    whys = {offer["action"]: offer.get("why") for offer in browser.stage.acts["server A"]}
    assert whys["restart"] == "Redis is down: start it first."
    await browser.ask(part="redis redis", action="start")
    assert (await browser.ask(part="server A", action="restart"))["type"] == "done"
