// The words of docs/PROTOCOL.md that a client needs.

/** Commands. Yours begin at 1000. */
export const Cmd = {
  Login: 0, HeartBeat: 1, ForceLogout: 2, PrivateMessage: 3, GroupMessage: 4, SystemMessage: 5, SendAck: 6, Ack: 7, Pull: 8,
  History: 9, Read: 10, Receipt: 11, Typing: 12, Presence: 13, Recall: 14, Error: 15, GoAway: 16, Refresh: 17, Logout: 18,
  Conversations: 19, Lag: 20,
} as const;

/** Codes of ERROR and FORCE_LOGOUT, which are WebSocket close codes too. */
export const Code = {
  BadPacket: 4000, Unauthorized: 4001, Forbidden: 4003, NotFound: 4004, UnknownCommand: 4005, BadState: 4006, Timeout: 4008,
  Replaced: 4009, TokenExpired: 4010, Kicked: 4011, Conflict: 4012, TooLarge: 4013, TooSlow: 4015, RateLimited: 4029,
  Internal: 5000, Unavailable: 5003,
} as const;

/** One packet. The data is whatever the other side sent: it is looked at where it is used. */
export interface Packet {
  cmd: number;
  id?: string | undefined;
  data?: any;
}

/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** One message, or the event that took one back. The fields are those of the wire. */
export interface Message {
  /** `recall` is the event: `target` in `conv` has no content from now on. */
  kind: "private" | "group" | "system" | "recall";
  conv: string;
  /** In its conversation, 1, 2, 3 …; none = ephemeral. */
  seq?: number;
  /** In the user's inbox; none = ephemeral, of a large group, or from history. */
  inbox?: number;
  /** 32 hexadecimal digits; none for a recall. */
  msgId?: string;
  /** None = the system. */
  from?: string;
  to?: string;
  group?: string;
  /** Milliseconds since the Unix epoch, by the server's clock. */
  ts: number;
  type?: number;
  content?: Json;
  /** The sender's id. */
  id?: string;
  /** The content is null because the message was taken back. */
  recalled?: boolean;
  /** Recall only: the seq of the message that was taken back. */
  target?: number;
}

/** The server's promise that a message is kept. */
export interface SendAck {
  id: string;
  msgId: string;
  conv: string;
  ts: number;
  /** None = ephemeral, or not known yet. */
  seq?: number;
  /** The id was sent before; this is the first answer. */
  duplicate?: boolean;
}

/** How far the other side, or another terminal of one's own, has come in a conversation. */
export interface Receipt {
  conv: string;
  user: string;
  delivered?: number;
  read?: number;
}

/** `from` is writing in `conv`. */
export interface Typing {
  conv: string;
  from: string;
}

/** Where a watched user is. */
export interface Presence {
  user: string;
  online: boolean;
  terminals: string[];
  lastSeen: number;
}

/** What LOGIN answered. */
export interface Session {
  userId: string;
  terminal: string;
  sessionId: string;
  serverTime: number;
  expiresAt: number;
  /** Seconds. */
  heartbeat: number;
  epoch: string;
  inbox: { head: number; first: number; acked: number };
  resumed: boolean;
  node: string;
}

/** One line of the list of conversations. */
export interface Conversation {
  conv: string;
  kind: "private" | "group" | "system";
  peer?: string;
  group?: string;
  head: number;
  read: number;
  unread: number;
  peerDelivered?: number;
  peerRead?: number;
  last?: Message;
}

/** The message in the data of a packet. */
export function messageOf(cmd: number, data: any): Message {
  if (typeof data?.conv !== "string") throw new Error(`unreadable message (cmd ${cmd})`);
  return { kind: kindOf(cmd, data), ...data };
}

/** Of a bare message (HISTORY), which has no command of its own, the fields tell what it is. */
function kindOf(cmd: number, data: any): Message["kind"] {
  switch (cmd) {
    case Cmd.PrivateMessage: return "private";
    case Cmd.GroupMessage: return "group";
    case Cmd.SystemMessage: return "system";
    case Cmd.Recall: return "recall";
  }
  if (data.target > 0) return "recall";
  if (!data.from) return "system";
  return data.group ? "group" : "private";
}
