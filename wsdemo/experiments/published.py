"""What others have published of large systems, beside what the capacity model makes of them.

Only figures that their authors give; what they leave open, and is assumed here, is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wsdemo.experiments.capacity import COSTS, Costs, Load, Usage, usage

__all__ = ["CENTRIFUGO", "PHOENIX", "Figure", "Published"]


@dataclass(frozen=True)
class Figure:
    """One number that they give, and what the model says instead."""

    what: str
    published: float
    model: Callable[[Costs], float]

    def off_by(self, costs: Costs = COSTS) -> float:
        """The factor by which the model is off, up or down."""
        ratio = self.model(costs) / self.published
        return max(ratio, 1 / ratio)


@dataclass(frozen=True)
class Published:
    """A system, where it is described, and its figures."""

    title: str
    url: str
    load: Load
    servers: int
    assumed: str
    figures: tuple[Figure, ...]

    def off_by(self, costs: Costs = COSTS) -> float:
        """The same, of the figure for which it is worst."""
        return max(figure.off_by(costs) for figure in self.figures)

    def beside(self, costs: Costs = COSTS) -> str:
        """A table of what they have published and what the model says with these costs."""
        servers = "one server" if self.servers == 1 else f"{self.servers} servers"
        rows = [
            f"{figure.what:44} {figure.published:9,.3g} {_short(model):>9} {_times(ratio):>9}"
            for figure in self.figures
            for model in [figure.model(costs)]
            for ratio in [model / figure.published]
        ]
        return "\n".join(
            [
                f"{self.title}, {self.url}",
                f"{self.load}; {servers}",
                f"assumed: {self.assumed}",
                f"{'':44} published     model",
                *rows,
            ]
        )


def _short(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _times(ratio: float) -> str:
    return f"× {ratio:.2g}"


# 28 million deliveries a minute. Each connection is in one channel of ten, and in one of its own.
_CENTRIFUGO_LOAD = Load(1_000_000, 28e6 / 60 / 10, games=100_000, size=100)
_PODS, _SHARDS = 20, 5


def _pods(costs: Costs, load: Load = _CENTRIFUGO_LOAD) -> Usage:
    return usage(load, costs, _PODS)


CENTRIFUGO = Published(
    title="Million connections with Centrifugo (2020)",
    url="https://centrifugal.dev/blog/2020/02/10/million-connections-with-centrifugo",
    load=_CENTRIFUGO_LOAD,
    servers=_PODS,
    assumed="every event is for a group of ten; they do not say how many are for one alone",
    figures=(
        Figure("cores, all servers", 40, lambda costs: _PODS * _pods(costs).cores),
        Figure(
            "cores, all servers, when little is said",
            10,
            lambda costs: _PODS * _pods(costs, Load(1_000_000, 0, 100_000)).cores,
        ),
        Figure("GB of memory, all servers", 27, lambda costs: _PODS * _pods(costs).memory / 1e9),
        Figure(
            "Mbit/s of a server, in its busier direction",
            150,
            lambda costs: 8 * _pods(costs).network / 1e6,
        ),
        Figure(
            "busy share of each of 5 Redis nodes",
            0.32,
            lambda costs: _pods(costs).redis_cores / _SHARDS,
        ),
    ),
)

_PHOENIX_LOAD = Load(2_000_000, 1, games=1)

PHOENIX = Published(
    title="The Road to 2 Million Websocket Connections in Phoenix (2015)",
    url="https://phoenixframework.org/blog/the-road-to-2-million-websocket-connections",
    load=_PHOENIX_LOAD,
    servers=1,
    assumed="while an event goes out, all of the 40 cores are busy with it",
    figures=(
        Figure(
            "GB of a smaller machine that 450,000 filled",
            15,
            lambda costs: 450_000 * costs.memory / 1e9,
        ),
        Figure(
            "seconds for one event to reach all, 40 cores",
            1.0,
            lambda costs: _PHOENIX_LOAD.players * costs.delivery / 40,
        ),
    ),
)
