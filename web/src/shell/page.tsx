import type { ReactNode } from "react";
import { cx } from "@/ui/cx";
import { useTitle } from "./title";

/** A place: its title, what can be done there, and its content. `fill`: the content scrolls itself. */
export function Page({ title, actions, fill, wide, children }: { title: string; actions?: ReactNode; fill?: boolean; wide?: boolean; children: ReactNode }) {
  useTitle(title);
  return (
    <div className={cx("mx-auto flex w-full flex-col px-4 pt-5 md:px-8 md:pt-7", wide ? "max-w-[110rem]" : "max-w-5xl", fill ? "h-full min-h-0" : "pb-10")}>
      <header className="mb-4 flex min-h-9 flex-wrap items-center gap-x-3 gap-y-2">
        <h1 className="text-xl font-semibold tracking-tight">{title}</h1>
        <div className="ml-auto flex flex-wrap items-center gap-2">{actions}</div>
      </header>
      {children}
    </div>
  );
}
