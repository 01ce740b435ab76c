import { ApiError } from "@/api/client";
import { eventsAfter } from "@/api/sessions";
import type { SessionEvent } from "@/api/types";
import { type Effect, type Input, START, type State, step } from "./machine";
import { sseParser } from "./sse";

/** A message of docs/socket.md; what it carries beyond this is looked at by whoever wants it. */
export interface Message {
  type: string;
  sessionId?: string;
  action?: string;
  event?: string;
  seq?: number;
  data?: unknown;
  [member: string]: unknown;
}

/** What somebody who follows a session is told: its events in order, without holes or repetition. */
export interface Follower {
  event?(event: SessionEvent): void;
  /** Everything else of the socket about it: snapshots, deltas. */
  message?(message: Message): void;
  /** Bytes of a terminal, the first of them being number `offset`; what is missing in between was dropped. */
  bytes?(terminal: number, offset: number, bytes: Uint8Array): void;
  /** Events before this one are not kept any more. */
  lost?(oldest: number): void;
}

export interface Surroundings {
  socket(): WebSocket;
  reread(): void;
  signedOut(): void;
}

const PING_MS = 20_000;
const SILENT_MS = 50_000;
const POLL_MS = 3_000;
const HEAD = 32;

const number = (v: unknown) => (typeof v === "number" ? v : undefined);
const object = (v: unknown) => (typeof v === "object" && v !== null ? (v as Record<string, unknown>) : {});

export class Live {
  state: State = START;
  private socket: WebSocket | null = null;
  private followers = new Map<string, Set<Follower>>();
  private listeners = new Set<() => void>();
  private feeds = new Set<(message: Message) => void>();
  private streams = new Map<string, AbortController>();
  private timers = new Map<string, ReturnType<typeof setTimeout>>();
  private heard = 0;
  private comeBack: number | undefined;

  constructor(private readonly around: Surroundings) {}

  start() {
    addEventListener("online", this.wake);
    document.addEventListener("visibilitychange", this.wake);
    this.input({ type: "start" });
  }

  stop() {
    removeEventListener("online", this.wake);
    document.removeEventListener("visibilitychange", this.wake);
    this.input({ type: "stop" });
    for (const t of this.timers.values()) clearTimeout(t);
    this.timers.clear();
  }

  /** Follows a session after `seq`; null: from now on. Ends with the function that comes back. */
  follow(id: string, seq: number | null, follower: Follower, terminal?: number): () => void {
    const all = this.followers.get(id) ?? new Set();
    const first = all.size === 0;
    all.add(follower);
    this.followers.set(id, all);
    if (first) this.input({ type: "follow", id, seq, terminal });
    return () => {
      all.delete(follower);
      if (all.size === 0 && this.followers.get(id) === all) {
        this.followers.delete(id);
        this.input({ type: "unfollow", id });
      }
    };
  }

  /** One more terminal of a session that is followed: from that byte on, null: with the last there are. */
  watch(id: string, terminal: number, offset: number | null) {
    this.input({ type: "watch", id, terminal, offset });
  }

  send(message: Record<string, unknown>): boolean {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  onState(fn: () => void): () => void {
    this.listeners.add(fn);
    return () => this.listeners.delete(fn);
  }

  onFeed(fn: (message: Message) => void): () => void {
    this.feeds.add(fn);
    return () => this.feeds.delete(fn);
  }

  private wake = () => {
    if (document.visibilityState === "visible") this.input({ type: "wake" });
  };

  private input(input: Input) {
    const [next, effects] = step(this.state, input);
    const changed = next !== this.state;
    this.state = next;
    for (const effect of effects) this.run(effect);
    if (changed) for (const fn of this.listeners) fn();
  }

  private run(effect: Effect) {
    switch (effect.do) {
      case "open":
        this.open();
        break;
      case "close": {
        const socket = this.socket;
        this.socket = null;
        socket?.close(1000);
        break;
      }
      case "send":
        this.send(effect.message);
        break;
      case "wait":
        this.later("wait", effect.ms, () => this.input({ type: "wait_over" }));
        break;
      case "socket_later":
        this.later("socket", effect.ms, () => this.input({ type: "try_socket" }));
        break;
      case "stream":
        this.endStream(effect.id);
        this.later(`stream ${effect.id}`, effect.ms, () => void this.stream(effect.id, effect.seq));
        break;
      case "end_stream":
        this.endStream(effect.id);
        break;
      case "poll":
        if (effect.on) this.later("poll", POLL_MS, () => void this.poll());
        else this.forget("poll");
        break;
      case "probe":
        void this.probe();
        break;
      case "reread":
        this.around.reread();
        break;
      case "who":
        this.around.signedOut();
        break;
    }
  }

  private later(name: string, ms: number, fn: () => void) {
    this.forget(name);
    this.timers.set(
      name,
      setTimeout(() => {
        this.timers.delete(name);
        fn();
      }, ms),
    );
  }

  private forget(name: string) {
    clearTimeout(this.timers.get(name));
    this.timers.delete(name);
  }

  // --- the socket ---
  private open() {
    this.socket?.close(1000);
    const socket = this.around.socket();
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    this.comeBack = undefined;
    let known = false;
    this.heard = Date.now();
    this.later("ping", PING_MS, () => this.ping(socket));
    socket.onmessage = (e) => {
      if (socket !== this.socket) return;
      this.heard = Date.now();
      if (typeof e.data !== "string") {
        this.frame(e.data as ArrayBuffer);
        return;
      }
      const message = JSON.parse(e.data) as Message;
      if (!known && message.type === "event" && message.event === "authenticated") {
        known = true;
        this.input({ type: "opened" });
      } else {
        this.take(message);
      }
    };
    socket.onclose = (e) => {
      if (socket !== this.socket) return;
      this.socket = null;
      this.forget("ping");
      this.input({ type: "closed", code: e.code, random: Math.random(), reconnectAfterMs: this.comeBack });
    };
  }

  private ping(socket: WebSocket) {
    if (socket !== this.socket) return;
    if (Date.now() - this.heard > SILENT_MS) {
      socket.close(1000);
      socket.onclose?.(new CloseEvent("close", { code: 1006 })); // the close frame's answer may never come
      return;
    }
    this.send({ type: "ping" });
    this.later("ping", PING_MS, () => this.ping(socket));
  }

  private take(m: Message) {
    if (m.type === "event" && m.event === "server_shutdown") {
      this.comeBack = number(object(m.data).reconnectAfterMs);
      return;
    }
    if (m.type !== "error" && (m.replyTo === "sub-org" || (m.event === "subscribed" && !object(m.data).sessionId))) this.input({ type: "org_live" });
    if (m.type === "error") {
      if (m.replyTo === "sub-org") this.input({ type: "org_refused" });
      const id = typeof m.replyTo === "string" && m.replyTo.startsWith("sub-") ? m.replyTo.slice(4) : m.sessionId;
      const oldest = number(object(m.details).oldestSeq);
      if (m.code === "REPLAY_UNAVAILABLE" && id && oldest !== undefined) this.lost(id, oldest);
      for (const fn of this.feeds) fn(m); // whoever asked knows it by replyTo
      return;
    }
    if (m.sessionId && this.followers.has(m.sessionId)) this.toFollowers(m.sessionId, m);
    for (const fn of this.feeds) fn(m);
  }

  /** 1, terminal, six zero bytes, offset, UUID of the session, bytes. */
  private frame(data: ArrayBuffer) {
    if (data.byteLength < HEAD) return;
    const view = new DataView(data);
    const uuid = Array.from(new Uint8Array(data, 16, 16), (b) => b.toString(16).padStart(2, "0")).join("");
    const id = `ses_${uuid.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-")}`;
    if (view.getUint8(0) !== 1 || !this.followers.has(id)) return;
    const terminal = view.getUint8(1);
    const offset = Number(view.getBigUint64(8));
    const bytes = new Uint8Array(data, HEAD);
    this.input({ type: "bytes", id, terminal, end: offset + bytes.length });
    for (const f of this.followers.get(id) ?? []) f.bytes?.(terminal, offset, bytes);
  }

  private toFollowers(id: string, m: Message) {
    if (m.type === "session" && m.seq !== undefined && (m.action === "event" || m.action === "state_change")) {
      const data = object(m.data);
      const timestamp = String(m.timestamp ?? "");
      const event: SessionEvent =
        m.action === "event"
          ? { seq: m.seq, type: String(data.eventType), timestamp, data: object(data.payload) }
          : { seq: m.seq, type: "SESSION_STATE_CHANGED", timestamp, data };
      this.deliver(id, event);
    }
    for (const f of this.followers.get(id) ?? []) f.message?.(m);
  }

  private deliver(id: string, event: SessionEvent) {
    const seen = this.state.follows[id]?.seq;
    if (seen !== null && seen !== undefined && event.seq <= seen) return;
    this.input({ type: "seen", id, seq: event.seq });
    for (const f of this.followers.get(id) ?? []) f.event?.(event);
  }

  private lost(id: string, oldest: number) {
    this.input({ type: "lost", id, oldest });
    for (const f of this.followers.get(id) ?? []) f.lost?.(oldest);
  }

  // --- without it ---
  private async probe() {
    const yes = await fetch("/health", { signal: AbortSignal.timeout(5_000), cache: "no-store" }).then(
      (answer) => answer.ok || answer.status === 503,
      () => false,
    );
    this.input({ type: "reachable", yes, random: Math.random() });
  }

  private endStream(id: string) {
    this.forget(`stream ${id}`);
    this.streams.get(id)?.abort();
    this.streams.delete(id);
  }

  private async stream(id: string, seq: number | null) {
    const ending = new AbortController();
    this.streams.set(id, ending);
    try {
      const after = seq ?? (await eventsAfter(id, 0, ending.signal)).lastSeq;
      const answer = await fetch(`/api/v1/sessions/${encodeURIComponent(id)}/events/stream?afterSeq=${after}`, {
        credentials: "same-origin",
        headers: { Accept: "text/event-stream" },
        signal: ending.signal,
      });
      if (answer.status === 401) return this.around.signedOut();
      if (answer.status === 404) return;
      if (!answer.ok || !answer.body) throw new Error(String(answer.status));
      this.input({ type: "stream_ok", id });
      let ended = false;
      const parse = sseParser(({ event, data, id: position }) => {
        const body = object(JSON.parse(data));
        if (event === "reset") this.lost(id, number(body.first_seq) ?? number(body.oldestSeq) ?? 1);
        else if (position !== undefined && Number.isFinite(Number(position))) {
          ended ||= event === "SESSION_ENDED";
          this.deliver(id, {
            seq: Number(position),
            type: event,
            timestamp: String(body.timestamp ?? new Date().toISOString()),
            data: "data" in body ? object(body.data) : body,
          });
        }
      });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        parse(value);
      }
      if (ended) return;
      throw new Error("the stream ended");
    } catch {
      if (!ending.signal.aborted) this.input({ type: "stream_failed", id, random: Math.random() });
    }
  }

  private async poll() {
    for (const [id, follow] of Object.entries(this.state.follows)) {
      try {
        const page = await eventsAfter(id, follow.seq ?? 0);
        if (follow.seq === null) this.input({ type: "seen", id, seq: page.lastSeq });
        else {
          if (page.firstSeq > follow.seq + 1) this.lost(id, page.firstSeq);
          for (const event of page.events) this.deliver(id, event);
        }
      } catch (e) {
        if (e instanceof ApiError && e.status === 401) return;
      }
    }
    if (this.state.transport === "poll" && this.state.phase === "open") this.later("poll", POLL_MS, () => void this.poll());
  }
}
