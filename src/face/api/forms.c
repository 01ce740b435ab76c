/* What texts of the sessions face must look like (village-control-plane.md 3.3, 4.2). */
#include "base/encode.h"
#include "face/api/api_int.h"
#include "proto/repo.h"

static bool every(mu_bytes t, const char *others, bool upper)
{
    for (size_t i = 0; i < t.len; i++) {
        char c = t.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (upper && c >= 'A' && c <= 'Z') ||
              (c && strchr(others, c)))) {
            return false;
        }
    }
    return true;
}

static bool is_hex(mu_bytes t)
{
    for (size_t i = 0; i < t.len; i++) {
        if (mu_hex_value(t.ptr[i]) < 0) {
            return false;
        }
    }
    return true;
}

/* --- variables --- */

/* They decide which programs and settings are used, or are said by the server and the runner. */
static bool reserved(mu_bytes name)
{
    static const char *const names[] = {
        "PATH",           "HOME",       "ENV",       "BASH_ENV",   "TASK_ID", "RUNNER_TOKEN",
        "RUNNER_API_KEY", "SESSION_ID", "DO_WS_URL", "JWT_SECRET", "REPO_URL"};
    static const char *const prefixes[] = {"LD_", "OZ_", "MUSTER_"};
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        if (mu_bytes_is(name, names[i])) {
            return true;
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(prefixes); i++) {
        if (mu_bytes_starts(name, mu_str(prefixes[i]))) {
            return true;
        }
    }
    return mu_bytes_starts(name, MU_B("GIT_")) && mu_bytes_find(name, MU_B("CONFIG")) >= 0;
}

static const char *refuse_env_name(mu_bytes t, const char **ret_why)
{
    if (t.len == 0 || t.len > 128 || !every(t, "_", true) || (t.ptr[0] >= '0' && t.ptr[0] <= '9')) {
        *ret_why =
            "is no name of a variable: a letter or _, then letters, digits and _, at most 128";
        return "invalid_format";
    }
    if (reserved(t)) {
        *ret_why = "is reserved";
        return "reserved";
    }
    return NULL;
}

/* --- repositories --- */

static bool starts_nocase(mu_bytes t, const char *prefix)
{
    mu_bytes p = mu_str(prefix);
    return t.len >= p.len && mu_bytes_eq_nocase(mu_bytes_head(t, p.len), p);
}

static const char *bad_repo(const char *why, const char **ret_why)
{
    *ret_why = why;
    return "invalid_url";
}

/* What stands before the host: of https nothing may, of ssh a name without a password. */
static bool has_credentials(mu_bytes rest, bool ssh)
{
    ptrdiff_t slash = mu_bytes_find_char(rest, '/');
    mu_bytes authority = mu_bytes_head(rest, slash < 0 ? rest.len : (size_t)slash);
    ptrdiff_t at = -1;
    for (size_t i = 0; i < authority.len; i++) {
        at = authority.ptr[i] == '@' ? (ptrdiff_t)i : at;
    }
    return at >= 0 && (!ssh || mu_bytes_find_char(mu_bytes_head(authority, (size_t)at), ':') >= 0);
}

/* user@host:path, as scp takes it. */
static bool like_scp(mu_bytes t)
{
    ptrdiff_t colon = mu_bytes_find_char(t, ':'), at = mu_bytes_find_char(t, '@');
    mu_bytes user = mu_bytes_head(t, at > 0 ? (size_t)at : 0);
    mu_bytes host =
        at > 0 && colon > at ? mu_bytes_of(t.ptr + at + 1, (size_t)(colon - at - 1)) : MU_B("");
    mu_bytes path = mu_bytes_from(t, colon < 0 ? t.len : (size_t)colon + 1);
    return user.len && every(user, "._-", true) && user.ptr[0] != '-' && host.len &&
           every(host, "._-", true) && host.ptr[0] != '-' && path.len && path.ptr[0] != ':';
}

static const char *refuse_repo(mu_bytes t, const char **ret_why)
{
    static const char *const schemes[] = {"https://", "ssh://", "git+ssh://"};
    struct mu_repo_spec spec;
    const char *why = NULL;
    if (mu_bytes_find_char(t, '#') >= 0 || mu_bytes_find_char(t, '?') >= 0) {
        return bad_repo("may have no \"?\" and no \"#\"; the branch is a field of its own",
                        ret_why);
    }
    if (mu_bytes_trim(t).len != t.len || mu_repo_spec_parse(t, &spec, &why) < 0) {
        return bad_repo(why ? why : "has blanks around it", ret_why);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(schemes); i++) {
        if (!starts_nocase(t, schemes[i])) {
            continue;
        }
        mu_bytes rest = mu_bytes_from(t, strlen(schemes[i]));
        ptrdiff_t slash = mu_bytes_find_char(rest, '/');
        if (has_credentials(rest, i > 0)) {
            return bad_repo("may hold no credentials: they belong into a variable", ret_why);
        }
        return slash > 0 && (size_t)slash + 1 < rest.len
                   ? NULL
                   : bad_repo("must name a host and a path", ret_why);
    }
    if (mu_bytes_find(t, MU_B("://")) >= 0 || !like_scp(t)) {
        return bad_repo("must be https://…, ssh://…, git+ssh://… or user@host:path", ret_why);
    }
    return NULL;
}

/* --- all --- */

static const char *refuse_as(bool wrong, const char *why, const char **ret_why)
{
    *ret_why = why;
    return wrong ? "invalid_format" : NULL;
}

const char *mu_form_refuse(enum mu_schema_form form, mu_bytes t, const char **ret_why)
{
    switch (form) {
    case MU_F_NONE:
        break;
    case MU_F_ID:
        return refuse_as(t.len < 1 || t.len > 128 || !every(t, "._:-", true),
                         "must be 1 to 128 of A-Z a-z 0-9 . _ : -", ret_why);
    case MU_F_FEATURE:
        return refuse_as(t.len < 1 || t.len > 64 || !every(t, "._:-", false),
                         "must be 1 to 64 of a-z 0-9 . _ : -", ret_why);
    case MU_F_HEX:
        return refuse_as(!is_hex(t), "must be hexadecimal digits", ret_why);
    case MU_F_REF:
        return refuse_as(t.len == 0 || t.len > 255 || !mu_repo_ref_ok(t),
                         "is no name of a branch or tag", ret_why);
    case MU_F_REPO:
        return refuse_repo(t, ret_why);
    case MU_F_ENV_NAME:
        return refuse_env_name(t, ret_why);
    case MU_F_LABEL:
        return refuse_as(t.len == 0 || mu_utf8_count(t) > 64, "must be 1 to 64 characters",
                         ret_why);
    }
    return NULL;
}

const char *mu_form_pattern(enum mu_schema_form form)
{
    switch (form) {
    case MU_F_ID:
        return "^[A-Za-z0-9._:-]{1,128}$";
    case MU_F_FEATURE:
        return "^[a-z0-9._:-]{1,64}$";
    case MU_F_HEX:
        return "^[0-9A-Fa-f]*$";
    case MU_F_REF:
        return "^[^\\x00-\\x20\\x7f~^:?*\\[\\\\./-][^\\x00-\\x20\\x7f~^:?*\\[\\\\]*$";
    case MU_F_ENV_NAME:
        return "^[A-Za-z_][A-Za-z0-9_]{0,127}$";
    case MU_F_LABEL:
        return "^[\\s\\S]{1,64}$";
    case MU_F_NONE:
    case MU_F_REPO:
        break;
    }
    return NULL;
}
