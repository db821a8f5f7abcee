// Network: what this node is, why, with whom, and what to do about what is wrong.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { get } from "./api.js";
import { Chart } from "./chart.js";
import { Picture } from "./picture.js";
import { Copy, Empty, Problem } from "./parts.js";
import { count, duration, milliseconds, short, size, time } from "./format.js";

const REACHABILITY = {
  public: ["Others reach this node directly.", null],
  mapped: ["Others reach this node through a port that the router opened.", null],
  natted: ["Others cannot dial this node; transfers go through punched holes or over a home.", "Forward the UDP port of this node on the router, or allow it in the firewall. quictrack doctor says more."],
  unknown: ["Nobody has tried to reach this node yet.", "This is found out within minutes of being in the network."],
};
const CRITERIA = {
  volunteer: "Willing to serve", reachable: "Reachable by others", uptime: "Time online", bandwidth: "Bandwidth", loss: "Packet loss",
  memory: "Memory", power: "Mains power", prefix: "Not too many from the same network", demand: "The network needs another ultrapeer",
};
const SPANS = [[1, "hour"], [6, "6 hours"], [24, "day"]];
const LOOK = 10000;

export function Network({ state }) {
  const { status } = state;
  const peers = [...state.peers.values()];
  return html`
    ${status.problems.map(problem => html`<div class="notice bad" key=${problem.code + problem.message}><strong>${problem.message}</strong>${problem.hint && html`<br />${problem.hint}`}</div>`)}
    <div class="columns">
      <${Role} status=${status} />
      <div><${Me} status=${status} /><${Around} status=${status} peers=${peers} /></div>
    </div>
    <${Rates} />
    <${Homes} homes=${status.homes ?? []} />`;
}

function Around({ status, peers }) {
  return html`<section class="card"><h2>The network from here</h2>
    <p>${count(status.ultrapeers, "ultrapeer")} in ${count(status.shards, "shard")} of the network <strong>${status.network}</strong>.</p>
    <${Picture} status=${status} peers=${peers} /></section>`;
}

function Role({ status }) {
  const { ultrapeer, election, volunteer } = status;
  const missing = (election ?? []).filter(criterion => criterion.met === false);
  const why = ultrapeer ? `It serves as an ultrapeer (${ultrapeer.state}): ${count(ultrapeer.leaves, "leaf").replace("leafs", "leaves")} of at most ${ultrapeer.max_leaves.toLocaleString("en")}, ${count(ultrapeer.index_files, "file")} in its index (${size(ultrapeer.index_bytes)}), ${ultrapeer.queries_per_s.toFixed(1)} queries a second.`
    : volunteer === "never" ? "It is a leaf, because it does not volunteer to be an ultrapeer."
      : missing.length ? `It is a leaf. What stands in the way of serving as an ultrapeer: ${missing.map(one => (CRITERIA[one.name] ?? one.name).toLowerCase()).join(", ")}.`
        : "It is a leaf that could serve as an ultrapeer, and will if it is needed.";
  return html`<section class="card"><h2>Role: ${status.role}</h2><p>${why}</p>
    ${election && html`<div class="scroll" tabindex="0" role="region" aria-label="Criteria"><table><thead><tr><th>Criterion</th><th>Is</th><th>Should be</th></tr></thead>
      <tbody>${election.map(one => html`<tr><td><span class="mark ${one.met == null ? "" : one.met ? "good" : "bad"}">${one.met == null ? "?" : one.met ? "✓" : "✗"}<span class="visually-hidden">${one.met == null ? " unknown" : one.met ? " met" : " not met"}</span></span> ${CRITERIA[one.name] ?? one.name}</td>
        <td>${one.have ?? "not measured"}</td><td>${one.want ?? "–"}</td></tr>`)}</tbody></table></div>`}
  </section>`;
}

function Me({ status }) {
  const [text, advice] = REACHABILITY[status.reachability] ?? [status.reachability, null];
  return html`<section class="card"><h2>Reachability: ${status.reachability}</h2><p>${text}${advice && html`<br /><small>${advice}</small>`}</p>
    <dl class="facts">
      <dt>Peer id</dt><dd class="mono">${status.peer_id} <${Copy} text=${status.peer_id} /></dd>
      <dt>Listens at</dt><dd class="mono">${status.listen ?? "–"}</dd>
      <dt>Seen at</dt><dd class="mono">${status.observed.length ? status.observed.join(", ") : "–"}</dd>
      <dt>Online for</dt><dd>${duration(status.uptime_s)}</dd>
      <dt>Version</dt><dd>${status.version}</dd>
    </dl></section>`;
}

function Homes({ homes }) {
  return html`<section><h2>${count(homes.length, "home")}</h2>
    ${homes.length ? html`<div class="scroll nowrap" tabindex="0" role="region" aria-label="Homes"><table><thead><tr><th>Ultrapeer</th><th>Address</th><th>Round trip</th><th>Since</th><th>Files of mine</th></tr></thead>
      <tbody>${homes.map(home => html`<tr key=${home.peer}><td class="mono" title=${home.peer}>${short(home.peer)}</td><td class="mono">${home.address}</td><td>${milliseconds(home.rtt_ms)}</td>
        <td>${time(home.since_at)}</td><td>${home.acknowledged.toLocaleString("en")}</td></tr>`)}</tbody></table></div>`
      : html`<${Empty}>This node is attached to no ultrapeer. Add the address of a node of the network to <a href="#/settings">join</a> in the settings.</${Empty}>`}
  </section>`;
}

function Rates() {
  const [hours, setHours] = useState(1);
  const [history, setHistory] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    const look = () => get(`history?hours=${hours}`).then(answer => { setHistory({ ...answer, hours }); setError(null); }, setError);
    look();
    const timer = setInterval(look, LOOK);
    return () => clearInterval(timer);
  }, [hours]);
  return html`<section class="card"><header><h2>Rates</h2><div class="chips" role="group" aria-label="Span">${SPANS.map(([span, label]) => html`
      <button type="button" class="chip" aria-pressed=${hours === span} onClick=${() => setHours(span)}>${label}</button>`)}</div></header>
    ${!history && html`<${Problem} error=${error} />`}
    ${history && (history.series.download.length > 1 ? html`<${Chart} history=${history} hours=${history.hours} />` : html`<${Empty}>There is a chart after some seconds.</${Empty}>`)}
  </section>`;
}
