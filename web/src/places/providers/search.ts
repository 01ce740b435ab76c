export interface ProviderSearch {
  /** Which one is asked something, and the run that does it. */
  ask?: string;
  run?: string;
}
const text = (v: unknown) => (typeof v === "string" && v ? v : undefined);

export function providerSearch(s: Record<string, unknown>): ProviderSearch {
  const ask = text(s.ask);
  const run = ask ? text(s.run) : undefined;
  return { ...(ask ? { ask } : {}), ...(run ? { run } : {}) };
}
