const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** "just now", "5 min ago", "in 2 h", "yesterday" … and the date when it is longer than a month away. */
export function relative(then: number, now: number): string {
  const past = now - then;
  const away = Math.abs(past);
  if (away < 45_000) return past >= 0 ? "just now" : "in a moment";
  const put = (n: number, unit: string) => (past >= 0 ? `${n} ${unit} ago` : `in ${n} ${unit}`);
  if (away < HOUR - MINUTE / 2) return put(Math.round(away / MINUTE), "min");
  if (away < DAY - HOUR / 2) return put(Math.round(away / HOUR), "h");
  const days = Math.max(1, Math.round(away / DAY));
  if (days === 1) return past >= 0 ? "yesterday" : "tomorrow";
  if (days <= 30) return put(days, "days");
  return new Date(then).toLocaleDateString(undefined, { year: "numeric", month: "short", day: "numeric" });
}

/** A length of time as a stopwatch shows it: 4 s, 1 min 05 s, 2 h 03 min, 3 d 4 h. */
export function duration(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  const two = (n: number) => String(n).padStart(2, "0");
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export const exact = (then: number) =>
  new Date(then).toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
