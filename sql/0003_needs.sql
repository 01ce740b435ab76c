-- What a session needs of the worker that takes it (docs/data-model.md 3.6): a set of bits, src/app/fleet/needs.h.

ALTER TABLE sessions ADD COLUMN needs {{i64}} NOT NULL DEFAULT 0;
