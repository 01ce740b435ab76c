import type { Answer } from "@/api/types";
import type { Tone } from "@/ui/badge";
import { duration } from "@/ui/time-format";

export type Provider = Answer<"listProviders">["providers"][number];

export interface Health {
  tone: Tone;
  text: string;
  /** What it means for the next run. */
  means?: string;
  /** When it is over, if that is known. */
  until?: string;
}

/** What the next run would meet; the worst first. */
export function healthOf(p: Provider): Health {
  if (p.breaker === "open") return { tone: "bad", text: "Not asked", means: "It failed several times in a row. Runs go to the next provider; after a while one run tries it again." };
  if (p.blocked_until) return { tone: "warn", text: "Blocked", means: "It said that it was asked too often.", until: p.blocked_until };
  if (used(p) && used(p)!.left === 0) return { tone: "warn", text: "Used up", means: "Its quota is used up.", until: p.resets_at ?? undefined };
  if (p.breaker === "half_open") return { tone: "warn", text: "On trial", means: "It failed before; the next run tries whether it works again." };
  if (p.max_parallel && (p.running ?? 0) >= p.max_parallel) return { tone: "info", text: "Busy", means: "All its places are taken; the next run waits for one." };
  return { tone: "ok", text: "Ready" };
}

/** Runs choose a provider by a word in their model id, which for these is their own name; any other is only asked after one that failed. */
const FIRST = ["claude", "codex", "glm", "kimi", "gemini", "custom", "shell"];
export const canBeAsked = (p: Provider) => p.model !== null && FIRST.includes(p.key);

/** Messages of the quota; none: null. */
export function used(p: Provider): { used: number; limit: number; left: number; percent: number } | null {
  if (!p.limit) return null;
  const n = Math.min(p.used ?? 0, p.limit);
  return { used: n, limit: p.limit, left: p.limit - n, percent: Math.round((n / p.limit) * 100) };
}

/** 3600 -> "1 h", 90 -> "1 min 30 s". */
export function windowText(seconds: number): string {
  for (const [unit, name] of [[86_400, "d"], [3_600, "h"], [60, "min"]] as const) if (seconds >= unit && seconds % unit === 0) return `${seconds / unit} ${name}`;
  return duration(seconds * 1000);
}

export const TYPES: Record<string, string> = {
  openai_compatible: "OpenAI-compatible endpoint",
  anthropic: "Anthropic",
  cli: "Program on the server",
  shell: "Shell on the server",
};
