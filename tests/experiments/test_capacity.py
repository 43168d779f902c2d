"""The capacity model: by hand, at its limits, and against players who are really put at random."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from wsdemo.experiments.capacity import (
    COSTS,
    OVERHEAD,
    Channels,
    Costs,
    Load,
    Machine,
    most_games,
    plan,
    servers_of_a_game,
    usage,
)

FREE = Costs(0, 0, 0, 0, 0, 0, 0)
ENDLESS = Machine(
    cores=float("inf"), memory=float("inf"), network=float("inf"), sockets=10**9, full=1.0
)
both_channels = pytest.mark.parametrize("channels", ["all", "game"])


def costs(**some: float) -> Costs:
    """Costs of which only these are not nothing."""
    return dataclasses.replace(FREE, **some)


def machine(**some: Any) -> Machine:
    """A machine that has no end but these."""
    return dataclasses.replace(ENDLESS, **some)


class TestServersOfAGame:
    """How many servers hold a player of a game."""

    @pytest.mark.parametrize(
        ("servers", "players", "expected"),
        [(1, 1, 1), (1, 50, 1), (8, 1, 1), (2, 2, 1.5), (3, 2, 5 / 3), (2, 3, 1.75)],
    )
    def test_by_hand(self, servers: int, players: int, expected: float) -> None:
        """Two players on two servers: together in half of the cases, apart in the other half."""
        assert servers_of_a_game(servers, players) == pytest.approx(expected)

    def test_many_servers_part_the_players(self) -> None:
        """Of many more servers than players, each player has one of its own."""
        assert servers_of_a_game(10**6, 4) == pytest.approx(4, rel=1e-5)

    def test_many_players_are_everywhere(self) -> None:
        """Of many more players than servers, each server has one."""
        assert servers_of_a_game(8, 1000) == pytest.approx(8, rel=1e-9)

    @pytest.mark.parametrize(("servers", "players"), [(2, 2), (4, 3), (8, 4), (8, 20), (50, 10)])
    def test_it_is_what_chance_does(self, servers: int, players: int) -> None:
        """20,000 games, each player put on a server at random, come within five standard errors."""
        chance, games = random.Random(servers * 1000 + players), 20_000
        found = [len({chance.randrange(servers) for _ in range(players)}) for _ in range(games)]
        mean = sum(found) / games
        spread = (sum((each - mean) ** 2 for each in found) / games) ** 0.5
        assert abs(mean - servers_of_a_game(servers, players)) < 5 * spread / games**0.5 + 1e-9


class TestUsage:
    """What each server and Redis do."""

    def test_by_hand_with_a_channel_for_each_game(self) -> None:
        """12 connections in 6 games on 2 servers, 20 events a second."""
        used = usage(Load(12, 20, 6, size=32), COSTS, servers=2)
        assert used.received == pytest.approx(20 * 1.5 / 2)
        assert used.deliveries == pytest.approx(20 * 2 / 2)
        assert used.sockets == 6
        assert used.memory == 6 * COSTS.memory
        assert used.network == pytest.approx((10 + 20) * (32 + OVERHEAD))
        assert used.cores == pytest.approx(
            6 * COSTS.kept + 10 * COSTS.published + 15 * COSTS.received + 20 * COSTS.delivery
        )
        assert used.redis_in == 20
        assert used.redis_out == pytest.approx(30)
        assert used.redis_cores == pytest.approx(
            20 * COSTS.redis_publish + 30 * COSTS.redis_delivery
        )

    def test_by_hand_with_one_channel_for_all(self) -> None:
        """Each server receives each event, though it writes no more of them to players."""
        used = usage(Load(12, 20, 6), COSTS, servers=2, channels="all")
        assert (used.received, used.deliveries) == (20, 20)
        assert (used.redis_in, used.redis_out) == (20, 40)

    def test_the_busier_direction_of_the_network_counts(self) -> None:
        """With one channel for all, more may come in from Redis than goes out to players."""
        used = usage(Load(12, 20, games=12, size=32), COSTS, servers=4, channels="all")
        assert used.network == pytest.approx((5 + 20) * (32 + OVERHEAD))

    def test_one_game_makes_the_channels_equal(self) -> None:
        """If all are in one game, and it is on every server, its channel is one for all."""
        load = Load(10_000, 50, games=1)
        own, all_in_one = usage(load, COSTS, 4), usage(load, COSTS, 4, "all")
        assert own.received == pytest.approx(all_in_one.received)
        assert own.redis_out == pytest.approx(all_in_one.redis_out)

    def test_games_of_one_player_go_to_one_server(self) -> None:
        """Then Redis writes each event once, and all servers share them."""
        used = usage(Load(1000, 50, games=1000), COSTS, servers=10)
        assert used.redis_out == pytest.approx(50)
        assert used.received == pytest.approx(5)

    def test_together_a_game_is_on_one_server(self) -> None:
        """Each event is received once, by the server of its game; all else is as much as before."""
        load = Load(100, 50, games=20)
        apart, together = usage(load, COSTS, 10), usage(load, COSTS, 10, together=True)
        assert together.received == pytest.approx(5)
        assert together.redis_out == pytest.approx(50)
        assert together.deliveries == apart.deliveries
        assert together.cores == pytest.approx(apart.cores - (apart.received - 5) * COSTS.received)

    def test_together_more_servers_than_games_are_idle(self) -> None:
        """A game cannot be on two."""
        load = Load(100, 50, games=2)
        assert usage(load, COSTS, 10, together=True) == usage(load, COSTS, 2, together=True)

    @both_channels
    def test_one_server_receives_each_event_once(self, channels: Channels) -> None:
        """With one server, the channels make no difference."""
        used = usage(Load(1000, 50, games=100), COSTS, 1, channels)
        assert (used.received, used.redis_out) == (50, 50)

    @both_channels
    def test_silence_costs_only_what_is_kept(self, channels: Channels) -> None:
        """Without events there are connections, and nothing for Redis to do."""
        used = usage(Load(1000, 0, games=10), COSTS, 2, channels)
        assert used.cores == pytest.approx(500 * COSTS.kept)
        assert (used.received, used.network, used.redis_cores) == (0, 0, 0)


class TestPlan:
    """How many servers, and nodes of Redis."""

    @pytest.mark.parametrize(
        ("costs", "machine", "what"),
        [
            (costs(kept=0.01), machine(cores=2), "CPU"),  # 5 cores
            (costs(delivery=0.005), machine(cores=2), "CPU"),  # 1000 a second: 5 cores
            (costs(memory=20.0), machine(memory=4_000), "memory"),  # 10,000 bytes
            (FREE, machine(network=70_000), "network"),  # 1250 messages of 168 bytes
            (FREE, machine(sockets=199), "sockets"),  # 500
        ],
    )
    def test_each_resource_by_hand(self, costs: Costs, machine: Machine, what: str) -> None:
        """What takes two and a half servers of one resource takes three."""
        found = plan(Load(500, 250, games=125), costs, machine)
        assert found.needs[what] == found.servers == 3
        assert found.first == what
        assert all(need == 1 for name, need in found.needs.items() if name != what)

    def test_a_server_is_filled_as_far_as_it_is_meant_to_be(self) -> None:
        """At half, it takes twice as many; sockets have no such margin."""
        load = Load(600, 0, games=1)
        whole = plan(load, costs(kept=0.01), machine(sockets=200))
        half = plan(load, costs(kept=0.01), machine(cores=1, full=0.5, sockets=200))
        assert (whole.servers, half.servers) == (3, 12)
        assert half.needs["sockets"] == 3

    def test_the_least_number_is_found(self) -> None:
        """One server less would be too full: of CPU, whose need depends on the number itself."""
        load, one_core = Load(100_000, 20_000, games=20_000), Machine()
        found = plan(load, COSTS, one_core)
        assert found.servers is not None
        assert found.servers > 10
        assert usage(load, COSTS, found.servers).cores <= 0.6
        assert usage(load, COSTS, found.servers - 1).cores > 0.6

    def test_with_one_channel_for_all_there_is_an_end(self) -> None:
        """If one server cannot receive all events, no number of servers is enough; or is it?"""
        load, price = Load(1000, 100, games=250), costs(received=0.01, delivery=0.001)
        found = plan(load, price, machine(cores=1.0), "all")  # receiving alone takes all of it
        assert (found.servers, found.needs["CPU"], found.first) == (None, None, "CPU")
        assert "no number of servers is enough" in str(found)
        assert plan(load, price, machine(cores=1.0), "game").servers is not None
        assert plan(load, price, machine(cores=1.1), "all").servers == 4

    def test_redis_is_spread_over_nodes(self) -> None:
        """500 events a second at 4 ms each take two threads, of which 0.6 is to be used: 4."""
        load, price = Load(1000, 500, games=100), costs(redis_publish=0.004)
        found = plan(load, price, machine(full=0.6))
        assert (found.redis_nodes, found.first) == (4, "Redis")

    @pytest.mark.parametrize(("games", "channels"), [(1000, "all"), (3, "game")])
    def test_a_channel_cannot_be_spread(self, games: int, channels: Channels) -> None:
        """Four nodes are of use only to four channels."""
        load, price = Load(1000, 500, games), costs(redis_publish=0.004)
        found = plan(load, price, machine(full=0.6), channels)
        assert (found.servers, found.redis_nodes, found.first) == (1, None, "Redis")
        assert "never enough" in str(found)

    def test_what_comes_to_an_end_first_is_named(self) -> None:
        """100 servers take all of Redis long before one could not receive all events, or later."""
        load = Load(1000, 200, games=1000)
        price = costs(received=0.01, kept=0.1)
        dear = dataclasses.replace(price, redis_delivery=0.01)
        assert plan(load, price, machine(cores=1.0), "all").first == "CPU"
        assert plan(load, dear, machine(cores=1.0), "all").first == "Redis"

    def test_what_has_no_end_does_not_come_first(self) -> None:
        """The servers' cores are the fullest, but more servers help; another Redis does not."""
        load, price = Load(1000, 100, games=100), costs(kept=1.0, redis_publish=0.011)
        found = plan(load, price, machine(cores=1.0), "all")
        assert (found.servers, found.redis_nodes, found.first) == (1000, None, "Redis")

    def test_a_game_that_is_together_must_fit_into_a_server(self) -> None:
        """Two games of 500 are two servers' work, and no third one helps if that is too much."""
        load, price = Load(1000, 0, games=2), costs(kept=0.001)
        fits = plan(load, price, machine(cores=0.5), together=True)
        assert (fits.servers, plan(load, price, machine(cores=0.4), together=True).servers) == (
            2,
            None,
        )
        assert plan(load, price, machine(cores=0.4)).servers == 3
        assert "each game on one server" in str(fits)

    def test_what_comes_first_is_not_rounded(self) -> None:
        """Of two resources of which one server is enough, the fuller one comes first."""
        price = costs(kept=0.002, memory=1.0)
        assert plan(Load(100, 0, 1), price, machine(cores=1, memory=250)).first == "memory"
        assert plan(Load(100, 0, 1), price, machine(cores=1, memory=750)).first == "CPU"

    def test_what_comes_first_is_of_all_servers_together(self) -> None:
        """Work for five servers is more than work for two Redis nodes, though each is full."""
        load, price = Load(1000, 100, 100), costs(kept=0.005, redis_publish=0.02)
        assert plan(load, price, machine(cores=1.0)).first == "CPU"
        assert plan(load, price, machine(cores=5.0)).first == "Redis"

    def test_redis_has_the_same_margin(self) -> None:
        """Half a thread of which 0.6 is to be used is more than 0.8 of what a server is to do."""
        load, price = Load(1000, 100, 100), costs(kept=0.48e-3, redis_publish=0.005)
        assert plan(load, price, machine(cores=1.0, full=0.6)).first == "Redis"

    def test_it_says_what_it_has_found(self) -> None:
        """As plain text: the load, a line for each resource, and what each server does."""
        text = str(plan(Load(100_000, 10_000, games=25_000)))
        assert "100,000 connections, 25,000 games of 4, 10,000 events/s of 100 bytes" in text
        assert "a channel for each game" in text
        assert [line.split() for line in text.splitlines() if "sockets" in line] == [
            ["servers", "for", "sockets", "4"]
        ]
        assert "runs out first: CPU" in text


class TestMostGames:
    """How many games there can be."""

    def test_it_is_the_last_number_for_which_there_is_an_answer(self) -> None:
        """Of the events of 60 games, one server can receive all; of those of 61, none can."""
        game = Load(4, 1, games=1)
        found = {
            what: most_games(game, what, costs(received=0.01), machine(cores=0.6), "all")
            for what in ("CPU", "memory", "Redis")
        }
        assert found == {"CPU": 60, "memory": None, "Redis": 60}  # for no servers, there is none

    def test_of_redis_too(self) -> None:
        """With 10 ms for each event, one thread takes those of 100 games, and a cluster all."""
        game, price = Load(4, 1, games=1), costs(redis_publish=0.01)
        assert most_games(game, "Redis", price, ENDLESS, "all") == 100
        assert most_games(game, "Redis", price, ENDLESS, "game") is None

    def test_one_may_be_too_much(self) -> None:
        """Then there can be none."""
        assert most_games(Load(4, 100, 1), "CPU", costs(received=1.0), Machine(), "all") == 0


def test_a_load_is_multiplied() -> None:
    """Games, players and what they say: each game is as before."""
    assert Load(10, 2.5, games=2, size=7).times(3) == Load(30, 7.5, games=6, size=7)


@pytest.mark.parametrize(
    ("connections", "events", "games", "size"),
    [(10, 1, 0, 1), (10, 1, 11, 1), (0, 1, 1, 1), (10, -1, 1, 1), (10, 1, 1, -1)],
)
def test_a_load_that_cannot_be_is_refused(
    connections: int, events: float, games: int, size: float
) -> None:
    """No game without a player, and nothing less than nothing."""
    with pytest.raises(ValueError, match=r"at least one|use 0 or more"):
        Load(connections, events, games, size)
