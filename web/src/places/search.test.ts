import { expect, test } from "vitest";
import { environmentSearch } from "./environments/search";
import { keySearch } from "./keys/search";
import { providerSearch } from "./providers/search";
import { scheduleSearch } from "./schedules/search";

test("an address opens one thing at a time", () => {
  expect(environmentSearch({ edit: "new", test: "env_1", run: "run_1" })).toEqual({ edit: "new" });
  expect(scheduleSearch({ edit: "1", show: "1" })).toEqual({ edit: "1" });
  expect(scheduleSearch({ q: "night", show: "1" })).toEqual({ q: "night", show: "1" });
});
test("a run is watched only beside what it belongs to", () => {
  expect(environmentSearch({ test: "env_1", run: "run_1" })).toEqual({ test: "env_1", run: "run_1" });
  expect(environmentSearch({ run: "run_1" })).toEqual({});
  expect(scheduleSearch({ show: "1", run: "run_1" })).toEqual({ show: "1", run: "run_1" });
  expect(providerSearch({ run: "run_1" })).toEqual({});
});
test("what is no text is nothing", () => {
  expect(environmentSearch({ edit: 5, test: ["a"] })).toEqual({});
  expect(providerSearch({ ask: {}, run: "x" })).toEqual({});
  expect(keySearch({ new: "admin", all: "no" })).toEqual({});
  expect(keySearch({ new: "enrolment", all: true })).toEqual({ new: "enrolment", all: true });
});
