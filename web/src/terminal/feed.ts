/**
 * The bytes of one terminal in their order: what comes twice is cut off, what is missing is said. Pure but for what it is given.
 */
export interface Sink {
  write(bytes: Uint8Array): void;
  /** That many bytes, up to this offset, were not kept or not sent. */
  gap(from: number, to: number): void;
}

export class Feed {
  /** Behind the last byte that was handed on; null: none yet. */
  end: number | null = null;
  start: number | null = null;

  constructor(private readonly sink: Sink) {}

  take(offset: number, bytes: Uint8Array) {
    if (this.end === null) {
      this.start = this.end = offset;
    }
    if (offset + bytes.length <= this.end) return;
    if (offset > this.end) this.sink.gap(this.end, offset);
    const fresh = offset < this.end ? bytes.subarray(this.end - offset) : bytes;
    this.end = offset + bytes.length;
    this.sink.write(fresh);
  }

  restart() {
    this.start = this.end = null;
  }
}

/** Input in pieces that the server takes, never cut inside a character. */
export function pieces(text: string, max = 32_768): string[] {
  const out: string[] = [];
  let piece = "";
  let bytes = 0;
  for (const c of text) {
    const n = c.codePointAt(0)!;
    const length = n < 0x80 ? 1 : n < 0x800 ? 2 : n < 0x10000 ? 3 : 4;
    if (bytes + length > max) {
      out.push(piece);
      piece = "";
      bytes = 0;
    }
    piece += c;
    bytes += length;
  }
  if (piece) out.push(piece);
  return out;
}

/** Terminal output as plain text: escape sequences taken out, a line that was written over as it was at last. */
export function plain(text: string): string {
  return text
    .replace(/\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)/g, "")
    .replace(/\x1b[P^_X][^\x1b]*\x1b\\/g, "")
    .replace(/\x1b\[[0-?]*[ -/]*[@-~]/g, "")
    .replace(/\x1b[ -/]*[0-~]/g, "")
    .replace(/\r+\n/g, "\n")
    .replace(/^[^\n]*\r(?=[^\n])/gm, "")
    .replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "");
}
