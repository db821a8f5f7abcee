// How numbers, times and names are shown.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function size(bytes) {
  if (bytes == null) return "–";
  let unit = 0;
  while (bytes >= 999.5 && unit < UNITS.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return `${unit === 0 || bytes >= 99.95 ? Math.round(bytes) : bytes.toFixed(1)} ${UNITS[unit]}`;
}

export const rate = bytes => `${size(bytes)}/s`;

const PARTS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

/** The two largest parts of a duration. */
export function duration(seconds) {
  if (seconds == null) return "–";
  let rest = Math.round(seconds);
  const first = PARTS.findIndex(([, length]) => rest >= length);
  if (first < 0) return "0 s";
  const shown = [];
  for (const [unit, length] of PARTS.slice(first, first + 2)) {
    const count = Math.floor(rest / length);
    rest -= count * length;
    if (count) shown.push(`${count} ${unit}`);
  }
  return shown.join(" ");
}

/** 3:05 for media. */
export function playTime(seconds) {
  const two = number => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

export const count = (number, thing) => `${number.toLocaleString("en")} ${thing}${number === 1 ? "" : "s"}`;
export const percent = (part, whole) => (whole ? Math.floor((100 * part) / whole) : 0);
export const milliseconds = ms => (ms == null ? "–" : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`);
export const short = id => id.slice(0, 12);

const TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
export const time = at => (at ? TIME.format(new Date(at)) : "–");

// Control and direction characters, and what is invisible, would lie about a name.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;
const EMOJI_JOINER = /\p{Extended_Pictographic}[\ufe0f\u{1f3fb}-\u{1f3ff}]?$/u;

/** A name in pieces: `{text}` as it is, `{hidden}` for a character that must be made visible. */
export function pieces(name) {
  const found = [];
  let from = 0;
  for (const match of name.matchAll(HIDDEN)) {
    const before = name.slice(from, match.index);
    if (match[0] === "\u200d" && EMOJI_JOINER.test(before)) continue;
    if (before) found.push({ text: before });
    const code = match[0].codePointAt(0);
    found.push({ hidden: code < 0x20 ? String.fromCodePoint(0x2400 + code) : `U+${code.toString(16).toUpperCase().padStart(4, "0")}` });
    from = match.index + match[0].length;
  }
  if (from < name.length) found.push({ text: name.slice(from) });
  return found;
}

/** Bytes of `10 MB`, `1.5GiB`; null if it is no size. */
export function parseSize(text) {
  const found = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*$/i.exec(text);
  if (!found) return null;
  const power = ["", "k", "m", "g", "t"].indexOf(found[2].toLowerCase());
  return Math.round(Number(found[1]) * (found[3] ? 1024 : 1000) ** power);
}
