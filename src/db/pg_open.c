#include <errno.h>
#include <string.h>

#include "db/pg_int.h"

static void no_notices(void *arg MU_UNUSED, const PGresult *res MU_UNUSED)
{
}

/* libpq words some mistakes by quoting the whole URL, so its text is shown only where the password
 * cannot be in it. */
static int say(struct mu_err *err, int code, const char *text, const char *password)
{
    size_t len = strcspn(text, "\n");
    bool secret = password && password[0] && strstr(text, password);
    return mu_err_set(err, code, "PostgreSQL: %.*s", secret ? 29 : (int)len,
                      secret ? "the connection was not opened" : text);
}

static int run_setup(PGconn *conn, const char *sql)
{
    PGresult *res = PQexec(conn, sql);
    bool ok = PQresultStatus(res) == PGRES_COMMAND_OK;
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    int r = ok ? 0 : mu_pg_code(state);
    PQclear(res);
    return r;
}

static int setup(PGconn *conn, bool reader)
{
    int r = run_setup(conn, "SET client_min_messages = warning;"
                            "SET idle_in_transaction_session_timeout = '10s';"
                            "SET plan_cache_mode = force_generic_plan;"
                            "SET timezone = 'UTC';"
                            "SET synchronous_commit = on");
    if (r == 0 && reader) {
        r = run_setup(conn, "SET default_transaction_read_only = on;"
                            "SET statement_timeout = '30s'");
    }
    if (r == 0 && !reader) {
        /* Only a superuser may: a deadlock then costs the server's default of a second. */
        (void)run_setup(conn, "SET deadlock_timeout = '100ms'");
    }
    return PQstatus(conn) == CONNECTION_OK ? r : MU_E_CLOSED;
}

static int dial(const char *url, const char *password, PGconn **ret, struct mu_err *err)
{
    /* Those before dbname (the URL) are defaults that it may change, those behind it are ours. */
    static const char *const keys[] = {
        "application_name", "keepalives_idle",  "keepalives_interval",
        "keepalives_count", "tcp_user_timeout", "dbname",
        "connect_timeout",  "client_encoding",  NULL,
    };
    const char *const values[] = {
        "muster", "10", "5", "3", "15000", url, "5", "UTF8", NULL,
    };
    PGconn *conn = PQconnectdbParams(keys, values, 1);
    if (!conn) {
        return mu_err_set(err, -ENOMEM, "no memory for a database connection");
    }
    if (PQstatus(conn) != CONNECTION_OK) {
        int r = say(err, MU_E_CLOSED, PQerrorMessage(conn), password);
        PQfinish(conn);
        return r;
    }
    *ret = conn;
    return 0;
}

int mu_pg_connect(const struct mu_db_opts *opts, PGconn **ret, struct mu_err *err)
{
    PQconninfoOption *parts = PQconninfoParse(opts->url, NULL);
    if (!parts) {
        return mu_err_set(err, MU_E_INVALID, "PostgreSQL: the database URL is not well-formed");
    }
    const char *password = NULL;
    for (PQconninfoOption *p = parts; p->keyword; p++) {
        if (strcmp(p->keyword, "password") == 0) {
            password = p->val;
        }
    }
    PGconn *conn = NULL;
    int r = dial(opts->url, password, &conn, err);
    if (r == 0) {
        PQsetNoticeReceiver(conn, no_notices, NULL);
        r = setup(conn, opts->reader);
        if (r < 0) {
            say(err, r, PQerrorMessage(conn), password);
            PQfinish(conn);
        } else {
            *ret = conn;
        }
    }
    PQconninfoFree(parts);
    return r;
}
