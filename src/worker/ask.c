/* Requests to the server about an attempt, besides the link. */
#include <errno.h>

#include "worker/worker_int.h"

enum { CONNECT_MS = 10000, LINE = 8192 };

int mu_attempt_ask(struct mu_attempt *t, mu_bytes path, mu_bytes token, const char *media_type,
                   struct mu_fetch_request req, struct mu_fetch **ret)
{
    struct mu_buf url, auth, type;
    mu_bytes root = mu_str(t->w->conf->server_root_url);
    while (mu_bytes_ends(root, MU_B("/"))) {
        root = mu_bytes_head(root, root.len - 1);
    }
    mu_buf_init(&url, LINE);
    mu_buf_init(&auth, LINE);
    mu_buf_init(&type, LINE);
    mu_buf_printf(&url, "%.*s%.*s%c", MU_ARGS(root), MU_ARGS(path), 0);
    mu_buf_printf(&auth, "Authorization: Bearer %.*s%c", MU_ARGS(token), 0);
    mu_buf_printf(&type, "Content-Type: %s%c", media_type ? media_type : "", 0);
    const char *const headers[] = {auth.ptr, media_type ? type.ptr : NULL, NULL};
    req.url = url.ptr;
    req.headers = headers;
    req.connect_ms = CONNECT_MS;
    struct mu_fetcher *f = mu_worker_fetcher(t->w);
    int r = url.failed || auth.failed || type.failed || !f ? -ENOMEM
                                                           : mu_fetch_real.start(f, &req, ret);
    mu_buf_wipe(&auth);
    mu_buf_fini(&url);
    mu_buf_fini(&type);
    return r;
}
