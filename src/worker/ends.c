/* The ends of attempts on their way to the server: kept in the journal until it has them. */
#include <errno.h>

#include "base/log.h"
#include "worker/worker_int.h"

enum { FULL_ENOUGH = 4 << 20, /* unsent bytes at which the next end waits */ AGAIN_MS = 100 };

struct mu_end *mu_ends_find(struct mu_worker *w, mu_bytes execution_id)
{
    MU_LIST_EACH(it, tmp, &w->ends)
    {
        struct mu_end *e = MU_CONTAINER(it, struct mu_end, link);
        if (mu_bytes_is(execution_id, e->execution_id)) {
            return e;
        }
    }
    return NULL;
}

static void drop(struct mu_worker *w, struct mu_end *e)
{
    mu_list_remove(&e->link);
    w->n_ends--;
    mu_free(e->text);
    mu_free(e);
}

/* Done with it: neither memory nor journal need it. The task may still be giving its sandbox back;
 * its start is not needed for that either, sweep() finds what is left. */
static void forget(struct mu_worker *w, struct mu_end *e)
{
    if (mu_jstore_remove(w->store, mu_str(e->execution_id)) < 0) {
        mu_log(MU_LOG_WARN, "journal.not_removed", MU_KC("execution_id", e->execution_id));
    }
    drop(w, e);
}

struct mu_end *mu_ends_add(struct mu_worker *w, const char *execution_id, int64_t seq)
{
    if (w->n_ends >= MU_WORKER_MAX_ENDS) {
        return NULL;
    }
    struct mu_end *e = mu_calloc(1, sizeof *e);
    if (e) {
        memcpy(e->execution_id, execution_id, strlen(execution_id));
        e->seq = seq;
        mu_list_push(&w->ends, &e->link);
        w->n_ends++;
    }
    return e;
}

static void send_end(struct mu_worker *w, struct mu_end *e, mu_bytes text)
{
    mu_ws_send(w->link.ws, true, text);
    e->sent = true;
    mu_uplink_watch_arrival(w);
}

static void was_read(void *arg, int result, mu_bytes text)
{
    struct mu_worker *w = arg;
    struct mu_end *e = mu_ends_find(w, mu_str(w->link.reading));
    w->link.reading[0] = 0;
    if (!e) {
        return;
    }
    if (e->gone) {
        forget(w, e);
    } else if (result < 0) {
        mu_log(MU_LOG_ERROR, "journal.not_read", MU_KC("execution_id", e->execution_id),
               MU_KC("err_message", mu_err_text(result)));
        if (result == MU_E_CORRUPT || result == MU_E_NOT_FOUND) {
            forget(w, e);
        } else {
            e->sent = true; /* once more on the next connection */
        }
    } else if (mu_uplink_up(w) && !e->sent) {
        send_end(w, e, text);
    }
    mu_ends_pump(w);
    mu_worker_advance(w);
}

void mu_ends_pump(struct mu_worker *w)
{
    struct mu_uplink *l = &w->link;
    MU_LIST_EACH(it, tmp, &w->ends)
    {
        struct mu_end *e = MU_CONTAINER(it, struct mu_end, link);
        if (!mu_uplink_up(w) || !l->ws || l->reading[0]) {
            return;
        }
        if (e->sent) {
            continue;
        }
        if (mu_ws_unsent(l->ws) > FULL_ENOUGH) {
            (void)!mu_timer_set(&l->confirm, AGAIN_MS);
            return;
        }
        if (e->text) {
            send_end(w, e, mu_bytes_of(e->text, e->text_len));
            continue;
        }
        if (mu_jstore_read(w->store, MU_JOURNAL_END, mu_str(e->execution_id), was_read, w) == 0) {
            memcpy(l->reading, e->execution_id, sizeof l->reading);
        } else {
            (void)!mu_timer_set(&l->confirm, AGAIN_MS);
        }
        return;
    }
}

void mu_ends_unsent(struct mu_worker *w)
{
    MU_LIST_EACH(it, tmp, &w->ends)
    {
        MU_CONTAINER(it, struct mu_end, link)->sent = false;
    }
}

void mu_ends_acked(struct mu_worker *w, mu_bytes execution_id, int64_t seq)
{
    struct mu_end *e = mu_ends_find(w, execution_id);
    if (!e || seq < e->seq) {
        return;
    }
    if (!strcmp(w->link.reading, e->execution_id)) {
        e->gone = true;
        return;
    }
    forget(w, e);
    mu_worker_advance(w);
}

void mu_ends_confirmed(struct mu_worker *w)
{
    MU_LIST_EACH(it, tmp, &w->ends)
    {
        struct mu_end *e = MU_CONTAINER(it, struct mu_end, link);
        if (e->sent && strcmp(w->link.reading, e->execution_id) != 0) {
            forget(w, e);
        }
    }
    mu_ends_pump(w);
    mu_worker_advance(w);
}

void mu_ends_free(struct mu_worker *w)
{
    MU_LIST_EACH(it, tmp, &w->ends)
    {
        drop(w, MU_CONTAINER(it, struct mu_end, link));
    }
}
