"""What others have published, beside the model: the arithmetic, and how far off it is."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from wsdemo.experiments.capacity import COSTS, Costs
from wsdemo.experiments.published import CENTRIFUGO, PHOENIX, Published

FIGURES = {
    "cores, all servers": 63.8,  # a pod: 50,000 silent, 2333 said, 18,720 received, 23,333 written
    "cores, all servers, when little is said": 3.2,
    "GB of memory, all servers": 14.4,
    "Mbit/s of a server, in its busier direction": 34.5,
    "busy share of each of 5 Redis nodes": 0.496,
    "GB of a smaller machine that 450,000 filled": 6.48,
    "seconds for one event to reach all, 40 cores": 0.45,
}
# By hand, from these costs.
BY_HAND = Costs(
    delivery=9e-6,
    received=125e-6,
    published=205e-6,
    kept=3.2e-6,
    memory=14_400,
    redis_publish=21e-6,
    redis_delivery=4e-6,
)


@pytest.mark.parametrize("system", [CENTRIFUGO, PHOENIX], ids=lambda system: system.title)
class TestEach:
    """Each published system."""

    def test_the_model_by_hand(self, system: Published) -> None:
        """The same as with pencil and paper, to three digits."""
        for figure in system.figures:
            assert figure.model(BY_HAND) == pytest.approx(FIGURES[figure.what], rel=0.005)

    def test_it_is_off_by_less_than_five(self, system: Published) -> None:
        """With the costs that were measured; or the lesson claims too much."""
        assert 1 < system.off_by(COSTS) < 5

    def test_up_is_as_far_off_as_down(self, system: Published) -> None:
        """Ten times the costs or a tenth of them: the worst figure is off by what that makes it."""
        for factor in (0.1, 10.0):
            costs = Costs(*(factor * each for each in astuple(COSTS)))
            ratios = [figure.model(costs) / figure.published for figure in system.figures]
            assert system.off_by(costs) == pytest.approx(max(max(ratios), 1 / min(ratios)))

    def test_it_says_what_is_whose(self, system: Published) -> None:
        """Where it is from, what was assumed, and each figure beside the model's."""
        lines = system.beside().splitlines()
        assert system.url in lines[0]
        assert "assumed: " in lines[2]
        for figure, line in zip(system.figures, lines[4:], strict=True):
            assert line.startswith(figure.what)
            assert float(line.split()[-1]) == pytest.approx(
                figure.model(COSTS) / figure.published, rel=0.06
            )
