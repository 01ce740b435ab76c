/* Questions about repositories, and the answers that are kept. */
#include "app/fleet/skills.h"

#include <errno.h>
#include <stdio.h>

#include "app/fleet/fleet_int.h"
#include "base/crypt.h"
#include "base/encode.h"

enum {
    KEPT_MAX = 1000,
    KEPT_BYTES = 16 << 20,
    KEPT_MS = 10 * 60 * 1000,
    FAILED_MS = 30 * 1000, /* so long an error is remembered */
    OPEN_MAX = 256,        /* questions at once */
    TRIES_MAX = 2,         /* workers that are asked, when one leaves */
    WAITERS_MAX = 10000,
};

/* --- sets --- */

int mu_skill_set_new(struct mu_skill_set **ret)
{
    struct mu_skill_set *s = mu_calloc(1, sizeof *s);
    if (!s) {
        return -ENOMEM;
    }
    atomic_store(&s->refs, 1);
    mu_arena_init(&s->arena, 2 * MU_SKILLS_BYTES);
    s->skills = mu_arena_calloc(&s->arena, MU_SKILLS_MAX * sizeof *s->skills);
    if (!s->skills) {
        return mu_skill_set_unref(s), -ENOMEM;
    }
    *ret = s;
    return 0;
}

struct mu_skill_set *mu_skill_set_ref(struct mu_skill_set *s)
{
    if (s) {
        atomic_fetch_add(&s->refs, 1);
    }
    return s;
}

struct mu_skill_set *mu_skill_set_unref(struct mu_skill_set *s)
{
    if (s && atomic_fetch_sub(&s->refs, 1) == 1) {
        mu_arena_fini(&s->arena);
        mu_free(s);
    }
    return NULL;
}

static bool clean(mu_bytes t, size_t max, bool lines)
{
    for (size_t i = 0; i < t.len; i++) {
        unsigned char c = (unsigned char)t.ptr[i];
        if ((c < 0x20 && !(lines && (c == '\n' || c == '\t'))) || c == 0x7f) {
            return false;
        }
    }
    return t.len <= max && mu_utf8_valid(t);
}

int mu_skill_set_add(struct mu_skill_set *s, const struct mu_skill *x)
{
    size_t bytes = x->name.len + x->description.len + x->path.len + x->base_prompt.len;
    if (!mu_bytes_trim(x->name).len || !clean(x->name, MU_SKILL_NAME_MAX, false) ||
        !mu_bytes_is_path(x->path) || !clean(x->path, MU_SKILL_PATH_MAX, false) ||
        !clean(x->description, MU_SKILL_ABOUT_MAX, true) ||
        !clean(x->base_prompt, MU_SKILL_PROMPT_MAX, true)) {
        return MU_E_INVALID;
    }
    if (s->n == MU_SKILLS_MAX || s->bytes + bytes > MU_SKILLS_BYTES) {
        return MU_E_LIMIT;
    }
    const struct mu_skill copy = {.name = mu_arena_dup(&s->arena, x->name),
                                  .description = mu_arena_dup(&s->arena, x->description),
                                  .path = mu_arena_dup(&s->arena, x->path),
                                  .base_prompt = mu_arena_dup(&s->arena, x->base_prompt)};
    if (!copy.name.ptr || !copy.description.ptr || !copy.path.ptr || !copy.base_prompt.ptr) {
        return -ENOMEM;
    }
    s->skills[s->n++] = copy;
    s->bytes += bytes;
    return 0;
}

/* --- entries --- */

/* What is known of a repository under one org and one credential, or is being found out. */
struct mu_known {
    struct mu_list link; /* in f->skills.kept, the least recently used first */
    struct mu_list open; /* in f->skills.open while a worker is asked */
    struct mu_list waiting;
    struct mu_skill_set *set; /* or NULL: */
    int result;
    char why[200];
    int64_t until_ms; /* loop time up to which that holds */
    /* the question */
    struct mu_id command;
    struct mu_worker *worker; /* NULL: nobody is asked */
    int64_t conn, deadline_ms;
    unsigned tries;
    char *credential; /* while it is open */
    size_t bytes, key_len, repo_at;
    char key[];
};

static int64_t now_of(const struct mu_fleet *f)
{
    return mu_loop_now_ms(f->opts.core);
}

static bool is_open(const struct mu_known *k)
{
    return !mu_list_empty(&k->open);
}

static void forget_credential(struct mu_known *k)
{
    if (k->credential) {
        explicit_bzero(k->credential, strlen(k->credential));
        mu_free(k->credential);
        k->credential = NULL;
    }
}

static void known_free(struct mu_fleet *f, struct mu_known *k)
{
    mu_map_remove(&f->skills.map, mu_bytes_of(k->key, k->key_len));
    mu_list_remove(&k->link);
    f->skills.n--;
    f->skills.bytes -= k->bytes;
    mu_skill_set_unref(k->set);
    forget_credential(k);
    mu_free(k);
}

/* Everything about its size that counts. */
static void weigh(struct mu_fleet *f, struct mu_known *k)
{
    f->skills.bytes -= k->bytes;
    k->bytes =
        sizeof *k + k->key_len +
        (k->set ? sizeof *k->set + MU_SKILLS_MAX * sizeof(struct mu_skill) + k->set->bytes : 0);
    f->skills.bytes += k->bytes;
}

static void trim(struct mu_fleet *f)
{
    MU_LIST_EACH(it, tmp, &f->skills.kept)
    {
        struct mu_known *k = MU_CONTAINER(it, struct mu_known, link);
        if (f->skills.n <= KEPT_MAX && f->skills.bytes <= KEPT_BYTES) {
            return;
        }
        if (!is_open(k)) {
            known_free(f, k);
        }
    }
}

static void run_done(struct mu_post *post)
{
    struct mu_fleet_skills *op = MU_CONTAINER(post, struct mu_fleet_skills, post);
    op->done(op, op->result);
}

static void answer(struct mu_fleet_skills *op, int result, struct mu_skill_set *set,
                   const char *why)
{
    op->result = result;
    op->set = result == 0 ? mu_skill_set_ref(set) : NULL;
    snprintf(op->why, sizeof op->why, "%s", why ? why : "");
    op->post.fn = run_done;
    mu_loop_post(op->loop, &op->post);
}

/* The question is over: everybody who waits hears of it. `keep_ms` 0: it is not remembered. Takes
 * the set. */
static void settle(struct mu_fleet *f, struct mu_known *k, int result, struct mu_skill_set *set,
                   const char *why, int64_t keep_ms)
{
    mu_list_remove(&k->open);
    f->skills.n_open--;
    k->worker = NULL;
    forget_credential(k);
    mu_skill_set_unref(k->set);
    k->set = set;
    k->result = result;
    if (why != k->why) {
        snprintf(k->why, sizeof k->why, "%s", why ? why : "");
    }
    k->until_ms = now_of(f) + keep_ms;
    weigh(f, k);
    struct mu_list *it;
    while ((it = mu_list_pop(&k->waiting))) {
        f->skills.n_waiting--;
        answer(MU_CONTAINER(it, struct mu_fleet_skills, link), result, k->set, k->why);
    }
    trim(f);
}

/* --- asking --- */

static struct mu_worker *next_worker(struct mu_fleet *f)
{
    MU_LIST_EACH(it, tmp, &f->skills.workers)
    {
        struct mu_worker *w = MU_CONTAINER(it, struct mu_worker, skills_link);
        if (w->ready && w->attached && !w->draining) {
            mu_list_remove(&w->skills_link); /* its turn comes again after the others' */
            mu_list_push(&f->skills.workers, &w->skills_link);
            return w;
        }
    }
    return NULL;
}

static int send_question(struct mu_fleet *f, struct mu_known *k, struct mu_worker *w)
{
    struct mu_order *o;
    const struct mu_execution none = {.seq = 0};
    int r = mu_worker_order(w, MU_ORDER_SKILLS, &none, &o);
    if (r < 0) {
        return r;
    }
    mu_arena_init(&o->arena, 64 << 10);
    k->command = mu_id_random(f->opts.env);
    o->command = k->command;
    o->repo = mu_arena_dup(&o->arena, mu_bytes_of(k->key + k->repo_at, k->key_len - k->repo_at));
    o->credential = k->credential ? mu_arena_dup(&o->arena, mu_str(k->credential)) : MU_B_NONE;
    if (!o->repo.ptr || (k->credential && !o->credential.ptr)) {
        mu_order_free(o);
        return -ENOMEM;
    }
    k->worker = w;
    k->conn = w->conn;
    mu_worker_post(w, o);
    return 0;
}

/* Nobody to ask is no error: there are no skills as long as there is no worker. */
static void ask(struct mu_fleet *f, struct mu_known *k)
{
    struct mu_worker *w = k->tries < TRIES_MAX ? next_worker(f) : NULL;
    if (!w) {
        settle(f, k, k->tries ? MU_E_UNAVAILABLE : 0, NULL, "the worker left", 0);
        return;
    }
    k->tries++;
    int r = send_question(f, k, w);
    if (r < 0) {
        settle(f, k, r, NULL, mu_err_text(r), 0);
    }
}

static void open_question(struct mu_fleet *f, struct mu_known *k, struct mu_fleet_skills *op)
{
    if (f->skills.n_open >= OPEN_MAX) {
        answer(op, MU_E_BUSY, NULL, "too many repositories are being looked at just now");
        return;
    }
    if (op->credential.ptr && !(k->credential = mu_bytes_dup(op->credential))) {
        answer(op, -ENOMEM, NULL, NULL);
        return;
    }
    k->tries = 0;
    k->deadline_ms = now_of(f) + MU_SKILLS_WAIT_MS;
    mu_list_push(&f->skills.open, &k->open);
    f->skills.n_open++;
    mu_list_push(&k->waiting, &op->link);
    f->skills.n_waiting++;
    ask(f, k);
}

static struct mu_known *known_of(struct mu_fleet *f, const struct mu_fleet_skills *op)
{
    struct mu_digest_hex secret = {.text = "-"};
    char head[200];
    if (op->credential.ptr) {
        secret = mu_sha256_hex(op->credential);
    }
    int n = snprintf(head, sizeof head, "%.*s\n%s\n", MU_ARGS(op->org_id), secret.text);
    if (n < 0 || (size_t)n >= sizeof head) {
        return NULL;
    }
    size_t head_len = (size_t)n;
    struct mu_known *k = mu_calloc(1, sizeof *k + head_len + op->repo.len + 1);
    if (!k) {
        return NULL;
    }
    memcpy(k->key, head, head_len);
    if (op->repo.len) {
        memcpy(k->key + head_len, op->repo.ptr, op->repo.len);
    }
    k->key_len = head_len + op->repo.len;
    k->repo_at = head_len;
    struct mu_known *old = mu_map_get(&f->skills.map, mu_bytes_of(k->key, k->key_len));
    if (old) {
        mu_free(k);
        mu_list_remove(&old->link);
        mu_list_push(&f->skills.kept, &old->link);
        return old;
    }
    if (mu_map_put(&f->skills.map, mu_bytes_of(k->key, k->key_len), k) < 0) {
        mu_free(k);
        return NULL;
    }
    mu_list_init(&k->open);
    mu_list_init(&k->waiting);
    mu_list_push(&f->skills.kept, &k->link);
    f->skills.n++;
    weigh(f, k);
    return k;
}

static void asked(struct mu_post *post)
{
    struct mu_fleet_skills *op = MU_CONTAINER(post, struct mu_fleet_skills, post);
    struct mu_fleet *f = op->fleet;
    if (f->stopping || f->ended) {
        answer(op, MU_E_SHUTDOWN, NULL, NULL);
        return;
    }
    if (f->skills.n_waiting >= WAITERS_MAX) {
        answer(op, MU_E_BUSY, NULL, "too many repositories are being looked at just now");
        return;
    }
    struct mu_known *k = known_of(f, op);
    if (!k) {
        answer(op, -ENOMEM, NULL, NULL);
    } else if (is_open(k)) { /* also with refresh: it is being looked at right now */
        mu_list_push(&k->waiting, &op->link);
        f->skills.n_waiting++;
    } else if (!op->refresh && now_of(f) < k->until_ms) {
        answer(op, k->result, k->set, k->why);
    } else {
        open_question(f, k, op);
    }
    trim(f);
}

void mu_fleet_skills(struct mu_fleet *f, struct mu_fleet_skills *op)
{
    op->fleet = f;
    op->set = NULL;
    mu_list_init(&op->link);
    op->post.fn = asked;
    mu_loop_post(f->opts.core, &op->post);
}

/* --- what workers do --- */

void mu_skills_worker(struct mu_worker *w, bool can)
{
    mu_list_remove(&w->skills_link);
    if (can) {
        mu_list_push(&w->f->skills.workers, &w->skills_link);
    }
}

void mu_skills_left(struct mu_worker *w)
{
    struct mu_fleet *f = w->f;
    mu_list_remove(&w->skills_link);
    MU_LIST_EACH(it, tmp, &f->skills.open)
    {
        struct mu_known *k = MU_CONTAINER(it, struct mu_known, open);
        if (k->worker == w) {
            k->worker = NULL;
            ask(f, k);
        }
    }
}

/* Also one whose answer comes when nobody waits any more, if it still says more than we know. */
static struct mu_known *question_of(struct mu_fleet *f, const struct mu_id *command, int64_t conn)
{
    MU_LIST_EACH(it, tmp, &f->skills.kept)
    {
        struct mu_known *k = MU_CONTAINER(it, struct mu_known, link);
        if (k->conn == conn && strcmp(k->command.text, command->text) == 0) {
            return is_open(k) || k->result == MU_E_TIMEOUT ? k : NULL;
        }
    }
    return NULL;
}

/* A sentence of a worker goes to people. */
static void clean_words(mu_bytes text, char *dst, size_t size)
{
    text = mu_utf8_cut(text, size - 1);
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        dst[n++] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
    }
    dst[n] = 0;
}

bool mu_skills_answered(struct mu_worker *w, struct mu_report *r)
{
    struct mu_fleet *f = w->f;
    struct mu_known *k = question_of(f, &r->command, w->conn);
    char why[200] = "";
    if (!k) {
        return false;
    }
    if (!is_open(k)) { /* settle() closes it */
        mu_list_push(&f->skills.open, &k->open);
        f->skills.n_open++;
    }
    k->command.text[0] = 0;
    struct mu_skill_set *set = r->skills;
    r->skills = NULL;
    if (set) {
        settle(f, k, 0, set, NULL, KEPT_MS);
    } else {
        clean_words(r->message, why, sizeof why);
        settle(f, k, MU_E_UNAVAILABLE, NULL, why, FAILED_MS);
    }
    return true;
}

/* --- time and life --- */

void mu_skills_tick(struct mu_fleet *f, int64_t now)
{
    MU_LIST_EACH(it, tmp, &f->skills.open)
    {
        struct mu_known *k = MU_CONTAINER(it, struct mu_known, open);
        if (now >= k->deadline_ms) {
            settle(f, k, MU_E_TIMEOUT, NULL, "no worker has answered in time", FAILED_MS);
        }
    }
}

void mu_skills_init(struct mu_fleet *f)
{
    mu_map_init(&f->skills.map);
    mu_list_init(&f->skills.kept);
    mu_list_init(&f->skills.open);
    mu_list_init(&f->skills.workers);
}

void mu_skills_stop(struct mu_fleet *f)
{
    MU_LIST_EACH(it, tmp, &f->skills.open)
    {
        settle(f, MU_CONTAINER(it, struct mu_known, open), MU_E_SHUTDOWN, NULL, NULL, 0);
    }
}

void mu_skills_fini(struct mu_fleet *f)
{
    mu_skills_stop(f);
    MU_LIST_EACH(it, tmp, &f->skills.kept)
    {
        known_free(f, MU_CONTAINER(it, struct mu_known, link));
    }
    mu_map_fini(&f->skills.map);
}
