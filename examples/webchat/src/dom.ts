// The little that a page of this size needs in place of a framework. Everything a person has written goes in as text.

type Child = Node | string | false | null | undefined;
type Props = { [name: string]: string | number | boolean | undefined | ((event: any) => void) };

function apply(e: Element, props: Props): void {
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === "function") e.addEventListener(name.slice(2), value);
    else attribute(e, name, value);
  }
}

/** Sets an attribute; false and undefined take it away. */
export function attribute(e: Element, name: string, value: string | number | boolean | undefined): void {
  if (value === undefined || value === false) e.removeAttribute(name);
  else if (value === true) e.setAttribute(name, "");
  else if (e.getAttribute(name) !== String(value)) e.setAttribute(name, String(value));
}

/** Makes an element: attributes, listeners (`onclick`) and children; strings are text. */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, props: Props = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const e = document.createElement(tag);
  apply(e, props);
  for (const c of children) if (c || c === "") e.append(c);
  return e;
}

const svg = "http://www.w3.org/2000/svg";

const paths = {
  back: "M15 5l-7 7 7 7",
  plus: "M12 5v14M5 12h14",
  send: "M4 12l16-8-6 16-3-7z",
  people: "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20a6.5 6.5 0 0 1 13 0M16 4.5a3.5 3.5 0 0 1 0 6.5M18 14a6.5 6.5 0 0 1 3.5 6",
  clock: "M12 7v5l3 2M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z",
  sent: "M5 13l4 4L19 7",
  twice: "M2 13l4 4L16 7M11 16l1 1L22 7",
  undo: "M8 5L4 9l4 4M4 9h10a6 6 0 0 1 0 12h-3",
  down: "M6 9l6 6 6-6",
  leave: "M10 4H5v16h5M15 8l4 4-4 4M19 12H9",
  again: "M20 11a8 8 0 1 0-2 6M20 5v6h-6",
};

export type Icon = keyof typeof paths;

/** A drawing; with a label it is told to screen readers, without it is an ornament. */
export function icon(name: Icon, label?: string): SVGElement {
  const e = document.createElementNS(svg, "svg");
  attribute(e, "viewBox", "0 0 24 24");
  attribute(e, "class", "icon");
  if (label) {
    attribute(e, "role", "img");
    attribute(e, "aria-label", label);
  } else {
    attribute(e, "aria-hidden", "true");
  }
  const p = document.createElementNS(svg, "path");
  attribute(p, "d", paths[name]);
  e.append(p);
  return e;
}

/** Sets an element's text if it differs, so that nothing that is read aloud is read twice. */
export function text(e: Element, value: string): void {
  if (e.textContent !== value) e.textContent = value;
}

/** Brings the children of parent in line with items: elements are kept by key, moved, updated, made and removed. */
export function keyed<T>(parent: Element, items: T[], key: (item: T) => string, make: (item: T) => Element, update: (e: any, item: T) => void): void {
  const old = new Map<string, Element>();
  for (const e of parent.children) old.set((e as HTMLElement).dataset["key"] ?? "", e);
  let next = parent.firstElementChild;
  for (const item of items) {
    const k = key(item);
    let e = old.get(k);
    old.delete(k);
    if (!e) {
      e = make(item);
      (e as HTMLElement).dataset["key"] = k;
    }
    update(e, item);
    if (e === next) next = next.nextElementSibling;
    else parent.insertBefore(e, next);
  }
  for (const e of old.values()) e.remove();
}

/** A picture of a name: its first letter on a colour of its own. */
export function avatar(name: string, group = false): HTMLElement {
  let hash = 0x811c9dc5; // FNV-1a; names that differ in one letter differ in colour
  for (const c of name) hash = Math.imul(hash ^ c.codePointAt(0)!, 0x01000193) >>> 0;
  const e = h("span", { class: group ? "avatar group" : "avatar", "aria-hidden": "true" }, group ? icon("people") : ([...name][0] ?? "?").toUpperCase());
  e.style.setProperty("--hue", String((hash >>> 8) % 360));
  return e;
}

/** Text with its web addresses as links. */
export function linked(value: string): DocumentFragment {
  const all = document.createDocumentFragment();
  let end = 0;
  for (const m of value.matchAll(/\bhttps?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]}]/g)) {
    let url: URL;
    try {
      url = new URL(m[0]);
    } catch {
      continue;
    }
    all.append(value.slice(end, m.index), h("a", { href: url.href, target: "_blank", rel: "noopener noreferrer" }, m[0]));
    end = m.index + m[0].length;
  }
  all.append(value.slice(end));
  return all;
}
