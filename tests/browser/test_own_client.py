"""The wire, spoken by a browser's own WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page

from wsdemo import open_cluster

# Joins, says a word and gives back all it was told, or how the connection was refused.
PLAY = """
([url, name]) => new Promise((resolve) => {
  const told = [];
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send(JSON.stringify({type: "join", game: "g", player: name}));
  socket.onmessage = ({data}) => {
    told.push(JSON.parse(data));
    const hi = JSON.stringify({type: "send", id: "W-1", body: "<b>hi</b>"});
    if (told.length === 1) socket.send(hi);
    if (told.length === 2) socket.close(1000);
  };
  socket.onclose = ({code}) => resolve({code, told});
})
"""


@pytest.fixture
async def elsewhere() -> AsyncIterator[str]:
    """The origin of some other web page."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n"
        writer.write(head + b"Connection: close\r\n\r\nhere")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_browser_plays_along(page: Page, elsewhere: str) -> None:
    """A page of an origin that was named joins through the balancer, is heard, and hears itself."""
    async with open_cluster(broker="pubsub", origins=[elsewhere]) as cluster:
        (p1,) = await cluster.join("P1", server="B")
        await page.goto(elsewhere)
        played = await page.evaluate(PLAY, [cluster.url, "Web"])
        await cluster.settle()
        assert [message["type"] for message in played["told"]] == ["welcome", "event"]
        assert [(event.player, event.body) for event in p1.heard] == [("Web", "<b>hi</b>")]


async def test_a_page_of_the_server_s_own_origin_may_connect(page: Page) -> None:
    """What a browser shows at the server's own address is no stranger to it."""
    async with open_cluster(broker="none", servers=["A"]) as cluster:
        url = cluster.servers["A"].url
        await page.goto(url.replace("ws://", "http://"))
        assert (await page.evaluate(PLAY, [url, "Web"]))["told"][0]["type"] == "welcome"


async def test_a_page_from_elsewhere_is_refused(page: Page, elsewhere: str) -> None:
    """A page of another origin gets no connection, at the balancer nor at a server (HTTP 403)."""
    async with open_cluster(broker="none") as cluster:
        await page.goto(elsewhere)
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text))
        for url in (cluster.url, cluster.servers["A"].url):
            assert await page.evaluate(PLAY, [url, "Web"]) == {"code": 1006, "told": []}
        assert [("403" in text) for text in refused] == [True, True]
        assert cluster.trace.select("join") == []
