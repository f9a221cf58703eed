// The history of a conversation, page by page.
import { get, path, query } from "../api.js";
import { fill, h, problem } from "../dom.js";
import { history } from "./messages.js";

const pageSize = 50;

const encoder = new TextEncoder();

// privateConv is p:<a>:<b> with the names in byte order.
function privateConv(a, b) {
  const [x, y] = [encoder.encode(a), encoder.encode(b)];
  let i = 0;
  while (i < x.length && i < y.length && x[i] === y[i]) i++;
  const first = i === x.length || (i < y.length && x[i] < y[i]);
  return first ? `p:${a}:${b}` : `p:${b}:${a}`;
}

async function show(box, conv, where = {}) {
  try {
    const page = await get(path("v1", "conversations", conv, "messages") + query({ ...where, limit: pageSize }));
    const newestFirst = where.after === undefined ? page.messages : page.messages.reverse();
    const [first, last] = [newestFirst[0]?.seq, newestFirst.at(-1)?.seq];
    const older = where.after === undefined ? page.more : true;
    fill(box,
      h("div", { class: "title" }, h("h2", { class: "name" }, conv), h("span", { class: "grow" }),
        h("button", { type: "button", class: "plain", onclick: () => show(box, conv) }, "Newest"),
        h("button", { type: "button", class: "plain", disabled: first === undefined, onclick: () => show(box, conv, { after: first }) }, "Newer"),
        h("button", { type: "button", class: "plain", disabled: last === undefined || !older, onclick: () => show(box, conv, { before: last }) }, "Older")),
      newestFirst.length === 0 && where.after !== undefined
        ? h("p", { class: "placeholder" }, "Nothing newer.")
        : history(newestFirst, "Messages of " + conv));
    if (newestFirst.length === 0 && where.after !== undefined) show(box, conv);
  } catch (e) {
    fill(box, problem(e));
  }
}

// input is a labelled text field.
function field(id, label, placeholder, value = "") {
  const e = h("input", { id, type: "text", placeholder, autocomplete: "off", spellcheck: "false" });
  e.value = value;
  return [h("div", { class: "field" }, h("label", { for: id }, label), e), e];
}

function form(children, conv) {
  const f = h("form", { class: "inline" }, children, h("button", { type: "submit", class: "primary" }, "Open"));
  f.addEventListener("submit", (e) => {
    e.preventDefault();
    const c = conv();
    if (c) location.hash = "#/conversations/" + encodeURIComponent(c);
  });
  return f;
}

export default {
  title: "Conversations",
  show(main, conv) {
    const [aField, a] = field("a", "Between", "alice");
    const [bField, b] = field("b", "and", "bob");
    const [idField, id] = field("conv", "Or by its id", "p:alice:bob, g:team, n:alice", conv);
    const box = h("section", { class: "card", hidden: !conv });
    fill(main, h("h1", { tabindex: "-1" }, "Conversations"),
      h("section", { class: "card forms" },
        form([aField, bField], () => a.value && b.value && privateConv(a.value, b.value)),
        form([idField], () => id.value)),
      box);
    if (conv) show(box, conv);
  },
};
