// Elements of a page and of a picture, made and changed as little as can be.

import { px } from "./layout.js";

/** @typedef {Record<string, string | number | null>} Attributes */

// The name of a language, not an address: nothing is ever fetched from it.
const SVG = ["http:", "", "www.w3.org", "2000", "svg"].join("/");

/**
 * @template {keyof HTMLElementTagNameMap} Tag @param {Tag} tag @param {Attributes} [attributes]
 * @param {(Node | string)[]} children
 */
export const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** @param {string} tag @param {Attributes} [attributes] @param {(Node | string)[]} children */
export const svg = (tag, attributes = {}, ...children) =>
  fill(/** @type {SVGGraphicsElement} */ (document.createElementNS(SVG, tag)), attributes, children);

/** @template {Element} T @param {T} element @param {Attributes} attributes @param {(Node | string)[]} children */
export function fill(element, attributes, children) {
  for (const name in attributes) set(element, name, attributes[name]);
  element.append(...children);
  return element;
}

/** Sets what has changed. @param {Element} element @param {string} name @param {string | number | null} value */
export function set(element, name, value) {
  const text = typeof value === "number" ? px(value) : value;
  if (text === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/**
 * A group of the picture whose nodes are kept by key from one moment to the next. Only what has
 * changed is set; what is not drawn again goes.
 */
export class Layer {
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
