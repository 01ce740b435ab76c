import { afterEach, expect, it, vi } from "vitest";
import { repoName } from "./catalog";
import { ApiError, address, api, dataOf, errorOf, mayRetry, onUnauthorized } from "./client";
import { matches } from "./sessions";
import type { Session } from "./types";

const answer = (status: number, body: unknown, headers: Record<string, string> = {}) =>
  vi.stubGlobal("fetch", vi.fn(async () => new Response(typeof body === "string" ? body : JSON.stringify(body), { status, headers })));
afterEach(() => vi.unstubAllGlobals());

it("takes the envelope off and leaves other answers as they are", () => {
  expect(dataOf({ success: true, data: { a: 1 }, meta: {} })).toEqual({ a: 1 });
  expect(dataOf({ success: true, meta: {} })).toBeUndefined();
  expect(dataOf({ success: true })).toEqual({ success: true });
  expect(dataOf({ environments: [], request_id: "r" })).toEqual({ environments: [], request_id: "r" });
});

it.each([
  ["envelope", { success: false, error: { code: "VALIDATION_ERROR", message: "invalid", details: { issues: [{ path: "repo.url", code: "invalid_url", message: "is no address" }] } }, meta: { requestId: "req_1" } },
    { code: "VALIDATION_ERROR", field: "repo.url", requestId: "req_1", message: "invalid: repo.url is no address" }],
  ["Oz", { error: "Not found", message: "No such run", code: "not_found", field: "id", request_id: "req_2" }, { code: "not_found", field: "id", requestId: "req_2", message: "No such run" }],
  ["Agent Ops", { error: "No", code: "FORBIDDEN", field: "x", requestId: "req_3" }, { code: "FORBIDDEN", field: "x", requestId: "req_3", message: "No" }],
])("reads the errors of %s", (_, body, wanted) => {
  expect(errorOf(400, body)).toMatchObject({ status: 400, ...wanted });
});

it("makes an error of what is none of ours", async () => {
  answer(502, "<html>", { "x-request-id": "req_9" });
  await expect(api.get("/x")).rejects.toMatchObject({ status: 502, code: "BAD_ANSWER", requestId: "req_9" });
  vi.stubGlobal("fetch", vi.fn(async () => Promise.reject(new TypeError("failed"))));
  await expect(api.get("/x")).rejects.toMatchObject({ status: 0, code: "OFFLINE", offline: true });
});

it("says when to try again", () => {
  expect(errorOf(429, { error: { code: "RATE_LIMITED", message: "slow" } }, new Headers({ "retry-after": "7" })).retryAfter).toBe(7);
  expect(errorOf(429, { error: "Too many", code: "RATE_LIMIT_EXCEEDED", details: { retryAfter: 62 } }).retryAfter).toBe(62);
});

it("tells of a lost sign-in, but not of a refused one", async () => {
  const told = vi.fn();
  onUnauthorized(told);
  answer(401, { error: { code: "UNAUTHORIZED", message: "who" } });
  await expect(api.post("/api/auth/login", {})).rejects.toBeInstanceOf(ApiError);
  expect(told).not.toHaveBeenCalled();
  await expect(api.get("/api/v1/sessions")).rejects.toBeInstanceOf(ApiError);
  expect(told).toHaveBeenCalledTimes(1);
});

it("sends JSON with a body only, to this origin", async () => {
  answer(200, {});
  await api.post("/a", { b: 1 }, { headers: { "Idempotency-Key": "k" } });
  await api.get("/a");
  const calls = vi.mocked(fetch).mock.calls as [string, RequestInit][];
  expect(calls[0]![1]).toMatchObject({ method: "POST", credentials: "same-origin", body: '{"b":1}', headers: { "Content-Type": "application/json", "Idempotency-Key": "k" } });
  expect(calls[1]![1].headers).not.toHaveProperty("Content-Type");
});

it("writes queries without what is not asked for", () => {
  expect(address("/s", { state: ["a", "b"], q: undefined, page: 1, none: "" })).toBe("/s?state=a&state=b&page=1");
  expect(address("/s", { q: undefined })).toBe("/s");
});

it("tries a read again when waiting may help", () => {
  expect(mayRetry(0, new ApiError(0, "OFFLINE", ""))).toBe(true);
  expect(mayRetry(0, new ApiError(503, "X", ""))).toBe(true);
  expect(mayRetry(3, new ApiError(503, "X", ""))).toBe(false);
  expect(mayRetry(0, new ApiError(404, "X", ""))).toBe(false);
});

it("knows which lists a session is in", () => {
  const s = { state: "FAILED", providerId: "codex" } as Session;
  expect(matches({}, s)).toBe(true);
  expect(matches({ state: ["terminal"] }, s)).toBe(true);
  expect(matches({ state: ["active"] }, s)).toBe(false);
  expect(matches({ state: ["FAILED"], providerId: "codex" }, s)).toBe(true);
  expect(matches({ providerId: "shell" }, s)).toBe(false);
  expect(matches({ q: "word" }, s)).toBe("unknown");
});

it.each([
  ["https://github.com/acme/web.git", "acme/web"],
  ["git@github.com:acme/web.git", "acme/web"],
  ["ssh://git@example.org:2222/acme/web", "acme/web"],
  ["http://localhost:8198/r.git", "r"],
  ["https://example.org/group/sub/project/", "sub/project"],
])("names the repository %s", (url, name) => expect(repoName(url)).toBe(name));
