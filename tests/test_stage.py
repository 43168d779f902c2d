"""The stage's Python side: what it tells the browser, and what it does when asked to."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from typing import Any

import msgspec
import pytest

from wsdemo import Cluster, Stage, compare, open_cluster, scenarios
from wsdemo.story import tell
from wsdemo.trace import Trace


class Browser:
    """The other end of a stage: collects what is sent to it, and asks for things."""

    def __init__(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stage = stage
        self.items: list[Any] = list(stage.runs[0]["items"])
        self.answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        monkeypatch.setattr(stage, "send", self._receive)

    def _receive(self, content: dict[str, Any]) -> None:
        json.dumps(content)  # nothing else can be sent
        if content["type"] == "more":
            assert content["from"] == len(self.items)
            self.items += content["items"]
        else:
            self.answers.put_nowait(content)

    async def ask(self, **content: Any) -> dict[str, Any]:
        """Press a button, on another thread as some kernels do, and wait for the answer."""
        message = {"type": "act", "id": 1, **content}
        press = threading.Thread(target=self.stage._on_message, args=(None, message, []))
        press.start()
        async with asyncio.timeout(10):
            return await self.answers.get()


@pytest.fixture
async def browser(monkeypatch: pytest.MonkeyPatch) -> Any:
    async with open_cluster(broker="pubsub") as cluster:
        await cluster.join("P1", "P2", server="A")
        await cluster.settle()
        stage = Stage(cluster)
        yield Browser(stage, monkeypatch)
        stage.close()


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
    assert (await browser.ask(action="reconnect", player="P1", server="B"))["type"] == "done"
    assert p1.server == "B"
    assert (await browser.ask(action="send", player="P2", body=" hide "))["type"] == "done"
    assert [event.body for event in p1.heard] == ["hide"]
    await asyncio.sleep(0)  # one turn of the loop, in which what is new is sent
    assert browser.items == msgspec.to_builtins(tell(cluster_of(browser).trace).items)


async def test_disconnect_and_the_balancer_s_choice(browser: Browser) -> None:
    """A player can be disconnected, and come back wherever the balancer puts it."""
    p1 = cluster_of(browser).players["P1"]
    assert (await browser.ask(action="disconnect", player="P1"))["type"] == "done"
    assert not p1.connected
    assert (await browser.ask(action="reconnect", player="P1"))["type"] == "done"
    assert p1.connected


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"action": "send", "player": "P9", "body": "x"}, "unknown player 'P9'; there are: P1, P2"),
        ({"action": "reconnect", "player": "P1", "server": "Z"}, "there are: A, B"),
        ({"action": "send", "player": "P1", "body": "  "}, "write something first"),
        ({"action": "send", "player": "P1", "body": 7}, "write something first"),
        ({"action": "explode", "player": "P1"}, "cannot do 'explode'"),
        ({}, "unknown player"),
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
    await browser.ask(action="disconnect", player="P1")
    answer = await browser.ask(action="send", player="P1", body="hello?")
    assert "reconnect()` first" in answer["text"]


async def test_a_new_view_asks_for_the_rest(browser: Browser) -> None:
    """A view that is opened later gets what the first message did not hold."""
    sent: list[dict[str, Any]] = []
    await browser.ask(action="send", player="P2", body="jump")
    await asyncio.sleep(0)
    browser.stage.send = sent.append
    browser.stage._on_message(None, {"type": "rest", "have": [2]}, [])
    (answer,) = sent
    assert answer["from"] == 2
    assert answer["items"] == browser.items[2:]


@pytest.mark.parametrize(
    "content", [None, 7, [], {}, {"type": "rest"}, {"type": "rest", "have": ["x", -1]}, {"type": 1}]
)
async def test_nonsense_from_the_browser_is_passed_over(browser: Browser, content: Any) -> None:
    """A message that is none of the known ones has no effect."""
    browser.stage._on_message(None, content, [])
    assert browser.answers.empty()


async def test_what_is_stored_is_a_picture_and_the_outcome() -> None:
    """Where no widgets run, the PNG shows the run and the text says how it ended."""
    stage = Stage(await compare(scenarios.p1_moves_to_b))
    data, _ = stage._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert data["text/plain"] == (
        "Without a broker: heard 10 · missed 2 · twice 0\n"
        "With Redis Pub/Sub: heard 12 · missed 0 · twice 0"
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
