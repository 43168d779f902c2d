// What is the case at a moment, and where: by example, and by property at many moments of many runs.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { listed, named, shorten } from "../../wsdemo/static/words.js";
import { Alignment, columnsAt, countUpTo, describe, differences, Film, worldAt } from "../../wsdemo/static/film.js";
import { elapsed, inMinutes, leftOf, turned } from "../../wsdemo/static/presenter.js";
import { castOf, fitted, layout, pathBetween, pointAt, rowsAt, STUB } from "../../wsdemo/static/layout.js";

// A run as story.py tells it: P1 moves to B while P2 stays on A and says something.

const joins = [
  { type: "beat", s: 0, caption: "Everyone plays on A" },
  { type: "place", s0: 0.5, s1: 1.5, player: "P1", server: "A" },
  { type: "place", s0: 1.5, s1: 2.5, player: "P2", server: "A" },
];
const moves = (s) => [
  { type: "beat", s, caption: "P1 comes back on B" },
  { type: "place", s0: s + 0.5, s1: s + 0.5, player: "P1", server: "" },
  { type: "place", s0: s + 1.5, s1: s + 2.5, player: "P1", server: "B" },
];
const hop = (event, s0, source, target) => ({ type: "hop", s0, s1: s0 + 1, event, source, target, ms: 0.5 });
const outcome = (event, s, player, what = "heard", cause = "") => ({ type: "outcome", s, event, player, outcome: what, cause });

const none = {
  title: "Without a broker", broker: "none", servers: ["A", "B"], end: 8,
  items: [
    ...joins, ...moves(2.5),
    { type: "beat", s: 5, caption: "P2 says “hide”" },
    { type: "said", s: 5.5, event: "P2-1", player: "P2", body: "hide" },
    hop("P2-1", 5.5, "P2", "A"), hop("P2-1", 6.5, "A", "P2"),
    outcome("P2-1", 7.5, "P2"),
    { type: "loss", s0: 6.5, s1: 7.5, event: "P2-1", source: "A", target: "B", players: ["P1"], cause: "no broker between servers" },
    outcome("P2-1", 7.5, "P1", "missed", "no broker between servers"),
  ],
};
const pubsub = {
  title: "With Redis Pub/Sub", broker: "pubsub", servers: ["A", "B"], end: 10,
  items: [
    ...joins, { type: "link", s: 1, server: "A", up: true, channel: "game:g" },
    ...moves(2.5), { type: "link", s: 4.5, server: "B", up: true, channel: "game:g" },
    { type: "beat", s: 5, caption: "P2 says “hide”" },
    { type: "said", s: 5.5, event: "P2-1", player: "P2", body: "hide" },
    hop("P2-1", 5.5, "P2", "A"), hop("P2-1", 6.5, "A", "redis"),
    hop("P2-1", 7.5, "redis", "B"), hop("P2-1", 7.5, "redis", "A"),
    hop("P2-1", 8.5, "B", "P1"), outcome("P2-1", 9.5, "P1"),
    hop("P2-1", 8.5, "A", "P2"), outcome("P2-1", 9.5, "P2"),
  ],
};

const playerIn = (world, name) => world.players.find((player) => player.name === name);
const moments = (end, step = 0.13) => Array.from({ length: Math.ceil(end / step) + 1 }, (_, at) => Math.min(end, at * step));

// The same sequence of numbers every time (mulberry32).
function chance(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A run in which players join, move and speak; each event is heard or missed by each. */
function madeUp(seed) {
  const next = chance(seed);
  const servers = ["A", "B", "C"].slice(0, 1 + Math.floor(next() * 3));
  const names = Array.from({ length: 1 + Math.floor(next() * 6) }, (_, at) => `P${at + 1}`);
  const pick = (list) => list[Math.floor(next() * list.length)];
  const items = [];
  const home = new Map();
  let s = 0;
  for (let beat = 0; beat < 4; beat += 1) {
    items.push({ type: "beat", s, caption: `beat ${beat}` });
    s += 0.5;
    for (const name of names.filter(() => next() < 0.5)) {
      if (home.has(name)) items.push({ type: "place", s0: s, s1: s, player: name, server: "" });
      const server = pick(servers);
      home.set(name, server);
      items.push({ type: "place", s0: s + 1, s1: s + 2, player: name, server });
      s += 2;
    }
    for (let n = 0; n < 3 && home.size; n += 1) {
      const sender = pick([...home.keys()]);
      const event = `${sender}-${beat}-${n}`;
      items.push({ type: "said", s, event, player: sender, body: `word ${n}` }, hop(event, s, sender, home.get(sender)));
      const late = [];
      for (const [name, server] of home) {
        if (server === home.get(sender)) {
          items.push(hop(event, s + 1, server, name), outcome(event, s + 2, name));
        } else {
          late.push({ type: "loss", s0: s + 1, s1: s + 2, event, source: home.get(sender), target: server, players: [name], cause: "no broker between servers" });
          late.push(outcome(event, s + 2, name, "missed", "no broker between servers"));
        }
      }
      items.push(...late);
      s += 0.4;
    }
    s += 2;
  }
  return { title: `run ${seed}`, broker: "none", servers, items, end: s };
}

const madeUpRuns = Array.from({ length: 30 }, (_, seed) => madeUp(seed + 1));

test("counting up to a moment agrees with looking at each entry", () => {
  const list = [0, 1, 1, 2.5, 4];
  for (const s of [-1, 0, 1, 2, 2.5, 9]) {
    assert.equal(countUpTo(list.map((n) => ({ s: n })), s), list.filter((n) => n <= s).length);
  }
});

test("the runs share beats, each as long as in the run where it lasts longest", () => {
  const { beats, length } = new Alignment([new Film(none), new Film(pubsub)]);
  assert.deepEqual(beats.map(({ start, duration }) => [start, duration]), [[0, 2.5], [2.5, 2.5], [5, 5]]);
  assert.equal(length, 10);
});

test("a run whose beat is shorter waits at the beat's end", () => {
  const alignment = new Alignment([new Film(none), new Film(pubsub)]);
  assert.equal(alignment.storyTime(0, 6), 6);
  assert.equal(alignment.storyTime(0, 9), 8);
  assert.equal(alignment.storyTime(1, 9), 9);
});

test("the moment between two beats belongs to the first, and the next begins just after", () => {
  const alignment = new Alignment([new Film(none), new Film(pubsub)]);
  for (const [at, { begin, end }] of alignment.beats.entries()) {
    assert.equal(alignment.beatAt(begin), at);
    assert.equal(alignment.beatAt(end), at);
  }
});

test("a run without beats, or with something before the first, is one beat more", () => {
  const { beats } = new Alignment([new Film({ ...none, items: none.items.filter((item) => item.type !== "beat") })]);
  assert.deepEqual(beats.map(({ caption, end }) => [caption, end]), [["", 8]]);
  assert.equal(new Alignment([]).length, 0);
});

test("what happens in a run is in the beat that has begun by then, also before the first", () => {
  const alignment = new Alignment([new Film(none), new Film(pubsub)]);
  assert.deepEqual([0, 2.4, 2.6, 5.5, 99].map((s) => alignment.beatOf(1, s)), [0, 0, 1, 2, 2]);
  const later = new Alignment([new Film({ ...none, items: none.items.filter(({ s }) => s !== 0) })]);
  assert.equal(later.beats[0].caption, "");
  assert.deepEqual([1, 2.6, 5.5].map((s) => later.beatOf(0, s)), [0, 1, 2]);
});

test("a watch adds up the times for which it ran, and stands when the clock on the wall is put back", () => {
  const started = turned({ ran: 0, since: 0 }, 1000);
  assert.deepEqual([1000, 4500, 500].map((now) => elapsed(started, now)), [0, 3500, 0]);
  const stopped = turned(started, 4500);
  assert.equal(elapsed(stopped, 99_000), 3500);
  assert.equal(elapsed(turned(stopped, 10_000), 11_000), 4500);
});

test("a time is told in minutes and seconds, and of what is planned what is left or too much", () => {
  assert.deepEqual([0, 59.9, 61, 600, 6000].map(inMinutes), ["00:00", "00:59", "01:01", "10:00", "100:00"]);
  assert.deepEqual([10, 60, 61].map((seconds) => leftOf(seconds, 60)), ["00:50 left of 01:00", "00:00 left of 01:00", "00:01 over 01:00"]);
  assert.equal(leftOf(61, 0), "");
});

test("a player is expected, connects, is connected, away, and connects elsewhere", () => {
  const film = new Film(none);
  const states = [0, 1, 2, 3.2, 4.5, 6].map((s) => {
    const { state, home } = playerIn(worldAt(film, s), "P1");
    return `${state} ${home}`;
  });
  assert.deepEqual(states, ["expected A", "connecting A", "connected A", "away A", "connecting B", "connected B"]);
  assert.deepEqual(worldAt(film, 6).servers.map(({ holds }) => holds), [["P2"], ["P1"]]);
});

test("a player that has left fades away, and its connection's end does not bring it back", () => {
  const left = [{ type: "left", s: 8, player: "P1" }, { type: "place", s0: 8, s1: 8, player: "P1", server: "" }];
  const film = new Film({ ...none, items: [...none.items, ...left], end: 9 });
  assert.equal(playerIn(worldAt(film, 8.1), "P1").state, "left");
  assert.equal(playerIn(worldAt(film, 9), "P1").presence, 0);
  assert.deepEqual(worldAt(film, 9).servers[1].holds, []);
});

test("a server is linked to Redis from when it has subscribed", () => {
  const film = new Film(pubsub);
  const subscribed = (s) => worldAt(film, s).servers.map((server) => server.channel);
  assert.deepEqual([subscribed(0), subscribed(1), subscribed(4.5)], [["", ""], ["game:g", ""], ["game:g", "game:g"]]);
});

test("Redis keeps what it was told to keep last, Pub/Sub nothing, and without a broker nobody does", () => {
  const stream = { ...pubsub, broker: "stream", items: [
    ...pubsub.items, { type: "keeps", s: 7.5, count: 1 }, { type: "keeps", s: 9, count: null }, { type: "keeps", s: 9.5, count: 3 }] };
  const keeps = (run, s) => worldAt(new Film(run), s).keeps;
  assert.deepEqual([7, 7.5, 8.9, 9, 9.6].map((s) => keeps(stream, s)), [null, 1, 1, null, 3]);
  assert.deepEqual([keeps(pubsub, 9.6), keeps(none, 7)], [0, null]);
  const told = (run, s) => describe(new Film(run), "redis", worldAt(new Film(run), s)).facts;
  assert.deepEqual(told(stream, 8).at(-1), ["keeps", "1 event"]);
  assert.deepEqual(told(stream, 9.6).at(-1), ["keeps", "3 events"]);
  assert.deepEqual(told(stream, 9).at(-1)[0], "game:g");
});

test("a slot is not there, then pending, then decided", () => {
  const film = new Film(none);
  const slot = (s) => worldAt(film, s, { events: ["P2-1"] }).players[0].strip[0];
  assert.equal(slot(5.4), null);
  assert.equal(slot(6).outcome, "pending");
  assert.deepEqual(slot(7.5), { outcome: "missed", cause: "no broker between servers" });
});

test("an event that comes twice counts once as heard and once as twice, however often it comes", () => {
  const items = [...none.items, outcome("P2-1", 7.7, "P2", "twice"), outcome("P2-1", 7.8, "P2", "twice")];
  const film = new Film({ ...none, items });
  assert.deepEqual(worldAt(film, 7.6).counts, { heard: 1, missed: 1, twice: 0 });
  assert.deepEqual(worldAt(film, 8).counts, { heard: 1, missed: 1, twice: 1 });
});

test("an event that was missed and is heard later is missed no longer", () => {
  const film = new Film({ ...none, items: [...none.items, outcome("P2-1", 7.9, "P1")] });
  assert.deepEqual(worldAt(film, 7.6).counts, { heard: 1, missed: 1, twice: 0 });
  assert.deepEqual(worldAt(film, 8).counts, { heard: 2, missed: 0, twice: 0 });
});

test("a loss stays in sight until its beat ends", () => {
  const film = new Film({ ...none, items: [...none.items, { type: "beat", s: 8, caption: "later" }], end: 9 });
  const seen = (s, since) => worldAt(film, s, { since }).losses.length;
  assert.deepEqual([seen(6, 5), seen(7, 5), seen(8, 5), seen(8.1, 8)], [0, 1, 1, 0]);
});

test("at every moment each token is on a hop that the run has, and nothing arrives before it left", () => {
  for (const run of [none, pubsub, ...madeUpRuns]) {
    const film = new Film(run);
    const hops = run.items.filter((item) => item.type === "hop");
    for (const s of moments(run.end)) {
      const { tokens } = worldAt(film, s);
      assert.equal(tokens.length, hops.filter((one) => one.s0 <= s && s < one.s1).length);
      for (const token of tokens) {
        assert.ok(token.item.s0 <= s && s <= token.item.s1 && token.fraction >= 0 && token.fraction <= 1);
        assert.ok(hops.includes(token.item));
      }
    }
  }
});

test("at the end the world equals the outcomes, and the strips add up to the counts", () => {
  for (const run of [none, pubsub, ...madeUpRuns]) {
    const world = worldAt(new Film(run), run.end);
    const last = new Map(run.items.filter((item) => item.type === "outcome").map((item) => [`${item.event} ${item.player}`, item.outcome]));
    const count = (what) => [...last.values()].filter((one) => one === what).length;
    assert.deepEqual(world.counts, { heard: count("heard"), missed: count("missed"), twice: 0 });
    const slots = world.players.flatMap((player) => player.strip.filter(Boolean));
    assert.equal(slots.filter((slot) => slot.outcome === "heard").length, count("heard"));
    assert.equal(slots.filter((slot) => slot.outcome === "missed").length, count("missed"));
    assert.equal(world.players.reduce((sum, player) => sum + player.missed, 0), count("missed"));
  }
});

test("a player is held by at most one server, and only if it is connected", () => {
  for (const run of madeUpRuns) {
    const film = new Film(run);
    for (const s of moments(run.end, 0.3)) {
      const world = worldAt(film, s);
      const held = world.servers.flatMap((server) => server.holds);
      assert.equal(new Set(held).size, held.length);
      for (const name of held) assert.equal(playerIn(world, name).state, "connected");
    }
  }
});

test("items in pieces make the same film as all at once", () => {
  for (const run of [none, pubsub, ...madeUpRuns]) {
    const whole = new Film(run);
    for (const piece of [1, 3, 7]) {
      const film = new Film({ ...run, items: [], end: 0 });
      for (let at = 0; at < run.items.length; at += piece) film.append(run.items.slice(at, at + piece), run.end);
      assert.equal(film.had, whole.had);
      for (const s of moments(run.end, 0.7)) assert.deepEqual(worldAt(film, s), worldAt(whole, s));
    }
  }
});

test("adding an item to a long run costs no more than to a short one", () => {
  const film = new Film({ ...none, items: [], end: 0 });
  let looked = 0;
  const counted = (s) => ({ type: "hop", get s0() { looked += 1; return s; }, s1: s + 1, event: "e", source: "A", target: "B" });
  const cost = (from) => {
    const before = looked;
    for (let at = 0; at < 100; at += 1) film.append([counted(from + at)], from + at);
    return looked - before;
  };
  const short = cost(0);
  for (let s = 100; s < 5000; s += 1) film.append([counted(s)], s);
  assert.ok(cost(5000) <= short + 10);
});

test("the strips have the same columns in all panes, the newest that fit, and say how many were before", () => {
  const films = [new Film(none), new Film(pubsub)];
  assert.deepEqual(columnsAt(new Alignment(films), 10, 5), { events: ["P2-1"], before: 0 });
  assert.deepEqual(columnsAt(new Alignment(films), 4, 5), { events: [], before: 0 });
  const run = madeUpRuns.find(({ items }) => items.filter((item) => item.type === "said").length > 6);
  const said = run.items.filter((item) => item.type === "said").map((item) => item.event);
  const film = new Film(run);
  const columns = columnsAt(new Alignment([film]), run.end, 4);
  assert.deepEqual(columns, { events: said.slice(-4), before: said.length - 4 });
});

test("what differs between the panes is what was decided differently, not what is pending", () => {
  const worlds = (s) => [none, pubsub].map((run) => worldAt(new Film(run), s, { events: ["P2-1"] }));
  assert.equal(differences(worlds(8), ["P2-1"])("P2-1", "P1"), false);
  assert.equal(differences(worlds(10), ["P2-1"])("P2-1", "P1"), true);
  assert.equal(differences(worlds(10), ["P2-1"])("P2-1", "P2"), false);
});

test("the parts keep clear of each other in every width and with any number of players", () => {
  for (const width of [0, 320, 421, 600, 1600]) {
    for (const [a, b, room] of [[1, 1], [3, 2], [8, 4], [20, 4], [150, 150], [5, 1, 375], [8, 1, 300]]) {
      const plan = layout({ servers: ["A", "B"], rooms: new Map([["A", a], ["B", b]]), broker: "pubsub", width, room });
      assert.ok(plan.playerX - plan.radius >= 0);
      assert.ok(plan.playerX + plan.radius < plan.bar.x);
      assert.ok(plan.bar.x + plan.bar.width < plan.servers[0].x);
      assert.ok(plan.servers[0].x + plan.servers[0].width < plan.broker.x - plan.broker.rx);
      assert.ok(plan.broker.x + plan.broker.rx <= plan.width);
      assert.ok(plan.servers[0].y + plan.servers[0].height < plan.servers[1].y);
      assert.ok(plan.servers[1].y + plan.servers[1].height <= plan.height);
    }
  }
});

test("with more players or less room a picture is drawn closer, and fits as long as it can", () => {
  const plan = (players, room) => layout({ servers: ["A", "B"], rooms: new Map([["A", players]]), broker: "pubsub", width: 600, room });
  assert.deepEqual([5, 6, 23, 24].map((players) => plan(players).density), ["roomy", "compact", "compact", "flat"]);
  assert.deepEqual([4, 5, 7, 24, 40].map((players) => plan(players, 400).density), ["roomy", "compact", "compact", "flat", "dense"]);
  for (let players = 1; players <= 40; players += 1) assert.ok(plan(players, 300).height <= 300);
  // Where the servers alone are too high, nothing is gained by smaller players.
  const many = layout({ servers: ["A", "B", "C", "D", "E", "F"], rooms: new Map(), broker: "none", width: 600, room: 400 });
  assert.equal(many.density, "compact");
  assert.ok(many.height <= 400);
  // A strip is left out only where there is none at all.
  for (const { density, slots } of [5, 20, 40].map((players) => plan(players))) assert.equal(slots.fit > 0, density !== "dense");
});

/** Pictures of a full screen: of many sizes, and of as many parts as there may be. */
function* pictures() {
  for (const [across, down] of [[1024, 768], [1280, 720], [1280, 800], [1366, 768], [1920, 1080], [2560, 1440]]) {
    for (const panes of [1, 2, 3]) {
      for (const part of [0.3, 0.45, 0.6]) { // of the height, as more or less is open
        for (const names of ["A", "AB", "ABC", "ABCD", "ABCDE", "ABCDEF"]) {
          for (const players of [1, 3, 5, 8, 12, 24, 39]) {
            const servers = [...names];
            const room = [across / panes - 40, down * part, down / 540];
            const inTurn = new Map(servers.map((name, at) => [name, Math.ceil((players - at) / servers.length)]));
            for (const rooms of [inTurn, new Map([["A", players]])]) yield { servers, rooms, broker: "none", panes, players, room };
          }
        }
      }
    }
  }
}

test("on a full screen all else gives way before the strips: gaps, servers, the way of the strip, and letters", () => {
  let found = 0;
  for (const { panes, players, room: [width, height, zoom], ...pane } of pictures()) {
    const { layouts } = fitted(Array(panes).fill(pane), width, height, zoom);
    const [{ slots, density, ...plan }] = layouts;
    const scale = Math.min(width / plan.width, height / plan.height);
    const servers = pane.servers.length;
    const rows = pane.servers.reduce((sum, name) => sum + Math.max(1, pane.rooms.get(name) ?? 0), 0);
    const told = JSON.stringify({ ...pane, panes, players, width, height, density, scale });
    if (slots.fit) {
      assert.ok(slots.fit >= 3, told);
      assert.ok(slots.x + slots.fit * slots.pitch <= plan.bar.x, told);
      assert.ok(slots.x > plan.playerX + (density === "roomy" ? -Infinity : plan.radius), told);
      assert.ok(slots.below + slots.size <= plan.pitch + plan.radius, told);
      // With enough letters to be read, unless nothing else would be gained.
      const servable = Math.min(1, width / 320 / zoom, height / (28 + 42 * servers + 4 * (servers - 1)) / zoom);
      assert.ok(scale / zoom >= Math.min(0.6, servable) - 0.01, told);
    } else {
      // Not even the closest strips would have fitted.
      found += 1;
      const closest = 28 + pane.servers.reduce((sum, name) => sum + Math.max(42, 10 * (pane.rooms.get(name) ?? 0)) + 4, -4);
      const smallest = rows > 24 ? 1 : 0.6; // boxes of a crowd are not worth letters
      assert.ok(rows > 40 || closest > height / Math.min(zoom * smallest, width / 320), told);
    }
  }
  assert.ok(found > 0);
});

test("a few players on four servers have their strips in letters as large as they are meant to be", () => {
  for (const { panes, players, room: [width, height, zoom], ...pane } of pictures()) {
    if (pane.servers.length > 4 || players > 5 || height < 0.4 * 540 * zoom || width < 320 * zoom) continue;
    const { layouts: [{ slots, ...plan }] } = fitted([pane], width, height, zoom);
    assert.ok(slots.fit >= 3 && Math.min(width / plan.width, height / plan.height) >= 0.9 * zoom, JSON.stringify({ ...pane, width, height }));
  }
});

test("players stand in rows of their own, within the picture, and move without jumps", () => {
  for (const run of [none, pubsub, ...madeUpRuns]) {
    const film = new Film(run);
    const plan = layout({ servers: run.servers, rooms: film.rooms, broker: run.broker, width: 600 });
    let before = new Map();
    for (const s of moments(run.end, 0.01)) {
      const world = worldAt(film, s);
      const rows = rowsAt(world.players, plan);
      for (const [name, { y }] of rows) {
        assert.ok(y > 0 && y < plan.height, `${name} at ${y} of ${plan.height}`);
        const far = Math.abs(y - (before.get(name)?.y ?? y));
        assert.ok(far < plan.pitch / 4, `${run.title}: ${name} jumps by ${far} at ${s}`);
      }
      before = rows;
      if (world.players.some((player) => player.state === "connecting" || player.state === "left")) continue;
      const ys = [...rows.values()].map(({ y }) => y).sort((a, b) => a - b);
      ys.slice(1).forEach((y, at) => assert.ok(y - ys[at] > plan.pitch - 0.01));
    }
  }
});

test("a path ends where its parts are, and a token is where the fraction says", () => {
  const film = new Film(pubsub);
  const plan = layout({ servers: ["A", "B"], rooms: film.rooms, broker: "pubsub", width: 600 });
  const rows = rowsAt(worldAt(film, 10).players, plan);
  const path = pathBetween(plan, rows, "P1", "B");
  assert.deepEqual(pointAt(path, 0), path.points[0]);
  assert.ok(Math.abs(pointAt(path, 1).x - plan.servers[1].x) < 1e-6);
  assert.ok(pointAt(path, 0.5).x > pointAt(path, 0.4).x);
  assert.deepEqual(pathBetween(plan, rows, "B", "P1").points, path.points.toReversed());
  assert.ok(Math.abs(pointAt(pathBetween(plan, rows, "A", "redis"), 1).x - (plan.broker.x - plan.broker.rx)) < 1e-6);
  assert.equal(pathBetween(plan, rows, "nobody", "nowhere"), null);
});

test("hostile names and bodies become short text on one line that turns nothing around", () => {
  assert.equal(shorten("hide"), "hide");
  assert.equal(shorten("<img src=x onerror=alert(1)>"), "<img src=x one…");
  assert.equal(shorten("a\u202egnol\u2066 \n\u0000b"), "a gnol b");
  assert.equal(Array.from(shorten("x".repeat(10_000))).length, 15);
  assert.equal(shorten("😀".repeat(20)), `${"😀".repeat(14)}…`);
  assert.equal(shorten("שלום"), "\u2068שלום\u2069");
  assert.equal(shorten(""), "");
});

test("names that differ at their ends differ when they are cut", () => {
  assert.equal(named("P1"), "P1");
  assert.equal(named("eu-west-1-game-a", 9), "eu-w…me-a");
  assert.notEqual(named("Player of the east"), named("Player of the west"));
  assert.equal(named("😀".repeat(20), 7), `${"😀".repeat(3)}…${"😀".repeat(3)}`);
  assert.ok(Array.from(named(`<b>\u202e${"x".repeat(40)}\n`)).length <= 14);
});

test("a few names are listed, and of many how many more there are", () => {
  assert.deepEqual([[], ["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d", "e"]].map(listed), ["", "a", "a and b", "a, b and c", "a, b, c and 2 more"]);
});

test("players differ in colour or shape, and look the same in every pane", () => {
  const items = Array.from({ length: 56 }, (_, at) => ({ type: "place", s0: at, s1: at + 1, player: `P${at}`, server: "A" }));
  const cast = castOf([new Film({ ...none, items }), new Film({ ...none, items: items.slice().reverse() })]);
  assert.equal(new Set([...cast.values()].map(({ hue, d }) => hue + d)).size, 56);
});

test("players keep their looks when other runs are shown, or in another order", () => {
  const items = ["P1", "P2", "P3"].map((player, at) => ({ type: "place", s0: at, s1: at + 1, player, server: "A" }));
  const cast = castOf([new Film({ ...none, items })]);
  const later = castOf([new Film({ ...none, items: items.slice(1) }), new Film({ ...none, items: items.slice(0, 1) })], cast.keys());
  assert.deepEqual([...later], [...cast]);
});

test("while a film is still, players and parts are the same", () => {
  for (const run of [none, pubsub, ...madeUpRuns]) {
    const film = new Film(run);
    const view = { events: film.said.map(({ event }) => event) };
    let before = worldAt(film, 0, view);
    for (const s of moments(run.end, 0.07)) {
      const now = worldAt(film, s, view);
      if (film.isStill(before.s, s)) {
        assert.deepEqual(now.players, before.players);
        assert.deepEqual(now.servers, before.servers);
      }
      before = now;
    }
  }
});

test("a server is up, frozen, down; one that is added was not there before", () => {
  const health = (s, part, state) => ({ type: "health", s, part, state });
  const items = [...pubsub.items, health(6, "B", "frozen"), health(7, "B", "down"), health(8, "C", "up"), health(8.5, "redis", "down")];
  const film = new Film({ ...pubsub, items });
  const states = (s) => worldAt(film, s).servers.map(({ state }) => state);
  assert.deepEqual(film.servers, ["A", "B", "C"]);
  assert.deepEqual([states(5), states(6.5), states(7.5), states(9)], [
    ["up", "up", "absent"], ["up", "frozen", "absent"], ["up", "down", "absent"], ["up", "down", "up"],
  ]);
  assert.deepEqual([worldAt(film, 8).redis, worldAt(film, 9).redis], ["up", "down"]);
});

test("a part that stands still counts what has come to it, until it goes on or dies", () => {
  const health = (s, part, state) => ({ type: "health", s, part, state });
  const film = new Film({
    ...pubsub, end: 20,
    items: [
      ...joins, hop("P2-1", 2, "P2", "A"), health(4, "A", "frozen"), health(4, "redis", "frozen"),
      hop("P2-2", 4, "P2", "A"), hop("P1-1", 5, "P1", "A"), hop("P3-1", 5, "B", "redis"),
      health(9, "A", "up"), hop("P2-3", 9, "P2", "A"), health(10, "redis", "down"),
    ],
  });
  const waiting = (s) => [worldAt(film, s).servers[0].waiting, worldAt(film, s).waiting];
  assert.deepEqual([3.5, 4.5, 5, 6, 8.9, 9.5, 10].map(waiting), [[0, 0], [0, 0], [1, 0], [2, 1], [2, 1], [0, 1], [0, 0]]);
  assert.equal(film.isStill(4.5, 5), false);
  assert.equal(film.isStill(7, 8), true);
  const state = (s) => Object.fromEntries(describe(film, "server A", worldAt(film, s)).facts).state;
  assert.deepEqual([5, 6, 9.5].map(state), ["frozen, 1 waits", "frozen, 2 wait", "up"]);
});

test("what was lost in a part is seen at its foot", () => {
  const plan = layout({ servers: ["A", "B"], rooms: new Map(), broker: "pubsub", width: 600 });
  for (const part of ["A", "redis"]) {
    const { x, y } = pointAt(pathBetween(plan, new Map(), part, part), 1);
    const box = part === "A" ? plan.servers[0] : { x: plan.broker.x, width: 0, y: plan.broker.y, height: plan.broker.height / 2 };
    assert.ok(x === box.x + box.width / 2 && y === box.y + box.height);
  }
});

test("the inspector tells of a message its way, its frames and what became of it", () => {
  const items = pubsub.items.map((item) => (item.type === "said" ? { ...item, frame: '{"type":"send"}' } : item));
  const film = new Film({ ...pubsub, items: [...items, { type: "frame", s: 7, event: "P2-1", frame: '{"type":"event"}' }] });
  const { title, facts, texts } = describe(film, "event P2-1", worldAt(film, 10));
  assert.equal(title, "“hide” from P2");
  assert.deepEqual(facts, [
    ["P2 → A", "0.5 ms"], ["A → redis → B", "0.5 ms"], ["A → redis → A", "0.5 ms"], ["B → P1", "0.5 ms"], ["A → P2", "0.5 ms"],
    ["P1", "heard"], ["P2", "heard"],
  ]);
  assert.deepEqual(texts, [["sent", '{"type":"send"}'], ["relayed", '{"type":"event"}']]);
  const early = describe(film, "event P2-1", worldAt(film, 5.6)).facts;
  assert.deepEqual(early, [["P2 → A", "0.5 ms"], ["P1", "pending"], ["P2", "pending"]]);
  const missed = new Film(none);
  assert.deepEqual(describe(missed, "event P2-1", worldAt(missed, 8)).facts.at(-2), ["P1", "missed: no broker between servers"]);
});

test("the inspector tells of a server who is on it, what it is subscribed to and what it has done", () => {
  const film = new Film(pubsub);
  const facts = (name, s) => Object.fromEntries(describe(film, `server ${name}`, worldAt(film, s)).facts);
  assert.deepEqual(facts("A", 10), { state: "up", players: "P2", "subscribed to": "game:g", received: "1", published: "1", relayed: "1", delivered: "1" });
  assert.deepEqual(facts("B", 4.9), { state: "up", players: "nobody", "subscribed to": "game:g", received: "0", published: "0", relayed: "0", delivered: "0" });
});

test("a server's counters count each its own hops", () => {
  const many = (n, source, target) => Array.from({ length: n }, (_, at) => hop(`${source}-${at}`, at, source, target));
  const items = [...joins, ...many(5, "P1", "A"), ...many(3, "A", "redis"), ...many(7, "redis", "A"), ...many(2, "A", "P1")];
  const film = new Film({ ...pubsub, items });
  const facts = Object.fromEntries(describe(film, "server A", worldAt(film, 20)).facts);
  assert.deepEqual([facts.received, facts.published, facts.relayed, facts.delivered], ["5", "3", "7", "2"]);
});

test("a loss of a player that is back is out of sight, and in a beat without end each after a while", () => {
  const away = { type: "loss", s0: 3.2, s1: 4.2, event: "P2-1", source: "A", target: "P1", players: ["P1"], cause: "player away" };
  const film = new Film({ ...none, items: [...none.items, away], end: 30 });
  const causes = (s, since) => worldAt(film, s, { since }).losses.map(({ item }) => item.cause);
  assert.deepEqual(causes(4.3, 2.5), ["player away"]);
  assert.deepEqual(causes(4.9, 2.5).includes("player away"), true);
  assert.deepEqual(causes(5, 2.5).includes("player away"), false);
  assert.deepEqual([causes(18, 5).length, causes(20, 5).length], [1, 0]);
});

test("stubs towards several servers stand side by side", () => {
  const plan = layout({ servers: ["A", "B", "C"], rooms: new Map(), broker: "none", width: 600 });
  const xs = ["B", "C"].map((target) => pathBetween(plan, new Map(), "A", target).points[0].x);
  assert.ok(Math.abs(xs[0] - xs[1]) > 20);
});

test("a stub is as long as leaves room for words at its end, or else short", () => {
  const stub = (players) => {
    const plan = layout({ servers: ["A", "B"], rooms: new Map([["A", players]]), broker: "none", width: 600 });
    const { points: [start, end] } = pathBetween(plan, new Map(), "A", "B");
    return [end.y - start.y, plan.servers[1].y - end.y];
  };
  assert.equal(stub(1)[0], STUB);
  const [length, left] = stub(3);
  assert.ok(length > STUB && left >= 45);
});

test("the inspector tells of Redis its channels, who is subscribed, and the last commands", () => {
  const commands = Array.from({ length: 9 }, (_, at) => ({ type: "command", s: at, server: "A", text: `PUBLISH game:g → ${at}` }));
  const film = new Film({ ...pubsub, items: [...pubsub.items, ...commands] });
  const { title, facts, texts } = describe(film, "redis redis", worldAt(film, 7));
  assert.equal(title, "Redis, up");
  assert.deepEqual(facts, [["game:g", "A and B"], ["keeps", "0 events"]]);
  assert.deepEqual(texts.map(([, text]) => text.at(-1)), ["2", "3", "4", "5", "6", "7"]);
});

test("the inspector tells of a player where it is and what it has heard", () => {
  const film = new Film(none);
  const facts = (s) => Object.fromEntries(describe(film, "player P1", worldAt(film, s)).facts);
  assert.deepEqual(facts(8), {
    is: "on B", heard: "0", missed: "1", twice: "0", "“hide” from P2": "missed: no broker between servers",
  });
  assert.equal(facts(3.2).is, "away");
});

// ---- What real clusters have recorded, and what the ledger says of it (see test_javascript.py)

const { STORIES } = process.env;
const recorded = STORIES ? JSON.parse(readFileSync(STORIES, "utf8")) : [];

test("at the end of every recorded run the world equals the ledger", { skip: !STORIES }, () => {
  assert.ok(recorded.length > 0);
  for (const { story, counts, fates } of recorded) {
    const film = new Film(story);
    const world = worldAt(film, story.end);
    assert.deepEqual(world.counts, counts, story.title);
    for (const { name, strip } of world.players) {
      const told = strip.map((slot) => slot && [slot.outcome, slot.cause]);
      assert.deepEqual(told, film.said.map(({ event }) => fates[`${event} ${name}`] ?? null), name);
    }
  }
});

test("in every recorded run each token is on a hop of the trace, and arrives after it left", { skip: !STORIES }, () => {
  for (const { story } of recorded) {
    const film = new Film(story);
    const hops = new Set(story.items.filter(({ type }) => type === "hop"));
    const plan = layout({ servers: film.servers, rooms: film.rooms, broker: story.broker, width: 600 });
    for (const s of moments(story.end)) {
      const { tokens, players } = worldAt(film, s);
      const rows = rowsAt(players, plan);
      for (const { item } of tokens) {
        assert.ok(hops.has(item) && item.s0 <= s && s < item.s1);
        assert.ok(pathBetween(plan, rows, item.source, item.target), `${item.source} → ${item.target} at ${s}`);
        const { player, s: said } = film.messages.get(item.event);
        const arrivals = story.items.filter((one) => one.type === "hop" && one.event === item.event && one.target === item.source);
        const ready = item.source === player ? [said] : arrivals.map(({ s1 }) => s1);
        assert.ok(Math.min(...ready) <= item.s0 + 1e-9, "it leaves before it was there");
      }
    }
  }
});
