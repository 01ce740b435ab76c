-- The fleet (docs/data-model.md 3.6): workers that enrolled belong to an org; those without one are shared.

-- drain_ms: since when it drains by order; drain_until_ms: then what is left is stopped; drained_ms: since when nothing is left.
ALTER TABLE workers ADD COLUMN drain_until_ms {{i64}};
ALTER TABLE workers ADD COLUMN drained_ms {{i64}};
ALTER TABLE workers ADD COLUMN meta {{text}} NOT NULL DEFAULT '{}';
CREATE UNIQUE INDEX workers_host_org ON workers (org_id, hostname) WHERE removed_ms IS NULL AND org_id IS NOT NULL;
CREATE INDEX workers_removed ON workers (removed_ms) WHERE removed_ms IS NOT NULL;

-- Enrolment tokens (kind 3, org_id '' = for shared workers) have uses; credentials of workers (kind 4) a worker.
ALTER TABLE credentials ADD COLUMN uses_left {{i64}};
ALTER TABLE credentials ADD COLUMN subject_id {{text}};
CREATE INDEX credentials_subject ON credentials (subject_id) WHERE subject_id IS NOT NULL;
