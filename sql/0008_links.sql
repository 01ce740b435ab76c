-- Links that decide an approval once, without an account (docs/data-model.md 3.5): what a row says is signed in the link itself.
CREATE TABLE approval_links (id {{text}} PRIMARY KEY, session_id {{text}} NOT NULL, gate_id {{text}} NOT NULL, org_id {{text}} NOT NULL,
  label {{text}} NOT NULL, made_by {{text}} NOT NULL, decisions {{i16}} NOT NULL, created_ms {{i64}} NOT NULL, expires_ms {{i64}} NOT NULL,
  used_ms {{i64}}) {{t}};
CREATE INDEX approval_links_gate ON approval_links (gate_id);
CREATE INDEX approval_links_session ON approval_links (session_id);
