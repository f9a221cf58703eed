// Find a user; see terminals, positions, inbox and conversations; kick, revoke, write.
import { get, path, post, query } from "../api.js";
import { ask, note } from "../dialog.js";
import { card, debounce, facts, fill, h, problem, setText, table } from "../dom.js";
import { count, moment } from "../format.js";
import { convLink, inbox } from "./messages.js";

const shownEntries = 20;

// list is who is online here, by the beginning of the name.
function list(box, more, chosen) {
  let prefix = "";
  let turn = 0; // answers of an older search are dropped
  let after = "";
  async function load(fresh) {
    const mine = ++turn;
    if (fresh) after = "";
    try {
      const page = await get("/v1/users" + query({ prefix, after, limit: 50 }));
      if (mine !== turn) return;
      if (fresh) fill(box);
      for (const u of page.users) {
        box.append(h("li", null, h("a", { href: "#/users/" + encodeURIComponent(u), "aria-current": u === chosen ? "true" : null }, u)));
      }
      if (box.childElementCount === 0) fill(box, h("li", { class: "empty" }, prefix ? "Nobody online with this name." : "Nobody is online."));
      after = page.users.at(-1) ?? after;
      more.hidden = !page.more;
    } catch (e) {
      if (mine === turn) fill(box, h("li", null, problem(e)));
    }
  }
  more.addEventListener("click", () => load(false));
  load(true);
  const search = debounce(() => load(true));
  return (text) => {
    prefix = text;
    search();
  };
}

async function kick(user, terminal, reload) {
  const answer = await ask({
    title: terminal ? "Kick " + user + " from " + terminal + "?" : "Kick " + user + "?",
    text: "The client is told and its connection closed. It may log in again with the same token.",
    fields: [{ name: "reason", label: "Reason that the client is told", value: "closed by an administrator", required: true }],
    confirm: "Kick", danger: true,
  });
  if (!answer) return;
  await act(async () => {
    const { closed } = await post(path("v1", "users", user, "kick"), { ...(terminal ? { terminal } : {}), reason: answer.reason });
    note(closed === 1 ? "1 session was closed." : closed + " sessions were closed.");
  }, reload);
}

async function revoke(user, reload) {
  const answer = await ask({
    title: "Revoke the tokens of " + user + "?",
    text: "Every token of this user issued until now is refused from now on, and its sessions end within 5 seconds. This cannot be undone.",
    confirm: "Revoke", danger: true,
  });
  if (!answer) return;
  await act(async () => {
    const { before } = await post(path("v1", "users", user, "revoke"));
    note("Tokens issued before " + moment(before) + " are refused.");
  }, reload);
}

async function write(user, reload) {
  const answer = await ask({
    title: "System message to " + user,
    text: "It is kept in the user's inbox and pushed to every terminal, from the system.",
    fields: [{ name: "text", label: "Text", type: "textarea", required: true, hint: "Sent as {\"text\": …}." }],
    confirm: "Send",
  });
  if (!answer) return;
  await act(async () => {
    await post("/v1/messages", { id: "console-" + crypto.getRandomValues(new Uint32Array(4)).join("-"), to: user, content: { text: answer.text } });
    note("The message is kept and on its way.");
  }, reload);
}

async function act(f, reload) {
  try {
    await f();
  } catch (e) {
    note(e.message, "bad");
  }
  reload();
}

const terminalColumns = [{ name: "Terminal" }, { name: "Position", class: "number" }, { name: "Behind", class: "number" }, { name: "State" },
  { name: "Transport" }, { name: "Address" }, { name: "Node" }, { name: "Since" }, { name: "Action" }];

// terminals are those that are logged in, then where the others stand.
function terminals(u, reload) {
  const behind = (acked) => count(Math.max(0, u.inbox.head - acked));
  const rows = u.terminals.map((t) => [t.terminal, count(t.acked), behind(t.acked),
    t.lagging ? h("span", { class: "bad" }, "lagging") : h("span", { class: "ok" }, "online"), t.transport, t.ip, t.node, moment(t.since),
    h("button", { type: "button", class: "small danger", "aria-label": "Kick from " + t.terminal, onclick: () => kick(u.user, t.terminal, reload) }, "Kick")]);
  const here = new Set(u.terminals.map((t) => t.terminal));
  for (const [name, acked] of Object.entries(u.positions).sort()) {
    if (!here.has(name)) rows.push([name, count(acked), behind(acked), "offline", "", "", "", "", ""]);
  }
  return table("Terminals", terminalColumns, rows, { empty: "No terminal has ever logged in." });
}

const convColumns = [{ name: "Conversation" }, { name: "Kind" }, { name: "Head", class: "number" }, { name: "Read", class: "number" },
  { name: "Unread", class: "number" }, { name: "Last message" }];

async function conversations(box, user, cursor = "") {
  const page = await get(path("v1", "users", user, "conversations") + query({ cursor, limit: 20 }));
  const rows = page.conversations.map((c) => [convLink(c.conv), c.kind, count(c.head), count(c.read), count(c.unread), moment(c.last?.ts)]);
  fill(box, table("Conversations", convColumns, rows, { empty: "No conversations." }),
    h("div", { class: "buttons" },
      cursor && h("button", { type: "button", class: "plain", onclick: () => conversations(box, user) }, "Newest"),
      page.cursor && h("button", { type: "button", class: "plain", onclick: () => conversations(box, user, page.cursor) }, "Older")));
}

// detail shows one user, and again after every action.
function detail(box, user) {
  const head = h("div", { class: "title" });
  const about = h("div");
  const terminalBox = h("div");
  const inboxBox = h("div");
  const convBox = h("div");
  let gone = false;
  async function load() {
    try {
      const u = await get(path("v1", "users", user));
      const entries = await get(path("v1", "users", user, "inbox") + query({ after: Math.max(0, u.inbox.head - shownEntries), limit: shownEntries }));
      if (gone) return;
      fill(head, h("h2", { class: "name" }, u.user), h("span", { class: "pill " + (u.online ? "good" : "off") }, u.online ? "online" : "offline"),
        h("span", { class: "grow" }),
        h("button", { type: "button", class: "plain", onclick: load }, "Refresh"),
        h("button", { type: "button", class: "primary", onclick: () => write(user, load) }, "System message"),
        h("button", { type: "button", class: "danger", disabled: u.terminals.length === 0, onclick: () => kick(user, "", load) }, "Kick"),
        h("button", { type: "button", class: "danger", onclick: () => revoke(user, load) }, "Revoke tokens"));
      fill(about, facts([["Last seen", u.online ? "now" : moment(u.lastSeen)], ["Inbox head", h("b", { data: { key: "head" } }, count(u.inbox.head))],
        ["First kept", count(u.inbox.first)], ["Terminals online", count(u.terminals.length)]]));
      fill(terminalBox, terminals(u, load));
      fill(inboxBox, inbox(entries.entries.reverse()));
      await conversations(convBox, user);
    } catch (e) {
      if (!gone) fill(about, problem(e));
    }
  }
  fill(box, h("section", { class: "card" }, head, about), card("Terminals", terminalBox), card("Last messages", inboxBox), card("Conversations", convBox));
  load();
  return () => (gone = true);
}

export default {
  title: "Users",
  show(main, user) {
    const names = h("ul", { class: "names" });
    const more = h("button", { type: "button", class: "plain", hidden: true }, "More");
    const input = h("input", { id: "find", type: "search", placeholder: "Name", autocomplete: "off", spellcheck: "false", maxlength: "64" });
    const hint = h("p", { class: "hint" }, "Users online on this node. Enter opens any user by the exact name, online or not.");
    const form = h("form", { class: "search", role: "search" }, h("label", { for: "find" }, "Find a user"), h("div", { class: "line" }, input,
      h("button", { type: "submit", class: "primary" }, "Open")));
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      if (input.value) location.hash = "#/users/" + encodeURIComponent(input.value);
    });
    const box = h("div", { class: "stack" });
    fill(main, h("h1", { tabindex: "-1" }, "Users"),
      h("div", { class: "split" }, h("section", { class: "card side" }, form, hint, names, more), box));
    const search = list(names, more, user);
    input.addEventListener("input", () => search(input.value));
    if (user) return detail(box, user);
    fill(box, h("p", { class: "placeholder" }, "Choose a user to see terminals, positions, inbox and conversations."));
    setText(more, "More");
    return null;
  },
};
