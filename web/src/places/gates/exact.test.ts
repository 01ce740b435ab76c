import { expect, it } from "vitest";
import type { Approval } from "@/api/types";
import { exactOf, optionsOf, takesSeveral } from "./exact";

const gate = (more: object) => ({ approvalId: "apr_1", ...more }) as unknown as Approval;

it("shows the command first, and the rest as it came", () => {
  expect(exactOf(gate({ context: { cwd: "/w", n: 2, none: null, command: "rm -r x" } }))).toEqual([
    { label: "command", text: "rm -r x" },
    { label: "cwd", text: "/w" },
    { label: "n", text: "2" },
  ]);
});

it("knows whether a question takes several answers", () => {
  const question = gate({ kind: "question", options: ["red", 3, "blue"], context: { multiple: true } });
  expect([takesSeveral(question), optionsOf(question), exactOf(question)]).toEqual([true, ["red", "blue"], []]);
  expect(takesSeveral(gate({ kind: "question", context: {} }))).toBe(false);
  expect(takesSeveral(gate({ kind: "approval", context: { multiple: true } }))).toBe(false);
});
