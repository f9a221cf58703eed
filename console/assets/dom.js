// Elements without markup: everything that comes from outside goes in as text.

const svgNames = new Set(["svg", "polyline", "path", "rect", "line"]);

// h makes an element. Attributes: class, on… (listeners), data (an object), everything else as it is named; true = empty,
// false, null and undefined = absent. Children: nodes, texts, lists of them; null, undefined and false = nothing.
export function h(name, attributes, ...children) {
  const e = svgNames.has(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (key === "data") Object.assign(e.dataset, value);
    else if (key === "style") throw new Error("the policy forbids inline styles: use a class");
    else e.setAttribute(key, value === true ? "" : value);
  }
  append(e, children);
  return e;
}

function append(e, children) {
  for (const c of children.flat(Infinity)) {
    if (c === null || c === undefined || c === false) continue;
    e.append(c instanceof Node ? c : String(c));
  }
}

// fill replaces what is in e.
export function fill(e, ...children) {
  e.replaceChildren();
  append(e, children);
  return e;
}

// setText writes only what has changed: most figures stand still most of the time.
export function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

// table makes a table of rows, each a list of cells (nodes or texts). Columns are {name, class?}; the first is the row's head
// if head is set. On a narrow screen it scrolls by itself, so it can be reached by the keyboard.
export function table(caption, columns, rows, { empty = "Nothing here.", head = true } = {}) {
  const body = rows.map((cells) => row(columns, cells, head));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", null,
      h("caption", { class: "hidden" }, caption),
      h("thead", null, h("tr", null, columns.map((c) => h("th", { scope: "col", class: c.class }, c.name)))),
      h("tbody", null, body.length > 0 ? body : h("tr", { class: "empty" }, h("td", { colspan: columns.length }, empty)))));
}

export function row(columns, cells, head = true) {
  return h("tr", null, columns.map((c, i) =>
    i === 0 && head ? h("th", { scope: "row", class: c.class }, cells[i]) : h("td", { class: c.class }, cells[i])));
}

// card is a titled part of a page.
export function card(title, ...children) {
  return h("section", { class: "card" }, h("h2", null, title), children);
}

// facts is a list of names and values.
export function facts(list) {
  return h("dl", { class: "facts" }, list.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

// problem is the text of an error where the result would have been.
export function problem(error) {
  return h("p", { class: "problem", role: "alert" }, error.message ?? String(error));
}

// once runs f when the user has stopped typing for a moment; the call before is dropped.
export function debounce(f, ms = 200) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => f(...args), ms);
  };
}
