import type { Socket } from "../src/options.ts";

/** The server's end of a socket in memory. Everything happens at once, in the order of the calls. */
export class FakeSocket implements Socket {
  onopen: ((event: unknown) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  readonly sent: any[] = [];
  closed = false;
  open = false;

  constructor(readonly url: string, readonly took: (packet: any) => void) {}

  send(data: string): void {
    if (!this.open) throw new Error("the socket is not open");
    this.took(JSON.parse(data));
  }

  close(): void {
    this.closed = true;
    if (this.open) this.end(1000, "");
  }

  // The server's side.

  accept(): void {
    this.open = true;
    this.onopen?.({});
  }

  push(packet: unknown): void {
    this.onmessage?.({ data: JSON.stringify(packet) });
  }

  /** The end: a code of the server's, or 1006. */
  end(code: number, reason: string): void {
    this.open = false;
    const told = this.onclose;
    this.onclose = null;
    if (code === 1006) this.onerror?.({});
    told?.({ code, reason });
  }
}
