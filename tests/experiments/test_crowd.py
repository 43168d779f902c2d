"""What each of many servers receives, counted on a real Redis path."""

from __future__ import annotations

import pytest

from tests.conftest import within
from wsdemo.experiments.capacity import servers_of_a_game
from wsdemo.experiments.crowd import messages_on_a_cluster, messages_received, placed
from wsdemo.experiments.measured import Received


class TestPlaced:
    """Which servers hold the players of each game."""

    def test_every_player_is_somewhere(self) -> None:
        """Seven players in three games: three, two and two, each on a server that there is."""
        homes = placed(servers=100, games=3, players=7)
        assert [len(home) for home in homes] == [3, 2, 2]
        assert set().union(*homes) <= set(range(100))

    def test_the_same_seed_is_the_same_crowd(self) -> None:
        """And another one is another."""
        assert placed(8, 10, 40) == placed(8, 10, 40)
        assert placed(8, 10, 40) != placed(8, 10, 40, seed=2)


@pytest.mark.parametrize("redis", ["fake", "embedded"])
async def test_one_channel_for_all_brings_everything_to_everyone(redis: str) -> None:
    """A channel for each game brings to each server the games that it has players in."""
    steps: list[float] = []
    found = await within(
        messages_received([1, 3], [1, 12], 24, 24, redis=redis, progress=steps.append)
    )
    assert [(each.servers, each.games, each.channels) for each in found] == [
        (servers, games, channels)
        for servers in (1, 3)
        for games in (1, 12)
        for channels in ("all", "game")
    ]
    for each in found:
        homes = placed(each.servers, each.games, 24)
        own = [
            sum(server in home for home in homes) * 24 // each.games
            for server in range(each.servers)
        ]
        assert list(each.by_server) == (own if each.channels == "game" else [24] * each.servers)
    assert steps == [(number + 1) / 8 for number in range(8)]


async def test_what_is_counted_is_what_chance_makes() -> None:
    """Of 200 games of two on four servers, a server receives 1 - (3/4)² of the events."""
    [_, own] = await within(messages_received([4], [200], 400, 200, redis="fake"))
    assert own.share == pytest.approx(servers_of_a_game(4, 2) / 4, abs=0.04)


async def test_a_cluster_spreads_channels_and_not_one_channel() -> None:
    """What a server receives is the same; what is published is on one node, or on all three."""
    everywhere, own = await within(messages_on_a_cluster(2, 30, 60, 60), patience=30)
    assert list(everywhere.by_server) == [60, 60]
    assert sorted(everywhere.by_node) == [0, 0, 60]
    homes = placed(2, 30, 60)
    assert list(own.by_server) == [2 * sum(n in home for home in homes) for n in range(2)]
    assert sum(own.by_node) == 60
    assert all(count % 2 == 0 for count in own.by_node)  # of each game two events
    assert min(own.by_node) > 0


@pytest.mark.parametrize("games", [[0], [5, 11]])
async def test_a_game_without_players_is_refused(games: list[int]) -> None:
    """It would be nowhere."""
    with pytest.raises(ValueError, match="each game has at least one"):
        await messages_received([1], games, players=10, redis="fake")


def test_what_was_received_says_so() -> None:
    """For each server, and for each node where there are any."""
    assert str(Received("all", 1, 4, 5, [5, 5])) == "1 game, one channel for all: [5, 5]"
    assert str(Received("game", 2, 4, 5, [3, 2], [4, 1])) == (
        "2 games, a channel for each: [3, 2]; published on each node of Redis: [4, 1]"
    )
