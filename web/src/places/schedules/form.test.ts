import { expect, test } from "vitest";
import type { Schedule } from "@/api/schedules";
import { bodyOf, configOf, draftText, emptyForm, formOf, fromDraft, runOf } from "./form";

const schedule: Schedule = {
  id: "1",
  name: "nightly",
  prompt: "look at it\nand say",
  cron_schedule: "0 3 * * *",
  enabled: false,
  agent_config: { environment_id: "env_1", harness: "codex", model_id: "m", base_prompt: "be brief", worker_host: "w1", mcp_servers: { a: { url: "https://example.org" } } },
  created_at: "2026-01-01T00:00:00.000Z",
  updated_at: "2026-01-02T00:00:00.000Z",
};

test("a replacement keeps what the form does not show", () => {
  const { agent_config, ...rest } = bodyOf(formOf(schedule), configOf(schedule));
  expect(rest).toEqual({ name: "nightly", prompt: schedule.prompt, cron_schedule: "0 3 * * *", enabled: false });
  expect(agent_config).toEqual(schedule.agent_config);
});
test("without an environment no agent is asked for, which the server would refuse", () => {
  const body = bodyOf({ ...formOf(schedule), environment: "" }, configOf(schedule));
  expect(body.agent_config).not.toHaveProperty("harness");
  expect(body.agent_config).not.toHaveProperty("environment_id");
  expect(body.agent_config).toMatchObject({ worker_host: "w1" });
});
test("what is emptied is taken away, and nothing at all is no config", () => {
  expect(bodyOf({ ...formOf(schedule), model: " ", system: "" }, configOf(schedule)).agent_config).not.toHaveProperty("model_id");
  expect(bodyOf({ ...emptyForm(), name: " a ", prompt: "p", cron: " * * * * * " })).toEqual({ name: "a", prompt: "p", cron_schedule: "* * * * *", enabled: true });
});
test("a run of now is what its time would run", () => {
  expect(runOf(schedule)).toEqual({ title: "nightly", prompt: schedule.prompt, config: schedule.agent_config });
});
test("drafts come back, and what is none is nothing", () => {
  const f = formOf(schedule);
  expect(fromDraft(draftText(f))).toEqual(f);
  for (const text of ["", "null", "[]", "{}"]) expect(fromDraft(text)).toBeNull();
  expect(fromDraft('{"name":"x","harness":"rm","enabled":1,"cron":5}')).toEqual({ ...emptyForm(), name: "x" });
});
