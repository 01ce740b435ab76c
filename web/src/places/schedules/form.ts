import type { RunRequest } from "@/api/runs";
import type { AgentConfig, Schedule, ScheduleBody } from "@/api/schedules";

export type Harness = NonNullable<AgentConfig["harness"]>;
export const HARNESSES: Record<Harness, string> = {
  "claude-code": "Claude Code",
  codex: "Codex",
  "gemini-cli": "Gemini CLI",
  opencode: "OpenCode",
  shell: "Shell script",
  custom: "Custom agent",
};

export interface ScheduleForm {
  name: string;
  prompt: string;
  cron: string;
  environment: string;
  harness: Harness | "";
  model: string;
  system: string;
  enabled: boolean;
  since: string;
}

export const emptyForm = (): ScheduleForm => ({ name: "", prompt: "", cron: "", environment: "", harness: "", model: "", system: "", enabled: true, since: "" });

export const configOf = (s: Schedule): AgentConfig => (s.agent_config ?? {}) as AgentConfig;

export function formOf(s: Schedule): ScheduleForm {
  const c = configOf(s);
  return { name: s.name, prompt: s.prompt, cron: s.cron_schedule, environment: c.environment_id ?? "", harness: c.harness ?? "", model: c.model_id ?? "", system: c.base_prompt ?? "", enabled: s.enabled, since: s.updated_at };
}

/** The request. What the schedule has and the form does not show stays as it is. */
export function bodyOf(f: ScheduleForm, before: AgentConfig = {}): ScheduleBody {
  const { environment_id: _e, harness: _h, model_id: _m, base_prompt: _b, ...rest } = before;
  const environment = f.environment.trim();
  const config: AgentConfig = {
    ...rest,
    ...(environment ? { environment_id: environment } : {}),
    // Without an environment a provider answers: there is no program to choose.
    ...(environment && f.harness ? { harness: f.harness } : {}),
    ...(f.model.trim() ? { model_id: f.model.trim() } : {}),
    ...(f.system.trim() ? { base_prompt: f.system } : {}),
  };
  return { name: f.name.trim(), prompt: f.prompt, cron_schedule: f.cron.trim(), enabled: f.enabled, ...(Object.keys(config).length ? { agent_config: config } : {}) };
}

/** What it would run at its time, now. */
export function runOf(s: Schedule): RunRequest {
  const config = s.agent_config as RunRequest["config"] | undefined;
  return { title: s.name, prompt: s.prompt, ...(config ? { config } : {}) };
}

/** Often wanted; the server alone reads them, and says when the next run is. */
export const OFTEN: { label: string; cron: string }[] = [
  { label: "Every hour", cron: "0 * * * *" },
  { label: "Every day at 9", cron: "0 9 * * *" },
  { label: "Working days at 9", cron: "0 9 * * 1-5" },
  { label: "Mondays at 9", cron: "0 9 * * 1" },
  { label: "First of the month", cron: "0 9 1 * *" },
];

export const draftText = (f: ScheduleForm) => JSON.stringify(f);
export function fromDraft(text: string): ScheduleForm | null {
  try {
    const d = JSON.parse(text) as Partial<ScheduleForm> | null;
    if (typeof d !== "object" || d === null || typeof d.name !== "string") return null;
    const empty = emptyForm();
    const out = { ...empty };
    for (const key of ["name", "prompt", "cron", "environment", "model", "system", "since"] as const) if (typeof d[key] === "string") out[key] = d[key];
    out.harness = d.harness && d.harness in HARNESSES ? d.harness : "";
    out.enabled = d.enabled !== false;
    return out;
  } catch {
    return null;
  }
}
