// Screens of every place, light and dark, desk and phone, of a running server with real data; fails on any error of the
// console, refusal of the content policy or request to another origin.
//   BASE=http://127.0.0.1:4173 MUSTER_TOKEN=… [SESSION=ses_…] node script/look.mjs [folder] [places]   (places: only what look-places.mjs has)
import { mkdir } from "node:fs/promises";
import axe from "axe-core";
import { chromium } from "playwright-core";
import { lookAtPlaces } from "./look-places.mjs";

const base = process.env.BASE ?? "http://127.0.0.1:4173";
const token = process.env.MUSTER_TOKEN;
const folder = process.argv[2] ?? "/tmp/muster-look";
if (!token) throw new Error("MUSTER_TOKEN is not set");
await mkdir(folder, { recursive: true });
const problems = [];
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

for (const colorScheme of ["light", "dark"]) {
  for (const [size, viewport] of Object.entries({ desk: { width: 1440, height: 900 }, phone: { width: 390, height: 844 } })) {
    const context = await browser.newContext({ viewport, colorScheme, hasTouch: size === "phone", isMobile: size === "phone" });
    const page = await context.newPage();
    const where = `${size} ${colorScheme}`;
    page.on("console", (m) => m.type() === "error" && problems.push(`${where}: ${page.url()}: ${m.text()}`));
    page.on("pageerror", (e) => problems.push(`${where}: ${page.url()}: ${e.message}`));
    page.on("request", (r) => new URL(r.url()).origin !== base && !/^(data|blob):/.test(r.url()) && problems.push(`${where}: ${r.url()}`));
    await page.addInitScript(() =>
      document.addEventListener("securitypolicyviolation", (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}:${e.lineNumber}`)),
    );
    const shot = async (name) => {
      await page.waitForTimeout(700);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (wide > 0) problems.push(`${where}: ${name} is ${wide} px too wide`);
      await page.evaluate(axe.source);
      const { violations, passes } = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }));
      if (passes.length < 5) problems.push(`${where}: ${name}: axe looked at nothing`);
      for (const v of violations) problems.push(`${where}: ${name}: ${v.id}: ${v.nodes.map((n) => `${n.target} ${n.any[0]?.message ?? ""}`).slice(0, 3).join("; ")}`);
      await page.screenshot({ path: `${folder}/${name}-${size}-${colorScheme}.png` });
    };

    await page.goto(`${base}/sessions?state=active`);
    await page.getByLabel("Token").waitFor();
    await shot("signin");
    await page.getByLabel("Token").fill(token);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: "Sessions" }).waitFor();
    if (!page.url().endsWith("/sessions?state=active")) problems.push(`${where}: sign-in went to ${page.url()}`);
    if (process.argv[3] === "places") {
      await lookAtPlaces({ page, base, shot });
      await context.close();
      continue;
    }
    await page.goto(`${base}/sessions`);
    await page.getByRole("list", { name: "Sessions" }).waitFor();
    await shot("sessions");
    await page.getByRole("list", { name: "Sessions" }).getByRole("link").first().click();
    await page.getByRole("dialog").waitFor();
    await shot("session");
    if (process.env.SESSION) {
      for (const tab of ["talk", "terminal", "changes", "files", "events", "usage", "log", "timeline"]) {
        await page.goto(`${base}/sessions/${process.env.SESSION}?tab=${tab}`);
        await page.getByRole("tab", { selected: true }).waitFor();
        await page.waitForTimeout(1500);
        await shot(`session-${tab}`);
      }
    }
    await page.goto(`${base}/`);
    await page.getByRole("heading", { name: "Recently finished" }).waitFor();
    await shot("home");
    await page.goto(`${base}/gates`);
    await page.getByRole("heading", { name: "Gates" }).waitFor();
    await shot("gates");
    if (size === "phone") {
      await page.getByRole("list", { name: "Gates that wait" }).getByRole("button").first().click();
      await shot("gate");
      await page.getByRole("button", { name: "More", exact: true }).click();
      await shot("more");
    } else {
      await page.keyboard.press("Control+k");
      await page.getByPlaceholder("Go to, or do…").waitFor();
      await shot("palette");
      await page.keyboard.press("Escape");
      await page.keyboard.press("?");
      await page.getByRole("dialog", { name: "Keys" }).waitFor();
      await shot("keys");
      await page.keyboard.press("Escape");
      await page.getByRole("button", { name: /Account/ }).click();
      await page.getByRole("menu").waitFor();
      await shot("account");
      await page.keyboard.press("Escape");
      await page.keyboard.press("d");
      await page.getByLabel("Why not?").waitFor();
      await shot("deny");
    }
    await page.goto(`${base}/fleet`);
    await page.getByRole("heading", { name: "Fleet" }).waitFor();
    await shot("fleet");
    await lookAtPlaces({ page, base, shot });
    await page.goto(`${base}/nowhere`);
    await shot("missing");
    await context.close();
  }
}
await browser.close();
for (const p of new Set(problems)) console.error(p);
console.log(`${folder}: ${problems.length} problems`);
process.exit(problems.length ? 1 : 0);
