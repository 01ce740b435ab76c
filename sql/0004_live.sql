-- Live sessions (docs/data-model.md): turns, gates, pause, recordings, checkpoints.

-- Since when a session is paused; since when its own clock stands still (paused or waiting for a gate); when that clock runs out,
-- known from its first preparation on; how long it may run; the agent's own id of its conversation.
ALTER TABLE sessions ADD COLUMN paused_ms {{i64}};
ALTER TABLE sessions ADD COLUMN wait_ms {{i64}};
ALTER TABLE sessions ADD COLUMN run_deadline_ms {{i64}};
ALTER TABLE sessions ADD COLUMN limit_ms {{i64}} NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN restore_id {{text}};
ALTER TABLE sessions ADD COLUMN parent_id {{text}};
ALTER TABLE sessions ADD COLUMN held {{i16}} NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN api_calls {{i64}} NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN compute_ms {{i64}} NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN conversation {{text}};
CREATE INDEX sessions_parent ON sessions (parent_id, id) WHERE parent_id IS NOT NULL;
-- What an org's limit counts: few rows, because runs of the Oz API are none of them.
CREATE INDEX sessions_counted ON sessions (org_id, state) WHERE ended_ms IS NULL AND view BETWEEN 2 AND 3;
-- Each API lists its own sessions.
DROP INDEX sessions_org;
CREATE INDEX sessions_org ON sessions (org_id, view, id);

ALTER TABLE session_results ADD COLUMN diff {{text}};

-- The number of the last report of the attempt's runner that is stored.
ALTER TABLE attempts ADD COLUMN runner_seq {{i64}} NOT NULL DEFAULT 0;

ALTER TABLE orgs ADD COLUMN max_sessions {{i64}};
ALTER TABLE orgs ADD COLUMN settings {{text}} NOT NULL DEFAULT '{}';
-- 1 viewer, 2 operator, 3 admin
ALTER TABLE credentials ADD COLUMN role {{i16}} NOT NULL DEFAULT 2;

CREATE TABLE turns (id {{text}} PRIMARY KEY, session_id {{text}} NOT NULL, pos {{i64}} NOT NULL, state {{i16}} NOT NULL,
  source {{i16}} NOT NULL, user_id {{text}}, epoch {{i64}}, tries {{i16}} NOT NULL DEFAULT 0, created_ms {{i64}} NOT NULL,
  started_ms {{i64}}, ended_ms {{i64}}, options {{text}} NOT NULL DEFAULT '{}', prompt {{text}} NOT NULL,
  UNIQUE (session_id, pos)) {{t}};
CREATE INDEX turns_open ON turns (session_id, pos) WHERE ended_ms IS NULL;

-- epoch -1: asked by people. scope 1: the decision holds for every later request of the same key in the session.
CREATE TABLE gates (id {{text}} PRIMARY KEY, session_id {{text}} NOT NULL, org_id {{text}} NOT NULL, turn_id {{text}},
  epoch {{i64}} NOT NULL, kind {{i16}} NOT NULL, action {{i16}} NOT NULL DEFAULT 0, risk {{i16}} NOT NULL DEFAULT 0,
  status {{i16}} NOT NULL, scope {{i16}} NOT NULL DEFAULT 0, votes_needed {{i16}} NOT NULL DEFAULT 1,
  request_key {{text}} NOT NULL, resolved_by {{text}}, created_ms {{i64}} NOT NULL, expires_ms {{i64}}, resolved_ms {{i64}},
  delivered_ms {{i64}}, description {{text}} NOT NULL, reason {{text}}, answer {{text}}, options {{text}},
  context {{text}} NOT NULL DEFAULT '{}') {{t}};
CREATE UNIQUE INDEX gates_pending ON gates (session_id, request_key) WHERE status = 0;
CREATE INDEX gates_open ON gates (id) WHERE status = 0;
CREATE INDEX gates_inbox ON gates (org_id, id) WHERE status = 0;
CREATE INDEX gates_org ON gates (org_id, id);
CREATE INDEX gates_session ON gates (session_id, id);
CREATE INDEX gates_grant ON gates (session_id, request_key) WHERE scope = 1;
CREATE INDEX gates_undelivered ON gates (session_id, id) WHERE status <> 0 AND delivered_ms IS NULL;
CREATE TABLE gate_votes (gate_id {{text}} NOT NULL, user_id {{text}} NOT NULL, decision {{i16}} NOT NULL, at_ms {{i64}} NOT NULL,
  PRIMARY KEY (gate_id, user_id)) {{tw}};

CREATE TABLE recordings (session_id {{text}} NOT NULL, track {{i16}} NOT NULL, start_off {{i64}} NOT NULL, end_off {{i64}} NOT NULL,
  started_ms {{i64}} NOT NULL, bytes {{i64}} NOT NULL, state {{i16}} NOT NULL, PRIMARY KEY (session_id, track)) {{tw}};
CREATE TABLE segments (session_id {{text}} NOT NULL, track {{i16}} NOT NULL, off {{i64}} NOT NULL, len {{i64}} NOT NULL,
  stored_len {{i64}} NOT NULL, first_ms {{i64}} NOT NULL, last_ms {{i64}} NOT NULL, codec {{i16}} NOT NULL, place {{i16}} NOT NULL,
  blob_key {{text}}, sha256 {{text}} NOT NULL, PRIMARY KEY (session_id, track, off)) {{t}};
CREATE TABLE checkpoints (id {{text}} PRIMARY KEY, session_id {{text}} NOT NULL, epoch {{i64}} NOT NULL, seq {{i64}} NOT NULL,
  kind {{i16}} NOT NULL, state {{i16}} NOT NULL, base_id {{text}}, ref {{text}} NOT NULL, bytes {{i64}} NOT NULL DEFAULT 0,
  created_ms {{i64}} NOT NULL, expires_ms {{i64}}) {{t}};
CREATE INDEX checkpoints_session ON checkpoints (session_id, id);
CREATE INDEX checkpoints_expire ON checkpoints (expires_ms) WHERE expires_ms IS NOT NULL;
