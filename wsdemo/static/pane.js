// The picture of one run, in which every message travels its real way.

/**
 * @import { differences, Film, Hop, Lost, PlayerNow, ServerNow, Slot, World } from "./film.js"
 * @import { Box, castOf, Layout, Path, Point } from "./layout.js"
 * @import { Attributes, Kept } from "./draw.js"
 */

import { everyone, latency, listed, LONGEST, named, quote, shorten, waits, WHEREABOUTS, wrapped } from "./words.js";
import { clamp, ease, listOf } from "./film.js";
import { brokerLink, dataOf, distance, LETTER, WITH_NAME, pathBetween, pathOf, pointAt, px, rowsAt, SHAPES, STUB, wire, xy } from "./layout.js";
import { fill, html, Layer, set, svg } from "./draw.js";

const FEW = 60; // tokens up to which each has its words and can be reached with the tab key

/** Whether it is but the beginning of a way. @param {Path} path */
const isStub = ({ points: [start, end] }) => start.x === end.x;

/** @param {Path} path */
const pointsDown = ({ points: [start, end] }) => end.y >= start.y;

/**
 * What all panes share at a moment.
 * @typedef {{cast: ReturnType<typeof castOf>, events: string[], before: number,
 *   differs: ReturnType<typeof differences>}} Shared
 */

/** The picture of one run. @param {Film} film */
export function paneOf(film) {
  const [links, lights, parts, strips, trails, words] = Array.from({ length: 6 }, () => new Layer());
  /** @type {Map<Hop, {node: Element, move: SVGTransform, round: number}>} */
  const moving = new Map();
  const flock = svg("g");
  const picture = svg("svg", { role: "group" }, ...[links, lights, parts, strips, trails].map(({ group }) => group), flock, words.group);
  const counts = html("p", { class: "counts" });
  const title = shorten(film.title, 60);
  const element = html("div", { class: "pane", role: "group", "data-pane": film.broker, "aria-label": title }, html("h3", {}, title), picture, counts);
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
    const label = named(name, Math.floor((width - 22) / LETTER));
    const long = label.length > 2;
    const up = state === "up";
    const tip = `Server ${shorten(name, LONGEST)}: ${up ? everyone(holds) : state + waits(waiting)}`;
    const told = press("server", name, tip);
    parts.draw(key, "rect", { class: `server ${state}`, "data-server": name, x, y, width, height, rx: 9, ...told }, "", tip);
    // One that is low has all on one line.
    const low = height < 50;
    const left = x + (low ? 34 : 13);
    /** @param {number} part */
    const line = (part) => y + (low ? height / 2 + 5 : height * part);
    parts.write(`${key} name`, long ? "letter long" : "letter", x + 13, low ? y + height / 2 + (long ? 5 : 8) : line(0.43), label);
    const fit = low && long ? 0 : Math.floor((x + width - left - 5) / 17);
    const shown = holds.slice(0, holds.length > fit ? Math.max(0, fit - 2) : fit);
    const more = holds.length - shown.length;
    if (!up && !(low && (long || waiting))) parts.write(`${key} state`, "ill", left, line(waiting ? 0.68 : 0.8), state);
    if (waiting && !(low && long)) parts.write(`${key} waiting`, "kind", left, line(0.92), waits(waiting).slice(2));
    else if (more && !(low && long)) parts.write(`${key} more`, "kind", left + shown.length * 17, line(0.8), `+${more}`);
    if (!long && !low && width > 88) parts.write(`${key} kind`, "kind", x + 36, y + height * 0.42, "server");
    if (up) shown.forEach((player, at) => mark(parts, `${key} ${player}`, "mark", player, { x: left + 7 + at * 17, y: low ? y + height / 2 : y + height * 0.74 }, 6.5));
    if (plan.broker.none) return;
    const d = dataOf(pathOf(brokerLink(plan, { x, y, width, height })));
    links.draw(`link ${name}`, "path", { class: channel ? "link" : "link off", d });
  }

  function drawBroker() {
    const { broker: { x, y, rx, height, none } } = plan;
    const state = world.redis;
    const keeps = world.keeps === null || state !== "up" ? "" : `keeps ${world.keeps}`;
    const look = none ? "broker none" : `broker ${state}`;
    const ry = rx * 0.29;
    const top = y - height / 2 + ry;
    const side = px(height - 2 * ry);
    const d = `M${px(x - rx)} ${px(top)}v${side}a${px(rx)} ${px(ry)} 0 0 0 ${px(2 * rx)} 0v-${side}`;
    parts.draw("cylinder", "path", { class: look, d, ...(none ? {} : press("redis", "redis", `Redis: ${state}${waits(world.waiting)}${keeps && `, ${keeps}`}`)) });
    parts.draw("lid", "ellipse", { class: look, cx: x, cy: top, rx, ry });
    const lines = y + (none ? 30 : world.waiting || keeps ? 1 : 10);
    parts.write("cylinder name", none ? "kind middle none" : "redis", x, lines, none ? (rx < 34 ? "" : "no broker") : "Redis");
    const channel = world.servers.find((server) => server.channel)?.channel ?? "";
    if (!none) parts.write("channel", state === "up" ? "channel" : "ill middle", x, lines + 18, state === "up" ? shorten(channel, 9) : state);
    if (world.waiting) parts.write("waiting", "kind middle", x, lines + 33, waits(world.waiting).slice(2));
    else if (keeps) parts.write("keeps", "keeps", x, lines + 33, keeps.length * LETTER < 2 * rx ? keeps : `${world.keeps} kept`);
  }

  /** @param {PlayerNow} player */
  function drawPlayer({ name, state, presence, reach, home, from, missed }) {
    const { radius: r, density, pitch, bar, beside, wordy, letters } = plan;
    const { x, y } = rows.get(name) ?? { x: 0, y: 0 };
    const key = `player ${name}`;
    const roomy = density === "roomy";
    const dense = density === "dense";
    const flat = density === "flat";
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
    if (pitch < WITH_NAME) return;
    const isAway = state === "away" && reach <= 0;
    const crowded = isAway && !roomy && bar.x - beside < LETTER * 20;
    const told = missed && (roomy || (wordy && !crowded) ? `missed ${missed}` : `−${missed}`);
    const line = flat ? y + 4.5 : y - (dense ? 2 : 5);
    if (told) parts.write(`${key} missed`, "missed", bar.x - 5, roomy ? y + 22 : line, told);
    const most = Math.floor((bar.x - beside) / LETTER) - (told && !roomy ? told.length + 2 : 1);
    const label = inside ? named(name) : named(name, clamp(most, 3, letters));
    if (inside) parts.write(`${key} name`, `name ${hue}`, x, y + r * 0.62, label);
    else parts.write(`${key} name`, `name beside ${hue}`, beside, line, label);
    // On a line that is full, where its wire would go on.
    const free = roomy ? beside : flat ? bar.x + bar.width + 2 : beside + LETTER * (label.length + 1);
    if (isAway) parts.write(`${key} away`, "away", free, roomy ? y + 6 : line, "away");
  }

  /** One slot for each event that the player should hear. @param {PlayerNow} player */
  function drawStrip({ name, strip }) {
    const { events, before, differs } = shared;
    const { x, size, pitch, below } = plan.slots;
    const y = (rows.get(name)?.y ?? 0) + below;
    const readable = before > 0 && size > 9;
    const left = x + (readable ? 6 + LETTER * `+${before}`.length : 0);
    if (readable && strip[0]) strips.write(`before ${name}`, "before", x, y + size - 3, `+${before}`);
    strip.forEach((slot, at) => {
      if (!slot) return;
      const box = { x: left + at * pitch, y, width: size, height: size };
      drawSlot(events[at], name, slot, box);
      const under = below < 0 ? 0.5 : 2.5; // on a line, the next one is near
      if (differs(events[at], name)) strips.draw(`differs ${name} ${at}`, "rect", { class: "differs", ...box, y: y + size + under, height: below < 0 ? 2 : 2.5 });
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
    const look = { class: hue, transform: "translate(0)", "data-token": hop.event, "data-open": `event ${hop.event}` };
    const node = svg("g", look, svg("path", { class: "token", d, transform: `scale(${few ? 0.8 : 0.5})` }));
    if (few) {
      const tip = `${quote(body)}, ${named(hop.source)} → ${named(hop.target)} ${latency(hop.ms)}${hop.source === "redis" ? " through Redis" : ""}`;
      fill(node, press("event", hop.event, tip), [svg("title", {}, tip)]).prepend(svg("circle", { class: "halo", r: 13 }));
    }
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
      const word = shorten(body);
      const half = (word.length * LETTER) / 2;
      words.write(`${event} ${source} ${target} ${s0}`, `word ${hue}`, clamp(x, half, plan.width - half), free, word);
    }
  }

  function drawLosses() {
    const stubs = world.losses.flatMap(({ item }) => way(item) ?? []).filter(isStub);
    // Where both sides of a gap have something to tell there is no room for it in the gap.
    const both = stubs.some(pointsDown) && !stubs.every(pointsDown);
    /** @type {Map<string, Lost[]>} */
    const groups = new Map();
    for (const lost of world.losses) listOf(groups, `${lost.item.source} ${lost.item.target} ${lost.item.why}`).push(lost);
    /** @type {Map<string, {ended: Lost[], at: Point, look: string}>} */
    const told = new Map();
    for (const [key, group] of groups) {
      const path = way(group[0].item);
      if (!path) continue;
      const { at, look } = drawLossGroup(key, group, path, both);
      // What was lost in one place for one cause is told once.
      const { source, why } = group[0].item;
      const place = `${source} ${why} ${Math.round(at.y)} ${look || Math.round(at.x)}`;
      const ended = [...(told.get(place)?.ended ?? []), ...group.filter(({ fraction }) => fraction >= 1)];
      if (ended.length) told.set(place, { ended, at, look });
    }
    let crossed = false;
    for (const [place, { ended, at: { x, y }, look }] of told) {
      const targets = [...new Set(ended.map(({ item }) => item.target))].sort();
      const because = ended[0].item.why.replace("{target}", () => everyone(targets));
      const aside = look === "aside";
      const [from, to] = gap();
      const between = !look && x > from && x < to;
      const free = aside ? plan.width - x : between ? to - from : 2 * Math.min(x, plan.width - x);
      const most = Math.max(10, Math.floor(free / LETTER));
      const bodies = [...new Set(ended.map(({ item }) => `“${shorten(saying(item.event).body, Math.min(14, most - 2))}”`))];
      const many = bodies.length > 2 || (bodies.length > 1 && listed(bodies).length > most);
      const lines = [many ? `${bodies.length} messages` : listed(bodies), ...wrapped(because, most + 1)];
      const half = (LETTER * Math.max(...lines.map((line) => line.length))) / 2;
      const left = aside ? x : between ? (from + to) / 2 : clamp(x, half, plan.width - half);
      const { broker } = plan;
      const end = left + (aside ? 2 : 1) * half;
      crossed ||= broker.none && end > to && Math.abs(y + 8 - broker.y) < broker.height / 2 + 15 * lines.length;
      lines.forEach((line, at) =>
        words.write(`${at} lost ${place}`, `loss ${look}`, left, y + 15 * (at - (between ? lines.length - 2 : 0)), shorten(line, most + 1)));
    }
    picture.classList.toggle("crossed", crossed);
  }

  /** Where the servers end, and where the broker begins. */
  function gap() {
    const { x = 0, width = 60 } = plan.servers[0] ?? {};
    return [x + width, plan.broker.x - plan.broker.rx];
  }

  /**
   * Draws losses of one way, and says where to tell of them.
   * @param {string} key @param {Lost[]} losses @param {Path} path @param {boolean} beside
   */
  function drawLossGroup(key, losses, path, beside) {
    // On a stub they end side by side; on a wire between balancer and server, one behind the other.
    const [start] = path.points;
    const end = path.points[path.points.length - 1];
    const { x = 0, width = 60 } = plan.servers[0] ?? {};
    const stub = isStub(path);
    const down = pointsDown(path);
    const stubs = end.y === start.y ? 1 : plan.servers.filter(({ y }) => y > start.y === down).length;
    const shown = losses.slice(-(stub ? Math.max(1, Math.floor(width / 22 / stubs)) : 4));
    const far = start.x > end.x && start.x < plan.broker.x - plan.broker.rx ? 0.34 : 0.62;
    const back = shown.length - 1;
    shown.forEach((lost, at) => {
      const aside = stub ? (at - back / 2) * 22 : 0;
      const own = { ...path, points: path.points.map(({ x, y }) => ({ x: x + aside, y })) };
      drawLoss(`${key} ${lost.item.event}`, lost, own, stub ? 1 : far - (back - at) * 0.1);
    });
    const at = pointAt(path, stub ? 1 : far);
    if (stub && (beside || path.along[1] <= STUB) && end.x < x + width) {
      return { at: { x: x + width + 6, y: at.y - (end.y > start.y ? 18 : 3) }, look: "aside" };
    }
    return stub && down ? { at: { x: at.x, y: at.y + 24 }, look: "under" } : { at: { x: at.x, y: at.y - 29 }, look: "" };
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
