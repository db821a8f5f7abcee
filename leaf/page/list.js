// Long lists: beyond LONG rows only those near the window are in the document. Rows have one height, that of `--row`.

import { html, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";

/** Every row costs the browser about half a millisecond, and what takes longer than 50 is noticed. */
const LONG = 100;
/** Pixels of a row, at least. */
const LOW = 48;
/** Rows beside the visible ones, so that keys and fast scrolling find something. */
const BESIDE = 12;

/** `row(item, index)` gives the inside of an `<li>`; `id(item)` tells items apart. */
export function List({ items, row, id, label, kind = "" }) {
  const list = useRef(null);
  // First row, last row, height of a row. Before that is known: as many as fit if it is low.
  const [range, setRange] = useState([0, Math.ceil(innerHeight / LOW) + BESIDE, 0]);
  const isLong = items.length > LONG;

  useLayoutEffect(() => {
    if (!isLong) return undefined;
    const look = () => {
      if (!list.current) return;
      const height = rowHeight(list.current);
      const above = -list.current.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(above / height) - BESIDE);
      const last = Math.min(items.length, Math.ceil((above + innerHeight) / height) + BESIDE);
      const next = [first, Math.max(last, first), height];
      setRange(known => (next.every((number, index) => number === known[index]) ? known : next));
    };
    look();
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    return () => {
      removeEventListener("scroll", look);
      removeEventListener("resize", look);
    };
  }, [isLong, items.length]);

  const [first, last, height] = isLong ? range : [0, items.length, 0];
  const space = { paddingTop: `${first * height}px`, paddingBottom: `${Math.max(0, items.length - last) * height}px` };
  return html`<ul class="list ${kind}" ref=${list} aria-label=${label} style=${isLong ? space : {}}>
    ${items.slice(first, last).map((item, index) => html`
      <li key=${id(item)} aria-setsize=${items.length} aria-posinset=${first + index + 1}>${row(item, first + index)}</li>`)}
  </ul>`;
}

function rowHeight(list) {
  return parseFloat(getComputedStyle(list).getPropertyValue("--row")) || 64;
}
