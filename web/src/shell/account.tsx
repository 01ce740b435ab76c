import { Keyboard, LogOut } from "lucide-react";
import { openSheet } from "@/keys/registry";
import type { Theme } from "@/state/prefs";
import { Menu, MenuChoice, MenuItem, MenuLabel, MenuLine } from "@/ui/menu";
import { AccountButton } from "./account-button";
import { THEMES, type Who } from "./parts";

export default function Account({ user, theme, setTheme, out, wide }: Who & { wide: boolean }) {
  return (
    <Menu
      align="start"
      trigger={<AccountButton user={user} wide={wide} />}
      defaultOpen
    >
      <MenuLabel>{user.role.replaceAll("_", " ")}</MenuLabel>
      <MenuLine />
      <MenuLabel>Colours</MenuLabel>
      <MenuChoice value={theme} onChange={(v) => setTheme(v as Theme)} options={THEMES} />
      <MenuLine />
      <MenuItem onSelect={() => openSheet()} icon={<Keyboard className="size-4" aria-hidden />}>
        Keys
      </MenuItem>
      <MenuItem onSelect={out} icon={<LogOut className="size-4" aria-hidden />}>
        Sign out
      </MenuItem>
    </Menu>
  );
}
