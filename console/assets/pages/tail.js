// Closes and errors as they happen, filtered by the server.
import { query } from "../api.js";
import { debounce, fill, h, setText } from "../dom.js";
import { clock, count } from "../format.js";
import { newest } from "../live.js";
import { userLink } from "./messages.js";

const keptRows = 500;

const columns = ["Time", "What", "Name", "Detail", "User", "Terminal", "From"];

function line(e) {
  return h("tr", { class: e.closed ? "close" : "error" },
    h("td", null, h("time", { datetime: new Date(e.ts).toISOString() }, clock(e.ts))),
    h("td", null, h("span", { class: "tag " + (e.closed ? "close" : "error") }, e.closed ? "close" : "error")),
    h("td", null, h("code", null, e.name)),
    h("td", { class: "wide" }, e.detail),
    h("td", null, e.user ? userLink(e.user) : h("i", null, "before login")),
    h("td", null, e.terminal),
    h("td", null, e.ip + " " + e.transport));
}

export default {
  title: "Tail",
  show(main) {
    let source = null;
    let paused = false;
    let missed = 0;
    let seen = 0;
    const kind = h("select", { id: "kind" }, h("option", { value: "" }, "Closes and errors"), h("option", { value: "close" }, "Closes"),
      h("option", { value: "error" }, "Errors"));
    const names = h("input", { id: "names", type: "text", list: "reasons", placeholder: "all, or kicked,TIMEOUT", autocomplete: "off", spellcheck: "false" });
    const text = h("input", { id: "text", type: "search", placeholder: "user, address, words", autocomplete: "off", spellcheck: "false" });
    const status = h("span", { class: "hint", role: "status" }, "Waiting for the first event.");
    const body = h("tbody");
    const pause = h("button", { type: "button", class: "plain", "aria-pressed": "false" }, "Pause");
    const clear = h("button", { type: "button", class: "plain" }, "Clear");
    const reasons = h("datalist", { id: "reasons" });
    const known = newest()?.totals;
    fill(reasons, [...Object.keys(known?.closes ?? {}), ...Object.keys(known?.errors ?? {})].sort().map((n) => h("option", { value: n })));

    function open(fresh) {
      source?.close();
      if (fresh) {
        fill(body);
        missed = seen = 0;
        setText(status, "Waiting for the first event.");
      }
      if (paused) return;
      source = new EventSource("/console/tail" + query({ kind: kind.value, names: names.value.replace(/\s+/g, ""), text: text.value }));
      source.addEventListener("open", () => fill(body)); // the server tells again what it has kept
      source.addEventListener("events", (e) => take(JSON.parse(e.data)));
    }
    function take(page) {
      missed += page.missed;
      seen += page.events.length;
      body.prepend(...page.events.reverse().map(line));
      while (body.childElementCount > keptRows) body.lastElementChild.remove();
      if (seen > 0) setText(status, count(body.childElementCount) + " shown" + (missed > 0 ? ", " + count(missed) + " more were too many to show" : "") + ".");
    }
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.setAttribute("aria-pressed", String(paused));
      setText(pause, paused ? "Go on" : "Pause");
      if (paused) source?.close();
      else open(false);
    });
    clear.addEventListener("click", () => open(true));
    const again = debounce(() => open(true), 300);
    kind.addEventListener("change", () => open(true));
    names.addEventListener("input", again);
    text.addEventListener("input", again);

    fill(main, h("h1", { tabindex: "-1" }, "Tail"),
      h("section", { class: "card" },
        h("div", { class: "filters" },
          h("div", { class: "field" }, h("label", { for: "kind" }, "What"), kind),
          h("div", { class: "field" }, h("label", { for: "names" }, "Names, with commas"), names, reasons),
          h("div", { class: "field" }, h("label", { for: "text" }, "Contains"), text),
          h("div", { class: "buttons" }, pause, clear)),
        status,
        h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Closes and errors" },
          h("table", { class: "tail" }, h("caption", { class: "hidden" }, "Closes and errors, newest first"),
            h("thead", null, h("tr", null, columns.map((c) => h("th", { scope: "col" }, c)))), body))));
    open(true);
    return () => source?.close();
  },
};
