-- Sessions that wait hold no worker (docs/data-model.md). By which id the runner of a later execution asked for it again; NULL: as
-- it did first.
ALTER TABLE gates ADD COLUMN asked_id {{text}};
CREATE INDEX gates_asked ON gates (session_id, asked_id) WHERE asked_id IS NOT NULL;

-- Those that may come to hibernate: as many as workers hold.
CREATE INDEX sessions_sleepy ON sessions (state, id) WHERE ended_ms IS NULL AND mode = 2 AND state BETWEEN 60 AND 70;
