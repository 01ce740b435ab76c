export interface EnvironmentSearch {
  /** Words that are looked for. */
  q?: string;
  /** Whose form is open: "new" or an id. */
  edit?: string;
  /** Which one is tried, and with which run. */
  test?: string;
  run?: string;
}
const id = (v: unknown) => (typeof v === "string" && v ? v : undefined);

export function environmentSearch(s: Record<string, unknown>): EnvironmentSearch {
  const edit = id(s.edit);
  const test = edit ? undefined : id(s.test);
  const run = test ? id(s.run) : undefined;
  const q = id(s.q);
  return { ...(q ? { q } : {}), ...(edit ? { edit } : {}), ...(test ? { test } : {}), ...(run ? { run } : {}) };
}
