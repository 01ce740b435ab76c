-- The core tables (docs/data-model.md). {{words}} are replaced for the engine by mu_db_expand().

CREATE TABLE servers (slot {{i16}} PRIMARY KEY, instance {{text}} NOT NULL, src_seq {{i64}} NOT NULL DEFAULT 0,
  started_ms {{i64}} NOT NULL, beat_ms {{i64}} NOT NULL) {{hot}};

CREATE TABLE orgs (id {{text}} PRIMARY KEY, kind {{i16}} NOT NULL, name {{text}} NOT NULL, token_hash {{text}} UNIQUE,
  created_ms {{i64}} NOT NULL) {{t}};

CREATE TABLE credentials (id {{text}} PRIMARY KEY, kind {{i16}} NOT NULL, hash {{text}} NOT NULL UNIQUE, prefix {{text}} NOT NULL,
  name {{text}} NOT NULL, org_id {{text}} NOT NULL, created_ms {{i64}} NOT NULL, expires_ms {{i64}}, revoked_ms {{i64}},
  last_used_ms {{i64}}) {{t}};

CREATE TABLE sessions (id {{text}} PRIMARY KEY, org_id {{text}} NOT NULL, creator {{text}} NOT NULL, view {{i16}} NOT NULL,
  mode {{i16}} NOT NULL, source {{i16}} NOT NULL, state {{i16}} NOT NULL CHECK (state BETWEEN 10 AND 99),
  outcome {{i16}} NOT NULL DEFAULT 0, end_reason {{i16}} NOT NULL DEFAULT 0, route {{i16}} NOT NULL,
  priority {{i16}} NOT NULL DEFAULT 0, harness {{text}} NOT NULL, model {{text}} NOT NULL, name {{text}} NOT NULL,
  title {{text}} NOT NULL, skill {{text}} NOT NULL, environment_id {{text}}, conversation_id {{text}}, schedule_id {{text}},
  worker_id {{text}}, epoch {{i64}} NOT NULL DEFAULT 0, tries {{i16}} NOT NULL DEFAULT 0, rev {{i64}} NOT NULL DEFAULT 1,
  queued_ms {{i64}} NOT NULL, saturated_ms {{i64}}, deadline_ms {{i64}} NOT NULL, created_ms {{i64}} NOT NULL,
  started_ms {{i64}}, running_ms {{i64}}, stop_ms {{i64}}, ended_ms {{i64}}, updated_ms {{i64}} NOT NULL, purge_ms {{i64}},
  exit_code {{i64}}, tokens_in {{i64}} NOT NULL DEFAULT 0, tokens_out {{i64}} NOT NULL DEFAULT 0,
  CHECK ((state >= 90) = (ended_ms IS NOT NULL)), CHECK ((outcome > 0) = (ended_ms IS NOT NULL))) {{hotw}};
CREATE INDEX sessions_org ON sessions (org_id, id);
CREATE INDEX sessions_live ON sessions (org_id, state, id) WHERE ended_ms IS NULL;
CREATE INDEX sessions_done ON sessions (org_id, outcome, id) WHERE ended_ms IS NOT NULL;
CREATE INDEX sessions_due ON sessions (deadline_ms, id) WHERE ended_ms IS NULL;
CREATE INDEX sessions_purge ON sessions (purge_ms, id) WHERE purge_ms IS NOT NULL;
CREATE INDEX sessions_schedule ON sessions (schedule_id, id) WHERE schedule_id IS NOT NULL;
CREATE INDEX sessions_conversation ON sessions (conversation_id, id) WHERE conversation_id IS NOT NULL;

CREATE TABLE session_specs (session_id {{text}} PRIMARY KEY, body_hash {{blob}} NOT NULL, prompt_bytes {{i64}} NOT NULL,
  prompt_head {{text}} NOT NULL, search {{text}} NOT NULL, spec {{text}} NOT NULL, env_snapshot {{text}},
  prompt_rest {{text}}) {{t}};
CREATE TABLE session_results (session_id {{text}} PRIMARY KEY, message_head {{text}} NOT NULL DEFAULT '', error_code {{text}},
  error_message {{text}}, session_link {{text}}, provider {{text}}, artifacts {{text}}, updated_ms {{i64}} NOT NULL,
  output_bytes {{i64}} NOT NULL DEFAULT 0, output_truncated {{i16}} NOT NULL DEFAULT 0, output {{blob}}) {{t}};
CREATE TABLE output_chunks (session_id {{text}} NOT NULL, pos {{i64}} NOT NULL, bytes {{blob}} NOT NULL,
  PRIMARY KEY (session_id, pos)) {{tw}};
CREATE TABLE files (id {{text}} PRIMARY KEY, org_id {{text}} NOT NULL, session_id {{text}} NOT NULL, kind {{i16}} NOT NULL,
  name {{text}} NOT NULL, media_type {{text}} NOT NULL, bytes {{i64}} NOT NULL, sha256 {{text}} NOT NULL,
  created_ms {{i64}} NOT NULL) {{t}};
CREATE INDEX files_session ON files (session_id, id);

CREATE TABLE streams (id {{text}} PRIMARY KEY, org_id {{text}} NOT NULL, first_seq {{i64}} NOT NULL DEFAULT 1,
  last_seq {{i64}} NOT NULL DEFAULT 0) {{ctr}};
CREATE TABLE events (stream_id {{text}} NOT NULL, seq {{i64}} NOT NULL, at_ms {{i64}} NOT NULL, type {{i16}} NOT NULL,
  actor {{text}} NOT NULL DEFAULT '', data {{text}} NOT NULL, PRIMARY KEY (stream_id, seq)) {{tw}};

CREATE TABLE artifacts (id {{text}} PRIMARY KEY, session_id {{text}} NOT NULL, org_id {{text}} NOT NULL, kind {{i16}} NOT NULL,
  dedupe {{text}} NOT NULL, data {{text}} NOT NULL, created_ms {{i64}} NOT NULL, UNIQUE (session_id, dedupe)) {{t}};
CREATE INDEX artifacts_kind ON artifacts (org_id, kind, session_id);

CREATE TABLE environments (id {{text}} PRIMARY KEY, org_id {{text}}, name {{text}} NOT NULL, image {{text}} NOT NULL,
  spec {{text}} NOT NULL, version {{i64}} NOT NULL DEFAULT 1, created_ms {{i64}} NOT NULL, updated_ms {{i64}} NOT NULL,
  deleted_ms {{i64}}) {{t}};
CREATE INDEX environments_org ON environments (org_id, updated_ms, id) WHERE deleted_ms IS NULL;
CREATE TABLE secrets (id {{text}} PRIMARY KEY, org_id {{text}} NOT NULL, scope {{i16}} NOT NULL, scope_id {{text}} NOT NULL,
  name {{text}} NOT NULL, readable {{i16}} NOT NULL DEFAULT 0, value {{text}} NOT NULL, version {{i64}} NOT NULL DEFAULT 1,
  updated_ms {{i64}} NOT NULL, UNIQUE (org_id, scope, scope_id, name)) {{t}};

CREATE TABLE attempts (session_id {{text}} NOT NULL, epoch {{i64}} NOT NULL, execution_id {{text}} NOT NULL, kind {{i16}} NOT NULL,
  server_slot {{i16}} NOT NULL, state {{i16}} NOT NULL, lease_ms {{i64}} NOT NULL, offered_ms {{i64}} NOT NULL,
  ended_ms {{i64}}, outcome {{i16}} NOT NULL DEFAULT 0, exit_code {{i64}}, provider {{text}}, model {{text}},
  PRIMARY KEY (session_id, epoch)) {{hot}};
CREATE UNIQUE INDEX attempts_one_live ON attempts (session_id) WHERE ended_ms IS NULL;

CREATE TABLE quota_slots (scope_id {{text}} NOT NULL, provider {{text}} NOT NULL, slot {{i64}} NOT NULL, free_ms {{i64}} NOT NULL,
  holder {{text}} NOT NULL DEFAULT '', PRIMARY KEY (scope_id, provider, slot)) {{hot}};
CREATE INDEX quota_free ON quota_slots (scope_id, provider, free_ms);
CREATE TABLE quota_blocks (scope_id {{text}} NOT NULL, provider {{text}} NOT NULL, blocked_until_ms {{i64}} NOT NULL,
  strikes {{i64}} NOT NULL DEFAULT 0, PRIMARY KEY (scope_id, provider)) {{tw}};

CREATE TABLE schedules (id {{text}} PRIMARY KEY, org_id {{text}} NOT NULL, creator {{text}} NOT NULL, name {{text}} NOT NULL,
  cron {{text}} NOT NULL, spec {{text}} NOT NULL, enabled {{i16}} NOT NULL, admin {{i16}} NOT NULL DEFAULT 0, next_ms {{i64}},
  last_ms {{i64}}, last_error {{text}}, created_ms {{i64}} NOT NULL, updated_ms {{i64}} NOT NULL) {{t}};
CREATE INDEX schedules_due ON schedules (next_ms) WHERE enabled = 1;
CREATE INDEX schedules_org ON schedules (org_id, name, id);
CREATE TABLE schedule_ticks (schedule_id {{text}} NOT NULL, tick_ms {{i64}} NOT NULL, session_id {{text}},
  outcome {{i16}} NOT NULL, PRIMARY KEY (schedule_id, tick_ms)) {{tw}};

CREATE TABLE idempotency_keys (org_id {{text}} NOT NULL, op {{i16}} NOT NULL, key {{text}} NOT NULL, body_hash {{text}} NOT NULL,
  subject_id {{text}} NOT NULL, expires_ms {{i64}} NOT NULL, PRIMARY KEY (org_id, op, key)) {{tw}};
CREATE INDEX idempotency_expire ON idempotency_keys (expires_ms);
