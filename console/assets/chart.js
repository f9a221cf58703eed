// Lines over time, by uPlot. The legend is our own: it is text, it shows the newest values and those under the pointer.
import uPlot from "./vendor/uplot.js";
import { clock } from "./format.js";
import { h, setText } from "./dom.js";

const sync = uPlot.sync("meshtalk");
const all = new Set();

// color is a custom property of the page's theme.
export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

// Chart draws frames. series: {label, color (a custom property), value: (frame) => number | null, dash?}. format is for the
// legend, axis for the axis; log: a scale for what spans decades.
export class Chart {
  constructor({ title, series, format, axis = format, log = false, binary = false, least = 1, unit = "" }) {
    this.options = { title, series, format, axis, log, binary, least: binary ? 1024 : least };
    this.values = series.map(() => h("b", null, "–"));
    this.when = h("span", { class: "when" });
    this.plot = h("div", { class: "plot", role: "img" });
    this.element = h("section", { class: "card chart" },
      h("div", { class: "chart-head" }, h("h2", null, title, unit && h("span", { class: "unit" }, " ", unit)), this.when),
      h("ul", { class: "legend" }, series.map((s, i) =>
        h("li", null, h("span", { class: "swatch " + s.color + (s.dash ? " dash" : ""), "aria-hidden": "true" }), s.label + " ", this.values[i]))),
      this.plot);
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.plot);
    this.data = [[], ...series.map(() => [])];
    this.window = 300;
    all.add(this);
  }

  destroy() {
    this.observer.disconnect();
    this.uplot?.destroy();
    all.delete(this);
  }

  // show draws frames of the last `window` seconds up to `now` (s).
  show(frames, window, now) {
    this.window = window;
    this.now = now;
    this.data = columns(frames, this.options.series, now - window);
    if (this.uplot) this.uplot.setData(this.data);
    else this.resize();
    this.legend();
  }

  resize() {
    const width = Math.floor(this.plot.clientWidth);
    if (width === 0) return;
    if (!this.uplot) this.draw(width);
    else if (this.uplot.width !== width) this.uplot.setSize({ width, height: this.height() });
  }

  height() {
    return Math.max(120, this.plot.clientHeight || 150);
  }

  // draw makes the plot with the colours of the theme.
  draw(width = this.plot.clientWidth) {
    this.uplot?.destroy();
    if (!width) return;
    const { series, axis, log, binary, least } = this.options;
    const grid = { stroke: color("grid"), width: 1 };
    const ticks = { stroke: color("grid"), width: 1, size: 4 };
    const font = "11px " + getComputedStyle(document.body).fontFamily;
    this.uplot = new uPlot({
      width, height: this.height(), pxAlign: 1, padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: sync.key }, drag: { x: false, y: false }, points: { size: 6 }, y: false },
      scales: {
        x: { time: true, range: () => [this.now - this.window, this.now] },
        y: log ? { distr: 3, log: 10, range: (_, min, max) => decades(min, max) } : { range: (_, _min, max) => [0, Math.max(least, (max ?? 0) * 1.12)] },
      },
      axes: [
        { stroke: color("dim"), grid, ticks, font, space: 70, size: 26, values: (_, list) => list.map((v) => clock(v * 1000)) },
        { stroke: color("dim"), grid, ticks, font, size: 58, space: 28, values: (_, list) => list.map((v) => (v === null ? "" : axis(v))),
          ...(log ? { splits: (_u, _i, min, max) => powers(min, max) } : {}), ...(binary ? { incrs: binarySteps } : {}) },
      ],
      series: [{}, ...series.map((s) => ({
        stroke: color(s.color), width: 1.6, points: { show: false }, spanGaps: false, dash: s.dash, paths: uPlot.paths.linear(),
      }))],
      hooks: { setCursor: [() => this.legend()] },
    }, this.data, this.plot);
  }

  // legend shows the values under the pointer, or the newest.
  legend() {
    const { series, format, title } = this.options;
    const i = this.uplot?.cursor.idx ?? null;
    const hovered = i !== null && i !== undefined && this.uplot.cursor.left >= 0;
    const texts = series.map((_, k) => {
      const column = this.data[k + 1];
      const v = hovered ? column[i] : newest(column);
      return v === null || v === undefined ? "–" : format(v);
    });
    texts.forEach((t, k) => setText(this.values[k], t));
    setText(this.when, hovered && this.data[0][i] ? clock(this.data[0][i] * 1000) : "");
    if (!hovered) this.plot.setAttribute("aria-label", title + ": " + series.map((s, k) => s.label + " " + texts[k]).join(", "));
  }
}

// newest is the last value of the last seconds: a latency that nobody had just now is not gone at once.
function newest(column) {
  for (let i = column.length - 1; i >= Math.max(0, column.length - 10); i--) {
    if (column[i] !== null && column[i] !== undefined) return column[i];
  }
  return null;
}

function decades(min, max) {
  if (!(max > 0)) return [0.0001, 0.1];
  return [10 ** Math.floor(Math.log10(Math.max(min, 1e-7))), 10 ** Math.ceil(Math.log10(max) + 1e-9)];
}

// powers are the powers of ten from min to max: the lines of a logarithmic scale that are worth a label.
function powers(min, max) {
  const list = [];
  for (let e = Math.round(Math.log10(min)); e <= Math.round(Math.log10(max)); e++) list.push(10 ** e);
  return list;
}

// binarySteps are distances of lines that read well in KiB, MiB and GiB.
const binarySteps = Array.from({ length: 45 }, (_, i) => 2 ** i);

// columns are what uPlot draws. A line is broken where nobody looked.
function columns(frames, series, from) {
  const data = [[], ...series.map(() => [])];
  let before = 0;
  for (const f of frames) {
    const t = f.t / 1000;
    if (t < from - 2) continue;
    if (before && t - before > 5) {
      data[0].push(before + 0.5);
      for (let k = 0; k < series.length; k++) data[k + 1].push(null);
    }
    data[0].push(t);
    series.forEach((s, k) => data[k + 1].push(s.value(f) ?? null));
    before = t;
  }
  return data;
}

// spark draws the last minute of a value in an SVG polyline.
export function spark(line, values) {
  const present = values.filter((v) => v !== null && v !== undefined);
  const max = Math.max(...present, 0);
  const points = [];
  values.forEach((v, i) => {
    if (v === null || v === undefined) return;
    points.push((100 * i / Math.max(1, values.length - 1)).toFixed(1) + "," + (max > 0 ? 23 - 21 * v / max : 23).toFixed(1));
  });
  line.setAttribute("points", points.join(" "));
}

// redraw takes over the colours of another theme.
export function redraw() {
  for (const c of all) c.draw();
}
