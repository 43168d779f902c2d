// The presenter's console: what to say now, what comes next, and how long it has taken so far.

/** @import { Alignment } from "./film.js" */

import { shorten } from "./words.js";
import { html, set } from "./draw.js";
import { allow, button, UNTOLD } from "./controls.js";

/**
 * A watch that is read, and does not run, so that nobody need be there to move it: how long it had
 * run before it was started, and when that was, in milliseconds; it stands while `since` is 0.
 * @typedef {{ran: number, since: number}} Watch
 */

/** @param {Watch} watch @param {number} now */
export const elapsed = ({ ran, since }, now) => ran + (since && Math.max(0, now - since));

/** Starts a watch, or stops it. @type {(watch: Watch, now: number) => Watch} */
export const turned = (watch, now) => ({ ran: elapsed(watch, now), since: watch.since ? 0 : now });

/** As in “04:05”. @param {number} seconds */
export const inMinutes = (seconds) => [seconds / 60, seconds % 60].map((part) => `${Math.floor(part)}`.padStart(2, "0")).join(":");

/** What is left of the time that is planned, or is too much; nothing if none is planned. @param {number} seconds @param {number} planned */
export const leftOf = (seconds, planned) =>
  planned ? `${inMinutes(Math.abs(planned - seconds))} ${seconds > planned ? "over" : "left of"} ${inMinutes(planned)}` : "";

/** @param {Alignment["beats"][number]} beat */
const captionOf = ({ caption }) => shorten(caption || UNTOLD, 160);

/** The console, at first closed. @param {(watch: string) => void} keep to be had again after a reload */
export function presenterOf(keep) {
  const start = button("clock", "Start the timer", "Start");
  const time = html("span", { class: "time", role: "timer" });
  const left = html("span", { class: "left" });
  const clock = html("div", { class: "clock", role: "group", "aria-label": "Timer" },
    html("h4", {}, "Presenter"), start, button("reset", "Reset the timer", "Reset"), html("p", {}, time, left));
  const prompt = html("div", { class: "prompt", role: "group", "aria-label": "What to say", tabindex: 0 });
  const next = button("forward", "Next beat", "Next");
  const told = html("p");
  const cues = html("ol", { class: "cues", "aria-label": "All beats" });
  // With the focus, the tab key leads to what is in it.
  const element = html("aside", { class: "presenter", "aria-label": "Presenter", tabindex: -1, hidden: "" },
    clock, prompt, html("div", { class: "coming" }, told, next), cues);
  /** @type {Watch} */
  let watch = { ran: 0, since: 0 };
  let planned = 0;
  let tick = 0;
  let drawn = "";
  /** Of each beat. @type {{one: HTMLElement, words: HTMLElement}[]} */
  let lines = [];

  /** Shows the time; while it is seen to run, again when its next second begins. */
  function drawTime() {
    clearTimeout(tick);
    const passed = elapsed(watch, Date.now());
    const seconds = Math.floor(passed / 1000);
    time.textContent = inMinutes(seconds);
    left.textContent = leftOf(seconds, planned);
    clock.classList.toggle("over", planned > 0 && seconds > planned);
    start.textContent = watch.since ? "Pause" : "Start";
    set(start, "aria-label", `${start.textContent} the timer`);
    allow(start, "");
    if (watch.since && !element.hidden) tick = setTimeout(drawTime, 1000 - (passed % 1000));
  }

  /** @param {Watch} now */
  function wind(now) {
    watch = now;
    keep(`${watch.ran} ${watch.since}`);
    drawTime();
  }

  function addLine() {
    const words = html("span");
    const one = html("button", { type: "button", "data-beat": lines.length }, html("i", {}, `${lines.length + 1} `), words);
    cues.append(html("li", {}, one));
    lines.push({ one, words });
  }

  /** What there is of the current beat, if that is another one or new. @param {Alignment} alignment @param {number} T @param {string} notes */
  function draw(alignment, T, notes) {
    if (element.hidden) return;
    const { beats, length } = alignment;
    const current = alignment.beatAt(T);
    allow(next, T >= length ? "This is the end." : "");
    const now = [current, beats.length, beats[current].caption, notes].join();
    if (now === drawn) return;
    drawn = now;
    prompt.textContent = notes;
    prompt.scrollTop = 0;
    told.textContent = current + 1 < beats.length ? `next: ${captionOf(beats[current + 1])}` : "This is the last beat.";
    for (const [at, beat] of beats.entries()) {
      if (at === lines.length) addLine();
      lines[at].words.textContent = captionOf(beat);
      set(lines[at].one, "aria-current", at === current ? "step" : null);
    }
    const { offsetTop, offsetHeight } = lines[current].one;
    cues.scrollTop = offsetTop - (cues.clientHeight - offsetHeight) / 2;
  }

  return {
    element, draw,
    /** Opens the console, or closes it. The watch goes on. @param {boolean} open */
    show(open) {
      element.hidden = !open;
      drawn = "";
      drawTime();
    },
    /** Begins with other runs. @param {number} minutes that are planned */
    plan(minutes) {
      planned = Math.round(60 * minutes);
      drawn = "";
      lines = [];
      cues.replaceChildren();
      drawTime();
    },
    /** Goes on with the watch as it was kept. @param {string} kept */
    restore(kept) {
      const [ran = 0, since = 0] = kept.split(" ").map(Number);
      wind({ ran, since });
    },
    turn: () => wind(turned(watch, Date.now())),
    reset: () => wind({ ran: 0, since: 0 }),
    end: () => clearTimeout(tick),
  };
}
