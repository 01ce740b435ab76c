/* GET /api/v1/providers: what one caller may know. */
#include "app/providers/providers_int.h"

void mu_providers_status(struct mu_providers *p, const char *org_id, bool admin,
                         void (*add)(void *arg, const struct mu_provider_status *s), void *arg)
{
    static const char *const states[] = {"closed", "open", "half_open"};
    MU_CHECK(mu_loop_here(p->opts.core));
    int64_t now = mu_providers_now(p);
    for (size_t i = 0; i < p->n; i++) {
        struct mu_provider *pr = p->items[i];
        const struct mu_provider_conf *conf = pr->conf;
        bool child = mu_provider_is_child(conf);
        if (!admin && (conf->discovered || conf->type == MU_PROVIDER_SHELL)) {
            continue;
        }
        const struct mu_scope *scope = mu_scope_find(pr, org_id);
        int64_t blocked = scope ? scope->blocked_until_ms : 0;
        enum mu_breaker_state state = mu_breaker_state(&pr->breaker, now);
        bool quota = conf->msg_limit > 0 && conf->window_seconds > 0;
        const struct mu_provider_status s = {
            .key = pr->key,
            .type = mu_provider_type_name(conf->type),
            .model = conf->model,
            .found = conf->found,
            .discovered = conf->discovered,
            .quota_global = conf->quota_global,
            .limit = quota ? conf->msg_limit : 0,
            .window_s = quota ? conf->window_seconds : 0,
            .blocked_until_ms = blocked > now ? blocked : 0,
            .breaker_until_ms = state == MU_BREAKER_OPEN ? pr->breaker.open_until_ms : 0,
            .breaker = states[state],
            .running = pr->running,
            .max_parallel = child ? mu_provider_slots(conf) : 0,
        };
        add(arg, &s);
    }
}
