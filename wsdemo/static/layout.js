// Where in a picture everything is, and how players look: pure functions, without a page. `layout`
// finds room for the parts, `rowsAt` for the players, and `pathBetween` says which way a message goes.

/** @import { Film, PlayerNow } from "./film.js" */

import { clamp, ease, mix } from "./film.js";

/**
 * @typedef {{x: number, y: number}} Point
 * @typedef {{points: Point[], along: number[]}} Path `along`: the length of the way to each point
 * @typedef {{x: number, y: number, width: number, height: number}} Box
 * @typedef {ReturnType<typeof layout>} Layout
 */

const HEADINGS = 28; // pixels above the first row
const WIDE = { server: 68, gap: 22 }; // pixels, the height of a server, and between the players of two
const TIGHT = { server: 50, gap: 4 };
const ROOMY = { most: 78, least: 68, rows: 6, strip: 24 }; // a name in the shape, the strip below it
const COMPACT = { most: 40, least: 37, rows: 24, strip: 6 }; // a name and the strip beside the shape
const DENSE = { most: 30, least: 4, rows: Infinity, strip: 0 }; // no strip
const HIGHEST = 800; // pixels of a dense picture, as long as they suffice

/**
 * Where the parts of a pane stand, in pixels of the picture. That is as wide as the pane from 320 to
 * 600 pixels and scaled beyond, so that letters are never smaller than they are meant to be.
 * @param {{servers: string[], rooms: Map<string, number>, broker: string, width: number, room?: number}} pane
 *   `rooms`: the most players that each server holds; `room`: how high it may be, if that can be
 */
export function layout({ servers, rooms, broker, width: available, room = Infinity }) {
  const width = clamp(available || 600, 320, 600);
  /** @type {(narrow: number, wide: number) => number} */
  const fit = (narrow, wide) => mix(narrow, wide, (width - 320) / 280);
  const held = servers.map((name) => Math.max(1, rooms.get(name) ?? 0));
  const rows = held.reduce((sum, each) => sum + each, 0);
  /** @type {(pitch: number, space?: typeof WIDE) => number} */
  const tall = (pitch, space = spaces) =>
    held.reduce((sum, each) => sum + Math.max(each * pitch, space.server + 8) + space.gap, HEADINGS - space.gap);
  const spaces = tall(0, WIDE) > room ? TIGHT : WIDE;
  // Servers do not shrink with their players.
  const high = Math.max(room, tall(0));
  const style = [ROOMY, COMPACT].find(({ least, rows: most }) => rows <= most && tall(least) <= high) ?? DENSE;
  const { strip } = style;
  let pitch = style.most;
  while (pitch > style.least && tall(pitch) > Math.max(tall(0), Math.min(high, strip ? high : HIGHEST))) pitch -= 1;
  let y = HEADINGS;
  const boxes = servers.map((name, at) => {
    const zone = Math.max(held[at] * pitch, spaces.server + 8);
    const top = y + (zone - strip - spaces.server) / 2;
    y += zone + spaces.gap;
    return { name, x: fit(176, 312), y: top, width: fit(60, 92), height: spaces.server };
  });
  const height = Math.max(y - spaces.gap, HEADINGS + 140);
  const barX = fit(124, 206);
  const roomy = style === ROOMY;
  const radius = roomy ? fit(21, 24) : style === COMPACT ? 11 : clamp(pitch * 0.42, 2, 10);
  const playerX = style === COMPACT ? fit(18, 26) : fit(31, 60);
  const beside = playerX + radius + 6;
  const size = fit(13, roomy ? 16 : 14);
  const below = roomy ? Math.min(fit(27, 30), pitch - radius - size - 1) : 4; // above the next player
  const slots = { x: roomy ? fit(6, 14) : beside, size, pitch: fit(15, roomy ? 20 : 17), below };
  return {
    width, height, pitch, radius, playerX, beside,
    density: roomy ? "roomy" : strip ? "compact" : "dense",
    bar: { x: barX, y: HEADINGS - 6, width: fit(10, 16), height: height - HEADINGS - strip / 2 },
    servers: boxes,
    broker: {
      x: fit(284, 540), y: (HEADINGS + height - strip) / 2, rx: fit(30, 44), height: 92,
      none: broker === "none",
    },
    slots: { ...slots, fit: strip && Math.floor((barX - 2 - slots.x) / slots.pitch) },
  };
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
