// Part of walk.mjs: what people do with Environments, Schedules, Providers, Keys and Settings.
import assert from "node:assert/strict";

export async function walkPlaces({ page, base, token, step, visit, expect }) {
  const stamp = String(Date.now());
  const dialog = page.getByRole("dialog");
  const printed = (text) => dialog.getByLabel("Output").filter({ hasText: text });
  const kept = (where = page) => where.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]));
  /** A refusal that is meant: the browser writes its status to the console. */
  const refused = async (fn) => {
    expect(/status of 4\d\d/);
    await fn();
    expect(/$^/);
  };

  const env = `walk ${stamp}`;
  const card = (name) => page.getByRole("list", { name: "Environments" }).getByRole("listitem").filter({ has: page.getByRole("heading", { name, exact: true }) });
  await step("Environments: a wrong field is told at the field", async () => {
    await page.goto(`${base}/environments?edit=new`);
    await page.getByLabel("Name", { exact: true }).fill(env);
    await page.getByLabel("Image").fill("debian:12");
    await page.getByLabel("Set-up commands, one a line").fill("echo set > /tmp/walk-setup\n\n echo up >> /tmp/walk-setup");
    await page.getByRole("button", { name: "Add a variable" }).click();
    await page.getByLabel("Name of variable 1").fill("WALK_WORD");
    await page.getByLabel("Value of variable 1").fill(`secret-${stamp}`);
    await page.getByText("What its sandbox may do").click();
    await page.getByLabel("Hosts it may reach, one a line").fill("a.example.org:443\nno port");
    await refused(async () => {
      await page.getByRole("button", { name: "Make it" }).click();
      await page.getByText(/^Line 2 must be host:port/).waitFor();
    });
    assert.equal(await page.getByLabel("Hosts it may reach, one a line").evaluate((e) => e === document.activeElement), true);
  });
  await step("Environments: what is half typed outlives a reload, values of variables do not", async () => {
    assert.ok(!(await kept()).includes(`secret-${stamp}`));
    await page.reload();
    assert.equal(await page.getByLabel("Name", { exact: true }).inputValue(), env);
    assert.equal(await page.getByLabel("Value of variable 1").inputValue(), "");
    await page.getByLabel("Hosts it may reach, one a line").fill("a.example.org:443");
    await page.getByRole("button", { name: "Make it" }).click();
    await page.getByText("Type the value of WALK_WORD again").waitFor();
    await page.getByLabel("Value of variable 1").fill(`secret-${stamp}`);
    await page.getByRole("button", { name: "Make it" }).click();
  });
  await step("Environments: a new one is tried at once and watched in place", async () => {
    await dialog.getByLabel("Script").waitFor();
    await dialog.getByLabel("Script").fill('echo "begin"; sleep 2; cat /tmp/walk-setup; echo "${#WALK_WORD} letters"; sleep 1; echo "the end"');
    await page.getByRole("button", { name: "Run the test" }).click();
    await printed("begin").waitFor({ timeout: 60_000 });
    assert.equal(await dialog.getByText("Running").count(), 1);
    await dialog.getByText("Succeeded").waitFor({ timeout: 60_000 });
    const said = await dialog.getByLabel("Output").innerText();
    assert.match(said, new RegExp(`begin[^]*set\\s+up\\s+${`secret-${stamp}`.length} letters\\s+the end`));
    await dialog.getByText("exit code 0").waitFor();
    await page.reload();
    await printed("the end").waitFor();
  });
  await step("Environments: a test can be cancelled, and one that fails says so", async () => {
    await dialog.getByRole("button", { name: "Run again" }).click();
    await dialog.getByLabel("Script").fill("echo one; sleep 300");
    await page.getByRole("button", { name: "Run the test" }).click();
    await printed("one").waitFor({ timeout: 60_000 });
    await dialog.getByRole("button", { name: "Cancel" }).click();
    await dialog.getByText("Cancelled", { exact: true }).waitFor({ timeout: 30_000 });
    await dialog.getByRole("button", { name: "Run again" }).click();
    await dialog.getByLabel("Script").fill("echo no; exit 3");
    await page.getByRole("button", { name: "Run the test" }).click();
    await dialog.getByText("Worker exit code 3").waitFor({ timeout: 60_000 });
    await page.keyboard.press("Escape");
  });
  await step("Environments: a test that no worker can do waits, and says for what", async () => {
    const { id } = await page.evaluate(async (name) => {
      const body = { name, docker_image: "debian:12", sandbox: { nested: true } };
      return (await fetch("/api/v1/environments", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();
    }, `${env} nested`);
    await page.goto(`${base}/environments?test=${id}`);
    await page.getByRole("button", { name: "Run the test" }).click();
    await dialog.getByText("Waits for a worker").waitFor();
    await dialog.getByText(/nested/).nth(1).waitFor({ timeout: 20_000 });
    await dialog.getByRole("button", { name: "Cancel" }).click();
    await dialog.getByText("Cancelled", { exact: true }).waitFor();
    await page.evaluate((id) => fetch(`/api/v1/environments/${id}`, { method: "DELETE" }), id);
    await page.goto(`${base}/environments`);
  });
  await step("Environments: editing keeps what is stored", async () => {
    await card(env).getByRole("button", { name: `Edit ${env}` }).click();
    await page.getByLabel("Image").fill("debian:12-slim");
    assert.equal(await page.getByLabel("Value of variable 1").inputValue(), "");
    await page.getByRole("button", { name: "Save" }).click();
    await card(env).getByText("debian:12-slim").waitFor();
    const now = await page.evaluate(async (name) => {
      const { environments } = await (await fetch("/api/v1/environments")).json();
      const { id } = environments.find((e) => e.name === name);
      return (await fetch(`/api/v1/environments/${id}`)).json();
    }, env);
    assert.equal(now.env_vars.WALK_WORD, `secret-${stamp}`);
    assert.deepEqual(now.setup_commands, ["echo set > /tmp/walk-setup", "echo up >> /tmp/walk-setup"]);
    assert.deepEqual(now.sandbox.network, { mode: "proxy", allow: ["a.example.org:443"] });
  });
  await step("Environments: deleting asks first", async () => {
    await card(env).getByRole("button", { name: `Delete ${env}` }).click();
    await dialog.getByRole("button", { name: "Back" }).click();
    assert.equal(await card(env).count(), 1);
    await card(env).getByRole("button", { name: `Delete ${env}` }).click();
    await dialog.getByRole("button", { name: "Delete", exact: true }).click();
    await card(env).waitFor({ state: "detached" });
  });

  await step("Environments: many are narrowed by words in the address", async () => {
    const ids = await page.evaluate(async (stamp) => {
      const ids = [];
      for (let i = 0; i < 14; i++) {
        const answer = await fetch("/api/v1/environments", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ name: `many ${stamp} number-${i}`, docker_image: "debian:12" }) });
        ids.push((await answer.json()).id);
      }
      return ids;
    }, stamp);
    await page.goto(`${base}/environments`);
    await page.getByLabel("Find an environment").fill(`NUMBER-7 ${stamp}`);
    await page.waitForURL(/q=NUMBER-7/);
    assert.equal(await page.getByRole("list", { name: "Environments" }).getByRole("listitem").count(), 1);
    await page.reload();
    await page.getByRole("button", { name: `Test many ${stamp} number-7` }).click();
    await page.keyboard.press("Escape");
    assert.match(page.url(), /q=NUMBER-7/);
    await page.evaluate((ids) => Promise.all(ids.map((id) => fetch(`/api/v1/environments/${id}`, { method: "DELETE" }))), ids);
  });

  const plan = `walk ${stamp}`;
  const entry = page.getByRole("list", { name: "Schedules" }).getByRole("listitem").filter({ has: page.getByRole("heading", { name: plan, exact: true }) });
  const scheduleNow = () =>
    page.evaluate(async (name) => {
      const { schedules } = await (await fetch("/api/v1/agent/schedules")).json();
      return schedules.find((s) => s.name === name);
    }, plan);
  await step("Schedules: the server reads the times, what it refuses is told at the field", async () => {
    await page.evaluate((name) => fetch("/api/v1/environments", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ name, docker_image: "debian:12" }) }), plan);
    await page.goto(`${base}/schedules?edit=new`);
    await page.getByLabel("Name").fill(plan);
    await page.getByLabel("What is to be done").fill("echo planned; sleep 1; echo thing");
    await page.getByLabel("When (cron, UTC)").fill("61 * * * *");
    await page.getByLabel("Environment").selectOption(plan);
    await page.getByLabel("Agent").selectOption("shell");
    await refused(async () => {
      await page.getByRole("button", { name: "Make it" }).click();
      await page.getByText(/^Cron minute "61"/).waitFor();
      await page.getByLabel("When (cron, UTC)").fill("0 0 31 2 *");
      await page.getByRole("button", { name: "Make it" }).click();
      await page.getByText("No day in the calendar matches it").waitFor();
    });
    await page.reload();
    assert.equal(await page.getByLabel("Name").inputValue(), plan);
    await page.getByRole("button", { name: "Every day at 9" }).click();
    await page.getByRole("button", { name: "Make it" }).click();
    await entry.getByText("Next").waitFor();
    assert.equal((await scheduleNow()).cron_schedule, "0 9 * * *");
  });
  await step("Schedules: run now is watched in place", async () => {
    await entry.getByRole("button", { name: /now$/ }).click();
    await printed("planned").waitFor({ timeout: 60_000 });
    await dialog.getByText("Succeeded").waitFor({ timeout: 60_000 });
    await printed("thing").waitFor();
    await dialog.getByRole("button", { name: "The schedule" }).click();
    await dialog.getByText("It has not fired yet.").waitFor();
    await page.keyboard.press("Escape");
  });
  await step("Schedules: pausing, and letting it fire again", async () => {
    await entry.getByRole("button", { name: `Pause ${plan}` }).click();
    await entry.getByText("Paused", { exact: true }).waitFor();
    assert.equal((await scheduleNow()).enabled, false);
    await entry.getByRole("button", { name: `Resume ${plan}` }).click();
    await entry.getByText("Next").waitFor();
    assert.equal((await scheduleNow()).enabled, true);
  });
  await step("Schedules: editing keeps what the form does not show", async () => {
    const { id } = await scheduleNow();
    await page.evaluate(async (id) => {
      const s = await (await fetch(`/api/v1/agent/schedules/${id}`)).json();
      const body = { name: s.name, prompt: s.prompt, cron_schedule: s.cron_schedule, enabled: true, agent_config: { ...s.agent_config, name: "a name for search" } };
      await fetch(`/api/v1/agent/schedules/${id}`, { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    }, id);
    await entry.getByRole("button", { name: `Edit ${plan}` }).click();
    await page.getByRole("button", { name: "Every hour" }).click();
    await page.getByRole("button", { name: "Save" }).click();
    await entry.getByText("0 * * * *").waitFor();
    const now = await scheduleNow();
    assert.deepEqual([now.agent_config.name, now.agent_config.harness], ["a name for search", "shell"]);
  });
  if (process.env.FIRE) {
    await step("Schedules: it fires by itself, and its run is listed", async () => {
      await entry.getByRole("button", { name: `Edit ${plan}` }).click();
      await page.getByLabel("When (cron, UTC)").fill("* * * * *");
      await page.getByRole("button", { name: "Save" }).click();
      await entry.getByText("* * * * *", { exact: true }).waitFor();
      await entry.getByRole("link").click();
      await dialog.getByRole("listitem").getByText("Succeeded").first().waitFor({ timeout: 90_000 });
      await dialog.getByRole("listitem").getByRole("button").first().click();
      await printed("thing").waitFor();
      await page.keyboard.press("Escape");
    });
  }
  await step("Schedules: deleting asks first", async () => {
    await entry.getByRole("button", { name: `Delete ${plan}` }).click();
    await dialog.getByRole("button", { name: "Delete", exact: true }).click();
    await entry.waitFor({ state: "detached" });
  });

  await step("Providers: quota and breaker are shown as the server tells them", async () => {
    await page.goto(`${base}/providers`);
    const list = page.getByRole("list", { name: "Providers" });
    await list.waitFor();
    const told = await page.evaluate(async () => (await (await fetch("/api/v1/providers")).json()).providers);
    assert.equal(await list.getByRole("listitem").count(), told.length);
    for (const p of told.filter((p) => p.limit)) {
      assert.equal(await page.getByRole("meter", { name: `Quota of ${p.key}` }).getAttribute("aria-valuetext"), `${Math.min(p.used, p.limit)} of ${p.limit}`);
    }
  });
  await step("Providers: one is asked, and its answer is watched in place", async () => {
    await page.getByRole("button", { name: "Ask shell" }).click();
    await dialog.getByLabel("Script").fill("echo one; sleep 1; echo two");
    await dialog.getByRole("button", { name: "Ask", exact: true }).click();
    await printed("two").waitFor({ timeout: 30_000 });
    await dialog.getByText("shell answered").waitFor();
    await page.keyboard.press("Escape");
  });

  const person = `walk ${stamp}`;
  let key = "";
  const row = (list, name) => page.getByRole("list", { name: list }).getByRole("listitem").filter({ hasText: name });
  await step("Keys: a key is shown once, copied, and in nothing that the browser keeps", async () => {
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"], { origin: base });
    await page.goto(`${base}/keys`);
    await page.getByRole("button", { name: "New key" }).click();
    await page.getByLabel("Whose, or what for").fill(person);
    await page.getByLabel("Role").selectOption("viewer");
    await page.getByRole("button", { name: "Issue it" }).click();
    key = await dialog.getByLabel("API key").inputValue();
    assert.match(key, /^sk_[0-9a-f]{64}$/);
    await page.keyboard.press("Escape");
    await dialog.getByText("It is not copied yet").waitFor();
    await dialog.getByRole("button", { name: "Copy", exact: true }).click();
    await dialog.getByText("Copied").waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), key);
    await dialog.getByRole("button", { name: "Done" }).click();
    await row("API keys", person).getByText("Viewer").waitFor();
    assert.ok(!(await kept()).includes(key.slice(0, 20)));
    assert.ok(!(await page.content()).includes(key));
  });
  await step("Keys: the same name is refused at the field", async () => {
    await page.getByRole("button", { name: "New key" }).click();
    await page.getByLabel("Whose, or what for").fill(person);
    await refused(async () => {
      await page.getByRole("button", { name: "Issue it" }).click();
      await page.getByText(`A key named ${person} exists already`).waitFor();
    });
    await dialog.getByRole("button", { name: "Back" }).click();
  });
  await step("Keys: a viewer is offered nothing that the server would refuse", async () => {
    const other = await visit();
    await other.goto(`${base}/environments`);
    await other.getByLabel("Token").fill(key);
    await other.keyboard.press("Enter");
    await other.getByRole("heading", { name: "Environments" }).waitFor();
    for (const [place, says] of [["environments", "No environment yet"], ["schedules", "No schedule yet"], ["keys", "Your key does not issue others"]]) {
      await other.goto(`${base}/${place}`);
      await other.getByText(says).or(other.getByRole("main").getByRole("list")).first().waitFor();
      assert.equal(await other.getByRole("main").getByRole("button").count(), 0, place);
    }
    await other.goto(`${base}/providers`);
    await other.getByRole("heading", { name: "Providers" }).waitFor();
    assert.equal(await other.getByRole("button", { name: /^Ask / }).count(), 0);
    await row("API keys", person).getByText(/^used /).waitFor({ timeout: 40_000 });
    await row("API keys", person).getByRole("button", { name: `Revoke ${person}` }).click();
    await dialog.getByRole("button", { name: "Revoke", exact: true }).click();
    await row("API keys", person).waitFor({ state: "detached" });
    expect(/status of 401/);
    await other.goto(`${base}/providers`);
    await other.getByLabel("Token").waitFor({ timeout: 15_000 });
    expect(/$^/);
    await other.context().close();
    await page.getByLabel("Also what cannot be used any more").check();
    await row("API keys", person).getByText("Revoked").waitFor();
    await page.getByLabel("Also what cannot be used any more").uncheck();
  });
  await step("Keys: an operator makes environments, and is not offered what is the administrator's", async () => {
    const { id, key } = await page.evaluate(async (name) => {
      const post = async (path, body) => (await fetch(`/api/v1/${path}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();
      const { key } = await post("keys", { name: `operator ${name}` });
      const { id } = await post("environments", { name: `all ${name}`, docker_image: "debian:12", global: true });
      return { id, key };
    }, person);
    const other = await visit();
    await other.goto(`${base}/environments`);
    await other.getByLabel("Token").fill(key);
    await other.keyboard.press("Enter");
    await other.getByRole("heading", { name: `all ${person}` }).waitFor();
    assert.equal(await other.getByRole("button", { name: `Test all ${person}` }).count(), 1);
    assert.equal(await other.getByRole("button", { name: /^(Edit|Delete)/ }).count(), 0);
    await other.getByRole("button", { name: "New environment" }).click();
    await other.getByText("What its sandbox may do").click();
    assert.deepEqual(await other.getByLabel("Network").locator("option").evaluateAll((o) => o.map((e) => e.value)), ["", "proxy", "none"]);
    assert.equal(await other.getByLabel("For everybody").count(), 0);
    await other.context().close();
    await page.evaluate((id) => fetch(`/api/v1/environments/${id}`, { method: "DELETE" }), id);
  });
  await step("Keys: an enrolment token comes with the command that uses it, and is revoked", async () => {
    await page.getByRole("button", { name: "New token" }).click();
    await page.getByLabel("For which machine (optional)").fill(person);
    await dialog.getByRole("button", { name: "Make it" }).click();
    const token = await dialog.getByLabel("Token", { exact: true }).inputValue();
    assert.match(token, /^en_[0-9a-f]{64}$/);
    assert.match(await dialog.getByLabel("Command").inputValue(), new RegExp(`^muster worker --worker-id walk-${stamp} .*${new URL(base).host}`));
    await dialog.getByRole("button", { name: "Copy", exact: true }).first().click();
    await dialog.getByRole("button", { name: "Done" }).click();
    await row("Enrolment tokens", person).getByRole("button", { name: /^Revoke/ }).click();
    await dialog.getByRole("button", { name: "Revoke", exact: true }).click();
    await row("Enrolment tokens", person).waitFor({ state: "detached" });
  });

  await step("Settings: colours are taken at once and kept", async () => {
    await page.goto(`${base}/keys`);
    await page.getByRole("heading", { name: "Keys", level: 1 }).waitFor();
    await page.keyboard.press("g");
    await page.keyboard.press(",");
    await page.getByRole("heading", { name: "Settings", level: 1 }).waitFor();
    await page.getByLabel("Dark", { exact: true }).check();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
    await page.reload();
    assert.equal(await page.getByLabel("Dark", { exact: true }).isChecked(), true);
    await page.getByLabel("As the system").check();
  });
  await step("Settings: a letter does nothing when keys are off", async () => {
    await page.getByLabel("Keys without Ctrl or ⌘").uncheck();
    await page.getByRole("heading", { name: "Settings" }).click();
    await page.keyboard.press("g");
    await page.keyboard.press("f");
    await page.waitForTimeout(300);
    assert.match(page.url(), /settings$/);
    await page.getByLabel("Keys without Ctrl or ⌘").check();
  });
  const logins = page.getByRole("list", { name: "Logins" }).getByRole("listitem");
  await step("Settings: another browser is signed out, this one stays", async () => {
    const other = await visit({ userAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0" });
    await other.goto(`${base}/fleet`);
    await other.getByLabel("Token").fill(token);
    await other.keyboard.press("Enter");
    await other.getByRole("heading", { name: "Fleet" }).waitFor();
    await page.goto(`${base}/settings`);
    await logins.filter({ hasText: "Firefox on Linux" }).first().getByRole("button").click();
    await page.getByText("Firefox on Linux is signed out.").waitFor();
    expect(/status of 401/);
    await other.goto(`${base}/fleet`);
    await other.getByLabel("Token").waitFor();
    await other.getByLabel("Token").fill(token);
    await other.keyboard.press("Enter");
    await other.getByRole("heading", { name: "Fleet" }).waitFor();
    await page.reload();
    await page.getByRole("button", { name: "Sign out everywhere else" }).click();
    await dialog.getByRole("button", { name: /^Sign out the/ }).click();
    await page.getByText("Only this browser is signed in now.").waitFor();
    assert.equal(await logins.count(), 1);
    await other.goto(`${base}/fleet`);
    await other.getByLabel("Token").waitFor();
    expect(/$^/);
    await other.context().close();
  });
  await step("Settings: the administrator's sign-in link signs another browser in", async () => {
    await page.getByRole("button", { name: "Sign-in link" }).click();
    const link = new URL(await dialog.getByLabel("Link").inputValue());
    await dialog.getByRole("button", { name: "Copy", exact: true }).click();
    await dialog.getByRole("button", { name: "Done" }).click();
    const other = await visit();
    await other.goto(`${base}/settings${link.hash}`);
    await other.getByText("Administrator of this server").waitFor();
    await other.context().close();
  });
}
