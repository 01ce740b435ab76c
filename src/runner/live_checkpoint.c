/* When a checkpoint is taken, and how it gets to the server: file by file through the worker, then
 * one message that names them. */
#include "runner/live_checkpoint.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/env.h"
#include "io/folder.h"
#include "runner/live_int.h"
#include "runner/procs_int.h"

enum {
    TAKE_MS = 60000,
    LAST_STORE_MS = 30000,  /* for storing the one at the end */
    LAST_ALONE_MS = 3000,   /* the same while nobody is connected */
    STOP_RESERVE_MS = 3500, /* of a stop's grace: for the agent and what is left to say */
    STOP_LEAST_MS = 500,
    STORE_MS = 10000, /* one that takes longer is not in a hurry */
    /* what a program with a screen makes of what was typed */
    QUIET_MS = 1000,        /* nothing was written for so long: it is made */
    SCREEN_MS = 15000,      /* whatever it writes */
    TYPED_EVERY_MS = 30000, /* for what people type besides prompts */
};
static const int64_t CHAIN_SLACK = 8 << 20;
#define OUT MU_WORKSPACE "/.oz/checkpoint/out/"

int mu_checkpoint_new(struct mu_live *v, struct mu_ck **ret)
{
    struct mu_ck *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return -ENOMEM;
    }
    c->v = v;
    c->dir = c->out = -1;
    *ret = c;
    return 0;
}

struct mu_ck *mu_checkpoint_free(struct mu_ck *c)
{
    if (c) {
        mu_ck_close(c);
        if (c->v->r->ws.oz >= 0) {
            (void)mu_folder_remove_at(c->v->r->ws.oz, "checkpoint");
        }
        mu_free(c);
    }
    return NULL;
}

static void alert(struct mu_live *v, const char *why)
{
    struct mu_buf b;
    struct mu_json_w w;
    mu_note("checkpoint: %s", why);
    /* the category is one of the specification's */
    mu_live_alert_begin(&w, &b, "warn", "performance", "no checkpoint was taken", why);
    mu_jw_kcstr(&w, "kind", "checkpoint");
    mu_live_alert_end(v, &w, &b);
}

void mu_checkpoint_ready(struct mu_live *v)
{
    struct mu_ck *c = v->ckpt;
    char program[4096];
    c->since_s = mu_env_wall_ms(&mu_env_real) / 1000;
    c->no_git = mu_find_program("git", v->r->first_path, program) < 0;
}

static bool is_on(struct mu_live *v)
{
    struct mu_ck *c = v->ckpt;
    if (c->on && c->no_git) { /* told once */
        c->on = false;
        alert(v, "there is no git in the sandbox");
    }
    return c->on;
}

void mu_checkpoint_turn_over(struct mu_live *v, const char *turn)
{
    struct mu_ck *c = v->ckpt;
    if (is_on(v)) {
        c->wanted = true;
        c->wanted_ms = mu_mono_ms();
        snprintf(c->wanted_turn, sizeof c->wanted_turn, "%s", turn);
    }
}

void mu_checkpoint_typed(struct mu_live *v)
{
    struct mu_ck *c = v->ckpt;
    if (is_on(v) && !c->typed_ms) {
        c->typed_ms = mu_mono_ms();
    }
}

/* When nothing has come of it for a while, or it takes too long. */
static int64_t quiet_at(const struct mu_live *v, int64_t since)
{
    return MU_MIN(MU_MAX(since, v->wrote_ms) + QUIET_MS, since + SCREEN_MS);
}

int64_t mu_checkpoint_at(const struct mu_live *v)
{
    const struct mu_ck *c = v->ckpt;
    bool waits = v->turn.step == MU_TURN_WAITS;
    if (v->done || (v->turn.step != MU_TURN_NONE && !waits)) {
        return 0;
    }
    if (c->wanted && v->agent.spoke) {
        return c->wanted_ms;
    }
    if (waits) { /* a screen's prompt does not wait for what the last one brings about */
        return 0;
    }
    if (c->wanted) {
        return quiet_at(v, c->wanted_ms);
    }
    return c->typed_ms && !c->sending
               ? MU_MAX(quiet_at(v, c->typed_ms), c->began_ms + TYPED_EVERY_MS)
               : 0;
}

bool mu_checkpoint_due(const struct mu_live *v)
{
    int64_t at = mu_checkpoint_at(v);
    return at && mu_mono_ms() >= at;
}

bool mu_checkpoint_untidy(const struct mu_live *v)
{
    const struct mu_ck *c = v->ckpt;
    bool waited_for = c->sending && mu_mono_ms() < c->began_ms + STORE_MS;
    return c->untidy && !waited_for && !v->r->procs.stopping && v->turn.step != MU_TURN_WAITS &&
           !mu_checkpoint_at(v);
}

/* --- the message --- */

static void add_root(struct mu_json_w *w, const struct mu_ck_root *root)
{
    const char *const fields[][2] = {{"branch", root->now.branch},
                                     {"head", root->now.head},
                                     {"base", root->base},
                                     {"commit", root->now.commit}};
    mu_jw_obj(w);
    mu_jw_kcstr(w, "kind", mu_ck_kind_name(root->kind));
    mu_jw_kcstr(w, "path", root->dir);
    for (size_t i = 0; i < MU_ARRAY_LEN(fields); i++) {
        if (fields[i][1][0]) {
            mu_jw_kcstr(w, fields[i][0], fields[i][1]);
        }
    }
    if (root->n_shallow) {
        mu_jw_key(w, "shallow");
        mu_jw_arr(w);
        for (size_t i = 0; i < root->n_shallow; i++) {
            mu_jw_str(w, mu_str(root->shallow[i]));
        }
        mu_jw_arr_end(w);
    }
    mu_jw_ki64(w, "parts", root->parts);
    mu_jw_obj_end(w);
}

static void say(struct mu_live *v, struct mu_ck *c)
{
    struct mu_json_w *w = mu_link_begin(&v->link, "checkpoint");
    mu_jw_ki64(w, "number", c->number);
    if (c->turn[0]) {
        mu_jw_kcstr(w, "turnId", c->turn);
    }
    if (c->from) {
        mu_jw_ki64(w, "prev", c->from);
    }
    if (v->agent.conversation[0]) {
        mu_jw_kcstr(w, "conversationId", v->agent.conversation);
    }
    mu_jw_key(w, "roots");
    mu_jw_arr(w);
    for (unsigned order = 0; order < c->taken; order++) {
        for (size_t i = 0; i < c->n_roots; i++) {
            if (c->roots[i].here && c->roots[i].order == order) {
                add_root(w, &c->roots[i]);
            }
        }
    }
    mu_jw_arr_end(w);
    mu_jw_key(w, "parts");
    mu_jw_arr(w);
    for (unsigned i = 0; i < c->n_parts; i++) {
        mu_jw_obj(w);
        mu_jw_kcstr(w, "name", c->parts[i].name);
        mu_jw_ki64(w, "bytes", c->parts[i].bytes);
        mu_jw_kcstr(w, "sha256", c->parts[i].sha256);
        mu_jw_obj_end(w);
    }
    mu_jw_arr_end(w);
    mu_jw_ki64(w, "bytes", c->bytes);
    mu_jw_ki64(w, "durationMs", c->duration_ms);
    mu_link_end(&v->link);
}

/* --- storing --- */

static void let_go(struct mu_ck *c)
{
    c->sending = false;
    c->put = 0;
    for (unsigned i = 0; i < c->n_parts && c->out >= 0; i++) {
        (void)unlinkat(c->out, c->parts[i].name, 0);
    }
    c->n_parts = 0;
}

static void stored(struct mu_live *v, struct mu_ck *c)
{
    say(v, c);
    mu_ck_settle(c);
    let_go(c);
}

static void ask(struct mu_live *v, struct mu_ck *c)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    char path[128];
    const char *name = c->parts[c->at_part].name;
    mu_buf_init(&b, 4096);
    struct mu_json_w w = mu_json_w(&b);
    snprintf(path, sizeof path, OUT "%s", name);
    mu_jw_obj(&w);
    mu_jw_key(&w, "put");
    mu_jw_obj(&w);
    mu_jw_ki64(&w, "id", c->puts + 1);
    mu_jw_kcstr(&w, "path", path);
    mu_jw_kcstr(&w, "name", name);
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
    if (!b.failed && mu_link_put(&v->link, mu_buf_bytes(&b))) {
        c->put = ++c->puts;
        c->put_on = v->link.ups;
    }
}

void mu_checkpoint_serve(struct mu_live *v)
{
    struct mu_ck *c = v->ckpt;
    if (!c->sending) {
        return;
    }
    if (c->at_part == c->n_parts) {
        stored(v, c);
    } else if (v->link.up && (!c->put || c->put_on != v->link.ups)) {
        ask(v, c);
    }
}

void mu_checkpoint_answer(struct mu_live *v, const struct mu_jtok *j)
{
    struct mu_ck *c = v->ckpt;
    char why[300] = "", text[400];
    int put = mu_jtok_get(j, 0, "put");
    int64_t id = mu_jtok_i64(j, mu_jtok_get(j, put, "id"), 0);
    if (!c->sending || id < 1 || id != c->put) {
        return; /* of one that was given up, or asked again */
    }
    struct mu_ck_part *part = &c->parts[c->at_part];
    c->put = 0;
    bool good = mu_jtok_bool(j, mu_jtok_get(j, put, "ok"), false) &&
                mu_jtok_i64(j, mu_jtok_get(j, put, "bytes"), -1) == part->bytes &&
                mu_jtok_copy(j, mu_jtok_get(j, put, "sha256"), part->sha256, sizeof part->sha256);
    if (good) {
        (void)unlinkat(c->out, part->name, 0);
        c->at_part++;
        mu_checkpoint_serve(v);
        return;
    }
    (void)mu_jtok_copy(j, mu_jtok_get(j, put, "error"), why, sizeof why);
    snprintf(text, sizeof text, "%s was not stored: %s", part->name,
             why[0] ? why : "its size is another one");
    let_go(c);
    alert(v, text);
}

void mu_checkpoint_told(struct mu_live *v, const struct mu_jtok *j)
{
    int64_t number = mu_jtok_i64(j, mu_jtok_get(j, 0, "number"), 0);
    bool ok = mu_jtok_bool(j, mu_jtok_get(j, 0, "ok"), true);
    if (!ok && number >= 1 && number <= v->ckpt->number) {
        v->ckpt->prev = 0;
    }
    mu_hold_told(v, number, ok);
}

/* --- taking --- */

static bool chain_is_long(const struct mu_ck *c)
{
    return c->links >= MU_CK_LINKS ||
           (c->chain_bytes > 2 * c->first_bytes && c->chain_bytes > c->first_bytes + CHAIN_SLACK);
}

/* Many were taken and not stored: until one is, each has all of it. */
static void bound_packs(struct mu_ck *c)
{
    for (size_t i = 0; i < c->n_roots; i++) {
        if (c->roots[i].packs >= MU_CK_PACKS) {
            c->prev = 0;
        }
    }
}

/* 0, and c->changed says whether there is anything new. */
static int take(struct mu_live *v, int64_t limit_ms)
{
    struct mu_ck *c = v->ckpt;
    if (c->sending) {
        let_go(c); /* this one has all of it */
    }
    c->number++;
    c->untidy = false; /* what this one leaves when it fails, the next one may use */
    c->began_ms = mu_mono_ms();
    c->deadline = c->began_ms + limit_ms;
    bound_packs(c);
    int r = mu_ck_take(c, chain_is_long(c));
    if (r && mu_mono_ms() < c->deadline) { /* whatever became of our folder */
        let_go(c);
        mu_ck_forget(c);
        r = mu_ck_take(c, true);
    }
    c->duration_ms = mu_mono_ms() - c->began_ms;
    c->untidy = !r;
    c->tidy_root = 0;
    c->tidy_at = 0;
    if (r) {
        let_go(c);
        alert(v, c->why);
    }
    return r;
}

void mu_checkpoint_take(struct mu_live *v)
{
    struct mu_ck *c = v->ckpt;
    bool turn = c->wanted;
    c->wanted = false;
    c->typed_ms = 0;
    int64_t limit = TAKE_MS;
    if (v->r->procs.stopping) {
        limit = v->r->procs.kill_at - STOP_RESERVE_MS - mu_mono_ms();
    }
    if (limit < STOP_LEAST_MS || take(v, limit)) {
        return;
    }
    if (turn) {
        memcpy(c->turn, c->wanted_turn, sizeof c->turn);
    }
    if (turn || c->changed) {
        c->sending = true;
        mu_checkpoint_serve(v);
    } else {
        let_go(c);
    }
}

int64_t mu_checkpoint_now(struct mu_live *v)
{
    struct mu_ck *c = v->ckpt;
    if (c->wanted) {
        memcpy(c->turn, c->wanted_turn, sizeof c->turn);
    }
    c->wanted = false;
    c->typed_ms = 0;
    if (!is_on(v) || take(v, TAKE_MS)) {
        return 0;
    }
    c->sending = true;
    mu_checkpoint_serve(v);
    return c->number;
}

static int64_t last_until(const struct mu_live *v)
{
    int64_t until = mu_mono_ms() + LAST_STORE_MS;
    return v->r->procs.stopping ? MU_MIN(until, v->r->procs.kill_at - STOP_RESERVE_MS) : until;
}

void mu_checkpoint_last(struct mu_live *v)
{
    struct mu_ck *c = v->ckpt;
    if (!c->on) {
        return;
    }
    if (c->wanted) {
        mu_checkpoint_take(v);
    } else if ((c->prev || c->typed_ms) &&
               !c->sending) { /* somebody typed in a terminal since then */
        int64_t left = last_until(v) - mu_mono_ms();
        if (left >= STOP_LEAST_MS && take(v, left) == 0) {
            c->sending = c->changed;
            mu_checkpoint_serve(v);
        }
    }
    int64_t began = mu_mono_ms(), until = last_until(v);
    while (c->sending && mu_mono_ms() < until) {
        if (v->link.fd < 0 && mu_mono_ms() - began > LAST_ALONE_MS) {
            break;
        }
        mu_procs_turn(&v->r->procs, 50);
    }
}
