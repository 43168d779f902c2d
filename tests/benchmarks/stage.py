"""How fast the stage draws, in headless Chromium: prints a table.

Time is that of the stage's own script, in milliseconds, unless a line says otherwise. Machines
differ and are shared, so nothing here passes or fails; the figures stand beside the wanted ones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from playwright.async_api import Page, async_playwright

from tests.chromium import NO_CHROMIUM, find_chromium
from wsdemo.page import module, style
from wsdemo.story import tell
from wsdemo.trace import Trace

PAGE = """<!doctype html><meta charset="utf-8"><title>benchmark</title><style>{style}</style>
<div id="here"></div><div style="height: 3000px"></div><div id="below"></div>
<script type="module">{module}
window.mount = mount;
window.worked = [];
const ask = window.requestAnimationFrame;
window.requestAnimationFrame = (callback) => ask((now) => {{
  const began = performance.now();
  callback(now);
  worked.push(performance.now() - began);
}});
window.share = (list, part) =>
  list.slice().sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(list.length * part))];
window.ready = true;
</script>"""

PLAY = """async ([runs, seconds]) => {
  const view = mount(here, {runs});
  view.seek(3);
  worked.length = 0;
  view.play();
  await new Promise((done) => setTimeout(done, 1000 * seconds));
  view.pause();
  const found = {p50: share(worked, 0.5), p95: share(worked, 0.95), frames: worked.length,
    tokens: view.worlds[0].tokens.length};
  view.destroy();
  return found;
}"""

SHOW = """async (text) => {
  const began = performance.now();
  const view = mount(here, {runs: JSON.parse(text)});
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const shown = performance.now() - began;
  const scrubs = Array.from({length: 100}, (_, n) => {
    const start = performance.now();
    view.seek(view.alignment.length * ((n * 0.618) % 1));
    return performance.now() - start;
  });
  view.destroy();
  return {shown, p50: share(scrubs, 0.5), p95: share(scrubs, 0.95), max: Math.max(...scrubs)};
}"""

# One event's items, again and again, to a live stage that has so much already.
GROW = """async ([run, more, end]) => {
  const view = mount(here, {runs: [run], live: true});
  const film = view.films[0];
  const costs = [];
  for (let n = 0; n < 200; n += 1) {
    const items = more.map((item) => ({...item, event: `${item.event} again ${n}`}));
    const shift = film.end - end;
    for (const item of items) {
      for (const key of ["s", "s0", "s1"]) if (key in item) item[key] += shift;
    }
    const start = performance.now();
    view.add({run: 0, from: film.had, items, end: film.end + 1});
    view._tick(performance.now());
    costs.push(performance.now() - start);
  }
  view.destroy();
  return share(costs, 0.5);
}"""

IDLE = """async (runs) => {
  const count = async (view) => {
    await new Promise((done) => setTimeout(done, 300));
    worked.length = 0;
    await new Promise((done) => setTimeout(done, 1000));
    const frames = worked.length;
    view.destroy();
    return frames;
  };
  const paused = mount(here, {runs});
  const found = {paused: await count(paused)};
  const away = mount(below, {runs});
  away.play();
  return {...found, away: await count(away)};
}"""


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    what: str
    found: str
    wanted: str


def crowd(players: int = 300, servers: int = 8, tokens: int = 1000, hops: int = 30) -> Any:
    """A run in which so many messages are on their way at every moment."""
    names = [f"S{n}" for n in range(servers)]
    items: list[dict[str, Any]] = [{"type": "beat", "s": 0, "caption": "A crowd"}]
    for n in range(players):
        place = {"s0": 0.1, "s1": 0.2, "player": f"P{n}", "server": names[n % servers]}
        items.append({"type": "place", **place})
    for n in range(tokens * hops):
        s, player, event = 1 + n / tokens, n % players, f"P{n % players}-{n}"
        if n % 5 == 0:
            said = {"event": event, "player": f"P{player}", "body": f"word {n}"}
            items.append({"type": "said", "s": s, **said})
        server = names[player % servers]
        source, target = [(f"P{player}", server), (server, "redis"), (server, f"P{player}")][n % 3]
        hop = {"s0": s, "s1": s + 1, "event": event, "source": source, "target": target, "ms": 0.4}
        items.append({"type": "hop", **hop})
        if n % 5 == 4:
            outcome = {"event": event, "player": f"P{player}", "outcome": "heard", "cause": ""}
            items.append({"type": "outcome", "s": s + 1, **outcome})
    return {
        "title": "A crowd",
        "broker": "pubsub",
        "servers": names,
        "items": items,
        "end": hops + 2,
    }


def long_trace(records: int, players: int = 12, servers: int = 4) -> Trace:
    """A run with so many records, as a cluster would write them."""
    names = [f"S{n}" for n in range(servers)]
    trace = Trace(broker="pubsub", servers=names, game="g")
    on = {f"P{n}": names[n % servers] for n in range(players)}
    for player, server in on.items():
        trace.append("connect", player, "balancer")
        trace.append("route", "balancer", server, player=player)
        trace.append("subscribe", server, "redis", channel="game:g")
        trace.append("join", server, player, game="g")
        trace.append("welcome", player, server)
    for event, sender in events(on):
        if len(trace) >= records:
            break
        if event.endswith("0"):
            trace.append("step", "scenario", caption=f"Then {event}")
        trace.append("send", sender, on[sender], event, body="jump")
        trace.append("receive", on[sender], sender, event, body="jump", game="g")
        trace.append("publish", on[sender], "redis", event, receivers=servers, game="g")
        for server in names:
            trace.append("relay", server, "redis", event, game="g")
        for player, server in on.items():
            trace.append("deliver", server, player, event, game="g")
            trace.append("hear", player, server, event)
        trace.append("settle", "scenario")
    return trace


def events(players: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Ids and senders, in turn, without end."""
    n = 0
    while True:
        n += 1
        for player in players:
            yield f"{player}/{n}", player


def told(trace: Trace) -> Any:
    """A trace as the stage gets it."""
    return msgspec.to_builtins(tell(trace))


async def measure(page: Page) -> list[Line]:
    """Every line of the table."""
    played = await page.evaluate(PLAY, [[crowd()], 10])
    long = told(long_trace(100_000))
    short = told(long_trace(1_000))
    text = json.dumps([long])
    shown = await page.evaluate(SHOW, text)
    more = [item for item in short["items"] if "event" in item][-60:]
    more = [item for item in more if item["event"] == more[-1]["event"]]
    costs = [await page.evaluate(GROW, [run, more, short["end"]]) for run in (short, long)]
    idle = await page.evaluate(IDLE, [short])
    size = len(module().encode())
    count = f"{len(long['items']):,} items, {len(text) / 1e6:.1f} MB"
    return [
        Line(
            f"a frame: 300 players, 8 servers, {played['tokens']:,} tokens, "
            f"{played['frames']} frames",
            f"p50 {played['p50']:.1f}, p95 {played['p95']:.1f}",
            "p95 ≤ 8",
        ),
        Line(f"100,000 records ({count}) until painted", f"{shown['shown']:.0f}", "≤ 1500"),
        Line(
            "a scrub in it, script and layout of 100",
            f"p50 {shown['p50']:.1f}, p95 {shown['p95']:.1f}, max {shown['max']:.1f}",
            "≤ 16",
        ),
        Line(
            f"one live event of {len(more)} items, after 1,000 and after 100,000 records",
            f"{costs[0]:.2f} and {costs[1]:.2f}, ratio {costs[1] / costs[0]:.2f}",
            "ratio about 1",
        ),
        Line("frames in a second, paused", f"{idle['paused']}", "0"),
        Line("frames in a second, playing off-screen", f"{idle['away']}", "0"),
        Line("the module, in bytes", f"{size:,}", "< 60,000"),
    ]


async def main() -> None:
    """Print the table."""
    path = find_chromium()
    if path is None:
        raise SystemExit(NO_CHROMIUM)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=flags)
        page = await browser.new_page(viewport={"width": 1600, "height": 1200})
        await page.set_content(PAGE.format(style=style(), module=module()))
        await page.wait_for_function("window.ready")
        lines = await measure(page)
        await browser.close()
    width = max(len(line.what) for line in lines)
    for line in lines:
        print(f"{line.what:<{width}}  {line.found:<32}  wanted: {line.wanted}")


if __name__ == "__main__":
    asyncio.run(main())
