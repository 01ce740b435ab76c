#include "runner/extract.h"

enum { LINK_MAX = 2048 };

static size_t name_len(mu_bytes b)
{
    size_t n = 0;
    while (n < b.len) {
        char c = b.ptr[n];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '.' || c == '-')) {
            break;
        }
        n++;
    }
    return n;
}

/* Length of a pull request's URL at the beginning of b, or 0. */
static size_t pr_len(mu_bytes b)
{
    static const mu_bytes host = {"https://github.com/", 19}, pull = {"/pull/", 6};
    if (!mu_bytes_starts(b, host)) {
        return 0;
    }
    size_t at = host.len;
    size_t owner = name_len(mu_bytes_from(b, at));
    at += owner;
    if (!owner || at >= b.len || b.ptr[at] != '/') {
        return 0;
    }
    at++;
    size_t repo = name_len(mu_bytes_from(b, at));
    at += repo;
    if (!repo || !mu_bytes_starts(mu_bytes_from(b, at), pull)) {
        return 0;
    }
    at += pull.len;
    size_t digits = at;
    while (at < b.len && b.ptr[at] >= '0' && b.ptr[at] <= '9') {
        at++;
    }
    return at > digits && at <= LINK_MAX ? at : 0;
}

size_t mu_extract_prs(mu_bytes output, mu_bytes ret[MU_EXTRACT_PRS])
{
    size_t n = 0;
    for (mu_bytes rest = output; rest.len && n < MU_EXTRACT_PRS;) {
        ptrdiff_t at = mu_bytes_find(rest, MU_B("https://github.com/"));
        if (at < 0) {
            break;
        }
        rest = mu_bytes_from(rest, (size_t)at);
        size_t len = pr_len(rest);
        bool known = len == 0;
        for (size_t i = 0; i < n && !known; i++) {
            known = mu_bytes_eq(ret[i], mu_bytes_head(rest, len));
        }
        if (!known) {
            ret[n++] = mu_bytes_head(rest, len);
        }
        rest = mu_bytes_from(rest, len ? len : 1);
    }
    return n;
}

static mu_bytes url_in(mu_bytes line)
{
    for (mu_bytes rest = line; rest.len; rest = mu_bytes_from(rest, 1)) {
        ptrdiff_t at = mu_bytes_find(rest, MU_B("http"));
        if (at < 0) {
            break;
        }
        rest = mu_bytes_from(rest, (size_t)at);
        size_t head = mu_bytes_starts(rest, MU_B("http://"))    ? 7
                      : mu_bytes_starts(rest, MU_B("https://")) ? 8
                                                                : 0;
        if (!head) {
            continue;
        }
        size_t len = head;
        while (len < rest.len && (unsigned char)rest.ptr[len] > 0x20 &&
               !memchr("\"'`<>", rest.ptr[len], 5)) {
            len++;
        }
        if (len > head && len <= LINK_MAX) {
            return mu_bytes_head(rest, len);
        }
    }
    return MU_B_NONE;
}

mu_bytes mu_extract_session(mu_bytes output)
{
    mu_bytes rest = output;
    while (rest.ptr) {
        mu_bytes line = mu_bytes_split(&rest, '\n');
        ptrdiff_t at = mu_bytes_find_nocase(line, MU_B("session"));
        mu_bytes url = at < 0 ? MU_B_NONE : url_in(mu_bytes_from(line, (size_t)at + 7));
        if (url.len) {
            return url;
        }
    }
    return MU_B_NONE;
}
