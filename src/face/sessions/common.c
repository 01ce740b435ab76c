#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "face/sessions/sessions_int.h"

enum { TAG_HEX = 32, DEPTH = MU_LIST_DEPTH };

bool mu_sess_id(struct mu_call *c, struct mu_id *ret)
{
    if (mu_id_parse(mu_call_param(c, "sessionId"), "ses_", ret) < 0) {
        mu_sess_fail(c, MU_E_NOT_FOUND);
        return false;
    }
    mu_call_note(c, "session_id", mu_id_bytes(ret));
    return true;
}

void mu_sess_fail(struct mu_call *c, int code)
{
    switch (code) {
    case MU_E_NOT_FOUND:
        mu_call_error(c, 404, "SESSION_NOT_FOUND", NULL, "There is no such session");
        return;
    case MU_E_CONFLICT:
        mu_call_error(c, 409, "INVALID_STATE", NULL, "The session is not in a state for that");
        return;
    default:
        mu_call_fail(c, code);
    }
}

bool mu_sess_org(struct mu_call *c, mu_bytes given, mu_bytes *ret)
{
    const struct mu_principal *p = mu_call_principal(c);
    mu_bytes own = mu_str(p->org_id);
    if (mu_bytes_is(given, "me") || mu_bytes_eq(given, own)) {
        *ret = own;
        return true;
    }
    if (!p->admin) {
        mu_call_error(c, 403, "FORBIDDEN", NULL, "orgId is not the org of this credential");
        return false;
    }
    *ret = given;
    return true;
}

int64_t mu_sess_query_i64(struct mu_call *c, const char *key, int64_t fallback)
{
    int64_t n;
    mu_bytes text = mu_call_query(c, key, 0);
    return text.ptr && mu_bytes_i64(text, &n) == 0 ? n : fallback;
}

/* --- paging --- */

struct mu_sess_paging mu_sess_paging_of(struct mu_call *c)
{
    struct mu_sess_paging p = {.cursor = mu_call_query(c, "cursor", 0)};
    p.page = p.cursor.ptr ? 0 : mu_sess_query_i64(c, "page", 1);
    p.size = mu_sess_query_i64(c, "pageSize", MU_SESS_PAGE);
    return p;
}

void mu_sess_check_paging(struct mu_call *c)
{
    struct mu_sess_paging p = mu_sess_paging_of(c);
    if (p.page > 1 && p.page <= 1000000 && p.size >= 1 && p.size <= MU_SESS_PAGE_MAX &&
        p.page * p.size > DEPTH) {
        mu_call_issue(c, "too_big", "page",
                      "page must not lead beyond the first %d entries; nextCursor does", DEPTH);
    }
}

/* --- cursors --- */

static int tag_of(struct mu_call *c, const char *list, mu_bytes org, mu_bytes id, char *dst)
{
    struct mu_digest tag;
    mu_bytes text =
        mu_arena_printf(mu_call_arena(c), "%s|%.*s|%.*s", list, MU_ARGS(org), MU_ARGS(id));
    int r = text.ptr ? mu_vault_tag(mu_sess_face(c)->vault, "cursor", text, &tag) : -ENOMEM;
    if (r == 0) {
        mu_hex(tag.bytes, TAG_HEX / 2, dst);
    }
    return r;
}

void mu_sess_cursor_add(struct mu_json_w *w, const char *key, struct mu_call *c, const char *list,
                        mu_bytes org, const char *id)
{
    char tag[TAG_HEX + 1];
    struct mu_buf text;
    if (tag_of(c, list, org, mu_str(id), tag) < 0) {
        w->buf->failed = w->buf->failed ? w->buf->failed : -ENOMEM;
        return;
    }
    mu_bytes clear = mu_arena_printf(mu_call_arena(c), "%s.%s", id, tag);
    mu_buf_init(&text, 512);
    mu_base64_add(&text, clear);
    while (text.len && text.ptr[text.len - 1] == '=') {
        text.len--;
    }
    for (size_t i = 0; i < text.len; i++) {
        text.ptr[i] = text.ptr[i] == '+' ? '-' : text.ptr[i] == '/' ? '_' : text.ptr[i];
    }
    mu_jw_kstr(w, key, mu_buf_bytes(&text));
    int failed = text.failed ? text.failed : clear.ptr ? 0 : -ENOMEM;
    w->buf->failed = w->buf->failed ? w->buf->failed : failed;
    mu_buf_fini(&text);
}

/* Its own alphabet and no padding. */
static int decode(mu_bytes text, struct mu_buf *dst)
{
    struct mu_buf plain;
    mu_buf_init(&plain, 1024);
    mu_buf_add(&plain, text);
    for (size_t i = 0; i < plain.len; i++) {
        char ch = plain.ptr[i];
        if (ch == '+' || ch == '/' || ch == '=') {
            mu_buf_fini(&plain);
            return MU_E_INVALID;
        }
        plain.ptr[i] = ch == '-' ? '+' : ch == '_' ? '/' : ch;
    }
    while (plain.len % 4 && !plain.failed) {
        mu_buf_add_char(&plain, '=');
    }
    int r = plain.failed ? plain.failed : mu_base64_decode(mu_buf_bytes(&plain), dst);
    mu_buf_fini(&plain);
    return r;
}

int mu_sess_cursor_read(struct mu_call *c, const char *list, mu_bytes org, mu_bytes text,
                        struct mu_id *ret)
{
    char tag[TAG_HEX + 1];
    struct mu_buf clear;
    mu_buf_init(&clear, 512);
    int r = decode(text, &clear);
    mu_bytes b = mu_buf_bytes(&clear);
    if (r == 0 && (b.len != MU_ID_LEN + 1 + TAG_HEX || b.ptr[MU_ID_LEN] != '.' ||
                   mu_id_parse(mu_bytes_head(b, MU_ID_LEN), NULL, ret) < 0)) {
        r = MU_E_INVALID;
    }
    if (r == 0) {
        r = tag_of(c, list, org, mu_id_bytes(ret), tag);
    }
    if (r == 0 && !mu_bytes_eq_secret(mu_bytes_from(b, MU_ID_LEN + 1), mu_str(tag))) {
        r = MU_E_INVALID;
    }
    mu_buf_fini(&clear);
    return r == MU_E_TOO_LARGE ? MU_E_INVALID : r;
}
