import { useEffect, useMemo, useSyncExternalStore } from "react";
import type { SessionEvent } from "@/api/types";
import type { Follower, Live, Message } from "@/live/client";
import { useLive } from "@/live/hooks";
import { eventsPage, PAGE } from "./calls";
import { Conversation, type Item } from "./conversation";

/** Words that the agent is saying; what it has said comes whole in the log. */
export interface Saying {
  turnId: string;
  thought: boolean;
  text: string;
  /** Bytes of this kind in this turn so far. */
  end: number;
}
export interface Shown {
  items: readonly Item[];
  events: readonly SessionEvent[];
  saying: readonly Saying[];
  /** Whether the first of the log that is kept has been read. */
  whole: boolean;
  oldest: number;
  ready: boolean;
  loading: boolean;
  error: unknown;
}

const MAX_SAYING = 200_000;
const encoder = new TextEncoder();
type Read = typeof eventsPage;
type Bytes = NonNullable<Follower["bytes"]>;

/** One session's log in this page: an unbroken piece of it that grows at both ends. */
export class SessionLog {
  shown: Shown = { items: [], events: [], saying: [], whole: false, oldest: 1, ready: false, loading: false, error: undefined };
  private talk = new Conversation();
  private events: SessionEvent[] = [];
  private saying = new Map<string, Saying>();
  private listeners = new Set<() => void>();
  private heard = new Set<(e: SessionEvent) => void>();
  private waiting: ReturnType<typeof setTimeout> | undefined;
  private ending = new AbortController();
  private unfollow: (() => void) | undefined;
  private filling: SessionEvent[] | null = null;
  private oldest = 1;
  private followed: Pick<Live, "watch"> | undefined;
  private watched = new Map<number, number | null>();
  private shows = new Set<Bytes>();
  private told = new Set<(m: Message) => void>();

  constructor(
    readonly id: string,
    private readonly read: Read = eventsPage,
  ) {}

  subscribe = (fn: () => void) => {
    this.listeners.add(fn);
    return () => void this.listeners.delete(fn);
  };
  /** Told each event that comes, once. */
  onEvent(fn: (e: SessionEvent) => void) {
    this.heard.add(fn);
    return () => void this.heard.delete(fn);
  }

  private get first() {
    return this.events[0]?.seq ?? this.last + 1;
  }
  private last = 0;

  async start(live: Pick<Live, "follow" | "watch">, lastSeq: number) {
    this.ending = new AbortController();
    const ending = this.ending;
    if (!this.shown.ready) {
      this.last = lastSeq;
      await this.earlier();
      if (ending.signal.aborted) return;
    }
    this.unfollow = live.follow(this.id, this.last, {
      event: (e) => this.take(e),
      message: (m) => {
        if (m.action === "delta") this.delta(m.data);
        for (const fn of this.told) fn(m);
      },
      bytes: (terminal, offset, bytes) => {
        for (const fn of this.shows) fn(terminal, offset, bytes);
      },
      lost: (oldest) => this.lost(oldest),
    });
    this.followed = live;
    for (const [terminal, offset] of this.watched) live.watch(this.id, terminal, offset);
  }

  /** From then on the bytes of that terminal come, too. */
  watch(terminal: number, offset: number | null) {
    if (this.watched.has(terminal)) return;
    this.watched.set(terminal, offset);
    this.followed?.watch(this.id, terminal, offset);
  }
  onBytes(fn: Bytes) {
    this.shows.add(fn);
    return () => void this.shows.delete(fn);
  }
  onMessage(fn: (m: Message) => void) {
    this.told.add(fn);
    return () => void this.told.delete(fn);
  }

  stop() {
    this.ending.abort();
    this.unfollow?.();
    this.unfollow = undefined;
    this.followed = undefined;
    this.shown = { ...this.shown, loading: false }; // what was being read counts for nothing; who begins again reads it again
  }

  /** The page before what is there. */
  async earlier(limit = PAGE): Promise<void> {
    if (this.shown.loading || this.shown.whole) return;
    const { signal } = this.ending;
    const before = this.first;
    this.show({ loading: true, error: undefined });
    try {
      const after = Math.max(0, before - 1 - limit);
      const page = await this.read(this.id, after, Math.max(1, before - 1 - after), signal);
      if (signal.aborted) return;
      this.oldest = Math.max(1, page.firstSeq);
      const events = page.events.filter((e) => e.seq < before);
      if (events.length) {
        this.events = events.concat(this.events);
        this.talk.prepend(events);
      }
      this.show({ ready: true, loading: false, whole: this.first <= this.oldest || !events.length });
    } catch (error) {
      if (!signal.aborted) this.show({ loading: false, error });
    }
  }

  /** Reads upwards until that event is there. */
  async reach(seq: number): Promise<boolean> {
    while (this.first > seq && !this.shown.whole && !this.shown.error && !this.ending.signal.aborted) {
      if (this.shown.loading) await new Promise((go) => setTimeout(go, 50));
      else await this.earlier(1000);
    }
    return this.first <= seq;
  }

  private take(e: SessionEvent) {
    if (e.seq <= this.last) return;
    if (this.filling) {
      this.filling.push(e);
      return;
    }
    if (e.seq > this.last + 1) {
      this.filling = [e];
      void this.fill();
      return;
    }
    this.accept([e]);
  }

  private async fill(tries = 0): Promise<void> {
    const { signal } = this.ending;
    try {
      for (;;) {
        const page = await this.read(this.id, this.last, 1000, signal);
        if (signal.aborted) return;
        this.accept(page.events.filter((e) => e.seq > this.last));
        if (!page.events.length || !page.hasMore) break;
      }
      const came = this.filling ?? [];
      this.filling = null;
      this.accept(came.filter((e) => e.seq > this.last));
    } catch (error) {
      if (signal.aborted) return;
      if (tries > 5) {
        const came = this.filling ?? [];
        this.filling = null;
        this.accept(came);
        this.show({ error });
        return;
      }
      await new Promise((go) => setTimeout(go, 500 * 2 ** tries));
      return this.fill(tries + 1);
    }
  }

  private accept(events: SessionEvent[]) {
    if (!events.length) return;
    for (const e of events) {
      const key = `${String(e.data.turnId)} ${e.data.kind === "thought"}`;
      const said = e.type === "AGENT_MESSAGE" ? this.saying.get(key) : undefined;
      if (said) this.saying.set(key, { ...said, text: "" }); // where it is stays known: what comes late is not said twice
      if (e.type === "TURN_ENDED" || e.type === "SESSION_ENDED" || e.type === "TURN_STARTED") this.saying.clear();
    }
    this.last = events.at(-1)!.seq;
    this.events = this.events.concat(events);
    this.talk.append(events);
    this.later();
    for (const e of events) for (const fn of this.heard) fn(e);
  }

  private delta(data: unknown) {
    const d = data as { turnId?: string; kind?: string; offset?: number; content?: string };
    if (typeof d?.content !== "string" || typeof d.offset !== "number") return;
    const thought = d.kind === "thought";
    const key = `${String(d.turnId)} ${thought}`;
    const old = this.saying.get(key);
    const bytes = encoder.encode(d.content).length;
    if (old && d.offset + bytes <= old.end) return;
    const content = old && d.offset < old.end ? new TextDecoder().decode(encoder.encode(d.content).subarray(old.end - d.offset)) : d.content;
    const text = (old?.text ?? "") + (old?.text && d.offset > old.end ? " … " : "") + content;
    this.saying.set(key, { turnId: String(d.turnId), thought, text: text.slice(-MAX_SAYING), end: d.offset + bytes });
    this.later();
  }

  /** The log goes on further on: what is there has nothing to do with it any more. */
  private lost(oldest: number) {
    this.events = [];
    this.talk = new Conversation();
    this.last = oldest - 1;
    this.oldest = oldest;
    this.show({ whole: true });
  }

  /** Many at once are drawn once. */
  private later() {
    this.waiting ??= setTimeout(() => this.show({}), 40);
  }

  private show(part: Partial<Shown>) {
    clearTimeout(this.waiting);
    this.waiting = undefined;
    this.shown = { ...this.shown, items: this.talk.items, events: this.events, saying: [...this.saying.values()].filter((w) => w.text), oldest: this.oldest, ...part };
    for (const fn of this.listeners) fn();
  }
}

export function useSessionLog(id: string, lastSeq: number | undefined): [SessionLog, Shown] {
  const live = useLive();
  const log = useMemo(() => new SessionLog(id), [id]);
  const known = lastSeq !== undefined;
  useEffect(() => {
    if (!known) return;
    void log.start(live, lastSeq);
    return () => log.stop();
    // Where it begins counts once: from then on the log knows.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [log, live, known]);
  return [log, useSyncExternalStore(log.subscribe, () => log.shown)];
}
