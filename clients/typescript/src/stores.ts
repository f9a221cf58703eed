/** How far a terminal has taken its messages: where it resumes, and what it drops as a repeat. */
export interface Position {
  /** Of the server's store; empty = nothing taken yet. */
  epoch: string;
  /** Newest inbox number taken. */
  inbox: number;
  /** By conversation, of large groups, whose messages have no inbox number: counting began behind `base`, up to `seq` is taken. */
  groups: Record<string, { base: number; seq: number }>;
}

/**
 * Keeps the position of one user and terminal between two runs of a program. `save` is called after messages were handled
 * and before they are acknowledged. One that keeps messages and position in one transaction makes the application itself
 * exactly-once. Calls are serialised.
 */
export interface PositionStore {
  load(): Promise<Position | undefined>;
  save(position: Position): Promise<void>;
}

/** A send without an answer, as it is kept. */
export interface SavedSend {
  id: string;
  cmd: number;
  data: unknown;
}

/** Keeps sends without an answer between two runs, so that what was queued offline goes out after a reload too, under its id. */
export interface OutboxStore {
  /** In the order in which they were put. */
  loadSends(): Promise<SavedSend[]>;
  putSend(send: SavedSend): Promise<void>;
  deleteSend(id: string): Promise<void>;
}

/** Keeps the position for the life of the object. */
export class MemoryPositions implements PositionStore {
  #position: Position | undefined;
  async load(): Promise<Position | undefined> {
    return this.#position;
  }
  async save(position: Position): Promise<void> {
    this.#position = position;
  }
}

const positions = "positions";
const outbox = "outbox";

/**
 * Position and unanswered sends in a database of the browser. The name must be that of one user, terminal and server:
 * use it in one tab at a time, as two tabs of one terminal end each other anyway.
 */
export class IndexedDBStore implements PositionStore, OutboxStore {
  readonly #name: string;
  #opened: Promise<IDBDatabase> | undefined;

  constructor(name: string) {
    this.#name = "meshtalk:" + name;
  }

  #open(): Promise<IDBDatabase> {
    return (this.#opened ??= new Promise((done, failed) => {
      const request = indexedDB.open(this.#name, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore(positions);
        request.result.createObjectStore(outbox, { autoIncrement: true }).createIndex("id", "id", { unique: true });
      };
      request.onerror = () => failed(request.error);
      request.onsuccess = () => done(request.result);
    }));
  }

  /** Runs work in one transaction and returns what its request found, after the commit. */
  async #run<T>(store: string, mode: IDBTransactionMode, work: (s: IDBObjectStore) => IDBRequest<T>): Promise<T> {
    const db = await this.#open();
    return new Promise((done, failed) => {
      const tx = db.transaction(store, mode);
      const request = work(tx.objectStore(store));
      tx.oncomplete = () => done(request.result);
      tx.onabort = () => failed(tx.error ?? request.error);
    });
  }

  load(): Promise<Position | undefined> {
    return this.#run(positions, "readonly", (s) => s.get(0) as IDBRequest<Position | undefined>);
  }

  async save(position: Position): Promise<void> {
    await this.#run(positions, "readwrite", (s) => s.put(position, 0));
  }

  loadSends(): Promise<SavedSend[]> {
    return this.#run(outbox, "readonly", (s) => s.getAll() as IDBRequest<SavedSend[]>);
  }

  async putSend(send: SavedSend): Promise<void> {
    await this.#run(outbox, "readwrite", (s) => {
      const found = s.index("id").getKey(send.id);
      found.onsuccess = () => {
        if (found.result === undefined) s.put(send);
      };
      return found;
    });
  }

  async deleteSend(id: string): Promise<void> {
    await this.#run(outbox, "readwrite", (s) => {
      const found = s.index("id").getKey(id);
      found.onsuccess = () => {
        if (found.result !== undefined) s.delete(found.result);
      };
      return found;
    });
  }

  /** Closes the database; a later call opens it again. */
  async close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    (await opened)?.close();
  }
}
