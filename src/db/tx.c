#include <errno.h>
#include <stdio.h>

#include "db/writer_int.h"

enum {
    MAX_LOG = 64 << 20,
    KEEP_LOG = 1 << 20,
    MAX_EVENT = 16 << 10,
    PUBLISH_TRIES = 3,
};

/* One event in the log; the stream's id and the data follow it. Everything is copied, whether
 * somebody watches is asked after the commit: a subscriber that comes in between reads the row. */
struct record {
    int64_t seq, at_ms;
    int type;
    unsigned id_len, data_len, actor_len, org_len;
};

static const struct mu_stmt take_stmt = {
    "stream_take", "ti",
    "UPDATE streams SET last_seq = last_seq + $2 WHERE id = $1 RETURNING last_seq, org_id", NULL};
static const struct mu_stmt new_stmt = {
    "stream_new", "tti",
    "INSERT INTO streams (id, org_id, first_seq, last_seq) VALUES ($1, $2, 1, $3)", NULL};
static const struct mu_stmt event_stmt = {
    "event", "tiiitt",
    "INSERT INTO events (stream_id, seq, at_ms, type, actor, data) VALUES ($1, $2, $3, $4, $5, $6)",
    NULL};

void mu_tx_reset(struct mu_tx *tx)
{
    if (tx->log.cap > KEEP_LOG) {
        mu_buf_fini(&tx->log);
        mu_buf_init(&tx->log, MAX_LOG);
    } else if (tx->log.max == 0) {
        mu_buf_init(&tx->log, MAX_LOG);
    } else {
        mu_buf_clear(&tx->log);
    }
    mu_tx_start_unit(tx);
}

void mu_tx_start_unit(struct mu_tx *tx)
{
    tx->stream_id = MU_B_NONE;
    tx->next_seq = 0;
    tx->left = 0;
    tx->misused = false;
}

int mu_tx_end_unit(struct mu_tx *tx)
{
    return tx->left || tx->misused
               ? mu_db_fail(tx->w->db, MU_E_INTERNAL, "a unit did not use its event numbers")
               : 0;
}

struct mu_db *mu_tx_db(struct mu_tx *tx)
{
    return tx->w->db;
}

struct taken {
    struct mu_tx *tx;
    int64_t last_seq;
};

/* One that is too long is nobody's: no topic could name it. */
static void of_org(struct mu_tx *tx, mu_bytes org_id)
{
    snprintf(tx->org, sizeof tx->org, "%.*s", org_id.len < MU_TX_ORG ? (int)org_id.len : 0,
             org_id.ptr ? org_id.ptr : "");
}

static int on_taken(void *arg, struct mu_row *row)
{
    struct taken *t = arg;
    t->last_seq = mu_row_i64(row, 0);
    of_org(t->tx, mu_row_bytes(row, 1));
    return 0;
}

static void hold(struct mu_tx *tx, mu_bytes stream_id, int64_t last_seq, unsigned n)
{
    if (tx->left && mu_bytes_eq(tx->stream_id, stream_id)) { /* its lock is ours: they follow */
        tx->left += n;
        return;
    }
    tx->misused = tx->misused || tx->left;
    tx->stream_id = stream_id;
    tx->next_seq = last_seq - n + 1;
    tx->left = n;
}

int mu_tx_stream(struct mu_tx *tx, mu_bytes stream_id, unsigned n)
{
    struct taken t = {.tx = tx};
    int r = MU_TX_RUN(tx, &take_stmt, on_taken, &t, MU_VT(stream_id), MU_VI(n));
    if (r <= 0) {
        return r < 0 ? r : MU_E_NOT_FOUND;
    }
    hold(tx, stream_id, t.last_seq, n);
    return 0;
}

int mu_tx_stream_new(struct mu_tx *tx, mu_bytes stream_id, mu_bytes org_id, unsigned n)
{
    int r = MU_TX_SEND(tx, &new_stmt, 1, MU_VT(stream_id), MU_VT(org_id), MU_VI(n));
    if (r == 0) {
        of_org(tx, org_id);
        hold(tx, stream_id, n, n);
    }
    return r;
}

int mu_tx_event(struct mu_tx *tx, int type, int64_t at_ms, mu_bytes actor, mu_bytes data)
{
    if (data.len > MAX_EVENT) {
        return MU_E_TOO_LARGE;
    }
    if (tx->left == 0) {
        tx->misused = true;
        return mu_db_fail(tx->w->db, MU_E_INTERNAL,
                          "a unit wrote more events than it took numbers");
    }
    int64_t seq = tx->next_seq;
    int r = MU_TX_SEND(tx, &event_stmt, 1, MU_VT(tx->stream_id), MU_VI(seq), MU_VI(at_ms),
                       MU_VI(type), MU_VT(actor), MU_VT(data));
    if (r < 0) {
        return r;
    }
    tx->next_seq++;
    tx->left--;
    if (!tx->w->opts.feed) {
        return 0;
    }
    mu_bytes org = mu_str(tx->org);
    struct record rec = {.seq = seq,
                         .at_ms = at_ms,
                         .type = type,
                         .id_len = (unsigned)tx->stream_id.len,
                         .data_len = (unsigned)data.len,
                         .actor_len = (unsigned)actor.len,
                         .org_len = (unsigned)org.len};
    mu_buf_add(&tx->log, mu_bytes_of((const char *)&rec, sizeof rec));
    mu_buf_add(&tx->log, tx->stream_id);
    mu_buf_add(&tx->log, data);
    mu_buf_add(&tx->log, actor);
    mu_buf_add(&tx->log, org);
    return tx->log.failed;
}

/* Who besides those that watch the stream hears of it. */
struct topics {
    char org[sizeof((struct mu_watch *)0)->stream_id];
    bool own, every; /* somebody waits for the org's, for all orgs' */
};

static const char all_orgs[] = "org:*";

static struct topics topics_of(const struct mu_writer *w, const struct mu_event *e)
{
    struct topics t = {.org = ""};
    if (e->type < 64 && w->opts.org_types >> e->type & 1) {
        snprintf(t.org, sizeof t.org, "org:%.*s", MU_ARGS(e->org));
        t.own = e->org.len && mu_feed_awaited(w->opts.feed, mu_str(t.org));
        t.every = mu_feed_awaited(w->opts.feed, mu_str(all_orgs));
    }
    return t;
}

static void announce(struct mu_feed *feed, mu_bytes topic, struct mu_event *e)
{
    if (e) {
        mu_feed_announce(feed, topic, e);
    } else {
        mu_feed_skip(feed, topic);
    }
}

static void publish(struct mu_writer *w, const struct mu_event *like)
{
    struct mu_feed *feed = w->opts.feed;
    const struct topics t = topics_of(w, like);
    bool watched = mu_feed_watched(feed, like->stream);
    if (!watched && !t.own && !t.every) {
        return;
    }
    /* It is committed and cannot be refused any more: memory gets a moment to come back. */
    struct mu_event *e = NULL;
    for (int i = 0; i < PUBLISH_TRIES && !e; i++) {
        if (i) {
            mu_writer_sleep(1);
        }
        e = mu_event_committed(like);
    }
    if (e && watched) {
        mu_feed_publish(feed, like->stream, e);
    }
    if (t.own) {
        announce(feed, mu_str(t.org), e);
    }
    if (t.every) {
        announce(feed, mu_str(all_orgs), e);
    }
    mu_event_unref(e);
}

static mu_bytes take(mu_bytes *rest, size_t n)
{
    mu_bytes head = mu_bytes_head(*rest, n);
    *rest = mu_bytes_from(*rest, n);
    return head;
}

void mu_tx_publish(struct mu_tx *tx)
{
    mu_bytes rest = mu_buf_bytes(&tx->log);
    while (rest.len >= sizeof(struct record)) {
        struct record rec;
        memcpy(&rec, rest.ptr, sizeof rec);
        rest = mu_bytes_from(rest, sizeof rec);
        struct mu_event like = {.type = rec.type, .seq = rec.seq, .at_ms = rec.at_ms, .offset = -1};
        like.stream = take(&rest, rec.id_len);
        like.data = take(&rest, rec.data_len);
        like.actor = take(&rest, rec.actor_len);
        like.org = take(&rest, rec.org_len);
        publish(tx->w, &like);
    }
    mu_buf_clear(&tx->log);
}
