import { Box, CalendarClock, Home, Inbox, KeyRound, type LucideIcon, Plug, Server, Settings, SquareTerminal } from "lucide-react";

/** The rail, in its order; a place is here when its route is. `phone`: in the bar at the bottom, the rest under More. */
export interface Place {
  to: "/" | "/sessions" | "/gates" | "/fleet" | "/environments" | "/schedules" | "/providers" | "/keys" | "/settings";
  label: string;
  icon: LucideIcon;
  keys: string;
  phone: boolean;
}

export const PLACES: Place[] = [
  { to: "/", label: "Home", icon: Home, keys: "g h", phone: true },
  { to: "/sessions", label: "Sessions", icon: SquareTerminal, keys: "g s", phone: true },
  { to: "/gates", label: "Gates", icon: Inbox, keys: "g g", phone: true },
  { to: "/fleet", label: "Fleet", icon: Server, keys: "g f", phone: true },
  { to: "/environments", label: "Environments", icon: Box, keys: "g e", phone: false },
  { to: "/schedules", label: "Schedules", icon: CalendarClock, keys: "g c", phone: false },
  { to: "/providers", label: "Providers", icon: Plug, keys: "g p", phone: false },
  { to: "/keys", label: "Keys", icon: KeyRound, keys: "g k", phone: false },
  { to: "/settings", label: "Settings", icon: Settings, keys: "g ,", phone: false },
];
