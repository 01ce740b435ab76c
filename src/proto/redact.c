#include "proto/redact.h"

#include <errno.h>

#include "base/err.h"
#include "proto/redact_int.h"

struct node {
    uint32_t child, sibling; /* 0: none; 0 is the root, which is nobody's child */
    uint32_t fail;           /* the longest proper end of this path that is a path as well */
    uint16_t depth;
    uint16_t hit; /* a value ends here: the length of the longest */
    uint16_t name;
    unsigned char c;
};
struct mu_redact {
    struct node *nodes;
    uint32_t n, cap;
    uint32_t first[256];  /* the root's children */
    uint64_t pairs[1024]; /* the first two bytes of all values */
    /* By two bytes: how far before them a value may begin that has them among its first bytes, or
     * rather how many places need not be looked at (Wu and Manber). */
    unsigned char shift[1 << 16];
    char (*names)[MU_REDACT_NAME];
    unsigned n_names;
};

struct mu_redact *mu_redact_new(void)
{
    struct mu_redact *r = mu_calloc(1, sizeof *r);
    if (r) {
        r->cap = 256;
        memset(r->shift, MU_REDACT_MIN - 1, sizeof r->shift);
        r->n = 1;
        r->nodes = mu_calloc(r->cap, sizeof *r->nodes);
        r->names = mu_calloc(MU_REDACT_NAMES, sizeof *r->names);
        if (!r->nodes || !r->names) {
            r = mu_redact_free(r);
        }
    }
    return r;
}

struct mu_redact *mu_redact_free(struct mu_redact *r)
{
    if (r) {
        if (r->nodes) {
            explicit_bzero(r->nodes, r->cap * sizeof *r->nodes);
        }
        mu_free(r->nodes);
        mu_free(r->names);
        explicit_bzero(r, sizeof *r);
        mu_free(r);
    }
    return NULL;
}

bool mu_redact_any(const struct mu_redact *r)
{
    return r && r->n > 1;
}

/* --- making it --- */

static uint32_t child_of(const struct mu_redact *r, uint32_t state, unsigned char c)
{
    if (!state) {
        return r->first[c];
    }
    uint32_t k = r->nodes[state].child;
    while (k && r->nodes[k].c != c) {
        k = r->nodes[k].sibling;
    }
    return k;
}

static int grow(struct mu_redact *r)
{
    uint32_t cap = r->cap * 2;
    if (r->n == MU_REDACT_NODES) {
        return MU_E_TOO_LARGE;
    }
    struct node *more = mu_calloc(cap, sizeof *more);
    if (!more) {
        return -ENOMEM;
    }
    memcpy(more, r->nodes, r->n * sizeof *more);
    explicit_bzero(r->nodes, r->cap * sizeof *r->nodes);
    mu_free(r->nodes);
    r->nodes = more;
    r->cap = cap;
    return 0;
}

static int add_child(struct mu_redact *r, uint32_t *state, unsigned char c)
{
    if (r->n == r->cap) {
        int e = grow(r);
        if (e) {
            return e;
        }
    }
    uint32_t k = r->n++;
    struct node *parent = &r->nodes[*state];
    r->nodes[k] = (struct node){.c = c, .depth = (uint16_t)(parent->depth + 1)};
    if (*state) {
        r->nodes[k].sibling = parent->child;
        parent->child = k;
    } else {
        r->first[c] = k;
    }
    *state = k;
    return 0;
}

static unsigned pair_at(const unsigned char *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

int mu_redact_put(struct mu_redact *r, unsigned name, mu_bytes form)
{
    const unsigned char *p = (const unsigned char *)form.ptr;
    uint32_t state = 0;
    if (form.len < MU_REDACT_MIN || form.len > MU_REDACT_PIECE) {
        return 0;
    }
    for (size_t i = 0; i < form.len; i++) {
        uint32_t k = child_of(r, state, p[i]);
        int e = k ? 0 : add_child(r, &state, p[i]);
        if (e) {
            return e; /* the part that is there ends nowhere: nothing is found by it */
        }
        state = k ? k : state;
    }
    if (!r->nodes[state].hit) {
        r->nodes[state].hit = (uint16_t)form.len;
        r->nodes[state].name = (uint16_t)name;
    }
    unsigned first = pair_at(p);
    r->pairs[first >> 6] |= UINT64_C(1) << (first & 63);
    for (unsigned i = 0; i + 1 < MU_REDACT_MIN; i++) {
        unsigned char *shift = &r->shift[pair_at(p + i)];
        *shift = (unsigned char)MU_MIN(*shift, MU_REDACT_MIN - 2 - i);
    }
    return 0;
}

static int put_pieces(struct mu_redact *r, unsigned name, mu_bytes line, bool encoded)
{
    int e = 0;
    while (line.len >= MU_REDACT_MIN && !e) {
        mu_bytes piece = mu_bytes_head(line, MU_REDACT_PIECE);
        e = encoded ? mu_redact_forms(r, name, piece) : mu_redact_put(r, name, piece);
        line = mu_bytes_from(line, piece.len);
    }
    return e;
}

/* What a mark says; other characters of a name would have to be escaped here and there. */
static int name_of(struct mu_redact *r, mu_bytes name)
{
    char text[MU_REDACT_NAME] = "";
    for (size_t i = 0; i < name.len && i < sizeof text - 1; i++) {
        char c = name.ptr[i];
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        text[i] = good ? c : '_';
    }
    for (unsigned i = 0; i < r->n_names; i++) {
        if (strcmp(r->names[i], text) == 0) {
            return (int)i;
        }
    }
    if (r->n_names == MU_REDACT_NAMES) {
        return MU_REDACT_NAMES - 1; /* found all the same */
    }
    memcpy(r->names[r->n_names], text, sizeof text);
    return (int)r->n_names++;
}

int mu_redact_add(struct mu_redact *r, mu_bytes name, mu_bytes value, bool encoded)
{
    unsigned number = (unsigned)name_of(r, name);
    bool lines = mu_bytes_find_char(value, '\n') >= 0;
    int e = encoded && lines ? mu_redact_base64(r, number, value) : 0;
    for (mu_bytes rest = value; rest.ptr && !e;) {
        mu_bytes line = mu_bytes_split(&rest, '\n');
        if (rest.ptr && line.len && line.ptr[line.len - 1] == '\r') {
            line.len--;
        }
        e = put_pieces(r, number, line, encoded);
    }
    return e;
}

static uint32_t step(const struct mu_redact *r, uint32_t state, unsigned char c)
{
    while (state) {
        uint32_t k = child_of(r, state, c);
        if (k) {
            return k;
        }
        state = r->nodes[state].fail;
    }
    return r->first[c];
}

static void link_child(struct mu_redact *r, uint32_t parent, uint32_t k)
{
    struct node *node = &r->nodes[k];
    node->fail = parent ? step(r, r->nodes[parent].fail, node->c) : 0;
    if (!node->hit) {
        node->hit = r->nodes[node->fail].hit;
        node->name = r->nodes[node->fail].name;
    }
}

int mu_redact_ready(struct mu_redact *r)
{
    uint32_t *queue = mu_calloc(r->n, sizeof *queue), from = 0, to = 0;
    if (!queue) {
        return -ENOMEM;
    }
    for (unsigned c = 0; c < 256; c++) {
        if (r->first[c]) {
            link_child(r, 0, r->first[c]);
            queue[to++] = r->first[c];
        }
    }
    while (from < to) {
        uint32_t parent = queue[from++];
        for (uint32_t k = r->nodes[parent].child; k; k = r->nodes[k].sibling) {
            link_child(r, parent, k);
            queue[to++] = k;
        }
    }
    mu_free(queue);
    return 0;
}

/* --- a stream --- */

/* What is not given out yet: the held bytes, and those of the piece from `from` to `at`. */
struct walk {
    const struct mu_redact *r;
    struct mu_redact_stream *s;
    struct mu_buf *out;
    mu_bytes in;
    size_t from, at;
};

static size_t waiting(const struct walk *w)
{
    return w->s->held + (w->at - w->from);
}

static void take(struct walk *w, size_t n, bool show)
{
    struct mu_redact_stream *s = w->s;
    size_t old = MU_MIN(n, (size_t)s->held);
    if (old) {
        if (show) {
            mu_buf_add(w->out, mu_bytes_of(s->hold, old));
        }
        memmove(s->hold, s->hold + old, s->held - old);
        s->held -= (uint32_t)old;
    }
    n -= old;
    if (n && show) {
        mu_buf_add(w->out, mu_bytes_of(w->in.ptr + w->from, n));
    }
    w->from += n;
    s->inside = s->inside && !(show && old + n);
}

/* The last `n` of what waits are a value, or belong to one. */
static void mark(struct walk *w, size_t n, unsigned name)
{
    take(w, waiting(w) - n, true);
    take(w, n, false);
    if (!w->s->inside) {
        mu_buf_add_str(w->out, w->s->brief ? "[redacted" : "[redacted:");
        mu_buf_add_str(w->out, w->s->brief ? "" : w->r->names[name]);
        mu_buf_add_char(w->out, ']');
        w->s->hits++;
    }
    w->s->inside = true;
}

static void advance(struct walk *w)
{
    struct mu_redact_stream *s = w->s;
    s->state = step(w->r, s->state, (unsigned char)w->in.ptr[w->at++]);
    const struct node *node = &w->r->nodes[s->state];
    size_t n = waiting(w), keep = MU_MIN((size_t)node->depth, n);
    if (node->hit) { /* also what stands before it, if that may be a longer one's beginning */
        mark(w, keep, node->name);
    } else if (n > keep && (s->state || s->held)) {
        take(w, n - keep, true);
    }
}

static bool may_begin(const struct mu_redact *r, const unsigned char *p)
{
    unsigned pair = pair_at(p);
    return r->pairs[pair >> 6] >> (pair & 63) & 1;
}

/* Where a value may begin, or the last byte: nearly all others are never looked at. */
static size_t next_place(const struct mu_redact *r, const unsigned char *p, size_t i, size_t n)
{
    while (i + MU_REDACT_MIN <= n) {
        unsigned shift = r->shift[pair_at(p + i + MU_REDACT_MIN - 2)];
        if (!shift && may_begin(r, p + i)) {
            return i;
        }
        i += shift ? shift : 1;
    }
    while (i + 1 < n && !may_begin(r, p + i)) {
        i++;
    }
    return i;
}

void mu_redact_feed(const struct mu_redact *r, struct mu_redact_stream *s, mu_bytes in,
                    struct mu_buf *out)
{
    struct walk w = {r, s, out, in, 0, 0};
    const unsigned char *p = (const unsigned char *)in.ptr;
    if (!mu_redact_any(r)) {
        mu_buf_add(out, in);
        return;
    }
    while (w.at < in.len) {
        if (!s->state && !s->held) {
            w.at = next_place(r, p, w.at, in.len);
        }
        advance(&w);
    }
    size_t keep = MU_MIN((size_t)r->nodes[s->state].depth, waiting(&w));
    take(&w, waiting(&w) - keep, true);
    if (w.at > w.from) {
        memcpy(s->hold + s->held, in.ptr + w.from, w.at - w.from);
        s->held += (uint32_t)(w.at - w.from);
    }
}

/* Any value that begins like this. */
static unsigned name_below(const struct mu_redact *r, uint32_t state)
{
    while (!r->nodes[state].hit && r->nodes[state].child) {
        state = r->nodes[state].child;
    }
    return r->nodes[state].name;
}

void mu_redact_flush(const struct mu_redact *r, struct mu_redact_stream *s, struct mu_buf *out)
{
    struct walk w = {r, s, out, MU_B_NONE, 0, 0};
    if (s->held && r->nodes[s->state].depth >= MU_REDACT_MIN) {
        mark(&w, s->held, name_below(r, s->state));
    } else if (s->held) {
        take(&w, s->held, true);
    }
    s->state = 0;
    s->inside = false;
    explicit_bzero(s->hold, sizeof s->hold);
}

bool mu_redact_waits(const struct mu_redact *r, const struct mu_redact_stream *s)
{
    return s->held && r->nodes[s->state].depth < MU_REDACT_SHOWN;
}

void mu_redact_idle(const struct mu_redact *r, struct mu_redact_stream *s, struct mu_buf *out)
{
    struct walk w = {r, s, out, MU_B_NONE, 0, 0};
    if (mu_redact_waits(r, s)) {
        take(&w, s->held, true);
    }
}

uint64_t mu_redact_text(const struct mu_redact *r, mu_bytes in, struct mu_buf *out)
{
    struct mu_redact_stream s = {.state = 0};
    mu_redact_feed(r, &s, in, out);
    mu_redact_flush(r, &s, out);
    return s.hits;
}
