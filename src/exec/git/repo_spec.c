/* Repositories as people name them. */
#include <errno.h>

#include "exec/git/checkout.h"

static const char *const schemes[] = {"https://", "http://", "ssh://", "git://"};

static bool plain_chars(mu_bytes t)
{
    for (size_t i = 0; i < t.len; i++) {
        unsigned char c = (unsigned char)t.ptr[i];
        if (c <= 0x20 || c == 0x7f || c == '\\') {
            return false;
        }
    }
    return true;
}

/* What git accepts as the name of a branch, and never an option (git-check-ref-format). */
static bool ref_ok(mu_bytes ref)
{
    if (ref.len > 200 ||
        (ref.len && (ref.ptr[0] == '-' || ref.ptr[0] == '/' || ref.ptr[0] == '.'))) {
        return false;
    }
    for (size_t i = 0; i < ref.len; i++) {
        if (strchr("~^:?*[", ref.ptr[i])) {
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

/* The host part of "scheme://[user[:password]@]host[:port]/path" begins with no dash. */
static bool host_ok(mu_bytes rest)
{
    ptrdiff_t slash = mu_bytes_find_char(rest, '/');
    mu_bytes authority = mu_bytes_head(rest, slash < 0 ? rest.len : (size_t)slash);
    ptrdiff_t at = mu_bytes_find_char(authority, '@');
    mu_bytes host = at < 0 ? authority : mu_bytes_from(authority, (size_t)at + 1);
    return slash > 0 && host.len > 0 && host.ptr[0] != '-' && authority.ptr[0] != '-';
}

static const char *url_of(struct mu_arena *a, mu_bytes spec, bool local, mu_bytes *ret)
{
    *ret = spec;
    for (size_t i = 0; i < MU_ARRAY_LEN(schemes); i++) {
        mu_bytes s = mu_str(schemes[i]);
        if (mu_bytes_starts(spec, s)) {
            return host_ok(mu_bytes_from(spec, s.len)) ? NULL : "the URL has no host";
        }
    }
    if (mu_bytes_starts(spec, MU_B("file://"))) {
        return local && spec.len > 8 && spec.ptr[7] == '/' ? NULL
                                                           : "local repositories are not allowed";
    }
    if (mu_bytes_find(spec, MU_B("://")) >= 0 || mu_bytes_find(spec, MU_B("::")) >= 0) {
        return "only https, http, ssh and git URLs are accepted";
    }
    if (mu_bytes_starts(spec, MU_B("git@"))) {
        mu_bytes rest = mu_bytes_from(spec, 4);
        ptrdiff_t colon = mu_bytes_find_char(rest, ':');
        return colon > 0 && rest.ptr[0] != '-' ? NULL : "git@host:path is expected";
    }
    mu_bytes name = spec, owner = mu_bytes_split(&name, '/');
    if (!word(owner) || !word(name)) {
        return "a repository is a URL, git@host:path or owner/name";
    }
    *ret = mu_arena_printf(a, "https://github.com/%.*s%s", MU_ARGS(spec),
                           mu_bytes_ends(spec, MU_B(".git")) ? "" : ".git");
    return NULL;
}

/* The last part of the path without ".git": the folder's name. */
static mu_bytes name_of(mu_bytes url)
{
    while (url.len && url.ptr[url.len - 1] == '/') {
        url.len--;
    }
    if (mu_bytes_ends(url, MU_B(".git"))) {
        url.len -= 4;
    }
    size_t at = url.len;
    while (at && url.ptr[at - 1] != '/' && url.ptr[at - 1] != ':') {
        at--;
    }
    return mu_bytes_from(url, at);
}

int mu_repo_spec_parse(struct mu_arena *a, mu_bytes text, bool local, struct mu_repo_spec *ret,
                       const char **ret_why)
{
    mu_bytes spec = mu_bytes_trim(text), ref = MU_B(""), url;
    ptrdiff_t hash = mu_bytes_find_char(spec, '#');
    if (hash >= 0) {
        ref = mu_bytes_from(spec, (size_t)hash + 1);
        spec = mu_bytes_head(spec, (size_t)hash);
    }
    *ret_why = NULL;
    if (spec.len == 0 || spec.len > 2000 || spec.ptr[0] == '-' || !plain_chars(spec) ||
        !plain_chars(ref)) {
        *ret_why = "a repository has 1 to 2000 characters without blanks and no \"-\" in front";
    } else if (!ref_ok(ref)) {
        *ret_why = "what follows \"#\" is not the name of a branch, tag or commit";
    } else {
        *ret_why = url_of(a, spec, local, &url);
    }
    if (*ret_why) {
        return MU_E_INVALID;
    }
    mu_bytes name = name_of(url);
    if (!word(name)) {
        *ret_why = "the last part of the URL cannot be a folder's name";
        return MU_E_INVALID;
    }
    ret->url = mu_arena_dup(a, url).ptr;
    ret->ref = mu_arena_dup(a, ref).ptr;
    ret->name = mu_arena_dup(a, name).ptr;
    return ret->url && ret->ref && ret->name ? 0 : -ENOMEM;
}
