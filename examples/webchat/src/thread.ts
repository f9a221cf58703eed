// One conversation: its messages, who is writing, and the field for the next message.

import { attribute, avatar, h, icon, keyed, linked, text } from "./dom.ts";
import { type Chat, type Item, textOf, type Tick } from "./model.ts";
import type { Session } from "./session.ts";
import { day, lastSeen, time } from "./times.ts";

/** A line of the thread: a day, or a message with its place among those of the same sender. */
type Line = { day: string } | { item: Item; first: boolean; last: boolean };

/** Within this time messages of one sender stand together, in ms. */
const together = 5 * 60_000;

const ticks: Record<Tick, [Parameters<typeof icon>[0], string]> = {
  failed: ["again", "not sent"], waiting: ["clock", "waiting to be sent"], sent: ["sent", "sent"], delivered: ["twice", "delivered"], read: ["twice", "read"],
};

export class Thread {
  readonly element: HTMLElement;
  readonly #empty: HTMLElement;
  readonly #face = h("span", { class: "face" });
  readonly #name = h("h1", {});
  readonly #about = h("p", { class: "about" });
  readonly #older = h("button", { class: "older", type: "button" }, "Show older messages");
  readonly #log = h("ol", { class: "log" });
  readonly #scroller: HTMLElement;
  readonly #writing = h("p", { class: "writing", role: "status" });
  readonly #down: HTMLButtonElement;
  readonly #field: HTMLTextAreaElement;
  readonly #form: HTMLFormElement;
  readonly #shown: HTMLElement;
  #conv: string | undefined; // what is shown
  #members = new Map<string, string>(); // by group, as text
  #atEnd = true;
  readonly #drafts = new Map<string, string>();

  constructor(readonly s: Session, close: () => void) {
    this.#down = h("button", { class: "down round", type: "button", "aria-label": "To the newest message", hidden: true, onclick: () => this.#toEnd() }, icon("down"));
    this.#field = h("textarea", { id: "field", rows: 1, placeholder: "Write a message", "aria-label": "Message", maxlength: 20000, enterkeyhint: "send" });
    const send = h("button", { class: "primary round", type: "submit", "aria-label": "Send", title: "Send" }, icon("send"));
    this.#form = h("form", { class: "composer" }, this.#field, send);
    this.#scroller = h("div", { class: "scroller", tabindex: 0, "aria-label": "Conversation" }, this.#older,
      h("div", { class: "lines", role: "log", "aria-label": "Messages" }, this.#log));
    this.#shown = h("section", { class: "thread", "aria-label": "Open conversation" },
      h("header", {},
        h("button", { class: "round quiet back", type: "button", "aria-label": "Back to the list", onclick: close }, icon("back")),
        this.#face, h("div", { class: "who" }, this.#name, this.#about)),
      this.#scroller, this.#writing, this.#down, this.#form);
    this.#empty = h("section", { class: "nothing" }, h("img", { src: "/demo/icon.svg", alt: "", width: 72, height: 72 }),
      h("p", {}, "Choose a conversation, or begin one."));
    this.element = h("div", { class: "panes" }, this.#empty, this.#shown);

    this.#older.addEventListener("click", () => void this.#loadOlder());
    this.#scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#field.addEventListener("input", () => {
      this.#grow();
      const c = this.#chat();
      if (c && this.#field.value.trim()) this.s.typing(c);
    });
    this.#field.addEventListener("keydown", (e) => {
      if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
      e.preventDefault();
      this.#send();
    });
    this.#form.addEventListener("submit", (e) => {
      e.preventDefault();
      this.#send();
      this.#field.focus();
    });
    new ResizeObserver(() => {
      if (this.#atEnd) this.#toEnd();
    }).observe(this.#scroller);
  }

  #chat(): Chat | undefined {
    return this.#conv === undefined ? undefined : this.s.model.chat(this.#conv);
  }

  #send(): void {
    const c = this.#chat();
    const value = this.#field.value.trim();
    if (!c || !value) return;
    this.#field.value = "";
    this.#grow();
    this.#atEnd = true;
    this.s.send(c, value);
  }

  /** The field is as high as its text, up to a point. */
  #grow(): void {
    this.#field.style.height = "auto";
    this.#field.style.height = `${Math.min(this.#field.scrollHeight, 160)}px`;
  }

  #scrolled(): void {
    const e = this.#scroller;
    this.#atEnd = e.scrollHeight - e.scrollTop - e.clientHeight < 48;
    this.#down.hidden = this.#atEnd;
    if (e.scrollTop < 80) void this.#loadOlder();
  }

  async #loadOlder(): Promise<void> {
    const c = this.#chat();
    if (c && !this.s.loading(c)) await this.s.older(c);
  }

  #toEnd(): void {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#atEnd = true;
    this.#down.hidden = true;
  }

  render(now: number): void {
    const { model } = this.s;
    this.#shown.hidden = model.open === undefined;
    this.#empty.hidden = model.open !== undefined;
    if (model.open !== this.#conv) this.#switch(model.open);
    const c = this.#chat();
    if (!c) return;
    this.#head(c, now);
    const e = this.#scroller;
    const anchor = this.#atEnd ? undefined : this.#firstSeen(); // it stays where it is, whatever comes before or after it
    const top = anchor?.offsetTop ?? 0;
    const lines = this.#lines(c, now);
    keyed(this.#log, lines, (l) => ("day" in l ? `d ${l.day}` : l.item.key), (l) => ("day" in l ? h("li", { class: "day" }, l.day) : this.#message()),
      (x, l) => {
        if ("item" in l) this.#update(x, c, l);
      });
    this.#older.hidden = c.complete || !c.loaded || c.items.length === 0;
    if (this.#atEnd) this.#toEnd();
    else if (anchor?.isConnected && anchor.offsetTop !== top) e.scrollTop += anchor.offsetTop - top;
    const writing = model.typists(c, now);
    text(this.#writing, writing.length === 0 ? "" : writing.length === 1 ? `${writing[0]} is writing…` : `${writing.slice(0, 2).join(" and ")} are writing…`);
    // A page may be too high for a scroll bar: then nobody can scroll to the older ones.
    if (e.scrollHeight <= e.clientHeight && !this.#older.hidden) void this.#loadOlder();
  }

  /** The uppermost message in sight. */
  #firstSeen(): HTMLElement | undefined {
    const { scrollTop, offsetTop } = this.#scroller;
    return [...this.#log.querySelectorAll<HTMLElement>(".message")].find((m) => m.offsetTop + m.offsetHeight - offsetTop > scrollTop);
  }

  /** Shows another conversation, and keeps what was being written in this one. */
  #switch(conv: string | undefined): void {
    if (this.#conv) this.#drafts.set(this.#conv, this.#field.value);
    this.#conv = conv;
    this.#log.replaceChildren();
    if (!conv) return;
    this.#atEnd = true;
    const c = this.s.model.chat(conv);
    this.#face.replaceChildren(avatar(c.name, c.kind === "group"));
    text(this.#name, c.name);
    this.#field.value = this.#drafts.get(conv) ?? "";
    this.#form.hidden = c.kind === "system";
    this.#grow();
    if (matchMedia("(hover: hover)").matches) this.#field.focus(); // on a phone the keyboard would hide half of it
    else this.#scroller.focus();
    if (c.kind === "group") {
      this.s.members(c.name).then((list) => {
        this.#members.set(c.name, list.length > 6 ? `${list.slice(0, 5).join(", ")} and ${list.length - 5} more` : list.join(", "));
        this.s.changed();
      }, () => {}); // the server is away: the names come the next time
    }
  }

  #head(c: Chat, now: number): void {
    const p = this.s.model.presence.get(c.name);
    const online = c.kind === "private" && p?.online === true;
    text(this.#about, c.kind === "group" ? (this.#members.get(c.name) ?? "") : c.kind === "system" ? "messages of the service" : online ? "online" : p ? lastSeen(p.lastSeen, now) : "");
    this.#face.classList.toggle("online", online);
  }

  #lines(c: Chat, now: number): Line[] {
    const lines: Line[] = [];
    let before: Item | undefined;
    for (const item of c.items) {
      const d = day(item.ts, now);
      const newDay = !before || day(before.ts, now) !== d;
      if (newDay) lines.push({ day: d });
      const first = newDay || before!.from !== item.from || item.ts - before!.ts > together;
      const above = lines.at(-1);
      if (first && above && "item" in above) above.last = true;
      lines.push({ item, first, last: false });
      before = item;
    }
    const end = lines.at(-1);
    if (end && "item" in end) end.last = true;
    lines.forEach((l, i) => {
      if ("day" in l && i > 0) (lines[i - 1] as { last: boolean }).last = true;
    });
    return lines;
  }

  #message(): Element {
    return h("li", {}, h("span", { class: "sender" }), h("div", { class: "bubble" },
      h("span", { class: "text" }), h("span", { class: "meta" }, h("time", {}), h("span", { class: "tick" }))), h("span", { class: "more" }));
  }

  #update(e: HTMLElement, c: Chat, { item, first, last }: Extract<Line, { item: Item }>): void {
    const own = item.from === this.s.user;
    const tick = own && !item.recalled ? this.s.model.tick(c, item) : undefined;
    attribute(e, "class", ["message", own && "own", first && "first", last && "last", item.recalled && "recalled", tick].filter(Boolean).join(" "));
    const [sender, bubble, more] = e.children as unknown as HTMLElement[];
    const [body, meta] = bubble!.children as unknown as HTMLElement[];
    const [when, mark] = meta!.children as unknown as HTMLElement[];
    text(sender!, first && !own && c.kind === "group" ? item.from || "System" : "");
    const value = item.recalled ? (own ? "You took this message back" : "This message was taken back") : textOf(item.content);
    if (body!.dataset["value"] !== value) {
      body!.dataset["value"] = value;
      body!.replaceChildren(item.recalled ? value : linked(value));
    }
    text(when!, time(item.ts));
    if (mark!.dataset["tick"] !== (tick ?? "")) {
      mark!.dataset["tick"] = tick ?? "";
      mark!.replaceChildren(...(tick ? [icon(...ticks[tick])] : []));
    }
    this.#actions(more!, c, item, own);
  }

  /** What can be done with a message: take it back, or send it again. */
  #actions(more: HTMLElement, c: Chat, item: Item, own: boolean): void {
    const kind = !own || item.recalled ? "" : item.error ? `failed ${item.error}` : item.seq !== undefined ? "sent" : "";
    if (more.dataset["kind"] === kind) return;
    more.dataset["kind"] = kind;
    more.replaceChildren(...(kind === "sent"
      ? [h("button", { type: "button", class: "round quiet", "aria-label": "Take this message back", title: "Take back", onclick: () => this.s.recall(c, item) }, icon("undo"))]
      : kind
        ? [h("span", { class: "error" }, `Not sent: ${item.error}`),
          h("button", { type: "button", onclick: () => this.s.again(c, item) }, "Send again"),
          h("button", { type: "button", onclick: () => this.s.model.discard(c.conv, item.id!) }, "Discard")]
        : []));
  }
}
