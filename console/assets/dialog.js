// Questions and short notes.
import { h } from "./dom.js";

// ask shows a dialog and resolves with the values of its fields ({} without any), or null when it was cancelled. Fields are
// {name, label, value?, type?: "text" | "textarea", required?, hint?}.
export function ask({ title, text, fields = [], confirm, danger = false }) {
  return new Promise((resolve) => {
    const inputs = fields.map((f, i) => field(f, i));
    const form = h("form", { method: "dialog" },
      h("h2", { id: "dialog-title" }, title),
      h("p", { id: "dialog-text" }, text),
      inputs.map((i) => i.element),
      h("div", { class: "buttons" },
        h("button", { type: "button", class: "plain", value: "cancel", onclick: () => dialog.close() }, "Cancel"),
        h("button", { type: "submit", class: danger ? "danger" : "primary" }, confirm)));
    const dialog = h("dialog", { "aria-labelledby": "dialog-title", "aria-describedby": "dialog-text" }, form);
    let answer = null;
    form.addEventListener("submit", () => {
      answer = Object.fromEntries(inputs.map((i) => [i.name, i.input.value]));
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

function field({ name, label, value = "", type = "text", required = false, hint = "" }, i) {
  const id = "dialog-field-" + i;
  const input = h(type === "textarea" ? "textarea" : "input", {
    id, name, required, ...(type === "textarea" ? { rows: "3" } : { type, autocomplete: "off" }),
    "aria-describedby": hint ? id + "-hint" : null,
  });
  input.value = value;
  return {
    name, input,
    element: h("div", { class: "field" }, h("label", { for: id }, label), input, hint && h("small", { id: id + "-hint" }, hint)),
  };
}

// note tells what has happened, for a few seconds.
export function note(text, kind = "good") {
  const e = h("p", { class: "toast " + kind }, text);
  document.getElementById("toasts").append(e);
  setTimeout(() => e.remove(), 6000);
}
