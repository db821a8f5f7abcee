// What the page knows of the daemon: lists loaded once, then kept up to date by its events.

import { useEffect, useState } from "./vendor/htm-preact.js";
import { all, events, get, hasToken } from "./api.js";

/** Time between two redraws, in ms: the daemon's own progress comes no faster. */
const REDRAW = 250;
/** Time between two looks at what events do not tell, such as round trips, in ms. */
const LOOK = 5000;
const RETRY = [500, 1000, 2000, 4000];
/** Time without a word after which a connection counts as broken, in ms: the daemon says something every 15 s. */
const SILENCE = 40000;
/** Time for a new connection to be answered, and everything to be loaded, in ms. */
const ANSWER = 20000;
/** Time after which a tab that nobody sees listens no more, in ms: a browser keeps six connections to one host, for all tabs. */
const REST = 30000;
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

async function load(signal) {
  const kinds = Object.values(LISTS);
  const [status, logs, ...lists] = await Promise.all([
    get("status", { signal }), all("logs", { signal }), ...kinds.map(([list]) => all(list, { signal })),
  ]);
  state.status = status;
  state.logs = logs.slice(-LOG_LINES);
  kinds.forEach(([list, key], index) => {
    state[list] = new Map(lists[index].map(item => [item[key], item]));
  });
  changed();
}

/** The connection of now: when something came, how long it may be silent, and what ends it. */
const line = { heard: Date.now(), patience: ANSWER, cut: () => {} };
const hear = () => { line.heard = Date.now(); };
let running = null;
let isResting = false;
let wake = () => {};

/** Follows the daemon until the page is closed: loads, listens, and begins again when the connection breaks. */
export async function follow() {
  running?.abort();
  const run = running = new AbortController();
  let lastId = null;
  let failures = 0;
  while (!run.signal.aborted) {
    if (isResting) await new Promise(resolve => { wake = resolve; });
    let wasOpen = false;
    let isCut = false;
    try {
      if (!hasToken()) return setConnection("unauthorized");
      await listen(run.signal);
    } catch (error) {
      if (run.signal.aborted) return;
      if (error.status === 401) return setConnection("unauthorized");
    }
    // What was cut here, after a sleep of this machine perhaps, says nothing of the daemon yet.
    if (isCut && wasOpen) continue;
    setConnection("gone");
    await new Promise(resolve => setTimeout(resolve, RETRY[Math.min(failures++, RETRY.length - 1)]));

    async function listen(signal) {
      const stream = new AbortController();
      const end = () => stream.abort();
      signal.addEventListener("abort", end);
      Object.assign(line, { patience: ANSWER, cut: () => { isCut = true; end(); } });
      hear();
      const waiting = [];
      let loaded = false;
      try {
        await events("events", {
          lastId, signal: stream.signal, heard: hear,
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
        await load(stream.signal);
        loaded = wasOpen = true;
        waiting.splice(0).forEach(take);
        failures = 0;
        line.patience = SILENCE;
        hear();
        setConnection("open");
      }
    }
  }
}

let rest = null;

/** A tab that nobody sees leaves its connection to others after a while, and knows everything again when it is seen. */
function restUnseen() {
  clearTimeout(rest);
  if (document.hidden) {
    rest = setTimeout(() => {
      isResting = true;
      line.cut();
    }, REST);
  } else if (isResting) {
    isResting = false;
    wake();
  }
}

document.addEventListener("visibilitychange", restUnseen);
restUnseen();

let isLooking = false;
let looked = Date.now();
setInterval(async () => {
  const now = Date.now();
  const slept = now - looked;
  looked = now;
  // Somebody has set the clock back.
  if (now < line.heard) hear();
  // What came at last may have come before the machine slept.
  if (now - line.heard > line.patience || slept > SILENCE) line.cut();
  if (state.connection !== "open" || document.hidden || isLooking) return;
  isLooking = true;
  try {
    state.status = await get("status", { signal: AbortSignal.timeout(SILENCE) });
    changed();
  } catch (error) {
    // The stream may not have noticed yet.
    if (error.code === "gone") line.cut();
  }
  isLooking = false;
}, LOOK);
