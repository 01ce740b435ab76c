/* One session, and its events. Reader threads. */
#include <errno.h>
#include <stdio.h>

#include "app/sessions/query_int.h"
#include "app/sessions/statements_int.h"
#include "base/clip.h"

/* The columns of a view, in the order of mu_session_view_read(). */
#define VIEW_COLUMNS                                                                               \
    "s.id, s.org_id, s.creator, s.view, s.source, s.state, s.outcome, s.end_reason, s.route, "     \
    "s.harness, s.model, s.name, s.title, "                                                        \
    "s.skill, s.environment_id, s.conversation_id, s.schedule_id, s.worker_id, s.epoch, s.tries, " \
    "s.rev, s.queued_ms, "                                                                         \
    "s.saturated_ms, s.deadline_ms, s.created_ms, s.started_ms, s.running_ms, s.stop_ms, "         \
    "s.ended_ms, s.updated_ms, s.exit_code, "                                                      \
    "s.tokens_in, s.tokens_out, s.api_calls, s.compute_ms, s.limit_ms, s.paused_ms, "              \
    "s.run_deadline_ms, s.mode, s.parent_id, s.pin_worker_id, s.wait_ms, p.prompt_bytes, "         \
    "p.prompt_head, p.spec, x.message_head, "                                                      \
    "x.error_code, x.error_message, "                                                              \
    "x.session_link, x.provider, x.artifacts, x.output_bytes, x.output_truncated"
#define VIEW_JOINS                                                                                 \
    "JOIN session_specs p ON p.session_id = s.id LEFT JOIN session_results x ON x.session_id = "   \
    "s.id"

static const struct mu_stmt q_get = {
    "get", "t",
    "SELECT " VIEW_COLUMNS
    ", p.prompt_rest, x.output, a.provider, a.model, x.diff, t.last_seq, (SELECT count(*) FROM "
    "attempts e WHERE e.session_id = s.id AND (e.kind = 1 OR e.acked_ms IS NOT NULL)) FROM "
    "sessions s " VIEW_JOINS
    " LEFT JOIN streams t ON t.id = s.id LEFT JOIN attempts a ON a.session_id = s.id AND a.epoch = "
    "s.epoch AND a.ended_ms IS NULL WHERE s.id = $1",
    NULL};
static const struct mu_stmt q_row = {
    "get_row", "t", "SELECT " VIEW_COLUMNS " FROM sessions s " VIEW_JOINS " WHERE s.id = $1", NULL};
/* Each engine is led to walk the page's index entries and look the rest up by key: SQLite sorts a
 * page that comes out of a subquery; PostgreSQL's generic plan does not know how short the page is
 * and would hash the whole table of results. */
#define LIST(where)                                                                                \
    "SELECT " VIEW_COLUMNS " FROM sessions s CROSS JOIN session_specs p ON p.session_id = s.id "   \
    "LEFT JOIN session_results x ON x.session_id = s.id WHERE " where                              \
    " ORDER BY s.id DESC LIMIT $3"
#define LIST_PG(where)                                                                             \
    "SELECT " VIEW_COLUMNS " FROM (SELECT * FROM sessions s WHERE " where                          \
    " ORDER BY id DESC LIMIT $3) s JOIN LATERAL (SELECT * FROM session_specs sp WHERE "            \
    "sp.session_id = s.id LIMIT 1) p ON TRUE LEFT JOIN LATERAL (SELECT * FROM session_results sr " \
    "WHERE sr.session_id = s.id LIMIT 1) x ON TRUE ORDER BY s.id DESC"
static const struct mu_stmt q_list = {"list", "ttii",
                                      LIST("s.org_id = $1 AND s.view = $4 AND s.id < $2"),
                                      LIST_PG("s.org_id = $1 AND s.view = $4 AND s.id < $2")};
static const struct mu_stmt q_list_all = {"list_all", "ttii",
                                          LIST("s.id < $2 AND s.view = $4 AND $1 = ''"),
                                          LIST_PG("s.id < $2 AND s.view = $4 AND $1 = ''")};
static const struct mu_stmt q_chunks = {
    /* one a second at most: a day's are few enough, and their bytes are bounded */
    "chunks", "t",
    "SELECT bytes FROM output_chunks WHERE session_id = $1 ORDER BY pos LIMIT 100000", NULL};
static const struct mu_stmt q_files_of = {
    "files_of", "t",
    "SELECT s.org_id, s.ended_ms, x.output_bytes FROM sessions s LEFT JOIN session_results x ON "
    "x.session_id = s.id WHERE s.id = $1",
    NULL};
static const struct mu_stmt q_files = {
    "session_files", "t",
    "SELECT id, name, media_type, bytes, sha256, created_ms FROM files WHERE session_id = $1 ORDER "
    "BY id LIMIT 1000",
    NULL};
static const struct mu_stmt q_stream = {
    "stream_range", "t", "SELECT first_seq, last_seq FROM streams WHERE id = $1", NULL};
static const struct mu_stmt q_replay = {
    "replay", "tii",
    "SELECT seq, type, at_ms, data, actor FROM events WHERE stream_id "
    "= $1 AND seq > $2 ORDER BY seq LIMIT $3",
    NULL};

void mu_session_view_read(struct mu_row *r, struct mu_session_view *v)
{
    mu_bytes *const texts1[] = {&v->harness,         &v->model,       &v->name,
                                &v->title,           &v->skill,       &v->environment_id,
                                &v->conversation_id, &v->schedule_id, &v->worker_id};
    int64_t *const times[] = {&v->rev,        &v->queued_ms,  &v->saturated_ms, &v->deadline_ms,
                              &v->created_ms, &v->started_ms, &v->running_ms,   &v->stop_ms,
                              &v->ended_ms,   &v->updated_ms};
    int *const ints[] = {&v->view, &v->source, &v->state, &v->outcome, &v->end_reason, &v->route};
    mu_bytes *const texts2[] = {&v->message_head, &v->error_code, &v->error_message,
                                &v->session_link, &v->provider,   &v->artifacts};
    *v = (struct mu_session_view){
        .id = mu_row_bytes(r, 0), .org_id = mu_row_bytes(r, 1), .creator = mu_row_bytes(r, 2)};
    int col = 3;
    for (size_t i = 0; i < MU_ARRAY_LEN(ints); i++) {
        *ints[i] = (int)mu_row_i64(r, col++);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(texts1); i++) {
        *texts1[i] = mu_row_bytes(r, col++);
    }
    v->epoch = mu_row_i64(r, col++);
    v->tries = (int)mu_row_i64(r, col++);
    for (size_t i = 0; i < MU_ARRAY_LEN(times); i++) {
        *times[i] = mu_row_i64(r, col++);
    }
    v->has_exit_code = !mu_row_null(r, col);
    v->exit_code = mu_row_i64(r, col++);
    v->tokens_in = mu_row_i64(r, col++);
    v->tokens_out = mu_row_i64(r, col++);
    int64_t *const more[] = {&v->api_calls, &v->compute_ms, &v->limit_ms, &v->paused_ms,
                             &v->run_deadline_ms};
    for (size_t i = 0; i < MU_ARRAY_LEN(more); i++) {
        *more[i] = mu_row_i64(r, col++);
    }
    v->mode = (int)mu_row_i64(r, col++);
    v->parent_id = mu_row_bytes(r, col++);
    v->pin_worker_id = mu_row_bytes(r, col++);
    v->wait_ms = mu_row_i64(r, col++);
    v->prompt_bytes = mu_row_i64(r, col++);
    v->prompt_head = mu_row_bytes(r, col++);
    v->spec = mu_row_bytes(r, col++);
    for (size_t i = 0; i < MU_ARRAY_LEN(texts2); i++) {
        *texts2[i] = mu_row_bytes(r, col++);
    }
    v->output_bytes = mu_row_i64(r, col++);
    v->output_truncated = mu_row_i64(r, col++) != 0;
    MU_CHECK(col == MU_VIEW_COLUMN_COUNT);
}

/* --- get --- */

struct got {
    struct mu_session_get *op;
    struct mu_buf chunks; /* read first: the row's own texts must stay valid beside them */
    bool foreign;
};

static int add_chunk(void *arg, struct mu_row *row)
{
    struct mu_buf *b = arg;
    mu_buf_add(b, mu_row_bytes(row, 0));
    return b->failed;
}

static int take_view(void *arg, struct mu_row *row)
{
    struct got *g = arg;
    struct mu_session_view v;
    mu_session_view_read(row, &v);
    if (!g->op->admin && !mu_bytes_eq(v.org_id, g->op->org_id)) {
        g->foreign = true;
        return 0;
    }
    v.prompt_rest = mu_row_bytes(row, MU_VIEW_COLUMN_COUNT);
    v.output = mu_row_bytes(row, MU_VIEW_COLUMN_COUNT + 1);
    v.attempt_provider = mu_row_bytes(row, MU_VIEW_COLUMN_COUNT + 2);
    v.attempt_model = mu_row_bytes(row, MU_VIEW_COLUMN_COUNT + 3);
    v.diff = mu_row_bytes(row, MU_VIEW_COLUMN_COUNT + 4);
    v.last_event_seq = mu_row_i64(row, MU_VIEW_COLUMN_COUNT + 5);
    v.executions = mu_row_i64(row, MU_VIEW_COLUMN_COUNT + 6);
    if (!v.output.ptr && v.state >= MU_ST_RUNNING) {
        v.output = mu_buf_bytes(&g->chunks);
        if (g->chunks.len && v.output_bytes == 0) {
            v.output_bytes = (int64_t)g->chunks.len;
        }
    }
    int r = g->op->each(g->op->arg, &v);
    return r < 0 ? r : 0;
}

static int run_get(struct mu_read *read, struct mu_db *db)
{
    struct mu_session_get *op = MU_CONTAINER(read, struct mu_session_get, read);
    struct got g = {.op = op};
    mu_buf_init(&g.chunks, MU_OUTPUT_MAX + (1 << 20));
    int r = MU_DB_RUN(db, &q_chunks, add_chunk, &g.chunks, MU_VT(mu_id_bytes(&op->id)));
    if (r >= 0) {
        r = MU_DB_RUN(db, &q_get, take_view, &g, MU_VT(mu_id_bytes(&op->id)));
    }
    mu_buf_fini(&g.chunks);
    return r < 0 ? r : r == 0 || g.foreign ? MU_E_NOT_FOUND : 0;
}

static void get_done(struct mu_read *read, int result)
{
    struct mu_session_get *op = MU_CONTAINER(read, struct mu_session_get, read);
    op->done(op, result);
}

int mu_session_get(struct mu_sessions *s, struct mu_session_get *op)
{
    op->sessions = s;
    op->read.run = run_get;
    op->read.done = get_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

int mu_session_view_by_id(struct mu_db *db, mu_bytes id, mu_row_fn fn, void *arg)
{
    return MU_DB_RUN(db, &q_row, fn, arg, MU_VT(id));
}

int mu_session_view_page(struct mu_db *db, bool admin, mu_bytes org_id, int view, mu_bytes before,
                         unsigned limit, mu_row_fn fn, void *arg)
{
    return MU_DB_RUN(db, admin ? &q_list_all : &q_list, fn, arg, MU_VT(admin ? MU_B("") : org_id),
                     MU_VT(before), MU_VI(limit), MU_VI(view));
}

/* --- some --- */

static int take_some(void *arg, struct mu_row *row)
{
    struct mu_session_some *op = arg;
    struct mu_session_view v;
    mu_session_view_read(row, &v);
    return op->each(op->arg, &v);
}

static int run_some(struct mu_read *read, struct mu_db *db)
{
    struct mu_session_some *op = MU_CONTAINER(read, struct mu_session_some, read);
    int r = 0;
    for (op->at = 0; op->at < op->n && r >= 0; op->at++) {
        r = mu_session_view_by_id(db, mu_id_bytes(&op->ids[op->at]), take_some, op);
    }
    return MU_MIN(r, 0);
}

static void some_done(struct mu_read *read, int result)
{
    struct mu_session_some *op = MU_CONTAINER(read, struct mu_session_some, read);
    op->done(op, result);
}

int mu_session_some(struct mu_sessions *s, struct mu_session_some *op)
{
    op->read.run = run_some;
    op->read.done = some_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

/* --- files --- */

static int take_session(void *arg, struct mu_row *row)
{
    struct mu_session_files *op = arg;
    op->allowed = op->admin || mu_bytes_eq(mu_row_bytes(row, 0), op->org_id);
    op->ended_ms = mu_row_i64(row, 1);
    op->output_bytes = mu_row_i64(row, 2);
    return 0;
}

static int take_file(void *arg, struct mu_row *row)
{
    struct mu_session_files *op = arg;
    struct mu_session_file f = {.id = mu_row_bytes(row, 0),
                                .name = mu_row_bytes(row, 1),
                                .media_type = mu_row_bytes(row, 2),
                                .bytes = mu_row_i64(row, 3),
                                .sha256 = mu_row_bytes(row, 4),
                                .created_ms = mu_row_i64(row, 5)};
    return op->each(op->arg, &f);
}

static int run_files(struct mu_read *read, struct mu_db *db)
{
    struct mu_session_files *op = MU_CONTAINER(read, struct mu_session_files, read);
    op->allowed = false;
    int r = MU_DB_RUN(db, &q_files_of, take_session, op, MU_VT(mu_id_bytes(&op->id)));
    if (r < 0) {
        return r;
    }
    if (!op->allowed) {
        return MU_E_NOT_FOUND;
    }
    r = MU_DB_RUN(db, &q_files, take_file, op, MU_VT(mu_id_bytes(&op->id)));
    return r < 0 ? r : 0;
}

static void files_done(struct mu_read *read, int result)
{
    struct mu_session_files *op = MU_CONTAINER(read, struct mu_session_files, read);
    op->done(op, result);
}

int mu_session_files(struct mu_sessions *s, struct mu_session_files *op)
{
    op->sessions = s;
    op->read.run = run_files;
    op->read.done = files_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

/* --- events --- */

static int take_range(void *arg, struct mu_row *row)
{
    struct mu_session_events *op = arg;
    op->first_seq = mu_row_i64(row, 0);
    op->last_seq = mu_row_i64(row, 1);
    return 0;
}

static int take_event(void *arg, struct mu_row *row)
{
    struct mu_session_events *op = arg;
    struct mu_session_event e = {mu_row_i64(row, 0), mu_row_i64(row, 2), (int)mu_row_i64(row, 1),
                                 mu_row_bytes(row, 3), mu_row_bytes(row, 4)};
    op->count++;
    return op->each(op->arg, &e);
}

static int run_events(struct mu_read *read, struct mu_db *db)
{
    struct mu_session_events *op = MU_CONTAINER(read, struct mu_session_events, read);
    op->first_seq = op->last_seq = 0;
    op->count = 0;
    int r = MU_DB_RUN(db, &q_stream, take_range, op, MU_VT(mu_id_bytes(&op->id)));
    if (r > 0) {
        r = MU_DB_RUN(db, &q_replay, take_event, op, MU_VT(mu_id_bytes(&op->id)), MU_VI(op->after),
                      MU_VI(op->limit));
    }
    return r < 0 ? r : 0;
}

static void events_done(struct mu_read *read, int result)
{
    struct mu_session_events *op = MU_CONTAINER(read, struct mu_session_events, read);
    op->done(op, result);
}

int mu_session_events(struct mu_sessions *s, struct mu_session_events *op)
{
    op->sessions = s;
    op->read.run = run_events;
    op->read.done = events_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

/* --- start-up --- */

struct live {
    int (*each)(void *arg, const struct mu_live_row *row);
    void *arg;
    int64_t deadline_ms;
    char id[MU_ID_LEN + 1];
};

static int take_live(void *arg, struct mu_row *r)
{
    struct live *l = arg;
    struct mu_live_row row = {.id = mu_row_bytes(r, 0),
                              .org_id = mu_row_bytes(r, 1),
                              .harness = mu_row_bytes(r, 2),
                              .model = mu_row_bytes(r, 3),
                              .state = (int)mu_row_i64(r, 4),
                              .route = (int)mu_row_i64(r, 5),
                              .tries = (int)mu_row_i64(r, 6),
                              .queued_ms = mu_row_i64(r, 7),
                              .epoch = mu_row_i64(r, 8),
                              .deadline_ms = mu_row_i64(r, 9),
                              .saturated_ms = mu_row_i64(r, 10),
                              .pin_worker_id = mu_row_bytes(r, 11),
                              .needs = mu_row_i64(r, 12)};
    l->deadline_ms = row.deadline_ms;
    snprintf(l->id, sizeof l->id, "%.*s", MU_ARGS(row.id));
    return l->each(l->arg, &row);
}

static const struct mu_stmt q_live_all = {
    "live_all", "it",
    "SELECT id, org_id, harness, model, state, route, tries, queued_ms, epoch, deadline_ms, "
    "saturated_ms, pin_worker_id, needs FROM sessions WHERE "
    "ended_ms IS NULL AND (deadline_ms, id) > ($1, $2) ORDER BY deadline_ms, id LIMIT 1000",
    NULL};

int mu_sessions_each_live(struct mu_db *db, int (*each)(void *arg, const struct mu_live_row *row),
                          void *arg)
{
    struct live l = {each, arg, INT64_MIN, ""};
    for (;;) {
        char after[MU_ID_LEN + 1];
        memcpy(after, l.id, sizeof after);
        int r =
            MU_DB_RUN(db, &q_live_all, take_live, &l, MU_VI(l.deadline_ms), MU_VT(mu_str(after)));
        if (r < 1000) {
            return r < 0 ? r : 0;
        }
    }
}

const struct mu_planned mu_query_planned[] = {
    {&q_list, "sessions_org"},
    {&q_live_all, "sessions_due"},
    {&q_files, "files_session"},
    {NULL, NULL},
};
