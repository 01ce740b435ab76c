/** Waits double up to half a minute, between half and all of it, so that many pages do not come back at once. */
export function backoff(attempt: number, random: number): number {
  const full = Math.min(30_000, 500 * 2 ** Math.min(attempt, 10));
  return Math.round(full * (0.5 + random * 0.5));
}
