import type { Approval } from "@/api/types";

/** What would be done, to the letter: the command if there is one, and every member of the context beside it. */
export function exactOf(gate: Approval): { label: string; text: string }[] {
  const out: { label: string; text: string }[] = [];
  const context = gate.context ?? {};
  // The command first, then whatever else there is, in the order in which it came.
  const names = Object.keys(context).sort((a, b) => Number(b === "command") - Number(a === "command"));
  for (const name of names) {
    const value = context[name];
    if (value === undefined || value === null || (name === "multiple" && gate.kind === "question")) continue;
    out.push({ label: name, text: typeof value === "string" ? value : JSON.stringify(value, null, 2) });
  }
  return out;
}

/** What a question offers; the schema of an approval leaves it open. */
export function optionsOf(gate: Approval): string[] {
  const options = (gate as { options?: unknown }).options;
  return Array.isArray(options) ? options.filter((o): o is string => typeof o === "string").slice(0, 30) : [];
}

export const takesSeveral = (gate: Approval) => gate.kind === "question" && gate.context?.multiple === true;

const QUESTIONS: Record<string, string> = {
  merge: "Push or merge?",
  deps_add: "Add this dependency?",
  secrets: "Read this secret?",
  deploy: "Deploy?",
  shell: "Run this command?",
  network: "Reach this host?",
  tool: "Use this tool?",
};
export const questionOf = (gate: Approval) => (gate.kind === "question" ? "A question" : (QUESTIONS[gate.action ?? ""] ?? "Allow this?"));
