#include "app/sessions/model.h"

static const char *const sources[] = {
    NULL,      "LOCAL",         "API",        "LINEAR", "SLACK", "SCHEDULED_AGENT",
    "WEB_APP", "GITHUB_ACTION", "CLOUD_MODE", "CLI"};

const char *mu_source_name(int source)
{
    return source > 0 && (size_t)source < MU_ARRAY_LEN(sources) ? sources[source] : NULL;
}

int mu_source_parse(mu_bytes word)
{
    for (size_t i = 1; i < MU_ARRAY_LEN(sources); i++) {
        if (mu_bytes_is(word, sources[i])) {
            return (int)i;
        }
    }
    return 0;
}

const char *mu_end_reason_name(int reason)
{
    static const char *const names[] = {NULL,          "finished",       "stopped",
                                        "denied",      "provider_error", "workspace_error",
                                        "policy",      "timeout",        "queue_timeout",
                                        "runner_lost", "internal",       "saturated",
                                        "interrupted"};
    return reason > 0 && (size_t)reason < MU_ARRAY_LEN(names) ? names[reason] : NULL;
}

static const struct {
    int type;
    const char *village;
} events[] = {
#define MU_EVENT(number, name, oz, village) {number, village},
#include "app/sessions/events.def"
#undef MU_EVENT
};

int mu_event_type_parse(mu_bytes word)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(events); i++) {
        if (mu_bytes_is(word, events[i].village)) {
            return events[i].type;
        }
    }
    return 0;
}

const char *mu_event_type_name(int type)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(events); i++) {
        if (events[i].type == type) {
            return events[i].village;
        }
    }
    return NULL;
}

/* What may follow each state, the ends left out: every live state but 80 may end as 90, 92 or 94
 * (completed or cancelled; failed; its time is over). */
static const struct {
    unsigned char from, to[8];
} moves[] = {
    {20, {60}},                     /* claimed */
    {22, {30, 76}},                 /* offered to a worker; 76: nobody takes one that ran before */
    {30, {22, 40, 50, 60, 76, 80}}, /* back to the queue; on; 76: an interactive one whose sandbox
                                       failed too often; a stop was accepted */
    {40, {22, 50, 60, 76, 80}},
    {50, {22, 60, 76, 80}},
    {60, {20, 22, 64, 70, 74, 76, 80}}, /* 20: put back; 22: lost, and it may run again; 64: a
                                           gate; 74: nobody needs it for now */
    {64, {22, 60, 66, 70, 76, 80}},
    {66, {22}}, /* decided, or woken */
    {70, {22, 60, 64, 74, 76, 80}},
    {74, {22}}, /* woken; no row is ever in 72: what happens before is in memory only */
    {76, {22}},
    {80, {90}}, /* an accepted stop ends as cancelled, whatever was reported */
};

bool mu_state_may_move(int from, int to)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(moves); i++) {
        if (moves[i].from != from) {
            continue;
        }
        if (from != MU_ST_STOPPING &&
            (to == MU_ST_COMPLETED || to == MU_ST_FAILED || to == MU_ST_TIMED_OUT)) {
            return true;
        }
        for (size_t k = 0; k < MU_ARRAY_LEN(moves[i].to) && moves[i].to[k]; k++) {
            if (moves[i].to[k] == to) {
                return true;
            }
        }
    }
    return false;
}
