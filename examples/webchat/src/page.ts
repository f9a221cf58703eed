// The page of a signed-in user: the list of conversations, the open one, and what is to be said about the connection.

import { attribute, avatar, h, icon, keyed, text } from "./dom.ts";
import { newChat } from "./newchat.ts";
import { type Chat, textOf } from "./model.ts";
import type { Session } from "./session.ts";
import { Thread } from "./thread.ts";
import { day, time } from "./times.ts";

export interface PageActions {
  leave(): Promise<void>;
  takeOver(): void;
}

export class Page {
  readonly #list = h("ul", { class: "chats" });
  readonly #banner = h("div", { class: "banner", role: "status" });
  readonly #self = h("span", { class: "self-state" });
  readonly #thread: Thread;
  readonly #body: HTMLElement;
  #end: HTMLDialogElement | undefined;

  constructor(readonly s: Session, readonly actions: PageActions) {
    this.#thread = new Thread(s, () => this.#close());
    const start = h("button", { class: "round", type: "button", "aria-label": "New conversation", title: "New conversation", onclick: () => newChat(s) }, icon("plus"));
    const leave = h("button", {
      class: "round quiet", type: "button", "aria-label": `Sign out ${s.user}`, title: "Sign out", onclick: () => void actions.leave(),
    }, icon("leave"));
    this.#body = h("main", { class: "app" },
      h("nav", { class: "side", "aria-label": "Conversations" },
        h("header", { class: "self" }, avatar(s.user), h("div", { class: "who" }, h("h1", {}, s.user), this.#self), start, leave),
        this.#list),
      h("div", { class: "main" }, this.#banner, this.#thread.element));
    document.body.append(this.#body);
    document.addEventListener("visibilitychange", s.look);
    document.addEventListener("keydown", (e) => {
      if (e.key === "Escape" && !document.querySelector("dialog[open]") && s.model.open) this.#close();
    });
    this.#list.addEventListener("keydown", (e) => this.#arrows(e));
    setInterval(() => this.render(), 1000); // countdowns, and the end of somebody's writing
  }

  /** Up and down go through the list. */
  #arrows(e: KeyboardEvent): void {
    const step = e.key === "ArrowDown" ? 1 : e.key === "ArrowUp" ? -1 : 0;
    if (step === 0) return;
    const all = [...this.#list.querySelectorAll("button")];
    all[all.indexOf(document.activeElement as HTMLButtonElement) + step]?.focus();
    e.preventDefault();
  }

  #close(): void {
    const was = this.s.model.open;
    this.s.open(undefined);
    this.#list.querySelector<HTMLElement>(`[data-key="${CSS.escape(was ?? "")}"] button`)?.focus();
  }

  render(): void {
    const { s } = this;
    const now = Date.now();
    this.#connection(now);
    keyed(this.#list, s.model.list(), (c) => c.conv, () => this.#line(), (e, c: Chat) => this.#update(e, c, now));
    const n = s.model.unread;
    document.title = `${n > 0 ? `(${n}) ` : ""}${s.user} · Mesh-Talk`;
    this.#body.classList.toggle("reading", s.model.open !== undefined);
    this.#thread.render(now);
  }

  #line(): Element {
    return h("li", {}, h("button", { type: "button" },
      h("span", { class: "face" }), h("span", { class: "name" }), h("time", {}), h("span", { class: "last" }), h("span", { class: "badge" })));
  }

  #update(e: HTMLElement, c: Chat, now: number): void {
    const button = e.firstElementChild as HTMLButtonElement;
    const [face, name, when, last, badge] = button.children as unknown as HTMLElement[];
    if (!face!.firstChild) {
      face!.append(avatar(c.name, c.kind === "group"));
      button.addEventListener("click", () => this.s.open(c.conv));
    }
    const online = c.kind === "private" && this.s.model.presence.get(c.name)?.online;
    face!.classList.toggle("online", online === true);
    text(name!, c.name);
    attribute(button, "aria-current", this.s.model.open === c.conv);
    const waiting = c.items.findLast((i) => i.seq === undefined);
    const newest = waiting ?? c.last;
    text(when!, newest ? (day(newest.ts, now) === "Today" ? time(newest.ts) : day(newest.ts, now)) : "");
    const writing = this.s.model.typists(c, now);
    last!.classList.toggle("writing", writing.length > 0);
    text(last!, writing.length > 0 ? (c.kind === "group" ? `${writing[0]} is writing…` : "is writing…") : this.#summary(c, newest));
    text(badge!, c.unread > 0 ? String(Math.min(c.unread, 999)) : "");
    attribute(badge!, "aria-label", c.unread > 0 ? `${c.unread} unread` : undefined);
    badge!.hidden = c.unread === 0;
  }

  #summary(c: Chat, last: { from: string; content: any; recalled: boolean } | undefined): string {
    if (!last) return c.kind === "group" ? "Say hello to everyone" : "No messages yet";
    const what = last.recalled ? "Message taken back" : textOf(last.content);
    return last.from === this.s.user ? `You: ${what}` : c.kind === "group" ? `${last.from || "System"}: ${what}` : what;
  }

  #connection(now: number): void {
    const { state } = this.s;
    let waiting = 0;
    for (const c of this.s.model.chats.values()) waiting += c.items.filter((i) => i.seq === undefined && !i.error).length;
    const online = state?.status === "online";
    text(this.#self, online ? "online" : state?.status === "ended" ? "signed out" : "connecting…");
    this.#self.classList.toggle("online", online);
    const seconds = Math.ceil((this.s.retryAt - now) / 1000);
    const queued = waiting > 0 ? ` ${waiting === 1 ? "One message waits and goes" : `${waiting} messages wait and go`} out by ${waiting === 1 ? "itself" : "themselves"}.` : "";
    text(this.#banner, state?.status === "offline"
      ? `You are offline.${queued}${seconds > 1 ? ` Trying again in ${seconds} s.` : " Trying again…"}` : "");
    this.#banner.hidden = state?.status !== "offline";
    if (state?.status === "ended" && !this.#end) this.#ended(state.error.reason);
  }

  /** The session is over, and not by this page. */
  #ended(reason: string): void {
    if (reason === "closed") return;
    const why = {
      replaced: "This chat is open in another tab of yours.", kicked: "An administrator has ended this session.",
      revoked: "Your access was withdrawn.",
    }[reason] ?? "The server refuses this session.";
    this.#end = h("dialog", { class: "sheet", "aria-labelledby": "ended", oncancel: (e: Event) => e.preventDefault() },
      h("h2", { id: "ended" }, why),
      h("p", {}, "What you had not sent yet is kept and goes out when you come back."),
      h("div", { class: "row" },
        h("button", { class: "primary", type: "button", onclick: () => this.actions.takeOver() }, reason === "replaced" ? "Use it here" : "Try again"),
        h("button", { type: "button", onclick: () => void this.actions.leave() }, "Sign out")));
    document.body.append(this.#end);
    this.#end.showModal();
  }
}
