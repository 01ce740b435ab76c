import { expect, test } from "vitest";
import { lifetimes, stateOf, workerCommand, workerId } from "./words";

test("a key is live until it is revoked or its time is over", () => {
  const now = Date.parse("2026-01-02T00:00:00.000Z");
  expect(stateOf({}, now)).toBe("live");
  expect(stateOf({ expires_at: "2026-01-03T00:00:00.000Z" }, now)).toBe("live");
  expect(stateOf({ expires_at: "2026-01-02T00:00:00.000Z" }, now)).toBe("expired");
  expect(stateOf({ expires_at: "2026-01-01T00:00:00.000Z", revoked_at: "2026-01-01T00:00:00.000Z" }, now)).toBe("revoked");
});
test("a name becomes a word that a shell takes as it is", () => {
  expect(workerId("build 2")).toBe("build-2");
  expect(workerId("$(rm -rf /); 'x'")).toBe("rm--rf-x");
  expect(workerId("--help")).toBe("help");
  expect(workerId(" ü ")).toBe("worker-1");
});
test("the command names this server, by https as wss", () => {
  expect(workerCommand("https://muster.example.org", "b 1")).toBe(
    "muster worker --worker-id b-1 --enrol-token-file enrol.token --web-socket-url wss://muster.example.org/api/v1/selfhosted/worker/ws --server-root-url https://muster.example.org",
  );
  expect(workerCommand("http://127.0.0.1:8080", "")).toContain(" ws://127.0.0.1:8080/api");
});
test("only times that the server takes are offered", () => {
  expect(lifetimes(86_400, 7 * 86_400).map((l) => l.label)).toEqual(["a day", "a week"]);
});
