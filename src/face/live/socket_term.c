/* The terminals of a subscription: what was there before, then what comes, without a border that
 * shows (village-control-plane.md 8.6). While the past is read, what comes is only noted: it is
 * read too. */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "face/live/socket_int.h"
#include "face/sessions/show.h"

enum { TRIES = 5, FLUSH_MS = 16, READ_MAX = 512 << 10, LAG_MAX = 8 << 20, BINARY_HEAD = 32 };

/* --- opening --- */

void mu_term_free(struct mu_sub_term *t)
{
    if (t) {
        mu_chunk_stream_fini(&t->stream);
        mu_free(t);
    }
}

void mu_terms_drop(struct mu_sub *sub)
{
    for (size_t i = 0; i < MU_SOCK_TERMINALS; i++) {
        if (sub->terms[i]) {
            mu_chunk_stream_fini(&sub->terms[i]->stream);
        }
    }
}

int mu_term_open(struct mu_sub *sub, unsigned number, int64_t from)
{
    struct mu_sub_term *t = sub->terms[number];
    if (!t) {
        t = sub->terms[number] = mu_calloc(1, sizeof *t);
        if (!t) {
            return -ENOMEM;
        }
    }
    mu_chunk_stream_fini(&t->stream);
    mu_chunk_stream_init(&t->stream, &sub->s->chunks, from, sub->binary);
    t->sub = sub;
    t->number = number;
    t->next = from;
    t->live = t->began = false;
    t->again = t->reading; /* a read that is under way is not for this one */
    t->seen = 0;
    t->tries = 0;
    return 0;
}

/* Terminals whose past was dropped before it left read on. */
static void read_starved(struct mu_sock *s)
{
    MU_LIST_EACH(it, tmp, &s->subs)
    {
        struct mu_sub *sub = MU_CONTAINER(it, struct mu_sub, link);
        for (size_t i = 0; i < MU_SOCK_TERMINALS; i++) {
            const struct mu_sub_term *t = sub->terms[i];
            if (t && t->began && !t->live && !t->reading && !t->stream.bytes) {
                mu_sub_want(sub, MU_NEED_TERMS);
            }
        }
    }
}

/* Queues the bytes from `from` on, which then are done with, whether there was room or not. */
static void queue(struct mu_sub_term *t, struct mu_event *e, int64_t from)
{
    struct mu_sock *s = t->sub->s;
    int64_t end = e->offset + (int64_t)e->data.len;
    size_t room = s->chunks.bytes + (size_t)(end - from);
    (void)!mu_chunks_add(&t->stream, e, from); /* without memory it is a gap */
    t->next = end;
    if (room > s->chunks.bytes) {
        mu_metric_add(s->face->dropped, (int64_t)(room - s->chunks.bytes));
        read_starved(s);
    }
}

/* --- the past --- */

/* Everything up to `known` was published or recorded: is that queued? */
static void settle(struct mu_sub_term *t, int64_t known)
{
    known = MU_MAX(known, t->seen);
    if (t->next >= known) {
        t->live = true;
        t->stream.over = t->sub->cursor.finished;
        return;
    }
    if (t->next >= t->target && known - t->next > LAG_MAX) {
        t->next = known - MU_SOCK_TAIL; /* it reads more slowly than the terminal runs */
    }
}

static void took(struct mu_sub_term *t, const struct mu_terminal_read *op)
{
    if (!t->began) {
        t->began = true;
        t->target = op->newest;
        if (t->next < 0) { /* where it begins is no gap */
            t->next = op->bytes.len ? op->begin : MU_MAX(op->newest - MU_SOCK_TAIL, 0);
        } else if (t->next > op->newest) {
            t->next = t->stream.sent = op->newest;
        }
    }
    if (op->bytes.len && op->end > t->next) {
        struct mu_event *e =
            mu_event_new(MU_EV_TERMINAL, 0, 0, op->begin, t->number, mu_buf_bytes(&op->bytes));
        if (e) {
            queue(t, e, MU_MAX(t->next, op->begin));
            mu_event_unref(e);
        }
        t->next = op->end;
        t->tries = 0;
    } else if (op->newest > t->next && t->tries++ < TRIES) {
        return; /* just on its way into the recording */
    } else {
        t->next = MU_MAX(t->next, op->newest); /* there is nothing of it any more */
    }
    settle(t, op->newest);
}

static void was_read(struct mu_terminal_read *op, int result)
{
    struct mu_sub_term *t = op->ctx;
    struct mu_sub *sub = t->sub;
    bool again = t->again;
    t->reading = t->again = false;
    if (sub->closing) {
        mu_buf_fini(&op->bytes);
        (void)mu_sub_returned(sub);
        return;
    }
    if (result == 0 && !again) {
        took(t, op);
    } else if (result < 0) { /* what comes is shown at least */
        t->next = MU_MAX(t->next, t->seen);
        t->live = t->began = true;
    }
    mu_buf_fini(&op->bytes);
    (void)mu_sub_returned(sub);
    mu_sock_flush(sub->s, true);
    sub->needs |= MU_NEED_TERMS; /* another one, or the next piece */
    mu_sub_did(sub);
}

bool mu_terms_read(struct mu_sub *sub)
{
    struct mu_live *live = sub->s->face->opts.live;
    for (size_t i = 0; i < MU_SOCK_TERMINALS; i++) {
        struct mu_sub_term *t = sub->terms[i];
        if (!t || t->live || t->reading || t->stream.bytes) {
            continue;
        }
        if (!live) {
            t->live = true;
            continue;
        }
        t->op = (struct mu_terminal_read){.loop = sub->s->loop,
                                          .session = sub->id,
                                          .terminal = t->number,
                                          .from = t->next,
                                          .limit = t->next < 0 ? MU_SOCK_TAIL : READ_MAX,
                                          .done = was_read,
                                          .ctx = t};
        t->reading = true;
        sub->under_way++;
        mu_terminal_read(live, &t->op);
        return true;
    }
    return false;
}

/* --- the present --- */

void mu_term_delta(struct mu_sub *sub, struct mu_event *e)
{
    struct mu_sub_term *t =
        e->epoch >= 0 && e->epoch < MU_SOCK_TERMINALS ? sub->terms[e->epoch] : NULL;
    int64_t end = e->offset + (int64_t)e->data.len;
    struct mu_sock *s = sub->s;
    if (!t || !s->ws) {
        return;
    }
    if (!t->live) {
        t->seen = MU_MAX(t->seen, end);
        return;
    }
    if (end <= t->next) {
        return;
    }
    if (e->offset > t->next) { /* left out on the way, or lost: the recording knows */
        t->live = false;
        t->seen = end;
        mu_sub_want(sub, MU_NEED_TERMS);
        return;
    }
    queue(t, e, MU_MAX(e->offset, t->next));
    int64_t now = mu_env_mono_ms(s->face->opts.env);
    if (t->stream.bytes >= MU_CHUNK_MAX) {
        mu_sock_flush(s, false);
    } else if (now >= t->left_ms[0] + FLUSH_MS) { /* the echo of a key, and the one after it */
        t->left_ms[0] = t->left_ms[1];
        t->left_ms[1] = now;
        mu_sock_flush(s, true);
    }
    if (s->chunks.bytes && !mu_timer_is_set(&s->flush) && mu_timer_set(&s->flush, FLUSH_MS) < 0) {
        mu_sock_flush(s, true);
    }
}

bool mu_terms_shown(const struct mu_sub *sub)
{
    bool shown = true;
    for (size_t i = 0; i < MU_SOCK_TERMINALS; i++) {
        const struct mu_sub_term *t = sub->terms[i];
        shown = shown && (!t || (t->live && !t->stream.bytes));
    }
    return shown;
}

void mu_terms_over(struct mu_sub *sub)
{
    for (size_t i = 0; i < MU_SOCK_TERMINALS; i++) {
        if (sub->terms[i] && sub->terms[i]->live) {
            sub->terms[i]->stream.over = true;
        }
    }
    mu_sock_flush(sub->s, true);
}

/* --- leaving --- */

static void put_64(unsigned char *dst, int64_t v)
{
    for (size_t i = 0; i < 8; i++) {
        dst[i] = (unsigned char)((uint64_t)v >> (56 - 8 * i) & 0xff);
    }
}

/* 1, terminal, six zero bytes, offset, the session's UUID: then the bytes. */
static void send_binary(const struct mu_sub_term *t, const struct mu_chunk *c)
{
    unsigned char head[BINARY_HEAD] = {1, (unsigned char)t->number};
    const char *text = t->sub->id.text;
    size_t n = 16;
    put_64(head + 8, c->offset);
    for (size_t i = 0; i + 1 < MU_ID_LEN && n < sizeof head; i += 2) {
        i += text[i] == '-';
        head[n++] = (unsigned char)(mu_hex_value(text[i]) << 4 | mu_hex_value(text[i + 1]));
    }
    mu_ws_send2(t->sub->s->ws, false, mu_bytes_of((const char *)head, sizeof head),
                mu_bytes_of(c->bytes, c->len));
}

static void send_text(const struct mu_sub_term *t, const struct mu_chunk *c)
{
    struct mu_sock_out o;
    struct mu_json_w *w = mu_sock_begin(&o, "terminal");
    mu_sess_prefixed(w, "sessionId", "ses_", mu_id_bytes(&t->sub->id));
    mu_jw_kcstr(w, "action", "output");
    mu_jw_ki64(w, "terminal", t->number);
    mu_jw_ki64(w, "offset", c->offset);
    if (c->gap_from >= 0) {
        mu_jw_key(w, "gap");
        mu_jw_obj(w);
        mu_jw_ki64(w, "from", c->gap_from);
        mu_jw_ki64(w, "to", c->offset);
        mu_jw_obj_end(w);
    }
    if (c->text) {
        mu_jw_kstr(w, "data", mu_bytes_of(c->bytes, c->len));
    } else {
        mu_jw_kcstr(w, "encoding", "base64");
        mu_jw_key(w, "data");
        mu_buf_add_char(&o.buf, '"');
        mu_base64_add(&o.buf, mu_bytes_of(c->bytes, c->len));
        mu_buf_add_char(&o.buf, '"');
        w->comma = true;
    }
    mu_sock_end(t->sub->s, &o, MU_B_NONE);
}

/* A loop turn may bring more than should wait: the client need not be slow for that. */
static bool has_room(struct mu_sock *s)
{
    if (s->ws && mu_sock_full(s)) {
        mu_ws_flush(s->ws);
    }
    return !mu_sock_full(s);
}

void mu_sock_flush(struct mu_sock *s, bool all)
{
    struct mu_chunk chunk;
    mu_sock_ref(s);
    while (s->chunks.bytes && has_room(s) && mu_chunks_take(&s->chunks, all, &chunk)) {
        struct mu_sub_term *t = MU_CONTAINER(chunk.stream, struct mu_sub_term, stream);
        if (t->sub->binary) {
            send_binary(t, &chunk);
        } else {
            send_text(t, &chunk);
        }
        if ((!t->live || t->sub->ends) && !t->stream.bytes) {
            mu_sub_want(t->sub, MU_NEED_TERMS);
        }
    }
    mu_sock_unref(s);
}
