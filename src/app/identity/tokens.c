/* The file of allowed token hashes (OZ_TENANT_TOKENS_FILE). */
#include <errno.h>
#include <stdio.h>
#include <sys/types.h>

#include "app/identity/identity_int.h"

enum { TOKENS_MAX = 1000000 };

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct mu_digest));
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse(mu_bytes line, struct mu_digest *ret)
{
    if (line.len != 2 * MU_SHA256_LEN) {
        return false;
    }
    for (size_t i = 0; i < MU_SHA256_LEN; i++) {
        int high = nibble(line.ptr[2 * i]), low = nibble(line.ptr[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        ret->bytes[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

static void auto_close_file(FILE **f)
{
    if (*f) {
        fclose(*f);
    }
}

static int push(struct mu_digest **list, size_t *n, size_t *cap, const struct mu_digest *d)
{
    if (*n == *cap) {
        size_t more = *cap ? *cap * 2 : 64;
        struct mu_digest *p = mu_realloc(*list, more * sizeof *p);
        if (!p) {
            return -ENOMEM;
        }
        *list = p;
        *cap = more;
    }
    (*list)[(*n)++] = *d;
    return 0;
}

int mu_tokens_read(const char *path, struct mu_digest **ret, size_t *ret_n, struct mu_err *err)
{
    MU_CLEANUP(auto_close_file) FILE *f = fopen(path, "re");
    MU_AUTO_FREE struct mu_digest *list = NULL;
    size_t n = 0, cap = 0, number = 0;
    char line[256];
    if (!f) {
        int code = errno;
        return mu_err_set(err, -code, "OZ_TENANT_TOKENS_FILE: %s: %s", path, mu_err_text(-code));
    }
    while (fgets(line, sizeof line, f)) {
        struct mu_digest d;
        mu_bytes text = mu_bytes_trim(mu_str(line));
        number++;
        if (text.len == 0 || text.ptr[0] == '#') {
            continue;
        }
        if (!parse(text, &d)) {
            return mu_err_set(
                err, MU_E_INVALID,
                "OZ_TENANT_TOKENS_FILE: %s: line %zu is not the SHA-256 of a token (64 "
                "hexadecimal characters)",
                path, number);
        }
        if (n == TOKENS_MAX) {
            return mu_err_set(err, MU_E_TOO_LARGE, "OZ_TENANT_TOKENS_FILE: %s: more than %d lines",
                              path, TOKENS_MAX);
        }
        if (push(&list, &n, &cap, &d) < 0) {
            return mu_err_set(err, -ENOMEM, "OZ_TENANT_TOKENS_FILE: %s: out of memory", path);
        }
    }
    if (ferror(f)) {
        return mu_err_set(err, MU_E_IO, "OZ_TENANT_TOKENS_FILE: %s: cannot be read", path);
    }
    if (n) {
        qsort(list, n, sizeof *list, compare);
    }
    *ret = mu_steal(&list);
    *ret_n = n;
    return 0;
}

bool mu_tokens_has(const struct mu_digest *tokens, size_t n, const struct mu_digest *d)
{
    return n && bsearch(d, tokens, n, sizeof *tokens, compare);
}
