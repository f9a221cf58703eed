import { Page } from "./page.ts";
import { Session } from "./session.ts";
import { signIn } from "./signin.ts";
import { notice } from "./notice.ts";

// Who is signed in belongs to the tab: two tabs are two users, and a reload keeps each.
const key = "user";

async function enter(user: string): Promise<void> {
  let page: Page | undefined;
  let due = false;
  const changed = () => {
    if (due) return;
    due = true;
    queueMicrotask(() => {
      due = false;
      page?.render();
    });
  };
  const session = await Session.start(user, changed, notice);
  sessionStorage.setItem(key, user);
  page = new Page(session, {
    leave: async () => {
      sessionStorage.removeItem(key);
      history.replaceState(null, "", location.pathname);
      await session.leave();
      location.reload();
    },
    takeOver: () => location.reload(),
  });
  page.render();
}

const asked = new URLSearchParams(location.search).get("user");
const user = sessionStorage.getItem(key) ?? asked;
if (user) enter(user).catch((e: Error) => signIn(enter, user, e.message));
else signIn(enter, "", "");
