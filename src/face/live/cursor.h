/* A reader of one session's log that never misses an event: it reads pages from the database until
 * it meets the present, then takes events from the feed; whatever it could not take (its sink was
 * full, it was reading a page, the feed left something out) it reads again from the database
 * (architecture.md 4 "An event"). Embedded in its owner; lives on one loop. */
#ifndef MU_FACE_LIVE_CURSOR_H
#define MU_FACE_LIVE_CURSOR_H

#include "app/sessions/sessions.h"
#include "db/feed.h"

struct mu_cursor;

struct mu_cursor_ops {
    /* Appends what the sink gets of one event, or nothing. Reader thread. */
    void (*encode)(const struct mu_cursor *cur, struct mu_buf *dst,
                   const struct mu_session_event *e);
    /* On the loop, all of them. Events up to cur->seq, encoded; may be empty. */
    void (*page)(struct mu_cursor *cur, mu_bytes bytes);
    /* The next event, from the feed. False: it cannot be delivered, and the sink was cut. */
    bool (*event)(struct mu_cursor *cur, struct mu_event *e);
    void (*delta)(struct mu_cursor *cur, struct mu_event *e); /* what is not in the log */
    /* The position is not in the log (any more); it goes on from `first` (or 1). */
    void (*reset)(struct mu_cursor *cur, int64_t first, int64_t last);
    void (*present)(struct mu_cursor *cur);          /* all that is stored was delivered */
    void (*over)(struct mu_cursor *cur);             /* ENDED was, or nothing follows it */
    void (*failed)(struct mu_cursor *cur, int code); /* it cannot go on: the sink shall be cut */
    bool (*full)(const struct mu_cursor *cur);       /* then it waits for mu_cursor_read() */
    void (*behind)(struct mu_cursor *cur);           /* it is not live any more, and waits for
                                                        mu_cursor_read(); NULL: it reads when not full */
    void (*closed)(struct mu_cursor *cur); /* after mu_cursor_close(): its memory is its owner's */
};

struct mu_cursor {
    struct mu_sessions *sessions;
    const struct mu_cursor_ops *ops;
    struct mu_id id;
    int64_t seq; /* the last one delivered; at first: behind which it begins */
    bool ended;  /* the session had ended when the cursor was made */
    /* own */
    struct mu_watch watch;
    struct mu_cursor_page *page;
    bool live, stale, finished, closing;
};

/* `id`, `seq`, `ended`, `sessions` and `ops` are set; watches from now on. -ENOMEM. */
MU_MUST_USE int mu_cursor_open(struct mu_cursor *cur, struct mu_loop *loop);
/* Begins, and goes on when the sink has room again. */
void mu_cursor_read(struct mu_cursor *cur);
/* Whether mu_cursor_read() would do something: it is not live, and no page is under way. */
static inline bool mu_cursor_waits(const struct mu_cursor *cur)
{
    return !cur->finished && !cur->closing && !cur->live && !cur->page;
}
/* Nothing is delivered any more; closed() follows, at once or when a page under way is back. */
void mu_cursor_close(struct mu_cursor *cur);

#endif
