#include "net/msg.h"

struct mu_msg *mu_msg_new(mu_bytes content)
{
    if (content.len > SIZE_MAX - sizeof(struct mu_msg)) {
        return NULL;
    }
    struct mu_msg *m = mu_alloc(sizeof *m + content.len);
    if (!m) {
        return NULL;
    }
    atomic_init(&m->refs, 1);
    m->len = content.len;
    if (content.len) {
        memcpy(m->data, content.ptr, content.len);
    }
    return m;
}

struct mu_msg *mu_msg_ref(struct mu_msg *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

struct mu_msg *mu_msg_unref(struct mu_msg *m)
{
    if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1) {
        mu_free(m);
    }
    return NULL;
}
