// Long lists: beyond LONG rows only those near the window are in the document. Rows have one height, that of `--row`.

import { html, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";

const LONG = 300;
/** Rows beside the visible ones, so that keys and fast scrolling find something. */
const BESIDE = 12;

/** `row(item, index)` gives the inside of an `<li>`; `id(item)` tells items apart. */
export function List({ items, row, id, label, kind = "" }) {
  const list = useRef(null);
  const [range, setRange] = useState([0, LONG]);
  const isLong = items.length > LONG;

  useLayoutEffect(() => {
    if (!isLong) return undefined;
    const look = () => {
      if (!list.current) return;
      const height = rowHeight(list.current);
      const above = -list.current.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(above / height) - BESIDE);
      const last = Math.min(items.length, Math.ceil((above + innerHeight) / height) + BESIDE);
      setRange(known => (known[0] === first && known[1] === last ? known : [first, Math.max(last, first)]));
    };
    look();
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    return () => {
      removeEventListener("scroll", look);
      removeEventListener("resize", look);
    };
  }, [isLong, items.length]);

  const [first, last] = isLong ? range : [0, items.length];
  const height = isLong && list.current ? rowHeight(list.current) : 0;
  const space = { paddingTop: `${first * height}px`, paddingBottom: `${Math.max(0, items.length - last) * height}px` };
  return html`<ul class="list ${kind}" ref=${list} aria-label=${label} style=${isLong ? space : {}}>
    ${items.slice(first, last).map((item, index) => html`
      <li key=${id(item)} aria-setsize=${items.length} aria-posinset=${first + index + 1}>${row(item, first + index)}</li>`)}
  </ul>`;
}

function rowHeight(list) {
  return parseFloat(getComputedStyle(list).getPropertyValue("--row")) || 64;
}
