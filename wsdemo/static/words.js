// Names, bodies and numbers as they can be shown: short, and unable to do any harm.

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

export const LONGEST = 32; // characters that a name may have

/**
 * A name as it can be shown. Of a long one the end stays too: what tells names apart stands there.
 * @param {string} name @param {number} [most] characters
 */
export function named(name, most = 14) {
  const all = Array.from(name);
  const part = (/** @type {string[]} */ some) => shorten(some.join(""));
  return all.length > most ? `${part(all.slice(0, most / 2))}…${part(all.slice(-((most - 1) >> 1)))}` : shorten(name, most);
}

/** A sentence in lines of so many characters, unless a word is longer. @param {string} text @param {number} most */
export const wrapped = (text, most) =>
  text.split(" ").reduce((lines, word) => {
    const line = lines[lines.length - 1];
    if (line === undefined || line.length + word.length >= most) lines.push(word);
    else lines[lines.length - 1] = `${line} ${word}`;
    return lines;
  }, /** @type {string[]} */ ([]));

/** @param {string} body */
export const quote = (body) => `“${shorten(body)}”`;

/** As in “a, b and 3 more”. @param {string[]} names */
export const listed = (names) => [...names.slice(0, 3), ...(names.length > 3 ? [`${names.length - 3} more`] : [])].join(", ").replace(/, ([^,]*)$/, " and $1");

/** @param {string[]} names */
export const everyone = (names) => listed(names.map((name) => named(name))) || "nobody";

/** @param {number | null | undefined} ms */
export const latency = (ms) => (ms == null ? "" : `${Number(ms.toPrecision(2))} ms`);

/** As in “, 2 wait”. @param {number} count of messages */
export const waits = (count) => (count ? `, ${count} ${count > 1 ? "wait" : "waits"}` : "");

export const WHEREABOUTS = { expected: "not here yet", connecting: "connecting", connected: "", away: "away", left: "gone" };

/** A kind and a name. @param {string} open */
export const split = (open) => [open.replace(/ .*/s, ""), open.replace(/^\S* /, "")];
