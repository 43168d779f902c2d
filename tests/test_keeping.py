"""Whole clusters whose broker keeps events: who was away has them later, and each of them once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Client, bodies, dial, eventually, here, recorded, within
from wsdemo import Cluster, faults, ledger, open_cluster
from wsdemo.brokers import QueueBroker
from wsdemo.player import NotConnected

KEEPERS = ["stream", "queue"]
every_keeper = pytest.mark.parametrize("broker", KEEPERS)

NUMBERS = ["1", "2", "3", "4", "5"]


async def queue_of(cluster: Cluster, player: str) -> int | None:
    """How many events the player's queue has; None if there is no such queue."""
    assert cluster.redis
    client = cluster.redis.client()
    try:
        stem = f"{cluster.redis.prefix}queue:{{g}}"
        if not await client.hexists(f"{stem}:players", player):
            return None
        return int(await client.xlen(f"{stem}:of:{player}"))
    finally:
        await client.aclose()


class TestAPlayerThatWasAway:
    @every_keeper
    @pytest.mark.parametrize("redis", ["fake", "embedded"])
    async def test_hears_all_of_it_on_another_server(self, broker: str, redis: str) -> None:
        """In the one order in which the others have heard it."""
        async with open_cluster(broker=broker, redis=redis) as cluster:
            p1, p2, p3 = await cluster.join("P1", "P2", "P3", server="A")
            await p3.reconnect(server="B")
            await p2.send("before")
            await cluster.settle()
            await p1.disconnect()
            for number in NUMBERS:
                await asyncio.gather(p2.send(f"a{number}"), p3.send(f"b{number}"))
            await cluster.settle()
            await p1.reconnect(server="B")
            await cluster.settle()
            assert len(p1.heard) == 11
            assert p1.heard == p2.heard == p3.heard
            assert [event.seq for event in p1.heard] == list(range(1, 12))
            assert p1.recovered
            assert p1.gaps == []
            assert (ledger(cluster).missed, ledger(cluster).balances) == (0, True)

    @every_keeper
    async def test_may_have_more_to_hear_than_fits_into_one_answer(self, broker: str) -> None:
        """However many events that are."""
        async with open_cluster(broker=broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            async with faults.link_cut(p1):
                for number in range(230):
                    await p2.send(str(number))
                await cluster.settle()
            await cluster.settle()
            assert bodies(p1.heard) == [str(number) for number in range(230)]
            assert ledger(cluster).balances

    @every_keeper
    async def test_is_pending_until_it_comes_back(self, broker: str) -> None:
        """What is kept for it is neither heard nor missed, so the ledger does not balance yet."""
        async with open_cluster(broker=broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            await p1.disconnect()
            await p2.send("x")
            await p2.send("y")
            await cluster.settle()
            book = ledger(cluster)
            assert (book.heard, book.missed, book.pending, book.balances) == (2, 0, 2, False)
            await p1.reconnect(server="B")
            await cluster.settle()
            book = ledger(cluster)
            assert (book.heard, book.missed, book.pending, book.balances) == (4, 0, 0, True)

    @every_keeper
    async def test_for_too_long_is_told_of_the_gap(self, broker: str) -> None:
        """Its `gaps` say from where to where, and the ledger what is missed, and why."""
        async with open_cluster(broker=broker, history=3) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            await p2.send("0")
            await cluster.settle()
            after = p1.position
            assert after
            await p1.disconnect()
            for number in NUMBERS:
                await p2.send(number)
                await cluster.settle()
            await p1.reconnect(server="B")
            await cluster.settle()
            assert bodies(p1.heard) == ["0", "3", "4", "5"]
            assert p1.recovered is False
            [gap] = p1.gaps
            assert gap.until
            assert (gap.after, gap.until.seq, gap.reason) == (after, after.seq + 2, "trimmed")
            book = ledger(cluster)
            assert book.missed_by("P1") == [
                ("P2-2", "trimmed from history"),
                ("P2-3", "trimmed from history"),
            ]
            assert book.balances

    async def test_and_read_nothing_hears_once_what_is_written_again(self) -> None:
        """Its acknowledgements are long in coming; what it has heard before is no event to it."""
        async with open_cluster(broker="queue") as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            broker = here(cluster, "A")._broker
            assert isinstance(broker, QueueBroker)
            broker._readers["g"]["P1"].timeout = 0.01
            async with faults.reader_stalled(p1):
                for number in NUMBERS:
                    await p2.send(number)
                await recorded(cluster.trace, "deliver", peer="P1", event="P2-5", times=3)
            await cluster.settle()
            await recorded(cluster.trace, "duplicate", at="P1", event="P2-5", times=2)
            assert bodies(p1.heard) == bodies(p2.heard) == NUMBERS
            assert await queue_of(cluster, "P1") == 0
            assert (ledger(cluster).twice, ledger(cluster).balances) == (0, True)

    async def test_that_leaves_takes_its_queue_with_it(self) -> None:
        """One that is only away does not, and whoever joins under its name again begins anew."""
        async with open_cluster(broker="queue") as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            await p1.disconnect()
            await p2.send("x")
            await cluster.settle()
            assert await queue_of(cluster, "P1") == 1
            await p1.reconnect()
            await cluster.settle()
            assert await queue_of(cluster, "P1") == 0
            await p1.leave()
            await p2.send("y")
            await cluster.settle()
            assert await queue_of(cluster, "P1") is None
            [again] = await cluster.join("P1")
            await p2.send("z")
            await cluster.settle()
            assert bodies(again.heard) == ["z"]
            assert ledger(cluster).balances


class TestAServerThatFails:
    @every_keeper
    async def test_killed_under_traffic(self, broker: str) -> None:
        """Its players go on elsewhere, where they were: all that was stored is heard once."""
        async with open_cluster(broker=broker) as cluster:
            p1, p2, p3 = await cluster.join("P1", "P2", "P3", server="A")
            await p3.reconnect(server="B")

            async def speak() -> None:
                for number in range(60):
                    await p3.send(str(number), confirm=True)

            speaking = asyncio.create_task(speak())
            await recorded(cluster.trace, "hear", at="P1", times=15)
            async with faults.server_killed(cluster, "A"):
                await within(speaking)
                await cluster.settle()
            await cluster.settle()
            for player in (p1, p2, p3):
                assert bodies(player.heard) == [str(number) for number in range(60)]
            assert (ledger(cluster).twice, ledger(cluster).balances) == (0, True)

    @every_keeper
    async def test_frozen_under_traffic(self, broker: str) -> None:
        """Its players hear all of it when it goes on."""
        async with open_cluster(broker=broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            await p2.reconnect(server="B")
            async with faults.server_frozen(cluster, "A"):
                for number in NUMBERS:
                    await p2.send(number)
                await cluster.settle()
                assert p1.heard == []
            await cluster.settle()
            assert bodies(p1.heard) == bodies(p2.heard) == NUMBERS
            assert ledger(cluster).balances

    @every_keeper
    async def test_cut_off_from_redis(self, broker: str) -> None:
        """Its players hear what they have missed once it is mended, and do not notice more."""
        async with open_cluster(broker=broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            await p2.reconnect(server="B")
            async with faults.redis_link_cut(cluster, "A"):
                for number in NUMBERS:
                    await p2.send(number)
                await cluster.settle()
                assert p1.heard == []
            await cluster.settle()
            assert bodies(p1.heard) == NUMBERS
            assert p1.gaps == []
            assert len(cluster.trace.select("connect", at="P1")) == 1
            assert ledger(cluster).balances


class TestConfirmation:
    @every_keeper
    async def test_is_the_number(self, broker: str) -> None:
        """An event's number, once it is kept; by the same id it is the same."""
        async with open_cluster(broker=broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2")
            assert await p2.send("x", confirm=True) == 1
            assert await p2.send("y", confirm=True) == 2
            assert await p2.send("x", again="P2-1", confirm=True) == 1
            await cluster.settle()
            assert bodies(p1.heard) == ["x", "y"]
            assert (ledger(cluster).twice, ledger(cluster).balances) == (0, True)
            assert len(cluster.trace.select("confirm")) == 3

    @pytest.mark.parametrize("broker", ["none", "pubsub"])
    async def test_is_not_to_be_had_of_what_keeps_nothing(self, broker: str) -> None:
        """It is refused with a word on what to open instead, and nothing is sent."""
        async with open_cluster(broker=broker) as cluster:
            [p1] = await cluster.join("P1")
            with pytest.raises(RuntimeError, match=r'open_cluster\(broker="stream"\)'):
                await p1.send("x", confirm=True)
            assert not cluster.trace.select("send")
            assert await p1.send("x") == "P1-1"

    @every_keeper
    @pytest.mark.parametrize("fault", ["redis away", "link cut", "reply lost"])
    async def test_comes_in_spite_of_a_fault(self, broker: str, fault: str) -> None:
        """The event is said again, with the same id, until it is kept; and it is kept once."""
        async with open_cluster(broker=broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            await p1.reconnect(server="B")
            broken = {
                "redis away": faults.redis_stopped(cluster, keep=True),
                "link cut": faults.redis_link_cut(cluster, "A"),
                "reply lost": faults.reply_lost(cluster, "A", replies=2),
            }
            async with broken[fault]:
                sending = asyncio.create_task(p2.send("x", confirm=True))
                await recorded(cluster.trace, "unpublished", event="P2-1", times=2)
            assert await within(sending) == 1
            await cluster.settle()
            assert bodies(p1.heard) == bodies(p2.heard) == ["x"]
            assert len(cluster.trace.select("send", event="P2-1")) > 2
            new = [store.data["is_new"] for store in cluster.trace.select("store", event="P2-1")]
            assert new == [fault != "reply lost"]
            assert (ledger(cluster).twice, ledger(cluster).balances) == (0, True)

    @every_keeper
    async def test_comes_from_another_server(self, broker: str) -> None:
        """If the one that has the event dies with it, it is said again to the next."""
        async with open_cluster(broker=broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            await p1.reconnect(server="B")
            await cluster.freeze_server("A")
            sending = asyncio.create_task(p2.send("x", confirm=True))
            await recorded(cluster.trace, "send", event="P2-1")
            await cluster.kill_server("A")
            assert await within(sending) == 1
            await cluster.settle()
            assert bodies(p1.heard) == bodies(p2.heard) == ["x"]
            assert [send.peer for send in cluster.trace.select("send")] == ["A", "B"]
            assert (ledger(cluster).twice, ledger(cluster).balances) == (0, True)

    async def test_comes_to_each_who_waits_for_it(self) -> None:
        """Also if one event is said twice at a time."""
        async with open_cluster(broker="stream") as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            event = await p2.send("x")
            found = await within(
                asyncio.gather(*(p2.send("x", again=event, confirm=True) for _ in range(3)))
            )
            assert found == [1, 1, 1]
            await cluster.settle()
            assert bodies(p1.heard) == ["x"]

    @every_keeper
    async def test_is_waited_for(self, broker: str) -> None:
        """`settle` does not return before, also if it can only come from another server."""
        async with open_cluster(broker=broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            async with faults.reply_lost(cluster, "A", replies=3):
                sending = asyncio.create_task(p2.send("x", confirm=True))
                await recorded(cluster.trace, "send")
                await cluster.settle()
                assert cluster.trace.select("confirm")
                assert bodies(p1.heard) == ["x"]
            await sending

    @every_keeper
    async def test_may_be_given_up(self, broker: str) -> None:
        """Then that is recorded, nobody says the event again, and it was lost on its way."""
        async with open_cluster(broker=broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            async with faults.redis_link_cut(cluster, "A"):
                sending = asyncio.create_task(p2.send("x", confirm=True))
                await recorded(cluster.trace, "unpublished")
                sending.cancel()
                with pytest.raises(asyncio.CancelledError) as cancelled:
                    await sending
                [told] = cancelled.value.__notes__  # to whoever has interrupted a cell
                assert told.startswith("P2 was not told that “x” is kept: ")
                assert not p2.unconfirmed
                said = len(cluster.trace.select("send"))
            await cluster.settle()
            assert len(cluster.trace.select("give up", at="P2", event="P2-1")) == 1
            assert len(cluster.trace.select("send")) == said
            assert p1.heard == []
            book = ledger(cluster)
            assert book.missed_by("P1") == [("P2-1", "server without Redis")]
            assert book.balances

    async def test_is_not_waited_for_by_whoever_is_told_to_stay_away(self) -> None:
        """A player that is disconnected says it again when it is back."""
        async with open_cluster(broker="stream") as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            async with faults.redis_link_cut(cluster, "A"):
                sending = asyncio.create_task(p2.send("x", confirm=True))
                await recorded(cluster.trace, "unpublished")
                await p2.disconnect()
                await cluster.settle()
                assert not sending.done()
            await p2.reconnect(server="B")
            assert await within(sending) == 1
            await cluster.settle()
            assert bodies(p1.heard) == bodies(p2.heard) == ["x"]

    async def test_ends_with_the_cluster(self) -> None:
        """Whoever waits for one is told."""
        async with open_cluster(broker="stream") as cluster:
            [p1] = await cluster.join("P1", server="A")
            await cluster.cut_redis_link("A")
            sending = asyncio.create_task(p1.send("x", confirm=True))
            await recorded(cluster.trace, "unpublished")
        with pytest.raises((RuntimeError, NotConnected)):
            await within(sending)


class TestARetryWithoutAKeeper:
    async def test_is_heard_twice(self) -> None:
        """Under Pub/Sub nobody knows that it is one: what a lost reply leads to."""
        async with open_cluster(broker="pubsub") as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            async with faults.reply_lost(cluster, "A"):
                event = await p2.send("x")
                await recorded(cluster.trace, "unpublished", event=event)
                await p2.send("x", again=event)
            await cluster.settle()
            assert bodies(p1.heard) == bodies(p2.heard) == ["x", "x"]
            assert (ledger(cluster).heard, ledger(cluster).twice) == (2, 2)


class TestRedisThatLosesItsData:
    @every_keeper
    async def test_is_told_to_everybody(self, broker: str) -> None:
        """Who is there and who comes later: `gaps` say so, and what was lost is lost with Redis."""
        async with open_cluster(broker=broker) as cluster:
            p1, p2, p3 = await cluster.join("P1", "P2", "P3", server="A")
            await p1.reconnect(server="B")
            await p2.send("1")
            await cluster.settle()
            await p3.disconnect()
            await p2.send("2")
            await cluster.settle()
            async with faults.redis_stopped(cluster):
                pass
            await eventually(lambda: p1.gaps and p2.gaps)
            await cluster.settle()
            assert await p2.send("3", confirm=True) == 1
            await p3.reconnect()
            await cluster.settle()
            for player in (p1, p2, p3):
                assert [gap.reason for gap in player.gaps] == ["new epoch"]
            assert bodies(p1.heard) == bodies(p2.heard) == ["1", "2", "3"]
            assert ledger(cluster).missed_by("P3")[0] == ("P2-2", "lost with Redis")
            assert ledger(cluster).balances


class TestAnyClient:
    async def _raw(self, client: Client, **resume: Any) -> dict[str, Any]:
        return await client.ask("join", game="g", player="X", **resume)

    @every_keeper
    async def test_may_resume_by_hand(self, broker: str) -> None:
        """With the epoch and the number it knows; a welcome tells, and what it missed follows."""
        async with open_cluster(broker=broker) as cluster:
            [p1] = await cluster.join("P1", server="A")
            async with dial(cluster.servers["A"].url) as client:
                welcome = await self._raw(client)
                assert "recovered" not in welcome
                assert welcome.get("acks", False) == (broker == "queue")
                await client.say("send", id="1", body="mine")
                answers = [await client.hear(), await client.hear()]
                assert {"type": "stored", "id": "1", "seq": 1} in answers
                event = {"type": "event", "id": "1", "player": "X", "body": "mine", "seq": 1}
                assert event in answers
            await cluster.servers["A"].until(lambda: cluster.servers["A"].players("g") == ["P1"])
            await p1.send("2")
            await p1.send("3")
            async with dial(cluster.servers["B"].url) as client:
                position = {"epoch": welcome["epoch"], "seq": 1}
                again = await self._raw(client, resume=position)
                assert again == {**welcome, "server": "B", "seq": 1, "recovered": True}
                assert [(await client.hear())["seq"] for _ in range(2)] == [2, 3]
                await client.silence()

    async def test_acknowledges_by_hand(self) -> None:
        """What it acknowledges leaves its queue; the rest is there, whoever reads it next."""
        async with open_cluster(broker="queue") as cluster:
            [p1] = await cluster.join("P1", server="A")
            async with dial(cluster.servers["A"].url) as client:
                welcome = await self._raw(client)
                for number in NUMBERS:
                    await p1.send(number)
                assert [(await client.hear())["seq"] for _ in NUMBERS] == [1, 2, 3, 4, 5]
                assert await queue_of(cluster, "X") == 5
                await client.say("ack", seq=3)
                await client.silence()
                await cluster.settle()
                assert await queue_of(cluster, "X") == 2
            async with dial(cluster.servers["B"].url) as client:
                again = await self._raw(client)
                assert again == {**welcome, "server": "B", "seq": 3, "recovered": True}
                assert [(await client.hear())["seq"] for _ in range(2)] == [4, 5]

    @every_keeper
    async def test_may_say_nonsense(self, broker: str) -> None:
        """It is told what is wrong with it, and nobody else notices anything."""
        async with open_cluster(broker=broker) as cluster:
            p1, p2 = await cluster.join("P1", "P2", server="A")
            await p2.send("1")
            await cluster.settle()
            url = cluster.servers["A"].url
            for resume in ({"epoch": "e"}, {"epoch": "", "seq": 1}, {"epoch": "e", "seq": -1}, 7):
                async with dial(url) as client:
                    assert (await self._raw(client, resume=resume))["code"] == "bad-message"
            for epoch, seq in (("e", 0), ("e", 2**64 - 1), ("\u00e9" * 64, 3)):
                async with dial(url) as client:
                    welcome = await self._raw(client, resume={"epoch": epoch, "seq": seq})
                    assert (welcome["recovered"], welcome["reason"]) == (False, "new epoch")
                    await client.say("leave")
                await cluster.settle()
            async with dial(url) as client:
                await self._raw(client)
                for bad in (-1, "1", 1.5, None):
                    assert (await client.ask("ack", seq=bad))["code"] == "bad-message", bad
                for seq in (0, 99, 2**64 - 1):
                    await client.say("ack", seq=seq)
                await client.silence()
                await p2.send("2")
                assert (await client.hear())["body"] == "2"
            await cluster.settle()
            assert bodies(p1.heard) == bodies(p2.heard) == ["1", "2"]


@pytest.mark.parametrize(("broker", "acks"), [("stream", []), ("queue", [1, 2])])
async def test_acknowledges_what_it_is_asked_to(broker: str, acks: list[int]) -> None:
    """A player acknowledges each number it hears if the welcome wants that, and else none."""
    async with open_cluster(broker=broker) as cluster:
        [p1] = await cluster.join("P1")
        await p1.send("jump")
        await p1.send("duck")
        await cluster.settle()
        assert [record.data["seq"] for record in cluster.trace.select("ack", at="P1")] == acks


@pytest.mark.parametrize(
    ("broker", "hops"), [("none", 0), ("pubsub", 2), ("stream", 2), ("queue", 4)]
)
async def test_hops_are_counted_where_an_event_passes(broker: str, hops: int) -> None:
    """From server to server through Redis; one that was only woken has asked, too."""
    async with open_cluster(broker=broker) as cluster:
        p1, _ = await cluster.join("P1", "P2")
        await p1.send("jump")
        await cluster.settle()
        assert {record.data["hops"] for record in cluster.trace.select("relay")} == {hops}
        assert ledger(cluster).hops == hops


async def test_what_a_server_had_to_ask_for_took_more_hops() -> None:
    """After its link was cut, it reads what is in the stream."""
    async with open_cluster(broker="stream") as cluster:
        [p1] = await cluster.join("P1", server="A")
        await cluster.join("P2", server="B")
        async with faults.redis_link_cut(cluster, "B"):
            await p1.send("jump")
            await cluster.settle()
        await cluster.settle()
        relays = {record.at: record.data["hops"] for record in cluster.trace.select("relay")}
        assert relays == {"A": 2, "B": 4}
