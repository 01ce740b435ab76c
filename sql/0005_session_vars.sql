-- Variables of sessions (scope 3) lie beside those of environments: both are found by what they belong to.
CREATE INDEX secrets_scope ON secrets (scope_id, name);
