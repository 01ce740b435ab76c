/* What a provider may take just now: the breaker, blocks after rate limits (kept in the database),
 * and what is known of full quotas. */
#include <errno.h>

#include "app/providers/providers_int.h"
#include "base/log.h"

enum {
    SCOPES_MAX = 10000,
    WRITES_MAX = 256,
    BLOCK_FIRST_MS = 30000,
    BLOCK_MOST_MS = 300000,
    STRIKES_MAX = 5,          /* 30 s << 5 is beyond the most already */
    STRIKES_KEEP_MS = 600000, /* a block longer ago is no repetition */
    RETRY_AFTER_MAX_MS = 86400000,
    TRIAL_POLL_MS = 1000,
};

static const struct mu_stmt q_block = {
    "block", "ttii",
    "INSERT INTO quota_blocks (scope_id, provider, blocked_until_ms, strikes) VALUES ($1, $2, $3, "
    "$4) ON CONFLICT (scope_id, provider) DO UPDATE SET blocked_until_ms = "
    "excluded.blocked_until_ms, strikes = excluded.strikes",
    NULL};
static const struct mu_stmt q_block_purge = {
    "block_purge", "i", "DELETE FROM quota_blocks WHERE blocked_until_ms < $1", NULL};
static const struct mu_stmt q_blocks = {
    "blocks", "ii",
    "SELECT scope_id, provider, blocked_until_ms, strikes FROM quota_blocks WHERE blocked_until_ms "
    ">= $1 ORDER BY blocked_until_ms DESC LIMIT $2",
    NULL};

/* --- breaker --- */

enum mu_breaker_state mu_breaker_state(struct mu_breaker *b, int64_t now_ms)
{
    if (!b->open) {
        return MU_BREAKER_CLOSED;
    }
    /* a wall clock that was set back must not hold it open */
    b->open_until_ms = MU_MIN(b->open_until_ms, now_ms + MU_BREAKER_OPEN_MS);
    return now_ms < b->open_until_ms ? MU_BREAKER_OPEN : MU_BREAKER_HALF_OPEN;
}

/* Whether it opened. */
static bool breaker_failed(struct mu_breaker *b, int64_t now_ms)
{
    enum mu_breaker_state state = mu_breaker_state(b, now_ms);
    if (state == MU_BREAKER_OPEN) {
        return false; /* calls that had begun before */
    }
    b->failed_ms[b->next] = now_ms;
    b->next = (b->next + 1) % MU_BREAKER_FAILURES;
    int64_t oldest = b->failed_ms[b->next];
    if (state == MU_BREAKER_HALF_OPEN ||
        (oldest > 0 && oldest <= now_ms && now_ms - oldest <= MU_BREAKER_WITHIN_MS)) {
        b->open = true;
        b->open_until_ms = now_ms + MU_BREAKER_OPEN_MS;
        return true;
    }
    return false;
}

/* Whether it was open. */
static bool breaker_worked(struct mu_breaker *b)
{
    bool was = b->open;
    bool trial = b->trial;
    *b = (struct mu_breaker){.trial = trial};
    return was;
}

/* --- scopes --- */

static const char *scope_name(const struct mu_provider *pr, const char *org_id)
{
    return pr->conf->quota_global ? "*" : org_id;
}

static void scope_drop(struct mu_providers *p, struct mu_scope *s)
{
    mu_map_remove(&p->scopes, s->key);
    mu_list_remove(&s->link);
    mu_free(s);
}

static bool scope_idle(const struct mu_scope *s, int64_t now_ms)
{
    return s->full_until_ms <= now_ms && s->blocked_until_ms + STRIKES_KEEP_MS <= now_ms;
}

static struct mu_scope *scope_get(struct mu_providers *p, mu_bytes scope, mu_bytes provider,
                                  bool create)
{
    char key[256];
    size_t len = scope.len + 1 + provider.len;
    if (len > sizeof key) {
        return NULL;
    }
    memcpy(key, scope.ptr, scope.len);
    key[scope.len] = '\n';
    memcpy(key + scope.len + 1, provider.ptr, provider.len);
    struct mu_scope *s = mu_map_get(&p->scopes, mu_bytes_of(key, len));
    if (s || !create) {
        return s;
    }
    int64_t now = mu_providers_now(p);
    for (int i = 0; i < 2 && !mu_list_empty(&p->scope_list); i++) {
        struct mu_scope *old = MU_CONTAINER(p->scope_list.next, struct mu_scope, link);
        if (p->scopes.count >= SCOPES_MAX || scope_idle(old, now)) {
            scope_drop(p, old);
        }
    }
    s = mu_calloc(1, sizeof *s + len);
    if (!s) {
        return NULL;
    }
    memcpy(s + 1, key, len);
    s->key = mu_bytes_of((char *)(s + 1), len);
    if (mu_map_put(&p->scopes, s->key, s) < 0) {
        mu_free(s);
        return NULL;
    }
    mu_list_push(&p->scope_list, &s->link);
    return s;
}

struct mu_scope *mu_scope_find(struct mu_provider *pr, const char *org_id)
{
    return scope_get(pr->all, mu_str(scope_name(pr, org_id)), mu_str(pr->key), false);
}

static struct mu_scope *scope_touch(struct mu_provider *pr, const char *org_id)
{
    struct mu_scope *s = scope_get(pr->all, mu_str(scope_name(pr, org_id)), mu_str(pr->key), true);
    if (s) {
        mu_list_remove(&s->link);
        mu_list_push(&pr->all->scope_list, &s->link);
    }
    return s;
}

void mu_provider_note_full(struct mu_provider *pr, const char *org_id, int64_t until_ms)
{
    struct mu_scope *s = scope_touch(pr, org_id);
    if (s) { /* else the database says it again */
        s->full_until_ms = until_ms;
    }
}

void mu_provider_note_free(struct mu_provider *pr, const char *org_id, int64_t free_ms)
{
    struct mu_scope *s = mu_scope_find(pr, org_id);
    if (s) {
        s->full_until_ms = MU_MIN(s->full_until_ms, free_ms);
    }
    mu_providers_capacity(pr->all);
}

/* --- blocks in the database: best effort, memory is what counts while the server lives --- */

struct block_write {
    struct mu_unit unit;
    struct mu_list link;    /* providers.writes */
    struct mu_providers *p; /* NULL: gone */
    int64_t until_ms, strikes, purge_ms;
    size_t scope_len, key_len;
    char text[]; /* the scope's key */
};

static int write_run(struct mu_unit *u, struct mu_tx *tx)
{
    struct block_write *w = MU_CONTAINER(u, struct block_write, unit);
    mu_bytes scope = mu_bytes_of(w->text, w->scope_len);
    mu_bytes provider = mu_bytes_of(w->text + w->scope_len + 1, w->key_len - w->scope_len - 1);
    int r = MU_TX_SEND(tx, &q_block, 1, MU_VT(scope), MU_VT(provider), MU_VI(w->until_ms),
                       MU_VI(w->strikes));
    return r < 0 ? r : MU_TX_SEND(tx, &q_block_purge, -1, MU_VI(w->purge_ms));
}

static void write_done(struct mu_unit *u, int result)
{
    struct block_write *w = MU_CONTAINER(u, struct block_write, unit);
    if (result < 0) {
        mu_log(MU_LOG_WARN, "provider.block_not_stored", MU_KC("reason", mu_err_text(result)));
    }
    if (w->p) {
        mu_list_remove(&w->link);
        w->p->n_writes--;
    }
    mu_free(w);
}

static void block_store(struct mu_providers *p, const struct mu_scope *s, int64_t now_ms)
{
    if (!p->opts.writer || p->n_writes >= WRITES_MAX) {
        return;
    }
    struct block_write *w = mu_calloc(1, sizeof *w + s->key.len);
    if (!w) {
        return;
    }
    memcpy(w->text, s->key.ptr, s->key.len);
    w->key_len = s->key.len;
    w->scope_len = (size_t)mu_bytes_find_char(s->key, '\n');
    w->until_ms = s->blocked_until_ms;
    w->strikes = s->strikes;
    w->purge_ms = now_ms - STRIKES_KEEP_MS;
    w->p = p;
    w->unit = (struct mu_unit){.run = write_run, .done = write_done, .loop = p->opts.core};
    int r = mu_writer_submit(p->opts.writer, &w->unit);
    if (r < 0) {
        mu_log(MU_LOG_WARN, "provider.block_not_stored", MU_KC("reason", mu_err_text(r)));
        mu_free(w);
        return;
    }
    mu_list_push(&p->writes, &w->link);
    p->n_writes++;
}

static int take_block(void *arg, struct mu_row *row)
{
    struct mu_scope *s = scope_get(arg, mu_row_bytes(row, 0), mu_row_bytes(row, 1), true);
    if (!s) {
        return 0; /* a key that cannot be ours, or no memory: it will be refused once more */
    }
    s->blocked_until_ms = mu_row_i64(row, 2);
    s->strikes = MU_MIN(MU_MAX(mu_row_i64(row, 3), 0), STRIKES_MAX);
    return 0;
}

int mu_blocks_load(struct mu_providers *p, struct mu_db *db)
{
    const struct mu_val args[] = {MU_VI(mu_providers_now(p) - STRIKES_KEEP_MS),
                                  MU_VI(SCOPES_MAX / 2)};
    int r = mu_db_run(db, &q_blocks, args, MU_ARRAY_LEN(args), take_block, p);
    return r < 0 ? r : 0;
}

void mu_scopes_fini(struct mu_providers *p)
{
    MU_LIST_EACH(it, tmp, &p->scope_list)
    {
        scope_drop(p, MU_CONTAINER(it, struct mu_scope, link));
    }
    mu_map_fini(&p->scopes);
    MU_LIST_EACH(it, tmp, &p->writes)
    {
        struct block_write *w = MU_CONTAINER(it, struct block_write, link);
        mu_list_remove(&w->link);
        w->p = NULL;
    }
}

/* --- the gate --- */

enum mu_provider_gate mu_provider_gate(struct mu_provider *pr, const char *org_id, int64_t now_ms,
                                       int64_t *ret_until_ms)
{
    const struct mu_scope *s = mu_scope_find(pr, org_id);
    if (s) {
        int64_t until = MU_MAX(s->blocked_until_ms, s->full_until_ms);
        if (until > now_ms) {
            *ret_until_ms = until;
            return MU_P_BLOCKED;
        }
    }
    enum mu_breaker_state state = mu_breaker_state(&pr->breaker, now_ms);
    if (state == MU_BREAKER_OPEN) {
        *ret_until_ms = pr->breaker.open_until_ms;
        return MU_P_BROKEN;
    }
    if (state == MU_BREAKER_HALF_OPEN && pr->breaker.trial) {
        *ret_until_ms = now_ms + TRIAL_POLL_MS; /* its outcome also tells the waiters */
        return MU_P_BROKEN;
    }
    if (mu_provider_is_child(pr->conf) && pr->running + pr->held >= mu_provider_slots(pr->conf)) {
        return MU_P_BUSY;
    }
    return MU_P_OK;
}

void mu_provider_hold(struct mu_provider *pr)
{
    pr->held++;
}

void mu_provider_release(struct mu_provider *pr)
{
    MU_CHECK(pr->held > 0);
    pr->held--;
}

/* --- learning --- */

static void learn_block(struct mu_provider *pr, const char *org_id, int64_t retry_after_ms,
                        int64_t now_ms)
{
    struct mu_scope *s = scope_touch(pr, org_id);
    if (!s) {
        return;
    }
    bool blocked = s->blocked_until_ms > now_ms; /* parallel calls are one repetition */
    if (!blocked && s->blocked_until_ms + STRIKES_KEEP_MS <= now_ms) {
        s->strikes = 0;
    }
    int64_t wait = retry_after_ms > 0
                       ? MU_MIN(retry_after_ms, RETRY_AFTER_MAX_MS)
                       : MU_MIN((int64_t)BLOCK_FIRST_MS << s->strikes, BLOCK_MOST_MS);
    if (blocked && (retry_after_ms <= 0 || now_ms + wait <= s->blocked_until_ms)) {
        return;
    }
    s->strikes = blocked ? s->strikes : MU_MIN(s->strikes + 1, STRIKES_MAX);
    s->blocked_until_ms = now_ms + wait;
    block_store(pr->all, s, now_ms);
    mu_log(MU_LOG_WARN, "provider.rate_limited", MU_KC("provider", pr->key),
           MU_KC("scope", scope_name(pr, org_id)), MU_KI("wait_ms", wait));
}

static void learn_answered(struct mu_provider *pr)
{
    if (breaker_worked(&pr->breaker)) {
        mu_log(MU_LOG_INFO, "provider.breaker_closed", MU_KC("provider", pr->key));
    }
}

void mu_provider_learn(struct mu_provider *pr, const char *org_id,
                       const struct mu_call_result *result)
{
    int64_t now = mu_providers_now(pr->all);
    struct mu_scope *s = mu_scope_find(pr, org_id);
    if (s && !result->counted) {
        s->full_until_ms = 0; /* its unit comes back */
    }
    switch (result->cls) {
    case MU_CALL_OK:
        learn_answered(pr);
        if (s && s->blocked_until_ms <= now) {
            s->strikes = 0;
        }
        break;
    case MU_CALL_RATE_LIMITED:
        learn_answered(pr);
        learn_block(pr, org_id, result->retry_after_ms, now);
        break;
    case MU_CALL_UNAVAILABLE:
        if (breaker_failed(&pr->breaker, now)) {
            mu_log(MU_LOG_WARN, "provider.breaker_open", MU_KC("provider", pr->key),
                   MU_KC("reason", result->text));
        }
        break;
    case MU_CALL_AUTH:
        learn_answered(pr);
        mu_log(MU_LOG_ERROR, "provider.auth", MU_KC("provider", pr->key),
               MU_KI("status", result->status), MU_KC("reason", result->text));
        break;
    case MU_CALL_BAD_REQUEST:
    case MU_CALL_NO_MODEL:
    case MU_CALL_BAD_RESPONSE:
        learn_answered(pr);
        break;
    case MU_CALL_CONFIG:
        mu_log(MU_LOG_ERROR, "provider.config", MU_KC("provider", pr->key),
               MU_KC("reason", result->text));
        break;
    case MU_CALL_CLI_FAILED:
    case MU_CALL_CLI_TIMEOUT:
    case MU_CALL_CLI_OUTPUT_LIMIT:
    case MU_CALL_CANCELLED:
        break;
    }
    mu_providers_capacity(pr->all);
}
