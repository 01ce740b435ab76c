import { backoff } from "./backoff";

/**
 * The page's one connection to what happens: WebSocket, else a stream of server-sent events for each session that is
 * followed, else reading again. Pure: an input and the state make the next state and what is to be done.
 */
export type Transport = "ws" | "sse" | "poll";
export type Phase = "off" | "connecting" | "open" | "waiting" | "refused";
/** Whether the org's feed comes by itself; "absent": this server has none, lists are read again instead. */
export type Org = "off" | "asked" | "live" | "absent";

export interface Follow {
  /** The last event that was handed on; null: none yet, begin where the session is now. */
  seq: number | null;
  /** Terminals that are watched, and behind which byte each goes on; null: with the last there are. */
  terminals: Readonly<Record<number, number | null>>;
}

export interface State {
  transport: Transport;
  phase: Phase;
  org: Org;
  /** Tries since it last worked. */
  attempt: number;
  /** It has been connected before: what came in between has to be read. */
  before: boolean;
  /** Failed tries in a row of this transport. */
  failures: number;
  follows: Readonly<Record<string, Follow>>;
}

export type Input =
  | { type: "start" }
  | { type: "stop" }
  | { type: "opened" }
  | { type: "closed"; code: number; random: number; reconnectAfterMs?: number }
  | { type: "wait_over" }
  | { type: "try_socket" }
  | { type: "wake" }
  | { type: "org_refused" }
  | { type: "org_live" }
  | { type: "follow"; id: string; seq: number | null; terminal?: number }
  | { type: "unfollow"; id: string }
  | { type: "seen"; id: string; seq: number }
  | { type: "watch"; id: string; terminal: number; offset: number | null }
  | { type: "bytes"; id: string; terminal?: number; end: number }
  | { type: "lost"; id: string; oldest: number }
  | { type: "reachable"; yes: boolean; random: number }
  | { type: "stream_ok"; id: string }
  | { type: "stream_failed"; id: string; random: number };

export type Effect =
  | { do: "open" }
  | { do: "close" }
  | { do: "send"; message: Record<string, unknown> }
  | { do: "wait"; ms: number }
  | { do: "socket_later"; ms: number }
  | { do: "stream"; id: string; seq: number | null; ms: number }
  | { do: "end_stream"; id: string }
  | { do: "poll"; on: boolean }
  | { do: "probe" }
  | { do: "reread" }
  | { do: "who" };

export const START: State = { transport: "ws", phase: "off", org: "off", attempt: 0, before: false, failures: 0, follows: {} };

const SOCKET_TRIES = 3;
const STREAM_TRIES = 3;
const SOCKET_AGAIN_MS = 60_000;

/** Bytes come as binary frames; a further terminal is asked for by name. */
const subscribe = (id: string, f: Follow): Effect[] => {
  const [first, ...more] = Object.keys(f.terminals).map(Number);
  const from = (n: number) => (f.terminals[n] == null ? {} : { terminalOffset: f.terminals[n] });
  return [
    {
      do: "send",
      message: {
        type: "subscribe_session",
        messageId: `sub-${id}`,
        sessionId: id,
        terminal: first ?? false,
        binary: true,
        usage: true, // else its numbers would look like holes
        ...(f.seq === null ? {} : { sinceSeq: f.seq }),
        ...(first === undefined ? {} : from(first)),
      },
    },
    ...more.map((n): Effect => watch(id, n, f.terminals[n] ?? null)),
  ];
};
const watch = (id: string, terminal: number, offset: number | null): Effect => ({
  do: "send",
  message: { type: "subscribe_session", messageId: `term-${id}-${terminal}`, sessionId: id, terminal, ...(offset === null ? {} : { terminalOffset: offset }) },
});
const ids = (s: State) => Object.keys(s.follows);
const streams = (s: State): Effect[] => ids(s).map((id) => ({ do: "stream", id, seq: s.follows[id]?.seq ?? null, ms: 0 }));
const change = (s: State, id: string, part: Partial<Follow>): State => {
  const old = s.follows[id];
  return old ? { ...s, follows: { ...s.follows, [id]: { ...old, ...part } } } : s;
};

/** Without the socket: streams, or reading, until the socket is tried again. */
function withoutSocket(s: State, transport: "sse" | "poll"): [State, Effect[]] {
  const next: State = { ...s, transport, phase: "open", org: "off", failures: 0 };
  const effects: Effect[] = transport === "sse" ? streams(next) : ids(next).map((id): Effect => ({ do: "end_stream", id }));
  return [next, [...effects, { do: "poll", on: transport === "poll" }, { do: "socket_later", ms: SOCKET_AGAIN_MS }]];
}

function opened(s: State): [State, Effect[]] {
  const next: State = { ...s, transport: "ws", phase: "open", org: "asked", attempt: 0, failures: 0, before: true };
  const effects: Effect[] = s.transport === "ws" ? [] : [...ids(s).map((id): Effect => ({ do: "end_stream", id })), { do: "poll", on: false }];
  effects.push({ do: "send", message: { type: "subscribe_org", messageId: "sub-org" } });
  for (const id of ids(s)) effects.push(...subscribe(id, s.follows[id]!));
  if (s.before) effects.push({ do: "reread" });
  return [next, effects];
}

function closed(s: State, input: Extract<Input, { type: "closed" }>): [State, Effect[]] {
  if (s.phase === "off" || s.phase === "refused") return [s, []];
  if (input.code === 4401) return [{ ...s, phase: "refused", org: "off" }, [{ do: "who" }]];
  if (input.code === 4403) return [{ ...s, phase: "refused", org: "off" }, []];
  if (s.transport !== "ws") return [s, [{ do: "socket_later", ms: SOCKET_AGAIN_MS }, { do: "probe" }]]; // one more try that failed
  const opened = s.phase === "open";
  const failures = opened ? 0 : s.failures + 1;
  if (input.code === 4429) return withoutSocket(s, "sse");
  const ms = input.reconnectAfterMs ?? backoff(s.attempt, input.random);
  return [{ ...s, phase: "waiting", org: "off", attempt: s.attempt + 1, failures }, [{ do: "wait", ms }, ...probe(failures >= SOCKET_TRIES)]];
}

/** Whether it is only the socket that does not come, or the server that is away. */
const probe = (on: boolean): Effect[] => (on ? [{ do: "probe" }] : []);

function reachable(s: State, yes: boolean, random: number): [State, Effect[]] {
  if (yes) return s.transport === "ws" && s.phase !== "open" && s.failures >= SOCKET_TRIES ? withoutSocket(s, "sse") : [s, []];
  if (s.transport === "ws" || s.phase !== "open") return [s, []];
  const effects = ids(s).map((id): Effect => ({ do: "end_stream", id }));
  return [{ ...s, transport: "ws", phase: "waiting", org: "off", attempt: 1, failures: 0 }, [...effects, { do: "poll", on: false }, { do: "wait", ms: backoff(0, random) }]];
}

export function step(s: State, input: Input): [State, Effect[]] {
  switch (input.type) {
    case "start":
      return s.phase === "off" || s.phase === "refused"
        ? [{ ...START, before: s.before, follows: s.follows, phase: "connecting" }, [{ do: "open" }]]
        : [s, []];
    case "stop":
      return [
        { ...START, follows: s.follows, before: s.before },
        [{ do: "close" }, { do: "poll", on: false }, ...ids(s).map((id): Effect => ({ do: "end_stream", id }))],
      ];
    case "opened":
      return s.phase === "off" || s.phase === "refused" ? [s, [{ do: "close" }]] : opened(s);
    case "closed":
      return closed(s, input);
    case "wait_over":
      return s.phase === "waiting" ? [{ ...s, phase: "connecting" }, [{ do: "open" }]] : [s, []];
    case "wake": // the network is back, or somebody looks at the page again
      if (s.phase === "waiting") return [{ ...s, phase: "connecting", attempt: 0 }, [{ do: "open" }]];
      return s.phase === "open" && s.transport !== "ws" ? [s, [{ do: "open" }]] : [s, []];
    case "try_socket":
      return s.phase === "open" && s.transport !== "ws" ? [s, [{ do: "open" }]] : [s, []];
    case "org_live":
      return [{ ...s, org: "live" }, []];
    case "org_refused":
      return [{ ...s, org: "absent" }, []];
    case "follow": {
      const follow: Follow = { seq: input.seq, terminals: input.terminal === undefined ? {} : { [input.terminal]: null } };
      const next = { ...s, follows: { ...s.follows, [input.id]: follow } };
      if (s.phase !== "open") return [next, []];
      if (s.transport === "ws") return [next, subscribe(input.id, follow)];
      return [next, s.transport === "sse" ? [{ do: "stream", id: input.id, seq: input.seq, ms: 0 }] : []];
    }
    case "unfollow": {
      if (!s.follows[input.id]) return [s, []];
      const { [input.id]: _, ...follows } = s.follows;
      const end: Effect[] =
        s.phase === "open" && s.transport === "ws"
          ? [{ do: "send", message: { type: "unsubscribe_session", messageId: `unsub-${input.id}`, sessionId: input.id } }]
          : [{ do: "end_stream", id: input.id }];
      return [{ ...s, follows }, end];
    }
    case "seen":
      return (s.follows[input.id]?.seq ?? -1) < input.seq ? [change(s, input.id, { seq: input.seq }), []] : [s, []];
    case "watch": {
      const old = s.follows[input.id];
      if (!old || input.terminal in old.terminals) return [s, []];
      const next = change(s, input.id, { terminals: { ...old.terminals, [input.terminal]: input.offset } });
      return [next, s.phase === "open" && s.transport === "ws" ? [watch(input.id, input.terminal, input.offset)] : []];
    }
    case "bytes":
      return [change(s, input.id, { terminals: { ...s.follows[input.id]?.terminals, [input.terminal ?? 0]: input.end } }), []];
    case "lost": // the log does not have what comes next any more
      return [change(s, input.id, { seq: input.oldest - 1 }), []];
    case "reachable":
      return s.phase === "off" || s.phase === "refused" ? [s, []] : reachable(s, input.yes, input.random);
    case "stream_ok":
      return [{ ...s, failures: 0, attempt: 0 }, []];
    case "stream_failed": {
      const follow = s.follows[input.id];
      if (s.transport !== "sse" || !follow) return [s, []];
      const failures = s.failures + 1;
      if (failures >= STREAM_TRIES) {
        const [next, effects] = withoutSocket(s, "poll");
        return [next, [...effects, { do: "probe" }]];
      }
      return [{ ...s, failures }, [{ do: "stream", id: input.id, seq: follow.seq, ms: backoff(failures, input.random) }]];
    }
  }
}
