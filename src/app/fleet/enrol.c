/* Workers that register (village-control-plane.md 6.3): with an enrolment token, or again with
 * their own credential. The record, its first event and the credential are one commit. */
#include <errno.h>
#include <stdio.h>

#include "app/fleet/fleet_int.h"

static const struct mu_stmt q_new = {
    "worker_new", "tttttiti",
    "INSERT INTO workers (id, org_id, kind, hostname, caps, version, capacity, meta, seen_ms, "
    "created_ms) VALUES ($1, $2, 3, $3, $4, $5, $6, $7, $8, $8)",
    NULL};
static const struct mu_stmt q_again = {
    "worker_again", "tttiti",
    "UPDATE workers SET caps = coalesce($2, caps), version = coalesce($3, version), capacity = "
    "coalesce($4, capacity), meta = coalesce($5, meta), seen_ms = $6 WHERE id = $1 AND removed_ms "
    "IS NULL",
    NULL};

static mu_bytes or_empty(mu_bytes json)
{
    return json.ptr ? json : MU_B("{}");
}

static int store_row(struct mu_tx *tx, struct mu_fleet_register *op)
{
    mu_bytes uid = mu_id_bytes(&op->uid), org = mu_str(op->org_id);
    if (op->created) {
        return MU_TX_SEND(tx, &q_new, 1, MU_VT(uid), org.len ? MU_VT(org) : MU_VNULL,
                          MU_VT(op->host), MU_VT(or_empty(op->caps)),
                          MU_VT(op->version.ptr ? op->version : MU_B("")), MU_VI(op->capacity),
                          MU_VT(or_empty(op->meta)), MU_VI(op->now_ms));
    }
    int r = org.len ? 0 : mu_store_seed(tx, &op->uid, op->host, op->now_ms);
    if (r >= 0) {
        r = MU_TX_RUN(tx, &q_again, NULL, NULL, MU_VT(uid), MU_VTOPT(op->caps),
                      MU_VTOPT(op->version), op->capacity >= 0 ? MU_VI(op->capacity) : MU_VNULL,
                      MU_VTOPT(op->meta), MU_VI(op->now_ms));
    }
    return r < 0 ? r : r == 0 ? MU_E_NOT_FOUND : 0;
}

static int run_register(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_fleet_register *op = MU_CONTAINER(u, struct mu_fleet_register, unit);
    int r = 0;
    if (op->enrolment.text[0]) {
        r = mu_enrolment_take(tx, &op->enrolment, op->now_ms, &op->uses_left);
    }
    r = r < 0 ? r : store_row(tx, op);
    if (r >= 0 && op->enrolment.text[0]) {
        r = mu_pass_store(tx, &op->pass, op->host, 0, op->now_ms);
    }
    if (r >= 0 && op->created) {
        r = mu_worker_event(tx, op->stream, op->org_id, MU_EV_RUNNER_REGISTERED, op->now_ms,
                            MU_B("runner"), mu_str(op->event));
    }
    return MU_MIN(r, 0);
}

static void done_there(struct mu_post *post)
{
    struct mu_fleet_register *op = MU_CONTAINER(post, struct mu_fleet_register, post);
    op->done(op, op->result);
}

static void answer(struct mu_fleet_register *op, int result)
{
    op->result = result;
    op->post.fn = done_there;
    mu_loop_post(op->loop, &op->post);
}

static void replace(char **dst, mu_bytes src)
{
    char *copy = src.ptr ? mu_bytes_dup(src) : NULL;
    if (copy) { /* else it is as before until it says so again */
        mu_free(*dst);
        *dst = copy;
    }
}

static void take_over(struct mu_worker *w, const struct mu_fleet_register *op)
{
    replace(&w->caps, op->caps);
    replace(&w->version, op->version);
    replace(&w->meta, op->meta);
    if (op->caps.ptr) {
        w->offers = mu_needs_offered(op->caps);
    }
    w->capacity = op->capacity >= 0 ? op->capacity : w->capacity;
    w->seen_ms = op->now_ms;
    w->stored = true;
    mu_worker_know(w);
    mu_log(MU_LOG_INFO, "worker.registered", MU_KC("worker_id", w->name),
           MU_KC("hostname", mu_worker_host(w)), MU_KC("org_id", w->org_id));
    mu_worker_status_look(w);
    mu_worker_update(w);
}

/* One that never came and could not be stored: what may be left is a name that sessions are pinned
 * to, which the next one may register. */
static void unmake(struct mu_worker *w, const struct mu_fleet_register *op)
{
    if (op->created && !w->stored && !w->seen_ms) {
        mu_list_remove(&w->known);
    }
}

static void registered(struct mu_unit *u, int result)
{
    struct mu_fleet_register *op = MU_CONTAINER(u, struct mu_fleet_register, unit);
    struct mu_fleet *f = op->fleet;
    if (op->enrolment.text[0]) {
        mu_identity_pass_settle(f->opts.identity, &op->pass, result >= 0);
    }
    if (result >= 0 && op->enrolment.text[0] && op->uses_left <= 0) {
        mu_identity_enrolment_used(f->opts.identity, &op->enrolment);
    }
    if (f->ended) {
        answer(op, result < 0 ? result : MU_E_SHUTDOWN);
        return;
    }
    struct mu_worker *w = op->worker;
    w->changing--;
    if (result >= 0) {
        take_over(w, op);
    } else {
        unmake(w, op);
    }
    mu_worker_forget(w);
    answer(op, MU_MIN(result, 0));
}

/* A record that is not stored yet. */
static int make(struct mu_fleet *f, struct mu_fleet_register *op, struct mu_worker **ret)
{
    size_t of_org = 0, all = 0;
    MU_LIST_EACH(it, tmp, &f->known)
    {
        const struct mu_worker *w = MU_CONTAINER(it, struct mu_worker, known);
        all++;
        of_org += op->org_id[0] && strcmp(w->org_id, op->org_id) == 0;
    }
    if ((int64_t)all >= f->opts.max_workers) {
        return MU_E_SATURATED;
    }
    if ((int64_t)of_org >= f->opts.max_org_workers) {
        return MU_E_LIMIT;
    }
    char key[8 + MU_ID_LEN];
    struct mu_id uid = mu_id_new(f->opts.env, NULL);
    snprintf(key, sizeof key, "rnr_%s", uid.text);
    char *host = op->org_id[0] ? mu_bytes_dup(op->host) : NULL;
    int r = op->org_id[0] && !host ? -ENOMEM : mu_worker_get(f, host ? mu_str(key) : op->host, ret);
    if (r < 0) {
        mu_free(host);
        return r;
    }
    struct mu_worker *w = *ret;
    if (host) {
        w->uid = uid;
        w->host = host;
        snprintf(w->org_id, sizeof w->org_id, "%s", op->org_id);
        f->n_owned++;
    }
    mu_worker_know(w); /* counts at once: two that come together are not one too many */
    return 0;
}

static int choose(struct mu_fleet *f, struct mu_fleet_register *op, struct mu_worker **ret)
{
    struct mu_worker *by_host = op->host.ptr ? mu_fleet_by_host(f, op->org_id, op->host) : NULL;
    op->created = false;
    if (op->runner.text[0]) {
        *ret = mu_fleet_by_uid(f, &op->runner);
        return !*ret || (*ret)->leaving                                       ? MU_E_NOT_FOUND
               : op->host.ptr && !mu_bytes_is(op->host, mu_worker_host(*ret)) ? MU_E_CONFLICT
                                                                              : 0;
    }
    if (by_host && !mu_list_empty(&by_host->known)) {
        *ret = by_host;
        /* one is being made of that name just now, or goes */
        return by_host->leaving || !by_host->stored ? MU_E_BUSY : 0;
    }
    op->created = true;
    return make(f, op, ret);
}

static int begin(struct mu_fleet *f, struct mu_fleet_register *op)
{
    struct mu_worker *w;
    int r = f->stopping ? MU_E_SHUTDOWN : choose(f, op, &w);
    if (r < 0) {
        return r;
    }
    op->worker = w;
    op->uid = w->uid;
    op->host = mu_str(mu_worker_host(w));
    op->now_ms = mu_fleet_now(f);
    if (op->capacity < 0 && op->created) {
        op->capacity = f->opts.default_capacity;
    }
    snprintf(op->org_id, sizeof op->org_id, "%s", w->org_id);
    snprintf(op->stream, sizeof op->stream, "worker:%s", op->uid.text);
    mu_worker_event_text(w, MU_WORKER_ONLINE, false, MU_B_NONE, op->event, sizeof op->event);
    op->pass = (struct mu_pass){.kind = MU_PASS_WORKER, .subject = op->uid};
    memcpy(op->pass.org_id, op->org_id, sizeof op->pass.org_id);
    op->unit.run = run_register;
    op->unit.done = registered;
    op->unit.loop = f->opts.core;
    if (op->enrolment.text[0]) {
        r = mu_identity_pass_new(f->opts.identity, &op->pass);
    }
    if (r >= 0) {
        w->changing++;
        r = mu_writer_submit(f->opts.writer, &op->unit);
        if (r < 0) {
            w->changing--;
            if (op->enrolment.text[0]) {
                mu_identity_pass_settle(f->opts.identity, &op->pass, false);
            }
        }
    }
    if (r < 0) {
        unmake(w, op);
        mu_worker_forget(w);
    }
    return r;
}

static void register_here(struct mu_post *post)
{
    struct mu_fleet_register *op = MU_CONTAINER(post, struct mu_fleet_register, post);
    int r = op->fleet->ended ? MU_E_SHUTDOWN : begin(op->fleet, op);
    if (r < 0) {
        answer(op, r);
    }
}

void mu_fleet_register(struct mu_fleet *f, struct mu_fleet_register *op)
{
    op->fleet = f;
    op->post.fn = register_here;
    mu_loop_post(f->opts.core, &op->post);
}
