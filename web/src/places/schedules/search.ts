export interface ScheduleSearch {
  /** Words that are looked for. */
  q?: string;
  /** Whose form is open: "new" or an id. */
  edit?: string;
  /** Which one is looked at, and which of its runs. */
  show?: string;
  run?: string;
}
const id = (v: unknown) => (typeof v === "string" && v ? v : undefined);

export function scheduleSearch(s: Record<string, unknown>): ScheduleSearch {
  const edit = id(s.edit);
  const show = edit ? undefined : id(s.show);
  const run = show ? id(s.run) : undefined;
  const q = id(s.q);
  return { ...(q ? { q } : {}), ...(edit ? { edit } : {}), ...(show ? { show } : {}), ...(run ? { run } : {}) };
}
