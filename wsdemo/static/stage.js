// The stage: recorded runs of players, WebSocket servers, a load balancer and Redis, as a diagram
// in which each message travels its real way.
//
// Everything drawn is a function of time. `Film` indexes the items of one run, `align` puts several
// runs under one playhead, `worldAt` says what is the case at a story time, `layout`, `rowsAt` and
// `pathBetween` say where that is, and the rest draws it. To play is to ask again a moment later.

// ------------------------------------------------------------------------------- the contract
// What Python sends (see story.py). Story time is counted in hops; items may come out of its order.

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
 *
 * @typedef {{title: string, broker: string, servers: string[], items: Item[], end: number}} Run
 *
 * @typedef {{type: "more", run: number, from: number, items: Item[], end: number}
 *   | {type: "done", id: number} | {type: "failed", id: number, text: string}} FromPython
 * @typedef {{type: "rest", have: number[]} | {type: "act", id: number, action: string,
 *   player: string, server?: string, body?: string}} ToPython
 *
 * The part of an anywidget model that is used here:
 * @typedef {{get(name: string): any, send(message: ToPython): void,
 *   on(name: string, callback: (message: any) => void): void,
 *   off(name: string, callback: (message: any) => void): void}} Model
 */

/**
 * What is the case at one moment of one run.
 *
 * @typedef {{outcome: "pending" | "heard" | "twice" | "missed", cause: string, age: number}} Slot
 * @typedef {{name: string, state: "expected" | "connecting" | "connected" | "away" | "left",
 *   home: string, from: string, progress: number, reach: number, presence: number, room: number,
 *   missed: number, strip: (Slot | null)[]}} PlayerNow
 * @typedef {{name: string, holds: string[], subscribed: boolean}} ServerNow
 * @typedef {{event: string, player: string, body: string, source: string, target: string,
 *   s0: number, s1: number, fraction: number}} Travelling
 * @typedef {Travelling & {ms: number | null}} Token
 * @typedef {Travelling & {players: string[], cause: string}} Loss
 * @typedef {{heard: number, missed: number, twice: number}} Counts
 * @typedef {{s: number, players: PlayerNow[], servers: ServerNow[], tokens: Token[],
 *   losses: Loss[], counts: Counts}} World
 */

// ---------------------------------------------------------------------------- numbers and words

/** @param {number} value @param {number} low @param {number} high */
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** @param {number} from @param {number} to @param {number} fraction */
const mix = (from, to, fraction) => from + (to - from) * fraction;

/** Slow at both ends, as a thing with weight moves. @param {number} fraction */
const ease = (fraction) => (1 - Math.cos(Math.PI * clamp(fraction, 0, 1))) / 2;

/** One decimal is enough for a picture, and equal strings need not be set again. */
const px = (/** @type {number} */ value) => String(Math.round(value * 10) / 10);

/**
 * How many entries of a sorted list are not later than `s`.
 * @template T @param {readonly T[]} list @param {number} s @param {(entry: T) => number} time
 */
export function countUpTo(list, s, time) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (time(list[middle]) <= s) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Puts an entry into a sorted list and says where. Items come nearly in order, so it looks for the
 * place from the end.
 * @template T @param {T[]} list @param {T} entry @param {(entry: T) => number} time
 */
function insertSorted(list, entry, time) {
  let at = list.length;
  while (at > 0 && time(list[at - 1]) > time(entry)) at -= 1;
  if (at === list.length) list.push(entry);
  else list.splice(at, 0, entry);
  return at;
}

const instant = (/** @type {{s: number}} */ item) => item.s;
const beginning = (/** @type {{s0: number}} */ item) => item.s0;

// Control characters, and marks that would change the direction of the text around them.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2028\u2029\u2060-\u2069\ufeff]+/g;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;

/**
 * A name or a body as it can be shown: short, on one line, and unable to turn its surroundings.
 * @param {unknown} text @param {number} [most] characters
 */
export function shorten(text, most = 14) {
  const clean = String(text).slice(0, 400).replace(UNSEEN, " ").replace(/\s+/g, " ").trim();
  const characters = Array.from(clean);
  const short =
    characters.length > most || String(text).length > 400
      ? `${characters.slice(0, most).join("").trimEnd()}…`
      : clean;
  return RIGHT_TO_LEFT.test(short) ? `\u2068${short}\u2069` : short;
}

/** @param {string} body */
const quote = (body) => `“${shorten(body)}”`;

/** "a", "a and b", "a, b and 3 more". @param {string[]} names */
function listed(names) {
  if (names.length <= 1) return names.join("");
  if (names.length === 2) return `${names[0]} and ${names[1]}`;
  if (names.length === 3) return `${names[0]}, ${names[1]} and ${names[2]}`;
  return `${names[0]}, ${names[1]} and ${names.length - 2} more`;
}

/**
 * Why something got lost, in a few words that stand beside the cross.
 * @param {Loss[]} losses that share source, target and cause
 */
export function reason(losses) {
  const { cause, target } = losses[0];
  const words = listed([...new Set(losses.map((loss) => quote(loss.body)))]);
  const one = losses.length === 1;
  const to = shorten(target);
  switch (cause) {
    case "no broker between servers":
      return `${words} ${one ? "has" : "have"} no way to ${to}`;
    case "player away":
      return `${words}: ${to} is away`;
    case "player too slow":
      return `${words}: ${to} is too slow`;
    case "redis down":
      return `${words}: Redis is down`;
    case "server not subscribed":
      return `${words}: ${to} is not subscribed`;
    case "never reached a server":
      return `${words} never reached a server`;
    case "lost with its server":
      return `${words} went down with ${shorten(losses[0].source)}`;
  }
  return `${words}: ${shorten(cause, 40)}`;
}

// ------------------------------------------------------------------------------ a run, indexed

/** Totals that change at story times. */
class Tally {
  constructor() {
    /** @type {(Counts & {s: number})[]} */
    this.totals = [];
  }

  /** @param {number} s @param {Partial<Counts>} change */
  add(s, { heard = 0, missed = 0, twice = 0 }) {
    const at = insertSorted(this.totals, { s, heard: 0, missed: 0, twice: 0 }, instant);
    const before = this.totals[at - 1];
    if (before) {
      Object.assign(this.totals[at], before, { s });
    }
    for (let later = at; later < this.totals.length; later += 1) {
      const total = this.totals[later];
      total.heard += heard;
      total.missed += missed;
      total.twice += twice;
    }
  }

  /** @param {number} s @returns {Counts} */
  at(s) {
    const { heard, missed, twice } = this.totals[countUpTo(this.totals, s, instant) - 1] ?? NOTHING;
    return { heard, missed, twice };
  }
}

const NOTHING = { heard: 0, missed: 0, twice: 0 };

/**
 * One player's part: where it was when, and what became of each event that it should hear.
 *
 * @typedef {{s: number, outcome: string, cause: string}} Turn
 * @typedef {{said: number, turns: Turn[]}} Fate
 * @typedef {{s0: number, s1: number, server: string, left: boolean}} Stay
 */
class Role {
  /** @param {string} name */
  constructor(name) {
    this.name = name;
    /** @type {Stay[]} */
    this.stays = [];
    /** @type {Map<string, Fate>} */
    this.fates = new Map();
    this.tally = new Tally();
  }

  /** Whether it is in the game, by all that has been told so far. */
  get present() {
    const last = this.stays.at(-1);
    return last !== undefined && !last.left;
  }
}

/** All that is known of one run, so arranged that a moment is found without reading the whole. */
export class Film {
  /** @param {Run} run */
  constructor(run) {
    this.title = run.title;
    this.broker = run.broker;
    this.servers = run.servers;
    /** How many items it has taken. */
    this.had = 0;
    this.end = 0;
    /** @type {BeatItem[]} */
    this.beats = [];
    /** @type {SaidItem[]} */
    this.said = [];
    /** @type {Map<string, SaidItem>} */
    this.messages = new Map();
    /** @type {HopItem[]} */
    this.hops = [];
    /** @type {LossItem[]} */
    this.losses = [];
    /** How long any hop or loss takes at most: nothing that set out earlier is still on its way. */
    this.longest = 1;
    /** @type {Map<string, Role>} */
    this.roles = new Map();
    /** @type {Map<string, LinkItem[]>} */
    this.links = new Map(run.servers.map((name) => [name, []]));
    /** The most players that each server ever holds. @type {number[]} */
    this.rooms = run.servers.map(() => 0);
    this.tally = new Tally();
    /** @type {Map<string, string>} */
    this._homes = new Map();
    this.append(run.items, run.end);
  }

  /** @param {readonly Item[]} items @param {number} end */
  append(items, end) {
    for (const item of items) {
      this.had += 1;
      this._take(item);
      this.end = Math.max(this.end, "s" in item ? item.s : item.s1);
    }
    this.end = Math.max(this.end, end);
  }

  /** @param {Item} item */
  _take(item) {
    switch (item.type) {
      case "beat":
        insertSorted(this.beats, item, instant);
        break;
      case "said":
        this._say(item);
        break;
      case "hop":
        insertSorted(this.hops, item, beginning);
        this.longest = Math.max(this.longest, item.s1 - item.s0);
        break;
      case "loss":
        insertSorted(this.losses, item, beginning);
        this.longest = Math.max(this.longest, item.s1 - item.s0);
        break;
      case "place":
        // A connection that closes after its player has left changes nothing any more.
        if (item.server || this._role(item.player).present) this._settle(item);
        break;
      case "left":
        this._settle({ player: item.player, s0: item.s, s1: item.s, server: "", left: true });
        break;
      case "link":
        insertSorted(this.links.get(item.server) ?? [], item, instant);
        break;
      case "outcome":
        this._decide(item);
    }
  }

  /** @param {string} name */
  _role(name) {
    let role = this.roles.get(name);
    if (!role) this.roles.set(name, (role = new Role(name)));
    return role;
  }

  /** @param {{player: string, s0: number, s1: number, server: string, left?: boolean}} stay */
  _settle({ player, s0, s1, server, left = false }) {
    insertSorted(this._role(player).stays, { s0, s1, server, left }, beginning);
    if (server) this._homes.set(player, server);
    else if (left) this._homes.delete(player);
    if (!server) return;
    const at = this.servers.indexOf(server);
    let held = 0;
    for (const home of this._homes.values()) if (home === server) held += 1;
    this.rooms[at] = Math.max(this.rooms[at] ?? 0, held);
  }

  /** @param {SaidItem} item */
  _say(item) {
    insertSorted(this.said, item, instant);
    this.messages.set(item.event, item);
    for (const role of this.roles.values()) {
      if (role.present) role.fates.set(item.event, { said: item.s, turns: [] });
    }
  }

  /** @param {OutcomeItem} item */
  _decide({ s, event, player, outcome, cause }) {
    const role = this._role(player);
    const fate = role.fates.get(event) ?? { said: this.messages.get(event)?.s ?? s, turns: [] };
    role.fates.set(event, fate);
    const before = fate.turns.at(-1)?.outcome ?? "";
    insertSorted(fate.turns, { s, outcome, cause }, instant);
    const change = {
      heard: Number(outcome !== "missed" && before !== "heard" && before !== "twice"),
      missed: Number(outcome === "missed") - Number(before === "missed"),
      twice: Number(outcome === "twice" && before !== "twice"),
    };
    this.tally.add(s, change);
    role.tally.add(s, change);
  }

  /** When the beat begins in which `s` lies. @param {number} s */
  beatStart(s) {
    const at = countUpTo(this.beats, s, instant) - 1;
    // A moment between two beats belongs to the first: its end is worth looking at.
    const on = at > 0 && this.beats[at].s === s ? at - 1 : at;
    return this.beats[on]?.s ?? 0;
  }
}

// ----------------------------------------------------------------- several runs, one playhead

/**
 * The beats that the runs share. A beat lasts as long as in the run where it lasts longest; the
 * others wait at its end. A moment between two beats belongs to the first; `begin` is just after.
 *
 * @typedef {{caption: string, start: number, begin: number, end: number, duration: number}} Beat
 * @typedef {{problem: string, beats: Beat[], length: number, beatAt(T: number): number,
 *   storyTime(run: number, T: number): number, commonTime(run: number, s: number): number,
 *   since(run: number, T: number): number}} Alignment
 */

const JUST_AFTER = 0.001; // hops
const SHORTEST_BEAT = 1; // hops: a beat in which nothing happens can still be seen
const LINGER = 12; // hops for which a loss stays in sight in a beat that does not end

/** @param {Film} film @returns {{caption: string, s0: number, s1: number}[]} */
function actsOf(film) {
  const beats = film.beats.map(({ caption, s }) => ({ caption, s }));
  if (!beats.length || beats[0].s > 0) beats.unshift({ caption: "", s: 0 });
  return beats.map(({ caption, s }, at) => ({ caption, s0: s, s1: beats[at + 1]?.s ?? film.end }));
}

/**
 * @param {Film[]} films
 * @param {boolean} [live] a run that is behind the others is not wrong then
 * @returns {Alignment}
 */
export function align(films, live = false) {
  const acts = films.map(actsOf);
  const count = Math.max(0, ...acts.map((run) => run.length));
  /** @type {Beat[]} */
  const beats = [];
  for (let k = 0, start = 0; k < count; k += 1) {
    const same = acts.filter((run) => run[k]);
    const duration = Math.max(SHORTEST_BEAT, ...same.map((run) => run[k].s1 - run[k].s0));
    const begin = k ? start + JUST_AFTER : 0;
    beats.push({ caption: same[0][k].caption, start, begin, end: start + duration, duration });
    start += duration;
  }

  const beatAt = (/** @type {number} */ T) =>
    clamp(countUpTo(beats, T - JUST_AFTER / 2, (beat) => beat.start) - 1, 0, Math.max(0, count - 1));

  const actAt = (/** @type {number} */ run, /** @type {number} */ T) =>
    acts[run][Math.min(beatAt(T), acts[run].length - 1)];

  return {
    problem: mismatch(films, acts, live),
    beats,
    length: beats.at(-1)?.end ?? 0,
    beatAt,
    since: (run, T) => actAt(run, T).s0,
    storyTime(run, T) {
      const at = beatAt(T);
      const act = acts[run][at];
      if (!act) return films[run].end;
      const passed = T - beats[at].start;
      // Not `s0 + passed`, which may fall short of the end by a rounding error.
      return passed >= act.s1 - act.s0 - 1e-6 ? act.s1 : act.s0 + Math.max(0, passed);
    },
    commonTime(run, s) {
      const at = clamp(countUpTo(acts[run], s, beginning) - 1, 0, acts[run].length - 1);
      return beats[at].start + s - acts[run][at].s0;
    },
  };
}

/** @param {Film[]} films @param {{caption: string}[][]} acts @param {boolean} live */
function mismatch(films, acts, live) {
  for (let run = 1; run < acts.length; run += 1) {
    const names = `“${shorten(films[0].title, 30)}” and “${shorten(films[run].title, 30)}”`;
    const shared = Math.min(acts[0].length, acts[run].length);
    for (let k = 0; k < shared; k += 1) {
      const [one, other] = [acts[0][k].caption, acts[run][k].caption];
      if (one !== other) {
        return (
          `These runs cannot be shown side by side: beat ${k + 1} of ${names} is ` +
          `“${shorten(one, 60)}” in one and “${shorten(other, 60)}” in the other.`
        );
      }
    }
    if (!live && acts[0].length !== acts[run].length) {
      return (
        `These runs cannot be shown side by side: ${names} have ` +
        `${acts[0].length} and ${acts[run].length} beats.`
      );
    }
  }
  return "";
}

/**
 * The events of which the strips show a slot, the same and in the same order for all runs: the
 * newest `most` of those said by now in any of them, and how many came before.
 * @param {Film[]} films @param {Alignment} alignment @param {number} T @param {number} most
 */
export function columnsAt(films, alignment, T, most) {
  const said = films.map((film, run) => countUpTo(film.said, alignment.storyTime(run, T), instant));
  const events = new Set(
    films.flatMap((film, run) =>
      film.said.slice(Math.max(0, said[run] - most), said[run]).map((item) => item.event),
    ),
  );
  const first = (/** @type {string} */ event) =>
    Math.min(
      ...films.map((film, run) => {
        const item = film.messages.get(event);
        return item ? alignment.commonTime(run, item.s) : Infinity;
      }),
    );
  const ordered = [...events]
    .map((event) => ({ event, at: first(event) }))
    .sort((a, b) => a.at - b.at)
    .map(({ event }) => event);
  const shown = ordered.slice(-most);
  return { events: shown, before: Math.max(0, ...said) - shown.length };
}

// ------------------------------------------------------------------------------- one moment

const RETRACT = 0.4; // hops for which a cut wire is seen to go
const FADE = 0.8; // hops for which a player that has left is seen to go

/**
 * What is the case in a run at story time `s`.
 * @param {Film} film @param {number} s
 * @param {{since?: number, events?: string[]}} [view] losses are in sight `since` the beat's
 *   beginning; `events` are those that the strips have slots for (all that were said by `s`)
 * @returns {World}
 */
export function worldAt(film, s, view = {}) {
  const events =
    view.events ?? film.said.slice(0, countUpTo(film.said, s, instant)).map((item) => item.event);
  /** @type {PlayerNow[]} */
  const players = [];
  for (const role of film.roles.values()) {
    const now = playerAt(film, role, s, events);
    if (now) players.push(now);
  }
  return {
    s,
    players,
    servers: film.servers.map((name) => ({
      name,
      holds: players.filter((p) => p.state === "connected" && p.home === name).map((p) => p.name),
      subscribed: subscribedAt(film, name, s),
    })),
    tokens: tokensAt(film, s),
    losses: lossesAt(film, s, view.since ?? film.beatStart(s), players),
    counts: film.tally.at(s),
  };
}

/** @param {Film} film @param {string} server @param {number} s */
function subscribedAt(film, server, s) {
  const links = film.links.get(server) ?? [];
  return links[countUpTo(links, s, instant) - 1]?.up ?? false;
}

/**
 * @param {Film} film @param {Role} role @param {number} s @param {string[]} events
 * @returns {PlayerNow | null}
 */
function playerAt(film, role, s, events) {
  const at = countUpTo(role.stays, s, beginning) - 1;
  if (at < 0) return expected(film, role);
  const stay = role.stays[at];
  const from = homeBefore(role.stays, at);
  const past = s - stay.s0;
  const now = {
    name: role.name,
    home: stay.server || from,
    from: from || stay.server,
    progress: 1,
    reach: 1,
    presence: 1,
    room: 1,
    missed: role.tally.at(s).missed,
    strip: events.map((event) => slotAt(role, event, s)),
  };
  if (stay.left) {
    const presence = clamp(1 - past / FADE, 0, 1);
    return { ...now, state: "left", reach: 0, presence, room: ease(presence) };
  }
  if (!stay.server) return { ...now, state: "away", reach: clamp(1 - past / RETRACT, 0, 1) };
  if (s >= stay.s1) return { ...now, state: "connected" };
  const progress = past / (stay.s1 - stay.s0);
  const presence = from ? 1 : clamp(progress * 3, 0, 1);
  const room = from || opens(film, role) ? 1 : ease(presence);
  return { ...now, state: "connecting", progress, reach: progress, presence, room };
}

/** The server that a player was last on before a stay, if it has not left since. */
function homeBefore(/** @type {Stay[]} */ stays, /** @type {number} */ at) {
  for (let before = at - 1; before >= 0; before -= 1) {
    if (stays[before].left) return "";
    if (stays[before].server) return stays[before].server;
  }
  return "";
}

/** Whether a player joins in the opening beat, which shows from the start who is going to. */
function opens(/** @type {Film} */ film, /** @type {Role} */ role) {
  return film.beats.length > 0 && role.stays[0]?.s0 < (film.beats[1]?.s ?? Infinity);
}

/** @param {Film} film @param {Role} role @returns {PlayerNow | null} */
function expected(film, role) {
  if (!opens(film, role)) return null;
  const home = role.stays[0].server;
  const nowhere = { progress: 1, reach: 0, presence: 1, room: 1, missed: 0, strip: [] };
  return { name: role.name, state: "expected", home, from: home, ...nowhere };
}

/** @param {Role} role @param {string} event @param {number} s @returns {Slot | null} */
function slotAt(role, event, s) {
  const fate = role.fates.get(event);
  if (!fate || fate.said > s) return null;
  const turn = fate.turns[countUpTo(fate.turns, s, instant) - 1];
  if (!turn) return { outcome: "pending", cause: "", age: s - fate.said };
  const outcome = turn.outcome === "missed" || turn.outcome === "twice" ? turn.outcome : "heard";
  return { outcome, cause: turn.cause, age: s - turn.s };
}

/** @param {Film} film @param {HopItem | LossItem} item @param {number} s @returns {Travelling} */
function travelling(film, { event, source, target, s0, s1 }, s) {
  const { player = "", body = "" } = film.messages.get(event) ?? {};
  const fraction = s1 > s0 ? clamp((s - s0) / (s1 - s0), 0, 1) : 1;
  return { event, player, body, source, target, s0, s1, fraction };
}

/** @param {Film} film @param {number} s @returns {Token[]} */
function tokensAt(film, s) {
  const tokens = [];
  for (let at = countUpTo(film.hops, s, beginning) - 1; at >= 0; at -= 1) {
    const hop = film.hops[at];
    if (hop.s0 < s - film.longest) break;
    if (s < hop.s1) tokens.push({ ...travelling(film, hop, s), ms: hop.ms ?? null });
  }
  return tokens.reverse();
}

/**
 * @param {Film} film @param {number} s @param {number} since @param {PlayerNow[]} players
 * @returns {Loss[]}
 */
function lossesAt(film, s, since, players) {
  const endless = since >= (film.beats.at(-1)?.s ?? 0);
  const from = endless ? Math.max(since, s - LINGER) : since;
  const losses = [];
  for (let at = countUpTo(film.losses, s, beginning) - 1; at >= 0; at -= 1) {
    const loss = film.losses[at];
    if (loss.s0 < from - film.longest) break;
    const back = players.some((p) => p.name === loss.target && p.state === "connected");
    if (loss.s1 <= from || (back && loss.cause === "player away")) continue;
    losses.push({ ...travelling(film, loss, s), players: loss.players, cause: loss.cause });
  }
  return losses.reverse();
}

// ---------------------------------------------------------------------------------- geometry

/**
 * @typedef {{x: number, y: number}} Point
 * @typedef {Point[]} Path cubic curves one after the other: a point, then three for each curve
 * @typedef {{x: number, y: number, width: number, height: number}} Box
 * @typedef {{width: number, height: number, density: "roomy" | "snug" | "dense", pitch: number,
 *   radius: number, playerX: number, bar: Box, servers: (Box & {name: string})[],
 *   broker: {x: number, y: number, rx: number, height: number, none: boolean},
 *   slots: {x: number, size: number, pitch: number, fit: number, below: number}}} Layout
 */

const HEADINGS = 34; // pixels above the first row
const ZONE_GAP = 22; // pixels between the players of two servers
const STRIP = 24; // pixels under a player, for its strip
const SERVER_HEIGHT = 68;

/**
 * Where the parts of a pane stand. Lengths are pixels of the picture, which is as wide as the pane
 * up to 600 and then grows as a whole; so letters never get smaller than they are meant to be.
 *
 * @param {{servers: string[], rooms: number[], broker: string, width: number}} pane `rooms`: the
 *   most players that each server holds
 * @returns {Layout}
 */
export function layout({ servers, rooms, broker, width }) {
  const w = clamp(width || 600, 320, 600);
  const wide = (w - 320) / 280;
  const rows = rooms.reduce((sum, room) => sum + Math.max(1, room), 0);
  const density = rows <= 6 ? "roomy" : rows <= 12 ? "snug" : "dense";
  const pitch = { roomy: 78, snug: 62, dense: clamp(720 / rows, 4, 30) }[density];
  const radius = { roomy: mix(21, 24, wide), snug: 17, dense: clamp(pitch * 0.42, 2, 10) }[density];
  const strip = density === "dense" ? 0 : STRIP;
  const serverX = mix(176, 312, wide);
  const serverWidth = mix(60, 92, wide);
  let y = HEADINGS;
  const boxes = servers.map((name, at) => {
    const zone = Math.max(Math.max(1, rooms[at] ?? 0) * pitch, SERVER_HEIGHT + 8);
    const top = y + (zone - strip - SERVER_HEIGHT) / 2;
    y += zone + ZONE_GAP;
    return { name, x: serverX, y: top, width: serverWidth, height: SERVER_HEIGHT };
  });
  const height = Math.max(y - ZONE_GAP, HEADINGS + 140);
  const barWidth = mix(10, 16, wide);
  const barX = mix(124, 206, wide);
  const size = density === "roomy" ? mix(13, 16, wide) : 13;
  const step = size + mix(2, 4, wide);
  const slotsX = mix(6, 14, wide);
  return {
    width: w,
    height,
    density,
    pitch,
    radius,
    playerX: mix(31, 60, wide),
    bar: { x: barX, y: HEADINGS - 6, width: barWidth, height: height - HEADINGS - strip / 2 },
    servers: boxes,
    broker: {
      x: mix(284, 540, wide),
      y: (HEADINGS + height - strip) / 2,
      rx: mix(30, 44, wide),
      height: 92,
      none: broker === "none",
    },
    slots: {
      x: slotsX,
      size,
      pitch: step,
      fit: strip ? Math.floor((barX - slotsX - 58) / step) : 0,
      below: radius + 6,
    },
  };
}

/**
 * Where each player is. A server's players stand around the middle of its box; on its way from
 * one server to another a player takes its room along, so that all others give way smoothly.
 * @param {World} world @param {Layout} layout @returns {Map<string, Point>}
 */
export function rowsAt(world, layout) {
  const shares = world.players.map((player) => {
    const moved = ease(player.progress);
    const same = player.from === player.home;
    return (/** @type {string} */ server) =>
      player.room *
      ((server === player.home ? (same ? 1 : moved) : 0) +
        (server === player.from && !same ? 1 - moved : 0));
  });
  const ys = world.players.map(() => 0);
  const weights = world.players.map(() => 0);
  for (const box of layout.servers) {
    let taken = 0;
    const total = shares.reduce((sum, share) => sum + share(box.name), 0);
    const middle = box.y + box.height / 2;
    shares.forEach((share, at) => {
      const part = share(box.name);
      const y = middle + (taken + part / 2 - total / 2) * layout.pitch;
      taken += part;
      const pull = part || (world.players[at].home === box.name ? 1e-9 : 0);
      ys[at] += y * pull;
      weights[at] += pull;
    });
  }
  const fallback = layout.height / 2;
  return new Map(
    world.players.map((player, at) => [
      player.name,
      { x: layout.playerX, y: weights[at] ? ys[at] / weights[at] : fallback },
    ]),
  );
}

/** A straight curve. @param {Point} a @param {Point} b @returns {Path} */
const line = (a, b) => [
  a,
  { x: mix(a.x, b.x, 1 / 3), y: mix(a.y, b.y, 1 / 3) },
  { x: mix(a.x, b.x, 2 / 3), y: mix(a.y, b.y, 2 / 3) },
  b,
];

/** A curve that leaves and arrives level. @param {Point} a @param {Point} b @returns {Path} */
const swing = (a, b) => [a, { x: (a.x + b.x) / 2, y: a.y }, { x: (a.x + b.x) / 2, y: b.y }, b];

/** @param {Layout} layout @param {Point} player @param {Box} server @returns {Path} */
function wire({ bar, radius }, player, server) {
  const through = { x: bar.x + bar.width, y: player.y };
  const middle = server.y + server.height / 2;
  const reach = server.height / 2 - 12;
  const port = { x: server.x, y: middle + clamp((player.y - middle) * 0.3, -reach, reach) };
  const start = { x: player.x + radius, y: player.y };
  return [...line(start, through), ...swing(through, port).slice(1)];
}

/** @param {Layout} layout @param {Box} server @returns {Path} */
function brokerLink({ broker }, server) {
  const from = { x: server.x + server.width, y: server.y + server.height / 2 };
  const spread = clamp((from.y - broker.y) * 0.12, -24, 24);
  return swing(from, { x: broker.x - broker.rx, y: broker.y + spread });
}

/** The stub of a way that there is not: half of the gap towards the other server. */
function noWay(/** @type {Box} */ from, /** @type {Box} */ to) {
  const down = to.y > from.y;
  const x = from.x + from.width / 2;
  const start = { x, y: down ? from.y + from.height : from.y };
  const gap = Math.abs(to.y - from.y) - from.height;
  return line(start, { x, y: start.y + (down ? 1 : -1) * clamp(gap / 2, 10, 44) });
}

/**
 * The way from one part to another, as things stand.
 * @param {Layout} layout @param {Map<string, Point>} rows @param {string} source
 * @param {string} target @returns {Path | null}
 */
export function pathBetween(layout, rows, source, target) {
  const box = (/** @type {string} */ name) => layout.servers.find((one) => one.name === name);
  const [from, to] = [box(source), box(target)];
  if (from && to) return noWay(from, to);
  if (from && target === "redis") return brokerLink(layout, from);
  if (to && source === "redis") return brokerLink(layout, to).reverse();
  const [player, server] = from ? [rows.get(target), from] : [rows.get(source), to];
  if (!player || !server) return null;
  const path = wire(layout, player, server);
  return from ? path.reverse() : path;
}

/**
 * The point at a fraction of a path's length.
 * @param {Path} path @param {number} fraction @returns {Point}
 */
export function pointAt(path, fraction) {
  const lengths = [];
  let total = 0;
  for (let at = 0; at + 3 < path.length; at += 3) {
    const [a, b, c, d] = path.slice(at, at + 4);
    // Between the chord and the sum of the legs: close enough to share out the time by.
    const legs = distance(a, b) + distance(b, c) + distance(c, d);
    lengths.push((legs + distance(a, d)) / 2);
    total += lengths[lengths.length - 1];
  }
  let left = clamp(fraction, 0, 1) * total;
  for (let curve = 0; curve < lengths.length; curve += 1) {
    if (left <= lengths[curve] || curve === lengths.length - 1) {
      const [a, b, c, d] = path.slice(curve * 3, curve * 3 + 4);
      const t = lengths[curve] ? Math.min(1, left / lengths[curve]) : 0;
      return { x: cubic(a.x, b.x, c.x, d.x, t), y: cubic(a.y, b.y, c.y, d.y, t) };
    }
    left -= lengths[curve];
  }
  return path[0];
}

/** @param {Point} a @param {Point} b */
const distance = (a, b) => Math.hypot(b.x - a.x, b.y - a.y);

const cubic = (
  /** @type {number} */ a,
  /** @type {number} */ b,
  /** @type {number} */ c,
  /** @type {number} */ d,
  /** @type {number} */ t,
) => (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t ** 2 * c + t ** 3 * d;

/** How far a lost message gets: to the end of a stub, else a little over half of the way. */
export function lossReach(/** @type {Layout} */ layout, /** @type {Travelling} */ loss) {
  const servers = layout.servers.map((box) => box.name);
  if (servers.includes(loss.source) && servers.includes(loss.target)) return 1;
  return servers.includes(loss.source) && loss.target !== "redis" ? 0.66 : 0.55;
}

/** @param {Path} path */
function curveData(path) {
  const points = path.map(({ x, y }) => `${px(x)} ${px(y)}`);
  return `M${points[0]} C${points.slice(1).join(" ")}`;
}

/** The first part of a path. @param {Path} path @param {number} fraction */
function trailData(path, fraction) {
  const points = [];
  for (let step = 0; step <= 12; step += 1) points.push(pointAt(path, (fraction * step) / 12));
  return `M${points.map(({ x, y }) => `${px(x)} ${px(y)}`).join(" L")}`;
}

// ------------------------------------------------------------------------------------ shapes

/** Colour and shape cycle with different lengths: 56 players before both are the same again. */
const HUES = 7;
const SHAPES = ["circle", "triangle", "square", "diamond", "pentagon", "star", "plus", "hexagon"];

/**
 * The outline of a player's shape around the origin.
 * @param {number} index of the player @param {number} r
 */
export function shapeData(index, r) {
  const corners = (/** @type {number} */ n, /** @type {number} */ turn, inner = 1) => {
    const count = inner === 1 ? n : 2 * n;
    const points = Array.from({ length: count }, (_, at) => {
      const angle = ((turn + (360 / count) * at - 90) * Math.PI) / 180;
      const reach = at % 2 && inner !== 1 ? r * inner : r;
      return `${px(Math.cos(angle) * reach)} ${px(Math.sin(angle) * reach)}`;
    });
    return `M${points.join(" L")}Z`;
  };
  const third = px(r * 0.36);
  const arm = px(r);
  switch (SHAPES[index % SHAPES.length]) {
    case "circle":
      return `M-${px(r * 0.9)} 0 a${px(r * 0.9)} ${px(r * 0.9)} 0 1 0 ${px(r * 1.8)} 0 a${px(r * 0.9)} ${px(r * 0.9)} 0 1 0 -${px(r * 1.8)} 0Z`;
    case "triangle":
      return `M0 -${px(r * 1.05)} L${px(r * 1.1)} ${px(r * 0.85)} L-${px(r * 1.1)} ${px(r * 0.85)}Z`;
    case "square":
      return corners(4, 45, 1).replace(/-?[\d.]+/g, (n) => px(Number(n) * 1.15));
    case "diamond":
      return corners(4, 0);
    case "pentagon":
      return corners(5, 0);
    case "star":
      return corners(5, 0, 0.45);
    case "plus":
      return `M-${third} -${arm} H${third} V-${third} H${arm} V${third} H${third} V${arm} H-${third} V${third} H-${arm} V-${third} H-${third}Z`;
  }
  return corners(6, 0);
}

/** The same colour and shape for a player in every pane. @param {Film[]} films */
export function castOf(films) {
  /** @type {Map<string, number>} */
  const cast = new Map();
  for (const film of films) {
    for (const name of film.roles.keys()) if (!cast.has(name)) cast.set(name, cast.size);
  }
  return cast;
}

// ----------------------------------------------------------------------------------- drawing

const SVG = "http://www.w3.org/2000/svg";

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {Record<string, string>} [attributes] @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
function html(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** @param {string} tag @param {Record<string, string>} [attributes] */
function svg(tag, attributes = {}) {
  const element = /** @type {SVGElement} */ (document.createElementNS(SVG, tag));
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/**
 * A group of the picture whose nodes are kept by key from one moment to the next. Only what has
 * changed is set; what is not drawn again goes.
 *
 * @typedef {Record<string, string | number>} Attributes
 * @typedef {{node: SVGElement, attributes: Attributes, text: string, title: string,
 *   round: number}} Kept
 */
class Layer {
  /** @param {SVGElement} parent @param {string} name */
  constructor(parent, name) {
    this.group = svg("g", { class: name });
    parent.append(this.group);
    /** @type {Map<string, Kept>} */
    this.kept = new Map();
    this.round = 0;
  }

  /**
   * @param {string} key @param {string} tag @param {Attributes} attributes
   * @param {{text?: string, title?: string}} [words]
   */
  draw(key, tag, attributes, { text = "", title = "" } = {}) {
    let kept = this.kept.get(key);
    if (!kept) {
      kept = { node: svg(tag), attributes: {}, text: "", title: "", round: 0 };
      this.kept.set(key, kept);
      this.group.append(kept.node);
    }
    kept.round = this.round;
    for (const name in attributes) {
      if (kept.attributes[name] === attributes[name]) continue;
      const value = attributes[name];
      kept.node.setAttribute(name, typeof value === "number" ? px(value) : value);
    }
    kept.attributes = attributes;
    if (kept.text === text && kept.title === title) return;
    kept.text = text;
    kept.title = title;
    kept.node.textContent = text;
    if (!title) return;
    const tip = svg("title");
    tip.textContent = title;
    kept.node.append(tip);
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

/** Words over lines of about `most` characters. @param {string} text @param {number} most */
function wrap(text, most) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const last = lines[lines.length - 1];
    if (last && last.length + word.length + 1 > most) lines.push(word);
    else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  return lines;
}

/** The picture of one run. */
class Pane {
  /** @param {Film} film */
  constructor(film) {
    this.film = film;
    this.picture = svg("svg", { role: "img", preserveAspectRatio: "xMidYMid meet" });
    const layers = ["links", "parts", "players", "strips", "trails", "tokens", "words"];
    const [links, parts, players, strips, trails, tokens, words] = layers.map(
      (name) => new Layer(this.picture, name),
    );
    this.layers = { links, parts, players, strips, trails, tokens, words };
    this.counts = html("p", { class: "counts" });
    this.heading = html("h3", {}, shorten(film.title, 60));
    this.element = html(
      "section",
      { class: "pane", "data-pane": film.broker, "aria-label": shorten(film.title, 60) },
      this.heading,
      this.picture,
      this.counts,
    );
    /** @type {Map<string, number>} */
    this.cast = new Map();
  }

  /**
   * @param {World} world @param {Layout} layout @param {Map<string, number>} cast
   * @param {{events: string[], before: number}} columns
   * @param {(event: string, player: string) => boolean} differs
   */
  draw(world, layout, cast, columns, differs) {
    this.cast = cast;
    const box = `0 0 ${px(layout.width)} ${px(layout.height)}`;
    if (this.picture.getAttribute("viewBox") !== box) this.picture.setAttribute("viewBox", box);
    this.picture.setAttribute("class", layout.density);
    const rows = rowsAt(world, layout);
    this._drawParts(world, layout);
    for (const player of world.players) {
      const row = rows.get(player.name);
      if (!row || player.presence <= 0) continue;
      this._drawWire(player, row, layout);
      this._drawPlayer(player, row, layout);
      if (layout.slots.fit) this._drawStrip(player, row, layout, columns, differs);
    }
    this._drawLosses(world, layout, rows);
    this._drawTokens(world, layout, rows);
    for (const layer of Object.values(this.layers)) layer.sweep();
    this._drawCounts(world.counts);
  }

  /** @param {string} name */
  _hue(name) {
    return `hue-${(this.cast.get(name) ?? 0) % HUES}`;
  }

  /** @param {string} name @param {number} r */
  _shape(name, r) {
    return shapeData(this.cast.get(name) ?? 0, r);
  }

  /** @param {World} world @param {Layout} layout */
  _drawParts(world, layout) {
    const { parts } = this.layers;
    const { bar, broker } = layout;
    const [server] = layout.servers;
    /** @type {[string, number][]} */
    const columns = [
      ["players", layout.playerX],
      ["balancer", bar.x + bar.width / 2],
      ["servers", server ? server.x + server.width / 2 : 0],
      ["broker", broker.x],
    ];
    for (const [text, x] of columns) {
      parts.draw(`heading ${text}`, "text", { class: "heading", x, y: 14 }, { text });
    }
    const rx = bar.width / 2;
    parts.draw("bar", "rect", { class: "bar", ...bar, rx });
    for (const [at, now] of world.servers.entries()) {
      this._drawServer(now, layout.servers[at], layout);
    }
    this._drawBroker(broker);
  }

  /** @param {ServerNow} now @param {Box} box @param {Layout} layout */
  _drawServer(now, box, layout) {
    const { parts, links } = this.layers;
    const key = `server ${now.name}`;
    const { x, y, width, height } = box;
    const name = shorten(now.name, 8);
    const single = Array.from(name).length <= 2;
    parts.draw(key, "rect", { class: "server", "data-server": now.name, x, y, width, height, rx: 9 });
    const letter = { class: single ? "letter" : "letter long", x: x + 13, y: y + 29 };
    parts.draw(`${key} name`, "text", letter, { text: name });
    if (single && width > 80) {
      parts.draw(`${key} kind`, "text", { class: "kind", x: x + 36, y: y + 28 }, { text: "server" });
    }
    const fit = Math.floor((width - 18) / 17);
    const shown = now.holds.length > fit ? now.holds.slice(0, Math.max(0, fit - 2)) : now.holds;
    shown.forEach((player, at) => {
      const transform = `translate(${px(x + 19 + at * 17)} ${px(y + 50)})`;
      const shape = { class: `mark ${this._hue(player)}`, d: this._shape(player, 6), transform };
      parts.draw(`${key} holds ${player}`, "path", shape, { title: shorten(player) });
    });
    if (shown.length < now.holds.length) {
      const more = { class: "kind", x: x + 13 + shown.length * 17, y: y + 54 };
      parts.draw(`${key} more`, "text", more, { text: `+${now.holds.length - shown.length}` });
    }
    if (layout.broker.none) return;
    const state = now.subscribed ? "link" : "link off";
    links.draw(`link ${now.name}`, "path", { class: state, d: curveData(brokerLink(layout, box)) });
  }

  /** @param {Layout["broker"]} broker */
  _drawBroker({ x, y, rx, height, none }) {
    const { parts } = this.layers;
    const ry = rx * 0.29;
    const top = y - height / 2 + ry;
    const state = none ? "broker none" : "broker";
    const side = height - 2 * ry;
    const body = `M${px(x - rx)} ${px(top)} v${px(side)} a${px(rx)} ${px(ry)} 0 0 0 ${px(2 * rx)} 0 v${px(-side)}`;
    parts.draw("broker body", "path", { class: state, d: body });
    parts.draw("broker lid", "ellipse", { class: state, cx: x, cy: top, rx, ry });
    if (none) {
      parts.draw("broker name", "text", { class: "kind middle", x, y: y + 10 }, { text: "no broker" });
      return;
    }
    parts.draw("broker name", "text", { class: "redis", x, y: y + 9 }, { text: "Redis" });
    parts.draw("broker channel", "text", { class: "channel", x, y: y + 26 }, { text: "game:g" });
  }

  /** @param {PlayerNow} player @param {Point} row @param {Layout} layout */
  _drawWire(player, row, layout) {
    if (player.reach <= 0) return;
    const at = player.state === "away" ? player.from : player.home;
    const server = layout.servers.find((box) => box.name === at);
    if (!server) return;
    const path = wire(layout, row, server);
    const d = player.reach < 1 ? trailData(path, ease(player.reach)) : curveData(path);
    this.layers.links.draw(`wire ${player.name}`, "path", { class: `wire ${player.state}`, d });
  }

  /** @param {PlayerNow} player @param {Point} row @param {Layout} layout */
  _drawPlayer(player, row, layout) {
    const { players } = this.layers;
    const { name, state, presence } = player;
    const { radius, density } = layout;
    const key = `player ${name}`;
    const common = { opacity: String(Math.round(presence * 100) / 100) };
    const hue = this._hue(name);
    const text = shorten(name);
    const title = `${text}: ${WHEREABOUTS[state](shorten(player.home))}`;
    const ring = { class: `player ${state} ${hue}`, cx: row.x, cy: row.y, r: radius, ...common };
    players.draw(key, "circle", { ...ring, "data-player": name, "data-state": state }, { title });
    const inside = density !== "dense" && Array.from(text).length <= 4;
    const up = inside ? radius * 0.29 : 0;
    const transform = `translate(${px(row.x)} ${px(row.y - up)})`;
    const size = density === "dense" ? radius * 0.7 : inside ? radius * 0.29 : radius * 0.42;
    const d = this._shape(name, size);
    players.draw(`${key} mark`, "path", { class: `mark ${state} ${hue}`, d, transform, ...common });
    const beside = row.x + radius + 6;
    if (inside) {
      const place = { x: row.x, y: row.y + radius * 0.6 };
      players.draw(`${key} name`, "text", { class: `name ${hue}`, ...place, ...common }, { text });
    } else if (density !== "dense" || layout.pitch >= 13) {
      const place = { x: beside, y: row.y - (density === "dense" ? 2 : 6) };
      const beyond = { class: `name beside ${hue}`, ...place, ...common };
      players.draw(`${key} name`, "text", beyond, { text });
    }
    if (state === "away" && density !== "dense" && player.reach <= 0) {
      const place = { class: "away", x: beside, y: row.y + (inside ? 4 : 10) };
      players.draw(`${key} away`, "text", place, { text: "away" });
    }
  }

  /**
   * @param {PlayerNow} player @param {Point} row @param {Layout} layout
   * @param {{events: string[], before: number}} columns
   * @param {(event: string, player: string) => boolean} differs
   */
  _drawStrip(player, row, layout, columns, differs) {
    const { strips } = this.layers;
    const { x, size, pitch, below } = layout.slots;
    const key = `strip ${player.name}`;
    const y = row.y + below;
    let left = x;
    if (columns.before > 0 && player.strip.some((slot) => slot)) {
      const before = { class: "before", x, y: y + size - 4 };
      strips.draw(`${key} before`, "text", before, { text: `+${columns.before}` });
    }
    if (columns.before > 0) left += pitch + 4;
    columns.events.forEach((event, at) => {
      const slot = player.strip[at];
      if (!slot) return;
      this._drawSlot(`${key} ${event}`, event, player.name, slot, left + at * pitch, y, size);
      if (!differs(event, player.name)) return;
      const under = { class: "differs", x: left + at * pitch, y: y + size + 2.5, width: size, height: 2.5 };
      strips.draw(`${key} ${event} differs`, "rect", under);
    });
    if (!player.missed) return;
    const after = { class: "missed", x: left + columns.events.length * pitch + 3, y: y + size - 4 };
    strips.draw(`${key} missed`, "text", after, { text: `missed ${player.missed}` });
  }

  /**
   * @param {string} key @param {string} event @param {string} player @param {Slot} slot
   * @param {number} x @param {number} y @param {number} size
   */
  _drawSlot(key, event, player, slot, x, y, size) {
    const { strips } = this.layers;
    const said = this.film.messages.get(event);
    const sender = said?.player ?? "";
    const hue = this._hue(sender);
    const fate = slot.cause ? `${slot.outcome}, ${shorten(slot.cause, 40)}` : slot.outcome;
    const title = `${quote(said?.body ?? "")} from ${shorten(sender)}: ${fate}`;
    const box = { class: `slot ${slot.outcome} ${hue}`, x, y, width: size, height: size, rx: 3.5 };
    const data = { "data-slot": event, "data-for": player, "data-outcome": slot.outcome };
    strips.draw(key, "rect", { ...box, ...data }, { title });
    if (slot.outcome === "pending") return;
    // It arrives a little larger than it stays, so that the eye finds it.
    const pop = 1 + 0.5 * clamp(1 - slot.age / 0.5, 0, 1);
    const transform = `translate(${px(x + size / 2)} ${px(y + size / 2)})`;
    if (slot.outcome === "missed") {
      const r = px(size * 0.25 * pop);
      const d = `M-${r} -${r} L${r} ${r} M${r} -${r} L-${r} ${r}`;
      strips.draw(`${key} cross`, "path", { class: "slot-cross", d, transform });
      return;
    }
    const d = this._shape(sender, size * 0.3 * pop);
    strips.draw(`${key} mark`, "path", { class: `mark ${hue}`, d, transform });
    if (slot.outcome === "twice") {
      const times = { class: "times", x: x + size + 1, y: y + 5 };
      strips.draw(`${key} twice`, "text", times, { text: "2" });
    }
  }

  /** @param {World} world @param {Layout} layout @param {Map<string, Point>} rows */
  _drawTokens(world, layout, rows) {
    const { words } = this.layers;
    /** @type {{at: Point, event: string}[]} */
    const worded = [];
    for (const token of world.tokens) {
      const path = pathBetween(layout, rows, token.source, token.target);
      if (!path) continue;
      const at = pointAt(path, ease(token.fraction));
      const key = `${token.event} ${token.source} ${token.target} ${token.s0}`;
      this._drawToken(key, token, at, layout);
      // A word is said once where copies of one event are still close together.
      const near = worded.some(
        (other) => other.event === token.event && distance(other.at, at) < 34,
      );
      if (near || layout.density === "dense") continue;
      const above = !worded.some(
        ({ at: other }) => Math.abs(other.y - at.y) < 14 && Math.abs(other.x - at.x) < 44,
      );
      worded.push({ at, event: token.event });
      const place = { x: at.x, y: at.y + (above ? -15 : 24) };
      words.draw(key, "text", { class: `word ${this._hue(token.player)}`, ...place }, {
        text: shorten(token.body),
      });
    }
  }

  /** @param {string} key @param {Travelling & {ms?: number | null}} token @param {Point} at @param {Layout} layout */
  _drawToken(key, token, at, layout) {
    const { tokens } = this.layers;
    const hue = this._hue(token.player);
    const r = layout.density === "dense" ? 5 : 7.5;
    const took = token.ms == null ? "" : `, ${token.ms} ms`;
    const title = `${quote(token.body)}, ${shorten(token.source)} → ${shorten(token.target)}${took}`;
    const halo = { class: `halo ${hue}`, cx: at.x, cy: at.y, r: r * 1.7 };
    tokens.draw(`halo ${key}`, "circle", halo);
    const transform = `translate(${px(at.x)} ${px(at.y)})`;
    const shape = { class: `token ${hue}`, d: this._shape(token.player, r), transform };
    tokens.draw(key, "path", { ...shape, "data-token": token.event }, { title });
  }

  /** @param {World} world @param {Layout} layout @param {Map<string, Point>} rows */
  _drawLosses(world, layout, rows) {
    /** @type {Map<string, Loss[]>} */
    const groups = new Map();
    for (const loss of world.losses) {
      const key = `${loss.source} ${loss.target} ${loss.cause}`;
      groups.set(key, [...(groups.get(key) ?? []), loss].slice(-4));
    }
    for (const [key, losses] of groups) {
      const path = pathBetween(layout, rows, losses[0].source, losses[0].target);
      if (path) this._drawLossGroup(key, losses, path, lossReach(layout, losses[0]));
    }
  }

  /** @param {string} key @param {Loss[]} losses @param {Path} path @param {number} reach */
  _drawLossGroup(key, losses, path, reach) {
    const ended = losses.filter((loss) => loss.fraction >= 1);
    const upright = Math.abs(path[0].x - path[path.length - 1].x) < 1;
    losses.forEach((loss, at) => {
      // Side by side on an upright stub, one behind the other on a wire.
      const aside = upright ? (at - (losses.length - 1) / 2) * 22 : 0;
      const shifted = aside ? path.map(({ x, y }) => ({ x: x + aside, y })) : path;
      const full = upright ? reach : reach - (losses.length - 1 - at) * 0.1;
      this._drawLoss(`${key} ${loss.event}`, loss, shifted, full);
    });
    if (!ended.length) return;
    const end = pointAt(path, reach);
    const half = upright ? ((losses.length - 1) / 2) * 22 : 0;
    const lines = upright ? wrap(reason(ended), 15) : [reason(ended)];
    lines.forEach((text, at) => {
      const y = upright ? end.y + 4 + (at - (lines.length - 1) / 2) * 15 : end.y - 14;
      const place = { class: upright ? "loss" : "loss middle", x: upright ? end.x + half + 14 : end.x, y };
      this.layers.words.draw(`loss ${key} ${at}`, "text", place, { text });
    });
  }

  /** @param {string} key @param {Loss} loss @param {Path} path @param {number} reach */
  _drawLoss(key, loss, path, reach) {
    const { trails } = this.layers;
    const hue = this._hue(loss.player);
    const gone = ease(loss.fraction) * reach;
    trails.draw(`trail ${key}`, "path", { class: `trail ${hue}`, d: trailData(path, gone) });
    const at = pointAt(path, gone);
    if (loss.fraction < 1) {
      const shape = { class: `token lost ${hue}`, d: this._shape(loss.player, 7) };
      const transform = `translate(${px(at.x)} ${px(at.y)})`;
      trails.draw(`going ${key}`, "path", { ...shape, transform, "data-token": loss.event });
      return;
    }
    const title = `${quote(loss.body)} was lost: ${shorten(loss.cause, 40)}`;
    // Hollow: a wide cross in the sender's colour with a narrower one of the paper's on it.
    const d = "M-6.5 -6.5 L6.5 6.5 M6.5 -6.5 L-6.5 6.5";
    const transform = `translate(${px(at.x)} ${px(at.y)})`;
    const outer = { class: `cross ${hue}`, d, transform, "data-loss": loss.event };
    trails.draw(`cross ${key}`, "path", outer, { title });
    trails.draw(`hollow ${key}`, "path", { class: "hollow", d, transform });
  }

  /** @param {Counts} counts */
  _drawCounts({ heard, missed, twice }) {
    const text = `heard ${heard} · missed ${missed} · twice ${twice}`;
    if (this.counts.textContent === text) return;
    const miss = html("b", missed ? { class: "some" } : {}, `missed ${missed}`);
    this.counts.replaceChildren(`heard ${heard} · `, miss, ` · twice ${twice}`);
  }
}

/** @type {Record<PlayerNow["state"], (server: string) => string>} */
const WHEREABOUTS = {
  expected: () => "not here yet",
  connecting: (server) => `connecting to ${server}`,
  connected: (server) => `on ${server}`,
  away: () => "away",
  left: () => "has left the game",
};

// ------------------------------------------------------------------------- the stage's controls

const ICONS = {
  start: "M6 5v14M19 6l-9 6 9 6z",
  back: "M16 5l-9 7 9 7z",
  play: "M8 5l11 7-11 7z",
  pause: "M8 5v14M16 5v14",
  forward: "M8 5l9 7-9 7z",
  end: "M18 5v14M5 6l9 6-9 6z",
};

/** @param {keyof typeof ICONS} name */
function icon(name) {
  const picture = svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: "icon" });
  picture.append(svg("path", { d: ICONS[name] }));
  return picture;
}

/** @param {string} label @param {string} action @param {(Node | string)[]} content */
function button(label, action, ...content) {
  return html(
    "button",
    { type: "button", "aria-label": label, title: label, "data-action": action },
    ...content,
  );
}

/**
 * Lets a control act or not. One that cannot stays in reach of the keyboard, and says why.
 * @param {HTMLElement} control @param {string} why empty if it can act
 */
function allow(control, why) {
  const label = control.getAttribute("aria-label") ?? control.textContent ?? "";
  control.title = why || label;
  if (why) {
    control.setAttribute("aria-disabled", "true");
    control.setAttribute("aria-description", why);
  } else {
    control.removeAttribute("aria-disabled");
    control.removeAttribute("aria-description");
  }
}

const SPEEDS = [0.5, 1, 2];

/** The row of buttons under the panes, and the scrubber with a mark for each beat. */
class Transport {
  constructor() {
    this.start = button("Start", "start", icon("start"));
    this.back = button("Step back", "back", icon("back"));
    this.play = button("Play", "play", icon("play"));
    this.forward = button("Step forward", "forward", icon("forward"));
    this.end = button("End", "end", icon("end"));
    this.live = html("button", { type: "button", "data-action": "live", class: "live" }, "Live");
    this.scrubber = html("input", {
      type: "range", min: "0", step: "0.05", value: "0", class: "scrubber", "aria-label": "Playhead",
    });
    this.speed = html(
      "select",
      { "aria-label": "Speed", class: "speed" },
      ...SPEEDS.map((speed) => html("option", { value: String(speed) }, `${speed === 0.5 ? "½" : speed}×`)),
    );
    this.speed.value = "1";
    this.track = html("div", { class: "track", "aria-hidden": "true" });
    this.list = html("ol", { class: "beats", "aria-label": "Beats" });
    const line = html("div", { class: "line" }, this.track, this.scrubber, this.list);
    const buttons = html(
      "div", { class: "buttons" },
      this.start, this.back, this.play, this.forward, this.end,
    );
    const side = html("div", { class: "side" }, this.live, html("label", {}, "speed ", this.speed));
    this.element = html(
      "div", { class: "transport", role: "group", "aria-label": "Playback" }, buttons, line, side,
    );
    /** @type {HTMLElement[]} */
    this.marks = [];
    /** @type {HTMLButtonElement[]} */
    this.jumps = [];
    this.shown = "";
  }

  /**
   * @param {Alignment} alignment
   * @param {{T: number, moving: boolean, live: boolean, following: boolean}} playhead
   */
  draw(alignment, { T, moving, live, following }) {
    const { beats, length } = alignment;
    const current = alignment.beatAt(T);
    this._place(beats, length);
    this.marks.forEach((mark, at) => mark.classList.toggle("passed", beats[at].start <= T));
    this.jumps.forEach((jump, at) => {
      if (at === current) jump.setAttribute("aria-current", "step");
      else jump.removeAttribute("aria-current");
    });
    this.scrubber.max = String(length);
    this.scrubber.value = String(T);
    this.scrubber.setAttribute("aria-valuetext", spoken(alignment, current));
    this.element.style.setProperty("--done", length ? String(T / length) : "0");
    this._toggle(moving);
    this.live.hidden = !live;
    this.live.setAttribute("aria-pressed", String(following));
    const atStart = T <= 0 ? "This is the beginning." : "";
    const atEnd = T >= length && !moving ? "This is the end." : "";
    allow(this.start, atStart);
    allow(this.back, atStart);
    allow(this.forward, atEnd);
    allow(this.end, atEnd);
  }

  /** @param {boolean} moving */
  _toggle(moving) {
    const label = moving ? "Pause" : "Play";
    if (this.play.getAttribute("aria-label") === label) return;
    this.play.setAttribute("aria-label", label);
    this.play.title = label;
    this.play.replaceChildren(icon(moving ? "pause" : "play"));
  }

  /** One mark and one caption for each beat, made anew only where beats have come.
   * @param {Beat[]} beats @param {number} length */
  _place(beats, length) {
    const shown = beats.map(({ caption, start }) => `${px(start)} ${caption}`).join() + px(length);
    if (shown === this.shown) return;
    this.shown = shown;
    while (this.marks.length > beats.length) {
      this.marks.pop()?.remove();
      this.jumps.pop()?.parentElement?.remove();
    }
    beats.forEach(({ caption, start, end }, at) => {
      if (!this.marks[at]) this._addBeat(at);
      const text = caption ? shorten(caption, 120) : "The beginning";
      const [mark, jump] = [this.marks[at], this.jumps[at]];
      mark.style.setProperty("--at", String(start / length));
      const item = /** @type {HTMLElement} */ (jump.parentElement);
      item.style.setProperty("--at", String(start / length));
      item.style.setProperty("--share", String((end - start) / length));
      jump.replaceChildren(html("i", {}, String(at + 1)), html("span", {}, text));
      jump.title = text;
      jump.setAttribute("aria-label", `Beat ${at + 1}: ${text}`);
    });
  }

  /** @param {number} at */
  _addBeat(at) {
    const mark = html("span", { class: "mark" });
    const jump = html("button", { type: "button", "data-beat": String(at) });
    this.marks.push(mark);
    this.jumps.push(jump);
    this.track.append(mark);
    this.list.append(html("li", {}, jump));
  }
}

/** A beat in one sentence. @param {Alignment} alignment @param {number} at */
function spoken({ beats }, at) {
  if (!beats.length) return "";
  const caption = shorten(beats[at].caption, 200);
  return `Beat ${at + 1} of ${beats.length}${caption ? `: ${caption}` : ""}`;
}

/** What a person can do to a live run. */
class Controls {
  /** @param {string[]} servers @param {(control: HTMLElement) => void} act */
  constructor(servers, act) {
    this.player = html("select", { "aria-label": "Player" });
    this.body = html("input", {
      type: "text", "aria-label": "What the player says", placeholder: "say something", maxlength: "200",
    });
    this.send = html("button", { type: "submit", "data-action": "send", class: "strong" }, "Send");
    this.disconnect = html("button", { type: "button", "data-action": "disconnect" }, "Disconnect");
    this.reconnects = ["", ...servers].map((server) => {
      const label = server ? `to ${shorten(server)}` : "balancer’s choice";
      const name = server ? `Reconnect to ${shorten(server)}` : "Reconnect, the balancer’s choice";
      const attributes = { type: "button", "data-action": "reconnect", "data-server": server, "aria-label": name };
      return html("button", attributes, label);
    });
    const [choice, ...named] = this.reconnects;
    this.element = html(
      "form", { class: "controls", "aria-label": "Act on the live run" },
      this.player,
      html("span", { class: "saying" }, this.body, this.send),
      this.disconnect,
      html("span", { class: "reconnect", role: "group", "aria-label": "Reconnect" },
        html("span", { "aria-hidden": "true" }, "Reconnect"), ...named, choice),
    );
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      act(this.send);
    });
    this.element.addEventListener("click", (event) => {
      const control = /** @type {HTMLElement} */ (event.target).closest?.("button");
      if (control && control !== this.send) act(/** @type {HTMLElement} */ (control));
    });
  }

  /** @param {Film} film @param {{action: string, player: string} | null} busy */
  draw(film, busy) {
    const names = [...film.roles.values()].filter((role) => role.present).map((role) => role.name);
    this._offer(names);
    const now = worldAt(film, film.end, { events: [] }).players.find((p) => p.name === this.player.value);
    const waiting = busy ? `Waiting: ${shorten(busy.player)} is under way.` : "";
    this.element.setAttribute("aria-busy", String(busy !== null));
    for (const control of this.element.querySelectorAll("button")) {
      allow(control, waiting || whyNot(control.dataset, now, this.body.value));
      control.classList.toggle("busy", busy !== null && control.dataset.action === busy.action);
    }
  }

  /** @param {string[]} names */
  _offer(names) {
    const same = names.length === this.player.options.length &&
      names.every((name, at) => this.player.options[at].value === name);
    if (same) return;
    const chosen = this.player.value;
    const options = names.map((name) => html("option", { value: name }, shorten(name)));
    this.player.replaceChildren(...options);
    if (names.includes(chosen)) this.player.value = chosen;
  }
}

/**
 * Why a control cannot act now; empty if it can.
 * @param {DOMStringMap} control @param {PlayerNow | undefined} player @param {string} body
 */
export function whyNot({ action, server }, player, body) {
  if (!player) return "No player has joined yet.";
  const name = shorten(player.name);
  const away = player.state !== "connected" && player.state !== "connecting";
  if (action === "send" && away) return `${name} is away: reconnect it first.`;
  if (action === "send" && !body.trim()) return `Write what ${name} says first.`;
  if (action === "disconnect" && away) return `${name} is away already.`;
  if (action === "reconnect" && server && !away && player.home === server) {
    return `${name} is on ${shorten(server)} already.`;
  }
  return "";
}

// -------------------------------------------------------------------------------- the stage

const HOP_MS = 900; // of screen time, at normal speed
const READ_MS = 900; // at the end of a beat, before the next one begins
const STILL_MS = 2600; // for each beat, where motion is not wanted
const PANE_MIN = 370; // pixels under which panes are stacked

/**
 * @typedef {{runs: Run[], live: boolean, send?: (message: ToPython) => void}} Setting
 */

/** One view: its own playhead over the runs, and everything on the screen. */
class Stage {
  /** @param {HTMLElement} element @param {Setting} setting */
  constructor(element, { runs, live, send = () => {} }) {
    this.element = element;
    this.send = send;
    this.live = live;
    /** @type {Film[]} */
    this.films = [];
    /** @type {Pane[]} */
    this.panes = [];
    this.alignment = align([]);
    /** Where the playhead is, in hops from the beginning. */
    this.T = 0;
    this.speed = 1;
    this.moving = false;
    /** Where playing stops by itself. */
    this.until = Infinity;
    this.following = false;
    this.resting = 0; // until this time of the clock, at the end of a beat
    this.last = 0;
    this.frame = 0;
    this.timer = 0;
    this.width = 0;
    this.nextId = 1;
    /** @type {{id: number, action: string, player: string} | null} */
    this.busy = null;
    /** @type {number[]} */
    this.asked = [];
    this.still = globalThis.matchMedia?.("(prefers-reduced-motion: reduce)");
    this.ends = new AbortController();
    this._build();
    this.replace(runs, live);
    this._listen();
  }

  _build() {
    this.caption = html("p", { class: "caption" });
    this.progress = html("p", { class: "progress" });
    this.problem = html("p", { class: "problem", role: "alert" });
    this.problem.hidden = true;
    this.stages = html("div", { class: "panes" });
    this.transport = new Transport();
    this.below = html("div", { class: "below" });
    this.voice = html("p", { class: "voice", "aria-live": "polite", role: "status" });
    this.root = html(
      "div",
      { class: "wsdemo-stage", tabindex: "0", role: "group", "aria-label": "Stage",
        // JupyterLab's shortcuts stay out of here.
        "data-lm-suppress-shortcuts": "true" },
      html("header", {}, this.caption, this.progress),
      this.problem, this.stages, this.below, this.transport.element, this.voice,
    );
    this.element.append(this.root);
  }

  /** Shows other runs, from the beginning or, live, from now. @param {Run[]} runs @param {boolean} live */
  replace(runs, live) {
    this._halt();
    this.live = live;
    this.films = runs.map((run) => new Film(run));
    this.panes = this.films.map((film) => new Pane(film));
    this.stages.replaceChildren(...this.panes.map((pane) => pane.element));
    this.stages.dataset.runs = String(runs.length);
    /** @type {Controls | null} */
    this.controls = live && this.films.length
      ? new Controls(this.films[0].servers, (control) => this._act(control))
      : null;
    this.below.replaceChildren(...(this.controls ? [this.controls.element] : []));
    this.controls?.element.addEventListener("input", () => this._drawControls());
    this.asked = this.films.map(() => -1);
    this._align();
    this.following = live;
    this.T = live ? this.alignment.length : 0;
    this.draw();
  }

  _align() {
    this.alignment = align(this.films, this.live);
    this.cast = castOf(this.films);
  }

  /** Takes what has been added to a run. @param {FromPython & {type: "more"}} message */
  add({ run, from, items, end }) {
    const film = this.films[run];
    if (!film) return;
    if (from > film.had) {
      // Something before it has not come: ask for it, once.
      if (this.asked[run] !== film.had) this.askRest();
      this.asked[run] = film.had;
      return;
    }
    film.append(items.slice(film.had - from), end);
    this._align();
    if (this.following && this.T < this.alignment.length) this._go();
    else this._wake();
  }

  askRest() {
    this.send({ type: "rest", have: this.films.map((film) => film.had) });
  }

  /** Takes what became of an action. @param {FromPython} message */
  answer(message) {
    if (message.type === "more" || message.id !== this.busy?.id) return;
    this.busy = null;
    if (message.type === "failed") this._say(message.text);
    this._drawControls();
  }

  /** @param {HTMLElement} control */
  _act(control) {
    const why = control.getAttribute("aria-description");
    if (!this.controls || control.hasAttribute("aria-disabled")) {
      if (why) this._announce(why);
      return;
    }
    const { action = "", server } = control.dataset;
    const player = this.controls.player.value;
    const id = this.nextId++;
    this.busy = { id, action, player };
    this._say("");
    const message = { type: /** @type {const} */ ("act"), id, action, player };
    if (action === "send") this.send({ ...message, body: this.controls.body.value });
    else this.send(server ? { ...message, server } : message);
    if (action === "send") this.controls.body.value = "";
    if (!this.following) this.follow();
    this._drawControls();
  }

  // The playhead.

  /** @param {number} T */
  seek(T) {
    this.T = clamp(T, 0, this.alignment.length);
    this.draw();
  }

  /** @param {number} [until] */
  play(until = Infinity) {
    if (this.T >= this.alignment.length) {
      if (this.live) return this.follow();
      this.T = 0;
    }
    this.until = until;
    this.resting = 0;
    if (until === Infinity && this._atEndOfBeat()) this.T += JUST_AFTER;
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
    this.following = true;
    if (this.T < this.alignment.length) this._go();
    else this.draw();
  }

  /** Plays one beat: the rest of the one that has begun, else the next one. */
  forward() {
    const { beats, length } = this.alignment;
    if (!beats.length || this.T >= length) return;
    const wasPlaying = this.moving;
    this._halt();
    this.following = false;
    let at = this.alignment.beatAt(this.T);
    const fresh = this._atEndOfBeat() || this.T === beats[at].begin;
    if (this._atEndOfBeat()) at += 1;
    if (fresh) this._announce(spoken(this.alignment, at));
    if (wasPlaying || this.still?.matches) return this.seek(beats[at].end);
    this.T = Math.max(this.T, beats[at].begin);
    this.play(beats[at].end);
  }

  /** Goes to the beginning of this beat, or from there to that of the one before. */
  back() {
    const { beats } = this.alignment;
    if (!beats.length) return;
    this._halt();
    this.following = false;
    const at = this.alignment.beatAt(this.T);
    const begun = this.T > beats[at].begin + 0.6;
    this.jump(begun ? at : Math.max(0, at - 1));
  }

  /** Goes to the beginning of a beat. @param {number} at */
  jump(at) {
    const beat = this.alignment.beats[at];
    if (!beat) return;
    this._halt();
    this.following = false;
    this.seek(beat.begin);
    this._announce(spoken(this.alignment, at));
  }

  _atEndOfBeat() {
    const { beats } = this.alignment;
    return this.T > 0 && this.T === beats[this.alignment.beatAt(this.T)]?.end;
  }

  _go() {
    if (!this.moving) this.last = 0;
    this.moving = true;
    this._schedule();
    this.draw();
  }

  _halt() {
    this.moving = false;
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    this.frame = this.timer = 0;
  }

  /** One frame, to show what came; none if one is on its way. */
  _wake() {
    if (!this.frame) this.frame = requestAnimationFrame((now) => this._tick(now));
  }

  _schedule() {
    if (this.still?.matches) {
      if (!this.timer) this.timer = window.setTimeout(() => this._turnPage(), this.following ? 0 : 300);
    } else this._wake();
  }

  /** Playing where motion is not wanted: still pictures, one for each beat. */
  _turnPage() {
    this.timer = 0;
    const { beats, length } = this.alignment;
    const at = this.alignment.beatAt(this.T);
    if (this.following) this.T = length;
    else this.T = beats[this._atEndOfBeat() ? at + 1 : at]?.end ?? length;
    if (this.T >= Math.min(length, this.until)) this._halt();
    else this.timer = window.setTimeout(() => this._turnPage(), STILL_MS / this.speed);
    this.draw();
  }

  /** @param {number} now */
  _tick(now) {
    this.frame = 0;
    if (this.moving) {
      const passed = this.last ? Math.min(now - this.last, 100) : 0;
      this.last = now;
      this._advance((passed / HOP_MS) * this.speed, now);
      if (this.moving) this._wake();
    }
    this.draw();
  }

  /** @param {number} hops @param {number} now */
  _advance(hops, now) {
    const { beats, length } = this.alignment;
    if (this.following) {
      // Far behind it hurries, near the end it keeps the pace.
      this.T = Math.min(length, this.T + hops * Math.max(1, (length - this.T) / 3));
    } else if (now >= this.resting) {
      const at = this.alignment.beatAt(this.T);
      const rested = this.resting > 0 && this.T === beats[at].end;
      const next = this.T + hops + (rested ? JUST_AFTER : 0);
      const end = rested ? (beats[at + 1]?.end ?? length) : beats[at].end;
      this.T = Math.min(next, end);
      this.resting = this.T === end ? now + READ_MS / this.speed : 0;
    }
    if (this.T < Math.min(length, this.until)) return;
    this._halt();
    this.following = this.following || (this.live && this.until === Infinity);
  }

  // Drawing.

  draw() {
    const { alignment, films } = this;
    const sentence = alignment.problem || emptiness(films, this.live);
    this.root.classList.toggle("failed", alignment.problem !== "" || !films.length);
    if (sentence && !(this.live && films.length)) {
      this.caption.textContent = sentence;
      this.progress.textContent = "";
      this.caption.classList.add("notice");
      if (alignment.problem || !films.length) return;
    } else {
      this.caption.classList.remove("notice");
      this._drawCaption(sentence);
    }
    const views = this._worlds();
    this.panes.forEach((pane, run) => {
      const { world, layout } = views.runs[run];
      pane.draw(world, layout, this.cast ?? new Map(), views.columns, views.differs);
      pane.picture.setAttribute("aria-label", describe(world));
    });
    const { T, moving, live, following } = this;
    this.transport.draw(alignment, { T, moving, live, following });
    this._drawControls();
  }

  /** @param {string} waiting */
  _drawCaption(waiting) {
    const { beats } = this.alignment;
    const at = this.alignment.beatAt(this.T);
    const caption = beats[at]?.caption || waiting || (this.live ? "The run so far" : "The run");
    const progress = beats.length > 1 || beats[0]?.caption ? `beat ${at + 1} of ${beats.length}` : "";
    const text = shorten(caption, 200);
    if (this.caption.textContent !== text) this.caption.textContent = text;
    if (this.progress.textContent !== progress) this.progress.textContent = progress;
  }

  /** Everything that the panes show now. */
  _worlds() {
    const { films, alignment, T } = this;
    const rooms = this._rooms();
    const layouts = films.map((film) => {
      const mine = film.servers.map((name) => rooms.get(name) ?? 1);
      return layout({ servers: film.servers, rooms: mine, broker: film.broker, width: this.width });
    });
    const fit = Math.min(...layouts.map((one) => one.slots.fit));
    let columns = columnsAt(films, alignment, T, fit);
    // The number of those before takes the room of one slot.
    if (columns.before > 0 && fit > 1) columns = columnsAt(films, alignment, T, fit - 1);
    const { events } = columns;
    const worlds = films.map((film, run) =>
      worldAt(film, alignment.storyTime(run, T), { since: alignment.since(run, T), events }),
    );
    return {
      columns,
      runs: worlds.map((world, run) => ({ world, layout: layouts[run] })),
      differs: differences(worlds, events),
    };
  }

  /** The most players that a server holds in any run, so that the panes line up. */
  _rooms() {
    /** @type {Map<string, number>} */
    const rooms = new Map();
    for (const film of this.films) {
      film.servers.forEach((name, at) =>
        rooms.set(name, Math.max(1, rooms.get(name) ?? 0, film.rooms[at])),
      );
    }
    return rooms;
  }

  _drawControls() {
    this.controls?.draw(this.films[0], this.busy);
  }

  /** Shows what went wrong, in words. @param {string} problem */
  _say(problem) {
    this.problem.textContent = problem ? shorten(problem, 300) : "";
    this.problem.hidden = !problem;
  }

  /** Says one polite sentence to whoever listens. @param {string} sentence */
  _announce(sentence) {
    this.voice.textContent = sentence;
  }

  // Listening.

  _listen() {
    const { signal } = this.ends;
    const { transport } = this;
    this.root.addEventListener("keydown", (event) => this._key(event), { signal });
    transport.element.addEventListener("click", (event) => this._press(event), { signal });
    transport.scrubber.addEventListener("input", () => {
      this._halt();
      this.following = false;
      this.seek(Number(transport.scrubber.value));
    }, { signal });
    transport.scrubber.addEventListener("change", () => {
      this._announce(spoken(this.alignment, this.alignment.beatAt(this.T)));
    }, { signal });
    transport.speed.addEventListener("change", () => {
      this.speed = Number(transport.speed.value);
    }, { signal });
    this.observer = new ResizeObserver(() => this._measure());
    this.observer.observe(this.root);
    this._measure();
  }

  _measure() {
    const available = this.root.clientWidth;
    if (!available) return;
    const columns = clamp(Math.floor(available / PANE_MIN), 1, Math.max(1, this.films.length));
    this.root.style.setProperty("--columns", String(columns));
    this.root.classList.toggle("narrow", available < 640);
    const width = (this.panes[0]?.picture ?? this.root).getBoundingClientRect().width;
    if (Math.abs(width - this.width) < 1) return;
    this.width = width;
    this.draw();
  }

  /** @param {MouseEvent} event */
  _press(event) {
    const control = /** @type {HTMLElement} */ (event.target).closest("button");
    if (!control || control.hasAttribute("aria-disabled")) return;
    const { action, beat } = control.dataset;
    if (beat !== undefined) this.jump(Number(beat));
    else if (action) this._do(action);
  }

  /** @param {string} action */
  _do(action) {
    switch (action) {
      case "play":
        return this.moving ? this.pause() : this.play();
      case "forward":
        return this.forward();
      case "back":
        return this.back();
      case "start":
        return this.jump(0);
      case "end":
        this._halt();
        this.seek(this.alignment.length);
        return this.live ? this.follow() : undefined;
      case "live":
        return this.follow();
    }
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    event.stopPropagation();
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
    const target = /** @type {HTMLElement} */ (event.target);
    const own = ownKeys(target);
    const action = KEYS[event.key];
    if (!action || own === "all" || (own === "press" && event.key === " ")) return;
    event.preventDefault();
    this._do(action);
  }

  destroy() {
    this._halt();
    this.ends.abort();
    this.observer?.disconnect();
    this.root.remove();
  }
}

/** @type {Record<string, string>} */
const KEYS = { " ": "play", ArrowLeft: "back", ArrowRight: "forward", Home: "start", End: "end" };

/** Which keys an element needs for itself. @param {HTMLElement} element */
function ownKeys(element) {
  if (element.matches("input[type=text], select, textarea, [contenteditable]")) return "all";
  if (element.matches("input[type=range]")) return "none";
  return element.matches("button") ? "press" : "none";
}

/** @param {Film[]} films @param {boolean} live */
function emptiness(films, live) {
  if (!films.length) return "There is no run to show yet.";
  if (films.some((film) => film.had > 0)) return "";
  return live ? "Waiting for the first thing to happen." : "Nothing happened in this run.";
}

/**
 * Whether the runs came to different ends with an event for a player.
 * @param {World[]} worlds @param {string[]} events
 */
export function differences(worlds, events) {
  const strips = worlds.map((world) => new Map(world.players.map((p) => [p.name, p.strip])));
  return (/** @type {string} */ event, /** @type {string} */ player) => {
    const at = events.indexOf(event);
    const outcomes = strips.map((strip) => strip.get(player)?.[at]?.outcome ?? "pending");
    const decided = outcomes.filter((outcome) => outcome !== "pending");
    return new Set(decided).size > 1;
  };
}

/** A moment in words, for whoever cannot see it. @param {World} world */
function describe(world) {
  const where = world.servers.map(({ name, holds }) =>
    `${shorten(name)} holds ${holds.length ? listed(holds.map((one) => shorten(one))) : "nobody"}`);
  const away = world.players.filter((p) => p.state === "away").map((p) => shorten(p.name));
  if (away.length) where.push(`${listed(away)} away`);
  return `${where.join("; ")}.`;
}

/**
 * Puts a stage into an element.
 * @param {HTMLElement} element @param {Setting} setting
 */
export function mount(element, setting) {
  return new Stage(element, setting);
}

/**
 * The front end of the widget.
 * @param {{model: Model, el: HTMLElement}} view
 */
function render({ model, el }) {
  const stage = mount(el, {
    runs: model.get("runs") ?? [],
    live: Boolean(model.get("live")),
    send: (message) => model.send(message),
  });
  const take = (/** @type {FromPython} */ message) =>
    message.type === "more" ? stage.add(message) : stage.answer(message);
  const renew = () => stage.replace(model.get("runs") ?? [], Boolean(model.get("live")));
  model.on("msg:custom", take);
  model.on("change:runs", renew);
  model.on("change:live", renew);
  // What came before this view was there to hear it.
  if (stage.live) stage.askRest();
  return () => {
    model.off("msg:custom", take);
    model.off("change:runs", renew);
    model.off("change:live", renew);
    stage.destroy();
  };
}

export default { render };
