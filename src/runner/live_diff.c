/* What the session changed, against the commits it began with. */
#include <stdio.h>

#include "base/encode.h"
#include "runner/live_int.h"

enum {
    FILES = 300,
    GIT_MS = 20000,
    GIT_STOPPING_MS = 1200,
    PATCH_TEXT = 512 << 10,
    EVENT_BYTES = 15 << 10
};
static const int64_t FILE_BYTES = 4 << 20;

struct change {
    char *path, *old;
    const char *status;
    int64_t additions, deletions;
};
struct look {
    struct change files[FILES];
    size_t n;
    int64_t total, additions, deletions;
    struct mu_buf patch;
    bool cut;
};

static void fini(struct look *l)
{
    for (size_t i = 0; i < l->n; i++) {
        mu_free(l->files[i].path);
        mu_free(l->files[i].old);
    }
    mu_buf_fini(&l->patch);
}

static mu_bytes take(mu_bytes *rest)
{
    return mu_bytes_split(rest, 0);
}

static char *joined(const struct mu_checkout *c, mu_bytes path)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, 8192);
    mu_buf_add_str(&b, c->dir);
    mu_buf_add_str(&b, *c->dir ? "/" : "");
    mu_buf_add(&b, path);
    return b.failed ? NULL : mu_bytes_dup(mu_buf_bytes(&b));
}

static const char *word(char letter)
{
    return letter == 'A'   ? "added"
           : letter == 'D' ? "deleted"
           : letter == 'R' ? "renamed"
                           : "modified";
}

/* ":old new sha sha X" NUL path NUL, and for R and C another path. */
static bool raw_line(struct look *l, const struct mu_checkout *c, mu_bytes line, mu_bytes *rest)
{
    char letter = 'M';
    for (size_t i = line.len; i-- > 0;) {
        if (line.ptr[i] == ' ') {
            letter = i + 1 < line.len ? line.ptr[i + 1] : 'M';
            break;
        }
    }
    mu_bytes path = take(rest), second = MU_B_NONE;
    if (letter == 'R' || letter == 'C') {
        second = take(rest);
    }
    l->total++;
    if (l->n == FILES) {
        l->cut = true;
        return true;
    }
    struct change f = {joined(c, second.ptr ? second : path), NULL, word(letter), 0, 0};
    if (second.ptr && letter == 'R') {
        f.old = joined(c, path);
    }
    if (!f.path) {
        mu_free(f.old);
        return false;
    }
    l->files[l->n++] = f;
    return true;
}

static int64_t number(mu_bytes *line)
{
    int64_t n;
    return mu_bytes_i64(mu_bytes_split(line, '\t'), &n) == 0 ? n : 0; /* "-": binary */
}

static void stat_line(struct look *l, mu_bytes line, mu_bytes *rest, size_t at)
{
    int64_t additions = number(&line), deletions = number(&line);
    if (!line.len) { /* a rename: both names follow */
        (void)take(rest);
        (void)take(rest);
    }
    l->additions += additions;
    l->deletions += deletions;
    if (at < l->n) {
        l->files[at].additions = additions;
        l->files[at].deletions = deletions;
    }
}

static void each(void *arg, const struct mu_checkout *c, bool patch, mu_bytes text, bool cut)
{
    struct look *l = arg;
    l->cut = l->cut || cut;
    if (patch) {
        mu_buf_add(&l->patch, text);
        return;
    }
    size_t at = l->n; /* both lists have the same order */
    mu_bytes rest = text;
    while (rest.len) {
        mu_bytes line = take(&rest);
        if (line.len && line.ptr[0] == ':') {
            if (!raw_line(l, c, line, &rest)) {
                return;
            }
        } else if (line.len) {
            stat_line(l, line, &rest, at++);
        }
    }
}

static int look(struct mu_live *v, struct look *l, bool patch)
{
    struct mu_err err;
    struct mu_patch_limits limits = {v->r->first_path, GIT_MS, FILE_BYTES, 32 << 20};
    if (v->r->procs.stopping) {
        limits.timeout_ms = GIT_STOPPING_MS;
    }
    mu_buf_init(&l->patch, 8 << 20);
    if (mu_workspace_oz(&v->r->ws, &err) < 0) {
        return 1;
    }
    return mu_patch_look(&v->r->checkouts, &v->r->ws, &v->r->procs, &limits, patch, each, l);
}

/* As many as fit; the counts are of all. */
static void add_files(struct mu_json_w *w, const struct look *l, size_t room)
{
    mu_jw_key(w, "files");
    mu_jw_arr(w);
    for (size_t i = 0; i < l->n && w->buf->len < room; i++) {
        const struct change *f = &l->files[i];
        mu_jw_obj(w);
        mu_jw_kcstr(w, "path", f->path);
        mu_jw_kcstr(w, "status", f->status);
        mu_jw_ki64(w, "additions", f->additions);
        mu_jw_ki64(w, "deletions", f->deletions);
        if (f->old) {
            mu_jw_kcstr(w, "oldPath", f->old);
        }
        mu_jw_obj_end(w);
    }
    mu_jw_arr_end(w);
}

static void committed(void *arg, const struct mu_checkout *c, mu_bytes sha, mu_bytes subject)
{
    struct mu_live *v = arg;
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    char *branch MU_AUTO_FREE = mu_checkout_branch(c);
    mu_buf_init(&b, 8192);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "sha", sha);
    if (branch) {
        mu_jw_kcstr(&w, "branch", branch);
    }
    mu_jw_kstr(&w, "message", mu_live_fit(subject, 1000));
    mu_jw_obj_end(&w);
    if (!b.failed) {
        mu_live_event(v, "GIT_COMMIT", mu_buf_bytes(&b));
    }
}

/* Those of a restored session were told before. */
static const char *told_head(const struct mu_live *v, const struct mu_checkout *c)
{
    const struct mu_restore *s = v->r->restore;
    for (size_t i = 0; s && i < s->m.n_roots; i++) {
        const struct mu_manifest_root *root = &s->m.roots[i];
        if (strcmp(root->kind, "checkout") == 0 && strcmp(root->dir, c->dir) == 0 &&
            root->head[0]) {
            return root->head;
        }
    }
    return c->commit;
}

static void commits(struct mu_live *v)
{
    const struct mu_checkouts *c = &v->r->checkouts;
    for (size_t i = 0; i < c->n && !v->r->procs.stopping; i++) {
        if (!v->heads[i][0]) {
            memcpy(v->heads[i], told_head(v, &c->items[i]), sizeof v->heads[i]);
        }
        mu_checkout_commits(&c->items[i], &v->r->procs, v->r->first_path, v->heads[i], committed,
                            v);
    }
}

void mu_diff_summary(struct mu_live *v)
{
    struct look *l MU_AUTO_FREE = mu_calloc(1, sizeof *l);
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, 64 << 10);
    if (!l || !v->r->checkouts.n) {
        return;
    }
    commits(v);
    if (look(v, l, false) == 0) {
        struct mu_json_w w = mu_json_w(&b);
        mu_jw_obj(&w);
        mu_jw_ki64(&w, "filesChanged", l->total);
        mu_jw_ki64(&w, "linesAdded", l->additions);
        mu_jw_ki64(&w, "linesRemoved", l->deletions);
        add_files(&w, l, EVENT_BYTES - 4096);
        mu_jw_obj_end(&w);
        if (!b.failed && b.len <= EVENT_BYTES) {
            mu_live_event(v, "DIFF_SUMMARY", mu_buf_bytes(&b));
        }
    }
    fini(l);
}

void mu_diff_answer(struct mu_live *v)
{
    char id[MU_LIVE_ID];
    bool patch = v->diffs[0].patch;
    memcpy(id, v->diffs[0].id, sizeof id);
    v->n_diffs--;
    memmove(v->diffs, v->diffs + 1, v->n_diffs * sizeof v->diffs[0]);
    struct look *l MU_AUTO_FREE = mu_calloc(1, sizeof *l);
    int r = l ? look(v, l, patch) : 1;
    struct mu_json_w *w = mu_link_begin(&v->link, "diff");
    mu_jw_kcstr(w, "requestId", id);
    if (!r) {
        add_files(w, l, 256 << 10);
        mu_bytes text = mu_live_fit(mu_buf_bytes(&l->patch), PATCH_TEXT);
        if (patch) {
            mu_jw_kstr(w, "patch", text);
        }
        if (l->cut || text.len < l->patch.len) {
            mu_jw_kbool(w, "truncated", true);
        }
    } else {
        mu_jw_kcstr(w, "error", "git could not say what changed");
    }
    mu_link_end(&v->link);
    if (l) {
        fini(l);
    }
}

void mu_diff_ready(struct mu_live *v)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, 8192);
    if (!v->r->checkouts.n) {
        return;
    }
    const struct mu_checkout *c = &v->r->checkouts.items[0];
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "commit", c->commit);
    if (c->branch) {
        mu_jw_kcstr(&w, "branch", c->branch);
    }
    mu_jw_obj_end(&w);
    if (!b.failed) {
        mu_live_event(v, "WORKSPACE_READY", mu_buf_bytes(&b));
    }
}
