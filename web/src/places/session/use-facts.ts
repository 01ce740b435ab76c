import { useQuery } from "@tanstack/react-query";
import { useEffect, useMemo, useState } from "react";
import type { SessionEvent } from "@/api/types";
import { eventsPage } from "./calls";
import { FACT_TYPES, factsOf } from "./facts";
import type { SessionLog } from "./log";

const PAGES = 20;

/** The facts of the whole session: its own reading of the log, and then what comes. At most 20,000 events are read. */
export function useFacts(id: string, log: SessionLog, on: boolean) {
  const read = useQuery({
    queryKey: ["facts", id], // read once: what comes is added
    enabled: on,
    staleTime: 0,
    refetchOnWindowFocus: false,
    queryFn: async ({ signal }) => {
      const events: SessionEvent[] = [];
      for (let i = 0; i < PAGES; i++) {
        const page = await eventsPage(id, events.at(-1)?.seq ?? 0, 1000, signal, FACT_TYPES);
        events.push(...page.events);
        if (!page.hasMore || !page.events.length) return { events, whole: true };
      }
      return { events, whole: false };
    },
  });
  const [fresh, add] = useState<SessionEvent[]>([]);
  useEffect(() => log.onEvent((e) => FACT_TYPES.includes(e.type) && add((old) => [...old, e])), [log]);
  const facts = useMemo(() => {
    if (!read.data) return undefined;
    const last = read.data.events.at(-1)?.seq ?? 0;
    return factsOf([...read.data.events, ...(read.data.whole ? fresh.filter((e) => e.seq > last) : [])]);
  }, [read.data, fresh]);
  return { facts, whole: read.data?.whole ?? true, error: read.error, retry: () => void read.refetch() };
}
