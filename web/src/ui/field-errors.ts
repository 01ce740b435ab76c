import { ApiError } from "@/api/client";

/** Which field of a form a refused request names. */
export interface FieldErrors {
  /** What to say at this field. */
  at(path: string): string | undefined;
  /** Something that no field of the form says: it is shown in a box. */
  elsewhere: boolean;
}

const below = (path: string, known: string) => path === known || path.startsWith(`${known}.`) || path.startsWith(`${known}[`);

/** The field is there to see: what the server says of it begins with its name, which people need not read. */
export function plainMessage(path: string, known: string, message: string): string {
  const inside = path.slice(known.length);
  const line = /^\[(\d+)\]/.exec(inside);
  const subject = line ? `Line ${Number(line[1]) + 1}` : inside.replace(/^\./, "");
  if (message.startsWith(`${path} `)) return `${subject || "This"} ${message.slice(path.length + 1)}`;
  const text = message.startsWith(`${path}: `) ? message.slice(path.length + 2) : message;
  return subject ? `${subject}: ${text}` : text.charAt(0).toUpperCase() + text.slice(1);
}

export function fieldErrors(error: unknown, known: readonly string[]): FieldErrors {
  if (!(error instanceof ApiError)) return { at: () => undefined, elsewhere: error !== null && error !== undefined };
  const said = error.issues.length ? error.issues : error.field ? [{ path: error.field, message: error.message }] : [];
  const texts = new Map<string, string[]>();
  let elsewhere = said.length === 0;
  for (const { path, message } of said) {
    // The most exact of the fields that it may belong to.
    const field = known.filter((k) => below(path, k)).sort((a, b) => b.length - a.length)[0];
    if (field === undefined) elsewhere = true;
    else texts.set(field, [...(texts.get(field) ?? []), plainMessage(path, field, message)]);
  }
  return { at: (path) => texts.get(path)?.join(" "), elsewhere };
}
