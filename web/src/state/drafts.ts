import { useCallback, useSyncExternalStore } from "react";

/** What was half typed, by address and field, so that going back and reloading lose nothing. */
const PREFIX = "muster.draft:";
const MAX_DRAFTS = 50;
const MAX_LENGTH = 200_000;
const listeners = new Set<() => void>();

interface Stored {
  text: string;
  at: number;
}

const nameOf = (path: string, field: string) => `${PREFIX}${path}#${field}`;

function stored(name: string): Stored | null {
  try {
    const raw = localStorage.getItem(name);
    const value = raw ? (JSON.parse(raw) as Partial<Stored>) : null;
    return typeof value?.text === "string" ? { text: value.text, at: Number(value.at) || 0 } : null;
  } catch {
    return null;
  }
}

export const readDraft = (path: string, field: string) => stored(nameOf(path, field))?.text ?? "";

export function writeDraft(path: string, field: string, text: string, now = Date.now()) {
  const name = nameOf(path, field);
  try {
    if (!text) localStorage.removeItem(name);
    else if (text.length <= MAX_LENGTH) {
      localStorage.setItem(name, JSON.stringify({ text, at: now }));
      forgetOldest();
    }
  } catch {
    // No room, or a browser that keeps nothing: the text is still in the field.
  }
  for (const fn of listeners) fn();
}

function forgetOldest() {
  const names = Object.keys(localStorage).filter((n) => n.startsWith(PREFIX));
  if (names.length <= MAX_DRAFTS) return;
  const byAge = names.map((n) => ({ n, at: stored(n)?.at ?? 0 })).sort((a, b) => a.at - b.at);
  for (const { n } of byAge.slice(0, names.length - MAX_DRAFTS)) localStorage.removeItem(n);
}

/** Somebody else uses this browser now. */
export function forgetDrafts() {
  for (const n of Object.keys(localStorage)) if (n.startsWith(PREFIX)) localStorage.removeItem(n);
  for (const fn of listeners) fn();
}

export function useDraft(path: string, field: string): [string, (text: string) => void] {
  const text = useSyncExternalStore(
    (fn) => {
      listeners.add(fn);
      return () => listeners.delete(fn);
    },
    () => readDraft(path, field),
  );
  const set = useCallback((value: string) => writeDraft(path, field, value), [path, field]);
  return [text, set];
}
