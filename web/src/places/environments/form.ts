import type { EnvironmentBody } from "@/api/environments";
import type { Environment } from "@/api/types";

export const KEPT = "<redacted>";
type Sandbox = NonNullable<EnvironmentBody["sandbox"]>;
export type Mode = NonNullable<NonNullable<Sandbox["network"]>["mode"]>;
export const LIMIT_NAMES = ["memory_mb", "cpus", "pids", "disk_mb", "timeout_seconds"] as const;
export type LimitName = (typeof LIMIT_NAMES)[number];

export interface Variable {
  name: string;
  value: string;
  /** There is a stored value, which is not in this browser; without another one it stays. */
  kept: boolean;
  /** It had a value that this browser did not keep. */
  again?: boolean;
}

/** What the form holds: text as it is typed. */
export interface EnvironmentForm {
  name: string;
  image: string;
  repos: string;
  /** One a line, as runners take them: a line break ends a command, whatever is before it. */
  setup: string;
  vars: Variable[];
  global: boolean;
  mode: Mode | "";
  allow: string;
  nested: boolean;
  fakeRoot: boolean;
  limits: Record<LimitName, string>;
  /** updated_at of what it began with. */
  since: string;
}

const noLimits = (): Record<LimitName, string> => ({ memory_mb: "", cpus: "", pids: "", disk_mb: "", timeout_seconds: "" });
export const emptyForm = (): EnvironmentForm => ({ name: "", image: "", repos: "", setup: "", vars: [], global: false, mode: "", allow: "", nested: false, fakeRoot: false, limits: noLimits(), since: "" });

export function formOf(e: Environment): EnvironmentForm {
  const box = (e.sandbox ?? {}) as Sandbox;
  const limits = noLimits();
  for (const name of LIMIT_NAMES) {
    const value = box.limits?.[name];
    if (typeof value === "number") limits[name] = String(value);
  }
  return {
    name: e.name,
    image: e.docker_image,
    repos: e.repos.join("\n"),
    setup: e.setup_commands.join("\n"),
    // Whatever came with it: values that are stored stay where they are.
    vars: Object.keys(e.env_vars).map((name) => ({ name, value: "", kept: true })),
    global: e.scope === "GLOBAL",
    mode: box.network?.mode ?? "",
    allow: (box.network?.allow ?? []).join("\n"),
    nested: box.nested ?? false,
    fakeRoot: box.root === "fake",
    limits,
    since: e.updated_at,
  };
}

export const lines = (text: string) =>
  text
    .split("\n")
    .map((l) => l.trim())
    .filter(Boolean);

function sandboxOf(f: EnvironmentForm): Sandbox | undefined {
  const allow = lines(f.allow);
  const limits: NonNullable<Sandbox["limits"]> = {};
  for (const name of LIMIT_NAMES) if (f.limits[name].trim() !== "") limits[name] = Number(f.limits[name]);
  const hosts = allow.length > 0 && (f.mode === "proxy" || f.mode === "");
  const box: Sandbox = {
    ...(f.mode || hosts ? { network: { mode: f.mode || "proxy", ...(hosts ? { allow } : {}) } } : {}),
    ...(f.nested ? { nested: true } : {}),
    ...(f.fakeRoot ? { root: "fake" as const } : {}),
    ...(Object.keys(limits).length ? { limits } : {}),
  };
  return Object.keys(box).length ? box : undefined;
}

/** The request: whole, as a replacement is; what is left out is deleted by it. */
export function bodyOf(f: EnvironmentForm, isNew: boolean): EnvironmentBody {
  const vars = f.vars.filter((v) => v.name.trim() || v.value || v.kept);
  const sandbox = sandboxOf(f);
  return {
    name: f.name.trim(),
    docker_image: f.image.trim(),
    repos: lines(f.repos),
    setup_commands: lines(f.setup),
    ...(vars.length ? { env_vars: Object.fromEntries(vars.map((v) => [v.name.trim(), v.kept && !v.value ? KEPT : v.value])) } : {}),
    ...(sandbox ? { sandbox } : {}),
    ...(isNew && f.global ? { global: true } : {}),
  };
}

/** What cannot be asked of the server, since JSON has no place for it. */
export function refusalOf(f: EnvironmentForm): string | undefined {
  const seen = new Set<string>();
  for (const v of f.vars) {
    const name = v.name.trim();
    if (name && seen.has(name)) return `${name} is there twice.`;
    if (!name && v.value) return "A variable has a value but no name.";
    if (v.again && !v.value) return `Type the value of ${name || "the variable"} again: values are not kept in this browser.`;
    // It is the server's word for keeping what is stored.
    if (v.value === KEPT) return `The value ${KEPT} cannot be stored.`;
    seen.add(name);
  }
  return undefined;
}

/** The half-typed form for this browser's memory: values of variables are secrets and stay out of it. */
export const draftText = (f: EnvironmentForm) => JSON.stringify({ ...f, vars: f.vars.map((v) => ({ name: v.name, value: "", kept: v.kept, again: v.again || v.value !== "" })) });

export function fromDraft(text: string): EnvironmentForm | null {
  try {
    const d = JSON.parse(text) as Partial<EnvironmentForm>;
    const empty = emptyForm();
    const str = (v: unknown, or = "") => (typeof v === "string" ? v : or);
    if (typeof d !== "object" || d === null || typeof d.name !== "string") return null;
    return {
      name: d.name,
      image: str(d.image),
      repos: str(d.repos),
      setup: str(d.setup),
      vars: Array.isArray(d.vars) ? d.vars.map((v) => ({ name: str(v?.name), value: "", kept: v?.kept === true, ...(v?.again === true ? { again: true } : {}) })) : [],
      global: d.global === true,
      mode: d.mode === "proxy" || d.mode === "none" || d.mode === "host" ? d.mode : "",
      allow: str(d.allow),
      nested: d.nested === true,
      fakeRoot: d.fakeRoot === true,
      limits: Object.fromEntries(LIMIT_NAMES.map((n) => [n, str(d.limits?.[n], empty.limits[n])])) as EnvironmentForm["limits"],
      since: str(d.since),
    };
  } catch {
    return null;
  }
}
