/* Enrolment tokens, listed and revoked (ours): their text is never shown again. */
#include <errno.h>

#include "db/reader.h"
#include "face/fleet/fleet_int.h"

/* Whose: every org's is "*", for the administrator; answered when false. */
static bool whose(struct mu_call *c, mu_bytes asked, mu_bytes *ret)
{
    *ret = MU_B("*");
    return (mu_call_principal(c)->admin && !asked.ptr) ||
           mu_sess_org(c, asked.ptr ? asked : MU_B("me"), ret);
}

/* --- GET /runner-enrolments --- */

struct listing {
    struct mu_read read;
    struct mu_call *c;
    struct mu_arena arena; /* its own: it is filled on a reader thread */
    mu_bytes org;
    bool over;
    int64_t now_ms;
    struct mu_enrolment *rows;
    size_t n;
};

static int list_run(struct mu_read *r, struct mu_db *db)
{
    struct listing *l = MU_CONTAINER(r, struct listing, read);
    return mu_enrolment_list(db, &l->arena, l->org, l->over, l->now_ms, &l->rows, &l->n);
}

static const char *status_of(const struct mu_enrolment *e, int64_t now_ms)
{
    return e->revoked_ms                              ? "revoked"
           : e->uses_left <= 0                        ? "used"
           : e->expires_ms && e->expires_ms <= now_ms ? "expired"
                                                      : "active";
}

static void write_one(struct mu_json_w *w, const struct mu_enrolment *e, int64_t now_ms)
{
    mu_jw_obj(w);
    mu_sess_prefixed(w, "enrolmentId", "enr_", mu_id_bytes(&e->id));
    mu_jw_kstr(w, "name", e->name);
    mu_jw_kstr(w, "prefix", e->prefix);
    if (e->org_id.len) {
        mu_jw_kstr(w, "orgId", e->org_id);
    }
    mu_jw_kbool(w, "shared", e->org_id.len == 0);
    mu_jw_kcstr(w, "status", status_of(e, now_ms));
    mu_jw_ki64(w, "usesLeft", MU_MAX(e->uses_left, (int64_t)0));
    mu_jw_ktime(w, "createdAt", e->created_ms);
    if (e->expires_ms) {
        mu_jw_ktime(w, "expiresAt", e->expires_ms);
    }
    if (e->last_used_ms) {
        mu_jw_ktime(w, "lastUsedAt", e->last_used_ms);
    }
    if (e->revoked_ms) {
        mu_jw_ktime(w, "revokedAt", e->revoked_ms);
    }
    mu_jw_obj_end(w);
}

static void list_done(struct mu_read *r, int result)
{
    struct listing *l = MU_CONTAINER(r, struct listing, read);
    struct mu_arena arena = l->arena;
    struct mu_call *c = l->c;
    if (result < 0) {
        mu_call_fail(c, result);
    } else {
        struct mu_json_w w = mu_call_data(c);
        mu_jw_obj(&w);
        mu_jw_key(&w, "items");
        mu_jw_arr(&w);
        for (size_t i = 0; i < l->n; i++) {
            write_one(&w, &l->rows[i], l->now_ms);
        }
        mu_jw_arr_end(&w);
        mu_jw_obj_end(&w);
        mu_call_data_send(c, 200, NULL, 0);
    }
    mu_arena_fini(&arena);
}

static void list_enrolments(struct mu_call *c)
{
    struct listing *l = mu_call_new(c, sizeof *l);
    if (!l || !whose(c, mu_call_query(c, "orgId", 0), &l->org)) {
        return;
    }
    mu_arena_init(&l->arena, 8 << 20);
    l->c = c;
    l->over = mu_bytes_is(mu_call_query(c, "all", 0), "true");
    l->now_ms = mu_env_wall_ms(mu_sess_oz(c)->env);
    l->read = (struct mu_read){.run = list_run, .done = list_done, .loop = mu_call_loop(c)};
    int r = mu_readers_submit(mu_sess_oz(c)->readers, &l->read);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

/* --- DELETE /runner-enrolments/{id} --- */

static void revoked(struct mu_enrolment_revoke *op, int result)
{
    struct mu_call *c = op->ctx;
    if (result == MU_E_NOT_FOUND) {
        mu_call_error(c, 404, "ENROLMENT_NOT_FOUND", NULL, "There is no such enrolment token");
        return;
    }
    if (result < 0) {
        mu_call_fail(c, result);
        return;
    }
    struct mu_json_w w = mu_call_data(c);
    mu_jw_obj(&w);
    mu_sess_prefixed(&w, "enrolmentId", "enr_", mu_id_bytes(&op->id));
    mu_jw_kcstr(&w, "status", "revoked");
    mu_jw_obj_end(&w);
    mu_call_data_send(c, 200, NULL, 0);
}

static void revoke_enrolment(struct mu_call *c)
{
    struct mu_enrolment_revoke *op = mu_call_new(c, sizeof *op);
    if (!op || !whose(c, MU_B_NONE, &op->org_id)) {
        return;
    }
    op->unit.loop = mu_call_loop(c);
    op->done = revoked;
    op->ctx = c;
    if (mu_id_parse(mu_call_param(c, "enrolmentId"), "enr_", &op->id) < 0) {
        revoked(op, MU_E_NOT_FOUND);
        return;
    }
    int r = mu_enrolment_revoke(mu_sess_oz(c)->identity, op);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

static const struct mu_schema list_query[] = {
    {.name = "orgId",
     .type = MU_S_STRING,
     .min = 1,
     .max = 200,
     .doc = "The caller's own; the administrator's default is every org's and the shared ones."},
    {.name = "all",
     .type = MU_S_STRING,
     .words = "true false",
     .doc = "Also those that are used up, expired or revoked."},
    {0}};

const struct mu_route mu_fleet_enrolment_routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/v1/runner-enrolments",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .role = MU_ROLE_ORG_ADMIN,
     .query = list_query,
     .handler = list_enrolments,
     .id = "listRunnerEnrolments",
     .summary = "Enrolment tokens that can still be used, newest first, at most 1000.",
     .response = "RunnerEnrolmentList"},
    {.method = MU_HTTP_DELETE,
     .path = "/api/v1/runner-enrolments/{enrolmentId}",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .role = MU_ROLE_ORG_ADMIN,
     .flags = MU_ROUTE_WRITES,
     .handler = revoke_enrolment,
     .id = "revokeRunnerEnrolment",
     .summary = "Nobody enrols with it any more; runners that did stay.",
     .response = "RunnerEnrolmentRevoked",
     .errors = "ENROLMENT_NOT_FOUND"},
    {.path = NULL}};
