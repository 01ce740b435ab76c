import { beforeEach, expect, it, vi } from "vitest";
import { forgetDrafts, readDraft, writeDraft } from "./drafts";

beforeEach(() => localStorage.clear());

it("keeps what was typed by address and field", () => {
  writeDraft("/", "prompt", "half a");
  writeDraft("/gates/1", "reason", "because");
  expect(readDraft("/", "prompt")).toBe("half a");
  expect(readDraft("/gates/1", "reason")).toBe("because");
  expect(readDraft("/gates/2", "reason")).toBe("");
});

it("leaves nothing behind of what was sent", () => {
  writeDraft("/", "prompt", "x");
  writeDraft("/", "prompt", "");
  expect(localStorage.length).toBe(0);
});

it("keeps fifty, the oldest go", () => {
  for (let i = 0; i < 60; i++) writeDraft(`/s/${i}`, "p", "t", i + 1);
  expect(localStorage.length).toBe(50);
  expect(readDraft("/s/0", "p")).toBe("");
  expect(readDraft("/s/59", "p")).toBe("t");
});

it("goes on without room and with what somebody else wrote there", () => {
  const full = vi.spyOn(Storage.prototype, "setItem").mockImplementation(() => {
    throw new DOMException("full", "QuotaExceededError");
  });
  expect(() => writeDraft("/", "prompt", "x")).not.toThrow();
  full.mockRestore();
  localStorage.setItem("muster.draft:/#prompt", "not json");
  expect(readDraft("/", "prompt")).toBe("");
});

it("forgets drafts only", () => {
  writeDraft("/", "prompt", "x");
  localStorage.setItem("muster.prefs", "{}");
  forgetDrafts();
  expect(Object.keys(localStorage)).toEqual(["muster.prefs"]);
});
