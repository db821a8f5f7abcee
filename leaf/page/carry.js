// Settings, shares, wishes and bans in a file: the one that `quictrack config export` writes and `import` reads.

import { html, useState } from "./vendor/htm-preact.js";
import { all, patch, post } from "./api.js";
import { put } from "./store.js";
import { Name, Problem, useAction } from "./parts.js";
import { count } from "./format.js";

const FORM = 1;
/** Bytes of a file that is read, as the command line has it. */
const MOST = 1 << 20;
const HEAD = "quictrack_export";
/** What each part holds if there is nothing in it. */
const NOTHING = { settings: {}, shares: [], wishes: [], bans: [] };
export const PARTS = Object.keys(NOTHING);

const isOwn = item => item.origin === "settings";
const seconds = at => Math.floor(Date.parse(at) / 1000);
const wished = ({ query, download, max_size }) => ({ query, download: download ?? false, max_size: max_size ?? null });
const alike = (a, b) => JSON.stringify(wished(a)) === JSON.stringify(wished(b));

const READ = {
  settings: async () => Object.fromEntries((await all("config")).filter(isOwn).map(({ key, value }) => [key, value])),
  shares: async () => {
    // What the setting `share` holds travels with the settings.
    const set = (await all("config")).find(({ key }) => key === "share");
    return (await all("shares")).map(({ path, origin }) => ({ path, origin })).filter(isOwn).map(({ path }) => path)
      .filter(path => !(isOwn(set) && set.value.includes(path)));
  },
  wishes: async () => (await all("wishes")).map(wished),
  bans: async () => (await all("bans")).filter(isOwn).map(({ target, reason, created_at, expires_at }) => (
    { target, reason, created_s: seconds(created_at), expires_s: expires_at ? seconds(expires_at) : null })),
};

/** Changes nothing or everything for the settings; of the other parts it calls `each` for what is not here yet. */
const TAKE = {
  settings: async settings => {
    const number = Object.keys(settings).length;
    if (number) await patch("config", settings);
    return number;
  },
  shares: async (paths, each) => {
    const known = new Set((await all("shares")).map(share => share.path));
    return each(paths.filter(path => !known.has(path)), async path => put("share", await post("shares", { path })));
  },
  wishes: async (wishes, each) => {
    const known = await all("wishes");
    return each(wishes.filter(wish => !known.some(one => alike(one, wish))), async wish => {
      const { query, download, max_size } = wished(wish);
      put("wish", await post("wishes", { query, download, ...(max_size == null ? {} : { max_size }) }));
    });
  },
  bans: async (bans, each) => {
    const known = new Set((await all("bans")).map(ban => ban.target));
    const now = Math.floor(Date.now() / 1000);
    const counts = ban => ban.expires_s == null || ban.expires_s > now;
    return each(bans.filter(ban => counts(ban) && !known.has(ban.target)), ({ target, reason, expires_s }) => (
      post("bans", { target, ...(reason ? { reason } : {}), ...(expires_s == null ? {} : { for_s: expires_s - now }) })));
  },
};

async function write(parts) {
  const content = { [HEAD]: FORM, ...NOTHING };
  for (const part of parts) content[part] = await READ[part]();
  const url = URL.createObjectURL(new Blob([`${JSON.stringify(content, null, 2)}\n`], { type: "application/json" }));
  Object.assign(document.createElement("a"), { href: url, download: `quictrack-${parts.length > 1 ? "settings" : parts[0]}.json` }).click();
  // Not before the browser has begun to save it.
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

const isObject = held => held !== null && typeof held === "object" && !Array.isArray(held);
const isList = (held, fits) => Array.isArray(held) && held.every(fits);
const IS_RIGHT = {
  settings: isObject, shares: held => isList(held, path => typeof path === "string"),
  wishes: held => isList(held, isObject), bans: held => isList(held, isObject),
};

/** The parts of a file, all of them of the right shape. */
async function parse(file) {
  const unreadable = why => new Error(`“${file.name}” holds no exported settings: ${why}`);
  if (file.size > MOST) throw unreadable("it is too large");
  let read;
  try {
    read = JSON.parse(await file.text());
  } catch {
    throw unreadable("it is no JSON");
  }
  if (read?.[HEAD] !== FORM) throw unreadable(`it does not begin with "${HEAD}": ${FORM}`);
  const { [HEAD]: form, ...parts } = read;
  for (const [part, held] of Object.entries(parts)) {
    if (!PARTS.includes(part) || !IS_RIGHT[part](held)) throw unreadable(`“${part}” is not known, or not what it should be`);
  }
  return { ...NOTHING, ...parts };
}

const NAMES = { settings: "setting", shares: "share", wishes: "wish", bans: "ban" };
const counted = (number, part) => (part === "wishes" && number !== 1 ? `${number.toLocaleString("en")} wishes` : count(number, NAMES[part]));

/** Saves `parts` to a file and takes them over from one; `taken` is called after that. */
export function Carry({ parts, taken }) {
  const [told, setTold] = useState(null);
  const [run, error, busy] = useAction();
  const read = event => {
    const [file] = event.target.files;
    // The same file can be chosen again.
    event.target.value = "";
    if (!file) return;
    setTold(null);
    run(async () => {
      const content = await parse(file);
      const [numbers, refused] = [[], []];
      const each = async (items, act) => {
        let done = 0;
        for (const item of items) {
          await act(item).then(() => { done += 1; }, refusal => refused.push(refusal.message));
        }
        return done;
      };
      for (const part of parts) numbers.push(counted(await TAKE[part](content[part], each), part));
      setTold({ numbers, refused });
      await taken?.();
    });
  };
  return html`<div id="carry">
    <p class="actions"><button type="button" class="quiet" disabled=${busy} onClick=${() => run(() => write(parts))}>Save to a file</button>
      <label class="button quiet">Take over from a file<input type="file" class="visually-hidden" accept=".json,application/json" disabled=${busy} onChange=${read} /></label></p>
    <${Problem} error=${error} />
    ${told && html`<div class="notice" role="status">New here: ${told.numbers.join(", ")}.
      ${told.refused.map(message => html`<br /><small>Left out: <${Name} text=${message} /></small>`)}</div>`}</div>`;
}
