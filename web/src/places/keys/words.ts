import type { Key } from "@/api/keys";

export const ROLES = {
  viewer: { label: "Viewer", hint: "Only reads." },
  operator: { label: "Operator", hint: "Makes sessions, runs, environments and schedules, and steers them." },
  admin: { label: "Administrator of the organisation", hint: "As an operator, and has its workers and limits." },
} as const;
export type Role = keyof typeof ROLES;
export const roleName = (role: string | undefined) => ROLES[role as Role]?.label ?? role ?? "";

export type KeyState = "live" | "expired" | "revoked";
export function stateOf(k: Pick<Key, "revoked_at" | "expires_at">, now: number): KeyState {
  if (k.revoked_at) return "revoked";
  return k.expires_at && Date.parse(k.expires_at) <= now ? "expired" : "live";
}

/** Times to choose from, in seconds, as far as the server takes them. */
export const lifetimes = (min = 0, max = Infinity) =>
  [
    { seconds: 3_600, label: "an hour" },
    { seconds: 86_400, label: "a day" },
    { seconds: 7 * 86_400, label: "a week" },
    { seconds: 30 * 86_400, label: "30 days" },
    { seconds: 365 * 86_400, label: "a year" },
  ].filter((l) => l.seconds >= min && l.seconds <= max);

/** A worker's id out of a name for people: only what needs no quotes in a shell. */
export const workerId = (name: string) => name.trim().replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[-.]+|-+$/g, "") || "worker-1";

/** What brings a worker of another machine to this server. */
export function workerCommand(origin: string, name: string): string {
  const root = origin.replace(/\/+$/, "");
  const socket = `${root.replace(/^http/, "ws")}/api/v1/selfhosted/worker/ws`;
  return `muster worker --worker-id ${workerId(name)} --enrol-token-file enrol.token --web-socket-url ${socket} --server-root-url ${root}`;
}
