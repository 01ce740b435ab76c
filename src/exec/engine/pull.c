#include "exec/engine/pull.h"

#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "proto/json.h"

void mu_pull_init(struct mu_pull *p, void (*on_status)(void *arg, const char *status), void *arg)
{
    *p = (struct mu_pull){.on_status = on_status, .arg = arg};
    mu_buf_init(&p->object, MU_PULL_OBJECT);
}

void mu_pull_fini(struct mu_pull *p)
{
    mu_buf_fini(&p->object);
}

void mu_engine_text(char *dst, size_t room, mu_bytes text)
{
    struct mu_buf b;
    mu_buf_init(&b, room * 4);
    mu_utf8_add_lossy(&b, mu_bytes_head(mu_bytes_trim(text), room - 1));
    mu_bytes clean = mu_utf8_cut(mu_buf_bytes(&b), room - 1);
    for (size_t i = 0; i < clean.len; i++) {
        unsigned char c = (unsigned char)clean.ptr[i];
        dst[i] = c < 0x20 || c == 0x7f ? ' ' : clean.ptr[i];
    }
    dst[clean.len] = 0;
    mu_buf_fini(&b);
}

static void tell_status(struct mu_pull *p, yyjson_val *v)
{
    mu_bytes status = mu_json_get_bytes(v, "status"), progress = mu_json_get_bytes(v, "progress");
    mu_bytes id = mu_json_get_bytes(v, "id");
    char line[3 * MU_PULL_TEXT];
    int n = snprintf(line, sizeof line, "%.*s%s%.*s%s%.*s", (int)MU_MIN(id.len, 64u),
                     id.ptr ? id.ptr : "", id.len ? ": " : "",
                     (int)MU_MIN(status.len, (size_t)MU_PULL_TEXT), status.ptr ? status.ptr : "",
                     progress.len ? " " : "", (int)MU_MIN(progress.len, (size_t)MU_PULL_TEXT),
                     progress.ptr ? progress.ptr : "");
    if (status.len && n > 0) {
        mu_engine_text(p->status, sizeof p->status, mu_bytes_of(line, strlen(line)));
        if (p->on_status) {
            p->on_status(p->arg, p->status);
        }
    }
}

static int object_done(struct mu_pull *p)
{
    static const struct mu_json_limits limits = {.max_bytes = MU_PULL_OBJECT, .max_depth = 16};
    struct mu_arena a;
    yyjson_val *v = NULL;
    mu_arena_init(&a, 16 * MU_PULL_OBJECT);
    int r = mu_json_read(&a, mu_buf_bytes(&p->object), &limits, &v, NULL);
    if (r == 0) {
        yyjson_val *detail = mu_json_get(v, "errorDetail");
        mu_bytes error = mu_json_get_bytes(v, "error");
        error = error.len ? error : mu_json_get_bytes(detail, "message");
        if ((error.len || detail) && !p->failed) {
            p->failed = true;
            mu_engine_text(p->error, sizeof p->error, error.len ? error : MU_B("unnamed error"));
        }
        tell_status(p, v);
    }
    mu_arena_fini(&a);
    mu_buf_clear(&p->object);
    return r == 0 || r == -ENOMEM ? r : MU_E_PROTOCOL;
}

/* Returns whether an object ends with this byte; MU_E_PROTOCOL. */
static int step(struct mu_pull *p, char c)
{
    if (p->depth == 0) {
        if (c == '{') {
            p->depth = 1;
            return 0;
        }
        return c == ' ' || c == '\n' || c == '\r' || c == '\t' ? 0 : MU_E_PROTOCOL;
    }
    if (p->in_string) {
        p->in_string = p->escaped || c != '"';
        p->escaped = !p->escaped && c == '\\';
        return 0;
    }
    if (c == '"') {
        p->in_string = true;
    } else if (c == '{' || c == '[') {
        p->depth++;
    } else if (c == '}' || c == ']') {
        p->depth--;
        return p->depth == 0;
    }
    return 0;
}

int mu_pull_feed(struct mu_pull *p, mu_bytes in)
{
    for (size_t i = 0; i < in.len; i++) {
        int r = step(p, in.ptr[i]);
        if (r < 0) {
            return r;
        }
        if (p->depth || r == 1) {
            mu_buf_add_char(&p->object, in.ptr[i]);
        }
        if (p->object.failed) {
            return p->object.failed;
        }
        if (r == 1 && (r = object_done(p)) < 0) {
            return r;
        }
    }
    return 0;
}

int mu_pull_end(const struct mu_pull *p)
{
    return p->depth == 0 ? 0 : MU_E_PROTOCOL;
}
