// What the page knows of the daemon: lists loaded once, then kept up to date by its events.

import { useEffect, useState } from "./vendor/htm-preact.js";
import { all, events, get, hasToken } from "./api.js";

/** Time between two redraws, in ms: the daemon's own progress comes no faster. */
const REDRAW = 250;
/** Time between two looks at what events do not tell, such as round trips, in ms. */
const LOOK = 5000;
const RETRY = [500, 1000, 2000, 4000];
const LOG_LINES = 1000;

/** `connection`: `connecting`, `open`, `gone`, `unauthorized`. */
const state = {
  connection: "connecting", status: null, logs: [],
  downloads: new Map(), uploads: new Map(), shares: new Map(), wishes: new Map(), peers: new Map(),
};
const LISTS = {
  download: ["downloads", "id"], upload: ["uploads", "id"], share: ["shares", "name"],
  wish: ["wishes", "id"], peer: ["peers", "peer"],
};
const listeners = new Set();
let redraw = null;

function changed() {
  redraw ??= setTimeout(() => {
    redraw = null;
    for (const listener of [...listeners]) listener();
  }, REDRAW);
}

function setConnection(connection) {
  if (state.connection === connection) return;
  state.connection = connection;
  changed();
}

/** The store's state; the component is drawn again when it changes. */
export function useStore() {
  const [, draw] = useState(0);
  useEffect(() => {
    const listener = () => draw(count => count + 1);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
  return state;
}

/** Takes an answer of the daemon before its event comes. */
export function put(kind, item) {
  const [list, key] = LISTS[kind];
  state[list].set(item[key], item);
  changed();
}

export function drop(kind, key) {
  state[LISTS[kind][0]].delete(key);
  changed();
}

function take({ event, data }) {
  if (event === "status") {
    state.status = data;
  } else if (event === "log") {
    state.logs.push(data);
    if (state.logs.length > LOG_LINES) state.logs.splice(0, state.logs.length - LOG_LINES);
  } else if (LISTS[event]) {
    const [list, key] = LISTS[event];
    if (data.state === "removed") state[list].delete(data.id);
    else state[list].set(data[key], data);
  }
  changed();
}

async function load() {
  const kinds = Object.values(LISTS);
  const [status, logs, ...lists] = await Promise.all([
    get("status"), all("logs").catch(() => []), ...kinds.map(([list]) => all(list)),
  ]);
  state.status = status;
  state.logs = logs.slice(-LOG_LINES);
  kinds.forEach(([list, key], index) => {
    state[list] = new Map(lists[index].map(item => [item[key], item]));
  });
  changed();
}

let running = null;

/** Follows the daemon until the page is closed: loads, listens, and begins again when the connection breaks. */
export async function follow() {
  running?.abort();
  const run = running = new AbortController();
  let lastId = null;
  let failures = 0;
  while (!run.signal.aborted) {
    try {
      if (!hasToken()) return setConnection("unauthorized");
      await listen(run.signal);
    } catch (error) {
      if (run.signal.aborted) return;
      if (error.status === 401) return setConnection("unauthorized");
    }
    setConnection("gone");
    await new Promise(resolve => setTimeout(resolve, RETRY[Math.min(failures++, RETRY.length - 1)]));
  }

  async function listen(signal) {
    const stream = new AbortController();
    const end = () => stream.abort();
    signal.addEventListener("abort", end);
    const waiting = [];
    let loaded = false;
    try {
      await events("events", {
        lastId, signal: stream.signal,
        // Events that come while the lists are loaded are newer than the lists.
        opened: () => begin().catch(end),
        on: frame => {
          lastId = frame.id ?? lastId;
          if (frame.event === "reset") begin().catch(end);
          else if (loaded) take(frame);
          else waiting.push(frame);
        },
      });
    } finally {
      signal.removeEventListener("abort", end);
      stream.abort();
    }

    async function begin() {
      await load();
      loaded = true;
      waiting.splice(0).forEach(take);
      failures = 0;
      setConnection("open");
    }
  }
}

setInterval(async () => {
  if (state.connection !== "open" || document.hidden) return;
  try {
    state.status = await get("status");
    changed();
  } catch {
    // The stream of events tells that the daemon is gone.
  }
}, LOOK);
