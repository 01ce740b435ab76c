import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { Link, Outlet, useNavigate } from "@tanstack/react-router";
import { Command, Ellipsis, Keyboard, LogOut, Monitor, Moon, PanelLeft, Plus, Sun } from "lucide-react";
import { lazy, Suspense, useEffect, useMemo, useState } from "react";
import { type Caller, type Login, sessionKey, signOut } from "@/api/auth";
import { gatesQuery } from "@/api/gates";
import { onKey, openPalette, openSheet, useActions, useKeys } from "@/keys/registry";
import { Live } from "@/live/client";
import { orgFeed } from "@/live/feed";
import { type Health, LiveContext, useHealth, useRereadMs } from "@/live/hooks";
import { forgetDrafts } from "@/state/drafts";
import { usePrefs } from "@/state/prefs";
import { Button, IconButton } from "@/ui/button";
import { cx } from "@/ui/cx";
import { announce, toastError } from "@/ui/toast";
import { AccountButton } from "./account-button";
import { RAIL_ITEM, type Who } from "./parts";
import { PLACES, type Place } from "./places";

const Palette = lazy(() => import("@/keys/palette"));
const Sheet = lazy(() => import("@/keys/sheet"));
// With what they need they are a quarter of the page: they come when somebody asks for them.
const Account = lazy(() => import("./account"));
const More = lazy(() => import("./more"));

export function Shell({ user }: { user: Caller }) {
  const queries = useQueryClient();
  const live = useMemo(() => {
    const made = new Live({
      socket: () => new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1/ws`),
      reread: () => void queries.invalidateQueries({ predicate: (q) => q.queryKey[0] !== "auth" }),
      signedOut: () => void queries.invalidateQueries({ queryKey: sessionKey }),
    });
    made.onFeed(orgFeed(queries, announce));
    return made;
  }, [queries]);
  useEffect(() => {
    live.start();
    addEventListener("keydown", onKey);
    return () => {
      removeEventListener("keydown", onKey);
      live.stop();
    };
  }, [live]);
  return (
    <LiveContext value={live}>
      <Frame user={user} />
    </LiveContext>
  );
}

export function useSignOut() {
  const queries = useQueryClient();
  return async () => {
    try {
      await signOut();
      forgetDrafts();
      queries.setQueryData<Login>(sessionKey, { user: null });
      queries.removeQueries({ predicate: (q) => q.queryKey[0] !== "auth" });
    } catch (e) {
      toastError("You are still signed in", e);
    }
  };
}

function Frame({ user }: { user: Caller }) {
  const navigate = useNavigate();
  const { theme, setTheme, toggleRail } = usePrefs();
  const out = useSignOut();
  const { palette, sheet } = useKeys();
  // Once loaded they stay, so that closing can be seen to the end.
  const [loaded, load] = useState(false);
  useEffect(() => {
    if (palette || sheet) load(true);
  }, [palette, sheet]);

  useActions(
    [
      { id: "new", label: "New session", group: "Do", keys: "c", icon: <Plus className="size-4" aria-hidden />, run: () => void navigate({ to: "/", hash: "prompt" }) },
      ...PLACES.map((p) => ({ id: `go ${p.to}`, label: p.label, group: "Go to", keys: p.keys, icon: <p.icon className="size-4" aria-hidden />, run: () => void navigate({ to: p.to }) })),
      { id: "palette", label: "Command palette", group: "Everywhere", keys: "mod+k", keyOnly: true, run: () => openPalette(!useKeys.getState().palette) },
      { id: "keys", label: "Show all keys", group: "Everywhere", keys: "?", icon: <Keyboard className="size-4" aria-hidden />, run: () => openSheet() },
      { id: "rail", label: "Wide or narrow rail", group: "Everywhere", keys: "[", icon: <PanelLeft className="size-4" aria-hidden />, run: toggleRail },
      { id: "theme light", label: "Light colours", group: "Appearance", icon: <Sun className="size-4" aria-hidden />, run: () => setTheme("light") },
      { id: "theme dark", label: "Dark colours", group: "Appearance", icon: <Moon className="size-4" aria-hidden />, run: () => setTheme("dark") },
      { id: "theme system", label: "Colours of the system", group: "Appearance", icon: <Monitor className="size-4" aria-hidden />, run: () => setTheme("system") },
      { id: "out", label: "Sign out", group: "Account", icon: <LogOut className="size-4" aria-hidden />, run: () => void out() },
    ].map((a) => ({ ...a, everywhere: true })),
  );

  return (
    <div className="flex h-dvh flex-col md:flex-row">
      <a href="#content" className="sr-only z-50 rounded-md bg-accent-fill px-3 py-2 text-on-accent focus:not-sr-only focus:fixed focus:top-2 focus:left-2">
        Skip to the content
      </a>
      <Rail user={user} theme={theme} setTheme={setTheme} out={() => void out()} />
      <div className="flex min-h-0 min-w-0 flex-1 flex-col">
        <Connection />
        <main id="content" tabIndex={-1} className="min-h-0 flex-1 overflow-y-auto outline-none">
          <Outlet />
        </main>
      </div>
      <BottomBar user={user} theme={theme} setTheme={setTheme} out={() => void out()} />
      {(loaded || palette || sheet) && (
        <Suspense>
          <Palette />
          <Sheet />
        </Suspense>
      )}
    </div>
  );
}

function useGateCount() {
  const every = useRereadMs();
  const { data } = useInfiniteQuery({ ...gatesQuery, refetchInterval: every });
  const count = data?.pages.reduce((n, p) => n + p.items.length, 0) ?? 0;
  return { count, text: data?.pages.at(-1)?.hasMore ? `${count}+` : String(count) };
}

const HEALTH: Record<Health, { text: string; color: string; hint: string }> = {
  live: { text: "Live", color: "bg-ok", hint: "What happens is shown as it happens." },
  partly: { text: "Every few seconds", color: "bg-warn", hint: "Lists are read again every few seconds." },
  reconnecting: { text: "Reconnecting…", color: "bg-bad", hint: "The connection was lost; it goes on where it was as soon as the server answers." },
};

/** A line at the top on phones and for whoever is cut off for longer than a moment. */
function Connection() {
  const health = useHealth();
  const [late, setLate] = useState(false);
  useEffect(() => {
    setLate(false);
    if (health !== "reconnecting") return;
    const timer = setTimeout(() => setLate(true), 2_500);
    return () => clearTimeout(timer);
  }, [health]);
  return late ? (
    <div role="status" className="late bg-warn-soft px-4 py-1 text-center text-[13px] text-warn">
      The connection was lost. It is tried again; nothing is missed.
    </div>
  ) : null;
}

function Rail({ user, theme, setTheme, out }: Who) {
  const { wide, toggleRail } = usePrefs();
  const gates = useGateCount();
  const navigate = useNavigate();
  const [menu, setMenu] = useState(false);
  return (
    <nav aria-label="Places" className={cx("hidden shrink-0 flex-col border-r border-line bg-panel p-2 md:flex", wide ? "w-52" : "w-14")}>
      <div className={cx("mb-3 flex items-center gap-2 px-1.5 pt-1", !wide && "flex-col")}>
        <img src="/favicon.svg" alt="" width={24} height={24} />
        {wide && <span className="flex-1 font-semibold">Muster</span>}
        <IconButton label={wide ? "Narrow rail" : "Wide rail"} onClick={toggleRail}>
          <PanelLeft className="size-4" aria-hidden />
        </IconButton>
      </div>
      <Button className={cx("mb-3", !wide && "px-0")} icon={<Plus className="size-4" aria-hidden />} aria-label="New session" onClick={() => void navigate({ to: "/", hash: "prompt" })}>
        {wide && "New session"}
      </Button>
      <ul className="space-y-0.5">
        {PLACES.map((p) => (
          <li key={p.to}>
            <RailLink place={p} wide={wide} count={p.to === "/gates" && gates.count ? gates.text : undefined} />
          </li>
        ))}
      </ul>
      <div className="mt-auto space-y-0.5">
        <RailButton wide={wide} label="Find or do" onClick={() => openPalette()} icon={<Command className="size-4 shrink-0" aria-hidden />} />
        {menu ? (
          <Suspense fallback={<AccountButton user={user} wide={wide} />}>
            <Account {...{ user, theme, setTheme, out, wide }} />
          </Suspense>
        ) : (
          <AccountButton user={user} wide={wide} onClick={() => setMenu(true)} />
        )}
        <HealthLine wide={wide} />
      </div>
    </nav>
  );
}


function RailLink({ place, wide, count }: { place: Place; wide: boolean; count?: string }) {
  const link = (
    <Link
      to={place.to}
      activeOptions={{ exact: place.to === "/", includeSearch: false }}
      className={cx(RAIL_ITEM, "relative")}
      activeProps={{ className: "bg-hover !text-text font-medium", "aria-current": "page" }}
      aria-label={wide ? undefined : place.label}
      title={wide ? undefined : place.label}
    >
      <place.icon className="size-4 shrink-0" aria-hidden />
      {wide && <span className="flex-1">{place.label}</span>}
      {count && (
        <span className={cx("rounded-full bg-warn-soft px-1.5 text-xs font-semibold text-warn", !wide && "absolute -top-0.5 -right-0.5")}>
          {count}
          <span className="sr-only"> waiting</span>
        </span>
      )}
    </Link>
  );
  return link;
}

function RailButton({ wide, label, icon, onClick }: { wide: boolean; label: string; icon: React.ReactNode; onClick(): void }) {
  return (
    <button type="button" onClick={onClick} aria-label={label} title={wide ? undefined : label} className={RAIL_ITEM}>
      {icon}
      {wide && <span className="flex-1 text-left">{label}</span>}
    </button>
  );
}

function HealthLine({ wide }: { wide: boolean }) {
  const h = HEALTH[useHealth()];
  return (
    <div role="status" className={cx(RAIL_ITEM, "text-xs hover:bg-transparent")} title={h.hint}>
      <span aria-hidden className="flex size-4 shrink-0 items-center justify-center">
        <span className={cx("size-2 rounded-full", h.color)} />
      </span>
      <span className={wide ? undefined : "sr-only"}>{h.text}</span>
    </div>
  );
}

function BottomBar({ user, theme, setTheme, out }: Who) {
  const [more, setMore] = useState(false);
  const gates = useGateCount();
  const [loaded, load] = useState(false);
  const h = HEALTH[useHealth()];
  const item = "flex h-14 flex-col items-center justify-center gap-0.5 text-xs text-muted";
  return (
    <nav aria-label="Places" className="safe-bottom shrink-0 border-t border-line bg-panel md:hidden">
      <ul className="grid grid-cols-5">
        {PLACES.filter((p) => p.phone).map((p) => (
          <li key={p.to}>
            <Link to={p.to} activeOptions={{ exact: p.to === "/", includeSearch: false }} className={item} activeProps={{ className: "!text-accent font-medium", "aria-current": "page" }}>
              <span className="relative">
                <p.icon className="size-5" aria-hidden />
                {p.to === "/gates" && gates.count > 0 && (
                  <span className="absolute -top-1.5 -right-3 rounded-full bg-warn-soft px-1.5 text-xs leading-4 font-semibold text-warn">{gates.text}</span>
                )}
              </span>
              {p.label}
            </Link>
          </li>
        ))}
        <li>
          <button type="button" className={cx(item, "w-full")} onClick={() => (load(true), setMore(true))}>
            <Ellipsis className="size-5" aria-hidden />
            More
          </button>
        </li>
      </ul>
      {loaded && (
        <Suspense>
          <More {...{ user, theme, setTheme, out, open: more, setOpen: setMore, health: h.text }} />
        </Suspense>
      )}
    </nav>
  );
}
