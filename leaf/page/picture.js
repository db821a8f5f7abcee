// The overlay as this node sees it: ultrapeers on a ring, by shard, this node in the middle, its homes linked with it.

import { html } from "./vendor/htm-preact.js";
import { milliseconds, short } from "./format.js";

const [WIDTH, HEIGHT] = [480, 320];
/** Ultrapeers that are drawn at most; more are counted. */
const MOST = 48;

export function Picture({ status, peers }) {
  const all = peers.filter(peer => peer.role === "ultrapeer").sort((a, b) =>
    b.home - a.home || (a.shard_prefix ?? "").localeCompare(b.shard_prefix ?? "") || (a.peer < b.peer ? -1 : 1));
  const drawn = all.slice(0, MOST).sort((a, b) => (a.shard_prefix ?? "").localeCompare(b.shard_prefix ?? "") || (a.peer < b.peer ? -1 : 1));
  const serves = status.ultrapeer != null;
  const place = index => {
    const angle = (2 * Math.PI * index) / Math.max(drawn.length, 1) - Math.PI / 2;
    return [WIDTH / 2 + Math.cos(angle) * 180, HEIGHT / 2 + Math.sin(angle) * 112];
  };
  const radius = drawn.length > 16 ? 9 : 15;
  const homes = drawn.filter(peer => peer.home).length;
  return html`<figure class="overlay">
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="This node is linked with ${homes} of ${all.length} known ultrapeers in ${status.shards} shards">
      ${drawn.map((peer, index) => {
        const [x, y] = place(index);
        return peer.home && html`<line x1=${WIDTH / 2} y1=${HEIGHT / 2} x2=${x} y2=${y} class="link" />`;
      })}
      ${drawn.map((peer, index) => {
        const [x, y] = place(index);
        return html`<g><title>${peer.peer} ${peer.home ? `home, ${milliseconds(peer.rtt_ms)}` : peer.state}</title>
          <circle cx=${x} cy=${y} r=${radius} class="node ${peer.home ? "home" : peer.state}" />
          ${radius > 10 && html`<text x=${x} y=${y + (y < HEIGHT / 2 - 1 ? -21 : 31)} text-anchor="middle">${short(peer.peer).slice(0, 6)} · ${shard(peer.shard_prefix)}</text>`}</g>`;
      })}
      <circle cx=${WIDTH / 2} cy=${HEIGHT / 2} r="21" class="node me" />
      <text class="me" x=${WIDTH / 2} y=${HEIGHT / 2 + 5} text-anchor="middle">me</text>
    </svg>
    <figcaption>${serves ? "This node serves as an ultrapeer. " : ""}Lines lead to the homes of this node; beside each ultrapeer stand the beginning of its id and its shard.
      ${all.length > drawn.length && ` ${all.length - drawn.length} more are not drawn.`}</figcaption>
  </figure>`;
}

const shard = prefix => (prefix ? `shard ${prefix}` : "all shards");
