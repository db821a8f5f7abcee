// Requests to the daemon. The token comes in the address's fragment, is kept for this tab, and goes into headers only.

const ROOT = "/api/v1/";
const TOKEN_KEY = "token";

/** Takes the token out of the address bar. */
export function takeToken() {
  const found = /[#&]token=([^&]*)/.exec(location.hash);
  if (!found) return;
  setToken(decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname + "#/search");
}

export const setToken = token => sessionStorage.setItem(TOKEN_KEY, token.trim());
export const hasToken = () => Boolean(sessionStorage.getItem(TOKEN_KEY));

/** Other tabs of this page give the token to a new one, and take it from one that has it. */
export function shareToken(taken) {
  const channel = new BroadcastChannel("token");
  channel.onmessage = ({ data }) => {
    const own = sessionStorage.getItem(TOKEN_KEY);
    if (data === "wanted" && own) channel.postMessage({ token: own });
    if (data.token && !own) {
      setToken(data.token);
      taken();
    }
  };
  if (!hasToken()) channel.postMessage("wanted");
}

/** What the daemon refused, or `code: "gone"` if it does not answer. */
export class Refusal extends Error {
  constructor(error) {
    super(error.message);
    Object.assign(this, { code: error.code, hint: error.hint, position: error.position, status: error.status });
  }
}

async function send(method, path, { body, headers, signal } = {}) {
  const token = sessionStorage.getItem(TOKEN_KEY) ?? "";
  let answer;
  try {
    answer = await fetch(ROOT + path, {
      method, signal, cache: "no-store",
      headers: { Authorization: `Bearer ${token}`, ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal({ code: "gone", message: "the daemon does not answer" });
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  const error = told?.error ?? { code: "internal", message: `the daemon answered with status ${answer.status}` };
  throw new Refusal({ ...error, status: answer.status });
}

async function json(method, path, { body, signal } = {}) {
  const answer = await send(method, path, { body, signal });
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

export const get = (path, { signal } = {}) => json("GET", path, { signal });
export const post = (path, body) => json("POST", path, { body });
export const patch = (path, body) => json("PATCH", path, { body });
export const remove = path => json("DELETE", path);
export const segment = encodeURIComponent;

/** All items of a list that is known to be short enough. */
export async function all(path, { most = 20000, signal } = {}) {
  const items = [];
  let cursor = null;
  do {
    const mark = path.includes("?") ? "&" : "?";
    const page = await get(`${path}${mark}limit=1000${cursor ? `&cursor=${segment(cursor)}` : ""}`, { signal });
    items.push(...page.items);
    cursor = page.next;
  } while (cursor && items.length < most);
  return items;
}

/**
 * Server-sent events, with the token that `EventSource` cannot send. Calls `on({id, event, data})` for each, `heard()`
 * for anything that comes, and returns when the stream ends; throws when it breaks.
 */
export async function events(path, { on, opened, heard, lastId, signal }) {
  const headers = lastId ? { "Last-Event-ID": lastId } : {};
  const answer = await send("GET", path, { headers, signal });
  opened?.();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard?.();
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const frame = { id: null, event: "message", data: "" };
      for (const line of block.split("\n")) {
        const colon = line.indexOf(":");
        if (colon > 0) frame[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
      }
      if (frame.data) on({ ...frame, data: JSON.parse(frame.data) });
    }
  }
}
