#include "net/fetch.h"

#include <errno.h>
#include <pthread.h>
#include <uv.h>

#include "net/fetch_int.h"

/* One socket of libcurl. */
struct sock {
    struct mu_list link;
    uv_poll_t poll;
    struct mu_fetcher *fetcher;
    curl_socket_t fd; /* -1 = closing */
    int events;
};

static void kick(struct mu_fetcher *r)
{
    if (!r->kicked) {
        r->kicked = true;
        mu_loop_post(r->loop, &r->kick);
    }
}

/* --- the end of a fetch --- */

/* It ends from the next kick. */
static void end_soon(struct mu_fetch *f)
{
    if (!f->aborting) {
        f->aborting = true;
        mu_list_remove(&f->link);
        mu_list_push(&f->fetcher->aborting, &f->link);
        kick(f->fetcher);
    }
}

void mu_fetch_finish_(struct mu_fetch *f)
{
    struct mu_fetcher *r = f->fetcher;
    long status = 0;
    MU_CHECK(r->depth == 0);
    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    f->result.status = (int)status;
    mu_list_remove(&f->link);
    if (f->added) {
        r->depth++;
        curl_multi_remove_handle(r->multi, f->easy);
        r->depth--;
        f->added = false;
        r->n_active--;
        if (!mu_list_empty(&r->queued)) {
            kick(r);
        }
    }
    mu_timer_clear(&f->timer);
    r->depth++;
    f->done(f->arg, &f->result);
    r->depth--;
    mu_fetch_free_(f);
}

static void collect(struct mu_fetcher *r)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(r->multi, &left)) != NULL) {
        char *f = NULL;
        if (m->msg == CURLMSG_DONE &&
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &f) == CURLE_OK && f) {
            mu_fetch_decide_code_((struct mu_fetch *)(void *)f, m->data.result);
            mu_fetch_finish_((struct mu_fetch *)(void *)f);
        }
    }
}

/* --- libcurl's sockets and its timer --- */

static void act(struct mu_fetcher *r, curl_socket_t fd, int flags)
{
    int running;
    r->depth++;
    curl_multi_socket_action(r->multi, fd, flags, &running);
    r->depth--;
    collect(r);
}

static void on_sock_closed(uv_handle_t *h)
{
    mu_free(h->data);
}

static void sock_close(struct sock *s)
{
    s->fd = -1;
    mu_list_remove(&s->link);
    uv_close((uv_handle_t *)&s->poll, on_sock_closed);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct sock *s = poll->data;
    int flags = 0;
    if (status < 0) {
        flags = CURL_CSELECT_ERR | CURL_CSELECT_IN | CURL_CSELECT_OUT;
    } else {
        flags |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
        flags |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
    }
    act(s->fetcher, s->fd, flags);
    /* libuv stops polling after an error; libcurl may want to go on. */
    if (status < 0 && s->fd != -1) {
        uv_poll_start(&s->poll, s->events, on_poll);
    }
}

static struct sock *sock_new(struct mu_fetcher *r, curl_socket_t fd)
{
    struct sock *s = mu_calloc(1, sizeof *s);
    if (!s) {
        return NULL;
    }
    if (uv_poll_init_socket(mu_loop_uv(r->loop), &s->poll, fd) < 0) {
        mu_free(s);
        return NULL;
    }
    s->poll.data = s;
    s->fetcher = r;
    s->fd = fd;
    mu_list_push(&r->socks, &s->link);
    curl_multi_assign(r->multi, fd, s);
    return s;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *sockp)
{
    struct mu_fetcher *r = arg;
    struct sock *s = sockp;
    if (what == CURL_POLL_REMOVE) {
        if (s) {
            curl_multi_assign(r->multi, fd, NULL);
            sock_close(s);
        }
        return 0;
    }
    if (!s) {
        s = sock_new(r, fd);
    }
    if (s) {
        s->events =
            (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    }
    if (!s || uv_poll_start(&s->poll, s->events, on_poll) < 0) {
        /* An error from here would make libcurl give up the whole multi handle. */
        char *f = NULL;
        if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, &f) == CURLE_OK && f) {
            mu_fetch_decide_((struct mu_fetch *)(void *)f, MU_FETCH_FAILED, "out of memory");
            end_soon((struct mu_fetch *)(void *)f);
        }
    }
    return 0;
}

static void on_curl_timer(struct mu_timer *t)
{
    act(MU_CONTAINER(t, struct mu_fetcher, timer), CURL_SOCKET_TIMEOUT, 0);
}

static int on_timer_wanted(CURLM *multi MU_UNUSED, long ms, void *arg)
{
    struct mu_fetcher *r = arg;
    if (ms < 0) {
        mu_timer_clear(&r->timer);
    } else if (mu_timer_set(&r->timer, ms) < 0) {
        kick(r); /* which looks after libcurl's timeouts, too */
    }
    return 0;
}

/* --- starting and aborting --- */

static void activate(struct mu_fetch *f)
{
    struct mu_fetcher *r = f->fetcher;
    mu_list_remove(&f->link);
    mu_list_push(&r->active, &f->link);
    f->active_ms = mu_loop_now_ms(r->loop);
    if (mu_fetch_arm_(f) < 0 || curl_multi_add_handle(r->multi, f->easy) != CURLM_OK) {
        mu_fetch_decide_(f, MU_FETCH_FAILED, "out of memory");
        mu_fetch_finish_(f);
        return;
    }
    f->added = true;
    r->n_active++;
}

static void on_kick(struct mu_post *post)
{
    struct mu_fetcher *r = MU_CONTAINER(post, struct mu_fetcher, kick);
    r->kicked = false;
    if (r->closing) { /* mu_fetcher_free() left the memory to us */
        mu_free(r);
        return;
    }
    struct mu_list *n;
    while ((n = mu_list_pop(&r->aborting)) != NULL) {
        struct mu_fetch *f = MU_CONTAINER(n, struct mu_fetch, link);
        mu_fetch_decide_(f, MU_FETCH_ABORTED, "aborted");
        mu_fetch_finish_(f);
    }
    while (!mu_list_empty(&r->queued) && (r->max_active == 0 || r->n_active < r->max_active)) {
        activate(MU_CONTAINER(r->queued.next, struct mu_fetch, link));
    }
    if (!mu_timer_is_set(&r->timer)) {
        act(r, CURL_SOCKET_TIMEOUT, 0);
    }
}

static int real_start(struct mu_fetcher *r, const struct mu_fetch_request *req,
                      struct mu_fetch **ret)
{
    MU_CHECK(mu_loop_here(r->loop));
    if (r->closing) {
        return MU_E_CLOSED;
    }
    struct mu_fetch *f;
    int e = mu_fetch_new_(r, req, &f);
    if (e < 0) {
        return e;
    }
    mu_list_push(&r->queued, &f->link);
    kick(r);
    *ret = f;
    return 0;
}

static void real_abort(struct mu_fetch *f)
{
    MU_CHECK(mu_loop_here(f->fetcher->loop));
    mu_fetch_decide_(f, MU_FETCH_ABORTED, "aborted");
    end_soon(f);
}

const struct mu_fetch_ops mu_fetch_real = {real_start, real_abort};

/* --- the fetcher --- */

static int global_result;

static void global_init(void)
{
    global_result = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? 0 : -ENOMEM;
}

int mu_fetcher_new(struct mu_loop *loop, long max_connections, struct mu_fetcher **ret)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, global_init);
    if (global_result < 0 || max_connections < 0) {
        return global_result < 0 ? global_result : MU_E_INVALID;
    }
    struct mu_fetcher *r = mu_calloc(1, sizeof *r);
    if (!r) {
        return -ENOMEM;
    }
    r->multi = curl_multi_init();
    if (!r->multi) {
        mu_free(r);
        return -ENOMEM;
    }
    r->loop = loop;
    r->max_active = max_connections;
    r->kick.fn = on_kick;
    mu_list_init(&r->queued);
    mu_list_init(&r->active);
    mu_list_init(&r->aborting);
    mu_list_init(&r->socks);
    mu_timer_init(&r->timer, loop, on_curl_timer);
    curl_multi_setopt(r->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(r->multi, CURLMOPT_SOCKETDATA, r);
    curl_multi_setopt(r->multi, CURLMOPT_TIMERFUNCTION, on_timer_wanted);
    curl_multi_setopt(r->multi, CURLMOPT_TIMERDATA, r);
    curl_multi_setopt(r->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    if (max_connections) { /* idle ones count, and are closed when an active one needs their place
                            */
        curl_multi_setopt(r->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, max_connections);
        curl_multi_setopt(r->multi, CURLMOPT_MAXCONNECTS, max_connections);
    }
    *ret = r;
    return 0;
}

static void finish_all(struct mu_list *list)
{
    while (!mu_list_empty(list)) {
        struct mu_fetch *f = MU_CONTAINER(list->next, struct mu_fetch, link);
        mu_fetch_decide_(f, MU_FETCH_ABORTED, "aborted");
        mu_fetch_finish_(f);
    }
}

struct mu_fetcher *mu_fetcher_free(struct mu_fetcher *r)
{
    if (!r) {
        return NULL;
    }
    MU_CHECK(mu_loop_here(r->loop) && r->depth == 0);
    r->closing = true;
    finish_all(&r->aborting);
    finish_all(&r->active);
    finish_all(&r->queued);
    finish_all(&r->aborting); /* what a done() aborted meanwhile */
    curl_multi_cleanup(r->multi);
    while (!mu_list_empty(&r->socks)) {
        sock_close(MU_CONTAINER(r->socks.next, struct sock, link));
    }
    mu_timer_clear(&r->timer);
    if (!r->kicked) {
        mu_free(r);
    }
    return NULL;
}
