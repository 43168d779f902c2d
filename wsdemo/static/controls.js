// The controls: the buttons under the panes, the scrubber, and what can be done to a live run.

/**
 * @import { Alignment, Traits } from "./film.js"
 * @import { Attributes } from "./draw.js"
 */

import { named, shorten, split } from "./words.js";
import { html, set } from "./draw.js";

/** What a part is called, as in “server A”. @param {string} open */
export function nameOf(open) {
  const [kind, name] = split(open);
  return kind === "redis" ? "Redis" : kind === "server" ? `server ${named(name)}` : named(name);
}

/** @param {string} action @param {string} label @param {string} [face] @param {Attributes} [more] */
export const button = (action, label, face = label, more = {}) =>
  html("button", { type: "button", "data-action": action, "aria-label": label, title: label, ...more }, face);

/** Lets a control act, or else say why not, still in reach of the keyboard. @param {Element} control @param {string} why */
export function allow(control, why) {
  set(control, "aria-disabled", why ? "true" : null);
  set(control, "aria-description", why || null);
  set(control, "title", why || control.getAttribute("aria-label"));
}

/** The one reason for which all of this is refused, if there is just one. @param {Traits["acts"][string]} offers */
export function refusal(offers) {
  const [why = "", ...others] = new Set(offers.map((offer) => offer.why));
  return others.length ? "" : why;
}

export const UNTOLD = "The run so far"; // the caption of a beat that has none

/** A beat in one sentence. @param {Alignment} alignment @param {number} at */
export const sentence = ({ beats }, at) => `Beat ${at + 1} of ${beats.length}: ${shorten(beats[at]?.caption || UNTOLD, 200)}`;

export const SPEEDS = [0.125, 0.25, 0.5, 1, 2, 4];
const NAMED = 8; // beats up to which their captions have room under the scrubber

/** The buttons under the panes, and the scrubber, on which every beat is equally wide. */
export function transportOf() {
  // Their pictures are in the style sheet.
  const [start, back, play, forward, end] = [["start", "To the beginning"], ["back", "Step back"], ["play", "Play"], ["forward", "Step forward"], ["end", "To the end"]]
    .map(([action, label]) => button(action, label, ""));
  const live = button("live", "Live");
  const scrubber = html("input", { type: "range", min: 0, step: "0.01", class: "scrubber", "aria-label": "Playhead" });
  const speed = html("select", { "aria-label": "Speed" },
    ...SPEEDS.map((one) => html("option", { value: `${one}` }, `${one < 1 ? `1/${1 / one}` : one}×`)));
  speed.value = "1";
  const list = html("ol", { class: "beats", "aria-label": "Beats" });
  const jump = html("select", { class: "jump", "aria-label": "Jump to a beat" });
  const presenter = button("presenter", "Presenter’s console", "", { "aria-expanded": "false" });
  const element = html("div", { class: "transport", role: "group", "aria-label": "Playback" },
    html("div", { class: "buttons" }, start, back, play, forward, end),
    html("div", { class: "line" }, html("div", { class: "track" }), scrubber, list),
    html("div", { class: "side" }, jump, live, speed, presenter, button("full", "Full screen", ""), button("keys", "Keys", "?")));

  let shown = 0;

  /** @param {Alignment} alignment @param {{T: number, moving: boolean, live: boolean, following: boolean, ended: string}} playhead */
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
    const { ended } = playhead;
    live.textContent = ended ? "Ended" : "Live";
    set(live, "aria-label", live.textContent);
    set(live, "aria-pressed", `${playhead.following && !ended}`);
    allow(live, ended);
    for (const control of [start, back]) allow(control, T <= 0 ? "This is the beginning." : "");
    for (const control of [forward, end]) allow(control, T >= length ? "This is the end." : "");
    allow(play, "");
  }

  /** Lists beats that are not listed yet, or all anew. @param {Alignment["beats"]} beats */
  function name(beats) {
    if (beats.length < shown) shown = 0;
    if (!shown) for (const menu of [list, jump]) menu.replaceChildren();
    for (const { caption } of beats.slice(shown)) {
      const text = shorten(caption || UNTOLD, 120);
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

  return { element, scrubber, speed, jump, presenter, draw, time, forget: () => void (shown = 0) };
}

/** What a person can do to a live run, part by part. */
export function controlsOf() {
  const part = html("select", { "aria-label": "Act on" });
  const body = html("input", { type: "text", "aria-label": "What it says", placeholder: "say something", maxlength: 200 });
  const buttons = html("span");
  const refused = html("p", { class: "refused", hidden: "" });
  const element = html("form", { class: "controls", "aria-label": "Act on the live run" }, part, body, buttons, refused);
  let offered = "";

  /** Says why nothing can be done to the part, if so. @param {Traits["acts"]} acts @param {string} busy what is waited for */
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
    const why = (refused.textContent = refusal(offers));
    refused.hidden = !why;
    return why;
  }

  return { element, part, body, buttons, draw };
}
