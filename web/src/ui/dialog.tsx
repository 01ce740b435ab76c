import * as Radix from "@radix-ui/react-dialog";
import { X } from "lucide-react";
import type { ReactNode } from "react";
import { IconButton } from "./button";
import { cx } from "./cx";

interface Props {
  open: boolean;
  onOpenChange(open: boolean): void;
  title: string;
  description?: string;
  side?: "middle" | "right" | "bottom";
  children: ReactNode;
  actions?: ReactNode;
}

const PLACES = {
  middle: "left-1/2 top-[12dvh] max-h-[80dvh] w-[min(36rem,calc(100vw-2rem))] -translate-x-1/2 rounded-xl border",
  right: "right-0 top-0 h-dvh w-[min(36rem,100vw)] border-l",
  bottom: "bottom-0 left-0 right-0 max-h-[85dvh] rounded-t-xl border-t safe-bottom",
};

export function Dialog({ open, onOpenChange, title, description, side = "middle", children, actions }: Props) {
  return (
    <Radix.Root open={open} onOpenChange={onOpenChange}>
      <Radix.Portal>
        <Radix.Overlay className="late fixed inset-0 z-40 bg-[var(--shade)]" />
        <Radix.Content
          className={cx("late fixed z-50 flex flex-col border-line bg-raised shadow-lift focus:outline-none", PLACES[side])}
        >
          <header className="flex items-start gap-3 px-5 pt-4 pb-2">
            <div className="min-w-0 flex-1">
              <Radix.Title className="text-base font-semibold break-words">{title}</Radix.Title>
              {description ? <Radix.Description className="mt-0.5 text-muted">{description}</Radix.Description> : <Radix.Description className="sr-only">{title}</Radix.Description>}
            </div>
            <Radix.Close asChild>
              <IconButton label="Close" className="-mt-1 -mr-2">
                <X className="size-4" aria-hidden />
              </IconButton>
            </Radix.Close>
          </header>
          <div className="min-h-0 flex-1 overflow-y-auto px-5 pb-5">{children}</div>
          {actions && <footer className="flex flex-wrap justify-end gap-2 border-t border-line px-5 py-3">{actions}</footer>}
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  );
}
