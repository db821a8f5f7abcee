// Small parts that several pages use.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { pieces, short } from "./format.js";

/** A file name of strangers: in its own direction, with what is invisible made visible. */
export function Name({ text, title }) {
  return html`<bdi class="name" title=${title}>${pieces(text).map(piece =>
    piece.hidden ? html`<span class="hidden-char">${piece.hidden}</span>` : piece.text)}</bdi>`;
}

export function Problem({ error }) {
  if (!error) return null;
  return html`<p class="notice bad" role="alert">${error.message}${error.hint && html`<br /><small>${error.hint}</small>`}</p>`;
}

/** `[run, error, busy]`: runs an action and keeps what it was refused for. */
export function useAction() {
  const [state, setState] = useState({ error: null, busy: false });
  const alive = useRef(true);
  useEffect(() => () => { alive.current = false; }, []);
  const run = async action => {
    setState({ error: null, busy: true });
    let error = null;
    let value;
    try {
      value = await action();
    } catch (refusal) {
      error = refusal;
    }
    if (alive.current) setState({ error, busy: false });
    return error ? undefined : (value ?? true);
  };
  return [run, state.error, state.busy];
}

export function Copy({ text, label = "Copy" }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard?.writeText(text).then(() => setDone(true), () => setDone(false));
    setTimeout(() => setDone(false), 2000);
  };
  return html`<button type="button" class="quiet" onClick=${copy}>${done ? "Copied" : label}</button>`;
}

/** A peer: the beginning of its id, which leads to its share. */
export function Peer({ id, me }) {
  if (id === me) return html`<span class="mono">this node</span>`;
  return html`<a class="mono" href="#/browse/${id}" title="Browse ${id}">${short(id)}</a>`;
}

export function Bar({ part, whole, label }) {
  return html`<progress max=${whole || 1} value=${Math.min(part, whole || 1)} aria-label=${label}></progress>`;
}

/** A modal window; Esc and a click beside it close it. */
export function Dialog({ title, close, children }) {
  const dialog = useRef(null);
  useEffect(() => {
    const node = dialog.current;
    const before = document.activeElement;
    node.showModal();
    return () => {
      node.close();
      before?.focus?.({ preventScroll: true });
    };
  }, []);
  const beside = event => event.target === dialog.current && close();
  return html`<dialog ref=${dialog} aria-labelledby="dialog-title" onClick=${beside} onCancel=${event => { event.preventDefault(); close(); }}>
    <div class="dialog">
      <header><h2 id="dialog-title">${title}</h2><button type="button" class="quiet" onClick=${close}>Close</button></header>
      ${children}
    </div>
  </dialog>`;
}

/** A button that asks once more before it acts. */
export function Sure({ label, question, act, kind = "quiet danger" }) {
  const [asking, setAsking] = useState(false);
  useEffect(() => {
    if (!asking) return undefined;
    const timer = setTimeout(() => setAsking(false), 5000);
    return () => clearTimeout(timer);
  }, [asking]);
  const click = () => {
    setAsking(!asking);
    if (asking) act();
  };
  return html`<button type="button" class=${kind} aria-live="polite" onClick=${click}>${asking ? question : label}</button>`;
}

export function Empty({ children }) {
  return html`<p class="empty">${children}</p>`;
}
