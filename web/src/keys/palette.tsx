import { Command } from "cmdk";
import * as Radix from "@radix-ui/react-dialog";
import { Kbd } from "@/ui/text";
import { type Action, allActions, openPalette, useKeys } from "./registry";

/** Every place and action there is here and now. */
export default function Palette() {
  const { palette, sets } = useKeys();
  const groups = new Map<string, Action[]>();
  // What can be done in this place comes before what can be done everywhere.
  const actions = allActions(sets).filter((a) => !a.keyOnly);
  for (const a of [...actions.filter((b) => !b.everywhere), ...actions.filter((b) => b.everywhere)]) {
    groups.set(a.group, [...(groups.get(a.group) ?? []), a]);
  }
  return (
    <Radix.Root open={palette} onOpenChange={openPalette}>
      <Radix.Portal>
        <Radix.Overlay className="late fixed inset-0 z-40 bg-[var(--shade)]" />
        <Radix.Content aria-describedby={undefined} className="late fixed top-[12dvh] left-1/2 z-50 w-[min(38rem,calc(100vw-1.5rem))] -translate-x-1/2 overflow-hidden rounded-xl border border-line bg-raised shadow-lift">
          <Radix.Title className="sr-only">Command palette</Radix.Title>
          <Command label="Command palette" loop>
            <Command.Input placeholder="Go to, or do…" className="h-12 w-full border-b border-line bg-transparent px-4 text-base outline-none" />
            <Command.List className="max-h-[50dvh] overflow-y-auto p-1.5">
              <Command.Empty className="px-3 py-6 text-center text-muted">Nothing here has that name.</Command.Empty>
              {[...groups].map(([group, actions]) => (
                <Command.Group key={group} heading={group} className="[&_[cmdk-group-heading]]:px-2 [&_[cmdk-group-heading]]:py-1.5 [&_[cmdk-group-heading]]:text-xs [&_[cmdk-group-heading]]:text-muted">
                  {actions.map((a) => (
                    <Command.Item
                      key={a.id}
                      value={`${a.label} ${a.id}`}
                      onSelect={() => {
                        openPalette(false);
                        a.run();
                      }}
                      className="flex min-h-9 cursor-pointer items-center gap-2.5 rounded-md px-2 data-[selected=true]:bg-hover"
                    >
                      <span className="text-muted">{a.icon}</span>
                      <span className="flex-1">{a.label}</span>
                      {a.keys && <Kbd keys={shown(a.keys)} />}
                    </Command.Item>
                  ))}
                </Command.Group>
              ))}
            </Command.List>
          </Command>
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  );
}

const apple = /Mac|iPhone|iPad/.test(navigator.platform);
export const shown = (keys: string) => keys.replace("mod+", apple ? "⌘ " : "Ctrl ").replace("shift+", "⇧ ").replace("Enter", "↵").replace("ArrowDown", "↓").replace("ArrowUp", "↑");
