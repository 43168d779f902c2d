// What is the case in a recorded run: pure functions of time, without a page. `Film` indexes the
// items of one run, `Alignment` puts several runs under one playhead, `worldAt` says what is the case
// at a story time, and `describe` what there is to say of it. `layout.js` says where that is.

import { everyone, latency, LONGEST, named, quote, shorten, split, waits, WHEREABOUTS } from "./words.js";

// ---- The contract: what Python sends. Story time counts hops; items may come out of its order.

/**
 * @typedef {{type: "beat", s: number, caption: string, notes?: string}} Beat
 * @typedef {{type: "said", s: number, event: string, player: string, body: string, frame?: string}} Said
 * @typedef {{type: "frame", s: number, event: string, frame: string}} Frame
 * @typedef {{type: "hop", s0: number, s1: number, event: string, source: string, target: string, ms?: number | null}} Hop
 * @typedef {{type: "loss", s0: number, s1: number, event: string, source: string, target: string, players: string[], cause: string, why: string}} Loss if `source` and `target` are one, it was lost in there; “{target}” in `why` is for its name
 * @typedef {{type: "place", s0: number, s1: number, player: string, server: string}} Place
 * @typedef {{type: "left", s: number, player: string}} Left
 * @typedef {{type: "link", s: number, server: string, up: boolean, channel?: string}} Link
 * @typedef {{type: "command", s: number, server: string, text: string}} Command
 * @typedef {{type: "keeps", s: number, count: number | null}} Keeps
 * @typedef {"up" | "down" | "frozen" | "absent"} State
 * @typedef {{type: "health", s: number, part: string, state: State}} Health
 * @typedef {{type: "outcome", s: number, event: string, player: string, outcome: string, cause: string}} Outcome
 * @typedef {Beat | Said | Frame | Hop | Loss | Place | Left | Link | Command | Keeps | Health | Outcome} Item
 * @typedef {{title: string, broker: string, servers: string[], items: Item[], end: number}} Run
 *
 * @typedef {{action: string, choice?: string, label: string, why: string}} Act `why`: it cannot be done now
 * @typedef {{runs: Run[], live: boolean, key: string, problem: string, acts: Record<string, Act[]>, look: string, minutes: number}} Traits
 *   `acts`: what can be done, by part, as in “server A”; `look`: the event to begin with, if any;
 *   `minutes` that are planned, or 0
 * @typedef {{type: "more", run: number, from: number, items: Item[], end: number, rest?: boolean}} More
 * @typedef {{type: "done" | "failed", id: number, text: string}} Answer
 * @typedef {{type: "rest", have: number[]} | {type: "act", id: number, part: string, action: string, choice?: string, body?: string}} ToPython
 * @typedef {{get(name: string): any, send(message: ToPython): void, on(name: string, callback: (message: any) => void): void,
 *   off(name: string, callback: (message: any) => void): void}} Model of anywidget
 */

/**
 * What is the case at one moment of one run.
 *
 * @typedef {{outcome: string, cause: string}} Slot "pending", "heard", "twice" or "missed"
 * @typedef {{name: string, state: "expected" | "connecting" | "connected" | "away" | "left",
 *   home: string, from: string, progress: number, reach: number, presence: number, room: number,
 *   missed: number, strip: (Slot | null)[]}} PlayerNow `progress` on its way between servers;
 *   `reach` of its wire; `presence` of its picture; `room` that it takes among the others
 * @typedef {{name: string, state: State, holds: string[], channel: string, waiting: number}} ServerNow
 *   `waiting`: messages that have come since it stands still
 * @typedef {{item: Hop, fraction: number}} Token
 * @typedef {{item: Loss, fraction: number}} Lost
 * @typedef {{heard: number, missed: number, twice: number}} Counts
 * @typedef {{s: number, players: PlayerNow[], servers: ServerNow[], redis: State, waiting: number, keeps: number | null, tokens: Token[], losses: Lost[], counts: Counts}} World `waiting` at Redis, which `keeps` so many events, if that is known
 */

// ---- Numbers
/** @type {(value: number, low: number, high: number) => number} */
export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** @type {(from: number, to: number, fraction: number) => number} */
export const mix = (from, to, fraction) => from + (to - from) * fraction;

/** Slow at both ends, as a thing with weight moves. @param {number} fraction */
export const ease = (fraction) => (1 - Math.cos(Math.PI * clamp(fraction, 0, 1))) / 2;

/** @typedef {{s: number} | {s0: number}} Timed */

/** @param {Timed} item */
const when = (item) => ("s" in item ? item.s : item.s0);

/** How many of a sorted list are not later than `s`. @param {readonly Timed[]} list @param {number} s */
export function countUpTo(list, s) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (when(list[middle]) <= s) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** @template {Timed} T @param {T[]} list @param {number} s @returns {T | undefined} */
const latest = (list, s) => list[countUpTo(list, s) - 1];

/**
 * Puts an item into a sorted list, near its end as items come nearly in order, and says where.
 * @template {Timed} T @param {T[]} list @param {T} item
 */
function insert(list, item) {
  let at = list.length;
  while (at > 0 && when(list[at - 1]) > when(item)) at -= 1;
  list.splice(at, 0, item);
  return at;
}

/** The list of a key, made when it is first asked for. @template T @param {Map<string, T[]>} map @param {string} key */
export const listOf = (map, key) => map.get(key) ?? /** @type {T[]} */ (map.set(key, []).get(key));

// ---- A run, indexed

/** Totals that change at story times. */
class Tally {
  /** @type {(Counts & {s: number})[]} */
  totals = [];

  /** @param {number} s @param {Counts} change */
  add(s, { heard, missed, twice }) {
    const at = insert(this.totals, { ...this.at(s), s });
    for (const total of this.totals.slice(at)) {
      total.heard += heard;
      total.missed += missed;
      total.twice += twice;
    }
  }

  /** @param {number} s @returns {Counts} */
  at(s) {
    const { heard = 0, missed = 0, twice = 0 } = latest(this.totals, s) ?? {};
    return { heard, missed, twice };
  }
}

/** One player: where it was when, and what became of each event that it should hear. */
class Role {
  tally = new Tally();
  /** `n` is the item's number. @type {{n: number, s0: number, s1: number, server: string, left: boolean}[]} */
  stays = [];
  /** Of each event, as it turned out. @type {Map<string, (Slot & {s: number})[]>} */
  fates = new Map();
  /** The server it was last told to be on; none once it has left. */
  home = "";
  /** Whether it is in the game, by all that has been told. */
  present = false;

  /** @param {string} name */
  constructor(name) {
    this.name = name;
  }
}

export const JUST_AFTER = 0.001; // hops
const RETRACT = 0.4; // hops for which a wire that was cut is seen to go
const FADE = 0.8; // hops for which a player that has left is seen to go

/** What a hop is one of: of those of its event, and of what a server does. @param {Hop} hop */
function waysOf({ event, source, target }) {
  const did = source === "redis" ? [`relayed ${target}`] : target === "redis" ? [`published ${source}`] : [`received ${target}`, `delivered ${source}`];
  return [`event ${event}`, ...did];
}

/** All that is known of one run, so arranged that a moment is found without reading the whole. */
export class Film {
  /** How many items it has taken. */
  had = 0;
  end = 0;
  tally = new Tally();
  /** @type {Beat[]} */
  beats = [];
  /** @type {Said[]} */
  said = [];
  /** @type {Hop[]} */
  hops = [];
  /** @type {Loss[]} */
  losses = [];
  /** @type {Command[]} */
  commands = [];
  /** @type {Keeps[]} */
  keeps = [];
  /** When players or parts change, and until when what has begun by then goes on. @type {{s: number, until: number}[]} */
  changes = [];
  /** Those of each event, and of what each server does, as in “relayed A”. @type {Map<string, Hop[]>} */
  ways = new Map();
  /** The longest hop or loss: what set out earlier than that is no longer on its way. */
  longest = 1;
  /** @type {Map<string, Said & {n: number}>} */
  messages = new Map();
  /** What the servers relay of each event. @type {Map<string, string>} */
  frames = new Map();
  /** @type {Map<string, Role>} */
  roles = new Map();
  /** @type {Map<string, Link[]>} */
  links = new Map();
  /** @type {Map<string, Health[]>} */
  healths = new Map();
  /** The players that each server holds, by what has been told. @type {Map<string, number>} */
  held = new Map();
  /** The most players that each server ever holds. @type {Map<string, number>} */
  rooms = new Map();

  /** @param {Run} run */
  constructor({ title, broker, servers, items, end }) {
    this.title = title;
    this.broker = broker;
    this.servers = [...servers];
    this.append(items, end);
  }

  /** @param {readonly Item[]} items @param {number} end */
  append(items, end) {
    for (const item of items) {
      this._take(item);
      this.had += 1;
    }
    this.end = Math.max(this.end, end);
  }

  /** Whether players and parts are the same at two moments. @param {number} s @param {number} other */
  isStill(s, other) {
    const count = countUpTo(this.changes, s);
    const settled = (this.changes[count - 1]?.until ?? -1) + JUST_AFTER < Math.min(s, other);
    return settled && count === countUpTo(this.changes, other);
  }

  /** Since when a part has stood still; never, if it does not. @param {string} part @param {number} s */
  frozenSince(part, s) {
    const now = latest(this.healths.get(part) ?? [], s);
    return now?.state === "frozen" ? now.s : Infinity;
  }

  /** What has come to a part since it stands still. @param {string} part @param {string[]} ways @param {number} s */
  waiting(part, ways, s) {
    const since = this.frozenSince(part, s);
    if (since === Infinity) return 0;
    return ways.map((way) => this.ways.get(way) ?? []).reduce((sum, hops) => sum + countUpTo(hops, s - 1) - countUpTo(hops, since - 1), 0);
  }

  /** @param {Item} item */
  _take(item) {
    switch (item.type) {
      case "beat":
        insert(this.beats, item);
        this._change(item.s);
        break;
      case "said":
        insert(this.said, item);
        this.messages.set(item.event, { ...item, n: this.had });
        this._change(item.s);
        break;
      case "frame":
        this.frames.set(item.event, item.frame);
        break;
      case "hop":
        for (const list of [this.hops, ...waysOf(item).map((way) => listOf(this.ways, way))]) insert(list, item);
        this.longest = Math.max(this.longest, item.s1 - item.s0);
        if (this.frozenSince(item.target, item.s1) < Infinity) this._change(item.s1);
        break;
      case "loss":
        insert(this.losses, item);
        this.longest = Math.max(this.longest, item.s1 - item.s0);
        break;
      case "place":
        // A connection that closes after its player has left changes nothing any more.
        if (item.server || this._role(item.player).present) this._place(item);
        break;
      case "left":
        this._place({ player: item.player, s0: item.s, s1: item.s, server: "" }, true);
        break;
      case "link":
        insert(listOf(this.links, item.server), item);
        this._change(item.s);
        break;
      case "command":
        insert(this.commands, item);
        break;
      case "keeps":
        insert(this.keeps, item);
        this._change(item.s);
        break;
      case "health":
        insert(listOf(this.healths, item.part), item);
        if (item.part !== "redis" && !this.servers.includes(item.part)) this.servers.push(item.part);
        this._change(item.s);
        break;
      case "outcome":
        this._decide(item);
    }
  }

  /** @param {number} s @param {number} [until] */
  _change(s, until = s) {
    const { changes } = this;
    for (let at = insert(changes, { s, until }); at < changes.length; at += 1) {
      changes[at].until = Math.max(changes[at].until, changes[at - 1]?.until ?? 0);
    }
  }

  /** @param {string} name */
  _role(name) {
    const role = this.roles.get(name) ?? new Role(name);
    this.roles.set(name, role);
    return role;
  }

  /** @param {Omit<Place, "type">} place @param {boolean} [left] */
  _place({ player, s0, s1, server }, left = false) {
    const role = this._role(player);
    insert(role.stays, { n: this.had, s0, s1, server, left });
    this._change(s0, server ? s1 : s0 + (left ? FADE : RETRACT));
    role.present = !left;
    if (!server && !left) return;
    const { held, rooms } = this;
    if (role.home) held.set(role.home, (held.get(role.home) ?? 0) - 1);
    role.home = server;
    if (!server) return;
    held.set(server, (held.get(server) ?? 0) + 1);
    rooms.set(server, Math.max(rooms.get(server) ?? 0, held.get(server) ?? 0));
  }

  /** @param {Outcome} item */
  _decide({ s, event, player, outcome, cause }) {
    const { fates, tally } = this._role(player);
    const turns = listOf(fates, event);
    const before = turns.at(-1)?.outcome;
    insert(turns, { s, outcome, cause });
    this._change(s);
    const change = {
      heard: Number(outcome !== "missed" && before !== "heard" && before !== "twice"),
      missed: Number(outcome === "missed") - Number(before === "missed"),
      twice: Number(outcome === "twice" && before !== "twice"),
    };
    this.tally.add(s, change);
    tally.add(s, change);
  }
}

// ---- Several runs under one playhead

const SHORTEST_BEAT = 1; // hops: a beat in which nothing happens can still be seen

/**
 * The beats that the runs share, and from the playhead's time T to each run's own story time. A
 * beat lasts as long as in the run where it lasts longest; the other runs wait at its end. A moment
 * between two beats belongs to the first, whose end is worth a look; the next begins just after.
 */
export class Alignment {
  /** `s0` and `s1` are by run. @type {{caption: string, notes: string, start: number, begin: number, end: number, duration: number, s0: number[], s1: number[]}[]} */
  beats = [];
  early = 0;

  /** @param {Film[]} films */
  constructor(films) {
    this.films = films;
    this.extend();
  }

  get length() {
    return this.beats.at(-1)?.end ?? 0;
  }

  /** Takes what has been added to the films; only the last beat may have changed. */
  extend() {
    const { films, beats } = this;
    // What happens before the first beat is a beat without a caption.
    if (beats.length < 2) this.early = Number(films.some((film) => !(film.beats[0]?.s === 0)));
    const { early } = this;
    const count = Math.max(0, ...films.map((film) => film.beats.length + early));
    for (let k = Math.max(0, beats.length - 1); k < count; k += 1) {
      const s0 = films.map((film) => (k < early ? 0 : (film.beats[k - early]?.s ?? film.end)));
      const s1 = films.map((film) => film.beats[k + 1 - early]?.s ?? film.end);
      const { caption = "", notes = "" } = films.map((film) => film.beats[k - early]).find(Boolean) ?? {};
      const duration = Math.max(SHORTEST_BEAT, ...s1.map((end, run) => end - s0[run]));
      const start = beats[k - 1]?.end ?? 0;
      beats[k] = { caption, notes, start, begin: start + (k && JUST_AFTER), end: start + duration, duration, s0, s1 };
    }
  }

  /** @param {number} T */
  beatAt(T) {
    const { beats } = this;
    let low = 0;
    let high = beats.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (beats[middle].start < T - JUST_AFTER / 2) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** The beat in which something happens in a run. @type {(run: number, s: number) => number} */
  beatOf(run, s) {
    return Math.max(0, countUpTo(this.films[run].beats, s) - 1 + this.early);
  }

  /** When the beat began in a run. @type {(run: number, T: number) => number} */
  since(run, T) {
    return this.beats[this.beatAt(T)]?.s0[run] ?? 0;
  }

  /** @type {(run: number, T: number) => number} */
  storyTime(run, T) {
    const { start, s0, s1 } = this.beats[this.beatAt(T)];
    const passed = Math.max(0, T - start);
    // Not just `s0 + passed`, which may fall short of the end by a rounding error.
    return passed >= s1[run] - s0[run] - 1e-6 ? s1[run] : s0[run] + passed;
  }
}

/**
 * The events that the strips have slots for, the same and in the same order for all runs: the
 * newest `most` of those said by now in any of them, and how many came before.
 * @param {Alignment} alignment @param {number} T @param {number} most
 */
export function columnsAt(alignment, T, most) {
  /** @type {Map<string, number>} */
  const places = new Map();
  let before = 0;
  alignment.films.forEach(({ said }, run) => {
    const count = countUpTo(said, alignment.storyTime(run, T));
    before = Math.max(before, count - most);
    for (let at = Math.max(0, count - most); at < count; at += 1) {
      places.set(said[at].event, Math.min(at, places.get(said[at].event) ?? at));
    }
  });
  const events = [...places].sort(([, a], [, b]) => a - b).map(([event]) => event);
  return { events: most > 0 ? events.slice(-most) : [], before };
}

// ---- One moment

const LINGER = 12; // hops for which a loss stays in sight in a beat that does not end

/**
 * What is the case in a run at story time `s`.
 * @param {Film} film @param {number} s
 * @param {{since?: number, events?: string[], was?: World | null}} [view] losses stay in sight from
 *   the beginning of their beat, `since`; `events` are those that the strips have slots for; `was`
 *   is what was the case a moment ago, of which what is the same now is taken over
 * @returns {World}
 */
export function worldAt(film, s, view = {}) {
  const { since = latest(film.beats, s)?.s ?? 0, was } = view;
  const { events = film.said.slice(0, countUpTo(film.said, s)).map(({ event }) => event) } = view;
  const players = was?.players ?? [...film.roles.values()].flatMap((role) => playerAt(film, role, s, events) ?? []);
  return {
    s,
    players,
    servers: was?.servers ?? serversAt(film, s, players),
    redis: latest(film.healths.get("redis") ?? [], s)?.state ?? "up",
    waiting: film.waiting("redis", film.servers.map((name) => `published ${name}`), s),
    keeps: film.broker === "pubsub" ? 0 : (latest(film.keeps, s)?.count ?? null),
    tokens: tokensAt(film, s),
    losses: lossesAt(film, s, since, players),
    counts: film.tally.at(s),
  };
}

/** @param {Film} film @param {number} s @param {PlayerNow[]} players @returns {ServerNow[]} */
function serversAt(film, s, players) {
  const { servers, links, healths } = film;
  /** @type {Map<string, string[]>} */
  const held = new Map();
  for (const { name, state, home } of players) if (state === "connected") listOf(held, home).push(name);
  return servers.map((name) => {
    const health = healths.get(name) ?? [];
    // One whose first news is that it is up was not there before.
    const first = health[0]?.state === "up" ? "absent" : "up";
    const { up = false, channel = "" } = latest(links.get(name) ?? [], s) ?? {};
    return {
      name,
      state: latest(health, s)?.state ?? first,
      holds: held.get(name) ?? [],
      channel: up ? channel || "its channel" : "",
      waiting: film.waiting(name, [`received ${name}`, `relayed ${name}`], s),
    };
  });
}

/**
 * @param {Film} film @param {Role} role @param {number} s @param {string[]} events
 * @returns {PlayerNow | null} null if it has not been heard of yet
 */
function playerAt(film, role, s, events) {
  const { name, stays } = role;
  const at = countUpTo(stays, s) - 1;
  // The opening beat shows from the start who is going to join in it.
  const opens = stays[0]?.s0 < (film.beats[1]?.s ?? (film.beats.length && Infinity));
  if (at < 0 && !opens) return null;
  const { s0, s1, server, left } = stays[Math.max(0, at)];
  const from = homeBefore(stays, at);
  const home = server || from;
  const strip = events.map((event) => slotAt(film, role, event, s));
  const { missed } = role.tally.at(s);
  const whole = { progress: 1, reach: 1, presence: 1, room: 1 };
  /** @type {PlayerNow} */
  const now = { name, state: "connected", home, from: from || home, missed, strip, ...whole };
  if (at < 0) return { ...now, state: "expected", reach: 0 };
  if (left) {
    const presence = clamp(1 - (s - s0) / FADE, 0, 1);
    return { ...now, state: "left", reach: 0, presence, room: ease(presence) };
  }
  if (!server) return { ...now, state: "away", reach: clamp(1 - (s - s0) / RETRACT, 0, 1) };
  if (s >= s1) return now;
  const progress = (s - s0) / (s1 - s0);
  const presence = from || opens ? 1 : clamp(progress * 3, 0, 1);
  return { ...now, state: "connecting", progress, reach: progress, presence, room: ease(presence) };
}

/** The server that a player was on before a stay, if it has not left since. @type {(stays: Role["stays"], at: number) => string} */
function homeBefore(stays, at) {
  for (let before = at - 1; before >= 0 && !stays[before].left; before -= 1) {
    if (stays[before].server) return stays[before].server;
  }
  return "";
}

/** What an event is for a player; nothing if it is not for them. @type {(film: Film, role: Role, event: string, s: number) => Slot | null} */
function slotAt({ messages }, { fates, stays }, event, s) {
  const { s: said = s, n = 0 } = messages.get(event) ?? {};
  const turns = fates.get(event);
  const present = () => stays.reduce((now, stay) => (stay.n < n ? !stay.left : now), false);
  if (said > s || !(turns || present())) return null;
  const { outcome = "pending", cause = "" } = latest(turns ?? [], s) ?? {};
  return { outcome, cause };
}

/** @type {(item: {s0: number, s1: number}, s: number) => number} */
const fractionOf = ({ s0, s1 }, s) => clamp((s - s0) / (s1 - s0 || 1), 0, 1);

/**
 * What has set out by `s` and may not have arrived before `from`.
 * @template {Hop | Loss} T @param {Film} film @param {T[]} list @param {number} from
 * @param {number} s
 */
const setOut = ({ longest }, list, from, s) =>
  list.slice(countUpTo(list, from - longest - JUST_AFTER), countUpTo(list, s));

/** @type {(film: Film, s: number) => Token[]} */
const tokensAt = (film, s) =>
  setOut(film, film.hops, s, s)
    .filter((hop) => s < hop.s1)
    .map((item) => ({ item, fraction: fractionOf(item, s) }));

/** @type {(film: Film, s: number, since: number, players: PlayerNow[]) => Lost[]} */
function lossesAt(film, s, since, players) {
  const endless = since >= (film.beats.at(-1)?.s ?? 0);
  const from = endless ? Math.max(since, s - LINGER) : since;
  const found = setOut(film, film.losses, from, s).filter((loss) => loss.s1 > from);
  const isBack = (/** @type {string} */ name) =>
    players.some((player) => player.name === name && player.state === "connected");
  return found
    .filter((loss) => loss.cause !== "player away" || !loss.players.every(isBack))
    .map((item) => ({ item, fraction: fractionOf(item, s) }));
}

/** Whether runs came to different ends with an event for a player. @param {World[]} worlds @param {string[]} events */
export function differences(worlds, events) {
  const strips = worlds.map(({ players }) => new Map(players.map(({ name, strip }) => [name, strip])));
  return (/** @type {string} */ event, /** @type {string} */ player) => {
    const outcomes = strips.map((strip) => strip.get(player)?.[events.indexOf(event)]?.outcome);
    return new Set(outcomes.filter((outcome) => outcome && outcome !== "pending")).size > 1;
  };
}

// ---- Reading: what a part or a message is, in words

const NEWEST = 12; // events of which it is told what they were for a player

/**
 * What the inspector tells at a moment of an event, a player, a server or Redis, as in “player P1”.
 * @param {Film} film @param {string} open @param {World} world
 * @returns {{title: string, facts: string[][], texts: string[][]}}
 */
export function describe(film, open, { s, players, servers, redis, waiting, keeps }) {
  const [kind, name] = split(open);
  const past = (/** @type {string} */ way) => {
    const hops = film.ways.get(way) ?? [];
    return hops.slice(0, countUpTo(hops, s));
  };
  if (kind === "event") {
    const { player = "", body = "", frame = "" } = film.messages.get(name) ?? {};
    const own = past(open);
    // A server knows when it got an event, not when Redis did: that is measured from the server before.
    const before = own.find(({ target }) => target === "redis")?.source ?? "";
    const way = own.filter(({ target }) => target !== "redis").map(({ source, target, ms }) => {
      const parts = source === "redis" ? [before, "redis", target] : [source, target];
      return [parts.map((part) => named(part)).join(" → "), latency(ms) || "–"];
    });
    const fates = [...film.roles.values()].flatMap((role) => {
      const slot = slotAt(film, role, name, s);
      return slot ? [[named(role.name), fateOf(slot)]] : [];
    });
    return { title: `${quote(body)} from ${shorten(player, LONGEST)}`, facts: [...way, ...fates], texts: [["sent", frame], ["relayed", film.frames.get(name) ?? ""]] };
  }
  if (kind === "server") {
    const { state = "", holds = [], channel = "", waiting = 0 } = servers.find((one) => one.name === name) ?? {};
    const facts = [["state", state + waits(waiting)], ["players", everyone(holds)], ["subscribed to", channel || "nothing"],
      ...["received", "published", "relayed", "delivered"].map((did) => [did, `${past(`${did} ${name}`).length}`])];
    return { title: `Server ${shorten(name, LONGEST)}`, facts, texts: [] };
  }
  if (kind === "redis") {
    const channels = [...new Set(servers.flatMap(({ channel }) => channel || []))];
    const facts = channels.map((channel) => [channel, everyone(servers.filter((one) => one.channel === channel).map((one) => one.name))]);
    if (keeps !== null) facts.push(["keeps", keeps === 1 ? "1 event" : `${keeps} events`]);
    const commands = film.commands.slice(0, countUpTo(film.commands, s)).slice(-6);
    return { title: `Redis, ${redis}${waits(waiting)}`, facts, texts: commands.map(({ server, text }) => [`from ${named(server)}`, text]) };
  }
  const now = players.find((one) => one.name === name);
  const role = film.roles.get(name) ?? new Role(name);
  const counts = Object.entries(role.tally.at(s)).map(([outcome, count]) => [outcome, `${count}`]);
  const where = now ? WHEREABOUTS[now.state] || `on ${named(now.home)}` : "";
  const said = film.said.slice(0, countUpTo(film.said, s));
  const fates = said.slice(-NEWEST).flatMap(({ event, player, body }) => {
    const slot = slotAt(film, role, event, s);
    return slot ? [[`${quote(body)} from ${named(player)}`, fateOf(slot)]] : [];
  });
  return { title: `Player ${shorten(name, LONGEST)}`, facts: [["is", where], ...counts, ...fates], texts: [] };
}

/** @param {Slot} slot */
const fateOf = ({ outcome, cause }) => `${outcome}${cause && `: ${cause}`}`;
