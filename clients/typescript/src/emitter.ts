/** Typed events. Handlers of one event are called in the order in which they came. */
export class Emitter<Events> {
  #handlers = new Map<keyof Events, Set<(value: any) => unknown>>();

  on<K extends keyof Events>(name: K, handler: (value: Events[K]) => unknown): () => void {
    let set = this.#handlers.get(name);
    if (!set) this.#handlers.set(name, (set = new Set()));
    const own = (value: Events[K]) => handler(value); // so that one function may be there twice
    set.add(own);
    return () => set.delete(own);
  }

  has(name: keyof Events): boolean {
    return (this.#handlers.get(name)?.size ?? 0) > 0;
  }

  /** Calls the handlers, one after the other; the first error ends it. */
  async emit<K extends keyof Events>(name: K, value: Events[K]): Promise<void> {
    for (const f of [...(this.#handlers.get(name) ?? [])]) await f(value);
  }
}
