/* What `muster backup` and `muster restore` share. */
#ifndef MU_MAIN_ARCHIVE_INT_H
#define MU_MAIN_ARCHIVE_INT_H

#include "base/err.h"
#include "main/settings.h"

enum { MU_BACKUP_FORMAT = 1 };
#define MU_BACKUP_MANIFEST "manifest.json"
#define MU_BACKUP_SQLITE   "database.sqlite"
#define MU_BACKUP_PG       "database.pgdump"
#define MU_BACKUP_BLOBS    "blobs/"

MU_MUST_USE int mu_sync_path(const char *path);
/* Runs a program of PostgreSQL (pg_dump, pg_restore) with the connection's settings in its
 * environment, where no other user sees the password. */
MU_MUST_USE int mu_pg_tool(const struct mu_config *c, const char *const *argv, struct mu_err *err);
/* The database name behind DATABASE_URL; pg_restore wants it as an argument. */
MU_MUST_USE int mu_pg_name(const struct mu_config *c, char *dst, size_t size, struct mu_err *err);
/* The schema version that is in the PostgreSQL database; 0 when it holds none of our tables. */
MU_MUST_USE int mu_pg_schema(const struct mu_config *c, int64_t *ret, struct mu_err *err);

#endif
