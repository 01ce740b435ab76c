/* Files out of a container, through its archive; one after another, since Podman mixes up two at a
 * time of one container. A reading outlives its box. */
#include <errno.h>
#include <stdio.h>

#include "exec/engine/tar.h"
#include "exec/sandbox/docker_int.h"

struct reading {
    struct mu_list link;
    struct mu_docker *d;
    char id[MU_DOCKER_ID], path[2048]; /* the path escaped */
    struct mu_engine_call *call;
    struct mu_tar tar;
    struct mu_buf content;
    size_t max;
    bool found; /* a regular file: its content comes, or came */
    int result;
    struct mu_timer begin;
    void (*done)(void *arg, int result, mu_bytes bytes);
    void *arg;
};

static void reading_free(struct reading *r)
{
    mu_timer_clear(&r->begin);
    mu_engine_cancel(r->call);
    mu_list_remove(&r->link);
    mu_tar_fini(&r->tar);
    mu_buf_fini(&r->content);
    mu_free(r);
}

/* The next one of the same container. */
static void next(struct mu_docker *d, const char *id)
{
    MU_LIST_EACH(it, tmp, &d->reads)
    {
        struct reading *r = MU_CONTAINER(it, struct reading, link);
        if (!strcmp(r->id, id)) {
            if (mu_timer_set(&r->begin, 0) < 0) {
                MU_CHECK(mu_timer_is_set(&r->begin));
            }
            return;
        }
    }
}

static void over(struct reading *r, int result)
{
    struct mu_docker *d = r->d;
    char id[MU_DOCKER_ID];
    memcpy(id, r->id, sizeof id);
    mu_list_remove(&r->link);
    next(d, id);
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

static void on_begin(struct mu_timer *t)
{
    struct reading *r = MU_CONTAINER(t, struct reading, begin);
    const struct mu_engine_request req = {
        .method = "GET", .on_body = on_body, .done = on_answer, .arg = r};
    if (r->result == 0) {
        r->result =
            mu_docker_ask_(r->d, &req, &r->call, "/containers/%s/archive?path=%s", r->id, r->path);
    }
    if (r->result < 0) {
        over(r, r->result);
    }
}

static bool is_first(const struct reading *r)
{
    MU_LIST_EACH(it, tmp, &r->d->reads)
    {
        const struct reading *one = MU_CONTAINER(it, struct reading, link);
        if (!strcmp(one->id, r->id)) {
            return one == r;
        }
    }
    return true;
}

/* A later one waits until over() of the one before calls; its place in the heap is taken now. */
void mu_docker_read_file_(struct mu_sandbox *s, const char *path, size_t max,
                          void (*done)(void *arg, int result, mu_bytes bytes), void *arg)
{
    static const int64_t far_ms = 365LL * 24 * 3600 * 1000;
    struct mu_docker_box *b = (struct mu_docker_box *)s;
    struct reading *r = mu_calloc(1, sizeof *r);
    if (!r) {
        done(arg, -ENOMEM, MU_B_NONE);
        return;
    }
    r->d = b->d;
    r->max = max;
    r->done = done;
    r->arg = arg;
    snprintf(r->id, sizeof r->id, "%s", b->id);
    mu_tar_init(&r->tar);
    mu_buf_init(&r->content, max);
    mu_timer_init(&r->begin, b->d->loop, on_begin);
    r->tar.on_entry = on_entry;
    r->tar.on_data = on_data;
    r->tar.arg = r;
    r->result =
        b->id[0] ? mu_docker_escape_(r->path, sizeof r->path, mu_str(path)) : MU_E_NOT_FOUND;
    mu_list_push(&b->d->reads, &r->link);
    if (mu_timer_set(&r->begin, is_first(r) ? 0 : far_ms) < 0) {
        over(r, -ENOMEM);
    }
}

void mu_docker_reads_fini_(struct mu_docker *d)
{
    MU_LIST_EACH(it, tmp, &d->reads)
    {
        reading_free(MU_CONTAINER(it, struct reading, link));
    }
}
