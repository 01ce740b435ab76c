#include "proto/repo.h"

#include "base/err.h"

enum { PLAIN_MAX = 2000 };

static bool printable(mu_bytes t)
{
    for (size_t i = 0; i < t.len; i++) {
        if ((unsigned char)t.ptr[i] <= 0x20 || t.ptr[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

/* git-check-ref-format, and never an option. */
bool mu_repo_ref_ok(mu_bytes ref)
{
    if (!printable(ref) ||
        (ref.len && (ref.ptr[0] == '-' || ref.ptr[0] == '/' || ref.ptr[0] == '.'))) {
        return false;
    }
    for (size_t i = 0; i < ref.len; i++) {
        if (memchr("~^:?*[\\", ref.ptr[i], 7)) {
            return false;
        }
    }
    return mu_bytes_find(ref, MU_B("..")) < 0 && mu_bytes_find(ref, MU_B("@{")) < 0 &&
           mu_bytes_find(ref, MU_B("//")) < 0 && !mu_bytes_ends(ref, MU_B("/")) &&
           !mu_bytes_ends(ref, MU_B(".lock")) && !mu_bytes_ends(ref, MU_B("."));
}

static bool word(mu_bytes t)
{
    for (size_t i = 0; i < t.len; i++) {
        char c = t.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-')) {
            return false;
        }
    }
    return t.len > 0 && t.ptr[0] != '-' && !mu_bytes_is(t, ".") && !mu_bytes_is(t, "..");
}

/* Our own folder and git's have their names already. */
static bool name_ok(mu_bytes name)
{
    return name.len > 0 && name.len <= MU_REPO_NAME && name.ptr[0] != '-' &&
           !mu_bytes_is(name, ".") && !mu_bytes_is(name, "..") &&
           !mu_bytes_eq_nocase(name, MU_B(".git")) && !mu_bytes_eq_nocase(name, MU_B(".oz"));
}

static mu_bytes name_of(mu_bytes where)
{
    while (where.len && where.ptr[where.len - 1] == '/') {
        where.len--;
    }
    if (mu_bytes_ends(where, MU_B(".git"))) {
        where.len -= 4;
    }
    size_t at = where.len;
    while (at && where.ptr[at - 1] != '/' && where.ptr[at - 1] != ':') {
        at--;
    }
    return mu_bytes_from(where, at);
}

/* The host part of "scheme://[user[:password]@]host[:port]/path" begins with no dash. */
static bool host_ok(mu_bytes rest)
{
    ptrdiff_t slash = mu_bytes_find_char(rest, '/');
    mu_bytes authority = mu_bytes_head(rest, slash < 0 ? rest.len : (size_t)slash);
    ptrdiff_t at = mu_bytes_find_char(authority, '@');
    mu_bytes host = at < 0 ? authority : mu_bytes_from(authority, (size_t)at + 1);
    return slash > 0 && host.len > 0 && host.ptr[0] != '-' && authority.ptr[0] != '-';
}

/* Completes the URL and finds out whether it is a plain one. The sentence, or NULL. */
static const char *judge(struct mu_repo_spec *r)
{
    static const char *const schemes[] = {"https://", "http://", "ssh://", "git://"};
    mu_bytes rest = r->where;
    for (size_t i = 0; i < MU_ARRAY_LEN(schemes); i++) {
        mu_bytes s = mu_str(schemes[i]);
        if (mu_bytes_starts(rest, s)) {
            r->plain = true;
            return host_ok(mu_bytes_from(rest, s.len)) ? NULL : "the URL has no host";
        }
    }
    if (mu_bytes_find(rest, MU_B("://")) >= 0) {
        return NULL;
    }
    if (mu_bytes_starts(rest, MU_B("git@"))) {
        rest = mu_bytes_from(rest, 4);
        r->plain = mu_bytes_find(rest, MU_B("::")) < 0;
        return mu_bytes_find_char(rest, ':') > 0 && rest.ptr[0] != '-'
                   ? NULL
                   : "git@host:path is expected";
    }
    if (mu_bytes_find_char(rest, '/') > 0) {
        r->before = "https://github.com/";
        r->after = mu_bytes_ends(rest, MU_B(".git")) ? "" : ".git";
        mu_bytes owner = mu_bytes_split(&rest, '/');
        r->plain = word(owner) && word(rest);
    }
    return NULL;
}

mu_bytes mu_repo_url(struct mu_arena *a, const struct mu_repo_spec *spec)
{
    return mu_arena_printf(a, "%s%.*s%s", spec->before, MU_ARGS(spec->where), spec->after);
}

int mu_repo_spec_parse(mu_bytes text, struct mu_repo_spec *ret, const char **ret_why)
{
    mu_bytes all = mu_bytes_trim(text);
    struct mu_repo_spec r = {.before = "", .after = "", .where = all, .ref = MU_B("")};
    const char *why = NULL;
    ptrdiff_t hash = mu_bytes_find_char(all, '#'); /* the first: a branch may hold further ones */
    if (hash >= 0) {
        r.ref = mu_bytes_from(all, (size_t)hash + 1);
        r.where = mu_bytes_head(all, (size_t)hash);
    }
    r.name = name_of(r.where);
    if (r.where.len == 0 || all.len > MU_REPO_TEXT || r.where.ptr[0] == '-' ||
        !printable(r.where)) {
        why = "a repository has no blanks, no \"-\" in front and at most 4096 characters";
    } else if (!mu_repo_ref_ok(r.ref)) {
        why = "what follows \"#\" is not the name of a branch, tag or commit";
    } else if (!name_ok(r.name)) {
        why = "the last part of it cannot be a folder's name";
    } else {
        why = judge(&r);
    }
    if (why) {
        *ret_why = why;
        return MU_E_INVALID;
    }
    r.plain = r.plain && word(r.name) && r.where.len <= PLAIN_MAX && r.ref.len <= MU_REPO_REF &&
              mu_bytes_find_char(r.where, '\\') < 0;
    *ret = r;
    return 0;
}
