"""A server process under clients that do everything wrong goes on as before, and keeps nothing.

A few of them each time; python -m tests.fuzz makes as many as one likes.
"""

from __future__ import annotations

from dataclasses import replace

from tests.fuzz import ATTACKS, FOR_A_FEW, Report, Size, attacked, fuzz

HASTE = replace(FOR_A_FEW, seconds_to_join=0.5, seconds_to_answer=0.5)
SLACK = 32 * 2**20  # bytes: after so few, a process still grows into its work


async def test_a_server_holds_under_everything_that_clients_can_do_wrong() -> None:
    """Each ends as it should, and those who play hear each other all the while."""
    async with attacked("none", HASTE) as server:
        report = await fuzz(server, 150, seed=1, rounds=2, at_once=75)
    assert not list(report.violations(SLACK)), report
    assert {kind for kind, _ in report.outcomes} == set(ATTACKS)
    assert report.delays
    reached = {name for name, times in report.limits_reached.items() if times}
    assert reached >= {"max_rate", "max_message", "max_bad_messages", "seconds_to_join"}


def test_what_a_server_keeps_is_seen() -> None:
    """One file, one task or one client that is left, and memory that grows to the end."""
    size = Size(memory=2**26, files=11, sockets=5, tasks=8, clients=3)

    def found(*sizes: Size) -> list[str]:
        return list(Report(sizes=list(sizes)).violations())

    assert found(size, size, size, size) == []
    assert found(replace(size, memory=2**25), replace(size, files=9), size, size)
    for left in ("files", "sockets", "tasks", "clients"):
        [words] = found(size, size, size, replace(size, **{left: getattr(size, left) + 1}))
        assert words.startswith("the server has kept something")
    [words] = found(size, size, size, replace(size, memory=2**27))
    assert words.startswith("the server grows")


def test_a_broker_that_refuses_the_honest_is_seen() -> None:
    """A Redis that is full of what attackers left behind, say; once or twice it may be busy."""
    size = Size(memory=2**26, files=11, sockets=5, tasks=8, clients=3)
    report = Report(sizes=[size] * 3, delays=[0.01] * 1000, said_again=10)
    assert not list(report.violations())
    report.said_again += 1
    assert list(report.violations()) == ["the honest were refused 11 times, of 1000 events"]


def test_an_end_that_is_none_is_seen() -> None:
    """A connection that was to be told why it ends, and mostly was not."""
    size = Size(memory=2**26, files=11, sockets=5, tasks=8, clients=3)
    report = Report(sizes=[size] * 3)
    report.outcomes.update({("says too much", "1009"): 10, ("says too much", "cut"): 10})
    assert list(report.violations()) == ["says too much: 10 of 20 were not looked at"]
    says_too_much = ATTACKS["says too much"]
    assert [
        end for end in ("1009", "1008", "cut", "1002", "hung") if says_too_much.may_be(end)
    ] == [
        "1009",
        "1008",
        "cut",
    ]
