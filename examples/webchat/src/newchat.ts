import { h, text } from "./dom.ts";
import type { Session } from "./session.ts";

/** Names, separated by commas or spaces. */
const names = (value: string): string[] => [...new Set(value.split(/[\s,]+/).filter((n) => n !== ""))];

/** Asks whom to write to. */
export function newChat(s: Session): void {
  const error = h("p", { class: "error", role: "alert" });
  const who = h("input", { id: "who", type: "text", required: true, maxlength: 400, autocapitalize: "none", autocomplete: "off", spellcheck: "false", "aria-describedby": "who-hint" });
  const group = h("input", { id: "group", type: "text", maxlength: 40, autocapitalize: "none", autocomplete: "off", spellcheck: "false" });
  const groupRow = h("div", { hidden: true }, h("label", { for: "group" }, "Name of the group"), group);
  const update = () => {
    groupRow.hidden = names(who.value).length < 2;
    group.required = !groupRow.hidden;
  };
  who.addEventListener("input", update);
  const dialog = h("dialog", { class: "sheet", "aria-labelledby": "new-title" });
  const start = async () => {
    const people = names(who.value);
    try {
      if (people.length > 1) await s.startGroup(group.value.trim(), people);
      else if (people[0] && people[0] !== s.user) s.startPrivate(people[0]);
      else throw new Error("Name somebody else.");
      dialog.close();
    } catch (e) {
      text(error, (e as Error).message);
    }
  };
  dialog.append(h("form", {
    onsubmit: (e: Event) => {
      e.preventDefault();
      void start();
    },
  },
  h("h2", { id: "new-title" }, "New conversation"),
  h("label", { for: "who" }, "With whom?"), who,
  h("p", { class: "hint", id: "who-hint" }, "One name for a private chat, several for a group: bob, carol"),
  groupRow, error,
  h("div", { class: "row" },
    h("button", { class: "primary", type: "submit" }, "Start"),
    h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  who.focus();
}
