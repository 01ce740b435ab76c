#include "main/session_id.h"

#include <stdio.h>

#include "base/id.h"
#include "main/ui.h"
#include "proto/url.h"

enum { PAGES = 20, PAGE = 100 };

struct naming {
    const char *kind, *path, *prefix, *key; /* key: the member with the id */
    const char *name; /* the member with its name, which goes before the beginning of an id */
    const char *given;
    char found[MU_LONG_ID], session[MU_LONG_ID];
    unsigned n;
    bool by_name;
};

static void copy(char dst[MU_LONG_ID], mu_bytes text)
{
    snprintf(dst, MU_LONG_ID, "%.*s", (int)MU_MIN(text.len, (size_t)MU_LONG_ID - 1), text.ptr);
}

static void look_at(struct naming *x, yyjson_val *item)
{
    mu_bytes id = mu_json_get_bytes(item, x->key), given = mu_str(x->given);
    mu_bytes bare = mu_bytes_from(id, strlen(x->prefix));
    bool named = x->name && mu_bytes_eq(mu_json_get_bytes(item, x->name), given);
    if (named && !x->by_name) {
        x->by_name = true;
        x->n = 0;
    } else if (x->by_name && !named) {
        return;
    }
    if (named || mu_bytes_eq_nocase(mu_bytes_head(id, given.len), given) ||
        mu_bytes_eq_nocase(mu_bytes_head(bare, given.len), given)) {
        x->n++;
        copy(x->found, id);
        copy(x->session, mu_json_get_bytes(item, "sessionId"));
    }
}

static mu_bytes next_path(struct mu_client *c, const char *path, mu_bytes cursor)
{
    struct mu_buf b;
    mu_buf_init(&b, 4096);
    mu_buf_printf(&b, "%s%spageSize=%d", path, strchr(path, '?') ? "&" : "?", PAGE);
    if (cursor.len) {
        mu_buf_add_str(&b, "&cursor=");
        mu_url_encode(&b, cursor);
    }
    mu_bytes made = b.failed ? MU_B_NONE : mu_arena_dup(&c->arena, mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return made;
}

static int look(struct mu_client *c, struct naming *x)
{
    mu_bytes cursor = MU_B_NONE;
    for (int page = 0; page < PAGES; page++) {
        struct mu_reply reply;
        yyjson_val *item;
        size_t i, max;
        const struct mu_request req = {.method = "GET", .path = next_path(c, x->path, cursor)};
        int r = mu_client_call(c, &req, &reply);
        if (r) {
            return r;
        }
        yyjson_val *data = mu_json_get(reply.root, "data");
        yyjson_arr_foreach(mu_json_get(data, "items"), i, max, item)
        {
            look_at(x, item);
        }
        cursor = mu_json_get_bytes(data, "nextCursor");
        if (!cursor.len) {
            break;
        }
    }
    return 0;
}

static int named(struct mu_client *c, struct naming *x, bool last)
{
    int r = x->given[0] ? look(c, x) : 0;
    if (r) {
        return r;
    }
    if (x->n > 1) {
        fprintf(stderr, "muster: %u %ss %s %s; name %s\n", x->n, x->kind,
                x->by_name ? "are called" : "begin with", x->given,
                x->by_name ? "one by its id (rnr_...)" : "more of it");
        return MU_EXIT_USAGE;
    }
    if (x->n == 0 && last) {
        fprintf(stderr, "muster: there is no %s %s\n", x->kind, x->given);
        return MU_EXIT_NOT_FOUND;
    }
    return 0;
}

int mu_session_named(struct mu_client *c, const char *given, char ret[MU_LONG_ID])
{
    struct mu_id id;
    if (mu_id_parse(mu_str(given), "ses_", &id) == 0) {
        snprintf(ret, MU_LONG_ID, "ses_%s", id.text);
        return 0;
    }
    struct naming x = {.kind = "session",
                       .path = "/sessions?view=native",
                       .prefix = "ses_",
                       .key = "sessionId",
                       .given = given};
    int r = named(c, &x, true);
    memcpy(ret, x.found, MU_LONG_ID);
    return r;
}

int mu_approval_named(struct mu_client *c, const char *given, char ret[MU_LONG_ID],
                      char ret_session[MU_LONG_ID])
{
    struct naming x = {.kind = "approval",
                       .path = "/approvals?status=pending",
                       .prefix = "apr_",
                       .key = "approvalId",
                       .given = given};
    int r = named(c, &x, false);
    if (r == 0 && x.n == 0) { /* decided meanwhile? The server says so. */
        x.path = "/approvals";
        r = named(c, &x, true);
    }
    memcpy(ret, x.found, MU_LONG_ID);
    memcpy(ret_session, x.session, MU_LONG_ID);
    return r;
}

int mu_runner_named(struct mu_client *c, const char *given, char ret[MU_LONG_ID])
{
    struct naming x = {.kind = "worker",
                       .path = "/runners",
                       .prefix = "rnr_",
                       .key = "runnerId",
                       .name = "hostname",
                       .given = given};
    int r = named(c, &x, true);
    memcpy(ret, x.found, MU_LONG_ID);
    return r;
}

mu_bytes mu_session_path(struct mu_client *c, const char *id, const char *suffix)
{
    return mu_client_path(c, "/sessions", id, suffix);
}

int mu_session_call(const struct mu_cli *cli, struct mu_client *c, const char *method,
                    const char *suffix, mu_bytes body, char id[MU_LONG_ID], struct mu_reply *ret)
{
    int r = mu_session_named(c, cli->args[0], id);
    if (r) {
        return r;
    }
    struct mu_id key = mu_id_random(&mu_env_real);
    const struct mu_request req = {.method = method,
                                   .path = mu_session_path(c, id, suffix),
                                   .body = body,
                                   .idempotency_key = strcmp(method, "GET") ? key.text : NULL};
    return mu_client_call(c, &req, ret);
}

void mu_session_made(const struct mu_client *c, const struct mu_reply *r)
{
    mu_bytes id = mu_json_get_bytes(mu_json_get(r->root, "data"), "sessionId");
    if (c->json) {
        mu_client_print(r);
        return;
    }
    printf("%.*s\n", MU_ARGS(id));
    if (mu_ui_tty(stderr)) {
        fprintf(stderr, "`muster attach %.*s` shows it.\n", MU_ARGS(id));
    }
}
