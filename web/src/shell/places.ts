import { Home, Inbox, type LucideIcon, Server, SquareTerminal } from "lucide-react";

/** The rail, in its order; a place is here when its route is. `phone`: in the bar at the bottom, the rest under More. */
export interface Place {
  to: "/" | "/sessions" | "/gates" | "/fleet";
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
];
