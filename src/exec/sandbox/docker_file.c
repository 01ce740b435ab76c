/* A file out of a container, through its archive. A reading outlives its box. */
#include <errno.h>
#include <stdio.h>

#include "exec/engine/tar.h"
#include "exec/sandbox/docker_int.h"

struct reading {
    struct mu_list link;
    struct mu_engine_call *call;
    struct mu_tar tar;
    struct mu_buf content;
    size_t max;
    bool found; /* a regular file: its content comes, or came */
    int result;
    struct mu_timer fail; /* what could not even be asked */
    void (*done)(void *arg, int result, mu_bytes bytes);
    void *arg;
};

static void reading_free(struct reading *r)
{
    mu_timer_clear(&r->fail);
    mu_engine_cancel(r->call);
    mu_list_remove(&r->link);
    mu_tar_fini(&r->tar);
    mu_buf_fini(&r->content);
    mu_free(r);
}

static void over(struct reading *r, int result)
{
    r->done(r->arg, result,
            result == 0 || result == MU_E_TOO_LARGE ? mu_buf_bytes(&r->content) : MU_B_NONE);
    reading_free(r);
}

static int on_entry(void *arg, const struct mu_tar_entry *e)
{
    struct reading *r = arg;
    if (r->found) { /* more than one: a folder's content */
        return MU_E_INVALID;
    }
    if (e->type != '0') {
        return MU_E_INVALID;
    }
    r->found = true;
    return 0;
}

static int on_data(void *arg, mu_bytes piece)
{
    struct reading *r = arg;
    mu_bytes fits = mu_bytes_head(piece, r->max - r->content.len);
    mu_buf_add(&r->content, fits);
    return r->content.failed ? r->content.failed : fits.len < piece.len ? MU_E_TOO_LARGE : 0;
}

static int on_body(void *arg, mu_bytes piece)
{
    struct reading *r = arg;
    int e = mu_tar_feed(&r->tar, piece);
    r->result = r->result ? r->result : e;
    return e;
}

static void on_answer(void *arg, const struct mu_engine_result *res)
{
    struct reading *r = arg;
    r->call = NULL;
    if (r->result < 0) {
        over(r, r->result);
    } else if (res->result < 0) {
        over(r, res->result);
    } else if (res->status == 404) {
        over(r, MU_E_NOT_FOUND);
    } else if (res->status != 200) {
        over(r, MU_E_UNAVAILABLE);
    } else {
        over(r, r->found && r->tar.left == 0 ? 0 : MU_E_CORRUPT);
    }
}

static void on_fail(struct mu_timer *t)
{
    struct reading *r = MU_CONTAINER(t, struct reading, fail);
    over(r, r->result);
}

static int ask(struct mu_docker_box *b, struct reading *r, const char *path)
{
    const struct mu_engine_request req = {
        .method = "GET", .on_body = on_body, .done = on_answer, .arg = r};
    char escaped[2048];
    if (!b->id[0]) {
        return MU_E_NOT_FOUND;
    }
    int e = mu_docker_escape_(escaped, sizeof escaped, mu_str(path));
    return e < 0 ? e
                 : mu_docker_ask_(b->d, &req, &r->call, "/containers/%s/archive?path=%s", b->id,
                                  escaped);
}

void mu_docker_read_file_(struct mu_sandbox *s, const char *path, size_t max,
                          void (*done)(void *arg, int result, mu_bytes bytes), void *arg)
{
    struct mu_docker_box *b = (struct mu_docker_box *)s;
    struct reading *r = mu_calloc(1, sizeof *r);
    if (!r) {
        done(arg, -ENOMEM, MU_B_NONE);
        return;
    }
    mu_list_push(&b->d->reads, &r->link);
    mu_tar_init(&r->tar);
    mu_buf_init(&r->content, max);
    mu_timer_init(&r->fail, b->d->loop, on_fail);
    r->tar.on_entry = on_entry;
    r->tar.on_data = on_data;
    r->tar.arg = r;
    r->max = max;
    r->done = done;
    r->arg = arg;
    r->result = ask(b, r, path);
    if (r->result < 0 && mu_timer_set(&r->fail, 0) < 0) {
        over(r, r->result);
    }
}

void mu_docker_reads_fini_(struct mu_docker *d)
{
    MU_LIST_EACH(it, tmp, &d->reads)
    {
        reading_free(MU_CONTAINER(it, struct reading, link));
    }
}
