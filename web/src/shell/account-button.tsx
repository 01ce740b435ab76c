import { UserRound } from "lucide-react";
import type { ButtonHTMLAttributes, Ref } from "react";
import type { Caller } from "@/api/auth";
import { RAIL_ITEM } from "./parts";

export function AccountButton({ user, wide, ...rest }: { user: Caller; wide: boolean; ref?: Ref<HTMLButtonElement> } & ButtonHTMLAttributes<HTMLButtonElement>) {
  return (
    <button type="button" aria-haspopup="menu" {...rest} className={RAIL_ITEM} aria-label={`Account: ${user.name}`}>
      <UserRound className="size-4 shrink-0" aria-hidden />
      {wide && <span className="flex-1 truncate text-left">{user.name}</span>}
    </button>
  );
}
