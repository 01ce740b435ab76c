/* The server as a whole, and its seat on each loop. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "net/http_int.h"

const struct mu_http_limits mu_http_default_limits = {
    .head = {.max_start_line = 8192, .max_header_bytes = 32768, .max_headers = 100},
    .header_ms = 10000,
    .idle_ms = 75000,
    .body_min_rate = 1024,
    .max_connections = 20000,
    .write_soft = 1024 * 1024,
    .write_hard = 8 * 1024 * 1024,
    .write_stall_ms = 60000,
};

enum { DRAIN_LOOK_MS = 10, HEAD_BYTES = 256 * 1024 };

/* --- a seat --- */

const char *mu_http_date(struct mu_http_seat *seat)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int64_t now_s = mu_env_wall_ms(mu_loop_env(seat->loop)) / 1000;
    if (now_s != seat->date_s || !seat->date[0]) {
        struct mu_civil c = mu_civil_of(now_s * 1000);
        snprintf(seat->date, sizeof seat->date, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                 days + 3 * c.weekday, c.day, months + 3 * (c.month - 1), c.year, c.hour, c.minute,
                 c.second);
        seat->date_s = now_s;
    }
    return seat->date;
}

static void destroy_reqs(struct mu_list *list)
{
    while (!mu_list_empty(list)) {
        mu_http_req_destroy(MU_CONTAINER(list->next, struct mu_http_req, link));
    }
}

static void server_unref(struct mu_http_server *s)
{
    if (atomic_fetch_sub(&s->refs, 1) != 1) {
        return;
    }
    struct mu_list *l;
    while ((l = mu_list_pop(&s->listeners))) {
        struct mu_http_listener *lis = MU_CONTAINER(l, struct mu_http_listener, link);
        mu_tls_conf_free(lis->tls);
        mu_free(lis);
    }
    mu_free(s->seats);
    mu_free(s);
}

static void seat_free(struct mu_http_seat *seat)
{
    struct mu_http_server *s = seat->server;
    destroy_reqs(&seat->reqs);
    destroy_reqs(&seat->spare);
    mu_buf_fini(&seat->head);
    mu_free(seat);
    server_unref(s);
}

void mu_http_seat_unref(struct mu_http_seat *seat)
{
    if (atomic_fetch_sub(&seat->refs, 1) == 1 && seat->dying) {
        seat_free(seat);
    }
}

static void on_idle(uv_idle_t *h MU_UNUSED)
{
}

/* Before the loop waits: everything that was queued in this turn goes out. What comes up meanwhile
 * has its turn after the next look at the sockets, which the idle handle keeps from waiting. */
static void on_prepare(uv_prepare_t *h)
{
    struct mu_http_seat *seat = h->data;
    struct mu_list batch, *l;
    if (!mu_list_empty(&seat->dirty)) {
        batch = seat->dirty;
        batch.next->prev = batch.prev->next = &batch;
        mu_list_init(&seat->dirty);
        while ((l = mu_list_pop(&batch))) {
            mu_http_conn_advance(MU_CONTAINER(l, struct mu_http_conn, dirty));
        }
    }
    bool more = !mu_list_empty(&seat->dirty);
    if (more != (bool)uv_is_active((uv_handle_t *)&seat->idle)) {
        if (more) {
            uv_idle_start(&seat->idle, on_idle);
        } else {
            uv_idle_stop(&seat->idle);
        }
    }
}

static void on_sweep(uv_timer_t *h)
{
    struct mu_http_seat *seat = h->data;
    int64_t now = mu_loop_now_ms(seat->loop);
    bool starved = false;
    MU_LIST_EACH(it, tmp, &seat->timed)
    {
        mu_http_conn_check(MU_CONTAINER(it, struct mu_http_conn, link), now);
    }
    MU_LIST_EACH(it, tmp, &seat->socks)
    {
        struct mu_http_sock *sock = MU_CONTAINER(it, struct mu_http_sock, link);
        if (sock->starved) {
            mu_http_accept(sock);
            starved = starved || sock->starved;
        }
    }
    if (mu_list_empty(&seat->timed) && !starved) {
        uv_timer_stop(h);
        seat->sweeping = false;
    }
}

void mu_http_sweep_on(struct mu_http_seat *seat)
{
    if (seat->sweeping) {
        return;
    }
    const struct mu_http_limits *l = &seat->server->limits;
    int64_t least = MU_MIN(MU_MIN(l->header_ms, l->idle_ms), l->write_stall_ms);
    uint64_t every = (uint64_t)MU_MAX(MU_MIN(least / 8, 500), 5);
    seat->sweeping = true;
    uv_timer_start(&seat->sweep, on_sweep, every, every);
}

static void on_setup(struct mu_post *post)
{
    struct mu_http_seat *seat = MU_CONTAINER(post, struct mu_http_seat, setup);
    if (!seat->dying) {
        uv_prepare_init(seat->uv, &seat->prepare);
        uv_idle_init(seat->uv, &seat->idle);
        uv_timer_init(seat->uv, &seat->sweep);
        uv_timer_init(seat->uv, &seat->drain);
        seat->prepare.data = seat->idle.data = seat->sweep.data = seat->drain.data = seat;
        uv_prepare_start(&seat->prepare, on_prepare);
        atomic_fetch_add(&seat->refs, 4);
        seat->ready = true;
    }
    mu_http_seat_unref(seat);
}

static void on_drain_post(struct mu_post *post);
static void on_cut_post(struct mu_post *post);

static int seat_new(struct mu_http_server *s, struct mu_loop *loop, struct mu_http_seat **ret)
{
    struct mu_http_seat *seat = mu_calloc(1, sizeof *seat);
    if (!seat) {
        return -ENOMEM;
    }
    seat->server = s;
    seat->loop = loop;
    seat->uv = mu_loop_uv(loop);
    mu_list_init(&seat->timed);
    mu_list_init(&seat->quiet);
    mu_list_init(&seat->dirty);
    mu_list_init(&seat->reqs);
    mu_list_init(&seat->spare);
    mu_list_init(&seat->socks);
    mu_buf_init(&seat->head, HEAD_BYTES);
    seat->setup.fn = on_setup;
    seat->drain_post.fn = on_drain_post;
    seat->cut_post.fn = on_cut_post;
    *ret = seat;
    return 0;
}

static void on_handle_closed(uv_handle_t *h)
{
    mu_http_seat_unref(h->data);
}

static void close_conns(struct mu_list *list)
{
    while (!mu_list_empty(list)) {
        mu_http_conn_close(MU_CONTAINER(list->next, struct mu_http_conn, link));
    }
}

/* The loop was freed and closed our handles: only memory is left. */
static void free_after_loop(struct mu_http_seat *seat)
{
    struct mu_list *lists[] = {&seat->timed, &seat->quiet}, *l;
    for (size_t i = 0; i < MU_ARRAY_LEN(lists); i++) {
        while ((l = mu_list_pop(lists[i]))) {
            mu_http_conn_release(MU_CONTAINER(l, struct mu_http_conn, link));
        }
    }
    while ((l = mu_list_pop(&seat->socks))) {
        mu_free(MU_CONTAINER(l, struct mu_http_sock, link));
    }
    seat_free(seat);
}

static void seat_end(struct mu_http_seat *seat)
{
    seat->dying = true;
    if (!seat->ready) {
        if (atomic_load(&seat->refs) == 0) {
            seat_free(seat);
        }
        return; /* else the posts that are still under way free it */
    }
    if (uv_is_closing((uv_handle_t *)&seat->prepare)) {
        free_after_loop(seat);
        return;
    }
    mu_http_socks_close(seat);
    close_conns(&seat->timed);
    close_conns(&seat->quiet);
    uv_close((uv_handle_t *)&seat->prepare, on_handle_closed);
    uv_close((uv_handle_t *)&seat->idle, on_handle_closed);
    uv_close((uv_handle_t *)&seat->sweep, on_handle_closed);
    uv_close((uv_handle_t *)&seat->drain, on_handle_closed);
}

/* --- the server --- */

int mu_http_server_new(struct mu_loop **loops, size_t n_loops, const struct mu_http_limits *limits,
                       const struct mu_http_ops *ops, struct mu_http_server **ret)
{
    struct mu_http_server *s = mu_calloc(1, sizeof *s);
    if (!s) {
        return -ENOMEM;
    }
    s->limits = *limits;
    s->ops = *ops;
    mu_list_init(&s->listeners);
    atomic_init(&s->refs, 1);
    s->seats = mu_calloc(n_loops, sizeof(struct mu_http_seat *));
    int r = s->seats ? 0 : -ENOMEM;
    for (size_t i = 0; i < n_loops && r == 0; i++) {
        r = seat_new(s, loops[i], &s->seats[i]);
        if (r == 0) {
            s->n_seats++;
            atomic_fetch_add(&s->refs, 1);
        }
    }
    if (r < 0) {
        mu_http_server_free(s);
        return r;
    }
    for (size_t i = 0; i < n_loops; i++) {
        atomic_store(&s->seats[i]->refs, 1);
        mu_loop_post(loops[i], &s->seats[i]->setup);
    }
    *ret = s;
    return 0;
}

int mu_http_server_prepare_tls(struct mu_http_server *s, struct mu_err *err)
{
    int r = 0;
    MU_LIST_EACH(it, tmp, &s->listeners)
    {
        struct mu_http_listener *lis = MU_CONTAINER(it, struct mu_http_listener, link);
        if (lis->tls && r == 0) {
            r = mu_tls_conf_prepare(lis->tls, err);
        }
    }
    if (r < 0) {
        mu_http_server_commit_tls(s, false);
    }
    return r;
}

void mu_http_server_commit_tls(struct mu_http_server *s, bool use)
{
    MU_LIST_EACH(it, tmp, &s->listeners)
    {
        struct mu_http_listener *lis = MU_CONTAINER(it, struct mu_http_listener, link);
        if (lis->tls) {
            mu_tls_conf_commit(lis->tls, use);
        }
    }
}

int64_t mu_http_server_connections(const struct mu_http_server *s)
{
    return atomic_load(&s->connections);
}

struct mu_http_server *mu_http_server_free(struct mu_http_server *s)
{
    if (s) {
        for (size_t i = 0; i < s->n_seats; i++) {
            seat_end(s->seats[i]);
        }
        server_unref(s);
    }
    return NULL;
}

/* --- drain --- */

static void close_idle(struct mu_http_seat *seat)
{
    MU_LIST_EACH(it, tmp, &seat->timed)
    {
        struct mu_http_conn *c = MU_CONTAINER(it, struct mu_http_conn, link);
        if (c->state == MU_CONN_IDLE && c->kept_len == 0) {
            mu_http_conn_close(c);
        }
    }
}

static void drain_taken(struct mu_list *list)
{
    MU_LIST_EACH(it, tmp, list)
    {
        struct mu_http_conn *c = MU_CONTAINER(it, struct mu_http_conn, link);
        if (c->state == MU_CONN_TAKEN) {
            c->taker->drain(c->taker_arg);
        }
    }
}

static void on_drain_post(struct mu_post *post)
{
    struct mu_http_seat *seat = MU_CONTAINER(post, struct mu_http_seat, drain_post);
    if (!seat->dying) {
        mu_http_socks_close(seat);
        close_idle(seat);
        drain_taken(&seat->timed);
        drain_taken(&seat->quiet);
    }
    mu_http_seat_unref(seat);
}

static void on_cut_post(struct mu_post *post)
{
    struct mu_http_seat *seat = MU_CONTAINER(post, struct mu_http_seat, cut_post);
    if (!seat->dying) {
        close_conns(&seat->timed);
        close_conns(&seat->quiet);
    }
    mu_http_seat_unref(seat);
}

static void post_all(struct mu_http_server *s, bool cut)
{
    for (size_t i = 0; i < s->n_seats; i++) {
        struct mu_http_seat *seat = s->seats[i];
        atomic_fetch_add(&seat->refs, 1);
        mu_loop_post(seat->loop, cut ? &seat->cut_post : &seat->drain_post);
    }
}

static void on_drain_look(uv_timer_t *h)
{
    struct mu_http_seat *seat = h->data;
    struct mu_http_server *s = seat->server;
    if (atomic_load(&s->connections) == 0) {
        uv_timer_stop(h);
        s->drained(s->drained_arg);
    } else if (!s->drain_cut && mu_loop_now_ms(seat->loop) >= s->drain_until_ms) {
        s->drain_cut = true;
        post_all(s, true);
    }
}

void mu_http_server_drain(struct mu_http_server *s, int64_t grace_ms, void (*drained)(void *arg),
                          void *arg)
{
    struct mu_http_seat *first = s->seats[0];
    MU_CHECK(mu_loop_here(first->loop) && first->ready);
    if (atomic_exchange(&s->draining, true)) {
        return;
    }
    s->drained = drained;
    s->drained_arg = arg;
    s->drain_until_ms = mu_loop_now_ms(first->loop) + grace_ms;
    post_all(s, false);
    uv_timer_start(&first->drain, on_drain_look, DRAIN_LOOK_MS, DRAIN_LOOK_MS);
}
