// Transfers: what comes here and what others fetch from here.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { get, patch, remove } from "./api.js";
import { drop, put } from "./store.js";
import { List } from "./list.js";
import { Bar, Copy, Dialog, Empty, Name, Peer, Problem, Sure, useAction } from "./parts.js";
import { count, duration, percent, rate, size, time } from "./format.js";

const GROUPS = {
  all: ["All", () => true], running: ["Running", job => ["active", "stalled"].includes(job.state)],
  waiting: ["Waiting", job => job.state === "queued"], paused: ["Paused", job => job.state === "paused"],
  done: ["Done", job => job.state === "done"], ended: ["Failed or cancelled", job => ["failed", "cancelled"].includes(job.state)],
};
const isEnded = job => ["done", "failed", "cancelled"].includes(job.state);
const can = {
  pause: job => ["queued", "active", "stalled"].includes(job.state), resume: job => job.state === "paused",
  retry: job => ["failed", "cancelled"].includes(job.state), cancel: job => !isEnded(job),
};
const TARGET = { pause: "paused", resume: "queued", retry: "queued", cancel: "cancelled" };
/** Requests at the same time when many jobs are changed. */
const AT_ONCE = 6;

const act = async (job, action) => put("download", await patch(`downloads/${job.id}`, { state: TARGET[action] }));
const prefer = async (job, priority) => put("download", await patch(`downloads/${job.id}`, { priority }));
const forget = async job => {
  await remove(`downloads/${job.id}`);
  drop("download", job.id);
};

async function each(jobs, change) {
  const rest = [...jobs];
  const failures = [];
  const work = async () => {
    for (let job = rest.shift(); job; job = rest.shift()) await change(job).catch(error => failures.push(error));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  if (failures.length) throw failures[0];
}

export function Transfers({ parts, state }) {
  const isUp = parts[0] === "up";
  const tab = (is, path, label, number) => html`<a href="#/transfers${path}" aria-current=${is ? "page" : undefined}>${label} <span class="badge">${number}</span></a>`;
  return html`<nav class="tabs" aria-label="Direction">
      ${tab(!isUp, "", "Downloads", state.downloads.size)}${tab(isUp, "/up", "Uploads", state.uploads.size)}</nav>
    ${isUp ? html`<${Uploads} state=${state} />` : html`<${Downloads} state=${state} />`}`;
}

function Downloads({ state }) {
  const [group, setGroup] = useState("all");
  const [chosen, setChosen] = useState(new Set());
  const [details, setDetails] = useState(null);
  const [run, error, busy] = useAction();
  const jobs = [...state.downloads.values()].sort((a, b) => isEnded(a) - isEnded(b) || b.created_at.localeCompare(a.created_at) || (a.id < b.id ? -1 : 1));
  const shown = jobs.filter(GROUPS[group][1]);
  const picked = shown.filter(job => chosen.has(job.id));
  const of = picked.length ? picked : [];
  const bulk = (label, fits, change) => {
    const fitting = of.filter(fits);
    return html`<button type="button" class="quiet" disabled=${busy || !fitting.length} onClick=${() => run(() => each(fitting, change))}>${label}</button>`;
  };
  const pick = id => setChosen(known => {
    const next = new Set(known);
    if (!next.delete(id)) next.add(id);
    return next;
  });
  const pickAll = () => setChosen(picked.length === shown.length ? new Set() : new Set(shown.map(job => job.id)));
  const ended = jobs.filter(isEnded);
  const job = details && state.downloads.get(details);

  return html`
    <div class="chips" role="group" aria-label="Show">${Object.entries(GROUPS).map(([key, [label, fits]]) => html`
      <button type="button" class="chip" aria-pressed=${group === key} onClick=${() => setGroup(key)}>${label} ${jobs.filter(fits).length}</button>`)}</div>
    <div class="tools" role="toolbar" aria-label="Selected downloads">
      <label class="check"><input type="checkbox" checked=${shown.length > 0 && picked.length === shown.length} onChange=${pickAll} disabled=${!shown.length} /> ${picked.length ? `${picked.length} selected` : "Select all"}</label>
      ${bulk("Pause", can.pause, job => act(job, "pause"))}
      ${bulk("Resume", can.resume, job => act(job, "resume"))}
      ${bulk("Retry", can.retry, job => act(job, "retry"))}
      ${bulk("Cancel", can.cancel, job => act(job, "cancel"))}
      <label>Priority <select disabled=${busy || !of.some(job => !isEnded(job))} value=""
        onChange=${event => { const level = event.target.value; event.target.value = ""; run(() => each(of.filter(job => !isEnded(job)), job => prefer(job, level))); }}>
        <option value="">–</option>${["high", "normal", "low"].map(level => html`<option value=${level}>${level}</option>`)}</select></label>
      <span class="grow"></span>
      <button type="button" class="quiet" disabled=${busy || !ended.length} onClick=${() => run(() => each(ended, forget))}>Forget ended (${ended.length})</button>
    </div>
    <${Problem} error=${error} />
    ${shown.length ? html`<${List} kind="jobs" label="Downloads" items=${shown} id=${one => one.id}
        row=${one => html`<${Job} job=${one} chosen=${chosen.has(one.id)} pick=${() => pick(one.id)} open=${() => setDetails(one.id)} />`} />`
      : html`<${Empty}>${jobs.length ? "None of the downloads is in this state." : html`Nothing is downloaded. <a href="#/search">Search</a> for something.`}</${Empty}>`}
    ${job && html`<${Details} job=${job} me=${state.status.peer_id} close=${() => setDetails(null)} />`}`;
}

const REASONS = {
  user: "paused by you", disk_full: "the disk is full; it goes on when there is room", cancelled: "cancelled by you",
  blocked: "the content is blocked", conflict: "a file of that name is there already",
};

/** What a download is doing, in words. */
function doing(job) {
  const sending = job.sources.filter(source => source.state === "active").length;
  if (job.state === "active" && job.rate) return `${rate(job.rate)}, ${job.eta_s == null ? "" : `${duration(job.eta_s)} left, `}${count(sending, "source")}`;
  if (job.state === "active") return job.sources.length ? `${count(job.sources.length, "source")}, waiting for data` : "looking for sources";
  if (job.state === "queued") return job.queue_position ? `place ${job.queue_position} in a queue` : "waits for its turn";
  if (job.state === "stalled") return "no source answers; it goes on when one is back";
  if (job.state === "done") return time(job.finished_at);
  return REASONS[job.reason] ?? "";
}

const TONE = { active: "good", done: "good", failed: "bad", stalled: "warn", paused: "", queued: "", cancelled: "" };

const folderOf = job => job.path.replace(/[/\\][^/\\]*$/, "");

function Actions({ job, run, busy }) {
  const button = (label, action) => can[action](job) && html`<button type="button" class="quiet" disabled=${busy}
    onClick=${() => run(() => act(job, action))}>${label}<span class="visually-hidden"> this download</span></button>`;
  return html`${job.path && html`<${Copy} text=${folderOf(job)} label="Copy folder" />`}${button("Pause", "pause")}${button("Resume", "resume")}${button("Retry", "retry")}${button("Cancel", "cancel")}`;
}

function Job({ job, chosen, pick, open }) {
  const [run, error, busy] = useAction();
  return html`<div class="row job">
    <input type="checkbox" checked=${chosen} onChange=${pick} aria-label="Select ${job.name.slice(0, 60)}" />
    <div class="what"><button type="button" class="title" onClick=${open} aria-haspopup="dialog"><${Name} text=${job.name || job.content} /></button>
      <p class="sub">${error ? error.message : html`<span class="state ${TONE[job.state]}">${job.state}</span> ${doing(job)}`}</p></div>
    <span class="amount"><${Bar} part=${job.bytes} whole=${job.size} label="Progress" /><small>${percent(job.bytes, job.size)} % of ${size(job.size)}</small></span>
    <span class="act"><${Actions} job=${job} run=${run} busy=${busy} /></span>
  </div>`;
}

const LOOK = 2000;

function Details({ job, me, close }) {
  const [pieces, setPieces] = useState(null);
  const [run, error, busy] = useAction();
  useEffect(() => {
    const look = () => get(`downloads/${job.id}`).then(answer => setPieces(answer.pieces), () => {});
    look();
    const timer = setInterval(look, LOOK);
    return () => clearInterval(timer);
  }, [job.id, job.state]);
  const forgetIt = () => run(() => forget(job)).then(done => done && close());
  return html`<${Dialog} title="Download" close=${close}>
    <p class="whole-name"><${Name} text=${job.name || job.content} /></p>
    <p><span class="state ${TONE[job.state]}">${job.state}</span> ${doing(job)}</p>
    <${Bar} part=${job.bytes} whole=${job.size} label="Progress" />
    <p class="actions"><${Actions} job=${job} run=${run} busy=${busy} />
      <label>Priority <select value=${job.priority} disabled=${isEnded(job)} onChange=${event => run(() => prefer(job, event.target.value))}>
        ${["high", "normal", "low"].map(level => html`<option value=${level}>${level}</option>`)}</select></label>
      <${Sure} label="Forget" question=${isEnded(job) ? "Forget it, keep the file?" : "Cancel and forget?"} act=${forgetIt} /></p>
    <${Problem} error=${error} />
    <dl class="facts">
      <dt>Done</dt><dd>${size(job.bytes)} of ${size(job.size)}</dd>
      ${job.path && html`<dt>File</dt><dd><${Name} text=${job.path} /></dd>`}
      <dt>Begun</dt><dd>${time(job.created_at)}</dd>
      <dt>Content</dt><dd class="mono">${job.content}</dd>
    </dl>
    ${pieces?.size > 0 && job.size > 0 && html`<h3>Pieces of ${size(pieces.size)}</h3><${Pieces} pieces=${pieces} size=${job.size} />`}
    <h3>${count(job.sources.length, "source")}</h3>
    ${job.sources.length > 0 && html`<div class="scroll nowrap" tabindex="0" role="region" aria-label="Sources"><table><thead><tr><th>Peer</th><th>State</th><th>Via</th><th>Rate</th><th>Bytes</th><th>Queue</th></tr></thead>
      <tbody>${job.sources.map(source => html`<tr><td><${Peer} id=${source.peer} me=${me} /></td><td>${source.state}</td><td>${source.via ?? "–"}</td>
        <td>${rate(source.rate)}</td><td>${size(source.bytes)}</td><td>${source.queue_position ?? "–"}</td></tr>`)}</tbody></table></div>`}
  </${Dialog}>`;
}

/** Cells of the map at most; of larger files a cell is several pieces. */
const CELLS = 400;

function Pieces({ pieces, size: bytes }) {
  const total = Math.ceil(bytes / pieces.size);
  const bits = atob(pieces.done ?? "");
  const has = index => (bits.charCodeAt(index >> 3) >> (7 - (index & 7))) & 1;
  const cells = Math.min(total, CELLS);
  let here = 0;
  const shares = Array.from({ length: cells }, (_, cell) => {
    const [from, to] = [Math.floor((cell * total) / cells), Math.floor(((cell + 1) * total) / cells)];
    let have = 0;
    for (let index = from; index < to; index += 1) have += has(index);
    here += have;
    return have / (to - from);
  });
  const across = Math.min(cells, 50);
  const step = 12;
  return html`<svg class="pieces" role="img" aria-label="${here} of ${total} pieces are here" viewBox="0 0 ${across * step} ${Math.ceil(cells / across) * step}">
    ${shares.map((share, cell) => html`<rect x=${(cell % across) * step} y=${Math.floor(cell / across) * step} width=${step - 2} height=${step - 2} rx="2"
      class=${share === 1 ? "whole" : share > 0 ? "part" : "none"} />`)}</svg>`;
}

function Uploads({ state }) {
  const uploads = [...state.uploads.values()].sort((a, b) => (a.queue_position ?? 0) - (b.queue_position ?? 0) || (a.id < b.id ? -1 : 1));
  if (!uploads.length) return html`<${Empty}>Nobody downloads from here now.</${Empty}>`;
  return html`<${List} kind="jobs" label="Uploads" items=${uploads} id=${one => one.id} row=${one => html`<div class="row upload">
    <div class="what"><span class="title"><${Name} text=${one.name} /></span>
      <p class="sub"><span class="state ${one.state === "active" ? "good" : ""}">${one.state}</span>
        ${one.queue_position ? `place ${one.queue_position} in the queue` : rate(one.rate)}, ${one.via}, to <${Peer} id=${one.peer} me=${state.status.peer_id} /></p></div>
    <span class="amount"><${Bar} part=${one.bytes} whole=${one.size} label="Sent" /><small>${size(one.bytes)} of ${size(one.size)}</small></span></div>`} />`;
}
