// Browse: what one peer shares, a page at a time.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { get, post, segment } from "./api.js";
import { put } from "./store.js";
import { List } from "./list.js";
import { Empty, Name, Problem, useAction } from "./parts.js";
import { count, short, size, time } from "./format.js";

/** Items of a page. A share may have a million; no more of them are ever here. */
const PAGE = 200;

export const address = (peer, path) => `#/browse/${[peer, ...path.split("/")].filter(Boolean).map(segment).join("/")}`;

export function Browse({ parts, state }) {
  const [peer, ...path] = parts;
  return peer ? html`<${Share} key=${peer} peer=${peer} path=${path.filter(Boolean).join("/")} state=${state} />` : html`<${Choose} state=${state} />`;
}

function Choose({ state }) {
  const leaves = [...state.peers.values()].filter(peer => peer.role === "leaf");
  const go = event => {
    event.preventDefault();
    location.hash = address(event.target.elements.peer.value.trim(), "");
  };
  return html`<p class="lead">Look into the shares of a peer. Search results name peers, too.</p>
    <form class="line" onSubmit=${go}><label class="grow">Peer id, or its first 8 characters<input name="peer" required minlength="8" autocomplete="off" spellcheck=${false} /></label><button>Browse</button></form>
    <h2>Known peers</h2>
    <${List} kind="plain" label="Known peers" id=${peer => peer} items=${[state.status.peer_id, ...leaves.map(leaf => leaf.peer).filter(peer => peer !== state.status.peer_id)]}
      row=${peer => html`<div class="row pair"><a class="mono what" href=${address(peer, "")}>${peer}</a><small>${peer === state.status.peer_id ? "this node" : ""}</small></div>`} />`;
}

function Share({ peer, path, state }) {
  const [page, setPage] = useState(null);
  const [cursors, setCursors] = useState([null]);
  const [run, error, busy] = useAction();
  const [job, refused, starting] = useAction();
  const [said, setSaid] = useState(null);
  const turn = marks => run(async () => {
    const cursor = marks.at(-1);
    setPage(await get(`browse/${segment(peer)}?limit=${PAGE}&path=${segment(path)}${cursor ? `&cursor=${segment(cursor)}` : ""}`));
    setCursors(marks);
    scrollTo(0, 0);
  });
  useEffect(() => {
    setPage(null);
    setSaid(null);
    turn([null]);
  }, [peer, path]);

  const isMe = peer === state.status.peer_id;
  const fetchIt = (what, name) => job(async () => {
    const made = await post("downloads", { peer, path: what });
    const jobs = made.items ?? [made];
    jobs.forEach(one => put("download", one));
    setSaid(jobs.length === 1 ? name : count(jobs.length, "file"));
  });
  const ban = () => job(async () => {
    await post("bans", { target: peer });
    setSaid(null);
    location.hash = "#/settings/bans";
  });
  const folders = path ? path.split("/") : [];
  const jobs = new Map([...state.downloads.values()].map(one => [one.content, one]));
  const items = page?.items ?? [];
  return html`
    <nav class="crumbs" aria-label="Folder"><a class="mono" href=${address(peer, "")} title=${peer}>${isMe ? "this node" : short(peer)}</a>
      ${folders.map((name, index) => html`<span aria-hidden="true">/</span><a href=${address(peer, folders.slice(0, index + 1).join("/"))} title=${name} aria-current=${index === folders.length - 1 ? "page" : undefined}><${Name} text=${name} /></a>`)}</nav>
    <div class="tools">
      ${!isMe && path && html`<button type="button" disabled=${starting} onClick=${() => fetchIt(path, path)}>Download this folder</button>`}
      ${!isMe && html`<button type="button" class="quiet danger" disabled=${starting} onClick=${ban}>Block this peer</button>`}
      <span class="grow"></span>
      <button type="button" class="quiet" disabled=${busy || cursors.length < 2} onClick=${() => turn(cursors.slice(0, -1))}>Previous page</button>
      <span>Page ${cursors.length}</span>
      <button type="button" class="quiet" disabled=${busy || !page?.next} onClick=${() => turn([...cursors, page.next])}>Next page</button>
    </div>
    <${Problem} error=${error ?? refused} />
    ${said && html`<p class="notice" role="status">Downloading <${Name} text=${said} />. <a href="#/transfers">Transfers</a></p>`}
    ${page && !items.length && html`<${Empty}>There is nothing here.</${Empty}>`}
    ${!page && !error && html`<${Empty}>Asking the peer …</${Empty}>`}
    <${List} kind="files" label="Files and folders" items=${items} id=${item => item.path} row=${item => html`<div class="row file">
      ${item.type === "folder" ? html`<div class="what"><a class="title folder" href=${address(peer, item.path)}><${Name} text=${item.name} /></a></div>
          <span class="number">${size(item.bytes)}</span><span class="number">${count(item.files, "file")}</span>`
        : html`<div class="what"><span class="title"><${Name} text=${item.name} /></span></div>
          <span class="number">${size(item.size)}</span><span class="number">${time(item.modified_at)}</span>`}
      <span class="act">${isMe ? null : jobs.has(item.content) ? html`<a href="#/transfers">${jobs.get(item.content).state}</a>`
        : html`<button type="button" class="quiet" disabled=${starting} onClick=${() => fetchIt(item.path, item.name)}>Download<span class="visually-hidden"> ${item.name.slice(0, 60)}</span></button>`}</span></div>`} />`;
}
