#include "main/archive_int.h"

#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

extern char **environ;

int mu_sync_path(const char *path)
{
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int parse_url(const struct mu_config *c, PQconninfoOption **ret, struct mu_err *err)
{
    char *why = NULL;
    *ret = PQconninfoParse(c->database_url, &why);
    if (*ret) {
        PQfreemem(why);
        return 0;
    }
    /* libpq's words may repeat the URL, and with it the password. */
    PQfreemem(why);
    return mu_err_set(err, MU_E_INVALID, "DATABASE_URL is not a valid PostgreSQL URL");
}

int mu_pg_name(const struct mu_config *c, char *dst, size_t size, struct mu_err *err)
{
    PQconninfoOption *options, *o;
    int r = parse_url(c, &options, err);
    dst[0] = 0;
    for (o = options; r == 0 && o->keyword; o++) {
        if (o->val && !strcmp(o->keyword, "dbname")) {
            snprintf(dst, size, "%s", o->val);
        }
    }
    PQconninfoFree(r == 0 ? options : NULL);
    return r == 0 && !dst[0] ? mu_err_set(err, MU_E_INVALID, "DATABASE_URL names no database") : r;
}

/* This process is short-lived and has one thread: its environment may change. */
static int export_url(const struct mu_config *c, struct mu_err *err)
{
    PQconninfoOption *options, *o;
    int r = parse_url(c, &options, err);
    for (o = options; r == 0 && o->keyword; o++) {
        if (o->val && o->envvar && setenv(o->envvar, o->val, 1) < 0) {
            r = mu_err_set(err, -errno, "%s", mu_err_text(-errno));
        }
    }
    PQconninfoFree(options);
    return r;
}

int mu_pg_tool(const struct mu_config *c, const char *const *argv, struct mu_err *err)
{
    pid_t pid;
    int status = 0, r = export_url(c, err);
    if (r < 0) {
        return r;
    }
    r = posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv, environ);
    if (r == ENOENT) {
        return mu_err_set(err, MU_E_NOT_FOUND,
                          "%s is not on PATH: install PostgreSQL's client programs (Debian: "
                          "postgresql-client)",
                          argv[0]);
    }
    if (r) {
        return mu_err_set(err, -r, "cannot start %s: %s", argv[0], mu_err_text(-r));
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return mu_err_set(err, -errno, "%s: %s", argv[0], mu_err_text(-errno));
        }
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return mu_err_set(err, MU_E_IO, "%s failed (its words are above)", argv[0]);
    }
    return 0;
}

int mu_pg_schema(const struct mu_config *c, int64_t *ret, struct mu_err *err)
{
    PGconn *pg = PQconnectdb(c->database_url);
    int r = 0;
    *ret = 0;
    if (PQstatus(pg) != CONNECTION_OK) {
        r = mu_err_set(err, MU_E_UNAVAILABLE, "PostgreSQL: %.300s", PQerrorMessage(pg));
    } else {
        PGresult *there = PQexec(pg, "SELECT to_regclass('schema_migrations') IS NOT NULL");
        bool ours = PQresultStatus(there) == PGRES_TUPLES_OK && PQgetvalue(there, 0, 0)[0] == 't';
        PGresult *max =
            ours ? PQexec(pg, "SELECT coalesce(max(version), 0) FROM schema_migrations") : NULL;
        if (PQresultStatus(there) != PGRES_TUPLES_OK ||
            (ours && (PQresultStatus(max) != PGRES_TUPLES_OK ||
                      mu_bytes_i64(mu_str(PQgetvalue(max, 0, 0)), ret) < 0))) {
            r = mu_err_set(err, MU_E_IO, "PostgreSQL: %.300s", PQerrorMessage(pg));
        }
        PQclear(max);
        PQclear(there);
    }
    PQfinish(pg);
    return r;
}
