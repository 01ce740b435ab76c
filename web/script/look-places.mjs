// Part of look.mjs: Environments, Schedules, Providers, Keys, Settings with what is there, and their forms.
export async function lookAtPlaces({ page, base, shot }) {
  const place = async (name, path = name.toLowerCase()) => {
    await page.goto(`${base}/${path}`);
    // Behind a dialog the page is hidden from everybody who asks for roles.
    if (path.includes("?")) await page.getByRole("dialog").waitFor();
    else await page.getByRole("heading", { name, level: 1 }).waitFor();
  };
  await place("Environments");
  await page.getByRole("list", { name: "Environments" }).waitFor();
  await shot("environments");
  await place("Environments", "environments?edit=new");
  await page.getByLabel("Name", { exact: true }).fill("A wrong one");
  await page.getByLabel("Image").fill("debian:12");
  await page.getByLabel("Set-up commands, one a line").fill("apt-get update");
  await page.getByRole("button", { name: "Add a variable" }).click();
  await page.getByLabel("Name of variable 1").fill("REGION");
  await page.getByLabel("Value of variable 1").fill("north");
  await shot("environment-new");
  await page.getByText("What its sandbox may do").click();
  await page.getByLabel("Hosts it may reach, one a line").fill("no port");
  await page.getByRole("button", { name: "Clear" }).waitFor();
  await page.getByText("The agent is user 0 inside").scrollIntoViewIfNeeded();
  await shot("environment-sandbox");
  await page.getByRole("button", { name: "Clear" }).click();
  await page.goto(`${base}/environments`);
  await page.getByRole("button", { name: /^Test / }).first().click();
  await page.getByRole("dialog").getByLabel("Script").waitFor();
  await shot("environment-test");
  await page.getByRole("button", { name: "Run the test" }).click();
  await page.getByRole("dialog").getByText("Succeeded").waitFor({ timeout: 60_000 });
  await shot("environment-ran");
  await place("Schedules");
  await page.getByRole("list", { name: "Schedules" }).waitFor();
  await shot("schedules");
  await page.getByRole("list", { name: "Schedules" }).getByRole("link").first().click();
  await page.getByRole("dialog").getByText("Its last runs").waitFor();
  await shot("schedule");
  await place("Schedules", "schedules?edit=new");
  await page.getByRole("button", { name: "Working days at 9" }).click();
  await page.getByLabel("Environment").selectOption({ index: 1 });
  await shot("schedule-new");
  await page.getByRole("button", { name: "Clear" }).click();
  await place("Providers");
  await page.getByRole("list", { name: "Providers" }).waitFor();
  await shot("providers");
  await page.getByRole("button", { name: "Ask shell" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Ask", exact: true }).click();
  await page.getByRole("dialog").getByText("Succeeded").waitFor({ timeout: 30_000 });
  await shot("provider-asked");
}
