/* The environment object's commands, each a shell of its own. */
#include <stdarg.h>
#include <stdio.h>

#include "runner/runner_int.h"

enum { SETUP_MAX = 1000 };

void mu_tag_init(struct mu_tag *t, struct mu_procs *procs, const char *fmt, ...)
{
    *t = (struct mu_tag){.procs = procs};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(t->text, sizeof t->text, fmt, ap);
    va_end(ap);
}

/* The beginning of each line, and why git gives up. */
static void take_words(struct mu_tag *t, mu_bytes part, bool whole)
{
    mu_bytes b = mu_bytes_head(part, MU_MIN(part.len, sizeof t->line - 1 - t->n_line));
    memcpy(t->line + t->n_line, b.ptr, b.len);
    t->n_line += b.len;
    mu_bytes line = mu_bytes_trim(mu_bytes_of(t->line, t->n_line));
    if (whole && !t->words[0] && mu_bytes_starts(line, MU_B("fatal: "))) {
        line = mu_bytes_from(line, 7);
        snprintf(t->words, sizeof t->words, "%.*s", MU_ARGS(line));
    }
    t->n_line = whole ? 0 : t->n_line;
}

void mu_tag_sink(void *arg, mu_bytes piece)
{
    struct mu_tag *t = arg;
    struct mu_buf out MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&out, SIZE_MAX / 2);
    for (mu_bytes rest = piece; rest.len && t->procs;) {
        ptrdiff_t at = mu_bytes_find_char(rest, '\n');
        size_t n = at < 0 ? rest.len : (size_t)at + 1;
        if (!t->inside) {
            mu_buf_add_str(&out, t->text);
        }
        mu_buf_add(&out, mu_bytes_head(rest, n));
        take_words(t, mu_bytes_head(rest, n), at >= 0);
        t->inside = at < 0;
        rest = mu_bytes_from(rest, n);
    }
    if (out.len) {
        mu_say(t->procs, mu_buf_bytes(&out));
    }
}

void mu_tag_end(struct mu_tag *t)
{
    if (t->inside && t->procs) {
        mu_say(t->procs, MU_B("\n"));
    }
    t->inside = false;
}

static int run_line(struct mu_runner *r, mu_bytes line, int64_t number, int64_t of)
{
    char *text MU_AUTO_FREE = mu_bytes_dup(line);
    if (!text) {
        return mu_runner_fail(r, 1, "out of memory");
    }
    struct mu_tag tag;
    struct mu_proc_end end;
    mu_tag_init(&tag, &r->procs, "[setup %lld/%lld] ", (long long)number, (long long)of);
    const char *const argv[] = {"/bin/sh", "-c", text, NULL};
    struct mu_proc proc = {.argv = argv,
                           .cwd = r->ws.root,
                           .in = -1,
                           .out = -1,
                           .linger = true,
                           .timeout_ms = mu_runner_seconds("OZ_SETUP_TIMEOUT", MU_SETUP_TIMEOUT_S),
                           .sink = mu_tag_sink,
                           .arg = &tag};
    mu_procs_run(&r->procs, &proc, &end);
    mu_tag_end(&tag);
    if (!end.status) {
        return 0;
    }
    char what[64];
    snprintf(what, sizeof what, "setup command %lld of %lld", (long long)number, (long long)of);
    return mu_runner_child_failed(r, what, &end);
}

/* Without blanks around; the reference takes CR away and skips what is blank. */
static mu_bytes next_line(mu_bytes *rest)
{
    while (rest->ptr) {
        mu_bytes line = mu_bytes_trim(mu_bytes_split(rest, '\n'));
        if (line.len) {
            return line;
        }
    }
    return MU_B_NONE;
}

int mu_runner_setup(struct mu_runner *r)
{
    mu_bytes all = mu_str(getenv("OZ_ENV_SETUP_COMMANDS")), rest = all, line;
    int64_t of = 0, number = 0;
    while (next_line(&rest).len) {
        of++;
    }
    if (of > SETUP_MAX) {
        return mu_runner_fail(r, 2, "more than %d setup commands", SETUP_MAX);
    }
    rest = all;
    while ((line = next_line(&rest)).len) {
        int status = run_line(r, line, ++number, of);
        if (status) {
            return status;
        }
    }
    return 0;
}
