/* The schedules as a resource: create, replace, pause, resume, delete, read. Firing is in fire.c.
 */
#include <errno.h>
#include <stdio.h>

#include "app/schedules/schedules_int.h"
#include "proto/json.h"

enum { SPEC_ARENA_MAX = 128 << 20 };

#define COLUMNS                                                                                    \
    "id, org_id, creator, name, cron, spec, enabled, next_ms, last_ms, last_error, created_ms, "   \
    "updated_ms, admin"

static const struct mu_stmt q_new = {
    "sched_new", "ttttttiiii",
    "INSERT INTO schedules (id, org_id, creator, name, cron, spec, enabled, admin, next_ms, "
    "created_ms, updated_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)",
    NULL};
static const struct mu_stmt q_count = {"sched_count", "t",
                                       "SELECT count(*) FROM schedules WHERE org_id = $1", NULL};
static const struct mu_stmt q_put = {"sched_put", "ttttiii",
                                     "UPDATE schedules SET name = $2, cron = $3, spec = $4, "
                                     "enabled = $5, next_ms = $6, updated_ms = $7 WHERE id = $1",
                                     NULL};
static const struct mu_stmt q_enable = {
    "sched_enable", "tiii",
    "UPDATE schedules SET enabled = $2, next_ms = $3, updated_ms = $4 WHERE id = $1", NULL};
static const struct mu_stmt q_del = {"sched_del", "t", "DELETE FROM schedules WHERE id = $1", NULL};
static const struct mu_stmt q_one = {"sched_get", "t",
                                     "SELECT " COLUMNS " FROM schedules WHERE id = $1", NULL};
static const struct mu_stmt q_environment = {
    "sched_env", "tti",
    "SELECT name, image, spec FROM environments WHERE id = $1 AND deleted_ms IS NULL AND (org_id = "
    "$2 OR org_id IS NULL OR $3 = 1)",
    NULL};
static const struct mu_stmt q_list = {
    "sched_list", "t",
    "SELECT " COLUMNS " FROM schedules WHERE org_id = $1 ORDER BY name, id LIMIT 1000", NULL};
static const struct mu_stmt q_all = {
    "sched_all", "t",
    "SELECT " COLUMNS " FROM schedules WHERE $1 = '' ORDER BY name, id LIMIT 1000", NULL};

static void view_of(struct mu_row *r, struct mu_schedule_view *v)
{
    *v = (struct mu_schedule_view){.id = mu_row_bytes(r, 0),
                                   .org_id = mu_row_bytes(r, 1),
                                   .creator = mu_row_bytes(r, 2),
                                   .name = mu_row_bytes(r, 3),
                                   .cron = mu_row_bytes(r, 4),
                                   .spec = mu_row_bytes(r, 5),
                                   .enabled = mu_row_i64(r, 6) != 0,
                                   .next_ms = mu_row_i64(r, 7),
                                   .last_ms = mu_row_i64(r, 8),
                                   .last_error = mu_row_bytes(r, 9),
                                   .created_ms = mu_row_i64(r, 10),
                                   .updated_ms = mu_row_i64(r, 11)};
}

/* --- one schedule with its environment --- */

struct showing {
    struct mu_db *db;
    struct mu_schedule_view view;
    int (*each)(void *arg, const struct mu_schedule_view *v);
    void *arg;
};

static int take_environment(void *arg, struct mu_row *row)
{
    struct showing *s = arg;
    s->view.env_name = mu_row_bytes(row, 0);
    s->view.env_image = mu_row_bytes(row, 1);
    s->view.env_spec = mu_row_bytes(row, 2);
    return s->each(s->arg, &s->view);
}

static int show(struct mu_db *db, struct mu_row *row,
                int (*each)(void *arg, const struct mu_schedule_view *v), void *arg)
{
    struct showing s = {.db = db, .each = each, .arg = arg};
    struct mu_arena a;
    yyjson_val *spec = NULL;
    struct mu_id id;
    static const struct mu_json_limits limits = {.max_bytes = 4 << 20, .max_depth = 80};
    view_of(row, &s.view);
    mu_arena_init(&a, SPEC_ARENA_MAX);
    int r = mu_json_read(&a, s.view.spec, &limits, &spec, NULL);
    mu_bytes named =
        mu_bytes_trim(mu_json_get_bytes(mu_json_get(spec, "agent_config"), "environment_id"));
    bool record = named.len && mu_id_parse(named, "env_", &id) == 0;
    int found = 0;
    if (r == 0 && record) {
        found = MU_DB_RUN(db, &q_environment, take_environment, &s, MU_VT(mu_id_bytes(&id)),
                          MU_VT(s.view.org_id), MU_VI(mu_row_i64(row, 12) != 0));
    }
    if (r == 0 && found == 0) {
        if (named.len && !mu_bytes_starts(named, MU_B("env_"))) {
            s.view.env_image = named;
        }
        r = each(arg, &s.view);
    }
    mu_arena_fini(&a);
    return r < 0 ? r : MU_MIN(found, 0);
}

/* --- writing --- */

struct before {
    struct mu_schedule_write *op;
    bool foreign;
    struct mu_cron cron;
    bool cron_ok;
};

static int take_before(void *arg, struct mu_row *row)
{
    struct before *b = arg;
    struct mu_schedule_view v;
    view_of(row, &v);
    b->foreign = !b->op->who->admin && !mu_bytes_is(v.org_id, b->op->who->org_id);
    b->cron_ok = mu_cron_parse(v.cron, &b->cron, NULL) == 0;
    return 0;
}

struct after {
    struct mu_schedule_write *op;
    struct mu_db *db;
};

static int take_after(void *arg, struct mu_row *row)
{
    const struct after *a = arg;
    return show(a->db, row, a->op->each, a->op->arg);
}

static int write_existing(struct mu_schedule_write *op, struct mu_tx *tx)
{
    struct before b = {.op = op};
    mu_bytes id = mu_id_bytes(&op->id);
    int r = MU_TX_RUN(tx, &q_one, take_before, &b, MU_VT(id));
    if (r <= 0 || b.foreign) {
        return r < 0 ? r : MU_E_NOT_FOUND;
    }
    int64_t next = 0;
    switch (op->what) {
    case MU_SCHED_REPLACE:
        return MU_TX_SEND(tx, &q_put, 1, MU_VT(id), MU_VT(op->name), MU_VT(op->cron_text),
                          MU_VT(op->spec), MU_VI(op->enabled),
                          MU_VIOPT(op->enabled ? op->next_ms : 0), MU_VI(op->now_ms));
    case MU_SCHED_DELETE:
        return MU_TX_SEND(tx, &q_del, 1, MU_VT(id));
    case MU_SCHED_PAUSE:
        return MU_TX_SEND(tx, &q_enable, 1, MU_VT(id), MU_VI(0), MU_VNULL, MU_VI(op->now_ms));
    default:
        if (b.cron_ok && mu_cron_next(&b.cron, op->now_ms, &next) < 0) {
            next = 0;
        }
        return MU_TX_SEND(tx, &q_enable, 1, MU_VT(id), MU_VI(1), MU_VIOPT(next), MU_VI(op->now_ms));
    }
}

static int write_new(struct mu_schedule_write *op, struct mu_tx *tx)
{
    mu_bytes org = mu_str(op->who->org_id);
    int64_t count = 0;
    int r = mu_identity_store_org(tx, op->who, op->now_ms);
    if (r >= 0) {
        r = MU_TX_RUN(tx, &q_count, mu_row_take_i64, &count, MU_VT(org));
    }
    if (r >= 0 && count >= MU_SCHED_MAX) {
        r = MU_E_LIMIT;
    }
    return r < 0 ? r
                 : MU_TX_SEND(tx, &q_new, 1, MU_VT(mu_id_bytes(&op->id)), MU_VT(org),
                              MU_VT(mu_str(op->who->uid)), MU_VT(op->name), MU_VT(op->cron_text),
                              MU_VT(op->spec), MU_VI(op->enabled), MU_VI(op->who->admin),
                              MU_VIOPT(op->enabled ? op->next_ms : 0), MU_VI(op->now_ms));
}

static int run_write(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_schedule_write *op = MU_CONTAINER(u, struct mu_schedule_write, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    int r = op->what == MU_SCHED_CREATE ? write_new(op, tx) : write_existing(op, tx);
    if (r >= 0 && op->what != MU_SCHED_DELETE) {
        struct after after = {op, mu_tx_db(tx)};
        r = MU_TX_RUN(tx, &q_one, take_after, &after, MU_VT(id));
    }
    return r < 0 ? r : 0;
}

static void write_done(struct mu_unit *u, int result)
{
    struct mu_schedule_write *op = MU_CONTAINER(u, struct mu_schedule_write, unit);
    if (result >= 0 && op->what == MU_SCHED_CREATE) { /* the others did not store it */
        mu_identity_org_stored(op->who);
    }
    op->done(op, result);
}

int mu_schedule_write(struct mu_schedules *s, struct mu_schedule_write *op)
{
    op->schedules = s;
    op->now_ms = mu_env_wall_ms(s->opts.env);
    op->next_ms = 0;
    if (op->what == MU_SCHED_CREATE) {
        op->id = mu_id_new(s->opts.env, NULL);
    }
    if ((op->what == MU_SCHED_CREATE || op->what == MU_SCHED_REPLACE) &&
        mu_cron_next(&op->cron, op->now_ms, &op->next_ms) < 0) {
        return MU_E_INVALID;
    }
    op->unit.run = run_write;
    op->unit.done = write_done;
    op->unit.org_id = mu_str(op->who->org_id);
    return mu_writer_submit(s->opts.writer, &op->unit);
}

/* --- reading --- */

struct reading {
    struct mu_schedule_read *op;
    struct mu_db *db;
};

static int take_read(void *arg, struct mu_row *row)
{
    const struct reading *rd = arg;
    struct mu_schedule_read *op = rd->op;
    struct mu_schedule_view v;
    view_of(row, &v);
    if (!op->admin && !mu_bytes_eq(v.org_id, op->org_id)) {
        op->foreign = true;
        return 0;
    }
    return op->id.text[0] ? show(rd->db, row, op->each, op->arg) : op->each(op->arg, &v);
}

static int run_read(struct mu_read *read, struct mu_db *db)
{
    struct mu_schedule_read *op = MU_CONTAINER(read, struct mu_schedule_read, read);
    struct reading rd = {op, db};
    op->foreign = false;
    if (!op->id.text[0]) {
        int r = op->admin ? MU_DB_RUN(db, &q_all, take_read, &rd, MU_VT(MU_B("")))
                          : MU_DB_RUN(db, &q_list, take_read, &rd, MU_VT(op->org_id));
        return r < 0 ? r : 0;
    }
    int r = MU_DB_RUN(db, &q_one, take_read, &rd, MU_VT(mu_id_bytes(&op->id)));
    return r < 0 ? r : r == 0 || op->foreign ? MU_E_NOT_FOUND : 0;
}

static void read_done(struct mu_read *read, int result)
{
    struct mu_schedule_read *op = MU_CONTAINER(read, struct mu_schedule_read, read);
    op->done(op, result);
}

int mu_schedule_read(struct mu_schedules *s, struct mu_schedule_read *op)
{
    op->schedules = s;
    op->read.run = run_read;
    op->read.done = read_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}
