/* Files out of a container, through its archive; one after another, since Podman mixes up two at a
 * time of one container. A reading outlives its box. When the container has ended, the first file
 * of /workspace/.oz brings all small ones of that folder along: an archive costs Podman eight
 * processes.
 */
#include <errno.h>
#include <stdio.h>

#include "exec/engine/tar.h"
#include "exec/sandbox/docker_int.h"

#define OZ_DIR "/workspace/.oz/"

enum { SHELF_FILES = 64, SHELF_BYTES = 16 << 20, TRIES = 4 };

struct shelf_file {
    char *name; /* below OZ_DIR */
    struct mu_buf content;
    bool whole;
};
/* What came along. */
struct mu_docker_shelf {
    unsigned refs;
    struct shelf_file files[SHELF_FILES];
    size_t n, bytes;
    bool complete; /* what is not here is not there */
};

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
    unsigned tries;
    struct mu_docker_shelf *shelf; /* where the file may be; `fills`: what is read goes there */
    bool fills;
    char *name; /* below OZ_DIR, or NULL */
    struct mu_timer begin;
    void (*done)(void *arg, int result, mu_bytes bytes);
    void *arg;
};

void mu_docker_shelf_unref_(struct mu_docker_shelf *s)
{
    if (!s || --s->refs) {
        return;
    }
    for (size_t i = 0; i < s->n; i++) {
        mu_free(s->files[i].name);
        mu_buf_fini(&s->files[i].content);
    }
    mu_free(s);
}

static void reading_free(struct reading *r)
{
    mu_docker_shelf_unref_(r->shelf);
    mu_free(r->name);
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
    if (r->fills) { /* whatever went wrong: what is not whole is asked for by itself */
        reading_free(r);
        return;
    }
    r->done(r->arg, result,
            result == 0 || result == MU_E_TOO_LARGE ? mu_buf_bytes(&r->content) : MU_B_NONE);
    reading_free(r);
}

/* Of ".oz/result.json" what follows the first slash. */
static int shelf_entry(struct mu_docker_shelf *s, const struct mu_tar_entry *e)
{
    mu_bytes name = e->name;
    if (s->n && s->files[s->n - 1].content.len == s->files[s->n - 1].content.max) {
        s->files[s->n - 1].whole = true;
    }
    if (e->type == '5') {
        return 0;
    }
    mu_bytes_split(&name, '/');
    if (e->type != '0' || s->n == SHELF_FILES || e->size > (int64_t)(SHELF_BYTES - s->bytes)) {
        return MU_E_LIMIT; /* a link or so, or too much: one by one then */
    }
    struct shelf_file *f = &s->files[s->n];
    f->name = mu_bytes_dup(name);
    if (!f->name) {
        return -ENOMEM;
    }
    s->n++;
    s->bytes += (size_t)e->size;
    mu_buf_init(&f->content, (size_t)e->size);
    return 0;
}

static int on_entry(void *arg, const struct mu_tar_entry *e)
{
    struct reading *r = arg;
    if (r->fills) {
        return shelf_entry(r->shelf, e);
    }
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
    if (r->fills) {
        struct shelf_file *f = &r->shelf->files[r->shelf->n - 1];
        mu_buf_add(&f->content, piece);
        return f->content.failed;
    }
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

static void shelf_filled(struct reading *r, const struct mu_engine_result *res)
{
    struct mu_docker_shelf *s = r->shelf;
    bool all = r->result == 0 && res->result == 0 && res->status == 200 && r->tar.left == 0;
    if (all && s->n) {
        s->files[s->n - 1].whole = true;
    }
    s->complete = all || (res->result == 0 && res->status == 404);
    over(r, 0);
}

static void on_answer(void *arg, const struct mu_engine_result *res)
{
    struct reading *r = arg;
    r->call = NULL;
    /* Podman fails while it still tidies up behind the container's end. */
    if (res->status >= 500 && ++r->tries < TRIES && mu_timer_set(&r->begin, 100 << r->tries) == 0) {
        return;
    }
    if (r->fills) {
        shelf_filled(r, res);
    } else if (r->result < 0) {
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

static bool from_shelf(struct reading *r)
{
    struct mu_docker_shelf *s = r->fills || !r->name ? NULL : r->shelf;
    for (size_t i = 0; s && i < s->n; i++) {
        struct shelf_file *f = &s->files[i];
        if (f->whole && !strcmp(f->name, r->name)) {
            mu_bytes all = mu_buf_bytes(&f->content), some = mu_bytes_head(all, r->max);
            mu_buf_add(&r->content, some);
            over(r, r->content.failed    ? r->content.failed
                    : some.len < all.len ? MU_E_TOO_LARGE
                                         : 0);
            return true;
        }
    }
    if (s && s->complete) {
        over(r, MU_E_NOT_FOUND);
        return true;
    }
    return false;
}

static void on_begin(struct mu_timer *t)
{
    struct reading *r = MU_CONTAINER(t, struct reading, begin);
    if (r->result == 0 && from_shelf(r)) {
        return;
    }
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

static struct reading *reading_new(struct mu_docker_box *b, const char *path, size_t max)
{
    struct reading *r = mu_calloc(1, sizeof *r);
    if (r) {
        r->d = b->d;
        r->max = max;
        snprintf(r->id, sizeof r->id, "%s", b->id);
        mu_tar_init(&r->tar);
        mu_buf_init(&r->content, max);
        mu_timer_init(&r->begin, b->d->loop, on_begin);
        mu_list_init(&r->link);
        r->tar.on_entry = on_entry;
        r->tar.on_data = on_data;
        r->tar.arg = r;
        r->result =
            b->id[0] ? mu_docker_escape_(r->path, sizeof r->path, mu_str(path)) : MU_E_NOT_FOUND;
    }
    return r;
}

/* A later one waits until over() of the one before calls; its place in the heap is taken now. */
static int enqueue(struct reading *r)
{
    static const int64_t far_ms = 365LL * 24 * 3600 * 1000;
    mu_list_push(&r->d->reads, &r->link);
    return mu_timer_set(&r->begin, is_first(r) ? 0 : far_ms);
}

/* The reading that fills the shelf goes in front; without memory there is none. */
static void fetch_shelf(struct mu_docker_box *b)
{
    struct mu_docker_shelf *s = mu_calloc(1, sizeof *s);
    struct reading *r = s ? reading_new(b, "/workspace/.oz", 0) : NULL;
    if (!r) {
        mu_free(s);
        return;
    }
    r->fills = true;
    r->shelf = s;
    s->refs = 1;
    if (enqueue(r) < 0) {
        reading_free(r);
        return;
    }
    s->refs++;
    b->shelf = s;
}

void mu_docker_read_file_(struct mu_sandbox *s, const char *path, size_t max,
                          void (*done)(void *arg, int result, mu_bytes bytes), void *arg)
{
    struct mu_docker_box *b = (struct mu_docker_box *)s;
    struct reading *r = reading_new(b, path, max);
    if (!r) {
        done(arg, -ENOMEM, MU_B_NONE);
        return;
    }
    r->done = done;
    r->arg = arg;
    if (b->phase == MU_DOCKER_ENDED && b->id[0] && mu_bytes_starts(mu_str(path), MU_B(OZ_DIR))) {
        r->name = mu_bytes_dup(mu_bytes_from(mu_str(path), sizeof OZ_DIR - 1));
        if (!b->shelf) {
            fetch_shelf(b);
        }
        if (b->shelf) {
            r->shelf = b->shelf;
            r->shelf->refs++;
        }
    }
    if (enqueue(r) < 0) {
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
