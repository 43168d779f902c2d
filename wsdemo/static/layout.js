// Where in a picture everything is, and how players look: pure functions, without a page. `layout`
// finds room for the parts, `rowsAt` for the players, and `pathBetween` says which way a message goes.

/** @import { Film, PlayerNow } from "./film.js" */

import { clamp, ease, mix } from "./film.js";

/**
 * @typedef {{x: number, y: number}} Point
 * @typedef {{points: Point[], along: number[]}} Path `along`: the length of the way to each point
 * @typedef {{x: number, y: number, width: number, height: number}} Box
 * @typedef {ReturnType<typeof layout>} Layout
 * @typedef {{servers: string[], rooms: Map<string, number>, broker: string}} Pane `rooms`: the most
 *   players that each server holds
 */

const NARROWEST = 320; // pixels of a picture
const WIDEST = 600;
const HEADINGS = 28; // pixels above the first row
// Pixels: the height of a server, and between the players of two.
const SPACES = [{ server: 68, gap: 22 }, { server: 50, gap: 4 }, { server: 34, gap: 4 }];
const ROOMY = { density: "roomy", most: 78, least: 68, rows: 6, strip: 24 }; // a name in the shape, the strip below it
const COMPACT = { density: "compact", most: 40, least: 37, rows: 24, strip: 6 }; // a name and the strip beside the shape
const FLAT = { density: "flat", most: 26, least: 10, rows: 40, strip: 0 }; // all on one line
const DENSE = { density: "dense", most: 30, least: 4, rows: Infinity, strip: 0 }; // no strip
const STYLES = [ROOMY, COMPACT, FLAT, DENSE];
const HIGHEST = 800; // pixels of a picture of many players, as long as they suffice
const APART = 72; // pixels between the players of two servers, where there is room to spare
const WIDER = 240; // pixels by which a picture may be wider where its height is bound
export const WITH_NAME = 13; // pixels that a player needs for its name
export const LETTER = 8; // pixels, about the width of one

/**
 * Where the parts of a pane stand, in pixels of the picture. That is as wide as the pane from 320 to
 * 600 pixels and scaled beyond, so that letters are never smaller than they are meant to be.
 *
 * Where it may not be as high as it would be, the players stand closer first, then the servers, and
 * the strips, which are the evidence, go last.
 * @param {Pane & {width: number, room?: number}} pane `room`: how high it may be, if that can be
 */
export function layout({ servers, rooms, broker, width: available, room = Infinity }) {
  const base = clamp(available || WIDEST, NARROWEST, WIDEST);
  const extra = room < Infinity ? clamp(available - WIDEST, 0, WIDER) : 0;
  /** @type {(narrow: number, wide: number) => number} */
  const fit = (narrow, wide) => mix(narrow, wide, (base - NARROWEST) / (WIDEST - NARROWEST));
  const held = servers.map((name) => Math.max(1, rooms.get(name) ?? 0));
  const rows = held.reduce((sum, each) => sum + each, 0);
  /** @type {(pitch: number, space: typeof SPACES[0]) => number} */
  const tall = (pitch, { server, gap }) =>
    held.reduce((sum, each) => sum + Math.max(each * pitch, server + 8) + gap, HEADINGS - gap);
  // Servers do not shrink with their players.
  const high = Math.max(room, tall(0, SPACES[2]));
  const ways = STYLES.filter(({ rows: most }) => rows <= most).flatMap((style) => SPACES.map((space) => ({ style, space })));
  const { style, space } = ways.find(({ style: { least }, space }) => tall(least, space) <= high) ?? ways[ways.length - 1];
  const { density, strip } = style;
  const [roomy, compact, flat] = STYLES.map((one) => one === style);
  const most = Math.max(tall(0, space), Math.min(high, strip ? high : HIGHEST));
  let pitch = style.most;
  while (pitch > style.least && tall(pitch, space) > most) pitch -= 1;
  const spare = room < Infinity ? (room - tall(pitch, space)) / Math.max(1, servers.length - 1) : 0;
  const gap = clamp(space.gap + spare, space.gap, Math.max(space.gap, APART));
  let y = HEADINGS;
  const boxes = servers.map((name, at) => {
    const zone = Math.max(held[at] * pitch, space.server + 8);
    const top = y + (zone - strip - space.server) / 2;
    y += zone + gap;
    return { name, x: fit(176, 312) + extra, y: top, width: fit(60, 92), height: space.server };
  });
  const height = Math.max(y - gap, HEADINGS + 140);
  const barX = (flat ? fit(132, 212) : fit(124, 206)) + extra;
  const radius = roomy ? fit(21, 24) : compact ? 11 : clamp(pitch * 0.42, 2, flat ? 9 : 10);
  const playerX = flat ? fit(12, 22) : compact ? fit(18, 26) : fit(31, 60);
  const beside = playerX + radius + (flat ? 4 : 6);
  const wordy = barX - beside > (flat ? 260 : 110); // there is room for the word “missed”
  const letters = flat ? Math.floor(fit(3, 5)) : 14; // of a name
  const size = flat ? Math.min(fit(11, 14), pitch - 4) : fit(13, roomy ? 16 : 14);
  const below = roomy ? Math.min(fit(27, 30), pitch - radius - size - 1) : flat ? -size / 2 : 4; // above the next player
  const left = roomy ? fit(6, 14) : flat ? beside + (pitch < WITH_NAME ? 2 : LETTER * letters + 2) : beside;
  const slot = flat ? size + 2 : fit(15, roomy ? 20 : 17);
  const end = barX - (flat ? LETTER * (wordy ? 9 : 3) : 2); // what was missed is on the line, too
  return {
    width: base + extra, height, rows, pitch, radius, playerX, beside, wordy, letters, density,
    bar: { x: barX, y: HEADINGS - 6, width: fit(10, 16), height: height - HEADINGS - strip / 2 },
    servers: boxes,
    broker: {
      x: fit(284, 540) + extra, y: clamp(height - 100, HEADINGS + 46, (HEADINGS + height - strip) / 2), rx: fit(30, 44), height: 92,
      none: broker === "none",
    },
    slots: { x: left, size, pitch: slot, below, fit: style === DENSE ? 0 : Math.floor((end - left) / slot) },
  };
}

const SMALLER = [1, 0.9, 0.8, 0.7, 0.6]; // how much smaller than meant letters may be, for the strips
const GOOD = 0.85; // larger than that they need not be

/**
 * Room for the panes of a full screen, each of so many pixels, and how much that is worth: strips
 * first, then letters. These are `zoom` times as large as elsewhere, but get smaller before the
 * strips go.
 * @param {Pane[]} panes @param {number} width @param {number} height @param {number} zoom
 */
export function fitted(panes, width, height, zoom) {
  const plans = SMALLER.map((part) => {
    const scale = Math.min(zoom * part, width / NARROWEST);
    return panes.map((pane) => layout({ ...pane, width: width / scale, room: height / scale }));
  });
  /** @param {Layout[]} layouts */
  const rate = (layouts) => {
    const letters = Math.min(...layouts.map((plan) => Math.min(width / plan.width, height / plan.height))) / zoom;
    // Those of a crowd would be too small to be worth it.
    const strips = layouts.every(({ slots, rows }) => slots.fit > 0 && (letters > GOOD || rows <= COMPACT.rows));
    return { layouts, strips, worth: Number(strips) + Math.min(letters, GOOD) };
  };
  const rated = plans.map(rate);
  return rated.find(({ strips }) => strips) ?? rated[0];
}

/**
 * Where each player is. A server's players stand around the middle of its box; on its way from one
 * server to another a player takes its room along, so that all the others give way smoothly.
 * @param {PlayerNow[]} players @param {Layout} layout @returns {Map<string, Point>}
 */
export function rowsAt(players, { servers, pitch, playerX, radius, height }) {
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
  return new Map(players.map(({ name, from, home, progress }, at) => {
    // It passes the others at their side.
    const aside = from === home ? 0 : Math.sqrt(Math.sin(Math.PI * ease(progress))) * 2.7 * radius;
    return [name, { x: playerX + aside, y: ys[at] }];
  }));
}

/** @type {(a: Point, b: Point) => number} */
export const distance = (a, b) => Math.hypot(b.x - a.x, b.y - a.y);

/** @param {Point[]} points @returns {Path} */
export function pathOf(points) {
  let length = 0;
  return { points, along: points.map((point, at) => (length += at ? distance(points[at - 1], point) : 0)) };
}

/** A curve that leaves and arrives level. @param {Point} a @param {Point} b */
const swing = (a, b) =>
  Array.from({ length: 17 }, (_, at) => {
    const t = at / 16;
    return { x: mix(a.x, b.x, t * (1.5 - 1.5 * t + t * t)), y: mix(a.y, b.y, t * t * (3 - 2 * t)) };
  });

/** From a player through the balancer to a server. @type {(layout: Layout, player: Point, server: Box) => Point[]} */
export function wire({ bar, radius }, player, { x, y, height }) {
  const middle = y + height / 2;
  const port = { x, y: middle + clamp((player.y - middle) * 0.3, 12 - height / 2, height / 2 - 12) };
  return [{ x: player.x + radius, y: player.y }, ...swing({ x: bar.x + bar.width, y: player.y }, port)];
}

/** @type {(layout: Layout, server: Box) => Point[]} */
export function brokerLink({ broker }, { x, y, width, height }) {
  const from = { x: x + width, y: y + height / 2 };
  const spread = clamp((from.y - broker.y) * 0.12, -24, 24);
  return swing(from, { x: broker.x - broker.rx, y: broker.y + spread });
}

export const STUB = 15; // pixels of a stub at whose end there is no room for words
const WORDS = 48; // pixels that they take

/** The stub of a way that there is not, towards another server. @type {(layout: Layout, from: Box, to: Box) => Point[]} */
function noWay({ servers }, from, to) {
  const { x, y, width, height } = from;
  const below = to.y > y;
  const there = servers.filter((one) => one !== from && one.y > y === below);
  const next = there[below ? 0 : there.length - 1];
  const gap = Math.abs(next.y - y) - height;
  const length = clamp(gap - WORDS, Math.min(STUB, gap / 2), 40);
  const [start, end] = below ? [y + height, y + height + length] : [y, y - length];
  const port = x + (width * (there.findIndex((one) => one === to) + 1)) / (there.length + 1);
  return [{ x: port, y: start }, { x: port, y: end }];
}

/** Where what was lost in a part is seen: at its foot. @param {{x: number, y: number, width?: number, height: number}} part */
function lostIn({ x, y, width = 0, height }) {
  const at = { x: x + width / 2, y: y + (width ? height : height / 2) };
  return pathOf([at, at]);
}

/**
 * The way from one part to another, as things stand.
 * @param {Layout} layout @param {Map<string, Point>} rows @param {string} source
 * @param {string} target @returns {Path | null}
 */
export function pathBetween(layout, rows, source, target) {
  const [from, to] = [source, target].map((name) => layout.servers.find((one) => one.name === name));
  if (source === target) return lostIn(from ?? layout.broker);
  if (from && to) return pathOf(noWay(layout, from, to));
  const server = from ?? to;
  const other = from ? target : source;
  const player = rows.get(other);
  if (!server || (other !== "redis" && !player)) return null;
  const points = player ? wire(layout, player, server) : brokerLink(layout, server);
  // A wire is drawn from its player, a link from its server.
  return pathOf(Boolean(player) === Boolean(from) ? points.reverse() : points);
}

/** The point at a fraction of a path's length. @param {Path} path @param {number} fraction */
export function pointAt({ points, along }, fraction) {
  const want = clamp(fraction, 0, 1) * along[along.length - 1];
  let at = 1;
  while (at < along.length - 1 && along[at] < want) at += 1;
  const part = (want - along[at - 1]) / (along[at] - along[at - 1] || 1);
  return { x: mix(points[at - 1].x, points[at].x, part), y: mix(points[at - 1].y, points[at].y, part) };
}

/** One decimal is enough for a picture. @param {number} value */
export const px = (value) => String(Math.round(value * 10) / 10);
/** @param {Point} point */
export const xy = ({ x, y }) => `${px(x)} ${px(y)}`;

/** The first part of a path, to draw. @param {Path} path @param {number} [fraction] */
export function dataOf(path, fraction = 1) {
  const { points, along } = path;
  const length = fraction * along[along.length - 1];
  return `M${[...points.filter((_, at) => along[at] < length || !at), pointAt(path, fraction)].map(xy).join("L")}`;
}

/** Outlines around the origin, of about the same weight, for a radius of 10. */
export const SHAPES = [
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

/**
 * The same colour and shape for a player in every pane, and as before if it had them.
 * @param {Film[]} films @param {Iterable<string>} [before] players
 */
export function castOf(films, before = []) {
  const names = new Set([...before, ...films.flatMap(({ roles }) => [...roles.keys()])]);
  return new Map([...names].map((name, at) => [name, { hue: `hue-${at % HUES}`, d: SHAPES[at % SHAPES.length] }]));
}
