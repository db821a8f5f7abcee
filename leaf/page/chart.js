// Rates over time, drawn by uPlot in the colours of the page.

import { html, useEffect, useRef } from "./vendor/htm-preact.js";
import uPlot from "./vendor/uplot.js";
import { rate } from "./format.js";

const HEIGHT = 200;
/** Seconds that are shown at least. */
const SHORTEST = 900;

const clock = at => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

/** `history` is the answer of `GET history` for that many hours. */
export function Chart({ history, hours }) {
  const place = useRef(null);
  useEffect(() => {
    const style = getComputedStyle(place.current);
    const color = name => style.getPropertyValue(name).trim();
    const axis = { stroke: color("--faint"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const line = (label, name) => ({
      label, stroke: color(name), width: 2, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }), value: (_, value) => (value == null ? "–" : rate(value)),
    });
    const from = Date.parse(history.from_at) / 1000;
    const { upload, download } = history.series;
    const times = download.map((_, index) => from + index * history.step_s);
    const end = from + times.length * history.step_s;
    const chart = new uPlot({
      width: place.current.clientWidth, height: HEIGHT, cursor: { drag: { x: false, y: false } },
      scales: { x: { range: () => [Math.max(end - hours * 3600, Math.min(from, end - SHORTEST)), end] }, y: { range: (_, low, high) => [0, Math.max(high ?? 0, 1000) * 1.1] } },
      axes: [{ ...axis, size: 30, values: (_, ticks) => ticks.map(clock) }, { ...axis, size: 84, values: (_, ticks) => ticks.map(rate) }],
      series: [{ value: (_, at) => (at == null ? "–" : clock(at)) }, line("Download", "--accent"), line("Upload", "--second")],
    }, [times, download, upload], place.current);
    const resize = () => place.current && chart.setSize({ width: place.current.clientWidth, height: HEIGHT });
    addEventListener("resize", resize);
    return () => {
      removeEventListener("resize", resize);
      chart.destroy();
    };
  }, [history]);
  const last = list => rate(list.at(-1) ?? 0);
  return html`<div class="chart" ref=${place} role="img"
    aria-label="Rates: download now ${last(history.series.download)}, upload now ${last(history.series.upload)}"></div>`;
}
