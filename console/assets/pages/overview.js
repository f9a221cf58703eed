// Everything at a glance, once a second.
import { Chart, spark } from "../chart.js";
import { card, fill, h, row, setText, table } from "../dom.js";
import { bytes, count, percent, rate, short, span } from "../format.js";
import { HeatMap, measures } from "../heat.js";
import { last, live, newest, onFrame, pause } from "../live.js";

const windows = [["1 min", 60], ["5 min", 300], ["10 min", 600]];
let shownWindow = 300; // s; kept while the page is open

const sum = (map) => Object.values(map ?? {}).reduce((a, b) => a + b, 0);

// recent is the newest value of the last seconds that is there.
function recent(value) {
  for (const f of live.frames.slice(-10).reverse()) {
    const v = value(f);
    if (v !== null && v !== undefined) return v;
  }
  return null;
}

const tiles = [
  { key: "connections", label: "Connections", value: (f) => sum(f.connections), format: count,
    sub: (f) => Object.entries(f.connections).sort().map(([t, n]) => count(n) + " " + t).join(" · ") },
  { key: "sessions", label: "Sessions", value: (f) => f.gauges.sessions, format: count, sub: (f) => count(f.gauges.users) + " users" },
  { key: "logins", label: "Logins / s", value: (f) => f.rates?.logins, format: rate,
    sub: (f) => rate(f.rates?.loginsRefused) + " refused / s" },
  { key: "accepted", label: "Accepted / s", value: (f) => f.rates?.accepted, format: rate,
    sub: () => count(sum(newest()?.totals?.accepted)) + " in all" },
  { key: "delivered", label: "Delivered / s", value: (f) => f.rates?.delivered, format: rate,
    sub: () => count(sum(newest()?.totals?.delivered)) + " in all" },
  { key: "delivery", label: "Delivery p99", value: (f) => f.delivery?.[2], held: true, format: span,
    sub: () => "p50 " + span(recent((f) => f.delivery?.[0])) },
  { key: "commit", label: "Commit p99", value: (f) => f.commit?.[2], held: true, format: span,
    sub: () => "fsync p99 " + span(recent((f) => f.sync?.[2])) },
  { key: "lagging", label: "Lagging sessions", value: (f) => f.gauges.lagging, format: count,
    sub: (f) => bytes(f.gauges.outbound) + " wait for sockets" },
  { key: "cpu", label: "CPU", value: (f) => f.rates?.cpu, format: (v) => (v ?? 0).toFixed(2), sub: (f) => "of " + f.gauges.cores + " cores" },
  { key: "memory", label: "Memory", value: (f) => f.gauges.rss, format: bytes, sub: (f) => bytes(f.gauges.heapLive) + " live heap" },
  { key: "connectionMemory", label: "Memory / connection", value: (f) => f.gauges.connectionMemory || null, format: bytes,
    sub: (f) => (f.gauges.connectionMemory ? "of the process, about" : "from 1,000 on") },
  { key: "store", label: "Store", value: (f) => f.gauges.storeBytes, format: bytes,
    sub: (f) => count(f.gauges.storeMessages) + " kept since start" },
];

class Tile {
  constructor(t) {
    this.t = t;
    this.value = h("strong", { data: { key: t.key } }, "–");
    this.sub = h("span", { class: "sub" });
    this.line = h("polyline", { fill: "none", "vector-effect": "non-scaling-stroke" });
    this.element = h("div", { class: "tile" }, h("span", { class: "label" }, t.label), this.value, this.sub,
      h("svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none", class: "spark", "aria-hidden": "true" }, this.line));
  }

  show(f) {
    const v = this.t.held ? recent(this.t.value) : this.t.value(f);
    setText(this.value, v === null || v === undefined ? "–" : this.t.format(v));
    this.value.dataset.value = v ?? "";
    setText(this.sub, this.t.sub(f));
    spark(this.line, live.frames.slice(-60).map(this.t.value));
  }
}

// lines are the percentiles of one histogram.
const lines = (name) => [
  { label: "p50", color: "series-2", value: (f) => f[name]?.[0] },
  { label: "p95", color: "series-1", value: (f) => f[name]?.[1] },
  { label: "p99", color: "series-3", value: (f) => f[name]?.[2] },
];

function makeCharts() {
  return [
    new Chart({ title: "Connections", format: count, axis: short, series: [
      { label: "websocket", color: "series-1", value: (f) => f.connections.websocket },
      { label: "tcp", color: "series-2", value: (f) => f.connections.tcp },
      { label: "sessions", color: "series-4", dash: [4, 3], value: (f) => f.gauges.sessions }] }),
    new Chart({ title: "Messages", unit: "per second", format: rate, axis: short, series: [
      { label: "accepted", color: "series-1", value: (f) => f.rates?.accepted },
      { label: "delivered", color: "series-2", value: (f) => f.rates?.delivered }] }),
    new Chart({ title: "Delivery latency", unit: "accepted → written to the socket", format: span, log: true, series: lines("delivery") }),
    new Chart({ title: "Commit latency", unit: "begin → durable", format: span, log: true, series: lines("commit") }),
    new Chart({ title: "Fsync latency", unit: "of the store", format: span, log: true, series: lines("sync") }),
    new Chart({ title: "Logins and ends", unit: "per second", format: rate, axis: short, series: [
      { label: "logins", color: "series-1", value: (f) => f.rates?.logins },
      { label: "refused", color: "series-3", value: (f) => f.rates?.loginsRefused },
      { label: "closes", color: "series-4", value: (f) => f.rates?.closes },
      { label: "errors", color: "series-5", value: (f) => f.rates?.errors }] }),
    new Chart({ title: "Traffic", unit: "per second", format: bytes, binary: true, series: [
      { label: "received", color: "series-1", value: (f) => f.rates?.in },
      { label: "sent", color: "series-2", value: (f) => f.rates?.out }] }),
    new Chart({ title: "CPU", unit: "cores", format: (v) => v.toFixed(2), least: 0.1, series: [
      { label: "process", color: "series-1", value: (f) => f.rates?.cpu },
      { label: "event loops busy", color: "series-2", value: (f) => f.loops.busy?.reduce((a, b) => a + b, 0) }] }),
    new Chart({ title: "Memory", format: bytes, binary: true, series: [
      { label: "process", color: "series-1", value: (f) => f.gauges.rss },
      { label: "live heap", color: "series-2", value: (f) => f.gauges.heapLive },
      { label: "held by the store", color: "series-4", dash: [4, 3], value: (f) => f.gauges.storeMemory }] }),
    new Chart({ title: "Memory of a connection", unit: "about, from 1,000 on", format: bytes, binary: true, series: [
      { label: "user memory", color: "series-1", value: (f) => f.gauges.connectionMemory || null }] }),
    new Chart({ title: "Store", unit: "on disk", format: bytes, binary: true, series: [
      { label: "size", color: "series-1", value: (f) => f.gauges.storeBytes }] }),
    new Chart({ title: "Waiting", format: count, axis: short, series: [
      { label: "for the commit", color: "series-1", value: (f) => f.gauges.waiting },
      { label: "for a worker", color: "series-2", value: (f) => f.gauges.pool },
      { label: "lagging sessions", color: "series-3", value: (f) => f.gauges.lagging }] }),
  ];
}

// choice is a row of buttons of which one is on.
function choice(label, options, now, chosen) {
  const buttons = options.map(([text, value]) => h("button", {
    type: "button", "aria-pressed": String(value === now),
    onclick: (e) => {
      for (const b of buttons) b.setAttribute("aria-pressed", String(b === e.currentTarget));
      chosen(value);
    },
  }, text));
  return h("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}

const reasonColumns = [{ name: "Reason" }, { name: "Total", class: "number" }, { name: "Per second", class: "number" }];

// Reasons is a table of counters by label, largest first, with what came since the frame before.
class Reasons {
  constructor(title, empty) {
    this.table = table(title, reasonColumns, [], { empty });
    this.empty = empty;
    this.element = card(title, this.table);
    this.body = this.table.querySelector("tbody");
  }

  show(totals, before, seconds) {
    const list = Object.entries(totals ?? {}).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
    if (list.length === 0) return;
    fill(this.body, list.map(([name, n]) => row(reasonColumns,
      [name, count(n), seconds > 0 && before ? rate(Math.max(0, (n - (before[name] ?? 0)) / seconds)) : "–"])));
  }
}

function parts(element, state) {
  const columns = [{ name: "Part" }, { name: "State" }];
  fill(element, table("Parts of the server", columns, Object.entries(state?.parts ?? {}).map(([name, p]) =>
    [name, h("span", { class: p.ok ? "ok" : "bad" }, (p.ok ? "✓ " : "✗ ") + p.state)])));
}

const loopColumns = [{ name: "Loop" }, { name: "Busy", class: "number" }, { name: "Lag", class: "number" }, { name: "Queue", class: "number" }];

function loopRows(f) {
  return f.loops.lag.map((lag, i) => ["loop " + i, percent(f.loops.busy?.[i]), span(lag), count(f.loops.queue[i])]);
}

export default {
  title: "Overview",
  show(main) {
    const tileViews = tiles.map((t) => new Tile(t));
    const charts = makeCharts();
    const heat = new HeatMap();
    const closes = new Reasons("Closes by reason", "No connection has ended.");
    const errors = new Reasons("Errors by name", "No client got an ERROR.");
    const refused = new Reasons("Accepted and refused sockets", "Nobody came.");
    const partsBox = h("div");
    const loopsBox = h("div");
    const banner = h("div", { class: "banner", role: "alert", hidden: true });
    const pauseButton = h("button", { type: "button", class: "plain", "aria-pressed": String(live.paused), onclick: () => pause(!live.paused) }, "Pause");
    fill(main,
      h("div", { class: "title" }, h("h1", { tabindex: "-1" }, "Overview"), h("span", { class: "grow" }),
        choice("Time shown", windows, shownWindow, (v) => {
          shownWindow = v;
          draw();
        }), pauseButton),
      banner,
      h("div", { class: "tiles" }, tileViews.map((t) => t.element)),
      h("section", { class: "card" },
        h("div", { class: "chart-head" }, h("h2", null, "Event loops"), h("span", { class: "grow" }),
          choice("Measure", Object.entries(measures).map(([k, m]) => [m.label, k]), heat.measure, (v) => heat.choose(v))),
        heat.element, h("details", null, h("summary", null, "As a table"), loopsBox)),
      h("div", { class: "charts" }, charts.map((c) => c.element)),
      h("div", { class: "columns" }, closes.element, errors.element, refused.element, card("Parts", partsBox)),
      h("p", { class: "links" }, "As numbers: ",
        [["/metrics", "metrics"], ["/v1/stats", "stats"], ["/readyz", "readiness"], ["/debug/pprof/", "profiles"], ["/openapi.yaml", "HTTP API"]]
          .map(([href, text], i) => [i > 0 && " · ", h("a", { href }, text)])));

    let totalsBefore = null;
    function draw() {
      const f = last();
      pauseButton.setAttribute("aria-pressed", String(live.paused));
      setText(pauseButton, live.paused ? "Go on" : "Pause");
      if (!f) return;
      const now = f.t / 1000;
      const window = Math.min(shownWindow, Math.max(60, now - live.frames[0].t / 1000));
      for (const t of tileViews) t.show(f);
      for (const c of charts) c.show(live.frames, window, now);
      heat.show(live.frames, window, now);
      fill(loopsBox, table("Event loops now", loopColumns, loopRows(f)));
      const n = newest();
      if (!n || n === totalsBefore || live.paused) return;
      const before = totalsBefore?.totals;
      closes.show(n.totals.closes, before?.closes, n.second);
      errors.show(n.totals.errors, before?.errors, n.second);
      refused.show(n.totals.accepts, before?.accepts, n.second);
      parts(partsBox, n.state);
      totalsBefore = n;
      warn(banner, n);
    }
    draw();
    const off = onFrame(draw);
    return () => {
      off();
      for (const c of charts) c.destroy();
      heat.destroy();
    };
  },
};

// warn says what needs a hand at once.
function warn(banner, f) {
  const list = [];
  if (f.gauges.readOnly > 0) list.push("The store keeps nothing now: senders get UNAVAILABLE. The disk is full or failing.");
  for (const [name, p] of Object.entries(f.state.parts)) if (!p.ok && !(name === "store" && list.length > 0)) list.push(name + ": " + p.state);
  if (f.state.draining) list.push("The server is stopping.");
  if (f.gauges.panics > 0) list.push(count(f.gauges.panics) + " panics were caught: the log has the stacks.");
  banner.hidden = list.length === 0;
  setText(banner, list.join(" "));
}
