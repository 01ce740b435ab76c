// What people do in one session, in a real browser against a running server whose worker has OpenCode and the shell. OpenCode
// speaks to tests/tools/model_server.py (ENVIRONMENT: one that says so), whose [[markers]] choose what happens.
//   BASE=http://127.0.0.1:4173 MUSTER_TOKEN=… REPO=… ENVIRONMENT=env_… node script/walk-session.mjs
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const base = process.env.BASE ?? "http://127.0.0.1:4173";
const { MUSTER_TOKEN: token, REPO: repo, ENVIRONMENT: environmentId } = process.env;
if (!token || !repo || !environmentId) throw new Error("MUSTER_TOKEN, REPO and ENVIRONMENT are not set");
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const problems = [];
let expected = /$^/;
const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
const page = await context.newPage();
page.on("console", (m) => m.type() === "error" && !expected.test(m.text()) && problems.push(`${page.url()}: ${m.text()}`));
page.on("pageerror", (e) => problems.push(`${page.url()}: ${e.stack}`));
page.on("request", (r) => new URL(r.url()).origin !== base && !/^(data|blob):/.test(r.url()) && problems.push(r.url()));
await page.addInitScript(() => {
  window.written = [];
  if (navigator.clipboard) navigator.clipboard.writeText = async (text) => void window.written.push(text);
});

const api = (method, path, body) =>
  page.evaluate(
    async ([method, path, body]) => {
      const answer = await fetch(`/api/v1${path}`, { method, headers: { "Content-Type": "application/json" }, body: body && JSON.stringify(body) });
      const json = await answer.json();
      if (!answer.ok) throw new Error(JSON.stringify(json));
      return json.data;
    },
    [method, path, body],
  );
async function step(name, fn) {
  const began = Date.now();
  await fn();
  console.log(`ok  ${name} (${Date.now() - began} ms)`);
}
async function until(what, fn, ms = 60_000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await fn();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await page.waitForTimeout(200);
  }
}
const use = (tool, args) => `[[tool:${tool}:${Buffer.from(JSON.stringify(args)).toString("base64")}]]`;
const talk = page.getByRole("region", { name: "Conversation" });
const box = page.getByLabel("Prompt", { exact: true });
const send = async (text, key = "Control+Enter") => {
  await box.fill(text);
  await box.press(key);
};
// Of the list only what is seen exists: the server knows.
const atRest = async () => (await api("GET", `/sessions/${id}/prompts`)).items.every((p) => p.endedAt);
const queue = page.getByRole("list", { name: "Prompts that wait" });

await page.goto(`${base}/`);
await page.getByLabel("Token").fill(token);
await page.keyboard.press("Enter");
await page.getByRole("button", { name: "New session" }).first().waitFor();
const { orgId } = await api("GET", "/orgs/me");
const create = async (body) => (await api("POST", "/sessions", { orgId, repo: { url: repo }, ...body })).sessionId;
const id = await create({ providerId: "opencode", options: { mode: "interactive", environmentId, policy: { requiresApprovalFor: ["shell"] } } });

await step("a session is opened while it starts, and is running without a reload", async () => {
  await page.goto(`${base}/sessions/${id}`);
  await page.getByText("Running", { exact: true }).waitFor({ timeout: 60_000 });
  await talk.getByText("Session: running").waitFor();
});
await step("a half-typed prompt outlives a reload", async () => {
  await box.fill("half of a pro");
  await page.reload();
  await box.waitFor();
  assert.equal(await box.inputValue(), "half of a pro");
});
await step("a prompt is sent with the keys, and its words come", async () => {
  await send("[[echo:Hello **there**, <img src=x onerror=alert(1)> friend.]]");
  await talk.getByText("there", { exact: true }).waitFor({ timeout: 60_000 });
  assert.equal(await talk.locator("strong", { hasText: "there" }).count(), 1);
  assert.equal(await talk.locator("img").count(), 0);
  await talk.getByText(/^Done after/).waitFor();
  assert.equal(await box.inputValue(), "");
});
await step("a gate stands in its place and is allowed there, by its key", async () => {
  await send("Please edit the file. [[cmd:echo one >> one.txt]]");
  const card = talk.getByRole("article", { name: "Run this command?" });
  await card.getByLabel("command", { exact: true }).getByText("echo one >> one.txt", { exact: true }).waitFor({ timeout: 60_000 });
  await page.getByText("Waits for you", { exact: true }).waitFor();
  await page.keyboard.press("Escape");
  await page.waitForTimeout(500);
  await page.keyboard.press("a");
  await card.waitFor({ state: "detached", timeout: 15_000 });
  await until("the end of the turn", atRest);
});
await step("the page is called as what was asked first", async () => {
  assert.match(await page.title(), /^\[\[echo:Hello/);
});
await step("the call is folded, with its command, its result and its files", async () => {
  const call = talk.getByRole("button", { name: /^bash echo one/ });
  await call.click();
  await talk.getByLabel("Command", { exact: true }).getByText("echo one >> one.txt").waitFor();
  assert.equal(await call.getAttribute("aria-expanded"), "true");
});
await step("another is denied with a reason", async () => {
  await send("Please edit it again. [[cmd:echo two >> two.txt]]");
  const card = talk.getByRole("article", { name: "Run this command?" });
  await card.getByRole("button", { name: "Deny…" }).click({ timeout: 60_000 });
  await card.getByLabel("Why not?").fill("not before the tests are green");
  await page.waitForTimeout(500);
  await card.getByRole("button", { name: "Deny with this reason" }).click();
  await card.waitFor({ state: "detached", timeout: 15_000 });
  await talk.getByRole("button", { name: /^Denied/ }).click();
  await talk.getByText("not before the tests are green").first().waitFor();
  await page.waitForTimeout(1500); // some agents end their turn, some go on
  if (!(await atRest())) await page.getByRole("button", { name: "Interrupt", exact: true }).click();
  await until("the end of the turn", atRest);
});
await step("a question is answered where it is asked", async () => {
  await send(`Ask me. ${use("question", { questions: [{ question: "Which one?", header: "One", options: [{ label: "Left", description: "l" }, { label: "Right", description: "r" }] }] })}`);
  const card = talk.getByRole("article", { name: "A question" });
  await card.waitFor({ timeout: 60_000 });
  await page.goto(`${base}/sessions/${id}?tab=usage`);
  await page.getByRole("button", { name: "Decide" }).click();
  await page.waitForURL(/#event-\d+$/);
  await card.getByRole("button", { name: "Right" }).click({ timeout: 60_000 });
  await page.waitForTimeout(500);
  await card.getByRole("button", { name: "Answer" }).click();
  await talk.getByRole("button", { name: /^Answered/ }).waitFor({ timeout: 15_000 });
  await until("the end of the turn", atRest);
});
await step("a plan is shown as a list", async () => {
  await send(`Plan. ${use("todowrite", { todos: [{ content: "Read the code", status: "completed", priority: "high" }, { content: "Fix it", status: "pending", priority: "low" }] })}`);
  const plan = talk.getByRole("region", { name: "Plan" });
  await plan.getByText("1 of 2").waitFor({ timeout: 60_000 });
  await plan.getByText("Fix it").waitFor();
  await until("the end of the turn", atRest);
});
await step("prompts queue, are changed and withdrawn", async () => {
  await send("Think about it. [[stall]]");
  await page.getByRole("button", { name: "Interrupt", exact: true }).waitFor({ timeout: 30_000 });
  await send("the second [[echo:second-answer]]");
  await send("the third [[echo:third-answer]]");
  await queue.getByText("the third").waitFor();
  await page.getByRole("button", { name: "Withdraw prompt 2" }).click();
  await queue.getByText("the third").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Change prompt 1" }).click();
  await page.getByLabel("Prompt 1", { exact: true }).fill("the second, changed [[echo:changed-answer]]");
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await queue.getByText("changed").waitFor();
});
await step("an interrupted turn makes way for the next", async () => {
  await page.getByRole("button", { name: "Interrupt", exact: true }).click();
  await talk.getByText("changed-answer", { exact: true }).waitFor({ timeout: 60_000 });
  await talk.getByText(/^Interrupted/).last().waitFor();
});
await step("interrupt and send ends what runs and goes first", async () => {
  await send("Think again. [[stall]]");
  await page.getByRole("button", { name: "Interrupt", exact: true }).waitFor({ timeout: 30_000 });
  await send("now this [[echo:urgent-answer]]", "Control+Shift+Enter");
  await talk.getByText("urgent-answer", { exact: true }).waitFor({ timeout: 60_000 });
});
await step("words come while they are said", async () => {
  await send(`Slowly. [[slow:60:6]] [[echo:Said slowly:]]`);
  const seen = new Set();
  const now = () => talk.evaluate((el) => /Said slowly: word[^\]]*$/.exec(el.innerText)?.[0].length ?? 0);
  await until("growing words", async () => {
    seen.add(await now());
    return seen.size > 8;
  }, 20_000);
  await talk.getByText(/word59$/).waitFor({ timeout: 20_000 });
  await talk.evaluate((el) => el.scrollHeight - el.scrollTop - el.clientHeight).then((left) => assert.ok(left < 120, `not at the end: ${left}`));
});
await step("a lost connection loses nothing", async () => {
  await context.setOffline(true);
  expected = /ERR_INTERNET_DISCONNECTED|WebSocket/;
  await page.waitForTimeout(800);
  await page.request.post(`${base}/api/v1/sessions/${id}/prompts`, { headers: { Authorization: `Bearer ${token}` }, data: { prompt: "[[echo:said-while-away]]" } });
  await page.waitForTimeout(3000);
  await context.setOffline(false);
  await talk.getByText("said-while-away", { exact: true }).waitFor({ timeout: 60_000 });
  expected = /$^/;
});
await step("a shell is opened, typed into, and closed", async () => {
  await page.getByRole("tab", { name: "Terminal" }).click();
  await page.getByRole("button", { name: "Open a shell in the workspace" }).click();
  await page.waitForURL(/t=1/);
  await page.waitForTimeout(1500);
  await page.getByLabel("Terminal, Shell 1: type here; F6 leads out").focus();
  await page.keyboard.type("echo héllo-$((40+2)); printf '\\033]52;c;c3RvbGVu\\007\\033]0;stolen\\007'\n");
  await until("its output", async () => {
    const answer = await page.request.get(`${base}/api/v1/sessions/${id}/terminal?terminal=1`, { headers: { Authorization: `Bearer ${token}` } });
    return (await answer.text()).includes("héllo-42");
  });
  await page.waitForTimeout(500);
  assert.ok(!(await page.title()).includes("stolen"));
  assert.deepEqual(await page.evaluate(() => window.written), []);
  await page.keyboard.press("F6");
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("role")), "tab");
  await page.getByRole("button", { name: "Close Shell 1" }).click();
  await page.waitForURL((u) => !u.searchParams.has("t"));
});
await step("the address of an event leads to it, and back", async () => {
  await page.goto(`${base}/sessions/${id}?tab=events#event-3`);
  await page.getByRole("dialog", { name: "Event 3" }).getByText("SESSION_STATE_CHANGED").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.getByLabel("Type").selectOption("TURN_ENDED");
  await page.waitForURL(/types=TURN_ENDED/);
  await page.goBack();
  assert.ok(!page.url().includes("types="));
});
await step("changes are shown while it runs", async () => {
  await send(`Write. ${use("write", { filePath: "b.txt", content: "hello\nworld\n" })}`);
  await talk.getByRole("article").getByRole("button", { name: "Allow once" }).waitFor({ timeout: 60_000 });
  await page.waitForTimeout(500);
  await talk.getByRole("article").getByRole("button", { name: "Allow once" }).click();
  await talk.getByRole("link", { name: /b\.txt/ }).last().click({ timeout: 60_000 });
  await page.waitForURL(/tab=changes/);
  await page.locator(".cm-content").getByText("world").first().waitFor();
});
await step("a session is paused and resumed", async () => {
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByText("Paused", { exact: true }).waitFor({ timeout: 20_000 });
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByText("Running", { exact: true }).waitFor({ timeout: 20_000 });
});
await step("a fork begins at a checkpoint", async () => {
  await page.getByRole("button", { name: "More about this session" }).click();
  await page.getByRole("menuitem", { name: "Checkpoints" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Fork…" }).first().click();
  await page.getByLabel("What is to be done there?").fill("[[echo:in-the-fork]]");
  await page.getByRole("button", { name: "Fork", exact: true }).click();
  await page.waitForURL((u) => /\/sessions\/ses_/.test(u.pathname) && !u.pathname.endsWith(id));
  await talk.getByText("in-the-fork", { exact: true }).waitFor({ timeout: 90_000 });
  await page.getByRole("button", { name: "More about this session" }).click();
  await page.getByRole("menuitem", { name: "End when" }).click();
  await page.getByText("Completed", { exact: true }).first().waitFor({ timeout: 60_000 });
  await page.getByText("The session has ended.").waitFor();
});
await step("a session is stopped, and what it left can be read", async () => {
  await page.goto(`${base}/sessions/${id}?tab=files`);
  await page.getByRole("button", { name: "Stop…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Stop", exact: true }).click();
  await page.getByText("Stopped by a person").first().waitFor({ timeout: 60_000 });
  await page.getByRole("button", { name: "Look at changes.patch" }).click({ timeout: 30_000 });
  await page.getByRole("dialog").getByText("+world").waitFor();
  await page.keyboard.press("Escape");
  for (const tab of ["Usage", "Timeline", "Raw log"]) {
    await page.getByRole("tab", { name: tab }).click();
    await page.waitForTimeout(500);
  }
  await page.getByRole("region", { name: "Raw log" }).getByText("urgent-answer").first().waitFor();
  expected = /404/;
  await page.goto(`${base}/sessions/ses_00000000-0000-7000-8000-000000000000`);
  await page.getByText("This does not exist").waitFor();
  expected = /$^/;
});
await step("a viewer watches, and can do nothing", async () => {
  const keyOf = async (role) => {
    const answer = await page.request.post(`${base}/api/v1/keys`, { headers: { Authorization: `Bearer ${token}` }, data: { name: `walk ${role} ${Date.now()}`, tenant: "walkers", role } });
    return (await answer.json()).key;
  };
  const operator = { Authorization: `Bearer ${await keyOf("operator")}` };
  const { data: org } = await (await page.request.get(`${base}/api/v1/orgs/me`, { headers: operator })).json();
  const made = await (await page.request.post(`${base}/api/v1/sessions`, { headers: operator, data: { orgId: org.orgId, providerId: "shell", repo: { url: repo }, task: "echo to be watched; sleep 120" } })).json();
  const other = await (await browser.newContext({ viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true })).newPage();
  other.on("pageerror", (e) => problems.push(e.stack));
  await other.goto(`${base}/sessions/${made.data.sessionId}`);
  await other.getByLabel("Token").fill(await keyOf("viewer"));
  await other.keyboard.press("Enter");
  await other.getByText("You may watch this session").waitFor();
  await other.getByText("Running", { exact: true }).waitFor({ timeout: 60_000 });
  await other.getByRole("tab", { name: "Terminal" }).click();
  await other.getByText("You watch: typing needs the role of an operator.").waitFor();
  assert.equal(await other.getByRole("button", { name: /Stop|Pause|Take control|Open a shell/ }).count(), 0);
  await other.context().close();
  await page.request.post(`${base}/api/v1/sessions/${made.data.sessionId}/stop`, { headers: operator, data: { graceful: false } });
});
await browser.close();
for (const p of new Set(problems)) console.error(p);
console.log(`${problems.length} problems`);
process.exit(problems.length ? 1 : 0);
