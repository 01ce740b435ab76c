import { usePrefs } from "@/state/prefs";
import { Dialog } from "@/ui/dialog";
import { Kbd } from "@/ui/text";
import { shown } from "./palette";
import { allActions, openSheet, useKeys } from "./registry";

export default function Sheet() {
  const { sheet, sets } = useKeys();
  const { letters, setLetters } = usePrefs();
  const keyed = allActions(sets).filter((a) => a.keys);
  const actions = [...keyed.filter((a) => !a.everywhere), ...keyed.filter((a) => a.everywhere)];
  const groups = [...new Set(actions.map((a) => a.group))];
  return (
    <Dialog open={sheet} onOpenChange={openSheet} title="Keys" description="What the keyboard does here.">
      <label className="flex items-center gap-2 py-2">
        <input type="checkbox" className="size-4 accent-(--accent-fill)" checked={letters} onChange={(e) => setLetters(e.target.checked)} />
        Keys without Ctrl or ⌘ are on
      </label>
      {groups.map((group) => (
        <section key={group} className="mt-3">
          <h3 className="mb-1 text-xs font-medium text-muted">{group}</h3>
          <dl>
            {actions
              .filter((a) => a.group === group)
              .map((a) => (
                <div key={a.id} className="flex min-h-8 items-center justify-between gap-4 border-t border-line">
                  <dt>{a.label}</dt>
                  <dd>
                    <Kbd keys={shown(a.keys!)} />
                  </dd>
                </div>
              ))}
          </dl>
        </section>
      ))}
    </Dialog>
  );
}
