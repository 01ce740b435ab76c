#include "proto/links.h"

#include "base/clock.h"

enum { PR_DIGITS_MAX = 10, LINK_MAX = 2048 };

/* Of an owner or a repository. */
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

/* Length of "OWNER/NAME/pull/N" at the beginning of b, or 0. */
static size_t path_len(mu_bytes b)
{
    size_t at = 0;
    for (int part = 0; part < 2; part++) {
        size_t n = name_len(mu_bytes_from(b, at));
        at += n;
        if (n == 0 || at >= b.len || b.ptr[at] != '/') {
            return 0;
        }
        at++;
    }
    if (!mu_bytes_starts(mu_bytes_from(b, at), MU_B("pull/"))) {
        return 0;
    }
    at += 5;
    size_t digits = 0;
    while (at + digits < b.len && b.ptr[at + digits] >= '0' && b.ptr[at + digits] <= '9') {
        digits++;
    }
    return digits > 0 && digits <= PR_DIGITS_MAX ? at + digits : 0;
}

static bool known(const mu_bytes *urls, size_t n, mu_bytes url)
{
    for (size_t i = 0; i < n; i++) {
        if (mu_bytes_eq(urls[i], url)) {
            return true;
        }
    }
    return false;
}

size_t mu_find_pull_requests(mu_bytes text, mu_bytes ret[MU_PULL_REQUESTS_MAX])
{
    const mu_bytes host = MU_B("https://github.com/");
    size_t n = 0;
    while (n < MU_PULL_REQUESTS_MAX) {
        ptrdiff_t at = mu_bytes_find(text, host);
        if (at < 0) {
            break;
        }
        mu_bytes url = mu_bytes_from(text, (size_t)at);
        size_t path = path_len(mu_bytes_from(url, host.len));
        text = mu_bytes_from(url, host.len + path);
        url = mu_bytes_head(url, host.len + path);
        if (path && url.len <= MU_PULL_REQUEST_LEN && !known(ret, n, url)) {
            ret[n++] = url;
        }
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
        size_t len = head;
        while (head && len < rest.len && (unsigned char)rest.ptr[len] > 0x20 &&
               rest.ptr[len] != 0x7f && !memchr("\"'`<>", rest.ptr[len], 5)) {
            len++;
        }
        if (len > head && len <= LINK_MAX) {
            return mu_bytes_head(rest, len);
        }
        if (len > head) { /* a URL in it is a part of it */
            rest = mu_bytes_from(rest, len - 1);
        }
    }
    return MU_B_NONE;
}

mu_bytes mu_find_session_link(mu_bytes text)
{
    while (text.ptr) {
        mu_bytes line = mu_bytes_split(&text, '\n');
        ptrdiff_t at = mu_bytes_find_nocase(line, MU_B("session"));
        mu_bytes url = at < 0 ? MU_B_NONE : url_in(mu_bytes_from(line, (size_t)at + 7));
        if (url.len) {
            return url;
        }
    }
    return MU_B_NONE;
}

void mu_pull_request_write(struct mu_json_w *w, mu_bytes url, mu_bytes branch, int64_t now_ms)
{
    char at[MU_TIME_LEN + 1];
    mu_time_format(now_ms, at);
    memcpy(at + 19, "Z", 2); /* instead of the milliseconds */
    mu_jw_obj(w);
    mu_jw_kcstr(w, "artifact_type", "PULL_REQUEST");
    mu_jw_kcstr(w, "created_at", at);
    mu_jw_key(w, "data");
    mu_jw_obj(w);
    mu_jw_kstr(w, "branch", branch.len ? branch : MU_B("unknown"));
    mu_jw_kstr(w, "url", url);
    mu_jw_obj_end(w);
    mu_jw_obj_end(w);
}
