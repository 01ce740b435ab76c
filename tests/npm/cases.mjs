// One case per call, run by tests/e2e/test_sdk_ts.py: node cases.mjs CASE, with SDK_DIR, BASE_URL and TOKEN set.
// Prints one JSON line with what the unmodified SDK gave; exits 1 with the stack when it threw unexpectedly.
import { createRequire } from 'node:module';
import assert from 'node:assert/strict';

const require = createRequire(process.env.SDK_DIR + '/package.json');
const sdkModule = require('oz-agent-sdk');
const OzAPI = sdkModule.default ?? sdkModule.OzAPI;
const make = (more = {}) => new OzAPI({ apiKey: process.env.TOKEN, baseURL: process.env.BASE_URL, ...more });
const client = make();
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));
const terminal = ['SUCCEEDED', 'FAILED', 'CANCELLED'];

async function wait(id) {
  for (let i = 0; i < 1500; i++) {
    const run = await client.agent.runs.retrieve(id);
    if (terminal.includes(run.state)) return run;
    await sleep(20);
  }
  throw new Error('the run does not end');
}

async function thrown(call) {
  try {
    await call();
  } catch (e) {
    return { name: e.constructor.name, status: e.status, message: e.message, body: e.error,
             requestId: e.headers?.get?.('x-request-id'), retryAfter: e.headers?.get?.('retry-after') };
  }
  throw new Error('nothing was thrown');
}

const cases = {
  async createAndRetrieve() {
    const made = await client.agent.run({ prompt: 'hello [[echo:an answer]]', title: 'from ts', config: { name: 'cfg', model_id: 'm' } });
    return { made, run: await wait(made.run_id) };
  },
  async skills() {
    return [await client.agent.list(), await client.agent.list({ refresh: true, repo: 'owner/repo', sort_by: 'last_run' })];
  },
  async paging() {
    const made = [];
    for (let i = 0; i < 7; i++) made.push((await client.agent.run({ prompt: `p${i}` })).run_id);
    const seen = [];
    let cursor;
    for (;;) {
      const page = await client.agent.runs.list({ limit: 3, ...(cursor ? { cursor } : {}) });
      seen.push(...page.runs.map((r) => r.run_id));
      if (!page.page_info.has_next_page) { assert.equal(page.page_info.next_cursor, undefined); break; }
      cursor = page.page_info.next_cursor;
    }
    return { made: made.reverse(), seen };
  },
  async filters() {
    const first = (await client.agent.run({ prompt: 'alpha needle', config: { name: 'night', model_id: 'mm' } })).run_id;
    const second = (await client.agent.run({ prompt: 'beta', config: { environment_id: 'debian:12' } })).run_id;
    const run = await wait(first);
    const later = new Date(Date.now() + 3600e3).toISOString(), earlier = new Date(Date.now() - 3600e3).toISOString();
    const table = [
      [{ state: ['SUCCEEDED'] }, [first]], [{ state: ['SUCCEEDED', 'PENDING'] }, [second, first]], [{ state: ['FAILED'] }, []],
      [{ source: 'API' }, [second, first]], [{ source: 'SLACK' }, []], [{ name: 'night' }, [first]], [{ model_id: 'mm' }, [first]],
      [{ environment_id: 'debian:12' }, [second]], [{ creator: run.creator.uid }, [second, first]], [{ creator: '0'.repeat(64) }, []],
      [{ schedule_id: '01a1fe8d-55d1-7039-b28e-c5679de1958e' }, []], [{ skill: 'a/b:c' }, []], [{ skill_spec: 'a/b:c' }, []], [{ artifact_type: 'PLAN' }, []],
      [{ artifact_type: 'PULL_REQUEST' }, []], [{ created_after: earlier }, [second, first]], [{ created_after: later }, []],
      [{ created_before: later }, [second, first]], [{ created_before: earlier }, []], [{ updated_after: earlier }, [second, first]],
      [{ updated_after: later }, []], [{ q: 'needle' }, [first]], [{ q: 'nothing of the kind' }, []],
      [{ state: ['SUCCEEDED'], q: 'alpha', created_after: earlier, limit: 1 }, [first]],
    ];
    const wrong = [];
    for (const [query, expected] of table) {
      const got = (await client.agent.runs.list(query)).runs.map((r) => r.run_id);
      if (JSON.stringify(got) !== JSON.stringify(expected)) wrong.push({ query, got, expected });
    }
    return { wrong, asked: table.length };
  },
  async cancel() {
    const made = await client.agent.run({ prompt: '[[stall]]' });
    const answers = [await client.agent.runs.cancel(made.run_id)];
    const run = await wait(made.run_id);
    answers.push(await client.agent.runs.cancel(made.run_id));
    return { id: made.run_id, answers, state: run.state };
  },
  async schedules() {
    const s = client.agent.schedules;
    const item = await s.create({ cron_schedule: '0 9 * * *', name: 'daily', prompt: 'p', agent_config: { name: 'n' } });
    const steps = { item, got: await s.retrieve(item.id), list: await s.list() };
    steps.updated = await s.update(item.id, { cron_schedule: '*/5 * * * *', enabled: true, name: 'often', prompt: 'q' });
    steps.paused = await s.pause(item.id);
    steps.resumed = await s.resume(item.id);
    steps.deleted = await s.delete(item.id);
    steps.gone = await thrown(() => s.retrieve(item.id));
    return steps;
  },
  async errors() {
    const unknown = 'run_00000000-0000-4000-8000-000000000000';
    const key = { headers: { 'Idempotency-Key': `k-${Math.random()}` } };
    await client.agent.run({ prompt: 'a' }, key);
    return {
      blank: await thrown(() => client.agent.run({ prompt: ' ' })),
      cursor: await thrown(() => client.agent.runs.list({ cursor: 'nonsense' })),
      cron: await thrown(() => client.agent.schedules.create({ cron_schedule: 'x', name: 'n', prompt: 'p' })),
      auth: await thrown(() => make({ apiKey: 'sk_' + '0'.repeat(64) }).agent.runs.list()),
      missing: await thrown(() => client.agent.runs.retrieve(unknown)),
      missingCancel: await thrown(() => client.agent.runs.cancel(unknown)),
      large: await thrown(() => client.agent.run({ prompt: 'x'.repeat(1_100_000) })),
      mismatch: await thrown(() => client.agent.run({ prompt: 'b' }, key)),
    };
  },
  async rateLimit() {
    const once = make({ maxRetries: 0 });
    const error = await thrown(async () => { for (let i = 0; i < 300; i++) await once.agent.runs.list(); });
    const after = await make({ maxRetries: 5 }).agent.runs.list();
    return { error, after };
  },
  async connection() {
    return thrown(() => make({ maxRetries: 0 }).agent.runs.list());
  },
  async createOnce() {
    return client.agent.run({ prompt: process.env.PROMPT });
  },
  async cancelOnce() {
    return client.agent.runs.cancel(process.env.RUN_ID);
  },
  async parallel() {
    const made = await Promise.all(Array.from({ length: 20 }, (_, i) => client.agent.run({ prompt: `parallel ${i}` })));
    const page = await client.agent.runs.list({ limit: 200 });
    return { made: made.map((m) => m.run_id).sort(), listed: page.runs.map((r) => r.run_id).sort() };
  },
};

try {
  console.log(JSON.stringify(await cases[process.argv[2]]()));
} catch (e) {
  console.error(e);
  process.exit(1);
}
