#include "app/live/tape_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/fd.h"

void mu_tape_init(struct mu_tape *t, const char *dir, const struct mu_id *session,
                  int64_t max_bytes)
{
    *t = (struct mu_tape){.dir = dir, .max_bytes = max_bytes, .fd = -1};
    memcpy(t->name, session->text, sizeof t->name);
    for (size_t i = 0; i < MU_ARRAY_LEN(t->out); i++) {
        t->out[i].fd = -1;
    }
}

void mu_tape_close(struct mu_tape *t)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(t->out); i++) {
        if (t->out[i].fd >= 0) {
            close(t->out[i].fd);
            t->out[i].fd = -1;
        }
    }
    if (t->fd >= 0) {
        close(t->fd);
        t->fd = -1;
    }
}

static int open_folder(struct mu_tape *t, bool make)
{
    if (t->fd >= 0) {
        return 0;
    }
    int dir MU_AUTO_CLOSE = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || (make && mkdirat(dir, t->name, 0700) < 0 && errno != EEXIST)) {
        return -errno;
    }
    t->fd = openat(dir, t->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return t->fd < 0 ? -errno : 0;
}

/* --- records --- */

struct record {
    unsigned terminal;
    size_t len;
    int64_t epoch, ms, offset, base;
    mu_bytes bytes;
};

static void put(struct mu_buf *b, uint64_t v, size_t n)
{
    while (n--) {
        mu_buf_add_char(b, (char)(v >> (8 * n)));
    }
}

void mu_tape_record(struct mu_buf *dst, unsigned terminal, int64_t epoch, int64_t ms, int64_t base,
                    int64_t offset, mu_bytes bytes)
{
    size_t before = dst->len;
    put(dst, (uint64_t)terminal << 24 | bytes.len, 4);
    put(dst, (uint64_t)epoch, 4);
    put(dst, (uint64_t)ms, 8);
    put(dst, (uint64_t)offset, 8);
    put(dst, (uint64_t)base, 8);
    mu_buf_add(dst, bytes);
    if (dst->failed) {
        dst->len = before;
    }
}

static int64_t get(const char *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        v = v << 8 | (unsigned char)p[i];
    }
    return (int64_t)(v & INT64_MAX);
}

/* The next whole record of a text, which it is cut from; false: there is none. */
static bool next_record(mu_bytes *text, struct record *ret)
{
    if (text->len < MU_TAPE_HEAD) {
        return false;
    }
    int64_t word = get(text->ptr, 4);
    *ret = (struct record){.terminal = (unsigned)(word >> 24),
                           .len = (size_t)word & 0xffffff,
                           .epoch = get(text->ptr + 4, 4),
                           .ms = get(text->ptr + 8, 8),
                           .offset = get(text->ptr + 16, 8),
                           .base = get(text->ptr + 24, 8)};
    if (ret->len > MU_TAPE_BYTES || ret->len > text->len - MU_TAPE_HEAD) {
        return false;
    }
    ret->bytes = mu_bytes_of(text->ptr + MU_TAPE_HEAD, ret->len);
    *text = mu_bytes_from(*text, MU_TAPE_HEAD + ret->len);
    return true;
}

/* --- pieces --- */

struct pieces {
    int64_t begin[MU_TAPE_PIECES]; /* in order */
    size_t n;
    int64_t bytes;
};

static void piece_name(char *dst, size_t size, unsigned terminal, int64_t begin)
{
    snprintf(dst, size, "%u-%016llx.rec", terminal, (unsigned long long)begin);
}

static void add_piece(struct pieces *p, int64_t begin)
{
    size_t at = p->n;
    if (p->n == MU_TAPE_PIECES) {
        return;
    }
    while (at > 0 && p->begin[at - 1] > begin) {
        p->begin[at] = p->begin[at - 1];
        at--;
    }
    p->begin[at] = begin;
    p->n++;
}

/* Which pieces there are of a terminal; `bytes`: of all terminals. */
static void list_pieces(struct mu_tape *t, unsigned terminal, struct pieces *ret)
{
    *ret = (struct pieces){.n = 0};
    int fd = openat(t->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    const struct dirent *e;
    while ((e = readdir(d))) {
        unsigned which;
        unsigned long long begin;
        char tail = 0;
        struct stat st;
        if (sscanf(e->d_name, "%u-%16llx.re%c", &which, &begin, &tail) != 3 || tail != 'c' ||
            fstatat(t->fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            continue;
        }
        ret->bytes += st.st_size;
        if (which == terminal) {
            add_piece(ret, (int64_t)(begin & INT64_MAX));
        }
    }
    closedir(d);
}

static int read_piece(struct mu_tape *t, unsigned terminal, int64_t begin, struct mu_buf *ret)
{
    char name[64];
    piece_name(name, sizeof name, terminal, begin);
    int fd MU_AUTO_CLOSE = openat(t->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    mu_buf_clear(ret);
    for (ssize_t n = 1; fd >= 0 && n > 0;) {
        char *room = mu_buf_room(ret, 256 << 10);
        if (!room) {
            return -ENOMEM;
        }
        n = read(fd, room, 256 << 10);
        ret->len += n > 0 ? (size_t)n : 0;
    }
    return fd < 0 ? -errno : 0;
}

/* --- writing --- */

/* A new piece begins; the oldest of this terminal goes when there is too much. */
static int next_piece(struct mu_tape *t, const struct record *r)
{
    struct pieces p;
    char name[64];
    list_pieces(t, r->terminal, &p);
    for (size_t i = 0; i < p.n && (p.bytes + MU_TAPE_PIECE > t->max_bytes || p.n - i > 60); i++) {
        piece_name(name, sizeof name, r->terminal, p.begin[i]);
        struct stat st = {.st_size = 0};
        (void)!fstatat(t->fd, name, &st, AT_SYMLINK_NOFOLLOW);
        (void)!unlinkat(t->fd, name, 0);
        p.bytes -= st.st_size;
    }
    if (t->out[r->terminal].fd >= 0) {
        close(t->out[r->terminal].fd);
    }
    piece_name(name, sizeof name, r->terminal, r->offset);
    t->out[r->terminal].fd =
        openat(t->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    t->out[r->terminal].size = 0;
    return t->out[r->terminal].fd < 0 ? -errno : 0;
}

void mu_tape_write(struct mu_tape *t, mu_bytes records)
{
    struct record r;
    mu_bytes rest = records;
    if (!records.len || open_folder(t, true) < 0) {
        return;
    }
    while (rest.len) {
        const char *begin = rest.ptr;
        if (!next_record(&rest, &r) || r.terminal >= MU_ARRAY_LEN(t->out)) {
            return;
        }
        int64_t size = (int64_t)(MU_TAPE_HEAD + r.len);
        bool fits = t->out[r.terminal].fd >= 0 && t->out[r.terminal].size + size <= MU_TAPE_PIECE;
        if (!fits && next_piece(t, &r) < 0) {
            continue;
        }
        if (mu_write_all(t->out[r.terminal].fd, mu_bytes_of(begin, (size_t)size)) < 0) {
            close(t->out[r.terminal].fd); /* it may end within a record: the next has a file anew */
            t->out[r.terminal].fd = -1;
        }
        t->out[r.terminal].size += size;
    }
}

/* --- reading --- */

void mu_tape_range(struct mu_tape *t, unsigned terminal, int64_t epoch, struct mu_recorded *ret)
{
    struct pieces p;
    struct mu_buf b;
    *ret = (struct mu_recorded){.base = -1};
    if (open_folder(t, false) < 0) {
        return;
    }
    list_pieces(t, terminal, &p);
    mu_buf_init(&b, 2 * MU_TAPE_PIECE);
    bool any = false;
    for (size_t i = p.n; i-- > 0;) { /* from the newest on, until the first record is found */
        struct record r;
        if (read_piece(t, terminal, p.begin[i], &b) < 0) {
            continue;
        }
        mu_bytes rest = mu_buf_bytes(&b);
        while (next_record(&rest, &r)) {
            ret->newest = MU_MAX(ret->newest, r.offset + (int64_t)r.len);
            ret->base = r.epoch == epoch ? r.base : ret->base;
            any = true;
        }
        if (any) {
            break;
        }
    }
    ret->oldest = any ? MU_MIN(p.begin[0], ret->newest) : 0;
    mu_buf_fini(&b);
}

/* Takes what it can of a piece; true: enough. */
static bool take_piece(mu_bytes text, int64_t from, size_t limit, int64_t *begin,
                       struct mu_buf *ret)
{
    struct record r;
    while (next_record(&text, &r)) {
        int64_t want = ret->len ? *begin + (int64_t)ret->len : from;
        if (r.offset + (int64_t)r.len <= want) {
            continue;
        }
        if (r.offset > want && ret->len) {
            return true; /* a hole: what is behind it comes with the next read */
        }
        size_t skip = r.offset < want ? (size_t)(want - r.offset) : 0;
        if (!ret->len) {
            *begin = r.offset + (int64_t)skip;
        }
        mu_buf_add(ret, mu_bytes_head(mu_bytes_from(r.bytes, skip), limit - ret->len));
        if (ret->len >= limit || ret->failed) {
            return true;
        }
    }
    return false;
}

int mu_tape_read(struct mu_tape *t, unsigned terminal, int64_t from, size_t limit,
                 int64_t *ret_begin, struct mu_buf *ret)
{
    struct pieces p;
    struct mu_buf b;
    int r = open_folder(t, false);
    *ret_begin = MU_MAX(from, 0);
    if (r < 0) {
        return r == -ENOENT ? 0 : r;
    }
    if (from < 0) {
        struct mu_recorded range;
        mu_tape_range(t, terminal, 0, &range);
        from = MU_MAX(range.newest - (int64_t)limit, range.oldest);
    }
    list_pieces(t, terminal, &p);
    mu_buf_init(&b, 2 * MU_TAPE_PIECE);
    size_t at = 0;
    while (at + 1 < p.n && p.begin[at + 1] <= from) {
        at++;
    }
    *ret_begin = from;
    for (; at < p.n; at++) {
        if (read_piece(t, terminal, p.begin[at], &b) == 0 &&
            take_piece(mu_buf_bytes(&b), from, limit, ret_begin, ret)) {
            break;
        }
    }
    mu_buf_fini(&b);
    return ret->failed;
}
