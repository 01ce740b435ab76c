import { createContext, useContext, useEffect, useRef, useSyncExternalStore } from "react";
import type { Follower, Live } from "./client";

export const LiveContext = createContext<Live | null>(null);

export function useLive(): Live {
  const live = useContext(LiveContext);
  if (!live) throw new Error("outside of the shell");
  return live;
}

export type Health = "live" | "partly" | "reconnecting";

/** live: everything comes by itself; partly: lists are read again now and then. */
export function useHealth(): Health {
  const live = useLive();
  return useSyncExternalStore(
    (fn) => live.onState(fn),
    () => {
      const { phase, transport, org } = live.state;
      if (phase !== "open") return "reconnecting";
      return transport === "ws" && org !== "absent" ? "live" : "partly";
    },
  );
}

/** How often a list is read again: seldom when the feed keeps it, else every few seconds. */
export function useRereadMs(): number {
  const live = useLive();
  const org = useSyncExternalStore(
    (fn) => live.onState(fn),
    () => live.state.phase === "open" && live.state.org === "live",
  );
  return org ? 60_000 : 3_000;
}

/** Follows a session while the component is there. */
export function useFollow(id: string | undefined, seq: number | null, follower: Follower) {
  const live = useLive();
  const latest = useRef(follower);
  latest.current = follower;
  useEffect(() => {
    if (!id) return;
    return live.follow(id, seq, {
      event: (e) => latest.current.event?.(e),
      message: (m) => latest.current.message?.(m),
      lost: (n) => latest.current.lost?.(n),
      bytes: (terminal, offset, bytes) => latest.current.bytes?.(terminal, offset, bytes),
    });
    // The position counts only at the beginning; the connection knows it from then on.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [live, id]);
}
