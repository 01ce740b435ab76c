#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/id.h"
#include "db/db_int.h"

enum { MAX_SQL = 16 << 20, FIRST_SLOTS = 128 };

/* --- type words --- */

static const struct {
    const char *word, *sqlite, *pg;
} words[] = {
    {"text", "TEXT", "TEXT COLLATE \"C\""},
    {"i64", "INTEGER", "BIGINT"},
    {"i16", "INTEGER", "SMALLINT"},
    {"blob", "BLOB", "BYTEA"},
    {"t", "STRICT", ""},
    {"tw", "STRICT, WITHOUT ROWID", ""},
    {"hot", "STRICT", "WITH (fillfactor=70)"},
    {"hotw", "STRICT, WITHOUT ROWID", "WITH (fillfactor=70)"},
    {"ctr", "STRICT, WITHOUT ROWID", "WITH (fillfactor=50)"},
    {"skip_locked", "", "FOR UPDATE SKIP LOCKED"},
};

static const char *word_text(enum mu_db_engine engine, mu_bytes word)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(words); i++) {
        if (mu_bytes_is(word, words[i].word)) {
            return engine == MU_DB_PG ? words[i].pg : words[i].sqlite;
        }
    }
    return NULL;
}

char *mu_db_expand(enum mu_db_engine engine, const char *sql)
{
    struct mu_buf out;
    mu_buf_init(&out, MAX_SQL);
    mu_bytes rest = mu_str(sql);
    for (;;) {
        ptrdiff_t at = mu_bytes_find(rest, MU_B("{{"));
        if (at < 0) {
            break;
        }
        mu_buf_add(&out, mu_bytes_head(rest, (size_t)at));
        rest = mu_bytes_from(rest, (size_t)at + 2);
        ptrdiff_t end = mu_bytes_find(rest, MU_B("}}"));
        const char *text = end < 0 ? NULL : word_text(engine, mu_bytes_head(rest, (size_t)end));
        if (!text) {
            mu_buf_fini(&out);
            return NULL;
        }
        mu_buf_add_str(&out, text);
        rest = mu_bytes_from(rest, (size_t)end + 2);
    }
    mu_buf_add(&out, rest);
    mu_buf_add_char(&out, '\0');
    if (out.failed) {
        mu_buf_fini(&out);
        return NULL;
    }
    return out.ptr;
}

/* --- opening and failures --- */

enum mu_db_engine mu_db_engine_of(const char *url)
{
    mu_bytes u = mu_str(url);
    return mu_bytes_starts(u, MU_B("postgres://")) || mu_bytes_starts(u, MU_B("postgresql://"))
               ? MU_DB_PG
               : MU_DB_SQLITE;
}

int mu_db_open(const struct mu_db_opts *opts, struct mu_db **ret, struct mu_err *err)
{
    if (!opts->memory && (!opts->url || !opts->url[0])) {
        return mu_err_set(err, MU_E_INVALID, "no database is named");
    }
    return !opts->memory && mu_db_engine_of(opts->url) == MU_DB_PG
               ? mu_db_pg_open(opts, ret, err)
               : mu_db_sqlite_open(opts, ret, err);
}

struct mu_db *mu_db_close(struct mu_db *db)
{
    if (!db) {
        return NULL;
    }
    for (size_t i = 0; i < db->n_slots; i++) {
        if (db->slots[i].key) {
            db->driver->unprepare(db, db->slots[i].prep);
        }
    }
    mu_free(db->slots);
    db->slots = NULL;
    db->driver->close(db);
    return NULL;
}

enum mu_db_engine mu_db_engine(const struct mu_db *db)
{
    return db->driver->engine;
}

const char *mu_db_errmsg(struct mu_db *db)
{
    return db->errmsg;
}

int mu_db_fail(struct mu_db *db, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(db->errmsg, sizeof db->errmsg, fmt, ap);
    va_end(ap);
    switch (code) {
    case MU_E_RETRY:
    case MU_E_BUSY:
    case MU_E_DISK_FULL:
    case MU_E_IO:
    case MU_E_CLOSED:
        if (!db->trouble || code == MU_E_CLOSED) {
            db->trouble = code;
        }
        break;
    default:
        break;
    }
    return code;
}

/* --- the statement cache --- */

static size_t slot_of(const struct mu_db_slot *slots, size_t n, const struct mu_stmt *key)
{
    uint64_t h = (uint64_t)(uintptr_t)key * UINT64_C(0x9e3779b97f4a7c15);
    size_t i = (size_t)(h >> 32) & (n - 1);
    while (slots[i].key && slots[i].key != key) {
        i = (i + 1) & (n - 1);
    }
    return i;
}

static int grow(struct mu_db *db)
{
    if (db->n_stmts >= MU_DB_MAX_STMTS) {
        return mu_db_fail(db, MU_E_INTERNAL, "more than %d statements", MU_DB_MAX_STMTS);
    }
    if (db->n_slots && db->n_stmts * 2 < db->n_slots) {
        return 0;
    }
    size_t n = db->n_slots ? db->n_slots * 2 : FIRST_SLOTS;
    struct mu_db_slot *slots = mu_calloc(n, sizeof *slots);
    if (!slots) {
        return mu_db_fail(db, -ENOMEM, "no memory");
    }
    for (size_t i = 0; i < db->n_slots; i++) {
        if (db->slots[i].key) {
            slots[slot_of(slots, n, db->slots[i].key)] = db->slots[i];
        }
    }
    mu_free(db->slots);
    db->slots = slots;
    db->n_slots = n;
    return 0;
}

static int add_stmt(struct mu_db *db, const struct mu_stmt *s, void **ret)
{
    if (strlen(s->sig) > MU_DB_MAX_PARAMS || strspn(s->sig, "tib") != strlen(s->sig)) {
        return mu_db_fail(db, MU_E_INTERNAL, "%s: signature '%s'", s->name, s->sig);
    }
    int r = grow(db);
    if (r < 0) {
        return r;
    }
    enum mu_db_engine engine = db->driver->engine;
    char *text = mu_db_expand(engine, engine == MU_DB_PG && s->pg ? s->pg : s->sql);
    if (!text) {
        return mu_db_fail(db, MU_E_INTERNAL, "%s: an unknown {{word}}, or no memory", s->name);
    }
    void *prep = NULL;
    r = db->driver->prepare(db, s, text, &prep);
    mu_free(text);
    if (r < 0) {
        return r;
    }
    db->slots[slot_of(db->slots, db->n_slots, s)] = (struct mu_db_slot){s, prep};
    db->n_stmts++;
    *ret = prep;
    return 0;
}

static int find_stmt(struct mu_db *db, const struct mu_stmt *s, void **ret)
{
    if (db->n_slots) {
        const struct mu_db_slot *slot = &db->slots[slot_of(db->slots, db->n_slots, s)];
        if (slot->key) {
            *ret = slot->prep;
            return 0;
        }
    }
    return add_stmt(db, s, ret);
}

/* A mistake in a statement's use is found on both engines alike, not only where it hurts. */
static int check_args(struct mu_db *db, const struct mu_stmt *s, const struct mu_val *args,
                      unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        char c = s->sig[i];
        bool fits = c && (args[i].kind == MU_VAL_NULL || (c == 'i' && args[i].kind == MU_VAL_I64) ||
                          (c == 't' && args[i].kind == MU_VAL_TEXT) ||
                          (c == 'b' && args[i].kind == MU_VAL_BLOB));
        if (!fits) {
            return mu_db_fail(db, MU_E_INTERNAL, "%s: parameter %u does not fit '%s'", s->name,
                              i + 1, s->sig);
        }
        if (args[i].kind != MU_VAL_I64 && args[i].b.len > INT32_MAX) {
            return mu_db_fail(db, MU_E_TOO_LARGE, "%s: parameter %u", s->name, i + 1);
        }
    }
    if (s->sig[n]) {
        return mu_db_fail(db, MU_E_INTERNAL, "%s: %u parameters for '%s'", s->name, n, s->sig);
    }
    return 0;
}

int mu_db_run(struct mu_db *db, const struct mu_stmt *s, const struct mu_val *args, unsigned n,
              mu_row_fn fn, void *arg)
{
    void *prep = NULL;
    int r = check_args(db, s, args, n);
    if (r == 0) {
        r = find_stmt(db, s, &prep);
    }
    return r < 0 ? r : db->driver->run(db, s, prep, args, n, fn, arg);
}

int mu_db_send(struct mu_db *db, const struct mu_stmt *s, const struct mu_val *args, unsigned n,
               int expect)
{
    void *prep = NULL;
    int r = check_args(db, s, args, n);
    if (r == 0) {
        r = find_stmt(db, s, &prep);
    }
    return r < 0 ? r : db->driver->send(db, s, prep, args, n, expect);
}

int mu_db_flush(struct mu_db *db)
{
    return db->driver->flush(db);
}

/* --- transactions --- */

int mu_db_begin(struct mu_db *db, bool write)
{
    db->trouble = 0;
    return db->driver->control(db, write ? MU_DB_BEGIN_WRITE : MU_DB_BEGIN_READ);
}

int mu_db_commit(struct mu_db *db)
{
    return db->driver->control(db, MU_DB_COMMIT);
}

void mu_db_rollback(struct mu_db *db)
{
    db->driver->rollback(db);
}

int mu_db_savepoint(struct mu_db *db)
{
    return db->driver->control(db, MU_DB_SAVEPOINT);
}

int mu_db_release(struct mu_db *db)
{
    return db->driver->control(db, MU_DB_RELEASE);
}

int mu_db_rollback_to(struct mu_db *db)
{
    return db->driver->control(db, MU_DB_ROLLBACK_TO);
}

int mu_db_script(struct mu_db *db, const char *sql)
{
    return db->driver->script(db, sql);
}

void mu_db_checkpoint(struct mu_db *db)
{
    db->driver->checkpoint(db);
}

/* --- rows --- */

bool mu_row_null(struct mu_row *r, int col)
{
    return r->driver->row_null(r, col);
}

int64_t mu_row_i64(struct mu_row *r, int col)
{
    return r->driver->row_i64(r, col);
}

mu_bytes mu_row_bytes(struct mu_row *r, int col)
{
    return r->driver->row_bytes(r, col);
}

int mu_row_take_i64(void *arg, struct mu_row *row)
{
    *(int64_t *)arg = mu_row_i64(row, 0);
    return 0;
}

int mu_row_take_id(void *arg, struct mu_row *row)
{
    return mu_id_parse(mu_row_bytes(row, 0), NULL, arg);
}
