#include "runner/output.h"

#include <errno.h>
#include <stdio.h>

void mu_output_init(struct mu_output *o, int fd, int64_t head, int64_t tail)
{
    *o = (struct mu_output){.fd = fd, .head = head, .tail = tail};
}

void mu_output_fini(struct mu_output *o)
{
    if (o->fd >= 0) {
        close(o->fd);
    }
    o->fd = -1;
}

static bool put(struct mu_output *o, mu_bytes b, int64_t at)
{
    while (b.len && !o->failed) {
        ssize_t n = pwrite(o->fd, b.ptr, b.len, at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            o->failed = n < 0 ? -errno : -EIO;
            break;
        }
        b = mu_bytes_from(b, (size_t)n);
        at += n;
    }
    return !o->failed;
}

/* Keeps of what follows the head only the last `tail` bytes. */
static void cut(struct mu_output *o)
{
    int64_t begin = o->head + MU_OUTPUT_MARK;
    int64_t from = o->len - o->tail;
    char block[64 << 10], mark[MU_OUTPUT_MARK + 1];
    /* Forwards: the source lies behind the target, so overlapping parts are safe. */
    for (int64_t done = 0; done < o->tail && !o->failed;) {
        size_t want = (size_t)MU_MIN((int64_t)sizeof block, o->tail - done);
        ssize_t n = pread(o->fd, block, want, from + done);
        if (n <= 0) {
            o->failed = n < 0 ? -errno : -EIO;
            return;
        }
        if (!put(o, mu_bytes_of(block, (size_t)n), begin + done)) {
            return;
        }
        done += n;
    }
    snprintf(mark, sizeof mark, "\n[... %20lld bytes of output left out ...]%*s\n",
             (long long)(o->total - o->head - o->tail), MU_OUTPUT_MARK - 57, "");
    if (put(o, mu_bytes_of(mark, MU_OUTPUT_MARK), o->head) &&
        ftruncate(o->fd, begin + o->tail) < 0) {
        o->failed = -errno;
    }
    o->len = begin + o->tail;
    o->cut = true;
}

static int64_t whole(const struct mu_output *o)
{
    return o->head + o->tail + (o->cut ? MU_OUTPUT_MARK : 0);
}

void mu_output_add(struct mu_output *o, mu_bytes piece)
{
    /* The line between would not fit when the file is hardly longer than both parts. */
    int64_t slack = MU_MAX(MU_OUTPUT_SLACK * o->tail, (int64_t)MU_OUTPUT_MARK);
    while (piece.len && !o->failed) {
        size_t n = (size_t)MU_MIN((int64_t)piece.len, slack);
        if (!put(o, mu_bytes_head(piece, n), o->len)) {
            return;
        }
        o->len += (int64_t)n;
        o->total += (int64_t)n;
        piece = mu_bytes_from(piece, n);
        if (o->len >= whole(o) + slack) {
            cut(o);
        }
    }
}

void mu_output_end(struct mu_output *o)
{
    if (!o->failed && o->total > o->head + o->tail && o->len != whole(o)) {
        if (!o->cut && o->len < o->head + MU_OUTPUT_MARK + o->tail) {
            return; /* the line would take more room than it saves */
        }
        cut(o);
    }
}
