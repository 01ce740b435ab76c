import { HARNESSES, harnessName } from "@/api/catalog";
import { loadOf } from "@/api/fleet";
import type { Environment, Harness, Runner, Session } from "@/api/types";

/** Harnesses, those that a connected worker offers first. */
export function harnessChoices(runners: Runner[] | undefined): { id: Harness; name: string; offered: boolean }[] {
  const offered = new Set((runners ?? []).filter((r) => r.connected).flatMap((r) => loadOf(r).harnesses));
  return (Object.keys(HARNESSES) as Harness[])
    .map((id) => ({ id, name: harnessName(id), offered: offered.has(id) }))
    .sort((a, b) => Number(b.offered) - Number(a.offered));
}

/** Repositories that were used or are in an environment, the newest first. */
export function repoChoices(sessions: Session[] | undefined, environments: Environment[] | undefined): string[] {
  const named = (environments ?? []).flatMap((e) => e.repos.map((r) => (/^[\w.-]+\/[\w.-]+$/.test(r) ? `https://github.com/${r}` : r)));
  return [...new Set([...(sessions ?? []).map((s) => s.repoUrl), ...named])].slice(0, 50);
}

/** owner/name is short for a repository of GitHub. */
export const repoAddress = (text: string) => {
  const t = text.trim();
  return /^[\w.-]+\/[\w.-]+$/.test(t) ? `https://github.com/${t}` : t;
};
