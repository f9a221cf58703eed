// Calls to the server. The cookie of the sign-in goes with them by itself.

export class Refused extends Error {
  constructor(status, name, message) {
    super(message);
    this.status = status;
    this.name = name;
  }
}

// onSignedOut is called when the server no longer knows this browser; app.js sets it.
export const signal = { signedOut: () => {} };

async function call(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method, cache: "no-store", credentials: "same-origin", redirect: "error", signal: AbortSignal.timeout(30_000),
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }),
    });
  } catch (e) {
    throw new Refused(0, "OFFLINE", e.name === "TimeoutError" ? "The server does not answer." : "The server cannot be reached.");
  }
  const text = await answer.text();
  let value = null;
  try {
    value = JSON.parse(text);
  } catch {
    // An answer that is no JSON is told by its status.
  }
  if (answer.ok && value !== null) return value;
  const error = value?.error ?? { name: "HTTP_" + answer.status, message: "The server answers " + answer.status + "." };
  if (answer.status === 401) signal.signedOut();
  throw new Refused(answer.status, error.name, error.message);
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);

// path joins segments, each of them any text.
export const path = (...segments) => "/" + segments.map(encodeURIComponent).join("/");

// query is a query string of what is set.
export function query(values) {
  const q = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) {
    if (value !== "" && value !== null && value !== undefined) q.set(key, value);
  }
  const text = q.toString();
  return text ? "?" + text : "";
}
