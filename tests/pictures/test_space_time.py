"""The space-time diagram: everything that happened is in it, and it can be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.quiver import Quiver
from matplotlib.text import Text

from wsdemo import compare, faults, ledger, open_cluster, scenarios, timeline
from wsdemo.cluster import Cluster
from wsdemo.ledger import Ledger
from wsdemo.pictures.signs import LOST, MISSED
from wsdemo.pictures.space_time import Timeline
from wsdemo.scenarios import Scenario
from wsdemo.story import Beat, Hop, Loss, tell
from wsdemo.trace import Trace


async def played(scenario: Scenario, broker: str = "pubsub", servers: str = "AB") -> Trace:
    """The trace of a scenario with one broker."""
    async with open_cluster(servers=list(servers), broker=broker, redis="fake") as cluster:
        await scenario(cluster)
        await cluster.settle()
    return cluster.trace


async def rolling_restart(cluster: Cluster) -> None:
    """Four players on four servers, of which each is killed and restarted, as in a lesson."""
    async with cluster.step("P1 to P4 are on A to D; P1 says “jump”"):
        p1, *_ = await cluster.join("P1", "P2", "P3", "P4")
        await p1.send("jump")
    for name in "ABCD":
        async with cluster.step(f"{name} is restarted"):
            await cluster.kill_server(name)
            await cluster.settle()
            await cluster.restart_server(name)


async def p1_moves_and_talks(cluster: Cluster) -> None:
    """Losses both ways between two servers, one close to the other, as in a lesson."""
    async with cluster.step("P1, P2 and P3 play on server A"):
        p1, p2, p3 = await cluster.join("P1", "P2", "P3", server="A")
        await p2.send("jump")
    async with cluster.step("P1 drops, and the balancer puts it on server B"):
        await p1.reconnect(server="B")
    async with cluster.step("P2 and P3, on A, say “hide” and “fire”"):
        await p2.send("hide")
        await p3.send("fire")
    async with cluster.step("P1, on B, says “hello?”"):
        await p1.send("hello?")


async def quick_talk(cluster: Cluster) -> None:
    """Two players on two servers say things one right after the other, and miss the other's."""
    p1, p2 = await cluster.join("P1", "P2")
    for number in range(8):
        await p1.send(f"word {number}")
    await p2.send("jump")
    await p2.send("hide")


def is_marked(line: Line2D, style: dict[str, object]) -> bool:
    """Whether this is a sign of that kind."""
    return line.get_marker() == style["marker"]


def lines_of(ax: Axes, name: str) -> list[Line2D]:
    """What is drawn of a part's line, from left to right."""
    labels = [label.get_text().split(" on ")[0] for label in ax.get_yticklabels()]
    y = labels.index(name)
    lines = [line for line in ax.lines if np.array_equal(line.get_ydata(), [y, y])]
    return sorted(lines, key=lambda line: np.asarray(line.get_xdata(), float)[0])


def starts_of(ax: Axes, name: str) -> list[float]:
    """Where each piece of a part's line begins."""
    return [np.asarray(line.get_xdata(), float)[0] for line in lines_of(ax, name)]


def looks_of(ax: Axes, name: str) -> list[str]:
    """Whether a part's line is solid ("-") or dotted (":") from left to right."""
    return ["-" if line.get_linestyle() == "-" else ":" for line in lines_of(ax, name)]


def words_in(ax: Axes) -> list[str]:
    """All words among the lines."""
    return [text.get_text() for text in ax.texts]


def legend_of(figure: Timeline) -> list[str]:
    """The words of the legend."""
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


async def test_one_pair_of_axes_for_each_run_with_a_line_for_each_part() -> None:
    """Two runs, two diagrams: players and servers in both, Redis only where there is one."""
    figure = timeline(await compare(scenarios.p1_moves_to_b))
    names = [[label.get_text() for label in ax.get_yticklabels()] for ax in figure.axes]
    parts = ["P1", "P2", "P3", "server A", "server B"]
    assert names == [parts, [*parts, "Redis"]]
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "Without a broker",
        "With Redis Pub/Sub",
    ]


async def test_an_arrow_for_each_hop_and_a_sign_for_each_loss_and_each_miss() -> None:
    """There are as many arrows as hops, crosses as losses, and empty places as misses."""
    runs = await compare(scenarios.p1_moves_to_b)
    for ax, run in zip(timeline(runs).axes, runs.values(), strict=True):
        items = tell(run.trace).items
        (arrows,) = (each for each in ax.collections if isinstance(each, Quiver))
        assert sum(isinstance(item, Hop) for item in items) == arrows.N
        losses = sum(isinstance(item, Loss) for item in items)
        assert sum(is_marked(line, LOST) for line in ax.lines) == losses
        assert sum(is_marked(line, MISSED) for line in ax.lines) == ledger(run.trace).missed


async def test_a_box_of_what_is_missed_hides_no_arrow() -> None:
    """What a player hears in that very moment can be seen beside it."""
    figure = timeline(await compare(both_speak_at_once, ["none"]))
    (ax,) = figure.axes
    (arrows,) = (each for each in ax.collections if isinstance(each, Quiver))
    ends = np.column_stack([arrows.X, arrows.Y]) + np.column_stack([arrows.U, arrows.V])
    boxes = [np.asarray(line.get_xydata()) for line in ax.lines if is_marked(line, MISSED)]
    assert len(boxes) == 2
    for box in ax.transData.transform(np.concatenate(boxes)):
        distances = np.abs(ax.transData.transform(ends) - box).max(axis=1)
        assert distances.min() > 0.15 * figure.dpi  # in inches


async def both_speak_at_once(cluster: Cluster) -> None:
    """On two servers, without a broker: each hears itself while it misses the other."""
    async with cluster.step("They come"):
        p1, p2 = await cluster.join("P1", "P2")
    async with cluster.step("Both speak"):
        await p1.send("hide")
        await p2.send("seek")


async def test_every_arrow_points_to_what_comes_later() -> None:
    """Time goes to the right on every arrow, also where a beat of another run is longer."""
    for ax in timeline(await compare(scenarios.p1_moves_to_b)).axes:
        (arrows,) = (each for each in ax.collections if isinstance(each, Quiver))
        assert np.asarray(arrows.U, float).tolist() == pytest.approx([1] * arrows.N)


async def test_words_are_text_and_not_formulas() -> None:
    """What a player says is drawn as it is, dollar signs and markup and all."""
    async with open_cluster() as cluster:
        (p1,) = await cluster.join("P1")
        await p1.send("$\\frac{1}{0}$ <b>$")
        await p1.send("x" * 10_000)
        await p1.send("\x1b[31m\u202e")
        await cluster.settle()
        assert timeline(cluster)._repr_png_().startswith(b"\x89PNG")


async def test_a_figure_that_can_be_saved(tmp_path: Path) -> None:
    """It is a matplotlib figure: it can be saved in any format, and says in words what it shows."""
    figure = timeline(await compare(scenarios.p1_moves_to_b, ["none"]))
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "p1.pdf")
    assert repr(figure).splitlines() == [
        "Space-time diagram",
        "Without a broker: heard 10 · missed 2 · twice 0",
        "P1 missed “hide”, “fire”: no broker between servers",
        "Beat 1: P1, P2 and P3 play on server A",
        "Beat 2: P1 drops, and the balancer puts it on server B",
        "Beat 3: P2, still on A, says “hide”",
        "Beat 4: P3, still on A, says “fire”",
    ]


@pytest.mark.parametrize("broker", ["none", "pubsub"])
def test_an_empty_trace_is_an_empty_diagram(broker: str) -> None:
    """A run in which nothing has happened yet can be drawn."""
    trace = Trace(broker=broker, servers=["A"])
    assert timeline(trace)._repr_png_().startswith(b"\x89PNG")


async def test_runs_with_different_numbers_of_beats_can_be_drawn() -> None:
    """A run that ends sooner is drawn as far as it goes."""

    async def longer_with_a_broker(cluster: Cluster) -> None:
        async with cluster.step("once"):
            (p1,) = await cluster.join("P1")
        if cluster.broker == "pubsub":
            async with cluster.step("and again"):
                await p1.send("again")

    assert timeline(await compare(longer_with_a_broker))._repr_png_().startswith(b"\x89PNG")


async def test_the_line_of_a_dead_server_is_broken_until_it_is_back() -> None:
    """A server that was killed is not drawn as one that runs, and words say what happened."""

    async def play(cluster: Cluster) -> None:
        await cluster.join("P1", "P2", server="B")
        async with faults.server_killed(cluster, "A"):
            await cluster.settle()

    (ax,) = timeline(await played(play, "none")).axes
    assert looks_of(ax, "server A") == ["-", ":", "-"]
    assert looks_of(ax, "server B") == ["-"]
    assert {"killed", "back"} <= set(words_in(ax))


async def test_the_line_of_redis_is_broken_while_it_is_stopped() -> None:
    """And so are the lines of the subscriptions, which end with it."""
    figure = timeline(await played(scenarios.three_outages))
    assert [look for ax in figure.axes for look in looks_of(ax, "Redis")].count(":") == 1
    assert {"stopped", "back"} <= {word for ax in figure.axes for word in words_in(ax)}


async def test_what_is_frozen_does_not_look_dead() -> None:
    """A frozen part has a sign of its own, and other words."""

    async def play(cluster: Cluster) -> None:
        (p1,) = await cluster.join("P1", server="A")
        async with faults.server_frozen(cluster, "A"):
            await p1.send("jump")
        await cluster.settle()

    figure = timeline(await played(play, "none"))
    assert {"frozen", "thawed"} <= set(words_in(figure.axes[0]))
    assert "frozen" in legend_of(figure)
    assert "down" not in " ".join(legend_of(figure))


def test_a_server_is_not_drawn_before_it_is_added() -> None:
    """The line of one that was not there at first begins where it was added."""
    trace = Trace(broker="none", servers=["A", "B"])
    trace.append("step", "scenario", caption="Begin")
    trace.append("join", "A", "P1")
    trace.append("start", "B")
    trace.append("settle", "scenario")
    (ax,) = timeline(trace).axes
    assert starts_of(ax, "server B")[0] > starts_of(ax, "server A")[0] + 0.5
    assert "added" in words_in(ax)


async def test_a_player_s_line_is_broken_while_it_is_away() -> None:
    """Solid on a server, dotted while away, nothing while it is on its way, or has left."""

    async def play(cluster: Cluster) -> None:
        p1, p2 = await cluster.join("P1", "P2", server="A")
        await p1.disconnect()
        await p2.leave()
        await cluster.settle()
        await p1.reconnect(server="B")
        await cluster.join("P2", server="B")

    figure = timeline(await played(play, "none"))
    assert looks_of(figure.axes[0], "P1") == ["-", ":", "-"]
    assert looks_of(figure.axes[0], "P2") == ["-", "-"]
    assert "away" in legend_of(figure)


async def test_the_legend_lists_what_occurs_and_nothing_else() -> None:
    """A run without a channel has no sign of one, and one without a loss none of that."""
    runs = await compare(scenarios.p1_moves_to_b)
    both = ["a message is said", "arrives", "away"]
    lost, channel = ["is lost", "is missed"], ["subscribed to the channel"]
    assert set(legend_of(timeline(runs["none"]))) == {*both, *lost}
    assert set(legend_of(timeline(runs["pubsub"]))) == {*both, *channel}
    assert set(legend_of(timeline(runs))) == {*both, *lost, *channel}
    restarts = legend_of(timeline(await played(rolling_restart, servers="ABCD")))
    assert {"subscription ends", "away or down"} <= set(restarts)
    assert not set(lost) & set(restarts)


async def test_no_two_signs_have_the_same_form() -> None:
    """Without its colour, each sign of a picture can still be told from each other one."""
    figure = timeline(await played(scenarios.three_outages))
    (legend,) = figure.legends
    forms = [
        (str(line.get_marker()), line.get_linestyle(), line.get_linewidth(), line.get_fillstyle())
        for line in legend.legend_handles
        if isinstance(line, Line2D)
    ]
    assert len(forms) >= 6
    assert len(set(forms)) == len(forms)


async def test_a_player_looks_the_same_in_every_run() -> None:
    """Whoever comes first in one run and second in the other keeps colour and shape."""
    first, second = (Trace(broker=broker, servers=["A"]) for broker in ("none", "pubsub"))
    for trace, players in ((first, ["P1", "P2"]), (second, ["P2", "P1"])):
        for player in players:
            trace.append("join", "A", player)
        trace.append("settle", "scenario")
    axes = timeline({"none": first, "pubsub": second}).axes
    colours = [[lines_of(ax, name)[0].get_color() for ax in axes] for name in ("P1", "P2")]
    assert colours[0] == [colours[0][0]] * 2
    assert colours[1] == [colours[1][0]] * 2
    assert colours[0] != colours[1]


async def test_a_long_run_goes_on_in_another_row() -> None:
    """It gets no wider than a short one, and what happens, and each caption, is in it once."""
    trace = await played(scenarios.three_outages)
    figure, short = timeline(trace), timeline(await played(scenarios.p1_moves_to_b))
    assert figure.get_figwidth() == pytest.approx(short.get_figwidth())
    assert len(figure.axes) == 2
    items = tell(trace).items
    arrows = [each for ax in figure.axes for each in ax.collections if isinstance(each, Quiver)]
    assert sum(each.N for each in arrows) == sum(isinstance(item, Hop) for item in items)
    words = [word.replace("\n", " ") for ax in figure.axes for word in words_in(ax)]
    for beat in (item for item in items if isinstance(item, Beat)):
        assert words.count(beat.caption) == 1
    missed = [line for ax in figure.axes for line in ax.lines if is_marked(line, MISSED)]
    found = ledger(trace)
    assert isinstance(found, Ledger)
    assert len(missed) == found.missed


@pytest.mark.parametrize(
    ("scenario", "broker", "servers"),
    [
        (scenarios.p1_moves_to_b, "none", "AB"),
        (scenarios.p1_is_away, "pubsub", "AB"),
        (scenarios.p1_forgets, "stream", "AB"),
        (scenarios.three_outages, "pubsub", "AB"),
        (scenarios.crash, "stream", "AB"),
        (p1_moves_and_talks, "none", "AB"),
        (rolling_restart, "pubsub", "ABCD"),
        (quick_talk, "none", "AB"),
    ],
    ids=lambda each: getattr(each, "__name__", each),
)
async def test_words_cover_no_words_and_no_losses(
    scenario: Scenario, broker: str, servers: str
) -> None:
    """Captions, names, what is said and why something is lost have room beside each other."""
    figure = timeline(await played(scenario, broker, servers))
    figure.draw_without_rendering()
    for ax in figure.axes:
        texts = [each for each in ax.findobj() if isinstance(each, Text) and each.get_visible()]
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
        for n, (words, box) in enumerate(boxes):
            for others, other in boxes[n + 1 :]:
                assert not box.overlaps(other), (words, others)
        for line in ax.lines:
            if is_marked(line, LOST) or is_marked(line, MISSED):
                (sign,) = ax.transData.transform(line.get_xydata())
                assert not [words for words, box in boxes if box.contains(*sign)]
