-- Logins of browsers (docs/data-model.md): a credential of kind 5 stands for the one that was used to sign in, of which it
-- knows the digest and what kind of text that was.
ALTER TABLE credentials ADD COLUMN stands_for {{text}};
ALTER TABLE credentials ADD COLUMN stands_kind {{i16}};
ALTER TABLE credentials ADD COLUMN user_agent {{text}};
CREATE INDEX credentials_logins ON credentials (expires_ms) WHERE kind = 5;
