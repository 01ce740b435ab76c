-- Checkpoints of live sessions (docs/data-model.md). `seq` counts in the session, `number` in the execution that took it (its
-- runner's); base_id is the one before it in its chain, root_id the chain's first. `ref` is what the runner said of it (JSON).
ALTER TABLE checkpoints ADD COLUMN number {{i64}} NOT NULL DEFAULT 0;
ALTER TABLE checkpoints ADD COLUMN root_id {{text}};
ALTER TABLE checkpoints ADD COLUMN turn_id {{text}};
ALTER TABLE checkpoints ADD COLUMN conversation {{text}};
CREATE UNIQUE INDEX checkpoints_number ON checkpoints (session_id, epoch, number);
CREATE UNIQUE INDEX checkpoints_seq ON checkpoints (session_id, seq);
DROP INDEX checkpoints_session;

-- Their bytes: each row names a stored object, which a fork's row may name too. A row that is dead is nobody's any more; it goes
-- when its object has, which it does when no other row names it.
CREATE TABLE checkpoint_parts (session_id {{text}} NOT NULL, epoch {{i64}} NOT NULL, number {{i64}} NOT NULL, name {{text}} NOT NULL,
  object_id {{text}} NOT NULL, bytes {{i64}} NOT NULL, sha256 {{text}} NOT NULL,
  dead {{i16}} NOT NULL DEFAULT 0, PRIMARY KEY (session_id, epoch, number, name)) {{t}};
CREATE INDEX checkpoint_parts_object ON checkpoint_parts (object_id) WHERE dead = 0;
CREATE INDEX checkpoint_parts_dead ON checkpoint_parts (session_id) WHERE dead = 1;

-- How often the session lost its runner since a turn of it was done.
ALTER TABLE sessions ADD COLUMN losses {{i64}} NOT NULL DEFAULT 0;
