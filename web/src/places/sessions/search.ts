import type { Filters } from "@/api/sessions";
import { HARNESSES } from "@/api/catalog";
import type { Harness } from "@/api/types";

const STATES = ["active", "terminal", "WAITING_FOR_APPROVAL", "RUNNING", "QUEUED", "PAUSED_BY_HUMAN", "COMPLETED", "FAILED", "TIMED_OUT"] as const;
export type StateFilter = (typeof STATES)[number];

/** What of the list is in the address. */
export interface SessionSearch {
  state?: StateFilter;
  harness?: Harness;
  q?: string;
  /** The session that is looked at beside the list. */
  open?: string;
}

const text = (v: unknown, max: number) => (typeof v === "string" || typeof v === "number" ? String(v).slice(0, max) : "") || undefined;

/** Whatever is wrong in an address is left out. */
export function sessionSearch(s: Record<string, unknown>): SessionSearch {
  const out: SessionSearch = {};
  if (STATES.includes(s.state as StateFilter)) out.state = s.state as StateFilter;
  if (typeof s.harness === "string" && Object.hasOwn(HARNESSES, s.harness)) out.harness = s.harness as Harness;
  const q = text(s.q, 400);
  if (q) out.q = q;
  const open = text(s.open, 64);
  if (open) out.open = open;
  return out;
}

export const filtersOf = (s: SessionSearch): Filters => ({
  ...(s.state ? { state: [s.state] } : {}),
  ...(s.harness ? { providerId: s.harness } : {}),
  ...(s.q ? { q: s.q } : {}),
});
