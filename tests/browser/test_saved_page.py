"""The stage in a real browser: its controls, its keys, what it says, and what it leaves behind.

Most tests open a page that a real run was saved to, from disk and without a network.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.browser.conftest import ARTEFACTS, needs_axe, violations
from tests.test_page import hostile_trace
from wsdemo import Cluster, Stage, Trace, compare, open_cluster, scenarios
from wsdemo.controls import ENDED
from wsdemo.page import module, style
from wsdemo.trace import save_traces

RULES_OF_PAGES = ["landmark-one-main", "page-has-heading-one", "region", "heading-order"]

NO_FULL_SCREEN = "Object.defineProperty(document, 'fullscreenEnabled', { value: false });"

HOSTILE = "<img src=x onerror=window.broken=1>"
TURNED = "\u202eturned\u2066"


async def hostile(cluster: Cluster) -> None:
    """Captions and bodies that would be markup, turn the text around, or never end."""
    async with cluster.step(f"{HOSTILE} {TURNED}", notes=HOSTILE):
        (p1, _) = await cluster.join("P1", "P2", server="A")
        await p1.send(HOSTILE)
        await p1.send(TURNED + "x" * 10_000)


async def troubled(cluster: Cluster) -> None:
    """More said than a strip has room for, an outage, a fault and its cure at once, a goodbye."""
    async with cluster.step("P1 and P2 play on A, P3 on B, and P2 talks"):
        p1, p2 = await cluster.join("P1", "P2", server="A")
        await cluster.join("P3", server="B")
        for n in range(18):
            await p2.send(f"word {n}")
    async with cluster.step("Redis stops"):
        await cluster.stop_redis()
    async with cluster.step("P2 speaks meanwhile"):
        await p2.send("lost")
    async with cluster.step("Redis is back"):
        await cluster.start_redis()
    async with cluster.step("B freezes and thaws"):
        await cluster.freeze_server("B")
        await cluster.thaw_server("B")
    async with cluster.step("P1 goes away"):
        await p1.disconnect()


async def count_frames(page: Page) -> None:
    """From the next page on, count what is asked for, but for what we ask for ourselves."""
    await page.add_init_script(
        """window.asked = 0;
        const ask = window.requestAnimationFrame;
        window.requestAnimationFrame = (callback) => { window.asked += 1; return ask(callback); };
        window.frame = () => new Promise(ask);
        """
    )


@pytest.fixture
async def saved(tmp_path: Path) -> Path:
    """The page of P1 moving to B, without a broker and with Pub/Sub."""
    stage = Stage(await compare(scenarios.p1_moves_to_b, redis="fake"))
    stage.save_html(tmp_path / "saved.html")
    return tmp_path / "saved.html"


async def opened(page: Page, path: Path) -> Locator:
    await page.goto(path.as_uri())
    stage = page.locator(".wsdemo-stage")
    await expect(stage.locator("[data-pane]").first).to_be_visible()
    return stage


async def caption(stage: Locator) -> str:
    return await stage.locator(".caption").inner_text()


async def playhead(stage: Locator) -> float:
    return float(await stage.get_by_label("Playhead").input_value())


async def still(page: Page) -> bool:
    """Whether it has stopped asking for frames: what moves asks in each for the next."""
    return bool(
        await page.evaluate(
            "async () => { const had = asked; await frame(); await frame(); return asked === had; }"
        )
    )


async def bring_module(page: Page) -> None:
    """Load the module into a page of its own, with two places to put stages into."""
    script = module().replace("export default", "window.widget =")
    await page.set_content(
        f"<html lang=en><title>Stages</title><style>:root {{color-scheme: light dark}} {style()}"
        f"</style><div id=a></div><div id=b></div><script type=module>{script}\n"
        "window.mount = mount; window.ready = true;</script>"
    )
    await page.wait_for_function("window.ready")


async def keep(page: Page, name: str) -> None:
    ARTEFACTS.mkdir(exist_ok=True)
    await page.screenshot(path=ARTEFACTS / f"stage_{name}.png", full_page=True)


async def test_a_saved_page_plays_from_disk_without_a_network(offline: Page, saved: Path) -> None:
    """It plays every beat by itself, and ends with what the ledger says, and no frame more."""
    await count_frames(offline)
    stage = await opened(offline, saved)
    await stage.get_by_label("Speed").select_option("4")
    await stage.get_by_role("button", name="Play", exact=True).click()
    await stage.locator("[data-token]").first.wait_for()
    await keep(offline, "playing")
    counts = stage.locator(".counts")
    await expect(counts.nth(0)).to_have_text("heard 10 · missed 2 · twice 0", timeout=60_000)
    await expect(counts.nth(1)).to_have_text("heard 12 · missed 0 · twice 0")
    await expect(stage.get_by_role("button", name="Play", exact=True)).to_be_visible(timeout=30_000)
    assert await still(offline)
    await keep(offline, "end")


async def test_the_keys(offline: Page, saved: Path) -> None:
    """Every key of the list does what the list says, while the stage has the focus."""
    await count_frames(offline)
    stage = await opened(offline, saved)
    await stage.focus()
    press = offline.keyboard.press

    await press("Space")
    await expect(stage.get_by_role("button", name="Pause")).to_be_visible()
    await press("Space")
    assert await still(offline)

    await press("End")
    assert await playhead(stage) == 4
    await press("Home")
    assert await playhead(stage) == 0
    await press("ArrowRight")
    await expect(stage.get_by_role("button", name="Pause")).to_be_visible()
    await press("ArrowRight")  # to the end of what plays
    assert await playhead(stage) == 1
    await press("PageDown")
    assert await caption(stage) == "P1 drops, and the balancer puts it on server B"
    await press("PageDown")
    await press("ArrowLeft")
    await press("PageUp")
    assert await caption(stage) == "P1, P2 and P3 play on server A"

    speed = stage.get_by_label("Speed")
    for key, value in [(".", "2"), (".", "4"), (".", "4"), (",", "2"), (",", "1"), (",", "0.5")]:
        await press(key)
        assert await speed.input_value() == value

    panes = stage.locator("[data-pane]")
    for shown in ([True, False], [False, True], [True, True]):
        await press("c")
        assert [await panes.nth(n).is_visible() for n in (0, 1)] == shown

    notes, keys = stage.get_by_label("Notes"), stage.get_by_label("Keys", exact=True).last
    presenter = stage.get_by_label("Presenter", exact=True)
    for key, part in (("n", notes), ("?", keys), ("p", presenter)):
        await press(key)
        await expect(part).to_be_visible()
        await press(key)
        await expect(part).to_be_hidden()

    for open_first in ("n", "p"):
        for key in (open_first, "?"):
            await press(key)
        await press("Escape")
        for part in (notes, keys, presenter):
            await expect(part).to_be_hidden()

    await press("c")
    await press("c")
    await press("End")
    await press("i")
    await expect(stage.get_by_label("Inspector")).to_contain_text("P1heard")  # of what is seen
    await press("Escape")
    await press("c")
    await press("i")
    await expect(stage.get_by_label("Inspector")).to_contain_text("“fire” from P3")
    await press("Escape")
    await expect(stage.get_by_label("Inspector")).to_be_hidden()


async def test_the_list_of_keys_is_seen_when_it_opens(offline: Page, saved: Path) -> None:
    """Also in a window that the stage is higher than."""
    await offline.set_viewport_size({"width": 1280, "height": 600})
    stage = await opened(offline, saved)
    await stage.focus()
    await offline.keyboard.press("?")
    await expect(stage.get_by_label("Keys", exact=True).last).to_be_in_viewport(ratio=0.9)


async def test_keys_act_only_while_the_stage_has_the_focus(offline: Page, saved: Path) -> None:
    """Keys pressed elsewhere on the page do nothing, and combinations stay the browser's."""
    stage = await opened(offline, saved)
    await offline.keyboard.press("End")
    assert await playhead(stage) == 0
    await stage.focus()
    await offline.keyboard.press("Control+End")
    assert await playhead(stage) == 0


async def test_the_buttons(offline: Page, saved: Path) -> None:
    """Start, step, end, a beat by its caption, and the scrubber; what cannot act says why."""
    stage = await opened(offline, saved)

    def button(name: str) -> Locator:
        return stage.get_by_role("button", name=name)

    assert (
        await button("To the beginning").get_attribute("aria-description")
        == "This is the beginning."
    )
    await button("Step forward").click()
    await button("Step forward").click()
    assert await playhead(stage) == 1
    await button("Beat 3: P2, still on A, says “hide”").click()
    assert await caption(stage) == "P2, still on A, says “hide”"
    await button("Step back").click()
    assert await caption(stage) == "P1 drops, and the balancer puts it on server B"
    await button("To the end").click()
    assert await button("Step forward").get_attribute("aria-description") == "This is the end."
    await stage.get_by_label("Playhead").fill("2.5")
    assert await caption(stage) == "P2, still on A, says “hide”"
    voice = stage.get_by_role("status")
    await expect(voice).to_have_text("Beat 3 of 4: P2, still on A, says “hide”")
    await button("To the beginning").click()
    assert await playhead(stage) == 0


async def test_a_token_shows_its_way_and_opens_the_inspector(offline: Page, saved: Path) -> None:
    """With the focus on it its whole way is lit, with latencies; Enter shows its real frames."""
    stage = await opened(offline, saved)
    pane = stage.locator("[data-pane=pubsub]")
    await stage.get_by_label("Playhead").fill("2.6")
    token = pane.locator("[data-token]").first
    await token.focus()
    # P2 to A, A to Redis, Redis to both servers, and to each of three players.
    await expect(pane.locator(".light")).to_have_count(7)
    told = json.loads(await offline.locator("#told").inner_text())
    hops = [item for item in told["runs"][1]["items"] if item["type"] == "hop"]
    hide = await token.get_attribute("data-token")
    waits = [hop["ms"] for hop in hops if hop["event"] == hide and hop["ms"] is not None]
    took = [f"{float(format(ms, '.2g')):g} ms" for ms in waits]
    shown = await pane.locator(".latency").all_text_contents()
    assert sorted(filter(None, shown)) == sorted(took)
    await keep(offline, "path")
    await offline.keyboard.press("Enter")
    inspector = stage.get_by_label("Inspector")
    await expect(inspector).to_contain_text("“hide” from P2")
    frames = await inspector.locator("pre").all_inner_texts()
    sent, relayed = (json.loads(frame[frame.index("{") :]) for frame in frames)
    assert sent["type"] == "send"
    assert (relayed["type"], relayed["player"], relayed["body"]) == ("event", "P2", "hide")
    assert sent["id"] == relayed["id"]
    await stage.get_by_label("Playhead").fill("3")
    await expect(inspector.locator("dl")).to_contain_text("P1heard")
    await inspector.get_by_role("button", name="The one before").click()
    await expect(inspector).to_contain_text("“duck” from P3")
    await inspector.get_by_role("button", name="Close").click()
    await expect(inspector).to_be_hidden()


async def test_a_server_and_redis_tell_what_they_do(offline: Page, saved: Path) -> None:
    """A click on a server tells its players and counters, one on Redis its last commands."""
    stage = await opened(offline, saved)
    await stage.get_by_role("button", name="To the end").click()
    pane, inspector = stage.locator("[data-pane=pubsub]"), stage.get_by_label("Inspector")
    await pane.locator("[data-server=B]").click()
    await expect(inspector).to_contain_text("playersP1")
    await expect(inspector).to_contain_text("subscribed togame:g")
    await expect(inspector).to_contain_text("relayed2")
    await keep(offline, "server")
    await pane.get_by_role("button", name="Redis").click()
    await expect(inspector).to_contain_text("PUBLISH game:g → 2")
    await expect(inspector).to_contain_text("A and B")


async def test_a_token_that_arrives_leaves_the_keys_to_the_stage(
    offline: Page, saved: Path
) -> None:
    """The focus goes back to the stage when the token that had it is there no more."""
    stage = await opened(offline, saved)
    await stage.get_by_label("Playhead").fill("2.6")
    await stage.locator("[data-token]").first.focus()
    await offline.keyboard.press("End")
    await expect(stage).to_be_focused()
    await offline.keyboard.press("Home")
    assert await playhead(stage) == 0


async def test_outages_are_seen_and_told(offline: Page, tmp_path: Path) -> None:
    """What is down, frozen or away looks so, and what was lost by it says why."""
    run = (await compare(troubled, ["pubsub"], redis="embedded"))["pubsub"]
    Stage(run).save_html(tmp_path / "troubled.html")
    stage = await opened(offline, tmp_path / "troubled.html")
    at = stage.get_by_label("Playhead").fill

    async def end_of(beat: int) -> None:
        await stage.get_by_role("button", name=f"Beat {beat}:").click()
        for _ in range(2):  # it plays, and is cut short
            await stage.get_by_role("button", name="Step forward").click()

    await end_of(1)
    before = stage.locator(".before").first
    count = len(await stage.locator("[data-slot][data-for=P2]").all())
    await expect(before).to_have_text(f"+{18 - count}")
    left, slot = (
        await before.bounding_box(),
        await stage.locator("[data-slot]").first.bounding_box(),
    )
    assert left is not None
    assert slot is not None
    assert left["x"] + left["width"] <= slot["x"]

    await end_of(2)
    await expect(stage.locator(".broker.down")).to_have_count(2)
    await expect(stage.locator(".link:not(.off)")).to_have_count(0)
    await end_of(3)
    await expect(stage.locator(".loss")).to_have_text(["“lost”", "Redis is", "down"])
    await expect(stage.locator(".hollow")).to_have_count(1)
    await keep(offline, "redis_down")
    await end_of(4)
    await expect(stage.locator(".link:not(.off)")).to_have_count(2)

    frozen = 0
    for tenth in range(10):
        await at(f"{4 + tenth / 10:.1f}")
        frozen += await stage.locator(".server.frozen[data-server=B]").count()
    assert frozen >= 2, "the fault is healed at the moment it begins"

    await at("6")
    await expect(stage.locator("[data-player=P1]")).to_have_attribute("data-state", "away")
    await expect(stage.locator("text.away")).to_have_text("away")
    await expect(stage.locator(".wire")).to_have_count(2)


async def test_what_waits_at_a_part_is_counted_on_it_and_lost_with_it(
    offline: Page, tmp_path: Path
) -> None:
    """In words: how many wait, and afterwards what was lost, at the foot of the part."""

    async def frozen(cluster: Cluster) -> None:
        async with cluster.step("P1 and P2 play on A, P3 on B"):
            _, p2 = await cluster.join("P1", "P2", server="A")
            await cluster.join("P3", server="B")
        async with cluster.step("B freezes, and P2 speaks"):
            await cluster.freeze_server("B")
            await p2.send("one")
            await p2.send("two")
        async with cluster.step("B is killed"):
            await cluster.kill_server("B")

    Stage(await compare(frozen, ["pubsub"], redis="fake")).save_html(tmp_path / "frozen.html")
    stage = await opened(offline, tmp_path / "frozen.html")
    pane = stage.locator("[data-pane=pubsub]")
    await stage.get_by_label("Playhead").fill("2")
    await expect(pane.locator("text.kind", has_text="wait")).to_have_text("2 wait")
    await stage.get_by_role("button", name="To the end").click()
    await expect(pane.locator("text.kind", has_text="wait")).to_have_count(0)
    assert await pane.locator("text.loss").all_text_contents() == ["“one” and “two”", "lost with B"]
    await keep(offline, "lost_with_its_server")


async def test_what_is_lost_towards_several_servers_is_told_once_whatever_they_are_called(
    offline: Page, tmp_path: Path
) -> None:
    """A name may be a letter of the sentence, too."""

    async def speak(cluster: Cluster) -> None:
        async with cluster.step("One on each, and the first speaks"):
            for number, name in enumerate(cluster.servers):
                await cluster.join(f"P{number}", server=name)
            await cluster.player("P0").send("hello")

    runs = await compare(speak, ["none"], servers=["z", "a", "o"], redis="fake")
    Stage(runs).save_html(tmp_path / "names.html")
    stage = await opened(offline, tmp_path / "names.html")
    await stage.get_by_role("button", name="To the end").click()
    words = await stage.locator("text.loss").all_text_contents()
    assert words == ["“hello”", "no way to a and o"]


async def test_words_of_losses_in_both_directions_of_a_gap_keep_clear_of_each_other(
    offline: Page, tmp_path: Path
) -> None:
    """Those of A below it and those of B above it are read beside the gap."""

    async def both(cluster: Cluster) -> None:
        async with cluster.step("P1 on A and P2 on B speak at once"):
            (p1,) = await cluster.join("P1", server="A")
            (p2,) = await cluster.join("P2", server="B")
            await cluster.join("P3", "P4", server="A")
            await p1.send("from A")
            await p2.send("from B")

    Stage(await compare(both, ["none"], redis="fake")).save_html(tmp_path / "both.html")
    stage = await opened(offline, tmp_path / "both.html")
    await stage.get_by_role("button", name="To the end").click()
    words = stage.locator("text.loss")
    await expect(words).to_have_count(4)
    ys = sorted([float(await word.get_attribute("y") or 0) for word in await words.all()])
    assert all(lower - upper >= 15 for upper, lower in pairwise(ys))


async def test_players_keep_their_looks_when_a_run_begins_anew(page: Page) -> None:
    """Also if they join in another order: the page has shown them already."""

    runs = []
    for names in (["P1", "P2"], ["P2", "P1"]):
        async with open_cluster(broker="none") as cluster:
            await cluster.join(*names, server="A")
        stage = Stage(cluster.trace)
        runs.append(stage.runs)
        stage.close()
    await bring_module(page)
    looks = await page.evaluate(
        """([before, after]) => {
          const view = mount(a, {runs: before});
          const look = () => {
            view.seek(Infinity);
            return a.querySelector("[data-player=P1]").getAttribute("class");
          };
          const first = look();
          view.replace({runs: after});
          return [first, look()];
        }""",
        runs,
    )
    assert looks[0] == looks[1]


async def test_strips_line_up_and_mark_what_differs(offline: Page, saved: Path) -> None:
    """The slots of one event stand in one column of both panes; what differs is underlined."""
    stage = await opened(offline, saved)
    await stage.get_by_role("button", name="To the end").click()
    left, right = stage.locator("[data-pane=none]"), stage.locator("[data-pane=pubsub]")
    for pane in (left, right):
        await expect(pane.locator(".differs")).to_have_count(2)
    slots = [pane.locator("[data-slot][data-for=P1]") for pane in (left, right)]
    xs = [[await slot.get_attribute("x") for slot in await each.all()] for each in slots]
    assert xs[0] == xs[1]
    missed = left.locator("[data-outcome=missed] title")
    texts = await missed.all_text_contents()
    assert texts == [
        f"“{w}” from P{n}: missed, no broker between servers" for w, n in (("hide", 2), ("fire", 3))
    ]


async def readable_from_the_back_row(stage: Locator) -> None:
    """Nothing on it is smaller than 24 pixels nor out of the screen."""
    smallest = await stage.evaluate(
        """stage => Math.min(...[...stage.querySelectorAll('*')].filter(one =>
          [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()) &&
          one.checkVisibility() && !one.closest('.voice, title, option')).map(one => {
            const size = parseFloat(getComputedStyle(one).fontSize);
            const scale = one.closest('svg')?.getScreenCTM().a ?? 1;
            return size * scale;
          }))"""
    )
    assert smallest >= 24
    assert await stage.evaluate("stage => stage.scrollHeight <= stage.clientHeight")


def crowd(players: int) -> scenarios.Scenario:
    """So many on A; then P1 moves to B, and P2 speaks."""

    async def story(cluster: Cluster) -> None:
        async with cluster.step("All play on A", notes="Ask the room who hears P2. " * 5):
            names = [f"P{n + 1}" for n in range(players)]
            p1, p2, *_ = await cluster.join(*names, server="A")
        async with cluster.step("P1 moves, and P2 speaks"):
            await p1.reconnect(server="B")
            await p2.send("hide")

    return story


@pytest.mark.parametrize("players", [5, 8, 24])
async def test_full_screen_is_readable_with_many_players_and_whatever_is_open(
    chromium: Browser, tmp_path: Path, players: int
) -> None:
    """The picture is drawn closer, and anew when notes or the inspector take some of its room."""

    Stage(await compare(crowd(players), redis="fake")).save_html(tmp_path / "many.html")
    page = await chromium.new_page(viewport={"width": 1920, "height": 1080})
    stage = await opened(page, tmp_path / "many.html")
    await stage.focus()
    for key in ("f", "n", "n", "End", "i", "Escape", "c"):
        await page.keyboard.press(key)
        await page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
        )
        await readable_from_the_back_row(stage)
        await keep(page, f"full_{players}_players_{key}")
    await page.close()


async def test_full_screen_is_readable_with_six_servers(chromium: Browser, tmp_path: Path) -> None:
    """Servers are drawn closer, too, where they would not fit otherwise."""

    async def each(cluster: Cluster) -> None:
        async with cluster.step("One plays on each, and B stands still"):
            await cluster.freeze_server("B")
            for name in "ACDEF":
                (player,) = await cluster.join(f"on {name}", server=name)
                await player.send("hello")

    runs = await compare(each, servers=list("ABCDEF"), redis="fake")
    Stage(runs).save_html(tmp_path / "six.html")
    page = await chromium.new_page(viewport={"width": 1920, "height": 1080})
    stage = await opened(page, tmp_path / "six.html")
    await stage.focus()
    for key in ("End", "f"):
        await page.keyboard.press(key)
    await expect(stage).to_have_class("wsdemo-stage wide full")
    await readable_from_the_back_row(stage)
    await keep(page, "full_6_servers")
    await page.close()


async def test_full_screen_is_readable_from_the_back_row(chromium: Browser, tmp_path: Path) -> None:
    """At 1920×1080 nothing is smaller than 24 pixels nor out of the screen, with 1 to 3 panes."""
    runs = await compare(scenarios.p1_moves_to_b, redis="fake")
    page = await chromium.new_page(viewport={"width": 1920, "height": 1080})
    for shown in (3, 2, 1):
        some = [runs["none"], runs["pubsub"], runs["pubsub"]][:shown]
        Stage({str(n): run for n, run in enumerate(some)}).save_html(tmp_path / "full.html")
        stage = await opened(page, tmp_path / "full.html")
        await stage.focus()
        await page.keyboard.press("End")
        await page.keyboard.press("f")
        await expect(stage).to_have_class("wsdemo-stage wide full")
        await readable_from_the_back_row(stage)
        await keep(page, f"full_{shown}")
        await page.keyboard.press("f")
        await expect(stage).to_have_class("wsdemo-stage wide")
    await page.close()


def beats(count: int, notes: str = "Ask the room who hears P2. ") -> Any:
    """A scenario of so many beats, the last of them without notes."""

    async def scenario(cluster: Cluster) -> None:
        async with cluster.step("P1, P2 and P3 play on server A", notes=notes):
            p1, p2, _ = await cluster.join("P1", "P2", "P3", server="A")
        async with cluster.step("P1 drops, and the balancer puts it on server B", notes=notes):
            await p1.reconnect(server="B")
        for number in range(3, count + 1):
            said = notes if number < count else ""
            async with cluster.step(f"P2, still on A, says “word {number}”", notes=said):
                await p2.send(f"word {number}")

    return scenario


async def stop_time(page: Page) -> None:
    """From now on, time passes on the page only when it is told to."""
    await page.clock.install(time=0)
    await page.clock.pause_at(1_000)


@pytest.fixture
async def presented(offline: Page, tmp_path: Path) -> Locator:
    """The stage of four beats, for which one minute is planned, at a time that stands still."""
    runs = await compare(beats(4), redis="fake")
    Stage(runs, minutes=1).save_html(tmp_path / "presented.html")
    await stop_time(offline)
    stage = await opened(offline, tmp_path / "presented.html")
    await stage.focus()
    await offline.keyboard.press("p")
    return stage


async def test_the_console_says_what_to_say_and_what_comes_next(
    offline: Page, presented: Locator
) -> None:
    """It lists the beats, goes to each by mouse or keyboard, and leaves the keys to the stage."""
    console = presented.get_by_label("Presenter", exact=True)
    await expect(console).to_be_focused()
    cues = console.get_by_role("listitem")
    assert await cues.all_inner_texts() == [
        "1\nP1, P2 and P3 play on server A",
        "2\nP1 drops, and the balancer puts it on server B",
        "3\nP2, still on A, says “word 3”",
        "4\nP2, still on A, says “word 4”",
    ]
    current = console.locator("[aria-current]")
    await expect(current).to_have_text("1 P1, P2 and P3 play on server A")
    await expect(console.get_by_label("What to say")).to_have_text("Ask the room who hears P2.")
    await expect(console).to_contain_text("next: P1 drops, and the balancer puts it on server B")

    await cues.nth(2).get_by_role("button").click()
    assert await caption(presented) == "P2, still on A, says “word 3”"
    await expect(current).to_have_text("3 P2, still on A, says “word 3”")
    await cues.nth(1).get_by_role("button").focus()
    await offline.keyboard.press("Enter")
    assert await caption(presented) == "P1 drops, and the balancer puts it on server B"

    forward = console.get_by_role("button", name="Next beat")
    await forward.click()
    await expect(presented.get_by_role("button", name="Pause", exact=True)).to_be_visible()
    await forward.click()
    assert await playhead(presented) == 2
    await offline.keyboard.press("End")
    await expect(console).to_contain_text("This is the last beat.")
    await expect(console).to_contain_text("There are no notes for this beat.")
    assert await forward.get_attribute("aria-description") == "This is the end."
    await offline.keyboard.press("Escape")
    await expect(console).to_be_hidden()
    await expect(presented).to_be_focused()


async def test_the_console_keeps_up_with_a_live_run(page: Page) -> None:
    """A run that had not begun has a beat without a caption, which may get one, and then others."""
    await bring_module(page)
    found = await page.evaluate(
        """() => {
          const run = {title: "", broker: "none", servers: [], items: [], end: 0};
          const view = mount(a, {runs: [run], live: true});
          view._do("presenter");
          const seen = [];
          const see = () => seen.push(a.querySelector(".presenter .cues").textContent);
          see();
          for (const [from, caption] of [[0, "Begin"], [1, "Go on"]]) {
            view.add({run: 0, from, items: [{type: "beat", s: from, caption}], end: from});
            view.seek(Infinity);
            see();
          }
          return seen;
        }"""
    )
    assert found == ["1 The run so far", "1 Begin", "1 Begin2 Go on"]


async def test_the_console_and_the_notes_take_turns(offline: Page, presented: Locator) -> None:
    """The console has the notes, too; its button opens and closes it, and says which."""
    console, notes = (presented.get_by_label(name, exact=True) for name in ("Presenter", "Notes"))
    await offline.keyboard.press("n")
    await expect(console).to_be_hidden()
    await expect(notes).to_be_visible()
    toggle = presented.get_by_role("button", name="Presenter’s console")
    for is_open in (True, False):
        await toggle.click()
        await expect(console).to_be_visible(visible=is_open)
        assert await toggle.get_attribute("aria-expanded") == str(is_open).lower()
        await expect(notes).to_be_hidden()


COUNT_TIMERS = """() => {
  window.timers = 0;
  const real = window.setTimeout;
  window.setTimeout = (...given) => { window.timers += 1; return real(...given); };
}"""


async def test_the_timer_runs_also_while_the_console_is_closed(
    offline: Page, presented: Locator
) -> None:
    """It starts, pauses, goes on over a reload, and says in a word when the time is over."""
    console = presented.get_by_label("Presenter", exact=True)
    clock = console.get_by_label("Timer", exact=True)
    forward = offline.clock.run_for
    await expect(clock).to_contain_text("00:0001:00 left of 01:00")

    async def press(name: str) -> None:
        await clock.get_by_role("button", name=name).click()

    await press("Start the timer")
    await forward(59_000)
    await expect(clock).to_contain_text("00:5900:01 left of 01:00")
    colour = "words => getComputedStyle(words).color"
    quiet = await clock.locator(".left").evaluate(colour)
    await forward(2_000)
    await expect(clock).to_contain_text("01:0100:01 over 01:00")
    assert await clock.locator(".left").evaluate(colour) != quiet
    await press("Pause the timer")
    await forward(60_000)
    await expect(clock).to_contain_text("01:01")
    await press("Start the timer")
    await offline.keyboard.press("p")
    await forward(10_000)
    await offline.keyboard.press("p")
    await expect(clock).to_contain_text("01:11")
    await offline.reload()
    await presented.press("p")
    await forward(4_000)
    await expect(clock).to_contain_text("01:15")
    await press("Reset the timer")
    await forward(3_000)
    await expect(clock).to_contain_text("00:0001:00 left of 01:00")


async def test_the_timer_asks_for_no_frames_and_leaves_nothing(page: Page) -> None:
    """It wakes once a second while it is seen to run, and never once its view is gone."""
    stage = Stage(await compare(scenarios.p1_moves_to_b, redis="fake"))
    await stop_time(page)
    await bring_module(page)
    await page.evaluate("([runs]) => { window.view = mount(a, {runs}); }", [stage.runs])
    stage.close()
    await page.locator(".wsdemo-stage").press("p")
    await page.get_by_role("button", name="Start the timer").click()
    await page.clock.run_for(1_000)  # what has opened comes to rest
    await page.evaluate(COUNT_TIMERS)
    await page.evaluate(
        """() => {
          window.asked = 0;
          const ask = window.requestAnimationFrame;
          window.requestAnimationFrame = (callback) => { asked += 1; return ask(callback); };
        }"""
    )
    await page.clock.run_for(10_000)
    assert await page.evaluate("[timers, asked]") == [10, 0]
    await page.locator(".wsdemo-stage").press("p")
    await page.clock.run_for(10_000)
    assert await page.evaluate("[timers, asked]") == [10, 0]
    await page.locator(".wsdemo-stage").press("p")
    await page.evaluate("view.destroy()")
    before = await page.evaluate("timers")
    await page.clock.run_for(10_000)
    assert await page.evaluate("[timers, asked]") == [before, 0]


async def covers_nothing(stage: Locator) -> None:
    """The console lies beside all panes or below them, and is no wider than the stage."""
    console = await stage.get_by_label("Presenter", exact=True).bounding_box()
    around = await stage.bounding_box()
    assert console
    assert around
    assert console["x"] >= around["x"]
    assert console["x"] + console["width"] <= around["x"] + around["width"]
    for pane in await stage.locator("[data-pane]").all():
        box = await pane.bounding_box()
        assert box
        beside = box["x"] + box["width"] <= console["x"]
        assert beside or box["y"] + box["height"] <= console["y"]


@pytest.mark.parametrize(("count", "words"), [(3, 1), (8, 3), (12, 60)])
async def test_the_console_fits_every_width_and_covers_nothing(
    chromium: Browser, tmp_path: Path, count: int, words: int
) -> None:
    """On a phone, in a window, and on a full screen, where all of it can be read from afar."""
    runs = await compare(beats(count, "Ask the room who hears P2. " * words), redis="fake")
    Stage(runs, minutes=5).save_html(tmp_path / "console.html")
    for width, height in ((360, 740), (960, 720), (1280, 720), (1920, 1080)):
        page = await chromium.new_page(viewport={"width": width, "height": height})
        stage = await opened(page, tmp_path / "console.html")
        await stage.press("p")
        await covers_nothing(stage)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await keep(page, f"console_{count}_{width}")
        await page.keyboard.press("f")
        await expect(stage).to_have_class(re.compile(r"\bfull\b"))
        await covers_nothing(stage)
        if width == 1920:
            await readable_from_the_back_row(stage)
        await keep(page, f"console_{count}_{width}_full")
        await page.close()


@pytest.mark.parametrize("players", [3, 8, 24])
async def test_the_console_is_readable_on_a_full_screen_with_any_panes(
    chromium: Browser, tmp_path: Path, players: int
) -> None:
    """With one to three panes, and with the inspector open, all is seen at 24 pixels or more."""

    runs = await compare(crowd(players), redis="fake")
    page = await chromium.new_page(viewport={"width": 1920, "height": 1080})
    for shown in (3, 2, 1):
        some = [runs["none"], runs["pubsub"], runs["pubsub"]][:shown]
        Stage({str(n): run for n, run in enumerate(some)}).save_html(tmp_path / "full.html")
        stage = await opened(page, tmp_path / "full.html")
        await stage.press("f")
        for key in ("p", "End", "i"):
            await page.keyboard.press(key)
            await page.evaluate(
                "() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
            )
            await readable_from_the_back_row(stage)
            await covers_nothing(stage)
        await keep(page, f"console_full_{shown}_panes_{players}")
    await page.close()


async def test_words_of_what_was_lost_cross_no_broker_and_stay_in_the_picture(page: Page) -> None:
    """Where there is no room beside the cylinder that stands for no broker, it gives way."""

    def loss(source: str, target: str, why: str) -> Any:
        ends = {"source": source, "target": target, "players": ["P2"], "cause": why}
        return {"type": "loss", "event": "e", "s0": 3, "s1": 4, "why": why, **ends}

    said = [
        {"type": "place", "s0": 0, "s1": 1, "player": "P1", "server": "A"},
        {"type": "place", "s0": 0, "s1": 1, "player": "P3", "server": "A"},
        {"type": "place", "s0": 1, "s1": 2, "player": "P2", "server": "B"},
        {"type": "said", "s": 3, "event": "e", "player": "P1", "body": "frozen redis"},
    ]
    run = {"title": "Run", "servers": ["A", "B"], "end": 4}
    none = {**run, "broker": "none", "items": [*said, loss("A", "B", "no way to {target}")]}
    frozen = loss("redis", "redis", "Redis does not answer")
    redis = {**run, "broker": "pubsub", "items": [*said, frozen]}
    for width, height in ((1024, 768), (1280, 720), (1280, 800), (1920, 1080)):
        await page.set_viewport_size({"width": width, "height": height})
        for full in (True, False):
            await bring_module(page)
            outside = await page.evaluate(
                """async ([runs, full]) => {
                  const view = mount(a, {runs});
                  view._do("end");
                  if (full) view._fill(true);
                  view._do("presenter");
                  await new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)));
                  const place = (one) => one.getBoundingClientRect();
                  const wrong = [];
                  for (const word of a.querySelectorAll(".loss")) {
                    const around = word.closest(".pane");
                    const { left, right, top, bottom } = word.getClientRects()[0];
                    const rim = 4; // of the words, in the colour of the paper
                    const pane = place(around);
                    if (left < pane.left || right > pane.right) wrong.push(word.textContent);
                    for (const one of around.querySelectorAll(".broker.none, .server")) {
                      const box = place(one);
                      if (getComputedStyle(one).visibility !== "visible") continue;
                      if (left + rim > box.right || right - rim < box.left) continue;
                      if (top + rim > box.bottom || bottom - rim < box.top) continue;
                      wrong.push([one.getAttribute("class"), word.textContent]);
                    }
                  }
                  return [a.querySelectorAll(".loss").length > 3, wrong];
                }""",
                [[none, redis], full],
            )
            await keep(page, f"lost_{width}_{full}")
            assert outside == [True, []], (width, height, full)


async def test_a_beat_s_name_fills_its_room_on_a_full_screen(
    chromium: Browser, tmp_path: Path
) -> None:
    """It is cut where the room ends, and not after the word that fits last."""
    run = {"type": "beat", "caption": "P1 disconnectsfromeverything"}
    trace = {"title": "Run", "broker": "none", "servers": ["A"], "end": 8}
    items = [{**run, "s": n} for n in range(8)]
    page = await chromium.new_page(viewport={"width": 1280, "height": 800})
    await bring_module(page)
    shares = await page.evaluate(
        """([run]) => {
          mount(a, {runs: [run]})._fill(true);
          return [...a.querySelectorAll(".beats span")].map(span => {
            const range = document.createRange();
            range.selectNodeContents(span);
            return range.getClientRects()[0].width / span.parentElement.parentElement.clientWidth;
          });
        }""",
        [{**trace, "items": items}],
    )
    assert len(shares) == 8
    assert min(shares) > 0.8
    await page.close()


ON_FULL_SCREEN = """async ([runs, acts]) => {
  const view = mount(a, {runs, acts, live: "player P1" in acts});
  view._end();
  view._fill(true);
  const settled = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  const seen = {};
  for (const open of ["", "presenter", "keys", "newest", "notes"]) {
    if (open) view._do(open);
    await settled();
    await settled();
    const { zoom, root } = view;
    const pictures = view.panes.map(({ picture }) => picture);
    const boxes = Math.min(...pictures.map((one) => one.querySelectorAll("[data-slot]").length));
    const scale = Math.min(...pictures.map((one) => one.getScreenCTM().a));
    seen[open] = [boxes, scale / zoom, root.scrollHeight <= root.clientHeight];
    if (open) view._do(open === "newest" ? "close" : open);
  }
  return seen;
}"""


@pytest.mark.parametrize("servers", [2, 4, 5])
@pytest.mark.parametrize("panes", [1, 2, 3])
async def test_on_a_full_screen_the_boxes_are_there_whatever_is_open(
    chromium: Browser, servers: int, panes: int
) -> None:
    """They are what a run is looked at for; where there is one pane, it has its controls."""
    names = list("ABCDE"[:servers])

    async def spoken(cluster: Cluster) -> None:
        async with cluster.step("One plays on each server", notes="Ask the room who hears P1."):
            await cluster.join(*(f"P{n + 1}" for n in range(servers + 1)))
        async with cluster.step("P1 speaks", notes="Who heard it?"):
            await cluster.player("P1").send("one")
            await cluster.player("P1").send("two")

    runs = await compare(spoken, ["none", "pubsub"], servers=names, redis="fake")
    some = [runs["none"], runs["pubsub"], runs["pubsub"]][:panes]
    stage = Stage({str(n): run for n, run in enumerate(some)})
    acts = [
        {"action": "reconnect", "label": f"Reconnect to {name}", "choice": name} for name in names
    ]
    page = await chromium.new_page()
    for width, height in ((1024, 768), (1280, 720), (1280, 800), (1920, 1080)):
        await page.set_viewport_size({"width": width, "height": height})
        await bring_module(page)
        seen = await page.evaluate(
            ON_FULL_SCREEN, [stage.runs, {"player P1": acts} if panes == 1 else {}]
        )
        await keep(page, f"boxes_{servers}_servers_{panes}_{width}")
        for what, (boxes, letters, fits) in seen.items():
            assert boxes == 2 * (servers + 1), (width, height, what)
            assert letters > (0.45 if panes == 3 else 0.6), (width, height, what)
            assert fits, (width, height, what)
    stage.close()
    await page.close()


async def test_what_is_open_on_a_full_screen_stands_where_the_picture_suffers_least(
    chromium: Browser, saved: Path
) -> None:
    """The inspector beside the panes and below them again, and the picture grows when it closes."""
    page = await chromium.new_page(viewport={"width": 1920, "height": 1080})
    stage = await opened(page, saved)
    await stage.press("End")
    await stage.press("f")
    picture = stage.locator("[data-pane] > svg").first
    before = await picture.bounding_box()
    inspector = stage.get_by_label("Inspector")
    for pane_count in (1, 2):
        await stage.press("i")
        box, pane = (
            await inspector.bounding_box(),
            await stage.locator("[data-pane]").first.bounding_box(),
        )
        assert box
        assert pane
        assert box["x"] >= pane["x"] + pane["width"], pane_count
        await stage.press("Escape")
        await stage.press("c")
    await stage.press("c")
    assert await picture.bounding_box() == before
    await page.close()


async def test_where_full_screen_is_refused_the_stage_fills_the_page(
    offline: Page, saved: Path
) -> None:
    """It lies over all else, says nothing in the console, and Escape leaves it."""
    await offline.add_init_script(NO_FULL_SCREEN)
    stage = await opened(offline, saved)
    await stage.focus()
    await offline.keyboard.press("f")
    assert await stage.bounding_box() == {"x": 0, "y": 0, "width": 1200, "height": 1000}
    await keep(offline, "fills_the_page")
    await offline.keyboard.press("Escape")
    await expect(stage).to_have_class("wsdemo-stage")
    await offline.keyboard.press("End")  # the focus is still there
    assert await playhead(stage) == 4


async def test_in_a_frame_higher_than_the_screen_full_is_a_screen_s_height(
    chromium: Browser, saved: Path, tmp_path: Path
) -> None:
    """As in VS Code, where all outputs are in one long frame: it grows where it is, and no more."""
    (tmp_path / "notebook.html").write_text(
        f"""<!doctype html><title>Long</title><iframe src="{saved.as_uri()}"
        style="width: 1300px; height: 5000px"></iframe>""",
        encoding="utf-8",
    )
    sizes: Any = {"width": 1400, "height": 1000}
    page = await chromium.new_page(viewport=sizes, screen=sizes)
    await page.add_init_script(NO_FULL_SCREEN)
    await page.goto((tmp_path / "notebook.html").as_uri())
    stage = page.frame_locator("iframe").locator(".wsdemo-stage")
    await stage.focus()
    before = await stage.bounding_box()
    await page.keyboard.press("f")
    await expect(stage).to_have_class("wsdemo-stage wide full in-place")
    box = await stage.bounding_box()
    assert box
    assert box["height"] == pytest.approx(800)
    assert await stage.evaluate("stage => stage.scrollHeight <= stage.clientHeight")
    assert float(await stage.evaluate("s => parseFloat(getComputedStyle(s).fontSize)")) < 20
    await keep(page, "in_a_long_frame")
    await page.keyboard.press("f")
    await expect(stage).to_have_class("wsdemo-stage wide")
    assert await stage.bounding_box() == before
    await page.close()


async def test_the_position_survives_a_reload(offline: Page, saved: Path) -> None:
    """A page that is loaded again shows the same moment."""
    stage = await opened(offline, saved)
    await stage.get_by_label("Playhead").fill("2.5")
    tokens = "stage => [...stage.querySelectorAll('[data-token]')].map(t => t.outerHTML)"
    shown = await stage.evaluate(tokens)
    assert shown
    await offline.reload()
    assert abs(await playhead(stage) - 2.5) < 0.01
    assert await stage.evaluate(tokens) == shown


async def test_a_stage_opens_with_what_is_to_be_looked_at(offline: Page, tmp_path: Path) -> None:
    """At the end of its beat, with the inspector on it; once, for a page remembers its place."""
    runs = await compare(scenarios.p1_moves_to_b, redis="fake")
    Stage(runs, look="P2-2").save_html(tmp_path / "look.html")
    stage = await opened(offline, tmp_path / "look.html")
    assert await playhead(stage) == 3
    assert await caption(stage) == "P2, still on A, says “hide”"
    inspector = stage.get_by_label("Inspector")
    await expect(inspector).to_contain_text("“hide” from P2 · Without a broker")
    await expect(inspector).to_contain_text("P1missed: no broker between servers")
    await expect(stage.locator("[data-pane=none] .light")).not_to_have_count(0)
    await keep(offline, "look")
    await stage.get_by_role("button", name="To the beginning").click()
    await offline.reload()
    await expect(inspector).to_be_hidden()
    assert await playhead(stage) == 0


async def test_a_live_stage_opens_with_an_event_and_passes_over_one_that_it_lacks(
    page: Page,
) -> None:
    """It does not follow then; without the event it does, as if nothing had been asked for."""
    stage = Stage(await compare(scenarios.p1_moves_to_b, ["none"], redis="fake"))
    await bring_module(page)
    found = await page.evaluate(
        """([runs]) => ["P2-2", "P9-9"].map((look) => {
          const { following, alignment, T, looking } = mount(a, {runs, live: true, look});
          return [following, alignment.beatAt(T), looking?.open];
        })""",
        [stage.runs],
    )
    stage.close()
    assert found == [[False, 2, "event P2-2"], [True, 3, None]]


async def test_a_live_stage_that_followed_goes_on_following_when_its_page_is_loaded_again(
    page: Page, tmp_path: Path
) -> None:
    """Whatever it was to open with: that it followed is remembered, too."""
    stage = Stage(await compare(scenarios.p1_moves_to_b, ["none"], redis="fake"))
    (tmp_path / "blank.html").touch()
    await page.goto((tmp_path / "blank.html").as_uri())  # where something can be kept
    await bring_module(page)
    found = await page.evaluate(
        """([runs]) => [0, 1].map(() => {
          const view = mount(a, {runs, live: true, key: "live", look: "P2-2"});
          const { following } = view;
          view.follow();
          view.seek(Infinity);
          view.follow();
          view.destroy();
          return following;
        })""",
        [stage.runs],
    )
    stage.close()
    assert found == [False, True]


async def test_steps_are_announced_and_playing_is_not(offline: Page, saved: Path) -> None:
    """One polite sentence for a beat that is stepped to, none while it plays."""
    stage = await opened(offline, saved)
    voice = stage.get_by_role("status")
    await stage.get_by_label("Speed").select_option("4")
    await stage.get_by_role("button", name="Play", exact=True).click()
    await expect(stage.locator(".caption")).to_contain_text("P1 drops", timeout=30_000)
    assert await voice.inner_text() == ""
    await stage.get_by_role("button", name="Pause").click()
    await stage.get_by_role("button", name="Beat 4").click()
    assert await voice.inner_text() == "Beat 4 of 4: P3, still on A, says “fire”"
    assert await voice.get_attribute("aria-live") == "polite"


async def test_where_motion_is_not_wanted_nothing_moves_by_itself(
    chromium: Browser, saved: Path
) -> None:
    """With prefers-reduced-motion, Play steps to the end of a beat and asks for no frames."""
    context = await chromium.new_context(reduced_motion="reduce")
    page = await context.new_page()
    await count_frames(page)
    stage = await opened(page, saved)
    await stage.get_by_role("button", name="Play", exact=True).click()
    assert await playhead(stage) == 1
    assert await still(page)
    await context.close()


async def violations_of_the_stage(page: Page) -> list[tuple[str, str]]:
    """What axe-core finds, but for what only whole pages have to have."""
    return await violations(page, without=RULES_OF_PAGES)


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_violation_of_wcag(chromium: Browser, saved: Path, scheme: Any) -> None:
    """axe-core finds nothing of WCAG 2.2 A and AA, at rest, on the way, and with all open."""
    # The page's own policy would keep axe-core out; everything else is as saved.
    context = await chromium.new_context(color_scheme=scheme, bypass_csp=True)
    page = await context.new_page()
    stage = await opened(page, saved)
    for position in ("0", "2.7", "4"):
        await stage.get_by_label("Playhead").fill(position)
        if position == "4":
            for key in ("i", "n", "?"):
                await stage.focus()
                await page.keyboard.press(key)
        assert await violations_of_the_stage(page) == []
        await keep(page, f"{scheme}_{position}")
    await page.keyboard.press("p")
    for width in (1280, 360):
        await page.set_viewport_size({"width": width, "height": 720})
        assert await violations_of_the_stage(page) == []
    await context.close()


LIVE = """([runs]) => {
  const acts = {"player P1": [
    {action: "send", label: "Send", why: "P1 is away: reconnect it first."},
    {action: "disconnect", label: "Disconnect", why: ""},
  ]};
  const view = mount(a, {runs, live: true, acts});
  view.controls.buttons.children[0].click();
}"""


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("players", [3, 20, 40])
async def test_no_violation_of_wcag_with_more_players_or_live(
    chromium: Browser, players: int, scheme: Any
) -> None:
    """Nor with many players, with buttons to act and one that cannot, nor in full screen."""

    async def many(cluster: Cluster) -> None:
        async with cluster.step("All play on A"):
            names = [f"P{n + 1}" for n in range(players)]
            p1, p2, *_ = await cluster.join(*names, server="A")
        async with cluster.step("P1 moves, B freezes, and P2 speaks"):
            await p1.reconnect(server="B")
            await cluster.freeze_server("B")
            await p2.send("hide")

    stage = Stage(await compare(many, ["pubsub"], redis="fake"))
    context = await chromium.new_context(color_scheme=scheme)
    page = await context.new_page()
    await bring_module(page)
    await page.evaluate(LIVE, [stage.runs])
    stage.close()
    await expect(page.locator(".problem")).to_be_visible()
    assert await violations_of_the_stage(page) == []
    await page.locator(".wsdemo-stage").press("f")
    await page.keyboard.press("i")
    assert await violations_of_the_stage(page) == []
    assert await page.evaluate("a.firstChild.scrollHeight <= a.firstChild.clientHeight")
    await keep(page, f"{scheme}_{players}_players_live")
    await context.close()


@pytest.mark.parametrize("width", [360, 960, 1600])
async def test_it_fits_every_width(chromium: Browser, saved: Path, width: int) -> None:
    """Nothing is cut off at the side, and panes stand side by side where there is room."""
    page = await chromium.new_page(viewport={"width": width, "height": 900})
    stage = await opened(page, saved)
    await stage.get_by_role("button", name="To the end").click()
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [await pane.bounding_box() for pane in await stage.locator("[data-pane]").all()]
    assert (boxes[0]["y"] == boxes[1]["y"]) == (width > 800)  # type: ignore[index]
    await keep(page, f"{width}")
    await page.close()


@pytest.mark.parametrize("names", [False, True])
async def test_hostile_names_and_bodies_are_text(
    offline: Page, tmp_path: Path, names: bool
) -> None:
    """Markup, direction marks and 10,000 characters are shown as short text and run nothing."""
    # No server takes such names, but a file may hold them.
    source = hostile_trace() if names else await compare(hostile, ["none"], redis="fake")
    Stage(source).save_html(tmp_path / "hostile.html")
    stage = await opened(offline, tmp_path / "hostile.html")
    await stage.get_by_role("button", name="To the end").click()
    await stage.focus()
    for key in ("n", "p", "i"):
        await offline.keyboard.press(key)
    await expect(stage.get_by_label("Inspector")).to_be_visible()
    await expect(stage.get_by_label("Presenter", exact=True)).to_be_visible()
    assert await offline.evaluate("window.broken") is None
    assert await stage.locator("img, b:not([class]):not(pre b)").count() == 0
    assert "\u202e" not in await stage.inner_text()
    assert await offline.evaluate("document.documentElement.scrollWidth") <= 1200
    assert len(max((await stage.inner_text()).split("\n"), key=len)) < 2_500
    await keep(offline, f"hostile_{'names' if names else 'bodies'}")


TWO_VIEWS = """async ([runs]) => {
  const listeners = new Map();
  const model = {
    get: (name) => ({runs, live: false, key: "", problem: "", acts: {}})[name],
    on: (name, callback) => listeners.set(name, [...(listeners.get(name) ?? []), callback]),
    off: (name, callback) =>
      listeners.set(name, listeners.get(name).filter((one) => one !== callback)),
    send() {},
  };
  const ends = ["a", "b"].map((id) => widget.render({model, el: document.getElementById(id)}));
  const [first, second] = document.querySelectorAll(".wsdemo-stage");
  second.querySelector("[data-action=end]").click();
  first.querySelector("[data-action=play]").click();
  const places = () => [first, second].map((one) => Number(one.querySelector(".scrubber").value));
  for (let frames = 0; frames < 100 && !places()[0]; frames += 1) await frame();
  const at = places();
  const heard = () => [...listeners.values()].flat().length;
  const listening = heard();
  ends.forEach((end) => end());
  const { asked } = window;
  await frame();
  await frame();
  const stages = document.querySelectorAll(".wsdemo-stage").length;
  return {at, listening, left: heard(), frames: window.asked - asked, stages};
}"""


async def test_two_views_of_one_model_play_on_their_own_and_leave_nothing(page: Page) -> None:
    """Each view has its playhead; a view that is removed leaves no frame and no listener."""
    stage = Stage(await compare(scenarios.p1_moves_to_b, redis="fake"))
    await count_frames(page)
    await page.goto("about:blank")
    await bring_module(page)
    found = await page.evaluate(TWO_VIEWS, [stage.runs])
    stage.close()
    assert 0 < found["at"][0] < 1
    assert found["at"][1] == 4
    assert found["listening"] > 0
    assert (found["left"], found["frames"], found["stages"]) == (0, 0, 0)


ACT = """async ([runs]) => {
  const sent = [];
  const acts = {"player P1": [
    {action: "disconnect", label: "Disconnect", why: ""},
    {action: "send", label: "Send", why: "P1 is away: reconnect it first."},
  ]};
  const view = mount(document.getElementById("a"), {runs, live: true, acts}, (m) => sent.push(m));
  const [disconnect, send] = view.controls.buttons.children;
  const words = () => (view.voice.matches(".problem") ? view.voice.textContent : "");
  const heard = [];
  disconnect.click();
  heard.push(disconnect.getAttribute("aria-description"));
  view.answer({type: "failed", id: sent.at(-1).id, text: "It did not work."});
  heard.push(words(), disconnect.getAttribute("aria-description"));
  send.click();
  heard.push(words());
  disconnect.click();
  view._losePatience();
  heard.push(words(), disconnect.getAttribute("aria-description"));
  view.destroy();
  return {heard, sent: sent.map(({part, action}) => `${part} ${action}`)};
}"""


async def test_a_kernel_that_cannot_even_be_written_to_is_said_on_the_stage(page: Page) -> None:
    """As after its restart: the page's own send raises, and what was written is still there."""
    stage = Stage(await compare(scenarios.p1_moves_to_b, ["none"], redis="fake"))
    await bring_module(page)
    found = await page.evaluate(
        """([runs]) => {
          const acts = {"player P1": [{action: "send", label: "Send"}]};
          const send = () => { throw new Error("Cannot send"); };
          const view = mount(a, {runs, live: true, acts}, send);
          view.controls.body.value = "jump";
          view._drawControls();
          view.controls.buttons.querySelector("button").click();
          const said = [view.voice.textContent, view.controls.body.value, view.busy];
          view.destroy();
          return said;
        }""",
        [stage.runs],
    )
    stage.close()
    assert found == [
        "The kernel has not answered yet: it is busy with a cell, or gone.",
        "jump",
        None,
    ]


async def test_a_new_run_is_followed_though_the_last_one_was_looked_back_at(
    page: Page, tmp_path: Path
) -> None:
    """Also if it begins while the view is still on its way from there to what is now."""
    stage = Stage(await compare(scenarios.p1_moves_to_b, ["none"], redis="fake"))
    (tmp_path / "blank.html").touch()
    await page.goto((tmp_path / "blank.html").as_uri())  # where something can be kept
    await bring_module(page)
    found = await page.evaluate(
        """([runs]) => {
          const view = mount(a, {runs, live: true, key: "anew"});
          view.pause();
          view.seek(0);
          view.follow();
          view.replace({runs, live: true, key: "anew"});
          const said = [view.following, view.T === view.alignment.length];
          view.destroy();
          return said;
        }""",
        [stage.runs],
    )
    stage.close()
    assert found == [True, True]


async def test_a_beat_that_is_played_ends_in_itself(page: Page) -> None:
    """However little is left of it when a frame comes: the caption is still its own."""
    stage = Stage(await compare(scenarios.p1_moves_to_b, ["none"], redis="fake"))
    await bring_module(page)
    found = await page.evaluate(
        """([runs]) => {
          const view = mount(a, {runs});
          const { begin, end } = view.alignment.beats[1];
          view.play(end);
          view.T = begin;
          view._advance(end - begin - 1e-9, 1);
          const said = [view.T === end, view.moving, view.alignment.beatAt(view.T)];
          view.destroy();
          return said;
        }""",
        [stage.runs],
    )
    stage.close()
    assert found == [True, False, 1]


async def test_an_action_that_fails_or_cannot_act_says_so_on_the_stage(page: Page) -> None:
    """In words that are seen; and a kernel that is gone does not hold up the controls."""
    stage = Stage(await compare(scenarios.p1_moves_to_b, ["none"], redis="fake"))
    await bring_module(page)
    found = await page.evaluate(ACT, [stage.runs])
    stage.close()
    assert found["heard"] == [
        "Waiting for P1: Disconnect.",
        "It did not work.",
        None,
        "P1 is away: reconnect it first.",
        "The kernel has not answered yet: it is busy with a cell, or gone.",
        None,
    ]
    assert found["sent"] == ["player P1 disconnect"] * 2


async def test_a_kernel_that_has_news_is_waited_for(page: Page) -> None:
    """But not for ever: news may be of something else, such as a cell that runs."""
    stage = Stage(await compare(scenarios.p1_moves_to_b, ["none"], redis="fake"))
    await page.clock.install()
    await bring_module(page)
    acts = {"player P1": [{"action": "disconnect", "label": "Disconnect"}]}
    await page.evaluate(
        "([runs, acts]) => { window.view = mount(a, {runs, live: true, acts}); }",
        [stage.runs, acts],
    )
    stage.close()
    await page.get_by_role("button", name="Disconnect").click()
    answer = page.get_by_role("status")
    for waited in (6_000, 12_000, 18_000, 24_000, 30_000, 36_000):
        await page.clock.fast_forward(6_000)
        await page.evaluate(
            "() => { const [film] = view.films;"
            " view.add({run: 0, from: film.had, items: [], end: film.end}); }"
        )
        assert "has not answered" not in await answer.inner_text(), waited
    await page.clock.fast_forward(1_500)
    await expect(answer).to_contain_text("The kernel has not answered yet")


async def test_what_a_control_answers_is_seen_right_under_the_controls(page: Page) -> None:
    """Where one looks, in a notebook of little height too; and it is the page's one live region."""
    stage = Stage(await compare(scenarios.p1_moves_to_b, ["none"], redis="fake"))
    await page.set_viewport_size({"width": 1280, "height": 680})
    await bring_module(page)
    acts = {"player P1": [{"action": "reconnect", "label": "Back", "why": "P1 is on B already."}]}
    more = [{"action": "disconnect", "label": "Disconnect"}]
    await page.evaluate(
        "([runs, acts]) => { window.view = mount(a, {runs, live: true, acts}); }",
        [stage.runs, {**acts, "player P2": more}],
    )
    stage.close()
    at = page.locator(".wsdemo-stage")
    await at.get_by_role("button", name="Back", exact=True).click(force=True)
    answer = at.get_by_role("status")
    await page.evaluate("view.controls.part.value = 'player P2'; view._drawControls()")
    await at.get_by_role("button", name="Disconnect").click()
    await page.evaluate("view._losePatience()")
    await expect(answer).to_contain_text("The kernel has not answered yet")
    await expect(answer).to_be_in_viewport()
    controls, box, transport = [
        await at.locator(each).bounding_box() for each in (".controls", ".voice", ".transport")
    ]
    assert controls
    assert box
    assert transport
    assert controls["y"] + controls["height"] < box["y"] < transport["y"] - box["height"]
    assert await at.locator("[role=alert], [role=status], [aria-live]").count() == 1


ENDED_RUN = """([runs, ended]) => {
  const offer = (why) => ({"player P1": [{action: "disconnect", label: "Disconnect", why}],
    "server A": [{action: "kill", label: "Kill", why}, {action: "thaw", label: "Thaw", why}]});
  const view = mount(a, {runs, live: true, acts: offer("")});
  const live = a.querySelector("[data-action=live]");
  const seen = () => [...a.querySelectorAll(".refused, .problem")]
    .filter(one => one.checkVisibility() && one.textContent).map(one => one.textContent);
  const told = [];
  const tell = () =>
    told.push([seen(), view.voice.textContent, live.textContent, live.ariaPressed]);
  tell();
  view.allow(offer(ended));
  tell();
  view.controls.buttons.children[0].click();
  tell();
  view.allow({...offer(""), "server A": offer(ended)["server A"]});
  tell();
  view.destroy();
  return told;
}"""


async def test_a_run_that_has_ended_says_so_before_a_button_is_pressed(page: Page) -> None:
    """Once, at the controls, for the chosen part; and it is not called live any more."""
    stage = Stage(await compare(scenarios.p1_moves_to_b, ["none"], redis="fake"))
    await bring_module(page)
    found = await page.evaluate(ENDED_RUN, [stage.runs, ENDED])
    stage.close()
    assert found == [
        [[], "", "Live", "true"],
        [[ENDED], ENDED, "Ended", "false"],
        [[ENDED], ENDED, "Ended", "false"],
        [[], ENDED, "Live", "true"],
    ]


async def test_what_was_done_is_said_once(page: Page) -> None:
    """An action says its beat, or what the kernel tells of it; other buttons what they show."""
    stage = Stage(await compare(scenarios.p1_moves_to_b, redis="fake"))
    await bring_module(page)
    found = await page.evaluate(
        """async ([runs]) => {
          const acts = {"player P1": [{action: "disconnect", label: "Disconnect"}]};
          const view = mount(a, {runs, live: true, acts});
          const said = [];
          new MutationObserver(() => view.voice.textContent && said.push(view.voice.textContent))
            .observe(view.voice, {childList: true});
          const quiet = () => new Promise(done => setTimeout(done));
          for (const text of ["", "The cluster was started anew."]) {
            view.controls.buttons.children[0].click();
            await quiet();
            view.answer({type: "done", id: view.actions, text});
            await quiet();
          }
          for (const action of ["faster", "panes", "panes", "panes", "notes", "notes", "live"]) {
            view._do(action);
            await quiet();
          }
          view.destroy();
          return said;
        }""",
        [stage.runs],
    )
    notes = stage.runs[0]["items"]
    stage.close()
    last = [item["notes"] for item in notes if item["type"] == "beat"][-1]
    end = "Beat 4 of 4: P3, still on A, says “fire”"
    panes = ["Without a broker", "With Redis Pub/Sub", "All runs"]
    closed = "The notes are closed."
    assert found == [
        end, "The cluster was started anew.", "Speed 2×", *panes, last, closed, end
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"wsdemo_trace":99,"about":{},"records":0}\n', "a later wsdemo"),
        (b'{"wsdemo_trace":1,"about":{},"records":3}\n{"n":0,"t":', "cut short"),
        (b"no trace at all\n", "not the header"),
        (b"", "cut short"),
    ],
)
async def test_what_cannot_be_shown_is_a_sentence(
    offline: Page, tmp_path: Path, content: bytes, says: str
) -> None:
    """A trace of a later version, a truncated or empty file: a sentence, never an empty box."""
    (tmp_path / "run.jsonl").write_bytes(content)
    Stage(tmp_path / "run.jsonl").save_html(tmp_path / "run.html")
    await offline.goto((tmp_path / "run.html").as_uri())
    await expect(offline.locator(".caption")).to_contain_text(says)


async def test_an_empty_trace_is_a_sentence(offline: Page, tmp_path: Path) -> None:
    """A run in which nothing happened is shown as one."""
    save_traces(tmp_path / "run.jsonl", [Trace(broker="none", servers=["A"])])
    Stage(tmp_path / "run.jsonl").save_html(tmp_path / "run.html")
    stage = await opened(offline, tmp_path / "run.html")
    assert await caption(stage) == "Nothing happened in this run."


async def test_a_page_that_was_cut_short_says_so(offline: Page, saved: Path) -> None:
    """Cut in what it tells of the runs, the page says what to do; cut earlier, it says so too."""
    text = saved.read_text(encoding="utf-8")
    for end in (len(text) - 500, text.index("<script") + 2_000):
        (saved.parent / "cut.html").write_text(text[:end], encoding="utf-8")
        await offline.goto((saved.parent / "cut.html").as_uri())
        await expect(offline.locator("#stage")).to_contain_text("incomplete")


async def test_shift_and_enter_are_the_notebook_s(offline: Page, presented: Locator) -> None:
    """With the focus on a button too: it runs the cell, where other keys act on the stage alone."""
    await offline.evaluate(
        "() => { window.keys = []; document.addEventListener('keydown', e => keys.push(e.key)); }"
    )
    await presented.get_by_role("button", name="Play", exact=True).focus()
    for key in ("d", "Shift+Enter"):
        await offline.keyboard.press(key)
    assert await offline.evaluate("keys.filter(key => key !== 'Shift')") == ["Enter"]
