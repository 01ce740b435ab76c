-- Workers and their attempts (docs/data-model.md 3.6). A worker is known by the name that its operator chose: that is what
-- sessions.worker_id, sessions.pin_worker_id and attempts.worker_id hold.

CREATE TABLE workers (id {{text}} PRIMARY KEY, org_id {{text}}, kind {{i16}} NOT NULL, hostname {{text}} NOT NULL,
  admin_status {{i16}} NOT NULL DEFAULT 0, instance {{text}} NOT NULL DEFAULT '', server_slot {{i16}}, conn {{i64}} NOT NULL DEFAULT 0,
  capacity {{i64}} NOT NULL, caps {{text}} NOT NULL DEFAULT '{}', version {{text}} NOT NULL DEFAULT '',
  conflicts {{i64}} NOT NULL DEFAULT 0, seen_ms {{i64}} NOT NULL, drain_ms {{i64}}, created_ms {{i64}} NOT NULL,
  removed_ms {{i64}}) {{hot}};
CREATE UNIQUE INDEX workers_host_shared ON workers (hostname) WHERE removed_ms IS NULL AND org_id IS NULL;

ALTER TABLE sessions ADD COLUMN pin_worker_id {{text}};

ALTER TABLE attempts ADD COLUMN worker_id {{text}};
ALTER TABLE attempts ADD COLUMN conn {{i64}};
ALTER TABLE attempts ADD COLUMN acked_ms {{i64}};
ALTER TABLE attempts ADD COLUMN reason {{text}};
ALTER TABLE attempts ADD COLUMN token_hash {{text}};
