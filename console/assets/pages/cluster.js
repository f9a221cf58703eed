// The nodes, which queues each of them consumes, and how far behind it is.
import { get } from "../api.js";
import { card, fill, h, problem, table } from "../dom.js";
import { count, duration } from "../format.js";

const every = 3000; // ms

const columns = [{ name: "Node" }, { name: "Address" }, { name: "Up" }, { name: "Connections", class: "number" }, { name: "Sessions", class: "number" },
  { name: "Queues", class: "number" }, { name: "Lag", class: "number" }];
const queueColumns = [{ name: "Queue" }, { name: "Owner" }, { name: "Lag", class: "number" }, { name: "Share", class: "wide" }];

const sum = (lag) => Object.values(lag).reduce((a, b) => a + b, 0);

function nodes(list) {
  return table("Nodes", columns, list.map((n, i) => [
    h("span", null, n.node, i === 0 && h("span", { class: "tag" }, "this one"), h("small", { class: "help" }, "incarnation " + n.incarnation)),
    n.address || "–", duration((Date.now() - n.since) / 1000), count(n.connections), count(n.sessions), count(n.queues.length), count(sum(n.lag))]));
}

function queues(list) {
  const all = list.flatMap((n) => n.queues.map((q) => ({ q, node: n.node, lag: n.lag[q] ?? 0 }))).sort((a, b) => a.q - b.q);
  const most = Math.max(1, ...all.map((x) => x.lag));
  return table("Queues", queueColumns, all.map((x) => [
    "queue " + x.q, x.node, count(x.lag),
    h("meter", { min: "0", max: String(most), value: String(x.lag), "aria-label": "lag of queue " + x.q }, count(x.lag))]),
  { empty: "This node commits straight into its own store: there are no queues." });
}

export default {
  title: "Cluster",
  show(main) {
    const nodeBox = h("div");
    const queueBox = h("div");
    fill(main, h("h1", { tabindex: "-1" }, "Cluster"), card("Nodes", nodeBox), card("Queues and their owners", queueBox));
    async function load() {
      if (document.hidden) return;
      try {
        const list = (await get("/v1/nodes")).nodes.map((n) => ({ queues: [], lag: {}, ...n }));
        fill(nodeBox, nodes(list));
        fill(queueBox, queues(list));
      } catch (e) {
        fill(nodeBox, problem(e));
      }
    }
    load();
    const timer = setInterval(load, every);
    return () => clearInterval(timer);
  },
};
