import * as Radix from "@radix-ui/react-dropdown-menu";
import { Check } from "lucide-react";
import type { ReactNode } from "react";

/** modal is off: the page behind stays reachable and scrollable. */
export function Menu({ trigger, children, align = "end", defaultOpen }: { trigger: ReactNode; children: ReactNode; align?: "start" | "end"; defaultOpen?: boolean }) {
  return (
    <Radix.Root modal={false} defaultOpen={defaultOpen}>
      <Radix.Trigger asChild>{trigger}</Radix.Trigger>
      <Radix.Portal>
        <Radix.Content align={align} sideOffset={6} collisionPadding={8} className="late z-50 min-w-48 rounded-lg border border-line bg-raised p-1 shadow-lift">
          {children}
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  );
}

const ITEM = "flex min-h-8 cursor-pointer items-center gap-2 rounded-md px-2 py-1 outline-none data-highlighted:bg-hover data-disabled:opacity-55";

export function MenuItem({ onSelect, icon, disabled, children }: { onSelect(): void; icon?: ReactNode; disabled?: boolean; children: ReactNode }) {
  return (
    <Radix.Item onSelect={onSelect} disabled={disabled} className={ITEM}>
      {icon}
      {children}
    </Radix.Item>
  );
}

export function MenuChoice({ value, onChange, options }: { value: string; onChange(value: string): void; options: { value: string; label: string }[] }) {
  return (
    <Radix.RadioGroup value={value} onValueChange={onChange}>
      {options.map((o) => (
        <Radix.RadioItem key={o.value} value={o.value} className={ITEM}>
          <span className="flex size-4 items-center justify-center">
            <Radix.ItemIndicator>
              <Check className="size-4" aria-hidden />
            </Radix.ItemIndicator>
          </span>
          {o.label}
        </Radix.RadioItem>
      ))}
    </Radix.RadioGroup>
  );
}

export const MenuLabel = ({ children }: { children: ReactNode }) => <Radix.Label className="px-2 pt-1.5 pb-1 text-xs text-muted">{children}</Radix.Label>;
export const MenuLine = () => <Radix.Separator className="my-1 h-px bg-line" />;
