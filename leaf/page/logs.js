// Logs: the last lines, as they come.

import { html, useState } from "./vendor/htm-preact.js";
import { Copy, Empty } from "./parts.js";

const LEVELS = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
/** Lines that are drawn; older ones are found by the filter. */
const DRAWN = 300;

export function Logs({ state }) {
  const [words, setWords] = useState("");
  const [level, setLevel] = useState("TRACE");
  const [held, setHeld] = useState(null);
  const lines = held ?? state.logs;
  const rank = name => LEVELS.indexOf(name.toUpperCase());
  const sought = words.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = line => rank(line.level) <= rank(level) && sought.every(word => `${line.target} ${line.message}`.toLowerCase().includes(word));
  const found = lines.filter(fits);
  const shown = found.slice(-DRAWN).reverse();
  return html`
    <form class="line" onSubmit=${event => event.preventDefault()}>
      <label class="grow">Filter<input type="search" value=${words} onInput=${event => setWords(event.target.value)} placeholder="words" /></label>
      <label>From level<select value=${level} onChange=${event => setLevel(event.target.value)}>${LEVELS.map(name => html`<option value=${name}>${name.toLowerCase()}</option>`)}</select></label>
      <button type="button" class="quiet" aria-pressed=${held != null} onClick=${() => setHeld(held ? null : [...state.logs])}>${held ? "Go on" : "Hold"}</button>
      <${Copy} text=${found.map(line => `${line.timestamp} ${line.level} ${line.target} ${line.message}`).join("\n")} label="Copy" />
    </form>
    <p class="lead">${found.length} of the last ${lines.length} lines, newest first${found.length > DRAWN ? `; ${DRAWN} are shown` : ""}. <code>log</code> in the <a href="#/settings">settings</a> says what is logged.</p>
    ${shown.length ? html`<ol class="list log">${shown.map((line, index) => html`<li key=${line.timestamp + line.message + index} class=${line.level.toLowerCase()}>
      <time>${line.timestamp.slice(11, 23)}</time> <span class="level">${line.level.toLowerCase()}</span> <span class="message"><bdi>${line.message}</bdi><small>${line.target}</small></span></li>`)}</ol>`
      : html`<${Empty}>No line fits.</${Empty}>`}`;
}
