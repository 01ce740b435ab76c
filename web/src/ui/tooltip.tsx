import * as Radix from "@radix-ui/react-tooltip";
import type { ReactNode } from "react";

export const TooltipProvider = ({ children }: { children: ReactNode }) => <Radix.Provider delayDuration={400}>{children}</Radix.Provider>;

export function Tooltip({ text, side = "top", children }: { text: ReactNode; side?: "top" | "right" | "bottom"; children: ReactNode }) {
  return (
    <Radix.Root>
      <Radix.Trigger asChild>{children}</Radix.Trigger>
      <Radix.Portal>
        <Radix.Content side={side} sideOffset={6} collisionPadding={8} className="late z-50 flex max-w-72 items-center gap-2 rounded-md border border-line bg-raised px-2 py-1 text-[13px] shadow-lift">
          {text}
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  );
}
