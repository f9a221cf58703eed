import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";

import { Person, signIn } from "../demo.ts";
import { type Chromium, launch, type Server, startServer, until } from "../harness.ts";

// What the network and the server may do to a chat: each message is there once, and in its order, on both pages.

let browser: Chromium;
let server: Server;
let people: Person[] = [];

beforeAll(async () => {
  browser = await launch();
});
afterAll(async () => {
  await browser?.close();
});
beforeEach(async () => {
  server = await startServer({ args: ["--demo.enable", "--limits.messages-per-second=0"] });
});
afterEach(async () => {
  for (const p of people) p.tab.check();
  for (const p of people) await p.tab.context.close();
  people = [];
  await server.stop();
});

async function pair(): Promise<[Person, Person]> {
  people = [await signIn(browser, server, "alice"), await signIn(browser, server, "bob")];
  const [alice, bob] = people as [Person, Person];
  await alice.writeTo("bob");
  await bob.writeTo("alice");
  return [alice, bob];
}

/** What a browser says to a server that is down. */
const down = [/WebSocket connection to .* failed/, /ERR_CONNECTION_REFUSED/, /ERR_INTERNET_DISCONNECTED/, /ERR_CONNECTION_RESET/, /ERR_EMPTY_RESPONSE/];

const banner = (p: Person) => p.page.locator(".banner");

test("the server is killed with the message in its hands: it had not taken it", async () => {
  const [alice, bob] = await pair();
  for (const p of people) p.tab.expect(...down);
  await alice.say("before");
  await bob.sees(["before"]);
  server.signal("SIGSTOP"); // what is sent now reaches its socket and no further
  await alice.say("one");
  await alice.say("two");
  await bob.say("three");
  await alice.tick("two", "waiting to be sent");
  await server.kill();
  await expect.poll(() => banner(alice).textContent(), { timeout: 60_000 }).toMatch(/^You are offline\. 2 messages wait and go out by themselves\./);
  await server.start();
  await alice.tick("two", "read");
  await bob.tick("three", "read");
  const texts = await alice.texts();
  expect([...texts].sort()).toEqual(["before", "one", "three", "two"]);
  expect(texts.filter((t) => t !== "three")).toEqual(["before", "one", "two"]);
  await bob.sees(texts);
  expect(await banner(alice).isVisible()).toBe(false);
});

test("the server is killed after it has taken the message and before its acknowledgement arrives", async () => {
  const kept: string[] = [];
  const tab = await browser.tab();
  let hold = false;
  // A wire that lets nothing but the SEND_ACK disappear.
  await tab.page.routeWebSocket(/\/im$/, (page) => {
    const wire = page.connectToServer();
    wire.onMessage((m) => {
      const { cmd, data } = JSON.parse(String(m));
      if (hold && (cmd === 6 || (cmd === 3 && data.from === "alice"))) kept.push(String(m));
      else page.send(m);
    });
  });
  tab.expect(...down);
  await tab.page.goto(`${server.address("demo")}?user=alice`);
  const alice = new Person("alice", tab);
  await alice.online();
  const bob = await signIn(browser, server, "bob");
  bob.tab.expect(...down);
  people = [alice, bob];
  await alice.writeTo("bob");
  await bob.writeTo("alice");
  hold = true;
  await alice.say("one");
  await alice.say("two");
  await bob.sees(["one", "two"]); // so they are kept
  await alice.tick("two", "waiting to be sent");
  await until("the acknowledgements are lost", () => kept.filter((m) => JSON.parse(m).cmd === 6).length === 2);
  hold = false;
  await server.kill();
  await banner(alice).waitFor();
  await server.start();
  await alice.tick("two", "read");
  await alice.sees(["one", "two"]);
  await bob.sees(["one", "two"]);
  const inbox = await server.api<{ entries: unknown[] }>("GET", "/v1/users/bob/inbox?after=0&limit=100");
  expect(inbox.entries).toHaveLength(2);
});

test("killed again and again while both write", async () => {
  const [alice, bob] = await pair();
  for (const p of people) p.tab.expect(...down);
  const sent = { alice: [] as string[], bob: [] as string[] };
  for (let round = 0; round < 4; round++) {
    for (let i = 0; i < 8; i++) {
      for (const p of [alice, bob]) {
        const text = `${p.name} ${round}.${i}`;
        sent[p.name as "alice" | "bob"].push(text);
        await p.say(text);
      }
      if (i === 2 + round) await server.kill();
      if (i === 6) await server.start();
    }
  }
  const total = sent.alice.length + sent.bob.length;
  for (const p of [alice, bob]) await expect.poll(async () => (await p.texts()).length, { timeout: 60_000 }).toBe(total);
  await alice.tick(sent.alice.at(-1)!, "read");
  await bob.tick(sent.bob.at(-1)!, "read");
  const texts = await alice.texts();
  for (const name of ["alice", "bob"] as const) expect(texts.filter((t) => t.startsWith(name))).toEqual(sent[name]);
  await bob.sees(texts);
});

test("the network goes and comes back", async () => {
  const [alice, bob] = await pair();
  for (const p of people) p.tab.expect(...down);
  await alice.say("before");
  await bob.sees(["before"]);
  await alice.tab.context.setOffline(true);
  await alice.say("from the tunnel");
  await banner(alice).waitFor();
  expect(await banner(alice).textContent()).toMatch(/One message waits and goes out by itself/);
  await bob.say("meanwhile");
  await alice.tab.context.setOffline(false);
  await alice.tick("from the tunnel", "read");
  await alice.sees(["before", "meanwhile", "from the tunnel"]);
  await bob.sees(["before", "meanwhile", "from the tunnel"]);
});

test("what was queued offline outlives a reload of the page", async () => {
  const [alice, bob] = await pair();
  for (const p of people) p.tab.expect(...down);
  let reachable = true;
  await alice.page.routeWebSocket(/\/im$/, (page) => {
    if (reachable) page.connectToServer();
    else void page.close({ code: 1001 });
  });
  await alice.page.reload();
  await alice.online();
  await alice.writeTo("bob");
  reachable = false;
  await server.kill();
  await banner(alice).waitFor();
  await server.start();
  await alice.say("one");
  await alice.say("two");
  await alice.tick("two", "waiting to be sent");
  await until("they are kept", () => alice.page.evaluate(async () => {
    const [db] = (await indexedDB.databases()).filter((d) => d.name?.includes("/alice/"));
    return new Promise<boolean>((done) => {
      const opening = indexedDB.open(db!.name!);
      opening.onsuccess = () => {
        const count = opening.result.transaction("outbox").objectStore("outbox").count();
        count.onsuccess = () => {
          opening.result.close();
          done(count.result === 2);
        };
      };
    });
  }));
  reachable = true;
  await alice.page.reload();
  await bob.sees(["one", "two"]);
  await alice.online();
  await alice.open("bob");
  await alice.sees(["one", "two"]);
  await alice.tick("two", "read");
});
