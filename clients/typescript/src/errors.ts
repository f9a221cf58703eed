import { Code } from "./protocol.ts";

/** Why a client ended for good. */
export type EndReason =
  | "replaced" // a newer login of the same user and terminal took over
  | "kicked" // an administrator ended the session
  | "unauthorized" // the server refused the token, and a fresh one too
  | "revoked" // the token was revoked while in use
  | "refused" // LOGIN was answered by an error that no retry mends
  | "closed"; // close or logout was called

/** The client has ended and will not connect again by itself. */
export class EndError extends Error {
  override readonly name = "EndError";
  constructor(readonly reason: EndReason, readonly code = 0, text = "") {
    super(text ? `${reason}: ${text}` : reason);
  }
}

/** An ERROR packet. */
export class ServerError extends Error {
  override readonly name = "ServerError";
  constructor(
    readonly code: number,
    /** Such as FORBIDDEN. */
    readonly reason: string,
    /** The server's text for people. */
    readonly text: string,
    readonly retryable: boolean,
    /** Milliseconds; 0 = not given. */
    readonly retryAfterMs: number,
  ) {
    super(`${reason} (${code}): ${text}`);
  }
}

/** The connection ended before the answer to a call that is not repeated by itself, or without a word. */
export class DisconnectedError extends Error {
  override readonly name = "DisconnectedError";
  /** `code` is that of the WebSocket's close, 1006 when there was none. */
  constructor(readonly code: number, text: string) {
    super(text);
  }
}

/** The server asked to come back later. Internal. */
export class GoAway extends Error {
  /** `until` is by the local clock, in ms. */
  constructor(readonly until: number, reason: string) {
    super(`the server goes away: ${reason}`);
  }
}

/** LOGIN was refused and a fresh token may help. Internal. */
export class TokenRefused extends Error {}

/** Reads the data of an ERROR packet. */
export function serverError(data: any): ServerError {
  return new ServerError(Number(data?.code) || Code.Internal, String(data?.name ?? "INTERNAL"), String(data?.message ?? ""),
    data?.retryable === true, Number(data?.retryAfterMs) || 0);
}

/** The end for good that a closing code means; undefined when reconnecting may help. */
export function endOfCode(code: number, name: string, text: string): EndError | undefined {
  switch (code) {
    case Code.Replaced: return new EndError("replaced", code, text);
    case Code.Kicked: return new EndError("kicked", code, text);
    case Code.TokenExpired: return name === "REVOKED" ? new EndError("revoked", code, text) : undefined;
  }
  return undefined;
}

/** What an ERROR instead of the LOGIN answer means. */
export function loginRefusal(e: ServerError): Error {
  if (e.code === Code.Unauthorized || e.code === Code.TokenExpired) return new TokenRefused(e.text);
  return endOfCode(e.code, e.reason, e.text) ?? (e.retryable || e.code === Code.Timeout ? e : new EndError("refused", e.code, e.text));
}

/** Makes an Error of whatever was thrown. */
export const asError = (e: unknown): Error => (e instanceof Error ? e : new Error(String(e)));
