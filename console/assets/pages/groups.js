// A group: its members, size and head.
import { get, path, query } from "../api.js";
import { card, facts, fill, h, problem } from "../dom.js";
import { count } from "../format.js";
import { convLink, userLink } from "./messages.js";

async function detail(box, group) {
  const names = h("ul", { class: "chips" });
  const more = h("button", { type: "button", class: "plain", hidden: true }, "More members");
  let cursor = "";
  async function members() {
    const page = await get(path("v1", "groups", group, "members") + query({ cursor, limit: 200 }));
    for (const m of page.members) names.append(h("li", null, userLink(m)));
    cursor = page.cursor ?? "";
    more.hidden = !cursor;
  }
  more.addEventListener("click", () => members().catch((e) => names.after(problem(e))));
  try {
    const g = await get(path("v1", "groups", group));
    fill(box,
      h("section", { class: "card" }, h("h2", { class: "name" }, g.group),
        facts([["Members", h("b", { data: { key: "size" } }, count(g.size))], ["Head", count(g.head)],
          ["Kind", g.kind === "large" ? "large: messages are kept once" : "inbox: a copy for every member"], ["History", convLink("g:" + g.group)]])),
      card("Members", names, more));
    await members();
  } catch (e) {
    fill(box, problem(e.status === 404 ? new Error("There is no such group.") : e));
  }
}

export default {
  title: "Groups",
  show(main, group) {
    const input = h("input", { id: "group", type: "search", placeholder: "Name", autocomplete: "off", spellcheck: "false", maxlength: "64" });
    input.value = group;
    const form = h("form", { class: "search", role: "search" }, h("label", { for: "group" }, "Group"), h("div", { class: "line" }, input,
      h("button", { type: "submit", class: "primary" }, "Open")));
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      if (input.value) location.hash = "#/groups/" + encodeURIComponent(input.value);
    });
    const box = h("div", { class: "stack" });
    fill(main, h("h1", { tabindex: "-1" }, "Groups"), h("section", { class: "card" }, form,
      h("p", { class: "hint" }, "Groups are found by their exact name. A user's page lists the groups in which there are messages.")), box);
    if (group) detail(box, group);
  },
};
