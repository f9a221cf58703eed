import { avatar, h, text } from "./dom.ts";

/** Shows the door. `enter` throws when it stays shut. */
export function signIn(enter: (user: string) => Promise<void>, user: string, problem: string): void {
  const error = h("p", { class: "error", role: "alert", id: "why" }, problem);
  const name = h("input", {
    id: "name", name: "user", type: "text", required: true, maxlength: 40, autocomplete: "username", autocapitalize: "none", spellcheck: "false",
    "aria-describedby": "why", value: user,
  });
  const button = h("button", { class: "primary", type: "submit" }, "Start chatting");
  const go = async (who: string) => {
    button.disabled = true;
    text(error, "");
    try {
      await enter(who.trim());
      main.remove();
    } catch (e) {
      button.disabled = false;
      text(error, e instanceof TypeError ? "The server cannot be reached." : (e as Error).message);
      name.focus();
    }
  };
  const people = ["alice", "bob", "carol"].map((who) =>
    h("button", { type: "button", class: "person", onclick: () => void go(who) }, avatar(who), who));
  const main = h("main", { class: "door" },
    h("form", {
      onsubmit: (e: Event) => {
        e.preventDefault();
        void go(name.value);
      },
    },
    h("img", { src: "/demo/icon.svg", alt: "", width: 56, height: 56 }),
    h("h1", {}, "Who are you today?"),
    h("p", { class: "lead" }, "Open this page in two tabs, be somebody else in each, and write to one another. Nothing asks for a password here."),
    h("label", { for: "name" }, "Your name"),
    h("div", { class: "row" }, name, button),
    error,
    h("p", { class: "or" }, "or be"),
    h("div", { class: "people" }, ...people)));
  document.body.append(main);
  name.focus();
}
