/** One call of the handlers, and the position that it completes. */
export interface Delivery {
  /** None = nothing to tell, a position only. */
  run?: (() => unknown) | undefined;
  inbox?: number;
  /** Of a large group. */
  conv?: string;
  seq?: number;
  /** Of the inbox that the numbers belong to. */
  gen: number;
}

/** What waits for the handlers, which are called one after the other, in the order in which things happened. */
export class Deliveries {
  #queue: Delivery[] = [];
  #running: Promise<void> | undefined;
  #stopped = false;

  /**
   * `handled` is told of each delivery and may take its time.
   * `failed` gets what a handler has thrown.
   */
  constructor(readonly handled: (d: Delivery) => Promise<void> | undefined, readonly failed: (e: unknown) => void) {}

  get length(): number {
    return this.#queue.length;
  }

  add(d: Delivery): void {
    if (this.#stopped) return;
    this.#queue.push(d);
    this.#running ??= this.#run();
  }

  /** Ends after the call in progress, or with `drain` after all that wait. It must not be awaited by a handler. */
  async stop(drain: boolean): Promise<void> {
    this.#stopped = true;
    if (!drain) this.#queue = [];
    await this.#running;
  }

  async #run(): Promise<void> {
    await null; // what is added in one go is one go
    for (let d; (d = this.#queue.shift()); ) {
      try {
        await d.run?.();
      } catch (e) {
        this.failed(e);
      }
      await this.handled(d);
    }
    this.#running = undefined;
  }
}
