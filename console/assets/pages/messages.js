// A list of messages, as inbox and history show them.
import { h, table } from "../dom.js";
import { moment } from "../format.js";

const kinds = { 3: "private", 4: "group", 5: "system", 14: "recall" };

export const userLink = (name) => (name ? h("a", { href: "#/users/" + encodeURIComponent(name) }, name) : h("i", null, "the system"));
export const convLink = (conv) => h("a", { href: "#/conversations/" + encodeURIComponent(conv) }, conv);
export const groupLink = (name) => h("a", { href: "#/groups/" + encodeURIComponent(name) }, name);

// kindOf tells what a message of a history is: it carries no command there.
export function kindOf(m) {
  if (m.target !== undefined) return "recall";
  if (m.from === undefined) return "system";
  return m.group === undefined ? "private" : "group";
}

function content(m) {
  if (m.target !== undefined) return h("i", null, "takes back " + m.target);
  if (m.recalled) return h("i", null, "recalled");
  const text = typeof m.content?.text === "string" && Object.keys(m.content).length === 1 ? m.content.text : JSON.stringify(m.content);
  return h("div", { class: "content" }, text);
}

const columns = [{ name: "Seq", class: "number" }, { name: "Time" }, { name: "From" }, { name: "Kind" }, { name: "Content", class: "wide" }];

// history is a table of the messages of one conversation.
export function history(messages, caption) {
  return table(caption, columns, messages.map((m) =>
    [m.seq, h("time", { datetime: new Date(m.ts).toISOString() }, moment(m.ts)), userLink(m.from), kindOf(m), content(m)]),
  { empty: "No messages.", head: false });
}

const inboxColumns = [{ name: "Inbox", class: "number" }, { name: "Time" }, { name: "Conversation" }, { name: "From" }, { name: "Kind" },
  { name: "Content", class: "wide" }];

// inbox is a table of entries, each with its packet.
export function inbox(entries) {
  return table("Last messages of the inbox", inboxColumns, entries.map(({ cmd, data }) =>
    [data.inbox, h("time", { datetime: new Date(data.ts).toISOString() }, moment(data.ts)), convLink(data.conv), userLink(data.from),
      kinds[cmd] ?? cmd, content(data)]), { empty: "The inbox is empty.", head: false });
}
