// The peer of script/bench: what a careful Node.js server does for the same requests. It commits the same rows
// durably for each request (WAL, synchronous=FULL); better-sqlite3 blocks the loop for it, so there is no group commit.
//   node server.mjs DATABASE      prints its port; the database has the server's own schema
import { createHash, randomBytes } from "node:crypto";
import Database from "better-sqlite3";
import Fastify from "fastify";

const db = new Database(process.argv[2]);
db.pragma("journal_mode = WAL");
db.pragma("synchronous = FULL");
db.pragma("cache_size = -65536");

const session = db.prepare(
  `INSERT INTO sessions (id, org_id, creator, view, mode, source, state, route, harness, model, name, title, skill,
   environment_id, queued_ms, deadline_ms, created_ms, updated_ms)
   VALUES (?, ?, ?, 1, 1, 2, 22, 2, 'custom', '', ?, ?, '', ?, ?, ?, ?, ?)`);
const spec = db.prepare(
  `INSERT INTO session_specs (session_id, body_hash, prompt_bytes, prompt_head, search, spec) VALUES (?, ?, ?, ?, ?, ?)`);
const stream = db.prepare("INSERT INTO streams (id, org_id, first_seq, last_seq) VALUES (?, ?, 1, 1)");
const event = db.prepare("INSERT INTO events (stream_id, seq, at_ms, type, actor, data) VALUES (?, 1, ?, 1, '', ?)");
const view = "JOIN session_specs p ON p.session_id = s.id LEFT JOIN session_results x ON x.session_id = s.id";
const one = db.prepare(`SELECT * FROM sessions s ${view} WHERE s.id = ?`);
const page = db.prepare(
  `SELECT * FROM (SELECT * FROM sessions WHERE org_id = ? ORDER BY id DESC LIMIT ?) s ${view} ORDER BY s.id DESC`);
const owner = db.prepare("SELECT org_id FROM sessions ORDER BY id DESC LIMIT 1");

function newId(ms) {
  const h = ms.toString(16).padStart(12, "0") + "7" + randomBytes(2).toString("hex").slice(1) + "8" +
    randomBytes(8).toString("hex").slice(1);
  return `${h.slice(0, 8)}-${h.slice(8, 12)}-${h.slice(12, 16)}-${h.slice(16, 20)}-${h.slice(20, 32)}`;
}

const commit = db.transaction((id, org, ms, b) => {
  session.run(id, org, org, b.config?.name ?? "", b.title ?? "", b.config?.environment_id ?? null, ms, ms + 86400000, ms, ms);
  const hash = createHash("sha256").update(b.prompt).digest().subarray(0, 16);
  spec.run(id, hash, b.prompt.length, b.prompt, `${b.title}\n${b.prompt}\n`.toLowerCase(), JSON.stringify({ agent_config: b.config ?? {} }));
  stream.run(id, org);
  event.run(id, ms, '{"to":22}');
});

const iso = (ms) => (ms ? new Date(ms).toISOString() : null);
function run(v) {
  return {
    run_id: `run_${v.id}`, task_id: `run_${v.id}`, state: v.outcome ? "SUCCEEDED" : "PENDING", title: v.title,
    prompt: v.prompt_head, created_at: iso(v.created_ms), updated_at: iso(v.updated_ms), started_at: iso(v.started_ms),
    completed_at: iso(v.ended_ms), session_link: v.session_link, artifacts: v.artifacts ? JSON.parse(v.artifacts) : [],
    conversation_id: v.conversation_id ?? v.id, agent_config: JSON.parse(v.spec).agent_config ?? {}, source: "API",
    status_message: v.message_head ? { message: v.message_head } : null, error: null, exit_code: v.exit_code,
    harness: v.harness, provider: v.provider ? JSON.parse(v.provider) : null, worker_id: v.worker_id,
    is_sandbox_running: false, creator: { uid: v.creator, type: "service_account" }, scope: { type: "User", uid: v.creator },
  };
}

const app = Fastify({ logger: false });
app.addHook("onRequest", async (req, reply) => {
  const auth = req.headers.authorization ?? "";
  if (!auth.startsWith("Bearer ")) return reply.code(401).send({ error: "Unauthorized" });
  req.org = "tok_" + createHash("sha256").update(auth.slice(7)).digest("hex").slice(0, 32);
});
const body = {
  type: "object", required: ["prompt"],
  properties: {
    prompt: { type: "string", maxLength: 1000000 }, title: { type: "string", maxLength: 200 },
    config: { type: "object", properties: { name: { type: "string" }, environment_id: { type: "string" } } },
  },
};
app.post("/api/v1/agent/run", { schema: { body } }, async (req) => {
  const ms = Date.now(), id = newId(ms);
  commit(id, req.org, ms, req.body);
  return { run_id: `run_${id}`, task_id: `run_${id}`, state: "PENDING" };
});
app.get("/api/v1/agent/runs/:id", async (req, reply) => {
  const v = one.get(req.params.id.slice(4));
  return v ? run(v) : reply.code(404).send({ error: "Not found" });
});
// The stored rows belong to whoever made them; the peer lists the newest row's owner.
app.get("/api/v1/agent/runs", async (req) => ({ runs: page.all(owner.get().org_id, Number(req.query.limit ?? 50)).map(run) }));

const viewers = new Set();
app.get("/events", (req, reply) => {
  reply.hijack();
  reply.raw.writeHead(200, { "content-type": "text/event-stream" });
  reply.raw.write(": connected\n\n");
  viewers.add(reply.raw);
  reply.raw.on("close", () => viewers.delete(reply.raw));
});
process.on("SIGUSR1", () => {
  let offset = 0;
  const tick = () => {
    const text = `event: output\ndata: ${JSON.stringify({ offset, text: "word word word " })}\n\n`;
    offset += 15;
    for (const v of viewers) if (v.writableLength < 262144) v.write(text);
    setImmediate(tick);
  };
  tick();
});
await app.listen({ port: 0, host: "127.0.0.1" });
console.log(app.server.address().port);
