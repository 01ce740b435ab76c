import { create } from "zustand";
import { persist } from "zustand/middleware";

export type Theme = "system" | "light" | "dark";

/** What the person chose last, in this browser. */
interface Prefs {
  theme: Theme;
  wide: boolean;
  /** Keys without a modifier (WCAG 2.1.4: they can be switched off). */
  letters: boolean;
  last: { repo: string | null; environment: string; harness: string; model: string; interactive: boolean };
  setTheme(theme: Theme): void;
  toggleRail(): void;
  setLetters(letters: boolean): void;
  setLast(last: Partial<Prefs["last"]>): void;
}

export const usePrefs = create<Prefs>()(
  persist(
    (set) => ({
      theme: "system",
      wide: true,
      letters: true,
      last: { repo: null, environment: "", harness: "", model: "", interactive: false },
      setTheme: (theme) => set({ theme }),
      toggleRail: () => set((s) => ({ wide: !s.wide })),
      setLetters: (letters) => set({ letters }),
      setLast: (last) => set((s) => ({ last: { ...s.last, ...last } })),
    }),
    { name: "muster.prefs", version: 1 },
  ),
);

/** The choice as an attribute that styles.css looks at; without it the system's holds. */
export function applyTheme(theme: Theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
