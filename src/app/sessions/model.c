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

bool mu_state_may_move(int from, int to)
{
    static const struct {
        int from, to;
    } moves[] = {
        {20, 60}, {20, 90}, {20, 92}, {20, 94}, /* claimed; cancelled; failed before it began; queue
                                                   deadline */
        {22, 30}, {22, 90}, {22, 92}, {22, 94}, /* offered to a worker; cancelled; impossible; queue
                                                   deadline */
        {30, 22}, {30, 40}, {30, 50}, {30, 60}, {30, 80}, {30, 90}, {30, 92},
        {30, 94}, {40, 22}, {40, 50}, {40, 60}, {40, 80}, {40, 90}, {40, 92},
        {40, 94}, {50, 22}, {50, 60}, {50, 80}, {50, 90}, {50, 92}, {50, 94},
        {60, 20}, {60, 80}, {60, 90}, {60, 92}, {60, 94}, {80, 90}, /* an accepted stop ends as
                                                                       cancelled, whatever was
                                                                       reported */
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(moves); i++) {
        if (moves[i].from == from && moves[i].to == to) {
            return true;
        }
    }
    return false;
}
