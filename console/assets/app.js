// The frame around the pages: sign-in, navigation, theme, the state of the server.
import { get, post, signal } from "./api.js";
import { redraw } from "./chart.js";
import { fill, h, setText } from "./dom.js";
import { duration } from "./format.js";
import { live, newest, onFrame, start, stop } from "./live.js";
import { note } from "./dialog.js";
import cluster from "./pages/cluster.js";
import conversations from "./pages/conversations.js";
import groups from "./pages/groups.js";
import overview from "./pages/overview.js";
import settings from "./pages/settings.js";
import tail from "./pages/tail.js";
import users from "./pages/users.js";

// A page is {title, show(main, argument) → cleanup}. show is called at every change of the address on that page.
const pages = { overview, users, groups, conversations, tail, settings, cluster };

const byId = (id) => document.getElementById(id);
const main = byId("main");
let session = null;
let cleanup = null;
let shown = "";

// route shows the page of the address: #/users/alice is users with the argument alice.
function route(moved = true) {
  if (!session) return;
  const [, name, ...rest] = location.hash.split("/");
  const page = pages[name] ? name : "overview";
  let argument = "";
  try {
    argument = decodeURIComponent(rest.join("/"));
  } catch {
    // A broken address is one without an argument.
  }
  cleanup?.();
  fill(main);
  document.title = (argument ? argument + " · " : "") + pages[page].title + " · " + session.node + " · Mesh-Talk";
  for (const link of byId("nav").querySelectorAll("a")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  cleanup = pages[page].show(main, argument) ?? null;
  if (moved && shown !== page) {
    window.scrollTo(0, 0);
    main.querySelector("h1")?.focus({ preventScroll: true });
  }
  shown = page;
  byId("nav").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function navigation() {
  fill(byId("nav"), h("ul", null, Object.entries(pages).map(([name, page]) =>
    h("li", null, h("a", { href: "#/" + name, data: { page: name } }, page.title)))));
}

// state shows what the newest frame says of the server.
function state() {
  const f = newest();
  const pill = byId("state");
  if (f?.state) {
    const readOnly = f.gauges.readOnly > 0;
    const bad = !f.state.ready || readOnly;
    setText(pill, f.state.draining ? "draining" : readOnly ? "read-only" : f.state.ready ? "ready" : "not ready");
    pill.className = "pill " + (bad ? "bad" : "good");
    setText(byId("node"), session.node + " · up " + duration((f.t - session.started) / 1000));
  }
  byId("live").className = "live " + (live.paused && live.state === "live" ? "paused" : live.state);
  setText(byId("live-text"), live.paused && live.state === "live" ? "paused" : live.state);
}

// Theme: as the system, light, dark.
const themes = ["system", "light", "dark"];

function theme(next) {
  const root = document.documentElement;
  let now = root.dataset.theme ?? "system";
  if (next) {
    now = themes[(themes.indexOf(now) + 1) % themes.length];
    if (now === "system") delete root.dataset.theme;
    else root.dataset.theme = now;
    try {
      localStorage.setItem("meshtalk.theme", now);
    } catch {
      // It holds until the page is left.
    }
    redraw();
  }
  setText(byId("theme-text"), "Theme: " + now);
}

// signIn shows the form until the token is right.
function signIn(expired = false) {
  session = null;
  stop();
  cleanup?.();
  cleanup = null;
  shown = "";
  byId("top").hidden = byId("nav").hidden = true;
  document.body.classList.add("signed-out");
  document.title = "Sign in · Mesh-Talk";
  const problem = h("p", { class: "problem", role: "alert" }, expired ? "You have been signed out." : "");
  const token = h("input", { id: "token", name: "token", type: "password", autocomplete: "current-password", required: true });
  const button = h("button", { type: "submit", class: "primary" }, "Sign in");
  const form = h("form", { class: "card sign-in" },
    h("img", { src: "/console/icon.svg", width: "48", height: "48", alt: "" }),
    h("h1", { tabindex: "-1" }, "Mesh-Talk console"),
    h("input", { type: "text", name: "username", autocomplete: "username", value: "admin", class: "hidden", tabindex: "-1", "aria-hidden": "true", readonly: true }),
    h("div", { class: "field" }, h("label", { for: "token" }, "Admin token"), token,
      h("small", null, "The value of admin.token in the server's configuration.")),
    problem, button);
  form.addEventListener("submit", async (e) => {
    e.preventDefault();
    button.disabled = true;
    try {
      await post("/console/login", { token: token.value });
      await begin();
    } catch (error) {
      setText(problem, error.message);
      token.select();
    }
    button.disabled = false;
  });
  fill(main, form);
  token.focus();
}

async function signOut() {
  try {
    await post("/console/logout");
    signIn();
  } catch (e) {
    note(e.message, "bad");
  }
}

// begin asks who we are to the server, and shows the console or the form.
async function begin() {
  try {
    session = await get("/console/session");
  } catch (e) {
    if (e.status === 401) signIn();
    else {
      fill(main, h("p", { class: "problem", role: "alert" }, e.message),
        h("button", { type: "button", class: "primary", onclick: begin }, "Try again"));
    }
    return;
  }
  document.body.classList.remove("signed-out");
  byId("top").hidden = byId("nav").hidden = false;
  byId("sign-out").hidden = !session.signOut;
  setText(byId("node"), session.node);
  start();
  route(false);
}

signal.signedOut = () => {
  if (session) signIn(true);
};
window.addEventListener("hashchange", () => route());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
byId("theme").addEventListener("click", () => theme(true));
byId("sign-out").addEventListener("click", signOut);
byId("skip").addEventListener("click", () => main.focus());
navigation();
theme(false);
onFrame(() => session && state());
begin();
