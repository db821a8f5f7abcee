// Search: results as they are found, one row for each content.

import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";
import { events, get, post, remove, segment } from "./api.js";
import { put } from "./store.js";
import { List } from "./list.js";
import { Bar, Copy, Dialog, Name, Peer, Problem, useAction } from "./parts.js";
import { AGES, KINDS, SIZES, terms, toggleListed, toggleOnly, values } from "./query.js";
import { count, milliseconds, percent, playTime, short, size, time } from "./format.js";

const REDRAW = 200;
const LIMIT = 1000;
const HISTORY_KEY = "searches";
const HISTORY_LENGTH = 30;

/** The search that is shown. It outlives a look at another page. */
const shown = { id: null, query: "", hits: new Map(), summary: null, error: null, state: "none", stop: null, all: false, version: 0 };
const watchers = new Set();
let timer = null;

function changed() {
  timer ??= setTimeout(() => {
    timer = null;
    for (const watcher of watchers) watcher();
  }, REDRAW);
}

async function start(query, all) {
  shown.stop?.abort();
  if (shown.state === "running" && shown.id) remove(`searches/${shown.id}`).catch(() => {});
  const stop = new AbortController();
  Object.assign(shown, { id: null, query, all, hits: new Map(), summary: null, error: null, state: "running", stop });
  changed();
  try {
    const { id } = await post("searches", { query, ...(all ? { all } : { limit: LIMIT }) });
    if (stop.signal.aborted) return;
    shown.id = id;
    if (location.hash.startsWith("#/search")) history.replaceState(null, "", `#/search/${id}`);
    await listen(id, stop.signal);
  } catch (error) {
    if (!stop.signal.aborted) Object.assign(shown, { error, state: "done" });
  }
  changed();
}

/** A search that another visit of the page began. */
async function load(id) {
  shown.stop?.abort();
  const stop = new AbortController();
  Object.assign(shown, { id, query: "", hits: new Map(), summary: null, error: null, state: "running", stop });
  try {
    shown.query = (await get(`searches/${segment(id)}`)).query;
    await listen(id, stop.signal);
  } catch (error) {
    if (!stop.signal.aborted) Object.assign(shown, { error, state: "done" });
  }
  changed();
}

async function listen(id, signal) {
  await events(`searches/${segment(id)}/events`, {
    signal,
    on: ({ event, data }) => {
      if (event === "hit") {
        shown.hits.set(data.content, data);
        shown.version += 1;
      }
      if (event === "summary") {
        Object.assign(shown, { summary: data, state: "done" });
        remember({ query: shown.query, hits: data.hits, at: new Date().toISOString() });
      }
      changed();
    },
  });
  shown.state = "done";
}

function past() {
  try {
    return JSON.parse(localStorage.getItem(HISTORY_KEY)) ?? [];
  } catch {
    return [];
  }
}

function remember(search) {
  const kept = [search, ...past().filter(one => one.query !== search.query)].slice(0, HISTORY_LENGTH);
  localStorage.setItem(HISTORY_KEY, JSON.stringify(kept));
}

const { compare } = new Intl.Collator();
const byName = (a, b) => compare(a.name, b.name) || (a.content < b.content ? -1 : 1);
const ORDERS = {
  rank: ["Best first", (a, b) => b.score - a.score],
  sources: ["Sources", (a, b) => b.sources - a.sources],
  size: ["Size", (a, b) => b.size - a.size],
  name: ["Name", byName],
};

export function Search({ parts, state }) {
  const [, draw] = useState(0);
  const [text, setText] = useState(shown.query);
  const [order, setOrder] = useState("rank");
  const [details, setDetails] = useState(null);
  const box = useRef(null);

  useEffect(() => {
    const watcher = () => draw(number => number + 1);
    watchers.add(watcher);
    return () => watchers.delete(watcher);
  }, []);
  useEffect(() => {
    if (parts[0] && parts[0] !== shown.id) load(parts[0]).then(() => setText(shown.query));
  }, [parts[0]]);
  // Before the page is painted: who sees results and loads the page again gets them again.
  useLayoutEffect(() => {
    if (!parts[0] && shown.id) history.replaceState(null, "", `#/search/${shown.id}`);
  }, [parts[0]]);
  useEffect(() => {
    if (!shown.error?.position || !box.current) return;
    // Positions count characters, the box counts UTF-16 units.
    const at = [...text].slice(0, shown.error.position - 1).join("").length;
    box.current.focus();
    box.current.setSelectionRange(at, at + 1);
  }, [shown.error]);

  const search = (query, all = false) => {
    setText(query);
    if (query.trim()) start(query, all);
  };
  /** A chip changes the text, and searches if there was a search of it. */
  const edit = query => (shown.state !== "none" && terms(query).some(term => !term.startsWith("size:")) ? search(query) : setText(query));
  const submit = event => {
    event.preventDefault();
    search(text);
  };
  const hits = useMemo(() => [...shown.hits.values()].sort((a, b) => ORDERS[order][1](a, b) || byName(a, b)), [shown.hits, shown.version, order]);
  const jobs = new Map([...state.downloads.values()].map(job => [job.content, job]));
  const hit = details && shown.hits.get(details);

  return html`
    <form role="search" class="search" onSubmit=${submit}>
      <label class="grow"><span class="visually-hidden">Search for</span>
        <input ref=${box} type="search" value=${text} maxlength="512" placeholder=${'words "a phrase" -without kind:audio size:>10MB'}
          autocomplete="off" autocapitalize="off" spellcheck=${false} aria-describedby="query-problem"
          onInput=${event => setText(event.target.value)} /></label>
      <button>Search</button>
    </form>
    <${Chips} text=${text} edit=${edit} hits=${hits} />
    <div id="query-problem"><${QueryProblem} error=${shown.error} query=${shown.query} /></div>
    ${shown.state !== "none" && html`<div class="tools"><${Outcome} all=${() => search(shown.query, true)} />
      ${hits.length > 0 && html`<label>Order <select value=${order} onChange=${event => setOrder(event.target.value)}>
        ${Object.entries(ORDERS).map(([key, [label]]) => html`<option value=${key}>${label}</option>`)}</select></label>`}</div>`}
    ${hits.length > 0 && html`<${List} kind="hits" label="Results" items=${hits} id=${one => one.content}
        row=${one => html`<${Hit} hit=${one} job=${jobs.get(one.content)} open=${() => setDetails(one.content)} />`} />`}
    ${shown.state === "none" && html`<${Past} search=${search} />`}
    ${hit && html`<${Details} hit=${hit} job=${jobs.get(hit.content)} me=${state.status.peer_id} close=${() => setDetails(null)} />`}`;
}

function Chips({ text, edit, hits }) {
  const kinds = values(text, "kind");
  const chip = (label, is, query) => html`<button type="button" class="chip" aria-pressed=${is} onClick=${() => edit(query)}>${label}</button>`;
  const only = (filter, [label, value]) => chip(label, values(text, filter).includes(value), toggleOnly(text, filter, value));
  const frequent = useMemo(() => frequentExtensions(hits), [hits]);
  const chosen = values(text, "ext");
  return html`<div class="chips">
    <div role="group" aria-label="Kind">${KINDS.map(kind => chip(kind, kinds.includes(kind), toggleListed(text, "kind", kind)))}</div>
    <div role="group" aria-label="Size">${SIZES.map(one => only("size", one))}</div>
    <div role="group" aria-label="Changed">${AGES.map(one => only("modified", one))}</div>
    ${frequent.length + chosen.length > 0 && html`<div role="group" aria-label="Extension">
      ${[...new Set([...chosen, ...frequent])].map(name => chip(`.${name}`, chosen.includes(name), toggleListed(text, "ext", name)))}</div>`}
  </div>`;
}

function frequentExtensions(hits) {
  const seen = new Map();
  for (const { name } of hits) {
    const found = /\.([a-z0-9]{1,8})$/i.exec(name)?.[1].toLowerCase();
    if (found) seen.set(found, (seen.get(found) ?? 0) + 1);
  }
  return [...seen].sort((a, b) => b[1] - a[1]).slice(0, 6).map(([extension]) => extension);
}

function QueryProblem({ error, query }) {
  if (!error) return null;
  if (!error.position) return html`<${Problem} error=${error} />`;
  const letters = [...query];
  const at = error.position - 1;
  return html`<div class="notice bad" role="alert">
    <p>${error.message}</p>
    <p class="mono query"><bdi>${letters.slice(0, at).join("")}<mark>${letters[at] ?? "␣"}</mark>${letters.slice(at + 1).join("")}</bdi></p>
    ${error.hint && html`<small>${error.hint}</small>`}</div>`;
}

const REASONS = {
  shard_uncovered: "no ultrapeer covers a part of the network",
  digest_lag: "an ultrapeer is more than 3 s behind with its news",
  home_silent: "all ultrapeers of some leaf were silent",
  work_cap: "the query matches so much that a look-up was cut",
  views_differ: "the ultrapeers of this node do not agree on who is there",
};

/** The line that says how complete the result is. */
function Outcome({ all }) {
  const { summary, hits, state, error } = shown;
  if (error) return null;
  if (state === "running") {
    const cancel = () => shown.id && remove(`searches/${shown.id}`).catch(() => {});
    return html`<p class="outcome" role="status"><span class="spinner" aria-hidden="true"></span> Searching: ${count(hits.size, "hit")} so far
      <button type="button" class="quiet" onClick=${cancel}>Stop</button></p>`;
  }
  if (!summary) return null;
  const asked = `asked ${summary.ultrapeers_asked} of ${count(summary.ultrapeers_total, "ultrapeer")}`;
  const numbers = `${count(summary.hits, "hit")} in ${milliseconds(summary.elapsed_ms)}, ${asked}`;
  const why = {
    limit: `it stopped at ${count(summary.hits, "hit")}; narrow the query, or find all`,
    timeout: "not everybody answered in time", cancelled: "it was stopped",
  }[summary.stopped];
  const reasons = [why, ...summary.incomplete_reasons.map(reason => REASONS[reason] ?? reason)].filter(Boolean);
  return html`<p class="outcome" role="status" id="outcome">
    <strong class=${summary.complete ? "good" : "warn"}>${summary.complete ? "complete" : "incomplete"}</strong>: ${numbers}
    ${!summary.complete && html` – ${reasons.join("; ")}`}
    ${summary.withheld > 0 && html` – ${count(summary.withheld, "hit")} withheld by bans`}
    ${summary.stopped === "limit" && !shown.all && html` <button type="button" class="quiet" onClick=${all}>Find all</button>`}
    ${summary.hits === 0 && html`<br /><small>Nothing matches all words. Fewer words or filters find more; a <a href="#/wishes">wish</a> tells when somebody shares it.</small>`}
  </p>`;
}

/** What the tags say, in one line. */
export function about({ tags, path, kind }) {
  const media = [tags.artist, tags.album, tags.title].filter(Boolean);
  const facts = [tags.year, tags.duration_s && playTime(tags.duration_s), tags.bitrate && `${tags.bitrate} kbit/s`].filter(Boolean);
  const folder = path.slice(0, Math.max(0, path.lastIndexOf("/")));
  return [kind, ...facts, media.length ? media.join(" · ") : folder].filter(Boolean).join(" · ");
}

function useDownload(hit) {
  const [run, error, busy] = useAction();
  const download = () => run(async () => put("download", await post("downloads", { content: hit.content })));
  return [download, error, busy];
}

function Having({ hit, job, download, busy, error }) {
  if (job && !["done", "cancelled", "failed"].includes(job.state)) {
    return html`<a class="having" href="#/transfers">${job.state} ${percent(job.bytes, job.size)} %<${Bar} part=${job.bytes} whole=${job.size} label="Downloaded" /></a>`;
  }
  if (job?.state === "done") return html`<span class="state good">downloaded</span>`;
  if (hit.have === "yes") return html`<span class="state good">here already</span>`;
  return html`<button type="button" class="download" disabled=${busy} onClick=${download} title=${error?.message}>${error ? "Try again" : "Download"}</button>`;
}

function Hit({ hit, job, open }) {
  const [download, error, busy] = useDownload(hit);
  return html`<div class="row hit">
    <div class="what"><button type="button" class="title" onClick=${open} aria-haspopup="dialog"><${Name} text=${hit.name} /></button>
      <p class="sub"><${Name} text=${about(hit)} /></p></div>
    <span class="number">${size(hit.size)}</span>
    <span class="number" title="Leaves that have all of it, and their free upload slots">${count(hit.sources, "source")}<small>${hit.free_slots} free</small></span>
    <span class="act"><${Having} hit=${hit} job=${job} download=${download} busy=${busy} error=${error} /></span>
  </div>`;
}

function Details({ hit, job, me, close }) {
  const [download, refused, busy] = useDownload(hit);
  const [run, error, , ] = useAction();
  const [said, setSaid] = useState(null);
  const ban = (target, what) => run(async () => {
    await post("bans", { target });
    setSaid(`${what}. Settings lists the bans.`);
  });
  const play = () => run(async () => {
    if (hit.have === "no" && !job) put("download", await post("downloads", { content: hit.content }));
    const { url } = await post(`files/${hit.content}/link`);
    setSaid(html`For players, a day long: <a href=${url} target="_blank" rel="noreferrer">${location.origin}${url}</a>`);
  });
  const tags = Object.entries(hit.tags);
  return html`<${Dialog} title="Result" close=${close}>
    <p class="whole-name"><${Name} text=${hit.name} /></p>
    <p class="actions"><${Having} hit=${hit} job=${job} download=${download} busy=${busy} error=${refused} />
      ${["audio", "video"].includes(hit.kind) && html`<button type="button" class="quiet" onClick=${play}>Link for a player</button>`}
      <${Copy} text=${hit.content} label="Copy content id" />
      <button type="button" class="quiet danger" onClick=${() => ban(hit.content, "This content is blocked here")}>Block this content</button></p>
    <${Problem} error=${refused ?? error} />
    ${said && html`<p class="notice" role="status">${said}</p>`}
    <dl class="facts">
      <dt>Size</dt><dd>${size(hit.size)} (${hit.size.toLocaleString("en")} bytes)</dd>
      <dt>Path</dt><dd><${Name} text=${hit.path} /></dd>
      ${hit.names.length > 1 && html`<dt>Names</dt><dd>${hit.names.map(name => html`<div><${Name} text=${name} /></div>`)}</dd>`}
      <dt>Changed</dt><dd>${time(hit.modified_at)}</dd>
      ${tags.map(([key, value]) => html`<dt>${{ duration_s: "length" }[key] ?? key}</dt><dd><${Name} text=${key === "duration_s" ? playTime(value) : String(value)} /></dd>`)}
      <dt>Content</dt><dd class="mono">${hit.content}</dd>
    </dl>
    <h3>${count(hit.sources, "source")}</h3>
    <div class="scroll nowrap" tabindex="0" role="region" aria-label="Sources"><table><thead><tr><th>Peer</th><th>Reachability</th><th>Free slots</th><th>Queue</th><th><span class="visually-hidden">Actions</span></th></tr></thead>
      <tbody>${hit.peers.map(peer => html`<tr><td><${Peer} id=${peer.peer} me=${me} /></td><td>${peer.reachability}</td><td>${peer.free_slots}</td><td>${peer.queue}</td>
        <td>${peer.peer !== me && html`<a class="button quiet" href="#/browse/${peer.peer}">Browse</a>
          <button type="button" class="quiet danger" onClick=${() => ban(peer.peer, `The peer ${short(peer.peer)} is blocked`)}>Block<span class="visually-hidden"> ${short(peer.peer)}</span></button>`}</td></tr>`)}</tbody></table></div>
  </${Dialog}>`;
}

function Past({ search }) {
  const [list, setList] = useState(past());
  const clear = () => {
    localStorage.removeItem(HISTORY_KEY);
    setList([]);
  };
  if (!list.length) {
    return html`<section class="card help"><h2>How to search</h2>
      <p>All words must match, anywhere in a file's name, its folders' names or its tags.</p>
      <dl class="facts">
        <dt><code>"abbey road"</code></dt><dd>the words in this order</dd>
        <dt><code>-live</code></dt><dd>without that word</dd>
        <dt><code>beat*</code></dt><dd>words that begin so</dd>
        <dt><code>artist:beatles</code></dt><dd>in one tag; also <code>album:</code> and <code>title:</code></dd>
        <dt><code>ext:flac,mp3</code></dt><dd>by extension; <code>kind:audio</code> by kind</dd>
        <dt><code>size:>10MB</code></dt><dd>by size; also <code>year:</code> <code>bitrate:</code> <code>duration:</code> <code>modified:</code></dd>
      </dl></section>`;
  }
  return html`<section><h2>Searches before</h2>
    <ul class="list past">${list.map(one => html`<li><div class="row past"><button type="button" class="title" onClick=${() => search(one.query)}><${Name} text=${one.query} /></button>
      <span class="number">${count(one.hits, "hit")}</span><span class="number">${time(one.at)}</span></div></li>`)}</ul>
    <button type="button" class="quiet" onClick=${clear}>Forget them</button></section>`;
}
