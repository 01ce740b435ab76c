/** The one way to the server: same origin, JSON, and one kind of error whichever dialect answered. */

export interface Issue {
  path: string;
  code: string;
  message: string;
}

export class ApiError extends Error {
  override name = "ApiError";
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly requestId?: string,
    readonly field?: string,
    readonly issues: Issue[] = [],
    readonly retryAfter?: number,
  ) {
    super(message);
  }
  /** Nobody answered, or the answer was no answer of ours. */
  get offline() {
    return this.status === 0;
  }
}

type Params = Record<string, string | number | boolean | string[] | undefined>;
interface Options {
  query?: Params;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

const TIMEOUT_MS = 40_000;
let unauthorized: () => void = () => {};

/** Told when the server does not know the caller any more. */
export function onUnauthorized(fn: () => void) {
  unauthorized = fn;
}

export function address(path: string, query?: Params): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== "") search.append(name, String(one));
    }
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

const text = (v: unknown) => (typeof v === "string" && v ? v : undefined);
const isObject = (v: unknown): v is Record<string, unknown> => typeof v === "object" && v !== null && !Array.isArray(v);

/** The envelope's {error: {code, message, details}, meta}, Oz {error, message, code, field, request_id}, Agent Ops {error, code, field, requestId}. */
export function errorOf(status: number, body: unknown, headers?: Headers): ApiError {
  const b = isObject(body) ? body : {};
  const inner = isObject(b.error) ? b.error : b;
  const details = isObject(inner.details) ? inner.details : {};
  const issues = (Array.isArray(details.issues) ? details.issues : []).filter(isObject).map((i) => ({
    path: String(i.path ?? ""),
    code: String(i.code ?? ""),
    message: String(i.message ?? ""),
  }));
  const meta = isObject(b.meta) ? b.meta : {};
  const requestId = text(meta.requestId) ?? text(b.request_id) ?? text(b.requestId) ?? headers?.get("x-request-id") ?? undefined;
  const message = text(inner.message) ?? text(b.error) ?? `The server answered ${status}.`;
  const after = Number(headers?.get("retry-after") ?? details.retryAfter ?? Number.NaN);
  return new ApiError(
    status,
    text(inner.code) ?? "UNKNOWN",
    issues.length === 1 && issues[0]?.message ? `${message}: ${issues[0].path} ${issues[0].message}` : message,
    requestId,
    text(inner.field) ?? issues[0]?.path,
    issues,
    Number.isFinite(after) ? after : undefined,
  );
}

/** The envelope's content; any other answer as it is. */
export function dataOf(body: unknown): unknown {
  return isObject(body) && body.success === true && "meta" in body ? body.data : body;
}

async function request<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const { query, body, headers, signal } = options;
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response: Response;
  try {
    response = await fetch(address(path, query), {
      method,
      credentials: "same-origin",
      headers: { Accept: "application/json", ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
  } catch (e) {
    if (signal?.aborted) throw e;
    throw timeout.aborted
      ? new ApiError(0, "TIMEOUT", "The server did not answer in time.")
      : new ApiError(0, "OFFLINE", "The server cannot be reached.");
  }
  const requestId = response.headers.get("x-request-id") ?? undefined;
  const raw = await response.text().catch(() => "");
  let parsed: unknown;
  try {
    parsed = raw ? JSON.parse(raw) : undefined;
  } catch {
    throw new ApiError(response.ok ? 0 : response.status, "BAD_ANSWER", `The server answered ${response.status} with something that is no JSON.`, requestId);
  }
  if (!response.ok) {
    if (response.status === 401 && !path.startsWith("/api/auth/")) unauthorized();
    throw errorOf(response.status, parsed, response.headers);
  }
  return dataOf(parsed) as T;
}

export const api = {
  get: <T>(path: string, query?: Params, signal?: AbortSignal) => request<T>("GET", path, { query, signal }),
  post: <T>(path: string, body?: unknown, more?: Options) => request<T>("POST", path, { ...more, body }),
  patch: <T>(path: string, body: unknown) => request<T>("PATCH", path, { body }),
  put: <T>(path: string, body: unknown) => request<T>("PUT", path, { body }),
  delete: <T>(path: string, query?: Params) => request<T>("DELETE", path, { query }),
};

/** A failed read is tried again when waiting may help; a refusal is not. */
export function mayRetry(failures: number, error: unknown): boolean {
  if (failures >= 3) return false;
  return !(error instanceof ApiError) || error.status === 0 || error.status === 408 || error.status >= 500;
}
