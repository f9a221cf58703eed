// The event loops over time: a row for each loop, a column for each second.
import { clock, percent, short, span } from "./format.js";
import { h, setText } from "./dom.js";
import { color } from "./chart.js";

// What can be shown: share is where a value stands between nothing (0) and alarming (1).
export const measures = {
  busy: { label: "Busy", format: percent, marks: [0, 0.25, 0.5, 0.75, 1], share: (v) => v },
  lag: { label: "Lag", format: span, marks: [0.0001, 0.001, 0.01, 0.1, 1], share: (v) => decade(v, 0.0001, 1) },
  queue: { label: "Queue", format: short, marks: [1, 10, 100, 1000, 10000], share: (v) => decade(v, 1, 10000) },
};

const decade = (v, least, most) => (v <= least ? 0 : Math.min(1, Math.log(v / least) / Math.log(most / least)));
const left = 62; // px of the rows' names
const bottom = 18; // px of the times

export class HeatMap {
  constructor() {
    this.measure = "busy";
    this.canvas = h("canvas", { role: "img" });
    this.tip = h("div", { class: "tip", hidden: true });
    this.scale = h("div", { class: "heat-scale", "aria-hidden": "true" });
    this.box = h("div", { class: "heat" }, this.canvas, this.tip);
    this.element = h("div", null, this.box, this.scale);
    this.frames = [];
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.box);
    this.canvas.addEventListener("pointermove", (e) => this.point(e));
    this.canvas.addEventListener("pointerleave", () => (this.tip.hidden = true));
    this.legend();
  }

  destroy() {
    this.observer.disconnect();
  }

  choose(measure) {
    this.measure = measure;
    this.legend();
    this.draw();
  }

  show(frames, window, now) {
    this.frames = frames.filter((f) => f.t / 1000 >= now - window && f.loops.lag.length > 0);
    this.window = window;
    this.now = now;
    this.draw();
  }

  legend() {
    const m = measures[this.measure];
    this.scale.replaceChildren(...[1, 2, 3, 4, 5].map((i) =>
      h("span", null, h("i", { class: "heat-" + i }), m.format(m.marks[i - 1]))));
  }

  draw() {
    const width = this.box.clientWidth;
    const loops = this.frames.at(-1)?.loops.lag.length ?? 1;
    if (!width || !this.now) return;
    this.rowHeight = Math.max(3, Math.min(26, Math.floor(320 / loops)));
    const height = this.rowHeight * loops + bottom;
    const ratio = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.canvas.style.width = width + "px";
      this.canvas.style.height = height + "px";
    }
    const c = this.canvas.getContext("2d");
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    c.fillStyle = color("heat-1");
    c.fillRect(left, 0, width - left, this.rowHeight * loops);
    this.cells(c, width);
    this.names(c, width, loops);
    this.describe();
  }

  x(t, width) {
    return left + (width - left) * (1 - (this.now - t) / this.window);
  }

  cells(c, width) {
    const m = measures[this.measure];
    const palette = ramp();
    this.frames.forEach((f, i) => {
      const from = this.x(f.t / 1000 - Math.min(f.second || 1, 5), width);
      const to = this.x(f.t / 1000, width);
      const x = Math.max(left, from);
      (f.loops[this.measure] ?? []).forEach((v, row) => {
        const share = Math.max(0, Math.min(1, m.share(v)));
        c.fillStyle = palette[Math.round(share * (palette.length - 1))];
        c.fillRect(x, row * this.rowHeight, Math.max(1, to - x + 0.6), this.rowHeight - (this.rowHeight > 6 ? 1 : 0));
      });
    });
  }

  names(c, width, loops) {
    c.fillStyle = color("dim");
    c.font = "11px " + getComputedStyle(document.body).fontFamily;
    c.textBaseline = "middle";
    c.textAlign = "left";
    const step = Math.ceil(14 / this.rowHeight);
    for (let i = 0; i < loops; i += step) c.fillText("loop " + i, 0, (i + 0.5) * this.rowHeight);
    const y = this.rowHeight * loops + bottom / 2 + 2;
    const marks = Math.max(2, Math.floor((width - left) / 110));
    for (let i = 0; i <= marks; i++) {
      c.textAlign = i === 0 ? "left" : i === marks ? "right" : "center";
      const t = this.now - this.window * (1 - i / marks);
      c.fillText(clock(t * 1000), this.x(t, width), y);
    }
  }

  describe() {
    const m = measures[this.measure];
    const now = this.frames.at(-1)?.loops[this.measure] ?? [];
    this.canvas.setAttribute("aria-label", m.label + " of the event loops over time; now: " +
      (now.map((v, i) => "loop " + i + " " + m.format(v)).join(", ") || "nothing yet"));
  }

  point(e) {
    const box = this.canvas.getBoundingClientRect();
    const x = e.clientX - box.left;
    const row = Math.floor((e.clientY - box.top) / this.rowHeight);
    const t = this.now - this.window * (1 - (x - left) / (box.width - left));
    const f = this.frames.find((g) => g.t / 1000 >= t && g.t / 1000 - (g.second || 1) <= t);
    const v = f?.loops[this.measure]?.[row];
    this.tip.hidden = v === undefined || x < left;
    if (this.tip.hidden) return;
    setText(this.tip, "loop " + row + " · " + clock(f.t) + " · busy " + percent(f.loops.busy?.[row]) +
      " · lag " + span(f.loops.lag[row]) + " · queue " + short(f.loops.queue[row]));
    this.tip.style.left = Math.min(x + 12, box.width - this.tip.offsetWidth - 4) + "px";
    this.tip.style.top = (row + 1) * this.rowHeight + 6 + "px";
  }
}

// ramp is the colour scale of the theme in 64 steps.
function ramp() {
  const stops = [1, 2, 3, 4, 5].map((i) => parse(color("heat-" + i)));
  const list = [];
  for (let i = 0; i < 64; i++) {
    const at = i / 63 * (stops.length - 1);
    const k = Math.min(stops.length - 2, Math.floor(at));
    const mix = stops[k].map((v, j) => Math.round(v + (stops[k + 1][j] - v) * (at - k)));
    list.push("rgb(" + mix.join(",") + ")");
  }
  return list;
}

function parse(hex) {
  const n = parseInt(hex.slice(1), 16);
  return [n >> 16, (n >> 8) & 255, n & 255];
}
