/* Migrations (stack.md 5, "One SQL, two engines"): sql/NNNN_name.sql, forward only, embedded at
 * build time. */
#ifndef MU_DB_MIGRATE_H
#define MU_DB_MIGRATE_H

#include "db/driver.h"

/* Brings the schema to this program's version: each migration in one transaction with its row in
 * schema_migrations(version, name, sha256, applied_ms). Refuses (MU_E_VERSION, worded) a changed
 * checksum or a version from the future. `now_ms` is what applied_ms gets. The caller holds the
 * engine's exclusive right (mu_db_lock). */
MU_MUST_USE int mu_db_migrate(struct mu_db *db, int64_t now_ms, struct mu_err *err);
/* The newest version this program knows. */
int mu_db_schema_version(void);

/* One server per database: PostgreSQL takes a session-level advisory lock on this connection (held
 * while it lives), SQLite a lock on "<path>.lock" whose descriptor goes to *ret_fd (-1 on
 * PostgreSQL and for memory). MU_E_BUSY, worded, when another server holds it. */
MU_MUST_USE int mu_db_lock(struct mu_db *db, const char *url, int *ret_fd, struct mu_err *err);
/* Start-up checks: SQLite compile options and version; PostgreSQL version, encoding and byte order
 * of text comparison on a real column (data-model.md 9.6). Worded. */
MU_MUST_USE int mu_db_check(struct mu_db *db, struct mu_err *err);

#endif
