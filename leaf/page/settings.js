// Settings: every option with where its value comes from, and the bans.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { all, get, patch, post, remove, segment } from "./api.js";
import { Carry, PARTS } from "./carry.js";
import { Empty, Problem, Sure, useAction } from "./parts.js";
import { time } from "./format.js";

const GROUPS = {
  Sharing: ["share", "exclude", "downloads", "share_downloads", "rescan_interval", "hash_threads"],
  Limits: ["upload_limit", "download_limit", "upload_schedule", "download_schedule", "upload_slots", "peer_quota"],
  Network: ["listen", "advertise", "join", "dns", "network", "network_secret_file", "lan", "dht", "dht_bootstrap", "portmap"],
  "As an ultrapeer": ["volunteer", "max_leaves", "memory", "max_files_per_leaf", "query_rate", "query_burst", "relay_circuits", "relay_rate"],
  "This machine": ["api", "api_hosts", "metrics", "ban_list", "block_list", "log", "log_format"],
};
const MEANINGS = {
  share: "Folders that are shared", exclude: "Patterns of files that are not shared", downloads: "Where downloads go",
  share_downloads: "Finished downloads can be searched and browsed", rescan_interval: "Time between two looks at all folders", hash_threads: "Threads that hash",
  upload_limit: "Most bytes a second to others", download_limit: "Most bytes a second from others",
  upload_schedule: "Other upload limits at some hours: mon-fri 08:00-18:00 500kB", download_schedule: "Other download limits at some hours",
  upload_slots: "Uploads at the same time", peer_quota: "Most bytes for one peer a day",
  listen: "UDP address of this node", advertise: "Address that others are told", join: "Nodes to join through", dns: "Names that list nodes to join through",
  network: "Name of the network", network_secret_file: "File with the secret of a private network",
  lan: "Look for nodes on the local network", dht: "Look for nodes in the Mainline DHT", dht_bootstrap: "Nodes to enter that DHT by, if not the usual ones", portmap: "Ask the router to open a port",
  volunteer: "Serve as an ultrapeer: never, auto, always", max_leaves: "Most leaves", memory: "Memory of index and digests", max_files_per_leaf: "Files that are taken of a leaf",
  query_rate: "Queries of a leaf", query_burst: "Queries of a leaf at once", relay_circuits: "Relayed transfers", relay_rate: "Rate of each",
  api: "Address of this page", api_hosts: "Names under which this page may be opened", metrics: "Address for Prometheus",
  ban_list: "Files with bans", block_list: "Files with blocked contents", log: "What is logged: error, warn, info, debug, trace", log_format: "text or json",
};
const ORIGINS = { default: "default", file: "file", settings: "set here", environment: "environment", "command-line": "command line" };

export function Settings() {
  const [options, setOptions] = useState(null);
  /** Counted, so that the bans are loaded again, too. */
  const [loads, setLoads] = useState(0);
  const [run, error] = useAction();
  const load = () => run(async () => setOptions(await all("config")));
  const taken = async () => {
    await load();
    setLoads(number => number + 1);
  };
  useEffect(() => { load(); }, []);
  const change = rows => setOptions(known => known.map(option => rows.find(row => row.key === option.key) ?? option));
  const known = new Map((options ?? []).map(option => [option.key, option]));
  const listed = new Set(Object.values(GROUPS).flat());
  const groups = { ...GROUPS, Other: [...known.keys()].filter(key => !listed.has(key)) };
  return html`<${Problem} error=${error} />
    ${options && Object.entries(groups).map(([title, keys]) => keys.some(key => known.has(key)) && html`<section key=${title}><h2>${title}</h2>
      <ul class="list options">${keys.filter(key => known.has(key)).map(key => html`<li key=${key}><${Option} option=${known.get(key)} change=${change} /></li>`)}</ul></section>`)}
    <${Bans} key=${loads} />
    <section><h2>In a file</h2>
      <p class="lead">Settings, shares, wishes and bans that were made at run time, for another machine or for keeps. Keys and tokens are not in it.
        ${" "}<code>quictrack config import</code> reads it, too.</p>
      <${Carry} parts=${PARTS} taken=${taken} /></section>`;
}

const shape = option => {
  const sample = option.value ?? option.default;
  if (Array.isArray(sample)) return "list";
  return typeof sample;
};
const inText = (option, kind) => (kind === "list" ? (option.value ?? []).map(item => (typeof item === "string" ? item : JSON.stringify(item))).join("\n") : String(option.value ?? ""));

function Option({ option, change }) {
  const kind = shape(option);
  const [text, setText] = useState(inText(option, kind));
  const [saved, setSaved] = useState(false);
  const [run, error, busy] = useAction();
  useEffect(() => setText(inText(option, kind)), [option]);
  const isFixed = ["environment", "command-line"].includes(option.origin);
  const send = value => run(async () => {
    change((await patch("config", { [option.key]: value })).items);
    setSaved(true);
  });
  const parse = () => {
    if (kind === "list") return text.split("\n").map(line => line.trim()).filter(Boolean);
    return kind === "number" ? Number(text) : text.trim();
  };
  const save = event => {
    event.preventDefault();
    send(parse());
  };
  const isDirty = text !== inText(option, kind);
  const id = `option-${option.key}`;
  const input = kind === "boolean"
    ? html`<input id=${id} type="checkbox" checked=${option.value} disabled=${isFixed || busy} onChange=${event => send(event.target.checked)} />`
    : kind === "list"
      ? html`<textarea id=${id} rows=${Math.min(6, Math.max(1, text.split("\n").length))} value=${text} disabled=${isFixed} spellcheck=${false} placeholder="one a line" onInput=${event => setText(event.target.value)}></textarea>`
      : html`<input id=${id} value=${text} inputmode=${kind === "number" ? "decimal" : undefined} disabled=${isFixed} autocomplete="off" spellcheck=${false} placeholder="not set" onInput=${event => setText(event.target.value)} />`;
  return html`<form class="row option" onSubmit=${save}>
    <label for=${id}><code>${option.key}</code><small>${MEANINGS[option.key] ?? ""}</small></label>
    <span class="value">${input}${error && html`<small class="bad" role="alert">${error.message}${error.hint && ` – ${error.hint}`}</small>`}
      ${saved && !error && !isDirty && html`<small role="status">${option.restart ? "Saved; it counts after a restart." : "Saved."}</small>`}
      ${isFixed && html`<small>Set by the ${ORIGINS[option.origin]}; change it there.</small>`}</span>
    <span class="origin"><span class="tag ${option.origin === "default" ? "" : "set"}">${ORIGINS[option.origin] ?? option.origin}</span>${option.restart && html`<span class="tag">needs a restart</span>`}</span>
    <span class="act">${isDirty && html`<button disabled=${busy}>Save</button>`}
      ${option.origin === "settings" && html`<button type="button" class="quiet" disabled=${busy} onClick=${() => send(null)}>Reset<span class="visually-hidden"> ${option.key}</span></button>`}</span>
  </form>`;
}

const SPANS = [["", "for good"], [3600, "an hour"], [86400, "a day"], [604800, "a week"], [2592000, "30 days"]];

function Bans() {
  const [bans, setBans] = useState([]);
  const [run, error, busy] = useAction();
  const load = async () => setBans((await get("bans?limit=1000")).items);
  useEffect(() => { run(load); }, []);
  const add = event => {
    event.preventDefault();
    const { target, reason, span } = event.target.elements;
    const form = event.target;
    run(async () => {
      await post("bans", { target: target.value.trim(), ...(reason.value ? { reason: reason.value } : {}), ...(span.value ? { for_s: Number(span.value) } : {}) });
      form.reset();
      await load();
    });
  };
  const lift = target => run(async () => {
    await remove(`bans/${segment(target)}`);
    await load();
  });
  return html`<section id="bans"><h2>Bans and blocked contents</h2>
    <form class="line" onSubmit=${add}>
      <label class="grow">Peer id, address range or content id<input name="target" required autocomplete="off" spellcheck=${false} placeholder="192.0.2.0/24" /></label>
      <label>Reason<input name="reason" autocomplete="off" /></label>
      <label>Time<select name="span">${SPANS.map(([seconds, label]) => html`<option value=${seconds}>${label}</option>`)}</select></label>
      <button disabled=${busy}>Ban</button></form>
    <${Problem} error=${error} />
    ${bans.length ? html`<div class="scroll" tabindex="0" role="region" aria-label="Bans"><table><thead><tr><th>Target</th><th>Kind</th><th>Reason</th><th>Until</th><th><span class="visually-hidden">Actions</span></th></tr></thead>
      <tbody>${bans.map(ban => html`<tr key=${ban.target}><td class="mono break">${ban.target}</td><td>${ban.kind}</td><td>${ban.reason ?? "–"}</td><td>${ban.expires_at ? time(ban.expires_at) : "for good"}</td>
        <td>${ban.origin === "settings" ? html`<${Sure} label="Lift" question="Lift it?" act=${() => lift(ban.target)} />` : `from a ${ban.origin}`}</td></tr>`)}</tbody></table></div>`
      : html`<${Empty}>Nobody is banned.</${Empty}>`}</section>`;
}
