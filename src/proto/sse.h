/* Server-sent events: an incremental reader and the encoder of one event. */
#ifndef MU_PROTO_SSE_H
#define MU_PROTO_SSE_H

#include "base/buf.h"
#include "base/err.h"

/* Reading (oz-providers.md 6.4): lines end at \n, \r\n or \r; a byte-order mark at the start is
 * skipped; `event:`, `data:`, `id:` are kept, comments and other fields ignored; several data lines
 * are joined with \n. */
struct mu_sse {
    struct mu_buf line, data, event, id;
    bool seen_cr, started, has_data;
    unsigned bom;
    void (*on_event)(void *arg, mu_bytes event, mu_bytes data,
                     mu_bytes id); /* event empty = "message" */
    void *arg;
    bool stopped;
};
/* `max_event_bytes` bounds one line and the data of one event. */
void mu_sse_init(struct mu_sse *s, size_t max_event_bytes,
                 void (*on_event)(void *arg, mu_bytes event, mu_bytes data, mu_bytes id),
                 void *arg);
void mu_sse_fini(struct mu_sse *s);
/* MU_E_TOO_LARGE, -ENOMEM. on_event may call mu_sse_stop(), after which the rest is ignored. */
MU_MUST_USE int mu_sse_feed(struct mu_sse *s, mu_bytes bytes);
/* End of the stream: delivers a last event that no blank line followed. */
MU_MUST_USE int mu_sse_end(struct mu_sse *s);
void mu_sse_stop(struct mu_sse *s);

/* Appends one event. `id` < 0: no id line. `data` may contain newlines. */
void mu_sse_add(struct mu_buf *dst, const char *event, int64_t id, mu_bytes data);

#endif
