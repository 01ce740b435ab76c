import { expect, test } from "vitest";
import { agentText } from "./agent";

test("browsers and systems are named as people name them", () => {
  const chrome = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
  expect(agentText(`Mozilla/5.0 (X11; Linux x86_64) ${chrome}`)).toBe("Chrome on Linux");
  expect(agentText(`Mozilla/5.0 (Linux; Android 14) ${chrome}`)).toBe("Chrome on Android");
  expect(agentText(`Mozilla/5.0 (Windows NT 10.0; Win64; x64) ${chrome} Edg/140.0.0.0`)).toBe("Edge on Windows");
  expect(agentText("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15")).toBe("Safari on macOS");
  expect(agentText("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/140.0 Mobile/15E148 Safari/604.1")).toBe("Chrome on iPhone");
  expect(agentText("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")).toBe("Firefox on Linux");
});
test("anything else says what it says", () => {
  expect(agentText("curl/8.5.0")).toBe("curl/8.5.0");
  expect(agentText("x".repeat(300))).toHaveLength(60);
  expect(agentText("")).toBe("Something that does not say what it is");
});
