import type { RunState } from "@/api/runs";

/** What is known of a run that is watched, out of its events. */
export interface Watched {
  /** The last numbered event: a lost connection goes on behind it. */
  seq: number;
  state?: RunState;
  message?: string;
  text: string;
  /** Bytes of the whole text; only the end of it is kept here. */
  bytes: number;
  ended: boolean;
}

export const unwatched: Watched = { seq: 0, text: "", bytes: 0, ended: false };
const KEPT_BYTES = 256 * 1024;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

interface Output {
  offset: number;
  text: string;
  reset?: boolean;
}

function withOutput(w: Watched, o: Output): Watched {
  const added = encoder.encode(o.text);
  const start = w.bytes - encoder.encode(w.text).length;
  let text: string;
  // A viewer that joins again gets everything in one piece, from its beginning.
  if (o.reset || o.offset <= start) text = o.text;
  else if (o.offset < w.bytes) text = decoder.decode(encoder.encode(w.text).slice(0, o.offset - start)) + o.text;
  else text = w.text + o.text;
  const whole = encoder.encode(text);
  if (whole.length > KEPT_BYTES) text = decoder.decode(whole.slice(-KEPT_BYTES)).replace(/^\ufffd+/, "");
  return { ...w, text, bytes: o.offset + added.length };
}

/** The next of it; an event that is not known changes nothing. */
export function watch(w: Watched, { event, data, id }: { event: string; data: unknown; id?: number }): Watched {
  const d = data as { state?: RunState; message?: string } & Partial<Output> & { first_seq?: number };
  const seq = Math.max(w.seq, id ?? 0);
  switch (event) {
    case "state":
    case "end":
      return { ...w, seq, state: d.state ?? w.state, message: typeof d.message === "string" ? d.message : w.message, ended: w.ended || event === "end" };
    case "output":
      return typeof d.text === "string" && typeof d.offset === "number" ? withOutput(w, d as Output) : w;
    case "reset":
      // Its log begins elsewhere than was thought: what follows is all of it.
      return { ...w, seq: 0 };
    default:
      return seq === w.seq ? w : { ...w, seq };
  }
}

export interface Attempt {
  key: string;
  ok: boolean;
  text: string;
}

const CLASSES: Record<string, string> = { ok: "answered" };

/** Which providers were asked, in their order, out of what the run says; the document leaves it open. */
export function attemptsOf(provider: Record<string, unknown> | null | undefined): Attempt[] {
  const list = Array.isArray(provider?.attempts) ? (provider.attempts as unknown[]) : [];
  return list.flatMap((a) => {
    const one = (typeof a === "object" && a !== null ? a : {}) as Record<string, unknown>;
    if (typeof one.key !== "string" || typeof one.class !== "string") return [];
    const ms = typeof one.ms === "number" ? ` after ${one.ms.toLocaleString()} ms` : "";
    return [{ key: one.key, ok: one.class === "ok", text: `${CLASSES[one.class] ?? one.class.replaceAll("_", " ")}${ms}` }];
  });
}
