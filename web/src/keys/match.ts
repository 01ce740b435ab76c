/** "mod+k", "?", "c", or a sequence: "g s". */
export interface Pressed {
  key: string;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
  shiftKey?: boolean;
}

export const nameOf = (e: Pressed): string => {
  const key = e.key.length === 1 ? e.key.toLowerCase() : e.key;
  return (e.ctrlKey || e.metaKey ? "mod+" : "") + (e.altKey ? "alt+" : "") + (e.shiftKey && /^[a-z]$/.test(key) ? "shift+" : "") + key;
};

const PAUSE_MS = 1000;

/** Keys pressed one after the other; what they mean, "more" while they may become something, else nothing. */
export class Sequence {
  private so: string[] = [];
  private last = 0;

  press(name: string, known: readonly string[], now: number): string | "more" | null {
    if (now - this.last > PAUSE_MS) this.so = [];
    this.last = now;
    for (const tried of [[...this.so, name], [name]]) {
      const text = tried.join(" ");
      if (known.includes(text)) {
        this.so = [];
        return text;
      }
      if (known.some((k) => k.startsWith(`${text} `))) {
        this.so = tried;
        return "more";
      }
    }
    this.so = [];
    return null;
  }
}
