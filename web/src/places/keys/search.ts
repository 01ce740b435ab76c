export interface KeySearch {
  /** Which form is open. */
  new?: "key" | "enrolment";
  /** Also what cannot be used any more. */
  all?: true;
}

export function keySearch(s: Record<string, unknown>): KeySearch {
  return { ...(s.new === "key" || s.new === "enrolment" ? { new: s.new } : {}), ...(s.all === true || s.all === "true" ? { all: true as const } : {}) };
}
