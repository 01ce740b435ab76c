#include <stdio.h>

#include "main/attach_int.h"

enum { PAGES = 64, FETCH_MS = 10000 };

bool mu_attach_is_end(mu_bytes state)
{
    return mu_bytes_is(state, "COMPLETED") || mu_bytes_is(state, "FAILED") ||
           mu_bytes_is(state, "TIMED_OUT");
}

static int64_t header(struct mu_client *c, const char *name)
{
    struct curl_header *h;
    int64_t n;
    if (curl_easy_header(c->curl, name, 0, CURLH_HEADER, -1, &h) != CURLHE_OK ||
        mu_bytes_i64(mu_str(h->value), &n) < 0) {
        return -1;
    }
    return n;
}

/* The next piece of the recording; false: there is no more. */
static bool fetch(struct mu_attach *a)
{
    char query[96];
    struct mu_reply reply;
    int64_t from = a->offset >= 0 ? a->offset : a->tty ? -1 : 0;
    int n = snprintf(query, sizeof query, "/terminal?terminal=%u", a->terminal);
    if (from >= 0) {
        snprintf(query + n, sizeof query - (size_t)n, "&from=%lld", (long long)from);
    }
    const struct mu_request req = {.method = "GET",
                                   .path = mu_session_path(a->c, a->id, query),
                                   .timeout_ms = FETCH_MS,
                                   .quiet = true};
    if (mu_client_call(a->c, &req, &reply) != 0) {
        return false;
    }
    int64_t begin = header(a->c, "X-Terminal-Offset"), end = header(a->c, "X-Terminal-End");
    if (begin < 0 || !reply.body.len || begin + (int64_t)reply.body.len <= a->offset) {
        return false;
    }
    if (from >= 0 && begin > from) {
        mu_attach_note(a, "%lld bytes are missing here", (long long)(begin - from));
    }
    size_t known = a->offset > begin ? (size_t)(a->offset - begin) : 0;
    a->offset = begin + (int64_t)reply.body.len;
    mu_attach_show(a, mu_bytes_from(reply.body, known));
    return a->offset < end;
}

/* The end may be told before the last bytes are: the recording has them all. */
static void show_rest(struct mu_attach *a)
{
    char reset[MU_SCREEN_RESET];
    for (int i = 0; i < PAGES && !a->over && fetch(a); i++) {
    }
    if (a->tty && !a->term) {
        mu_attach_write(a, mu_bytes_of(reset, mu_screen_reset(&a->screen, reset)));
    }
}

void mu_attach_ended(struct mu_attach *a, mu_bytes state, yyjson_val *session)
{
    mu_bytes reason = mu_json_get_bytes(session, "endReason");
    mu_bytes words = mu_json_get_bytes(session, "errorMessage");
    bool stopped = mu_bytes_is(reason, "stopped") || mu_bytes_is(reason, "denied");
    bool finished = mu_bytes_is(state, "COMPLETED");
    if (!a->c->json) {
        show_rest(a);
    }
    mu_attach_over(a, finished && stopped               ? MU_EXIT_CANCELLED
                      : finished                        ? MU_EXIT_OK
                      : mu_bytes_is(state, "TIMED_OUT") ? MU_EXIT_TIMEOUT
                                                        : MU_EXIT_FAILED);
    mu_attach_note(a, "the session is %.*s%s%.*s%s%s%.*s", MU_ARGS(state), reason.len ? " (" : "",
                   MU_ARGS(reason), reason.len ? ")" : "", words.len ? ": " : "",
                   MU_ARGS(mu_bytes_head(words, 500)));
}
