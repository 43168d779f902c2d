"""Exercises on a cluster that runs: something is said on it, and the trace tells where it went."""

from __future__ import annotations

import random
from typing import Any

from wsdemo.cluster import Cluster
from wsdemo.exercises.attempt import Attempt, NotYet
from wsdemo.exercises.exercise import Exercise
from wsdemo.exercises.judging import WORDS, rest, why
from wsdemo.ledger import ledger

__all__ = ["hear_each_other", "plays_on"]


def plays_on(name: str, server: str) -> Exercise:
    """To be checked with a cluster: what this player says arrives at this server."""

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        cluster = attempt.given
        if is_elsewhere := _is_elsewhere(cluster, name, server):
            return is_elsewhere  # and so the run stays as it is
        event = await _say(cluster, name, chance)
        at = [record.at for record in cluster.trace.select("receive", event=event)]
        if at == [server]:
            return []
        return [f"what {name} says arrives at {'no server' if not at else f'server {at[0]}'}"]

    return Exercise(f"what {name} says arrives at server {server}", judge)


def hear_each_other(one: str, other: str) -> Exercise:
    """To be checked with a cluster: each of the two players hears what the other one says now."""

    async def judge(attempt: Attempt, chance: random.Random) -> list[str]:
        cluster, wrong = attempt.given, []
        for speaker, listener in ((one, other), (other, one)):
            event = await _say(cluster, speaker, chance)
            fate = ledger(cluster).fate(event, listener)
            if fate is None or fate.outcome != "heard":
                wrong.append(f"{listener} does not hear what {speaker} says: {why(fate)}")
        return wrong

    return Exercise(f"{one} and {other} hear each other", judge)


def _is_elsewhere(cluster: Any, name: str, server: str) -> list[str]:
    """On which other server a player is, in words."""
    player = cluster.players.get(name) if isinstance(cluster, Cluster) else None
    if player is None or not player.connected or player.server == server:
        return []
    return [f"{name} is on server {player.server}"]


async def _say(cluster: Any, name: str, chance: random.Random) -> str:
    """Let a player say something new, as a beat of its own. Gives the event."""
    if not isinstance(cluster, Cluster):
        raise NotYet("give `check` the cluster")
    try:
        cluster.beat(f"A check lets {name} say something")
        event = await cluster.player(name).send(chance.choice(WORDS))
    except (ValueError, RuntimeError, ConnectionError) as error:  # it says what to do first
        raise NotYet(str(error)) from None
    await rest(cluster)
    return event
