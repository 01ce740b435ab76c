import { Search } from "lucide-react";

/** Every word somewhere in one of the texts, whatever its case. */
export function fits(q: string | undefined, texts: (string | undefined)[]): boolean {
  const all = texts.filter(Boolean).join("\n").toLowerCase();
  return (q ?? "")
    .toLowerCase()
    .split(/\s+/)
    .every((word) => all.includes(word));
}

/** Narrows a list that is here as a whole. */
export function Filter({ label, value, onChange }: { label: string; value: string | undefined; onChange(q: string | undefined): void }) {
  return (
    <div role="search" className="relative mb-3 max-w-sm">
      <Search className="pointer-events-none absolute top-2.5 left-2.5 size-4 text-muted" aria-hidden />
      <input
        type="search"
        aria-label={label}
        placeholder={label}
        value={value ?? ""}
        maxLength={200}
        onChange={(e) => onChange(e.target.value || undefined)}
        onKeyDown={(e) => e.key === "Escape" && e.currentTarget.blur()}
        className="field pl-8!"
      />
    </div>
  );
}
/** From so many on it is worth its place. */
export const MANY = 12;
