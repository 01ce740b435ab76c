import { type ReactNode, useEffect, useId, useRef } from "react";
import { create } from "zustand";
import { usePrefs } from "@/state/prefs";
import { nameOf, Sequence } from "./match";

export interface Action {
  id: string;
  label: string;
  group: string;
  keys?: string;
  icon?: ReactNode;
  /** Only a key, such as the movement in a list: not in the palette. */
  keyOnly?: boolean;
  /** The shell's: listed behind what the place itself offers. */
  everywhere?: boolean;
  run(): void;
}

interface Registry {
  sets: ReadonlyMap<string, Action[]>;
  palette: boolean;
  sheet: boolean;
}

export const useKeys = create<Registry>()(() => ({ sets: new Map(), palette: false, sheet: false }));
export const openPalette = (palette = true) => useKeys.setState({ palette });
export const openSheet = (sheet = true) => useKeys.setState({ sheet });

/** Every action there is now; of two with the same key the later, which is the place's own, holds. */
export const allActions = (sets: Registry["sets"]) => [...sets.values()].flat();

/** The actions of a component while it is there. `on` false takes them away. */
export function useActions(actions: Action[], on = true) {
  const id = useId();
  const latest = useRef(actions);
  latest.current = actions;
  const shape = actions.map((a) => `${a.id}|${a.label}|${a.keys ?? ""}`).join("\n");
  useEffect(() => {
    if (!on) return;
    const stable = latest.current.map((a): Action => ({ ...a, run: () => latest.current.find((b) => b.id === a.id)?.run() }));
    useKeys.setState((s) => ({ sets: new Map(s.sets).set(id, stable) }));
    return () =>
      useKeys.setState((s) => {
        const sets = new Map(s.sets);
        sets.delete(id);
        return { sets };
      });
  }, [id, on, shape]);
}

const sequence = new Sequence();

function writing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

export function onKey(e: KeyboardEvent) {
  if (e.defaultPrevented || e.isComposing || e.repeat && e.key === "Enter") return;
  const name = nameOf(e);
  const mod = name.startsWith("mod+");
  if (!mod) {
    if (!usePrefs.getState().letters || writing(e.target)) return;
    if (document.querySelector("[role=dialog],[role=menu]")) return;
    // On a button or link these are its own.
    if ((name === "Enter" || name === " ") && e.target instanceof Element && e.target.closest("a,button,summary")) return;
  }
  const actions = allActions(useKeys.getState().sets).filter((a) => a.keys);
  const meant = sequence.press(name, actions.map((a) => a.keys!), Date.now());
  if (!meant) return;
  if (meant !== "more") actions.findLast((a) => a.keys === meant)?.run();
  e.preventDefault();
}
