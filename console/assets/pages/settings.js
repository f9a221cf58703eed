// The effective configuration, and where each value came from.
import { get } from "../api.js";
import { fill, h, problem, table } from "../dom.js";

const columns = [{ name: "Key" }, { name: "Value", class: "wide" }, { name: "From" }];

function value(s) {
  if (s.value === "") return h("span", { class: "dim" }, "none");
  return h("code", { title: s.secret ? "secret, never shown" : null }, s.value);
}

const isDefault = (s) => s.origin.startsWith("default");

function show(box, settings, text, changed) {
  const words = text.toLowerCase();
  const fits = (s) => (!changed || !isDefault(s)) && [s.key, s.value, s.origin, s.help].some((t) => t.toLowerCase().includes(words));
  const list = settings.filter(fits);
  fill(box, table("Settings", columns, list.map((s) =>
    [h("span", null, h("code", null, s.key), h("small", { class: "help" }, s.help)), value(s),
      h("span", { class: isDefault(s) ? "dim" : "origin" }, s.origin)]), { empty: "No setting fits." }));
}

export default {
  title: "Settings",
  show(main) {
    const text = h("input", { id: "filter", type: "search", placeholder: "key, value, origin", autocomplete: "off", spellcheck: "false" });
    const changed = h("input", { id: "changed", type: "checkbox" });
    const box = h("div");
    fill(main, h("h1", { tabindex: "-1" }, "Settings"),
      h("section", { class: "card" },
        h("div", { class: "filters" },
          h("div", { class: "field" }, h("label", { for: "filter" }, "Contains"), text),
          h("label", { class: "check", for: "changed" }, changed, "Only what is not the default")),
        box));
    (async () => {
      try {
        const { settings } = await get("/console/settings");
        if (settings.length === 0) {
          fill(box, h("p", { class: "placeholder" }, "This server was started by a program that does not tell its settings."));
          return;
        }
        const draw = () => show(box, settings, text.value, changed.checked);
        text.addEventListener("input", draw);
        changed.addEventListener("change", draw);
        draw();
      } catch (e) {
        fill(box, problem(e));
      }
    })();
  },
};
