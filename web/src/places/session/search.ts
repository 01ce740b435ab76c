/** What of a session's page is in the address. */
export const TABS = ["terminal", "changes", "files", "events", "usage", "log", "timeline"] as const;
export type TabName = (typeof TABS)[number] | "talk";
export interface PageSearch {
  tab?: TabName;
  /** Which terminal. */
  t?: number;
  file?: string;
  line?: number;
  /** Types of events that are shown. */
  types?: string;
  view?: "unified" | "split";
}

const whole = (v: unknown, max: number) => {
  const n = Number(v);
  return Number.isInteger(n) && n >= 0 && n <= max ? n : undefined;
};

/** Whatever is wrong in an address is left out. */
export function pageSearch(s: Record<string, unknown>): PageSearch {
  const out: PageSearch = {};
  if (s.tab === "talk" || TABS.includes(s.tab as never)) out.tab = s.tab as TabName;
  const t = whole(s.t, 7);
  if (t) out.t = t;
  if (typeof s.file === "string" && s.file) out.file = s.file.slice(0, 4096);
  const line = whole(s.line, 1e7);
  if (line) out.line = line;
  if (typeof s.types === "string" && s.types) out.types = s.types.slice(0, 500);
  if (s.view === "unified" || s.view === "split") out.view = s.view;
  return out;
}
export const eventHash = (hash: string) => (/^event-\d{1,15}$/.test(hash) ? Number(hash.slice(6)) : undefined);
