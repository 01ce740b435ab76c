/* Quota slots (data-model.md 3.7, 5.7): n messages per window are n slots, each free again at its
 * own time. */
#include "app/sessions/sessions_int.h"
#include "app/sessions/statements_int.h"

static const struct mu_stmt q_take = {
    "quota_take", "ttiiit",
    "WITH c AS MATERIALIZED (SELECT slot FROM quota_slots WHERE scope_id = $1 AND provider = $2 "
    "AND slot < $3 AND free_ms <= $4 "
    "ORDER BY free_ms, slot LIMIT 1 {{skip_locked}}) UPDATE quota_slots SET free_ms = $5, holder = "
    "$6 WHERE scope_id = $1 AND "
    "provider = $2 AND free_ms <= $4 AND slot IN (SELECT slot FROM c) RETURNING slot",
    NULL};
static const struct mu_stmt q_grow = {
    "quota_grow", "ttiit",
    "INSERT INTO quota_slots (scope_id, provider, slot, free_ms, holder) SELECT $1, $2, n, $4, $5 "
    "FROM (SELECT "
    "coalesce(max(slot) + 1, 0) AS n FROM quota_slots WHERE scope_id = $1 AND provider = $2) x "
    "WHERE n < $3 ON CONFLICT (scope_id, "
    "provider, slot) DO NOTHING RETURNING slot",
    NULL};
static const struct mu_stmt q_next = {
    "quota_next", "tti",
    "SELECT min(free_ms) FROM quota_slots WHERE scope_id = $1 AND provider = $2 AND slot < $3",
    NULL};
static const struct mu_stmt q_settle = {"quota_settle", "ttti",
                                        "UPDATE quota_slots SET free_ms = $4, holder = '' WHERE "
                                        "scope_id = $1 AND provider = $2 AND holder = $3",
                                        NULL};

int mu_quota_take(struct mu_tx *tx, struct mu_quota_take *q, mu_bytes holder, int64_t now_ms)
{
    if (q->limit <= 0) {
        return 0;
    }
    mu_bytes scope = mu_str(q->scope), provider = mu_str(q->provider);
    int r = MU_TX_RUN(tx, &q_take, NULL, NULL, MU_VT(scope), MU_VT(provider), MU_VI(q->limit),
                      MU_VI(now_ms), MU_VI(q->hold_until_ms), MU_VT(holder));
    if (r == 0) {
        r = MU_TX_RUN(tx, &q_grow, NULL, NULL, MU_VT(scope), MU_VT(provider), MU_VI(q->limit),
                      MU_VI(q->hold_until_ms), MU_VT(holder));
    }
    if (r != 0) {
        return r < 0 ? r : 0;
    }
    r = MU_TX_RUN(tx, &q_next, mu_row_take_i64, &q->next_free_ms, MU_VT(scope), MU_VT(provider),
                  MU_VI(q->limit));
    return r < 0 ? r : MU_E_SATURATED;
}

int mu_quota_settle(struct mu_tx *tx, const struct mu_quota_settle *q, mu_bytes holder)
{
    if (!q->provider) {
        return 0;
    }
    return MU_TX_SEND(tx, &q_settle, -1, MU_VT(mu_str(q->scope)), MU_VT(mu_str(q->provider)),
                      MU_VT(holder), MU_VI(q->free_ms));
}

const struct mu_planned mu_quota_planned[] = {{&q_take, "quota_free"}, {NULL, NULL}};
