// The stream of frames: one for the whole page, kept while somebody looks at it.

const kept = 600; // frames, as many as the server keeps
const hiddenFor = 10_000; // ms: a tab in the background is nobody looking

// frames are the newest ones, oldest first. paused: what comes is kept in the background and not shown.
export const live = { frames: [], state: "connecting", paused: false };

const listeners = new Set();
let source = null;
let timer = 0;
let wanted = false;
let behind = null; // frames that came while paused
let latest = null;

// onFrame calls f at every change until the returned function is called.
export function onFrame(f) {
  listeners.add(f);
  return () => listeners.delete(f);
}

// last is the newest frame that is shown, with totals and state of the newest of all.
export function last() {
  return live.frames.at(-1) ?? null;
}

// newest is the last frame that came, shown or not.
export function newest() {
  return latest;
}

function changed() {
  for (const f of listeners) f();
}

export function pause(on) {
  live.paused = on;
  if (on) behind = [...live.frames];
  else if (behind) {
    live.frames = behind;
    behind = null;
  }
  changed();
}

function take(frames) {
  const list = behind ?? live.frames;
  list.push(...frames);
  if (list.length > kept) list.splice(0, list.length - kept);
}

function open() {
  if (source || !wanted) return;
  source = new EventSource("/console/live");
  source.addEventListener("history", (e) => {
    const { frames } = JSON.parse(e.data);
    if (behind) behind = frames;
    else live.frames = frames;
    live.state = "live";
    changed();
  });
  source.addEventListener("frame", (e) => {
    latest = JSON.parse(e.data);
    if ((behind ?? live.frames).at(-1)?.t !== latest.t) take([latest]); // the history may have it already
    live.state = "live";
    changed();
  });
  source.addEventListener("error", () => {
    live.state = "reconnecting";
    if (source.readyState === EventSource.CLOSED) { // refused: it will not try again by itself
      source = null;
      clearTimeout(timer);
      timer = setTimeout(retry, 2000);
    }
    changed();
  });
}

// retry looks whether it is the sign-in that is missing; api.js tells app.js then.
async function retry() {
  const { get } = await import("./api.js");
  try {
    await get("/console/session");
  } catch {
    if (!wanted) return;
  }
  open();
}

function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

export function start() {
  wanted = true;
  open();
}

export function stop() {
  wanted = false;
  close();
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) open();
  else timer = setTimeout(() => {
    close();
    live.state = "asleep";
    changed();
  }, hiddenFor);
});
