// The stage: recorded runs of players, WebSocket servers, a load balancer and Redis, as a diagram
// in which every message travels its real way.
//
// Everything drawn is a function of time. `Film` indexes the items of one run, `align` puts several
// runs under one playhead, `worldAt` says what is the case at a story time, `layout`, `rowsAt` and
// `pathBetween` say where that is, and `Pane` draws it. To play is to ask again a moment later.

// ---- The contract: what Python sends. Story time counts hops; items may come out of its order.

/**
 * @typedef {{type: "beat", s: number, caption: string}} BeatItem
 * @typedef {{type: "said", s: number, event: string, player: string, body: string}} SaidItem
 * @typedef {{type: "hop", s0: number, s1: number, event: string, source: string, target: string,
 *   ms?: number | null}} HopItem
 * @typedef {{type: "loss", s0: number, s1: number, event: string, source: string, target: string,
 *   players: string[], cause: string}} LossItem
 * @typedef {{type: "place", s0: number, s1: number, player: string, server: string}} PlaceItem
 * @typedef {{type: "left", s: number, player: string}} LeftItem
 * @typedef {{type: "link", s: number, server: string, up: boolean}} LinkItem
 * @typedef {{type: "outcome", s: number, event: string, player: string, outcome: string,
 *   cause: string}} OutcomeItem
 * @typedef {BeatItem | SaidItem | HopItem | LossItem | PlaceItem | LeftItem | LinkItem
 *   | OutcomeItem} Item
 * @typedef {{title: string, broker: string, servers: string[], items: Item[], end: number}} Run
 *
 * @typedef {{type: "more", run: number, from: number, items: Item[], end: number}} More
 * @typedef {{type: "done", id: number} | {type: "failed", id: number, text: string}} Answer
 * @typedef {{type: "rest", have: number[]} | {type: "act", id: number, action: string,
 *   player: string, server?: string, body?: string}} ToPython
 * @typedef {{get(name: string): any, send(message: ToPython): void,
 *   on(name: string, callback: (message: any) => void): void,
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
 * @typedef {{name: string, holds: string[], subscribed: boolean}} ServerNow
 * @typedef {{event: string, player: string, body: string, source: string, target: string,
 *   s0: number, s1: number, fraction: number}} Travelling
 * @typedef {Travelling & {ms: number | null}} Token
 * @typedef {Travelling & {players: string[], cause: string}} Loss
 * @typedef {{heard: number, missed: number, twice: number}} Counts
 * @typedef {{s: number, players: PlayerNow[], servers: ServerNow[], tokens: Token[],
 *   losses: Loss[], counts: Counts}} World
 */

// ---- Numbers and words

/** @type {(value: number, low: number, high: number) => number} */
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** @type {(from: number, to: number, fraction: number) => number} */
const mix = (from, to, fraction) => from + (to - from) * fraction;

/** Slow at both ends, as a thing with weight moves. @param {number} fraction */
const ease = (fraction) => (1 - Math.cos(Math.PI * clamp(fraction, 0, 1))) / 2;

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

// Control characters, and marks that would change the direction of the text around them.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;

/**
 * A name or a body as it can be shown: short, on one line, and unable to turn its surroundings.
 * @param {string} text @param {number} [most] characters
 */
export function shorten(text, most = 14) {
  // Most are so, and this is asked for every token in every frame.
  if (text.length <= most && /^[\w.:-]*$/.test(text)) return text;
  const clean = text.slice(0, 8 * most).replace(UNSEEN, " ").replace(/\s+/g, " ").trim();
  const characters = Array.from(clean);
  const cut = characters.length > most || text.length > 8 * most;
  const short = cut ? `${characters.slice(0, most).join("").trimEnd()}…` : clean;
  return RIGHT_TO_LEFT.test(short) ? `\u2068${short}\u2069` : short;
}

/** @param {string} body */
const quote = (body) => `“${shorten(body)}”`;

/** As in “a, b and 3 more”. @param {string[]} names */
function listed(names) {
  const first = names.slice(0, names.length > 3 ? 2 : -1);
  const last = names.length > 3 ? `${names.length - 2} more` : (names.at(-1) ?? "");
  return first.length ? `${first.join(", ")} and ${last}` : last;
}

/** @type {Record<string, (source: string, target: string, one: boolean) => string>} */
const REASONS = {
  "no broker between servers": (_, target, one) => ` ${one ? "has" : "have"} no way to ${target}`,
  "player away": (_, target) => `: ${target} is away`,
  "player too slow": (_, target) => `: ${target} is too slow`,
  "redis down": () => ": Redis is down",
  "server not subscribed": (_, target) => `: ${target} is not subscribed`,
  "never reached a server": () => " never reached a server",
  "lost with its server": (source) => ` went down with ${source}`,
};

/** Why messages got lost, in a few words. @param {Loss[]} losses of the same way and cause */
export function reason(losses) {
  const { source, target, cause } = losses[0];
  const words = [...new Set(losses.map((loss) => quote(loss.body)))];
  const because = REASONS[cause]?.(shorten(source), shorten(target), words.length === 1);
  return listed(words) + (because ?? `: ${shorten(cause, 40)}`);
}

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
  /** @type {{s0: number, s1: number, server: string, left: boolean}[]} */
  stays = [];
  /** @type {Map<string, {said: number, turns: (Slot & {s: number})[]}>} */
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

/** All that is known of one run, so arranged that a moment is found without reading the whole. */
export class Film {
  /** How many items it has taken. */
  had = 0;
  end = 0;
  tally = new Tally();
  /** @type {BeatItem[]} */
  beats = [];
  /** @type {SaidItem[]} */
  said = [];
  /** @type {HopItem[]} */
  hops = [];
  /** @type {LossItem[]} */
  losses = [];
  /** The longest hop or loss: what set out earlier than that is no longer on its way. */
  longest = 1;
  /** @type {Map<string, SaidItem>} */
  messages = new Map();
  /** @type {Map<string, Role>} */
  roles = new Map();
  /** @type {Map<string, LinkItem[]>} */
  links = new Map();
  /** The most players that each server ever holds. @type {Map<string, number>} */
  rooms = new Map();

  /** @param {Run} run */
  constructor({ title, broker, servers, items, end }) {
    this.title = title;
    this.broker = broker;
    this.servers = servers;
    this.append(items, end);
  }

  /** @param {readonly Item[]} items @param {number} end */
  append(items, end) {
    for (const item of items) this._take(item);
    this.had += items.length;
    this.end = Math.max(this.end, end);
  }

  /** @param {Item} item */
  _take(item) {
    switch (item.type) {
      case "beat":
        insert(this.beats, item);
        break;
      case "said":
        this._say(item);
        break;
      case "hop":
      case "loss":
        if (item.type === "hop") insert(this.hops, item);
        else insert(this.losses, item);
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
        this.links.set(item.server, this.links.get(item.server) ?? []);
        insert(this.links.get(item.server) ?? [], item);
        break;
      case "outcome":
        this._decide(item);
    }
  }

  /** @param {string} name */
  _role(name) {
    const role = this.roles.get(name) ?? new Role(name);
    this.roles.set(name, role);
    return role;
  }

  /** @param {Omit<PlaceItem, "type">} place @param {boolean} [left] */
  _place({ player, s0, s1, server }, left = false) {
    const role = this._role(player);
    insert(role.stays, { s0, s1, server, left });
    role.present = !left;
    if (server || left) role.home = server;
    if (!server) return;
    const held = [...this.roles.values()].filter((one) => one.home === server).length;
    this.rooms.set(server, Math.max(this.rooms.get(server) ?? 0, held));
  }

  /** @param {SaidItem} item */
  _say(item) {
    insert(this.said, item);
    this.messages.set(item.event, item);
    for (const { present, fates } of this.roles.values()) {
      if (present) fates.set(item.event, { said: item.s, turns: [] });
    }
  }

  /** @param {OutcomeItem} item */
  _decide({ s, event, player, outcome, cause }) {
    const { fates, tally } = this._role(player);
    const fate = fates.get(event) ?? { said: this.messages.get(event)?.s ?? s, turns: [] };
    const before = fate.turns.at(-1)?.outcome;
    fates.set(event, fate);
    insert(fate.turns, { s, outcome, cause });
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

const JUST_AFTER = 0.001; // hops
const SHORTEST_BEAT = 1; // hops: a beat in which nothing happens can still be seen

/** @param {Film} film */
function actsOf(film) {
  const beats = film.beats.map(({ caption, s }) => ({ caption, s }));
  if (!beats.length || beats[0].s > 0) beats.unshift({ caption: "", s: 0 });
  return beats.map(({ caption, s }, at) => ({ caption, s0: s, s1: beats[at + 1]?.s ?? film.end }));
}

/**
 * The beats that the runs share, and from the playhead's time T to each run's own story time. A
 * beat lasts as long as in the run where it lasts longest; the other runs wait at its end. A moment
 * between two beats belongs to the first, whose end is worth a look; the next begins just after.
 * @param {Film[]} films @param {boolean} [live] then a run may be behind the others
 */
export function align(films, live = false) {
  const acts = films.map(actsOf);
  const longest = acts.reduce((most, run) => (run.length > most.length ? run : most), []);
  let length = 0;
  const beats = longest.map(({ caption }, k) => {
    const durations = acts.map((run) => (run[k] ? run[k].s1 - run[k].s0 : 0));
    const duration = Math.max(SHORTEST_BEAT, ...durations);
    const [start, end] = [length, (length += duration)];
    return { caption, start, begin: start + (k && JUST_AFTER), end, duration };
  });
  /** @param {number} T */
  const beatAt = (T) => Math.max(0, beats.findLastIndex(({ start }) => start < T - JUST_AFTER / 2));
  return {
    problem: mismatch(films, acts, live),
    beats,
    length,
    beatAt,
    /** When the beat began in a run. @type {(run: number, T: number) => number} */
    since: (run, T) => acts[run][Math.min(beatAt(T), acts[run].length - 1)].s0,
    /** @type {(run: number, T: number) => number} */
    storyTime(run, T) {
      const act = acts[run][beatAt(T)];
      if (!act) return films[run].end;
      const passed = T - beats[beatAt(T)].start;
      // Not just `s0 + passed`, which may fall short of the end by a rounding error.
      return passed >= act.s1 - act.s0 - 1e-6 ? act.s1 : act.s0 + Math.max(0, passed);
    },
  };
}

/** @typedef {ReturnType<typeof align>} Alignment */

/** @param {Film[]} films @param {{caption: string}[][]} acts @param {boolean} live */
function mismatch(films, acts, live) {
  for (let run = 1; run < acts.length; run += 1) {
    for (let k = 0; k < Math.max(acts[0].length, acts[run].length); k += 1) {
      const captions = [acts[0][k]?.caption, acts[run][k]?.caption];
      if (captions[0] === captions[1] || (live && captions.some((one) => one === undefined))) continue;
      const [here, there] = [films[0], films[run]].map(({ title }, at) => {
        const caption = captions[at];
        return `${caption === undefined ? "missing" : `“${shorten(caption, 60)}”`} in “${shorten(title, 30)}”`;
      });
      return `These runs do not tell the same story: beat ${k + 1} is ${here}, but ${there}.`;
    }
  }
  return "";
}

/**
 * The events that the strips have slots for, the same and in the same order for all runs: the
 * newest `most` of those said by now in any of them, and how many came before.
 * @param {Film[]} films @param {Alignment} alignment @param {number} T @param {number} most
 */
export function columnsAt(films, alignment, T, most) {
  /** @type {Map<string, number>} */
  const places = new Map();
  let before = 0;
  films.forEach(({ said }, run) => {
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

const RETRACT = 0.4; // hops for which a wire that was cut is seen to go
const FADE = 0.8; // hops for which a player that has left is seen to go
const LINGER = 12; // hops for which a loss stays in sight in a beat that does not end

/**
 * What is the case in a run at story time `s`.
 * @param {Film} film @param {number} s
 * @param {{since?: number, events?: string[]}} [view] losses stay in sight from the beginning of
 *   their beat, `since`; `events` are those that the strips have slots for
 * @returns {World}
 */
export function worldAt(film, s, view = {}) {
  const { since = latest(film.beats, s)?.s ?? 0 } = view;
  const { events = film.said.slice(0, countUpTo(film.said, s)).map(({ event }) => event) } = view;
  const players = [...film.roles.values()].flatMap((role) => playerAt(film, role, s, events) ?? []);
  const connected = players.filter(({ state }) => state === "connected");
  return {
    s,
    players,
    servers: film.servers.map((name) => ({
      name,
      holds: connected.filter(({ home }) => home === name).map((player) => player.name),
      subscribed: latest(film.links.get(name) ?? [], s)?.up ?? false,
    })),
    tokens: tokensAt(film, s),
    losses: lossesAt(film, s, since, connected),
    counts: film.tally.at(s),
  };
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
  const strip = events.map((event) => slotAt(role, event, s));
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

/** @type {(role: Role, event: string, s: number) => Slot | null} */
function slotAt({ fates }, event, s) {
  const fate = fates.get(event);
  if (!fate || fate.said > s) return null;
  const { outcome = "pending", cause = "" } = latest(fate.turns, s) ?? {};
  return { outcome, cause };
}

/** @type {(film: Film, item: HopItem | LossItem, s: number) => Travelling} */
function travelling(film, { event, source, target, s0, s1 }, s) {
  const { player = "", body = "" } = film.messages.get(event) ?? {};
  const fraction = clamp((s - s0) / (s1 - s0 || 1), 0, 1);
  return { event, player, body, source, target, s0, s1, fraction };
}

/**
 * What has set out by `s` and may not have arrived before `from`.
 * @template {HopItem | LossItem} T @param {Film} film @param {T[]} list @param {number} from
 * @param {number} s
 */
const setOut = ({ longest }, list, from, s) =>
  list.slice(countUpTo(list, from - longest - JUST_AFTER), countUpTo(list, s));

/** @type {(film: Film, s: number) => Token[]} */
const tokensAt = (film, s) =>
  setOut(film, film.hops, s, s)
    .filter((hop) => s < hop.s1)
    .map((hop) => ({ ...travelling(film, hop, s), ms: hop.ms ?? null }));

/** @type {(film: Film, s: number, since: number, connected: PlayerNow[]) => Loss[]} */
function lossesAt(film, s, since, connected) {
  const endless = since >= (film.beats.at(-1)?.s ?? 0);
  const from = endless ? Math.max(since, s - LINGER) : since;
  const back = new Set(connected.map(({ name }) => name));
  return setOut(film, film.losses, from, s)
    .filter((loss) => loss.s1 > from && !(loss.cause === "player away" && back.has(loss.target)))
    .map((loss) => ({ ...travelling(film, loss, s), players: loss.players, cause: loss.cause }));
}

// ---- Geometry

/**
 * @typedef {{x: number, y: number}} Point
 * @typedef {Point[]} Path cubic curves one after the other: a point, then three for each curve
 * @typedef {{x: number, y: number, width: number, height: number}} Box
 * @typedef {ReturnType<typeof layout>} Layout
 */

const HEADINGS = 34; // pixels above the first row
const ZONE_GAP = 22; // pixels between the players of two servers
const STRIP = 24; // pixels under a player, for its strip
const SERVER = 68; // pixels, the height of a server

/**
 * Where the parts of a pane stand, in pixels of the picture. That is as wide as the pane from 320 to
 * 600 pixels and scaled beyond, so that letters are never smaller than they are meant to be.
 * @param {{servers: string[], rooms: Map<string, number>, broker: string, width: number}} pane
 *   `rooms`: the most players that each server holds
 */
export function layout({ servers, rooms, broker, width: available }) {
  const width = clamp(available || 600, 320, 600);
  /** @type {(narrow: number, wide: number) => number} */
  const fit = (narrow, wide) => mix(narrow, wide, (width - 320) / 280);
  const held = servers.map((name) => Math.max(1, rooms.get(name) ?? 0));
  const rows = held.reduce((sum, room) => sum + room, 0);
  const density = rows <= 6 ? "roomy" : rows <= 12 ? "snug" : "dense";
  const pitch = { roomy: 78, snug: 62, dense: clamp(720 / rows, 4, 30) }[density];
  const strip = density === "dense" ? 0 : STRIP;
  let y = HEADINGS;
  const boxes = servers.map((name, at) => {
    const zone = Math.max(held[at] * pitch, SERVER + 8);
    const top = y + (zone - strip - SERVER) / 2;
    y += zone + ZONE_GAP;
    return { name, x: fit(176, 312), y: top, width: fit(60, 92), height: SERVER };
  });
  const height = Math.max(y - ZONE_GAP, HEADINGS + 140);
  const [x, barX, slot] = [fit(6, 14), fit(124, 206), fit(15, 20)];
  // After the slots there must be room for how many were missed.
  const tail = width < 400 ? 30 : 60;
  return {
    width, height, density, pitch,
    radius: { roomy: fit(21, 24), snug: 17, dense: clamp(pitch * 0.42, 2, 10) }[density],
    playerX: fit(31, 60),
    bar: { x: barX, y: HEADINGS - 6, width: fit(10, 16), height: height - HEADINGS - strip / 2 },
    servers: boxes,
    broker: {
      x: fit(284, 540), y: (HEADINGS + height - strip) / 2, rx: fit(30, 44), height: 92,
      none: broker === "none",
    },
    slots: {
      x, size: fit(13, 16), pitch: slot, below: density === "roomy" ? fit(27, 30) : 23,
      fit: strip && Math.floor((barX - x - tail) / slot),
    },
  };
}

/**
 * Where each player is. A server's players stand around the middle of its box; on its way from one
 * server to another a player takes its room along, so that all the others give way smoothly.
 * @param {World} world @param {Layout} layout @returns {Map<string, Point>}
 */
export function rowsAt({ players }, { servers, pitch, playerX, radius, height }) {
  /** @type {(player: PlayerNow, server: string) => number} */
  const share = ({ from, home, progress }, server) =>
    (server === home ? ease(progress) : 0) + (server === from ? 1 - ease(progress) : 0);
  const ys = players.map(({ home }) => (servers.some(({ name }) => name === home) ? 0 : height / 2));
  for (const { name, y, height: tall } of servers) {
    const shares = players.map((player) => share(player, name));
    const all = shares.reduce((sum, part, at) => sum + part * players[at].room, 0);
    let taken = 0;
    shares.forEach((part, at) => {
      const room = part * players[at].room;
      ys[at] += (y + tall / 2 + (taken + (room - all) / 2) * pitch) * part;
      taken += room;
    });
  }
  const rows = players.map(({ name, from, home, progress }, at) => {
    // It passes the others at their side.
    const aside = from === home ? 0 : Math.sqrt(Math.sin(Math.PI * ease(progress))) * 2.7 * radius;
    return /** @type {const} */ ([name, { x: playerX + aside, y: ys[at] }]);
  });
  return new Map(rows);
}

/** @type {(a: Point, b: Point) => Path} */
const line = (a, b) => [a, ...[1 / 3, 2 / 3].map((t) => ({ x: mix(a.x, b.x, t), y: mix(a.y, b.y, t) })), b];

/** A curve that leaves and arrives level. @type {(a: Point, b: Point) => Path} */
const swing = (a, b) => [a, { x: (a.x + b.x) / 2, y: a.y }, { x: (a.x + b.x) / 2, y: b.y }, b];

/** From a player through the balancer to a server. @type {(layout: Layout, player: Point, server: Box) => Path} */
function wire({ bar, radius }, player, { x, y, height }) {
  const through = { x: bar.x + bar.width, y: player.y };
  const middle = y + height / 2;
  const port = { x, y: middle + clamp((player.y - middle) * 0.3, 12 - height / 2, height / 2 - 12) };
  return [...line({ x: player.x + radius, y: player.y }, through), ...swing(through, port).slice(1)];
}

/** @type {(layout: Layout, server: Box) => Path} */
function brokerLink({ broker }, { x, y, width, height }) {
  const from = { x: x + width, y: y + height / 2 };
  const spread = clamp((from.y - broker.y) * 0.12, -24, 24);
  return swing(from, { x: broker.x - broker.rx, y: broker.y + spread });
}

/** The stub of a way that there is not, towards the other server. @type {(from: Box, to: Box) => Path} */
function noWay({ x, y, width, height }, to) {
  const length = clamp((Math.abs(to.y - y) - height) / 2, 10, 40);
  const [start, end] = to.y > y ? [y + height, y + height + length] : [y, y - length];
  return line({ x: x + width / 2, y: start }, { x: x + width / 2, y: end });
}

/**
 * The way from one part to another, as things stand.
 * @param {Layout} layout @param {Map<string, Point>} rows @param {string} source
 * @param {string} target @returns {Path | null}
 */
export function pathBetween(layout, rows, source, target) {
  const [from, to] = [source, target].map((name) => layout.servers.find((one) => one.name === name));
  if (from && to) return noWay(from, to);
  if (from && target === "redis") return brokerLink(layout, from);
  if (to && source === "redis") return brokerLink(layout, to).reverse();
  const player = rows.get(from ? target : source);
  const server = from ?? to;
  if (!player || !server) return null;
  const path = wire(layout, player, server);
  return from ? path.reverse() : path;
}

/** @type {(a: Point, b: Point) => number} */
const distance = (a, b) => Math.hypot(b.x - a.x, b.y - a.y);

/** @type {(a: number, b: number, c: number, d: number, t: number) => number} */
const cubic = (a, b, c, d, t) =>
  (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t ** 2 * c + t ** 3 * d;

/** The point at a fraction of a path's length. @param {Path} path @param {number} fraction */
export function pointAt(path, fraction) {
  const lengths = [];
  for (let at = 0; at + 3 < path.length; at += 3) {
    const [a, b, c, d] = path.slice(at, at + 4);
    // Half of chord and legs: close enough to share out the time between the curves.
    lengths.push((distance(a, b) + distance(b, c) + distance(c, d) + distance(a, d)) / 2);
  }
  let left = clamp(fraction, 0, 1) * lengths.reduce((sum, length) => sum + length, 0);
  let curve = 0;
  while (curve < lengths.length - 1 && left > lengths[curve]) left -= lengths[curve++];
  const [a, b, c, d] = path.slice(curve * 3, curve * 3 + 4);
  const t = Math.min(1, left / (lengths[curve] || 1));
  return { x: cubic(a.x, b.x, c.x, d.x, t), y: cubic(a.y, b.y, c.y, d.y, t) };
}

/** One decimal is enough for a picture, and equal strings need not be set again. @param {number} value */
const px = (value) => String(Math.round(value * 10) / 10);
/** @param {Point} point */
const xy = ({ x, y }) => `${px(x)} ${px(y)}`;
/** @param {Path} path */
const curveData = ([start, ...curves]) => `M${xy(start)} C${curves.map(xy).join(" ")}`;

/** The first part of a path. @type {(path: Path, fraction: number) => string} */
const trailData = (path, fraction) =>
  `M${Array.from({ length: 13 }, (_, step) => xy(pointAt(path, (fraction * step) / 12))).join(" L")}`;

/** Outlines around the origin, of about the same weight, for a radius of 10. */
const SHAPES = [
  "M-9 0a9 9 0 1 0 18 0a9 9 0 1 0-18 0z", // circle
  "M0-10.5L10.5 8.5H-10.5z", // triangle
  "M-8.2-8.2H8.2V8.2H-8.2z", // square
  "M0-11L11 0 0 11-11 0z", // diamond
  "M0-10.5L10-3.2 6.2 8.5H-6.2L-10-3.2z", // pentagon
  "M0-11.5L3.3-4 11-3.4 5.2 1.8 7 9.6 0 5.4-7 9.6-5.2 1.8-11-3.4-3.3-4z", // star
  "M-3.7-10H3.7V-3.7H10V3.7H3.7V10H-3.7V3.7H-10V-3.7H-3.7z", // plus
  "M-5.2-9H5.2L10.4 0 5.2 9H-5.2L-10.4 0z", // hexagon
];
const HUES = 7; // not as many as the shapes, so that 56 players look different

/** The same colour and shape for a player in every pane. @param {Film[]} films */
export function castOf(films) {
  const names = new Set(films.flatMap(({ roles }) => [...roles.keys()]));
  const looks = [...names].map((_, at) => ({ hue: `hue-${at % HUES}`, d: SHAPES[at % SHAPES.length] }));
  return new Map([...names].map((name, at) => [name, looks[at]]));
}

/** Whether runs came to different ends with an event for a player. @param {World[]} worlds @param {string[]} events */
export function differences(worlds, events) {
  const strips = worlds.map(({ players }) => new Map(players.map(({ name, strip }) => [name, strip])));
  return (/** @type {string} */ event, /** @type {string} */ player) => {
    const outcomes = strips.map((strip) => strip.get(player)?.[events.indexOf(event)]?.outcome);
    return new Set(outcomes.filter((outcome) => outcome && outcome !== "pending")).size > 1;
  };
}

// ---- Drawing

/** @typedef {Record<string, string | number>} Attributes */

/**
 * @template {keyof HTMLElementTagNameMap} Tag @param {Tag} tag @param {Attributes} [attributes]
 * @param {(Node | string)[]} children
 */
const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** @param {string} tag @param {Attributes} [attributes] @param {(Node | string)[]} children */
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/** @template {Element} T @param {T} element @param {Attributes} attributes @param {(Node | string)[]} children */
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) set(element, name, String(value));
  element.append(...children);
  return element;
}

/** Sets what has changed. @param {Element} element @param {string} name @param {string | null} value */
function set(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * A group of the picture whose nodes are kept by key from one moment to the next. Only what has
 * changed is set; what is not drawn again goes.
 */
class Layer {
  /** @type {Map<string, {node: Element, attributes: Attributes, words: string, round: number}>} */
  kept = new Map();
  round = 0;
  group = svg("g");

  /**
   * @param {string} key @param {string} tag @param {Attributes} attributes
   * @param {string} [text] @param {string} [tip] what is told on hover
   */
  draw(key, tag, attributes, text = "", tip = "") {
    let kept = this.kept.get(key);
    if (!kept) {
      kept = { node: svg(tag), attributes: {}, words: "", round: 0 };
      this.kept.set(key, kept);
      this.group.append(kept.node);
    }
    for (const name in attributes) {
      const value = attributes[name];
      if (kept.attributes[name] === value) continue;
      kept.node.setAttribute(name, typeof value === "number" ? px(value) : value);
    }
    kept.attributes = attributes;
    kept.round = this.round;
    if (kept.words === text + tip) return;
    kept.words = text + tip;
    kept.node.replaceChildren(text, ...(tip ? [svg("title", {}, tip)] : []));
  }

  /** Ends a moment. */
  sweep() {
    for (const [key, { node, round }] of this.kept) {
      if (round === this.round) continue;
      node.remove();
      this.kept.delete(key);
    }
    this.round += 1;
  }
}

/** Words over lines of about `most` characters. @type {(text: string, most: number) => string[]} */
const wrap = (text, most) =>
  text.split(" ").reduce((/** @type {string[]} */ lines, word) => {
    const longer = `${lines.at(-1) ?? ""} ${word}`;
    return lines.length && longer.length <= most ? [...lines.slice(0, -1), longer] : [...lines, word];
  }, []);

const WHEREABOUTS = { expected: "not here yet", connecting: "connecting", connected: "", away: "away", left: "gone" };

/**
 * What all panes share at a moment.
 * @typedef {{cast: ReturnType<typeof castOf>, events: string[], before: number,
 *   differs: ReturnType<typeof differences>}} Shared
 */

/** The picture of one run. */
class Pane {
  links = new Layer();
  parts = new Layer();
  strips = new Layer();
  trails = new Layer();
  tokens = new Layer();
  words = new Layer();
  layers = [this.links, this.parts, this.strips, this.trails, this.tokens, this.words];
  picture = svg("svg", { role: "img" }, ...this.layers.map(({ group }) => group));
  counts = html("p", { class: "counts" });
  /** @type {Map<string, Point>} */
  rows = new Map();

  /** @param {Film} film @param {Layout} layout @param {Shared} shared */
  constructor(film, layout, shared) {
    this.film = film;
    this.layout = layout;
    this.shared = shared;
    const title = shorten(film.title, 60);
    const attributes = { class: "pane", "data-pane": film.broker, "aria-label": title };
    this.element = html("section", attributes, html("h3", {}, title), this.picture, this.counts);
  }

  /** @param {World} world @param {Layout} layout @param {Shared} shared */
  draw(world, layout, shared) {
    this.layout = layout;
    this.shared = shared;
    this.rows = rowsAt(world, layout);
    set(this.picture, "viewBox", `0 0 ${px(layout.width)} ${px(layout.height)}`);
    set(this.picture, "class", layout.density);
    this._drawParts(world);
    for (const player of world.players) {
      if (player.presence <= 0) continue;
      this._drawPlayer(player);
      const settled = player.progress === 1 || player.from === player.home;
      if (layout.slots.fit && settled) this._drawStrip(player);
    }
    this._drawLosses(world.losses);
    this._drawTokens(world.tokens);
    for (const layer of this.layers) layer.sweep();
    this._drawCounts(world);
  }

  /** @param {Layer} layer @param {string} key @param {string} look @param {number} x @param {number} y @param {string} text */
  _text(layer, key, look, x, y, text) {
    layer.draw(key, "text", { class: look, x, y }, text);
  }

  /**
   * A player's shape.
   * @param {Layer} layer @param {string} key @param {string} look @param {string} name
   * @param {Point} at @param {number} r @param {string} [tip] @param {Attributes} [more]
   */
  _mark(layer, key, look, name, at, r, tip = "", more = {}) {
    const d = this.shared.cast.get(name)?.d ?? SHAPES[0];
    const transform = `translate(${xy(at)}) scale(${Math.round(r * 10) / 100})`;
    layer.draw(key, "path", { class: `${look} ${this._hue(name)}`, d, transform, ...more }, "", tip);
  }

  /** @param {string} name */
  _hue(name) {
    return this.shared.cast.get(name)?.hue ?? "hue-6";
  }

  /** @param {World} world */
  _drawParts({ servers }) {
    const { parts } = this;
    const { bar, broker, playerX, servers: boxes } = this.layout;
    servers.forEach((server, at) => this._drawServer(server, boxes[at]));
    const middle = boxes.length ? boxes[0].x + boxes[0].width / 2 : 0;
    const columns = { players: playerX, balancer: bar.x + bar.width / 2, servers: middle, broker: broker.x };
    for (const [text, x] of Object.entries(columns)) this._text(parts, text, "heading", x, 14, text);
    parts.draw("bar", "rect", { class: "bar", ...bar, rx: bar.width / 2 });
    this._drawBroker(broker);
  }

  /** @param {ServerNow} now @param {Box} box */
  _drawServer({ name, holds, subscribed }, { x, y, width, height }) {
    const { parts, layout } = this;
    const key = `server ${name}`;
    const label = shorten(name, 8);
    const long = label.length > 2;
    parts.draw(key, "rect", { class: "server", "data-server": name, x, y, width, height, rx: 9 });
    this._text(parts, `${key} name`, long ? "letter long" : "letter", x + 13, y + 29, label);
    if (!long && width > 80) this._text(parts, `${key} kind`, "kind", x + 36, y + 28, "server");
    const fit = Math.floor((width - 18) / 17);
    const shown = holds.slice(0, holds.length > fit ? fit - 2 : fit);
    shown.forEach((player, at) => {
      this._mark(parts, `${key} ${player}`, "mark", player, { x: x + 20 + at * 17, y: y + 50 }, 6.5, shorten(player));
    });
    const more = holds.length - shown.length;
    if (more) this._text(parts, `${key} more`, "kind", x + 13 + shown.length * 17, y + 54, `+${more}`);
    if (layout.broker.none) return;
    const d = curveData(brokerLink(layout, { x, y, width, height }));
    this.links.draw(`link ${name}`, "path", { class: subscribed ? "link" : "link off", d });
  }

  /** @param {Layout["broker"]} broker */
  _drawBroker({ x, y, rx, height, none }) {
    const { parts } = this;
    const look = none ? "broker none" : "broker";
    const ry = rx * 0.29;
    const top = y - height / 2 + ry;
    const side = px(height - 2 * ry);
    const d = `M${px(x - rx)} ${px(top)} v${side} a${px(rx)} ${px(ry)} 0 0 0 ${px(2 * rx)} 0 v-${side}`;
    parts.draw("cylinder", "path", { class: look, d });
    parts.draw("lid", "ellipse", { class: look, cx: x, cy: top, rx, ry });
    this._text(parts, "cylinder name", none ? "kind middle" : "redis", x, y + 10, none ? "no broker" : "Redis");
    if (!none) this._text(parts, "channel", "channel", x, y + 27, "game:g");
  }

  /** @param {PlayerNow} player */
  _drawPlayer({ name, state, presence, reach, home, from }) {
    const { parts, layout } = this;
    const { radius: r, density, pitch } = layout;
    const { x, y } = this.rows.get(name) ?? { x: 0, y: 0 };
    const key = `player ${name}`;
    const text = shorten(name);
    const hue = this._hue(name);
    const server = layout.servers.find((box) => box.name === (state === "away" ? from : home));
    if (server && reach > 0) {
      const path = wire(layout, { x, y }, server);
      const d = reach < 1 ? trailData(path, ease(reach)) : curveData(path);
      this.links.draw(key, "path", { class: `wire ${state}`, d });
    }
    const opacity = px(presence);
    const ring = { class: `player ${state} ${hue}`, cx: x, cy: y, r, opacity };
    const where = WHEREABOUTS[state] || `on ${shorten(home)}`;
    parts.draw(key, "circle", { ...ring, "data-player": name, "data-state": state }, "", `${text}: ${where}`);
    const inside = density !== "dense" && text.length <= 4;
    const middle = { x, y: inside ? y - r * 0.27 : y };
    this._mark(parts, `${key} mark`, `mark ${state}`, name, middle, r * (inside ? 0.33 : 0.5), "", { opacity });
    if (pitch < 13) return;
    if (inside) this._text(parts, `${key} name`, `name ${hue}`, x, y + r * 0.62, text);
    else this._text(parts, `${key} name`, `name beside ${hue}`, x + r + 6, y - (density === "dense" ? 2 : 6), text);
    if (state !== "away" || reach > 0) return;
    this._text(parts, `${key} away`, "away", x + r + 6, y + (inside ? 4 : 11), "away");
  }

  /** One slot for each event that the player should hear. @param {PlayerNow} player */
  _drawStrip({ name, strip, missed }) {
    const { strips } = this;
    const { events, before, differs } = this.shared;
    const { x, size, pitch, below } = this.layout.slots;
    const y = (this.rows.get(name)?.y ?? 0) + below;
    const left = x + (before > 0 ? 22 : 0);
    if (before > 0 && strip[0]) this._text(strips, `before ${name}`, "before", x, y + size - 3, `+${before}`);
    strip.forEach((slot, at) => {
      if (!slot) return;
      const box = { x: left + at * pitch, y, width: size, height: size };
      this._drawSlot(events[at], name, slot, box);
      if (!differs(events[at], name)) return;
      const under = { ...box, y: y + size + 2.5, height: 2.5 };
      strips.draw(`differs ${name} ${at}`, "rect", { class: "differs", ...under });
    });
    if (!missed) return;
    const text = this.layout.width < 400 ? `✕${missed}` : `missed ${missed}`;
    this._text(strips, `missed ${name}`, "missed", left + strip.length * pitch + 2, y + size - 3, text);
  }

  /** @param {string} event @param {string} player @param {Slot} slot @param {Box} box */
  _drawSlot(event, player, { outcome, cause }, box) {
    const { strips } = this;
    const { player: sender, body } = this.film.messages.get(event) ?? { player: "", body: "" };
    const key = `slot ${player} ${event}`;
    const tip = `${quote(body)} from ${shorten(sender)}: ${outcome}${cause && `, ${shorten(cause, 40)}`}`;
    const data = { "data-slot": event, "data-for": player, "data-outcome": outcome };
    strips.draw(key, "rect", { class: `slot ${outcome} ${this._hue(sender)}`, ...box, rx: 3.5, ...data }, "", tip);
    const middle = { x: box.x + box.width / 2, y: box.y + box.width / 2 };
    if (outcome === "missed") {
      const transform = `translate(${xy(middle)})`;
      strips.draw(`${key} in`, "path", { class: "slot-cross", d: "M-4-4L4 4M4-4L-4 4", transform });
    } else if (outcome !== "pending") {
      this._mark(strips, `${key} in`, "mark", sender, middle, box.width * 0.3);
    }
    if (outcome === "twice") this._text(strips, `${key} twice`, "times", box.x + box.width - 3, box.y + 5, "2");
  }

  /** @param {Token[]} tokens */
  _drawTokens(tokens) {
    const dense = this.layout.density === "dense";
    const placed = tokens.flatMap((token) => {
      const path = pathBetween(this.layout, this.rows, token.source, token.target);
      return path ? [{ token, at: pointAt(path, ease(token.fraction)) }] : [];
    });
    for (const { token, at } of placed) {
      const { event, source, target, s0, player, body, ms } = token;
      const key = `${event} ${source} ${target} ${s0}`;
      const halo = { class: `halo ${this._hue(player)}`, cx: at.x, cy: at.y, r: 13 };
      if (!dense) this.tokens.draw(`halo ${key}`, "circle", halo);
      const took = ms === null ? "" : `, ${ms} ms`;
      const tip = `${quote(body)}, ${shorten(source)} → ${shorten(target)}${took}`;
      this._mark(this.tokens, key, "token", player, at, dense ? 5 : 8, tip, { "data-token": event });
    }
    if (placed.length < 60) this._drawWords(placed);
  }

  /**
   * What the tokens carry: once where copies of one event are close together, and clear of others.
   * @param {{token: Token, at: Point}[]} placed
   */
  _drawWords(placed) {
    /** @type {(Point & {event: string})[]} */
    const words = [];
    for (const { token: { event, source, target, s0, player, body }, at: { x, y } } of placed) {
      if (words.some((word) => word.event === event && distance(word, { x, y }) < 50)) continue;
      const free = [y - 16, y + 26].find((height) =>
        !words.some((word) => Math.abs(word.y - height) < 14 && Math.abs(word.x - x) < 44) &&
        !placed.some(({ at }) => Math.abs(at.y - height + 5) < 15 && Math.abs(at.x - x) < 26));
      if (free === undefined) continue;
      words.push({ x, y: free, event });
      this._text(this.words, `${event} ${source} ${target} ${s0}`, `word ${this._hue(player)}`, x, free, shorten(body));
    }
  }

  /** @param {Loss[]} losses */
  _drawLosses(losses) {
    /** @type {Map<string, Loss[]>} */
    const groups = new Map();
    for (const loss of losses) {
      const key = `${loss.source} ${loss.target} ${loss.cause}`;
      groups.set(key, [...(groups.get(key) ?? []), loss].slice(-4));
    }
    for (const [key, group] of groups) {
      const path = pathBetween(this.layout, this.rows, group[0].source, group[0].target);
      if (path) this._drawLossGroup(key, group, path);
    }
  }

  /** @param {string} key @param {Loss[]} losses @param {Path} path */
  _drawLossGroup(key, losses, path) {
    // On a stub they end side by side; on a wire a little over half of the way, one behind the other.
    const stub = path[0].x === path[3].x;
    const reach = stub ? 1 : 0.62;
    losses.forEach((loss, at) => {
      const aside = stub ? (at - (losses.length - 1) / 2) * 22 : 0;
      const own = path.map(({ x, y }) => ({ x: x + aside, y }));
      this._drawLoss(`${key} ${loss.event}`, loss, own, reach - (stub ? 0 : (losses.length - 1 - at) * 0.1));
    });
    const ended = losses.filter((loss) => loss.fraction >= 1);
    if (!ended.length) return;
    const { x, y } = pointAt(path, reach);
    const lines = wrap(reason(ended), stub ? 15 : 60);
    const top = stub && y > path[0].y ? y + 24 : y - 14 - 15 * (lines.length - 1);
    lines.forEach((text, at) => this._text(this.words, `loss ${key} ${at}`, "loss", x, top + at * 15, text));
  }

  /** @param {string} key @param {Loss} loss @param {Path} path @param {number} reach */
  _drawLoss(key, { event, player, body, cause, fraction }, path, reach) {
    const { trails } = this;
    const hue = this._hue(player);
    const gone = ease(fraction) * reach;
    const at = pointAt(path, gone);
    trails.draw(`trail ${key}`, "path", { class: `trail ${hue}`, d: trailData(path, gone) });
    if (fraction < 1) {
      this._mark(trails, `lost ${key}`, "token", player, at, 8, quote(body), { "data-token": event });
      return;
    }
    // Hollow: a narrow cross in the paper's colour on a wide one in the sender's.
    const cross = { d: "M-6.5-6.5L6.5 6.5M6.5-6.5L-6.5 6.5", transform: `translate(${xy(at)})` };
    const tip = `${quote(body)} was lost: ${shorten(cause, 40)}`;
    trails.draw(`cross ${key}`, "path", { class: `cross ${hue}`, ...cross, "data-loss": event }, "", tip);
    trails.draw(`hollow ${key}`, "path", { class: "hollow", ...cross });
  }

  /** The line of numbers, and the picture in words for whoever cannot see it. @param {World} world */
  _drawCounts({ players, servers, counts: { heard, missed, twice } }) {
    if (this.counts.textContent !== `heard ${heard} · missed ${missed} · twice ${twice}`) {
      const some = html("b", { class: missed ? "some" : "" }, `missed ${missed}`);
      this.counts.replaceChildren(`heard ${heard} · `, some, ` · twice ${twice}`);
    }
    const held = servers.map(({ name, holds }) => `${shorten(name)}: ${listed(holds.map((one) => shorten(one))) || "nobody"}`);
    const away = players.filter(({ state }) => state === "away").map(({ name }) => `; ${shorten(name)} is away`);
    set(this.picture, "aria-label", `On ${held.join("; on ")}${away.join("")}`);
  }
}

// ---- Controls

/** @param {string} action @param {string} label @param {string} [face] @param {Attributes} [more] */
const button = (action, label, face = label, more = {}) =>
  html("button", { type: "button", "data-action": action, "aria-label": label, title: label, ...more }, face);

/** Lets a control act, or else say why not, still in reach of the keyboard. @param {Element} control @param {string} why */
function allow(control, why) {
  set(control, "aria-disabled", why ? "true" : null);
  set(control, "aria-description", why || null);
  set(control, "title", why || control.getAttribute("aria-label"));
}

/** A beat in one sentence. @param {Alignment} alignment @param {number} at */
const sentence = ({ beats }, at) =>
  `Beat ${at + 1} of ${beats.length}: ${shorten(beats[at]?.caption || "the run", 200)}`;

/** The buttons under the panes, and the scrubber, on which every beat is equally wide. */
class Transport {
  // Their pictures are in the style sheet.
  start = button("start", "Start", "");
  back = button("back", "Step back", "");
  play = button("play", "Play", "");
  forward = button("forward", "Step forward", "");
  end = button("end", "End", "");
  live = button("live", "Live");
  scrubber = html("input", { type: "range", min: 0, step: 0.01, class: "scrubber", "aria-label": "Playhead" });
  speed = html("select", { "aria-label": "Speed" },
    ...["0.5", "1", "2"].map((speed) => html("option", { value: speed }, `${speed.replace("0.5", "½")}×`)));
  beats = html("ol", { class: "beats", "aria-label": "Beats" });
  element = html("div", { class: "transport", role: "group", "aria-label": "Playback" },
    html("div", { class: "buttons" }, this.start, this.back, this.play, this.forward, this.end),
    html("div", { class: "line" }, html("div", { class: "track" }), this.scrubber, this.beats),
    html("div", { class: "side" }, this.live, html("label", {}, html("span", {}, "speed "), this.speed)));

  constructor() {
    this.speed.value = "1";
  }

  /**
   * @param {Alignment} alignment
   * @param {{T: number, moving: boolean, live: boolean, following: boolean}} playhead
   */
  draw(alignment, { T, moving, live, following }) {
    const { beats, length } = alignment;
    const current = alignment.beatAt(T);
    const at = current + (T - beats[current].start) / beats[current].duration;
    this._drawBeats(beats, current);
    this.element.style.setProperty("--done", `${at / beats.length}`);
    this.scrubber.max = `${beats.length}`;
    this.scrubber.value = `${at}`;
    set(this.scrubber, "aria-valuetext", sentence(alignment, current));
    set(this.play, "aria-label", moving ? "Pause" : "Play");
    this.live.hidden = !live;
    set(this.live, "aria-pressed", `${following}`);
    const reasons = [T <= 0 ? "This is the beginning." : "", "", T >= length ? "This is the end." : ""];
    [[this.start, this.back], [this.play], [this.forward, this.end]].forEach((controls, side) =>
      controls.forEach((control) => allow(control, reasons[side])));
  }

  /** @param {Alignment["beats"]} beats @param {number} current */
  _drawBeats(beats, current) {
    const shown = this.beats.children;
    while (shown.length > beats.length) this.beats.lastChild?.remove();
    beats.forEach(({ caption }, at) => {
      const text = shorten(caption || "the run", 120);
      if (shown[at]?.textContent !== `${at + 1}${text}`) {
        const label = { type: "button", "data-beat": at, title: text, "aria-label": `Beat ${at + 1}: ${text}` };
        const item = html("li", {}, html("button", label, html("i", {}, `${at + 1}`), html("span", {}, text)));
        if (shown[at]) shown[at].replaceWith(item);
        else this.beats.append(item);
      }
      const jump = shown[at].firstElementChild;
      if (jump) set(jump, "aria-current", at === current ? "step" : null);
    });
  }

  /** The time that the scrubber stands at. @param {Alignment} alignment */
  timeOf({ beats }) {
    const at = Number(this.scrubber.value);
    const beat = Math.min(Math.floor(at), beats.length - 1);
    return Math.max(beats[beat].begin, beats[beat].start + (at - beat) * beats[beat].duration);
  }
}

/** What a person can do to a live run. */
class Controls {
  player = html("select", { "aria-label": "Player" });
  body = html("input", { type: "text", "aria-label": "What it says", placeholder: "say something", maxlength: 200 });

  /** @param {string[]} servers */
  constructor(servers) {
    this.buttons = [
      button("send", "Send", "Send", { type: "submit" }),
      button("disconnect", "Disconnect"),
      ...servers.map((server) =>
        button("reconnect", `Reconnect to ${shorten(server)}`, `to ${shorten(server)}`, { "data-server": server })),
      button("reconnect", "Reconnect, the balancer’s choice", "balancer’s choice"),
    ];
    const [send, disconnect, ...rest] = this.buttons;
    this.element = html("form", { class: "controls", "aria-label": "Act on the live run" },
      this.player, html("span", {}, this.body, send), disconnect, html("span", {}, "Reconnect", ...rest));
  }

  /** @param {Film} film @param {{action: string, player: string} | null} busy */
  draw(film, busy) {
    const names = [...film.roles.values()].filter(({ present }) => present).map(({ name }) => name);
    if (names.join("\n") !== [...this.player.options].map(({ value }) => value).join("\n")) {
      const chosen = this.player.value;
      this.player.replaceChildren(...names.map((name) => html("option", { value: name }, shorten(name))));
      if (names.includes(chosen)) this.player.value = chosen;
    }
    const role = film.roles.get(this.player.value);
    const now = role ? playerAt(film, role, film.end, []) : null;
    const waiting = busy ? `Waiting for ${shorten(busy.player)} to ${busy.action}.` : "";
    set(this.element, "aria-busy", `${busy !== null}`);
    for (const control of this.buttons) allow(control, waiting || whyNot(control.dataset, now, this.body.value));
  }
}

/**
 * Why a control cannot act now; empty if it can.
 * @param {{action?: string, server?: string}} control @param {PlayerNow | null} player
 * @param {string} body
 */
export function whyNot({ action, server }, player, body) {
  if (!player) return "No player has joined yet.";
  const name = shorten(player.name);
  const away = player.state === "away";
  if (action === "send" && away) return `${name} is away: reconnect it first.`;
  if (action === "send" && !body.trim()) return `Write what ${name} says first.`;
  if (action === "disconnect" && away) return `${name} is away already.`;
  if (server && !away && player.home === server) return `${name} is on ${shorten(server)} already.`;
  return "";
}

// ---- The stage

const HOP_MS = 900; // of screen time, at normal speed
const READ_MS = 900; // at the end of a beat, before the next one begins
const PANE_MIN = 350; // pixels under which panes are stacked

/** @type {Record<string, string>} */
const KEYS = { " ": "play", ArrowLeft: "back", ArrowRight: "forward", Home: "start", End: "end" };

/** One view: its own playhead over the runs, and everything on the screen. */
class Stage {
  /** @type {Film[]} */
  films = [];
  /** @type {Pane[]} */
  panes = [];
  /** @type {Controls | null} */
  controls = null;
  /** @type {{id: number, action: string, player: string} | null} */
  busy = null;
  /** For each run, where the hole begins that was asked for. @type {number[]} */
  asked = [];
  alignment = align([]);
  cast = castOf([]);
  /** The most players that a server holds in any run, so that the panes line up. */
  rooms = new Map();
  /** Where the playhead is, in hops from the beginning. */
  T = 0;
  moving = false;
  following = false;
  live = false;
  /** Where playing stops by itself. */
  until = Infinity;
  /** Until then, by the frames' clock, the playhead rests at the end of a beat. */
  resting = 0;
  last = 0;
  frame = 0;
  width = 0;
  actions = 0;

  caption = html("p", { class: "caption" });
  progress = html("p", { class: "which-beat" });
  problem = html("p", { class: "problem", role: "alert", hidden: "" });
  places = html("div", { class: "panes" });
  below = html("div");
  voice = html("p", { class: "voice", role: "status", "aria-live": "polite" });
  transport = new Transport();
  // JupyterLab's shortcuts stay out of an element with the last attribute.
  root = html("div", { class: "wsdemo-stage", tabindex: 0, role: "group", "aria-label": "Stage", "data-lm-suppress-shortcuts": "true" },
    html("header", {}, this.caption, this.progress),
    this.problem, this.places, this.below, this.transport.element, this.voice);
  still = matchMedia("(prefers-reduced-motion: reduce)");
  observer = new ResizeObserver(() => this._measure());

  /** @param {HTMLElement} element @param {Setting} setting */
  constructor(element, { runs, live, send = () => {} }) {
    this.send = send;
    element.append(this.root);
    this.replace(runs, live);
    this._listen();
  }

  /** Shows other runs: from the beginning or, live, what is now. @param {Run[]} runs @param {boolean} live */
  replace(runs, live) {
    this._halt();
    this.live = this.following = live;
    this.films = runs.map((run) => new Film(run));
    this.asked = [];
    this._align();
    const shared = { cast: this.cast, events: [], before: 0, differs: () => false };
    this.panes = this.films.map((film) => new Pane(film, this._layout(film), shared));
    this.places.replaceChildren(...this.panes.map(({ element }) => element));
    this.controls = live && runs.length ? new Controls(runs[0].servers) : null;
    this.below.replaceChildren(...(this.controls ? [this.controls.element] : []));
    this._drawControls();
    this.seek(live ? Infinity : 0);
    this._measure();
  }

  _align() {
    this.alignment = align(this.films, this.live);
    this.cast = castOf(this.films);
    this.rooms = new Map(this.films.flatMap(({ rooms }) => [...rooms]).sort(([, a], [, b]) => a - b));
  }

  /** Takes what has been added to a run. @param {More} more */
  add({ run, from, items, end }) {
    const film = this.films[run];
    if (!film) return;
    if (from > film.had) {
      if (this.asked[run] !== film.had) this.askRest();
      this.asked[run] = film.had;
      return;
    }
    film.append(items.slice(film.had - from), end);
    this._align();
    this._drawControls();
    if (this.following && !this.moving) this.follow();
    else this._wake();
  }

  askRest() {
    this.send({ type: "rest", have: this.films.map(({ had }) => had) });
  }

  /** Takes what became of an action. @param {Answer} answer */
  answer(answer) {
    if (answer.id !== this.busy?.id) return;
    this.busy = null;
    if (answer.type === "failed") this._complain(answer.text);
    this._drawControls();
  }

  /** @param {HTMLElement} control @param {Controls} controls */
  _act(control, { player: { value: player }, body }) {
    const why = control.getAttribute("aria-description");
    if (why) {
      this.voice.textContent = why;
      return;
    }
    const { action = "", server } = control.dataset;
    const id = (this.actions += 1);
    const said = action === "send" ? { body: body.value } : {};
    this.busy = { id, action, player };
    this.send({ type: "act", id, action, player, ...(server && { server }), ...said });
    if (action === "send") body.value = "";
    this._complain("");
    this._drawControls();
    this.follow();
  }

  // The playhead.

  /** @param {number} T */
  seek(T) {
    this.T = clamp(T, 0, this.alignment.length);
    this.draw();
  }

  /** @param {number} [until] */
  play(until = Infinity) {
    if (this.T >= this.alignment.length && this.live) return this.follow();
    if (this.T >= this.alignment.length) this.T = 0;
    // Where motion is not wanted, to play is to step.
    if (this.still.matches) return this.forward();
    this.until = until;
    this.resting = 0;
    this._go();
  }

  pause() {
    this._halt();
    this.following = false;
    this.draw();
  }

  /** Goes with what happens, as it happens. */
  follow() {
    this.until = Infinity;
    this.following = this.live;
    if (this.still.matches) this.T = this.alignment.length;
    if (this.T < this.alignment.length) return this._go();
    this._halt();
    this.draw();
  }

  /** Plays what is left of the beat that has begun, or else the next one. */
  forward() {
    const { beats, length, beatAt } = this.alignment;
    if (this.T >= length) return;
    const playing = this.moving;
    this.pause();
    const ended = this.T > 0 && this.T === beats[beatAt(this.T)].end;
    const at = beatAt(this.T) + Number(ended);
    const { begin, end } = beats[at];
    if (this.T <= begin) this._announce(at);
    this.T = Math.max(this.T, begin);
    if (playing || this.still.matches) this.seek(end);
    else this.play(end);
  }

  /** Goes to the beginning of this beat, or from there to that of the one before. */
  back() {
    const at = this.alignment.beatAt(this.T);
    this.jump(this.T > this.alignment.beats[at].begin + 0.6 ? at : Math.max(0, at - 1));
  }

  /** Goes to the beginning of a beat. @param {number} at */
  jump(at) {
    this.pause();
    this.seek(this.alignment.beats[at].begin);
    this._announce(at);
  }

  _go() {
    if (!this.moving) this.last = 0;
    this.moving = true;
    this._wake();
    this.draw();
  }

  _halt() {
    this.moving = false;
    cancelAnimationFrame(this.frame);
    this.frame = 0;
  }

  /** Asks for one frame, unless one is on its way. */
  _wake() {
    this.frame ||= requestAnimationFrame((now) => this._tick(now));
  }

  /** @param {number} now */
  _tick(now) {
    this.frame = 0;
    const passed = this.last ? Math.min(now - this.last, 100) : 0;
    this.last = now;
    if (this.moving) this._advance((passed / HOP_MS) * Number(this.transport.speed.value), now);
    if (this.moving) this._wake();
    this.draw();
  }

  /** @param {number} hops @param {number} now */
  _advance(hops, now) {
    const { beats, length, beatAt } = this.alignment;
    if (this.following) {
      // Far behind it hurries; near the end it keeps the pace.
      this.T = Math.min(length, this.T + hops * Math.max(1, (length - this.T) / 3));
    } else if (now >= this.resting) {
      const { begin, end } = beats[beatAt(this.T + JUST_AFTER)];
      this.T = Math.min(Math.max(this.T, begin) + hops, end);
      if (this.T === end) this.resting = now + READ_MS;
    }
    if (this.T < Math.min(length, this.until)) return;
    this.moving = false;
    this.following ||= this.live && this.until === Infinity;
  }

  // What is seen and said.

  /** What there is instead of a picture. */
  get unusable() {
    return this.films.length ? this.alignment.problem : "There is no run to show yet.";
  }

  draw() {
    const { alignment, films, live, T, unusable } = this;
    const { beats } = alignment;
    const at = alignment.beatAt(T);
    const nothing = live ? "Waiting for the first thing to happen." : "Nothing happened in this run.";
    const happened = films.some(({ had }) => had > 0);
    const caption = unusable || beats[at].caption || (happened ? "The run so far" : nothing);
    this.caption.textContent = shorten(caption, unusable ? 400 : 160);
    this.progress.textContent = !unusable && films[0].beats.length ? `beat ${at + 1} of ${beats.length}` : "";
    this.root.classList.toggle("unusable", unusable !== "");
    if (unusable) return;
    this._drawPanes();
    this.transport.draw(alignment, this);
  }

  _drawPanes() {
    const { films, alignment, T, cast } = this;
    const layouts = films.map((film) => this._layout(film));
    const fit = Math.min(...layouts.map(({ slots }) => slots.fit));
    let columns = columnsAt(films, alignment, T, fit);
    // To say how many came before takes the room of one slot.
    if (columns.before > 0 && fit > 1) columns = columnsAt(films, alignment, T, fit - 1);
    const { events } = columns;
    const worlds = films.map((film, run) =>
      worldAt(film, alignment.storyTime(run, T), { since: alignment.since(run, T), events }));
    const shared = { cast, ...columns, differs: differences(worlds, events) };
    this.panes.forEach((pane, run) => pane.draw(worlds[run], layouts[run], shared));
  }

  /** @param {Film} film */
  _layout({ servers, broker }) {
    return layout({ servers, broker, rooms: this.rooms, width: this.width });
  }

  _drawControls() {
    this.controls?.draw(this.films[0], this.busy);
  }

  /** Shows what went wrong, in words. @param {string} problem */
  _complain(problem) {
    this.problem.textContent = shorten(problem, 300);
    this.problem.hidden = !problem;
  }

  /** One polite sentence for a step. @param {number} at of the beat */
  _announce(at) {
    this.voice.textContent = sentence(this.alignment, at);
  }

  _measure() {
    const available = this.root.clientWidth;
    const columns = clamp(Math.floor(available / PANE_MIN), 1, Math.max(1, this.films.length));
    this.root.style.setProperty("--columns", `${columns}`);
    this.root.classList.toggle("narrow", available < 640);
    this.root.classList.toggle("wide", available >= 1200);
    const width = this.panes[0]?.picture.clientWidth ?? 0;
    if (!width || Math.abs(width - this.width) < 1) return;
    this.width = width;
    this.draw();
  }

  // What a person does. Every listener is on something in the root, and goes with it.

  _listen() {
    const { transport, below, root } = this;
    const { scrubber } = transport;
    root.addEventListener("keydown", (event) => this._key(event));
    root.addEventListener("click", ({ target }) => this._press(target));
    scrubber.addEventListener("input", () => {
      const T = transport.timeOf(this.alignment);
      this.pause();
      this.seek(T);
    });
    scrubber.addEventListener("change", () => this._announce(this.alignment.beatAt(this.T)));
    below.addEventListener("input", () => this._drawControls());
    below.addEventListener("submit", (event) => event.preventDefault());
    this.observer.observe(root);
  }

  /** @param {EventTarget | null} target */
  _press(target) {
    const control = target instanceof Element ? target.closest("button") : null;
    if (!control) return;
    const { action = "", beat } = control.dataset;
    if (this.controls?.buttons.includes(control)) this._act(control, this.controls);
    else if (beat) this.jump(Number(beat));
    else if (!control.hasAttribute("aria-disabled")) this._do(action);
  }

  /** @param {string} action */
  _do(action) {
    if (this.unusable) return;
    if (action === "play") return this.moving ? this.pause() : this.play();
    if (action === "forward") return this.forward();
    if (action === "back") return this.back();
    if (action === "start") return this.jump(0);
    if (action === "live") return this.follow();
    this.pause();
    this.following = this.live;
    this.seek(Infinity);
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    event.stopPropagation();
    const { key, target } = event;
    if (event.altKey || event.ctrlKey || event.metaKey || !(target instanceof Element)) return;
    // Fields need all keys for themselves, buttons the space bar.
    if (target.matches("input[type=text], select") || (key === " " && target.matches("button"))) return;
    if (!KEYS[key]) return;
    event.preventDefault();
    this._do(KEYS[key]);
  }

  destroy() {
    this._halt();
    this.observer.disconnect();
    this.root.remove();
  }
}

/** @typedef {{runs: Run[], live: boolean, send?: (message: ToPython) => void}} Setting */

/** Puts a stage into an element. @param {HTMLElement} element @param {Setting} setting */
export const mount = (element, setting) => new Stage(element, setting);

/** The widget's front end. @param {{model: Model, el: HTMLElement}} view */
function render({ model, el }) {
  const setting = () => ({ runs: model.get("runs") ?? [], live: Boolean(model.get("live")) });
  const stage = mount(el, { ...setting(), send: (message) => model.send(message) });
  const take = (/** @type {More | Answer} */ message) =>
    message.type === "more" ? stage.add(message) : stage.answer(message);
  const renew = () => stage.replace(setting().runs, setting().live);
  /** @type {[string, (message: any) => void][]} */
  const heard = [["msg:custom", take], ["change:runs", renew], ["change:live", renew]];
  for (const [name, callback] of heard) model.on(name, callback);
  // What was sent before this view was there to hear it.
  if (stage.live) stage.askRest();
  return () => {
    for (const [name, callback] of heard) model.off(name, callback);
    stage.destroy();
  };
}

export default { render };
