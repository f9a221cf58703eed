export { type CallOptions, Client, type Events, type Outgoing, type State } from "./client.ts";
export { DisconnectedError, EndError, type EndReason, ServerError } from "./errors.ts";
export type { Options, Socket, SocketConstructor } from "./options.ts";
export { isMessage, OutboxError, type Pending } from "./outbox.ts";
export {
  Cmd, Code, type Conversation, type Json, type Message, type Packet, type Presence, type Receipt, type SendAck, type Session, type Typing,
} from "./protocol.ts";
export { IndexedDBStore, MemoryPositions, type OutboxStore, type Position, type PositionStore, type SavedSend } from "./stores.ts";
