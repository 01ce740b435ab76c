#include "exec/agents/rows.h"

#include <errno.h>
#include <stdio.h>

#include "base/encode.h"

int mu_rows_init(struct mu_rows *r)
{
    *r = (struct mu_rows){.list = mu_calloc(MU_ROWS, sizeof(struct mu_acp_tool *))};
    return r->list ? 0 : -ENOMEM;
}

void mu_rows_fini(struct mu_rows *r)
{
    mu_rows_clear(r);
    mu_free(r->list);
    *r = (struct mu_rows){0};
}

static void row_free(struct mu_acp_tool *t)
{
    for (size_t i = 0; i < t->n_paths; i++) {
        mu_free(t->paths[i]);
    }
    mu_buf_fini(&t->args);
    mu_buf_fini(&t->result);
    mu_buf_fini(&t->command);
    mu_free(t);
}

void mu_rows_clear(struct mu_rows *r)
{
    for (size_t i = 0; i < r->n; i++) {
        row_free(r->list[i]);
    }
    r->n = 0;
}

static bool over(const struct mu_acp_tool *t)
{
    return t->status == MU_ACP_COMPLETED || t->status == MU_ACP_FAILED;
}

static void make_room(struct mu_rows *r)
{
    size_t out = 0;
    for (size_t i = 1; i < r->n; i++) {
        const struct mu_acp_tool *t = r->list[i], *o = r->list[out];
        if (over(t) != over(o) ? over(t) : t->touched < o->touched) {
            out = i;
        }
    }
    row_free(r->list[out]);
    r->list[out] = r->list[--r->n];
}

struct mu_acp_tool *mu_rows_find(const struct mu_rows *r, const char *id)
{
    for (size_t i = 0; i < r->n; i++) {
        if (strcmp(r->list[i]->id, id) == 0) {
            return r->list[i];
        }
    }
    return NULL;
}

struct mu_acp_tool *mu_rows_get(struct mu_rows *r, const char *id)
{
    struct mu_acp_tool *t = mu_rows_find(r, id);
    if (t) {
        return t;
    }
    if (r->n == MU_ROWS) {
        make_room(r);
    }
    t = mu_calloc(1, sizeof *t);
    if (t) {
        snprintf(t->id, sizeof t->id, "%s", id);
        snprintf(t->kind, sizeof t->kind, "other");
        t->born = r->touches + 1;
        mu_buf_init(&t->args, MU_ROW_TEXT_MAX);
        mu_buf_init(&t->result, MU_ROW_TEXT_MAX);
        mu_buf_init(&t->command, MU_ROW_TEXT_MAX);
        r->list[r->n++] = t;
    }
    return t;
}

void mu_row_text(const struct mu_jtok *j, int v, struct mu_buf *scratch, char *dst, size_t cap)
{
    mu_buf_clear(scratch);
    bool got = mu_jtok_add(j, v, scratch) == 0;
    mu_bytes text = got ? mu_utf8_cut(mu_buf_bytes(scratch), cap - 1) : MU_B_NONE;
    for (size_t i = 0; i < text.len; i++) {
        dst[i] = text.ptr[i] ? text.ptr[i] : ' ';
    }
    dst[text.len] = 0;
}

void mu_row_keep(struct mu_buf *dst, bool *cut, mu_bytes text)
{
    mu_bytes part = mu_utf8_cut(text, MU_ROW_TEXT_MAX);
    mu_buf_clear(dst);
    mu_buf_add(dst, part);
    *cut = part.len < text.len;
}

void mu_row_path(struct mu_acp_tool *t, const char *path)
{
    for (size_t i = 0; i < t->n_paths; i++) {
        if (strcmp(t->paths[i], path) == 0) {
            return;
        }
    }
    if (path[0] && t->n_paths < MU_ROW_PATHS) {
        t->paths[t->n_paths] = mu_bytes_dup(mu_str(path));
        t->n_paths += t->paths[t->n_paths] != NULL;
    }
}
