"use strict";
(() => {
  const every = 5000; // ms between two looks
  const byId = (id) => document.getElementById(id);

  // row makes a line of a table. Everything goes in as text, never as markup.
  const row = (name, value, kind) => {
    const tr = document.createElement("tr");
    const th = document.createElement("th");
    const td = document.createElement("td");
    th.scope = "row";
    th.textContent = name;
    td.textContent = value;
    tr.className = kind || "";
    tr.append(th, td);
    return tr;
  };

  const get = async (path) => {
    const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(every) });
    if (!answer.ok && answer.status !== 503) throw new Error(path + " answers " + answer.status);
    return answer.json();
  };

  const bytes = (n) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let i = 0;
    for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
    return n.toFixed(i ? 1 : 0) + " " + units[i];
  };

  const duration = (s) =>
    Math.floor(s / 3600) + "h" + Math.floor(s / 60) % 60 + "m" + s % 60 + "s";

  const mean = (h) => (h.count ? h.sum / h.count : 0);

  const showState = (state) => {
    const ready = byId("ready");
    ready.textContent = state.ready ? "ready" : state.draining ? "draining" : "not ready";
    ready.className = state.ready ? "ok" : "bad";
    byId("parts").replaceChildren(...Object.entries(state.parts)
      .map(([name, part]) => row(name, part.state, part.ok ? "ok" : "bad")));
  };

  let before = null;
  const showStats = (stats) => {
    const now = performance.now();
    const total = Object.values(stats.accepted).reduce((a, b) => a + b, 0);
    const rate = before && total >= before.total ? (total - before.total) * 1000 / (now - before.now) : 0;
    before = { now, total };
    byId("uptime").textContent = duration(stats.uptime);
    byId("figures").replaceChildren(
      row("Users online", stats.usersOnline),
      row("Messages accepted", total),
      row("… per second", rate.toFixed(1)),
      row("Waiting for a commit", stats.queuedSubmissions),
      row("Commit, mean", (mean(stats.commitSeconds) * 1000).toFixed(2) + " ms"),
      row("Messages per commit, mean", mean(stats.commitBatch).toFixed(1)),
      row("Store", bytes(stats.store.sizeBytes) + (stats.readOnly ? ", read-only" : ""), stats.readOnly ? "bad" : "ok"),
    );
  };

  const look = async () => {
    try {
      const [state, stats] = await Promise.all([get("/readyz"), get("/v1/stats")]);
      showState(state);
      showStats(stats);
      byId("note").textContent = "";
    } catch (e) {
      byId("note").textContent = "These figures are old: " + e.message;
    }
    setTimeout(look, every);
  };
  look();
})();
