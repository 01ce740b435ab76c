import type { Caller } from "@/api/auth";
import type { Theme } from "@/state/prefs";

export interface Who {
  user: Caller;
  theme: Theme;
  setTheme(t: Theme): void;
  out(): void;
}


export const RAIL_ITEM = "flex h-8.5 w-full items-center gap-2.5 rounded-md px-2.5 text-muted hover:bg-hover hover:text-text";

export const THEMES: { value: Theme; label: string }[] = [
  { value: "system", label: "As the system" },
  { value: "light", label: "Light" },
  { value: "dark", label: "Dark" },
];
