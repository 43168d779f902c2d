// The stage: one playhead over recorded or live runs, and everything on the screen.
//
// Everything drawn is a function of time (see `film.js`): to play is to ask again a moment later.
// A widget's module can import nothing, so `page.py` puts all files of this folder into one.

/**
 * @import { Answer, Model, More, ToPython, Traits, World } from "./film.js"
 * @import { Layout } from "./layout.js"
 * @import { Shared } from "./pane.js"
 */

import { shorten, split } from "./words.js";
import { Alignment, clamp, columnsAt, countUpTo, describe, differences, Film, JUST_AFTER, worldAt } from "./film.js";
import { castOf, fitted, layout } from "./layout.js";
import { html, set } from "./draw.js";
import { paneOf } from "./pane.js";
import { button, controlsOf, nameOf, refusal, sentence, SPEEDS, transportOf, UNTOLD } from "./controls.js";
import { presenterOf } from "./presenter.js";

const HOP_MS = 900; // of screen time, at normal speed
const READ_MS = 900; // at the end of a beat, before the next one begins
const PATIENCE_MS = 7000; // without news, until an action is said to be unanswered; to settle may take 5000 without any
const LONGEST_MS = 37_000; // and whatever comes: to settle may take 30,000 in all
const PANE_MIN = 350; // pixels under which panes are stacked
const FULL_PANE_MIN = 300; // and on a full screen, where height is dear
const FULL_HEIGHT = 540; // pixels of the screen for which the picture is as large as elsewhere
const CONSOLE = 0.3; // of the width, beside the panes
const CONSOLE_MIN = 320; // pixels
const BESIDE_MIN = 640; // pixels that have to be left beside it

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
  ["p", "presenter", "P: the presenter’s console"],
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
  /** Why nothing can be done to the chosen part, if so. */
  refused = "";
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
  /** Until it shows anything. */
  isNew = true;
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
  /** How much larger the picture is on a full screen, which it has to fit; else 0. */
  zoom = 0;
  /** What is open beside the panes, or might be. @type {HTMLElement | undefined} */
  aside;
  /** Whether it is, and for what that was found out. */
  place = { asked: "", beside: false };
  actions = 0;
  patience = 0;
  since = 0; // when the last action was asked for
  key = "";
  beat = 0;
  /** What there is instead of a picture. */
  unusable = "";

  caption = html("p", { class: "caption" });
  progress = html("p", { class: "which-beat" });
  places = html("div", { class: "panes" });
  notes = html("aside", { class: "notes", "aria-label": "Notes", hidden: "" });
  told = html("div");
  inspector = html("aside", { class: "inspector", "aria-label": "Inspector", hidden: "" }, this.told,
    html("nav", {}, button("before", "The one before", "‹"), button("after", "The next one", "›"), button("close", "Close", "✕")));
  keys = html("aside", { class: "keys", "aria-label": "Keys", hidden: "" },
    ...KEYS.filter(([, , told]) => told).map(([, , told]) => html("p", {}, told)));
  controls = controlsOf();
  transport = transportOf();
  presenter = presenterOf((watch) => this._keep(" timer", watch));
  /** What is said once, politely; what went wrong is seen there, too, next to what was pressed. */
  voice = html("p", { class: "voice", role: "status", "aria-live": "polite" });
  root = html("div", { class: "wsdemo-stage", tabindex: 0, role: "group", "aria-label": "Stage" },
    html("header", {}, this.caption, this.progress),
    this.places, this.notes, this.inspector, this.controls.element, this.voice, this.transport.element, this.presenter.element, this.keys);
  still = matchMedia("(prefers-reduced-motion: reduce)");
  resized = new ResizeObserver(() => this._measure());
  seen = new IntersectionObserver((entries) => this._see(entries[entries.length - 1].isIntersecting));

  /** @param {HTMLElement} element @param {Partial<Traits>} traits @param {(message: ToPython) => void} send */
  constructor(element, traits, send) {
    this.send = send;
    element.append(this.root);
    this.replace(traits);
    this.presenter.restore(this._kept(" timer") ?? "");
    this._listen();
  }

  /**
   * Shows other runs: from where this page was, or else from what is to be looked at, or from the
   * beginning; live, what is now.
   * @param {Partial<Traits>} traits
   */
  replace({ runs = [], live = false, key = "", problem = "", acts = {}, look = "", minutes = 0 }) {
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
    this.presenter.plan(minutes);
    this._plan();
    // Another run has begun if it is not for the first time, and what was seen of the last is past.
    const kept = this.isNew ? this._kept("") : "";
    this.isNew = false;
    const place = kept ? Number(kept) : kept === null ? this._placeOf(look) : null;
    if (place !== null) this.following = false;
    this.seek(place ?? (live ? Infinity : 0));
    this._measure();
  }

  /** Opens the inspector on an event, and says where the beat ends in which it was said. @param {string} event @returns {number | null} */
  _placeOf(event) {
    const run = this.films.findIndex(({ messages }) => messages.has(event));
    const said = this.films[run]?.messages.get(event);
    if (!said) return null;
    this.looking = { run, open: `event ${event}` };
    return this.alignment.beats[this.alignment.beatOf(run, said.s)].end;
  }

  /** What needs room: in all panes for the same, so that they line up. */
  get _needs() {
    const rooms = new Map(this.films.flatMap((film) => [...film.rooms]).sort(([, a], [, b]) => a - b));
    return this.films.map(({ servers, broker }) => ({ servers, broker, rooms }));
  }

  /** Finds room for everything in all runs. */
  _plan() {
    const { zoom, width, height, _needs: needs } = this;
    this.cast = castOf(this.films, this.cast.keys());
    this.layouts = zoom ? fitted(needs, width, height, zoom).layouts : needs.map((pane) => layout({ ...pane, width }));
    this.worlds = [];
  }

  /** Takes what has been added to a run. @param {More} more */
  add({ run, from, items, end, rest }) {
    const film = this.films[run];
    if (!film) return;
    if (this.busy) this._bePatient();
    if (from > film.had) {
      if (this.asked[run] !== film.had) this.askRest();
      this.asked[run] = film.had;
      return;
    }
    film.append(items.slice(film.had - from), end);
    this.alignment.extend();
    this._plan();
    if (this.aside) this._measure();
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
    this.draw();
  }

  /** Takes what became of an action. @param {Answer} answer */
  answer({ type, id, text }) {
    if (id !== this.actions) return;
    this.busy = null;
    clearTimeout(this.patience);
    if (type === "failed" || text.startsWith("Done, but")) this._complain(text);
    else if (text) this._say(text);
    else this._announce(this.alignment.beats.length - 1);
    this._drawControls();
  }

  /** As long as there is news, the kernel is there; if that is not of the action, it has to end. */
  _bePatient() {
    clearTimeout(this.patience);
    const left = this.since + LONGEST_MS - performance.now();
    this.patience = setTimeout(() => this._losePatience(), Math.min(PATIENCE_MS, left));
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
    try {
      this.send({ type: "act", id, part, action, ...(choice && { choice }), ...(action === "send" && { body: body.value }) });
    } catch {
      return this._losePatience(); // the kernel was restarted
    }
    if (action === "send") body.value = "";
    this._complain("");
    this.since = performance.now();
    this._bePatient();
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
    this._complain("");
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
      if (end - this.T < JUST_AFTER) this.T = end; // or the next beat would have begun
      if (this.T === end) this.resting = now + READ_MS;
    }
    if (this.T < Math.min(length, this.until)) return;
    this.moving = false;
    this.following ||= this.live && this.until === Infinity;
  }

  // What is seen and said.

  get focused() {
    return /** @type {Document | ShadowRoot} */ (this.root.getRootNode()).activeElement;
  }

  draw() {
    const { alignment, films, live, T, unusable, root } = this;
    const at = alignment.beatAt(T);
    const { caption = "", notes = "" } = alignment.beats[at] ?? {};
    const nothing = live ? "Waiting for the first thing to happen." : "Nothing happened in this run.";
    const happened = films.some(({ had }) => had > 0);
    this.caption.textContent = shorten(unusable || caption || (happened ? UNTOLD : nothing), unusable ? 400 : 160);
    this.progress.textContent = films[0]?.beats.length ? `beat ${at + 1} of ${alignment.beats.length}` : "";
    const prompt = (this.notes.textContent = shorten(notes, 2000) || "There are no notes for this beat.");
    root.classList.toggle("unusable", unusable !== "");
    if (unusable) return;
    const { focused } = this;
    const had = root.contains(focused);
    this._drawPanes();
    this._drawInspector();
    this._drawControls();
    this.transport.draw(alignment, this);
    this.presenter.draw(alignment, T, prompt);
    if (this._aside !== this.aside) this._measure();
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
    if (!this.live) return;
    const { acts, refused } = this;
    this.refused = this.controls.draw(acts, this.busy?.words ?? "");
    if (this.refused && this.refused !== refused) this._say(this.refused);
  }

  /** Why nothing at all can be done any more, if so. */
  get ended() {
    return this.live ? refusal(Object.values(this.acts).flat()) : "";
  }

  _drawInspector() {
    const { looking, inspector, told } = this;
    inspector.hidden = !looking;
    if (!looking) return;
    const { title, facts, texts } = describe(this.films[looking.run], looking.open, this.worlds[looking.run]);
    const whole = this.films.length > 1 ? `${title} · ${shorten(this.films[looking.run].title, 60)}` : title;
    if (told.dataset.title !== whole) this._say((told.dataset.title = whole));
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
    const { keys, notes, presenter, root } = this;
    if (this.looking) {
      this.looking = null;
      root.focus();
      this.draw();
    } else if (!keys.hidden || !notes.hidden || !presenter.element.hidden) {
      keys.hidden = notes.hidden = true;
      this._present(false);
    } else if (this.full) this._toggleFull();
  }

  /** The notes by themselves, which the console has, too. */
  _showNotes() {
    const { notes } = this;
    notes.hidden = !notes.hidden;
    this._present(false);
    this._say(notes.hidden ? "The notes are closed." : notes.textContent ?? "");
  }

  _showKeys() {
    this.keys.hidden = !this.keys.hidden;
    this.draw();
    this.keys.scrollIntoView({ block: "nearest" });
    this._say(`The keys are ${this.keys.hidden ? "closed" : "shown"}.`);
  }

  /** Opens the presenter's console, or closes it. @param {boolean} open */
  _present(open) {
    const { presenter: { element, show }, transport, notes, root, focused } = this;
    set(transport.presenter, "aria-expanded", `${open}`);
    if (open) notes.hidden = true;
    show(open);
    this._measure();
    this.draw();
    if (open) element.focus();
    else if (element.contains(focused)) root.focus();
  }

  /** @param {string} words @param {boolean} [seen] */
  _say(words, seen = false) {
    this.voice.textContent = shorten(words, 300);
    this.voice.classList.toggle("problem", seen);
  }

  /** Shows what went wrong, unless that stands at the controls anyway. @param {string} problem */
  _complain(problem) {
    this._say(problem, problem !== "" && problem !== this.refused);
  }

  /** One polite sentence for a step. @param {number} at of the beat */
  _announce(at) {
    this._say(sentence(this.alignment, at));
  }

  /** What has the side of the stage for itself, where that has room: the first of what is open. */
  get _aside() {
    const { presenter: { element }, inspector, keys, notes } = this;
    return (this.full ? [element, inspector, keys, notes] : [element]).find((one) => !one.hidden);
  }

  _measure() {
    const { clientWidth: available, clientHeight: tall } = this.root;
    this.zoom = this.full && available > tall ? Math.max(1, tall / FULL_HEIGHT) : 0;
    const shown = this.panes.filter(({ element }) => !element.hidden);
    const aside = Math.max(CONSOLE_MIN, available * CONSOLE);
    const left = available - aside;
    this.aside?.classList.remove("aside");
    this.aside = this._aside;
    this.aside?.classList.add("aside");
    this.root.style.setProperty("--console", `${aside}px`);
    this.root.classList.toggle("narrow", available < 640);
    /** @param {boolean} beside */
    const arrange = (beside) => {
      const columns = beside ? shown.length : clamp(Math.floor(available / (this.zoom ? FULL_PANE_MIN : PANE_MIN)), 1, Math.max(1, shown.length));
      this.root.style.setProperty("--columns", `${columns}`);
      this.root.classList.toggle("beside", beside);
      this.root.classList.toggle("wide", (beside && !this.full ? left : available) >= 1200);
      const { clientWidth: width = 0, clientHeight: height = 0 } = shown[0]?.picture ?? {};
      return [width, height];
    };
    const couldBe = this.aside && left >= Math.max(BESIDE_MIN, this.zoom ? 0 : PANE_MIN * shown.length);
    const needs = this._needs;
    const asked = JSON.stringify([available, tall, this.aside?.className, shown.length, needs.map(({ servers, rooms }) => [servers.length, ...rooms.values()])]);
    if (!couldBe || !this.zoom) this.place = { asked: "", beside: Boolean(couldBe) };
    else if (asked !== this.place.asked) {
      // What is open stands where the picture suffers least; notes are often but a line.
      const [side, below] = [true, false].map((beside) => {
        const [width, height] = arrange(beside);
        return fitted(needs, width, height, this.zoom).worth;
      });
      this.place = { asked, beside: side > below || (side === below && this.aside !== this.notes) };
    }
    const [width, height] = arrange(this.place.beside);
    const same = Math.abs(width - this.width) < 1 && (!this.full || Math.abs(height - this.height) < 1);
    if (!width || same) return;
    [this.width, this.height] = [width, height];
    this._plan();
    this.draw();
  }

  /** So that a page that is loaded again shows the same moment. */
  _remember() {
    this._keep("", this.following ? "" : `${this.T}`);
  }

  /** Some pages may keep nothing. @param {string} what @param {string} value */
  _keep(what, value) {
    try {
      if (this.key) sessionStorage.setItem(this.key + what, value);
    } catch {
      this.key = "";
    }
  }

  /** What this page has kept, if it was loaded before. @param {string} what */
  _kept(what) {
    try {
      return this.key ? sessionStorage.getItem(this.key + what) : null;
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
    /** @type {Record<string, () => void>} */
    const deeds = {
      play: () => this._playOrPause(),
      forward: () => this.forward(),
      back: () => this.back(),
      start: () => this.jump(0),
      end: () => this._end(),
      live: () => this._goLive(),
      slower: () => this._turnSpeed(-1),
      faster: () => this._turnSpeed(1),
      panes: () => this._choosePanes(),
      newest: () => this._lookAtNewest(),
      before: () => this._turn(-1),
      after: () => this._turn(1),
      close: () => this._close(),
      notes: () => this._showNotes(),
      presenter: () => this._present(Boolean(this.presenter.element.hidden)),
      clock: () => this.presenter.turn(),
      reset: () => this.presenter.reset(),
      keys: () => this._showKeys(),
      full: () => this._toggleFull(),
    };
    deeds[action]?.();
  }

  _playOrPause() {
    if (!this.moving) return this.play();
    this.pause();
    this._announce(this.alignment.beatAt(this.T));
  }

  _goLive() {
    this.follow();
    this._announce(this.alignment.beats.length - 1);
  }

  _end() {
    this.pause();
    this.following = this.live;
    this.seek(Infinity);
    this._announce(this.alignment.beats.length - 1);
  }

  /** @param {number} by */
  _turnSpeed(by) {
    const { speed } = this.transport;
    speed.selectedIndex = clamp(speed.selectedIndex + by, 0, SPEEDS.length - 1);
    this._say(`Speed ${speed.selectedOptions[0].label}`);
  }

  _choosePanes() {
    this.only = this.films.length > 1 && this.only + 1 < this.films.length ? this.only + 1 : -1;
    this.draw();
    this._measure();
    this._say(this.films[this.only]?.title ?? "All runs");
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
    // That one runs the cell of the stage.
    if (event.shiftKey && key === "Enter") return;
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
    this.presenter.end();
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
  const names = ["runs", "live", "key", "problem", "acts", "look", "minutes"];
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
