"""The space-time diagram: everything that happened is in it, and it can be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from wsdemo import compare, ledger, open_cluster, scenarios, timeline
from wsdemo.cluster import Cluster
from wsdemo.story import Hop, Loss, tell
from wsdemo.trace import Trace


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


async def test_an_arrow_for_each_hop_and_crosses_for_each_loss() -> None:
    """There are as many arrows as hops, and a cross where each message was lost and missed."""
    runs = await compare(scenarios.p1_moves_to_b)
    for ax, run in zip(timeline(runs).axes, runs.values(), strict=True):
        items = tell(run.trace).items
        (arrows,) = (each for each in ax.collections if isinstance(each, Quiver))
        assert sum(isinstance(item, Hop) for item in items) == arrows.N
        crosses = [line for line in ax.lines if line.get_marker() == "X"]
        losses = sum(isinstance(item, Loss) for item in items)
        assert len(crosses) == losses + ledger(run.trace).missed


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
    assert repr(figure) == ("Space-time diagram\nWithout a broker: heard 10 · missed 2 · twice 0")


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
