import { h } from "./dom.ts";

let area: HTMLElement | undefined;

/** Tells a person something for some seconds, and a screen reader once. */
export function notice(text: string): void {
  if (!area) document.body.append((area = h("div", { class: "notices", role: "status" })));
  const e = h("p", {}, text);
  area.append(e);
  setTimeout(() => e.remove(), 6000);
}
