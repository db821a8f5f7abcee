// Wishes: queries that stay, and what they found.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { all, post, remove } from "./api.js";
import { drop, put } from "./store.js";
import { Carry } from "./carry.js";
import { List } from "./list.js";
import { Empty, Name, Problem, Sure, useAction } from "./parts.js";
import { about } from "./search.js";
import { count, parseSize, size, time } from "./format.js";

export function Wishes({ state }) {
  const [run, error, busy] = useAction();
  const [download, setDownload] = useState(false);
  const wishes = [...state.wishes.values()].sort((a, b) => (b.created_at ?? "").localeCompare(a.created_at ?? ""));
  const add = event => {
    event.preventDefault();
    const { query, most } = event.target.elements;
    run(async () => {
      const text = most?.value.trim();
      const max_size = text ? parseSize(text) : null;
      if (text && !max_size) throw new Error(`“${text}” is no size; write it like 500 MB`);
      put("wish", await post("wishes", { query: query.value, download, ...(max_size ? { max_size } : {}) }));
      query.value = "";
    });
  };
  return html`
    <p class="lead">A wish is a query that stays: you are told as soon as somebody shares what it matches.</p>
    <form class="line" onSubmit=${add}>
      <label class="grow">Query<input name="query" required maxlength="512" autocomplete="off" spellcheck=${false} placeholder="artist:beatles ext:flac" /></label>
      <label class="check"><input type="checkbox" checked=${download} onChange=${event => setDownload(event.target.checked)} /> Download what it finds</label>
      ${download && html`<label>up to<input name="most" size="9" placeholder="500 MB" autocomplete="off" /></label>`}
      <button disabled=${busy}>Wish</button>
    </form>
    <${Problem} error=${error} />
    ${wishes.length ? html`<ul class="list cards" aria-label="Wishes">${wishes.map(wish => html`<li key=${wish.id}><${Wish} wish=${wish} state=${state} run=${run} /></li>`)}</ul>`
      : html`<${Empty}>You wish for nothing yet.</${Empty}>`}
    <${Carry} parts=${["wishes"]} />`;
}

function Wish({ wish, state, run }) {
  const [open, setOpen] = useState(false);
  const forget = () => run(async () => {
    await remove(`wishes/${wish.id}`);
    drop("wish", wish.id);
  });
  return html`<article class="card">
    <header><h2><${Name} text=${wish.query} /></h2><span>${count(wish.hits, "hit")}</span></header>
    <p>${wish.download ? `downloads what it finds${wish.max_size ? `, up to ${size(wish.max_size)}` : ""}` : "tells only"};
      ${" "}made ${time(wish.created_at)}${wish.last_hit_at && `, last hit ${time(wish.last_hit_at)}`}</p>
    <p class="actions"><button type="button" class="quiet" aria-expanded=${open} disabled=${!wish.hits} onClick=${() => setOpen(!open)}>${open ? "Hide hits" : "Show hits"}</button>
      <${Sure} label="Remove" question="Remove this wish?" act=${forget} /></p>
    ${open && html`<${Hits} wish=${wish} state=${state} />`}
  </article>`;
}

function Hits({ wish, state }) {
  const [hits, setHits] = useState([]);
  const [run, error] = useAction();
  useEffect(() => { run(async () => setHits(await all(`wishes/${wish.id}/hits`))); }, [wish.id, wish.hits]);
  const jobs = new Map([...state.downloads.values()].map(job => [job.content, job]));
  const fetchIt = hit => run(async () => put("download", await post("downloads", { content: hit.content })));
  return html`<${Problem} error=${error} /><${List} kind="hits" label="Hits" items=${hits} id=${hit => hit.content} row=${hit => html`<div class="row hit">
    <div class="what"><span class="title"><${Name} text=${hit.name} /></span><p class="sub"><${Name} text=${about(hit)} /></p></div>
    <span class="number">${size(hit.size)}</span><span class="number">${count(hit.sources, "source")}</span>
    <span class="act">${jobs.has(hit.content) ? html`<a href="#/transfers">${jobs.get(hit.content).state}</a>`
      : hit.have === "yes" ? html`<span class="state good">here already</span>`
        : html`<button type="button" onClick=${() => fetchIt(hit)}>Download</button>`}</span></div>`} />`;
}
