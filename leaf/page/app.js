// The frame around the pages: navigation by the address's fragment, and what is said when the daemon is gone.

import { html, render, useEffect, useState } from "./vendor/htm-preact.js";
import { setToken, shareToken, takeToken } from "./api.js";
import { follow, useStore } from "./store.js";
import { rate } from "./format.js";
import { Search } from "./search.js";
import { Transfers } from "./transfers.js";
import { Shared } from "./shared.js";
import { Wishes } from "./wishes.js";
import { Browse } from "./browse.js";
import { Network } from "./network.js";
import { Settings } from "./settings.js";
import { Logs } from "./logs.js";

const PAGES = {
  search: ["Search", Search], transfers: ["Transfers", Transfers], shared: ["Shared", Shared], wishes: ["Wishes", Wishes],
  browse: ["Browse", Browse], network: ["Network", Network], settings: ["Settings", Settings], logs: ["Logs", Logs],
};

/** `#/browse/PEER/a/b` is page `browse` with the parts `PEER`, `a`, `b`. */
function route() {
  const [page, ...parts] = location.hash.replace(/^#\/?/, "").split("/").map(part => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return PAGES[page] ? { page, parts } : { page: "search", parts: [] };
}

function App() {
  const state = useStore();
  const [at, setAt] = useState(route());
  useEffect(() => {
    const move = () => {
      if (location.hash.includes("token=")) {
        takeToken();
        follow();
      }
      const next = route();
      setAt(known => {
        if (known.page !== next.page) scrollTo(0, 0);
        return next;
      });
    };
    addEventListener("hashchange", move);
    return () => removeEventListener("hashchange", move);
  }, []);
  const [title, Page] = PAGES[at.page];
  useEffect(() => { document.title = `${title} – Quictrack`; }, [title]);

  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to content</a>
    <header class="top">
      <a class="brand" href="#/search">Quictrack</a>
      <nav aria-label="Pages">${Object.entries(PAGES).map(([page, [label]]) => html`
        <a href="#/${page}" aria-current=${page === at.page ? "page" : undefined}>${label}${badge(page, state)}</a>`)}
      </nav>
      <${Rates} status=${state.status} />
    </header>
    <${Connection} state=${state} />
    <main id="main" tabindex="-1">
      <h1 class=${at.page === "search" ? "visually-hidden" : ""}>${title}</h1>
      ${state.connection === "unauthorized" ? html`<${Token} />`
        : state.status ? html`<${Page} key=${at.page} parts=${at.parts} state=${state} />`
          : html`<p class="empty">Connecting to the daemon …</p>`}
    </main>`;
}

/** A link to `#main` would be taken for a page. */
function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function badge(page, state) {
  const counts = state.status?.downloads ?? {};
  const number = page === "transfers" ? (counts.active ?? 0) + (counts.queued ?? 0) + (counts.stalled ?? 0)
    : page === "network" ? (state.status?.problems.length ?? 0) : 0;
  if (!number) return null;
  const meaning = page === "transfers" ? "running or waiting" : "problems";
  return html` <span class="badge">${number}<span class="visually-hidden"> ${meaning}</span></span>`;
}

function Rates({ status }) {
  if (!status) return null;
  return html`<p class="rates"><span title="Download">↓<span class="visually-hidden"> download</span> ${rate(status.download_rate ?? 0)}</span>
    <span title="Upload">↑<span class="visually-hidden"> upload</span> ${rate(status.upload_rate ?? 0)}</span></p>`;
}

function Connection({ state }) {
  if (state.connection === "gone") {
    return html`<p class="notice bad" role="alert" id="gone">The daemon does not answer. What you see is what was last known;
      this page goes on by itself when it is back. To start it: <code>quictrack leaf</code></p>`;
  }
  if (state.connection === "open" && state.status && !state.status.ready) {
    return html`<p class="notice" role="status">Not in the network yet: searches find nothing of others.
      <a href="#/network">What to do</a></p>`;
  }
  return null;
}

function Token() {
  const submit = event => {
    event.preventDefault();
    const text = event.target.elements.token.value.trim();
    setToken(/token=(\S+)/.exec(text)?.[1] ?? text);
    follow();
  };
  return html`<section class="card narrow" id="token">
    <h2>This page needs the daemon's token</h2>
    <p>Run <code>quictrack open</code> and use the address that it prints, or paste the token here. It stays in this tab.</p>
    <form onSubmit=${submit} class="line">
      <label class="grow"><span class="visually-hidden">Token</span>
        <input name="token" type="password" autocomplete="off" required placeholder="Token, or the whole address" /></label>
      <button>Go on</button>
    </form>
  </section>`;
}

takeToken();
render(html`<${App} />`, document.getElementById("app"));
follow();
shareToken(follow);
