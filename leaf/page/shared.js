// Shared: the folders that others can search and fetch from.

import { html, useState } from "./vendor/htm-preact.js";
import { get, post, remove, segment } from "./api.js";
import { drop, put } from "./store.js";
import { List } from "./list.js";
import { Bar, Copy, Empty, Name, Problem, Sure, useAction } from "./parts.js";
import { count, duration, rate, size } from "./format.js";

const REASONS = {
  unreadable: "cannot be read", changed: "was written while it was hashed; tried again", symlink: "a link out of the share",
  empty: "has no bytes", excluded: "excluded by a pattern", name: "its path is too long or looks like another's",
};
const ORIGINS = { settings: null, file: "the configuration file", environment: "the environment", "command-line": "the command line", default: "the defaults" };

export function Shared({ state }) {
  const [run, error, busy] = useAction();
  const [path, setPath] = useState("");
  const shares = [...state.shares.values()].sort((a, b) => a.name.localeCompare(b.name));
  const { shares: total, catalog } = state.status;
  const add = event => {
    event.preventDefault();
    run(async () => {
      put("share", await post("shares", { path }));
      setPath("");
    });
  };
  return html`
    <p class="lead">${count(total?.files ?? 0, "file")}, ${size(total?.bytes ?? 0)} shared;
      ${" "}${(catalog?.acknowledged ?? 0).toLocaleString("en")} of ${(catalog?.files ?? 0).toLocaleString("en")} can be found by others.
      ${total?.pending_files > 0 && ` ${count(total.pending_files, "file")} to be hashed.`}</p>
    <form class="line" onSubmit=${add}>
      <label class="grow">Folder to share<input name="path" required value=${path} onInput=${event => setPath(event.target.value)}
        placeholder="/home/me/Music" autocomplete="off" spellcheck=${false} /></label>
      <button disabled=${busy}>Share</button>
      <button type="button" class="quiet" disabled=${busy || !shares.length} onClick=${() => run(() => post("shares/rescan"))}>Look at all again</button>
    </form>
    <${Problem} error=${error} />
    ${shares.length ? html`<ul class="list cards" aria-label="Shares">${shares.map(share => html`<li key=${share.name}><${Share} share=${share} run=${run} /></li>`)}</ul>`
      : html`<${Empty}>Nothing is shared. Name a folder above: its files become searchable within seconds.</${Empty}>`}
    ${shares.some(share => share.skipped > 0) && html`<${Skipped} />`}`;
}

function Share({ share, run }) {
  const origin = ORIGINS[share.origin];
  const isWorking = share.pending_bytes > 0;
  const stop = () => run(async () => {
    await remove(`shares/${segment(share.name)}`);
    drop("share", share.name);
  });
  return html`<article class="card">
    <header><h2><${Name} text=${share.name} /></h2><span class="state ${share.state === "missing" ? "bad" : share.state === "watching" ? "good" : ""}">${share.state}</span></header>
    <p class="path"><${Name} text=${share.path} /> <${Copy} text=${share.path} label="Copy path" /></p>
    <p>${count(share.files, "file")}, ${size(share.bytes)}${share.skipped > 0 && `, ${share.skipped.toLocaleString("en")} skipped`}</p>
    ${(isWorking || share.state === "hashing") && html`<div><${Bar} part=${share.bytes} whole=${share.bytes + share.pending_bytes} label="Hashed" />
      <small>${count(share.pending_files, "file")} (${size(share.pending_bytes)}) to go${share.rate > 0 && `, ${rate(share.rate)}, ${duration(share.pending_bytes / share.rate)} left`}</small></div>`}
    ${share.watching === false && share.state === "watching" && html`<small>Changes are found by rescans only.</small>`}
    ${origin ? html`<small>Set by ${origin}; remove it there.</small>` : html`<${Sure} label="Stop sharing" question="Stop sharing it? Files stay." act=${stop} />`}
  </article>`;
}

const lastOf = path => path.slice(path.lastIndexOf("/") + 1);

function Skipped() {
  const [list, setList] = useState(null);
  const [next, setNext] = useState(null);
  const [run, error] = useAction();
  const more = cursor => run(async () => {
    const page = await get(`shares/skipped?limit=200${cursor ? `&cursor=${segment(cursor)}` : ""}`);
    setList(known => [...(cursor ? known : []), ...page.items]);
    setNext(page.next);
  });
  return html`<section><h2>Skipped files</h2>
    ${!list && html`<button type="button" class="quiet" onClick=${() => more(null)}>Show them</button>`}
    <${Problem} error=${error} />
    ${list && html`<${List} kind="skipped" label="Skipped files" items=${list} id=${one => one.path}
      row=${one => html`<div class="row"><div class="what"><span class="title"><${Name} text=${lastOf(one.path)} /></span>
        <p class="sub">${REASONS[one.reason] ?? one.reason} · <${Name} text=${one.path} /></p></div></div>`} />`}
    ${next && html`<button type="button" class="quiet" onClick=${() => more(next)}>Show more</button>`}</section>`;
}
