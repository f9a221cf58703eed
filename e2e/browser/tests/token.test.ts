import { expect, test } from "vitest";

import { signIn } from "../demo.ts";
import { launch, startServer, until } from "../harness.ts";

interface User {
  terminals: { sessionId: string }[];
}

/** A session whose token was not renewed is closed this long after its expiry, docs/PROTOCOL.md §5. In ms. */
const grace = 25_000;

test("a session outlives its tokens as long as there are new ones, and comes back when there are again", async () => {
  const ttl = 2_000;
  const server = await startServer({ args: ["--demo.enable", `--demo.token-ttl=${ttl}ms`] });
  const browser = await launch();
  try {
    const alice = await signIn(browser, server, "alice");
    const bob = await signIn(browser, server, "bob");
    const sessions = async () => (await server.api<User>("GET", "/v1/users/alice")).terminals.map((t) => t.sessionId);
    const began = Date.now();
    const [session] = await sessions();
    await alice.writeTo("bob");
    await until("the first token's session would be over", () => Date.now() - began > ttl + grace + 3_000);
    expect(await sessions()).toEqual([session]);
    await alice.say("still here");
    await bob.open("alice");
    await bob.sees(["still here"]);

    // Nobody gives alice a token any more.
    alice.tab.expect(/ERR_FAILED/, /WebSocket connection/);
    await alice.page.route("**/demo/token*", (r) => r.abort());
    await alice.page.locator(".banner").waitFor();
    await alice.say("from outside");
    await alice.page.unroute("**/demo/token*");
    await alice.tick("from outside", "read");
    expect(await sessions()).not.toContain(session);
    await bob.sees(["still here", "from outside"]);
    alice.tab.check();
    bob.tab.check();
  } finally {
    await browser.close();
    await server.stop();
  }
});
