// The stage: recorded runs of players, WebSocket servers, a load balancer and Redis, as a diagram
// in which every message travels its real way, and the controls of it.
//
// Everything drawn is a function of time (see `film.js`): to play is to ask again a moment later.
// A widget's module can import nothing, so `stage.py` puts `film.js` in the place of the import.

/**
 * @import { Answer, Box, Hop, Layout, Lost, Model, More, Path, PlayerNow, Point, ServerNow, Slot, ToPython, Traits, World } from "./film.js"
 */

import { Alignment, brokerLink, castOf, clamp, columnsAt, countUpTo, dataOf, describe, differences, distance, ease, everyone, Film, JUST_AFTER, LONGEST, latency, layout, listed, listOf, named, pathBetween, pathOf, pointAt, px, quote, rowsAt, SHAPES, shorten, split, STUB, waits, WHEREABOUTS, wire, worldAt, xy } from "./film.js";

// ---- Drawing

/** @typedef {Record<string, string | number | null>} Attributes */

// The name of a language, not an address: nothing is ever fetched from it.
const SVG = ["http:", "", "www.w3.org", "2000", "svg"].join("/");

/**
 * @template {keyof HTMLElementTagNameMap} Tag @param {Tag} tag @param {Attributes} [attributes]
 * @param {(Node | string)[]} children
 */
const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** @param {string} tag @param {Attributes} [attributes] @param {(Node | string)[]} children */
const svg = (tag, attributes = {}, ...children) =>
  fill(/** @type {SVGGraphicsElement} */ (document.createElementNS(SVG, tag)), attributes, children);

/** @template {Element} T @param {T} element @param {Attributes} attributes @param {(Node | string)[]} children */
function fill(element, attributes, children) {
  for (const name in attributes) set(element, name, attributes[name]);
  element.append(...children);
  return element;
}

/** Sets what has changed. @param {Element} element @param {string} name @param {string | number | null} value */
function set(element, name, value) {
  const text = typeof value === "number" ? px(value) : value;
  if (text === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/**
 * A group of the picture whose nodes are kept by key from one moment to the next. Only what has
 * changed is set; what is not drawn again goes.
 */
class Layer {
  /** @typedef {{layer: Layer, node: Element, attributes: Attributes, words: string, round: number}} Kept */
  /** @type {Map<string, Kept>} */
  kept = new Map();
  round = 0;
  group = svg("g");
  /** Where what is drawn is noted down. @type {Kept[]} */
  log = [];

  /**
   * @param {string} key @param {string} tag @param {Attributes} attributes
   * @param {string} [text] @param {string} [tip] what is told on hover
   */
  draw(key, tag, attributes, text = "", tip = "") {
    let kept = this.kept.get(key);
    if (!kept) {
      kept = { layer: this, node: svg(tag), attributes: {}, words: "", round: 0 };
      this.kept.set(key, kept);
      this.group.append(kept.node);
    }
    for (const name in attributes) {
      if (kept.attributes[name] !== attributes[name]) set(kept.node, name, attributes[name]);
    }
    kept.attributes = attributes;
    kept.round = this.round;
    this.log.push(kept);
    if (kept.words === text + tip) return;
    kept.words = text + tip;
    kept.node.replaceChildren(text, ...(tip ? [svg("title", {}, tip)] : []));
  }

  /** @param {string} key @param {string} look @param {number} x @param {number} y @param {string} text */
  write(key, look, x, y, text) {
    this.draw(key, "text", { class: look, x, y }, text);
  }

  /** Ends a moment. */
  sweep() {
    this.log = [];
    for (const [key, { node, round }] of this.kept) {
      if (round === this.round) continue;
      node.remove();
      this.kept.delete(key);
    }
    this.round += 1;
  }
}

const LETTER = 8; // pixels, about the width of one
const FEW = 60; // tokens up to which each has its words and can be reached with the tab key

/**
 * What all panes share at a moment.
 * @typedef {{cast: ReturnType<typeof castOf>, events: string[], before: number,
 *   differs: ReturnType<typeof differences>}} Shared
 */

/** The picture of one run. @param {Film} film */
function paneOf(film) {
  const [links, lights, parts, strips, trails, words] = Array.from({ length: 6 }, () => new Layer());
  /** @type {Map<Hop, {node: Element, move: SVGTransform, round: number}>} */
  const moving = new Map();
  const flock = svg("g");
  const picture = svg("svg", { role: "group" }, ...[links, lights, parts, strips, trails].map(({ group }) => group), flock, words.group);
  const counts = html("p", { class: "counts" });
  const title = shorten(film.title, 60);
  const element = html("section", { class: "pane", "data-pane": film.broker, "aria-label": title }, html("h3", {}, title), picture, counts);
  let round = 0;
  /** @type {World} */
  let world;
  /** @type {Layout} */
  let plan;
  /** @type {Shared} */
  let shared;
  /** @type {Map<string, Point>} */
  let rows = new Map();
  /** By source and target, for where the player was. @type {Map<string, {at?: Point, path: Path | null}>} */
  const paths = new Map();
  /** How each player was drawn last, and as what. @type {Map<string, {sign: string, log: Kept[]}>} */
  const drawn = new Map();
  let sharings = 0;

  /** @param {World} now @param {Layout} layout @param {Shared} others @param {string} lit an event whose way is to be seen */
  function draw(now, layout, others, lit) {
    const same = world?.players === now.players && world.servers === now.servers && plan === layout && shared === others;
    if (plan !== layout || shared?.cast !== others.cast) {
      paths.clear();
      drawn.clear();
    }
    if (shared !== others) sharings += 1;
    [world, plan, shared] = [now, layout, others];
    if (!same) drawStill();
    drawLight(lit);
    drawLosses();
    drawTokens(lit);
    for (const layer of [lights, trails, words]) layer.sweep();
  }

  /** All but what is on its way. */
  function drawStill() {
    const stood = rows;
    rows = rowsAt(world.players, plan);
    for (const [name, { x, y }] of rows) {
      const at = stood.get(name);
      if (at?.x === x && at.y === y) rows.set(name, at);
    }
    set(picture, "viewBox", `0 0 ${px(plan.width)} ${px(plan.height)}`);
    set(picture, "class", plan.density);
    drawParts();
    for (const player of world.players) if (player.presence > 0) keepPlayer(player);
    for (const layer of [links, parts, strips]) layer.sweep();
    drawCounts();
  }

  /** Draws a player, unless it looks as before. @param {PlayerNow} player */
  function keepPlayer(player) {
    const { name, state, home, from, reach, presence, progress, missed } = player;
    const { x = 0, y = 0 } = rows.get(name) ?? {};
    const striped = plan.slots.fit > 0;
    const sign = [x, y, state, home, from, reach, presence, missed, striped && sharings].join();
    const before = drawn.get(name);
    if (before?.sign === sign) {
      for (const kept of before.log) kept.round = kept.layer.round;
      return;
    }
    /** @type {Kept[]} */
    const log = [];
    links.log = parts.log = strips.log = log;
    drawPlayer(player);
    if (striped && (progress === 1 || from === home)) drawStrip(player);
    drawn.set(name, { sign, log });
  }

  /** @param {{source: string, target: string}} hop */
  function way({ source, target }) {
    const key = `${source}\n${target}`;
    const at = rows.get(source) ?? rows.get(target);
    let kept = paths.get(key);
    if (!kept || kept.at !== at) paths.set(key, (kept = { at, path: pathBetween(plan, rows, source, target) }));
    return kept.path;
  }

  /** @param {string} name */
  const lookOf = (name) => shared.cast.get(name) ?? { hue: "hue-6", d: SHAPES[0] };

  /** Of an event: who says what, and how that looks. @param {string} event */
  function saying(event) {
    const { player = "", body = "" } = film.messages.get(event) ?? {};
    return { player, body, ...lookOf(player) };
  }

  /**
   * A player's shape.
   * @param {Layer} layer @param {string} key @param {string} look @param {string} name
   * @param {Point} at @param {number} r @param {Attributes} [more] @param {string} [tip]
   */
  function mark(layer, key, look, name, at, r, more = {}, tip = "") {
    const { hue, d } = lookOf(name);
    layer.draw(key, "path", { class: `${look} ${hue}`, d, transform: `translate(${xy(at)}) scale(${Math.round(r * 10) / 100})`, ...more }, "", tip);
  }

  /** What makes something a thing to press. @param {string} kind @param {string} name @param {string} label @returns {Attributes} */
  const press = (kind, name, label) => ({ role: "button", tabindex: 0, "aria-label": label, "data-open": `${kind} ${name}` });

  function drawParts() {
    const { bar, broker, playerX, servers } = plan;
    world.servers.forEach((server, at) => server.state === "absent" || drawServer(server, servers[at]));
    const middle = servers.length ? servers[0].x + servers[0].width / 2 : 0;
    const columns = { players: Math.max(playerX, 24), balancer: bar.x + bar.width / 2, servers: middle, broker: broker.x };
    for (const [text, x] of Object.entries(columns)) parts.write(text, "heading", x, 14, text);
    parts.draw("bar", "rect", { class: "bar", ...bar, rx: bar.width / 2 });
    drawBroker();
  }

  /** @param {ServerNow} now @param {Box} box */
  function drawServer({ name, state, holds, channel, waiting }, { x, y, width, height }) {
    const key = `server ${name}`;
    const label = named(name, Math.floor((width - 16) / LETTER));
    const long = label.length > 2;
    const up = state === "up";
    const tip = `Server ${shorten(name, LONGEST)}: ${up ? everyone(holds) : state + waits(waiting)}`;
    const told = press("server", name, tip);
    parts.draw(key, "rect", { class: `server ${state}`, "data-server": name, x, y, width, height, rx: 9, ...told }, "", tip);
    parts.write(`${key} name`, long ? "letter long" : "letter", x + 13, y + 29, label);
    const fit = Math.floor((width - 18) / 17);
    const shown = holds.slice(0, holds.length > fit ? fit - 2 : fit);
    const more = holds.length - shown.length;
    if (!up) parts.write(`${key} state`, "ill", x + 13, y + (waiting ? 46 : 54), state);
    if (waiting) parts.write(`${key} waiting`, "kind", x + 13, y + 61, waits(waiting).slice(2));
    else if (more) parts.write(`${key} more`, "kind", x + 13 + shown.length * 17, y + 54, `+${more}`);
    if (!long && width > 88) parts.write(`${key} kind`, "kind", x + 36, y + 28, "server");
    if (up) shown.forEach((player, at) => mark(parts, `${key} ${player}`, "mark", player, { x: x + 20 + at * 17, y: y + 50 }, 6.5));
    if (plan.broker.none) return;
    const d = dataOf(pathOf(brokerLink(plan, { x, y, width, height })));
    links.draw(`link ${name}`, "path", { class: channel ? "link" : "link off", d });
  }

  function drawBroker() {
    const { broker: { x, y, rx, height, none } } = plan;
    const state = world.redis;
    const look = none ? "broker none" : `broker ${state}`;
    const ry = rx * 0.29;
    const top = y - height / 2 + ry;
    const side = px(height - 2 * ry);
    const d = `M${px(x - rx)} ${px(top)}v${side}a${px(rx)} ${px(ry)} 0 0 0 ${px(2 * rx)} 0v-${side}`;
    parts.draw("cylinder", "path", { class: look, d, ...(none ? {} : press("redis", "redis", `Redis: ${state}${waits(world.waiting)}`)) });
    parts.draw("lid", "ellipse", { class: look, cx: x, cy: top, rx, ry });
    const lines = y + (world.waiting ? 3 : 10);
    parts.write("cylinder name", none ? "kind middle" : "redis", x, lines, none ? (rx < 34 ? "" : "no broker") : "Redis");
    const channel = world.servers.find((server) => server.channel)?.channel ?? "";
    if (!none) parts.write("channel", state === "up" ? "channel" : "ill middle", x, lines + 18, state === "up" ? shorten(channel, 9) : state);
    if (world.waiting) parts.write("waiting", "kind middle", x, lines + 33, waits(world.waiting).slice(2));
  }

  /** @param {PlayerNow} player */
  function drawPlayer({ name, state, presence, reach, home, from, missed }) {
    const { radius: r, density, pitch, bar, beside } = plan;
    const { x, y } = rows.get(name) ?? { x: 0, y: 0 };
    const key = `player ${name}`;
    const roomy = density === "roomy";
    const dense = density === "dense";
    const { hue } = lookOf(name);
    const server = plan.servers.find((box) => box.name === (state === "away" ? from : home));
    if (server && reach > 0) {
      links.draw(key, "path", { class: `wire ${state}`, d: dataOf(pathOf(wire(plan, { x, y }, server)), ease(reach)) });
    }
    const opacity = px(presence);
    const where = `${shorten(name, LONGEST)}: ${WHEREABOUTS[state] || `on ${named(home)}`}`;
    const ring = { class: `player ${state} ${hue}`, cx: x, cy: y, r, opacity, "data-player": name, "data-state": state };
    parts.draw(key, "circle", { ...ring, ...press("player", name, where), ...(dense && { tabindex: -1 }) }, "", where);
    const inside = roomy && name.length <= 4;
    mark(parts, `${key} mark`, `mark ${state}`, name, { x, y: inside ? y - r * 0.27 : y }, r * (inside ? 0.33 : 0.5), { opacity });
    if (pitch < 13) return;
    const told = missed ? `missed ${missed}` : "";
    if (told) parts.write(`${key} missed`, "missed", bar.x - 5, roomy ? y + 22 : y - (dense ? 2 : 5), told);
    const most = Math.floor((bar.x - beside) / LETTER) - (roomy ? 1 : told.length);
    if (inside) parts.write(`${key} name`, `name ${hue}`, x, y + r * 0.62, named(name));
    else parts.write(`${key} name`, `name beside ${hue}`, beside, y - (dense ? 2 : 5), named(name, clamp(most, 3, 14)));
    if (state === "away" && reach <= 0) parts.write(`${key} away`, "away", beside, roomy ? y + 6 : y + 11, "away");
  }

  /** One slot for each event that the player should hear. @param {PlayerNow} player */
  function drawStrip({ name, strip }) {
    const { events, before, differs } = shared;
    const { x, size, pitch, below } = plan.slots;
    const y = (rows.get(name)?.y ?? 0) + below;
    const left = x + (before > 0 ? 6 + 8 * `+${before}`.length : 0);
    if (before > 0 && strip[0]) strips.write(`before ${name}`, "before", x, y + size - 3, `+${before}`);
    strip.forEach((slot, at) => {
      if (!slot) return;
      const box = { x: left + at * pitch, y, width: size, height: size };
      drawSlot(events[at], name, slot, box);
      if (differs(events[at], name)) strips.draw(`differs ${name} ${at}`, "rect", { class: "differs", ...box, y: y + size + 2.5, height: 2.5 });
    });
  }

  /** @param {string} event @param {string} player @param {Slot} slot @param {Box} box */
  function drawSlot(event, player, { outcome, cause }, box) {
    const { player: sender, body, hue } = saying(event);
    const key = `slot ${player} ${event}`;
    const tip = `${quote(body)} from ${named(sender)}: ${outcome}${cause && `, ${shorten(cause, 40)}`}`;
    const data = { "data-slot": event, "data-for": player, "data-outcome": outcome, "data-open": `event ${event}` };
    strips.draw(key, "rect", { class: `slot ${outcome} ${hue}`, ...box, rx: 3.5, ...data }, "", tip);
    const middle = { x: box.x + box.width / 2, y: box.y + box.width / 2 };
    if (outcome === "missed") strips.draw(`${key} in`, "path", { class: "slot-cross", d: "M-4-4L4 4M4-4L-4 4", transform: `translate(${xy(middle)})` });
    else if (outcome !== "pending") mark(strips, `${key} in`, "mark", sender, middle, box.width * 0.3);
    if (outcome === "twice") strips.write(`${key} twice`, "times", box.x + box.width - 3, box.y + 6, "2");
  }

  /** The whole way of an event, and how long each hop really took. @param {string} event */
  function drawLight(event) {
    const { hue } = saying(event);
    const hops = film.ways.get(`event ${event}`) ?? [];
    hops.forEach((hop, at) => {
      const path = way(hop);
      if (!path) return;
      lights.draw(`${at}`, "path", { class: `light ${hue}`, d: dataOf(path) });
      // Nearer to where it set out, so that there and back have room on one wire.
      const { x, y } = pointAt(path, 0.26);
      if (plan.density !== "dense") words.write(`light ${at}`, "latency", x, y - 6, latency(hop.ms));
    });
  }

  /** @param {string} lit an event whose words would stand where its latencies do */
  function drawTokens(lit) {
    const few = world.tokens.length < FEW;
    /** @type {{hop: Hop, at: Point}[]} */
    const placed = [];
    for (const { item: hop, fraction } of world.tokens) {
      const path = way(hop);
      if (!path) continue;
      const at = pointAt(path, ease(fraction));
      const kept = moving.get(hop) ?? newToken(hop, few);
      kept.move.setTranslate(at.x, at.y);
      kept.round = round;
      if (few && hop.event !== lit) placed.push({ hop, at });
    }
    for (const [hop, kept] of moving) {
      if (kept.round === round) continue;
      kept.node.remove();
      moving.delete(hop);
    }
    round += 1;
    drawWords(placed);
  }

  /** @param {Hop} hop @param {boolean} few */
  function newToken(hop, few) {
    const { body, hue, d } = saying(hop.event);
    const tip = `${quote(body)}, ${named(hop.source)} → ${named(hop.target)} ${latency(hop.ms)}${hop.source === "redis" ? " through Redis" : ""}`;
    const look = { class: hue, transform: "translate(0)", "data-token": hop.event, "data-open": `event ${hop.event}` };
    const node = svg("g", look, svg("path", { class: "token", d, transform: `scale(${few ? 0.8 : 0.5})` }));
    if (few) fill(node, press("event", hop.event, tip), [svg("title", {}, tip)]).prepend(svg("circle", { class: "halo", r: 13 }));
    flock.append(node);
    const kept = { node, move: node.transform.baseVal.getItem(0), round };
    moving.set(hop, kept);
    return kept;
  }

  /**
   * What the tokens carry: once where copies of one event are close together, and clear of others.
   * @param {{hop: Hop, at: Point}[]} placed
   */
  function drawWords(placed) {
    /** @type {(Point & {event: string})[]} */
    const said = [];
    for (const { hop: { event, source, target, s0 }, at: { x, y } } of placed) {
      if (said.some((word) => word.event === event && distance(word, { x, y }) < 50)) continue;
      const free = [y - 16, y + 26].find((height) =>
        !said.some((word) => Math.abs(word.y - height) < 14 && Math.abs(word.x - x) < 44) &&
        !placed.some(({ at }) => Math.abs(at.y - height + 5) < 15 && Math.abs(at.x - x) < 26));
      if (free === undefined) continue;
      said.push({ x, y: free, event });
      const { body, hue } = saying(event);
      words.write(`${event} ${source} ${target} ${s0}`, `word ${hue}`, x, free, shorten(body));
    }
  }

  function drawLosses() {
    /** @type {Map<string, Lost[]>} */
    const groups = new Map();
    for (const lost of world.losses) listOf(groups, `${lost.item.source} ${lost.item.target} ${lost.item.why}`).push(lost);
    /** @type {Map<string, {ended: Lost[], at: Point, look: string}>} */
    const told = new Map();
    for (const [key, group] of groups) {
      const path = way(group[0].item);
      if (!path) continue;
      const { at, look } = drawLossGroup(key, group, path);
      // What was lost in one place for one cause is told once.
      const { source, why } = group[0].item;
      const place = `${source} ${why} ${Math.round(at.y)} ${look || Math.round(at.x)}`;
      const ended = [...(told.get(place)?.ended ?? []), ...group.filter(({ fraction }) => fraction >= 1)];
      if (ended.length) told.set(place, { ended, at, look });
    }
    for (const [place, { ended, at: { x, y }, look }] of told) {
      const { target, why } = ended[0].item;
      const targets = [...new Set(ended.map(({ item }) => item.target))];
      const because = why.replace(target, everyone(targets));
      const bodies = [...new Set(ended.map(({ item }) => quote(saying(item.event).body)))];
      const lines = [bodies.length > 2 ? `${bodies.length} messages` : listed(bodies), shorten(because, 40)];
      const room = plan.width - LETTER * Math.max(...lines.map(({ length }) => length));
      lines.forEach((line, at) => words.write(`${at} lost ${place}`, `loss ${look}`, look === "aside" ? Math.min(x, room) : x, y + 15 * at, line));
    }
  }

  /** Draws losses of one way, and says where to tell of them. @param {string} key @param {Lost[]} losses @param {Path} path */
  function drawLossGroup(key, losses, path) {
    // On a stub they end side by side; on a wire a little over half of the way, one behind the other.
    const [start, end] = path.points;
    const [{ x, width }] = plan.servers;
    const stub = start.x === end.x;
    const shown = losses.slice(-Math.floor(width / 22));
    const back = shown.length - 1;
    shown.forEach((lost, at) => {
      const aside = stub ? (at - back / 2) * 22 : 0;
      const own = { ...path, points: path.points.map(({ x, y }) => ({ x: x + aside, y })) };
      drawLoss(`${key} ${lost.item.event}`, lost, own, stub ? 1 : 0.62 - (back - at) * 0.1);
    });
    const at = pointAt(path, stub ? 1 : 0.62);
    if (stub && path.along[1] <= STUB && end.x < x + width) return { at: { x: x + width + 6, y: at.y - 3 }, look: "aside" };
    return stub && end.y >= start.y ? { at: { x: at.x, y: at.y + 24 }, look: "under" } : { at: { x: at.x, y: at.y - 29 }, look: "" };
  }

  /** @param {string} key @param {Lost} lost @param {Path} path @param {number} reach */
  function drawLoss(key, { item: { event, cause }, fraction }, path, reach) {
    const { player, body, hue } = saying(event);
    const gone = ease(fraction) * reach;
    const at = pointAt(path, gone);
    trails.draw(`trail ${key}`, "path", { class: `trail ${hue}`, d: dataOf(path, gone) });
    const tip = `${quote(body)} was lost: ${shorten(cause, 40)}`;
    const told = press("event", event, tip);
    if (fraction < 1) return mark(trails, `lost ${key}`, "token", player, at, 8, { "data-token": event, ...told }, tip);
    // Hollow: a narrow cross in the paper's colour on a wide one in the sender's.
    const cross = { d: "M-6.5-6.5L6.5 6.5M6.5-6.5L-6.5 6.5", transform: `translate(${xy(at)})` };
    trails.draw(`cross ${key}`, "path", { class: `cross ${hue}`, ...cross, "data-loss": event, ...told }, "", tip);
    trails.draw(`hollow ${key}`, "path", { class: "hollow", ...cross });
  }

  /** The line of numbers, and the picture in words for whoever cannot see it. */
  function drawCounts() {
    const { players, servers, counts: { heard, missed, twice } } = world;
    counts.replaceChildren(`heard ${heard} · `, html("b", { class: missed ? "some" : "" }, `missed ${missed}`), ` · twice ${twice}`);
    const held = servers.map(({ name, holds }) => `${named(name)}: ${everyone(holds)}`);
    const away = players.filter(({ state }) => state === "away").map(({ name }) => `; ${named(name)} is away`);
    set(picture, "aria-label", `On ${held.join("; on ")}${away.join("")}`);
  }

  return { element, picture, draw };
}

// ---- Controls

/** What a part is called, as in “server A”. @param {string} open */
function nameOf(open) {
  const [kind, name] = split(open);
  return kind === "redis" ? "Redis" : kind === "server" ? `server ${named(name)}` : named(name);
}

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
const sentence = ({ beats }, at) => `Beat ${at + 1} of ${beats.length}: ${shorten(beats[at]?.caption || "the run", 200)}`;

const SPEEDS = [0.125, 0.25, 0.5, 1, 2, 4];
const NAMED = 8; // beats up to which their captions have room under the scrubber

/** The buttons under the panes, and the scrubber, on which every beat is equally wide. */
function transportOf() {
  // Their pictures are in the style sheet.
  const [start, back, play, forward, end] = [["start", "Start"], ["back", "Step back"], ["play", "Play"], ["forward", "Step forward"], ["end", "End"]]
    .map(([action, label]) => button(action, label, ""));
  const live = button("live", "Live");
  const scrubber = html("input", { type: "range", min: 0, step: "0.01", class: "scrubber", "aria-label": "Playhead" });
  const speed = html("select", { "aria-label": "Speed" },
    ...SPEEDS.map((one) => html("option", { value: `${one}` }, `${one < 1 ? `1/${1 / one}` : one}×`)));
  speed.value = "1";
  const list = html("ol", { class: "beats", "aria-label": "Beats" });
  const jump = html("select", { "aria-label": "Jump to a beat" });
  const element = html("div", { class: "transport", role: "group", "aria-label": "Playback" },
    html("div", { class: "buttons" }, start, back, play, forward, end),
    html("div", { class: "line" }, html("div", { class: "track" }), scrubber, list),
    html("div", { class: "side" }, jump, live, speed, button("full", "Full screen", ""), button("keys", "Keys", "?")));

  let shown = 0;

  /** @param {Alignment} alignment @param {{T: number, moving: boolean, live: boolean, following: boolean}} playhead */
  function draw(alignment, playhead) {
    const { beats, length } = alignment;
    const { T } = playhead;
    const current = alignment.beatAt(T);
    const at = current + (T - beats[current].start) / beats[current].duration;
    if (beats.length !== shown) name(beats);
    for (const [k, { firstElementChild: one }] of [...list.children].entries()) {
      if (one) set(one, "aria-current", k === current ? "step" : null);
    }
    jump.selectedIndex = current;
    element.style.setProperty("--done", `${at / beats.length}`);
    scrubber.max = `${beats.length}`;
    scrubber.value = `${at}`;
    set(scrubber, "aria-valuetext", sentence(alignment, current));
    set(play, "aria-label", playhead.moving ? "Pause" : "Play");
    live.hidden = !playhead.live;
    set(live, "aria-pressed", `${playhead.following}`);
    for (const control of [start, back]) allow(control, T <= 0 ? "This is the beginning." : "");
    for (const control of [forward, end]) allow(control, T >= length ? "This is the end." : "");
    allow(play, "");
  }

  /** Lists beats that are not listed yet, or all anew. @param {Alignment["beats"]} beats */
  function name(beats) {
    if (beats.length < shown) shown = 0;
    if (!shown) for (const menu of [list, jump]) menu.replaceChildren();
    for (const { caption } of beats.slice(shown)) {
      const text = shorten(caption || "the run", 120);
      shown += 1;
      jump.append(html("option", {}, `${shown} ${text}`));
      if (shown > NAMED) continue;
      const label = { type: "button", "data-beat": shown - 1, title: text, "aria-label": `Beat ${shown}: ${text}` };
      list.append(html("li", {}, html("button", label, html("i", {}, `${shown}`), html("span", {}, text))));
    }
    jump.hidden = !(list.hidden = shown > NAMED);
    element.style.setProperty("--beats", `${shown < 60 ? shown : 1}`);
  }

  /** The time that the scrubber stands at. @param {Alignment} alignment */
  function time({ beats }) {
    const at = Number(scrubber.value);
    const beat = Math.min(Math.floor(at), beats.length - 1);
    return Math.max(beats[beat].begin, beats[beat].start + (at - beat) * beats[beat].duration);
  }

  return { element, scrubber, speed, jump, draw, time, forget: () => void (shown = 0) };
}

/** What a person can do to a live run, part by part. */
function controlsOf() {
  const part = html("select", { "aria-label": "Act on" });
  const body = html("input", { type: "text", "aria-label": "What it says", placeholder: "say something", maxlength: 200 });
  const buttons = html("span");
  const element = html("form", { class: "controls", "aria-label": "Act on the live run" }, part, body, buttons);
  let offered = "";

  /** @param {Traits["acts"]} acts @param {string} busy what is waited for */
  function draw(acts, busy) {
    const names = Object.keys(acts);
    if (names.join("\n") !== [...part.options].map(({ value }) => value).join("\n")) {
      const chosen = part.value;
      part.replaceChildren(...names.map((open) => html("option", { value: open }, nameOf(open))));
      if (names.includes(chosen)) part.value = chosen;
    }
    const offers = acts[part.value] ?? [];
    const labels = JSON.stringify(offers.map(({ action, choice, label }) => [action, choice, label]));
    if (labels !== offered) {
      offered = labels;
      buttons.replaceChildren(...offers.map(({ action, choice, label }) =>
        button(action, label, label, { type: action === "send" ? "submit" : "button", ...(choice && { "data-choice": choice }) })));
    }
    body.hidden = !offers.some(({ action }) => action === "send");
    set(element, "aria-busy", `${busy !== ""}`);
    for (const [at, { action, why }] of offers.entries()) {
      const mute = action === "send" && !body.value.trim() ? "Write what to say first." : "";
      allow(buttons.children[at], busy || why || mute);
    }
  }

  return { element, part, body, buttons, draw };
}

// ---- The stage

const HOP_MS = 900; // of screen time, at normal speed
const READ_MS = 900; // at the end of a beat, before the next one begins
const PATIENCE_MS = 4000; // until it is said that an action has not been answered
const PANE_MIN = 350; // pixels under which panes are stacked
const FULL_HEIGHT = 540; // pixels of the screen for which the picture is as large as elsewhere

/** What a key does, and how that is told. @type {[string, string, string][]} */
const KEYS = [
  [" ", "play", "Space: play, pause"],
  ["ArrowRight", "forward", "→ or Page Down: the next beat"],
  ["PageDown", "forward", ""],
  ["ArrowLeft", "back", "← or Page Up: the beat before"],
  ["PageUp", "back", ""],
  ["Home", "start", "Home: the beginning"],
  ["End", "end", "End: the end"],
  [",", "slower", ", and . : slower, faster"],
  [".", "faster", ""],
  ["c", "panes", "C: one pane after the other, then all"],
  ["i", "newest", "I: look at the newest message"],
  ["n", "notes", "N: the speaker’s notes"],
  ["f", "full", "F: full screen"],
  ["Escape", "close", "Esc: close what is open"],
  ["?", "keys", "?: these keys"],
];

/** One view: its own playhead over the runs, and everything on the screen. */
class Stage {
  /** @type {Film[]} */
  films = [];
  /** @type {ReturnType<typeof paneOf>[]} */
  panes = [];
  /** @type {Layout[]} */
  layouts = [];
  /** @type {World[]} */
  worlds = [];
  /** @type {Shared | null} */
  shared = null;
  /** @type {Traits["acts"]} */
  acts = {};
  /** The one run that is to be seen; all if there is none of that number. */
  only = -1;
  /** What the inspector is open on, and in which run. @type {{run: number, open: string} | null} */
  looking = null;
  /** The event whose way is to be seen. */
  lit = "";
  /** The action that is waited for. @type {{id: number, words: string} | null} */
  busy = null;
  /** For each run, where the hole begins that was asked for. @type {number[]} */
  asked = [];
  alignment = new Alignment([]);
  cast = castOf([]);
  /** Where the playhead is, in hops from the beginning. */
  T = 0;
  moving = false;
  following = false;
  live = false;
  visible = true;
  full = false;
  /** Where playing stops by itself. */
  until = Infinity;
  /** Until then, by the frames' clock, the playhead rests at the end of a beat. */
  resting = 0;
  last = 0;
  frame = 0;
  width = 0;
  height = 0;
  actions = 0;
  patience = 0;
  key = "";
  beat = 0;
  /** What there is instead of a picture. */
  unusable = "";

  caption = html("p", { class: "caption" });
  progress = html("p", { class: "which-beat" });
  problem = html("p", { class: "problem", role: "alert", hidden: "" });
  places = html("div", { class: "panes" });
  notes = html("aside", { class: "notes", "aria-label": "Notes", hidden: "" });
  told = html("div");
  inspector = html("aside", { class: "inspector", "aria-label": "Inspector", hidden: "" }, this.told,
    html("nav", {}, button("before", "The one before", "‹"), button("after", "The next one", "›"), button("close", "Close", "✕")));
  keys = html("aside", { class: "keys", "aria-label": "Keys", hidden: "" },
    ...KEYS.filter(([, , told]) => told).map(([, , told]) => html("p", {}, told)));
  controls = controlsOf();
  transport = transportOf();
  voice = html("p", { class: "voice", role: "status", "aria-live": "polite" });
  root = html("div", { class: "wsdemo-stage", tabindex: 0, role: "group", "aria-label": "Stage" },
    html("header", {}, this.caption, this.progress),
    this.problem, this.places, this.notes, this.inspector, this.controls.element, this.transport.element, this.keys, this.voice);
  still = matchMedia("(prefers-reduced-motion: reduce)");
  resized = new ResizeObserver(() => this._measure());
  seen = new IntersectionObserver((entries) => this._see(entries[entries.length - 1].isIntersecting));

  /** @param {HTMLElement} element @param {Partial<Traits>} traits @param {(message: ToPython) => void} send */
  constructor(element, traits, send) {
    this.send = send;
    element.append(this.root);
    this.replace(traits);
    this._listen();
  }

  /** Shows other runs: from where this page was, or from the beginning; live, what is now. @param {Partial<Traits>} traits */
  replace({ runs = [], live = false, key = "", problem = "", acts = {} }) {
    this._halt();
    this.live = this.following = live;
    this.acts = acts;
    this.key = key && `wsdemo-stage ${key}`;
    this.unusable = problem || (runs.length ? "" : "There is no run to show yet.");
    this.films = runs.map((run) => new Film(run));
    this.alignment = new Alignment(this.films);
    this.asked = [];
    this.looking = null;
    this.panes = this.films.map(paneOf);
    this.places.replaceChildren(...this.panes.map(({ element }) => element));
    this.controls.element.hidden = !live;
    this.transport.forget();
    this._plan();
    const place = this._recall();
    if (place !== null) this.following = false;
    this.seek(place ?? (live ? Infinity : 0));
    this._measure();
  }

  /** Finds room for everything in all runs, so that the panes line up. */
  _plan() {
    const rooms = new Map(this.films.flatMap((film) => [...film.rooms]).sort(([, a], [, b]) => a - b));
    const { clientWidth, clientHeight } = this.root;
    const filled = this.full && clientWidth > clientHeight;
    const zoom = filled ? Math.max(1, clientHeight / FULL_HEIGHT) : 1;
    const [width, room] = [this.width / zoom, filled ? this.height / zoom : Infinity];
    this.cast = castOf(this.films, this.cast.keys());
    this.layouts = this.films.map(({ servers, broker }) => layout({ servers, broker, rooms, width, room }));
    this.worlds = [];
  }

  /** Takes what has been added to a run. @param {More} more */
  add({ run, from, items, end, rest }) {
    const film = this.films[run];
    if (!film) return;
    if (from > film.had) {
      if (this.asked[run] !== film.had) this.askRest();
      this.asked[run] = film.had;
      return;
    }
    film.append(items.slice(film.had - from), end);
    this.alignment.extend();
    this._plan();
    // What happened before this view was there is not news.
    if (this.following && rest) this._end();
    else if (this.following && !this.moving) this.follow();
    else this._wake();
  }

  askRest() {
    this.send({ type: "rest", have: this.films.map(({ had }) => had) });
  }

  /** @param {Traits["acts"]} acts */
  allow(acts) {
    this.acts = acts;
    this._drawControls();
  }

  /** Takes what became of an action. @param {Answer} answer */
  answer({ type, id, text }) {
    if (id !== this.actions) return;
    this.busy = null;
    clearTimeout(this.patience);
    this._complain(type === "failed" ? text : "");
    if (type === "done") this.voice.textContent = text;
    this._drawControls();
  }

  /** A kernel that does not answer may be gone, and must not hold up the controls. */
  _losePatience() {
    this.busy = null;
    this._complain("The kernel has not answered yet: it is busy with a cell, or gone.");
    this._drawControls();
  }

  /** @param {HTMLElement} control */
  _act(control) {
    const { action = "", choice } = control.dataset;
    const { part: { value: part }, body } = this.controls;
    const id = (this.actions += 1);
    this.busy = { id, words: `Waiting for ${nameOf(part)}: ${control.textContent}.` };
    this.send({ type: "act", id, part, action, ...(choice && { choice }), ...(action === "send" && { body: body.value }) });
    if (action === "send") body.value = "";
    this._complain("");
    this.patience = setTimeout(() => this._losePatience(), PATIENCE_MS);
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
    const { beats, length } = this.alignment;
    if (this.T >= length) return;
    const playing = this.moving;
    this.pause();
    const current = this.alignment.beatAt(this.T);
    const at = current + Number(this.T > 0 && this.T === beats[current].end);
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
    this._sleep();
  }

  _sleep() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
  }

  /** Asks for one frame, unless one is on its way or nobody could see it. */
  _wake() {
    if (this.visible) this.frame ||= requestAnimationFrame((now) => this._tick(now));
  }

  /** @param {boolean} visible */
  _see(visible) {
    if (visible === this.visible) return;
    this.visible = visible;
    this.last = 0;
    if (visible) this._wake();
    else this._sleep();
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
    const { alignment } = this;
    const { length } = alignment;
    if (this.following) {
      // Far behind it hurries; near the end it keeps the pace.
      this.T = Math.min(length, this.T + hops * Math.max(1, (length - this.T) / 3));
    } else if (now >= this.resting) {
      const { begin, end } = alignment.beats[alignment.beatAt(this.T + JUST_AFTER)];
      this.T = Math.min(Math.max(this.T, begin) + hops, end);
      if (this.T === end) this.resting = now + READ_MS;
    }
    if (this.T < Math.min(length, this.until)) return;
    this.moving = false;
    this.following ||= this.live && this.until === Infinity;
  }

  // What is seen and said.

  draw() {
    const { alignment, films, live, T, unusable, root } = this;
    const at = alignment.beatAt(T);
    const { caption = "", notes = "" } = alignment.beats[at] ?? {};
    const nothing = live ? "Waiting for the first thing to happen." : "Nothing happened in this run.";
    const happened = films.some(({ had }) => had > 0);
    this.caption.textContent = shorten(unusable || caption || (happened ? "The run so far" : nothing), unusable ? 400 : 160);
    this.progress.textContent = films[0]?.beats.length ? `beat ${at + 1} of ${alignment.beats.length}` : "";
    this.notes.textContent = shorten(notes, 2000) || "There are no notes for this beat.";
    root.classList.toggle("unusable", unusable !== "");
    if (unusable) return;
    const focused = /** @type {Document | ShadowRoot} */ (root.getRootNode()).activeElement;
    const had = root.contains(focused);
    this._drawPanes();
    this._drawInspector();
    this._drawControls();
    this.transport.draw(alignment, this);
    // A token that arrives must not take the focus with it, and the keys.
    if (had && !root.contains(focused)) root.focus();
    if (!this.moving || at !== this.beat) this._remember();
    this.beat = at;
  }

  _drawPanes() {
    const { films, alignment, T, cast, layouts, worlds: before } = this;
    const fit = Math.min(...layouts.map(({ slots }) => slots.fit));
    let columns = columnsAt(alignment, T, fit);
    // To say how many came before takes the room of a slot, or of two.
    if (columns.before > 0 && fit > 2) columns = columnsAt(alignment, T, fit - (columns.before > 8 ? 2 : 1));
    const { events } = columns;
    const same = events.join("\n") === this.shared?.events.join("\n");
    this.worlds = films.map((film, run) => {
      const s = alignment.storyTime(run, T);
      const was = same && before[run] && film.isStill(before[run].s, s) ? before[run] : null;
      return worldAt(film, s, { since: alignment.since(run, T), events, was });
    });
    if (this.worlds.some(({ players }, run) => players !== before[run]?.players)) {
      this.shared = { cast, ...columns, differs: events.length ? differences(this.worlds, events) : () => false };
    }
    const shared = this.shared ?? { cast, ...columns, differs: () => false };
    const lit = this.lit || (this.looking?.open.startsWith("event ") ? split(this.looking.open)[1] : "");
    this.panes.forEach((pane, run) => {
      pane.element.hidden = this.only in films && this.only !== run;
      pane.draw(this.worlds[run], layouts[run], shared, lit);
    });
  }

  _drawControls() {
    if (this.live) this.controls.draw(this.acts, this.busy?.words ?? "");
  }

  _drawInspector() {
    const { looking, inspector, told } = this;
    inspector.hidden = !looking;
    if (!looking) return;
    const { title, facts, texts } = describe(this.films[looking.run], looking.open, this.worlds[looking.run]);
    const whole = this.films.length > 1 ? `${title} · ${shorten(this.films[looking.run].title, 60)}` : title;
    if (told.dataset.title !== whole) this.voice.textContent = told.dataset.title = whole;
    const now = JSON.stringify([whole, facts, texts]);
    if (told.dataset.now === now) return;
    told.dataset.now = now;
    told.replaceChildren(html("h4", {}, whole),
      html("dl", {}, ...facts.map(([what, is]) => html("div", {}, html("dt", {}, shorten(what, 40)), html("dd", {}, shorten(is, 80))))),
      ...texts.filter(([, text]) => text).map(([what, text]) => html("pre", {}, html("b", {}, `${what} `), shorten(text, 2100))));
  }

  /** Opens the inspector. @param {number} run @param {string} open */
  _look(run, open) {
    const { part } = this.controls;
    this.looking = { run, open };
    this._complain("");
    if (open in this.acts) part.value = open;
    this.draw();
  }

  /** Looks at another of the same kind. @param {number} by */
  _turn(by) {
    if (!this.looking) return;
    const { run, open } = this.looking;
    const { said, servers, roles } = this.films[run];
    const [kind, name] = split(open);
    const far = countUpTo(said, this.worlds[run].s);
    const names = kind === "event" ? said.slice(0, far).map(({ event }) => event) : kind === "server" ? servers : kind === "player" ? [...roles.keys()] : [];
    const next = names[names.indexOf(name) + by];
    if (next !== undefined) this._look(run, `${kind} ${next}`);
  }

  _lookAtNewest() {
    const run = Math.max(0, this.only);
    const { said } = this.films[run];
    const newest = said[countUpTo(said, this.worlds[run].s) - 1];
    if (newest) this._look(run, `event ${newest.event}`);
    else this._complain("Nothing has been said yet.");
  }

  _close() {
    const { keys, notes, root } = this;
    if (this.looking) {
      this.looking = null;
      root.focus();
      this.draw();
    } else if (!keys.hidden || !notes.hidden) keys.hidden = notes.hidden = true;
    else if (this.full) this._toggleFull();
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
    const shown = this.panes.filter(({ element }) => !element.hidden);
    const columns = clamp(Math.floor(available / PANE_MIN), 1, Math.max(1, shown.length));
    this.root.style.setProperty("--columns", `${columns}`);
    this.root.classList.toggle("narrow", available < 640);
    this.root.classList.toggle("wide", available >= 1200);
    const { clientWidth: width = 0, clientHeight: height = 0 } = shown[0]?.picture ?? {};
    const same = Math.abs(width - this.width) < 1 && (!this.full || Math.abs(height - this.height) < 1);
    if (!width || same) return;
    [this.width, this.height] = [width, height];
    this._plan();
    this.draw();
  }

  /** So that a page that is loaded again shows the same moment. Some pages may keep nothing. */
  _remember() {
    try {
      if (this.key) sessionStorage.setItem(this.key, this.following ? "" : `${this.T}`);
    } catch {
      this.key = "";
    }
  }

  /** @returns {number | null} */
  _recall() {
    try {
      return (this.key && Number(sessionStorage.getItem(this.key))) || null;
    } catch {
      return null;
    }
  }

  // What a person does. Every listener is on something in the root, and goes with it.

  _listen() {
    const { transport, controls, root } = this;
    const { scrubber, jump } = transport;
    root.addEventListener("keydown", (event) => this._key(event));
    root.addEventListener("click", ({ target }) => this._press(target));
    for (const [on, off] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
      root.addEventListener(on, ({ target }) => this._light(target));
      root.addEventListener(off, () => this._light(null));
    }
    root.addEventListener("fullscreenchange", () => this._fill(root.matches(":fullscreen")));
    scrubber.addEventListener("input", () => {
      const T = transport.time(this.alignment);
      this.pause();
      this.seek(T);
    });
    scrubber.addEventListener("change", () => this._announce(this.alignment.beatAt(this.T)));
    jump.addEventListener("change", () => this.jump(jump.selectedIndex));
    controls.element.addEventListener("input", () => this._drawControls());
    controls.element.addEventListener("submit", (event) => event.preventDefault());
    for (const element of [root, this.places]) this.resized.observe(element);
    this.seen.observe(root);
  }

  /** @param {EventTarget | null} target */
  _light(target) {
    const open = target instanceof Element ? target.closest("[data-open]")?.getAttribute("data-open") : "";
    const lit = open?.startsWith("event ") ? split(open)[1] : "";
    if (lit === this.lit) return;
    this.lit = lit;
    this._wake();
  }

  /** @param {EventTarget | null} target */
  _press(target) {
    if (!(target instanceof Element)) return;
    const part = target.closest("[data-open]");
    const control = target.closest("button");
    if (part) return this._look(this.panes.findIndex(({ element }) => element.contains(part)), part.getAttribute("data-open") ?? "");
    if (!control) return;
    const { action = "", beat } = control.dataset;
    const why = control.getAttribute("aria-description");
    if (why) this._complain(why);
    else if (this.controls.buttons.contains(control)) this._act(control);
    else if (beat) this.jump(Number(beat));
    else this._do(action);
  }

  /** @param {string} action of a button or a key */
  _do(action) {
    if (this.unusable) return;
    this._complain("");
    const { speed } = this.transport;
    /** @type {Record<string, () => void>} */
    const deeds = {
      play: () => (this.moving ? this.pause() : this.play()),
      forward: () => this.forward(),
      back: () => this.back(),
      start: () => this.jump(0),
      end: () => this._end(),
      live: () => this.follow(),
      slower: () => (speed.selectedIndex = Math.max(0, speed.selectedIndex - 1)),
      faster: () => (speed.selectedIndex = Math.min(SPEEDS.length - 1, speed.selectedIndex + 1)),
      panes: () => this._choosePanes(),
      newest: () => this._lookAtNewest(),
      before: () => this._turn(-1),
      after: () => this._turn(1),
      close: () => this._close(),
      notes: () => (this.notes.hidden = !this.notes.hidden),
      keys: () => (this.keys.hidden = !this.keys.hidden),
      full: () => this._toggleFull(),
    };
    deeds[action]?.();
  }

  _end() {
    this.pause();
    this.following = this.live;
    this.seek(Infinity);
  }

  _choosePanes() {
    this.only = this.films.length > 1 && this.only + 1 < this.films.length ? this.only + 1 : -1;
    this.draw();
    this._measure();
  }

  async _toggleFull() {
    const { root, full } = this;
    if (full && root.matches(":fullscreen")) await document.exitFullscreen();
    if (!full && document.fullscreenEnabled) await root.requestFullscreen().catch(() => {});
    this._fill(!full);
  }

  /** @param {boolean} full */
  _fill(full) {
    const { root } = this;
    this.full = full;
    // Where the page may not fill the screen, the stage at least lies over all of the page; but not
    // where that is a frame around a whole notebook, as in VS Code, and higher than any screen.
    const over = full && !root.matches(":fullscreen");
    const aloft = over && innerHeight <= screen.height;
    root.classList.toggle("full", full);
    root.classList.toggle("in-place", over && !aloft);
    root.style.setProperty("--height", over && !aloft ? `${screen.availHeight * 0.8}px` : "100dvh");
    set(root, "popover", aloft ? "manual" : null);
    if (aloft) root.showPopover?.();
    else root.scrollIntoView({ block: "nearest" });
    this.width = 0;
    this._measure();
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    const { key, target } = event;
    if (event.altKey || event.ctrlKey || event.metaKey || !(target instanceof Element)) return;
    // All others would be the notebook's: `d` twice deletes a cell.
    event.stopPropagation();
    // Fields need all keys for themselves, buttons the space bar.
    if (target.matches("input[type=text], select") || (key === " " && target.matches("button"))) return;
    const action = KEYS.find(([one]) => one === key || one === key.toLowerCase())?.[1];
    if (target.matches("[data-open]") && (key === "Enter" || key === " ")) this._press(target);
    else if (action) this._do(action);
    else return;
    event.preventDefault();
  }

  destroy() {
    this._halt();
    clearTimeout(this.patience);
    this.resized.disconnect();
    this.seen.disconnect();
    this.root.remove();
  }
}

/** Puts a stage into an element. @param {HTMLElement} element @param {Partial<Traits>} traits @param {(message: ToPython) => void} [send] */
export const mount = (element, traits, send = () => {}) => new Stage(element, traits, send);

/** Starts the stage of a saved page. */
export function open() {
  const element = /** @type {HTMLElement} */ (document.getElementById("stage"));
  /** @type {Partial<Traits>} */
  let told = { problem: "This page is incomplete: save it again from where it came." };
  try {
    told = JSON.parse(document.getElementById("told")?.textContent ?? "");
  } catch {
    // It was cut short, and the sentence says so.
  }
  element.replaceChildren();
  mount(element, told);
}

/** The widget's front end. @param {{model: Model, el: HTMLElement}} view */
function render({ model, el }) {
  const names = ["runs", "live", "key", "problem", "acts"];
  const traits = () => Object.fromEntries(names.map((name) => [name, model.get(name) ?? undefined]));
  const stage = mount(el, traits(), (message) => model.send(message));
  /** @type {[string, (message: any) => void][]} */
  const heard = [
    ["msg:custom", (message) => (message.type === "more" ? stage.add(message) : stage.answer(message))],
    ["change:runs", () => stage.replace(traits())],
    ["change:acts", () => stage.allow(model.get("acts"))],
  ];
  for (const [name, callback] of heard) model.on(name, callback);
  // What was sent before this view was there to hear it.
  if (stage.live) stage.askRest();
  return () => {
    for (const [name, callback] of heard) model.off(name, callback);
    stage.destroy();
  };
}

export default { render };
