"""The gate: shut, everything waits; opened, everything goes on in order."""

from __future__ import annotations

import asyncio

from wsdemo.gate import Gate


async def test_open_it_holds_up_nothing() -> None:
    """A call is made at once, and a task passes without a turn of the loop."""
    gate, done = Gate(), list[str]()
    gate.call(done.append, "now")
    await gate.passed()
    assert done == ["now"]


async def test_what_waits_goes_on_in_order() -> None:
    """Calls in the order in which they were made, tasks in the order in which they came."""
    gate, called, passed = Gate(), list[int](), list[int]()

    async def pass_as(number: int) -> None:
        await gate.passed()
        passed.append(number)

    gate.shut()
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            gate.call(called.append, number)
            group.create_task(pass_as(number))
        for _ in range(5):
            await asyncio.sleep(0)
        assert (called, passed) == ([], [])
        gate.open()
        assert called == list(range(5))
    assert passed == list(range(5))


async def test_shut_again_at_once_it_still_holds_up_tasks() -> None:
    """A task passes only while it is open."""
    gate = Gate()
    gate.shut()
    passing = asyncio.create_task(gate.passed())
    await asyncio.sleep(0)
    gate.open()
    gate.shut()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not passing.done()
    gate.open()
    await passing


async def test_dropping_does_only_what_has_to_be_done() -> None:
    """What waited is forgotten, but for what was to be done in any case."""
    gate, done = Gate(), list[str]()
    gate.shut()
    gate.call(done.append, "perhaps")
    gate.call(done.append, "in any case", in_any_case=True)
    gate.drop()
    assert (done, gate.is_shut) == (["in any case"], False)
