import { Link } from "@tanstack/react-router";
import { Command, LogOut } from "lucide-react";
import { openPalette } from "@/keys/registry";
import { Button } from "@/ui/button";
import { cx } from "@/ui/cx";
import { Dialog } from "@/ui/dialog";
import { THEMES, type Who } from "./parts";
import { PLACES } from "./places";
import type { Theme } from "@/state/prefs";

/** What the bar of a phone has no room for. */
export default function More({ user, theme, setTheme, out, open, setOpen, health }: Who & { open: boolean; setOpen(open: boolean): void; health: string }) {
  return (
      <Dialog open={open} onOpenChange={setOpen} side="bottom" title="More" description={`${user.name} · ${health}`}>
        <ul className="divide-y divide-line">
          {PLACES.filter((p) => !p.phone).map((p) => (
            <li key={p.to}>
              <Link to={p.to} onClick={() => setOpen(false)} className="flex h-12 items-center gap-3">
                <p.icon className="size-5 text-muted" aria-hidden />
                {p.label}
              </Link>
            </li>
          ))}
          <li className="py-3">
            <fieldset>
              <legend className="mb-2 text-[13px] text-muted">Colours</legend>
              <div className="grid grid-cols-3 gap-2">
                {THEMES.map((t) => (
                  <Button key={t.value} aria-pressed={theme === t.value} className={cx("h-11", theme === t.value && "border-accent! text-accent")} onClick={() => setTheme(t.value as Theme)}>
                    {t.label}
                  </Button>
                ))}
              </div>
            </fieldset>
          </li>
          <li>
              <button
                type="button"
                className="flex h-12 w-full items-center gap-3"
                onClick={() => {
                  setOpen(false);
                  openPalette();
                }}
              >
                <Command className="size-5 text-muted" aria-hidden />
                Find or do
              </button>
            </li>
          <li>
            <button type="button" className="flex h-12 w-full items-center gap-3" onClick={out}>
              <LogOut className="size-5 text-muted" aria-hidden />
              Sign out
            </button>
          </li>
        </ul>
      </Dialog>
  );
}
